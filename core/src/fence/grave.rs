//! What a member remembers of a key that is being collected, or was: enough to tell what is older.
//!
//! In: an agreed state, a state that comes in or is about to leave. Out: what of it is news. Pure.
//! Absent: when a grave is dug and when it is forgotten (`graves`).

use super::message::Fate;
use crate::event::Record;
use crate::id::{Dot, OpId};
use crate::version::{Digest, DotSet, KeyState, Siblings};
use std::sync::Arc;

/// An agreed state, without its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Grave {
    /// In which round it was confirmed.
    pub(super) round: OpId,
    /// All that it covers: the state, joined with what graves of the same key before it covered.
    covers: KeyState,
    /// What was seen of the key by states of which nothing was live: this one, and reaped ones before it.
    spent: DotSet,
    /// Of the state alone.
    digest: Digest,
    /// As it was agreed upon, to tell those that still hold it.
    pub(super) outline: Record,
    pub(super) fate: Fate,
    /// What its round takes from the key's context, once it is closed.
    retirement: Option<Arc<Retirement>>,
    /// What the last round before it that was closed took.
    before: Option<Arc<Retirement>>,
    /// All members have confirmed and held.
    pub(super) closed: bool,
    /// Something was written under the key since.
    pub(super) touched: bool,
    /// By the clock of `graves`.
    pub(super) dies_at: u64,
}

/// What left a key's context by a round.
#[derive(Debug)]
struct Retirement {
    /// What its round said of the key.
    outline: Record,
    fate: Fate,
    /// What dead actors had done to the agreed state, and nothing of that live. All members refuse it from then on, so no
    /// context needs it, whatever else that has seen.
    leaves: DotSet,
}

impl Retirement {
    fn new(state: &KeyState, outline: &Record, fate: &Fate) -> Option<Arc<Retirement>> {
        let Fate::Retire(actors) = fate else { return None };
        let leaves = state.seen().minus(&state.retired(actors).seen());
        Some(Arc::new(Retirement { outline: outline.clone(), fate: fate.clone(), leaves }))
    }
}

/// What of a state is news.
#[derive(Debug, PartialEq)]
pub(crate) enum Sifted {
    /// All of it: take it as it came.
    News,
    /// Nothing.
    Covered,
    /// Only this, with what the grave covers counted as seen.
    Rest(Box<KeyState>),
}

impl Grave {
    /// Of `state`; `older` is the grave that was there.
    pub(crate) fn new(
        round: OpId,
        state: KeyState,
        outline: Record,
        fate: Fate,
        older: Option<&Grave>,
        dies_at: u64,
    ) -> Grave {
        let digest = state.digest();
        let retirement = Retirement::new(&state, &outline, &fate);
        let mut spent = if fate == Fate::Reap { state.seen() } else { DotSet::new() };
        let mut covers = state;
        if let Some(older) = older {
            // States of one history: a dot with two values is reported where they are stored.
            let _ = covers.sync(&older.covers);
            if older.is_reaped() {
                spent.join(&older.spent);
            }
        }
        let before = older.and_then(Grave::in_force).cloned();
        let (closed, touched) = (false, false);
        Grave { round, covers, spent, digest, outline, fate, retirement, before, closed, touched, dies_at }
    }

    /// What has left the key's context last.
    fn in_force(&self) -> Option<&Arc<Retirement>> {
        if self.closed { self.retirement.as_ref() } else { self.before.as_ref() }
    }

    /// Whether nothing is left of the key.
    pub(crate) fn is_reaped(&self) -> bool {
        self.closed && self.fate == Fate::Reap
    }

    /// What a key that was reaped is from now on, where the grave is: nothing live, and all of
    /// it seen. A write that begins from it covers what the grave covers.
    pub(crate) fn remains(&self) -> KeyState {
        match &self.covers {
            KeyState::Causal(covers) => {
                let remains = Siblings::from_parts(self.spent.clone(), Vec::new());
                let mut done = covers.done().clone();
                covers.iter().for_each(|(dot, version)| done.note(*dot, version));
                KeyState::Causal(remains.unwrap_or_default().with_done(done))
            }
            other => other.clone(),
        }
    }

