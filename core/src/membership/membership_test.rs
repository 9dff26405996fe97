//! Who is there, told through the door.

use super::*;
use crate::catalog::Policy;
use crate::event::Event;
use crate::request::{Basis, Level, Outcome, Problem};
use crate::story::*;

fn states(cluster: &Cluster, at: usize) -> Vec<MemberState> {
    cluster.nodes[at].members(cluster.now).iter().map(|member| member.state).collect()
}

fn lives(cluster: &Cluster, at: usize, of: usize) -> &Life {
    cluster.nodes[at].life_of(cluster.id(of)).expect("it has been heard of")
}

fn rejoined(cluster: &mut Cluster) -> Vec<(usize, RejoinReason)> {
    std::mem::take(&mut cluster.empty)
}

const UP: MemberState = MemberState::Up;
const SUSPECT: MemberState = MemberState::Suspect;
const DOWN: MemberState = MemberState::Down;

#[test]
fn a_crash_is_suspected_at_once_and_certain_within_five_seconds() {
    for noticed in [true, false] {
        let mut cluster = Cluster::new(3);
        cluster.live(1_000);
        assert_eq!(states(&cluster, 0), [UP, UP, UP]);
        cluster.crash(2, noticed);
        if noticed {
            assert_eq!(states(&cluster, 0), [UP, UP, SUSPECT]);
        }
        cluster.live(5_000);
        assert_eq!(states(&cluster, 0), [UP, UP, DOWN]);
        assert!(!cluster.nodes[0].is_reachable(cluster.id(2)));
        cluster.boot(2);
        cluster.live(1_000);
        assert_eq!(states(&cluster, 0), [UP, UP, UP]);
        assert_eq!(states(&cluster, 2), [UP, UP, UP]);
    }
}

#[test]
fn a_heartbeat_that_another_member_passes_on_is_as_good() {
    let mut cluster = Cluster::new(3);
    cluster.live(500);
    cluster.cut.extend([(0, 1), (1, 0)]);
    cluster.live(20_000);
    assert_eq!(states(&cluster, 0), [UP, UP, UP]);
    assert_eq!(states(&cluster, 1), [UP, UP, UP]);
}

#[test]
fn a_node_that_stood_still_calls_nobody_down_and_neither_does_one_whose_clock_jumps() {
    let mut cluster = Cluster::new(3);
    cluster.live(1_000);
    cluster.stopped.insert(0);
    cluster.live(3_000);
    cluster.stopped.remove(&0);
    cluster.notices.clear();
    for jump in [60_000i64, -30_000, 3_000, -3_000] {
        cluster.now = Millis(cluster.now.0.saturating_add_signed(jump));
        cluster.live(2_000);
        assert_eq!(states(&cluster, 0), [UP, UP, UP], "{jump}");
    }
    let down = |notice: &Notice| matches!(notice, Notice::Member { state: DOWN, .. });
    assert!(!cluster.notices.iter().any(down), "{:?}", cluster.notices);
}

#[test]
fn a_node_that_has_booted_serves_once_a_member_knows_it_and_tells_clients_to_wait_until_then() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.wrote(0, Level::All, "v", Basis::Blind);
    cluster.crash(0, true);
    cluster.stopped.extend([1, 2]);
    cluster.boot(0);
    let refused = cluster.put(0, Level::One, "w", Basis::Blind);
    assert!(matches!(refused, Outcome::Failed(Problem::Overloaded { .. })), "{refused:?}");
    cluster.stopped.clear();
    (1..3).for_each(|other| cluster.link(0, other, true));
    cluster.run();
    assert!(cluster.notices.contains(&Notice::Joined { recognised: true }));
    assert_eq!(values(&cluster.get(0, Level::All)), ["v"]);
}

#[test]
fn a_node_whose_catalog_is_lost_serves_once_it_has_that_of_a_member_and_not_before() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.wrote(0, Level::All, "v", Basis::Blind);
    (0..3).for_each(|node| cluster.crash(node, true));
    cluster.boot_without_catalog(0);
    cluster.live(10_000);
    let refused = cluster.put(0, Level::One, "w", Basis::Blind);
    assert!(matches!(refused, Outcome::Failed(Problem::Overloaded { .. })), "{refused:?}");
    (1..3).for_each(|node| cluster.boot(node));
    cluster.live(3_000);
    assert_eq!(values(&cluster.get(0, Level::All)), ["v"]);
}

