//! For tests of all rooms: a cluster of nodes in one thread, with a map for a disk and a queue for a
//! network, so that a test is a short story told through the door. In: requests, cuts, crashes, boots,
//! time. Out: outcomes, disks, notices. Absent: faults and chance, which are the simulator's.

use crate::Node;
use crate::admin::{AdminReply, AdminRequest};
use crate::anti_entropy::Exchange;
use crate::boot;
use crate::catalog::Catalog;
use crate::catalog::{PluginEntry, PluginRef, Policy, Revision, Settings};
use crate::config::Config;
use crate::config::Member;
use crate::event::Record;
use crate::event::{Effect, Effects, Event, Notice, ScanPage, StorageFailure, WriteOp};
use crate::id::{ClientTicket, Millis, NodeId, PluginHash, RequestId, Ticket};
use crate::message::Message;
use crate::plugin::{PluginAnswer, PluginCall, World};
use crate::request::Outcome;
use crate::request::{Basis, GetReply, Level, Operation, Request, Sloppiness, Want, WriteReply};
use crate::ring::{RingNode, VNODES_DEFAULT};
use crate::storage_key;
use crate::version::Stamp;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// When a story begins.
const BEGIN: Millis = Millis(1_000_000);
pub(crate) const UNION: PluginHash = PluginHash([1; 32]);
pub(crate) const JOIN: PluginHash = PluginHash([2; 32]);

/// A plugin's answer, or none at all.
pub(crate) enum Says {
    This(PluginAnswer),
    Nothing,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) disks: Vec<BTreeMap<Bytes, Record>>,
    /// What each disk cannot read: what was there is lost, what is written later is hidden until excised.
    pub(crate) damage: Vec<Vec<(Bytes, Bytes)>>,
    /// Nodes whose disk takes nothing in.
    pub(crate) full: BTreeSet<usize>,
    /// (to, event) not yet delivered.
    pub(crate) queue: VecDeque<(usize, Event)>,
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Nodes that hear nothing: dead or standing still.
    pub(crate) stopped: BTreeSet<usize>,
    members: Vec<Member>,
    boots: u64,
    pub(crate) now: Millis,
    pub(crate) outcomes: BTreeMap<ClientTicket, Outcome>,
    pub(crate) admin: Vec<AdminReply>,
    pub(crate) notices: Vec<Notice>,
    /// Nodes whose disk may not be used again.
    pub(crate) empty: Vec<(usize, crate::membership::RejoinReason)>,
    pub(crate) plugin_works: bool,
    /// What the plugin says before anything else; None: as ever.
    pub(crate) plugin_says: fn(&PluginCall) -> Option<Says>,
    /// Questions that the plugin has left open.
    pub(crate) unanswered: Vec<(usize, Ticket, PluginCall)>,
    /// Writes of the key, by node.
    pub(crate) writes: Vec<usize>,
    pub(crate) next_ticket: u64,
    /// Messages of exchanges between trees, as they were sent.
    pub(crate) exchanges: Vec<Exchange>,
}

