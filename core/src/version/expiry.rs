//! Expiry: a version that is to be gone from some time on, by each reader's own clock.
//!
//! An expired version stays a write with a dot: it is covered by contexts, superseded and synced as
//! before. Readers are not shown it, and a replica may let go of its bytes, which changes neither
//! its digest nor its causality. So nothing but what is *shown* depends on clocks: replicas
//! that judge the time otherwise hold equal states. Where one side of a sync has let go of the bytes and the
//! other has not, the bytes stay: a clock that runs ahead costs nobody else a value.
//!
//! In: a state, a time. Out: what of it is live. Absent: when an expired key is collected (`fence`).

use super::{Content, KeyState, Register, Siblings, Version};
use crate::id::Millis;
use std::borrow::Cow;

/// Bytes of an expired version are kept for so long, for readers whose clocks are behind.
pub const EXPIRED_KEPT_MS: u64 = 10_000;

impl Version {
    /// Whether it is gone at `now`.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it is a delete, or reads as one at `now`.
    pub fn is_gone(&self, now: Millis) -> bool {
        self.content == Content::Tombstone || self.is_expired(now)
    }

    /// Whether `other`, under the same dot, is the same write: equal content, or one side has let
    /// go of the bytes of an expiring one.
    pub fn is_same_write(&self, other: &Version) -> bool {
        let let_go = |version: &Version| version.content == Content::Tombstone;
        self.expires_at == other.expires_at
            && (self.content == other.content || self.expires_at.is_some() && (let_go(self) || let_go(other)))
    }

    /// Takes the bytes of `other`, the same write, if they are not here.
    pub(super) fn take_bytes(&mut self, other: &Version) {
        if self.content == Content::Tombstone && self.expires_at.is_some() && self.is_same_write(other) {
            self.content.clone_from(&other.content);
            self.content_type.clone_from(&other.content_type);
        }
    }

    /// Lets go of its bytes if it expired long enough ago; whether there were any.
    pub(super) fn drop_bytes(&mut self, now: Millis) -> bool {
        let long_gone = self.expires_at.is_some_and(|at| at.after(EXPIRED_KEPT_MS) <= now);
        if !long_gone || self.content == Content::Tombstone {
            return false;
        }
        self.content = Content::Tombstone;
        self.content_type = None;
        true
    }
}

