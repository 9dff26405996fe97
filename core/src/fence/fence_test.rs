//! Collection told as stories: what is deleted goes everywhere, and nothing brings it back.

use super::CollectionView;
use crate::catalog::{DeleteSemantics, Policy, Settings};
use crate::event::{Effect, Effects, Event, Record};
use crate::id::{NodeId, OpId, RequestId};
use crate::message::Message;
use crate::node::Node;
use crate::request::{Basis, Level, Operation, Outcome, Presence};
use crate::story::{Cluster, named, values};
use crate::version::{KeyState, codec};
use bytes::Bytes;

const PERIODS: usize = 40;

fn cluster(nodes: usize, settings: Settings) -> Cluster {
    let mut cluster = Cluster::new(nodes);
    cluster.keyspace_with("k", settings);
    cluster
}

fn policies() -> [Policy; 3] {
    [Policy::Siblings, Policy::Lww, Policy::Lattice(named("join"))]
}

/// Time passes in the steps that collection takes.
fn live(cluster: &mut Cluster) {
    (0..PERIODS).for_each(|_| cluster.pass(200));
}

fn put(cluster: &mut Cluster, node: usize, value: &str) -> Bytes {
    let basis = match cluster.get(node, Level::All).context {
        context if context.is_empty() => Basis::Blind,
        context => Basis::Context(context),
    };
    cluster.wrote(node, Level::All, value, basis).context
}

fn delete(cluster: &mut Cluster, node: usize, context: Bytes) -> Bytes {
    let request_id = RequestId(u128::from(cluster.next_ticket).to_be_bytes());
    let basis = Basis::Context(context);
    match cluster.ask(node, Level::All, Operation::Delete { basis, request_id }) {
        Outcome::Wrote(reply) => reply.context,
        other => panic!("{other:?}"),
    }
}

/// What each disk holds of the key.
fn held(cluster: &Cluster) -> Vec<Option<KeyState>> {
    let object = |disk: &std::collections::BTreeMap<Bytes, Record>| {
        disk.iter().find(|(key, _)| key[..4] != [0; 4]).map(|(_, record)| record.clone())
    };
    let state = |record: Record| codec::state(&record).expect("what is stored decodes");
    cluster.disks.iter().map(|disk| object(disk).map(state)).collect()
}

fn is_collected(cluster: &Cluster) -> bool {
    held(cluster).iter().all(Option::is_none)
}

fn views(cluster: &Cluster) -> Vec<CollectionView> {
    cluster.nodes.iter().map(|node| node.collection(cluster.now)).collect()
}

/// The node that collects the key's slot.
fn owner(cluster: &Cluster) -> usize {
    let target = target(&cluster.nodes[0]);
    cluster.nodes.iter().position(|node| node.collects(&target)).expect("somebody does")
}

fn target(node: &Node) -> crate::target::Target {
    let entry = node.keyspaces.by_name("k").expect("the keyspace is there");
    crate::target::Target::new(entry, b"key")
}

/// A message of `from` that was under way for a long time arrives at `to`.
fn arrives(cluster: &mut Cluster, from: usize, to: usize, state: &KeyState) {
    let keyspace = target(&cluster.nodes[0]).entry.id;
    let (key, record) = (Bytes::from_static(b"key"), codec::record(state));
    let from = cluster.nodes[from].config.node;
    let message = Message::Replicate { op: None, keyspace, key, record };
    cluster.queue.push_back((to, Event::Message { from, message }));
    cluster.run();
}

#[test]
fn what_is_deleted_is_collected_on_every_replica_and_reads_as_never_written() {
    for policy in policies() {
        let mut cluster = cluster(4, Settings::new(policy.clone()));
        let context = put(&mut cluster, 0, "v");
        delete(&mut cluster, 1, context);
        assert!(!is_collected(&cluster));
        live(&mut cluster);
        assert!(is_collected(&cluster), "{policy:?}: {:?}", held(&cluster));
        let reply = cluster.get(2, Level::All);
        assert_eq!((reply.presence, reply.siblings.len()), (Presence::NotFound, 0));
        let of_owner = &views(&cluster)[owner(&cluster)];
        assert_eq!((of_owner.tombstones_known, of_owner.confirmed), (0, 1));
        assert_eq!(views(&cluster).iter().map(|view| view.reaped).sum::<u64>(), 3);
        assert!(of_owner.waiting_for.is_empty() && of_owner.last_round_ms.is_some());
    }
}

