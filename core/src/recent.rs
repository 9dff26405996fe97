//! What became of requests lately, so that one that comes again has no second effect.
//!
//! In: requests by their id, forwarded ones by who sent them. Out: what is known of them. An id is kept for longer than any
//! attempt is waited for; while there is no room for more, writes are refused. What is forgotten is found by the id in the stored state, if
//! at all. Absent: what a retry is answered with.

use crate::id::{Dot, NodeId, OpId, RequestId};
use crate::ring::Token;
use crate::version::Stamp;
use std::collections::{BTreeSet, VecDeque};

/// Sets of [`Recent`], a power of two.
const SETS_BITS: u32 = 14;
/// Requests in all: some hundred megabytes, or 50,000 a second for as long as they are kept.
const REQUESTS_MAX: usize = if cfg!(test) { 200_000 } else { 1_000_000 };
/// How long an id is kept, by this node's own time: several times what a client waits for one attempt.
const KEPT_MS: u64 = 20_000;

/// Writes of the last seconds by their request's id.
///
/// Each write asks, notes that it is under way, and notes its dot: three look-ups, which in one large
/// tree cost more than the rest of a small put's decisions. So an id belongs to one of many small sets, each with an
/// order of its own. Each note looks after two sets, its own and the next in turn: what is too old leaves them.
pub(crate) struct Recent {
    sets: Vec<Set>,
    held: usize,
    /// Looked after next.
    turn: usize,
}

#[derive(Default)]
struct Set {
    /// In the order in which they came.
    writes: VecDeque<Noted>,
}

struct Noted {
    id: RecentId,
    write: RecentWrite,
    at_ms: u64,
}

/// A request id, and the token of the key that it was used for: a client that uses one id for two
/// keys means two writes.
pub(crate) type RecentId = (RequestId, Token);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RecentWrite {
    /// Under way.
    Writing { op: OpId, fingerprint: u64 },
    /// It has this dot.
    Minted { dot: Dot, previous: u64, stamp: Stamp, fingerprint: u64 },
}

impl RecentWrite {
    /// Of what the request does.
    pub(crate) fn fingerprint(&self) -> u64 {
        match self {
            RecentWrite::Writing { fingerprint, .. } | RecentWrite::Minted { fingerprint, .. } => {
                *fingerprint
            }
        }
    }
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { sets: (0..1 << SETS_BITS).map(|_| Set::default()).collect(), held: 0, turn: 0 }
    }
}

impl Recent {
    pub(crate) fn get(&self, id: RecentId) -> Option<RecentWrite> {
        self.sets[set_of(id)].writes.iter().find(|noted| noted.id == id).map(|noted| noted.write)
    }

    /// Whether there is no room for one more: nothing is forgotten before its time.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= REQUESTS_MAX
    }

    pub(crate) fn set(&mut self, id: RecentId, write: RecentWrite, now_ms: u64) {
        let set = set_of(id);
        let turn = self.turn;
        self.turn = (turn + 1) % self.sets.len();
        [set, turn].into_iter().for_each(|set| self.look_after(set, now_ms));
        let writes = &mut self.sets[set].writes;
        if let Some(known) = writes.iter_mut().find(|noted| noted.id == id) {
            (known.write, known.at_ms) = (write, now_ms);
            return;
        }
        writes.push_back(Noted { id, write, at_ms: now_ms });
        self.held += 1;
    }

    pub(crate) fn forget(&mut self, id: RecentId) {
        let writes = &mut self.sets[set_of(id)].writes;
        let before = writes.len();
        writes.retain(|noted| noted.id != id);
        self.held -= before - writes.len();
    }

    fn look_after(&mut self, set: usize, now_ms: u64) {
        let writes = &mut self.sets[set].writes;
        let is_over = |noted: &Noted| {
            matches!(noted.write, RecentWrite::Minted { .. }) && noted.at_ms + KEPT_MS < now_ms
        };
        if writes.front().is_some_and(|first| first.at_ms + KEPT_MS < now_ms) {
            let before = writes.len();
            writes.retain(|noted| !is_over(noted));
            self.held -= before - writes.len();
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
    use crate::id::ActorId;

    fn id(number: u64) -> RecentId {
        (RequestId(u128::from(number).to_be_bytes()), Token(77))
    }

    fn minted(number: u64) -> RecentWrite {
        let dot = Dot { actor: ActorId(1), counter: number + 1 };
        RecentWrite::Minted { dot, previous: 0, stamp: Stamp::default(), fingerprint: number }
    }

    #[test]
    fn every_request_is_found_for_its_whole_time_and_none_for_much_longer() {
        let mut recent = Recent::default();
        // 5,000 a second.
        for number in 0..400_000 {
            let now_ms = number / 5;
            recent.set(id(number), RecentWrite::Writing { op: OpId(number), fingerprint: number }, now_ms);
            recent.set(id(number), minted(number), now_ms);
            let oldest = number.saturating_sub(5 * KEPT_MS);
            assert!(number % 1_000 != 0 || recent.get(id(oldest)) == Some(minted(oldest)), "{number}");
        }
        assert!(recent.held < 6 * KEPT_MS as usize, "{}", recent.held);
        assert_eq!(recent.held, recent.sets.iter().map(|set| set.writes.len()).sum::<usize>());
        assert!(recent.get(id(1)).is_none());
    }

    #[test]
    fn where_there_is_no_room_for_more_nothing_is_forgotten() {
        let mut recent = Recent::default();
        let mut number = 0;
        while !recent.is_full() {
            recent.set(id(number), minted(number), 5);
            number += 1;
        }
        assert!((0..number).all(|number| recent.get(id(number)).is_some()));
        // One under way outlives those that are over.
        recent.set(id(3), RecentWrite::Writing { op: OpId(3), fingerprint: 3 }, 5);
        (0..1 << SETS_BITS).for_each(|n| recent.set(id(number + n), minted(n), 6 + KEPT_MS));
        assert!(!recent.is_full() && recent.get(id(0)).is_none() && recent.get(id(3)).is_some());
        recent.forget(id(3));
        assert_eq!(recent.get(id(3)), None);
    }

    #[test]
    fn one_id_for_two_keys_is_two() {
        let mut recent = Recent::default();
        let (one, other) = ((RequestId([7; 16]), Token(1)), (RequestId([7; 16]), Token(2)));
        recent.set(one, RecentWrite::Writing { op: OpId(1), fingerprint: 1 }, 1);
        assert_eq!(recent.get(other), None);
    }
}
