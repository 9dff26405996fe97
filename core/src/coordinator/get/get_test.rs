//! Reads beside slow replicas and under load, told through the door.

use crate::catalog::Policy;
use crate::event::Event;
use crate::id::{ClientTicket, RequestId};
use crate::request::{Basis, Level, Operation, Outcome, Problem, Request, Want};
use crate::story::*;
use bytes::Bytes;

fn request(level: Level, operation: Operation) -> Request {
    let (keyspace, key) = ("k".to_owned(), Bytes::from_static(b"key"));
    Request { keyspace, key, level, timeout_ms: Some(3_000), until: None, retry_of_ms_ago: None, operation }
}

fn put(bytes: usize) -> Operation {
    Operation::Put {
        value: Bytes::from(vec![7; bytes]),
        content_type: None,
        basis: Basis::Blind,
        request_id: RequestId([9; 16]),
        ttl_ms: None,
    }
}

fn ask(cluster: &mut Cluster, node: usize, level: Level, operation: Operation) -> ClientTicket {
    let ticket = ClientTicket(cluster.next_ticket);
    cluster.next_ticket += 1;
    let request = request(level, operation);
    cluster.queue.push_back((node, Event::Client { ticket, request }));
    cluster.run();
    ticket
}

/// How long a read at a quorum through node 0 takes.
fn read_ms(cluster: &mut Cluster) -> u64 {
    let begun = cluster.now;
    let ticket = ask(cluster, 0, Level::Quorum, Operation::Get { want: Want::Resolved });
    loop {
        match cluster.outcomes.remove(&ticket) {
            Some(Outcome::Got(_)) => return cluster.now.since(begun),
            Some(other) => panic!("{other:?}"),
            None => cluster.pass(1),
        }
    }
}

/// Node 0 and the peer that it asks first, which hears nothing more though its link is up.
fn with_a_silent_replica() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.wrote(0, Level::All, "v", Basis::Blind);
    for silent in [1, 2] {
        cluster.cut = [(0, silent)].into();
        if read_ms(&mut cluster) > 0 {
            break;
        }
    }
    assert_eq!(cluster.cut.len(), 1);
    cluster
}

#[test]
fn a_quorum_that_does_not_need_a_silent_replica_soon_does_not_wait_for_it() {
    let mut cluster = with_a_silent_replica();
    let slow = (0..100).filter(|_| read_ms(&mut cluster) > 0).count();
    assert!(slow <= 1, "{slow} of 100 reads waited");
    let counters = &cluster.nodes[0].counters;
    assert!((1..=5).contains(&counters.probes), "{counters:?}");
    assert_eq!(counters.hedges_refused, 0);
}

#[test]
fn a_replica_that_hears_again_is_asked_again() {
    let mut cluster = with_a_silent_replica();
    let (_, silent) = cluster.cut.pop_first().unwrap();
    (0..2_000).for_each(|_| assert_eq!(read_ms(&mut cluster), 0));
    // Now the other falls silent: reads go to the one that has recovered.
    cluster.cut = [(0, 3 - silent)].into();
    let slow = (0..100).filter(|_| read_ms(&mut cluster) > 0).count();
    assert!(slow <= 2, "{slow} of 100 reads waited");
}

#[test]
fn without_budget_a_read_waits_longer_but_not_until_its_patience_ends() {
    let mut cluster = with_a_silent_replica();
    let node = &mut cluster.nodes[0];
    node.paces = Default::default();
    while node.paces.spend() {}
    let took_ms = read_ms(&mut cluster);
    assert!((900..=1_100).contains(&took_ms), "{took_ms}");
    assert_eq!(cluster.nodes[0].counters.hedges_refused, 1);
}

#[test]
fn under_load_a_large_put_is_shed_while_reads_pass_and_replication_always_does() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.nodes[0].config.cost_in_flight_max = 1 << 20;
    cluster.isolate(0);
    let large = put(900 << 10);
    let first = ask(&mut cluster, 0, Level::All, large.clone());
    let second = ask(&mut cluster, 0, Level::All, large);
    match cluster.outcomes.remove(&second) {
        Some(Outcome::Failed(Problem::Overloaded { retry_after_ms })) => assert!(retry_after_ms >= 50),
        other => panic!("{other:?}"),
    }
    let read = ask(&mut cluster, 0, Level::One, Operation::Get { want: Want::Resolved });
    assert!(matches!(cluster.outcomes.remove(&read), Some(Outcome::Got(_))));
    cluster.cut.clear();
    // Another node's write is held here whatever it weighs.
    let from_peer = ask(&mut cluster, 1, Level::All, put(1 << 20));
    assert!(matches!(cluster.outcomes.remove(&from_peer), Some(Outcome::Wrote(_))));
    cluster.pass(10_000);
    assert!(matches!(cluster.outcomes.remove(&first), Some(Outcome::Failed(Problem::Uncertain { .. }))));
    assert!(cluster.nodes.iter().all(|node| node.load.is_idle()));
}
