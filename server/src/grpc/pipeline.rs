//! Many requests over one stream, answered in any order: the cheapest way in.
//!
//! ```text
//!   requests ──▶ reader ──▶ driver ──▶ outcomes, one wake a turn ──▶ replies
//!                  ▲                                                   │
//!                  └──────── a slot for each request in flight ◀───────┘
//! ```
//!
//! In: requests with ids. Out: replies with the same ids. A client that does not read its replies
//! is not read either, once its slots are taken. Absent: order.

use super::kv::{Answer, KvService};
use super::{convert, sizes};
use crate::driver::{Input, ReplyTo};
use merganser_core::request::{Outcome, Problem, Request};
use merganser_proto::v1::{PipelineReply, PipelineRequest, pipeline_reply, pipeline_request};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// Replies of a pipeline; ends when the requests have ended and all are answered.
pub(crate) struct Replies {
    kv: KvService,
    outcomes: mpsc::UnboundedReceiver<(u64, Outcome)>,
    slots: Arc<Semaphore>,
    /// Told last, if reading failed.
    failure: Option<oneshot::Receiver<Status>>,
}

/// Reads requests in a task of its own until they end, the node stops, or nobody reads replies.
pub(super) fn run(kv: KvService, requests: Streaming<PipelineRequest>) -> Replies {
    let (outcomes, replies) = mpsc::unbounded_channel();
    let (failed, failure) = oneshot::channel();
    let slots = Arc::new(Semaphore::new(kv.pipelined_max));
    let reader = read(kv.clone(), requests, outcomes, Arc::clone(&slots));
    tokio::spawn(async move {
        if let Err(status) = reader.await {
            let _ = failed.send(status);
        }
    });
    Replies { kv, outcomes: replies, slots, failure: Some(failure) }
}

async fn read(
    kv: KvService,
    mut requests: Streaming<PipelineRequest>,
    outcomes: mpsc::UnboundedSender<(u64, Outcome)>,
    slots: Arc<Semaphore>,
) -> Result<(), Status> {
    let mut stopping = kv.shared.stopping.clone();
    // Made once: each of them enters and leaves a list of waiters when it begins and ends.
    let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
    let mut unread = pin!(outcomes.closed());
    loop {
        let next = async {
            if let Ok(slot) = slots.acquire().await {
                // Given back when the reply is taken.
                slot.forget();
            }
            requests.message().await
        };
        let request = tokio::select! {
            biased;
            _ = &mut stopped => return Err(super::gone()),
            () = &mut unread => return Ok(()),
            request = next => request.map_err(|status| sizes::too_large(&status).unwrap_or(status))?,
        };
        let Some(PipelineRequest { id, request }) = request else { return Ok(()) };
        match decode(&kv, request) {
            Ok(request) => {
                let reply = ReplyTo::Pipeline { id, outcomes: outcomes.clone() };
                kv.shared.door.put(Input::Client { request, reply });
            }
            // Closed only if nobody reads: told by `closed` next time.
            Err(problem) => drop(outcomes.send((id, Outcome::Failed(problem)))),
        }
    }
}

fn decode(kv: &KvService, request: Option<pipeline_request::Request>) -> Result<Request, Problem> {
    match request {
        Some(pipeline_request::Request::Get(get)) => convert::get(get),
        Some(pipeline_request::Request::Put(put)) => convert::put(put, &kv.ids),
        Some(pipeline_request::Request::Delete(delete)) => convert::delete(delete, &kv.ids),
        Some(pipeline_request::Request::Apply(apply)) => convert::apply(apply, &kv.ids),
        Some(pipeline_request::Request::Query(query)) => convert::query(query),
        None => Err(Problem::InvalidArgument { field: "request", reason: "is missing".into() }),
    }
}

impl Stream for Replies {
    type Item = Result<PipelineReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(next) = self.outcomes.poll_recv(cx) else { return Poll::Pending };
        if let Some((id, outcome)) = next {
            self.slots.add_permits(1);
            let outcome = match self.kv.answer(outcome) {
                Answer::Get(reply) => pipeline_reply::Outcome::Get(reply),
                Answer::Write(reply) => pipeline_reply::Outcome::Write(reply),
                Answer::Query(reply) => pipeline_reply::Outcome::Query(reply),
                Answer::Problem(problem) => pipeline_reply::Outcome::Problem(problem),
            };
            return Poll::Ready(Some(Ok(PipelineReply { id, outcome: Some(outcome) })));
        }
        // All senders are gone: the reader has ended, and said why if it had to.
        let Some(failure) = &mut self.failure else { return Poll::Ready(None) };
        let Poll::Ready(told) = Pin::new(failure).poll(cx) else { return Poll::Pending };
        self.failure = None;
        Poll::Ready(told.ok().map(Err))
    }
}
