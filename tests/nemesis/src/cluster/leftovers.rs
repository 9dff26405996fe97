//! What earlier runs left behind because they were killed: processes, mounts, networks, files.
//!
//! In: the directory in which runs have theirs, named after their process. Out: nothing of those
//! whose process is gone. Runs that still go on are left alone.

use super::{disk, network};
use std::{fs, path::Path};

/// Removes them; returns whose there were.
pub(crate) fn remove(base: &Path) -> Vec<u32> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let runs = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let mut removed = Vec::new();
    for (pid, home) in runs.filter(|(pid, _)| !is_alive(*pid)) {
        end_processes(&home);
        unmount_all(&home);
        network::remove(&network::prefix(pid));
        fs::remove_dir_all(&home).ok();
        removed.push(pid);
    }
    removed
}

/// Whether that process is one like this.
fn is_alive(pid: u32) -> bool {
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let (theirs, ours) = (name(&pid.to_string()), name("self"));
    theirs.is_some() && theirs == ours
}

/// Ends the processes that were started with a file in `home`.
fn end_processes(home: &Path) {
    let home = home.as_os_str().as_encoded_bytes();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        if words.any(|word| word.starts_with(home))
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}

/// Unmounts everything below `home`.
pub(crate) fn unmount_all(home: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    points.filter(|point| point.starts_with(home)).for_each(disk::unmount);
}
