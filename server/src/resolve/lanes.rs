//! Calls that wait, in a lane for each keyspace and plugin.
//!
//! In: calls. Out: the next one for a worker: lanes take turns, and no lane has more than all but
//! one of the workers (of one worker: that one). Bounded in bytes over all lanes. Absent: threads.

use super::Lane;
use merganser_core::id::Ticket;
use merganser_plugin_host::Call;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};

/// A call and who waits for it.
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) call: Call,
}

pub(super) struct Lanes {
    state: Mutex<State>,
    arrived: Condvar,
    running_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    lanes: BTreeMap<Lane, Waiting>,
    /// Lanes with jobs, in the order of their turns.
    turns: VecDeque<Lane>,
    bytes: usize,
    closed: bool,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    running: usize,
}

impl Lanes {
    pub(super) fn new(workers: usize, bytes_max: usize) -> Lanes {
        let running_max = workers.saturating_sub(1).max(1);
        Lanes { state: Mutex::default(), arrived: Condvar::new(), running_max, bytes_max }
    }

    /// Whether the call fits; one alone always does.
    pub(super) fn has_room(&self, call: &Call) -> bool {
        let state = self.state.lock();
        state.bytes == 0 || state.bytes + size(call) <= self.bytes_max
    }

    pub(super) fn push(&self, lane: Lane, job: Job) {
        let mut state = self.state.lock();
        state.bytes += size(&job.call);
        let waiting = state.lanes.entry(lane.clone()).or_default();
        let first = waiting.jobs.is_empty();
        waiting.jobs.push_back(job);
        if first {
            state.turns.push_back(lane);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Waits for the next job; None once closed. Call [`Lanes::done`] after it.
    pub(super) fn take(&self) -> Option<(Lane, Job)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(taken) = self.next(&mut state) {
                return Some(taken);
            }
            self.arrived.wait(&mut state);
        }
    }

    fn next(&self, state: &mut State) -> Option<(Lane, Job)> {
        let may_run = |lane: &Lane| state.lanes.get(lane).is_some_and(|l| l.running < self.running_max);
        let turn = state.turns.iter().position(may_run)?;
        let lane = state.turns.remove(turn)?;
        let waiting = state.lanes.get_mut(&lane)?;
        let job = waiting.jobs.pop_front()?;
        waiting.running += 1;
        if !waiting.jobs.is_empty() {
            state.turns.push_back(lane.clone());
        }
        state.bytes -= size(&job.call);
        Some((lane, job))
    }

    pub(super) fn done(&self, lane: &Lane) {
        let mut state = self.state.lock();
        if let Some(waiting) = state.lanes.get_mut(lane) {
            waiting.running -= 1;
            if waiting.running == 0 && waiting.jobs.is_empty() {
                state.lanes.remove(lane);
            }
        }
        drop(state);
        // A job of this lane may have waited for nothing but this.
        self.arrived.notify_one();
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

fn size(call: &Call) -> usize {
    call.input_bytes() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use merganser_core::id::PluginHash;
    use merganser_plugin_host::KeyInfo;

    fn lane(keyspace: &str) -> Lane {
        (keyspace.into(), PluginHash([1; 32]))
    }

    fn push(lanes: &Lanes, keyspace: &str, ticket: u64) {
        let call = Call::Validate { key: KeyInfo::default(), value: Bytes::from(vec![0; 10]) };
        lanes.push(lane(keyspace), Job { ticket: Ticket(ticket), call });
    }

    fn next(lanes: &Lanes) -> Option<u64> {
        lanes.next(&mut lanes.state.lock()).map(|(_, job)| job.ticket.0)
    }

    #[test]
    fn lanes_take_turns_and_one_never_holds_every_worker() {
        let lanes = Lanes::new(2, 1_000);
        for ticket in 1..=3 {
            push(&lanes, "loops", ticket);
        }
        push(&lanes, "other", 10);
        push(&lanes, "other", 11);
        assert_eq!(next(&lanes), Some(1));
        assert_eq!(next(&lanes), Some(10));
        // One of each runs; two workers allow one for each lane.
        assert_eq!(next(&lanes), None);
        lanes.done(&lane("other"));
        assert_eq!(next(&lanes), Some(11));
        lanes.done(&lane("other"));
        assert_eq!(next(&lanes), None);
        lanes.done(&lane("loops"));
        assert_eq!(next(&lanes), Some(2));
        assert_eq!(lanes.waiting_bytes(), 10);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_but_one_call_always_fits() {
        let lanes = Lanes::new(1, 15);
        let large = Call::Validate { key: KeyInfo::default(), value: Bytes::from(vec![0; 99]) };
        assert!(lanes.has_room(&large));
        push(&lanes, "a", 1);
        assert!(!lanes.has_room(&large));
        assert_eq!(next(&lanes), Some(1));
        assert!(lanes.has_room(&large));
    }

    #[test]
    fn closing_ends_the_workers() {
        let lanes = Lanes::new(1, 15);
        push(&lanes, "a", 1);
        lanes.close();
        assert!(lanes.take().is_none());
    }
}
