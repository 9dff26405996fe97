//! Stories of replicas that differ without anybody having said so.

use super::leaf::{Share, Sum};
use super::*;
use crate::catalog::Policy;
use crate::event::{Event, Notice, Record};
use crate::id::{ActorId, ClientTicket, Dot, RequestId};
use crate::message::Message;
use crate::request::{Basis, Level, Operation, Request};
use crate::ring::{Slot, token};
use crate::storage_key;
use crate::story::*;
use crate::version::{DotSet, Fragments, KeyState, Stamp, Standing, codec};
use bytes::Bytes;

const POLICIES: [fn() -> Policy; 3] =
    [|| Policy::Siblings, || Policy::Lww, || Policy::Lattice(named("join"))];

impl Cluster {
    fn write(&mut self, node: usize, level: Level, key: &[u8], value: &str) {
        let ticket = ClientTicket(1_000_000 + self.next_ticket);
        let request_id = RequestId(u128::from(ticket.0).to_be_bytes());
        self.next_ticket += 1;
        let request = Request {
            keyspace: "k".to_owned(),
            key: Bytes::copy_from_slice(key),
            level,
            sloppiness: crate::request::Sloppiness::Keyspace,
            timeout_ms: None,
            until: None,
            retry_of_ms_ago: None,
            operation: Operation::Put {
                value: Bytes::copy_from_slice(value.as_bytes()),
                content_type: None,
                basis: Basis::Blind,
                request_id,
                ttl_ms: None,
            },
        };
        self.queue.push_back((node, Event::Client { ticket, request }));
        self.run();
    }

    /// Rounds of all nodes, until none has anything to do.
    fn rounds(&mut self, count: usize) {
        for _ in 0..count * 50 {
            self.pass(300);
        }
    }

    fn objects(&self, node: usize) -> BTreeMap<Bytes, Record> {
        let objects = self.disks[node].iter().filter(|(key, _)| storage_key::parse_object(key).is_some());
        objects.map(|(key, record)| (key.clone(), record.clone())).collect()
    }

    fn assert_equal(&self, keys: usize) {
        for node in 0..self.nodes.len() {
            assert_eq!(self.objects(node).len(), keys, "node {node}");
            assert_eq!(self.objects(node), self.objects(0), "node {node}");
        }
        self.assert_trees();
    }

    /// Every leaf that a node thinks it knows is what a rebuild finds.
    fn assert_trees(&self) {
        for node in 0..self.nodes.len() {
            let mut sums: BTreeMap<(KeyspaceId, Slot), Sum> = BTreeMap::new();
            for (storage_key, record) in self.objects(node) {
                let (keyspace, key) = storage_key::parse_object(&storage_key).unwrap();
                let slot = token(keyspace, &key).slot();
                let state = codec::outline(&record.head).unwrap();
                sums.entry((keyspace, slot)).or_default().add(Share::of(&key, &state));
            }
            for ((keyspace, slot), sum) in sums {
                let known = self.nodes[node].leaf(keyspace, slot);
                assert!(known.is_none_or(|known| known == sum), "node {node} {slot:?}");
            }
        }
    }

    fn states_sent(&self) -> usize {
        self.exchanges.iter().filter_map(Exchange::states).map(|(_, states)| states.len()).sum()
    }
}

fn key(index: usize) -> Vec<u8> {
    format!("key {index}").into_bytes()
}

#[test]
fn what_a_replica_missed_is_repaired_without_a_read() {
    for policy in POLICIES {
        let mut cluster = Cluster::new(3);
        cluster.keyspace("k", policy());
        (0..100).for_each(|i| cluster.write(0, Level::All, &key(i), "old"));
        cluster.isolate(0);
        (50..200).for_each(|i| cluster.write(1, Level::One, &key(i), "theirs"));
        (180..250).for_each(|i| cluster.write(0, Level::One, &key(i), "mine"));
        cluster.cut.clear();
        cluster.rounds(4);
        cluster.assert_equal(250);
        for node in 0..3 {
            for view in cluster.nodes[node].repair_views(cluster.now) {
                assert!(view.proven_equal_ms_ago.is_some_and(|ms| ms < 60_000), "{view:?}");
                assert_eq!((view.branches_differing, view.branches), (0, 256));
            }
        }
        let corrected = cluster.notices.iter().any(|notice| matches!(notice, Notice::LeafCorrected { .. }));
        assert!(!corrected, "every leaf was right or known to be stale");
    }
}

#[test]
fn where_nothing_differs_a_round_is_one_question_and_its_answer() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    (0..300).for_each(|i| cluster.write(i % 3, Level::All, &key(i), "v"));
    cluster.exchanges.clear();
    cluster.rounds(1);
    assert!(cluster.exchanges.len() >= 6, "each node asked somebody");
    for pair in cluster.exchanges.chunks(2) {
        assert!(matches!(pair, [Exchange::Root { .. }, Exchange::Same { .. }]), "{pair:?}");
    }
}

#[test]
fn a_registers_leaves_are_read_anew_once_and_then_a_round_is_as_cheap() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lww);
    (0..300).for_each(|i| cluster.write(i % 3, Level::All, &key(i), "v"));
    cluster.rounds(2);
    let rescanned: Vec<u64> = cluster.nodes.iter().map(|node| node.counters.leaves_rescanned).collect();
    assert!(rescanned.iter().all(|count| (250..=300).contains(count)), "{rescanned:?}");
    assert_eq!(cluster.states_sent(), 0);
    cluster.exchanges.clear();
    cluster.rounds(1);
    assert!(cluster.exchanges.iter().all(|e| matches!(e, Exchange::Root { .. } | Exchange::Same { .. })));
    cluster.write(0, Level::All, &key(1), "w");
    cluster.rounds(2);
    for (node, before) in rescanned.iter().enumerate() {
        assert_eq!(cluster.nodes[node].counters.leaves_rescanned, before + 1);
    }
}

