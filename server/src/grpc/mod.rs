//! The public API: gRPC on one side, core's words on the other.
//!
//! ```text
//!   kv, pipeline ─┐
//!   keyspaces     ├─ convert ──▶ Door ──▶ driver ──▶ outcome ── convert ──▶ reply
//!   plugins       │                                     └────── problem ──▶ status, typed
//!   cluster ──────┘
//! ```
//!
//! In: messages of clients, within size limits. Out: replies, or a status whose details carry a
//! `merganser.v1.Problem`. Absent: checks of keys, values and contexts, which are core's, so that
//! unary calls, batches, pipelines and forwarded requests are judged alike.

mod cluster;
mod convert;
mod directory;
mod keyspaces;
mod kv;
mod pipeline;
mod plugins;
mod problem;
pub(crate) mod sizes;
mod views;

pub(crate) use directory::Directory;

use crate::config::Config;
use crate::driver::Door;
use cluster::ClusterService;
use keyspaces::KeyspacesService;
use kv::KvService;
use merganser_plugin_host::Host;
use merganser_proto::v1::TopologyReply;
use merganser_proto::v1::cluster_server::ClusterServer;
use merganser_proto::v1::keyspaces_server::KeyspacesServer;
use merganser_proto::v1::kv_server::KvServer;
use merganser_proto::v1::plugins_server::PluginsServer;
use plugins::PluginsService;
use sizes::SizedKv;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::server::{Router, Server};
use tonic_health::server::HealthReporter;

/// Room for a value or two on their way, so that 1 MiB needs no extra round trips.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// What reflection lists: the public services and none between nodes.
pub(crate) const SERVICES: [&str; 5] = [
    "merganser.v1.Kv",
    "merganser.v1.Keyspaces",
    "merganser.v1.Plugins",
    "merganser.v1.Cluster",
    "grpc.health.v1.Health",
];

/// What all services share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) door: Door,
    pub(crate) directory: Arc<Directory>,
    pub(crate) topology: watch::Receiver<Arc<TopologyReply>>,
    /// True once the node stops: open streams end.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) host: Arc<Host>,
}

/// The client port's server with all services, and the reporter of its health. Ids of requests
/// that come without one are drawn from `seed`.
pub(crate) fn server(config: &Config, shared: Shared, seed: [u8; 32]) -> (Router, HealthReporter) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let kv = KvService::new(shared.clone(), config.limits.pipelined as usize, seed);
    let module_bytes_max = (config.limits.module_mb << 20) as usize;
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_millis(config.listen.keepalive_interval_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(config.listen.keepalive_timeout_ms)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(config.limits.streams)
        // Calls that were given up while the node stood still wait to be accepted all at once. The protocol library would
        // take more than 20 of them for an attack and close the connection, with the calls of everybody who shares it.
        .http2_max_pending_accept_reset_streams(Some(config.limits.streams as usize))
        .add_service(SizedKv::new(KvServer::new(kv)))
        .add_service(KeyspacesServer::new(KeyspacesService(shared.clone())))
        .add_service(PluginsServer::new(PluginsService::new(shared.clone(), module_bytes_max)))
        .add_service(ClusterServer::new(ClusterService(shared)))
        .add_service(health_service)
        .add_service(reflection());
    (router, health)
}

fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(merganser_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let builder = SERVICES.iter().fold(builder, |builder, name| builder.with_service_name(*name));
    builder.build_v1().expect("the descriptors are compiled in")
}

/// The node stopped while the request was under way.
fn gone() -> Status {
    Status::unavailable("this node is stopping; ask another")
}
