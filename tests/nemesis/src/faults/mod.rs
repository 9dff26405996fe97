//! What is done to the nodes, and in which order: the atlas.
//!
//! In: a seed, the kinds that may happen, the number of nodes. Out: a plan without end, each
//! fault with its victim, its length, and the pause after it; all drawn beforehand, so that a seed
//! is a plan, however the cluster behaves. Absent: doing it; that is `inflict`.
//!
//! The atlas stays within what N = 3 and W = 2 survive, beyond which a loss is no bug: one fault at
//! a time and so one node at a time (or a minority that goes on among itself), and no disk is lost or rolled back before the last one that
//! was is whole again. What is repaired is still broken by others meanwhile.

pub(crate) mod inflict;
pub(crate) mod refill;

use crate::{
    cluster::{Rights, network::Direction},
    history::Micros,
};
use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL, then a restart.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// Packets between a node and one or all peers are dropped, in one direction or both.
    Cut,
    /// A minority of the nodes is cut off from the others, in both directions.
    Part,
    /// Syncs fail with EIO; the process must die of it, and is restarted.
    FailedSync,
    /// No byte is free.
    FullDisk,
    /// The data directory is removed while the node does not run.
    LostDisk,
    /// An old copy of the data directory is put back.
    OldDisk,
    /// Bytes of a table change on the disk while the node does not run.
    Rot,
    /// The node's clock is shifted.
    Clock,
}

impl Kind {
    pub(crate) const ALL: [Kind; 10] = [
        Kind::Kill,
        Kind::Pause,
        Kind::Cut,
        Kind::Part,
        Kind::FailedSync,
        Kind::FullDisk,
        Kind::LostDisk,
        Kind::OldDisk,
        Kind::Rot,
        Kind::Clock,
    ];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Cut => "cut",
            Kind::Part => "part",
            Kind::FailedSync => "failed-sync",
            Kind::FullDisk => "full-disk",
            Kind::LostDisk => "lost-disk",
            Kind::OldDisk => "old-disk",
            Kind::Rot => "rot",
            Kind::Clock => "clock",
        }
    }

    /// What acknowledged writes may be missing on the victim afterwards.
    pub(crate) fn loses_data(self) -> bool {
        matches!(self, Kind::LostDisk | Kind::OldDisk | Kind::Rot)
    }

    fn possible(self, rights: &Rights) -> bool {
        match self {
            Kind::Kill | Kind::Pause | Kind::LostDisk | Kind::OldDisk | Kind::Rot => true,
            Kind::Cut | Kind::Part => rights.cut,
            Kind::FailedSync => rights.trace,
            Kind::FullDisk => rights.fill,
            Kind::Clock => rights.clock.is_some(),
        }
    }
}

/// Of the kinds that are wanted, those that this machine lets us do.
pub(crate) fn possible(wanted: &[Kind], rights: &Rights) -> Vec<Kind> {
    let wanted = if wanted.is_empty() { Kind::ALL.as_slice() } else { wanted };
    let mut kinds: Vec<Kind> = wanted.iter().copied().filter(|kind| kind.possible(rights)).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// What exactly is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Kill,
    Pause,
    Cut {
        peers: Vec<usize>,
        direction: Direction,
    },
    Part {
        /// The victim among them.
        minority: Vec<usize>,
    },
    FailedSync,
    FullDisk,
    LostDisk,
    /// The copy is of a node that was stopped cleanly, or killed.
    OldDisk {
        clean: bool,
    },
    /// Where the bytes are follows from the dice.
    Rot {
        dice: u64,
    },
    Clock {
        offset_ms: i64,
    },
}

/// One fault to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) node: usize,
    pub(crate) deed: Deed,
    pub(crate) length: Duration,
    /// Quiet time after it.
    pub(crate) pause: Duration,
}

/// Largest shift of a clock, in both directions.
const CLOCK_OFFSET_MS_MAX: i64 = 2_000;

/// So far apart may two clocks be then, and a second more.
pub(crate) const CLOCKS_APART_US_MAX: Micros = CLOCK_OFFSET_MS_MAX as Micros * 2_000 + 1_000_000;

/// Faults without end.
#[derive(Debug)]
pub(crate) struct Plan {
    dice: StdRng,
    kinds: Vec<Kind>,
    nodes: usize,
    /// Of the present round: each kind comes once in each.
    round: Vec<Kind>,
    hurried: bool,
}

