//! What all members must have been told alike, or one node writes a key where another does not look for it.
//!
//! In: the members' list and `cluster.vnodes`. Out: a digest of each part for the first frame of a link; which parts differ.
//! Absent: addresses, which each node may know by another name.

use crate::config::Cluster;
use merganser_proto::internal::v1::Layout;

const DIGEST_BYTES: usize = 16;

/// Of this node's configuration.
pub(super) fn of(cluster: &Cluster) -> Layout {
    let mut members: Vec<_> = cluster.members.iter().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let digest = |part: fn(&crate::config::Member) -> Vec<u8>| {
        let mut hasher = blake3::Hasher::new();
        for member in &members {
            for bytes in [member.name.as_bytes(), &part(member)] {
                hasher.update(&(bytes.len() as u64).to_be_bytes());
                hasher.update(bytes);
            }
        }
        bytes::Bytes::copy_from_slice(&hasher.finalize().as_bytes()[..DIGEST_BYTES])
    };
    Layout {
        members: digest(|_| Vec::new()),
        zones: digest(|member| member.zone.as_bytes().to_vec()),
        weights: digest(|member| member.weight.to_be_bytes().to_vec()),
        vnodes: cluster.vnodes,
    }
}

/// Which parts differ, for people; None: none does.
pub(super) fn difference(ours: &Layout, theirs: &Layout) -> Option<String> {
    let mut parts = Vec::new();
    if ours.members != theirs.members {
        // Digests of other members' zones and weights differ as well, and say nothing more.
        parts.push("members (names in `cluster.members`)".to_owned());
    } else {
        parts.extend((ours.zones != theirs.zones).then(|| "zones (`zone` in `cluster.members`)".to_owned()));
        let weights = ours.weights != theirs.weights;
        parts.extend(weights.then(|| "weights (`weight` in `cluster.members`)".to_owned()));
    }
    if ours.vnodes != theirs.vnodes {
        parts.push(format!("vnodes (`cluster.vnodes` is {} there and {} here)", theirs.vnodes, ours.vnodes));
    }
    (!parts.is_empty()).then(|| parts.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Member;

    fn cluster(change: impl FnOnce(&mut Cluster)) -> Layout {
        let member = |name: &str| Member {
            name: name.into(),
            client_address: format!("{name}:1"),
            peer_address: format!("{name}:2"),
            zone: String::new(),
            weight: 1.0,
        };
        let mut cluster = Cluster { members: ["a", "b", "c"].map(member).into(), ..Cluster::default() };
        change(&mut cluster);
        of(&cluster)
    }

    #[test]
    fn each_part_that_differs_is_named_and_order_and_addresses_may_differ() {
        let ours = cluster(|_| {});
        let said = |change: fn(&mut Cluster)| difference(&ours, &cluster(change));
        assert_eq!(said(|_| {}), None);
        assert_eq!(said(|cluster| cluster.members.reverse()), None);
        assert_eq!(said(|cluster| cluster.members[1].peer_address = "elsewhere:2".into()), None);
        type Change = fn(&mut Cluster);
        let cases: [(Change, &str); 4] = [
            (|cluster| drop(cluster.members.pop()), "members"),
            (|cluster| cluster.members[0].zone = "east".into(), "zones"),
            (|cluster| cluster.members[2].weight = 2.0, "weights"),
            (|cluster| cluster.vnodes = 64, "vnodes"),
        ];
        for (change, part) in cases {
            let said = difference(&ours, &cluster(change)).expect("they differ");
            assert!(said.starts_with(part) && !said.contains(" and `"), "{said}");
        }
    }
}
