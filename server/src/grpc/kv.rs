//! The Kv service: single requests, batches, streamed replies.
//!
//! In: messages. Out: replies or typed problems, each item of a batch its own. Absent: pipelines,
//! which have a file of their own.

use super::convert::{self, RequestIds};
use super::sizes::{BATCH_ITEMS_MAX, BATCH_REPLY_BYTES_MAX, CHUNK_BYTES, REPLY_BYTES_MAX};
use super::{Shared, gone, pipeline, problem};
use crate::driver::{Input, ReplyTo};
use merganser_core::moment::Moment;
use merganser_core::request::{Outcome, Problem, Request};
use merganser_proto::v1::kv_server::Kv;
use merganser_proto::v1::{
    self, ApplyRequest, BatchGetReply, BatchGetRequest, BatchWriteReply, BatchWriteRequest, DeleteRequest,
    GetFrame, GetReply, GetRequest, NowReply, NowRequest, PipelineRequest, PutRequest, QueryReply,
    QueryRequest, WriteReply, get_frame, get_outcome, sibling, write_item, write_outcome,
};
use prost::Message;
use std::sync::Arc;
use tokio::sync::oneshot;
use tonic::{Request as Call, Response, Status, Streaming};

/// See the head of this file.
#[derive(Clone)]
pub(crate) struct KvService {
    pub(super) shared: Shared,
    pub(super) ids: Arc<RequestIds>,
    pub(super) pipelined_max: usize,
}

/// What became of a request, as it is said on the wire.
pub(super) enum Answer {
    Get(GetReply),
    Write(WriteReply),
    Query(QueryReply),
    Problem(v1::Problem),
}

impl KvService {
    pub(crate) fn new(shared: Shared, pipelined_max: usize, seed: [u8; 32]) -> KvService {
        KvService { shared, ids: Arc::new(RequestIds::new(seed)), pipelined_max }
    }

    /// Asks the driver.
    async fn ask(&self, request: Result<Request, Problem>) -> Result<Outcome, Status> {
        match request {
            Ok(request) => self.shared.door.ask(request).await.ok_or_else(gone),
            Err(problem) => Ok(Outcome::Failed(problem)),
        }
    }

    /// An outcome as it is said on the wire, however large.
    fn say(&self, outcome: Outcome) -> Answer {
        let directory = &self.shared.directory;
        match outcome {
            Outcome::Got(reply) => Answer::Get(convert::got(reply, directory)),
            Outcome::Wrote(reply) => Answer::Write(convert::wrote(reply, directory)),
            Outcome::Queried(reply) => Answer::Query(convert::queried(reply, directory)),
            Outcome::Failed(problem) => Answer::Problem(problem::of(&problem, directory)),
        }
    }

    /// As `say`; a reply that is larger than a message may be becomes a problem.
    pub(super) fn answer(&self, outcome: Outcome) -> Answer {
        let answer = self.say(outcome);
        let size = match &answer {
            Answer::Get(reply) => reply.encoded_len(),
            Answer::Query(reply) => reply.encoded_len(),
            Answer::Write(_) | Answer::Problem(_) => 0,
        };
        if size <= REPLY_BYTES_MAX {
            answer
        } else {
            Answer::Problem(self.reply_too_large(size, REPLY_BYTES_MAX))
        }
    }

    fn reply_too_large(&self, size: usize, limit: usize) -> v1::Problem {
        let problem = Problem::TooLarge { what: "reply", size_bytes: size as u64, limit_bytes: limit as u64 };
        let mut problem = problem::of(&problem, &self.shared.directory);
        problem.message.push_str("; get it with GetStream");
        problem
    }

    async fn write(&self, request: Result<Request, Problem>) -> Result<Response<WriteReply>, Status> {
        match self.answer(self.ask(request).await?) {
            Answer::Write(reply) => Ok(Response::new(reply)),
            answer => Err(unexpected(answer)),
        }
    }

