//! Follows the ring: one stream from some node, another one when that ends.
//!
//! In: `Cluster.Topology`. Out: the client's current [`Topology`], replaced after each change.
//! Absent: any request of a user; without a topology they go to any node, one hop more.

use crate::{
    client::{Client, Inner, Repeat, Times},
    error::Error,
    routing::Topology,
};
use merganser_proto::v1::{self, cluster_client::ClusterClient};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tonic::Streaming;

/// Pause before another node is asked for the stream.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// Pause if nobody gave one.
const REOPEN_LATER: Duration = Duration::from_secs(1);

/// Waits for the first topology, then follows until the client is dropped.
pub(crate) async fn follow(client: &Client) -> Result<(), Error> {
    let stream = open(client).await?;
    let inner = Arc::downgrade(&client.inner);
    let follower = tokio::spawn(run(inner, stream));
    client.inner.followed_by(follower.abort_handle());
    Ok(())
}

async fn run(inner: Weak<Inner>, mut stream: Streaming<v1::TopologyReply>) {
    loop {
        while let Ok(Some(reply)) = stream.message().await {
            let Some(inner) = inner.upgrade() else { return };
            inner.set_topology(Topology::from_wire(reply));
        }
        let mut pause = REOPEN_AFTER;
        stream = loop {
            tokio::time::sleep(pause).await;
            let Some(inner) = inner.upgrade() else { return };
            match open(&Client { inner }).await {
                Ok(stream) => break stream,
                Err(error) => tracing::debug!(%error, "no node tells the topology"),
            }
            pause = REOPEN_LATER;
        };
    }
}

/// A stream whose first reply has come and is in use.
async fn open(client: &Client) -> Result<Streaming<v1::TopologyReply>, Error> {
    let settings = &client.inner.settings;
    let times = Times { whole: settings.timeout, attempt: settings.attempt_timeout, hedged: true };
    let (reply, stream) = client
        .ask(None, times, Repeat::Read, |link, _| async move {
            let mut cluster = ClusterClient::new(link.channel.clone());
            let reply = cluster.topology(v1::TopologyRequest {}).await;
            let mut stream = reply.map_err(|status| link.error(&status))?.into_inner();
            match stream.message().await.map_err(|status| link.error(&status))? {
                Some(reply) => Ok((reply, stream)),
                None => Err(Error::Unavailable {
                    node: link.address.to_string(),
                    reason: "the topology stream ended before it began".into(),
                    sent: true,
                }),
            }
        })
        .await?;
    client.inner.set_topology(Topology::from_wire(reply));
    Ok(stream)
}
