//! What the replicated types share: which operations a state contains ([`History`]), and a strict, canonical encoding
//! ([`Writer`], [`Reader`]).
//!
//! Deliberately absent: anything about counters, sets or maps. Those are in the crates of these names.

mod codec;
mod history;
mod ids;
mod spans;

pub use codec::{Reader, Writer};
pub use history::{History, IDS_MAX, Outcome, Tally};
pub use ids::{OpId, RETENTION_MS};
