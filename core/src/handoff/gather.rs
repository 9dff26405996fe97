//! A stand-in's view of a key: the join of the hints that it keeps for the key's primaries.
//!
//! In: a key, and who wants to know. Out: that state, to a coordinator's read, a peer, or an active
//! key. Absent: who asks a stand-in, and when.

use super::{HintTask, record};
use crate::event::{Effect, Effects, Record, StorageFailure};
use crate::id::{Dot, Millis, NodeId, OpId};
use crate::message::{Message, ReadAnswer, Refusal};
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::storage_key;
use crate::target::Target;
use crate::version::{Digest, DotSet, KeyState, codec};
use bytes::Bytes;

/// Keys of which the last own dot is remembered.
const LAST_DOTS_MAX: usize = 10_000;

/// Who wants the state.
pub(crate) enum Wanted {
    /// An active key, by its name in that map.
    Active(Bytes),
    /// A read that this node coordinates.
    Read(OpId),
    /// A peer's read.
    Peer { to: NodeId, op: OpId, unless: Option<Digest> },
}

/// Hints being read.
pub(super) struct Gather {
    left: usize,
    state: KeyState,
    failed: Option<String>,
    wanted: Wanted,
    object: Bytes,
}

impl Node {
    /// The name under which a stand-in's copy of a key is active: no object's.
    pub(crate) fn stand_in_key(target: &Target, primaries: &[NodeId]) -> Bytes {
        storage_key::hint(primaries.first().copied().unwrap_or(NodeId(0)), &target.storage_key)
    }

    /// Reads what is kept of a key as hints.
    pub(crate) fn gather_hints(
        &mut self,
        now: Millis,
        target: &Target,
        wanted: Wanted,
        effects: &mut Effects,
    ) {
        let primaries = self.ring.primaries(target.token, target.n());
        let gather = self.op();
        let state = KeyState::empty(target.entry.settings.policy.kind());
        let object = target.storage_key.clone();
        let active = Node::stand_in_key(target, &primaries);
        if !matches!(wanted, Wanted::Active(_))
            && let Some(loaded) = self.loaded(&active).cloned()
        {
            return self.gathered_hints(now, wanted, Ok(loaded), effects);
        }
        let left = primaries.len();
        self.hints.gathers.insert(gather, Gather { left, state, failed: None, wanted, object });
        for primary in primaries {
            let ticket = self.ticket(Purpose::Hint(HintTask::Part(gather)));
            effects.push(Effect::Read { ticket, key: storage_key::hint(primary, &target.storage_key) });
        }
    }

    /// A hint of them has been read.
    pub(super) fn hint_part_read(
        &mut self,
        now: Millis,
        gather: OpId,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.hints.gathers.get_mut(&gather) else { return };
        entry.left -= 1;
        let part = match result {
            Ok(None) => Ok(None),
            Ok(Some(record)) => record::hint(&record)
                .and_then(|hint| hint.state.map(|state| codec::state(&state)).transpose())
                .map_err(|malformed| malformed.to_string()),
            Err(StorageFailure::Corrupt(reason) | StorageFailure::Failed(reason)) => Err(reason),
            Err(StorageFailure::Overloaded) => Err("the disk is overloaded".to_owned()),
        };
        match part {
            Ok(None) => {}
            // A reused dot is reported where it comes in.
            Ok(Some(state)) if state.kind() == entry.state.kind() => drop(entry.state.sync(&state)),
            Ok(Some(_)) => entry.failed = Some("a hint is of another kind of keyspace".to_owned()),
            Err(reason) => entry.failed = Some(reason),
        }
        if entry.left > 0 {
            return;
        }
        let Some(Gather { state, failed, wanted, object, .. }) = self.hints.gathers.remove(&gather) else {
            return;
        };
        let result = match failed {
            None => Ok(state),
            Some(reason) => {
                self.corrupt_record(object, reason.clone(), effects);
                Err(reason)
            }
        };
        self.gathered_hints(now, wanted, result, effects);
    }

    fn gathered_hints(
        &mut self,
        now: Millis,
        wanted: Wanted,
        result: Result<KeyState, String>,
        effects: &mut Effects,
    ) {
        match wanted {
            Wanted::Active(active) => self.active_decoded(now, active, result, effects),
            Wanted::Read(op) => self.own_copy_read(now, op, result, effects),
            Wanted::Peer { to, op, unless } => {
                let answer = match result {
                    Ok(state) if unless == Some(state.digest()) => ReadAnswer::Same,
                    Ok(state) => ReadAnswer::State((!state.is_empty()).then(|| codec::record(&state))),
                    Err(_) => ReadAnswer::Refused(Refusal::Storage),
                };
                effects.push(Effect::Send { to, message: Message::ReadReply { op, answer } });
            }
        }
    }

    /// The dot of this key that a stand-in's new `dot` follows, as far as what it holds proves it.
    ///
    /// A stand-in forgets a key when its hints have gone home. A span that began at what it still
    /// knows would claim its own dots that went home, and sync would take them for overwritten
    /// (R13). Only where the last dot is remembered and held does the span begin there; otherwise it is the
    /// one dot.
    pub(crate) fn previous_as_stand_in(&mut self, object: &Bytes, known: &DotSet, dot: Dot) -> u64 {
        let held = known.last(dot.actor);
        if self.mutant(Mutant::StandInVouchesForAll) {
            return held;
        }
        if self.hints.last_dots.len() >= LAST_DOTS_MAX {
            self.hints.last_dots.clear();
        }
        match self.hints.last_dots.insert(object.clone(), dot.counter) {
            Some(last) if held >= last && held < dot.counter => held,
            _ => dot.counter - 1,
        }
    }
}
