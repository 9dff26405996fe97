//! Three replicas of one key, what is under way between them, and every next step.
//!
//! ```text
//!   write         by any node, blind or with what it shows: durable, or on its way before a crash
//!   exchange      a node is sent what another holds, now; delay, deliver: later, more than once
//!   crash         what was not synced is gone; or the whole disk is
//!   ask, confirm, seal, reap   the fence: all hold this delete and nothing else, so it is dropped
//! ```
//!
//! Lost messages are exchanges that never happen. A late message stays under way, so repeating and
//! reordering need no steps of their own; it dies with the process that it was sent to, as its
//! connection does. An acknowledgement is counted as early as can be: once two nodes hold a write
//! durably. In: a model state. Out: all that may follow. Absent: judgement (`judge.rs`).

use super::Variant;
use super::library::{Dots, EMPTY, Library, NODES, Renaming, StateId, dot_at, renamed, renamed_dot};

/// All nodes, by bit.
const ALL: u8 = (1 << NODES) - 1;

/// A replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Replica {
    /// What it would come back with after a crash.
    pub(super) durable: StateId,
    /// What it goes on from.
    pub(super) latest: StateId,
    /// How many actors it had before this one.
    life: u8,
    /// Dots of this actor.
    issued: u8,
    /// What it has confirmed to the fence.
    grave: StateId,
}

/// A client's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Write {
    pub(super) dot: u8,
    pub(super) delete: bool,
    /// What its client had seen.
    pub(super) seen: Dots,
    pub(super) acknowledged: bool,
}

/// A round of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Round {
    None,
    /// First pass: who holds just this, and remembers it from now on.
    Asking {
        by: u8,
        held: StateId,
        confirmed: u8,
    },
    /// Second pass: who still remembers. Without it a node that confirmed and then lost what it
    /// remembered would count.
    Sealing {
        by: u8,
        held: StateId,
        sealed: u8,
    },
    /// There was an instant at which all remembered.
    Agreed {
        held: StateId,
    },
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bounds {
    /// Puts of clients.
    pub puts: u8,
    /// Deletes of clients.
    pub deletes: u8,
    /// Processes that die.
    pub crashes: u8,
    /// Disks that are lost.
    pub losses: u8,
    /// Messages that arrive long after they were sent, at any time and any number of times.
    pub late: u8,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Model {
    pub(super) replicas: [Replica; NODES],
    /// States under way: to whom, what. Sorted.
    messages: Vec<(u8, StateId)>,
    /// Sorted by dot.
    pub(super) writes: Vec<Write>,
    pub(super) round: Round,
    left: Bounds,
}

/// A step.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A client's put or delete, blind or with what its coordinator shows.
    Write {
        /// The coordinator.
        at: u8,
        /// What the client had seen.
        context: u64,
        /// A delete.
        delete: bool,
        /// Durable at once; otherwise it never will be, and can only leak.
        synced: bool,
    },
    /// A message that arrives late.
    Deliver {
        /// Where.
        to: u8,
        /// What.
        state: u16,
    },
    /// A message that arrives at once.
    Exchange {
        /// The sender.
        from: u8,
        /// The receiver.
        to: u8,
    },
    /// A message that will arrive late.
    Delay {
        /// The sender.
        from: u8,
        /// The receiver.
        to: u8,
    },
    /// A process dies, and perhaps its disk with it.
    Crash {
        /// Whose.
        at: u8,
        /// Everything is gone.
        disk_too: bool,
    },
    /// The fence begins.
    Ask {
        /// The collector.
        by: u8,
    },
    /// Holds just that, and remembers.
    Confirm {
        /// Who.
        at: u8,
    },
    /// Still remembers.
    Seal {
        /// Who.
        at: u8,
    },
    /// Drops it.
    Reap {
        /// Who.
        at: u8,
    },
}

/// A dot that was issued before.
pub(super) struct Reissued(pub(super) u8);

impl Model {
    pub(super) fn new(left: Bounds) -> Model {
        let replica = Replica { durable: EMPTY, latest: EMPTY, life: 0, issued: 0, grave: EMPTY };
        Model {
            replicas: [replica; NODES],
            messages: Vec::new(),
            writes: Vec::new(),
            round: Round::None,
            left,
        }
    }

