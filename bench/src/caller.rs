//! How a request reaches a node: as a call of its own, or on a stream with others.
//!
//! In: a request. Out: its outcome, or why there is none, as text for people. As thin as can be,
//! because it shares the machine with the servers: no retries, no routing, no time limits of its
//! own (requests carry one). `merganser-client` has all that, and costs accordingly.

use anyhow::{Context, Result};
use merganser_proto::v1::{self, kv_client::KvClient, pipeline_reply::Outcome, pipeline_request::Request};
use std::{cell::RefCell, rc::Rc, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to one node.
pub(crate) enum Caller {
    /// A call for each request.
    Unary(KvClient<Channel>),
    /// One stream.
    Pipelined(Pipeline),
}

impl Caller {
    /// Requires: on a `LocalSet`.
    pub(crate) async fn connect(address: &str, pipelined: bool) -> Result<Caller> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(8 << 20)
            .connect()
            .await
            .with_context(|| format!("failed to connect to {address}"))?;
        let kv = KvClient::new(channel);
        Ok(if pipelined { Caller::Pipelined(Pipeline::open(kv)) } else { Caller::Unary(kv) })
    }

    pub(crate) async fn call(&self, request: Request) -> Result<Outcome, String> {
        match self {
            Caller::Unary(kv) => unary(kv.clone(), request).await,
            Caller::Pipelined(pipeline) => pipeline.call(request).await,
        }
    }
}

async fn unary(mut kv: KvClient<Channel>, request: Request) -> Result<Outcome, String> {
    let outcome = match request {
        Request::Get(get) => kv.get(get).await.map(|reply| Outcome::Get(reply.into_inner())),
        Request::Put(put) => kv.put(put).await.map(|reply| Outcome::Write(reply.into_inner())),
        Request::Delete(delete) => kv.delete(delete).await.map(|reply| Outcome::Write(reply.into_inner())),
        Request::Apply(apply) => kv.apply(apply).await.map(|reply| Outcome::Write(reply.into_inner())),
        Request::Query(query) => kv.query(query).await.map(|reply| Outcome::Query(reply.into_inner())),
    };
    outcome.map_err(|status| format!("{:?}: {}", status.code(), status.message()))
}

/// One stream in each direction.
pub(crate) struct Pipeline {
    queue: mpsc::UnboundedSender<v1::PipelineRequest>,
    waiting: Rc<RefCell<Waiting>>,
}

type Waiter = oneshot::Sender<Result<Outcome, String>>;

/// Who waits, by the id of the request: a place that is used again once its reply has come.
#[derive(Default)]
struct Waiting {
    places: Vec<Option<Waiter>>,
    free: Vec<usize>,
    closed: Option<String>,
}

impl Waiting {
    fn take_place(&mut self, waiter: Waiter) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(waiter);
                place
            }
            None => {
                self.places.push(Some(waiter));
                self.places.len() - 1
            }
        }
    }

    fn answer(&mut self, id: u64, outcome: Result<Outcome, String>) {
        let place = usize::try_from(id).unwrap_or(usize::MAX);
        if let Some(waiter) = self.places.get_mut(place).and_then(Option::take) {
            self.free.push(place);
            let _ = waiter.send(outcome);
        }
    }

    fn close(&mut self, reason: String) {
        for waiter in self.places.drain(..).flatten() {
            let _ = waiter.send(Err(reason.clone()));
        }
        self.closed = Some(reason);
    }
}

impl Pipeline {
    fn open(mut kv: KvClient<Channel>) -> Pipeline {
        let (queue, requests) = mpsc::unbounded_channel();
        let waiting: Rc<RefCell<Waiting>> = Rc::default();
        let reader = Rc::clone(&waiting);
        tokio::task::spawn_local(async move {
            let ended = match kv.pipeline(UnboundedReceiverStream::new(requests)).await {
                Ok(replies) => read(replies.into_inner(), &reader).await,
                Err(status) => status.message().to_owned(),
            };
            reader.borrow_mut().close(format!("the stream ended: {ended}"));
        });
        Pipeline { queue, waiting }
    }

    async fn call(&self, request: Request) -> Result<Outcome, String> {
        let (waiter, outcome) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting.borrow_mut();
            if let Some(reason) = &waiting.closed {
                return Err(reason.clone());
            }
            waiting.take_place(waiter) as u64
        };
        let message = v1::PipelineRequest { id, request: Some(request) };
        // Where the stream is gone, the reader answers everybody who waits.
        let _ = self.queue.send(message);
        outcome.await.unwrap_or_else(|_| Err("the stream ended".into()))
    }
}

async fn read(mut replies: tonic::Streaming<v1::PipelineReply>, waiting: &RefCell<Waiting>) -> String {
    loop {
        match replies.message().await {
            Ok(Some(reply)) => {
                let outcome = match reply.outcome {
                    Some(Outcome::Problem(problem)) => Err(format!("{}: {}", problem.code, problem.message)),
                    Some(outcome) => Ok(outcome),
                    None => Err("a reply without an outcome".into()),
                };
                waiting.borrow_mut().answer(reply.id, outcome);
            }
            Ok(None) => return "the node closed it".into(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_a_strange_id_wakes_nobody() {
        let mut waiting = Waiting::default();
        let (first, mut first_outcome) = oneshot::channel();
        let (second, mut second_outcome) = oneshot::channel();
        assert_eq!((waiting.take_place(first), waiting.take_place(second)), (0, 1));
        waiting.answer(7, Err("nobody's".into()));
        waiting.answer(u64::MAX, Err("nobody's".into()));
        waiting.answer(0, Err("the first's".into()));
        waiting.answer(0, Err("once more".into()));
        assert_eq!(first_outcome.try_recv().map_err(drop), Ok(Err("the first's".into())));
        let (third, _outcome) = oneshot::channel();
        assert_eq!(waiting.take_place(third), 0);
        waiting.close("gone".into());
        assert_eq!(second_outcome.try_recv().map_err(drop), Ok(Err("gone".into())));
    }
}
