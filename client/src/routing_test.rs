//! Tests of `routing`: who is asked, in which order.

use super::*;

fn node(name: &str, up: bool) -> v1::TopologyNode {
    v1::TopologyNode {
        name: name.into(),
        client_address: format!("{name}:1"),
        zone: String::new(),
        weight: 1.0,
        vnodes: 256,
        up,
    }
}

fn topology(up: [bool; 5]) -> Topology {
    let names = ["a", "b", "c", "d", "e"];
    Topology::from_wire(v1::TopologyReply {
        layout_version: 1,
        nodes: names.iter().zip(up).map(|(name, up)| node(name, up)).collect(),
        keyspaces: vec![v1::TopologyKeyspace { name: "k".into(), n: 3, id: 9 }],
    })
}

fn asked(topology: &Topology, key: &str, failing: &[&str]) -> Vec<String> {
    let seeds = ["seed:1".into(), "a:1".into()];
    let candidates =
        topology.candidates(Some(("k", key.as_bytes())), &seeds, |address| failing.contains(&address));
    candidates.iter().map(ToString::to_string).collect()
}

#[test]
fn the_walk_of_the_ring_comes_first_and_every_address_once() {
    let topology = topology([true; 5]);
    for key in ["x", "y", "z"] {
        let primaries = topology.primaries("k", key.as_bytes());
        let primaries: Vec<String> = primaries.iter().map(|member| member.address.to_string()).collect();
        let asked = asked(&topology, key, &[]);
        assert_eq!(primaries.len(), 3);
        assert_eq!(asked[..3], primaries);
        let mut all = asked.clone();
        all.sort();
        assert_eq!(all, ["a:1", "b:1", "c:1", "d:1", "e:1", "seed:1"]);
        assert_eq!(asked[5], "seed:1");
    }
}

#[test]
fn nodes_thought_down_come_after_live_ones_and_failing_ones_last() {
    let all_up = asked(&topology([true; 5]), "x", &[]);
    let (first, second) = (all_up[0].as_str(), all_up[1].as_str());
    let up = ["a", "b", "c", "d", "e"].map(|name| first != format!("{name}:1"));
    let with_one_down = asked(&topology(up), "x", &[]);
    assert_eq!(with_one_down[0], second);
    assert_eq!(with_one_down[5], first);
    let with_one_failing = asked(&topology(up), "x", &[second]);
    assert_eq!(with_one_failing[0], all_up[2]);
    assert_eq!(with_one_failing[4..], [first.to_owned(), second.to_owned()]);
}

#[test]
fn an_unknown_keyspace_or_no_topology_still_finds_somebody() {
    let seeds = ["seed:1".into()];
    let unknown = topology([true; 5]).candidates(Some(("new", b"x")), &seeds, |_| false);
    assert_eq!(unknown.len(), 6);
    let none = Topology::empty().candidates(Some(("k", b"x")), &seeds, |_| true);
    assert_eq!(none.iter().map(|address| &**address).collect::<Vec<_>>(), ["seed:1"]);
}

#[test]
fn a_node_with_absurd_numbers_takes_no_memory_and_stays_reachable() {
    let mut absurd = [node("a", true), node("b", true), node("c", true), node("d", true)];
    absurd[0].vnodes = u32::MAX;
    absurd[1].weight = f64::NAN;
    absurd[2].weight = f64::INFINITY;
    let reply = v1::TopologyReply { layout_version: 1, nodes: absurd.into(), keyspaces: Vec::new() };
    let topology = Topology::from_wire(reply);
    assert_eq!(topology.ring.nodes().len(), 1);
    assert_eq!(topology.candidates(None, &[], |_| false).len(), 4);
}
