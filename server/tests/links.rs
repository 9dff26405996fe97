//! Nodes that should not be linked are not, and say why; a link that breaks comes back.

use crate::cluster::{Cluster, metric, put};
use merganser_proto::internal::v1::peer_client::PeerClient;
use merganser_proto::internal::v1::{Frame, Hello, Layout, Messages, frame};
use merganser_server::start;
use tonic::Code;

/// The node that dials and the one that is dialled, of a pair.
fn dialler(cluster: &Cluster) -> (usize, usize) {
    let id = |node: usize| merganser_core::id::NodeId::from_name(&cluster.members[node].name);
    if id(0) < id(1) { (0, 1) } else { (1, 0) }
}

/// What a stranger with this hello is told at the end, and the hello that he is answered with, if any.
async fn stranger(cluster: &Cluster, hello: Hello) -> (tonic::Status, Option<Hello>) {
    let (_, dialled) = dialler(cluster);
    let address = format!("http://{}", cluster.members[dialled].peer_address);
    let mut peer = PeerClient::connect(address).await.unwrap();
    let frames = [frame::Frame::Hello(hello), frame::Frame::Messages(Messages::default())];
    let frames = frames.map(|frame| Frame { frame: Some(frame) });
    let mut replies = peer.link(tokio_stream::iter(frames)).await.unwrap().into_inner();
    let mut answer = None;
    loop {
        match replies.message().await {
            Ok(Some(Frame { frame: Some(frame::Frame::Hello(hello)) })) => answer = Some(hello),
            Ok(other) => panic!("a stranger was sent {other:?}"),
            Err(status) => return (status, answer),
        }
    }
}

#[tokio::test]
async fn strangers_are_refused_with_the_reason_and_counted() {
    let mut cluster = Cluster::addresses(2);
    let (low, high) = dialler(&cluster);
    cluster.start_node(high);
    let good = Hello {
        protocol: 3,
        cluster: "test".into(),
        node: cluster.members[low].name.clone(),
        nonce: vec![7; 32].into(),
        layout: None,
        session: 9,
    };
    // Whose layout differs is told this node's, so that both can say what differs.
    let (_, answer) = stranger(&cluster, good.clone()).await;
    let good = Hello { layout: answer.expect("it is answered").layout, ..good };
    let no_vnodes = Some(Layout { vnodes: 0, ..good.layout.clone().unwrap() });
    let cases: [(Hello, &str, &str); 6] = [
        (Hello { layout: no_vnodes, ..good.clone() }, "cluster.vnodes", "links_refused_layout"),
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
        let (status, _) = stranger(&cluster, hello).await;
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
async fn nodes_that_were_told_other_members_weights_zones_or_vnodes_never_link_and_both_say_why() {
    type Change = fn(&mut merganser_server::Config);
    let changes: [(&str, Change); 4] = [
        ("vnodes", |config| config.cluster.vnodes = 64),
        ("weights", |config| config.cluster.members[0].weight = 2.0),
        ("zones", |config| config.cluster.members[0].zone = "east".into()),
        ("members", |config| {
            let third = config.cluster.members[0].clone();
            config.cluster.members.push(merganser_server::Member { name: "third".into(), ..third });
        }),
    ];
    for (part, change) in changes {
        let mut cluster = Cluster::addresses(2);
        cluster.start_node(0);
        let mut config = cluster.config(1);
        change(&mut config);
        cluster.nodes[1] = Some(start(config).unwrap());
        for node in [0, 1] {
            let peer = cluster.members[1 - node].name.clone();
            loop {
                let status = cluster.status(node).await;
                assert_eq!(metric(&status, "links_up"), 0.0, "{part}");
                let said = status.nodes.iter().find(|it| it.name == peer).map(|it| it.link_refused.clone());
                if metric(&status, "links_refused_layout") > 0.0 {
                    let said = said.unwrap_or_default();
                    assert!(said.contains(part), "{said:?} does not say {part:?}");
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
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
