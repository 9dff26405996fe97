//! What goes wrong, and for how long: the fault atlas.
//!
//! In: options (which kinds, how often), dice. Out: faults and their ends. The atlas keeps them
//! within what N and W survive: any number of machines may lose power, for what was acknowledged is
//! synced; one disk at a time is lost for good, the next once all replicas were equal again; and mostly a majority stays up, so that there is
//! something to watch. Absent: the network's everyday loss and delay (`network.rs`).

use super::machine::Trip;
use super::trace::Code;
use super::world::{Due, World};
use crate::properties::Check;
use merganser_storage::fs::sim::{Fault, FaultEffect, OpKind, SimFs};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The process dies; what it wrote stays in the page cache.
    Kill,
    /// A machine loses power, at any time or right after it sent a state; what was not synced is lost, in whole, in part, or torn.
    PowerLoss,
    /// All machines lose power at once.
    Blackout,
    /// A clean shutdown, and a start some time later.
    Shutdown,
    /// A clean shutdown, a start, and a power loss right after the first states that are sent: dots
    /// leak that no sync has reached, under an actor that was resumed.
    ShutdownThenPowerLoss,
    /// The process stands still, and all that was sent to it comes at once afterwards.
    Pause,
    /// The nodes fall apart into two groups.
    Partition,
    /// One direction of one link is cut.
    OneWayCut,
    /// One direction of one link takes very long.
    Clog,
    /// A clock jumps, forwards or backwards.
    ClockJump,
    /// A disk takes thirty times as long.
    SlowDisk,
    /// A sync fails: its pages are clean and lost. The process dies of it.
    FailedSync,
    /// A write to the disk fails. The process dies of it.
    FailedWrite,
    /// The disk is full, for a while or just for the write of a state that was sent.
    FullDisk,
    /// A link that works is told to be down.
    FalseLinkDown,
    /// A disk is lost for good; its machine comes back empty. Again only once all replicas are equal.
    DiskLoss,
    /// No plugin answers anywhere.
    PluginOutage,
    /// One direction of one link is cut, and nobody is told.
    SilentOneWay,
    /// A disk is copied; later its machine comes back with that copy. Under the same rule as a lost one.
    RolledBackDisk,
    /// A bit of a table on disk is another one. Under the same rule.
    BitRot,
    /// All replicas of a key are cut off from all other nodes: on the other side stand-ins coordinate.
    ReplicasAway,
    /// A machine is started on a copy of another member's disk. It must refuse; then it gets an empty one. Under the
    /// same rule as a lost disk.
    AnothersDisk,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 22] = [
        FaultKind::Kill,
        FaultKind::PowerLoss,
        FaultKind::Blackout,
        FaultKind::Shutdown,
        FaultKind::ShutdownThenPowerLoss,
        FaultKind::Pause,
        FaultKind::Partition,
        FaultKind::OneWayCut,
        FaultKind::Clog,
        FaultKind::ClockJump,
        FaultKind::SlowDisk,
        FaultKind::FailedSync,
        FaultKind::FailedWrite,
        FaultKind::FullDisk,
        FaultKind::FalseLinkDown,
        FaultKind::DiskLoss,
        FaultKind::PluginOutage,
        FaultKind::SilentOneWay,
        FaultKind::RolledBackDisk,
        FaultKind::BitRot,
        FaultKind::ReplicasAway,
        FaultKind::AnothersDisk,
    ];

    /// Its bit in `Options::faults`.
    pub fn bit(self) -> u64 {
        1 << (self as u64)
    }

    /// The bits of all.
    pub fn mask_all() -> u64 {
        FaultKind::ALL.iter().fold(0, |mask, kind| mask | kind.bit())
    }
}

/// The end of a fault.
pub(super) enum Undo {
    Restart { node: usize },
    RejoinEmpty { node: usize, boot: u64 },
    Verify { node: usize },
    Resume { node: usize },
    PowerLoss { node: usize },
    Mend { links: Vec<(usize, usize)> },
    Unclog { from: usize, to: usize },
    FastDisk { node: usize },
    RoomAgain { node: usize },
    LinkUp { node: usize, peer: usize },
    PluginsAnswer,
}

