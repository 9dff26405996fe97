//! Hinted handoff, told through the door of a cluster of five: three primaries and two that stand in.

use super::*;
use crate::catalog::{Policy, Settings};
use crate::event::{Effect, Effects, Event, Notice, WriteOp};
use crate::id::{ActorId, ClientTicket, Dot, KeyspaceId, RequestId, Ticket};
use crate::message::{Message, Refusal};
use crate::request::{Basis, Level, Operation, Outcome, Presence, Problem, Request, Sloppiness, Want};
use crate::ring::token;
use crate::story::*;
use crate::version::{KeyState, Register, Stamp, codec};
use std::collections::BTreeSet;

const KEY: &[u8] = b"key";

/// A cluster, and its nodes in the order of the walk of the key.
struct Scene {
    cluster: Cluster,
    walk: Vec<usize>,
    down: BTreeSet<usize>,
}

impl Scene {
    fn new(count: usize, policy: Policy) -> Scene {
        Scene::with(count, Settings::new(policy))
    }

    fn with(count: usize, settings: Settings) -> Scene {
        let mut cluster = Cluster::new(count);
        cluster.keyspace_with("k", settings);
        let walk = cluster.nodes[0].ring().preference(token(Scene::keyspace(), KEY), 3, count);
        let walk = walk.into_iter().map(|id| cluster.index(id)).collect();
        Scene { cluster, walk, down: BTreeSet::new() }
    }

    fn keyspace() -> KeyspaceId {
        crate::catalog::KeyspaceEntry::id_of("k")
    }

    fn id(&self, place: usize) -> NodeId {
        self.cluster.nodes[self.walk[place]].config.node
    }

    fn object() -> Bytes {
        storage_key::object(Scene::keyspace(), KEY)
    }

    /// It hears nothing and says nothing.
    fn silence(&mut self, place: usize) {
        self.cluster.isolate(self.walk[place]);
    }

    fn link(&mut self, place: usize, up: bool) {
        let node = self.walk[place];
        let others: Vec<usize> = (0..self.cluster.nodes.len()).filter(|other| *other != node).collect();
        for other in others.into_iter().filter(|other| !self.down.contains(other)) {
            let (peer, there) = (self.cluster.nodes[node].config.node, self.cluster.nodes[other].config.node);
            self.cluster.queue.push_back((other, Event::Link { peer, up }));
            self.cluster.queue.push_back((node, Event::Link { peer: there, up }));
        }
    }

    /// As [`Scene::silence`], and everybody knows.
    fn down(&mut self, place: usize) {
        self.silence(place);
        self.link(place, false);
        self.down.insert(self.walk[place]);
        self.cluster.run();
    }

    fn up(&mut self, place: usize) {
        let node = self.walk[place];
        self.down.remove(&node);
        let down = &self.down;
        let back = |a: usize, b: usize| a == node && !down.contains(&b);
        self.cluster.cut.retain(|(from, to)| !(back(*from, *to) || back(*to, *from)));
        self.link(place, true);
        self.cluster.run();
    }

    /// Some seconds go by.
    fn time(&mut self) {
        (0..40).for_each(|_| self.cluster.pass(100));
    }

    fn put(&mut self, place: usize, level: Level, value: &str, basis: Basis) -> Outcome {
        self.cluster.put(self.walk[place], level, value, basis)
    }

