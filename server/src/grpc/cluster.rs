//! The Cluster service: this node's state, and the topology as it changes.

use super::{Shared, gone, views};
use crate::driver::Snapshot;
use merganser_proto::v1::cluster_server::Cluster;
use merganser_proto::v1::{
    CollectionReply, CollectionRequest, HintsReply, HintsRequest, HotKeysReply, HotKeysRequest, RepairReply,
    RepairRequest, StatusReply, StatusRequest, TopologyReply, TopologyRequest,
};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// See the head of this file.
pub(crate) struct ClusterService(pub(crate) Shared);

impl ClusterService {
    async fn look(&self) -> Result<Snapshot, Status> {
        self.0.door.look().await.ok_or_else(gone)
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type TopologyStream = Pin<Box<dyn Stream<Item = Result<TopologyReply, Status>> + Send>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let directory = &self.0.directory;
        let snapshot = self.look().await?;
        Ok(Response::new(StatusReply {
            cluster: directory.cluster.clone(),
            node: directory.name(directory.this),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: directory.started.elapsed().as_millis() as u64,
            incarnation: snapshot.actor,
            nodes: views::nodes(&snapshot, directory),
            metrics: snapshot.metrics,
        }))
    }

    async fn hints(&self, _: Request<HintsRequest>) -> Result<Response<HintsReply>, Status> {
        Ok(Response::new(views::hints(self.look().await?, &self.0.directory)))
    }

    async fn repair(&self, _: Request<RepairRequest>) -> Result<Response<RepairReply>, Status> {
        Ok(Response::new(views::repair(self.look().await?, &self.0.directory)))
    }

    async fn collection(&self, _: Request<CollectionRequest>) -> Result<Response<CollectionReply>, Status> {
        Ok(Response::new(views::collection(self.look().await?, &self.0.directory)))
    }

    async fn hot_keys(&self, _: Request<HotKeysRequest>) -> Result<Response<HotKeysReply>, Status> {
        Ok(Response::new(views::hot_keys(self.look().await?)))
    }

    async fn topology(&self, _: Request<TopologyRequest>) -> Result<Response<Self::TopologyStream>, Status> {
        let (replies, stream) = mpsc::channel(1);
        tokio::spawn(follow(self.0.topology.clone(), self.0.stopping.clone(), replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// The present one, then each that differs; changes that a slow reader missed are left out.
async fn follow(
    mut topology: watch::Receiver<Arc<TopologyReply>>,
    mut stopping: watch::Receiver<bool>,
    replies: mpsc::Sender<Result<TopologyReply, Status>>,
) {
    let mut last = None;
    loop {
        let now = Arc::clone(&topology.borrow_and_update());
        if last.as_ref() != Some(&now) {
            if replies.send(Ok(TopologyReply::clone(&now))).await.is_err() {
                return;
            }
            last = Some(now);
        }
        tokio::select! {
            biased;
            stopping = stopping.changed() => {
                // Set once and never taken back.
                drop(stopping);
                let _ = replies.send(Err(gone())).await;
                return;
            }
            () = replies.closed() => return,
            changed = topology.changed() => if changed.is_err() { return },
        }
    }
}
