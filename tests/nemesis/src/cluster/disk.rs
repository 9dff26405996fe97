//! A node's disk: a file system of its own, so that it really gets full, and can be lost, set
//! aside and put back.
//!
//! In: a directory to be in. Out: the directory of the node's data. Everything of a disk is under
//! one directory: the mount, its image, and a copy that was set aside. Dropping it unmounts.

use super::tool::run;
use crate::options::Disks;
use anyhow::Context as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// What fills a disk.
const BALLAST: &str = "ballast";
/// How a node names what it sets aside, and what is there while it is at it.
const SET_ASIDE: &str = "set-aside-";
const SETTING_ASIDE: &str = "SETTING-ASIDE";

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Disk {
    home: PathBuf,
    kind: Disks,
    mounted: bool,
}

impl Disk {
    /// Makes an empty one in `home`.
    pub(crate) fn make(home: &Path, kind: Disks, mib: u64) -> anyhow::Result<Disk> {
        let mut disk = Disk { home: home.to_owned(), kind, mounted: false };
        fs::create_dir_all(disk.mount()).context("failed to make a place for a disk")?;
        let mount = disk.mount();
        match kind {
            Disks::Plain => {}
            Disks::Tmpfs => {
                let size = format!("size={mib}m");
                run(
                    "mount",
                    [
                        "-t".as_ref(),
                        "tmpfs".as_ref(),
                        "-o".as_ref(),
                        size.as_ref(),
                        "nemesis".as_ref(),
                        mount.as_os_str(),
                    ],
                )?;
                disk.mounted = true;
            }
            Disks::Ext4 => {
                let image = disk.home.join("image");
                File::create(&image)?.set_len(mib << 20)?;
                // No blocks are kept for root: full is full.
                run("mkfs.ext4", ["-q".as_ref(), "-m".as_ref(), "0".as_ref(), image.as_os_str()])?;
                run("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), mount.as_os_str()])?;
                disk.mounted = true;
            }
        }
        Ok(disk)
    }

    fn mount(&self) -> PathBuf {
        self.home.join("disk")
    }

    /// Where the node keeps its data. Not the mount itself, for it is lost and put back as a whole.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount().join("data")
    }

    fn aside(&self) -> PathBuf {
        self.home.join("aside")
    }

    pub(crate) fn can_fill(&self) -> bool {
        self.kind != Disks::Plain
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let file = File::create(self.mount().join(BALLAST))?;
        let mut size = 0;
        loop {
            let free = statvfs(self.mount())?;
            // Metadata of the file itself needs a block now and then, so it ends in small steps.
            let mut step = (free.f_bavail * free.f_frsize).max(4096);
            while step >= 4096 {
                match fallocate(&file, FallocateFlags::empty(), size, step) {
                    Ok(()) => {
                        size += step;
                        break;
                    }
                    Err(rustix::io::Errno::NOSPC) => step /= 2,
                    Err(errno) => return Err(errno).context("failed to fill a disk"),
                }
            }
            if step < 4096 {
                return Ok(());
            }
        }
    }

    /// Makes room again.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.mount().join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The disk is lost. Requires that the node does not run.
    pub(crate) fn lose(&self) -> anyhow::Result<()> {
        remove(&self.data())
    }

    /// Keeps a copy. Requires that the node does not run.
    pub(crate) fn set_aside(&self) -> anyhow::Result<()> {
        remove(&self.aside())?;
        run("cp", ["-a".as_ref(), self.data().as_os_str(), self.aside().as_os_str()]).map(drop)
    }

    /// Puts the copy back. Requires that the node does not run.
    pub(crate) fn roll_back(&self) -> anyhow::Result<()> {
        remove(&self.data())?;
        run("cp", ["-a".as_ref(), self.aside().as_os_str(), self.data().as_os_str()])?;
        remove(&self.aside())
    }

    /// Changes a few bytes in the middle of a table; tells which, or none if there is no table.
    /// Requires that the node does not run.
    pub(crate) fn rot(&self, dice: u64) -> anyhow::Result<Option<String>> {
        let entries = fs::read_dir(self.data())?.flatten();
        let mut tables: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
            .collect();
        tables.sort();
        let Some(path) = tables.get(dice as usize % tables.len().max(1)) else { return Ok(None) };
        let table = File::options().read(true).write(true).open(path)?;
        let size = table.metadata()?.len();
        let offset = (dice >> 16) % size.max(1);
        let mut bytes = [0; 16];
        let count = table.read_at(&mut bytes, offset)?;
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        table.write_all_at(&bytes[..count], offset)?;
        table.sync_all()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Some(format!("{count} bytes at {offset} of {size} of {name}")))
    }

    /// What the node itself has set aside because it may not use it again. It is removed, for the
    /// disk is small.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        if self.data().join(SETTING_ASIDE).exists() {
            return Vec::new();
        }
        let entries = fs::read_dir(self.data()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let asides = names.filter(|name| name.starts_with(SET_ASIDE));
        asides.filter(|name| remove(&self.data().join(name)).is_ok()).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&self.mount());
        }
    }
}

/// Also where something still has a file open: the rest goes with that.
pub(crate) fn unmount(mount: &Path) {
    if run("umount", [mount.as_os_str()]).is_err() {
        run("umount", ["-l".as_ref(), mount.as_os_str()]).ok();
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
