//! The scrub, told as short stories of three nodes and their disks.

use super::{Evidence, Loss};
use crate::catalog::Policy;
use crate::event::{Event, Notice, Record};
use crate::id::NodeId;
use crate::request::{Basis, Level};
use crate::ring::token;
use crate::storage_key;
use crate::story::{Cluster, JOIN, named, values};
use crate::version::{Content, Fragment, Fragments, KeyState, Register, Siblings, Standing, codec};
use bytes::Bytes;

const KEY: &[u8] = b"key";

fn cluster(policy: Policy) -> (Cluster, Bytes) {
    let mut cluster = Cluster::new(3);
    for node in &mut cluster.nodes {
        node.config.scrub_period_ms = 1_000;
    }
    cluster.keyspace("k", policy);
    cluster.wrote(0, Level::All, "the value", Basis::Blind);
    let keyspace = cluster.nodes[0].catalog().keyspaces["k"].id;
    (cluster, storage_key::object(keyspace, KEY))
}

/// Some passes of everybody's.
fn scrub(cluster: &mut Cluster) {
    cluster.pass(60_000);
    (0..30).for_each(|_| cluster.pass(400));
}

/// The same causality with another value.
fn with_value(record: &Record, value: &'static str) -> Record {
    let other = Bytes::from_static(value.as_bytes());
    codec::record(&match codec::state(record).unwrap() {
        KeyState::Causal(siblings) => {
            let mut versions: Vec<_> = siblings.iter().cloned().collect();
            versions[0].1.content = Content::Value(other);
            KeyState::Causal(Siblings::from_parts(siblings.seen().clone(), versions).unwrap())
        }
        KeyState::Lww(register) => {
            let (dot, mut version) = register.winner.unwrap();
            version.content = Content::Value(other);
            KeyState::Lww(Register { winner: Some((dot, version)) })
        }
        KeyState::Lattice(fragments) => {
            let claim = fragments.iter().next().unwrap().claim.clone();
            let one = vec![Fragment { claim, value: other, standing: Standing::valid(1) }];
            let (epoch, removed, stamp) = (fragments.epoch, fragments.removed.clone(), fragments.stamp);
            KeyState::Lattice(Fragments::from_parts(epoch, removed, stamp, one).unwrap())
        }
    })
}

fn divergences(cluster: &Cluster) -> Vec<Notice> {
    let is_one = |notice: &&Notice| matches!(notice, Notice::Divergence { .. });
    cluster.notices.iter().filter(is_one).cloned().collect()
}

fn policies() -> [Policy; 3] {
    [Policy::Siblings, Policy::Lww, Policy::Lattice(named("join"))]
}

#[test]
fn equal_replicas_are_read_pass_after_pass_and_nothing_is_found() {
    for policy in policies() {
        let (mut cluster, key) = cluster(policy);
        let before = cluster.disks[1][&key].clone();
        scrub(&mut cluster);
        for node in &cluster.nodes {
            let view = node.scrub();
            assert!(view.passes >= 2 && view.records >= 2 && view.bytes > 0, "{view:?}");
            assert_eq!((view.rot_found, view.divergences, view.repaired, view.evidence), (0, 0, 0, 0));
            assert!(view.pass_started_ms.is_some() && view.damaged == 0);
        }
        assert_eq!(cluster.disks[1][&key], before);
    }
}

#[test]
fn a_value_that_rotted_is_taken_from_a_replica_and_kept_as_evidence() {
    for policy in policies() {
        let (mut cluster, key) = cluster(policy);
        let sound = cluster.disks[0][&key].clone();
        let mut rotten = sound.clone();
        rotten.body = Bytes::from_static(b"the walue");
        cluster.disks[1].insert(key.clone(), rotten.clone());
        scrub(&mut cluster);
        assert_eq!(cluster.disks[1][&key], sound);
        let view = cluster.nodes[1].scrub();
        assert_eq!((view.rot_found, view.repaired, view.evidence), (1, 1, 1), "{view:?}");
        let evidence = Evidence::decode(&cluster.disks[1][&storage_key::evidence(&key)]).unwrap();
        assert_eq!((evidence.own, evidence.taken, evidence.mine), (rotten, sound, None));
        assert_eq!(divergences(&cluster), []);
        assert!(cluster.notices.iter().any(|notice| matches!(notice, Notice::CorruptRecord { .. })));
    }
}

