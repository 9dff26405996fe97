//! Modules that wait to be compiled, in the order in which they are needed.
//!
//! In: loads, from any thread. Out: one at a time, built-in ones first, the rest as they came; one that failed for a
//! reason that passes comes back later. Absent: compiling.

use bytes::Bytes;
use merganser_core::id::PluginHash;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How long one that failed for a passing reason waits, when nothing else is to do.
const AGAIN: Duration = Duration::from_secs(5);

/// Something to be compiled.
pub(super) enum Load {
    /// Core waits for the outcome.
    Uploaded(PluginHash, Bytes),
    /// So that the first call does not wait.
    BuiltIn(PluginHash),
}

/// Runs loads until nobody can send any more. `settle` says whether a load is done with.
pub(super) fn run(loads: &Receiver<Load>, mut settle: impl FnMut(&Load) -> bool) {
    let (mut built_in, mut uploaded, mut again) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
    let sort = |load: Load, uploaded: &mut VecDeque<Load>, built_in: &mut VecDeque<Load>| match load {
        Load::BuiltIn(_) => built_in.push_back(load),
        Load::Uploaded(..) => uploaded.push_back(load),
    };
    loop {
        while let Ok(load) = loads.try_recv() {
            sort(load, &mut uploaded, &mut built_in);
        }
        let Some(load) = built_in.pop_front().or_else(|| uploaded.pop_front()) else {
            match loads.recv_timeout(AGAIN) {
                Ok(load) => sort(load, &mut uploaded, &mut built_in),
                Err(RecvTimeoutError::Timeout) => uploaded.append(&mut again),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            continue;
        };
        if !settle(&load) {
            again.push_back(load);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn built_in_ones_go_first_however_late_they_come() {
        let (sender, loads) = mpsc::channel();
        for number in [1, 2] {
            sender.send(Load::Uploaded(PluginHash([number; 32]), Bytes::new())).unwrap();
        }
        sender.send(Load::BuiltIn(PluginHash([3; 32]))).unwrap();
        let mut sender = Some(sender);
        let mut order = Vec::new();
        run(&loads, |load| {
            match load {
                Load::Uploaded(hash, _) => order.push(hash.0[0]),
                Load::BuiltIn(hash) => {
                    order.push(hash.0[0]);
                    if hash.0[0] == 3 {
                        let sender = sender.take().unwrap();
                        sender.send(Load::BuiltIn(PluginHash([4; 32]))).unwrap();
                    }
                }
            }
            true
        });
        assert_eq!(order, [3, 4, 1, 2]);
    }
}
