//! States of which nothing is live any more, and contexts of actors that are dead: what may be
//! collected, and what is left of it. Pure.
//!
//! In: a state, a time, dead actors. Out: when all of it is gone, the state without its bytes, the state
//! without spans of the dead. Absent: whether that is safe, which is the fence's (`fence`).

use super::{Content, DotSet, Fragment, Fragments, KeyState, Register, Siblings, Version};
use crate::id::{ActorId, Dot, Millis};
use bytes::Bytes;

impl KeyState {
    /// From when on nothing of it is live, if nobody writes: not later than now where that is
    /// so already; None: never.
    ///
    /// A lattice that was reset never is: the number of its epoch must outlive its values, or a
    /// replica that remembers it would take later puts for older ones.
    pub fn gone_at(&self) -> Option<Millis> {
        let ends = |version: &Version| match version.content {
            Content::Tombstone => Some(version.expires_at.unwrap_or_default()),
            Content::Value(_) => version.expires_at,
        };
        match self {
            KeyState::Causal(siblings) if siblings.seen().is_empty() => None,
            KeyState::Causal(siblings) => {
                let mut last = Millis(0);
                for (_, version) in siblings.iter() {
                    last = last.max(ends(version)?);
                }
                Some(last)
            }
            KeyState::Lww(register) => ends(&register.winner.as_ref()?.1),
            KeyState::Lattice(state) => {
                let gone = state.is_empty() && !state.is_unwritten() && state.epoch == 0;
                gone.then_some(Millis(0))
            }
        }
    }

    /// Whether it was written and nothing of it is live at `now`.
    pub fn is_gone(&self, now: Millis) -> bool {
        self.gone_at().is_some_and(|at| at <= now)
    }

    /// The same causality with no bytes of values: equal in its digest.
    pub fn outline(&self) -> KeyState {
        let bare = |version: &Version| Version {
            content: match version.content {
                Content::Value(_) => Content::Value(Bytes::new()),
                Content::Tombstone => Content::Tombstone,
            },
            content_type: None,
            receipt: None,
            ..version.clone()
        };
        match self {
            KeyState::Causal(siblings) => {
                let versions = siblings.iter().map(|(dot, version)| (*dot, bare(version))).collect();
                KeyState::Causal(siblings.with_versions(versions))
            }
            KeyState::Lww(register) => KeyState::Lww(Register {
                winner: register.winner.as_ref().map(|(dot, version)| (*dot, bare(version))),
            }),
            KeyState::Lattice(state) => {
                let bare = |fragment: &Fragment| Fragment { value: Bytes::new(), ..fragment.clone() };
                let fragments = state.iter().map(bare).collect();
                let outline =
                    Fragments::from_parts(state.epoch, state.removed.clone(), state.stamp, fragments);
                outline.map_or_else(|| self.clone(), KeyState::Lattice)
            }
        }
    }

    /// Whether bytes of a value are there, expired or not.
    pub fn has_values(&self) -> bool {
        match self {
            KeyState::Causal(siblings) => siblings.values().next().is_some(),
            KeyState::Lww(register) => {
                register.winner.as_ref().is_some_and(|(_, version)| version.content != Content::Tombstone)
            }
            KeyState::Lattice(state) => !state.is_empty(),
        }
    }

    /// Dots of live versions; of a lattice none.
    pub fn live_dots(&self) -> Vec<Dot> {
        match self {
            KeyState::Causal(siblings) => siblings.iter().map(|(dot, _)| *dot).collect(),
            KeyState::Lww(register) => register.winner.iter().map(|(dot, _)| *dot).collect(),
            KeyState::Lattice(_) => Vec::new(),
        }
    }

    /// Actors for which `is_dead` and that a causal context names though none of their versions is
    /// live: their spans may be retired (R14).
    pub fn retirable(&self, is_dead: impl Fn(ActorId) -> bool) -> Vec<ActorId> {
        let KeyState::Causal(siblings) = self else { return Vec::new() };
        let mut actors: Vec<ActorId> = siblings.seen().spans().iter().map(|span| span.actor).collect();
        actors.dedup();
        actors.retain(|actor| siblings.iter().all(|(dot, _)| dot.actor != *actor) && is_dead(*actor));
        actors
    }

    /// Without the spans of these actors, as far as none of their versions is live.
    pub fn retired(&self, actors: &[ActorId]) -> KeyState {
        let retire = self.retirable(|actor| actors.contains(&actor));
        match self {
            KeyState::Causal(siblings) if !retire.is_empty() => {
                let seen = siblings.seen().without(&retire);
                let versions = siblings.iter().cloned().collect();
                let retired = Siblings::from_parts(seen, versions);
                retired.map_or_else(
                    || self.clone(),
                    |it| KeyState::Causal(it.with_done(siblings.done().clone())),
                )
            }
            _ => self.clone(),
        }
    }
}