#[test]
fn of_two_contents_under_one_causality_the_larger_digest_wins_everywhere_and_the_other_is_kept() {
    for policy in policies() {
        let is_lattice = policy.plugin().is_some();
        for at in 0..3 {
            let (mut cluster, key) = cluster(policy.clone());
            let one = cluster.disks[at][&key].clone();
            let other = with_value(&one, "another value");
            cluster.disks[at].insert(key.clone(), other.clone());
            let digest = |record: &Record| codec::content_digest(&record.head).unwrap().unwrap();
            let (winner, loser) = if digest(&one) > digest(&other) { (&one, &other) } else { (&other, &one) };
            scrub(&mut cluster);
            for node in 0..3 {
                assert_eq!(cluster.disks[node][&key].body, winner.body, "{policy:?}, node {node} of {at}");
                let evidence = cluster.disks[node].get(&storage_key::evidence(&key));
                assert_eq!(evidence.is_some(), cluster.nodes[node].scrub().repaired > 0);
                if let Some(evidence) = evidence.map(|record| Evidence::decode(record).unwrap()) {
                    assert_eq!(
                        (evidence.own.body, evidence.taken.body),
                        (loser.body.clone(), winner.body.clone())
                    );
                    assert_eq!((evidence.mine, evidence.winner), (Some(digest(loser)), Some(digest(winner))));
                }
            }
            let repaired: u64 = cluster.nodes.iter().map(|node| node.scrub().repaired).sum();
            assert_eq!(repaired, if loser == &other { 1 } else { 2 });
            let told = divergences(&cluster);
            assert!(!told.is_empty());
            for notice in told {
                let Notice::Divergence { keyspace, key, mine, theirs, suspect, .. } = notice else {
                    continue;
                };
                assert!(keyspace == "k" && key == KEY && mine != theirs);
                assert_eq!(suspect, is_lattice.then_some(JOIN));
            }
        }
    }
}

#[test]
fn what_replicas_may_store_differently_is_not_held_against_them() {
    let (cluster, key) = cluster(Policy::Lattice(named("join")));
    let record = &cluster.disks[0][&key];
    let KeyState::Lattice(fragments) = codec::state(record).unwrap() else { panic!("a lattice") };
    let mut apart: Vec<Fragment> = fragments.iter().cloned().collect();
    let (epoch, removed, stamp) = (fragments.epoch, fragments.removed.clone(), fragments.stamp);
    let dot = crate::id::Dot { actor: crate::id::ActorId(9), counter: 1 };
    apart.push(Fragment {
        claim: crate::version::DotSet::single(dot, 0),
        value: Bytes::from_static(b"x"),
        standing: Standing::valid(1),
    });
    apart.sort_by(|a, b| a.claim.cmp(&b.claim));
    let apart =
        codec::record(&KeyState::Lattice(Fragments::from_parts(epoch, removed, stamp, apart).unwrap()));
    assert_eq!(codec::content_digest(&apart.head), Ok(None));
    assert!(codec::is_sound(&apart));
    let KeyState::Causal(siblings) = ({
        let (cluster, key) = self::cluster(Policy::Siblings);
        codec::state(&cluster.disks[0][&key]).unwrap()
    }) else {
        panic!("siblings")
    };
    let mut versions: Vec<_> = siblings.iter().cloned().collect();
    versions[0].1.expires_at = Some(crate::id::Millis(5));
    let expiring = KeyState::Causal(Siblings::from_parts(siblings.seen().clone(), versions).unwrap());
    assert_eq!(codec::content_digest(&codec::record(&expiring).head), Ok(None));
}

/// All that one node's disk has of the keyspace is lost.
fn lose_disk_range(cluster: &mut Cluster, at: usize, key: &Bytes) -> (Bytes, Bytes) {
    let (from, to) = storage_key::objects(storage_key::keyspace_of(key));
    cluster.disks[at].retain(|key, _| !(from <= *key && *key < to));
    cluster.damage[at].push((from.clone(), to.clone()));
    (from, to)
}

#[test]
fn a_range_that_the_disk_cannot_read_is_written_anew_from_all_primaries_and_given_up() {
    for policy in policies() {
        let (mut cluster, key) = cluster(policy);
        let sound = cluster.disks[0][&key].clone();
        let range = lose_disk_range(&mut cluster, 1, &key);
        // One of the others is away: without it nothing is certain.
        cluster.isolate(2);
        let peer = NodeId::from_name("n2");
        cluster.queue.push_back((1, Event::Link { peer, up: false }));
        cluster.queue.push_back((1, Event::Damaged { ranges: vec![range] }));
        cluster.run();
        (0..10).for_each(|_| cluster.pass(1_000));
        assert_eq!((cluster.damage[1].len(), cluster.nodes[1].scrub().damaged), (1, 1));
        assert!(cluster.nodes[1].scrub().rot_found >= 1);
        cluster.cut.clear();
        cluster.queue.push_back((1, Event::Link { peer, up: true }));
        scrub(&mut cluster);
        assert_eq!((cluster.damage[1].len(), cluster.nodes[1].scrub().damaged), (0, 0));
        assert_eq!(cluster.disks[1][&key], sound);
        assert!(cluster.nodes[1].scrub().repaired >= 1);
        assert_eq!(values(&cluster.get(1, Level::One)), ["the value"]);
    }
}

