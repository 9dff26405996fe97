//! Requests that come again, told as stories: through the same node, through another, after a restart (R19).

use crate::catalog::Policy;
use crate::event::Event;
use crate::id::{ClientTicket, RequestId};
use crate::request::{Basis, Level, Operation, Outcome, Presence, Problem, Request, Sloppiness};
use crate::story::{Cluster, values};
use bytes::Bytes;

const ID: RequestId = RequestId([9; 16]);

/// Sends the put again, saying how long ago it was sent first.
fn again(cluster: &mut Cluster, node: usize, value: &str, ago_ms: u64) -> Outcome {
    let ticket = ClientTicket(cluster.next_ticket);
    cluster.next_ticket += 1;
    let value = Bytes::copy_from_slice(value.as_bytes());
    let operation =
        Operation::Put { value, content_type: None, basis: Basis::Blind, request_id: ID, ttl_ms: None };
    let request = Request {
        keyspace: "k".to_owned(),
        key: Bytes::from_static(b"key"),
        level: Level::All,
        sloppiness: Sloppiness::Keyspace,
        timeout_ms: None,
        until: None,
        retry_of_ms_ago: Some(ago_ms),
        operation,
    };
    cluster.queue.push_back((node, Event::Client { ticket, request }));
    cluster.run();
    cluster.outcomes.remove(&ticket).expect("it is answered")
}

fn delete(cluster: &mut Cluster, node: usize) {
    let basis = Basis::Context(cluster.get(node, Level::All).context);
    let operation = Operation::Delete { basis, request_id: RequestId([8; 16]) };
    assert!(matches!(cluster.ask(node, Level::All, operation), Outcome::Wrote(_)));
}

/// Where a retry comes: at a node, which was started again before or not.
const WAYS: [(usize, bool); 4] = [(0, false), (1, false), (0, true), (1, true)];

fn begin(policy: &Policy) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", policy.clone());
    cluster.pass(50);
    assert!(matches!(cluster.put_as(0, Level::All, "v1", Basis::Blind, ID), Outcome::Wrote(_)));
    cluster.pass(50);
    cluster
}

#[test]
fn a_retry_does_not_bring_back_what_was_overwritten_wherever_it_comes() {
    for policy in [Policy::Siblings, Policy::Lww] {
        for (node, is_restarted) in WAYS {
            let mut cluster = begin(&policy);
            let read = cluster.get(0, Level::All);
            cluster.wrote(0, Level::All, "v2", Basis::Context(read.context));
            if is_restarted {
                (0..3).for_each(|node| cluster.boot(node));
                cluster.live(300);
            }
            let ago_ms = cluster.now.0 - 1_000_050;
            let outcome = again(&mut cluster, node, "v1", ago_ms);
            assert!(matches!(outcome, Outcome::Wrote(_)), "{outcome:?}");
            for reader in 0..3 {
                assert_eq!(
                    values(&cluster.get(reader, Level::All)),
                    ["v2"],
                    "{policy:?} {node} {is_restarted}"
                );
            }
        }
    }
}

#[test]
fn a_retry_does_not_bring_back_what_was_deleted_also_once_the_delete_was_collected() {
    for policy in [Policy::Siblings, Policy::Lww] {
        for is_collected in [false, true] {
            for node in 0..3 {
                let mut cluster = begin(&policy);
                delete(&mut cluster, 0);
                if is_collected {
                    cluster.live(8_000);
                    assert!(cluster.disks.iter().all(|disk| disk.keys().all(|key| key[..4] == [0; 4])));
                }
                let ago_ms = cluster.now.0 - 1_000_050;
                let outcome = again(&mut cluster, node, "v1", ago_ms);
                let read = cluster.get(1, Level::All);
                // Of a register that was collected only its grave knows, which keeps no ids.
                let is_known = !(is_collected && policy == Policy::Lww);
                let is_uncertain = matches!(outcome, Outcome::Failed(Problem::Uncertain { .. }));
                assert!(is_uncertain || (is_known && matches!(outcome, Outcome::Wrote(_))), "{outcome:?}");
                assert!(!is_uncertain || !is_known);
                assert_ne!(read.presence, Presence::Found, "{policy:?} {node} {is_collected}");
            }
        }
    }
}

#[test]
fn a_first_attempt_that_was_never_carried_out_is_made_up_for_by_its_retry() {
    for policy in [Policy::Siblings, Policy::Lww] {
        let mut cluster = Cluster::new(3);
        cluster.keyspace("k", policy);
        cluster.wrote(0, Level::All, "v0", Basis::Blind);
        cluster.pass(2_000);
        assert!(matches!(again(&mut cluster, 1, "v1", 1_000), Outcome::Wrote(_)));
        assert!(values(&cluster.get(2, Level::All)).contains(&"v1".to_owned()));
    }
}

#[test]
fn an_id_that_comes_with_another_request_is_refused_and_does_nothing() {
    for policy in [Policy::Siblings, Policy::Lww] {
        let mut cluster = begin(&policy);
        let reused = Outcome::Failed(Problem::RequestIdReused);
        assert_eq!(cluster.put_as(0, Level::All, "v2", Basis::Blind, ID), reused);
        let basis = Basis::Context(cluster.get(0, Level::All).context);
        assert_eq!(cluster.ask(0, Level::All, Operation::Delete { basis, request_id: ID }), reused);
        assert_eq!(values(&cluster.get(1, Level::All)), ["v1"]);
        if policy == Policy::Siblings {
            assert_eq!(cluster.put_as(1, Level::All, "v2", Basis::Blind, ID), reused, "its version tells");
        }
    }
}

#[test]
fn an_id_survives_that_its_write_was_uncertain() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.wrote(0, Level::All, "before", Basis::Blind);
    cluster.full.insert(0);
    for _ in 0..4 {
        let outcome = cluster.put_as(0, Level::All, "v", Basis::Blind, ID);
        assert!(matches!(outcome, Outcome::Failed(Problem::Uncertain { .. })), "{outcome:?}");
    }
    cluster.full.clear();
    cluster.live(1_000);
    let outcome = cluster.put_as(0, Level::All, "v", Basis::Blind, ID);
    assert!(matches!(outcome, Outcome::Wrote(_) | Outcome::Failed(Problem::Uncertain { .. })));
    let read = cluster.get(1, Level::All);
    let of_v = read.siblings.iter().find(|sibling| sibling.content.as_deref() == Some(b"v"));
    assert_eq!(of_v.map(|sibling| sibling.dots.len()), Some(1), "one request, one dot");
}
