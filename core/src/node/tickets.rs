//! What a node waits for from storage and plugins: each question has a ticket, and a purpose.
//!
//! In: purposes. Out: tickets, and the room that a page of a scan belongs to. Absent: what is done with the answers.

use super::Node;
use crate::anti_entropy::scrub::{Comparing, RefillStep, ScrubPage, Serving};
use crate::anti_entropy::{KeysAsked, LostLeaves, Rescan, StatesAsked, TreeWrite, WorkScan};
use crate::event::{Effect, Effects, ScanPage, StorageFailure};
use crate::fence::{FenceScan, FenceTask};
use crate::handoff::{HintTask, PassOf};
use crate::id::{Millis, NodeId, OpId, PluginHash, Ticket};
use crate::replica::Completion;
use crate::version::Digest;
use bytes::Bytes;

/// What a ticket's answer is for.
pub(crate) enum Purpose {
    /// The state of an active key.
    ActiveRead(Bytes),
    /// A coordinated read's local part.
    LocalRead(OpId),
    /// A peer's read.
    PeerRead { to: NodeId, op: OpId, unless: Option<Digest> },
    /// Completions that wait for a write: of an active key, or a register's, or hints; and an object's leaf.
    Write {
        active: Option<Bytes>,
        register: Option<Bytes>,
        completions: Vec<Completion>,
        leaf: Option<TreeWrite>,
    },
    /// What a rescan found.
    Leaf(TreeWrite),
    /// This node's identity.
    Identity,
    /// What was known of the members before this boot.
    Members,
    /// One's own record, which a peer's is to replace.
    ScrubOwn(OpId),
    /// A range that is written anew.
    Refill(RefillStep),
    /// A page of a range.
    Scan(ScanFor),
    /// Something of hints.
    Hint(HintTask),
    /// Boots of members that are to outlive this one.
    Boots(Vec<(NodeId, u64)>),
    /// Something of a collection's round.
    Fence(FenceTask),
    /// Catalog or module: nobody waits.
    Own,
    /// A module's bytes.
    Module(PluginHash),
    /// A put's value before it is accepted.
    Validate(OpId),
    /// An active key's question.
    Active { key: Bytes, ask: OpId },
    /// A read's view.
    View(OpId),
}

/// What a scan's page is for: one variant a room.
pub(crate) enum ScanFor {
    /// Leaves of all trees, at the start.
    Leaves { to: Bytes },
    /// Which slots have keys, of leaves that cannot be read.
    LostLeaves(LostLeaves),
    /// A leaf anew.
    Leaf(Rescan),
    /// Hints from before the start.
    HintCount,
    /// Hints for a target that is back.
    HintsHome(PassOf),
    /// Own keys of a slot that differs from a peer's.
    Work { id: OpId, scan: WorkScan },
    /// Own keys that a peer asks about.
    Keys(KeysAsked),
    /// Own states that a peer asks for.
    States(StatesAsked),
    /// Own records, to be held against their digests.
    Scrub(ScrubPage),
    /// Own heads, which a peer's keys are held against.
    ScrubCompare(Box<Comparing>),
    /// Own records for a peer.
    ScrubFetch(Serving),
    /// Evidence, to be counted.
    Evidence,
    /// The number of the last damage.
    Damage,
    /// Keys to be collected.
    Fence(FenceScan),
}

/// How much of a range is read at once, and whether with its values.
pub(crate) struct PageSize {
    records_max: usize,
    bytes_max: usize,
    heads_only: bool,
}

impl PageSize {
    /// Heads alone.
    pub(crate) fn heads(records_max: usize, bytes_max: usize) -> PageSize {
        PageSize { records_max, bytes_max, heads_only: true }
    }

    /// Whole records.
    pub(crate) fn records(records_max: usize, bytes_max: usize) -> PageSize {
        PageSize { records_max, bytes_max, heads_only: false }
    }
}

impl Node {
    pub(crate) fn ticket(&mut self, purpose: Purpose) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, purpose);
        ticket
    }

    /// Asks for the first page of a range: from, inclusive, and to, exclusive.
    pub(crate) fn scan(
        &mut self,
        scan: ScanFor,
        range: (Bytes, Bytes),
        page: PageSize,
        effects: &mut Effects,
    ) {
        let ticket = self.ticket(Purpose::Scan(scan));
        let ((from, to), PageSize { records_max, bytes_max, heads_only }) = (range, page);
        effects.push(Effect::Scan { ticket, from, to, records_max, bytes_max, heads_only });
    }

    /// Those that wait for a write under way.
    pub(crate) fn completions_of(&mut self, ticket: Ticket) -> Option<&mut Vec<Completion>> {
        match self.tickets.get_mut(&ticket) {
            Some(Purpose::Write { completions, .. }) => Some(completions),
            _ => None,
        }
    }

    /// Registers whose write is under way.
    pub(crate) fn registers_under_way(&self) -> impl Iterator<Item = &Bytes> {
        self.tickets.values().filter_map(|purpose| match purpose {
            Purpose::Write { register, .. } => register.as_ref(),
            _ => None,
        })
    }

    /// A page of a range has come, or why there is none.
    pub(super) fn scanned(
        &mut self,
        now: Millis,
        scan: ScanFor,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        match scan {
            ScanFor::Leaves { to } => self.leaves_scanned(now, to, result, effects),
            ScanFor::LostLeaves(lost) => self.lost_leaves_scanned(now, lost, result, effects),
            ScanFor::HintCount => self.hints_counted(now, result, effects),
            ScanFor::HintsHome(pass) => self.hints_scanned(now, pass, result, effects),
            ScanFor::Leaf(rescan) => self.leaf_scanned(now, rescan, result, effects),
            ScanFor::Work { id, scan } => self.work_scanned(now, id, scan, result, effects),
            ScanFor::Keys(asked) => self.keys_scanned(asked, result, effects),
            ScanFor::States(asked) => self.states_read(now, asked, result, effects),
            ScanFor::Scrub(page) => self.scrub_page_read(now, page, result, effects),
            ScanFor::ScrubCompare(comparing) => self.compared(now, *comparing, result, effects),
            ScanFor::ScrubFetch(serving) => self.fetch_read(serving, result, effects),
            ScanFor::Evidence => self.evidence_counted(result),
            ScanFor::Damage => self.damage_numbered(now, result, effects),
            ScanFor::Fence(scan) => self.fence_scanned(now, scan, result, effects),
        }
    }
}
