//! Native stand-ins for the keyspaces' plugins: same questions, same kind of answers, no Wasm.
//!
//! Values of the simulation are one of two kinds, so that any value says which writes it holds:
//!
//! ```text
//!   plain   0 │ write id u64 │ filler that follows from the id
//!   set     1 │ write ids u64, ascending
//! ```
//!
//! The resolver and the lattice answer with the set of all ids; the counter's state is a set of
//! (operation id, amount). In: a call. Out: an answer, always the same for the same call. Absent:
//! failures and delays, which the world adds.

use super::dice::{Dice, mix};
use bytes::{BufMut, Bytes, BytesMut};
use merganser_core::catalog::{PluginEntry, PluginRef, Revision};
use merganser_core::id::{NodeId, PluginHash};
use merganser_core::plugin::{PluginAnswer, PluginCall, World};
use merganser_core::version::Stamp;
use std::collections::{BTreeMap, BTreeSet};

/// A value whose writes' ids add up to a multiple of this is one that the resolver leaves alone.
const UNRESOLVED_MODULUS: u64 = 11;
/// One whose ids add up to a multiple of this yields to a delete.
const DELETED_MODULUS: u64 = 3;
/// A write whose id is a multiple of this is refused by `validate`.
const REJECTED_MODULUS: u64 = 61;

/// The stand-ins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// `resolver`: the set of all ids.
    Union,
    /// `lattice`: grow-only set.
    Set,
    /// `replicated-type`: a counter of operations by their id.
    Counter,
}

impl StandIn {
    /// All of them.
    pub const ALL: [StandIn; 3] = [StandIn::Union, StandIn::Set, StandIn::Counter];

    /// Its identity.
    pub fn hash(self) -> PluginHash {
        PluginHash([self as u8 + 1; 32])
    }

    /// As a policy names it.
    pub fn reference(self) -> PluginRef {
        PluginRef { name: format!("{self:?}").to_lowercase(), hash: self.hash() }
    }

    /// As nodes know it.
    pub fn entry(self) -> PluginEntry {
        let reference = self.reference();
        PluginEntry {
            hash: reference.hash,
            name: reference.name,
            version: "1".into(),
            summary: "a stand-in of the simulation".into(),
            world: match self {
                StandIn::Union => World::Resolver,
                StandIn::Set => World::Lattice,
                StandIn::Counter => World::ReplicatedType,
            },
            size_bytes: 1,
            built_in: true,
            removed: false,
            revision: Revision { stamp: Stamp::default(), node: NodeId(0) },
        }
    }

    /// The stand-in of this identity.
    pub fn of(hash: PluginHash) -> Option<StandIn> {
        StandIn::ALL.into_iter().find(|stand_in| stand_in.hash() == hash)
    }

    /// What it says to a call.
    pub fn answer(self, call: &PluginCall) -> PluginAnswer {
        match (self, call) {
            (StandIn::Counter, PluginCall::Merge { states, .. }) => counter_merge(states),
            (StandIn::Counter, PluginCall::Apply { state, op, op_id, .. }) => {
                counter_apply(state.as_ref(), op, op_id)
            }
            (StandIn::Counter, PluginCall::Query { state, .. }) => counter_query(state),
            (_, PluginCall::Validate { value, .. }) => validate(value),
            (StandIn::Union, PluginCall::Resolve { siblings, .. }) => {
                let contents: Vec<Option<&Bytes>> = siblings.iter().map(|s| s.content.as_ref()).collect();
                resolve(&contents)
            }
            (StandIn::Set, PluginCall::Merge { states, .. }) => match union(states.iter()) {
                Some(ids) => PluginAnswer::Value(set(&ids)),
                None => rejected("not a set"),
            },
            _ => PluginAnswer::Failed("not a question to this plugin".into()),
        }
    }
}

/// The resolver's answer to values and deletes (None).
pub fn resolve(contents: &[Option<&Bytes>]) -> PluginAnswer {
    let Some(ids) = union(contents.iter().copied().flatten()) else { return rejected("not a value") };
    let sum = ids.iter().fold(0u64, |sum, id| sum.wrapping_add(mix(*id)));
    if sum % UNRESOLVED_MODULUS == 0 {
        return PluginAnswer::Unresolved("the ids add up badly".into());
    }
    // Where it may choose, it sometimes lets the delete win.
    if contents.contains(&None) && sum % DELETED_MODULUS == 0 {
        return PluginAnswer::Delete;
    }
    PluginAnswer::Value(set(&ids))
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

/// The operation that adds an amount.
pub fn add(amount: u64) -> Bytes {
    Bytes::copy_from_slice(&amount.to_be_bytes())
}

/// The operations that a counter's state holds, by their ids; None if it is none.
pub fn operations(state: &Bytes) -> Option<BTreeMap<[u8; 16], u64>> {
    if !state.len().is_multiple_of(24) {
        return None;
    }
    let mut operations = BTreeMap::new();
    for entry in state.chunks_exact(24) {
        let id = entry[..16].try_into().ok()?;
        operations.insert(id, u64::from_be_bytes(entry[16..].try_into().ok()?));
    }
    Some(operations)
}

fn counter(operations: &BTreeMap<[u8; 16], u64>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(24 * operations.len());
    for (id, amount) in operations {
        bytes.put_slice(id);
        bytes.put_u64(*amount);
    }
    bytes.freeze()
}

fn counter_merge(states: &[Bytes]) -> PluginAnswer {
    let mut all = BTreeMap::new();
    for state in states {
        let Some(operations) = operations(state) else { return rejected("not a counter") };
        all.extend(operations);
    }
    PluginAnswer::Value(counter(&all))
}

fn counter_apply(state: Option<&Bytes>, op: &Bytes, op_id: &Bytes) -> PluginAnswer {
    let Some(mut all) = state.map_or(Some(BTreeMap::new()), operations) else {
        return rejected("not a counter");
    };
    let (Ok(id), Ok(amount)) = (op_id[..].try_into(), op[..].try_into()) else {
        return rejected("not an operation");
    };
    all.insert(id, u64::from_be_bytes(amount));
    PluginAnswer::Value(counter(&all))
}

fn counter_query(state: &Bytes) -> PluginAnswer {
    match operations(state) {
        Some(operations) => {
            let sum = operations.values().fold(0u64, |sum, amount| sum.wrapping_add(*amount));
            PluginAnswer::Value(Bytes::copy_from_slice(&sum.to_be_bytes()))
        }
        None => rejected("not a counter"),
    }
}