    /// Hands all items to the driver at once, then waits for each.
    async fn ask_all(
        &self,
        items: impl ExactSizeIterator<Item = Result<Request, Problem>>,
    ) -> Result<Vec<Outcome>, Status> {
        if items.len() > BATCH_ITEMS_MAX {
            let reason = format!("{} of them; {BATCH_ITEMS_MAX} at most", items.len());
            return Err(problem::invalid("items", reason));
        }
        let asked: Vec<_> = items
            .map(|item| {
                item.map(|request| {
                    let (reply, outcome) = oneshot::channel();
                    self.shared.door.put(Input::Client { request, reply: ReplyTo::Call(reply) });
                    outcome
                })
            })
            .collect();
        let mut outcomes = Vec::with_capacity(asked.len());
        for item in asked {
            outcomes.push(match item {
                Ok(outcome) => outcome.await.map_err(|_| gone())?,
                Err(problem) => Outcome::Failed(problem),
            });
        }
        Ok(outcomes)
    }
}

/// The status of an answer that is not the reply.
fn unexpected(answer: Answer) -> Status {
    match answer {
        Answer::Problem(problem) => problem::status(problem),
        _ => Status::internal("core answered another question"),
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    type GetStreamStream = tokio_stream::Iter<Frames>;
    type PipelineStream = pipeline::Replies;

    async fn now(&self, _: Call<NowRequest>) -> Result<Response<NowReply>, Status> {
        let Moment { session, running_ms } = self.shared.door.now().await.ok_or_else(gone)?;
        Ok(Response::new(NowReply { moment: Some(v1::Moment { session, running_ms }) }))
    }

    async fn get(&self, call: Call<GetRequest>) -> Result<Response<GetReply>, Status> {
        match self.answer(self.ask(convert::get(call.into_inner())).await?) {
            Answer::Get(reply) => Ok(Response::new(reply)),
            answer => Err(unexpected(answer)),
        }
    }

    async fn get_stream(&self, call: Call<GetRequest>) -> Result<Response<Self::GetStreamStream>, Status> {
        match self.say(self.ask(convert::get(call.into_inner())).await?) {
            Answer::Get(reply) => Ok(Response::new(tokio_stream::iter(Frames::new(reply)))),
            answer => Err(unexpected(answer)),
        }
    }

    async fn put(&self, call: Call<PutRequest>) -> Result<Response<WriteReply>, Status> {
        self.write(convert::put(call.into_inner(), &self.ids)).await
    }

    async fn delete(&self, call: Call<DeleteRequest>) -> Result<Response<WriteReply>, Status> {
        self.write(convert::delete(call.into_inner(), &self.ids)).await
    }

    async fn apply(&self, call: Call<ApplyRequest>) -> Result<Response<WriteReply>, Status> {
        self.write(convert::apply(call.into_inner(), &self.ids)).await
    }

    async fn query(&self, call: Call<QueryRequest>) -> Result<Response<QueryReply>, Status> {
        match self.answer(self.ask(convert::query(call.into_inner())).await?) {
            Answer::Query(reply) => Ok(Response::new(reply)),
            answer => Err(unexpected(answer)),
        }
    }

    async fn batch_get(&self, call: Call<BatchGetRequest>) -> Result<Response<BatchGetReply>, Status> {
        let requests = call.into_inner().items.into_iter().map(convert::get);
        let mut room = BATCH_REPLY_BYTES_MAX;
        let mut item = |outcome| {
            let outcome = match self.answer(outcome) {
                Answer::Get(reply) => match room.checked_sub(reply.encoded_len()) {
                    Some(rest) => {
                        room = rest;
                        get_outcome::Outcome::Reply(reply)
                    }
                    None => {
                        let size = reply.encoded_len();
                        get_outcome::Outcome::Problem(self.reply_too_large(size, room))
                    }
                },
                Answer::Problem(problem) => get_outcome::Outcome::Problem(problem),
                answer => return Err(unexpected(answer)),
            };
            Ok(v1::GetOutcome { outcome: Some(outcome) })
        };
        let outcomes = self.ask_all(requests).await?.into_iter();
        Ok(Response::new(BatchGetReply { items: outcomes.map(&mut item).collect::<Result<_, Status>>()? }))
    }

    async fn batch_write(&self, call: Call<BatchWriteRequest>) -> Result<Response<BatchWriteReply>, Status> {
        let requests = call.into_inner().items.into_iter().map(|item| match item.write {
            Some(write_item::Write::Put(put)) => convert::put(put, &self.ids),
            Some(write_item::Write::Delete(delete)) => convert::delete(delete, &self.ids),
            Some(write_item::Write::Apply(apply)) => convert::apply(apply, &self.ids),
            None => Err(Problem::InvalidArgument { field: "items", reason: "an item says no write".into() }),
        });
        let item = |outcome| {
            let outcome = match self.answer(outcome) {
                Answer::Write(reply) => write_outcome::Outcome::Reply(reply),
                Answer::Problem(problem) => write_outcome::Outcome::Problem(problem),
                answer => return Err(unexpected(answer)),
            };
            Ok(v1::WriteOutcome { outcome: Some(outcome) })
        };
        let outcomes = self.ask_all(requests).await?.into_iter();
        Ok(Response::new(BatchWriteReply { items: outcomes.map(item).collect::<Result<_, Status>>()? }))
    }

    async fn pipeline(
        &self,
        call: Call<Streaming<PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        Ok(Response::new(pipeline::run(self.clone(), call.into_inner())))
    }
}

/// The frames of a streamed get: the header, then each value in slices that share its bytes.
pub(crate) struct Frames {
    header: Option<GetReply>,
    values: std::vec::IntoIter<(u32, bytes::Bytes)>,
    value: Option<(u32, bytes::Bytes)>,
}

impl Frames {
    fn new(mut reply: GetReply) -> Frames {
        let mut values = Vec::new();
        for (index, sibling) in (0..).zip(&mut reply.siblings) {
            if let Some(sibling::Content::Value(value)) = &mut sibling.content {
                values.push((index, std::mem::take(value)));
                sibling.content = None;
            }
        }
        Frames { header: Some(reply), values: values.into_iter(), value: None }
    }
}

impl Iterator for Frames {
    type Item = Result<GetFrame, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(header) = self.header.take() {
            return Some(Ok(GetFrame { frame: Some(get_frame::Frame::Header(header)) }));
        }
        let (index, mut rest) = self.value.take().or_else(|| self.values.next())?;
        let bytes = rest.split_to(rest.len().min(CHUNK_BYTES));
        let last = rest.is_empty();
        if !last {
            self.value = Some((index, rest));
        }
        let chunk = get_frame::Chunk { index, bytes, last };
        Some(Ok(GetFrame { frame: Some(get_frame::Frame::Chunk(chunk)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_streamed_reply_has_one_header_and_every_value_in_slices_of_its_own_bytes() {
        let sibling = |content| v1::Sibling { content: Some(content), ..Default::default() };
        let large = Bytes::from(vec![7; CHUNK_BYTES + 1]);
        let reply = GetReply {
            siblings: vec![
                sibling(sibling::Content::Value(large.clone())),
                sibling(sibling::Content::Tombstone(true)),
                sibling(sibling::Content::Value(Bytes::new())),
            ],
            ..GetReply::default()
        };
        let frames: Vec<_> = Frames::new(reply).map(|frame| frame.unwrap().frame.unwrap()).collect();
        let get_frame::Frame::Header(header) = &frames[0] else { panic!("the header comes first") };
        let contents: Vec<_> = header.siblings.iter().map(|sibling| sibling.content.is_some()).collect();
        assert_eq!(contents, [false, true, false]);
        let chunks: Vec<_> = frames[1..]
            .iter()
            .map(|frame| match frame {
                get_frame::Frame::Chunk(chunk) => (chunk.index, chunk.bytes.len(), chunk.last),
                get_frame::Frame::Header(_) => panic!("a second header"),
            })
            .collect();
        assert_eq!(chunks, [(0, CHUNK_BYTES, false), (0, 1, true), (2, 0, true)]);
        let get_frame::Frame::Chunk(first) = &frames[1] else { panic!("a chunk") };
        assert_eq!(first.bytes.as_ptr(), large.as_ptr());
    }
}
