//! What machines lost, and what that excuses.
//!
//! With `sync`, an acknowledged write is on W disks: any number of machines may lose power, and one disk at
//! a time may be lost for good, the next only once all replicas were seen to be equal again. With
//! `interval` and `none` it is in W page caches: one machine alone may lose power, but W of them can
//! lose it together.
//!
//! In: losses as they happen. Out: whether what is missing may be missing. Absent: who causes them
//! (`sim/faults.rs`).

use crate::history::Key;
use merganser_core::event::Durability;
use std::collections::BTreeSet;

/// All losses of a run.
#[derive(Debug, Default)]
pub struct Losses {
    /// When, on which machine: what was not synced is gone.
    power: Vec<(u64, usize)>,
    /// When, on which machine: everything is gone, or all that is newer than an old copy.
    disks: Vec<(u64, usize)>,
    /// When a process stopped, whatever its machine lost.
    stops: Vec<u64>,
    /// All replicas were equal, after the last disk that was lost.
    repaired_at_us: Option<u64>,
}

impl Losses {
    /// A process has stopped.
    pub fn stopped(&mut self, at_us: u64) {
        self.stops.push(at_us);
    }

    /// A machine has lost power.
    pub fn power_lost(&mut self, at_us: u64, node: usize) {
        self.power.push((at_us, node));
    }

    /// A disk is lost, or is as it was long ago.
    pub fn disk_lost(&mut self, at_us: u64, node: usize) {
        self.disks.push((at_us, node));
        self.repaired_at_us = None;
    }

    /// All replicas of all keys are equal.
    pub fn repaired(&mut self, at_us: u64) {
        self.repaired_at_us = Some(at_us);
    }

    /// How many disks were lost.
    pub fn disks(&self) -> usize {
        self.disks.len()
    }

    /// A copy that was counted on may be gone, and was not made up for yet.
    pub fn is_short_of_a_copy(&self) -> bool {
        !self.disks.is_empty() && self.repaired_at_us.is_none()
    }

    /// Whether a write that began then, acknowledged by so many, may be lost.
    pub fn excuse(&self, key: &Key, begun_us: u64, needed: u32) -> bool {
        let since = |losses: &[(u64, usize)]| -> BTreeSet<usize> {
            losses.iter().filter(|(at, _)| *at >= begun_us).map(|(_, node)| *node).collect()
        };
        let mut gone = since(&self.disks);
        if key.durability == Durability::Sync {
            return needed < 2 && !gone.is_empty();
        }
        gone.extend(since(&self.power));
        gone.len() >= needed as usize
    }

    /// Whether a read may miss what was acknowledged to a request that began at `written_us`: copies of
    /// it are gone, and others have not taken their place.
    pub fn blur(&self, key: &Key, written_us: u64, read_us: u64) -> bool {
        let lost = self.is_short_of_a_copy() || self.repaired_at_us.is_some_and(|at| read_us <= at);
        let unsynced = key.durability != Durability::Sync && self.any_power_loss_since(written_us);
        lost || unsynced
    }

    /// Whether a machine has lost power since.
    pub fn any_power_loss_since(&self, at_us: u64) -> bool {
        self.power.iter().chain(&self.disks).any(|(at, _)| *at >= at_us)
    }

    /// Whether a process has stopped since.
    pub fn any_stop_since(&self, at_us: u64) -> bool {
        self.stops.iter().any(|at| *at >= at_us)
    }
}