    /// Everything that may happen next.
    pub(super) fn steps(&self, library: &Library, variant: Variant) -> Vec<Step> {
        let mut steps = Vec::new();
        for at in 0..NODES as u8 {
            let replica = self.replicas[usize::from(at)];
            let synced = replica.durable == replica.latest;
            let shape = library.shape(replica.durable);
            let mut contexts = vec![0, shape.seen];
            contexts.dedup();
            for context in contexts {
                // A write that is not synced yet matters only to a crash that is still to come.
                let may_leak = self.left.crashes + self.left.losses > 0;
                for synced in [true, false].into_iter().filter(|now| if *now { synced } else { may_leak }) {
                    if self.left.puts > 0 {
                        steps.push(Step::Write { at, context, delete: false, synced });
                    }
                    if self.left.deletes > 0 && context != 0 {
                        steps.push(Step::Write { at, context, delete: true, synced });
                    }
                }
            }
            for from in (0..NODES as u8).filter(|from| *from != at) {
                let theirs = self.replicas[usize::from(from)].latest;
                if library.shape(theirs).seen & !library.shape(replica.latest).seen != 0 {
                    steps.push(Step::Exchange { from, to: at });
                    if self.left.late > 0 && !self.messages.contains(&(at, theirs)) {
                        steps.push(Step::Delay { from, to: at });
                    }
                }
            }
            if self.left.crashes > 0 {
                steps.push(Step::Crash { at, disk_too: false });
            }
            if self.left.losses > 0 {
                steps.push(Step::Crash { at, disk_too: true });
            }
            match self.round {
                _ if variant == Variant::ReapByTime && synced && shape.is_deleted() => {
                    steps.push(Step::Reap { at })
                }
                _ if variant == Variant::ReapByTime => {}
                Round::None if synced && shape.is_deleted() => steps.push(Step::Ask { by: at }),
                Round::Asking { held, confirmed, .. }
                    if synced && replica.durable == held && confirmed >> at & 1 == 0 =>
                {
                    steps.push(Step::Confirm { at })
                }
                Round::Sealing { held, sealed, .. } if replica.grave == held && sealed >> at & 1 == 0 => {
                    steps.push(Step::Seal { at })
                }
                Round::Agreed { held } if synced && replica.durable == held => steps.push(Step::Reap { at }),
                _ => {}
            }
        }
        steps.extend(self.messages.iter().map(|(to, state)| Step::Deliver { to: *to, state: *state }));
        steps
    }

    /// The model after a step.
    pub(super) fn after(
        &self,
        library: &mut Library,
        variant: Variant,
        step: Step,
    ) -> Result<Model, Reissued> {
        let mut next = self.clone();
        match step {
            Step::Write { at, context, delete, synced } => {
                next.write(library, at, context, delete, synced)?
            }
            Step::Deliver { to, state } => next.take_in(library, variant, to, state),
            Step::Exchange { from, to } => {
                next.take_in(library, variant, to, self.replicas[usize::from(from)].latest)
            }
            Step::Delay { from, to } => {
                next.left.late -= 1;
                next.messages.push((to, self.replicas[usize::from(from)].latest));
            }
            Step::Crash { at, disk_too } => next.crash(library, variant, at, disk_too),
            Step::Ask { by } => {
                let held = self.replicas[usize::from(by)].durable;
                next.round = Round::Asking { by, held, confirmed: 0 };
                next.confirm(variant, by);
            }
            Step::Confirm { at } => next.confirm(variant, at),
            Step::Seal { at } => next.seal(at),
            Step::Reap { at } => {
                let replica = &mut next.replicas[usize::from(at)];
                (replica.durable, replica.latest) = (EMPTY, EMPTY);
            }
        }
        next.acknowledge(library);
        next.forget(library, variant);
        Ok(next)
    }

    fn write(
        &mut self,
        library: &mut Library,
        at: u8,
        context: Dots,
        delete: bool,
        synced: bool,
    ) -> Result<(), Reissued> {
        let left = if delete { &mut self.left.deletes } else { &mut self.left.puts };
        *left -= 1;
        let replica = &mut self.replicas[usize::from(at)];
        replica.issued += 1;
        let dot = dot_at(usize::from(at), usize::from(replica.life), usize::from(replica.issued));
        if self.writes.iter().any(|write| write.dot == dot) {
            return Err(Reissued(dot));
        }
        replica.latest = library.write(replica.latest, context, dot, delete);
        if synced {
            replica.durable = replica.latest;
        }
        self.writes.push(Write { dot, delete, seen: context, acknowledged: false });
        self.writes.sort_unstable();
        Ok(())
    }

    fn take_in(&mut self, library: &mut Library, variant: Variant, to: u8, state: StateId) {
        let replica = &mut self.replicas[usize::from(to)];
        let synced = replica.durable == replica.latest;
        let passes = match replica.grave {
            EMPTY => state,
            grave => library.past_grave(state, grave),
        };
        replica.latest = match variant {
            Variant::Overwrite => passes,
            _ => library.sync(replica.latest, passes),
        };
        if synced {
            replica.durable = replica.latest;
        }
    }

    fn crash(&mut self, library: &Library, variant: Variant, at: u8, disk_too: bool) {
        let left = if disk_too { &mut self.left.losses } else { &mut self.left.crashes };
        *left -= 1;
        let replica = &mut self.replicas[usize::from(at)];
        if disk_too {
            replica.durable = EMPTY;
        }
        replica.latest = replica.durable;
        replica.grave = EMPTY;
        if variant == Variant::StableActor {
            // It goes on from what its disk knows of itself.
            let seen = library.shape(replica.durable).seen;
            let issued = |count: &u8| *count == 0 || seen >> dot_at(at.into(), 0, (*count).into()) & 1 == 1;
            replica.issued = (0..=replica.issued).rev().find(issued).unwrap_or(0);
        } else {
            replica.life += 1;
            replica.issued = 0;
        }
        self.messages.retain(|(to, _)| *to != at);
        if matches!(self.round, Round::Asking { by, .. } | Round::Sealing { by, .. } if by == at) {
            self.round = Round::None;
        }
    }

