//! Reads a log back and tells a torn tail from damage.
//!
//! In: the whole bytes of a log file. Out: its sound frames in order, and how it ends. Deliberately absent:
//! the choice of logs to replay, and any repair.

use std::path::Path;

use bytes::Bytes;

use super::format::{
    ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, LogHeader, PAYLOAD_BYTES_MAX, decode_payload,
    looks_like_frame, payload_checksum,
};
use crate::error::Error;
use crate::fragment::Fragment;

/// One sound frame.
pub(crate) struct Frame {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    pub(crate) payload: Bytes,
}

impl Frame {
    /// The writes in it. The checksum held, so bytes that do not decode are damage of another kind.
    pub(crate) fn writes(&self, path: &Path) -> Result<Vec<Vec<(Bytes, Fragment)>>, Error> {
        decode_payload(&self.payload, self.header.writes).ok_or_else(|| {
            Error::corruption(path, self.offset, "a frame with a good checksum does not decode")
        })
    }
}

/// A log as far as it is sound.
pub(crate) struct LogContents {
    pub(crate) frames: Vec<Frame>,
    /// Where the sound frames end.
    pub(crate) end: u64,
    /// Bytes after that which belonged to writes that were never durable.
    pub(crate) dropped_tail_bytes: u64,
}

/// Reads all frames. `sealed_len` is the log's length as its successor knows it: below that, everything must
/// be sound; without it, below what frames and header claim to be durable.
pub(crate) fn read_frames(
    bytes: &Bytes,
    header: &LogHeader,
    path: &Path,
    sealed_len: Option<u64>,
) -> Result<LogContents, Error> {
    let mut frames = Vec::new();
    let mut offset = HEADER_BYTES;
    let mut durable = sealed_len.unwrap_or(0).max(header.durable_len);
    while sealed_len.is_none_or(|len| offset < len)
        && let Some(frame) = frame_at(bytes, header, offset)
    {
        offset += frame.header.frame_len();
        durable = durable.max(frame.header.durable_below);
        frames.push(frame);
    }
    let mut tail_end = tail_claim(bytes, header, offset);
    if sealed_len.is_none() {
        for (at, later) in later_headers(bytes, header, offset) {
            durable = durable.max(later.durable_below);
            tail_end = tail_end.max(at + later.frame_len());
        }
    }
    if offset < durable {
        let what = format!("a damaged log frame, though the log was durable up to {durable}");
        return Err(Error::corruption(path, offset, what));
    }
    let dropped_tail_bytes =
        if sealed_len.is_some() { 0 } else { tail_end.min(bytes.len() as u64).saturating_sub(offset) };
    Ok(LogContents { frames, end: offset, dropped_tail_bytes })
}

/// The frame at an offset, if header and payload are sound.
pub(crate) fn frame_at(bytes: &Bytes, header: &LogHeader, offset: u64) -> Option<Frame> {
    let here = bytes.get(offset as usize..)?;
    let frame = FrameHeader::decode(here, header.number, header.salt, offset)?;
    let len = frame.payload_len as usize;
    // With its padding: a frame that was cut anywhere was reported as refused.
    if len > PAYLOAD_BYTES_MAX || (here.len() as u64) < frame.frame_len() {
        return None;
    }
    let start = offset as usize + FRAME_HEADER_BYTES;
    let payload = bytes.slice(start..start + len);
    if payload_checksum(header.salt, [payload.as_ref()].into_iter()) != frame.payload_checksum {
        return None;
    }
    Some(Frame { offset, header: frame, payload })
}

/// Sound frame headers after an offset, wherever they are: evidence of what was durable, never data.
pub(crate) fn later_headers<'a>(
    bytes: &'a Bytes,
    header: &'a LogHeader,
    after: u64,
) -> impl Iterator<Item = (u64, FrameHeader)> + 'a {
    let first = after + ALIGNMENT;
    (first..bytes.len() as u64).step_by(ALIGNMENT as usize).filter_map(move |at| {
        let frame = FrameHeader::decode(&bytes[at as usize..], header.number, header.salt, at)?;
        Some((at, frame))
    })
}

/// How far an unsound frame at this offset claims to reach, if it looks like one of ours at all.
fn tail_claim(bytes: &Bytes, header: &LogHeader, offset: u64) -> u64 {
    let Some(here) = bytes.get(offset as usize..) else { return offset };
    if !looks_like_frame(here, header.number) {
        return offset;
    }
    let claimed =
        FrameHeader::decode(here, header.number, header.salt, offset).map(|frame| frame.frame_len());
    offset + claimed.unwrap_or(FRAME_HEADER_BYTES as u64)
}
