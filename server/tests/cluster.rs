//! Nodes for the tests: addresses, configurations, channels, and waiting without sleeping.

use merganser_proto::v1::cluster_client::ClusterClient;
use merganser_proto::v1::keyspaces_client::KeyspacesClient;
use merganser_proto::v1::kv_client::KvClient;
use merganser_proto::v1::{
    CreateKeyspaceRequest, KeyspaceSettings, Problem, PutRequest, StatusReply, StatusRequest, TopologyReply,
    TopologyRequest,
};
use merganser_server::{Config, Member, Running, Secret, start};
use prost::Message;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub(crate) const SECRET: &str = "a secret that all nodes share";
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Some nodes that know each other.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Option<Running>>,
    pub(crate) members: Vec<Member>,
    pub(crate) dir: TempDir,
}

impl Cluster {
    /// `count` nodes, all of them started.
    pub(crate) fn start(count: usize) -> Cluster {
        let mut cluster = Cluster::addresses(count);
        (0..count).for_each(|node| cluster.start_node(node));
        cluster
    }

    /// Addresses for `count` nodes, none of them started.
    pub(crate) fn addresses(count: usize) -> Cluster {
        let members = (0..count)
            .map(|number| Member {
                name: format!("node-{number}"),
                client_address: free_address(),
                peer_address: free_address(),
                zone: String::new(),
                weight: 1.0,
            })
            .collect();
        let nodes = (0..count).map(|_| None).collect();
        Cluster { nodes, members, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn config(&self, node: usize) -> Config {
        config(&self.members, node, &self.dir.path().join(format!("{node}")))
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        self.nodes[node] = Some(start(self.config(node)).unwrap());
    }

    /// Stops it in order; whether it ended well.
    pub(crate) fn stop_node(&mut self, node: usize) {
        self.nodes[node].take().expect("it runs").stop().unwrap();
    }

    pub(crate) async fn channel(&self, node: usize) -> Channel {
        let address = &self.members[node].client_address;
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn kv(&self, node: usize) -> KvClient<Channel> {
        KvClient::new(self.channel(node).await)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) async fn status(&self, node: usize) -> StatusReply {
        let mut cluster = ClusterClient::new(self.channel(node).await);
        cluster.status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// Until the node's topology is as wished; follows its stream.
    pub(crate) async fn wait(&self, node: usize, wished: impl Fn(&TopologyReply) -> bool) {
        let mut cluster = ClusterClient::new(self.channel(node).await);
        let mut replies = cluster.topology(TopologyRequest {}).await.unwrap().into_inner();
        while !wished(&replies.message().await.unwrap().expect("the stream goes on")) {}
    }

    /// Until all nodes are linked to all others, and serve.
    pub(crate) async fn formed(&self) {
        for node in 0..self.members.len() {
            self.wait(node, |topology| topology.nodes.iter().all(|node| node.up)).await;
            while self.status(node).await.nodes.iter().any(|node| node.joining) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Creates a keyspace and waits until every node knows it.
    pub(crate) async fn keyspace(&self, name: &str, policy: &str, n: u32) {
        let mut keyspaces = KeyspacesClient::new(self.channel(0).await);
        let settings = KeyspaceSettings { policy: policy.into(), n, ..Default::default() };
        let request = CreateKeyspaceRequest { name: name.into(), settings: Some(settings) };
        keyspaces.create(request).await.unwrap();
        for node in 0..self.members.len() {
            self.wait(node, |topology| topology.keyspaces.iter().any(|keyspace| keyspace.name == name)).await;
        }
    }
}

/// One node, with a keyspace `k` of one replica under this policy.
pub(crate) async fn single(policy: &str) -> Cluster {
    let cluster = Cluster::start(1);
    cluster.keyspace("k", policy, 1).await;
    cluster
}

pub(crate) fn config(members: &[Member], node: usize, dir: &Path) -> Config {
    let mut config = Config::default();
    config.node.name = members[node].name.clone();
    config.cluster.name = "test".into();
    config.cluster.secret = Secret(SECRET.into());
    config.cluster.members = members.to_vec();
    config.storage.dir = dir.into();
    config.storage.memtable_mb = 16;
    config.storage.cache_mb = 16;
    config.storage.log_file_mb = 16;
    config.limits.gossip_period_ms = 100;
    // Machines that build and test at once are slow; nothing here tests patience.
    config.limits.timeout_ms = 30_000;
    config
}

/// An address of this machine that nobody uses. Below the range from which the system takes ports
/// for outgoing connections, so that none of those takes it before the node does.
pub(crate) fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + ((std::process::id() as u16) % 200) * 100 + step;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

pub(crate) fn put(key: &[u8], value: impl Into<bytes::Bytes>) -> PutRequest {
    PutRequest {
        keyspace: "k".into(),
        key: key.to_vec().into(),
        value: value.into(),
        blind: true,
        ..Default::default()
    }
}

/// The problem in a status's details, which must agree with its code.
pub(crate) fn problem(status: &Status) -> Problem {
    let details = tonic_types::pb::Status::decode(status.details()).unwrap();
    assert_eq!(Code::from(details.code), status.code());
    let [detail] = &details.details[..] else { panic!("one detail: {details:?}") };
    assert_eq!(detail.type_url, "type.googleapis.com/merganser.v1.Problem");
    let problem = Problem::decode(&detail.value[..]).unwrap();
    assert_eq!(Code::from(problem.code as i32), status.code());
    assert_eq!(problem.message, status.message());
    problem
}

/// The value of a metric of a node.
pub(crate) fn metric(status: &StatusReply, name: &str) -> f64 {
    let metric = status.metrics.iter().find(|metric| metric.name == name);
    metric.unwrap_or_else(|| panic!("no metric {name}")).value
}