impl KeyState {
    /// As it is shown at `now`: without expired siblings; an expired register reads as deleted.
    pub fn live_at(&self, now: Millis) -> Cow<'_, KeyState> {
        match self {
            KeyState::Causal(siblings) if siblings.iter().any(|(_, version)| version.is_expired(now)) => {
                Cow::Owned(KeyState::Causal(siblings.live_at(now)))
            }
            KeyState::Lww(Register { winner: Some((dot, version)) }) if version.is_expired(now) => {
                let version = Version { content: Content::Tombstone, ..version.clone() };
                Cow::Owned(KeyState::Lww(Register::of(*dot, version)))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// When what is shown of it changes next, if nobody writes.
    pub fn next_expiry(&self, now: Millis) -> Option<Millis> {
        let later = |version: &Version| version.expires_at.filter(|at| *at > now);
        match self {
            KeyState::Causal(siblings) => siblings.iter().filter_map(|(_, version)| later(version)).min(),
            KeyState::Lww(register) => register.winner.as_ref().and_then(|(_, version)| later(version)),
            KeyState::Lattice(_) => None,
        }
    }

    /// Lets go of the bytes of versions that expired long enough ago; whether there were any.
    pub fn drop_expired(&mut self, now: Millis) -> bool {
        match self {
            KeyState::Causal(siblings) => siblings.drop_expired(now),
            KeyState::Lww(register) => {
                register.winner.as_mut().is_some_and(|(_, version)| version.drop_bytes(now))
            }
            KeyState::Lattice(_) => false,
        }
    }
}

/// When a version made from `inputs` is to be gone: with the last of them, if all of them are to be.
pub fn of_resolution<'a>(inputs: impl Iterator<Item = &'a Version>) -> Option<Millis> {
    let mut latest = None;
    for version in inputs.filter(|version| version.content != Content::Tombstone) {
        latest = latest.max(Some(version.expires_at?));
    }
    latest
}

impl Siblings {
    fn live_at(&self, now: Millis) -> Siblings {
        let live = self.iter().filter(|(_, version)| !version.is_expired(now)).cloned().collect();
        self.with_versions(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, Dot};
    use crate::version::{DotSet, Stamp, codec};
    use bytes::Bytes;

    fn version(value: &'static str, expires_at: Option<u64>) -> Version {
        Version {
            content: Content::Value(Bytes::from_static(value.as_bytes())),
            stamp: Stamp { millis: 1, logical: 0 },
            content_type: Some(Bytes::from_static(b"text/plain")),
            request_id: None,
            receipt: None,
            expires_at: expires_at.map(Millis),
        }
    }

    fn dot(counter: u64) -> Dot {
        Dot { actor: ActorId(1), counter }
    }

    fn siblings(versions: &[Version]) -> KeyState {
        let mut siblings = Siblings::default();
        for (index, version) in versions.iter().enumerate() {
            siblings.write(&DotSet::new(), dot(index as u64 + 1), index as u64, version.clone());
        }
        KeyState::Causal(siblings)
    }

    #[test]
    fn bytes_let_go_of_change_neither_digest_nor_causality_and_come_back_in_a_sync() {
        let both = [
            siblings(&[version("a", Some(50)), version("b", None)]),
            KeyState::Lww(Register::of(dot(1), version("a", Some(50)))),
        ];
        for whole in both {
            let mut light = whole.clone();
            assert!(!light.drop_expired(Millis(50)), "not at once: clocks differ");
            assert!(light.drop_expired(Millis(50 + EXPIRED_KEPT_MS)));
            assert_ne!(light, whole);
            assert_eq!(light.digest(), whole.digest());
            assert_eq!(codec::state(&codec::record(&light)), Ok(light.clone()));
            let (mut left, mut right) = (whole.clone(), light.clone());
            assert_eq!(left.sync(&light), [], "no reused dot");
            assert_eq!(right.sync(&whole), [], "no reused dot");
            assert_eq!((&left, &right), (&whole, &whole));
        }
    }

    #[test]
    fn a_plain_tombstone_under_a_values_dot_is_a_reused_dot() {
        let tombstone = Version { content: Content::Tombstone, ..version("", None) };
        let mut state = siblings(&[version("a", None)]);
        assert_eq!(state.sync(&siblings(&[tombstone])), [dot(1)]);
        let mut state = siblings(&[version("a", Some(5))]);
        assert_eq!(state.sync(&siblings(&[version("a", Some(6))])), [dot(1)]);
    }

    #[test]
    fn digests_tell_expiry_apart() {
        let digests: Vec<_> =
            [None, Some(5), Some(6)].map(|at| siblings(&[version("a", at)]).digest()).to_vec();
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    }

    #[test]
    fn what_is_live_depends_on_the_time_alone() {
        let state = siblings(&[version("a", Some(50)), version("b", None)]);
        let live = |now| match state.live_at(Millis(now)).into_owned() {
            KeyState::Causal(siblings) => siblings.len(),
            _ => 0,
        };
        assert_eq!((live(49), live(50)), (2, 1));
        assert_eq!(state.next_expiry(Millis(10)), Some(Millis(50)));
        assert_eq!(state.next_expiry(Millis(50)), None);
        assert_eq!(state.live_at(Millis(60)).seen(), state.seen(), "what was seen is seen");
    }

    #[test]
    fn a_resolution_expires_with_the_last_of_its_inputs_if_all_do() {
        let of = |ats: &[Option<u64>]| {
            let versions: Vec<Version> = ats.iter().map(|at| version("a", *at)).collect();
            of_resolution(versions.iter())
        };
        assert_eq!(of(&[Some(5), Some(9), Some(7)]), Some(Millis(9)));
        assert_eq!(of(&[Some(5), None]), None);
        assert_eq!(of(&[None, Some(5)]), None);
        assert_eq!(of(&[]), None);
    }
}
