//! The asking side: one round with one peer, keyspace by keyspace, from the root down to keys.
//!
//! ```text
//!   root ─▶ equal: proven
//!     └▶ branches that differ ─▶ freshen own leaves ─▶ ask for theirs ─▶ slots that differ ─▶ slot_work
//!   nothing left: the next keyspace; where much was repaired once more at the end
//! ```
//!
//! At most [`BRANCHES_MAX`] branches and [`WORKS_MAX`] stretches of slots are under way, so that what is kept is bounded and the
//! answerer's pace is the round's. In: answers, the end of somebody's patience. Out: questions. Absent: when a round
//! begins, see `schedule`; what a slot's keys lead to, see `slot_work`.

use super::exchange::{Exchange, Sums};
use super::leaf::Sum;
use super::rescans::Then;
use super::shared::{SlotSet, Stretch};
use super::slot_work::SlotWork;
use super::tree::Tree;
use crate::event::{Effect, Effects};
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::message::Message;
use crate::node::{Node, Timer};
use crate::ring::Slot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Branches whose leaves are being compared at a time.
const BRANCHES_MAX: usize = 2;
/// Stretches of slots whose keys are being compared at a time.
const WORKS_MAX: usize = 8;
/// What that weighs in the budget, beside the states that it moves.
const WORK_COST_BYTES: usize = 4 << 10;
/// Slots that may wait before the next branch is looked at.
const SLOTS_AHEAD: usize = 64;
/// A pass that repaired so many keys is followed by another one, once the round's other keyspaces had their turn.
const AGAIN_FROM: u64 = 64;
/// Passes of one keyspace in a round: under a stream of writes to many keys each of them finds much, and other keyspaces and
/// peers would wait for ever.
const PASSES_MAX: u32 = 2;
/// How many times a request's patience a question has.
const PATIENCE_FACTOR: u64 = 4;
/// Questions without an answer after which the round is given up.
const UNANSWERED_MAX: u32 = 4;

/// A round with one peer.
pub(crate) struct Round {
    pub(super) peer: NodeId,
    /// Each with the number of its next pass.
    todo: VecDeque<(KeyspaceId, u32)>,
    pub(super) pass: Option<Pass>,
    /// Questions under way, and until when.
    asked: BTreeMap<OpId, Question>,
    unanswered: u32,
    /// Nothing differed.
    pub(super) idle: bool,
}

/// One comparison of one keyspace.
pub(crate) struct Pass {
    pub(super) keyspace: KeyspaceId,
    pub(super) shared: Arc<SlotSet>,
    number: u32,
    branches: VecDeque<u8>,
    /// Being freshened, or asked for.
    under_way: BTreeSet<u8>,
    slots: VecDeque<Slot>,
    pub(super) works: BTreeMap<OpId, SlotWork>,
    pub(super) repaired: u64,
    /// Slots that differed.
    differing: u64,
}

#[derive(Clone, Copy)]
struct Question {
    until: Millis,
    about: About,
}

#[derive(Clone, Copy)]
pub(super) enum About {
    Root,
    Branch(u8),
    Work(OpId),
}

impl Round {
    pub(super) fn new(peer: NodeId, todo: Vec<KeyspaceId>) -> Round {
        let todo = todo.into_iter().map(|keyspace| (keyspace, 0)).collect();
        Round { peer, todo, pass: None, asked: BTreeMap::new(), unanswered: 0, idle: true }
    }

    /// The work of a slot, by its id.
    pub(super) fn work(&mut self, id: OpId) -> Option<(&mut SlotWork, KeyspaceId)> {
        let pass = self.pass.as_mut()?;
        pass.works.get_mut(&id).map(|work| (work, pass.keyspace))
    }
}