#[test]
fn what_has_expired_is_collected_and_what_has_not_is_not() {
    for policy in [Policy::Siblings, Policy::Lww] {
        let mut cluster = cluster(3, Settings { ttl_ms: Some(20_000), ..Settings::new(policy) });
        put(&mut cluster, 0, "v");
        live(&mut cluster);
        assert_eq!(values(&cluster.get(1, Level::All)), ["v"]);
        cluster.pass(20_000);
        live(&mut cluster);
        assert!(is_collected(&cluster), "{:?}", held(&cluster));
    }
}

#[test]
fn nothing_older_comes_back_however_late_it_arrives() {
    for policy in policies() {
        let mut cluster = cluster(4, Settings::new(policy));
        let context = put(&mut cluster, 0, "v");
        let old = held(&cluster).into_iter().flatten().next().expect("it is stored");
        delete(&mut cluster, 1, context);
        live(&mut cluster);
        for to in 0..4 {
            for from in (0..4).filter(|from| *from != to) {
                arrives(&mut cluster, from, to, &old);
            }
        }
        cluster.pass(100_000);
        for to in 0..4 {
            arrives(&mut cluster, (to + 1) % 4, to, &old);
        }
        assert!(is_collected(&cluster), "{:?}", held(&cluster));
        assert_eq!(cluster.get(0, Level::All).presence, Presence::NotFound);
    }
}

#[test]
fn a_key_that_was_collected_is_written_anew_as_if_nothing_had_been() {
    for policy in policies() {
        let mut cluster = cluster(3, Settings::new(policy.clone()));
        let context = put(&mut cluster, 0, "v");
        let deleted = delete(&mut cluster, 1, context.clone());
        live(&mut cluster);
        assert!(is_collected(&cluster));
        // By somebody who still holds a context of before, and by somebody who holds none.
        cluster.wrote(0, Level::All, "w", Basis::Context(deleted));
        live(&mut cluster);
        assert_eq!(values(&cluster.get(2, Level::All)), ["w"], "{policy:?}");
        let again = cluster.get(2, Level::All).context;
        delete(&mut cluster, 2, again);
        live(&mut cluster);
        assert!(is_collected(&cluster), "{policy:?}: {:?}", held(&cluster));
        cluster.wrote(1, Level::All, "x", Basis::Blind);
        live(&mut cluster);
        assert_eq!(values(&cluster.get(0, Level::All)), ["x"]);
        let states: Vec<_> = held(&cluster).into_iter().flatten().collect();
        assert_eq!(states.len(), 3);
        assert!(states.iter().all(|state| state.digest() == states[0].digest()), "{states:?}");
        assert!(!cluster.notices.iter().any(|notice| format!("{notice:?}").contains("Amnesia")));
    }
}

#[test]
fn a_member_that_is_away_holds_collection_up_and_is_named() {
    let mut cluster = cluster(4, Settings::new(Policy::Siblings));
    let context = put(&mut cluster, 0, "v");
    delete(&mut cluster, 1, context);
    let owner = owner(&cluster);
    let away = (owner + 1) % 4;
    cluster.isolate(away);
    live(&mut cluster);
    assert!(held(&cluster)[owner].is_some());
    let view = &views(&cluster)[owner];
    assert_eq!(view.waiting_for, [cluster.nodes[away].config.node]);
    assert!(view.blocked > 0 && view.tombstones_known == 1 && view.oldest_ms > Some(0));
    cluster.cut.clear();
    live(&mut cluster);
    assert!(is_collected(&cluster));
    assert!(views(&cluster)[owner].waiting_for.is_empty());
}

