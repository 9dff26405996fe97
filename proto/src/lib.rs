//! What is said on the wire: the messages and services of `merganser.v1` (for applications) and
//! `merganser.internal.v1` (between nodes), generated from the `.proto` files beside this crate.
//!
//! Byte fields are `Bytes`, so that values are not copied when a message is decoded. Absent on
//! purpose: any conversion to or from the types of other rooms; that is `server` and `client`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

/// The public API.
pub mod v1 {
    tonic::include_proto!("merganser.v1");
}

/// The protocol between nodes.
pub mod internal {
    pub mod v1 {
        tonic::include_proto!("merganser.internal.v1");
    }
}

/// The encoded descriptors of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