impl World {
    /// The next fault, if the atlas allows it, and the time of the one after it.
    pub(super) fn fault(&mut self) -> Check {
        if !self.trouble {
            return Ok(());
        }
        let period = self.options.fault_period_us;
        let next = self.fault_dice.between(period / 4, period * 2);
        self.schedule(next, Due::Fault);
        let kinds: Vec<FaultKind> =
            FaultKind::ALL.into_iter().filter(|kind| self.options.allows(*kind)).collect();
        let Some(kind) = self.fault_dice.pick(&kinds).copied() else { return Ok(()) };
        let node = self.fault_dice.below(self.machines.len() as u64) as usize;
        let lasts = self.fault_dice.between(self.options.fault_us_min.max(1_000), self.options.fault_us_max);
        self.inflict(kind, node, lasts)
    }

    fn inflict(&mut self, kind: FaultKind, node: usize, lasts: u64) -> Check {
        let up = self.machines[node].process.is_some() && self.machines[node].paused_until_us.is_none();
        let peer =
            (node + 1 + self.fault_dice.below(self.machines.len() as u64 - 1) as usize) % self.machines.len();
        match kind {
            FaultKind::Kill if up && self.may_stop() => {
                self.strike(kind, node, lasts);
                self.die(node, "KI", None);
                self.schedule(lasts, Due::Undo(Undo::Restart { node }));
            }
            FaultKind::PowerLoss if up && self.may_stop() && self.fault_dice.chance(300) => {
                self.strike(kind, node, lasts);
                self.machines[node].tripwire = Some((self.fault_dice.between(1, 6), Trip::PowerLoss));
            }
            FaultKind::PowerLoss if up && self.may_stop() => {
                self.strike(kind, node, lasts);
                let seed = self.fault_dice.next();
                self.die(node, "PW", Some(seed));
                self.schedule(lasts, Due::Undo(Undo::Restart { node }));
            }
            FaultKind::Blackout if self.fault_dice.chance(300) => {
                self.strike(kind, node, lasts);
                for node in 0..self.machines.len() {
                    let seed = self.fault_dice.next();
                    if self.machines[node].process.is_some() {
                        self.die(node, "PW", Some(seed));
                        let after = lasts + self.fault_dice.below(50_000);
                        self.schedule(after, Due::Undo(Undo::Restart { node }));
                    }
                }
            }
            FaultKind::Shutdown | FaultKind::ShutdownThenPowerLoss if up && self.may_stop() => {
                self.strike(kind, node, lasts);
                self.shut_down(node)?;
                self.schedule(lasts, Due::Undo(Undo::Restart { node }));
                if kind == FaultKind::ShutdownThenPowerLoss {
                    self.machines[node].tripwire = Some((self.fault_dice.between(1, 4), Trip::PowerLoss));
                }
            }
            FaultKind::Pause if up && self.may_stop() => {
                self.strike(kind, node, lasts);
                self.trace
                    .note(self.now_us, "PA", [node as u64, lasts, 0], || format!("n{node} for {lasts} us"));
                self.machines[node].paused_until_us = Some(self.now_us + lasts);
                self.schedule(lasts, Due::Undo(Undo::Resume { node }));
                self.links_down(node);
            }
            FaultKind::Partition => {
                let side = self.fault_dice.between(1, (1 << self.machines.len()) - 2);
                self.strike(kind, node, side);
                self.part(side, lasts);
            }
            FaultKind::ReplicasAway => {
                let key = self.fault_dice.below(self.history.keys.len() as u64) as usize;
                let replicas = self.primaries(key);
                let side =
                    replicas.iter().filter_map(|id| self.node_of(*id)).fold(0, |side, a| side | 1 << a);
                self.strike(kind, node, side);
                self.part(side, lasts);
            }
            FaultKind::OneWayCut => {
                self.strike(kind, node, peer as u64);
                self.cut(vec![(node, peer)], lasts);
            }
            FaultKind::Clog => {
                self.strike(kind, node, peer as u64);
                let delay = self.fault_dice.between(10_000, 400_000);
                self.network.clog(node, peer, delay);
                self.schedule(lasts, Due::Undo(Undo::Unclog { from: node, to: peer }));
            }
            FaultKind::ClockJump => {
                let skew = self.fault_dice.below(6_000) as i64 - 3_000;
                self.strike(kind, node, skew.unsigned_abs());
                self.machines[node].skew_ms = skew;
                self.rearm(node);
            }
            FaultKind::SlowDisk => {
                self.strike(kind, node, lasts);
                self.machines[node].disk_slowness = 30;
                self.schedule(lasts, Due::Undo(Undo::FastDisk { node }));
            }
            FaultKind::FailedSync if up && self.may_stop() => {
                self.strike(kind, node, lasts);
                self.machines[node].fs.inject(Fault::next(OpKind::Sync, FaultEffect::Io));
            }
            FaultKind::FailedWrite if up && self.may_stop() => {
                self.strike(kind, node, lasts);
                self.machines[node].fs.inject(Fault::next(OpKind::Write, FaultEffect::Io));
            }
            FaultKind::FullDisk if up && self.fault_dice.chance(500) => {
                self.strike(kind, node, lasts);
                self.machines[node].tripwire = Some((self.fault_dice.between(1, 6), Trip::NoSpace));
            }
            FaultKind::FullDisk if up && self.may_fill() => {
                self.machines[node].disk_full = true;
                self.strike(kind, node, lasts);
                let used = self.machines[node].fs.files().iter().map(|(_, len)| *len).sum();
                self.machines[node].fs.set_capacity_bytes(Some(used));
                let mut full = Fault::next(OpKind::Write, FaultEffect::NoSpace);
                full.times = self.fault_dice.between(1, 40);
                self.machines[node].fs.inject(full);
                self.schedule(lasts, Due::Undo(Undo::RoomAgain { node }));
            }
            FaultKind::FalseLinkDown => {
                self.strike(kind, node, peer as u64);
                self.tell_link(node, peer, false);
                self.schedule(lasts, Due::Undo(Undo::LinkUp { node, peer }));
            }
            FaultKind::DiskLoss if up && self.may_stop() && self.may_lose_a_disk() => {
                self.strike(kind, node, lasts);
                self.die(node, "KI", None);
                self.machines[node].replace_disk(SimFs::new(), false);
                self.history.losses.disk_lost(self.now_us, node);
                self.schedule(lasts, Due::Undo(Undo::Restart { node }));
            }
            FaultKind::AnothersDisk if up && self.may_stop() && self.may_lose_a_disk() => {
                self.strike(kind, node, peer as u64);
                self.die(node, "KI", None);
                let seed = self.fault_dice.next();
                let copy = self.machines[peer].fs.crash_image(seed);
                copy.heal();
                self.machines[node].replace_disk(copy, false);
                self.machines[node].is_anothers_disk = true;
                self.history.losses.disk_lost(self.now_us, node);
                self.schedule(lasts, Due::Undo(Undo::Restart { node }));
            }
            FaultKind::SilentOneWay => {
                self.strike(kind, node, peer as u64);
                self.network.cut(node, peer);
                self.schedule(lasts, Due::Undo(Undo::Mend { links: vec![(node, peer)] }));
            }
            FaultKind::RolledBackDisk => self.roll_back(node, lasts),
            FaultKind::BitRot => self.rot(node),
            FaultKind::PluginOutage => {
                self.strike(kind, node, lasts);
                self.plugins_out = true;
                self.schedule(lasts, Due::Undo(Undo::PluginsAnswer));
            }
            _ => self.count("fault spared by the atlas"),
        }
        Ok(())
    }

