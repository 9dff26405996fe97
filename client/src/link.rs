//! One node as this client reaches it: its connection, whether it failed lately, and how a
//! request is said to it.
//!
//! In: a request as the pipeline knows it. Out: an outcome, typed errors. A reply too large for a
//! message comes back through `GetStream`, without the caller noticing. Absent: retries, and
//! which node to choose.

use crate::{error::Error, node_time::NodeTime, pipeline::Pipeline};
use bytes::{Bytes, BytesMut};
use merganser_proto::v1::{
    self, get_frame::Frame, kv_client::KvClient, pipeline_reply::Outcome, pipeline_request::Request,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Messages that this client takes, batches included. What is larger comes as a stream.
pub(crate) const MESSAGE_BYTES_MAX: usize = 80 << 20;
/// Sibling sets that this client puts together from a stream, all values counted.
const STREAMED_BYTES_MAX: usize = 256 << 20;
/// How long a node that failed is asked last.
const FAILING_FOR: Duration = Duration::from_secs(5);

/// Makes a channel of an endpoint.
#[derive(Clone)]
pub(crate) struct Connect(Arc<dyn Fn(Endpoint) -> Channel + Send + Sync>);

impl Connect {
    pub(crate) fn new(connect: impl Fn(Endpoint) -> Channel + Send + Sync + 'static) -> Connect {
        Connect(Arc::new(connect))
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connect(..)")
    }
}

/// A node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: Arc<str>,
    pub(crate) channel: Channel,
    /// Where the client is pipelined: the open stream, if any.
    pipeline: Option<Mutex<Option<Arc<Pipeline>>>>,
    failed: Mutex<Option<Instant>>,
    /// Held while it is asked for: many requests, one question.
    time: tokio::sync::Mutex<Option<NodeTime>>,
}

impl Link {
    /// Requires: inside a tokio runtime. Connects with the first request.
    pub(crate) fn new(
        address: Arc<str>,
        pipelined: bool,
        connect_timeout: Duration,
        connect: &Connect,
    ) -> Result<Link, Error> {
        let uri = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(uri).map_err(|error| Error::InvalidArgument {
            field: "address".into(),
            reason: format!("`{address}` is not HOST:PORT ({error})"),
        })?;
        let endpoint = endpoint
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            // Room for a value or two in flight per stream, so that 1 MiB needs no extra round trips.
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(8 << 20);
        let channel = (connect.0)(endpoint);
        let pipeline = pipelined.then(|| Mutex::new(None));
        Ok(Link { address, channel, pipeline, failed: Mutex::new(None), time: tokio::sync::Mutex::default() })
    }

    /// True for a while after a failure, so that others are asked first.
    pub(crate) fn failing(&self) -> bool {
        self.failed.lock().is_some_and(|at| at.elapsed() < FAILING_FOR)
    }

