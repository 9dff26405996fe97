//! The keyspaces' plugins as native code: same questions, same answers, no Wasm.
//!
//! Most are the shipped ones. Two are stand-ins, for no shipped plugin of their kind has values that say which writes
//! they hold:
//!
//! ```text
//!   plain   0 │ write id u64 │ filler that follows from the id
//!   set     1 │ write ids u64, ascending
//! ```
//!
//! The stand-ins answer with the set of all ids. In: a call. Out: an answer, always the same for the same call. Absent:
//! failures and delays, which the world adds; what the answer of a shipped type must mean (`models.rs`).

use super::dice::{Dice, mix};
use super::native::{no_such_question, replicated_type, resolver};
use crate::history::{DotFact, History, KeyIndex};
use bytes::{BufMut, Bytes, BytesMut};
use lww::Lww;
use lww_map::LwwMap;
use merganser_core::catalog::{PluginEntry, PluginRef, Revision};
use merganser_core::id::{Dot, NodeId, PluginHash};
use merganser_core::plugin::{KeyInfo, PluginAnswer, PluginCall, PluginSibling, World};
use merganser_core::version::Stamp;
use mv_register::MvRegister;
use or_set::OrSet;
use pn_counter::PnCounter;
use std::collections::BTreeSet;

/// A value whose writes' ids add up to a multiple of this is one that the resolver leaves alone.
const UNRESOLVED_MODULUS: u64 = 11;
/// One whose ids add up to a multiple of this yields to a delete.
const DELETED_MODULUS: u64 = 3;
/// A write whose id is a multiple of this is refused by `validate`.
const REJECTED_MODULUS: u64 = 61;

/// The plugins of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// Stand-in, `resolver`: the set of all ids.
    Union,
    /// Stand-in, `lattice`: grow-only set.
    Set,
    /// Shipped: `pn-counter`.
    Counter,
    /// Shipped: `or-set`.
    OrSet,
    /// Shipped: `lww-map`.
    Map,
    /// Shipped, `resolver`: `lww`.
    Latest,
    /// Shipped, `resolver`: `mv-register`.
    Values,
}

impl Plugin {
    /// All of them.
    pub const ALL: [Plugin; 7] = [
        Plugin::Union,
        Plugin::Set,
        Plugin::Counter,
        Plugin::OrSet,
        Plugin::Map,
        Plugin::Latest,
        Plugin::Values,
    ];

    /// Its identity.
    pub fn hash(self) -> PluginHash {
        PluginHash([self as u8 + 1; 32])
    }

    /// As a policy names it.
    pub fn reference(self) -> PluginRef {
        PluginRef { name: format!("{self:?}").to_lowercase(), hash: self.hash() }
    }

    /// Which contract it fulfils.
    pub fn world(self) -> World {
        match self {
            Plugin::Union | Plugin::Latest | Plugin::Values => World::Resolver,
            Plugin::Set => World::Lattice,
            Plugin::Counter | Plugin::OrSet | Plugin::Map => World::ReplicatedType,
        }
    }

    /// As nodes know it.
    pub fn entry(self) -> PluginEntry {
        let reference = self.reference();
        PluginEntry {
            hash: reference.hash,
            name: reference.name,
            version: "1".into(),
            summary: "native, of the simulation".into(),
            world: self.world(),
            size_bytes: 1,
            built_in: true,
            removed: false,
            revision: Revision { stamp: Stamp::default(), node: NodeId(0) },
        }
    }

    /// The plugin of this identity.
    pub fn of(hash: PluginHash) -> Option<Plugin> {
        Plugin::ALL.into_iter().find(|plugin| plugin.hash() == hash)
    }

    /// The plugin of a key's keyspace.
    pub fn of_key(history: &History, key: KeyIndex) -> Option<Plugin> {
        history.keys[key].policy.plugin().and_then(|plugin| Plugin::of(plugin.hash))
    }

