//! What clients do: keyspaces of every policy, few keys, much contention.
//!
//! In: options, dice, what a client remembers of a key. Out: keys, and the next request. Absent:
//! sending it, and what becomes of it (`clients.rs`).

use super::dice::Dice;
use super::options::Options;
use super::plugins::{self, Plugin};
use crate::history::{History, Key, KeyIndex, Seen, What};
use crate::models::TypeOp;
use bytes::Bytes;
use merganser_core::catalog::{Catalog, DeleteSemantics, KeyspaceEntry, Policy, Revision, Settings};
use merganser_core::event::Durability;
use merganser_core::id::NodeId;
use merganser_core::plugin::World;
use merganser_core::request::{Basis, Level, Sloppiness};
use merganser_core::storage_key;
use merganser_core::version::Stamp;

/// The kinds of keyspaces, by their bit in `Options::keyspaces`.
pub(super) const KEYSPACES: [&str; 11] = [
    "siblings", "resolver", "views", "lww", "set", "resets", "counter", "tags", "fields", "latest", "values",
];
/// Elements of a set, fields of a map.
pub(crate) const PLACES: u8 = 5;

fn settings(bit: usize, name: &str, options: &Options) -> Settings {
    let mut settings = Settings::new(match name {
        "resolver" | "views" => Policy::Resolver(Plugin::Union.reference()),
        "latest" => Policy::Resolver(Plugin::Latest.reference()),
        "values" => Policy::Resolver(Plugin::Values.reference()),
        "lww" => Policy::Lww,
        "set" | "resets" => Policy::Lattice(Plugin::Set.reference()),
        "counter" => Policy::Lattice(Plugin::Counter.reference()),
        "tags" => Policy::Lattice(Plugin::OrSet.reference()),
        "fields" => Policy::Lattice(Plugin::Map.reference()),
        _ => Policy::Siblings,
    });
    (settings.n, settings.r, settings.w) =
        (options.replicas as u32, options.read_quorum as u32, options.write_quorum as u32);
    let dice = &mut Dice::new(options.seed).fork(7);
    let delay_ms = dice.between(20, 300) as u32;
    settings.sloppy = dice.chance(if options.sloppy_permille == 0 { 750 } else { options.sloppy_permille });
    settings.write_back_delay_ms = (name != "views" || dice.chance(500)).then_some(delay_ms);
    settings.durability = match bit {
        _ if options.interval_keyspaces >> bit & 1 == 1 => Durability::Interval,
        _ if options.none_keyspaces >> bit & 1 == 1 => Durability::None,
        _ => Durability::Sync,
    };
    match name {
        "views" => settings.delete_semantics = DeleteSemantics::PluginDecides,
        "resets" => settings.delete_semantics = DeleteSemantics::DeleteWins,
        _ => {}
    }
    settings
}

/// The catalog that every node begins with, and the keys of the run.
pub(super) fn keyspaces(options: &Options) -> (Catalog, Vec<Key>) {
    let mut catalog = Catalog::default();
    let mut keys = Vec::new();
    for (bit, name) in KEYSPACES.iter().enumerate() {
        if options.keyspaces & (1 << bit) == 0 {
            continue;
        }
        let settings = settings(bit, name, options);
        let id = KeyspaceEntry::id_of(name);
        let solo = (*name == "siblings").then_some((Bytes::from_static(b"solo"), Some(0)));
        let shared = (0..options.keys).map(|index| (Bytes::from(format!("k{index}")), None));
        for (key, solo) in shared.chain(solo) {
            keys.push(Key {
                keyspace: (*name).to_string(),
                keyspace_id: id,
                policy: settings.policy.clone(),
                deletes: settings.delete_semantics,
                storage_key: storage_key::object(id, &key),
                key,
                n: settings.n as usize,
                durability: settings.durability,
                solo,
            });
        }
        let revision = Revision { stamp: Stamp { millis: 1, logical: 0 }, node: NodeId(0) };
        let entry = KeyspaceEntry { id, name: (*name).to_string(), settings, epoch: 1, revision };
        catalog.keyspaces.insert((*name).to_string(), entry);
    }
    (catalog, keys)
}

/// A context that a client holds, and what it was shown with it.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) token: Bytes,
    pub(super) seen: Seen,
}

/// A request to be.
pub(super) struct Plan {
    pub(super) key: KeyIndex,
    pub(super) what: What,
    /// Of a put.
    pub(super) ttl_ms: Option<u64>,
    pub(super) basis: Basis,
    pub(super) seen: Seen,
    pub(super) level: Level,
    pub(super) sloppiness: Sloppiness,
    pub(super) siblings: bool,
}