    /// Takes note of how a request to this node ended.
    pub(crate) fn note(&self, failed: bool) {
        *self.failed.lock() = failed.then(Instant::now);
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// One attempt, for which its caller waits until `limit` from now.
    pub(crate) async fn call(&self, mut request: Request, limit: Duration) -> Result<Outcome, Error> {
        let deadline = Instant::now() + limit;
        let Some(until) = until_of(&mut request) else { return self.say(request).await };
        *until = Some(self.moment(deadline).await?);
        match self.say(request.clone()).await {
            // Started again since it told its time, or told it with much delay.
            Err(Error::Late) if self.forget_time().await => {
                if let Some(until) = until_of(&mut request) {
                    *until = Some(self.moment(deadline).await?);
                }
                self.say(request).await
            }
            outcome => outcome,
        }
    }

    /// The node's own time at `deadline`, or a little before. Asks the node where nothing is known.
    pub(crate) async fn moment(&self, deadline: Instant) -> Result<v1::Moment, Error> {
        let mut time = self.time.lock().await;
        let known = match *time {
            Some(known) if !known.is_stale() => known,
            older => match (self.ask_time().await, older) {
                (Ok(told), _) => *time.insert(told),
                (Err(_), Some(older)) if !older.is_too_old() => older,
                (Err(error), _) => return Err(error),
            },
        };
        Ok(known.moment(deadline))
    }

    /// True: it will be asked for anew.
    pub(crate) async fn forget_time(&self) -> bool {
        self.time.lock().await.take().is_some()
    }

    async fn ask_time(&self) -> Result<NodeTime, Error> {
        let reply = self.kv().now(v1::NowRequest {}).await.map_err(|status| self.not_sent(&status))?;
        let told = reply.into_inner().moment;
        told.map(NodeTime::new).ok_or_else(|| Error::protocol("a node tells its time without a moment"))
    }

    /// As [`Link::error`], of a question before the request itself.
    fn not_sent(&self, status: &Status) -> Error {
        match self.error(status) {
            Error::Unavailable { node, reason, .. } => Error::Unavailable { node, reason, sent: false },
            other => other,
        }
    }

    async fn say(&self, request: Request) -> Result<Outcome, Error> {
        let get = match &request {
            Request::Get(get) => Some(get.clone()),
            _ => None,
        };
        let outcome = match &self.pipeline {
            Some(slot) => self.pipelined(slot, request).await,
            None => self.unary(request).await,
        };
        match (outcome, get) {
            (Err(error), Some(get)) if is_reply_too_large(&error) => {
                self.get_stream(get).await.map(Outcome::Get)
            }
            (outcome, _) => outcome,
        }
    }

    async fn unary(&self, request: Request) -> Result<Outcome, Error> {
        let mut kv = self.kv();
        let outcome = match request {
            Request::Get(get) => kv.get(get).await.map(|reply| Outcome::Get(reply.into_inner())),
            Request::Put(put) => kv.put(put).await.map(|reply| Outcome::Write(reply.into_inner())),
            Request::Delete(delete) => {
                kv.delete(delete).await.map(|reply| Outcome::Write(reply.into_inner()))
            }
            Request::Apply(apply) => kv.apply(apply).await.map(|reply| Outcome::Write(reply.into_inner())),
            Request::Query(query) => kv.query(query).await.map(|reply| Outcome::Query(reply.into_inner())),
        };
        outcome.map_err(|status| self.error(&status))
    }

    async fn pipelined(
        &self,
        slot: &Mutex<Option<Arc<Pipeline>>>,
        request: Request,
    ) -> Result<Outcome, Error> {
        let pipeline = {
            let mut slot = slot.lock();
            match &*slot {
                Some(open) if !open.is_closed() => Arc::clone(open),
                _ => {
                    let opened = Arc::new(Pipeline::open(Arc::clone(&self.address), self.kv()));
                    *slot = Some(Arc::clone(&opened));
                    opened
                }
            }
        };
        pipeline.call(request).await
    }

    /// A get whose reply comes in pieces.
    pub(crate) async fn get_stream(&self, get: v1::GetRequest) -> Result<v1::GetReply, Error> {
        let mut frames = self.kv().get_stream(get).await.map_err(|status| self.error(&status))?.into_inner();
        let mut assembly: Option<Assembly> = None;
        while let Some(frame) = frames.message().await.map_err(|status| self.error(&status))? {
            match (frame.frame, &mut assembly) {
                (Some(Frame::Header(header)), None) => assembly = Some(Assembly::new(header)),
                (Some(Frame::Chunk(chunk)), Some(assembly)) => assembly.add(&chunk)?,
                _ => return Err(Error::protocol("frames of a streamed get are out of order")),
            }
        }
        assembly.ok_or_else(|| Error::protocol("a streamed get without a header"))?.finish()
    }

    pub(crate) fn error(&self, status: &Status) -> Error {
        Error::from_status(&self.address, status)
    }
}

/// Where a write says until when somebody waits for it; a read need not.
pub(crate) fn until_of(request: &mut Request) -> Option<&mut Option<v1::Moment>> {
    match request {
        Request::Put(put) => Some(&mut put.until),
        Request::Delete(delete) => Some(&mut delete.until),
        Request::Apply(apply) => Some(&mut apply.until),
        Request::Get(_) | Request::Query(_) => None,
    }
}

/// True where the node, or our own decoder, finds the reply larger than a message may be.
pub(crate) fn is_reply_too_large(error: &Error) -> bool {
    match error {
        Error::TooLarge { what, .. } => what == "reply",
        Error::InvalidArgument { reason, .. } => reason.contains("decoded message length too large"),
        _ => false,
    }
}

/// A streamed reply while it comes in.
struct Assembly {
    reply: v1::GetReply,
    values: Vec<BytesMut>,
    complete: Vec<bool>,
    total: usize,
}

impl Assembly {
    fn new(reply: v1::GetReply) -> Assembly {
        let values: Vec<BytesMut> = reply.siblings.iter().map(|_| BytesMut::new()).collect();
        // A tombstone has no bytes, so no chunk need come for it.
        let complete = reply.siblings.iter().map(is_tombstone).collect();
        Assembly { reply, values, complete, total: 0 }
    }

    fn add(&mut self, chunk: &v1::get_frame::Chunk) -> Result<(), Error> {
        let index = chunk.index as usize;
        if self.complete.get(index) != Some(&false) {
            return Err(Error::protocol(format!("a chunk for sibling {index}, which has no more to come")));
        }
        self.total += chunk.bytes.len();
        if self.total > STREAMED_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "reply".into(),
                size_bytes: self.total as u64,
                limit_bytes: STREAMED_BYTES_MAX as u64,
            });
        }
        self.values[index].extend_from_slice(&chunk.bytes);
        self.complete[index] = chunk.last;
        Ok(())
    }

    fn finish(mut self) -> Result<v1::GetReply, Error> {
        if self.complete.contains(&false) {
            return Err(Error::protocol("a streamed get ended in the middle of a value"));
        }
        for (sibling, value) in self.reply.siblings.iter_mut().zip(self.values) {
            if !is_tombstone(sibling) {
                sibling.content = Some(v1::sibling::Content::Value(Bytes::from(value)));
            }
        }
        Ok(self.reply)
    }
}

fn is_tombstone(sibling: &v1::Sibling) -> bool {
    matches!(sibling.content, Some(v1::sibling::Content::Tombstone(_)))
}

#[cfg(test)]
#[path = "link_test.rs"]
mod link_test;
