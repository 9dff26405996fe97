//! Keys as large as they get, told as stories.

use super::*;
use crate::anti_entropy::Exchange;
use crate::catalog::{Policy, Settings};
use crate::event::Event;
use crate::request::{Basis, GetReply, Level, Operation, Want};
use crate::story::{Cluster, values};
use crate::version::codec;
use bytes::Bytes;

/// Other bytes for each number, all equally long.
fn large(number: usize) -> String {
    format!("{number:08}{}", "x".repeat(VALUE_BYTES_MAX - 8))
}

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(nodes);
    let n = nodes as u32;
    cluster.keyspace_with("k", Settings { n, r: 1, w: 1, sloppy: false, ..Settings::new(Policy::Siblings) });
    cluster
}

/// Blind puts at a node that is alone, until it takes no more.
fn fill(cluster: &mut Cluster, node: usize) -> usize {
    for number in 0.. {
        match cluster.put(node, Level::One, &large(100 * node + number), Basis::Blind) {
            Outcome::Wrote(_) => {}
            Outcome::Failed(Problem::SiblingLimit { size_bytes, limit_bytes, siblings, .. }) => {
                assert!(size_bytes > limit_bytes);
                assert_eq!((siblings as usize, limit_bytes as usize), (number, CLIENT_STATE_BYTES_MAX));
                return number;
            }
            other => panic!("{other:?}"),
        }
    }
    unreachable!("clients are refused at some point")
}

