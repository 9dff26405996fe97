//! zstd, with contexts kept per thread, and the decision whether compressing pays.
//!
//! In: raw bytes. Out: compressed bytes, or the news that they are better left raw. Deliberately absent:
//! any framing; lengths and checksums belong to the format files.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

struct Packer {
    level: i32,
    compressor: Compressor<'static>,
    /// Large enough for any result so far; results are copied out, so that they hold no slack.
    scratch: Vec<u8>,
}

thread_local! {
    static PACKER: RefCell<Option<Packer>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A scratch buffer larger than this is not kept.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// Bytes above which a sample is tried before the whole.
const PROBE_ABOVE_BYTES: usize = 16 << 10;
/// The size of that sample.
const PROBE_BYTES: usize = 4 << 10;

/// Compresses when that saves at least an eighth; `None` means: store it raw.
pub(crate) fn compress(raw: &[u8], level: i32) -> Option<Vec<u8>> {
    if raw.len() > PROBE_ABOVE_BYTES {
        // From the middle: beginnings are often headers that compress better than the rest.
        let start = (raw.len() - PROBE_BYTES) / 2;
        attempt(&raw[start..start + PROBE_BYTES], level)?;
    }
    attempt(raw, level)
}

fn attempt(raw: &[u8], level: i32) -> Option<Vec<u8>> {
    let worth = raw.len() - raw.len() / 8;
    PACKER.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|packer| packer.level != level) {
            *slot = Some(Packer { level, compressor: Compressor::new(level).ok()?, scratch: Vec::new() });
        }
        let packer = slot.as_mut()?;
        let bound = zstd::zstd_safe::compress_bound(raw.len());
        if packer.scratch.len() < bound {
            packer.scratch.resize(bound, 0);
        }
        let len = packer.compressor.compress_to_buffer(raw, packer.scratch.as_mut_slice()).ok()?;
        let packed = (len < worth).then(|| packer.scratch[..len].to_vec());
        if packer.scratch.len() > SCRATCH_BYTES_MAX {
            packer.scratch = Vec::new();
        }
        packed
    })
}

/// Decompresses to exactly `raw_len` bytes; `None` when the input does not hold that.
///
/// Requires: the caller has bounded `raw_len`.
pub(crate) fn decompress(stored: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new().ok()?);
        }
        let out = slot.as_mut()?.decompress(stored, raw_len).ok()?;
        (out.len() == raw_len).then_some(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressible_bytes_come_back_and_noise_stays_raw() {
        let text = b"all the same, all the same. ".repeat(1000);
        let packed = compress(&text, -1).expect("text compresses");
        assert!(packed.len() < text.len() / 4);
        assert_eq!(decompress(&packed, text.len()), Some(text.clone()));
        assert_eq!(decompress(&packed, text.len() - 1), None);
        assert_eq!(decompress(&packed[..packed.len() / 2], text.len()), None);
        let mut state = 7u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        })
        .take(30_000)
        .collect();
        assert_eq!(compress(&noise, -1), None);
    }
}
