//! A state with new writes in it, on its way to the key's primaries, or to those who stand in for them.
//!
//! ```text
//!   a place for each primary ─ reachable ────────────────▶ Replicate ──▶ held once it is durable there
//!                            └ not, or silent for a while ▶ Hint to the next node of the walk, or, if
//!                                                           there is none, a marker here: held nowhere
//! ```
//!
//! What counts are *places*, not nodes: a stand-in's copy ends up at the primary that it stands in for, so
//! the two of them are one copy in the end. In: states, acknowledgements, time. Out: messages, met
//! quorums. Absent: what a write does to a state; how a hint is kept.

use crate::event::{Effect, Effects, Record};
use crate::id::{Millis, NodeId, OpId};
use crate::message::{Message, Refusal};
use crate::mutant::Mutant;
use crate::node::{Node, Timer};
use crate::target::Target;
use bytes::Bytes;
use std::collections::BTreeSet;

/// A state on its way.
pub(crate) struct Replication {
    /// The writes in it whose coordinator waits.
    pub(super) writes: Vec<OpId>,
    target: Target,
    record: Record,
    places: Vec<Place>,
    /// Stand-ins count for some of the writes.
    sloppy: bool,
    /// When silent primaries are given up on; None: that was done.
    look_at: Option<Millis>,
}

/// One of the N copies.
struct Place {
    primary: NodeId,
    /// Asked to keep a hint for it.
    stand_ins: Vec<NodeId>,
    has_marker: bool,
    held: bool,
}

impl Place {
    fn is_of(&self, node: NodeId) -> bool {
        self.primary == node || self.stand_ins.contains(&node)
    }
}

impl Node {
    /// Sends a state with local writes in it to the key's other primaries or their stand-ins. Answers
    /// the operation by which they acknowledge all of these writes, and the primaries that need a
    /// marker here.
    pub(crate) fn send_to_replicas(
        &mut self,
        now: Millis,
        target: &Target,
        record: &Record,
        writes: Vec<OpId>,
        effects: &mut Effects,
    ) -> (OpId, Vec<NodeId>) {
        let op = self.op();
        let own = self.config.node;
        let mut patience_ms = self.config.stand_in_after_ms;
        let (mut primaries, mut sloppy) = (Vec::new(), false);
        for write in &writes {
            let Some(writing) = self.writing.get_mut(write) else { continue };
            writing.replication = Some(op);
            sloppy |= writing.sloppy;
            patience_ms = patience_ms.min(writing.deadline.since(now) / 3);
            if primaries.is_empty() {
                primaries.clone_from(&writing.primaries);
            }
        }
        let place = |primary| Place { primary, stand_ins: Vec::new(), has_marker: false, held: false };
        let look_at = now.after(patience_ms.max(1));
        let mut replication = Replication {
            writes,
            target: target.clone(),
            record: record.clone(),
            places: primaries.into_iter().map(place).collect(),
            sloppy,
            look_at: Some(look_at),
        };
        for place in replication.places.iter().filter(|place| place.primary != own) {
            if self.is_reachable(place.primary) {
                let (keyspace, key, record) = (target.entry.id, target.key.clone(), record.clone());
                let message = Message::Replicate { op: Some(op), keyspace, key, record };
                effects.push(Effect::Send { to: place.primary, message });
            }
        }
        let away = |node: &Node, place: &Place| !node.is_reachable(place.primary);
        let markers = self.stand_in(op, &mut replication, away, effects);
        self.set_timer(look_at, Timer::StandIn(op));
        self.replications.insert(op, Box::new(replication));
        if self.mutant(Mutant::AckWithoutOwnWrite) {
            self.acknowledged(op, own, effects);
        }
        (op, markers)
    }

    /// Finds stand-ins for those places of a replication that `needs` one. Answers the primaries for
    /// which there is none, and that this node is to keep a marker for.
    fn stand_in(
        &self,
        op: OpId,
        replication: &mut Replication,
        needs: impl Fn(&Node, &Place) -> bool,
        effects: &mut Effects,
    ) -> Vec<NodeId> {
        let own = self.config.node;
        let mut spares: Option<Vec<NodeId>> = (!replication.sloppy).then(Vec::new);
        let is_primary = replication.places.iter().any(|place| place.primary == own);
        let mut markers = Vec::new();
        for index in 0..replication.places.len() {
            let place = &replication.places[index];
            if place.held || place.primary == own || !needs(self, place) {
                continue;
            }
            let spares = spares.get_or_insert_with(|| {
                let asked = |node: &NodeId| replication.places.iter().any(|place| place.is_of(*node));
                let mut spares = self.reachable_stand_ins(&replication.target);
                spares.retain(|node| *node != own && !asked(node));
                spares.reverse();
                spares
            });
            let place = &mut replication.places[index];
            match spares.pop() {
                Some(to) => {
                    place.stand_ins.push(to);
                    let (target, keyspace) = (place.primary, replication.target.entry.id);
                    let (key, record) = (replication.target.key.clone(), replication.record.clone());
                    let message = Message::Hint { op, target, keyspace, key, record };
                    effects.push(Effect::Send { to, message });
                }
                // A stand-in coordinator's own copy is a hint for every primary.
                None if is_primary && !place.has_marker && place.stand_ins.is_empty() => {
                    place.has_marker = true;
                    markers.push(place.primary);
                }
                None => {}
            }
        }
        markers
    }