    /// What it says to a call.
    pub fn answer(self, call: &PluginCall) -> PluginAnswer {
        match (self, call) {
            (Plugin::Counter, call) => replicated_type::<PnCounter>(call),
            (Plugin::OrSet, call) => replicated_type::<OrSet>(call),
            (Plugin::Map, call) => replicated_type::<LwwMap>(call),
            (_, PluginCall::Validate { value, .. }) => validate(value),
            (Plugin::Latest, call) => resolver::<Lww>(call),
            (Plugin::Values, call) => resolver::<MvRegister>(call),
            (Plugin::Union, PluginCall::Resolve { siblings, .. }) => {
                let contents: Vec<Option<&Bytes>> = siblings.iter().map(|s| s.content.as_ref()).collect();
                resolve(&contents)
            }
            (Plugin::Set, PluginCall::Merge { states, .. }) => match union(states.iter()) {
                Some(ids) => PluginAnswer::Value(set(&ids)),
                None => rejected("not a set"),
            },
            _ => no_such_question(),
        }
    }

    /// What it makes of writes that were siblings.
    pub fn resolution(self, writes: &[(Dot, &DotFact)]) -> PluginAnswer {
        let mut siblings: Vec<PluginSibling> = Vec::new();
        for (dot, fact) in writes {
            match siblings.iter_mut().find(|earlier| earlier.content == fact.value) {
                Some(earlier) => {
                    earlier.dots.push(*dot);
                    earlier.stamp = earlier.stamp.max(fact.stamp);
                }
                None => siblings.push(PluginSibling {
                    dots: vec![*dot],
                    stamp: fact.stamp,
                    content: fact.value.clone(),
                    content_type: None,
                }),
            }
        }
        let key = KeyInfo { keyspace: String::new(), key: Bytes::new(), config: Bytes::new() };
        self.answer(&PluginCall::Resolve { key, siblings })
    }
}

/// The resolver's answer to values and deletes (None).
fn resolve(contents: &[Option<&Bytes>]) -> PluginAnswer {
    let Some(ids) = union(contents.iter().copied().flatten()) else { return rejected("not a value") };
    let sum = ids.iter().fold(0u64, |sum, id| sum.wrapping_add(mix(*id)));
    if sum % UNRESOLVED_MODULUS == 0 {
        return PluginAnswer::Unresolved("the ids add up badly".into());
    }
    // Where it may choose, it sometimes lets the delete win.
    if contents.contains(&None) && sum % DELETED_MODULUS == 0 {
        return PluginAnswer::Delete;
    }
    PluginAnswer::Keep { value: set(&ids), content_type: None }
}

fn rejected(message: &str) -> PluginAnswer {
    PluginAnswer::Rejected { kind: "poison".into(), message: message.into() }
}

fn validate(value: &Bytes) -> PluginAnswer {
    match ids(value) {
        Some(ids) if ids.iter().any(|id| id % REJECTED_MODULUS == 0) => rejected("an unlucky id"),
        Some(_) => PluginAnswer::Valid,
        None => rejected("not a value"),
    }
}

/// The ids in all of these values; None if one is no value.
pub fn union<'a>(values: impl Iterator<Item = &'a Bytes>) -> Option<BTreeSet<u64>> {
    let mut all = BTreeSet::new();
    for value in values {
        all.extend(ids(value)?);
    }
    Some(all)
}

/// The plain value of a write.
pub fn plain(id: u64) -> Bytes {
    let mut dice = Dice::new(id);
    let length = if dice.chance(30) { 5 << 10 } else { dice.between(0, 55) };
    let mut bytes = BytesMut::with_capacity(9 + length as usize);
    bytes.put_u8(0);
    bytes.put_u64(id);
    while bytes.len() < 9 + length as usize {
        let word = dice.next().to_le_bytes();
        let room = 9 + length as usize - bytes.len();
        bytes.put_slice(&word[..room.min(8)]);
    }
    bytes.freeze()
}

/// The set of these writes.
pub fn set(ids: &BTreeSet<u64>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + 8 * ids.len());
    bytes.put_u8(1);
    ids.iter().for_each(|id| bytes.put_u64(*id));
    bytes.freeze()
}

/// The ids that a value holds; None unless it is exactly what a write or a stand-in would make.
pub fn ids(value: &Bytes) -> Option<Vec<u64>> {
    match value.first()? {
        0 => {
            let id = u64::from_be_bytes(value.get(1..9)?.try_into().ok()?);
            (*value == plain(id)).then(|| vec![id])
        }
        1 if (value.len() - 1).is_multiple_of(8) => {
            let words = value[1..].chunks_exact(8);
            let ids: Vec<u64> = words.map(|w| w.try_into().map(u64::from_be_bytes).unwrap_or(0)).collect();
            ids.windows(2).all(|pair| pair[0] < pair[1]).then_some(ids)
        }
        _ => None,
    }
}
