//! What anti-entropy costs: two production nodes over ten million keys that nobody stores.
//!
//! Records are worked out from a key's number when a scan asks for them, so only what repair writes takes memory. What
//! is counted is what the nodes say (messages, their bytes), what they read (heads, states), and the time spent inside of
//! `Node::handle`, coding of messages included. In: how many keys, how many of them differ. Out: a table.
//! Absent: the disk's time, the network's; the simulator has those.

use bytes::Bytes;
use merganser_core::anti_entropy::leaf::{LeafRecord, Share, Sum};
use merganser_core::boot;
use merganser_core::catalog::{Catalog, KeyspaceEntry, Policy, Revision, Settings};
use merganser_core::config::{Config, Member};
use merganser_core::event::{Effect, Effects, Event, Record, ScanPage, WriteOp};
use merganser_core::id::{ActorId, Dot, KeyspaceId, Millis, NodeId, Ticket};
use merganser_core::message::Message;
use merganser_core::ring::{RingNode, Token, VNODES_DEFAULT, token};
use merganser_core::version::{Content, DotSet, KeyState, Siblings, Stamp, Version, codec};
use merganser_core::{Node, fold, storage_key};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

const KEYSPACE: &str = "orders";
const VALUE_BYTES: usize = 100;

/// What happened during one part of the story.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Messages of exchanges, both nodes together.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Heads read for them.
    pub heads: u64,
    /// States read for them.
    pub states: u64,
    /// Time of both nodes.
    pub cpu: Duration,
    /// Of the nodes' clocks.
    pub virtual_ms: u64,
}

/// The keys, in the order of their storage keys: token and number.
struct Keys {
    keyspace: KeyspaceId,
    all: Vec<(u64, u32)>,
}

impl Keys {
    fn new(keyspace: KeyspaceId, count: u32) -> Keys {
        let mut all: Vec<(u64, u32)> = (0..count).map(|i| (token(keyspace, &i.to_be_bytes()).0, i)).collect();
        all.sort_unstable();
        Keys { keyspace, all }
    }

    fn storage_key(&self, (place, number): (u64, u32)) -> Bytes {
        storage_key::object_at(self.keyspace, Token(place), &number.to_be_bytes())
    }

    /// The first key whose storage key is not below `from`.
    fn place(&self, from: &[u8]) -> usize {
        self.all.partition_point(|key| self.storage_key(*key)[..] < *from)
    }
}

/// A key's state: all have been written once, some once more.
fn state(number: u32, again: bool) -> KeyState {
    let dot = |counter| Dot { actor: ActorId(u64::from(number % 64) + 1), counter };
    let version = |fill: u8| Version {
        content: Content::Value(Bytes::from(vec![fill; VALUE_BYTES])),
        stamp: Stamp { millis: 1, logical: 0 },
        content_type: None,
        request_id: None,
        receipt: None,
        expires_at: None,
    };
    let (first, second) = (2 * u64::from(number) + 1, 2 * u64::from(number) + 2);
    let mut siblings = Siblings::default();
    siblings.write(&DotSet::new(), dot(first), 0, version(1));
    if again {
        siblings.write(&DotSet::single(dot(first), 0), dot(second), first, version(2));
    }
    KeyState::Causal(siblings)
}

/// A disk of which most is worked out when it is read.
struct Disk {
    /// Of how many keys one has the second write; 0: none.
    again_one_in: u32,
    written: BTreeMap<Bytes, Record>,
}

impl Disk {
    fn has_again(&self, number: u32) -> bool {
        self.again_one_in != 0 && number.is_multiple_of(self.again_one_in)
    }

    fn get(&self, keys: &Keys, storage_key: &Bytes) -> Option<Record> {
        if let Some(record) = self.written.get(storage_key) {
            return Some(record.clone());
        }
        let found = keys.all.get(keys.place(storage_key))?;
        let same = keys.storage_key(*found) == *storage_key;
        same.then(|| codec::record(&state(found.1, self.has_again(found.1))))
    }

    fn page(&self, keys: &Keys, from: &Bytes, to: &Bytes, max: (usize, usize), heads_only: bool) -> ScanPage {
        let mut page = ScanPage::default();
        let mut bytes = 0;
        let mut made = keys.all[keys.place(from)..].iter().copied().peekable();
        let mut written = self.written.range(from.clone()..to.clone()).peekable();
        loop {
            let next = made.peek().map(|key| keys.storage_key(*key)).filter(|key| key < to);
            let newer = written.peek().map(|(key, _)| (*key).clone());
            let Some(key) = next.iter().chain(&newer).min().cloned() else { return page };
            if page.entries.len() >= max.0 || bytes >= max.1 {
                page.next = Some(key);
                return page;
            }
            let number = (next.as_ref() == Some(&key)).then(|| made.next()).flatten();
            let record = match (newer.as_ref() == Some(&key), number) {
                (true, _) => written.next().map(|(_, record)| record.clone()).unwrap_or_default(),
                (false, Some((_, number))) => codec::record(&state(number, self.has_again(number))),
                (false, None) => return page,
            };
            let body = if heads_only { Bytes::new() } else { record.body };
            bytes += key.len() + record.head.len() + body.len();
            page.entries.push((key, Record { head: record.head, body }));
        }
    }

