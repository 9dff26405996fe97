//! How long things may be, checked at the door and again when decoding.
//!
//! In: operations. Out: `Error::TooLarge`. Deliberately absent: the product's own, tighter limits.

use crate::error::Error;
use crate::record::Op;

/// Longest key.
pub const KEY_BYTES_MAX: usize = 32 << 10;
/// Longest head.
pub const HEAD_BYTES_MAX: usize = 16 << 20;
/// Longest body.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Most bytes in one atomic write.
pub const WRITE_BYTES_MAX: usize = 128 << 20;

/// Refuses what the formats do not hold.
pub(crate) fn check(ops: &[Op]) -> Result<usize, Error> {
    let within = |what, len: usize, max: usize| {
        if len > max { Err(Error::TooLarge { what, len: len as u64, max: max as u64 }) } else { Ok(()) }
    };
    let mut total = 0;
    for op in ops {
        within("key", op.key().len(), KEY_BYTES_MAX)?;
        if let Op::Put { record, .. } | Op::Merge { record, .. } = op {
            within("head", record.head.len(), HEAD_BYTES_MAX)?;
            within("body", record.body.len(), BODY_BYTES_MAX)?;
        }
        total += op.size_bytes() + 16;
        within("write", total, WRITE_BYTES_MAX)?;
    }
    Ok(total)
}
