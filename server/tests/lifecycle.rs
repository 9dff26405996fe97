//! Start, stop, start again.

use crate::cluster::{Cluster, put, single};
use merganser_proto::v1::GetRequest;
use merganser_server::{ConfigError, Error, start};
use tokio_stream::StreamExt;

#[tokio::test]
async fn a_clean_stop_keeps_data_catalog_and_actor() {
    let mut cluster = single("siblings").await;
    cluster.kv(0).await.put(put(b"a", "1")).await.unwrap();
    let before = cluster.status(0).await;
    assert!(before.uptime_ms < 60_000);
    cluster.stop_node(0);
    cluster.start_node(0);
    let after = cluster.status(0).await;
    assert_eq!(before.incarnation, after.incarnation);
    let get = GetRequest { keyspace: "k".into(), key: "a".into(), ..Default::default() };
    let reply = cluster.kv(0).await.get(get).await.unwrap().into_inner();
    assert_eq!(reply.siblings.len(), 1);
    // The marker was for one start: its counters go on where they stopped.
    let second = cluster.kv(0).await.put(put(b"b", "2")).await.unwrap().into_inner();
    assert!(second.dot.unwrap().counter > reply.siblings[0].dots[0].counter);
}

#[tokio::test]
async fn a_stop_ends_open_streams_and_refuses_new_calls() {
    let mut cluster = single("siblings").await;
    let mut kv = cluster.kv(0).await;
    let mut waiting = merganser_proto::v1::cluster_client::ClusterClient::new(cluster.channel(0).await);
    let topology = waiting.topology(merganser_proto::v1::TopologyRequest {}).await.unwrap().into_inner();
    let pipeline = kv.pipeline(tokio_stream::pending()).await.unwrap().into_inner();
    let running = cluster.nodes[0].take().unwrap();
    let stopped = tokio::task::spawn_blocking(move || running.stop());
    let topology_ended = topology.collect::<Vec<_>>().await;
    assert!(topology_ended.last().unwrap().is_err());
    let pipeline_ended = pipeline.collect::<Vec<_>>().await;
    assert_eq!(pipeline_ended.len(), 1);
    assert!(pipeline_ended[0].is_err());
    stopped.await.unwrap().unwrap();
    assert!(kv.put(put(b"a", "1")).await.is_err());
}

#[test]
fn what_cannot_start_says_why() {
    let cluster = Cluster::start(1);
    let taken = start(cluster.config(0)).err().expect("the port is taken");
    assert!(matches!(taken, Error::Listen { key: "client", .. }), "{taken}");
    let mut config = cluster.config(0);
    config.listen.client = Some("127.0.0.1:0".into());
    config.listen.peer = Some("127.0.0.1:0".into());
    let locked = start(config).err().expect("the directory is in use");
    assert!(matches!(locked, Error::Storage(merganser_storage::Error::Locked { .. })), "{locked}");
    let mut config = cluster.config(0);
    config.cluster.secret.0.clear();
    let invalid = start(config).err().expect("there is no secret");
    assert!(matches!(invalid, Error::Config(ConfigError::Invalid { .. })), "{invalid}");
}