    fn apply(&mut self, keys: &Keys, op: WriteOp) {
        match op {
            WriteOp::Put { key, record } => drop(self.written.insert(key, record)),
            WriteOp::Merge { key, record } => {
                let folded = match self.get(keys, &key) {
                    Some(older) => fold::fold(&key, &[record.clone(), older]).unwrap_or(record),
                    None => record,
                };
                self.written.insert(key, folded);
            }
            WriteOp::Remove { key } => drop(self.written.remove(&key)),
        }
    }

    /// The leaves that the write path would have left.
    fn add_leaves(&mut self, keys: &Keys) {
        let mut leaves: BTreeMap<Bytes, LeafRecord> = BTreeMap::new();
        for (place, number) in &keys.all {
            let key = storage_key::leaf(keys.keyspace, Token(*place).slot());
            let leaf = leaves.entry(key).or_default();
            let share = Share::of(&number.to_be_bytes(), &state(*number, self.has_again(*number)));
            leaf.sum.add(share);
            leaf.to += 1;
        }
        self.written.extend(leaves.into_iter().map(|(key, leaf)| (key, leaf.record())));
    }

    fn root(&self) -> Sum {
        let mut root = Sum::default();
        let leaves = self.written.range(storage_key::leaves().0..storage_key::leaves().1);
        leaves.filter_map(|(_, record)| LeafRecord::decode(record).ok()).for_each(|leaf| root.join(leaf.sum));
        root
    }
}

/// Two nodes that hold everything.
pub struct Pair {
    keys: Keys,
    nodes: Vec<Node>,
    disks: Vec<Disk>,
    queue: VecDeque<(usize, Event)>,
    now: Millis,
    cost: Cost,
}

impl Pair {
    /// Over `count` keys; of `again_one_in` keys the first node has one newer.
    pub fn new(count: u32, again_one_in: u32) -> Pair {
        let id = KeyspaceEntry::id_of(KEYSPACE);
        let mut catalog = Catalog::default();
        let revision = Revision { stamp: Stamp { millis: 1, logical: 0 }, node: NodeId(0) };
        let settings = Settings { n: 2, r: 1, w: 2, ..Settings::new(Policy::Siblings) };
        let entry = KeyspaceEntry { id, name: KEYSPACE.into(), settings, epoch: 1, revision };
        catalog.keyspaces.insert(KEYSPACE.into(), entry);
        let names = ["a", "b"];
        let ring = |name: &str| RingNode {
            id: NodeId::from_name(name),
            zone: String::new(),
            weight: 1.0,
            vnodes: VNODES_DEFAULT,
        };
        let members: Vec<Member> =
            names.iter().map(|name| Member { name: (*name).into(), ring: ring(name) }).collect();
        let node = |index: usize| {
            // Collection looks at all keys once after a boot; that is not repair's cost.
            let collect_period_ms = 0;
            let new = Config::new(members[index].ring.id, members.clone(), b"secret".to_vec());
            let config = Config { collect_period_ms, ..new };
            let (identity, _) =
                boot::begin(None, &boot::Owner::default(), 1_000 + index as u64, 2_000 + index as u64)
                    .expect("there is no record yet");
            Node::new(config, identity, catalog.clone(), index as u64)
        };
        let keys = Keys::new(id, count);
        let mut disks = [again_one_in, 0].map(|again_one_in| Disk { again_one_in, written: BTreeMap::new() });
        disks.iter_mut().for_each(|disk| disk.add_leaves(&keys));
        let mut pair = Pair {
            keys,
            nodes: (0..2).map(node).collect(),
            disks: disks.into(),
            queue: VecDeque::new(),
            now: Millis(1_800_000_000_000),
            cost: Cost::default(),
        };
        for index in 0..2 {
            let mut effects = Effects::new();
            pair.nodes[index].start(pair.now, &mut effects);
            pair.perform(index, effects);
            let peer = NodeId::from_name(names[1 - index]);
            pair.queue.push_back((index, Event::Link { peer, up: true }));
        }
        pair.deliver();
        pair
    }

    /// Until a round has ended that found nothing to repair.
    pub fn until_idle(&mut self) -> Cost {
        let idle =
            |pair: &Pair| -> f64 { pair.nodes.iter().map(|node| metric(node, "exchanges_idle")).sum() };
        let before = idle(self);
        self.cost = Cost::default();
        let begun = self.now;
        while idle(self) == before {
            self.pass();
        }
        self.cost.virtual_ms = self.now.since(begun);
        self.cost
    }