impl Plan {
    /// `hurried`: a run so short that faults must be, too.
    pub(crate) fn new(seed: u64, kinds: Vec<Kind>, nodes: usize, hurried: bool) -> Plan {
        Plan { dice: StdRng::seed_from_u64(seed), kinds, nodes, round: Vec::new(), hurried }
    }

    fn deed(&mut self, kind: Kind, node: usize) -> Deed {
        let dice = &mut self.dice;
        match kind {
            Kind::Kill => Deed::Kill,
            Kind::Pause => Deed::Pause,
            Kind::FailedSync => Deed::FailedSync,
            Kind::FullDisk => Deed::FullDisk,
            Kind::LostDisk => Deed::LostDisk,
            Kind::OldDisk => Deed::OldDisk { clean: dice.random() },
            Kind::Rot => Deed::Rot { dice: dice.random() },
            Kind::Cut => {
                let mut peers: Vec<usize> = (0..self.nodes).filter(|peer| *peer != node).collect();
                if dice.random_bool(0.4) {
                    peers = vec![peers[dice.random_range(0..peers.len())]];
                }
                let directions = [Direction::Inbound, Direction::Outbound, Direction::Both];
                Deed::Cut { peers, direction: directions[dice.random_range(0..directions.len())] }
            }
            Kind::Part => {
                let mut others: Vec<usize> = (0..self.nodes).filter(|other| *other != node).collect();
                others.shuffle(dice);
                others.truncate((self.nodes - 1) / 2 - 1);
                others.push(node);
                others.sort_unstable();
                Deed::Part { minority: others }
            }
            Kind::Clock => {
                let size = dice.random_range(100..=CLOCK_OFFSET_MS_MAX);
                Deed::Clock { offset_ms: if dice.random() { size } else { -size } }
            }
        }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    /// None only where no kind of fault is possible.
    fn next(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.round.shuffle(&mut self.dice);
        }
        let kind = self.round.pop()?;
        let node = self.dice.random_range(0..self.nodes);
        let deed = self.deed(kind, node);
        let (shortest, longest) = match (kind, self.hurried) {
            (_, true) => (1_000, 3_000),
            // Some restarts are quicker than anybody notices.
            (Kind::Kill, _) => (0, 12_000),
            (Kind::Pause, _) => (500, 15_000),
            (Kind::Cut | Kind::Part | Kind::FullDisk, _) => (3_000, 25_000),
            (Kind::Clock, _) => (10_000, 25_000),
            (Kind::FailedSync | Kind::Rot, _) => (0, 5_000),
            (Kind::LostDisk | Kind::OldDisk, _) => (2_000, 12_000),
        };
        let length = Duration::from_millis(self.dice.random_range(shortest..=longest));
        let pauses = if self.hurried { 500..=2_000 } else { 2_000..=10_000 };
        let pause = Duration::from_millis(self.dice.random_range(pauses));
        Some(Fault { kind, node, deed, length, pause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let plan = |seed| Plan::new(seed, Kind::ALL.to_vec(), 3, false).take(100).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn each_round_has_each_kind_once_and_victims_are_nodes() {
        let plan: Vec<Fault> = Plan::new(1, Kind::ALL.to_vec(), 5, false).take(90).collect();
        for round in plan.chunks(Kind::ALL.len()) {
            let mut kinds: Vec<Kind> = round.iter().map(|fault| fault.kind).collect();
            kinds.sort();
            assert_eq!(kinds, Kind::ALL);
        }
        for fault in plan {
            assert!(fault.node < 5);
            if let Deed::Cut { peers, .. } = &fault.deed {
                assert!(!peers.is_empty() && !peers.contains(&fault.node), "{fault:?}");
            }
            if let Deed::Part { minority } = &fault.deed {
                assert!(minority.len() == 2 && minority.contains(&fault.node), "{fault:?}");
            }
        }
    }

    #[test]
    fn what_the_machine_lacks_the_right_to_is_left_out() {
        let none = possible(&[], &Rights::default());
        assert_eq!(none, [Kind::Kill, Kind::Pause, Kind::LostDisk, Kind::OldDisk, Kind::Rot]);
        let all = Rights { cut: true, fill: true, trace: true, clock: Some("x".into()), missing: Vec::new() };
        assert_eq!(possible(&[], &all), Kind::ALL);
        assert_eq!(possible(&[Kind::Cut, Kind::Cut], &all), [Kind::Cut]);
        assert!(possible(&[Kind::Cut], &Rights::default()).is_empty());
        assert_eq!(Plan::new(1, Vec::new(), 3, false).next(), None);
    }
}