    /// What is news of a state that comes from elsewhere.
    pub(crate) fn sift(&self, incoming: &KeyState) -> Sifted {
        match (&self.covers, incoming) {
            (KeyState::Causal(covers), KeyState::Causal(incoming)) => self.sift_siblings(covers, incoming),
            (KeyState::Lww(covers), KeyState::Lww(incoming)) => {
                if incoming.order() <= covers.order() {
                    Sifted::Covered
                } else {
                    Sifted::News
                }
            }
            (KeyState::Lattice(covers), KeyState::Lattice(incoming)) => {
                let mut joined = incoming.clone();
                joined.sync(covers);
                if joined.is_empty() && incoming.seen().within(&covers.seen()) {
                    Sifted::Covered
                } else if joined == *incoming {
                    Sifted::News
                } else {
                    Sifted::Rest(Box::new(KeyState::Lattice(joined)))
                }
            }
            // Of another kind: refused elsewhere.
            _ => Sifted::News,
        }
    }

    /// What is taken of a state that comes from elsewhere: what is news, in a context as short as the round left it.
    pub(crate) fn take(&self, incoming: &KeyState) -> Sifted {
        match self.sift(incoming) {
            Sifted::Covered => Sifted::Covered,
            Sifted::News => {
                self.shortened(incoming).map_or(Sifted::News, |short| Sifted::Rest(Box::new(short)))
            }
            Sifted::Rest(rest) => {
                let short = self.shortened(&rest).map(Box::new);
                Sifted::Rest(short.unwrap_or(rest))
            }
        }
    }

    /// A state without what left its key's context. None: it has nothing of that, or holds as live what was not.
    pub(crate) fn shortened(&self, state: &KeyState) -> Option<KeyState> {
        let (KeyState::Causal(siblings), Some(retirement)) = (state, self.in_force()) else { return None };
        let seen = siblings.seen().minus(&retirement.leaves);
        if seen == *siblings.seen() {
            return None;
        }
        let short = Siblings::from_parts(seen, siblings.iter().cloned().collect())?;
        Some(KeyState::Causal(short.with_done(siblings.done().clone())))
    }

    /// Whether a version is dead. What was live in the agreed state is once that is reaped; until then, and where
    /// only its context is retired, it may come in again, and nothing that comes in may speak against it.
    fn is_dead(&self, covers: &Siblings, dot: Dot) -> bool {
        let is_spent = self.is_reaped() && self.spent.contains(dot);
        let lives = !is_spent && covers.iter().any(|(live, _)| *live == dot);
        covers.seen().contains(dot) && !lives
    }

    /// A state without what is dead, with all that it has seen. None: nothing of it is, or it knows nothing yet of
    /// what took its place.
    pub(crate) fn without_dead(&self, state: &Siblings) -> Option<Siblings> {
        let KeyState::Causal(covers) = &self.covers else { return None };
        let is_known = |dot: Dot| self.is_dead(covers, dot) || state.seen().contains(dot);
        if !covers.iter().all(|(dot, _)| is_known(*dot)) {
            return None;
        }
        let left: Vec<_> = state.iter().filter(|(dot, _)| !self.is_dead(covers, *dot)).cloned().collect();
        if left.len() == state.len() { None } else { Siblings::from_parts(state.seen().clone(), left) }
    }

    fn sift_siblings(&self, covers: &Siblings, incoming: &Siblings) -> Sifted {
        let left: Vec<_> = incoming.iter().filter(|(dot, _)| !self.is_dead(covers, *dot)).cloned().collect();
        let no_news = incoming.seen().within(covers.seen());
        if left.is_empty() && no_news {
            return Sifted::Covered;
        }
        let mut seen: DotSet = incoming.seen().clone();
        if self.is_reaped() {
            seen.join(&self.spent);
        }
        if left.len() == incoming.len() && seen == *incoming.seen() {
            return Sifted::News;
        }
        match Siblings::from_parts(seen, left) {
            Some(rest) => Sifted::Rest(Box::new(KeyState::Causal(rest.with_done(incoming.done().clone())))),
            None => Sifted::News,
        }
    }

    /// Whether a state is exactly the agreed one, with nothing of it gone yet.
    pub(crate) fn is_of(&self, state: &KeyState) -> bool {
        state.digest() == self.digest
    }