#[test]
fn a_node_alone_serves_after_its_patience() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.wrote(0, Level::All, "v", Basis::Blind);
    (0..3).for_each(|node| cluster.crash(node, true));
    cluster.boot(0);
    cluster.live(1_000);
    assert!(matches!(cluster.put(0, Level::One, "w", Basis::Blind), Outcome::Failed(_)));
    cluster.live(1_500);
    assert_eq!(values(&cluster.get(0, Level::One)), ["v"]);
}

#[test]
fn an_empty_disk_counts_on_from_the_old_one_whose_actors_are_dead() {
    let mut cluster = Cluster::new(3);
    cluster.live(500);
    let before = lives(&cluster, 1, 0).clone();
    cluster.disks[0].clear();
    cluster.boot(0);
    cluster.live(500);
    for at in 0..3 {
        let life = lives(&cluster, at, 0);
        assert_ne!(life.disk, before.disk);
        assert!(life.boots > before.boots);
        assert_eq!(life.former_disks, [before.disk]);
        assert!(cluster.nodes[at].is_dead_actor(before.actor));
        assert!(!cluster.nodes[at].is_dead_actor(life.actor));
    }
    let told = |notice: &&Notice| matches!(notice, Notice::EmptyDisk { node, .. } if *node == cluster.id(0));
    assert_eq!(cluster.notices.iter().filter(told).count(), 2);
    // Its own next boot is nothing special.
    cluster.boot(0);
    cluster.live(500);
    assert!(rejoined(&mut cluster).is_empty());
}

#[test]
fn a_node_that_could_not_write_who_it_is_tries_again_also_after_its_clock_was_put_back() {
    let mut cluster = Cluster::new(3);
    cluster.live(500);
    let before = lives(&cluster, 1, 0).clone();
    cluster.disks[0].clear();
    cluster.full.insert(0);
    cluster.boot(0);
    cluster.live(500);
    cluster.notices.clear();
    cluster.full.clear();
    cluster.now = Millis(cluster.now.0 - 60_000);
    cluster.live(500);
    assert!(cluster.notices.contains(&Notice::Joined { recognised: true }), "{:?}", cluster.notices);
    for at in 0..3 {
        assert_eq!(lives(&cluster, at, 0).former_disks, [before.disk]);
        assert_eq!(states(&cluster, at), [UP, UP, UP]);
    }
}

#[test]
fn what_a_new_disk_hears_of_former_ones_while_it_writes_who_it_is_is_kept_too() {
    let mut cluster = Cluster::new(3);
    let mut effects = Effects::new();
    let node = &mut cluster.nodes[0];
    node.bump_tick(&mut effects);
    let disk = node.identity.now().disk;
    // Fewer boots than this node's own: nothing else of it changes.
    let mut life = crate::membership::life::tests::entry(77, 0, 5, 0).life;
    life.former_disks.clear();
    node.succeed(&life, &mut effects);
    effects.into_iter().for_each(|effect| cluster.perform(0, effect));
    cluster.run();
    cluster.live(500);
    assert_eq!(lives(&cluster, 1, 0).disk, disk);
    assert_eq!(lives(&cluster, 1, 0).former_disks, [DiskId(77)]);
}

#[test]
fn a_disk_that_was_taken_back_never_speaks_again() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.live(500);
    let image = cluster.disks[0].clone();
    let write = |cluster: &mut Cluster| cluster.wrote(1, Level::All, "v", Basis::Blind);
    write(&mut cluster);

    // From before its last boot.
    cluster.boot(0);
    cluster.live(500);
    cluster.crash(0, true);
    cluster.disks[0] = image;
    cluster.boot(0);
    assert_eq!(rejoined(&mut cluster), [(0, RejoinReason::OldDisk)]);
    let refused = cluster.put(0, Level::One, "w", Basis::Blind);
    assert!(matches!(refused, Outcome::Failed(Problem::Overloaded { .. })), "{refused:?}");
    assert_eq!(cluster.nodes[0].next_deadline(), None);
    assert!(cluster.nodes[0].clean_marker().is_none());

    // It goes on with an empty one; then an image from before a tick of the same boot.
    cluster.crash(0, true);
    let replaced = std::mem::take(&mut cluster.disks[0]);
    cluster.boot(0);
    cluster.live(500);
    let image = cluster.disks[0].clone();
    write(&mut cluster);
    cluster.live(11_000);
    assert!(lives(&cluster, 1, 0).tick > 1, "a tick is taken where something was written");
    cluster.crash(0, true);
    cluster.disks[0] = image;
    cluster.boot(0);
    assert_eq!(rejoined(&mut cluster), [(0, RejoinReason::OldDisk)]);
    let told = |notice: &&Notice| matches!(notice, Notice::OldDisk { node, .. } if *node == cluster.id(0));
    assert!(cluster.notices.iter().filter(told).count() > 0);

    // And the one that was replaced before, after the others have been away, too.
    cluster.crash(0, true);
    cluster.disks[0].clear();
    cluster.boot(0);
    cluster.live(2_000);
    cluster.crash(0, true);
    cluster.disks[0] = replaced;
    (1..3).for_each(|node| cluster.crash(node, true));
    (1..3).for_each(|node| cluster.boot(node));
    cluster.boot(0);
    assert_eq!(rejoined(&mut cluster), [(0, RejoinReason::OldDisk)]);
}

