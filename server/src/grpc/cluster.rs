//! The Cluster service: this node's state, and the topology as it changes.

use super::{Shared, gone};
use merganser_proto::v1::cluster_server::Cluster;
use merganser_proto::v1::{
    NodeStatus, StatusReply, StatusRequest, TopologyReply, TopologyRequest, node_status::Link,
};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// See the head of this file.
pub(crate) struct ClusterService(pub(crate) Shared);

#[tonic::async_trait]
impl Cluster for ClusterService {
    type TopologyStream = Pin<Box<dyn Stream<Item = Result<TopologyReply, Status>> + Send>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let directory = &self.0.directory;
        let snapshot = self.0.door.look().await.ok_or_else(gone)?;
        let nodes = directory.entries().map(|(id, entry)| NodeStatus {
            name: entry.member.name.clone(),
            client_address: entry.member.client_address.clone(),
            peer_address: entry.member.peer_address.clone(),
            zone: entry.member.zone.clone(),
            weight: entry.member.weight,
            share: entry.share,
            link: match id {
                _ if id == directory.this => Link::Self_,
                _ if snapshot.up.contains(&id) => Link::Up,
                _ => Link::Down,
            }
            .into(),
        });
        Ok(Response::new(StatusReply {
            cluster: directory.cluster.clone(),
            node: directory.name(directory.this),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: directory.started.elapsed().as_millis() as u64,
            incarnation: snapshot.actor,
            nodes: nodes.collect(),
            metrics: snapshot.metrics,
        }))
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
            changed = topology.changed() => if changed.is_err() { return },
            () = replies.closed() => return,
            stopping = stopping.changed() => {
                // Set once and never taken back.
                drop(stopping);
                let _ = replies.send(Err(gone())).await;
                return;
            }
        }
    }
}
