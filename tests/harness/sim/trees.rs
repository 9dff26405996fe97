//! C6, trees: what a node's tree says of a slot is what its keys on disk add up to.
//!
//! In: a world in which nothing is under way. Out: a violation, or how many leaves were compared and how many
//! were stale. Absent: whether replicas agree.

use super::world::World;
use crate::properties::{Check, broken};
use merganser_core::anti_entropy::leaf::{Share, Sum};
use merganser_core::id::KeyspaceId;
use merganser_core::ring::{Slot, token};
use merganser_core::version::codec;
use std::collections::BTreeMap;

impl World {
    /// Every leaf of every node against a rebuild from its disk.
    pub(super) fn judge_trees(&mut self) -> Check {
        let slot = |index: usize| {
            let key = &self.history.keys[index];
            (key.keyspace_id, token(key.keyspace_id, &key.key).slot())
        };
        let slots: Vec<(KeyspaceId, Slot)> = (0..self.history.keys.len()).map(slot).collect();
        let (mut compared, mut stale) = (0, 0);
        for machine in &self.machines {
            let Some(process) = &machine.process else { continue };
            let mut rebuilt: BTreeMap<(KeyspaceId, Slot), Sum> = BTreeMap::new();
            for (key, slot) in self.history.keys.iter().zip(&slots) {
                let sum = rebuilt.entry(*slot).or_default();
                if let Ok(Some(record)) = process.db.get(&key.storage_key)
                    && let Ok(state) = codec::outline(&record.head)
                {
                    sum.add(Share::of(&key.key, &state));
                }
            }
            for ((keyspace, slot), sum) in rebuilt {
                match process.node.leaf(keyspace, slot) {
                    Some(known) if known == sum => compared += 1,
                    Some(known) => {
                        let name = &machine.name;
                        return broken(
                            "C6",
                            format!("{name} {slot:?}: the tree says {known:?}, its keys {sum:?}"),
                        );
                    }
                    None => stale += 1,
                }
            }
        }
        *self.coverage.entry("leaf as rebuilt".into()).or_default() += compared;
        *self.coverage.entry("leaf stale at the end".into()).or_default() += stale;
        Ok(())
    }
}
