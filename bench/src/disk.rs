//! The floor of the disk: how long a small overwrite and its sync take, alone and beside others.
//!
//! In: a directory. Out: quantiles, in milliseconds. Three writers at once are what three nodes on
//! one disk are. The file is written beforehand, as a node's recycled logs are.

use crate::figures::Latency;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

const FILE_BYTES: usize = 8 << 20;
const WRITE_BYTES: usize = 1 << 10;

/// `writers` threads, each with a file of its own, for `time`.
pub(crate) fn sync_latency(dir: &Path, writers: usize, time: Duration) -> Result<Latency> {
    let home = tempfile::Builder::new().prefix("merganser-bench-").tempdir_in(dir)?;
    let mut all = Latency::histogram();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let file = home.path().join(writer.to_string());
                scope.spawn(move || write(&file, time))
            })
            .collect();
        for thread in threads {
            let found = thread.join().expect("the writer does not panic")?;
            all.add(found).context("histograms of one shape add up")?;
        }
        Ok(Latency::of(&all))
    })
}

fn write(path: &Path, time: Duration) -> Result<Histogram<u64>> {
    let file = File::create(path)?;
    file.write_all_at(&vec![1; FILE_BYTES], 0)?;
    file.sync_all()?;
    let mut found = Latency::histogram();
    let bytes = [2; WRITE_BYTES];
    let ends = Instant::now() + time;
    let mut offset = 0;
    while Instant::now() < ends {
        let began = Instant::now();
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        found.saturating_record(began.elapsed().as_nanos() as u64);
        offset = (offset + WRITE_BYTES as u64) % FILE_BYTES as u64;
    }
    Ok(found)
}
