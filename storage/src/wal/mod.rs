//! The write-ahead log: what makes an acknowledged write durable before any table holds it.
//!
//! In: groups of writes. Out: checksummed frames in pre-allocated, recycled files, and the same writes again
//! after a crash. `format` knows the bytes, `writer` appends, `reader` replays. Deliberately absent: group
//! commit (`db::commit`) and the decision which logs are needed (`db::recovery`).

pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod writer;