    /// What is told to a peer that holds a state, as of the round that takes all or something of it: what that said of the key.
    /// None: nothing of it goes.
    pub(super) fn told(&self, state: &KeyState) -> Option<(Record, Fate)> {
        match self.in_force() {
            Some(retirement) if self.shortened(state).is_some() => {
                Some((retirement.outline.clone(), retirement.fate.clone()))
            }
            _ if self.is_gone(state) => Some((self.outline.clone(), Fate::Reap)),
            _ => None,
        }
    }

    /// Whether nothing is left of a state: the key is reaped, and it is the agreed one, or nothing of it is news. Not so a
    /// register: what is below the agreed one may be a new put, by a clock that is behind, at a node that has forgotten its grave.
    pub(crate) fn is_gone(&self, state: &KeyState) -> bool {
        let is_register = matches!(state, KeyState::Lww(_));
        self.is_reaped() && (self.is_of(state) || !is_register && self.sift(state) == Sifted::Covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, Millis};
    use crate::version::{Content, Fragments, Register, Stamp, Standing, Version, codec};
    use bytes::Bytes;

    fn dot(actor: u64, counter: u64) -> Dot {
        Dot { actor: ActorId(actor), counter }
    }

    fn version(millis: u64, value: Option<&'static str>) -> Version {
        let content =
            value.map_or(Content::Tombstone, |value| Content::Value(Bytes::from_static(value.as_bytes())));
        let stamp = Stamp { millis, logical: 0 };
        Version {
            content,
            stamp,
            content_type: None,
            request_id: None,
            receipt: None,
            expires_at: None::<Millis>,
        }
    }

    fn grave(state: KeyState, fate: Fate) -> Grave {
        let outline = codec::record(&state.outline());
        let mut grave = Grave::new(OpId(1), state.outline(), outline, fate, None, 0);
        grave.closed = true;
        grave
    }

    fn rest(sifted: Sifted) -> KeyState {
        match sifted {
            Sifted::Rest(rest) => *rest,
            other => panic!("something is new and something is not: {other:?}"),
        }
    }

    /// A value that was deleted: before, and after.
    fn deleted() -> (Siblings, Siblings) {
        let mut before = Siblings::default();
        before.write(&DotSet::new(), dot(1, 1), 0, version(1, Some("old")));
        let mut after = before.clone();
        after.write(before.seen(), dot(2, 1), 0, version(2, None));
        (before, after)
    }

    #[test]
    fn nothing_that_a_grave_covers_comes_back() {
        let (before, after) = deleted();
        let grave = grave(KeyState::Causal(after.clone()), Fate::Reap);
        for old in [before, after, Siblings::default()] {
            assert_eq!(grave.sift(&KeyState::Causal(old)), Sifted::Covered);
        }
    }

    #[test]
    fn what_a_grave_does_not_cover_comes_in_without_the_rest() {
        let (mut before, after) = deleted();
        let grave = grave(KeyState::Causal(after.clone()), Fate::Reap);
        before.write(&DotSet::new(), dot(3, 1), 0, version(3, Some("new")));
        let KeyState::Causal(rest) = rest(grave.sift(&KeyState::Causal(before))) else {
            panic!("something is new and something is not");
        };
        assert_eq!(rest.iter().map(|(dot, _)| *dot).collect::<Vec<_>>(), [dot(3, 1)]);
        assert!(after.seen().within(rest.seen()));
        assert_eq!(grave.sift(&KeyState::Causal(rest)), Sifted::News);
    }

    #[test]
    fn until_a_round_is_closed_tombstones_are_not_taken_from_what_comes_in() {
        let (_, mut after) = deleted();
        let mut grave = grave(KeyState::Causal(after.clone()), Fate::Reap);
        grave.closed = false;
        after.write(&DotSet::new(), dot(3, 1), 0, version(3, Some("new")));
        assert_eq!(grave.sift(&KeyState::Causal(after)), Sifted::News);
    }

    #[test]
    fn a_register_that_was_reaped_takes_what_is_higher_and_nothing_else() {
        let of = |millis, value| KeyState::Lww(Register::of(dot(1, millis), version(millis, value)));
        let grave = grave(of(50, None), Fate::Reap);
        assert_eq!(grave.sift(&of(49, Some("late"))), Sifted::Covered);
        assert_eq!(grave.sift(&of(50, None)), Sifted::Covered);
        assert_eq!(grave.sift(&of(51, Some("new"))), Sifted::News);
    }

    #[test]
    fn a_lattice_that_was_reaped_takes_only_puts_that_the_delete_had_not_seen() {
        let stamp = Stamp { millis: 1, logical: 0 };
        let mut before = Fragments::default();
        before.put(dot(1, 1), 0, stamp, Bytes::from_static(b"old"), Standing::valid(1));
        let mut after = before.clone();
        after.delete(&before.seen(), dot(2, 1), 0, stamp, false);
        let grave = grave(KeyState::Lattice(after), Fate::Reap);
        assert_eq!(grave.sift(&KeyState::Lattice(before.clone())), Sifted::Covered);
        before.put(dot(3, 1), 0, stamp, Bytes::from_static(b"new"), Standing::valid(1));
        let KeyState::Lattice(rest) = rest(grave.sift(&KeyState::Lattice(before.clone()))) else {
            panic!("something is new and something is not");
        };
        assert_eq!(rest.iter().map(|fragment| fragment.value.clone()).collect::<Vec<_>>(), ["new"]);
        // A later delete is news, though it leaves nothing.
        before.delete(&before.seen(), dot(3, 2), 1, stamp, false);
        assert_ne!(grave.sift(&KeyState::Lattice(before)), Sifted::Covered);
    }

    #[test]
    fn a_retired_context_still_covers_what_it_did_and_lets_its_live_versions_in() {
        let mut old = Siblings::default();
        old.write(&DotSet::new(), dot(1, 1), 0, version(1, Some("old")));
        let mut state = old.clone();
        state.write(old.seen(), dot(2, 1), 0, version(2, Some("now")));
        let whole = KeyState::Causal(state.clone());
        let grave = grave(whole.clone(), Fate::Retire(vec![ActorId(1)]));
        let left = grave.shortened(&whole).expect("a value is left");
        assert!(!left.seen().contains(dot(1, 1)));
        assert_eq!(grave.sift(&KeyState::Causal(old.clone())), Sifted::Covered);
        assert_eq!(grave.sift(&left), Sifted::News, "a replica whose copy was lost gets it again");
        assert_eq!(rest(grave.take(&whole)), left, "and no long context comes back with it");
        let mut part = Siblings::default();
        part.write(&DotSet::new(), dot(2, 1), 0, version(2, Some("now")));
        assert_eq!(
            grave.sift(&KeyState::Causal(part)),
            Sifted::News,
            "and nothing claims more than it holds"
        );
        let mut news = old;
        news.write(&DotSet::new(), dot(3, 1), 0, version(3, Some("new")));
        let KeyState::Causal(rest) = rest(grave.sift(&KeyState::Causal(news))) else {
            panic!("something is new and something is not");
        };
        assert_eq!(rest.iter().map(|(dot, _)| *dot).collect::<Vec<_>>(), [dot(3, 1)]);
        assert!(rest.seen().contains(dot(1, 1)) && !rest.seen().contains(dot(2, 1)));
    }

    #[test]
    fn a_state_that_was_written_since_it_was_agreed_upon_gets_shorter_too() {
        let mut old = Siblings::default();
        old.write(&DotSet::new(), dot(1, 2), 0, version(1, Some("old")));
        let mut agreed = old.clone();
        agreed.write(old.seen(), dot(2, 1), 0, version(2, Some("now")));
        // A put that knows the old version only comes before the end of the round.
        let mut written = agreed.clone();
        written.write(old.seen(), dot(3, 1), 0, version(3, Some("new")));
        let grave = grave(KeyState::Causal(agreed), Fate::Retire(vec![ActorId(1)]));
        let written = KeyState::Causal(written);
        assert!(!grave.is_of(&written) && grave.told(&written).is_some());
        let short = grave.shortened(&written).expect("two versions are left");
        assert_eq!(short.live_dots(), written.live_dots());
        assert_eq!(short.seen().actors(), 2);
        assert_eq!(rest(grave.take(&written)), short);
        assert!(grave.told(&short).is_none() && grave.take(&short) == Sifted::News);
        // A disk that was put back may hold the old version as live; its context stays as long as that needs.
        assert_eq!(grave.shortened(&KeyState::Causal(old)), None);
    }

    #[test]
    fn what_comes_late_brings_no_span_back_by_a_version_that_has_died_since() {
        let mut old = Siblings::default();
        old.write(&DotSet::new(), dot(1, 1), 0, version(1, Some("died")));
        old.write(&DotSet::new(), dot(2, 1), 0, version(1, Some("lives")));
        let mut state = old.clone();
        state.write(&DotSet::single(dot(1, 1), 0), dot(3, 1), 0, version(2, Some("now")));
        let grave = grave(KeyState::Causal(state), Fate::Retire(vec![ActorId(1)]));
        let mut part = Siblings::default();
        part.write(&DotSet::new(), dot(2, 1), 0, version(1, Some("lives")));
        assert_eq!(rest(grave.take(&KeyState::Causal(old))), KeyState::Causal(part));
    }

    #[test]
    fn a_context_that_was_retired_does_not_come_back_while_the_next_round_is_under_way() {
        let mut old = Siblings::default();
        old.write(&DotSet::new(), dot(1, 1), 0, version(1, Some("old")));
        let mut state = old.clone();
        state.write(old.seen(), dot(2, 1), 0, version(2, Some("expires")));
        let whole = KeyState::Causal(state);
        let first = grave(whole.clone(), Fate::Retire(vec![ActorId(1)]));
        let short = first.shortened(&whole).expect("a value is left");
        let outline = codec::record(&short.outline());
        let mut second = Grave::new(OpId(2), short.outline(), outline, Fate::Reap, Some(&first), 0);
        assert_eq!(rest(second.take(&whole)), short);
        // Should it be there all the same, it goes with what it is a longer form of.
        second.closed = true;
        assert!(!second.is_of(&whole) && second.is_gone(&whole) && second.is_gone(&short));
        let mut news = Siblings::default();
        news.write(&DotSet::new(), dot(3, 1), 0, version(3, Some("new")));
        assert!(!second.is_gone(&KeyState::Causal(news)));
    }

    #[test]
    fn a_slow_read_shows_what_is_dead_only_where_it_does_not_know_what_took_its_place() {
        let mut old = Siblings::default();
        old.write(&DotSet::new(), dot(1, 1), 0, version(1, Some("old")));
        let mut state = old.clone();
        state.write(old.seen(), dot(2, 1), 0, version(2, Some("now")));
        let whole = KeyState::Causal(state);
        let grave = grave(whole.clone(), Fate::Retire(vec![ActorId(1)]));
        assert_eq!(grave.without_dead(&old), None);
        // What one replica held before, and another after its context was shortened.
        let Some(KeyState::Causal(mut both)) = grave.shortened(&whole) else { panic!("a value is left") };
        let _ = both.sync(&old);
        assert_eq!(both.len(), 2);
        let left = grave.without_dead(&both).expect("one of two is dead");
        assert_eq!(left.iter().map(|(dot, _)| *dot).collect::<Vec<_>>(), [dot(2, 1)]);
        assert_eq!(left.seen(), both.seen());
    }

    #[test]
    fn a_second_grave_of_a_key_takes_nothing_from_what_lives_in_both() {
        let mut state = Siblings::default();
        state.write(&DotSet::new(), dot(2, 1), 0, version(1, Some("lives")));
        let whole = KeyState::Causal(state.clone());
        let fate = || Fate::Retire(vec![ActorId(1)]);
        for closed in [false, true] {
            let mut first = grave(whole.clone(), fate());
            first.closed = closed;
            let outline = codec::record(&whole.outline());
            let second = Grave::new(OpId(2), whole.outline(), outline, fate(), Some(&first), 0);
            let mut news = state.clone();
            news.write(&DotSet::new(), dot(3, 1), 0, version(2, Some("new")));
            assert_eq!(second.sift(&KeyState::Causal(news)), Sifted::News);
        }
    }

    #[test]
    fn a_second_grave_of_a_key_covers_what_the_first_did() {
        let (before, after) = deleted();
        let first = grave(KeyState::Causal(after), Fate::Reap);
        let mut again = Siblings::default();
        again.write(&DotSet::new(), dot(3, 1), 0, version(3, None));
        let outline = codec::record(&KeyState::Causal(again.clone()));
        let mut second =
            Grave::new(OpId(2), KeyState::Causal(again.clone()), outline, Fate::Reap, Some(&first), 0);
        second.closed = true;
        assert!(second.is_of(&KeyState::Causal(again)));
        assert_eq!(second.sift(&KeyState::Causal(before)), Sifted::Covered);
    }
}
