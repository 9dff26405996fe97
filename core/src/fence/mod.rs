//! The fence: what deletes and dead actors leave behind is collected only when nothing older can be
//! anywhere (R9, R14). See `docs/decisions/tombstone-fence.md` for why this holds.
//!
//! ```text
//!   write path, boot ─▶ slots with something to collect                      index
//!   first primary    ─▶ looks at a slot, heads only ─▶ a batch of keys        walk
//!                    ─▶ Confirm ─▶ Hold ─▶ Close, with every member            owner
//!   every member     ─▶ nothing under way, nothing older: a grave             member, graves
//!                    ─▶ what a grave covers comes in nowhere, leaves nowhere   grave, gate
//! ```
//!
//! Never by time alone (scylladb#23712). In: the write path's notes, periods, members' answers.
//! Out: keys that are no more, contexts that are short again. Absent: expiry as readers see it
//! (`version::expiry`), who is a member and who is dead (`membership`).

mod gate;
mod grave;
mod graves;
mod index;
mod member;
mod message;
mod owner;
mod roll;
mod view;
mod walk;

pub use message::{Fate, FenceMessage, Subject};
pub use view::{CollectionProgress, CollectionView};

pub(crate) use member::FenceTask;
pub(crate) use walk::FenceScan;

use crate::event::Effects;
use crate::id::{Millis, NodeId};
use crate::mutant::Mutant;
use crate::node::{Node, Timer};
use crate::replica::{ActiveKey, Home};
use crate::target::Target;
use crate::version::KeyState;
use graves::Graves;
use index::{BootWalk, Index};
use member::Member;
use owner::Owner;

/// Dead actors without a live version in a key's context from which on they are retired.
const RETIRE_FROM: usize = 2;
/// A grave ages by at most so many periods at once: the rest of the time this node did not live.
const PERIODS_AT_ONCE: u64 = 2;
/// How long a mutant remembers a grave: for a round, and not until hints are home.
const MUTANT_GRAVE_MS: u64 = 150;

/// All that a node knows of collection.
#[derive(Default)]
pub(crate) struct Fence {
    pub(crate) graves: Graves,
    index: Index,
    /// None: every key from before the boot was looked at.
    boot: Option<BootWalk>,
    booting: bool,
    member: Member,
    owner: Owner,
    roll: roll::Roll,
    /// Who counted as forgotten when last looked at.
    forgotten: Vec<NodeId>,
    period_at: Millis,
    /// Actors in the largest context that was written lately, and in the time before.
    largest: [usize; 2],
}

impl Node {
    /// Begins to look for what is to be collected.
    pub(crate) fn start_fence(&mut self, now: Millis) {
        if self.config.collect_period_ms == 0 {
            return;
        }
        self.walk_all();
        self.fence.period_at = now;
        self.set_timer(now.after(self.config.collect_period_ms), Timer::Collect);
    }

    /// Every key is to be looked at once.
    fn walk_all(&mut self) {
        let keyspaces = self.catalog().keyspaces.values().map(|entry| entry.id).collect();
        self.fence.boot = Some(BootWalk { keyspaces, from: None });
        self.fence.roll.walk_begins();
    }

    /// A period of collection.
    pub(crate) fn collect_period(&mut self, now: Millis, effects: &mut Effects) {
        let period_ms = self.config.collect_period_ms;
        if period_ms == 0 {
            return;
        }
        self.set_timer(now.after(period_ms), Timer::Collect);
        let passed_ms = now.since(self.fence.period_at).min(PERIODS_AT_ONCE * period_ms);
        self.fence.period_at = now;
        if !self.membership.is_serving() {
            return;
        }
        if self.members_away().is_empty() {
            self.fence.graves.grow_old(passed_ms);
        }
        let forgotten: Vec<NodeId> =
            self.member_ids().into_iter().filter(|node| self.is_forgotten(*node)).collect();
        if forgotten != self.fence.forgotten {
            // Slots may have another first primary now.
            self.fence.forgotten = forgotten;
            self.walk_all();
        }
        self.own_period(now, effects);
        self.roll_period(now, effects);
    }

    /// How long a grave lasts.
    fn grave_ms(&self) -> u64 {
        let short = self.mutant(Mutant::ReapWithoutHintCheck);
        if short { MUTANT_GRAVE_MS } else { self.config.grave_ms }
    }

    /// Every member of the cluster, this node included.
    fn member_ids(&self) -> Vec<NodeId> {
        self.config.members.iter().map(|member| member.ring.id).collect()
    }

    /// Those whose word is needed.
    fn members_needed(&self) -> Vec<NodeId> {
        let mut members = self.member_ids();
        members.retain(|node| !self.is_forgotten(*node));
        members
    }

    /// Members whose word is needed and who cannot give it now.
    fn members_away(&self) -> Vec<NodeId> {
        let mut members = self.members_needed();
        members.retain(|node| !self.is_reachable(*node));
        members
    }

    /// Whether this node collects a slot: its first primary that was not forgotten.
    fn collects(&self, target: &Target) -> bool {
        let primaries = self.ring.primaries(target.token, target.n());
        primaries.iter().find(|node| !self.is_forgotten(**node)) == Some(&self.config.node)
    }

    /// A key's state is about to be written: is there, or will there be, something to collect?
    pub(crate) fn note_collectable(&mut self, now: Millis, target: &Target, state: &KeyState) {
        let actors = match state {
            KeyState::Causal(siblings) => siblings.seen().actors(),
            KeyState::Lww(_) | KeyState::Lattice(_) => 0,
        };
        self.fence.largest[0] = self.fence.largest[0].max(actors);
        let gone_at = state.gone_at();
        let may_retire =
            actors > RETIRE_FROM && state.retirable(|actor| self.is_dead_actor(actor)).len() >= RETIRE_FROM;
        if self.config.collect_period_ms == 0 || (gone_at.is_none() && !may_retire) || !self.collects(target)
        {
            return;
        }
        let since = gone_at.filter(|at| *at <= now).map(|at| at.max(Millis(state.stamp().millis)));
        let due = if may_retire { now } else { gone_at.unwrap_or(now).max(now) };
        self.fence.index.note((target.entry.id, target.token.slot()), due, since);
    }

    /// What a key is when storage has nothing of it: nothing, or what its grave remembers.
    pub(crate) fn unless_buried(&self, active: &ActiveKey, state: KeyState) -> KeyState {
        let grave = self.fence.graves.get(&active.target.storage_key);
        let own_copy = active.home == Home::Object;
        match grave.filter(|grave| own_copy && grave.is_reaped()) {
            Some(grave)
                if state.is_empty() && !matches!(state, KeyState::Lww(_)) && !self.digs_no_graves() =>
            {
                grave.remains()
            }
            _ => state,
        }
    }

    /// Above what a register's write must be stamped to beat a delete that was collected.
    pub(crate) fn stamp_buried(&self, target: &Target) -> crate::version::Stamp {
        let grave = self.fence.graves.get(&target.storage_key);
        grave.map(|grave| grave.remains().stamp()).unwrap_or_default()
    }

    /// The bugs of collecting with nothing that remembers it.
    fn digs_no_graves(&self) -> bool {
        self.mutant(Mutant::NoGrave) || self.mutant(Mutant::ReapByTime)
    }
}

#[cfg(test)]
mod fence_test;