#[test]
fn a_replica_that_holds_something_else_keeps_all_of_them_from_collecting() {
    let mut cluster = cluster(3, Settings::new(Policy::Siblings));
    let context = put(&mut cluster, 0, "v");
    let behind = (owner(&cluster) + 1) % 3;
    let old = held(&cluster)[behind].clone().expect("it is stored");
    delete(&mut cluster, 1, context);
    cluster.disks[behind].insert(target(&cluster.nodes[0]).storage_key, codec::record(&old));
    live(&mut cluster);
    assert!(!is_collected(&cluster), "one replica still has the value");
    assert_eq!(cluster.get(behind, Level::All).presence, Presence::Deleted, "and is repaired by a read");
    live(&mut cluster);
    assert!(is_collected(&cluster), "{:?}", held(&cluster));
}

#[test]
fn a_put_that_meets_a_round_survives_it() {
    for policy in policies() {
        let mut cluster = cluster(3, Settings::new(policy.clone()));
        let context = put(&mut cluster, 0, "v");
        delete(&mut cluster, 1, context);
        // The round begins, and a put comes between any two of its steps.
        for step in 0..40 {
            let node = step % 3;
            (0..3).for_each(|node| cluster.queue.push_back((node, Event::TimerFired)));
            cluster.now = cluster.now.after(200);
            for _ in 0..step {
                let Some((to, event)) = cluster.queue.pop_front() else { break };
                let mut effects = Effects::new();
                cluster.nodes[to].handle(cluster.now, event, &mut effects);
                effects.into_iter().for_each(|effect| cluster.perform(to, effect));
            }
            let value = format!("w{step}");
            cluster.wrote(node, Level::All, &value, Basis::Blind);
            live(&mut cluster);
            let reply = cluster.get((node + 1) % 3, Level::All);
            assert_eq!(values(&reply), [value], "{policy:?}, step {step}");
            delete(&mut cluster, node, reply.context);
        }
        live(&mut cluster);
        assert!(is_collected(&cluster), "{policy:?}: {:?}", held(&cluster));
    }
}

/// A deleted key that was collected everywhere, but for a primary, not the owner, whose disk still has the tombstone.
fn left_behind(policy: Policy) -> (Cluster, usize, KeyState) {
    let mut cluster = cluster(3, Settings::new(policy));
    let context = put(&mut cluster, 0, "v");
    delete(&mut cluster, 1, context);
    let tombstone = held(&cluster)[0].clone().expect("it is stored");
    live(&mut cluster);
    assert!(is_collected(&cluster));
    let late = (owner(&cluster) + 1) % 3;
    let storage_key = target(&cluster.nodes[0]).storage_key;
    cluster.disks[late].insert(storage_key, codec::record(&tombstone));
    (cluster, late, tombstone)
}

/// A node's state arrives at both others.
fn offers(cluster: &mut Cluster, from: usize, state: &KeyState) {
    (0..3).filter(|to| *to != from).for_each(|to| arrives(cluster, from, to, state));
}

#[test]
fn a_primary_that_missed_the_end_of_a_round_is_told_when_it_offers_what_it_holds() {
    for policy in policies() {
        let (mut cluster, late, tombstone) = left_behind(policy.clone());
        // As after a crash: the record is there, the grave is not.
        cluster.nodes[late].fence.graves = super::Graves::default();
        offers(&mut cluster, late, &tombstone);
        assert!(is_collected(&cluster), "{policy:?}: {:?}", held(&cluster));
    }
}

#[test]
fn a_primary_whose_disk_was_full_when_a_register_was_to_go_lets_go_when_told_again() {
    let (mut cluster, late, tombstone) = left_behind(Policy::Lww);
    // Its own removal counts as a write of the key, and nothing came of it.
    let storage_key = target(&cluster.nodes[0]).storage_key;
    cluster.nodes[late].fence.graves.touch(&storage_key);
    offers(&mut cluster, late, &tombstone);
    assert!(is_collected(&cluster), "{:?}", held(&cluster));
}