    fn wrote(&mut self, place: usize, level: Level, value: &str, basis: Basis) -> crate::request::WriteReply {
        match self.put(place, level, value, basis) {
            Outcome::Wrote(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn hints_on_disk(&self) -> usize {
        let (from, to) = storage_key::hints_all();
        self.cluster.disks.iter().map(|disk| disk.range(from.clone()..to.clone()).count()).sum()
    }

    fn hints_held(&self) -> u64 {
        self.cluster.nodes.iter().map(|node| node.hint_totals().0).sum()
    }

    /// What a primary's own disk holds.
    fn copy(&self, place: usize) -> Option<KeyState> {
        let record = self.cluster.disks[self.walk[place]].get(&Scene::object())?;
        Some(codec::state(record).unwrap())
    }

    fn values(&self, place: usize) -> Vec<String> {
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        match self.copy(place) {
            Some(KeyState::Causal(siblings)) => {
                siblings.iter().filter_map(|(_, version)| version.content.value().map(text)).collect()
            }
            Some(KeyState::Lww(register)) => {
                register.winner.iter().filter_map(|(_, version)| version.content.value().map(text)).collect()
            }
            Some(KeyState::Lattice(fragments)) => fragments.iter().map(|it| text(&it.value)).collect(),
            None => Vec::new(),
        }
    }

    fn ask_strictly(&mut self, place: usize, operation: Operation) -> Outcome {
        let request = Request {
            keyspace: "k".into(),
            key: Bytes::from_static(KEY),
            level: Level::All,
            sloppiness: Sloppiness::Strict,
            timeout_ms: None,
            until: None,
            retry_of_ms_ago: None,
            operation,
        };
        let ticket = ClientTicket(99_000);
        let node = self.walk[place];
        self.cluster.queue.push_back((node, Event::Client { ticket, request }));
        self.cluster.run();
        self.cluster.outcomes.remove(&ticket).expect("answered at once")
    }

    /// The process of a node ends, and another begins on its disk.
    fn restart(&mut self, place: usize) {
        self.cluster.boot(self.walk[place]);
    }
}

fn put(value: &'static str) -> Operation {
    Operation::Put {
        value: Bytes::from_static(value.as_bytes()),
        content_type: None,
        basis: Basis::Blind,
        request_id: RequestId([7; 16]),
        ttl_ms: None,
    }
}

#[test]
fn a_stand_in_keeps_it_for_a_primary_that_is_down_and_brings_it_home() {
    for policy in [Policy::Siblings, Policy::Lww, Policy::Lattice(named("join"))] {
        let mut scene = Scene::new(5, policy);
        scene.down(2);
        let reply = scene.wrote(0, Level::All, "v", Basis::Blind);
        assert!(reply.acks.sloppy);
        let mut expected = vec![scene.id(0), scene.id(1), scene.id(3)];
        let mut replicas = reply.acks.replicas;
        expected.sort();
        replicas.sort();
        assert_eq!(replicas, expected);
        let stand_in = &scene.cluster.nodes[scene.walk[3]];
        assert!(stand_in.holds_hint(&Scene::object()));
        let view = stand_in.hints(scene.cluster.now).remove(0);
        assert_eq!((view.target, view.count, view.state), (scene.id(2), 1, HintState::Waiting));
        scene.time();
        assert_eq!((scene.hints_on_disk(), scene.copy(2)), (1, None));
        scene.up(2);
        scene.time();
        assert_eq!((scene.hints_on_disk(), scene.hints_held()), (0, 0));
        assert_eq!(scene.copy(2), scene.copy(0));
        assert!(!scene.cluster.nodes[scene.walk[3]].holds_hint(&Scene::object()));
        assert!(scene.cluster.notices.contains(&Notice::HintsHome { target: scene.id(2) }));
    }
}

#[test]
fn a_silent_primary_is_given_up_on_after_a_while_and_counts_once_when_it_speaks_again() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.silence(1);
    scene.silence(2);
    let node = scene.walk[0];
    let request = Request {
        keyspace: "k".into(),
        key: Bytes::from_static(KEY),
        level: Level::Quorum,
        sloppiness: Sloppiness::Keyspace,
        timeout_ms: None,
        until: None,
        retry_of_ms_ago: None,
        operation: put("v"),
    };
    let ticket = ClientTicket(500);
    scene.cluster.queue.push_back((node, Event::Client { ticket, request }));
    scene.cluster.run();
    scene.cluster.pass(150);
    assert!(!scene.cluster.outcomes.contains_key(&ticket), "patience first");
    scene.cluster.pass(100);
    match scene.cluster.outcomes.remove(&ticket) {
        Some(Outcome::Wrote(reply)) => assert!(reply.acks.sloppy),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.hints_on_disk(), 2);
    scene.up(1);
    scene.up(2);
    scene.time();
    assert_eq!(scene.hints_on_disk(), 0);
    assert_eq!((scene.values(1), scene.values(2)), (vec!["v".to_owned()], vec!["v".to_owned()]));
}

#[test]
fn strict_requests_refuse_where_sloppy_ones_go_on() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.down(2);
    let refused = scene.ask_strictly(0, put("v"));
    assert_eq!(refused, Outcome::Failed(Problem::NotEnoughReplicas { needed: 3, reachable: 2 }));
    let refused = scene.ask_strictly(0, Operation::Get { want: Want::Resolved });
    assert_eq!(refused, Outcome::Failed(Problem::NotEnoughReplicas { needed: 3, reachable: 2 }));
    let strict = Settings { sloppy: false, ..Settings::new(Policy::Siblings) };
    let mut scene = Scene::with(5, strict);
    scene.down(2);
    let refused = scene.put(0, Level::All, "v", Basis::Blind);
    assert_eq!(refused, Outcome::Failed(Problem::NotEnoughReplicas { needed: 3, reachable: 2 }));
    let reply = scene.wrote(0, Level::Quorum, "v", Basis::Blind);
    assert!(!reply.acks.sloppy);
}

#[test]
fn where_no_stand_in_is_left_a_marker_remembers_who_lacks_what() {
    for (policy, expected) in [
        (Policy::Siblings, vec!["one", "two"]),
        (Policy::Lww, vec!["two"]),
        (Policy::Lattice(named("join")), vec!["one two"]),
    ] {
        let mut scene = Scene::new(3, policy);
        scene.down(2);
        assert!(!scene.wrote(0, Level::Quorum, "one", Basis::Blind).acks.sloppy);
        scene.wrote(0, Level::Quorum, "two", Basis::Blind);
        assert_eq!(scene.hints_on_disk(), 1);
        let all = scene.put(0, Level::All, "three", Basis::Blind);
        assert_eq!(all, Outcome::Failed(Problem::NotEnoughReplicas { needed: 3, reachable: 2 }));
        scene.up(2);
        scene.time();
        assert_eq!((scene.hints_on_disk(), scene.hints_held()), (0, 0));
        assert_eq!(scene.values(2), expected);
    }
}

#[test]
fn a_marker_is_kept_for_a_primary_that_does_not_acknowledge() {
    let mut scene = Scene::new(3, Policy::Siblings);
    scene.silence(2);
    scene.wrote(0, Level::Quorum, "v", Basis::Blind);
    assert_eq!(scene.hints_on_disk(), 0);
    scene.cluster.pass(250);
    assert_eq!(scene.hints_on_disk(), 1);
    // It is not known to be down: what is sent is lost, and tried again.
    scene.time();
    assert_eq!(scene.hints_on_disk(), 1);
    scene.cluster.cut.clear();
    (0..4).for_each(|_| scene.time());
    assert_eq!((scene.hints_on_disk(), scene.values(2)), (0, vec!["v".to_owned()]));
}

#[test]
fn with_no_primary_in_reach_a_stand_in_coordinates_and_sees_its_own_writes() {
    for (policy, expected) in [
        (Policy::Siblings, vec!["two"]),
        (Policy::Lww, vec!["two"]),
        (Policy::Lattice(named("join")), vec!["one two"]),
    ] {
        let mut scene = Scene::new(5, policy);
        (0..3).for_each(|place| scene.down(place));
        // Through the last of the walk, which asks the first that can be reached.
        let first = scene.wrote(4, Level::Quorum, "one", Basis::Blind);
        assert!(first.acks.sloppy);
        assert_eq!(first.acks.replicas.len(), 2);
        let read = scene.cluster.get(scene.walk[4], Level::Quorum);
        assert_eq!((values(&read), read.acks.sloppy), (vec!["one".to_owned()], true));
        scene.wrote(3, Level::Quorum, "two", Basis::Context(read.context));
        let read = scene.cluster.get(scene.walk[3], Level::Quorum);
        assert_eq!(values(&read), expected);
        (0..3).for_each(|place| scene.up(place));
        scene.time();
        assert_eq!((scene.hints_on_disk(), scene.hints_held()), (0, 0));
        (0..3).for_each(|place| assert_eq!(scene.values(place), expected));
        assert!(scene.copy(0) == scene.copy(1) && scene.copy(1) == scene.copy(2));
    }
}

#[test]
fn a_stand_in_that_has_forgotten_a_key_does_not_claim_its_earlier_writes_of_it() {
    let mut scene = Scene::new(5, Policy::Siblings);
    (0..3).for_each(|place| scene.down(place));
    scene.wrote(3, Level::Quorum, "before", Basis::Blind);
    (0..3).for_each(|place| scene.up(place));
    scene.time();
    assert_eq!(scene.hints_on_disk(), 0);
    (0..3).for_each(|place| scene.down(place));
    let stand_in = scene.walk[3];
    // Dots of other keys lie between.
    (0..3).for_each(|_| assert!(scene.cluster.nodes[stand_in].mint(&mut Effects::new()).is_some()));
    scene.wrote(3, Level::Quorum, "after", Basis::Blind);
    (0..3).for_each(|_| assert!(scene.cluster.nodes[stand_in].mint(&mut Effects::new()).is_some()));
    scene.wrote(3, Level::Quorum, "and after", Basis::Blind);
    (0..3).for_each(|place| scene.up(place));
    scene.time();
    assert_eq!(scene.hints_on_disk(), 0);
    for place in 0..3 {
        assert_eq!(scene.values(place), ["before", "after", "and after"]);
    }
    // While they are held, its dots are one span: contexts stay short.
    let Some(KeyState::Causal(siblings)) = scene.copy(0) else { panic!() };
    assert_eq!(siblings.seen().spans().len(), 2);
    assert!(scene.cluster.notices.iter().all(|notice| !matches!(notice, Notice::Amnesia { .. })));
}

#[test]
fn a_hint_that_comes_home_late_does_not_undo_what_was_written_since() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.down(2);
    let old = scene.wrote(0, Level::All, "old", Basis::Blind);
    scene.down(3);
    scene.up(2);
    scene.wrote(0, Level::All, "new", Basis::Context(old.context));
    assert_eq!((scene.values(2), scene.hints_on_disk()), (vec!["new".to_owned()], 1));
    scene.up(3);
    scene.time();
    assert_eq!(scene.hints_on_disk(), 0);
    (0..3).for_each(|place| assert_eq!(scene.values(place), ["new"]));
}

