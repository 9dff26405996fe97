//! The manifest file: checksummed edits, appended and synced one by one, and the pointer to the one in use.
//! `docs/formats.md` draws its bytes; this file alone knows them.
//!
//! In: edits to append; a directory to read. Out: durable edits; the levels they add up to. A bad edit that
//! good ones follow is damage, since each edit is durable before the next is written; a bad last one is a
//! torn tail. (If it was no torn tail but damage, the log or table that it vouched for is missing, and the
//! open says so.) Deliberately absent: opening tables.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Levels;
use super::edit::{self, Change};
use crate::error::Error;
use crate::fs::{File, Fs, read_exact_at};
use crate::names;

pub(crate) const MAGIC: [u8; 8] = *b"MRGN-MAN";
/// Version 2 added excisions.
pub(crate) const VERSION: u32 = 2;
pub(crate) const HEADER_BYTES: u64 = 24;
const FRAME_MAGIC: u32 = 0x4d52_4745;
const FRAME_HEADER_BYTES: usize = 16;
const ALIGNMENT: u64 = 8;
/// A manifest is never long before it is so many times its snapshot: each byte of snapshots is paid by edits.
const LONG_FACTOR: u64 = 4;
/// No edit is longer; the longest is the snapshot, some hundred bytes for each table.
const EDIT_BYTES_MAX: usize = 1 << 30;

fn header(number: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&number.to_le_bytes());
    out
}

fn frame(payload: &[u8], number: u64, offset: u64) -> Vec<u8> {
    let mut out = FRAME_MAGIC.to_le_bytes().to_vec();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&xxh3_64_with_seed(payload, number ^ offset).to_le_bytes());
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

/// The payload of a sound frame at an offset, and where the next one would be.
pub(crate) fn frame_at(bytes: &Bytes, number: u64, offset: u64) -> Option<(Bytes, u64)> {
    let here = bytes.get(offset as usize..)?;
    let (head, rest) = here.split_at_checked(FRAME_HEADER_BYTES)?;
    if head[..4] != FRAME_MAGIC.to_le_bytes() {
        return None;
    }
    let len = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
    let payload = rest.get(..len)?;
    if xxh3_64_with_seed(payload, number ^ offset).to_le_bytes() != head[8..] {
        return None;
    }
    let next = (offset + (FRAME_HEADER_BYTES + len) as u64).next_multiple_of(ALIGNMENT);
    // With its padding: a frame that was cut anywhere was reported as refused.
    (next <= bytes.len() as u64).then(|| (bytes.slice_ref(payload), next))
}

/// Checks the header of a manifest.
pub(crate) fn check_header(bytes: &[u8], number: u64, path: &Path) -> Result<(), Error> {
    if bytes.len() < HEADER_BYTES as usize || bytes[..8] != MAGIC || bytes[16..24] != number.to_le_bytes() {
        return Err(Error::corruption(path, 0, "not a manifest, or another one's"));
    }
    match u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) {
        1..=VERSION => Ok(()),
        found => Err(Error::UnsupportedVersion { file: path.to_owned(), found, supported: VERSION }),
    }
}

/// Where sound frames begin after an offset, wherever: proof that what is before them is damage.
pub(crate) fn later_frame(bytes: &Bytes, number: u64, after: u64) -> Option<u64> {
    let mut offsets = (after + 1..bytes.len() as u64).filter(|at| at % ALIGNMENT == 0);
    offsets.find(|at| frame_at(bytes, number, *at).is_some())
}

/// Appends edits. The file grows by some hundred bytes for each flush, and is replaced by a snapshot at the next open or
/// once it is [long](ManifestWriter::is_long).
pub(crate) struct ManifestWriter {
    file: Arc<dyn File>,
    path: PathBuf,
    number: u64,
    written: u64,
    snapshot_bytes: u64,
}

impl ManifestWriter {
    /// Writes a manifest that holds a snapshot, makes it durable under its name, and points to it.
    pub(crate) fn create(
        fs: &dyn Fs,
        dir: &Path,
        number: u64,
        levels: &Levels,
    ) -> Result<ManifestWriter, Error> {
        let path = dir.join(names::manifest_name(number));
        let made = ManifestWriter::write_snapshot(fs, dir, number, levels, &path);
        made.and_then(|writer| point_to(fs, dir, number).map(|()| writer)).inspect_err(|_| {
            // A full disk must not get fuller with each attempt.
            if !matches!(current(fs, dir), Ok(Some(pointed)) if pointed == number) {
                let _ = fs.unlink(&dir.join(names::CURRENT_TEMPORARY));
                let _ = fs.unlink(&path);
            }
        })
    }