    fn confirm(&mut self, variant: Variant, at: u8) {
        let Round::Asking { by, held, confirmed } = self.round else { return };
        let confirmed = confirmed | 1 << at;
        self.round = Round::Asking { by, held, confirmed };
        if variant != Variant::NoGrave {
            self.replicas[usize::from(at)].grave = held;
        }
        if confirmed == ALL {
            self.round = match variant {
                Variant::OnePass | Variant::NoGrave => Round::Agreed { held },
                _ => Round::Sealing { by, held, sealed: 0 },
            };
        }
    }

    fn seal(&mut self, at: u8) {
        let Round::Sealing { by, held, sealed } = self.round else { return };
        let sealed = sealed | 1 << at;
        self.round = if sealed == ALL { Round::Agreed { held } } else { Round::Sealing { by, held, sealed } };
    }

    fn acknowledge(&mut self, library: &Library) {
        let durable = self.replicas.map(|replica| library.shape(replica.durable).seen);
        for write in &mut self.writes {
            write.acknowledged |= durable.iter().filter(|seen| *seen >> write.dot & 1 == 1).count() >= 2;
        }
    }

    /// Drops from view what can make no difference any more: what is under way to a node that holds
    /// it all durably (it will hold it, or a grave of it, for as long as its process lives).
    fn forget(&mut self, library: &Library, variant: Variant) {
        self.messages.sort_unstable();
        self.messages.dedup();
        if !variant.keeps_what_it_holds() {
            return;
        }
        let replicas = self.replicas;
        // What is live nowhere, and acknowledged no more than what had seen it.
        let states = replicas.iter().flat_map(|replica| [replica.durable, replica.latest]);
        let states = states.chain(self.messages.iter().map(|(_, state)| *state));
        let live = states.fold(0, |live, state| live | library.shape(state).live);
        let kept = |seen, write: &Write| seen | if write.acknowledged { write.seen } else { 0 };
        let stands_for = self.writes.iter().fold(0, kept);
        self.writes.retain(|write| {
            let answered_for = !write.acknowledged || stands_for >> write.dot & 1 == 1;
            live >> write.dot & 1 == 1 || !answered_for || write.delete
        });
        self.messages.retain(|(to, state)| {
            let Replica { durable, grave, .. } = replicas[usize::from(*to)];
            let known = library.shape(durable).seen | library.shape(grave).seen;
            library.shape(*state).seen & !known != 0
        });
    }

    /// The same model under the names that make it smallest: nodes are alike.
    pub(super) fn canonical(&self, library: &mut Library) -> Model {
        let mark = |node: usize| {
            let Replica { durable, latest, life, issued, grave } = self.replicas[node];
            let of = |id| {
                let shape = library.shape(id);
                shape.seen.count_ones() << 16 | shape.live.count_ones() << 8 | shape.deletes.count_ones()
            };
            let waiting = self.messages.iter().filter(|(to, _)| usize::from(*to) == node).count();
            (of(durable), of(latest), life, issued, of(grave), waiting)
        };
        let marks = [mark(0), mark(1), mark(2)];
        let fits = |order: &Renaming| {
            let mut placed = marks;
            (0..NODES).for_each(|node| placed[usize::from(order[node])] = marks[node]);
            placed.is_sorted()
        };
        const ORDERS: [Renaming; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let orders: Vec<Renaming> = ORDERS.into_iter().filter(|order| fits(order)).collect();
        let models = orders.iter().map(|order| self.renamed(library, order));
        models.min().expect("some order is sorted")
    }

    fn renamed(&self, library: &mut Library, to: &Renaming) -> Model {
        let mut model = self.clone();
        for (node, replica) in self.replicas.iter().enumerate() {
            let mut replica = *replica;
            for state in [&mut replica.durable, &mut replica.latest, &mut replica.grave] {
                *state = library.rename(*state, to);
            }
            model.replicas[usize::from(to[node])] = replica;
        }
        for (node, state) in &mut model.messages {
            (*node, *state) = (to[usize::from(*node)], library.rename(*state, to));
        }
        model.messages.sort_unstable();
        for write in &mut model.writes {
            (write.dot, write.seen) = (renamed_dot(write.dot, to), renamed(write.seen, to));
        }
        model.writes.sort_unstable();
        match &mut model.round {
            Round::None => {}
            Round::Agreed { held } => *held = library.rename(*held, to),
            Round::Asking { by, held, confirmed: nodes } | Round::Sealing { by, held, sealed: nodes } => {
                (*by, *held) = (to[usize::from(*by)], library.rename(*held, to));
                *nodes = (0..NODES).fold(0, |all, node| all | (*nodes >> node & 1) << to[node]);
            }
        }
        model
    }
}
