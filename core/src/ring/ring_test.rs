//! The ring over real hash outputs: spread, movement, distinctness, zones.

use super::*;
use std::collections::BTreeMap;

fn node(name: &str, zone: &str, weight: f64) -> RingNode {
    RingNode { id: NodeId::from_name(name), zone: zone.into(), weight, vnodes: VNODES_DEFAULT }
}

fn plain(count: usize) -> Ring {
    Ring::new((0..count).map(|i| node(&format!("node-{i}"), "", 1.0)).collect())
}

fn keys(count: u32) -> impl Iterator<Item = Token> {
    (0..count).map(|i| token(KeyspaceId(1), format!("user/{i}/profile").as_bytes()))
}

/// Standard deviation of the replicas each node holds, relative to its due.
fn deviation(ring: &Ring, n: usize, keys_total: u32) -> f64 {
    let mut held: BTreeMap<NodeId, f64> = ring.nodes().iter().map(|node| (node.id, 0.0)).collect();
    for token in keys(keys_total) {
        for id in ring.primaries(token, n) {
            *held.get_mut(&id).unwrap() += 1.0;
        }
    }
    let weights: f64 = ring.nodes().iter().map(|node| node.weight).sum();
    let total: f64 = held.values().sum();
    let errors =
        ring.nodes().iter().map(|node| (held[&node.id] / (total * node.weight / weights) - 1.0).powi(2));
    (errors.sum::<f64>() / ring.nodes().len() as f64).sqrt()
}

#[test]
fn replicas_spread_over_the_nodes_within_five_percent() {
    for (nodes, n) in [(4, 3), (5, 3), (8, 3), (12, 3), (24, 3), (8, 2)] {
        let deviation = deviation(&plain(nodes), n, 200_000);
        assert!(deviation < 0.05, "{nodes} nodes, n={n}: {deviation}");
    }
}

/// Not the luck of one set of names: over many clusters the deviation is small on average, too.
#[test]
fn first_primaries_spread_within_five_percent_on_average_over_names() {
    let clusters = 40;
    let share_deviation = |cluster: usize| {
        let ring = Ring::new((0..6).map(|i| node(&format!("host-{cluster}-{i}"), "", 1.0)).collect());
        let errors = ring.nodes().iter().map(|node| (ring.share(node.id) * 6.0 - 1.0).powi(2));
        (errors.sum::<f64>() / 6.0).sqrt()
    };
    let mean = (0..clusters).map(share_deviation).sum::<f64>() / clusters as f64;
    assert!(mean < 0.05, "{mean}");
}

#[test]
fn a_weight_of_two_holds_twice_the_keys() {
    let ring =
        Ring::new(vec![node("a", "", 1.0), node("b", "", 2.0), node("c", "", 1.0), node("d", "", 0.0)]);
    let b = ring.share(NodeId::from_name("b"));
    assert!((b - 0.5).abs() < 0.05, "{b}");
    assert_eq!(ring.share(NodeId::from_name("d")), 0.0);
    let total: f64 = ring.nodes().iter().map(|node| ring.share(node.id)).sum();
    assert!((total - 1.0).abs() < 1e-9);
}

#[test]
fn a_join_moves_about_one_in_n_keys_and_all_of_them_to_the_newcomer() {
    for before in [3usize, 5, 10] {
        let (old, new) = (plain(before), plain(before + 1));
        let newcomer = NodeId::from_name(&format!("node-{before}"));
        let (mut moved, total) = (0.0, 100_000);
        for token in keys(total) {
            let (was, is) = (old.primaries(token, 1)[0], new.primaries(token, 1)[0]);
            if was != is {
                assert_eq!(is, newcomer);
                moved += 1.0;
            }
        }
        let expected = 1.0 / (before + 1) as f64;
        let share = moved / f64::from(total);
        assert!((share - expected).abs() < 0.25 * expected, "{before}: moved {share}, expected {expected}");
    }
}

#[test]
fn a_preference_list_names_each_node_once_and_does_not_depend_on_the_order_of_members() {
    let mut members: Vec<RingNode> = plain(7).nodes().to_vec();
    let ring = Ring::new(members.clone());
    members.reverse();
    let reversed = Ring::new(members);
    for token in keys(2_000) {
        let list = ring.preference(token, 3, 7);
        assert_eq!(list, reversed.preference(token, 3, 7));
        let mut distinct = list.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 7);
        assert_eq!(ring.primaries(token, 3), list[..3]);
    }
}

#[test]
fn primaries_lie_in_as_many_zones_as_there_are() {
    let names = ["a1", "a2", "a3", "a4", "b1", "b2", "c1"];
    let ring = Ring::new(names.iter().map(|name| node(name, &name[..1], 1.0)).collect());
    let zone = |id: NodeId| ring.nodes().iter().find(|node| node.id == id).unwrap().zone.clone();
    for token in keys(2_000) {
        let mut zones: Vec<String> = ring.primaries(token, 3).into_iter().map(zone).collect();
        zones.sort();
        assert_eq!(zones, ["a", "b", "c"]);
        assert_eq!(ring.primaries(token, 5).len(), 5);
    }
}

#[test]
fn small_and_empty_rings_give_short_lists() {
    assert!(Ring::new(vec![]).preference(Token(7), 3, 3).is_empty());
    assert_eq!(plain(1).preference(Token(7), 3, 3).len(), 1);
    assert!((plain(1).share(NodeId::from_name("node-0")) - 1.0).abs() < 1e-9);
}