#[test]
fn of_many_keys_only_the_one_that_differs_travels() {
    let mut cluster = Cluster::new(3);
    // No hints, which would bring it sooner.
    cluster.nodes.iter_mut().for_each(|node| node.config.hint_bytes_max = 0);
    cluster.keyspace("k", Policy::Siblings);
    (0..2_000).for_each(|i| cluster.write(0, Level::All, &key(i), "v"));
    cluster.isolate(2);
    cluster.write(0, Level::Quorum, &key(77), "w");
    cluster.cut.clear();
    cluster.exchanges.clear();
    cluster.rounds(3);
    cluster.assert_equal(2_000);
    let others = |e: &&Exchange| !matches!(e, Exchange::Root { .. } | Exchange::Same { .. });
    let (count, states) = (cluster.exchanges.iter().filter(others).count(), cluster.states_sent());
    assert!((1..=2).contains(&states), "{states}: of two peers both may have found it");
    assert!(count <= 20, "{count}");
}

#[test]
fn an_empty_disk_is_refilled_and_a_full_one_needs_no_reading_anew() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    (0..500).for_each(|i| cluster.write(i % 3, Level::All, &key(i), "v"));
    cluster.rounds(1);
    cluster.boot(1);
    cluster.assert_equal(500);
    cluster.exchanges.clear();
    cluster.rounds(2);
    assert_eq!(cluster.states_sent(), 0, "its leaves are as they were");
    assert_eq!(cluster.nodes[1].counters.leaves_rescanned, 0);
    cluster.crash(2, true);
    cluster.disks[2].clear();
    cluster.boot(2);
    cluster.rounds(4);
    cluster.assert_equal(500);
}

#[test]
fn a_slot_of_many_keys_is_compared_page_by_page() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    let keyspace = cluster.nodes[0].keyspaces.by_name("k").unwrap().id;
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for index in 0.. {
        let key = key(index);
        if token(keyspace, &key).slot() == Slot(0xabcd) {
            keys.push(key);
        }
        if keys.len() == 60 {
            break;
        }
    }
    keys.iter().step_by(2).for_each(|key| cluster.write(0, Level::All, key, "v"));
    cluster.isolate(0);
    keys.iter().skip(1).step_by(4).for_each(|key| cluster.write(0, Level::One, key, "mine"));
    keys.iter().skip(3).step_by(4).for_each(|key| cluster.write(1, Level::One, key, "theirs"));
    keys.iter().step_by(6).for_each(|key| cluster.write(2, Level::One, key, "third"));
    cluster.cut.clear();
    cluster.rounds(4);
    cluster.assert_equal(60);
}

#[test]
fn other_bytes_of_equal_causality_are_never_sent_to_and_fro() {
    let mut cluster = Cluster::new(2);
    cluster.keyspace("k", Policy::Lattice(named("join")));
    let keyspace = cluster.nodes[0].keyspaces.by_name("k").unwrap().id;
    let mut operands = Fragments::default();
    operands.put(
        Dot { actor: ActorId(5), counter: 1 },
        0,
        Stamp::default(),
        Bytes::from_static(b"a"),
        Standing::valid(1),
    );
    operands.put(
        Dot { actor: ActorId(6), counter: 1 },
        0,
        Stamp::default(),
        Bytes::from_static(b"b"),
        Standing::valid(1),
    );
    let claims: Vec<DotSet> = operands.iter().map(|fragment| fragment.claim.clone()).collect();
    for (node, value) in [(0, "a b"), (1, "b a")] {
        let mut state = operands.clone();
        state.joined(&claims, Bytes::copy_from_slice(value.as_bytes()), Standing::valid(1));
        let record = codec::record(&KeyState::Lattice(state));
        let key = Bytes::from_static(b"key");
        let message = Message::Replicate { op: None, keyspace, key, record };
        let from = cluster.nodes[1 - node].config.node;
        cluster.queue.push_back((node, Event::Message { from, message }));
    }
    cluster.run();
    assert_ne!(cluster.objects(0), cluster.objects(1));
    cluster.exchanges.clear();
    cluster.rounds(3);
    assert!(cluster.exchanges.iter().all(|e| matches!(e, Exchange::Root { .. } | Exchange::Same { .. })));
}

#[test]
fn repair_keeps_to_its_budget_and_comes_to_its_end() {
    let mut cluster = Cluster::new(2);
    // No hints, which would bring it sooner.
    cluster.nodes.iter_mut().for_each(|node| node.config.hint_bytes_max = 0);
    let rate = 64 << 10;
    cluster.nodes.iter_mut().for_each(|node| node.config.repair_bytes_per_s = rate);
    cluster.keyspace("k", Policy::Siblings);
    cluster.isolate(0);
    let value = "x".repeat(4_000);
    (0..200).for_each(|i| cluster.write(0, Level::One, &key(i), &value));
    cluster.cut.clear();
    let begun = cluster.now;
    let mut took = 0;
    while cluster.objects(1).len() < 200 {
        cluster.pass(50);
        took = cluster.now.since(begun);
        let sent: usize = cluster
            .exchanges
            .iter()
            .filter_map(Exchange::states)
            .flat_map(|(_, s)| s)
            .map(|(_, r)| r.body.len())
            .sum();
        let allowed = rate as usize * (took as usize + 200) / 1_000 + (256 << 10);
        assert!(sent <= allowed, "{sent} bytes after {took} ms");
        assert!(took < 60_000);
    }
    assert!(took > 6_000, "{took}");
}
