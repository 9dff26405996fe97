//! This node's own records in a range of the disk that cannot be read.
//!
//! Who it is, the catalog, the modules and what it knows of the members are in memory, and written anew. Leaves follow from
//! the keys, and turn stale. Hints and evidence are lost: repair between primaries finds what hints were for, and an operator
//! is told. No replica holds any of it, so nobody is asked.
//!
//! In: a range. Out: the writes after which it may be given up. Absent: ranges of objects, which are `refill`'s; a damaged record
//! that is met at the start, when nothing of it is in memory: the shell refuses to start.

use super::refill::RefillStep;
use crate::anti_entropy::leaf::LeafRecord;
use crate::event::{Effects, WriteOp};
use crate::node::Node;
use crate::storage_key;
use bytes::Bytes;

/// Records written at once.
const OPS_MAX: usize = 1024;

impl Node {
    /// Writes what there is of a range of own records.
    pub(super) fn refill_own(&mut self, from: Bytes, to: Bytes, effects: &mut Effects) {
        if let Some(refill) = &mut self.anti_entropy.scrub.refill {
            refill.cursor = to.clone();
        }
        let stale = LeafRecord { stale: true, ..LeafRecord::default() }.record();
        let leaves = self.doubt_leaves(&from, &to);
        let leaves = leaves.into_iter().map(|key| WriteOp::Put { key, record: stale.clone() });
        let held = [self.identity.now().op(false), self.catalog_op(), self.members_op()];
        let held = held.into_iter().chain(self.module_ops());
        let lost = |op: &WriteOp| matches!(op, WriteOp::Put { key, .. } if from <= *key && *key < to);
        let puts: Vec<WriteOp> = leaves.chain(held.filter(lost)).collect();
        let (first, end) = storage_key::hints_all();
        let (first, end) = (first.max(from), end.min(to));
        if first < end {
            self.report_damaged(vec![(first, end)], effects);
        }
        for puts in puts.chunks(OPS_MAX) {
            self.refill_write(RefillStep::Own, puts.to_vec(), effects);
        }
    }
}
