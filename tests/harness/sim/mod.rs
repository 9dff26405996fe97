//! A whole cluster in one thread, from one seed.
//!
//! ```text
//!   options ─▶ world: a queue of (time, sequence, event)
//!                │  machine   a production Node on a production Db on a simulated disk
//!                │  network   when a message arrives, if at all
//!                │  plugins   the shipped ones as native code, and stand-ins
//!                │  workload  clients
//!                └─ faults    what goes wrong, within what N and W survive
//!   run ─▶ report: the first violation, a hash of the trace, what was covered
//! ```
//!
//! Absent: real time, threads, and chance that does not come from the seed.

mod answers;
pub mod bug;
mod clients;
mod dice;
mod effects;
pub mod faults;
mod judging;
mod machine;
mod native;
mod network;
pub mod options;
pub mod plugins;
mod presence;
mod rot;
pub mod run;
pub mod script;
pub mod seeds;
mod settle;
pub mod trace;
mod trees;
mod workload;
pub mod world;

pub use options::Options;
pub use run::{Report, run};
pub(crate) use workload::PLACES;
