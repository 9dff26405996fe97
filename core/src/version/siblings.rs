//! The state of a key in `siblings` and `resolver` keyspaces: a context and the live versions.
//!
//! In: puts, deletes, states of other replicas. Out: the least upper bound of all that was seen.
//! Sync keeps a version that is on both sides, or on one side and not covered by the other's
//! context; then what was seen is the union (semantics §3). Absent: who resolves
//! siblings, and limits on how many there are.

use super::{Content, DoneSet, DotSet, Stamp, Version};
use crate::id::{Dot, Millis, RequestId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What was seen, and the live versions by dot, each of them seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    seen: DotSet,
    versions: Vec<(Dot, Version)>,
    /// Of replaced versions; no part of what makes two states equal in their digest.
    done: DoneSet,
}

impl Siblings {
    /// From decoded parts; None unless dots ascend and were seen.
    pub fn from_parts(seen: DotSet, versions: Vec<(Dot, Version)>) -> Option<Siblings> {
        let ascending = versions.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let within = versions.iter().all(|(dot, _)| dot.counter > 0 && seen.contains(*dot));
        (ascending && within).then(|| Siblings { seen, versions, done: DoneSet::default() })
    }

    /// The same, remembering these requests.
    #[must_use]
    pub fn with_done(mut self, done: DoneSet) -> Siblings {
        self.done = done;
        self
    }

    /// Requests whose versions were replaced lately.
    pub fn done(&self) -> &DoneSet {
        &self.done
    }

    /// All dots this has seen.
    pub fn seen(&self) -> &DotSet {
        &self.seen
    }

    /// Live versions in dot order.
    pub fn iter(&self) -> impl Iterator<Item = &(Dot, Version)> {
        self.versions.iter()
    }

    /// How many live versions, deletes included.
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// No live version.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// How many are shown at `now`, once byte-equal ones count once (R1).
    pub fn len_distinct(&self, now: Millis) -> usize {
        let firsts = self.firsts();
        let live = firsts.iter().zip(&self.versions).filter(|(_, (_, version))| !version.is_expired(now));
        live.map(|(first, _)| first).collect::<BTreeSet<_>>().len()
    }

    /// What their values come to, byte-equal ones counted once, without those that `gone` covers.
    pub fn size_bytes(&self, gone: &DotSet) -> usize {
        let firsts = self.firsts();
        let left = firsts.iter().zip(&self.versions).filter(|(_, (dot, _))| !gone.contains(*dot));
        let left: BTreeSet<usize> = left.map(|(first, _)| *first).collect();
        left.into_iter().map(|first| self.versions[first].1.content.size_bytes()).sum()
    }

    /// For each version the place of the first with the same content. Values are looked at only where two are equally long,
    /// and each of those once: a put of one of many large siblings must not compare all of them with one another.
    pub fn firsts(&self) -> Vec<usize> {
        let mut by_length: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for (index, (_, version)) in self.versions.iter().enumerate() {
            by_length.entry(version.content.value().map(Bytes::len)).or_default().push(index);
        }
        let mut firsts: Vec<usize> = (0..self.versions.len()).collect();
        for (length, places) in by_length.into_iter().filter(|(_, places)| places.len() > 1) {
            let mut known: BTreeMap<[u8; 32], usize> = BTreeMap::new();
            for place in places {
                let value = self.versions[place].1.content.value().filter(|_| length > Some(0));
                let digest = value.map_or([0; 32], |value| *blake3::hash(value).as_bytes());
                firsts[place] = *known.entry(digest).or_insert(place);
            }
        }
        firsts
    }

    /// The live version that a request stored, if it is still there.
    pub fn of_request(&self, request: RequestId) -> Option<(Dot, &Version)> {
        let found = self.versions.iter().find(|(_, version)| version.request_id == Some(request));
        found.map(|(dot, version)| (*dot, version))
    }

    /// The dot and stamp of a request whose version is live, or was replaced lately.
    pub fn dot_of(&self, request: RequestId) -> Option<(Dot, Stamp)> {
        let live = self.of_request(request).map(|(dot, version)| (dot, version.stamp));
        live.or_else(|| self.done.find(request))
    }

