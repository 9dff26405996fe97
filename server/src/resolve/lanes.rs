//! Calls that wait, in a lane for each keyspace and plugin.
//!
//! In: calls. Out: the next one for a worker. Lanes take turns. A call that has begun holds its worker
//! until it ends, so what is slow is kept from holding all of them: no lane has more than all but one of
//! the workers, and the lanes whose calls lately took long have no more than that together (of
//! one worker: that one). Bounded in bytes: over all lanes, and each lane to half of that, so that none
//! fills the room of the others. Absent: threads, clocks.

use super::Lane;
use super::poison::Subject;
use merganser_core::id::Ticket;
use merganser_plugin_host::Call;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};

/// Calls of a lane take long if they take so long on average.
const SLOW_MICROS: u64 = 10_000;
/// A new call moves the average by one part in so many.
const MEAN_OF: u64 = 8;
/// Lanes whose pace is remembered while they have nothing to do.
const PACES_MAX: usize = 1_024;

/// A call and who waits for it.
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) call: Call,
    pub(super) subject: Subject,
    /// Its outcome decides whether a breaker closes.
    pub(super) is_probe: bool,
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
    /// How long calls of each lane take on average, in microseconds.
    paces: BTreeMap<Lane, u64>,
    /// Calls under way of lanes that were slow when they began.
    slow_running: usize,
    bytes: usize,
    closed: bool,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    running: usize,
    bytes: usize,
}

/// A call that was taken; tell [`Lanes::done`] when it is over.
pub(super) struct Taken {
    pub(super) lane: Lane,
    pub(super) job: Job,
    /// Its lane was slow when it was taken.
    pub(super) slow: bool,
}

impl Lanes {
    pub(super) fn new(workers: usize, bytes_max: usize) -> Lanes {
        let running_max = workers.saturating_sub(1).max(1);
        Lanes { state: Mutex::default(), arrived: Condvar::new(), running_max, bytes_max }
    }

    /// Whether the call fits; one alone always does.
    pub(super) fn has_room(&self, lane: &Lane, call: &Call) -> bool {
        let state = self.state.lock();
        let of_lane = state.lanes.get(lane).map_or(0, |waiting| waiting.bytes);
        state.bytes == 0
            || (state.bytes + size(call) <= self.bytes_max
                && (of_lane == 0 || of_lane + size(call) <= self.bytes_max / 2))
    }