fn siblings(cluster: &mut Cluster, node: usize, level: Level) -> GetReply {
    match cluster.ask(node, level, Operation::Get { want: Want::Siblings }) {
        Outcome::Got(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// How many siblings of the only key each disk holds.
fn held(cluster: &Cluster) -> Vec<usize> {
    let count = |record: &crate::event::Record| codec::state(record).expect("it decodes").live_dots().len();
    let object = |disk: &std::collections::BTreeMap<Bytes, crate::event::Record>| {
        disk.iter().find(|(key, _)| key[..4] != [0; 4]).map_or(0, |(_, record)| count(record))
    };
    cluster.disks.iter().map(object).collect()
}

fn states_sent(cluster: &Cluster) -> usize {
    let states = |exchange: &Exchange| exchange.states().map_or(0, |(_, states)| states.len());
    cluster.exchanges.iter().map(states).sum()
}

#[test]
fn a_put_whose_context_covers_nothing_live_is_as_blind_as_one_without() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace_with("k", Settings { siblings_max: 3, ..Settings::new(Policy::Siblings) });
    let empty = cluster.get(0, Level::All).context;
    let stale = cluster.wrote(0, Level::All, "0", Basis::Context(empty.clone())).context;
    cluster.wrote(0, Level::All, "1", Basis::Context(stale.clone()));
    for i in 2..4 {
        cluster.wrote(0, Level::All, &i.to_string(), Basis::Context(empty.clone()));
    }
    for context in [empty, stale] {
        match cluster.put(0, Level::All, "more", Basis::Context(context)) {
            Outcome::Failed(Problem::SiblingLimit { siblings: 3, limit: 3, context, .. }) => {
                let all = Basis::Context(context);
                let delete = Operation::Delete { basis: all, request_id: crate::id::RequestId([3; 16]) };
                assert!(matches!(cluster.ask(0, Level::All, delete), Outcome::Wrote(_)));
                for i in 0..3 {
                    cluster.put(0, Level::All, &format!("again {i}"), Basis::Blind);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn clients_are_refused_by_bytes_with_a_context_that_settles_the_key() {
    let mut cluster = cluster(3);
    assert_eq!(fill(&mut cluster, 0), CLIENT_STATE_BYTES_MAX / VALUE_BYTES_MAX);
    // Bytes that are there are counted once.
    let again = cluster.wrote(0, Level::All, &large(3), Basis::Blind);
    assert_eq!(again.siblings as usize, CLIENT_STATE_BYTES_MAX / VALUE_BYTES_MAX);
    let Outcome::Failed(Problem::SiblingLimit { context, .. }) =
        cluster.put(1, Level::All, &large(77), Basis::Blind)
    else {
        panic!("it is full at every node");
    };
    cluster.wrote(1, Level::All, "settled", Basis::Context(context));
    assert_eq!(values(&cluster.get(2, Level::One)), ["settled"]);
}

#[test]
fn what_two_sides_of_a_partition_took_becomes_one_record_on_all_by_repair() {
    let mut cluster = cluster(3);
    cluster.isolate(0);
    let all = fill(&mut cluster, 0) + fill(&mut cluster, 1);
    cluster.cut.clear();
    cluster.live(40_000);
    assert_eq!(held(&cluster), [all; 3]);
    let sent = states_sent(&cluster);
    cluster.live(40_000);
    assert_eq!(states_sent(&cluster), sent, "and then nothing more is sent");
    assert_eq!(siblings(&mut cluster, 2, Level::All).siblings.len(), all);
}

#[test]
fn what_no_record_holds_is_refused_said_and_not_sent_again_and_a_client_can_settle_it() {
    let mut cluster = cluster(4);
    (0..4).for_each(|node| cluster.isolate(node));
    let each = fill(&mut cluster, 0);
    let taken: usize = (1..4).map(|node| fill(&mut cluster, node)).sum();
    assert_eq!(taken, 3 * each);
    cluster.cut.clear();
    cluster.live(60_000);
    assert!(
        held(&cluster).iter().all(|count| *count >= 2 * each && count * VALUE_BYTES_MAX <= RECORD_BYTES_MAX)
    );
    let is_told = |notice: &Notice| matches!(notice, Notice::KeyTooLarge { .. });
    assert!(cluster.notices.iter().filter(|notice| is_told(notice)).count() <= 4, "each says so once");
    assert!(cluster.notices.iter().any(is_told));
    let sent = states_sent(&cluster);
    cluster.live(60_000);
    assert_eq!(states_sent(&cluster), sent, "what cannot be taken in is not sent again");
    let read = siblings(&mut cluster, 0, Level::All);
    assert_eq!(read.siblings.len(), 4 * each);
    cluster.wrote(0, Level::All, "settled", Basis::Context(read.context));
    cluster.live(60_000);
    assert_eq!(held(&cluster), [1; 4]);
}

#[test]
fn a_message_that_no_frame_holds_is_not_sent_and_who_waits_for_it_is_told() {
    let mut cluster = Cluster::new(4);
    cluster.keyspace("k", Policy::Siblings);
    let target = crate::target::Target::new(cluster.nodes[0].keyspaces.by_name("k").unwrap(), b"key");
    let primaries = cluster.nodes[0].ring.primaries(target.token, 3);
    let outside = (0..4).find(|node| !primaries.contains(&cluster.id(*node))).expect("one is none");
    let inside = cluster.index(primaries[0]);
    let sibling = |i: u8| crate::request::SiblingView {
        content: Some(Bytes::from(vec![i; MESSAGE_BYTES_MAX / 2])),
        dots: Vec::new(),
        stamp: crate::version::Stamp::default(),
        content_type: None,
        receipt: None,
        expires_at: None,
        apart: None,
        context: Bytes::new(),
    };
    let reply = GetReply {
        presence: crate::request::Presence::Found,
        siblings: vec![sibling(1), sibling(2)],
        context: Bytes::new(),
        resolution: crate::request::Resolution::Siblings,
        acks: crate::request::Acks::default(),
    };
    let to = cluster.id(outside);
    let op = OpId(5);
    let mut effects =
        vec![Effect::Send { to, message: Message::Forwarded { op, outcome: Outcome::Got(reply) } }];
    cluster.nodes[inside].keep_to_frames(Millis(0), 0, &mut effects);
    let [Effect::Send { message: Message::Forwarded { outcome, .. }, .. }] = &effects[..] else {
        panic!("{} effects", effects.len());
    };
    assert!(matches!(outcome, Outcome::Failed(Problem::TooLarge { what: "reply", .. })));
    let record = crate::event::Record { head: Bytes::new(), body: Bytes::from(vec![0; MESSAGE_BYTES_MAX]) };
    let answer = ReadAnswer::State(Some(record.clone()));
    let mut effects = vec![
        Effect::Send { to, message: Message::ReadReply { op, answer } },
        Effect::Send {
            to,
            message: Message::Replicate { op: None, keyspace: target.entry.id, key: target.key, record },
        },
    ];
    cluster.nodes[inside].keep_to_frames(Millis(0), 0, &mut effects);
    let told = ReadAnswer::Refused(Refusal::TooLarge);
    assert!(
        matches!(&effects[..], [Effect::Send { message: Message::ReadReply { answer, .. }, .. }] if *answer == told)
    );
    assert_eq!(cluster.nodes[inside].counters.messages_too_large, 3);
    cluster.queue.push_back((inside, Event::TimerFired));
    cluster.run();
}
