//! The state of the simulated disk and what a crash makes of it.
//!
//! In: writes, syncs, changes of names, a crash with a seed. Out: two images of each file, live and durable.
//! Deliberately absent: the seam itself (`sim.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::Names;

/// What the device writes at once.
const SECTOR_BYTES: u64 = 4096;
/// What it writes even when power goes.
const ATOM_BYTES: u64 = 512;

/// Kinds of I/O that a fault can be aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// Opening, listing, asking for a length.
    Open,
    /// Reading bytes.
    Read,
    /// Writing or allocating.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Creating, renaming, linking, unlinking.
    Name,
}

/// What a fault does to the operation it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEffect {
    /// The operation fails with EIO. A failed sync leaves its pages clean but lost.
    Io,
    /// The operation fails with ENOSPC.
    NoSpace,
    /// The operation succeeds, late: adds to `SimFs::slow_us`.
    SlowUs(u64),
}

/// A fault: the first `skip` matching operations are spared, the next `times` are hit.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which kind of I/O.
    pub kind: OpKind,
    /// Only paths that contain this; `None` means all.
    pub path_contains: Option<String>,
    /// Matching operations to let pass first.
    pub skip: u64,
    /// How many to hit after that.
    pub times: u64,
    /// What happens to them.
    pub effect: FaultEffect,
}

impl Fault {
    /// A fault that hits the next operation of a kind, once.
    pub fn next(kind: OpKind, effect: FaultEffect) -> Fault {
        Fault { kind, path_contains: None, skip: 0, times: 1, effect }
    }
}

/// Bytes with a length that may exceed them: the rest reads as zeros.
#[derive(Clone, Default)]
pub(super) struct Image {
    bytes: Vec<u8>,
    pub(super) len: u64,
}

impl Image {
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        if offset >= self.len {
            return 0;
        }
        let wanted = buffer.len().min((self.len - offset) as usize);
        let start = (offset as usize).min(self.bytes.len());
        let held = &self.bytes[start..(start + wanted).min(self.bytes.len())];
        buffer[..held.len()].copy_from_slice(held);
        buffer[held.len()..wanted].fill(0);
        wanted
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset as usize + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset as usize..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) live: Image,
    durable: Image,
    /// Writes since the last sync, in order.
    pending: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Add { path: PathBuf, inode: u64 },
    Remove { path: PathBuf, inode: u64 },
    Move { from: PathBuf, to: PathBuf, inode: u64 },
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            NameChange::Add { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Remove { path, inode } => {
                if names.get(path) == Some(inode) {
                    names.remove(path);
                }
            }
            NameChange::Move { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            NameChange::Add { path, .. } | NameChange::Remove { path, .. } => path.parent() == Some(dir),
            NameChange::Move { from, to, .. } => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) names: Names,
    durable_names: Names,
    pending_names: Vec<NameChange>,
    next_inode: u64,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) generation: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) kill_at: Option<u64>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) cold_one_in: u64,
    cold_count: u64,
    pub(super) ops: u64,
    pub(super) syncs: u64,
    pub(super) slow_us: u64,
}