#[test]
fn what_is_stored_while_a_hint_is_on_its_way_home_keeps_it() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.down(2);
    let first = scene.wrote(0, Level::All, "one", Basis::Blind);
    // Only the stand-in reaches the primary again, and is not answered yet.
    let (primary, stand_in) = (scene.walk[2], scene.walk[3]);
    scene.cluster.cut.remove(&(stand_in, primary));
    let peer = scene.id(2);
    scene.cluster.queue.push_back((stand_in, Event::Link { peer, up: true }));
    scene.cluster.run();
    scene.cluster.pass(10);
    assert_eq!((scene.values(2), scene.hints_on_disk()), (vec!["one".to_owned()], 1));
    scene.wrote(0, Level::All, "two", Basis::Context(first.context));
    // Now the answer to the first state arrives; the hint is more than that by now.
    let op = *scene.cluster.nodes[stand_in].hints.leaving.keys().next().expect("one is under way");
    let message = Message::Replicated { op, result: Ok(()) };
    scene.cluster.queue.push_back((stand_in, Event::Message { from: peer, message }));
    scene.cluster.run();
    assert_eq!(scene.hints_on_disk(), 1);
    scene.up(2);
    scene.time();
    assert_eq!((scene.hints_on_disk(), scene.values(2)), (0, vec!["two".to_owned()]));
}