impl DotSet {
    /// Without all dots of these actors.
    pub fn without(&self, actors: &[ActorId]) -> DotSet {
        let mut left = DotSet::new();
        for span in self.spans().iter().filter(|span| !actors.contains(&span.actor)) {
            left.push(*span);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{Stamp, Standing, codec};

    fn version(content: Content, expires_at: Option<u64>) -> Version {
        let stamp = Stamp { millis: 1, logical: 0 };
        let expires_at = expires_at.map(Millis);
        Version { content, stamp, content_type: None, request_id: None, receipt: None, expires_at }
    }

    fn dot(actor: u64, counter: u64) -> Dot {
        Dot { actor: ActorId(actor), counter }
    }

    fn value(bytes: &'static str) -> Content {
        Content::Value(Bytes::from_static(bytes.as_bytes()))
    }

    #[test]
    fn a_state_is_gone_once_its_last_version_is() {
        let mut siblings = Siblings::default();
        assert_eq!(KeyState::Causal(siblings.clone()).gone_at(), None, "never written is not gone");
        siblings.write(&DotSet::new(), dot(1, 1), 0, version(Content::Tombstone, None));
        assert_eq!(KeyState::Causal(siblings.clone()).gone_at(), Some(Millis(0)));
        siblings.write(&DotSet::new(), dot(1, 2), 1, version(value("a"), Some(70)));
        let state = KeyState::Causal(siblings.clone());
        assert!(!state.is_gone(Millis(69)) && state.is_gone(Millis(70)));
        siblings.write(&DotSet::new(), dot(1, 3), 2, version(value("b"), None));
        assert_eq!(KeyState::Causal(siblings).gone_at(), None);
        let register = KeyState::Lww(Register::of(dot(1, 1), version(value("a"), Some(5))));
        assert_eq!(
            (register.gone_at(), KeyState::Lww(Register::default()).gone_at()),
            (Some(Millis(5)), None)
        );
    }

    #[test]
    fn a_lattice_is_gone_once_all_of_it_is_removed_and_never_after_a_reset() {
        let stamp = Stamp { millis: 1, logical: 0 };
        for (reset, gone_at) in [(false, Some(Millis(0))), (true, None)] {
            let mut state = Fragments::default();
            state.put(dot(1, 1), 0, stamp, Bytes::from_static(b"a"), Standing::valid(1));
            assert_eq!(KeyState::Lattice(state.clone()).gone_at(), None);
            let seen = state.seen();
            state.delete(&seen, dot(2, 1), 0, stamp, reset);
            assert_eq!(KeyState::Lattice(state).gone_at(), gone_at);
        }
    }

    #[test]
    fn an_outline_has_the_digest_of_the_whole_with_none_of_its_bytes() {
        let mut siblings = Siblings::default();
        siblings.write(&DotSet::new(), dot(1, 1), 0, version(value("a long value"), Some(9)));
        siblings.write(&DotSet::new(), dot(2, 1), 0, version(value("another"), None));
        let mut lattice = Fragments::default();
        lattice.put(
            dot(1, 1),
            0,
            Stamp { millis: 1, logical: 0 },
            Bytes::from_static(b"a"),
            Standing::valid(1),
        );
        lattice.put(
            dot(2, 1),
            0,
            Stamp { millis: 1, logical: 0 },
            Bytes::from_static(b"b"),
            Standing::UNVALIDATED,
        );
        for whole in [KeyState::Causal(siblings), KeyState::Lattice(lattice)] {
            let outline = whole.outline();
            assert_eq!(outline.digest(), whole.digest());
            assert!(codec::record(&outline).body.is_empty());
            assert_eq!(
                codec::outline(&codec::record(&whole).head).map(|read| read.digest()),
                Ok(whole.digest())
            );
        }
    }

    #[test]
    fn only_spans_of_the_dead_without_a_live_version_retire() {
        let mut siblings = Siblings::default();
        siblings.write(&DotSet::new(), dot(1, 4), 0, version(value("a"), None));
        siblings.write(&siblings.seen().clone(), dot(2, 5), 0, version(value("b"), None));
        siblings.write(&siblings.seen().clone(), dot(3, 6), 0, version(value("c"), None));
        siblings.write(&DotSet::new(), dot(2, 9), 5, version(value("d"), None));
        let state = KeyState::Causal(siblings);
        let dead = [ActorId(1), ActorId(2)];
        assert_eq!(state.retirable(|actor| dead.contains(&actor)), [ActorId(1)]);
        let left = state.retired(&dead);
        assert!(!left.seen().contains(dot(1, 4)) && left.seen().contains(dot(2, 5)));
        assert_eq!(left.live_dots(), state.live_dots());
        assert_eq!(codec::state(&codec::record(&left)), Ok(left));
    }
}
