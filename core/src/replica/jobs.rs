//! What waits for one key's state, in order and bounded.
//!
//! Writes of this node's clients are bounded by what it takes on at all. Peers' states are never refused
//! (R12): where many wait (a plugin joins, a disk is slow), those that stand side by side are
//! joined into one, which is what doing them one after the other comes to. Those who wait to be told are
//! bounded by forgetting the oldest peers' requests: no acknowledgement is always an honest answer, and
//! whoever waited so long has given up. In: jobs. Out: the next one. Absent: doing them.

use crate::coordinator::Change;
use crate::event::Record;
use crate::handoff::HintId;
use crate::id::{ActorId, Dot, NodeId, OpId};
use crate::version::KeyState;
use std::collections::VecDeque;

/// Jobs beyond which states of peers are joined where they wait.
const APART_MAX: usize = 8;
/// Peers told of one write.
const COMPLETIONS_MAX: usize = 1_024;

/// Something to do with a key's state.
pub(crate) enum Job {
    /// Take in a peer's state.
    Sync { state: KeyState, record: Option<Record>, completions: Vec<Completion> },
    /// Take a peer's bytes for one's own, if causality is equal: the scrub has judged.
    Replace { state: KeyState, record: Record },
    /// Do a local write.
    Write { op: OpId, change: Change },
    /// Look whether operands can be validated or joined.
    Tend,
    /// Its collection was agreed upon.
    Close { completion: Completion },
}

/// Who is told once it is durable.
pub(crate) enum Completion {
    /// A peer's coordinator.
    Peer { to: NodeId, op: OpId },
    /// Local writes, by their replication, and who issued their dots.
    Own { replication: OpId, actor: ActorId },
    /// The count of a target's hints.
    HintStored { target: NodeId, id: HintId },
    /// A batch of an exchange.
    Taken { id: OpId },
    /// The owner of a collection's round.
    Closed { owner: NodeId, round: OpId },
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Jobs {
    waiting: VecDeque<Job>,
}

impl Jobs {
    /// Behind all others. Answers dots that carry one value in one peer's state and another in another's.
    pub(super) fn push(&mut self, job: Job) -> Vec<Dot> {
        let crowded = self.waiting.len() >= APART_MAX;
        match (job, self.waiting.back_mut()) {
            (
                Job::Sync { state, completions, .. },
                Some(Job::Sync { state: before, record, completions: waiting }),
            ) if crowded => {
                *record = None;
                extend(waiting, completions);
                before.sync(&state)
            }
            (job, _) => {
                self.waiting.push_back(job);
                Vec::new()
            }
        }
    }

    /// Before all others: it was begun.
    pub(super) fn push_front(&mut self, job: Job) {
        self.waiting.push_front(job);
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Adds those who are to be told; beyond a bound the oldest of the peers are forgotten.
pub(super) fn extend(completions: &mut Vec<Completion>, more: Vec<Completion>) {
    completions.extend(more);
    let mut over = completions.len().saturating_sub(COMPLETIONS_MAX);
    if over > 0 {
        completions.retain(|completion| match completion {
            Completion::Peer { .. } if over > 0 => {
                over -= 1;
                false
            }
            _ => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Millis;
    use crate::version::{Content, DotSet, Siblings, Stamp, Version};
    use bytes::Bytes;

    fn sync(counter: u64) -> Job {
        let mut siblings = Siblings::default();
        let stamp = Stamp { millis: Millis(1).0, logical: 0 };
        let version = Version {
            content: Content::Value(Bytes::from(counter.to_be_bytes().to_vec())),
            stamp,
            content_type: None,
            request_id: None,
            receipt: None,
            expires_at: None,
        };
        siblings.write(&DotSet::new(), Dot { actor: ActorId(counter), counter: 1 }, 0, version);
        let completions = vec![Completion::Peer { to: NodeId(1), op: OpId(counter) }];
        Job::Sync { state: KeyState::Causal(siblings), record: Some(Record::default()), completions }
    }

    #[test]
    fn states_that_wait_side_by_side_are_joined_and_none_is_lost() {
        let mut jobs = Jobs::default();
        for counter in 1..=10_000 {
            assert!(jobs.push(sync(counter % 100 + 1)).is_empty());
        }
        assert_eq!(jobs.waiting.len(), APART_MAX);
        let mut seen = DotSet::new();
        let mut told = 0;
        while let Some(job) = jobs.pop() {
            let Job::Sync { state, completions, .. } = job else { panic!("a write from nowhere") };
            seen.join(&state.seen());
            told += completions.len();
        }
        assert_eq!(seen.actors(), 100);
        assert_eq!(told, APART_MAX - 1 + COMPLETIONS_MAX);
    }

    #[test]
    fn a_write_keeps_its_place_between_states() {
        let mut jobs = Jobs::default();
        (1..=20).for_each(|counter| assert!(jobs.push(sync(counter)).is_empty()));
        jobs.push(Job::Write { op: OpId(1), change: Change::Delete { receipt: None } });
        (1..=20).for_each(|counter| assert!(jobs.push(sync(counter)).is_empty()));
        let order: Vec<bool> =
            std::iter::from_fn(|| jobs.pop()).map(|job| matches!(job, Job::Write { .. })).collect();
        assert_eq!(order.iter().position(|is_write| *is_write), Some(APART_MAX));
        assert_eq!(order.len(), APART_MAX + 2);
    }

    #[test]
    fn of_those_who_are_told_the_oldest_peers_are_forgotten_and_own_writes_never() {
        let mut completions = vec![Completion::Own { replication: OpId(7), actor: ActorId(1) }];
        for op in 0..5_000 {
            extend(&mut completions, vec![Completion::Peer { to: NodeId(1), op: OpId(op) }]);
        }
        assert_eq!(completions.len(), COMPLETIONS_MAX);
        assert!(matches!(completions[0], Completion::Own { replication: OpId(7), .. }));
        assert!(matches!(completions.last(), Some(Completion::Peer { op: OpId(4_999), .. })));
    }
}