#[test]
fn a_hint_is_acknowledged_once_it_is_durable_and_refused_where_it_has_no_business() {
    let mut scene = Scene::new(5, Policy::Lww);
    let content = crate::version::Content::Value(Bytes::from_static(b"v"));
    let dot = Dot { actor: ActorId(7), counter: 1 };
    let stamp = Stamp { millis: 5, logical: 0 };
    let version = crate::version::Version {
        content,
        stamp,
        content_type: None,
        request_id: None,
        receipt: None,
        expires_at: None,
    };
    let record = codec::record(&KeyState::Lww(Register::of(dot, version)));
    let (from, op) = (scene.id(0), OpId(77));
    let hint = |target: NodeId, record: &Record| Message::Hint {
        op,
        target,
        keyspace: Scene::keyspace(),
        key: Bytes::from_static(KEY),
        record: record.clone(),
    };
    let send = |scene: &mut Scene, place: usize, message: Message| {
        let mut effects = Effects::new();
        let now = scene.cluster.now;
        let node = scene.walk[place];
        scene.cluster.nodes[node].handle(now, Event::Message { from, message }, &mut effects);
        effects
    };
    let refused = |effects: Effects, refusal: Refusal| {
        let result = Err(refusal);
        assert!(
            matches!(&effects[..], [Effect::Send { to, message }]
                if *to == from && *message == Message::Replicated { op, result }),
            "{effects:?}"
        );
    };
    let (primary, stand_in) = (scene.id(2), scene.id(4));
    let damaged = Record { head: record.head.slice(1..), body: record.body.clone() };
    refused(send(&mut scene, 3, hint(primary, &damaged)), Refusal::Malformed);
    refused(send(&mut scene, 3, hint(stand_in, &record)), Refusal::NotStandIn);
    refused(send(&mut scene, 1, hint(primary, &record)), Refusal::NotStandIn);
    let effects = send(&mut scene, 3, hint(primary, &record));
    let (ticket, ops): (Ticket, Vec<WriteOp>) = match &effects[..] {
        [Effect::Write { ticket, ops, .. }] => (*ticket, ops.clone()),
        other => panic!("{other:?}"),
    };
    assert!(matches!(&ops[..], [WriteOp::Merge { key, .. }] if storage_key::is_hint(key)));
    let mut effects = Effects::new();
    let now = scene.cluster.now;
    let done = Event::WritesDone { tickets: vec![ticket], result: Ok(()) };
    scene.cluster.nodes[scene.walk[3]].handle(now, done, &mut effects);
    assert!(matches!(
        &effects[..],
        [Effect::Send { message: Message::Replicated { result: Ok(()), .. }, .. }]
    ));
    // A node that has no room left says so, and the write asks the next one.
    scene.cluster.nodes[scene.walk[4]].config.hint_bytes_max = 10;
    refused(send(&mut scene, 4, hint(primary, &record)), Refusal::HintsFull);
    let view = scene.cluster.nodes[scene.walk[4]].hints(now).remove(0);
    assert_eq!((view.count, view.dropped), (0, 1));
}

