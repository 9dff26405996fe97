//! Short contexts for clients. Pure.
//!
//! ```text
//!   a client saw      ·──·     ·──·     ·──·        its own puts, between them those of another
//!   the key has seen  ────────────────────────      all of these, and one of them is live: ×
//!   it is told        ───────────────── × ────      so much, and not the one
//! ```
//!
//! What a replica has seen of a key and does not hold as live is dead for ever: some write had seen it. A context that
//! claims it as well supersedes nothing that would be kept otherwise, so the gaps between what a client saw are filled
//! with what is dead, and contexts stay as short as the key's own, however long two clients chain their puts (B5). In: what a
//! client saw, a key's state. Out: what it is told. Absent: bytes; they are `context`'s.

use super::{DotSet, Siblings, Span};
use crate::id::Dot;
use std::collections::BTreeMap;

/// What a client is told that has seen `client` of a key: that, and of the same actors what is dead in `state`, where that is
/// shorter. Never a live version that the client has not seen (P1, P5).
pub(crate) fn filled(client: &DotSet, state: &Siblings) -> DotSet {
    let mut mine: BTreeMap<_, Vec<Span>> = BTreeMap::new();
    client.spans().iter().for_each(|span| mine.entry(span.actor).or_default().push(*span));
    if mine.values().all(|spans| spans.len() == 1) {
        return client.clone();
    }
    let unseen = || state.iter().map(|(dot, _)| *dot).filter(|dot| !client.contains(*dot));
    let mut filled = DotSet::new();
    for (actor, spans) in mine {
        let all = state.seen().spans().iter().filter(|span| span.actor == actor);
        let mut whole = DotSet::new();
        all.for_each(|span| whole.push(*span));
        let mut live = DotSet::new();
        unseen().filter(|dot| dot.actor == actor).for_each(|dot| live.join(&alone(dot)));
        let dead = whole.minus(&live);
        let mut own = DotSet::new();
        spans.iter().for_each(|span| own.push(*span));
        // A context of a state that this one has not heard of yet says more.
        let is_shorter = dead.spans().len() < spans.len() && own.within(&dead);
        let shorter = if is_shorter { dead } else { own };
        shorter.spans().iter().for_each(|span| filled.push(*span));
    }
    filled
}

/// At most so many spans of `seen`: those that cover live versions before those that do not. A context that claims less
/// supersedes less, and what it leaves out is dead at the replicas that were asked.
pub(crate) fn squeezed(seen: &DotSet, live: impl Iterator<Item = Dot>, spans_max: usize) -> DotSet {
    let spans = seen.spans();
    if spans.len() <= spans_max {
        return seen.clone();
    }
    let mut needed = vec![false; spans.len()];
    for dot in live.filter(|dot| seen.contains(*dot)) {
        needed[spans.partition_point(|span| (span.actor, span.upto) < (dot.actor, dot.counter))] = true;
    }
    let first = (0..spans.len()).filter(|index| needed[*index]);
    let then = (0..spans.len()).filter(|index| !needed[*index]);
    let mut kept: Vec<usize> = first.chain(then).take(spans_max).collect();
    kept.sort_unstable();
    let mut squeezed = DotSet::new();
    kept.into_iter().for_each(|index| squeezed.push(spans[index]));
    squeezed
}

fn alone(dot: Dot) -> DotSet {
    DotSet::single(dot, dot.counter - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorId;
    use crate::version::{Content, Stamp, Version};
    use bytes::Bytes;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn version() -> Version {
        Version {
            content: Content::Value(Bytes::from_static(b"v")),
            stamp: Stamp::default(),
            content_type: None,
            request_id: None,
            receipt: None,
            expires_at: None,
        }
    }

    /// Clients that chain contexts, or read, or begin anew; a coordinator that now and then becomes another.
    struct Story {
        state: Siblings,
        actor: u64,
        counter: u64,
        /// What each has seen by its token, and what it truly saw: dots of its own and those that it read.
        clients: Vec<(DotSet, Vec<Dot>)>,
    }

    impl Story {
        fn put(&mut self, client: usize) {
            self.counter += 1;
            let dot = Dot { actor: ActorId(self.actor), counter: self.counter };
            let (token, saw) = &mut self.clients[client];
            let previous = self.state.seen().last(dot.actor);
            let unseen: Vec<Dot> =
                self.state.iter().map(|(dot, _)| *dot).filter(|dot| !saw.contains(dot)).collect();
            self.state.write(token, dot, previous, version());
            for dot in &unseen {
                assert!(self.state.iter().any(|(live, _)| live == dot), "{dot} was never seen and is gone");
            }
            token.join(&DotSet::single(dot, previous));
            saw.push(dot);
            *token = filled(token, &self.state);
            assert!(token.within(self.state.seen()), "a context claims only what the key has seen");
            for (live, _) in self.state.iter() {
                assert!(saw.contains(live) || !token.contains(*live), "{live} was not seen");
            }
            saw.retain(|dot| self.state.iter().any(|(live, _)| live == dot));
        }
    }

    #[test]
    fn contexts_of_ten_thousand_chained_puts_stay_short_and_claim_nothing_that_lives_unseen() {
        for seed in 0..4 {
            let mut rng = StdRng::seed_from_u64(seed);
            let clients = vec![(DotSet::new(), Vec::new()); 2 + seed as usize];
            let mut story = Story { state: Siblings::default(), actor: 1, counter: 0, clients };
            for _ in 0..10_000 {
                let client = rng.random_range(0..story.clients.len());
                match rng.random_range(0..1_000) {
                    0 => (story.actor, story.counter) = (story.actor + 1, 0),
                    1..=4 => {
                        let live = story.state.iter().map(|(dot, _)| *dot).collect();
                        story.clients[client] = (story.state.seen().clone(), live);
                    }
                    _ => {}
                }
                story.put(client);
                let spans = story.clients[client].0.spans().len();
                let bound = story.state.seen().actors() + story.state.len() + 1;
                assert!(spans <= bound, "{spans} spans, {bound} would do");
            }
            assert!(story.state.len() <= story.clients.len());
        }
    }

    #[test]
    fn what_the_key_has_not_seen_is_kept_as_it_came() {
        let dot = |counter| Dot { actor: ActorId(1), counter };
        let mut state = Siblings::default();
        state.write(&DotSet::new(), dot(9), 0, version());
        let mut token = DotSet::single(dot(3), 2);
        token.join(&DotSet::single(dot(12), 11));
        assert_eq!(filled(&token, &state), token);
    }

    #[test]
    fn of_too_many_spans_those_that_cover_live_versions_are_kept() {
        let mut seen = DotSet::new();
        (1..=1_000).for_each(|actor| seen.issue(Dot { actor: ActorId(actor), counter: 5 }));
        let live = [7, 500, 1_000].map(|actor| Dot { actor: ActorId(actor), counter: 5 });
        let squeezed = squeezed(&seen, live.into_iter(), 10);
        assert_eq!(squeezed.spans().len(), 10);
        assert!(live.iter().all(|dot| squeezed.contains(*dot)) && squeezed.within(&seen));
        assert!(DotSet::from_spans(squeezed.spans().to_vec()).is_some());
    }
}
