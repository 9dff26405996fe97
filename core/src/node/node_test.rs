//! A cluster of nodes in one thread, with a map for a disk and a queue for a network: each test
//! is a short story told through the door. Faults and chance are the simulator's, not here.

use super::*;
use crate::admin::{AdminReply, AdminRequest};
use crate::catalog::{DeleteSemantics, PluginEntry, PluginRef, Policy, Revision, Settings};
use crate::config::Member;
use crate::event::Record;
use crate::plugin::{PluginAnswer, PluginCall, World};
use crate::request::{Basis, GetReply, Level, Operation, Presence, Request, Resolution, Want, WriteReply};
use crate::ring::{RingNode, VNODES_DEFAULT};

const UNION: PluginHash = PluginHash([1; 32]);
const JOIN: PluginHash = PluginHash([2; 32]);

struct Cluster {
    nodes: Vec<Node>,
    disks: Vec<BTreeMap<Bytes, Record>>,
    /// (to, event) not yet delivered.
    queue: VecDeque<(usize, Event)>,
    cut: BTreeSet<(usize, usize)>,
    now: Millis,
    outcomes: BTreeMap<ClientTicket, Outcome>,
    admin: Vec<AdminReply>,
    notices: Vec<Notice>,
    plugin_works: bool,
    next_ticket: u64,
}

fn plugin(hash: PluginHash, name: &str, world: World) -> PluginEntry {
    PluginEntry {
        hash,
        name: name.into(),
        version: "1".into(),
        summary: String::new(),
        world,
        size_bytes: 1,
        built_in: true,
        removed: false,
        revision: Revision { stamp: Stamp::default(), node: NodeId(0) },
    }
}

