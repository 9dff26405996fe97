//! Actors, told as stories: what costs one, who is listed as a former one, and how long.

use crate::catalog::Policy;
use crate::event::Record;
use crate::id::ActorId;
use crate::request::{Basis, Level, Outcome};
use crate::story::{Cluster, values};
use crate::version::codec;
use std::collections::BTreeSet;

fn actor(cluster: &Cluster, at: usize) -> ActorId {
    cluster.nodes[at].actor()
}

fn former(cluster: &Cluster, at: usize) -> usize {
    cluster.nodes[at].identity.durable().former_actors.len()
}

/// Actors that the context of the only key names, on one disk.
fn named(cluster: &Cluster, at: usize) -> BTreeSet<ActorId> {
    let object = |disk: &std::collections::BTreeMap<bytes::Bytes, Record>| {
        disk.iter().find(|(key, _)| key[..4] != [0; 4]).map(|(_, record)| record.clone())
    };
    let record = object(&cluster.disks[at]).expect("the key is there");
    let state = codec::state(&record).expect("what is stored decodes");
    state.seen().spans().iter().map(|span| span.actor).collect()
}

/// One put at each node, so that contexts may name all of their actors.
fn cluster(policy: Policy) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", policy);
    for node in 0..3 {
        let context = cluster.get(node, Level::All).context;
        cluster.wrote(node, Level::All, "first", Basis::Context(context));
    }
    cluster
}

#[test]
fn states_of_peers_that_the_disk_refuses_cost_no_actor() {
    for policy in [Policy::Siblings, Policy::Lww] {
        let mut cluster = cluster(policy);
        let before = actor(&cluster, 1);
        cluster.full.insert(1);
        let mut context = cluster.get(0, Level::One).context;
        for i in 0..40 {
            context = cluster.wrote(0, Level::Quorum, &i.to_string(), Basis::Context(context)).context;
        }
        assert_eq!((actor(&cluster, 1), former(&cluster, 1)), (before, 0));
    }
}

#[test]
fn own_writes_that_the_disk_refuses_cost_one_actor_however_many_they_are() {
    let mut cluster = cluster(Policy::Siblings);
    let before = actor(&cluster, 0);
    cluster.full.insert(0);
    for i in 0..20 {
        cluster.put(0, Level::All, &i.to_string(), Basis::Blind);
    }
    assert_ne!(actor(&cluster, 0), before, "the dot of the first may be on the others");
    cluster.full.clear();
    cluster.live(1_000);
    assert_eq!(former(&cluster, 0), 1);
    let read = cluster.get(0, Level::All);
    cluster.wrote(0, Level::All, "settled", Basis::Context(read.context));
    assert_eq!(values(&cluster.get(1, Level::All)), ["settled"]);
    assert!(cluster.nodes[1].is_dead_actor(before));
}

#[test]
fn registers_that_the_disk_refuses_cost_no_actor_and_their_puts_wait_for_none() {
    let mut cluster = cluster(Policy::Lww);
    let before = actor(&cluster, 0);
    cluster.full.insert(0);
    for i in 0..20 {
        let outcome = cluster.put(0, Level::Quorum, &i.to_string(), Basis::Blind);
        assert!(matches!(outcome, Outcome::Wrote(_)), "{outcome:?}");
    }
    assert_eq!((actor(&cluster, 0), former(&cluster, 0)), (before, 0));
}

#[test]
fn a_node_that_crashes_a_hundred_times_lists_no_actor_that_did_nothing() {
    let mut cluster = cluster(Policy::Siblings);
    for _ in 0..100 {
        cluster.boot(0);
        cluster.live(300);
    }
    assert_eq!(former(&cluster, 0), 1);
    assert_eq!(named(&cluster, 1).len(), 3);
    let life = cluster.nodes[1].life_of(cluster.id(0)).expect("it is known");
    assert_eq!(life.former_actors.len(), 1);
}

#[test]
fn actors_that_wrote_before_a_crash_are_retired_and_leave_the_list_also_after_a_member_was_away() {
    let mut cluster = cluster(Policy::Siblings);
    cluster.crash(2, true);
    for i in 0..60 {
        cluster.boot(0);
        cluster.live(100);
        let context = cluster.get(0, Level::Quorum).context;
        cluster.wrote(0, Level::Quorum, &i.to_string(), Basis::Context(context));
    }
    assert_eq!(former(&cluster, 0), 60, "none is forgotten while contexts name it");
    assert!(named(&cluster, 1).len() > 60);
    cluster.boot(2);
    // Gossip, repair of the one that was away, collection, and a walk of each.
    cluster.live(120_000);
    for node in 0..3 {
        assert!(named(&cluster, node).len() <= 4, "{:?}", named(&cluster, node));
    }
    assert!(former(&cluster, 0) < 8, "{}", former(&cluster, 0));
    assert_eq!(values(&cluster.get(2, Level::All)), ["59"]);
}

#[test]
fn two_that_chain_their_puts_at_one_node_for_long_are_never_told_that_their_context_is_too_large() {
    let mut cluster = cluster(Policy::Siblings);
    let start = cluster.get(0, Level::All).context;
    let mut contexts = [start.clone(), start];
    for i in 0..500 {
        let mine = &mut contexts[i % 2];
        if i % 100 == 99 {
            cluster.boot(0);
            cluster.live(100);
        }
        let reply = cluster.wrote(0, Level::Quorum, &i.to_string(), Basis::Context(mine.clone()));
        assert!(reply.siblings <= 2, "{} of put {i}", reply.siblings);
        assert!(reply.context.len() < 400, "{} bytes after put {i}", reply.context.len());
        *mine = reply.context;
    }
    assert_eq!(values(&cluster.get(1, Level::All)), ["498", "499"]);
}

#[test]
fn an_actor_that_a_context_names_stays_on_the_list() {
    let mut cluster = cluster(Policy::Siblings);
    // Each leaves a sibling that lives: nothing can be retired.
    for i in 0..20 {
        cluster.boot(0);
        cluster.live(100);
        cluster.wrote(0, Level::All, &i.to_string(), Basis::Blind);
    }
    cluster.live(30_000);
    let listed: BTreeSet<ActorId> =
        cluster.nodes[0].identity.durable().former_actors.iter().copied().collect();
    assert!(named(&cluster, 1).iter().filter(|actor| listed.contains(actor)).count() >= 19);
}