impl Disk {
    /// Counts an I/O and says whether it may go on.
    pub(super) fn begin(&mut self, kind: OpKind, path: &Path) -> io::Result<()> {
        let index = self.ops;
        self.ops += 1;
        if self.kill_at.is_some_and(|at| index >= at) {
            return Err(io::Error::other("the simulated process was killed"));
        }
        for fault in &mut self.faults {
            let here = fault
                .path_contains
                .as_ref()
                .is_none_or(|part| path.to_string_lossy().contains(part.as_str()));
            if fault.kind != kind || !here || fault.times == 0 {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times -= 1;
            match fault.effect {
                FaultEffect::Io => return Err(io::Error::from_raw_os_error(5)),
                FaultEffect::NoSpace => return Err(io::ErrorKind::StorageFull.into()),
                FaultEffect::SlowUs(us) => self.slow_us += us,
            }
        }
        Ok(())
    }

    pub(super) fn killed(&self) -> bool {
        self.kill_at.is_some_and(|at| self.ops > at)
    }

    /// Whether the operation that was just refused is the one that killed the process.
    pub(super) fn killed_just_now(&self) -> bool {
        self.kill_at.is_some_and(|at| self.ops == at + 1)
    }

    pub(super) fn page_is_cold(&mut self) -> bool {
        self.cold_count += 1;
        self.cold_one_in > 0 && self.cold_count.is_multiple_of(self.cold_one_in)
    }

    pub(super) fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::default());
        self.next_inode
    }

    pub(super) fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let (synced, pending): (Vec<_>, Vec<_>) =
            self.pending_names.drain(..).partition(|change| change.is_in(dir));
        for change in synced {
            change.apply(&mut self.durable_names);
        }
        self.pending_names = pending;
    }

    pub(super) fn room_left(&self) -> u64 {
        let Some(capacity) = self.capacity_bytes else { return u64::MAX };
        let used: u64 = self.names.values().map(|inode| self.inodes[inode].live.len).sum();
        capacity.saturating_sub(used)
    }

    pub(super) fn write(&mut self, inode: u64, mut bytes: Vec<u8>, offset: u64) -> io::Result<()> {
        let len = self.inodes[&inode].live.len;
        let growth = (offset + bytes.len() as u64).saturating_sub(len);
        let room = self.room_left();
        if growth > room {
            // What fits is written, as a real disk would.
            bytes.truncate(bytes.len().saturating_sub((growth - room) as usize));
            self.apply(inode, bytes, offset);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.apply(inode, bytes, offset);
        Ok(())
    }

    /// A write that was cut short: the first half gets into the page cache.
    pub(super) fn write_part(&mut self, inode: u64, mut bytes: Vec<u8>, offset: u64) {
        bytes.truncate(bytes.len() / 2);
        self.apply(inode, bytes, offset);
    }

    fn apply(&mut self, inode: u64, bytes: Vec<u8>, offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let inode = self.inodes.get_mut(&inode).expect("an open file has an inode");
        inode.live.write(&bytes, offset);
        inode.pending.push((offset, bytes));
    }

    pub(super) fn allocate(&mut self, inode: u64, len: u64) -> io::Result<()> {
        let growth = len.saturating_sub(self.inodes[&inode].live.len);
        if growth > self.room_left() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.inodes.get_mut(&inode).expect("an open file has an inode");
        inode.live.len = inode.live.len.max(len);
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: u64) {
        self.syncs += 1;
        let inode = self.inodes.get_mut(&inode).expect("an open file has an inode");
        for (offset, bytes) in inode.pending.drain(..) {
            inode.durable.write(&bytes, offset);
        }
        inode.durable.len = inode.live.len;
    }

    pub(super) fn lose_pending(&mut self, inode: u64) {
        self.inodes.get_mut(&inode).expect("an open file has an inode").pending.clear();
    }

    pub(super) fn flip_bit(&mut self, path: &Path, byte_offset: u64, bit: u8) -> io::Result<()> {
        let inode = *self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inode = self.inodes.get_mut(&inode).expect("a name has an inode");
        let at = byte_offset as usize;
        for image in [&mut inode.live, &mut inode.durable] {
            if at as u64 >= image.len {
                continue;
            }
            if image.bytes.len() <= at {
                image.bytes.resize(at + 1, 0);
            }
            image.bytes[at] ^= 1 << (bit % 8);
        }
        Ok(())
    }

    pub(super) fn install(&mut self, path: &Path, bytes: &[u8]) {
        let number = self.new_inode();
        let image = Image { bytes: bytes.to_vec(), len: bytes.len() as u64 };
        self.inodes.insert(number, Inode { live: image.clone(), durable: image, pending: Vec::new() });
        self.names.insert(path.to_owned(), number);
        self.durable_names.insert(path.to_owned(), number);
    }

    pub(super) fn crash(&mut self, seed: u64) {
        let mut dice = Dice(seed ^ 0x5eed_0d15_c0de);
        for inode in self.inodes.values_mut() {
            inode.crash(&mut dice);
        }
        let pending = std::mem::take(&mut self.pending_names);
        let mode = dice.below(4);
        let kept = dice.below(pending.len() as u64 + 1) as usize;
        for (index, change) in pending.iter().enumerate() {
            let keep = match mode {
                0 => false,
                1 => index < kept,
                2 => dice.below(2) == 0,
                _ => true,
            };
            if keep {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|number, _| named.contains(number));
        self.generation += 1;
        self.locks.clear();
        self.faults.clear();
        self.kill_at = None;
        self.ops = 0;
    }
}

impl Inode {
    fn crash(&mut self, dice: &mut Dice) {
        let pending = std::mem::take(&mut self.pending);
        match dice.below(5) {
            0 => {}
            1 => self.keep_prefix(&pending, dice),
            2 => self.keep_sectors(&pending, dice),
            3 => self.keep_all_but_torn(&pending, dice),
            _ => pending.iter().for_each(|(offset, bytes)| self.durable.write(bytes, *offset)),
        }
        if dice.below(2) == 0 {
            self.durable.len = self.durable.len.max(self.live.len);
        }
        self.live = self.durable.clone();
    }

    fn keep_prefix(&mut self, pending: &[(u64, Vec<u8>)], dice: &mut Dice) {
        let whole = dice.below(pending.len() as u64 + 1) as usize;
        for (offset, bytes) in &pending[..whole] {
            self.durable.write(bytes, *offset);
        }
        if let Some((offset, bytes)) = pending.get(whole) {
            let cut = dice.below(bytes.len() as u64 + 1) as usize;
            self.durable.write(&bytes[..cut], *offset);
        }
    }

    fn keep_sectors(&mut self, pending: &[(u64, Vec<u8>)], dice: &mut Dice) {
        let mut kept: BTreeMap<u64, bool> = BTreeMap::new();
        for (offset, bytes) in pending {
            for (at, piece) in pieces(*offset, bytes, SECTOR_BYTES) {
                if *kept.entry(at / SECTOR_BYTES).or_insert_with(|| dice.below(2) == 0) {
                    self.durable.write(piece, at);
                }
            }
        }
    }

    fn keep_all_but_torn(&mut self, pending: &[(u64, Vec<u8>)], dice: &mut Dice) {
        let torn = dice.below(pending.len().max(1) as u64) as usize;
        for (index, (offset, bytes)) in pending.iter().enumerate() {
            if index != torn {
                self.durable.write(bytes, *offset);
                continue;
            }
            let sector = offset / SECTOR_BYTES + dice.below(bytes.len() as u64 / SECTOR_BYTES + 1);
            for (at, piece) in pieces(*offset, bytes, ATOM_BYTES) {
                if at / SECTOR_BYTES != sector || dice.below(2) == 0 {
                    self.durable.write(piece, at);
                }
            }
        }
    }
}

/// Cuts a write at multiples of `unit`.
fn pieces(offset: u64, bytes: &[u8], unit: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let end = offset + bytes.len() as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let next = end.min((at / unit + 1) * unit);
        let piece = &bytes[(at - offset) as usize..(next - offset) as usize];
        let start = std::mem::replace(&mut at, next);
        Some((start, piece))
    })
}

/// A splitmix64 generator: the same crash for the same seed, whatever versions of crates are about.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
