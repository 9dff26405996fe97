//! The node as a whole, told through its door.

use super::*;
use crate::catalog::{DeleteSemantics, Policy, Settings};
use crate::event::Notice;
use crate::id::{ClientTicket, RequestId};
use crate::request::{Basis, Level, Operation, Outcome, Presence, Problem, Request, Resolution};
use crate::story::*;

#[test]
fn a_put_with_the_context_of_a_read_supersedes_what_was_read() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    let first = cluster.wrote(0, Level::Keyspace, "one", Basis::Blind);
    assert_eq!((first.siblings, first.acks.replicas.len()), (1, 2));
    let read = cluster.get(1, Level::Keyspace);
    assert_eq!(values(&read), ["one"]);
    cluster.wrote(2, Level::Keyspace, "two", Basis::Context(read.context));
    for node in 0..3 {
        assert_eq!(values(&cluster.get(node, Level::All)), ["two"]);
    }
}

#[test]
fn every_write_answers_with_a_context_so_that_no_read_is_needed_between_two() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    let mut context = cluster.wrote(0, Level::Keyspace, "0", Basis::Blind).context;
    for (i, node) in [1, 2, 0, 0, 1].into_iter().enumerate() {
        context = cluster.wrote(node, Level::Keyspace, &i.to_string(), Basis::Context(context)).context;
    }
    assert_eq!(values(&cluster.get(0, Level::All)), ["4"]);
}

#[test]
fn the_context_of_a_blind_put_does_not_cover_a_sibling_that_its_writer_never_saw() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.wrote(0, Level::Keyspace, "theirs", Basis::Blind);
    let mine = cluster.wrote(0, Level::Keyspace, "mine", Basis::Blind);
    assert_eq!(mine.siblings, 2);
    cluster.wrote(1, Level::Keyspace, "mine again", Basis::Context(mine.context));
    assert_eq!(values(&cluster.get(2, Level::All)), ["theirs", "mine again"]);
}

#[test]
fn writes_on_two_sides_of_a_partition_become_siblings() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    let start = cluster.wrote(0, Level::All, "start", Basis::Blind).context;
    cluster.isolate(0);
    cluster.wrote(0, Level::One, "left", Basis::Context(start.clone()));
    cluster.wrote(1, Level::Quorum, "right", Basis::Context(start));
    cluster.cut.clear();
    let read = cluster.get(2, Level::All);
    assert_eq!(read.resolution, Resolution::Siblings);
    assert_eq!(values(&read), ["left", "right"]);
    cluster.wrote(1, Level::All, "settled", Basis::Context(read.context));
    for node in 0..3 {
        assert_eq!(values(&cluster.get(node, Level::One)), ["settled"]);
    }
}

#[test]
fn a_write_that_reaches_too_few_is_uncertain_and_its_retry_has_no_second_effect() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.isolate(0);
    let id = RequestId([9; 16]);
    let dot = match cluster.put_as(0, Level::Quorum, "v", Basis::Blind, id) {
        Outcome::Failed(Problem::Uncertain { dot: Some(dot), acks }) => {
            assert_eq!(acks.replicas.len(), 1);
            dot
        }
        other => panic!("{other:?}"),
    };
    cluster.cut.clear();
    match cluster.put_as(0, Level::Quorum, "v", Basis::Blind, id) {
        Outcome::Wrote(reply) => assert_eq!(reply.dot, dot),
        other => panic!("{other:?}"),
    }
    let again = cluster.put_as(1, Level::Quorum, "v", Basis::Blind, id);
    assert!(matches!(again, Outcome::Wrote(reply) if reply.dot == dot));
    assert_eq!(values(&cluster.get(2, Level::All)), ["v"]);
}

