//! Values that expire, told as stories through the door.

use crate::catalog::{PluginRef, Policy, Settings};
use crate::id::{Millis, RequestId};
use crate::request::{Basis, GetReply, Level, Operation, Outcome, Presence, Problem, Resolution, Want};
use crate::story::{Cluster, named, values};
use crate::version::expiry::EXPIRED_KEPT_MS;
use crate::version::{KeyState, codec};
use bytes::Bytes;

fn put(cluster: &mut Cluster, value: &str, basis: Basis, ttl_ms: Option<u64>) -> Outcome {
    let request_id = RequestId(u128::from(cluster.next_ticket).to_be_bytes());
    let value = Bytes::copy_from_slice(value.as_bytes());
    cluster.ask(0, Level::All, Operation::Put { value, content_type: None, basis, request_id, ttl_ms })
}

fn siblings(cluster: &mut Cluster) -> GetReply {
    match cluster.ask(1, Level::All, Operation::Get { want: Want::Siblings }) {
        Outcome::Got(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_expired_value_reads_as_deleted_and_its_context_covers_it() {
    for policy in [Policy::Siblings, Policy::Lww] {
        let mut cluster = Cluster::new(3);
        cluster.keyspace("k", policy);
        cluster.nodes.iter_mut().for_each(|node| node.config.collect_period_ms = 0);
        put(&mut cluster, "v", Basis::Blind, Some(1_000));
        let reply = cluster.get(1, Level::Quorum);
        assert_eq!(values(&reply), ["v"]);
        assert_eq!(reply.siblings[0].expires_at, Some(cluster.now.after(1_000)));
        cluster.pass(1_000);
        let reply = cluster.get(1, Level::Quorum);
        assert_eq!((reply.presence, reply.siblings.len()), (Presence::Deleted, 0));
        let again = cluster.wrote(2, Level::Quorum, "w", Basis::Context(reply.context));
        assert_eq!(again.siblings, 1);
        cluster.pass(100_000);
        assert_eq!(values(&cluster.get(0, Level::All)), ["w"]);
    }
}

#[test]
fn a_keyspace_has_a_default_and_a_put_may_say_otherwise() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace_with("k", Settings { ttl_ms: Some(500), ..Settings::new(Policy::Siblings) });
    put(&mut cluster, "short", Basis::Blind, None);
    put(&mut cluster, "longer", Basis::Blind, Some(800));
    put(&mut cluster, "for ever", Basis::Blind, Some(0));
    assert_eq!(siblings(&mut cluster).siblings.len(), 3);
    cluster.pass(500);
    assert_eq!(values(&siblings(&mut cluster)), ["longer", "for ever"]);
    cluster.pass(100_000);
    assert_eq!(values(&siblings(&mut cluster)), ["for ever"]);
}

#[test]
fn no_plugin_is_shown_what_has_expired_and_a_resolution_expires_with_its_inputs() {
    let mut cluster = Cluster::new(3);
    let settings = Settings { write_back_delay_ms: None, ..Settings::new(Policy::Resolver(named("union"))) };
    cluster.keyspace_with("k", settings.clone());
    put(&mut cluster, "a", Basis::Blind, Some(500));
    put(&mut cluster, "b", Basis::Blind, Some(900));
    put(&mut cluster, "c", Basis::Blind, Some(2_000));
    let now = cluster.now;
    let reply = cluster.get(1, Level::Quorum);
    assert_eq!(values(&reply), ["a b c"]);
    assert_eq!(reply.siblings[0].expires_at, Some(now.after(2_000)));
    cluster.pass(500);
    assert_eq!(values(&cluster.get(1, Level::Quorum)), ["b c"]);
    cluster.pass(400);
    let reply = cluster.get(1, Level::Quorum);
    assert_eq!((values(&reply), reply.resolution), (vec!["c".to_owned()], Resolution::NoneNeeded));
    put(&mut cluster, "d", Basis::Blind, None);
    let reply = cluster.get(1, Level::Quorum);
    assert_eq!((values(&reply), reply.siblings[0].expires_at), (vec!["c d".to_owned()], None));
}

#[test]
fn an_owner_stores_a_resolution_that_expires_with_the_last_of_its_inputs() {
    let mut cluster = Cluster::new(3);
    let settings =
        Settings { write_back_delay_ms: Some(100), ..Settings::new(Policy::Resolver(named("union"))) };
    cluster.keyspace_with("k", settings);
    put(&mut cluster, "a", Basis::Blind, Some(50_000));
    put(&mut cluster, "b", Basis::Blind, Some(90_000));
    let until = cluster.now.after(90_000);
    (0..20).for_each(|_| cluster.pass(50));
    let reply = siblings(&mut cluster);
    assert_eq!(values(&reply), ["a b"]);
    assert!(reply.siblings[0].receipt.is_some());
    assert_eq!(reply.siblings[0].expires_at, Some(until));
}

#[test]
fn the_next_write_lets_go_of_bytes_long_expired_and_replicas_stay_equal() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    put(&mut cluster, "a value of some length", Basis::Blind, Some(1_000));
    cluster.pass(1_000 + EXPIRED_KEPT_MS);
    put(&mut cluster, "w", Basis::Blind, None);
    let states: Vec<KeyState> = cluster
        .disks
        .iter()
        .map(|disk| {
            let (_, record) = disk.iter().find(|(key, _)| key[..4] != [0; 4]).expect("the key is stored");
            assert!(record.body.len() < 4, "the bytes are gone");
            codec::state(record).expect("decodes")
        })
        .collect();
    assert!(states.iter().all(|state| state.digest() == states[0].digest()));
    assert!(states.iter().all(|state| state.live_at(Millis(0)).seen() == states[0].seen()));
    assert_eq!(values(&siblings(&mut cluster)), ["w"]);
}

#[test]
fn expired_siblings_do_not_count_against_the_limit() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace_with("k", Settings { siblings_max: 2, ..Settings::new(Policy::Siblings) });
    put(&mut cluster, "a", Basis::Blind, Some(1_000));
    put(&mut cluster, "b", Basis::Blind, Some(1_000));
    let refused = put(&mut cluster, "c", Basis::Blind, None);
    assert!(matches!(refused, Outcome::Failed(Problem::SiblingLimit { .. })), "{refused:?}");
    cluster.pass(1_000);
    assert!(matches!(put(&mut cluster, "c", Basis::Blind, None), Outcome::Wrote(_)));
}

#[test]
fn a_lattice_does_not_expire() {
    let join = || Policy::Lattice(PluginRef { name: "join".into(), hash: crate::story::JOIN });
    let with_ttl = Settings { ttl_ms: Some(5), ..Settings::new(join()) };
    assert_eq!(with_ttl.check().map_err(|(field, _)| field), Err("ttl_ms"));
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lattice(named("join")));
    let refused = put(&mut cluster, "a", Basis::Unsaid, Some(5));
    let problem = Problem::InvalidArgument { field: "ttl_ms", reason: String::new() };
    match refused {
        Outcome::Failed(given) => {
            assert_eq!(std::mem::discriminant(&given), std::mem::discriminant(&problem));
        }
        other => panic!("{other:?}"),
    }
}
