//! Stale leaves, worked out anew before they are compared: a few at a time, at a pace.
//!
//! ```text
//!   want(leaves of a branch, then) ─▶ queue ─▶ scans of slots ─▶ leaf settled, or disturbed by writes
//!                                                └─▶ the branch's last one: then
//! ```
//!
//! In: branches that are to be compared. Out: what waits for them goes on. A leaf that writes keep disturbing stays stale:
//! its keys are then compared one by one. Absent: how a leaf is settled; see `upkeep`.

use super::shared::{SlotSet, Stretch};
use crate::event::Effects;
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::node::{Node, Timer};
use crate::ring::Slot;
use std::collections::{BTreeSet, VecDeque};

/// No further scan is begun while so many slots are being read.
const UNDER_WAY_MAX: usize = 32;
/// Branches that may wait at a time: this node's own round and its peers'.
const WAITS_MAX: usize = 64;
/// The share of the repair budget that goes into reading this node's own heads.
const BUDGET_SHARE: u64 = 4;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Rescans {
    queue: VecDeque<(KeyspaceId, Slot)>,
    /// In the queue or under way.
    known: BTreeSet<(KeyspaceId, Slot)>,
    under_way: usize,
    waits: Vec<Wait>,
}

impl Rescans {
    /// The slots that are read next, in one scan.
    fn next(&mut self) -> Option<(KeyspaceId, Vec<Slot>)> {
        let (keyspace, first) = self.queue.pop_front()?;
        let (mut slots, mut stretch) = (vec![first], Stretch::one(first));
        while let Some((of, next)) = self.queue.front()
            && *of == keyspace
            && let Some(longer) = stretch.and(*next)
        {
            slots.push(*next);
            stretch = longer;
            self.queue.pop_front();
        }
        Some((keyspace, slots))
    }
}

struct Wait {
    keyspace: KeyspaceId,
    left: BTreeSet<Slot>,
    then: Then,
}

/// What goes on once a branch's leaves are as fresh as they get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// This node's own round asks its peer.
    Ask { branch: u8 },
    /// A peer is answered.
    Answer { to: NodeId, op: OpId, branch: u8 },
}

impl Node {
    /// Freshens the leaves of a branch that are shared with a peer, then goes on.
    pub(super) fn freshen(
        &mut self,
        now: Millis,
        keyspace: KeyspaceId,
        shared: &SlotSet,
        branch: u8,
        then: Then,
        effects: &mut Effects,
    ) {
        let tree = self.anti_entropy.trees.get(&keyspace);
        let is_stale = |slot: &Slot| tree.is_some_and(|tree| tree.sum(*slot).is_none());
        let left: BTreeSet<Slot> = shared.of_branch(branch).filter(is_stale).collect();
        let rescans = &mut self.anti_entropy.rescans;
        // Where too many wait, the leaves stay as they are.
        if left.is_empty() || rescans.waits.len() >= WAITS_MAX {
            return self.freshened(now, keyspace, then, effects);
        }
        for slot in &left {
            if rescans.known.insert((keyspace, *slot)) {
                rescans.queue.push_back((keyspace, *slot));
            }
        }
        rescans.waits.push(Wait { keyspace, left, then });
        self.go_on_rescanning(now, effects);
    }

    /// Begins as many scans as may be under way.
    pub(crate) fn go_on_rescanning(&mut self, now: Millis, effects: &mut Effects) {
        while self.anti_entropy.rescans.under_way < UNDER_WAY_MAX {
            if self.anti_entropy.rescans.queue.is_empty() {
                return;
            }
            let rate = self.repair_rate(now) / BUDGET_SHARE;
            if let Err(at) = self.anti_entropy.scan_budget.ask(now, rate) {
                return self.set_timer(at, Timer::Rescans);
            }
            let Some((keyspace, slots)) = self.anti_entropy.rescans.next() else { return };
            let began = self.rescan(keyspace, &slots, 0, effects);
            self.anti_entropy.rescans.under_way += began.len();
            let disturbed: Vec<Slot> = slots.into_iter().filter(|slot| !began.contains(slot)).collect();
            self.end_rescans(now, keyspace, &disturbed, effects);
        }
    }

    /// Leaves are as fresh as they get; on to the next.
    pub(super) fn rescanned(
        &mut self,
        now: Millis,
        keyspace: KeyspaceId,
        slots: &[Slot],
        effects: &mut Effects,
    ) {
        let rescans = &mut self.anti_entropy.rescans;
        rescans.under_way = rescans.under_way.saturating_sub(slots.len());
        self.end_rescans(now, keyspace, slots, effects);
        self.go_on_rescanning(now, effects);
    }

    fn end_rescans(&mut self, now: Millis, keyspace: KeyspaceId, slots: &[Slot], effects: &mut Effects) {
        let rescans = &mut self.anti_entropy.rescans;
        for slot in slots {
            rescans.known.remove(&(keyspace, *slot));
        }
        let mut ready = Vec::new();
        rescans.waits.retain_mut(|wait| {
            if wait.keyspace == keyspace {
                wait.left.retain(|slot| !slots.contains(slot));
            }
            let is_ready = wait.left.is_empty();
            if is_ready {
                ready.push((wait.keyspace, wait.then));
            }
            !is_ready
        });
        for (keyspace, then) in ready {
            self.freshened(now, keyspace, then, effects);
        }
    }

    fn freshened(&mut self, now: Millis, keyspace: KeyspaceId, then: Then, effects: &mut Effects) {
        match then {
            Then::Ask { branch } => self.ask_leaves(now, keyspace, branch, effects),
            Then::Answer { to, op, branch } => self.answer_leaves(to, op, keyspace, branch, effects),
        }
    }
}
