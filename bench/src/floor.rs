//! The floor: a server that understands the store's messages and stores nothing.
//!
//! In: the same requests. Out: replies of the same size. One thread and TCP_NODELAY, as a node
//! has. What it costs is what gRPC alone costs on this machine in this run, with whatever else
//! runs on it. It ends when its standard input does, so that it cannot outlive the bench.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use merganser_proto::v1::{
    self,
    kv_server::{Kv, KvServer},
    pipeline_reply::Outcome,
    pipeline_request::Request as Asked,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    pin::Pin,
    process::{Child, Command, Stdio},
};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

/// The floor as a child process.
pub(crate) struct Floor {
    child: Child,
    pub(crate) address: String,
}

impl Floor {
    /// Starts this program again, as a floor whose gets answer with `value_bytes`.
    pub(crate) fn start(executable: &Path, value_bytes: usize) -> Result<Floor> {
        let mut child = Command::new(executable)
            .args(["floor", &value_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the floor")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("failed to hear from the floor")?;
        }
        let floor = Floor { child, address: line.trim().to_owned() };
        if floor.address.is_empty() {
            bail!("the floor ended at once");
        }
        Ok(floor)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's whole life.
pub(crate) async fn serve(value_bytes: usize) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    std::thread::spawn(|| {
        // Whatever ends the reading, nobody holds the other end any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let echo = Echo { value: vec![7; value_bytes].into() };
    tonic::transport::Server::builder()
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(KvServer::new(echo))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

struct Echo {
    value: Bytes,
}

impl Echo {
    fn answer(&self, request: Asked) -> Outcome {
        match request {
            Asked::Get(_) => Outcome::Get(got(self.value.clone())),
            Asked::Query(query) => Outcome::Query(queried(query.path)),
            Asked::Put(_) | Asked::Delete(_) | Asked::Apply(_) => Outcome::Write(written()),
        }
    }
}

/// About what a node says: a dot, a context of some 60 bytes, two names.
fn written() -> v1::WriteReply {
    let dot = v1::Dot { actor: u64::MAX, counter: 1 };
    v1::WriteReply {
        dot: Some(dot),
        context: context(),
        acks: Some(acks()),
        siblings: 1,
        unvalidated: String::new(),
    }
}

fn got(value: Bytes) -> v1::GetReply {
    let sibling = v1::Sibling {
        content: Some(v1::sibling::Content::Value(value)),
        dots: vec![v1::Dot { actor: u64::MAX, counter: 1 }],
        stamp: Some(v1::Stamp { millis: 1, logical: 1 }),
        content_type: String::new(),
        receipt: None,
        apart: String::new(),
        context: Bytes::new(),
    };
    v1::GetReply {
        state: v1::State::Found as i32,
        siblings: vec![sibling],
        context: context(),
        resolution: None,
        acks: Some(acks()),
    }
}

fn queried(result: Bytes) -> v1::QueryReply {
    v1::QueryReply {
        state: v1::State::Found as i32,
        result,
        context: Bytes::new(),
        acks: None,
        resolution: None,
    }
}

fn context() -> Bytes {
    Bytes::from_static(&[7; 60])
}

fn acks() -> v1::Acks {
    v1::Acks { replicas: vec!["a".into(), "b".into()], needed: 2, sloppy: false }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the floor answers gets, puts, queries and pipelines"))
}

#[tonic::async_trait]
impl Kv for Echo {
    type GetStreamStream = Replies<v1::GetFrame>;
    type PipelineStream = Replies<v1::PipelineReply>;

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetReply>, Status> {
        Ok(Response::new(got(self.value.clone())))
    }

    async fn put(&self, _: Request<v1::PutRequest>) -> Result<Response<v1::WriteReply>, Status> {
        Ok(Response::new(written()))
    }

    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryReply>, Status> {
        Ok(Response::new(queried(request.into_inner().path)))
    }

    async fn pipeline(
        &self,
        requests: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let echo = Echo { value: self.value.clone() };
        let replies = requests.into_inner().map(move |request| {
            let request = request?;
            let outcome = request.request.map(|asked| echo.answer(asked));
            Ok(v1::PipelineReply { id: request.id, outcome })
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn now(&self, _: Request<v1::NowRequest>) -> Result<Response<v1::NowReply>, Status> {
        not_here()
    }

    async fn get_stream(
        &self,
        _: Request<v1::GetRequest>,
    ) -> Result<Response<Self::GetStreamStream>, Status> {
        not_here()
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteReply>, Status> {
        not_here()
    }

    async fn apply(&self, _: Request<v1::ApplyRequest>) -> Result<Response<v1::WriteReply>, Status> {
        not_here()
    }

    async fn batch_get(
        &self,
        _: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetReply>, Status> {
        not_here()
    }

    async fn batch_write(
        &self,
        _: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::BatchWriteReply>, Status> {
        not_here()
    }
}