#[test]
fn a_primary_that_could_not_shorten_a_context_says_so_and_is_told_again() {
    let mut cluster = cluster(3, Settings::new(Policy::Siblings));
    let context = put(&mut cluster, 0, "v");
    cluster.wrote(1, Level::All, "w", Basis::Context(context));
    let whole = held(&cluster)[0].clone().expect("it is stored");
    let actors = whole.retirable(|_| true);
    let short = whole.retired(&actors);
    assert!(actors.len() == 1 && short != whole);
    // All members agreed; the disk of one was full when the round ended.
    let (late, target) = (2, target(&cluster.nodes[0]));
    for node in 0..3 {
        let outline = codec::record(&whole.outline());
        let fate = super::Fate::Retire(actors.clone());
        let mut grave = super::grave::Grave::new(OpId(1), whole.outline(), outline, fate, None, 1_000_000);
        grave.closed = true;
        cluster.nodes[node].fence.graves.dig(target.storage_key.clone(), grave);
        let record = codec::record(if node == late { &whole } else { &short });
        cluster.disks[node].insert(target.storage_key.clone(), record);
    }
    let of = (target.entry.id, target.key.clone(), codec::record(&whole));
    let message = Message::Replicate { op: None, keyspace: of.0, key: of.1, record: of.2 };
    let mut leaving = Effects::new();
    leaving.push(Effect::Send { to: cluster.nodes[0].config.node, message });
    cluster.nodes[late].gate(&mut leaving, 0);
    leaving.into_iter().for_each(|effect| cluster.perform(late, effect));
    cluster.run();
    assert_eq!(held(&cluster), vec![Some(short); 3]);
}

#[test]
fn keys_from_before_a_boot_are_found() {
    let mut cluster = cluster(3, Settings::new(Policy::Siblings));
    let context = put(&mut cluster, 0, "v");
    // Nothing is noted, as after a start.
    delete(&mut cluster, 1, context);
    for node in 0..3 {
        cluster.nodes[node].fence.index = super::Index::default();
        cluster.nodes[node].walk_all();
    }
    assert_eq!(views(&cluster)[owner(&cluster)].tombstones_known, 0);
    assert!(views(&cluster)[0].looking_back);
    live(&mut cluster);
    assert!(is_collected(&cluster));
    assert!(!views(&cluster)[0].looking_back);
}

#[test]
fn a_lattice_that_was_reset_keeps_its_epoch() {
    let settings = Settings {
        delete_semantics: DeleteSemantics::DeleteWins,
        ..Settings::new(Policy::Lattice(named("join")))
    };
    let mut cluster = cluster(3, settings);
    let context = put(&mut cluster, 0, "v");
    delete(&mut cluster, 1, context);
    live(&mut cluster);
    assert!(held(&cluster).iter().all(Option::is_some));
    assert_eq!(cluster.get(2, Level::All).presence, Presence::Deleted);
}

#[test]
fn many_keys_are_collected_in_few_rounds() {
    let mut cluster = cluster(3, Settings::new(Policy::Siblings));
    for key in 0..600u32 {
        let key = Bytes::from(format!("key {key}"));
        let request = |operation| crate::request::Request {
            keyspace: "k".into(),
            key: key.clone(),
            level: Level::All,
            timeout_ms: None,
            until: None,
            retry_of_ms_ago: None,
            sloppiness: crate::request::Sloppiness::Keyspace,
            operation,
        };
        let ticket = crate::id::ClientTicket(1_000_000);
        let (value, request_id) = (Bytes::from_static(b"v"), RequestId([7; 16]));
        let operation =
            Operation::Put { value, content_type: None, basis: Basis::Blind, request_id, ttl_ms: Some(10) };
        cluster.queue.push_back((0, Event::Client { ticket, request: request(operation) }));
        cluster.run();
        assert!(matches!(cluster.outcomes.remove(&ticket), Some(Outcome::Wrote(_))));
    }
    cluster.pass(1_000);
    live(&mut cluster);
    assert!(is_collected(&cluster));
    let rounds: u64 = views(&cluster).iter().map(|view| view.rounds).sum();
    assert!(rounds < 60, "{rounds} rounds for 600 keys");
}

#[test]
fn only_members_are_asked_and_believed() {
    let mut cluster = cluster(3, Settings::new(Policy::Siblings));
    let context = put(&mut cluster, 0, "v");
    delete(&mut cluster, 1, context);
    let confirmed = super::FenceMessage::Confirmed { round: OpId(1), confirmed: vec![true; 9], tick: 9 };
    let stranger = NodeId(1);
    cluster.queue.push_back((0, Event::Message { from: stranger, message: Message::Fence(confirmed) }));
    cluster.run();
    assert!(held(&cluster).iter().all(Option::is_some));
}