    /// A new write that had seen `context`: what the context covers goes, `version` comes under
    /// `dot`, whose span begins after `previous`.
    pub fn write(&mut self, context: &DotSet, dot: Dot, previous: u64, version: Version) {
        assert!(!self.seen.contains(dot), "{dot} was issued before");
        assert!(!context.contains(dot), "a client has seen {dot} before it was issued");
        for (dot, gone) in self.versions.iter().filter(|(dot, _)| context.contains(*dot)) {
            self.done.note(*dot, gone);
        }
        self.done.forget_older(version.stamp);
        self.versions.retain(|(dot, _)| !context.contains(*dot));
        self.seen.join(&DotSet::single(dot, previous));
        self.seen.join(context);
        let at = self.versions.partition_point(|(other, _)| *other < dot);
        self.versions.insert(at, (dot, version));
        self.check();
    }

    /// The least upper bound with `other`. Answers dots that carry different content on the two
    /// sides: what is here stays.
    #[must_use]
    pub fn sync(&mut self, other: &Siblings) -> Vec<Dot> {
        let mut reused = Vec::new();
        self.done.join(&other.done);
        if self.seen == other.seen && self.same_dots(other) {
            for ((dot, mine), (_, theirs)) in self.versions.iter_mut().zip(&other.versions) {
                if !mine.is_same_write(theirs) {
                    reused.push(*dot);
                }
                mine.take_bytes(theirs);
            }
            return reused;
        }
        let mut joined = Vec::with_capacity(self.versions.len() + other.versions.len());
        let (mut left, mut right) =
            (std::mem::take(&mut self.versions).into_iter().peekable(), other.versions.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((mine, _)), Some((theirs, _))) => mine.cmp(theirs),
            };
            match order {
                std::cmp::Ordering::Less => {
                    if let Some((dot, mine)) = left.next() {
                        match other.seen.contains(dot) {
                            true => self.done.note(dot, &mine),
                            false => joined.push((dot, mine)),
                        }
                    }
                }
                std::cmp::Ordering::Greater => {
                    if let Some((dot, theirs)) = right.next() {
                        match self.seen.contains(*dot) {
                            true => self.done.note(*dot, theirs),
                            false => joined.push((*dot, theirs.clone())),
                        }
                    }
                }
                std::cmp::Ordering::Equal => {
                    if let (Some(mut mine), Some(theirs)) = (left.next(), right.next()) {
                        if !mine.1.is_same_write(&theirs.1) {
                            reused.push(mine.0);
                        }
                        mine.1.take_bytes(&theirs.1);
                        joined.push(mine);
                    }
                }
            }
        }
        self.versions = joined;
        self.seen.join(&other.seen);
        self.check();
        reused
    }

    fn same_dots(&self, other: &Siblings) -> bool {
        self.versions.len() == other.versions.len()
            && self.versions.iter().zip(&other.versions).all(|(mine, theirs)| mine.0 == theirs.0)
    }

    /// The bug of keeping one dot of byte-equal siblings (see `Mutant::CollapseEqualBytes`).
    pub(crate) fn collapse_equal(&mut self) {
        let mut kept: Vec<(Dot, Version)> = Vec::new();
        for entry in std::mem::take(&mut self.versions) {
            if kept.iter().all(|(_, version)| version.content != entry.1.content) {
                kept.push(entry);
            }
        }
        self.versions = kept;
    }

    /// The same history with other versions of it live.
    pub(super) fn with_versions(&self, versions: Vec<(Dot, Version)>) -> Siblings {
        let siblings = Siblings { seen: self.seen.clone(), versions, done: self.done.clone() };
        siblings.check();
        siblings
    }

    /// See [`super::KeyState::drop_expired`].
    pub(super) fn drop_expired(&mut self, now: Millis) -> bool {
        let mut any = false;
        self.versions.iter_mut().for_each(|(_, version)| any |= version.drop_bytes(now));
        any
    }

    /// Live versions that are values.
    pub fn values(&self) -> impl Iterator<Item = &(Dot, Version)> {
        self.versions.iter().filter(|(_, version)| version.content != Content::Tombstone)
    }

    /// What must always hold: dots ascend and lie within the context.
    fn check(&self) {
        assert!(
            self.versions.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "siblings in dot order, once each"
        );
        assert!(
            self.versions.iter().all(|(dot, _)| self.seen.contains(*dot)),
            "every sibling's dot was seen"
        );
    }
}
