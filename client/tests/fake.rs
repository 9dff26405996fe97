//! A node that does what it is told.
//!
//! In: a script of answers. Out: the requests that came, in order. A node whose script is empty
//! answers as a healthy one would. Absent: any storage.

use futures::{Stream, StreamExt};
use merganser_client::proto::{
    self as v1, cluster_server, kv_server, pipeline_reply::Outcome, pipeline_request::Request as Asked,
    plugins_server, problem::Detail, write_item::Write, write_outcome,
};
use parking_lot::Mutex;
use prost::Message;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status, Streaming, transport::server::TcpIncoming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a node does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Problem(Code, Detail),
    Plain(Code),
    /// The pipeline breaks.
    Break,
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) address: String,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Asked>>,
    uploaded: Mutex<Vec<v1::UploadRequest>>,
    topology: Mutex<v1::TopologyReply>,
    /// Its own time stands still, but for the tests that move it.
    now: Mutex<v1::Moment>,
    /// How often it was asked for that.
    told: AtomicU32,
}

/// Nodes of one cluster, each with the whole topology.
pub(crate) async fn nodes<const COUNT: usize>(names: [&'static str; COUNT]) -> [Node; COUNT] {
    let mut started = Vec::new();
    for name in names {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = Node { name, address, inner: Arc::default() };
        let server = tonic::transport::Server::builder()
            .add_service(kv_server::KvServer::new(node.clone()))
            .add_service(cluster_server::ClusterServer::new(node.clone()))
            .add_service(plugins_server::PluginsServer::new(node.clone()));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(server.serve_with_incoming(incoming));
        started.push(node);
    }
    let topology = topology(started.iter().map(|node| (node.name, node.address.clone())));
    for node in &started {
        *node.inner.topology.lock() = topology.clone();
    }
    started.try_into().unwrap_or_else(|_| unreachable!("as many as names"))
}

pub(crate) fn topology(nodes: impl Iterator<Item = (&'static str, String)>) -> v1::TopologyReply {
    let nodes = nodes.map(|(name, client_address)| v1::TopologyNode {
        name: name.into(),
        client_address,
        zone: String::new(),
        weight: 1.0,
        vnodes: 64,
        up: true,
    });
    let keyspace = v1::TopologyKeyspace { name: "carts".into(), n: 1, id: 4 };
    v1::TopologyReply { layout_version: 3, nodes: nodes.collect(), keyspaces: vec![keyspace] }
}

impl Node {
    pub(crate) fn will(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inner.script.lock().extend(answers);
    }

    pub(crate) fn seen(&self) -> Vec<Asked> {
        self.inner.seen.lock().clone()
    }

    pub(crate) fn uploaded(&self) -> Vec<v1::UploadRequest> {
        self.inner.uploaded.lock().clone()
    }

    pub(crate) fn tells(&self, topology: v1::TopologyReply) {
        *self.inner.topology.lock() = topology;
    }

    /// It is started again.
    pub(crate) fn boots(&self) {
        let session = self.now().session + 1;
        *self.inner.now.lock() = v1::Moment { session, running_ms: 0 };
    }

    pub(crate) fn now(&self) -> v1::Moment {
        *self.inner.now.lock()
    }

    pub(crate) fn told(&self) -> u32 {
        self.inner.told.load(Ordering::Relaxed)
    }

    /// Notes the request; answers by the script.
    fn answer(&self, asked: Asked) -> Result<Outcome, Answer> {
        let until = match &asked {
            Asked::Put(put) => put.until,
            Asked::Delete(delete) => delete.until,
            Asked::Apply(apply) => apply.until,
            Asked::Get(_) | Asked::Query(_) => None,
        };
        if until.is_some_and(|until| until.session != self.now().session) {
            return Err(Answer::Problem(Code::Aborted, Detail::Late(v1::Late {})));
        }
        self.inner.seen.lock().push(asked.clone());
        if let Some(answer) = self.inner.script.lock().pop_front() {
            return Err(answer);
        }
        let count = self.inner.seen.lock().len() as u64;
        let context = || format!("{}-{count}", self.name).into_bytes().into();
        let acks = Some(v1::Acks { replicas: vec![self.name.into()], needed: 1, sloppy: false });
        Ok(match asked {
            Asked::Get(_) => Outcome::Get(v1::GetReply {
                state: v1::State::Found as i32,
                siblings: vec![sibling("found")],
                context: context(),
                acks,
                ..Default::default()
            }),
            Asked::Query(_) => Outcome::Query(v1::QueryReply {
                state: v1::State::Found as i32,
                result: "42".into(),
                context: context(),
                acks,
                ..Default::default()
            }),
            Asked::Put(_) | Asked::Delete(_) | Asked::Apply(_) => Outcome::Write(v1::WriteReply {
                dot: Some(v1::Dot { actor: 5, counter: count }),
                context: context(),
                acks,
                siblings: 1,
                ..Default::default()
            }),
        })
    }

    fn unary(&self, asked: Asked) -> Result<Outcome, Status> {
        self.answer(asked).map_err(|answer| match answer {
            Answer::Problem(code, detail) => status(&problem(code, detail)),
            Answer::Plain(code) => Status::new(code, "scripted"),
            Answer::Break => Status::unavailable("broken"),
        })
    }

    fn write(&self, asked: Asked) -> Result<Response<v1::WriteReply>, Status> {
        match self.unary(asked)? {
            Outcome::Write(reply) => Ok(Response::new(reply)),
            _ => unreachable!("a write is answered by a write's reply"),
        }
    }
}

pub(crate) fn sibling(value: &'static str) -> v1::Sibling {
    v1::Sibling {
        content: Some(v1::sibling::Content::Value(value.into())),
        dots: vec![v1::Dot { actor: 5, counter: 1 }],
        ..Default::default()
    }
}

fn problem(code: Code, detail: Detail) -> v1::Problem {
    v1::Problem { code: code as u32, message: "scripted".into(), detail: Some(detail) }
}

fn status(problem: &v1::Problem) -> Status {
    let any = prost_types::Any {
        type_url: "type.googleapis.com/merganser.v1.Problem".into(),
        value: problem.encode_to_vec(),
    };
    let details =
        tonic_types::Status { code: problem.code as i32, message: String::new(), details: vec![any] };
    Status::with_details(Code::from(problem.code as i32), "scripted", details.encode_to_vec().into())
}

fn outcome(answer: Result<Outcome, Answer>) -> Outcome {
    match answer {
        Ok(outcome) => outcome,
        Err(Answer::Problem(code, detail)) => Outcome::Problem(problem(code, detail)),
        Err(Answer::Plain(code)) => Outcome::Problem(v1::Problem { code: code as u32, ..Default::default() }),
        Err(Answer::Break) => unreachable!("only a pipeline can break"),
    }
}

#[tonic::async_trait]
impl kv_server::Kv for Node {
    type GetStreamStream = Answers<v1::GetFrame>;
    type PipelineStream = Answers<v1::PipelineReply>;

    async fn now(&self, _: Request<v1::NowRequest>) -> Result<Response<v1::NowReply>, Status> {
        self.inner.told.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(v1::NowReply { moment: Some(*self.inner.now.lock()) }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetReply>, Status> {
        match self.unary(Asked::Get(request.into_inner()))? {
            Outcome::Get(reply) => Ok(Response::new(reply)),
            _ => unreachable!("a get is answered by a get's reply"),
        }
    }

    async fn get_stream(
        &self,
        _: Request<v1::GetRequest>,
    ) -> Result<Response<Answers<v1::GetFrame>>, Status> {
        use v1::get_frame::{Chunk, Frame};
        let header = v1::GetReply {
            state: v1::State::Found as i32,
            siblings: vec![v1::Sibling::default(); 2],
            context: "streamed".into(),
            ..Default::default()
        };
        let chunk =
            |index, bytes: &'static str, last| Frame::Chunk(Chunk { index, bytes: bytes.into(), last });
        let frames = [
            Frame::Header(header),
            chunk(0, "he", false),
            chunk(1, "wor", false),
            chunk(0, "llo", true),
            chunk(1, "ld", true),
        ];
        let frames = frames.map(|frame| Ok(v1::GetFrame { frame: Some(frame) }));
        Ok(Response::new(futures::stream::iter(frames).boxed()))
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::WriteReply>, Status> {
        self.write(Asked::Put(request.into_inner()))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteReply>, Status> {
        self.write(Asked::Delete(request.into_inner()))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::WriteReply>, Status> {
        self.write(Asked::Apply(request.into_inner()))
    }

    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryReply>, Status> {
        match self.unary(Asked::Query(request.into_inner()))? {
            Outcome::Query(reply) => Ok(Response::new(reply)),
            _ => unreachable!("a query is answered by a query's reply"),
        }
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetReply>, Status> {
        let items = request.into_inner().items.into_iter().map(|get| {
            let outcome = match outcome(self.answer(Asked::Get(get))) {
                Outcome::Get(reply) => v1::get_outcome::Outcome::Reply(reply),
                Outcome::Problem(problem) => v1::get_outcome::Outcome::Problem(problem),
                _ => unreachable!("a get is answered by a get's reply"),
            };
            v1::GetOutcome { outcome: Some(outcome) }
        });
        Ok(Response::new(v1::BatchGetReply { items: items.collect() }))
    }

    async fn batch_write(
        &self,
        request: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::BatchWriteReply>, Status> {
        let items = request.into_inner().items.into_iter().map(|item| {
            let asked = match item.write.expect("a client leaves no item empty") {
                Write::Put(put) => Asked::Put(put),
                Write::Delete(delete) => Asked::Delete(delete),
                Write::Apply(apply) => Asked::Apply(apply),
            };
            let outcome = match outcome(self.answer(asked)) {
                Outcome::Write(reply) => write_outcome::Outcome::Reply(reply),
                Outcome::Problem(problem) => write_outcome::Outcome::Problem(problem),
                _ => unreachable!("a write is answered by a write's reply"),
            };
            v1::WriteOutcome { outcome: Some(outcome) }
        });
        Ok(Response::new(v1::BatchWriteReply { items: items.collect() }))
    }

    /// Answers pairs of requests in reverse order, so that ids matter; a lone one at once.
    async fn pipeline(
        &self,
        request: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Answers<v1::PipelineReply>>, Status> {
        let node = self.clone();
        let replies = request.into_inner().ready_chunks(2).flat_map(move |mut requests| {
            requests.reverse();
            let replies: Vec<_> = requests
                .into_iter()
                .map(|request| {
                    let request = request?;
                    let asked = request.request.expect("a client leaves no request empty");
                    match node.answer(asked) {
                        Err(Answer::Break) => Err(Status::unavailable("broken")),
                        answer => Ok(v1::PipelineReply { id: request.id, outcome: Some(outcome(answer)) }),
                    }
                })
                .collect();
            futures::stream::iter(replies)
        });
        Ok(Response::new(replies.boxed()))
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Node {
    type TopologyStream = Answers<v1::TopologyReply>;

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        Ok(Response::new(v1::StatusReply { node: self.name.into(), ..Default::default() }))
    }

    async fn hints(&self, _: Request<v1::HintsRequest>) -> Result<Response<v1::HintsReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn repair(&self, _: Request<v1::RepairRequest>) -> Result<Response<v1::RepairReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn collection(
        &self,
        _: Request<v1::CollectionRequest>,
    ) -> Result<Response<v1::CollectionReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn hot_keys(&self, _: Request<v1::HotKeysRequest>) -> Result<Response<v1::HotKeysReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn topology(
        &self,
        _: Request<v1::TopologyRequest>,
    ) -> Result<Response<Answers<v1::TopologyReply>>, Status> {
        let first = self.inner.topology.lock().clone();
        let stream = futures::stream::iter([Ok(first)]).chain(futures::stream::pending());
        Ok(Response::new(stream.boxed()))
    }
}

#[tonic::async_trait]
impl plugins_server::Plugins for Node {
    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            self.inner.uploaded.lock().push(part);
        }
        Ok(Response::new(v1::UploadReply { ready: vec![self.name.into()], ..Default::default() }))
    }

    async fn get(&self, _: Request<v1::GetPluginRequest>) -> Result<Response<v1::GetPluginReply>, Status> {
        Err(Status::not_found("no plugin is called so"))
    }

    async fn list(
        &self,
        _: Request<v1::ListPluginsRequest>,
    ) -> Result<Response<v1::ListPluginsReply>, Status> {
        Ok(Response::new(v1::ListPluginsReply::default()))
    }

    async fn remove(
        &self,
        _: Request<v1::RemovePluginRequest>,
    ) -> Result<Response<v1::RemovePluginReply>, Status> {
        Err(Status::failed_precondition("a keyspace refers to it"))
    }
}
