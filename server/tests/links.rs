//! Nodes that should not be linked are not, and say why; a link that breaks comes back.

use crate::cluster::{Cluster, metric, put};
use merganser_proto::internal::v1::peer_client::PeerClient;
use merganser_proto::internal::v1::{Frame, Hello, Messages, frame};
use merganser_server::start;
use tonic::Code;

/// The node that dials and the one that is dialled, of a pair.
fn dialler(cluster: &Cluster) -> (usize, usize) {
    let id = |node: usize| merganser_core::id::NodeId::from_name(&cluster.members[node].name);
    if id(0) < id(1) { (0, 1) } else { (1, 0) }
}

/// What a stranger with this hello is told.
async fn stranger(cluster: &Cluster, hello: Hello) -> tonic::Status {
    let (_, dialled) = dialler(cluster);
    let address = format!("http://{}", cluster.members[dialled].peer_address);
    let mut peer = PeerClient::connect(address).await.unwrap();
    let frames = [frame::Frame::Hello(hello), frame::Frame::Messages(Messages::default())];
    let frames = frames.map(|frame| Frame { frame: Some(frame) });
    let mut replies = peer.link(tokio_stream::iter(frames)).await.unwrap().into_inner();
    loop {
        match replies.message().await {
            Ok(Some(Frame { frame: Some(frame::Frame::Hello(_)) })) => {}
            Ok(other) => panic!("a stranger was sent {other:?}"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn strangers_are_refused_with_the_reason_and_counted() {
    let mut cluster = Cluster::addresses(2);
    let (low, high) = dialler(&cluster);
    cluster.start_node(high);
    let good = Hello {
        protocol: 2,
        cluster: "test".into(),
        node: cluster.members[low].name.clone(),
        nonce: vec![7; 32].into(),
    };
    let cases: [(Hello, &str, &str); 5] = [
        (Hello { protocol: 1, ..good.clone() }, "protocol", "links_refused_protocol"),
        (Hello { cluster: "prod".into(), ..good.clone() }, "cluster.name", "links_refused_cluster"),
        (Hello { node: "mallory".into(), ..good.clone() }, "cluster.members", "links_refused_node"),
        (
            Hello { node: cluster.members[high].name.clone(), ..good.clone() },
            "lower id",
            "links_refused_node",
        ),
        // All said well, and then no proof.
        (good, "proof", "links_refused_protocol"),
    ];
    for (hello, reason, counter) in cases {
        let before = metric(&cluster.status(high).await, counter);
        let status = stranger(&cluster, hello).await;
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains(reason), "{:?} does not say {reason:?}", status.message());
        assert_eq!(metric(&cluster.status(high).await, counter), before + 1.0);
    }
}

#[tokio::test]
async fn a_node_with_another_secret_never_links() {
    let mut cluster = Cluster::addresses(2);
    let (low, high) = dialler(&cluster);
    cluster.start_node(high);
    let mut config = cluster.config(low);
    config.cluster.secret.0 = "another secret, just as long".into();
    cluster.nodes[low] = Some(start(config).unwrap());
    loop {
        let status = cluster.status(high).await;
        assert_eq!(metric(&status, "links_up"), 0.0);
        if metric(&status, "links_refused_secret") > 0.0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    // With the right one it does, without the other being told anything.
    cluster.stop_node(low);
    cluster.start_node(low);
    cluster.formed().await;
}

#[tokio::test]
async fn a_node_that_comes_back_is_linked_again_and_the_others_saw_it_go() {
    let mut cluster = Cluster::start(3);
    cluster.formed().await;
    cluster.keyspace("k", "siblings", 3).await;
    cluster.stop_node(2);
    for node in [0, 1] {
        cluster.wait(node, |topology| topology.nodes.iter().filter(|node| !node.up).count() == 1).await;
    }
    // Two of three are enough.
    cluster.kv(0).await.put(put(b"a", "1")).await.unwrap();
    cluster.start_node(2);
    cluster.formed().await;
    let status = cluster.status(0).await;
    assert!(metric(&status, "links_down") >= 1.0);
    let get = merganser_proto::v1::GetRequest { keyspace: "k".into(), key: "a".into(), ..Default::default() };
    let reply = cluster.kv(2).await.get(get).await.unwrap().into_inner();
    assert_eq!(reply.siblings.len(), 1);
}