pub(crate) fn plugin(hash: PluginHash, name: &str, world: World) -> PluginEntry {
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
    pub(crate) fn new(count: usize) -> Cluster {
        let name = |i: usize| format!("n{i}");
        let ring = |i: usize| RingNode {
            id: NodeId::from_name(&name(i)),
            zone: String::new(),
            weight: 1.0,
            vnodes: VNODES_DEFAULT,
        };
        let members: Vec<Member> = (0..count).map(|i| Member { name: name(i), ring: ring(i) }).collect();
        let mut cluster = Cluster {
            nodes: Vec::new(),
            disks: vec![BTreeMap::new(); count],
            damage: vec![Vec::new(); count],
            full: BTreeSet::new(),
            queue: VecDeque::new(),
            cut: BTreeSet::new(),
            stopped: BTreeSet::new(),
            members,
            boots: 0,
            now: BEGIN,
            outcomes: BTreeMap::new(),
            admin: Vec::new(),
            notices: Vec::new(),
            empty: Vec::new(),
            plugin_works: true,
            plugin_says: |_| None,
            unanswered: Vec::new(),
            writes: Vec::new(),
            next_ticket: 1,
            exchanges: Vec::new(),
        };
        for node in 0..count {
            let process = cluster.process(node);
            cluster.nodes.push(process);
        }
        (0..count).for_each(|node| cluster.start(node));
        cluster.run();
        cluster
    }

    /// A node as it comes up from its disk, before it has done anything.
    fn process(&mut self, node: usize) -> Node {
        self.boots += 1;
        let identity = self.disks[node].get(&storage_key::identity());
        let owner = boot::Owner { cluster: "story".into(), node: format!("n{node}") };
        let (identity, op) = boot::begin(identity, &owner, 100 + self.boots, 2_000 + self.boots)
            .expect("a disk stays at its node's place");
        let WriteOp::Put { key, record } = op else { unreachable!("an identity is put") };
        self.disks[node].insert(key, record);
        let catalog = match self.disks[node].get(&storage_key::catalog()) {
            Some(record) => Catalog::decode(record.body.clone()).expect("a catalog that was stored decodes"),
            None => Catalog::default(),
        };
        let member = &self.members[node];
        let mut config = Config::new(member.ring.id, self.members.clone(), b"secret".to_vec());
        config.address = format!("{}:7401", member.name);
        config.collect_period_ms = 200;
        config.built_in =
            vec![plugin(UNION, "union", World::Resolver), plugin(JOIN, "join", World::ReplicatedType)];
        Node::new(config, identity, catalog, self.boots)
    }

    /// A node begins its work; its links come up.
    fn start(&mut self, node: usize) {
        let mut effects = Effects::new();
        self.nodes[node].start(self.now, &mut effects);
        effects.into_iter().for_each(|effect| self.perform(node, effect));
        for other in (0..self.members.len()).filter(|other| *other != node) {
            self.link(node, other, true);
        }
    }

    /// Both ends hear that their link is up or down; up only where both live.
    pub(crate) fn link(&mut self, a: usize, b: usize, up: bool) {
        if up && (self.stopped.contains(&a) || self.stopped.contains(&b)) {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            let peer = self.members[peer].ring.id;
            self.queue.push_back((node, Event::Link { peer, up }));
        }
    }

    /// A process dies; its peers' links go down if they notice.
    pub(crate) fn crash(&mut self, node: usize, noticed: bool) {
        self.stopped.insert(node);
        self.queue.retain(|(to, _)| *to != node);
        for other in (0..self.members.len()).filter(|other| noticed && *other != node) {
            self.link(node, other, false);
        }
        self.run();
    }

    /// A process that is dead, or is killed now, starts again on what its disk holds.
    pub(crate) fn boot(&mut self, node: usize) {
        self.crash(node, true);
        self.stopped.remove(&node);
        self.nodes[node] = self.process(node);
        self.start(node);
        self.run();
    }

    /// As [`Cluster::boot`], of a disk that cannot give the catalog.
    pub(crate) fn boot_without_catalog(&mut self, node: usize) {
        self.crash(node, true);
        self.stopped.remove(&node);
        self.disks[node].remove(&crate::storage_key::catalog());
        self.nodes[node] = self.process(node);
        self.nodes[node].lacks_catalog();
        self.start(node);
        self.run();
    }

    pub(crate) fn members_mut(&mut self) -> &mut [Member] {
        &mut self.members
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        self.members[node].ring.id
    }

    pub(crate) fn index(&self, id: NodeId) -> usize {
        self.members.iter().position(|member| member.ring.id == id).unwrap()
    }

    /// Delivers everything that is under way.
    pub(crate) fn run(&mut self) {
        while let Some((to, event)) = self.queue.pop_front() {
            if self.stopped.contains(&to) {
                continue;
            }
            let mut effects = Effects::new();
            // No two were started at once.
            self.nodes[to].has_run(self.now.since(BEGIN) + 1_000 * to as u64);
            self.nodes[to].handle(self.now, event, &mut effects);
            for effect in effects {
                self.perform(to, effect);
            }
        }
    }

    pub(crate) fn perform(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Reply { ticket, outcome } => assert!(self.outcomes.insert(ticket, outcome).is_none()),
            Effect::AdminReply { reply, .. } => self.admin.push(reply),
            Effect::Send { to, message } => {
                let (to, from) = (self.index(to), self.nodes[at].config.node);
                let message = Message::decode(message.encode()).expect("what a node sends decodes");
                if let Message::Tree(exchange) = &message {
                    self.exchanges.push(exchange.clone());
                }
                if !self.cut.contains(&(at, to)) {
                    self.queue.push_back((to, Event::Message { from, message }));
                }
            }
            Effect::Read { ticket, key } => {
                let result = match self.hidden(at, &key) {
                    true => Err(StorageFailure::Corrupt("a damaged block".into())),
                    false => Ok(self.disks[at].get(&key).cloned()),
                };
                self.queue.push_back((at, Event::ReadDone { ticket, result }));
            }
            Effect::Scan { ticket, from, to, records_max, bytes_max, heads_only } => {
                let mut page = ScanPage::default();
                let mut bytes = 0;
                for (first, end) in &self.damage[at] {
                    let (first, end) = (first.max(&from).clone(), end.min(&to).clone());
                    page.damaged.extend((first < end).then_some((first, end)));
                }
                page.damage_seen = 1;
                for (key, record) in self.disks[at].range(from..to).filter(|(key, _)| !self.hidden(at, key)) {
                    if page.entries.len() >= records_max || bytes >= bytes_max {
                        page.next = Some(key.clone());
                        break;
                    }
                    let body = if heads_only { Bytes::new() } else { record.body.clone() };
                    bytes += key.len() + record.head.len() + body.len();
                    page.entries.push((key.clone(), Record { head: record.head.clone(), body }));
                }
                self.queue.push_back((at, Event::ScanDone { ticket, result: Ok(page) }));
            }
            Effect::Write { ticket, .. } if self.full.contains(&at) => {
                let result = Err(StorageFailure::Failed("no room".into()));
                self.queue.push_back((at, Event::WritesDone { tickets: vec![ticket], result }));
            }
            Effect::Write { ticket, ops, .. } => {
                let is_object = |op: &&WriteOp| matches!(op, WriteOp::Put { key, .. } if storage_key::parse_object(key).is_some());
                self.writes.extend(ops.iter().filter(is_object).map(|_| at));
                for op in ops {
                    match op {
                        WriteOp::Put { key, record } => drop(self.disks[at].insert(key, record)),
                        WriteOp::Merge { key, record } => {
                            let older = self.disks[at].get(&key).cloned();
                            let fragments: Vec<Record> =
                                [Some(record), older].into_iter().flatten().collect();
                            let folded = crate::fold::fold(&key, &fragments).unwrap();
                            self.disks[at].insert(key, folded);
                        }
                        WriteOp::Remove { key } => drop(self.disks[at].remove(&key)),
                    }
                }
                self.queue.push_back((at, Event::WritesDone { tickets: vec![ticket], result: Ok(()) }));
            }
            Effect::Plugin { ticket, call, .. } => {
                let answer = match (self.plugin_says)(&call) {
                    Some(Says::Nothing) => return self.unanswered.push((at, ticket, call)),
                    Some(Says::This(answer)) => answer,
                    None if self.plugin_works => union(call),
                    None => PluginAnswer::Failed("out of order".into()),
                };
                self.queue.push_back((at, Event::PluginDone { ticket, answer }));
            }
            Effect::RejoinEmpty { reason } => self.empty.push((at, reason)),
            Effect::Excise { from, to, seen } => {
                assert_eq!(seen, 1);
                let left = |(first, end): (Bytes, Bytes)| {
                    let pieces =
                        [(first.clone(), end.clone().min(from.clone())), (first.max(to.clone()), end)];
                    pieces.into_iter().filter(|(first, end)| first < end)
                };
                self.damage[at] = std::mem::take(&mut self.damage[at]).into_iter().flat_map(left).collect();
            }
            Effect::LoadPlugin { .. } => {}
            Effect::Notice(notice) => self.notices.push(notice),
        }
    }

    fn hidden(&self, at: usize, key: &Bytes) -> bool {
        self.damage[at].iter().any(|(from, to)| from <= key && key < to)
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now = self.now.after(millis);
        (0..self.nodes.len()).for_each(|node| self.queue.push_back((node, Event::TimerFired)));
        self.run();
    }

    /// Time passes as it does for nodes that are awake: in small steps.
    pub(crate) fn live(&mut self, millis: u64) {
        (0..millis.div_ceil(50)).for_each(|_| self.pass(50));
    }

    pub(crate) fn keyspace(&mut self, name: &str, policy: Policy) {
        self.keyspace_with(name, Settings::new(policy));
    }

    pub(crate) fn keyspace_with(&mut self, name: &str, settings: Settings) {
        let request = AdminRequest::CreateKeyspace { name: name.into(), settings };
        self.queue.push_back((0, Event::Admin { ticket: ClientTicket(0), request }));
        self.run();
        match self.admin.pop() {
            Some(AdminReply::Keyspaces(views)) => assert!(views[0].waiting.is_empty(), "{views:?}"),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, node: usize, level: Level, operation: Operation) -> Outcome {
        let ticket = ClientTicket(self.next_ticket);
        self.next_ticket += 1;
        let (keyspace, key) = ("k".to_owned(), Bytes::from_static(b"key"));
        let sloppiness = Sloppiness::Keyspace;
        let request = Request {
            keyspace,
            key,
            level,
            sloppiness,
            timeout_ms: None,
            until: None,
            retry_of_ms_ago: None,
            operation,
        };
        self.queue.push_back((node, Event::Client { ticket, request }));
        self.run();
        if !self.outcomes.contains_key(&ticket) {
            self.pass(30);
            (0..5).for_each(|_| self.pass(1_000));
        }
        self.outcomes.remove(&ticket).expect("every request is answered")
    }

    pub(crate) fn put(&mut self, node: usize, level: Level, value: &str, basis: Basis) -> Outcome {
        let request_id = RequestId(u128::from(self.next_ticket).to_be_bytes());
        self.put_as(node, level, value, basis, request_id)
    }

    pub(crate) fn put_as(
        &mut self,
        node: usize,
        level: Level,
        value: &str,
        basis: Basis,
        request_id: RequestId,
    ) -> Outcome {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.ask(node, level, Operation::Put { value, content_type: None, basis, request_id, ttl_ms: None })
    }

    pub(crate) fn wrote(&mut self, node: usize, level: Level, value: &str, basis: Basis) -> WriteReply {
        match self.put(node, level, value, basis) {
            Outcome::Wrote(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn get(&mut self, node: usize, level: Level) -> GetReply {
        match self.ask(node, level, Operation::Get { want: Want::Resolved }) {
            Outcome::Got(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn isolate(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }
}

/// A plugin that validates, and joins nothing.
pub(crate) fn no_joins(call: &PluginCall) -> Option<Says> {
    let is_join = matches!(call, PluginCall::Merge { .. });
    is_join.then(|| Says::This(PluginAnswer::Failed("out of order".into())))
}

/// Words of all siblings or states, sorted, each once: a lawful union.
pub(crate) fn union(call: PluginCall) -> PluginAnswer {
    let is_resolve = matches!(call, PluginCall::Resolve { .. });
    let values: Vec<Bytes> = match call {
        PluginCall::Validate { value, .. } if value.is_empty() => {
            return PluginAnswer::Rejected { kind: "malformed".into(), message: "no words".into() };
        }
        PluginCall::Validate { .. } => return PluginAnswer::Valid,
        PluginCall::Resolve { siblings, .. } => {
            siblings.into_iter().filter_map(|sibling| sibling.content).collect()
        }
        PluginCall::Merge { states, .. } => states,
        PluginCall::Apply { state, operation, .. } => state.into_iter().chain([operation.body]).collect(),
        PluginCall::Query { state, .. } => vec![state],
    };
    let words: BTreeSet<String> = values
        .iter()
        .flat_map(|value| String::from_utf8_lossy(value).split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let value = Bytes::from(words.into_iter().collect::<Vec<_>>().join(" "));
    match is_resolve {
        true => PluginAnswer::Keep { value, content_type: None },
        false => PluginAnswer::Value(value),
    }
}

pub(crate) fn values(reply: &GetReply) -> Vec<String> {
    let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    reply.siblings.iter().filter_map(|sibling| sibling.content.as_ref().map(text)).collect()
}

pub(crate) fn named(name: &str) -> PluginRef {
    PluginRef { name: name.into(), hash: PluginHash([0; 32]) }
}