    /// Those beyond a key's primaries that can be reached, nearest first; perhaps this node.
    pub(super) fn reachable_stand_ins(&self, target: &Target) -> Vec<NodeId> {
        let mut walk = self.ring.preference(target.token, target.n(), usize::MAX);
        walk.drain(..target.n().min(walk.len()));
        walk.retain(|node| self.is_reachable(*node));
        walk
    }

    /// Primaries have been silent for long enough: others keep it for them.
    pub(crate) fn stand_ins_due(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(mut replication) = self.replications.remove(&op) else { return };
        let asked = |replication: &Replication| -> usize {
            replication.places.iter().map(|place| place.stand_ins.len()).sum()
        };
        let before = asked(&replication);
        let markers = self.stand_in(op, &mut replication, |_, _| true, effects);
        let target = replication.target.clone();
        // Those asked now may be silent, too.
        let again = asked(&replication) > before && self.is_awaited(&replication);
        replication.look_at = again.then(|| now.after(self.config.stand_in_after_ms));
        if let Some(at) = replication.look_at {
            self.set_timer(at, Timer::StandIn(op));
        }
        self.replications.insert(op, replication);
        self.keep_markers(now, &target, &markers, effects);
        self.end_replication(op);
    }

    /// A replica or stand-in says what became of a replication.
    pub(crate) fn replicated(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        result: Result<(), Refusal>,
        effects: &mut Effects,
    ) {
        if self.hint_answered(now, from, op, result, effects) {
            return;
        }
        let Err(refusal) = result else { return self.acknowledged(op, from, effects) };
        if refusal == Refusal::UnknownKeyspace {
            // It lacks the keyspace: tell it, so that the next write finds it.
            self.push_catalog(now, from, effects);
        }
        // The next one is asked at once.
        let Some(mut replication) = self.replications.remove(&op) else { return };
        let markers = self.stand_in(op, &mut replication, |_, place| place.is_of(from), effects);
        let target = replication.target.clone();
        self.replications.insert(op, replication);
        self.keep_markers(now, &target, &markers, effects);
    }

    /// What `node` holds durably covers the writes of a replication.
    pub(crate) fn acknowledged(&mut self, op: OpId, node: NodeId, effects: &mut Effects) {
        let Some(replication) = self.replications.get_mut(&op) else { return };
        let own = self.config.node;
        let place = match replication.places.iter_mut().find(|place| place.is_of(node)) {
            Some(place) => {
                place.held = true;
                place.primary
            }
            // A stand-in coordinator's copy is one for whichever place lacks one.
            None if node == own => own,
            None => return,
        };
        let stands_in = place != node || !replication.places.iter().any(|place| place.primary == node);
        let writes = replication.writes.clone();
        let duplicates = self.mutant(Mutant::DuplicateAcksCounted);
        let mut met = Vec::new();
        for write in writes {
            let Some(writing) = self.writing.get_mut(&write) else { continue };
            if stands_in && !writing.sloppy {
                continue;
            }
            match duplicates {
                true => writing.tally.add_again(node),
                false => writing.tally.add_for(place, node, stands_in),
            }
            if writing.tally.is_met() {
                met.push(write);
            }
        }
        for write in met {
            self.write_met(write, effects);
        }
        self.end_replication(op);
    }

    fn is_awaited(&self, replication: &Replication) -> bool {
        replication.writes.iter().any(|write| self.writing.contains_key(write))
    }

    /// Forgets a replication once nobody waits for it and every place is seen to.
    pub(super) fn end_replication(&mut self, op: OpId) {
        let Some(replication) = self.replications.get(&op) else { return };
        let own = self.config.node;
        let is_held = replication.places.iter().all(|place| place.held || place.primary == own);
        if self.is_awaited(replication) || !(is_held || replication.look_at.is_none()) {
            return;
        }
        if let Some(Replication { look_at: Some(at), .. }) = self.replications.remove(&op).map(|it| *it) {
            self.clear_timer(at, Timer::StandIn(op));
        }
    }

    /// Of these objects those of which a write is under way here: of a client, of a peer, or a state of
    /// it on its way. Looks at everything under way: for rounds of collection, not for requests.
    pub(crate) fn writes_under_way(&self, objects: &BTreeSet<Bytes>) -> BTreeSet<Bytes> {
        let active = self.active.values().map(|active| &active.target.storage_key);
        let writing = self.writing.values().map(|writing| &writing.target.storage_key);
        let replicated = self.replications.values().map(|replication| &replication.target.storage_key);
        let all = active.chain(writing).chain(replicated).chain(self.registers_under_way());
        all.filter(|object| objects.contains(*object)).cloned().collect()
    }
}