/// The sum of a tree over the slots of a branch that are shared; None: not known.
fn branch_sum(tree: Option<&Tree>, shared: &SlotSet, branch: u8) -> Option<Sum> {
    let Some(tree) = tree else { return Some(Sum::default()) };
    if shared.has_all(branch) {
        return tree.branch_sum(branch);
    }
    let mut all = Sum::default();
    for slot in shared.of_branch(branch) {
        all.join(tree.sum(slot)?);
    }
    Some(all)
}

/// The sum of a tree over all slots that are shared; None: not known.
pub(super) fn root_sum(tree: Option<&Tree>, shared: &SlotSet) -> Option<Sum> {
    let mut all = Sum::default();
    for branch in shared.branches() {
        all.join(branch_sum(tree, shared, branch)?);
    }
    Some(all)
}

/// The sums of all branches over the slots that are shared.
pub(super) fn branch_sums(tree: Option<&Tree>, shared: &SlotSet) -> Sums {
    let mut sums = Sums::new();
    for branch in shared.branches() {
        sums.set(branch, branch_sum(tree, shared, branch));
    }
    sums
}

/// The sums of a branch's leaves that are shared.
pub(super) fn leaf_sums(tree: Option<&Tree>, shared: &SlotSet, branch: u8) -> Sums {
    let mut sums = Sums::new();
    for slot in shared.of_branch(branch) {
        let sum = tree.map_or(Some(Sum::default()), |tree| tree.sum(slot));
        sums.set(slot.0 as u8, sum);
    }
    sums
}

impl Node {
    /// Asks the round's peer something.
    pub(super) fn ask_peer(
        &mut self,
        now: Millis,
        about: About,
        question: impl FnOnce(OpId) -> Exchange,
        effects: &mut Effects,
    ) {
        if let Some((to, op)) = self.question(now, about) {
            self.send_exchange(to, question(op), effects);
        }
    }

    /// As [`Node::ask_peer`], when the budget allows.
    pub(super) fn ask_peer_paced(
        &mut self,
        now: Millis,
        about: About,
        question: impl FnOnce(OpId) -> Exchange,
        effects: &mut Effects,
    ) {
        if let Some((to, op)) = self.question(now, about) {
            self.send_paced(now, to, question(op), effects);
        }
    }

    fn question(&mut self, now: Millis, about: About) -> Option<(NodeId, OpId)> {
        let op = self.op();
        // The peer may first have to read, and paces what it sends.
        let until = now.after(PATIENCE_FACTOR * self.config.timeout_ms);
        let round = self.anti_entropy.round.as_mut()?;
        round.asked.insert(op, Question { until, about });
        Some((round.peer, op))
    }

    pub(super) fn send_exchange(&mut self, to: NodeId, exchange: Exchange, effects: &mut Effects) {
        let bytes = exchange.size_bytes() as u64;
        self.counters.exchange_bytes += bytes;
        effects.push(Effect::Send { to, message: Message::Tree(exchange) });
    }

    /// Does whatever can be done for the round now.
    pub(super) fn advance_round(&mut self, now: Millis, effects: &mut Effects) {
        loop {
            let Some(round) = self.anti_entropy.round.as_mut() else { return };
            let Some(pass) = round.pass.as_mut() else {
                match round.todo.pop_front() {
                    Some((keyspace, number)) => self.begin_comparison(now, keyspace, number, effects),
                    None => return self.end_round(),
                }
                continue;
            };
            if pass.works.len() < WORKS_MAX && !pass.slots.is_empty() {
                let rate = self.repair_rate(now);
                match self.anti_entropy.budget.ask(now, rate) {
                    Ok(()) => self.begin_next_stretch(effects),
                    Err(at) => return self.set_timer(at, Timer::Budget),
                }
                continue;
            }
            if pass.under_way.len() < BRANCHES_MAX
                && pass.slots.len() < SLOTS_AHEAD
                && let Some(branch) = pass.branches.pop_front()
            {
                pass.under_way.insert(branch);
                let (keyspace, shared) = (pass.keyspace, pass.shared.clone());
                self.freshen(now, keyspace, &shared, branch, Then::Ask { branch }, effects);
                continue;
            }
            let under_way = !pass.works.is_empty() || !pass.under_way.is_empty() || !round.asked.is_empty();
            if under_way {
                return;
            }
            let (keyspace, number) = (pass.keyspace, pass.number);
            let again = pass.repaired >= AGAIN_FROM || (number == 0 && pass.differing > 0);
            round.pass = None;
            if again && number + 1 < PASSES_MAX {
                round.todo.push_back((keyspace, number + 1));
            }
        }
    }