#[test]
fn a_range_that_lies_within_another_is_repaired_with_it() {
    let (mut cluster, key) = cluster(Policy::Siblings);
    let (from, to) = lose_disk_range(&mut cluster, 1, &key);
    let peer = NodeId::from_name("n2");
    cluster.queue.push_back((1, Event::Link { peer, up: false }));
    let within = (key.clone(), Bytes::from([&key[..], &[0]].concat()));
    for range in [within.clone(), (from.clone(), to), (from, key.clone()), within] {
        cluster.queue.push_back((1, Event::Damaged { ranges: vec![range] }));
        cluster.run();
        (0..3).for_each(|_| cluster.pass(1_000));
    }
    assert_eq!(cluster.nodes[1].scrub().damaged, 1);
    cluster.queue.push_back((1, Event::Link { peer, up: true }));
    scrub(&mut cluster);
    let view = cluster.nodes[1].scrub();
    assert_eq!((view.damaged, view.repaired), (0, 1));
}

#[test]
fn damage_that_a_scan_meets_is_repaired_without_being_told() {
    let (mut cluster, key) = cluster(Policy::Siblings);
    for n in 0..600 {
        let name = format!("other-{n}");
        let storage_key = storage_key::object(storage_key::keyspace_of(&key), name.as_bytes());
        assert!(token(storage_key::keyspace_of(&key), name.as_bytes()).0 > 0);
        for disk in &mut cluster.disks {
            let record = disk[&key].clone();
            disk.insert(storage_key.clone(), record);
        }
    }
    let before = cluster.disks[0].clone();
    lose_disk_range(&mut cluster, 2, &key);
    scrub(&mut cluster);
    assert_eq!(cluster.damage[2], []);
    let objects = |disk: &std::collections::BTreeMap<Bytes, Record>| -> Vec<(Bytes, Record)> {
        let (from, to) = storage_key::objects(storage_key::keyspace_of(&key));
        disk.range(from..to).map(|(key, record)| (key.clone(), record.clone())).collect()
    };
    assert_eq!(objects(&cluster.disks[2]), objects(&before));
}

#[test]
fn damaged_leaves_turn_stale_and_their_range_is_given_up() {
    let (mut cluster, key) = cluster(Policy::Siblings);
    let keyspace = storage_key::keyspace_of(&key);
    let slot = token(keyspace, KEY).slot();
    let leaf = storage_key::leaf(keyspace, slot);
    cluster.disks[0].remove(&leaf);
    let range = (leaf.clone(), storage_key::after(&leaf));
    cluster.damage[0].push(range.clone());
    cluster.queue.push_back((0, Event::Damaged { ranges: vec![range] }));
    cluster.run();
    (0..5).for_each(|_| cluster.pass(1_000));
    assert_eq!(cluster.damage[0], []);
    let record = crate::anti_entropy::leaf::LeafRecord::decode(&cluster.disks[0][&leaf]).unwrap();
    assert!(record.stale || cluster.nodes[0].leaf(keyspace, slot).is_some());
}

/// The first node's own records cannot be read, and it is told; then they are repaired.
fn own_records_are_lost(cluster: &mut Cluster) {
    let range = storage_key::own_all();
    cluster.disks[0].retain(|key, _| !(range.0 <= *key && *key < range.1));
    cluster.damage[0].push(range.clone());
    cluster.queue.push_back((0, Event::Damaged { ranges: vec![range] }));
    cluster.run();
    (0..5).for_each(|_| cluster.pass(1_000));
    assert_eq!(cluster.damage[0], []);
}

#[test]
fn of_leaves_that_no_key_ever_had_nothing_is_lost() {
    let (mut cluster, _) = cluster(Policy::Siblings);
    own_records_are_lost(&mut cluster);
    assert_eq!(cluster.disks[0].keys().filter(|key| storage_key::parse_leaf(key).is_some()).count(), 1);
}