    fn write_snapshot(
        fs: &dyn Fs,
        dir: &Path,
        number: u64,
        levels: &Levels,
        path: &Path,
    ) -> Result<ManifestWriter, Error> {
        let path = path.to_owned();
        let file = fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        file.write_at(&[IoSlice::new(&header(number))], 0).map_err(|e| Error::io("write", &path, e))?;
        let mut writer = ManifestWriter { file, path, number, written: HEADER_BYTES, snapshot_bytes: 0 };
        writer.append(&levels.snapshot())?;
        writer.snapshot_bytes = writer.written;
        fs.sync_dir(dir).map_err(|e| Error::failed_sync(dir, e))?;
        Ok(writer)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a snapshot in its place would be worth the writing.
    pub(crate) fn is_long(&self, bytes_max: u64) -> bool {
        self.written > bytes_max.max(LONG_FACTOR * self.snapshot_bytes)
    }

    /// Appends an edit and makes it durable. When the disk is full nothing has changed: the next edit
    /// overwrites what got there. After any other failure it is unknown whether the edit counts.
    pub(crate) fn append(&mut self, changes: &[Change]) -> Result<(), Error> {
        let payload = edit::encode(changes);
        assert!(payload.len() <= EDIT_BYTES_MAX, "an edit names a bounded number of tables");
        let frame = frame(&payload, self.number, self.written);
        let written = self.file.write_at(&[IoSlice::new(&frame)], self.written);
        written.map_err(|error| match Error::io("write", &self.path, error) {
            Error::Io { source, .. } => Error::failed_write(&self.path, &source),
            full => full,
        })?;
        self.file.sync_data().map_err(|e| Error::failed_sync(&self.path, e))?;
        self.written += frame.len() as u64;
        Ok(())
    }
}

/// Points the database to a manifest, durably.
fn point_to(fs: &dyn Fs, dir: &Path, number: u64) -> Result<(), Error> {
    let (temporary, current) = (dir.join(names::CURRENT_TEMPORARY), dir.join(names::CURRENT));
    match fs.unlink(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &temporary, error));
        }
        _ => {}
    }
    let file = fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    let text = pointer(number);
    file.write_at(&[IoSlice::new(text.as_bytes())], 0).map_err(|e| Error::io("write", &temporary, e))?;
    file.sync_data().map_err(|e| Error::failed_sync(&temporary, e))?;
    fs.rename(&temporary, &current).map_err(|e| Error::io("rename", &temporary, e))?;
    fs.sync_dir(dir).map_err(|e| Error::failed_sync(dir, e))
}

/// The pointer's text: the manifest's name and a checksum of it.
fn pointer(number: u64) -> String {
    let name = names::manifest_name(number);
    format!("{name} {:016x}\n", xxh3_64_with_seed(name.as_bytes(), 0))
}

/// What reading a manifest found.
pub(crate) struct ManifestContents {
    pub(crate) levels: Levels,
    pub(crate) edits: usize,
    pub(crate) dropped_tail_bytes: u64,
}

/// Reads the pointer; `None` when there is none, as in a new directory.
pub(crate) fn current(fs: &dyn Fs, dir: &Path) -> Result<Option<u64>, Error> {
    let path = dir.join(names::CURRENT);
    let file = match fs.open_read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &path, error)),
    };
    let read = || read_exact_at(file.as_ref(), file.len()?.min(256) as usize, 0);
    let text = read().map_err(|e| Error::io("read", &path, e))?;
    let damaged = || Error::corruption(&path, 0, "the pointer to the manifest is damaged");
    let name = std::str::from_utf8(&text).ok().and_then(|text| text.split(' ').next()).ok_or_else(damaged)?;
    match names::file_kind(name) {
        Some(names::FileKind::Manifest(number)) if pointer(number).as_bytes() == text => Ok(Some(number)),
        _ => Err(damaged()),
    }
}

/// Reads a manifest and adds up its edits.
pub(crate) fn load(fs: &dyn Fs, dir: &Path, number: u64) -> Result<ManifestContents, Error> {
    let path = dir.join(names::manifest_name(number));
    let read = || {
        let file = fs.open_read(&path)?;
        read_exact_at(file.as_ref(), file.len()? as usize, 0)
    };
    let bytes: Bytes = match read() {
        Ok(bytes) => bytes.into(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corruption(&path, 0, "the manifest is missing"));
        }
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    check_header(&bytes, number, &path)?;
    let mut contents = ManifestContents { levels: Levels::default(), edits: 0, dropped_tail_bytes: 0 };
    let mut offset = HEADER_BYTES;
    while let Some((payload, next)) = frame_at(&bytes, number, offset) {
        let changes = edit::decode(&payload)
            .ok_or_else(|| Error::corruption(&path, offset, "an edit that does not decode"))?;
        contents.levels.apply(&changes).map_err(|what| Error::corruption(&path, offset, what))?;
        contents.edits += 1;
        offset = next;
    }
    if contents.edits == 0 || later_frame(&bytes, number, offset).is_some() {
        // The snapshot at the start was durable before anything pointed here.
        return Err(Error::corruption(&path, offset, "a damaged edit"));
    }
    contents.dropped_tail_bytes = bytes.len() as u64 - offset.min(bytes.len() as u64);
    Ok(contents)
}