    /// Slots that follow one another go together in the first pass. In a later one each goes alone, for a leaf
    /// is settled only by what its own slot holds.
    fn begin_next_stretch(&mut self, effects: &mut Effects) {
        let pass = self.anti_entropy.round.as_mut().and_then(|round| round.pass.as_mut());
        let Some((pass, first)) = pass.and_then(|pass| pass.slots.pop_front().map(|first| (pass, first)))
        else {
            return;
        };
        let mut slots = Stretch::one(first);
        while pass.number == 0
            && let Some(longer) = pass.slots.front().and_then(|next| slots.and(*next))
        {
            slots = longer;
            pass.slots.pop_front();
        }
        self.anti_entropy.budget.spend(WORK_COST_BYTES);
        self.begin_work(slots, effects);
    }

    fn begin_comparison(&mut self, now: Millis, keyspace: KeyspaceId, number: u32, effects: &mut Effects) {
        let Some(peer) = self.anti_entropy.round.as_ref().map(|round| round.peer) else { return };
        let Some(shared) = self.shared_with(peer, keyspace) else { return };
        let tree = self.anti_entropy.trees.get(&keyspace);
        let sum = root_sum(tree, &shared);
        let Some(round) = self.anti_entropy.round.as_mut() else { return };
        round.pass = Some(Pass {
            keyspace,
            shared,
            number,
            branches: VecDeque::new(),
            under_way: BTreeSet::new(),
            slots: VecDeque::new(),
            works: BTreeMap::new(),
            repaired: 0,
            differing: 0,
        });
        let (stale, sum) = (sum.is_none(), sum.unwrap_or_default());
        self.ask_peer(now, About::Root, |op| Exchange::Root { op, keyspace, sum, stale }, effects);
    }

    /// An answer of the round's peer, or of somebody else.
    pub(super) fn exchange_answered(
        &mut self,
        now: Millis,
        from: NodeId,
        answer: Exchange,
        effects: &mut Effects,
    ) {
        let Some(round) = self.anti_entropy.round.as_mut().filter(|round| round.peer == from) else { return };
        let Some(question) = round.asked.remove(&answer.op()) else { return };
        match (question.about, answer) {
            (About::Root, Exchange::Same { .. }) => self.root_answered(now, from),
            (About::Root, Exchange::Branches { sums, .. }) => self.branches_answered(now, sums),
            (About::Branch(branch), Exchange::Leaves { sums, .. }) => {
                self.leaves_answered(now, branch, &sums)
            }
            (About::Work(id), answer) => self.slot_answered(now, id, answer, effects),
            // It is not able to, or says something else.
            (about, _) => self.unanswered(about),
        }
        self.advance_round(now, effects);
    }

    fn root_answered(&mut self, now: Millis, peer: NodeId) {
        let pass = self.anti_entropy.round.as_ref().and_then(|round| round.pass.as_ref());
        if let Some(keyspace) = pass.map(|pass| pass.keyspace) {
            self.all_proven(now, peer, keyspace);
        }
    }

    /// Whatever was asked will not be answered.
    fn unanswered(&mut self, about: About) {
        let Some(round) = self.anti_entropy.round.as_mut() else { return };
        round.unanswered += 1;
        let Some(pass) = round.pass.as_mut() else { return };
        match about {
            About::Root => {}
            About::Branch(branch) => {
                pass.under_way.remove(&branch);
            }
            About::Work(id) => {
                pass.works.remove(&id);
            }
        }
    }

