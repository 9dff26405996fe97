//! Tests of moments: what is known of another's time, and requests that come when nobody waits for them any more.

use super::*;
use crate::catalog::Policy;
use crate::event::{Effect, Effects, Event};
use crate::id::{ClientTicket, RequestId};
use crate::message::Message;
use crate::request::{Basis, Level, Operation, Outcome, Request, Sloppiness};
use crate::story::{Cluster, named};
use bytes::Bytes;

#[test]
fn of_two_words_about_a_boot_that_counts_which_says_more() {
    // Session, told, heard at; what is known at 2,000.
    type Word = (u64, u64, u64);
    let rows: [(&[Word], (u64, u64)); 6] = [
        (&[(1, 500, 1_000)], (1, 1_499)),
        // The second word was on its way for 300 ms longer.
        (&[(1, 500, 1_000), (1, 700, 1_500)], (1, 1_499)),
        (&[(1, 500, 1_000), (1, 1_100, 1_500)], (1, 1_599)),
        // Or the first is of long ago, and its machine stood still since.
        (&[(1, 90_000, 0), (1, 90_100, 15_000)], (1, 90_100)),
        // Another boot begins anew.
        (&[(1, 500, 1_000), (2, 3, 1_900)], (2, 102)),
        (&[(1, u64::MAX, 0)], (1, u64::MAX)),
    ];
    for (words, (session, running_ms)) in rows {
        let mut known = None;
        words.iter().for_each(|(session, told, at)| Told::hear(&mut known, *session, *told, *at));
        let at_ms = words.last().map_or(0, |word| word.2).max(2_000);
        assert_eq!(known.unwrap().moment(at_ms), Moment { session, running_ms }, "{words:?}");
    }
}

fn put(level: Level, until: Option<Moment>) -> Request {
    Request {
        keyspace: "k".to_owned(),
        key: Bytes::from_static(b"key"),
        level,
        sloppiness: Sloppiness::Keyspace,
        timeout_ms: Some(1_000),
        until,
        retry_of_ms_ago: None,
        operation: Operation::Put {
            value: Bytes::from_static(b"v"),
            content_type: None,
            basis: Basis::Blind,
            request_id: RequestId([9; 16]),
            ttl_ms: None,
        },
    }
}

const TICKET: ClientTicket = ClientTicket(1_000);

/// What a node does at once when a client asks.
fn begin(cluster: &mut Cluster, node: usize, request: Request) -> Effects {
    let mut effects = Effects::new();
    let now = cluster.now;
    cluster.nodes[node].handle(now, Event::Client { ticket: TICKET, request }, &mut effects);
    effects
}

/// What becomes of the request once the rest has happened.
fn end(cluster: &mut Cluster, node: usize, effects: Effects) -> Option<Outcome> {
    effects.into_iter().for_each(|effect| cluster.perform(node, effect));
    cluster.run();
    cluster.outcomes.remove(&TICKET)
}

fn is_late(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Failed(Problem::Late)))
}

fn policies() -> [Policy; 4] {
    [Policy::Lww, Policy::Siblings, Policy::Resolver(named("union")), Policy::Lattice(named("join"))]
}

fn is_empty(cluster: &Cluster) -> bool {
    let objects = |disk: &std::collections::BTreeMap<Bytes, crate::event::Record>| {
        disk.keys().filter(|key| crate::storage_key::parse_object(key).is_some()).count()
    };
    cluster.disks.iter().all(|disk| objects(disk) == 0)
}

#[test]
fn a_write_that_comes_when_its_sender_has_given_it_up_is_refused_and_stores_nothing() {
    for policy in policies() {
        let mut cluster = Cluster::new(3);
        cluster.keyspace("k", policy);
        cluster.live(500);
        let now = cluster.nodes[0].moment();
        let rows = [
            (None, false),
            (Some(now), false),
            (Some(Moment { running_ms: now.running_ms - 1, ..now }), true),
            (Some(Moment { session: now.session ^ 1, running_ms: u64::MAX }), true),
        ];
        for (until, late) in rows.into_iter().rev() {
            let effects = begin(&mut cluster, 0, put(Level::All, until));
            let outcome = end(&mut cluster, 0, effects);
            assert_eq!(is_late(outcome.clone()), late, "{until:?}: {outcome:?}");
            assert_eq!(is_empty(&cluster), late, "{until:?}");
        }
    }
}

#[test]
fn a_write_whose_node_stands_still_before_it_has_a_dot_is_refused_and_stores_nothing() {
    // A register without a plugin has its dot at once.
    for policy in policies().into_iter().skip(1) {
        let mut cluster = Cluster::new(3);
        cluster.keyspace("k", policy);
        let effects = begin(&mut cluster, 0, put(Level::All, None));
        assert!(is_empty(&cluster));
        let past_its_time = cluster.nodes[0].moment().running_ms + 1_001;
        cluster.nodes[0].has_run(past_its_time);
        let outcome = end(&mut cluster, 0, effects);
        assert!(is_late(outcome) && is_empty(&cluster));
    }
}

#[test]
fn a_forwarded_write_says_until_when_in_the_time_of_the_node_that_it_goes_to() {
    for late_ms in [0, 1, 1_000] {
        let mut cluster = Cluster::new(5);
        cluster.keyspace("k", Policy::Siblings);
        let entry = cluster.nodes[0].keyspaces.by_name("k").expect("it was just made");
        let token = crate::target::Target::new(entry, &Bytes::from_static(b"key")).token;
        let primaries = cluster.nodes[0].ring().primaries(token, 3);
        let from = (0..5).find(|node| !primaries.contains(&cluster.id(*node))).expect("two are none");
        cluster.live(500);
        let patient =
            Some(cluster.nodes[from].moment()).map(|m| Moment { running_ms: m.running_ms + 700, ..m });
        let mut effects = begin(&mut cluster, from, put(Level::All, patient));
        let forwarded = effects.iter().find_map(|effect| match effect {
            Effect::Send { to, message: Message::Forward { request, .. } } => {
                Some((*to, request.until.unwrap()))
            }
            _ => None,
        });
        let (to, until) = forwarded.expect("it is forwarded");
        let to = cluster.index(to);
        let told = cluster.nodes[to].moment();
        assert_eq!(until.session, told.session);
        let slack_ms = told.running_ms + 700 - until.running_ms;
        assert!(
            slack_ms <= 250,
            "it errs to the early side, and not by more than a round of gossip: {slack_ms}"
        );
        cluster.nodes[to].has_run(until.running_ms + late_ms);
        let outcome = end(&mut cluster, from, std::mem::take(&mut effects));
        assert_eq!(is_late(outcome), late_ms > 0);
        assert_eq!(is_empty(&cluster), late_ms > 0);
    }
}
