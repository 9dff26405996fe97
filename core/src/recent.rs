//! What became of requests lately, so that one that comes again has no second effect.
//!
//! In: requests by their id, forwarded ones by who sent them. Out: what is known of them. Bounded;
//! what is forgotten is found by the id in the stored version, if at all. Absent: what a retry is
//! answered with.

use crate::id::{Dot, NodeId, OpId, RequestId};
use crate::ring::Token;
use crate::version::Stamp;
use std::collections::{BTreeSet, VecDeque};

/// Sets of [`Recent`], a power of two …
const SETS_BITS: u32 = 14;
/// … and requests that each holds: 131,072 in all.
const SET_MAX: usize = 8;

/// Writes of the last minutes by their request's id.
///
/// Each write asks, notes that it is under way, and notes its dot: three look-ups, which in one large
/// tree cost more than the rest of a small put's decisions. So an id belongs to one of many small sets, each with an
/// order of its own: the oldest that is not under way makes room.
pub(crate) struct Recent {
    sets: Vec<Option<Box<Set>>>,
}

#[derive(Default)]
struct Set {
    /// The oldest first.
    writes: Vec<(RecentId, RecentWrite)>,
}

/// A request id, and the token of the key that it was used for: a client that uses one id for two
/// keys means two writes.
pub(crate) type RecentId = (RequestId, Token);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RecentWrite {
    /// Under way.
    Writing(OpId),
    /// It has this dot.
    Minted { dot: Dot, previous: u64, stamp: Stamp },
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { sets: (0..1 << SETS_BITS).map(|_| None).collect() }
    }
}

impl Recent {
    pub(crate) fn get(&self, id: RecentId) -> Option<RecentWrite> {
        let set = self.sets[set_of(id)].as_ref()?;
        set.writes.iter().find(|(known, _)| *known == id).map(|(_, write)| *write)
    }

    pub(crate) fn set(&mut self, id: RecentId, write: RecentWrite) {
        let writes = &mut self.sets[set_of(id)].get_or_insert_default().writes;
        if let Some((_, known)) = writes.iter_mut().find(|(known, _)| *known == id) {
            *known = write;
            return;
        }
        if writes.len() >= SET_MAX {
            let over = writes.iter().position(|(_, write)| matches!(write, RecentWrite::Minted { .. }));
            writes.remove(over.unwrap_or(0));
        }
        writes.push((id, write));
    }

    pub(crate) fn forget(&mut self, id: RecentId) {
        if let Some(set) = &mut self.sets[set_of(id)] {
            set.writes.retain(|(known, _)| *known != id);
        }
    }
}

fn set_of((request, token): RecentId) -> usize {
    let [high, low] = [&request.0[..8], &request.0[8..]].map(|half| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(half);
        u64::from_be_bytes(bytes)
    });
    // The token is a hash of the key; ids may be anything, counters for instance.
    let mixed = (token.0 ^ high.rotate_left(32) ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - SETS_BITS)) as usize
}

/// Forwarded requests that arrived here lately. A link may repeat one; the repetition must not do
/// what the first arrival was refused for, since its client was told that nothing was stored.
#[derive(Default)]
pub(crate) struct ForwardedHere {
    seen: BTreeSet<(NodeId, OpId)>,
    order: VecDeque<(NodeId, OpId)>,
}

/// Far more than can be under way between two repetitions.
const FORWARDED_MAX: usize = 20_000;

impl ForwardedHere {
    pub(crate) fn is_first(&mut self, from: NodeId, op: OpId) -> bool {
        if !self.seen.insert((from, op)) {
            return false;
        }
        self.order.push_back((from, op));
        while self.order.len() > FORWARDED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> RecentId {
        (RequestId(u128::from(number).to_be_bytes()), Token(77))
    }

    #[test]
    fn the_latest_hundred_thousand_are_found_and_older_ones_make_room() {
        let mut recent = Recent::default();
        for number in 0..1_000_000 {
            recent.set(id(number), RecentWrite::Writing(OpId(number)));
            let minted = RecentWrite::Minted {
                dot: Dot { actor: crate::id::ActorId(1), counter: number + 1 },
                previous: 0,
                stamp: Stamp::default(),
            };
            recent.set(id(number), minted);
        }
        // Ids in sequence spread evenly.
        let found = (900_000..1_000_000).filter(|number| recent.get(id(*number)).is_some()).count();
        assert!(found > 90_000, "{found}");
        let held: usize = recent.sets.iter().flatten().map(|set| set.writes.len()).sum();
        assert!(held <= SET_MAX << SETS_BITS, "{held}");
        assert!(recent.get(id(1)).is_none());
    }

    #[test]
    fn random_ids_spread_too_and_one_under_way_outlives_those_that_are_over() {
        let mut recent = Recent::default();
        let under_way = id(5);
        recent.set(under_way, RecentWrite::Writing(OpId(5)));
        let set = set_of(under_way);
        let mut others = (100..).map(id).filter(|other| set_of(*other) == set);
        for other in others.by_ref().take(50) {
            let dot = Dot { actor: crate::id::ActorId(1), counter: 1 };
            recent.set(other, RecentWrite::Minted { dot, previous: 0, stamp: Stamp::default() });
            assert!(recent.get(other).is_some());
        }
        assert_eq!(recent.get(under_way), Some(RecentWrite::Writing(OpId(5))));
        recent.forget(under_way);
        assert_eq!(recent.get(under_way), None);
    }

    #[test]
    fn one_id_for_two_keys_is_two() {
        let mut recent = Recent::default();
        let (one, other) = ((RequestId([7; 16]), Token(1)), (RequestId([7; 16]), Token(2)));
        recent.set(one, RecentWrite::Writing(OpId(1)));
        assert_eq!(recent.get(other), None);
    }
}
