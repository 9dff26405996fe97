//! What a small merge beside each write costs: `cargo run --release -p merganser-storage --example merge_cost`.
//!
//! In: nothing. Out: nanoseconds on the CPU (so that others on the machine do not count) for a put alone, and for a put with a merge of 16 bytes to one of 65,536 counters,
//! as a replicated store keeps its hash tree; best of some rounds, the disk's sync left out. Deliberately absent:
//! comparisons with other engines.

use std::sync::Arc;

use bytes::Bytes;
use merganser_storage::fs::os::OsFs;
use merganser_storage::*;

/// Adds up heads of 16 bytes.
struct Sums;

impl Fold for Sums {
    fn fold(&self, key: &[u8], newest_first: &[Record]) -> Result<Record, FoldError> {
        let heads: Vec<Bytes> = newest_first.iter().map(|record| record.head.clone()).collect();
        let head = self.fold_heads(key, &heads).ok_or_else(|| FoldError("not a sum".into()))?;
        Ok(Record { head, body: Bytes::new() })
    }

    fn fold_heads(&self, _key: &[u8], newest_first: &[Bytes]) -> Option<Bytes> {
        let numbers =
            newest_first.iter().map(|head| Some(u128::from_le_bytes(head.as_ref().try_into().ok()?)));
        let sum = numbers.sum::<Option<u128>>()?;
        Some(Bytes::copy_from_slice(&sum.to_le_bytes()))
    }

    fn fold_at_once(&self, _key: &[u8], newer: &Bytes, older: &Bytes) -> Option<Bytes> {
        let number = |head: &Bytes| Some(u128::from_le_bytes(head.as_ref().try_into().ok()?));
        Some(Bytes::copy_from_slice(&number(newer)?.wrapping_add(number(older)?).to_le_bytes()))
    }
}

fn round(merges: bool, writes: u64, value_bytes: usize) -> (f64, u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options {
        background: Background::Stepped,
        memtable_bytes: 1 << 40,
        queue_bytes_max: 1 << 30,
        log_file_bytes: 1 << 30,
        ..Options::default()
    };
    let opened = Db::open(Arc::new(OsFs), dir.path(), options, Arc::new(Sums), Arc::new(NoSink));
    let (db, _) = opened.expect("an empty directory opens");
    let body = Bytes::from(vec![7; value_bytes]);
    let write = |n: u64| {
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let record = Record { head: Bytes::copy_from_slice(&[1; 60]), body: body.clone() };
        let key = [&hash.to_be_bytes()[..], b"-and-a-key"].concat();
        let mut ops = vec![Op::Put { key: key.into(), record }];
        if merges {
            let key = [&[0, 0, 0, 0, 5][..], &(hash >> 48).to_be_bytes()].concat();
            let head = Bytes::copy_from_slice(&u128::from(hash).to_le_bytes());
            ops.push(Op::Merge { key: key.into(), record: Record { head, body: Bytes::new() } });
        }
        Write { ticket: n, ops, durability: Durability::None }
    };
    let start = cpu_nanos();
    for group in 0..writes / 64 {
        db.submit((group * 64..group * 64 + 64).map(write).collect());
        db.step();
    }
    ((cpu_nanos() - start) as f64 / writes as f64, db.metrics().memtable_bytes / writes)
}

/// What this thread has spent.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first number")
}

fn main() {
    for value_bytes in [100, 1000] {
        for merges in [false, true] {
            let rounds = (0..3).map(|_| round(merges, 128_000, value_bytes));
            let (nanos, bytes) = rounds.min_by(|a, b| a.0.total_cmp(&b.0)).expect("three rounds");
            let what = if merges { "a put and a merge" } else { "a put" };
            println!("{what:>18} of {value_bytes:4} bytes: {nanos:6.0} ns, {bytes} bytes charged");
        }
    }
}