#[test]
fn two_that_lost_the_same_range_take_in_what_anybody_can_read_and_say_what_may_be_lost() {
    for policy in policies() {
        let (mut cluster, key) = cluster(policy);
        let keyspace = storage_key::keyspace_of(&key);
        let (from, to) = storage_key::objects(keyspace);
        let sound = cluster.disks[0][&key].clone();
        let named = |node: &crate::Node| node.identity.now().named;
        let actors: Vec<_> = cluster.nodes.iter().map(|node| (node.actor(), named(node))).collect();
        // Of five keys the first is nowhere but in the range that both lost, the others in some sound place.
        let names: Vec<Bytes> = (0..5).map(|n| storage_key::object(keyspace, &[b'a' + n])).collect();
        let (lost, first, second) = ((names[0].clone(), storage_key::after(&names[0])), &names[1], &names[2]);
        let holders: [(&Bytes, &[usize]); 4] =
            [(first, &[0]), (second, &[1]), (&names[3], &[2]), (&names[4], &[0, 1, 2])];
        for (name, nodes) in holders {
            nodes.iter().for_each(|node| drop(cluster.disks[*node].insert(name.clone(), sound.clone())));
        }
        let single = |key: &Bytes| (key.clone(), storage_key::after(key));
        for (node, other) in [(0, second), (1, first)] {
            cluster.damage[node] = vec![lost.clone(), single(other), single(&key)];
            cluster.disks[node].remove(&key);
            let ranges = cluster.damage[node].clone();
            cluster.queue.push_back((node, Event::Damaged { ranges }));
        }
        cluster.run();
        scrub(&mut cluster);
        assert_eq!((&cluster.damage[0], &cluster.damage[1]), (&vec![], &vec![]));
        for node in [0, 1] {
            for name in [&key, first, second] {
                assert_eq!(cluster.disks[node].get(name), Some(&sound), "node {node}");
            }
            // Whose actor no context names has lost no dots of it.
            let (before, was_named) = actors[node];
            assert_eq!(cluster.nodes[node].actor() != before, was_named);
        }
        let told: Vec<_> = cluster
            .notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::RangeLost { keyspace, from, to, peers } => {
                    Some((keyspace, from, to, peers.as_slice()))
                }
                _ => None,
            })
            .collect();
        assert!(told.iter().any(|(name, ..)| *name == "k"));
        assert!(told.iter().any(|(_, from, to, _)| **from <= lost.0 && lost.1 <= **to));
        // Where the other had lost nothing, nothing is said to be lost.
        assert!(told.iter().all(|(_, from, ..)| *from != first && *from != second));
        let views: u64 = cluster.nodes.iter().map(|node| node.scrub().lost).sum();
        assert_eq!(views, told.len() as u64);
        let kept = (0..2).filter_map(|node| cluster.disks[node].get(&storage_key::evidence(&lost.0)));
        let kept: Vec<Loss> = kept.map(|record| Loss::decode(record).unwrap()).collect();
        assert!(!kept.is_empty() && kept.iter().all(|loss| (&loss.from, &loss.to) == (&lost.0, &lost.1)));
        assert!(kept.iter().all(|loss| loss.peers.len() == 1));
        assert!(from < to && cluster.nodes[2].actor() == actors[2].0);
    }
}

#[test]
fn who_a_node_is_and_what_it_knows_is_written_anew_from_memory() {
    let (mut cluster, _) = cluster(Policy::Siblings);
    let keys = [storage_key::identity(), storage_key::catalog(), storage_key::members()];
    cluster.pass(20_000);
    let before: Vec<_> = keys.iter().map(|key| cluster.disks[0].get(key).cloned()).collect();
    assert!(before.iter().all(Option::is_some));
    own_records_are_lost(&mut cluster);
    for (key, before) in keys.iter().zip(before) {
        assert_eq!(cluster.disks[0].get(key), before.as_ref(), "{key:?}");
    }
    let hints =
        |notice: &&Notice| matches!(notice, Notice::CorruptRecord { reason, .. } if reason.contains("hints"));
    assert_eq!(cluster.notices.iter().filter(hints).count(), 1);
}

#[test]
fn a_range_over_everything_is_given_up_as_a_whole() {
    let (mut cluster, key) = cluster(Policy::Siblings);
    let sound = cluster.disks[0][&key].clone();
    let range = (Bytes::new(), storage_key::end());
    cluster.disks[1].clear();
    cluster.damage[1].push(range.clone());
    cluster.queue.push_back((1, Event::Damaged { ranges: vec![range] }));
    cluster.run();
    scrub(&mut cluster);
    assert_eq!((cluster.damage[1].len(), cluster.nodes[1].scrub().damaged), (0, 0));
    assert_eq!(cluster.disks[1].get(&key), Some(&sound));
}
