//! A copy is read: for an active key, or for a peer.
//!
//! In: answers of storage, peers' questions. Out: states, decoded or raw. Absent: quorums.

use super::Job;
use crate::anti_entropy::leaf::Share;
use crate::catalog::KeyspaceEntry;
use crate::event::{Effect, Effects, Record, StorageFailure};
use crate::handoff::Wanted;
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::message::{Message, ReadAnswer, Refusal};
use crate::node::{Node, Purpose};
use crate::request::Problem;
use crate::storage_key;
use crate::target::Target;
use crate::version::{Digest, KeyState, codec};
use bytes::Bytes;

impl Node {
    /// An active key's state has been read.
    pub(crate) fn active_loaded(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(active) = self.active.get(&storage_key) else { return };
        let entry = active.target.entry.clone();
        let result = self.decode(&entry, &storage_key, result, effects);
        self.active_decoded(now, storage_key, result, effects);
    }

    /// An active key's state is known, or why not.
    pub(crate) fn active_decoded(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        result: Result<KeyState, String>,
        effects: &mut Effects,
    ) {
        let Some(mut active) = self.active.remove(&storage_key) else { return };
        active.is_reading = false;
        match result {
            Ok(state) => {
                active.share = Share::of(&active.target.key, &state);
                active.state = Some(self.unless_buried(&active, state));
                self.active.insert(storage_key.clone(), active);
                self.work(now, storage_key, effects);
            }
            // Never "not found": nothing is done with a key whose state cannot be read.
            Err(reason) => {
                for (op, _) in std::mem::take(&mut active.operations) {
                    self.write_failed(op, Problem::Storage { reason: reason.clone() }, effects);
                }
                while let Some(job) = active.jobs.pop() {
                    match job {
                        Job::Close { completion } => {
                            self.complete(vec![completion], Err(Refusal::Storage), effects);
                        }
                        Job::Sync { completions, .. } => {
                            self.complete(completions, Err(Refusal::Storage), effects);
                        }
                        Job::Replace { .. } | Job::Tend => {}
                        Job::Write { op, .. } => {
                            self.write_failed(op, Problem::Storage { reason: reason.clone() }, effects);
                        }
                    }
                }
            }
        }
    }

    /// The state of a record as storage gave it, or why there is none.
    pub(crate) fn decode(
        &mut self,
        entry: &KeyspaceEntry,
        storage_key: &Bytes,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) -> Result<KeyState, String> {
        let kind = entry.settings.policy.kind();
        let reason = match result {
            Ok(None) => return Ok(KeyState::empty(kind)),
            Ok(Some(record)) => match codec::state(&record) {
                Ok(state) if state.kind() == kind => return Ok(state),
                Ok(_) => "the record is of another kind of keyspace".to_owned(),
                Err(malformed) => malformed.to_string(),
            },
            Err(StorageFailure::Corrupt(reason)) => reason,
            Err(StorageFailure::Overloaded) => return Err("the disk is overloaded".to_owned()),
            Err(StorageFailure::Failed(reason)) => return Err(reason),
        };
        self.corrupt_record(storage_key.clone(), reason.clone(), effects);
        Err(reason)
    }

    /// A peer asks for this node's copy, or, `as_stand_in`, for what it keeps as hints.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn peer_read(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        key: Bytes,
        unless: Option<Digest>,
        as_stand_in: bool,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.keyspaces.by_id(keyspace).filter(|_| !key.is_empty()) else {
            let answer = ReadAnswer::Refused(Refusal::UnknownKeyspace);
            effects.push(Effect::Send { to: from, message: Message::ReadReply { op, answer } });
            return;
        };
        if as_stand_in {
            let target = Target::new(entry, &key);
            return self.gather_hints(now, &target, Wanted::Peer { to: from, op, unless }, effects);
        }
        let storage_key = storage_key::object(keyspace, &key);
        if let Some(state) = self.loaded(&storage_key) {
            let answer = read_answer(state, unless, || codec::record(state));
            effects.push(Effect::Send { to: from, message: Message::ReadReply { op, answer } });
            return;
        }
        let ticket = self.ticket(Purpose::PeerRead { to: from, op, unless });
        effects.push(Effect::Read { ticket, key: storage_key });
    }

    /// Its copy has been read.
    pub(crate) fn peer_read_done(
        &mut self,
        to: NodeId,
        op: OpId,
        unless: Option<Digest>,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let answer = match result {
            Ok(None) => ReadAnswer::State(None),
            Ok(Some(record)) => match codec::state(&record) {
                Ok(state) => read_answer(&state, unless, || record),
                Err(_) => ReadAnswer::Refused(Refusal::Storage),
            },
            Err(_) => ReadAnswer::Refused(Refusal::Storage),
        };
        effects.push(Effect::Send { to, message: Message::ReadReply { op, answer } });
    }
}

fn read_answer(state: &KeyState, unless: Option<Digest>, record: impl FnOnce() -> Record) -> ReadAnswer {
    if unless.is_some_and(|digest| digest == state.digest()) {
        return ReadAnswer::Same;
    }
    ReadAnswer::State((!state.is_empty()).then(record))
}
