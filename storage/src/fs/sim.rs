//! A simulated disk: it forgets what was not synced, tears writes, flips bits, and fails on request.
//!
//! In: the seam's calls, faults to inject, a seed for every crash. Out: the same bytes for the same seeds.
//! Each file keeps its durable image beside the live one, with the writes between them; names pend until
//! their directory is synced. Deliberately absent: time (a slow disk is a number that the caller reads) and
//! directories as objects (making one is taken as durable).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{File, Fs, Lock};

#[path = "sim_disk.rs"]
mod disk;

use disk::{Disk, NameChange};
pub use disk::{Fault, FaultEffect, OpKind};

/// A disk in memory. Clones share it; [`SimFs::crash_image`] makes a separate one.
#[derive(Clone, Default)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    /// Handles from before a crash are dead.
    generation: u64,
    path: PathBuf,
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    generation: u64,
}

impl SimFs {
    /// An empty disk without faults.
    pub fn new() -> SimFs {
        SimFs::default()
    }

    /// Loses power: what was not synced survives as the seed decides (nothing, a prefix, an arbitrary
    /// subset of 4 KiB sectors, all with one torn sector, everything). Handles and locks from before are
    /// dead, faults are cleared.
    pub fn crash(&self, seed: u64) {
        self.disk.lock().crash(seed);
    }

    /// What the disk would be after a crash, as a disk of its own; this one goes on.
    pub fn crash_image(&self, seed: u64) -> SimFs {
        let mut image = self.disk.lock().clone();
        image.crash(seed);
        SimFs { disk: Arc::new(Mutex::new(image)) }
    }

    /// Adds a fault. Several may be active.
    pub fn inject(&self, fault: Fault) {
        self.disk.lock().faults.push(fault);
    }

    /// Removes all faults, the kill point and the capacity limit.
    pub fn heal(&self) {
        let mut disk = self.disk.lock();
        disk.faults.clear();
        disk.kill_at = None;
        disk.capacity_bytes = None;
    }

    /// From the I/O with this index on, nothing happens any more: the process is dead. See [`SimFs::ops`].
    pub fn kill_at(&self, op_index: u64) {
        self.disk.lock().kill_at = Some(op_index);
    }

    /// I/O operations seen so far.
    pub fn ops(&self) -> u64 {
        self.disk.lock().ops
    }

    /// Successful data syncs so far.
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }

    /// Time that injected slowness would have cost, in microseconds.
    pub fn slow_us(&self) -> u64 {
        self.disk.lock().slow_us
    }

    /// Limits the bytes of all files together; growing beyond is `StorageFull`.
    pub fn set_capacity_bytes(&self, capacity: Option<u64>) {
        self.disk.lock().capacity_bytes = capacity;
    }

    /// Every n-th read that must not wait finds its page missing; 0 means none does.
    pub fn set_cold_reads(&self, one_in: u64) {
        self.disk.lock().cold_one_in = one_in;
    }

    /// Flips one bit of a stored file, in the durable and the live image.
    pub fn flip_bit(&self, path: &Path, byte_offset: u64, bit: u8) -> io::Result<()> {
        self.disk.lock().flip_bit(path, byte_offset, bit)
    }

    /// All files with their lengths, in order of path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let disk = self.disk.lock();
        disk.names.iter().map(|(path, inode)| (path.clone(), disk.inodes[inode].live.len)).collect()
    }

    /// The live bytes of a file, for tests; not an I/O.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = &disk.inodes[disk.names.get(path)?];
        let mut bytes = vec![0; inode.live.len as usize];
        inode.live.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Puts a file on the disk durably, for tests; not an I/O.
    pub fn install(&self, path: &Path, bytes: &[u8]) {
        self.disk.lock().install(path, bytes);
    }

    fn handle(&self, disk: &Disk, path: &Path, inode: u64) -> Arc<dyn File> {
        Arc::new(SimFile {
            disk: self.disk.clone(),
            inode,
            generation: disk.generation,
            path: path.to_owned(),
        })
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Fs for SimFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.lock().begin(OpKind::Name, dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Name, path)?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = disk.new_inode();
        disk.change_name(NameChange::Add { path: path.to_owned(), inode });
        Ok(self.handle(&disk, path, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Open, path)?;
        let inode = *disk.names.get(path).ok_or_else(missing)?;
        Ok(self.handle(&disk, path, inode))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Name, from)?;
        let inode = *disk.names.get(from).ok_or_else(missing)?;
        disk.change_name(NameChange::Move { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Name, from)?;
        let inode = *disk.names.get(from).ok_or_else(missing)?;
        if disk.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.change_name(NameChange::Add { path: to.to_owned(), inode });
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Name, path)?;
        let inode = *disk.names.get(path).ok_or_else(missing)?;
        disk.change_name(NameChange::Remove { path: path.to_owned(), inode });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Open, dir)?;
        let in_dir = disk.names.keys().filter(|path| path.parent() == Some(dir));
        let names: BTreeSet<String> =
            in_dir.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        Ok(names.into_iter().collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::SyncDir, dir)?;
        disk.sync_dir(dir);
        Ok(())
    }

    /// Not counted among the I/Os.
    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.disk.lock().room_left())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut disk = self.disk.lock();
        if !disk.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.disk.clone(), path: path.to_owned(), generation: disk.generation }))
    }
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.generation == self.generation {
            disk.locks.remove(&self.path);
        }
    }
}

impl SimFile {
    fn begin(&self, disk: &mut Disk, kind: OpKind) -> io::Result<()> {
        if disk.generation != self.generation {
            return Err(io::Error::other("the handle is from before a crash"));
        }
        disk.begin(kind, &self.path)
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        self.begin(&mut disk, OpKind::Read)?;
        Ok(disk.inodes[&self.inode].live.read(buffer, offset))
    }

    fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let mut disk = self.disk.lock();
        self.begin(&mut disk, OpKind::Read)?;
        if disk.page_is_cold() {
            return Ok(None);
        }
        Ok(Some(disk.inodes[&self.inode].live.read(buffer, offset)))
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        let begun = self.begin(&mut disk, OpKind::Write);
        if let Err(error) = begun {
            // A write that dies may have reached the page cache in part.
            if disk.generation == self.generation && disk.killed_just_now() {
                disk.write_part(self.inode, bytes, offset);
            }
            return Err(error);
        }
        disk.write(self.inode, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let begun = self.begin(&mut disk, OpKind::Sync);
        if disk.generation == self.generation {
            match begun {
                Ok(()) => disk.sync(self.inode),
                // The pages are clean now, but they never reached the device. (A killed process is no failed sync.)
                Err(_) if !disk.killed() => disk.lose_pending(self.inode),
                Err(_) => {}
            }
        }
        begun
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.begin(&mut disk, OpKind::Write)?;
        disk.allocate(self.inode, len)
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = self.disk.lock();
        self.begin(&mut disk, OpKind::Open)?;
        Ok(disk.inodes[&self.inode].live.len)
    }
}

/// Names by path; ordered, so that every walk over them is the same.
type Names = BTreeMap<PathBuf, u64>;
