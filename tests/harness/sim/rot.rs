//! Bit rot: a bit of a table is another one, and the shell's verifier, played, goes looking for it.
//!
//! In: the atlas' leave to damage a disk. Out: a changed bit, and what storage then cannot read, told to the node as the shell
//! tells it. Absent: what a node makes of it; logs, whose damage ends a start with an error.

use super::faults::{FaultKind, Undo};
use super::world::{Due, World};
use crate::properties::Check;
use merganser_core::event::Event;
use merganser_storage::VerifyCursor;
use std::path::PathBuf;

/// How often a rotten disk is read as a whole.
const VERIFY_US: u64 = 500_000;

/// What is wrong with a disk.
#[derive(Debug)]
pub(super) struct Rot {
    /// Until somebody has met it. It may be in a table that is not yet in use; with the table, it goes.
    unnoticed: Option<PathBuf>,
}

impl Rot {
    /// Somebody is to repair it.
    pub(super) fn is_noticed(&self) -> bool {
        self.unnoticed.is_none()
    }
}

impl World {
    /// Flips a bit of a table.
    pub(super) fn rot(&mut self, node: usize) {
        let files = self.machines[node].fs.files();
        let is_table = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "sst");
        let tables: Vec<_> = files.into_iter().filter(|(path, len)| *len > 0 && is_table(path)).collect();
        let Some((path, len)) = self.fault_dice.pick(&tables).cloned() else { return };
        if !self.may_lose_a_disk() {
            return self.count("fault spared by the atlas");
        }
        let (at, bit) = (self.fault_dice.below(len), self.fault_dice.below(8));
        if self.machines[node].fs.flip_bit(&path, at, bit as u8).is_ok() {
            self.strike(FaultKind::BitRot, node, at);
            self.machines[node].rot = Some(Rot { unnoticed: Some(path) });
            self.history.losses.disk_lost(self.now_us, node);
            let after = self.fault_dice.between(1_000, VERIFY_US);
            self.schedule(after, Due::Undo(Undo::Verify { node }));
        }
    }

    /// A disk is a copy: of a rotten one, perhaps.
    pub(super) fn suspect_rot(&mut self, node: usize) {
        self.machines[node].rot = Some(Rot { unnoticed: None });
        self.schedule(VERIFY_US, Due::Undo(Undo::Verify { node }));
    }

    /// As the shell does all the time: reads all tables, tells what it cannot read. Again while there is any.
    pub(super) fn verify(&mut self, node: usize) -> Check {
        if self.machines[node].rot.is_none() {
            return Ok(());
        }
        self.schedule(VERIFY_US, Due::Undo(Undo::Verify { node }));
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        let (db, mut cursor) = (process.db.clone(), Some(VerifyCursor::default()));
        while let Some(at) = cursor {
            let Ok(progress) = db.verify_some(at, u64::MAX) else { return Ok(()) };
            cursor = progress.cursor;
        }
        let damaged = db.damaged();
        let Some(rot) = &mut self.machines[node].rot else { return Ok(()) };
        if !damaged.is_empty() {
            rot.unnoticed = None;
            let ranges = damaged.into_iter().map(|damage| (damage.keys.from, damage.keys.to)).collect();
            return self.feed(node, Event::Damaged { ranges });
        }
        let unnoticed = rot.unnoticed.clone();
        if unnoticed.is_none_or(|file| self.machines[node].fs.files().iter().all(|(path, _)| *path != file)) {
            self.count("rot repaired");
            self.machines[node].rot = None;
        }
        Ok(())
    }
}
