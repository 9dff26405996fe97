//! States are judged wherever they are written or sent.
//!
//! In: what a node writes and sends. Out: violations, and the history of what was known where. Absent: the properties themselves.

use super::trace::hash_bytes;
use super::world::World;
use crate::history::KeyIndex;
use crate::properties::{self, Check, broken, c4_no_resurrection};
use bytes::Bytes;
use merganser_core::event::{Record, WriteOp};
use merganser_core::message::{Message, ReadAnswer};
use merganser_core::version::{DotSet, KeyState, codec};
use merganser_core::{handoff, storage_key};

impl World {
    pub(super) fn judge_ops(&mut self, node: usize, ops: &[WriteOp]) -> Check {
        for op in ops {
            match op {
                WriteOp::Put { key, record } | WriteOp::Merge { key, record } => {
                    self.judge_record(node, key, record)?;
                }
                WriteOp::Remove { key } => {
                    if let Some(index) = self.key_of_storage.get(key).copied() {
                        self.collected(node, index, key)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn judge_record(&mut self, node: usize, key: &Bytes, record: &Record) -> Check {
        if let Some(index) = self.key_of_storage.get(key).copied() {
            self.judge(node, index, record)?;
            if let Ok(state) = codec::state(record) {
                c4_no_resurrection::on_written(&self.history, index, &state, self.latest_clock)?;
                self.context_written(node, index, &state)?;
            }
        } else if let Some((_, object)) = storage_key::parse_hint(key) {
            let (hint, index) = (handoff::hint(record), self.key_of_storage.get(&object).copied());
            let (Ok(hint), Some(index)) = (hint, index) else {
                return broken("C9", format!("a hint of a key that nobody used: {key:?}"));
            };
            self.count(if hint.state.is_some() { "hint kept" } else { "marker kept" });
            if let Some(state) = hint.state {
                self.judge(node, index, &state)?;
            }
        }
        Ok(())
    }

    /// Contexts of siblings only grow, but where dead actors are retired.
    fn context_written(&mut self, node: usize, index: KeyIndex, state: &KeyState) -> Check {
        let KeyState::Causal(siblings) = state else { return Ok(()) };
        let before = match self.last_seen.insert((node, index), siblings.seen().clone()) {
            Some(before) => Some(before),
            None => self.seen_on_disk(node, index),
        };
        match before.filter(|before| !before.within(siblings.seen())) {
            Some(before) => {
                self.count("a context was retired");
                c4_no_resurrection::on_retired(&mut self.history, index, &before, state)
            }
            None => Ok(()),
        }
    }

    fn seen_on_disk(&self, node: usize, index: KeyIndex) -> Option<DotSet> {
        let record = self.read_now(node, &self.history.keys[index].storage_key).ok()??;
        codec::state(&record).ok().map(|state| state.seen())
    }

    /// A node removes a key: what it holds of it is judged before that happens.
    fn collected(&mut self, node: usize, index: KeyIndex, key: &Bytes) -> Check {
        let Ok(Some(record)) = self.read_now(node, key) else { return Ok(()) };
        let Ok(state) = codec::state(&record) else { return Ok(()) };
        self.count("a replica let go of a key");
        self.last_seen.remove(&(node, index));
        // Each has found it gone by its own clock, which may have been put back since.
        c4_no_resurrection::on_collected(&mut self.history, index, &state, self.latest_clock)
    }

    pub(super) fn judge_message(&mut self, node: usize, peer: usize, message: &Message) -> Check {
        match message {
            Message::Replicate { keyspace, key, record, .. }
            | Message::Hint { keyspace, key, record, .. } => {
                match self.key_of_name.get(&(*keyspace, key.clone())).copied() {
                    Some(index) => self.judge(node, index, record),
                    None => broken("C9", format!("a state of a key that nobody used: {key:?}")),
                }
            }
            Message::Read { op, keyspace, key, .. } => {
                if let Some(index) = self.key_of_name.get(&(*keyspace, key.clone())).copied() {
                    self.reads.insert((node, *op), index);
                }
                Ok(())
            }
            Message::ReadReply { op, answer: ReadAnswer::State(Some(record)) } => {
                match self.reads.get(&(peer, *op)).copied() {
                    Some(index) => self.judge(node, index, record),
                    None => broken("C9", format!("an answer to a read that nobody made: {op:?}")),
                }
            }
            Message::Tree(exchange) => {
                let Some((keyspace, states)) = exchange.states() else { return Ok(()) };
                for (key, record) in states {
                    self.count("state sent by an exchange");
                    match self.key_of_name.get(&(keyspace, key.clone())).copied() {
                        Some(index) => self.judge(node, index, record)?,
                        None => return broken("C9", format!("a state of a key that nobody used: {key:?}")),
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The head has the digests of the values in it: equal heads, equal states.
    fn judge(&mut self, node: usize, key: KeyIndex, record: &Record) -> Check {
        if !self.judged.insert((key, hash_bytes(&record.head))) {
            return Ok(());
        }
        let name = &self.machines[node].name;
        let state = match codec::state(record) {
            Ok(state) => state,
            Err(error) => return broken("C9", format!("{name} makes a state of key {key} that is {error}")),
        };
        if codec::record(&state) != *record {
            return broken(
                "C9",
                format!("{name} makes a state of key {key} in no canonical form: {state:?}"),
            );
        }
        properties::on_state(&mut self.history, key, &state).map_err(|mut violation| {
            violation.text = format!("{} (at {name}, key {key})", violation.text);
            violation
        })
    }
}
