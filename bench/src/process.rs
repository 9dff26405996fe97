//! What processes and the machine have used, as the kernel counts it.
//!
//! In: process ids. Out: CPU time, by process and by the name of its threads, and bytes written.
//! The kernel scales the times to what the scheduler measured; their grain is a hundredth of a
//! second, which over some seconds is below a percent. Absent: rates; those take two looks.

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use std::{collections::BTreeMap, fs};

/// Of some processes together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system.
    pub(crate) cpu_us: f64,
    /// The same by name of thread.
    pub(crate) threads_us: BTreeMap<String, f64>,
    /// Bytes that went, or will go, to the disk.
    pub(crate) written_bytes: f64,
}

/// Of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Machine {
    /// Anything but idle, over all CPUs, time stolen by other guests included.
    pub(crate) busy_us: f64,
    /// All of it.
    pub(crate) total_us: f64,
}

/// What `pids` have used so far.
pub(crate) fn usage(pids: &[u32]) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in pids {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path)
                .with_context(|| format!("failed to read {path}: has the process ended?"))
        };
        sum.cpu_us += cpu(&read("stat")?).with_context(|| format!("/proc/{pid}/stat is not as expected"))?.1;
        sum.written_bytes +=
            written(&read("io")?).with_context(|| format!("/proc/{pid}/io is not as expected"))?;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("failed to list threads")?;
        for task in tasks.flatten() {
            // A thread may end meanwhile.
            let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
            if let Some((name, us)) = cpu(&stat) {
                *sum.threads_us.entry(name).or_default() += us;
            }
        }
    }
    Ok(sum)
}

/// What the machine has used so far.
pub(crate) fn machine() -> Result<Machine> {
    let stat = fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
    machine_of(&stat).context("/proc/stat is not as expected")
}

impl Usage {
    /// From `earlier` to here.
    pub(crate) fn since(&self, earlier: &Usage) -> Usage {
        let before = |name| earlier.threads_us.get(name).copied().unwrap_or_default();
        Usage {
            cpu_us: self.cpu_us - earlier.cpu_us,
            threads_us: self.threads_us.iter().map(|(name, us)| (name.clone(), us - before(name))).collect(),
            written_bytes: self.written_bytes - earlier.written_bytes,
        }
    }
}

/// Name and CPU time in a `stat` file. The name is in brackets and may hold anything, brackets too.
fn cpu(stat: &str) -> Option<(String, f64)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((name.to_owned(), us(ticks)))
}

fn written(io: &str) -> Option<f64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok())
}

fn machine_of(stat: &str) -> Option<Machine> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; the guest times after them are in user.
    let fields = fields.get(..8)?;
    let total: u64 = fields.iter().sum();
    Some(Machine { busy_us: us(total - fields[3] - fields[4]), total_us: us(total) })
}

fn us(ticks: u64) -> f64 {
    ticks as f64 * 1e6 / clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_have_brackets_in_its_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 99";
        let tick = us(1);
        assert_eq!(cpu(&format!("42 (log) (x) {tail}")), Some(("log) (x".into(), 200.0 * tick)));
        assert_eq!(cpu("42 (log) S 1 2"), None);
        assert_eq!(cpu(""), None);
    }

    #[test]
    fn the_machine_is_busy_when_it_is_neither_idle_nor_waiting_for_a_disk() {
        let found = machine_of("cpu  10 20 30 400 500 1 2 3 77 77\ncpu0 1 1 1 1\n");
        assert_eq!(found, Some(Machine { busy_us: us(66), total_us: us(966) }));
        assert_eq!(machine_of("cpu  10 20\n"), None);
    }

    #[test]
    fn this_process_has_used_something_and_a_dead_one_is_an_error() {
        let mine = usage(&[std::process::id()]).expect("our own files can be read");
        assert!(mine.cpu_us >= 0.0 && !mine.threads_us.is_empty());
        assert!(usage(&[u32::MAX]).is_err());
        assert_eq!(written("rchar: 1\nwrite_bytes: 4096\n"), Some(4096.0));
    }
}
