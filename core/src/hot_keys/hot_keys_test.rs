//! Hot keys, told through the node's door.

use super::*;
use crate::catalog::{Policy, Settings};
use crate::event::Event;
use crate::id::ClientTicket;
use crate::request::{Basis, Level, Operation, Outcome, Request, Want};
use crate::story::*;

fn get(level: Level, timeout_ms: u64) -> Request {
    Request {
        keyspace: "k".to_owned(),
        key: Bytes::from_static(b"key"),
        level,
        sloppiness: crate::request::Sloppiness::Keyspace,
        timeout_ms: Some(timeout_ms),
        until: None,
        retry_of_ms_ago: None,
        operation: Operation::Get { want: Want::Resolved },
    }
}

fn ask(cluster: &mut Cluster, node: usize, request: Request) -> ClientTicket {
    let ticket = ClientTicket(cluster.next_ticket);
    cluster.next_ticket += 1;
    cluster.queue.push_back((node, Event::Client { ticket, request }));
    ticket
}

fn shown(cluster: &mut Cluster, ticket: ClientTicket) -> Vec<String> {
    match cluster.outcomes.remove(&ticket) {
        Some(Outcome::Got(reply)) => values(&reply),
        other => panic!("{other:?}"),
    }
}

fn sharing() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    for node in &mut cluster.nodes {
        node.config.shared_reads_per_s = 0;
    }
    cluster
}

#[test]
fn reads_that_come_together_share_one_flight_after_the_first() {
    let mut cluster = sharing();
    cluster.wrote(1, Level::All, "v", Basis::Blind);
    let tickets: Vec<ClientTicket> =
        (0..50).map(|_| ask(&mut cluster, 0, get(Level::Quorum, 1_000))).collect();
    let reads = |cluster: &Cluster| cluster.nodes[0].counters.reads_shared;
    cluster.run();
    for ticket in tickets {
        assert_eq!(shown(&mut cluster, ticket), ["v"]);
    }
    // One flew, one boarded, 48 went with it.
    assert_eq!(reads(&cluster), 48);
    assert!(cluster.nodes[0].reading.is_empty());
}

#[test]
fn a_read_sees_a_write_that_was_acknowledged_while_an_older_read_was_under_way() {
    let mut cluster = sharing();
    cluster.wrote(1, Level::All, "old", Basis::Blind);
    // A read looks at its own copy, and cannot reach the others.
    cluster.isolate(0);
    let older = ask(&mut cluster, 0, get(Level::Quorum, 1_000));
    cluster.run();
    let context = cluster.get(1, Level::Quorum).context;
    cluster.wrote(1, Level::Quorum, "new", Basis::Context(context));
    cluster.cut.clear();
    let newer = ask(&mut cluster, 0, get(Level::Quorum, 1_000));
    cluster.run();
    assert!(!cluster.outcomes.contains_key(&newer), "it waits for the older one");
    cluster.pass(30);
    cluster.pass(500);
    shown(&mut cluster, older);
    assert_eq!(shown(&mut cluster, newer), ["new"]);
}

#[test]
fn who_waits_for_another_s_read_keeps_its_own_patience() {
    let mut cluster = sharing();
    cluster.isolate(0);
    let flying = ask(&mut cluster, 0, get(Level::All, 5_000));
    let hasty = ask(&mut cluster, 0, get(Level::All, 100));
    let patient = ask(&mut cluster, 0, get(Level::All, 8_000));
    cluster.run();
    cluster.pass(100);
    assert!(matches!(
        cluster.outcomes.remove(&hasty),
        Some(Outcome::Failed(Problem::NotEnoughReplicas { needed: 3, reachable: 0 }))
    ));
    assert!(cluster.outcomes.is_empty());
    cluster.cut.clear();
    cluster.pass(4_900);
    assert!(matches!(
        cluster.outcomes.remove(&flying),
        Some(Outcome::Failed(Problem::NotEnoughReplicas { needed: 3, reachable: 1 }))
    ));
    assert_eq!(shown(&mut cluster, patient), Vec::<String>::new());
    assert!(cluster.nodes[0].reading.is_empty());
}

#[test]
fn reads_at_other_levels_do_not_wait_for_one_another() {
    let mut cluster = sharing();
    cluster.wrote(0, Level::All, "v", Basis::Blind);
    cluster.isolate(0);
    ask(&mut cluster, 0, get(Level::All, 5_000));
    let one = ask(&mut cluster, 0, get(Level::One, 5_000));
    cluster.run();
    assert_eq!(shown(&mut cluster, one), ["v"]);
}

#[test]
fn the_hottest_keys_are_listed_with_their_rates_reads_and_writes_apart() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lww);
    for second in 0..10 {
        for i in 0..20 {
            ask(&mut cluster, 0, get(Level::One, 100));
            if i < 5 {
                cluster.put(0, Level::One, "v", Basis::Blind);
            }
        }
        cluster.now = Millis(1_000_000 + second * 1_000);
        cluster.run();
    }
    let views = cluster.nodes[0].hot_keys(cluster.now);
    let [view] = &views[..] else { panic!("{views:?}") };
    assert_eq!((view.keyspace.as_str(), &view.key[..]), ("k", &b"key"[..]));
    assert!((15.0..45.0).contains(&view.reads_per_s), "{view:?}");
    assert!((3.0..12.0).contains(&view.writes_per_s), "{view:?}");
    assert!((view.share - 1.0).abs() < 1e-9, "{view:?}");
    assert!(cluster.nodes[0].hot_keys(Millis(2_000_000)).is_empty());
}

#[test]
fn beyond_the_keyspace_s_limit_a_key_is_refused_with_a_pause_and_others_are_not() {
    let mut cluster = Cluster::new(3);
    let settings = Settings { key_rate_max: Some(10), ..Settings::new(Policy::Siblings) };
    cluster.keyspace_with("k", settings);
    let ask_20 = |cluster: &mut Cluster| {
        let tickets: Vec<ClientTicket> =
            (0..20).map(|_| ask(cluster, 0, get(Level::Quorum, 1_000))).collect();
        cluster.run();
        let outcomes = tickets.iter().map(|ticket| cluster.outcomes.remove(ticket).unwrap());
        outcomes.collect::<Vec<Outcome>>()
    };
    let outcomes = ask_20(&mut cluster);
    let served = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Got(_))).count();
    assert_eq!(served, 10);
    let pause_ms = |outcome: &Outcome| match outcome {
        Outcome::Failed(Problem::KeyTooHot { limit_per_s: 10, retry_after_ms }) => *retry_after_ms,
        other => panic!("{other:?}"),
    };
    assert!(outcomes[10..].iter().all(|outcome| (100..=1_000).contains(&pause_ms(outcome))));
    let other = Request { key: Bytes::from_static(b"other"), ..get(Level::Quorum, 1_000) };
    let ticket = ask(&mut cluster, 0, other);
    cluster.run();
    assert!(matches!(cluster.outcomes.remove(&ticket), Some(Outcome::Got(_))));
    cluster.now = cluster.now.after(1_000);
    assert!(matches!(ask_20(&mut cluster)[0], Outcome::Got(_)));
}
