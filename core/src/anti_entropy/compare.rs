//! Two copies of a key: who lacks what.
//!
//! In: heads, or states without their values. Out: which side is to be sent the other's state. Equal causality is equal:
//! nothing is sent, whatever the bytes (R5, R10), so that two replicas never send one state to and fro. Absent: how it is sent.

use crate::limits::RECORD_BYTES_MAX;
use crate::version::{KeyState, Kind, codec};
use crate::wire::Malformed;
use bytes::Bytes;

/// What a difference asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lack {
    /// This node lacks something that the other has.
    pub(crate) here: bool,
    /// The other lacks something that this node has.
    pub(crate) there: bool,
    /// What both have together no record holds: sent, it would be refused, and sent again with each round. Its size in bytes.
    pub(crate) too_large: Option<u64>,
}

/// Compares the heads of a key here and there; an empty one: no state.
pub(crate) fn lack(kind: Kind, mine: &Bytes, theirs: &Bytes) -> Result<Lack, Malformed> {
    let outline = |head: &Bytes| match head.is_empty() {
        true => Ok(KeyState::empty(kind)),
        false => match codec::outline(head)? {
            state if state.kind() == kind => Ok(state),
            _ => Err(Malformed("state kind")),
        },
    };
    let heads = [mine, theirs];
    let (mine, theirs) = (outline(mine)?, outline(theirs)?);
    let mut joined = mine.clone();
    // Values are not compared here; a reused dot is reported where a state comes in.
    let _ = joined.sync(&theirs);
    let joined = joined.digest();
    let (here, there) = (joined != mine.digest(), joined != theirs.digest());
    // What one of them holds already a record holds.
    if here && there && !heads[0].is_empty() && !heads[1].is_empty() {
        let size_bytes =
            codec::joined_bytes(heads[0], heads[1])?.saturating_add((heads[0].len() + heads[1].len()) as u64);
        if size_bytes > RECORD_BYTES_MAX as u64 {
            return Ok(Lack { here: false, there: false, too_large: Some(size_bytes) });
        }
    }
    Ok(Lack { here, there, too_large: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, Dot};
    use crate::version::{Content, DotSet, Fragments, Register, Siblings, Stamp, Standing, Version};

    fn dot(actor: u64, counter: u64) -> Dot {
        Dot { actor: ActorId(actor), counter }
    }

    fn version(value: &'static str, millis: u64) -> Version {
        Version {
            content: Content::Value(Bytes::from_static(value.as_bytes())),
            stamp: Stamp { millis, logical: 0 },
            content_type: None,
            request_id: None,
            receipt: None,
            expires_at: None,
        }
    }

    fn head(state: KeyState) -> Bytes {
        codec::record(&state).head
    }

    fn both(kind: Kind, mine: &Bytes, theirs: &Bytes) -> (bool, bool) {
        let lack = lack(kind, mine, theirs).unwrap();
        let other = super::lack(kind, theirs, mine).unwrap();
        assert_eq!((lack.here, lack.there), (other.there, other.here), "both sides judge alike");
        (lack.here, lack.there)
    }

    #[test]
    fn the_side_that_has_seen_less_lacks_and_of_two_that_are_concurrent_both() {
        let mut old = Siblings::default();
        old.write(&DotSet::new(), dot(1, 1), 0, version("old", 1));
        let (mut left, mut right) = (old.clone(), old.clone());
        left.write(&DotSet::single(dot(1, 1), 0), dot(1, 2), 1, version("left", 2));
        right.write(&DotSet::single(dot(1, 1), 0), dot(2, 1), 0, version("right", 2));
        let [old, left, right] = [old, left, right].map(|siblings| head(KeyState::Causal(siblings)));
        assert_eq!(both(Kind::Causal, &old, &left), (true, false));
        assert_eq!(both(Kind::Causal, &left, &right), (true, true));
        assert_eq!(both(Kind::Causal, &left, &left), (false, false));
        assert_eq!(both(Kind::Causal, &Bytes::new(), &old), (true, false));
    }

    #[test]
    fn of_registers_the_lower_one_lacks() {
        let register = |dot, version| head(KeyState::Lww(Register::of(dot, version)));
        let (low, high) = (register(dot(9, 9), version("a", 1)), register(dot(1, 1), version("b", 2)));
        assert_eq!(both(Kind::Lww, &low, &high), (true, false));
        assert_eq!(both(Kind::Lww, &high, &Bytes::new()), (false, true));
    }

    #[test]
    fn a_lattice_merged_here_and_in_operands_there_is_equal_and_so_are_other_bytes_of_one_claim() {
        let mut operands = Fragments::default();
        operands.put(dot(1, 1), 0, Stamp::default(), Bytes::from_static(b"a"), Standing::valid(1));
        operands.put(dot(2, 1), 0, Stamp::default(), Bytes::from_static(b"b"), Standing::valid(1));
        let claims: Vec<DotSet> = operands.iter().map(|fragment| fragment.claim.clone()).collect();
        let (mut merged, mut otherwise) = (operands.clone(), operands.clone());
        merged.joined(&claims, Bytes::from_static(b"ab"), Standing::valid(1));
        otherwise.joined(&claims, Bytes::from_static(b"ba"), Standing::valid(2));
        let [operands, merged, otherwise] =
            [operands, merged, otherwise].map(|fragments| head(KeyState::Lattice(fragments)));
        assert_ne!(merged, otherwise);
        for (mine, theirs) in [(&operands, &merged), (&merged, &otherwise)] {
            assert_eq!(both(Kind::Lattice, mine, theirs), (false, false));
        }
    }

    #[test]
    fn a_head_that_is_none_or_of_another_kind_is_an_error() {
        let register = head(KeyState::Lww(Register::of(dot(1, 1), version("a", 1))));
        assert!(lack(Kind::Causal, &Bytes::new(), &register).is_err());
        assert!(lack(Kind::Lww, &Bytes::from_static(b"?"), &register).is_err());
    }
}