/// The next request of a client, of one key or any; `remembers` of each key what it was last told.
pub(super) fn plan(
    options: &Options,
    dice: &mut Dice,
    history: &History,
    (client, only): (usize, Option<KeyIndex>),
    remembers: &[Option<Memory>],
) -> Plan {
    let mine: Vec<KeyIndex> = (0..history.keys.len())
        .filter(|key| history.keys[*key].solo.is_none_or(|owner| owner == client))
        .filter(|key| only.is_none_or(|only| only == *key))
        .collect();
    let index = mine[dice.below(mine.len() as u64) as usize];
    let key = &history.keys[index];
    let memory = remembers[index].as_ref();
    let what = what(options, dice, history, index, memory.is_some());
    let level = match dice.below(100) {
        _ if key.solo.is_some() => Level::Quorum,
        0..=64 => Level::Keyspace,
        65..=74 => Level::One,
        75..=86 => Level::Quorum,
        87..=94 => Level::All,
        _ => Level::Count(dice.between(1, options.replicas) as u32),
    };
    let reads = matches!(what, What::Get | What::Query | What::Apply(_));
    // A put that says nothing of what it saw is refused where that matters.
    let forgets = what != What::Delete && key.solo.is_none() && dice.chance(options.blind_permille);
    let (basis, seen) = match memory {
        _ if reads => (Basis::Unsaid, Seen::default()),
        Some(memory) if !forgets => (Basis::Context(memory.token.clone()), memory.seen.clone()),
        _ if dice.chance(30) => (Basis::Unsaid, Seen::default()),
        _ => (Basis::Blind, Seen::default()),
    };
    let sloppiness = match dice.below(10) {
        // It sees what it wrote: R + W > N, and nobody stands in.
        _ if key.solo.is_some() => Sloppiness::Strict,
        0..=5 => Sloppiness::Keyspace,
        6 | 7 => Sloppiness::Strict,
        _ => Sloppiness::Sloppy,
    };
    let may_expire = matches!(what, What::Put(..)) && !matches!(key.policy, Policy::Lattice(_));
    let expires = may_expire && dice.chance(options.ttl_permille);
    let ttl_ms = expires.then(|| dice.between(1, options.ttl_ms_max));
    Plan { key: index, what, ttl_ms, basis, seen, level, sloppiness, siblings: dice.chance(500) }
}

fn what(options: &Options, dice: &mut Dice, history: &History, key: KeyIndex, remembers: bool) -> What {
    let facts = &history.keys[key];
    let plugin = Plugin::of_key(history, key);
    let roll = dice.below(100);
    if let Some(plugin) = plugin.filter(|plugin| plugin.world() == World::ReplicatedType) {
        let reads = if options.type_reads_percent == 0 { 35 } else { options.type_reads_percent };
        return match roll {
            _ if roll < reads / 2 => What::Get,
            _ if roll < reads => What::Query,
            _ => What::Apply(operation(plugin, dice, History::write_id(history.ops.len()))),
        };
    }
    // The only client of a key needs a context before it writes.
    if roll < 40 || (facts.solo.is_some() && !remembers) {
        return What::Get;
    }
    if roll >= 88 && remembers {
        return What::Delete;
    }
    let own = History::write_id(history.ops.len());
    let others: Vec<u64> =
        history.writers.keys().copied().filter(|id| written_to(history, *id, key)).collect();
    let id = match dice.pick(&others) {
        Some(id) if facts.solo.is_none() && dice.chance(options.equal_permille) => *id,
        _ => own,
    };
    let value = match facts.policy {
        Policy::Lattice(_) => plugins::set(&[id].into()),
        _ => plugins::plain(id),
    };
    What::Put(value, vec![id])
}

/// An operation of a shipped type. Amounts are far apart: no few of them add up to another.
fn operation(plugin: Plugin, dice: &mut Dice, id: u64) -> TypeOp {
    let throw = dice.next();
    let (place, rare) = ((throw % u64::from(PLACES)) as u8, throw >> 32 & 3 == 0);
    match plugin {
        Plugin::OrSet if rare => TypeOp::Remove(place),
        Plugin::OrSet => TypeOp::Add(place),
        Plugin::Map if rare => TypeOp::Unset(place),
        Plugin::Map => TypeOp::Set(place, id),
        _ => {
            let amount = (throw >> 24) as i64 + 1;
            TypeOp::Count(if rare { -amount } else { amount })
        }
    }
}

fn written_to(history: &History, id: u64, key: KeyIndex) -> bool {
    history.writers.get(&id).is_some_and(|ops| ops.iter().any(|op| history.ops[*op].key == key))
}