#[test]
fn one_request_id_for_two_keys_means_two_writes() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    let id = RequestId([9; 16]);
    let first = cluster.put_as(0, Level::All, "v", Basis::Blind, id);
    let put = |key: &'static str| Request {
        keyspace: "k".to_owned(),
        key: Bytes::from_static(key.as_bytes()),
        level: Level::All,
        sloppiness: crate::request::Sloppiness::Keyspace,
        timeout_ms: None,
        until: None,
        retry_of_ms_ago: None,
        operation: Operation::Put {
            value: Bytes::from_static(b"v"),
            content_type: None,
            basis: Basis::Blind,
            request_id: id,
            ttl_ms: None,
        },
    };
    let ticket = ClientTicket(1_000);
    cluster.queue.push_back((0, Event::Client { ticket, request: put("another key") }));
    cluster.run();
    match (first, cluster.outcomes.remove(&ticket)) {
        (Outcome::Wrote(first), Some(Outcome::Wrote(second))) => assert_ne!(first.dot, second.dot),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_resolver_is_a_view_until_the_owner_stores_it_once() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Resolver(named("union")));
    cluster.wrote(0, Level::All, "milk", Basis::Blind);
    cluster.wrote(1, Level::All, "eggs", Basis::Blind);
    for node in 0..3 {
        let read = cluster.get(node, Level::All);
        assert_eq!(values(&read), ["eggs milk"]);
        assert!(matches!(read.resolution, Resolution::Resolved { plugin: UNION, epoch: 1 }));
    }
    for _ in 0..200 {
        cluster.pass(100);
    }
    let read = cluster.get(0, Level::All);
    assert_eq!((values(&read), read.resolution), (vec!["eggs milk".to_owned()], Resolution::NoneNeeded));
    let receipt = read.siblings[0].receipt.as_ref().expect("a stored resolution has a receipt");
    assert_eq!((receipt.merged_from.len(), receipt.plugin, receipt.generation), (2, UNION, 1));
    let stored = cluster.notices.iter().filter(|notice| matches!(notice, Notice::WroteBack { .. })).count();
    assert_eq!(stored, 1);
}

#[test]
fn where_the_plugin_fails_the_siblings_stay_and_the_reply_says_so() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Resolver(named("union")));
    cluster.wrote(0, Level::All, "milk", Basis::Blind);
    cluster.wrote(1, Level::All, "eggs", Basis::Blind);
    cluster.plugin_works = false;
    let read = cluster.get(2, Level::All);
    assert!(matches!(read.resolution, Resolution::Unresolved { .. }));
    assert_eq!(values(&read), ["milk", "eggs"]);
    cluster.plugin_works = true;
    assert_eq!(values(&cluster.get(2, Level::All)), ["eggs milk"]);
}

#[test]
fn lattice_puts_join_and_a_failing_join_keeps_the_operands() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lattice(named("join")));
    cluster.isolate(0);
    cluster.wrote(0, Level::One, "a", Basis::Unsaid);
    cluster.wrote(1, Level::One, "b", Basis::Unsaid);
    cluster.plugin_says = no_joins;
    cluster.wrote(2, Level::One, "c", Basis::Unsaid);
    cluster.cut.clear();
    let read = cluster.get(0, Level::All);
    assert!(matches!(read.resolution, Resolution::Unresolved { .. }));
    cluster.plugin_says = |_| None;
    assert_eq!(values(&cluster.get(1, Level::All)), ["a b c"]);
    cluster.wrote(0, Level::All, "d", Basis::Unsaid);
    for node in 0..3 {
        assert_eq!(values(&cluster.get(node, Level::One)), ["a b c d"]);
    }
}

#[test]
fn an_operation_is_applied_by_its_coordinator_and_queried_anywhere() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lattice(named("join")));
    for (node, word) in [(0, "x"), (1, "y")] {
        let op = Bytes::copy_from_slice(word.as_bytes());
        let outcome = cluster.ask(
            node,
            Level::Keyspace,
            Operation::Apply { op, context: None, request_id: RequestId([node as u8; 16]) },
        );
        assert!(matches!(outcome, Outcome::Wrote(_)), "{outcome:?}");
    }
    match cluster.ask(2, Level::All, Operation::Query { path: Bytes::new(), context: None }) {
        Outcome::Queried(reply) => assert_eq!(reply.result, "x y"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_lww_writes_the_later_stamp_wins_and_a_write_after_a_read_beats_what_was_read() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lww);
    cluster.wrote(0, Level::All, "old", Basis::Blind);
    let read = cluster.get(1, Level::All);
    cluster.now = Millis(cluster.now.0 - 300);
    cluster.wrote(2, Level::All, "new", Basis::Context(read.context));
    for node in 0..3 {
        assert_eq!(values(&cluster.get(node, Level::One)), ["new"]);
    }
    let read = cluster.get(0, Level::All);
    cluster.now = Millis(cluster.now.0 - 10_000);
    let late = cluster.put(1, Level::All, "newer", Basis::Context(read.context));
    assert!(matches!(late, Outcome::Failed(Problem::ClockSkew { .. })));
}

