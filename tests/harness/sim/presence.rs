//! Who could hear whom, so that nobody is called down without a reason (C13).
//!
//! In: deaths, pauses, cuts, slow links, as they begin and end. Out: since when a node has had no
//! reason not to hear a member. A node's own pause or jumping clock is no reason: it must distrust
//! itself first.

use super::world::World;
use crate::properties::{Check, c13_presence, c14_progress};
use merganser_core::event::Notice;
use merganser_core::id::NodeId;
use merganser_core::membership::MemberState;
use std::collections::BTreeMap;

/// For so many periods of gossip a member must have been there to be heard: more than it takes to be
/// called down, and a few for the way. Another second for stragglers.
const AUDIBLE_PERIODS: u64 = 24;

/// When there was last a reason for a node not to hear a member.
#[derive(Debug, Default)]
pub(super) struct Presence {
    silent_us: BTreeMap<(usize, usize), u64>,
}

impl World {
    /// Nobody may hear this machine now; and, if it boots, it has heard nobody.
    pub(super) fn falls_silent(&mut self, node: usize, boots: bool) {
        for other in 0..self.machines.len() {
            self.presence.silent_us.insert((other, node), self.now_us);
            if boots {
                self.presence.silent_us.insert((node, other), self.now_us);
            }
        }
    }

    /// These two may not hear one another now.
    pub(super) fn may_not_hear(&mut self, a: usize, b: usize) {
        self.presence.silent_us.insert((a, b), self.now_us);
        self.presence.silent_us.insert((b, a), self.now_us);
    }

    /// A node says something of itself or of a member.
    pub(super) fn judge_notice(&mut self, node: usize, notice: &Notice) -> Check {
        match notice {
            Notice::Joined { .. } => {
                if let Some(process) = &mut self.machines[node].process {
                    process.joined = true;
                }
                Ok(())
            }
            Notice::Member { node: member, state: MemberState::Down } => self.judge_down(node, *member),
            _ => Ok(()),
        }
    }

    fn judge_down(&mut self, node: usize, member: NodeId) -> Check {
        let Some(member) = self.node_of(member) else { return Ok(()) };
        let silent_us = self.presence.silent_us.get(&(node, member)).copied().unwrap_or_default();
        self.count("member down");
        let machine = &self.machines[member];
        let is_there = machine.process.is_some() && machine.paused_until_us.is_none();
        let is_cut = self.network.is_troubled(node, member) || self.network.is_troubled(member, node);
        let since = self.now_us - silent_us;
        let audible_us = self.options.gossip_period_ms.max(1) * 1_000 * AUDIBLE_PERIODS + 1_000_000;
        if is_there && !is_cut && since > audible_us {
            return c13_presence::on_down(&self.machines[node].name, &machine.name, since);
        }
        Ok(())
    }

    /// C14: all serve, and may ask all.
    pub(super) fn judge_reach(&self) -> Check {
        for machine in &self.machines {
            let Some(process) = &machine.process else { continue };
            let cannot_reach = |other: &&super::machine::Machine| {
                other.id != machine.id && other.process.is_some() && !process.node.is_reachable(other.id)
            };
            if let Some(other) = self.machines.iter().find(cannot_reach) {
                return c14_progress::on_unreached_in_health(&machine.name, &other.name);
            }
        }
        Ok(())
    }

    /// What all make of all.
    pub(super) fn judge_members(&self) -> Check {
        let view = |machine: &super::machine::Machine| {
            let process = machine.process.as_ref()?;
            Some((machine.name.clone(), process.node.members(machine.now(self.now_us))))
        };
        let views: Vec<_> = self.machines.iter().filter_map(view).collect();
        c13_presence::at_end(&views)
    }
}
