//! The seam: everything that we ask of a file system.
//!
//! In: paths, offsets, bytes. Out: `io::Result`. `os` is the real one; `sim` forgets what was not synced,
//! tears writes, flips bits and fails on request. Deliberately absent: memory maps, file positions, and any
//! promise that a name is durable before [`Fs::sync_dir`].

pub mod os;
pub mod sim;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// Held while a directory is locked; dropping it releases the lock.
pub trait Lock: Send + Sync {}

/// A file system.
pub trait Fs: Send + Sync {
    /// Makes a directory and its parents, durably. Succeeds when it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes an empty file for reading and writing; fails when the name exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Gives a file a new name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away. Open handles stay usable.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes all changes of names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that may still be written in a directory's file system.
    fn available_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes an exclusive advisory lock on a file, making it if needed. `WouldBlock` when someone has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// An open file. All offsets are explicit.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As `read_at`, but answers `None` instead of waiting for the device.
    fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    /// Writes all slices one after the other. On an error any part may have been written.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable. After an error nothing may be assumed.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves room and extends the length to at least `len`; new bytes read as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Reads exactly `len` bytes; a shorter file is `UnexpectedEof`.
pub(crate) fn read_exact_at(file: &dyn File, len: usize, offset: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(buffer)
}