#[test]
fn a_delete_removes_what_it_saw_and_nothing_else() {
    for (semantics, left) in
        [(DeleteSemantics::UpdateWins, vec!["other"]), (DeleteSemantics::DeleteWins, vec![])]
    {
        let mut cluster = Cluster::new(3);
        cluster
            .keyspace_with("k", Settings { delete_semantics: semantics, ..Settings::new(Policy::Siblings) });
        let seen = cluster.wrote(0, Level::All, "seen", Basis::Blind).context;
        cluster.wrote(1, Level::All, "other", Basis::Blind);
        let delete = |basis| Operation::Delete { basis, request_id: RequestId([7; 16]) };
        let blind = cluster.ask(0, Level::All, delete(Basis::Blind));
        assert_eq!(blind, Outcome::Failed(Problem::ContextRequired));
        assert!(matches!(cluster.ask(2, Level::All, delete(Basis::Context(seen))), Outcome::Wrote(_)));
        let read = cluster.get(0, Level::All);
        assert_eq!(values(&read), left);
        assert_eq!(read.presence == Presence::Found, !left.is_empty());
    }
}

#[test]
fn lattice_deletes_spare_a_put_that_was_not_seen() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lattice(named("join")));
    let mine = cluster.wrote(0, Level::All, "a", Basis::Unsaid).context;
    cluster.wrote(0, Level::All, "b", Basis::Unsaid);
    let delete = |basis, id| Operation::Delete { basis, request_id: RequestId([id; 16]) };
    cluster.ask(1, Level::All, delete(Basis::Context(mine), 1));
    let read = cluster.get(2, Level::All);
    assert_eq!(values(&read), ["a b"], "the whole value survives an unseen put");
    cluster.ask(1, Level::All, delete(Basis::Context(read.context), 2));
    assert_eq!(cluster.get(0, Level::All).presence, Presence::Deleted);
}

#[test]
fn bad_requests_get_a_typed_problem_and_store_nothing() {
    let mut cluster = Cluster::new(3);
    cluster
        .keyspace_with("k", Settings { siblings_max: 2, ..Settings::new(Policy::Resolver(named("union"))) });
    let large = "x".repeat(crate::request::VALUE_BYTES_MAX + 1);
    let problem = cluster.put(0, Level::Keyspace, &large, Basis::Blind);
    assert!(matches!(problem, Outcome::Failed(Problem::TooLarge { what: "value", .. })));
    let unsaid = cluster.put(0, Level::Keyspace, "v", Basis::Unsaid);
    assert_eq!(unsaid, Outcome::Failed(Problem::ContextRequired));
    let invalid = cluster.put(0, Level::Keyspace, "", Basis::Blind);
    assert!(matches!(invalid, Outcome::Failed(Problem::InvalidValue { .. })));
    let level = cluster.put(0, Level::Count(4), "v", Basis::Blind);
    assert!(matches!(level, Outcome::Failed(Problem::InvalidArgument { field: "level", .. })));
    assert_eq!(cluster.get(0, Level::All).presence, Presence::NotFound);
    cluster.wrote(0, Level::All, "a", Basis::Blind);
    cluster.wrote(0, Level::All, "b", Basis::Blind);
    let context = match cluster.put(0, Level::All, "c", Basis::Blind) {
        Outcome::Failed(Problem::SiblingLimit { siblings: 2, limit: 2, context, .. }) => context,
        other => panic!("{other:?}"),
    };
    cluster.wrote(0, Level::All, "c", Basis::Context(context));
    assert_eq!(values(&cluster.get(0, Level::All)), ["c"]);
}

#[test]
fn a_request_at_a_node_that_is_no_replica_is_forwarded() {
    let mut cluster = Cluster::new(5);
    cluster.keyspace("k", Policy::Siblings);
    for node in 0..5 {
        let basis = Basis::Context(cluster.get(node, Level::Quorum).context);
        cluster.wrote(node, Level::Quorum, &format!("from {node}"), basis);
        assert_eq!(values(&cluster.get(4 - node, Level::Quorum)), [format!("from {node}")]);
    }
    assert!(cluster.nodes.iter().map(|node| node.counters.forwards).sum::<u64>() >= 4);
}

#[test]
fn a_node_that_lost_data_takes_a_new_actor_before_it_writes_again() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    let context = cluster.wrote(0, Level::All, "one", Basis::Blind).context;
    cluster.disks[0].retain(|key, _| key.starts_with(&[0, 0, 0, 0]));
    let before = cluster.nodes[0].status().incarnation.actor;
    cluster.wrote(0, Level::All, "two", Basis::Context(context));
    assert_ne!(cluster.nodes[0].status().incarnation.actor, before);
    for node in 0..3 {
        assert_eq!(values(&cluster.get(node, Level::All)), ["two"]);
    }
}