fn actor(cluster: &Cluster, at: usize) -> ActorId {
    cluster.nodes[at].identity.now().incarnation.actor
}

/// A shutdown, and what the disk holds after it.
fn stop_cleanly(cluster: &mut Cluster, node: usize) -> BTreeMap<Bytes, Record> {
    let marker = cluster.nodes[node].clean_marker();
    cluster.crash(node, true);
    match marker {
        Some(WriteOp::Put { key, record }) => drop(cluster.disks[node].insert(key, record)),
        other => panic!("{other:?}"),
    }
    cluster.disks[node].clone()
}

#[test]
fn a_node_goes_on_as_the_same_actor_only_if_every_member_has_said_what_it_knows_of_it() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.live(500);
    let first = actor(&cluster, 0);
    stop_cleanly(&mut cluster, 0);
    cluster.boot(0);
    cluster.live(3_000);
    assert_eq!(cluster.wrote(0, Level::All, "v", Basis::Blind).dot.actor, first);
    // The one that is away may have kept a later boot of this disk. Until a dot is asked for, it may still say so.
    stop_cleanly(&mut cluster, 0);
    cluster.crash(2, true);
    cluster.boot(0);
    cluster.live(500);
    assert!(cluster.nodes[0].membership.is_serving());
    assert_eq!(actor(&cluster, 0), first);
    assert_ne!(cluster.wrote(0, Level::Quorum, "w", Basis::Blind).dot.actor, first);
    // Nobody waits for it longer than for an answer to a boot.
    let second = actor(&cluster, 0);
    stop_cleanly(&mut cluster, 0);
    cluster.boot(0);
    cluster.live(500);
    assert_eq!(actor(&cluster, 0), second);
    cluster.live(3_000);
    assert_ne!(actor(&cluster, 0), second);
    assert_eq!(lives(&cluster, 1, 0).actor, actor(&cluster, 0));
}

#[test]
fn a_clean_shutdown_of_a_node_that_never_served_leaves_no_actor_to_go_on_as() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Siblings);
    cluster.live(500);
    let first = actor(&cluster, 0);
    let image = stop_cleanly(&mut cluster, 0);
    cluster.boot(0);
    let dot = cluster.wrote(0, Level::All, "v", Basis::Blind).dot;
    assert_eq!(dot.actor, first);
    cluster.crash(0, true);
    // A copy from before that dot is put back, and is stopped before anybody has said anything.
    cluster.disks[0] = image;
    cluster.stopped.extend([1, 2]);
    cluster.boot(0);
    assert_eq!(actor(&cluster, 0), first);
    let disk = stop_cleanly(&mut cluster, 0);
    let owner = cluster.nodes[0].identity.now().owner.clone();
    let (next, _) = crate::boot::begin(disk.get(&storage_key::identity()), &owner, 9_999, 9_999)
        .expect("it is this node's");
    assert_eq!(next.incarnation.actor, ActorId(9_999));
}

#[test]
fn a_disk_that_was_taken_back_is_an_old_one_however_often_it_has_booted_before_anybody_hears_of_it() {
    let mut cluster = Cluster::new(3);
    cluster.live(500);
    let image = cluster.disks[0].clone();
    cluster.boot(0);
    cluster.live(500);
    cluster.crash(0, true);
    cluster.disks[0] = image;
    cluster.stopped.extend([1, 2]);
    (0..3).for_each(|_| cluster.boot(0));
    assert!(rejoined(&mut cluster).is_empty());
    cluster.stopped.clear();
    (1..3).for_each(|other| cluster.link(0, other, true));
    cluster.run();
    assert_eq!(rejoined(&mut cluster), [(0, RejoinReason::OldDisk)]);
}

