//! Every decision of the cluster, and no I/O.
pub mod id;
pub mod ring;