    /// Copies a disk, or puts an old copy back.
    fn roll_back(&mut self, node: usize, lasts: u64) {
        let Some(node) = self.machines.iter().position(|machine| machine.old_disk.is_some()) else {
            let seed = self.fault_dice.next();
            let copy = self.machines[node].fs.crash_image(seed);
            self.machines[node].old_disk = Some(copy);
            return self.count("disk copied");
        };
        let machine = &self.machines[node];
        let up = machine.process.is_some() && machine.paused_until_us.is_none();
        if !up || !self.may_stop() || !self.may_lose_a_disk() {
            return self.count("fault spared by the atlas");
        }
        self.strike(FaultKind::RolledBackDisk, node, lasts);
        self.die(node, "KI", None);
        if let Some(copy) = self.machines[node].old_disk.take() {
            self.machines[node].replace_disk(copy, true);
            self.suspect_rot(node);
        }
        self.history.losses.disk_lost(self.now_us, node);
        self.schedule(lasts, Due::Undo(Undo::Restart { node }));
    }

    /// A disk is not to be used, as its node has found or its operator: its machine gets an empty one.
    pub(super) fn rejoin_empty(&mut self, node: usize) -> Check {
        if self.machines[node].process.is_some() {
            self.count("rejoined empty");
            self.die(node, "KI", None);
        }
        self.machines[node].replace_disk(SimFs::new(), false);
        self.history.losses.disk_lost(self.now_us, node);
        self.boot(node)
    }

