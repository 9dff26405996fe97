//! Kept answers: when they serve, and when they must not.

use super::*;
use crate::catalog::{Policy, Settings};
use crate::event::Event;
use crate::hot_keys::target;
use crate::id::{ClientTicket, Dot};
use crate::plugin::{KeyInfo, PluginSibling};
use crate::request::{Basis, Level, Operation, Outcome, Request, Resolution};
use crate::story::*;
use crate::version::{Siblings, Stamp};

fn counts(cluster: &Cluster, node: usize) -> (u64, u64) {
    let counters = &cluster.nodes[node].counters;
    (counters.views, counters.view_hits)
}

fn in_conflict(policy: Policy) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.keyspace_with("k", Settings { write_back_delay_ms: None, ..Settings::new(policy) });
    cluster.wrote(0, Level::All, "milk", Basis::Blind);
    cluster.wrote(1, Level::All, "eggs", Basis::Blind);
    cluster
}

#[test]
fn a_conflict_that_is_read_again_is_shown_without_the_plugin_until_it_changes() {
    let mut cluster = in_conflict(Policy::Resolver(named("union")));
    let first = cluster.get(0, Level::All);
    for _ in 0..10 {
        assert_eq!(cluster.get(0, Level::All), first);
    }
    assert_eq!(counts(&cluster, 0), (1, 10));
    cluster.wrote(2, Level::All, "bread", Basis::Blind);
    assert_eq!(values(&cluster.get(0, Level::All)), ["bread eggs milk"]);
    assert_eq!(counts(&cluster, 0), (2, 10));
}

#[test]
fn what_the_plugin_could_not_answer_is_asked_again() {
    let mut cluster = in_conflict(Policy::Resolver(named("union")));
    cluster.plugin_works = false;
    let read = cluster.get(0, Level::All);
    assert!(matches!(read.resolution, Resolution::Unresolved { .. }), "{read:?}");
    cluster.plugin_works = true;
    assert_eq!(values(&cluster.get(0, Level::All)), ["eggs milk"]);
    // And what it has answered once is served while it is out of order.
    cluster.plugin_works = false;
    assert_eq!(values(&cluster.get(0, Level::All)), ["eggs milk"]);
}

#[test]
fn fragments_that_could_not_be_joined_are_joined_for_one_reader_and_shown_to_the_next() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lattice(named("join")));
    cluster.wrote(0, Level::All, "a", Basis::Unsaid);
    cluster.plugin_says = no_joins;
    cluster.wrote(1, Level::All, "b", Basis::Unsaid);
    cluster.plugin_says = |_| None;
    for _ in 0..3 {
        assert_eq!(values(&cluster.get(2, Level::One)), ["a b"]);
    }
    assert_eq!(counts(&cluster, 2), (1, 2));
    // A query needs the same join, and then its own projection.
    let request = Request {
        keyspace: "k".to_owned(),
        key: Bytes::from_static(b"key"),
        level: Level::One,
        sloppiness: crate::request::Sloppiness::Keyspace,
        timeout_ms: None,
        until: None,
        retry_of_ms_ago: None,
        operation: Operation::Query { path: Bytes::new(), context: None },
    };
    let ticket = ClientTicket(999);
    cluster.queue.push_back((2, Event::Client { ticket, request }));
    cluster.run();
    assert!(
        matches!(cluster.outcomes.remove(&ticket), Some(Outcome::Queried(reply)) if reply.result == "a b")
    );
    assert_eq!(counts(&cluster, 2), (1, 3));
}

#[test]
fn a_question_is_another_if_anything_differs_that_the_plugin_is_shown() {
    let sibling = |counter, bytes: &'static [u8]| PluginSibling {
        dots: vec![Dot { actor: crate::id::ActorId(1), counter }],
        stamp: Stamp { millis: 5, logical: 0 },
        content: Some(Bytes::from_static(bytes)),
        content_type: None,
    };
    let base = [sibling(1, b"one"), sibling(2, b"two")];
    let mut entry = (*target("key").entry).clone();
    entry.settings = Settings::new(Policy::Resolver(named("union")));
    let of = |entry: &KeyspaceEntry, key: &str, siblings: &[PluginSibling]| {
        let target = Target::new(std::sync::Arc::new(entry.clone()), key.as_bytes());
        let call = PluginCall::Resolve {
            key: KeyInfo { keyspace: "k".into(), key: Bytes::new(), config: Bytes::new() },
            siblings: siblings.to_vec(),
        };
        question(&target, &KeyState::Causal(Siblings::default()), &call).expect("has a plugin")
    };
    let asked = of(&entry, "key", &base);
    assert_eq!(asked, of(&entry, "key", &base));
    let change = |of: &dyn Fn(&mut PluginSibling)| {
        let mut siblings = base.to_vec();
        of(&mut siblings[1]);
        siblings
    };
    let others = [
        change(&|sibling| sibling.dots[0].counter = 3),
        change(&|sibling| sibling.content = None),
        change(&|sibling| sibling.content = Some(Bytes::from_static(b"three"))),
        change(&|sibling| sibling.stamp.millis = 6),
        change(&|sibling| sibling.content_type = Some(Bytes::new())),
        vec![base[0].clone()],
    ];
    for siblings in &others {
        assert_ne!(asked, of(&entry, "key", siblings), "{siblings:?}");
    }
    assert_ne!(asked, of(&entry, "another", &base));
    let changed = |of: &dyn Fn(&mut KeyspaceEntry)| {
        let mut entry = entry.clone();
        of(&mut entry);
        entry
    };
    assert_ne!(asked, of(&changed(&|entry| entry.epoch += 1), "key", &base));
    assert_ne!(asked, of(&changed(&|e| e.settings.plugin_config = Bytes::from_static(b"x")), "key", &base));
}

#[test]
fn it_never_takes_more_than_its_bytes_and_forgets_what_was_used_longest_ago() {
    let question = |i: u8| Question { storage_key: Bytes::from(vec![i]), digest: [i; 16] };
    let value = |bytes: usize| PluginAnswer::Value(Bytes::from(vec![0; bytes]));
    let (mut cache, bytes_max) = (ViewCache::default(), 8 * 1024);
    for i in 0..200 {
        cache.put(question(i), &value(100), bytes_max);
        assert!(cache.bytes() <= bytes_max);
        assert!(cache.get(&question(0)).is_some(), "used all the time, at {i}");
    }
    assert!(cache.get(&question(1)).is_none());
    assert!(cache.get(&question(199)).is_some());
    cache.put(question(201), &value(2_000), bytes_max);
    assert!(cache.get(&question(201)).is_none(), "one answer may not displace all others");
    for answer in [PluginAnswer::Failed("x".into()), PluginAnswer::Valid] {
        cache.put(question(202), &answer, bytes_max);
        assert!(cache.get(&question(202)).is_none());
    }
    assert_eq!((cache.answers.len(), cache.order.len()), (cache.order.len(), cache.answers.len()));
    assert_eq!(cache.bytes(), cache.answers.values().map(|cached| cached.bytes).sum::<usize>());
}