    pub(super) fn push(&self, lane: Lane, job: Job) {
        let mut state = self.state.lock();
        state.bytes += size(&job.call);
        let waiting = state.lanes.entry(lane.clone()).or_default();
        let first = waiting.jobs.is_empty();
        waiting.bytes += size(&job.call);
        waiting.jobs.push_back(job);
        if first {
            state.turns.push_back(lane);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Waits for the next job; None once closed. Call [`Lanes::done`] after it.
    pub(super) fn take(&self) -> Option<Taken> {
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

    fn next(&self, state: &mut State) -> Option<Taken> {
        let is_slow = |lane: &Lane| state.paces.get(lane).is_some_and(|micros| *micros >= SLOW_MICROS);
        let may_run = |lane: &Lane| {
            state.lanes.get(lane).is_some_and(|waiting| waiting.running < self.running_max)
                && (!is_slow(lane) || state.slow_running < self.running_max)
        };
        let turn = state.turns.iter().position(may_run)?;
        let lane = state.turns.remove(turn)?;
        let slow = is_slow(&lane);
        let waiting = state.lanes.get_mut(&lane)?;
        let job = waiting.jobs.pop_front()?;
        waiting.running += 1;
        waiting.bytes -= size(&job.call);
        if !waiting.jobs.is_empty() {
            state.turns.push_back(lane.clone());
        }
        state.slow_running += usize::from(slow);
        state.bytes -= size(&job.call);
        Some(Taken { lane, job, slow })
    }

    /// A call is over; it was taken as slow or not, and took so long.
    pub(super) fn done(&self, lane: &Lane, slow: bool, micros: u64) {
        let mut state = self.state.lock();
        state.slow_running -= usize::from(slow);
        if let Some(waiting) = state.lanes.get_mut(lane) {
            waiting.running -= 1;
            if waiting.running == 0 && waiting.jobs.is_empty() {
                state.lanes.remove(lane);
            }
        }
        match state.paces.get_mut(lane) {
            Some(mean) => *mean = (*mean * (MEAN_OF - 1) + micros) / MEAN_OF,
            None => {
                if state.paces.len() >= PACES_MAX {
                    state.paces.pop_first();
                }
                state.paces.insert(lane.clone(), micros);
            }
        }
        drop(state);
        // Jobs of this lane, and of other slow ones, may have waited for nothing but this.
        self.arrived.notify_one();
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn is_open(&self) -> bool {
        !self.state.lock().closed
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
        let subject = Subject::of(&call);
        lanes.push(lane(keyspace), Job { ticket: Ticket(ticket), call, subject, is_probe: false });
    }

    fn next(lanes: &Lanes) -> Option<u64> {
        lanes.next(&mut lanes.state.lock()).map(|taken| taken.job.ticket.0)
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
        lanes.done(&lane("other"), false, 50);
        assert_eq!(next(&lanes), Some(11));
        lanes.done(&lane("other"), false, 50);
        assert_eq!(next(&lanes), None);
        lanes.done(&lane("loops"), false, 50);
        assert_eq!(next(&lanes), Some(2));
        assert_eq!(lanes.waiting_bytes(), 10);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_but_one_call_always_fits() {
        let lanes = Lanes::new(1, 15);
        let large = Call::Validate { key: KeyInfo::default(), value: Bytes::from(vec![0; 99]) };
        assert!(lanes.has_room(&lane("a"), &large));
        push(&lanes, "a", 1);
        assert!(!lanes.has_room(&lane("a"), &large));
        assert_eq!(next(&lanes), Some(1));
        assert!(lanes.has_room(&lane("a"), &large));
    }

    #[test]
    fn one_lane_leaves_half_of_the_bytes_to_the_others() {
        let lanes = Lanes::new(2, 100);
        let call = Call::Validate { key: KeyInfo::default(), value: Bytes::from(vec![0; 10]) };
        let mut pushed = 0;
        while lanes.has_room(&lane("flood"), &call) {
            push(&lanes, "flood", pushed);
            pushed += 1;
        }
        assert_eq!(pushed, 5);
        assert!(lanes.has_room(&lane("other"), &call));
    }

    #[test]
    fn slow_lanes_together_leave_a_worker_to_the_fast_ones_and_are_fast_again_when_they_are() {
        let lanes = Lanes::new(3, 1_000);
        // Each was slow once.
        for keyspace in ["slow a", "slow b", "slow c"] {
            push(&lanes, keyspace, 0);
            assert_eq!(next(&lanes), Some(0));
            lanes.done(&lane(keyspace), false, 1_000_000);
        }
        for (ticket, keyspace) in [(1, "slow a"), (2, "slow b"), (3, "slow c")] {
            push(&lanes, keyspace, ticket);
        }
        assert_eq!((next(&lanes), next(&lanes)), (Some(1), Some(2)));
        // The third worker waits for whoever is fast.
        assert_eq!(next(&lanes), None);
        push(&lanes, "fast", 10);
        assert_eq!(next(&lanes), Some(10));
        lanes.done(&lane("fast"), false, 50);
        assert_eq!(next(&lanes), None);
        lanes.done(&lane("slow a"), true, 50);
        assert_eq!(next(&lanes), Some(3));
    }

    #[test]
    fn a_lane_that_was_slow_is_fast_again_after_some_fast_calls() {
        let lanes = Lanes::new(2, 1_000);
        let run = |slow_expected: bool, micros: u64| {
            push(&lanes, "a", 1);
            let taken = lanes.next(&mut lanes.state.lock()).expect("a worker is free");
            assert_eq!(taken.slow, slow_expected);
            lanes.done(&taken.lane, taken.slow, micros);
        };
        run(false, 20_000);
        (0..6).for_each(|_| run(true, 0));
        run(false, 0);
    }

    #[test]
    fn closing_ends_the_workers() {
        let lanes = Lanes::new(1, 15);
        push(&lanes, "a", 1);
        lanes.close();
        assert!(lanes.take().is_none());
    }
}