    /// Whether one more machine may stop while a majority goes on.
    fn may_stop(&self) -> bool {
        let stopped = |machine: &&super::machine::Machine| {
            machine.process.is_none() || machine.paused_until_us.is_some()
        };
        let stopped = self.machines.iter().filter(stopped).count();
        stopped < (self.machines.len() - 1) / 2
    }

    /// Whether a disk may be lost: none was, or all replicas were equal since.
    pub(super) fn may_lose_a_disk(&mut self) -> bool {
        let is_sound = self.machines.iter().all(|machine| machine.rot.is_none());
        // Of the catalog every node has a copy, and gossip brings it to those that came back empty.
        let all = self.catalog.keyspaces.len();
        let knows = |process: &super::machine::Process| process.node.catalog().keyspaces.len() == all;
        let is_known = self.machines.iter().all(|machine| machine.process.as_ref().is_some_and(knows));
        if self.history.losses.is_short_of_a_copy() && is_sound && is_known && self.is_whole() {
            self.history.losses.repaired(self.now_us);
        }
        !self.history.losses.is_short_of_a_copy()
    }

    /// Whether one more disk may be full while a majority has room.
    fn may_fill(&self) -> bool {
        self.machines.iter().filter(|machine| machine.disk_full).count() < (self.machines.len() - 1) / 2
    }

    pub(super) fn strike(&mut self, kind: FaultKind, node: usize, number: u64) {
        self.count(&format!("fault {kind:?}"));
        self.trace.note(self.now_us, "**", [kind as u64, node as u64, number], || {
            format!("{kind:?} n{node} ({number})")
        });
    }

    /// A node has sent a state, which may trip a wire.
    pub(super) fn state_sent(&mut self, node: usize) {
        let Some((left, trip)) = &mut self.machines[node].tripwire else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        let trip = *trip;
        self.machines[node].tripwire = None;
        match trip {
            Trip::PowerLoss => {
                let soon = self.fault_dice.between(1, self.options.disk_us_max.min(2_000));
                self.schedule(soon, Due::Undo(Undo::PowerLoss { node }));
            }
            Trip::NoSpace => {
                self.machines[node].fs.inject(Fault::next(OpKind::Write, FaultEffect::NoSpace));
            }
        }
    }

