//! The plan of a directory: ports, resuming, refusing. Real directories, no processes.

use super::*;

fn ports(plan: &Plan) -> Vec<(u16, u16)> {
    plan.node.iter().map(|place| (place.client_port, place.peer_port)).collect()
}

#[test]
fn ports_follow_the_base_and_step_over_taken_ones() {
    let mut plan = Plan::fresh(3);
    let moved = plan.settle_ports(None, |port| port != 7402).unwrap();
    assert_eq!(ports(&plan), [(7401, 7501), (7403, 7502), (7404, 7503)]);
    let told = |what: &str, wanted, port| Moved { what: what.into(), wanted, port };
    assert_eq!(moved, [told("clients of b", 7402, 7403), told("clients of c", 7403, 7404)]);
}

#[test]
fn a_plan_keeps_its_ports_unless_another_base_is_wished_for() {
    let mut plan = Plan::fresh(2);
    plan.settle_ports(Some(9000), |_| true).unwrap();
    assert_eq!(plan.settle_ports(None, |_| true).unwrap(), []);
    assert_eq!(ports(&plan), [(9000, 9100), (9001, 9101)]);
    plan.settle_ports(Some(9200), |_| true).unwrap();
    assert_eq!(ports(&plan), [(9200, 9300), (9201, 9301)]);
}

#[test]
fn base_port_zero_means_any_and_is_never_a_surprise() {
    let mut plan = Plan::fresh(16);
    assert_eq!(plan.settle_ports(Some(0), |port| port % 2 == 0).unwrap(), []);
    let all: BTreeSet<u16> = ports(&plan).into_iter().flat_map(|(client, peer)| [client, peer]).collect();
    assert_eq!(all.len(), 32);
    assert!(all.iter().all(|port| port % 2 == 0));
}

#[test]
fn a_base_port_without_room_above_it_is_refused() {
    let refused = Plan::fresh(3).settle_ports(Some(65_500), |_| true).unwrap_err();
    assert_eq!(refused.to_string(), "--base-port 65500 leaves no room for the nodes' ports");
}

#[test]
fn a_directory_is_resumed_with_its_secret_and_refuses_another_number_of_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let first = Directory::open(dir.path(), Some(2), Some(0)).unwrap();
    let (secret, places) = (first.plan.secret.clone(), first.places().to_vec());
    assert!(!first.resumed());
    drop(first);

    let second = Directory::open(dir.path(), None, None).unwrap();
    assert!(second.resumed());
    assert_eq!((&second.plan.secret, second.places()), (&secret, places.as_slice()));
    assert_eq!(secret.len(), 64);
    drop(second);

    let refused = Directory::open(dir.path(), Some(3), None).unwrap_err().to_string();
    assert!(refused.contains("holds a cluster of 2 nodes, not 3"), "{refused}");
}

#[test]
fn a_second_supervisor_on_a_directory_is_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Directory::open(dir.path(), None, Some(0)).unwrap();
    let refused = Directory::open(dir.path(), None, Some(0)).unwrap_err().to_string();
    assert!(refused.contains(&format!("(process {})", std::process::id())), "{refused}");
}

#[test]
fn a_damaged_plan_is_an_error_and_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for damaged in [
        "",
        "secret = 3",
        "secret = \"00\"\nnode = []",
        "secret = \"00\"\n[[node]]\nname = \"a\"",
        "\u{0}\u{1}",
    ] {
        fs::write(dir.path().join("dev.toml"), damaged).unwrap();
        let refused = Directory::open(dir.path(), None, Some(0)).unwrap_err().to_string();
        assert!(refused.contains("dev.toml is damaged"), "{refused}");
        assert_eq!(fs::read_to_string(dir.path().join("dev.toml")).unwrap(), damaged);
    }
}

#[test]
fn a_node_dials_its_peers_where_it_is_told_and_only_the_owner_reads_the_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path(), Some(2), Some(0)).unwrap();
    let [a, b] = directory.places() else { unreachable!("two were asked for") };
    let proxy = local(4);
    let file = directory.write_config(a, |_| proxy).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let config: toml::Value = toml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let members = config["cluster"]["members"].as_array().unwrap();
    let told = |member: &toml::Value, field: &str| member[field].as_str().unwrap().to_owned();
    assert_eq!(told(&members[0], "peer_address"), a.peer().to_string());
    assert_eq!(told(&members[1], "peer_address"), proxy.to_string());
    assert_eq!(told(&members[1], "client_address"), b.client().to_string());
    assert_eq!(config["cluster"]["secret"].as_str(), Some(directory.plan.secret.as_str()));
}