    /// One key's newer state reaches the first node alone.
    pub fn write_one(&mut self, number: u32) {
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        let record = codec::record(&state(number, true));
        let message = Message::Replicate { op: None, keyspace: self.keys.keyspace, key, record };
        self.queue.push_back((0, Event::Message { from: NodeId::from_name("b"), message }));
        self.deliver();
    }

    /// Whether the two disks hold the same, as their leaves say.
    pub fn is_equal(&self) -> bool {
        self.disks[0].root() == self.disks[1].root()
    }

    /// The next moment at which anything is due.
    fn pass(&mut self) {
        let next = self.nodes.iter().filter_map(Node::next_deadline).min();
        self.now = next.map_or(self.now.after(1), |at| at.max(self.now.after(1)));
        (0..2).for_each(|node| self.queue.push_back((node, Event::TimerFired)));
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some((to, event)) = self.queue.pop_front() {
            let mut effects = Effects::new();
            // Timers and gossip go on all the time, whether or not anything is compared.
            let other = !matches!(
                &event,
                Event::Message { message: Message::Tree(_), .. }
                    | Event::ScanDone { .. }
                    | Event::WritesDone { .. }
            );
            let begun = Instant::now();
            self.nodes[to].handle(self.now, event, &mut effects);
            let took = begun.elapsed();
            let asks = |effect: &Effect| matches!(effect, Effect::Send { message: Message::Tree(_), .. });
            if !other || effects.iter().any(asks) {
                self.cost.cpu += took;
            }
            self.perform(to, effects);
        }
    }

    fn perform(&mut self, at: usize, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Send { message, .. } => self.send(at, &message),
                Effect::Read { ticket, key } => {
                    let result = Ok(self.disks[at].get(&self.keys, &key));
                    self.queue.push_back((at, Event::ReadDone { ticket, result }));
                }
                Effect::Scan { ticket, from, to, records_max, bytes_max, heads_only } => {
                    let max = (records_max, bytes_max);
                    let page = self.disks[at].page(&self.keys, &from, &to, max, heads_only);
                    let read = page.entries.len() as u64;
                    self.cost.heads += if heads_only { read } else { 0 };
                    self.cost.states += if heads_only { 0 } else { read };
                    self.queue.push_back((at, Event::ScanDone { ticket, result: Ok(page) }));
                }
                Effect::Write { ticket, ops, .. } => self.write(at, ticket, ops),
                _ => {}
            }
        }
    }

    fn write(&mut self, at: usize, ticket: Ticket, ops: Vec<WriteOp>) {
        ops.into_iter().for_each(|op| self.disks[at].apply(&self.keys, op));
        self.queue.push_back((at, Event::WritesDone { tickets: vec![ticket], result: Ok(()) }));
    }

    fn send(&mut self, at: usize, message: &Message) {
        let begun = Instant::now();
        let bytes = message.encode();
        let size_bytes = bytes.len() as u64;
        let decoded = Message::decode(bytes);
        if matches!(message, Message::Tree(_)) {
            self.cost.messages += 1;
            self.cost.bytes += size_bytes;
            self.cost.cpu += begun.elapsed();
        }
        if let Ok(message) = decoded {
            let from = NodeId::from_name(["a", "b"][at]);
            self.queue.push_back((1 - at, Event::Message { from, message }));
        }
    }
}

fn metric(node: &Node, name: &str) -> f64 {
    node.status().metrics.iter().find(|(other, ..)| *other == name).map_or(0.0, |(_, _, value)| *value)
}

/// The table: `count` keys, an idle round, one differing key, and one in `one_in` keys.
pub fn table(count: u32, one_in: u32) -> anyhow::Result<Vec<(String, Cost)>> {
    let mut rows = Vec::new();
    let mut pair = Pair::new(count, 0);
    pair.until_idle();
    rows.push((format!("an idle round over {count} keys"), pair.until_idle()));
    pair.write_one(count / 2);
    anyhow::ensure!(!pair.is_equal(), "one key differs");
    rows.push(("one differing key, and the idle round that proves it".into(), pair.until_idle()));
    anyhow::ensure!(pair.is_equal(), "one key was repaired");
    drop(pair);
    let mut pair = Pair::new(count, one_in);
    anyhow::ensure!(!pair.is_equal(), "many keys differ");
    let differing = count.div_ceil(one_in);
    rows.push((format!("{differing} differing keys, and the idle round that proves it"), pair.until_idle()));
    anyhow::ensure!(pair.is_equal(), "{differing} keys were repaired");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_round_is_two_messages_and_one_key_costs_no_more_than_its_slot() -> anyhow::Result<()> {
        let rows = table(20_000, 10)?;
        let [idle, one, many] = [0, 1, 2].map(|row| rows[row].1);
        assert_eq!((idle.messages, idle.heads), (2, 0));
        assert!(idle.bytes < 100, "{idle:?}");
        assert!(one.messages <= 2 * 10 && one.bytes < 12_000 && one.states <= 1, "{one:?}");
        assert!(many.states <= 2 * 2_000, "{many:?}");
        Ok(())
    }
}
