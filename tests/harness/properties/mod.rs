//! What must hold, one file each, apart from whatever makes it hold.
//!
//! ```text
//!   on_state   every state that a node writes or sends, once each     c3 c4 c5 c9 c11
//!   on_reply   the instant at which a client is told OK               c2 c5 c8 c9 c10 c13
//!   on_call    every question to a plugin                             c11 c15
//!   on_boot    a disk is opened again                                 c12
//!   healthy    faults have stopped                                    c14
//!   at_end     the cluster has come together                          c1 c4 c6 c7 c9 c10 c12 c16
//! ```
//!
//! In: the history, states, replies. Out: [`Violation`]s. Absent: the world that produces them,
//! and any repair.

pub mod c10_lww_maximum;
pub mod c11_plugins;
pub mod c12_disk;
pub mod c13_members;
pub mod c13_presence;
pub mod c14_progress;
pub mod c15_counter;
pub mod c15_exact;
pub mod c15_map;
pub mod c15_set;
pub mod c16_no_second_effect;
pub mod c1_no_lost_ack;
pub mod c2_durable_at_ack;
pub mod c3_dot_uniqueness;
pub mod c4_no_resurrection;
pub mod c5_no_false_concurrency;
pub mod c6_convergence;
pub mod c7_hints;
pub mod c8_freshness;
pub mod c9_no_phantom;
pub mod c9_nothing_late;

use crate::history::{History, KeyIndex};
use merganser_core::version::KeyState;

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `C1` to `C16`, or what the run died of.
    pub property: &'static str,
    /// What was seen, with names that the trace uses.
    pub text: String,
}

/// Holds, or not.
pub type Check = Result<(), Violation>;

/// A violation.
pub fn broken(property: &'static str, text: String) -> Check {
    Err(Violation { property, text })
}

/// All that must hold of any state of a key, wherever it was written or sent.
pub fn on_state(history: &mut History, key: KeyIndex, state: &KeyState) -> Check {
    c3_dot_uniqueness::on_state(history, key, state)?;
    c4_no_resurrection::on_state(history, state)?;
    c5_no_false_concurrency::on_state(history, state)?;
    c9_no_phantom::on_state(history, key, state)?;
    c9_nothing_late::on_state(history, state)?;
    c11_plugins::on_state(history, key, state)
}

/// A key once the cluster has healed: the states of all replicas, and their join.
#[derive(Debug)]
pub struct Final {
    /// Which.
    pub key: KeyIndex,
    /// Name of a node, what it holds.
    pub replicas: Vec<(String, KeyState)>,
    /// All of them.
    pub joined: KeyState,
}

/// All that must hold at the end.
pub fn at_end(history: &History, end: &Final) -> Check {
    c1_no_lost_ack::at_end(history, end)?;
    c4_no_resurrection::at_end(history, end)?;
    c6_convergence::at_end(history, end)?;
    c9_no_phantom::at_end(history, end)?;
    c10_lww_maximum::at_end(history, end)?;
    c16_no_second_effect::at_end(history, end)
}