impl Cluster {
    fn new(count: usize) -> Cluster {
        let name = |i: usize| format!("n{i}");
        let ring = |i: usize| RingNode {
            id: NodeId::from_name(&name(i)),
            zone: String::new(),
            weight: 1.0,
            vnodes: VNODES_DEFAULT,
        };
        let members: Vec<Member> = (0..count).map(|i| Member { name: name(i), ring: ring(i) }).collect();
        let node = |i: usize| {
            let mut config = Config::new(NodeId::from_name(&name(i)), members.clone(), b"secret".to_vec());
            config.built_in =
                vec![plugin(UNION, "union", World::Resolver), plugin(JOIN, "join", World::ReplicatedType)];
            Node::new(
                config,
                Incarnation { actor: ActorId(100 + i as u64), issued: 0 },
                Catalog::default(),
                i as u64,
            )
        };
        let mut cluster = Cluster {
            nodes: (0..count).map(node).collect(),
            disks: vec![BTreeMap::new(); count],
            queue: VecDeque::new(),
            cut: BTreeSet::new(),
            now: Millis(1_000_000),
            outcomes: BTreeMap::new(),
            admin: Vec::new(),
            notices: Vec::new(),
            plugin_works: true,
            next_ticket: 1,
        };
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let peer = NodeId::from_name(&name(from));
                cluster.queue.push_back((to, Event::Link { peer, up: true }));
            }
        }
        cluster.run();
        cluster
    }

    fn index(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.config.node == id).unwrap()
    }

    /// Delivers everything that is under way.
    fn run(&mut self) {
        while let Some((to, event)) = self.queue.pop_front() {
            let mut effects = Effects::new();
            self.nodes[to].handle(self.now, event, &mut effects);
            for effect in effects {
                self.perform(to, effect);
            }
        }
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Reply { ticket, outcome } => assert!(self.outcomes.insert(ticket, outcome).is_none()),
            Effect::AdminReply { reply, .. } => self.admin.push(reply),
            Effect::Send { to, message } => {
                let (to, from) = (self.index(to), self.nodes[at].config.node);
                let message = Message::decode(message.encode()).expect("what a node sends decodes");
                if !self.cut.contains(&(at, to)) {
                    self.queue.push_back((to, Event::Message { from, message }));
                }
            }
            Effect::Read { ticket, key } => {
                let result = Ok(self.disks[at].get(&key).cloned());
                self.queue.push_back((at, Event::ReadDone { ticket, result }));
            }
            Effect::Write { ticket, ops, .. } => {
                for op in ops {
                    match op {
                        WriteOp::Put { key, record } => drop(self.disks[at].insert(key, record)),
                        WriteOp::Merge { key, record } => {
                            let older = self.disks[at].get(&key).cloned();
                            let fragments: Vec<Record> =
                                [Some(record), older].into_iter().flatten().collect();
                            self.disks[at].insert(key, crate::fold::fold(&fragments).unwrap());
                        }
                        WriteOp::Remove { key } => drop(self.disks[at].remove(&key)),
                    }
                }
                self.queue.push_back((at, Event::WritesDone { tickets: vec![ticket], result: Ok(()) }));
            }
            Effect::Plugin { ticket, call, .. } => {
                let answer =
                    if self.plugin_works { union(call) } else { PluginAnswer::Failed("out of order".into()) };
                self.queue.push_back((at, Event::PluginDone { ticket, answer }));
            }
            Effect::LoadPlugin { .. } => {}
            Effect::Notice(notice) => self.notices.push(notice),
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.after(millis);
        (0..self.nodes.len()).for_each(|node| self.queue.push_back((node, Event::TimerFired)));
        self.run();
    }

    fn keyspace(&mut self, name: &str, policy: Policy) {
        self.keyspace_with(name, Settings::new(policy));
    }

    fn keyspace_with(&mut self, name: &str, settings: Settings) {
        let request = AdminRequest::CreateKeyspace { name: name.into(), settings };
        self.queue.push_back((0, Event::Admin { ticket: ClientTicket(0), request }));
        self.run();
        match self.admin.pop() {
            Some(AdminReply::Keyspaces(views)) => assert!(views[0].waiting.is_empty(), "{views:?}"),
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, node: usize, level: Level, operation: Operation) -> Outcome {
        let ticket = ClientTicket(self.next_ticket);
        self.next_ticket += 1;
        let (keyspace, key) = ("k".to_owned(), Bytes::from_static(b"key"));
        let request = Request { keyspace, key, level, timeout_ms: None, operation };
        self.queue.push_back((node, Event::Client { ticket, request }));
        self.run();
        if !self.outcomes.contains_key(&ticket) {
            self.pass(30);
            self.pass(5_000);
        }
        self.outcomes.remove(&ticket).expect("every request is answered")
    }

    fn put(&mut self, node: usize, level: Level, value: &str, basis: Basis) -> Outcome {
        let request_id = RequestId(u128::from(self.next_ticket).to_be_bytes());
        self.put_as(node, level, value, basis, request_id)
    }

    fn put_as(
        &mut self,
        node: usize,
        level: Level,
        value: &str,
        basis: Basis,
        request_id: RequestId,
    ) -> Outcome {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.ask(node, level, Operation::Put { value, content_type: None, basis, request_id })
    }

    fn wrote(&mut self, node: usize, level: Level, value: &str, basis: Basis) -> WriteReply {
        match self.put(node, level, value, basis) {
            Outcome::Wrote(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, node: usize, level: Level) -> GetReply {
        match self.ask(node, level, Operation::Get { want: Want::Resolved }) {
            Outcome::Got(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn isolate(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }
}

/// Words of all siblings or states, sorted, each once: a lawful union.
fn union(call: PluginCall) -> PluginAnswer {
    let values: Vec<Bytes> = match call {
        PluginCall::Validate { value, .. } if value.is_empty() => {
            return PluginAnswer::Rejected { kind: "malformed".into(), message: "no words".into() };
        }
        PluginCall::Validate { .. } => return PluginAnswer::Valid,
        PluginCall::Resolve { siblings, .. } => {
            siblings.into_iter().filter_map(|sibling| sibling.content).collect()
        }
        PluginCall::Merge { states, .. } => states,
        PluginCall::Apply { state, op, .. } => state.into_iter().chain([op]).collect(),
        PluginCall::Query { state, .. } => vec![state],
    };
    let words: BTreeSet<String> = values
        .iter()
        .flat_map(|value| String::from_utf8_lossy(value).split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    PluginAnswer::Value(Bytes::from(words.into_iter().collect::<Vec<_>>().join(" ")))
}

fn values(reply: &GetReply) -> Vec<String> {
    let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    reply.siblings.iter().filter_map(|sibling| sibling.content.as_ref().map(text)).collect()
}

fn named(name: &str) -> PluginRef {
    PluginRef { name: name.into(), hash: PluginHash([0; 32]) }
}

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
        timeout_ms: None,
        operation: Operation::Put {
            value: Bytes::from_static(b"v"),
            content_type: None,
            basis: Basis::Blind,
            request_id: id,
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
    cluster.plugin_works = false;
    cluster.wrote(2, Level::One, "c", Basis::Unsaid);
    cluster.cut.clear();
    let read = cluster.get(0, Level::All);
    assert!(matches!(read.resolution, Resolution::Unresolved { .. }));
    cluster.plugin_works = true;
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
            Operation::Apply { op, request_id: RequestId([node as u8; 16]) },
        );
        assert!(matches!(outcome, Outcome::Wrote(_)), "{outcome:?}");
    }
    match cluster.ask(2, Level::All, Operation::Query { path: Bytes::new() }) {
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
        Outcome::Failed(Problem::SiblingLimit { siblings: 2, limit: 2, context }) => context,
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