#[test]
fn a_stand_in_without_room_is_passed_over_at_once() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.cluster.nodes[scene.walk[3]].config.hint_bytes_max = 10;
    scene.down(2);
    let reply = scene.wrote(0, Level::All, "v", Basis::Blind);
    assert!(reply.acks.replicas.contains(&scene.id(4)));
}

#[test]
fn hints_outlive_a_restart_and_go_home_after_it() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.down(2);
    scene.wrote(0, Level::All, "v", Basis::Blind);
    let before = scene.cluster.nodes[scene.walk[3]].hints(scene.cluster.now);
    scene.restart(3);
    let after = scene.cluster.nodes[scene.walk[3]].hints(scene.cluster.now);
    assert_eq!((after.len(), after[0].count, after[0].bytes), (1, 1, before[0].bytes));
    assert_eq!(after[0].oldest_ms, before[0].oldest_ms);
    scene.down(2);
    scene.time();
    assert_eq!(scene.hints_on_disk(), 1);
    scene.up(2);
    scene.time();
    assert_eq!((scene.hints_on_disk(), scene.values(2)), (0, vec!["v".to_owned()]));
}

#[test]
fn hints_that_damage_hides_at_the_start_go_home_once_it_is_given_up() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.down(2);
    scene.wrote(0, Level::All, "v", Basis::Blind);
    // It lies above the damaged block, so it is what remains.
    let keeper = scene.walk[3];
    scene.cluster.damage[keeper].push(storage_key::hints_all());
    scene.restart(3);
    assert!(scene.cluster.nodes[keeper].holds_hint(&Scene::object()), "nobody knows");
    scene.time();
    scene.up(2);
    scene.time();
    assert_eq!(scene.cluster.damage[keeper], []);
    assert_eq!((scene.hints_on_disk(), scene.values(2)), (0, vec!["v".to_owned()]));
}

#[test]
fn a_hint_may_be_held_until_those_from_before_the_start_are_counted() {
    let mut scene = Scene::new(3, Policy::Siblings);
    let config = scene.cluster.nodes[0].config.clone();
    let catalog = scene.cluster.nodes[0].catalog().clone();
    let identity =
        crate::boot::Identity::first(crate::boot::Owner::default(), ActorId(1), crate::id::DiskId(1));
    let mut node = Node::new(config, identity, catalog, 9);
    assert!(node.holds_hint(&Scene::object()));
    scene.cluster.run();
    let mut effects = Effects::new();
    node.start(scene.cluster.now, &mut effects);
    let (first, _) = storage_key::hints_all();
    let ticket = effects.iter().find_map(|effect| match effect {
        Effect::Scan { ticket, from, heads_only: true, .. } if *from == first => Some(*ticket),
        _ => None,
    });
    let result = Ok(ScanPage::default());
    let done = Event::ScanDone { ticket: ticket.expect("hints are counted"), result };
    node.handle(scene.cluster.now, done, &mut effects);
    assert!(!node.holds_hint(&Scene::object()));
}

