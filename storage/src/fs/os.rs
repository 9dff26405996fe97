//! The real file system.
//!
//! In: the seam's calls. Out: Linux system calls through std and rustix. Deliberately absent: direct I/O,
//! memory maps, and any buffering of our own.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use super::{File, Fs, Lock};

/// Linux allows 1024 slices in one vectored write.
const SLICES_PER_CALL_MAX: usize = 1024;

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFs;

struct OsFile {
    file: fs::File,
}

struct OsLock {
    _file: fs::File,
}

impl Lock for OsLock {}

impl Fs for OsFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|ancestor| !is_there(ancestor)).collect();
        fs::create_dir_all(dir)?;
        // A new directory's name lives in its parent.
        for parent in missing.iter().filter_map(|made| made.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(OsFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(OsFile { file }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OsFile { file: fs::File::open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Names that are not UTF-8 are not ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }
}

/// The empty path is what `ancestors` of a relative path ends with: the current directory.
fn is_there(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.is_dir()
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let wanted = buffer.len();
        let slices = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(n) if n == wanted => Ok(Some(n)),
            // A short read is either the end of the file or a page that is not there: the blocking read tells.
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::NOSYS) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut offset = offset;
        let mut rest: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = rest.as_mut_slice();
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(SLICES_PER_CALL_MAX)];
            let written = match rustix::io::pwritev(&self.file, batch, offset) {
                Ok(0) if batch.iter().any(|slice| !slice.is_empty()) => {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(0) => {
                    let skipped = batch.len();
                    rest = &mut rest[skipped..];
                    continue;
                }
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len <= self.file.metadata()?.len() {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Not every file system can reserve room; a sparse file behaves the same, only later.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(len),
            Err(errno) => Err(errno.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_slices_than_one_call_takes_are_written_and_read_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = OsFs.create(&dir.path().join("f")).expect("a new file");
        file.allocate(1 << 16).expect("room");
        let parts: Vec<Vec<u8>> =
            (0..3000u32).map(|n| n.to_le_bytes()[..(n % 5).min(4) as usize].to_vec()).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_at(&slices, 100).expect("written");
        file.write_at(&[], 0).expect("nothing is written");
        let expected = parts.concat();
        let mut found = vec![0; expected.len()];
        assert_eq!(file.read_at(&mut found, 100).expect("read"), expected.len());
        assert_eq!(found, expected);
        // What was just written is in the page cache; a file system that cannot tell says "would block".
        found.fill(0);
        if file.try_read_at(&mut found, 100).expect("read").is_some() {
            assert_eq!(found, expected);
        }
        assert_eq!(
            file.try_read_at(&mut [0; 9], (1 << 16) - 3).expect("read"),
            None,
            "short reads are for the patient"
        );
    }

    #[test]
    fn directories_are_made_with_their_parents_and_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let deep = dir.path().join("a/b/c");
        for _ in 0..2 {
            OsFs.create_dir(&deep).expect("made or there");
        }
        assert!(deep.is_dir());
        fs::write(dir.path().join("file"), b"").expect("written");
        assert!(OsFs.create_dir(&dir.path().join("file/below")).is_err());
        assert_eq!(OsFs.list(dir.path()).expect("a list"), ["file"]);
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("LOCK");
        let held = OsFs.lock(&path).expect("free");
        assert_eq!(OsFs.lock(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(held);
        assert!(OsFs.lock(&path).is_ok());
    }
}
