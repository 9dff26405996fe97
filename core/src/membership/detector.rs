//! Is a member there? Phi-accrual (Hayashibara et al. 2004), in Cassandra's form, and a node's
//! doubt in itself (Lifeguard, Dadgar et al. 2018).
//!
//! ```text
//!   phi = time since the last heartbeat ÷ (mean spacing × ln 10)    suspicion: 1 ≙ wrong once in 10
//!   up ──phi ≥ suspect──▶ suspect ──phi ≥ down × multiplier──▶ down ──two heartbeats in a row──▶ up
//! ```
//!
//! A heartbeat that is lost makes spacings geometric, whose tail is the exponential one assumed
//! here; a normal one would call three lost heartbeats in a row death. And it needs divisions
//! only, so that every machine comes to the same bit.
//!
//! Time is the node's *own time* ([`OwnTime`]): it passes while the node looks, at most two periods
//! between two looks. A node that stood still, or whose clock jumped, has not seen its peers be
//! silent meanwhile; instead it doubts itself, and is slower to call others down for a while.
//! In: heartbeats, own time. Out: a state. Absent: who says that a heartbeat came.

use crate::id::Millis;

/// What a node takes a member to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// There.
    Up,
    /// Late, or its link is down: ask others first.
    Suspect,
    /// Not there.
    Down,
}

/// Spacings remembered of each member.
const SPACINGS: usize = 64;
/// A longer silence says nothing of the usual spacing.
const SPACING_PERIODS_MAX: u64 = 8;
/// Most that a node doubts itself.
const DOUBT_MAX: u32 = 8;
/// Own time passes at most so many periods between two looks.
const GAP_PERIODS_MAX: u64 = 2;

/// Time as this node has lived it.
#[derive(Debug, Default)]
pub(crate) struct OwnTime {
    lived_ms: u64,
    looked: Option<Millis>,
    doubt: u32,
    /// Nothing was late since the last tick.
    calm: bool,
}

impl OwnTime {
    /// The node looks at its clock; true if that was put back since.
    pub(crate) fn look(&mut self, now: Millis, period_ms: u64) -> bool {
        let Some(looked) = self.looked.replace(now) else { return false };
        if now < looked {
            self.doubt(1);
            return true;
        }
        let (gap, most) = (now.since(looked), period_ms.saturating_mul(GAP_PERIODS_MAX).max(1));
        if gap > most {
            self.doubt(u32::try_from(gap / most).unwrap_or(DOUBT_MAX));
        }
        self.lived_ms += gap.min(most);
        false
    }

    /// Takes the clock's word for how much time has passed: [`crate::mutant::Mutant::FlapsOnOwnPause`].
    pub(crate) fn trust_clock(&mut self, now: Millis) {
        self.lived_ms += self.looked.replace(now).map_or(0, |looked| now.since(looked));
    }

    fn doubt(&mut self, more: u32) {
        self.doubt = self.doubt.saturating_add(more).min(DOUBT_MAX);
        self.calm = false;
    }

    /// One of the node's own ticks: doubt goes where nothing was late since the last one.
    pub(crate) fn tick(&mut self) {
        if self.calm {
            self.doubt = self.doubt.saturating_sub(1);
        }
        self.calm = true;
    }

    /// Milliseconds lived since the boot.
    pub(crate) fn lived_ms(&self) -> u64 {
        self.lived_ms
    }

    /// By which patience is multiplied; 1 in good health.
    pub(crate) fn multiplier(&self) -> u32 {
        1 + self.doubt
    }
}

/// The thresholds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Shortest mean spacing assumed.
    pub(crate) period_ms: u64,
    /// See [`crate::config::Config`].
    pub(crate) phi_suspect: f64,
    /// See [`crate::config::Config`].
    pub(crate) phi_down: f64,
}

/// What is known of one member's heart.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    /// A ring of the latest spacings.
    spacings: Vec<u32>,
    next: usize,
    sum_ms: u64,
    /// When a heartbeat came last; the boot, if none has.
    last_ms: u64,
    heard: bool,
    state: Option<MemberState>,
    /// A first heartbeat since it was down.
    returning: bool,
}

impl Detector {
    /// A newer heartbeat has come, by whatever way.
    pub(crate) fn heard(&mut self, lived_ms: u64, patience: &Patience) {
        let spacing = lived_ms.saturating_sub(self.last_ms);
        let is_down = self.state() == MemberState::Down;
        let in_a_row =
            spacing as f64 / (self.mean_ms(patience) * std::f64::consts::LN_10) < patience.phi_suspect;
        if self.heard && !is_down {
            self.remember(spacing.min(patience.period_ms.saturating_mul(SPACING_PERIODS_MAX)));
        }
        self.last_ms = lived_ms;
        self.heard = true;
        if !is_down || (self.returning && in_a_row) {
            self.state = Some(MemberState::Up);
            self.returning = false;
        } else {
            self.returning = true;
        }
    }

    fn remember(&mut self, spacing_ms: u64) {
        let spacing = u32::try_from(spacing_ms).unwrap_or(u32::MAX);
        self.sum_ms += u64::from(spacing);
        if self.spacings.len() < SPACINGS {
            self.spacings.push(spacing);
        } else {
            let oldest = std::mem::replace(&mut self.spacings[self.next], spacing);
            self.sum_ms -= u64::from(oldest);
            self.next = (self.next + 1) % SPACINGS;
        }
    }

    /// Mean spacing; never below the period, or a burst of late ones would make it impatient.
    fn mean_ms(&self, patience: &Patience) -> f64 {
        let mean = match self.spacings.len() {
            0 => 0.0,
            count => self.sum_ms as f64 / count as f64,
        };
        mean.max(patience.period_ms as f64).max(1.0)
    }

    /// Suspicion now.
    pub(crate) fn phi(&self, lived_ms: u64, patience: &Patience) -> f64 {
        let silence = lived_ms.saturating_sub(self.last_ms) as f64;
        silence / (self.mean_ms(patience) * std::f64::consts::LN_10)
    }

    /// Looks again; true if it is down as of now.
    pub(crate) fn look(&mut self, lived_ms: u64, patience: &Patience, multiplier: u32) -> bool {
        if self.state() == MemberState::Down {
            return false;
        }
        let phi = self.phi(lived_ms, patience);
        if phi >= patience.phi_down * f64::from(multiplier) {
            // Its rhythm may be another when it comes back.
            *self = Detector { last_ms: self.last_ms, heard: self.heard, ..Detector::default() };
            self.state = Some(MemberState::Down);
            return true;
        }
        // A member that has not been heard of since this node's boot is no better than suspect.
        let late = !self.heard || phi >= patience.phi_suspect;
        self.state = Some(if late { MemberState::Suspect } else { MemberState::Up });
        false
    }

    /// As of the last look or heartbeat.
    pub(crate) fn state(&self) -> MemberState {
        self.state.unwrap_or(MemberState::Suspect)
    }

    /// In own time; None if never since the boot.
    pub(crate) fn last_heard_ms(&self) -> Option<u64> {
        self.heard.then_some(self.last_ms)
    }
}

#[cfg(test)]
mod detector_test;
