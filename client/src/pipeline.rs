//! All requests to one node over one stream in each direction.
//!
//! ```text
//!  call ──▶ waiting[id] = oneshot ──▶ queue ──▶ Kv.Pipeline ──▶ node
//!    ▲                                                            │
//!    └────────────── waiting.remove(id) ◀── reader task ◀─────────┘   any order
//! ```
//!
//! In: requests. Out: their outcomes. When the stream ends, everybody who waits hears of it, and
//! the next request opens another one. Absent: retries.

use crate::error::Error;
use merganser_proto::v1::{self, kv_client::KvClient, pipeline_reply::Outcome, pipeline_request::Request};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Requests that wait for the connection to take them.
const QUEUE_MAX: usize = 1024;

type Waiter = oneshot::Sender<Result<Outcome, Error>>;

/// One stream.
#[derive(Debug)]
pub(crate) struct Pipeline {
    address: Arc<str>,
    queue: mpsc::Sender<v1::PipelineRequest>,
    waiting: Arc<Mutex<Waiting>>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    by_id: HashMap<u64, Waiter>,
    /// Why the stream ended; from then on nobody may begin to wait.
    closed: Option<Error>,
}

impl Pipeline {
    /// Requires: inside a tokio runtime. The stream lives until it fails or the pipeline is dropped.
    pub(crate) fn open(address: Arc<str>, mut kv: KvClient<Channel>) -> Pipeline {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let (reader, asked) = (Arc::clone(&waiting), Arc::clone(&address));
        tokio::spawn(async move {
            let ended = match kv.pipeline(ReceiverStream::new(requests)).await {
                Ok(replies) => read(&address, replies.into_inner(), &reader).await,
                Err(status) => Error::from_status(&address, &status),
            };
            close(&address, &reader, ended);
        });
        Pipeline { address: asked, queue, waiting, next_id: AtomicU64::new(1) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.lock().closed.is_some()
    }

    pub(crate) async fn call(&self, request: Request) -> Result<Outcome, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (waiter, outcome) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if let Some(error) = &waiting.closed {
                return Err(error.clone());
            }
            waiting.by_id.insert(id, waiter);
        }
        // A caller who gives up leaves nothing behind.
        let _leave = Leave { waiting: &self.waiting, id };
        let message = v1::PipelineRequest { id, request: Some(request) };
        if self.queue.send(message).await.is_err() {
            tracing::debug!("the pipeline closed while a request was queued");
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(lost(&self.address, "the stream was closed")),
        }
    }
}

struct Leave<'a> {
    waiting: &'a Mutex<Waiting>,
    id: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.waiting.lock().by_id.remove(&self.id);
    }
}

/// Hands out replies until the stream ends; says why it did.
async fn read(
    address: &str,
    mut replies: tonic::Streaming<v1::PipelineReply>,
    waiting: &Mutex<Waiting>,
) -> Error {
    loop {
        match replies.message().await {
            Ok(Some(reply)) => {
                // Nobody waits any more: its caller gave up.
                let Some(waiter) = waiting.lock().by_id.remove(&reply.id) else { continue };
                let outcome = match reply.outcome {
                    Some(Outcome::Problem(problem)) => Err(Error::from_problem(problem)),
                    Some(outcome) => Ok(outcome),
                    None => Err(Error::protocol("a pipelined reply without an outcome")),
                };
                let _ = waiter.send(outcome);
            }
            Ok(None) => return lost(address, "the node closed the stream"),
            Err(status) => return Error::from_status(address, &status),
        }
    }
}

fn close(address: &str, waiting: &Mutex<Waiting>, ended: Error) {
    // However the stream ended, for a request in flight it is a connection lost: a status of the
    // stream says nothing about any one request.
    let ended = match ended {
        Error::Unavailable { .. } => ended,
        other => lost(address, &other.what()),
    };
    let mut waiters: Vec<(u64, Waiter)> = {
        let mut waiting = waiting.lock();
        waiting.closed = Some(ended.clone());
        waiting.by_id.drain().collect()
    };
    // In the order in which they came.
    waiters.sort_unstable_by_key(|(id, _)| *id);
    for (_, waiter) in waiters {
        let _ = waiter.send(Err(ended.clone()));
    }
}

fn lost(node: &str, reason: &str) -> Error {
    Error::Unavailable { node: node.into(), reason: reason.into(), sent: true }
}
