//! What the replicated types share: which operations a state contains ([`History`]), and a strict, canonical encoding
//! ([`Writer`], [`Reader`]).
//!
//! Deliberately absent: anything about counters, sets or maps. Those are in the crates of these names.

mod codec;
mod history;

pub use codec::{Reader, Writer};
pub use history::{History, Outcome, Tally, WINDOW};