    fn branches_answered(&mut self, now: Millis, theirs: Sums) {
        let Some(round) = self.anti_entropy.round.as_mut() else { return };
        let Some(pass) = round.pass.as_mut() else { return };
        let (keyspace, peer, shared) = (pass.keyspace, round.peer, pass.shared.clone());
        let mine = branch_sums(self.anti_entropy.trees.get(&keyspace), &shared);
        let (same, others): (Vec<u8>, Vec<u8>) =
            shared.branches().partition(|branch| mine.is_same(&theirs, *branch));
        // Somewhere on the circle, so that two peers that repair a third do not send it the same.
        let turn = (self.random_below(others.len().max(1) as u64)) as usize;
        if let Some(pass) = self.anti_entropy.round.as_mut().and_then(|round| round.pass.as_mut()) {
            pass.branches.extend(others[turn..].iter().chain(&others[..turn]));
        }
        same.iter().for_each(|branch| self.proven(now, peer, keyspace, *branch));
        self.differing(peer, keyspace, &others);
    }

    /// Own leaves of a branch are as fresh as they get: now the peer's.
    pub(super) fn ask_leaves(
        &mut self,
        now: Millis,
        keyspace: KeyspaceId,
        branch: u8,
        effects: &mut Effects,
    ) {
        // The round that wanted it may be over.
        let pass = self.anti_entropy.round.as_ref().and_then(|round| round.pass.as_ref());
        if pass.is_some_and(|pass| pass.keyspace == keyspace && pass.under_way.contains(&branch)) {
            let question = |op| Exchange::AskLeaves { op, keyspace, branch };
            self.ask_peer(now, About::Branch(branch), question, effects);
        }
    }

    fn leaves_answered(&mut self, now: Millis, branch: u8, theirs: &Sums) {
        let Some(round) = self.anti_entropy.round.as_mut() else { return };
        let Some(pass) = round.pass.as_mut() else { return };
        let (keyspace, peer) = (pass.keyspace, round.peer);
        pass.under_way.remove(&branch);
        let mine = leaf_sums(self.anti_entropy.trees.get(&keyspace), &pass.shared, branch);
        let before = pass.slots.len();
        pass.slots.extend(pass.shared.of_branch(branch).filter(|slot| !mine.is_same(theirs, slot.0 as u8)));
        let differing = (pass.slots.len() - before) as u64;
        pass.differing += differing;
        if differing == 0 {
            self.proven(now, peer, keyspace, branch);
        } else {
            round.idle = false;
        }
    }

    /// Ends the patience with questions whose time is over, and with a peer that cannot be reached.
    pub(crate) fn check_round(&mut self, now: Millis, effects: &mut Effects) {
        let Some(round) = self.anti_entropy.round.as_mut() else { return };
        let late: Vec<OpId> =
            round.asked.iter().filter(|(_, question)| question.until <= now).map(|(op, _)| *op).collect();
        let peer = round.peer;
        for op in late {
            let round = self.anti_entropy.round.as_mut();
            if let Some(question) = round.and_then(|round| round.asked.remove(&op)) {
                self.unanswered(question.about);
            }
        }
        let silent = self.anti_entropy.round.as_ref().is_some_and(|round| round.unanswered >= UNANSWERED_MAX);
        if silent || !self.is_reachable(peer) {
            self.anti_entropy.round = None;
            return;
        }
        self.set_timer(now.after(self.config.timeout_ms), Timer::Exchange);
        self.advance_round(now, effects);
    }

    fn end_round(&mut self) {
        if let Some(round) = self.anti_entropy.round.take()
            && round.unanswered == 0
        {
            self.counters.exchanges += 1;
            self.counters.exchanges_idle += u64::from(round.idle);
        }
    }
}
