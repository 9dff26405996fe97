//! What a key holds: causality and values.
//!
//! ```text
//!   causal keyspaces    { seen: dots,  siblings: dot → version }      siblings
//!   lww keyspaces       the version with the highest (stamp, dot)        register
//!   lattice keyspaces   { removed: dots,  claim → joined value … }    fragments
//! ```
//!
//! Explicit dots, as in a dotted version vector set (Almeida, Baquero, Gonçalves, Preguiça,
//! Fonte, DAIS 2014), in the form of a multi-value register (semantics §3). In: states from
//! storage, peers, clients. Out: their join. Absent: quorums, plugins, anything that waits.

mod antichain;
pub mod clock;
pub mod codec;
pub mod context;
pub mod done;
mod ending;
pub mod expiry;
mod fill;
pub mod fragments;
pub mod register;
pub mod siblings;
mod stamp;
mod standing;
mod state;

pub use clock::{DotSet, Span};
pub use context::{Context, Sealer};
pub use done::{Done, DoneSet};
pub(crate) use fill::{filled, squeezed};
pub use fragments::{Fragment, Fragments};
pub use register::Register;
pub use siblings::Siblings;
pub use stamp::{Clock, SKEW_MS_MAX, Stamp, too_far_ahead};
pub use standing::{Counts, REASON_BYTES_MAX, Standing};
pub use state::{Content, Digest, KeyState, Kind, Receipt, Version};