#[test]
fn a_node_that_was_away_for_too_long_is_forgotten_and_rejoins_empty() {
    let mut cluster = Cluster::new(3);
    cluster.live(500);
    let disk = lives(&cluster, 1, 0).disk;
    cluster.crash(0, true);
    for node in 1..3 {
        cluster.nodes[node].config.forget_ms = if node == 1 { 30_000 } else { u64::MAX };
    }
    cluster.live(20_000);
    assert!(!cluster.nodes[1].is_forgotten(cluster.id(0)));
    cluster.live(20_000);
    for at in 1..3 {
        assert!(cluster.nodes[at].is_forgotten(cluster.id(0)), "node {at} decides, or hears of it");
    }
    // Also after all others have booted.
    (1..3).for_each(|node| cluster.boot(node));
    cluster.boot(0);
    assert_eq!(rejoined(&mut cluster), [(0, RejoinReason::Forgotten)]);
    cluster.disks[0].clear();
    cluster.boot(0);
    cluster.live(1_000);
    for at in 0..3 {
        assert!(!cluster.nodes[at].is_forgotten(cluster.id(0)));
        assert_eq!(lives(&cluster, at, 0).former_disks, [disk]);
    }
    assert!(rejoined(&mut cluster).is_empty());
}

#[test]
fn a_changed_address_is_noticed_also_by_a_member_that_has_booted_meanwhile() {
    let mut cluster = Cluster::new(3);
    cluster.live(2_000);
    cluster.boot(1);
    cluster.members_mut()[0].name = "elsewhere".into();
    cluster.boot(0);
    cluster.live(500);
    let told = |notice: &&Notice| {
        matches!(notice, Notice::AddressChanged { node, address }
            if *node == cluster.id(0) && address == "elsewhere:7401")
    };
    assert_eq!(cluster.notices.iter().filter(told).count(), 2);
}

#[test]
fn gossip_about_strangers_is_dropped_and_heartbeats_of_unknown_lives_do_not_count() {
    let mut cluster = Cluster::new(3);
    cluster.live(500);
    let stranger = NodeId(77);
    let mut entry = cluster.nodes[0].membership.own.clone();
    entry.node = stranger;
    let beat = Beat { node: cluster.id(2), boots: 9, session: 1, revision: 1, beat: u64::MAX };
    let gossip = Gossip::Answer {
        running_ms: 0,
        catalog: CatalogDigest([0; 16]),
        knows_you: true,
        keeps_you: true,
        beats: vec![beat, Beat { node: stranger, ..beat }],
        news: vec![entry],
        want: vec![stranger, cluster.id(2)],
        forgotten: Some([(stranger, DiskId(1))].into()),
    };
    for from in [cluster.id(1), stranger] {
        let message = Message::Gossip(gossip.clone());
        cluster.queue.push_back((0, Event::Message { from, message }));
        cluster.run();
    }
    let m = &cluster.nodes[0].membership;
    assert_eq!((m.peers.len(), m.forgotten.len()), (2, 0));
    assert!(m.entry(stranger).is_none());
    assert!(m.peers[&cluster.id(2)].beat < 1_000);
}

#[test]
fn an_idle_round_of_gossip_costs_a_few_words_for_each_member() {
    let mut cluster = Cluster::new(16);
    cluster.live(5_000);
    let mut effects = Effects::new();
    cluster.nodes[0].gossip_with_some(&mut effects);
    let sizes: Vec<usize> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { message, .. } => Some(message.encode().len()),
            _ => None,
        })
        .collect();
    assert_eq!(sizes.len(), cluster.nodes[0].config.fanout);
    assert!(sizes.iter().all(|size| *size < 32 + 24 * 16), "{sizes:?}");
}

#[test]
fn what_a_catalog_needs_is_known_to_all_after_a_lost_message_too() {
    let mut cluster = Cluster::new(5);
    cluster.live(500);
    cluster.cut.extend([(0, 4), (4, 0)]);
    let settings = crate::catalog::Settings::new(Policy::Siblings);
    let request = crate::admin::AdminRequest::CreateKeyspace { name: "k".into(), settings };
    let ticket = crate::id::ClientTicket(0);
    cluster.queue.push_back((0, Event::Admin { ticket, request }));
    cluster.run();
    assert!(cluster.admin.is_empty(), "it waits for the fifth");
    cluster.live(1_000);
    match cluster.admin.pop() {
        Some(crate::admin::AdminReply::Keyspaces(views)) => assert!(views[0].waiting.is_empty(), "{views:?}"),
        other => panic!("{other:?}"),
    }
}