#[test]
fn old_hints_are_given_to_the_other_primaries_and_never_just_dropped() {
    let mut scene = Scene::new(5, Policy::Siblings);
    (0..3).for_each(|place| scene.down(place));
    scene.wrote(3, Level::Quorum, "v", Basis::Blind);
    let before = scene.hints_on_disk();
    let age_ms = scene.cluster.nodes[0].config.hint_age_ms_max;
    scene.cluster.pass(age_ms + 120_000);
    scene.time();
    assert_eq!(scene.hints_on_disk(), before, "nobody else has it");
    scene.up(1);
    scene.cluster.pass(120_000);
    scene.time();
    assert!(scene.hints_on_disk() > 0, "one other primary is not all of them");
    scene.up(2);
    (0..30).for_each(|_| scene.time());
    assert_eq!(scene.hints_on_disk(), 0);
    assert_eq!((scene.values(1), scene.values(2)), (vec!["v".to_owned()], vec!["v".to_owned()]));
    let given_up: u64 = scene.cluster.nodes.iter().map(|node| node.counters.hints_given_up).sum();
    assert!(given_up > 0);
    // A marker's holder has it itself.
    let mut scene = Scene::new(3, Policy::Siblings);
    scene.down(2);
    scene.wrote(0, Level::Quorum, "v", Basis::Blind);
    scene.cluster.pass(age_ms + 120_000);
    scene.time();
    assert_eq!((scene.hints_on_disk(), scene.values(0)), (0, vec!["v".to_owned()]));
}

#[test]
fn a_hint_that_does_not_decode_is_dropped_and_said_so() {
    let mut scene = Scene::new(3, Policy::Siblings);
    let key = storage_key::hint(scene.id(2), &Scene::object());
    let head = Bytes::from_static(b"\x09nonsense");
    scene.cluster.disks[scene.walk[0]].insert(key.clone(), Record { head, body: Bytes::new() });
    scene.restart(0);
    scene.link(2, true);
    scene.time();
    assert_eq!(scene.hints_on_disk(), 0);
    let said = |notice: &Notice| matches!(notice, Notice::CorruptRecord { key: of, .. } if *of == key);
    assert!(scene.cluster.notices.iter().any(said));
}

#[test]
fn a_read_that_finds_too_few_primaries_asks_those_who_stand_in() {
    let mut scene = Scene::new(5, Policy::Siblings);
    scene.down(1);
    scene.down(2);
    scene.wrote(0, Level::All, "v", Basis::Blind);
    scene.down(0);
    let read = scene.cluster.get(scene.walk[3], Level::Quorum);
    assert_eq!((values(&read), read.acks.sloppy), (vec!["v".to_owned()], true));
    scene.up(0);
    let read = scene.cluster.get(scene.walk[0], Level::Quorum);
    assert_eq!((values(&read), read.acks.sloppy), (vec!["v".to_owned()], true));
    scene.up(1);
    scene.up(2);
    scene.time();
    let read = scene.cluster.get(scene.walk[4], Level::All);
    assert_eq!(
        (values(&read), read.acks.sloppy, read.presence),
        (vec!["v".to_owned()], false, Presence::Found)
    );
}

#[test]
fn writes_under_way_are_told_until_every_primary_is_seen_to() {
    let mut scene = Scene::new(5, Policy::Lww);
    scene.silence(2);
    scene.wrote(0, Level::Quorum, "v", Basis::Blind);
    let coordinator = scene.walk[0];
    let (here, elsewhere) = (Scene::object(), storage_key::object(Scene::keyspace(), b"b"));
    let both = BTreeSet::from([here.clone(), elsewhere]);
    assert_eq!(scene.cluster.nodes[coordinator].writes_under_way(&both), BTreeSet::from([here]));
    scene.time();
    assert!(scene.cluster.nodes[coordinator].writes_under_way(&both).is_empty());
}
