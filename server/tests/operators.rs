//! What operators and tools ask: reflection, health, status, keyspaces, plugins.

use crate::cluster::{Cluster, metric, problem, put, single};
use merganser_proto::v1::keyspaces_client::KeyspacesClient;
use merganser_proto::v1::plugins_client::PluginsClient;
use merganser_proto::v1::{
    ApplyRequest, CreateKeyspaceRequest, GetPluginRequest, KeyspaceSettings, ListPluginsRequest, Quorums,
    RemovePluginRequest, UpdateKeyspaceRequest, node_status::Link,
};
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test]
async fn reflection_lists_the_public_services_and_health_says_serving() {
    let cluster = Cluster::start(1);
    let channel = cluster.channel(0).await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let mut replies =
        reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        replies.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["Kv", "Keyspaces", "Plugins", "Cluster"] {
        assert!(names.contains(&format!("merganser.v1.{name}").as_str()), "{name} is not in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("internal")));
    let mut health = HealthClient::new(channel);
    for service in ["", "merganser.v1.Kv"] {
        let reply = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving);
    }
}

#[tokio::test]
async fn status_shows_shares_links_and_figures() {
    let cluster = Cluster::start(2);
    cluster.formed().await;
    let status = cluster.status(0).await;
    assert_eq!((status.cluster.as_str(), status.node.as_str()), ("test", "node-0"));
    let links: Vec<_> = status.nodes.iter().map(|node| (node.name.as_str(), node.link())).collect();
    assert!(links.contains(&("node-0", Link::Self_)) && links.contains(&("node-1", Link::Up)));
    let shares: f64 = status.nodes.iter().map(|node| node.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    assert!(metric(&status, "driver_turns") > 0.0);
    assert_eq!(metric(&status, "links"), 1.0);
    let mut names: Vec<_> = status.metrics.iter().map(|metric| &metric.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), status.metrics.len(), "two metrics share a name");
}

#[tokio::test]
async fn keyspaces_are_created_once_changed_in_part_and_refused_with_the_field() {
    let cluster = single("siblings").await;
    let mut keyspaces = KeyspacesClient::new(cluster.channel(0).await);
    let create = |name: &str, settings| CreateKeyspaceRequest { name: name.into(), settings: Some(settings) };
    let settings = |policy: &str| KeyspaceSettings { policy: policy.into(), n: 1, ..Default::default() };
    let taken = keyspaces.create(create("k", settings("siblings"))).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    for (settings, said) in [
        (settings("newest"), "resolver:<plugin>"),
        (settings("resolver:"), "resolver:<plugin>"),
        (KeyspaceSettings { w: 2, ..settings("siblings") }, "w: must be 1 to n"),
    ] {
        let status = keyspaces.create(create("x", settings)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(problem(&status).message.contains(said), "{:?} does not say {said:?}", status.message());
    }
    let unknown = keyspaces.create(create("x", settings("resolver:none"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let change = KeyspaceSettings {
        siblings_max: 7,
        write_back_never: true,
        ttl_ms: 60_000,
        quorums: Quorums::Strict.into(),
        ..Default::default()
    };
    let request = UpdateKeyspaceRequest { name: "k".into(), settings: Some(change), reset: Vec::new() };
    let updated = keyspaces.update(request.clone()).await.unwrap().into_inner().keyspace.unwrap();
    let now = updated.settings.unwrap();
    assert_eq!((now.ttl_ms, now.quorums()), (60_000, Quorums::Strict));
    let unknown = UpdateKeyspaceRequest { reset: vec!["policy".into()], ..request };
    let status = keyspaces.update(unknown).await.unwrap_err();
    assert!(problem(&status).message.contains("ttl_ms"), "{:?} lists what can be set back", status.message());
    let reset = vec!["ttl_ms".into(), "quorums".into()];
    let request = UpdateKeyspaceRequest { name: "k".into(), settings: None, reset };
    let updated = keyspaces.update(request).await.unwrap().into_inner().keyspace.unwrap();
    assert_eq!(updated.settings.as_ref().map(|now| (now.ttl_ms, now.quorums())), Some((0, Quorums::Sloppy)));
    let now = updated.settings.unwrap();
    assert_eq!(
        (now.n, now.siblings_max, now.policy.as_str(), now.write_back_never),
        (1, 7, "siblings", true)
    );
}

#[tokio::test]
async fn a_built_in_plugin_settles_conflicts_and_cannot_be_removed() {
    let cluster = single("lattice:pn-counter").await;
    let mut kv = cluster.kv(0).await;
    let mut plugins = PluginsClient::new(cluster.channel(0).await);
    let all = plugins.list(ListPluginsRequest {}).await.unwrap().into_inner().plugins;
    let counter = all.iter().find(|plugin| plugin.name == "pn-counter").unwrap();
    assert!(counter.built_in && counter.keyspaces == ["k"]);
    // An operation that it does not know is refused in its own words, not a failure of the node.
    let apply = ApplyRequest {
        keyspace: "k".into(),
        key: "hits".into(),
        op: "no such operation".into(),
        ..Default::default()
    };
    let status = kv.apply(apply).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(matches!(problem(&status).detail, Some(merganser_proto::v1::problem::Detail::InvalidValue(_))));
    let poison = kv.put(put(b"hits", "not a state")).await.unwrap_err();
    assert_eq!(poison.code(), Code::InvalidArgument, "{poison:?}");
    let remove = RemovePluginRequest { plugin: "pn-counter".into() };
    assert_eq!(plugins.remove(remove).await.unwrap_err().code(), Code::FailedPrecondition);
    let by_hash = counter.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let found = plugins.get(GetPluginRequest { plugin: by_hash }).await.unwrap().into_inner().plugin.unwrap();
    assert_eq!(found.name, "pn-counter");
    // Compiled by now, so it speaks for itself.
    assert!(found.summary != "ships with every node", "{found:?}");
    assert!(metric(&cluster.status(0).await, "plugin_calls") >= 1.0);
}
