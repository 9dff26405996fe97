//! Appends frames to one log file.
//!
//! In: staged writes. Out: bytes at increasing offsets, and two positions: written and durable. Deliberately
//! absent: any retry. A failed sync is reported once and the caller poisons the database.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{
    ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, LogHeader, Staged, payload_checksum,
};
use crate::error::Error;
use crate::fs::File;

pub(crate) struct LogWriter {
    file: Arc<dyn File>,
    path: PathBuf,
    number: u64,
    salt: u64,
    /// Where the next frame goes.
    written: u64,
    /// Everything below is durable.
    durable: u64,
}

impl LogWriter {
    /// Writes a header. Its sync is the caller's affair, as its name is.
    pub(crate) fn unsynced(file: Arc<dyn File>, path: &Path, header: &LogHeader) -> Result<LogWriter, Error> {
        file.write_at(&[IoSlice::new(&header.encode())], 0).map_err(|e| Error::io("write", path, e))?;
        Ok(LogWriter {
            file,
            path: path.to_owned(),
            number: header.number,
            salt: header.salt,
            written: HEADER_BYTES,
            durable: 0,
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The log's length: where the next frame would go.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        self.durable < self.written
    }

    /// Writes one frame in one vectored write. On an error the position does not move, so that the next
    /// frame overwrites whatever part got there.
    pub(crate) fn append(&mut self, staged: &Staged, sequence_first: u64) -> Result<u64, Error> {
        let payload_len = staged.payload_len();
        assert!(payload_len <= super::format::PAYLOAD_BYTES_MAX, "writes are bounded at the door");
        let checksum = payload_checksum(self.salt, staged.parts());
        self.write_frame(staged.parts(), payload_len, staged.writes, sequence_first, checksum)
    }

    /// Copies a frame's payload from another log.
    pub(crate) fn append_payload(
        &mut self,
        payload: &[u8],
        writes: u32,
        sequence_first: u64,
    ) -> Result<u64, Error> {
        let checksum = payload_checksum(self.salt, [payload].into_iter());
        self.write_frame([payload].into_iter(), payload.len(), writes, sequence_first, checksum)
    }

    fn write_frame<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
        payload_len: usize,
        writes: u32,
        sequence_first: u64,
        payload_checksum: u64,
    ) -> Result<u64, Error> {
        let header = FrameHeader {
            payload_len: payload_len as u32,
            writes,
            sequence_first,
            durable_below: self.durable,
            payload_checksum,
        };
        let header_bytes = header.encode(self.number, self.salt, self.written);
        let padding = header.frame_len() as usize - FRAME_HEADER_BYTES - payload_len;
        let mut slices = vec![IoSlice::new(&header_bytes)];
        for part in parts.filter(|part| !part.is_empty()) {
            slices.push(IoSlice::new(part));
        }
        slices.push(IoSlice::new(&[0; ALIGNMENT as usize][..padding]));
        self.file.write_at(&slices, self.written).map_err(|error| self.refused("write", error))?;
        self.written += header.frame_len();
        assert_eq!(self.written % ALIGNMENT, 0);
        Ok(header.frame_len())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| self.refused("sync", error))?;
        self.durable = self.written;
        Ok(())
    }

    fn refused(&self, op: &'static str, error: io::Error) -> Error {
        Error::io(op, &self.path, error)
    }
}