    /// The end of a fault.
    pub(super) fn undo(&mut self, undo: Undo) -> Check {
        match undo {
            Undo::Restart { node } => {
                if self.machines[node].process.is_none() {
                    return self.boot(node);
                }
            }
            Undo::RejoinEmpty { node, boot } => {
                if self.machines[node].boots == boot {
                    return self.rejoin_empty(node);
                }
            }
            Undo::Verify { node } => return self.verify(node),
            Undo::Resume { node } => self.resume(node),
            Undo::PowerLoss { node } => {
                if self.trouble && self.machines[node].process.is_some() {
                    let seed = self.fault_dice.next();
                    self.die(node, "PW", Some(seed));
                    let after = self.fault_dice.between(1_000, 100_000);
                    self.schedule(after, Due::Undo(Undo::Restart { node }));
                }
            }
            Undo::Mend { links } => {
                for (from, to) in &links {
                    self.may_not_hear(*from, *to);
                    self.network.mend(*from, *to);
                }
                for (from, to) in links {
                    self.tell_link(from, to, true);
                    self.tell_link(to, from, true);
                }
            }
            Undo::Unclog { from, to } => {
                self.network.clog(from, to, 0);
                self.may_not_hear(from, to);
            }
            Undo::FastDisk { node } => self.machines[node].disk_slowness = 1,
            Undo::RoomAgain { node } => {
                self.machines[node].disk_full = false;
                self.machines[node].fs.heal();
            }
            Undo::LinkUp { node, peer } => self.tell_link(node, peer, true),
            Undo::PluginsAnswer => self.plugins_out = false,
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, node: usize) {
        if self.machines[node].paused_until_us.take().is_some() {
            self.falls_silent(node, false);
            self.trace.note(self.now_us, "RE", [node as u64, 0, 0], || format!("n{node}"));
            for peer in 0..self.machines.len() {
                if peer != node {
                    self.tell_link(node, peer, true);
                    self.tell_link(peer, node, true);
                }
            }
        }
    }

    fn cut(&mut self, links: Vec<(usize, usize)>, lasts: u64) {
        for (from, to) in &links {
            self.network.cut(*from, *to);
            self.tell_link(*from, *to, false);
            self.tell_link(*to, *from, false);
        }
        self.schedule(lasts, Due::Undo(Undo::Mend { links }));
    }

    /// Cuts the nodes whose bits are set off from those whose bits are not.
    fn part(&mut self, side: u64, lasts: u64) {
        let apart = |a: usize, b: usize| (side >> a & 1) != (side >> b & 1);
        let all = 0..self.machines.len();
        let links: Vec<(usize, usize)> = all
            .clone()
            .flat_map(|a| all.clone().map(move |b| (a, b)))
            .filter(|(a, b)| apart(*a, *b))
            .collect();
        self.cut(links, lasts);
    }

    fn links_down(&mut self, node: usize) {
        for peer in 0..self.machines.len() {
            if peer != node {
                self.tell_link(peer, node, false);
            }
        }
    }

    /// A process dies; with a seed, its machine loses power.
    pub(super) fn die(&mut self, node: usize, code: Code, power_loss: Option<u64>) {
        let machine = &mut self.machines[node];
        let boot = machine.process.as_ref().map_or(0, |process| process.boot);
        self.trace.note(self.now_us, code, [node as u64, boot, power_loss.unwrap_or_default()], || {
            format!("n{node} [{boot}]")
        });
        machine.process = None;
        machine.paused_until_us = None;
        machine.tripwire = None;
        machine.promises.process_died();
        machine.fs.heal();
        self.history.losses.stopped(self.now_us);
        if let Some(seed) = power_loss {
            machine.fs.crash(seed);
            self.history.losses.power_lost(self.now_us, node);
        }
        self.links_down(node);
    }

    /// Storage is poisoned: the server stops the process, and starts again.
    pub(super) fn die_of_storage(&mut self, node: usize) {
        self.count("died of its disk");
        let power_loss = self.fault_dice.chance(500).then(|| self.fault_dice.next());
        // What a failed sync left in the page cache is lost either way.
        self.history.losses.power_lost(self.now_us, node);
        self.die(node, "KI", power_loss);
        let after = self.fault_dice.between(1_000, 100_000);
        self.schedule(after, Due::Undo(Undo::Restart { node }));
    }

    /// Stops serving, lets writes finish, and leaves the clean marker if nothing is under way.
    fn shut_down(&mut self, node: usize) -> Check {
        for _ in 0..64 {
            let Some(process) = &self.machines[node].process else { return Ok(()) };
            if process.db.pending_commit() == 0 {
                break;
            }
            process.db.step();
            self.take_completions(node)?;
        }
        let Some(process) = self.machines[node].process.take() else { return Ok(()) };
        let marker = process.node.clean_marker();
        let clean = marker.is_some();
        let boot = process.boot;
        self.trace.note(self.now_us, "SD", [node as u64, boot, clean.into()], || {
            format!("n{node} [{boot}] {}", if clean { "clean" } else { "with work under way" })
        });
        self.count(if clean { "clean shutdown" } else { "shutdown with work under way" });
        if let Some(marker) = marker {
            let written =
                process.db.write(vec![super::machine::to_op(marker)], merganser_storage::Durability::Sync);
            if written.is_ok() {
                // A failure to seal the log leaves what a kill would have left.
                let _sealed = process.db.close();
            }
        }
        self.machines[node].paused_until_us = None;
        self.machines[node].promises.process_died();
        self.history.losses.stopped(self.now_us);
        self.links_down(node);
        Ok(())
    }

    /// A node's timer after its clock has jumped.
    pub(super) fn rearm(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return };
        process.armed = None;
        process.timer += 1;
        let (boot, number) = (process.boot, process.timer);
        self.schedule(1, Due::Timer { node, boot, number });
    }
}
