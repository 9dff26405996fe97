//! The thread that reads every block and value again, slowly, whether anybody asks for it or not.
//!
//! In: the database, a pace. Out: ranges that cannot be read, for core to refill from replicas.
//! Absent: what values should be; core's scrub compares them.

use crate::driver::{Door, Input};
use crate::niceness;
use merganser_storage::{Db, VerifyCursor};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Read at once.
const STEP_BYTES: u64 = 256 << 10;
/// Between two passes, and after an error.
const REST: Duration = Duration::from_secs(60);
/// How often it looks what others have found.
const LOOK: Duration = Duration::from_secs(1);

/// Dropping it stops it.
pub(crate) struct Verifier {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Verifier {
    pub(crate) fn start(db: &Db, door: &Door, bytes_per_s: u64) -> std::io::Result<Verifier> {
        let (stop, stopped) = mpsc::channel();
        let (db, door) = (db.clone(), door.clone());
        let thread = std::thread::Builder::new()
            .name("verify".into())
            .spawn(move || run(&db, &door, bytes_per_s.max(1), &stopped))?;
        Ok(Verifier { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has told so itself.
            let _ = thread.join();
        }
    }
}

fn run(db: &Db, door: &Door, bytes_per_s: u64, stopped: &mpsc::Receiver<()>) {
    niceness::yield_to_others();
    let (mut cursor, mut told, mut rest) = (VerifyCursor::default(), 0, Duration::ZERO);
    loop {
        // Reads and compactions meet damage, too: while this rests, or before it comes by.
        told = tell(door, db.damaged(), told);
        let nap = rest.min(LOOK);
        rest -= nap;
        if stopped.recv_timeout(nap) != Err(mpsc::RecvTimeoutError::Timeout) {
            return;
        }
        if !rest.is_zero() {
            continue;
        }
        rest = match db.verify_some(cursor, STEP_BYTES) {
            Ok(progress) => {
                cursor = progress.cursor.unwrap_or_default();
                let pace = Duration::from_millis(progress.bytes.saturating_mul(1_000) / bytes_per_s);
                if progress.cursor.is_some() { pace } else { pace.max(REST) }
            }
            Err(error) => {
                tracing::debug!(%error, "verify");
                REST
            }
        };
    }
}

/// Tells of damage found after the one numbered `told`; answers the last number.
fn tell(door: &Door, damage: Vec<merganser_storage::Damage>, told: u64) -> u64 {
    let last = damage.iter().map(|damage| damage.number).fold(told, u64::max);
    let new = damage.into_iter().filter(|damage| damage.number > told);
    let ranges: Vec<_> = new.map(|damage| (damage.keys.from, damage.keys.to)).collect();
    if !ranges.is_empty() {
        tracing::error!(count = ranges.len(), "damage_found");
        door.put(Input::Damaged { ranges });
    }
    last
}
