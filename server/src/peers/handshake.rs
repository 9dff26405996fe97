//! How two nodes prove to each other that they hold the cluster's secret, and are who they say.
//!
//! ```text
//!   dialler ── Hello(nonce d) ──▶ acceptor      protocol, cluster, layout, name checked on both sides
//!           ◀── Hello(nonce a) ──
//!           ── Proof(mac over a) ──▶            the acceptor proves nothing to a stranger
//!           ◀── Proof(mac over d) ──
//! ```
//!
//! A mac is BLAKE3, keyed with a key derived from the secret, over a domain string, the prover's
//! name, the verifier's name and the verifier's nonce; a mac reflected to its maker names the
//! wrong prover. In: frames of a stranger. Out: a proven name, or a reason. Absent: encryption
//! (docs/operations.md says what that means for the network between nodes).

use super::layout;
use crate::config::Cluster;
use merganser_core::id::NodeId;
use merganser_proto::internal::v1::{Hello, Layout, Proof};
use std::collections::BTreeMap;

/// Raised with each incompatible change.
pub(crate) const PROTOCOL: u32 = 3;
pub(super) const NONCE_BYTES: usize = 32;
const KEY_CONTEXT: &str = "merganser 2026-11 peer link v1";
const DOMAIN: &[u8] = b"merganser.peer.proof.v1";

/// What a node needs to prove itself and to judge others.
pub(crate) struct Credentials {
    pub(crate) cluster: String,
    pub(crate) node: String,
    key: [u8; 32],
    members: BTreeMap<String, NodeId>,
    layout: Layout,
    /// Of this boot.
    session: u64,
}

/// Why a link is closed before it is up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the other side speaks protocol {theirs}, this node {PROTOCOL}; upgrade the older")]
    Protocol { theirs: u32 },
    #[error(
        "the other side is of cluster {theirs:?}, this node of {ours:?}; check `cluster.name` and addresses"
    )]
    Cluster { theirs: String, ours: String },
    #[error("node {theirs:?} is not among `cluster.members` here; give all nodes the same list")]
    UnknownNode { theirs: String },
    #[error("{expected:?} was dialled and {theirs:?} answered; check its `peer_address`")]
    OtherNode { expected: String, theirs: String },
    #[error(
        "node {theirs:?} dialled, but of a pair the node with the lower id dials; is one name used twice?"
    )]
    Direction { theirs: String },
    #[error(
        "node {theirs:?} was told other {parts} than this node: one would write where the other does not read; give all nodes \
        the same"
    )]
    Layout { theirs: String, parts: String },
    #[error("node {theirs:?} does not hold this cluster's secret; give all nodes the same `cluster.secret`")]
    Secret { theirs: String },
    #[error("the other side does not keep to the protocol: {0}")]
    Malformed(&'static str),
}

impl Credentials {
    pub(crate) fn new(cluster: &Cluster, node: &str, secret: &[u8], session: u64) -> Credentials {
        let members =
            cluster.members.iter().map(|member| (member.name.clone(), NodeId::from_name(&member.name)));
        Credentials {
            cluster: cluster.name.clone(),
            node: node.into(),
            key: blake3::derive_key(KEY_CONTEXT, secret),
            members: members.collect(),
            layout: layout::of(cluster),
            session,
        }
    }

    /// Whether it is a member's name.
    pub(super) fn member(&self, name: &str) -> Option<NodeId> {
        self.members.get(name).copied()
    }

    pub(crate) fn hello(&self, nonce: &[u8; NONCE_BYTES]) -> Hello {
        Hello {
            protocol: PROTOCOL,
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            nonce: bytes::Bytes::copy_from_slice(nonce),
            layout: Some(self.layout.clone()),
            session: self.session,
        }
    }

    /// Who the other side says it is: `expected` if it was dialled, else a member that may dial.
    pub(crate) fn judge(&self, hello: &Hello, expected: Option<&str>) -> Result<NodeId, Refusal> {
        let theirs = hello.node.clone();
        if hello.protocol != PROTOCOL {
            return Err(Refusal::Protocol { theirs: hello.protocol });
        }
        if hello.nonce.len() != NONCE_BYTES {
            return Err(Refusal::Malformed("a nonce has 32 bytes"));
        }
        if hello.cluster != self.cluster {
            return Err(Refusal::Cluster { theirs: hello.cluster.clone(), ours: self.cluster.clone() });
        }
        // Before it is looked for among the members: of two lists that differ it may be the one in which it is missing.
        let layout = hello.layout.clone().unwrap_or_default();
        if let Some(parts) = layout::difference(&self.layout, &layout) {
            return Err(Refusal::Layout { theirs, parts });
        }
        let Some(&id) = self.members.get(&theirs) else { return Err(Refusal::UnknownNode { theirs }) };
        match expected {
            Some(expected) if expected != theirs => {
                Err(Refusal::OtherNode { expected: expected.into(), theirs })
            }
            None if !dials(id, NodeId::from_name(&self.node)) => Err(Refusal::Direction { theirs }),
            _ => Ok(id),
        }
    }

    /// Answers the other side's nonce.
    pub(crate) fn prove(&self, to: &Hello) -> Proof {
        let mac = self.mac(&self.node, &to.node, &to.nonce);
        Proof { mac: bytes::Bytes::copy_from_slice(mac.as_bytes()) }
    }

    /// Whether the other side's proof answers our nonce.
    pub(crate) fn verify(
        &self,
        proof: &Proof,
        from: &Hello,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<(), Refusal> {
        let given: [u8; 32] =
            proof.mac[..].try_into().map_err(|_| Refusal::Malformed("a proof has 32 bytes"))?;
        // Hashes compare in constant time.
        if blake3::Hash::from(given) != self.mac(&from.node, &self.node, nonce) {
            return Err(Refusal::Secret { theirs: from.node.clone() });
        }
        Ok(())
    }

    fn mac(&self, prover: &str, verifier: &str, nonce: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [DOMAIN, self.cluster.as_bytes(), prover.as_bytes(), verifier.as_bytes(), nonce] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// Of each pair the node with the lower id dials, so that there is one link and no race.
pub(crate) fn dials(this: NodeId, other: NodeId) -> bool {
    this < other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Member;

    fn node(name: &str, secret: &str) -> Credentials {
        let member = |name: &str| Member {
            name: name.into(),
            client_address: String::new(),
            peer_address: String::new(),
            zone: String::new(),
            weight: 1.0,
        };
        let members = ["a", "b"].map(member).into();
        let cluster = Cluster { name: "c".into(), members, ..Cluster::default() };
        Credentials::new(&cluster, name, secret.as_bytes(), 7)
    }

    /// The lower id of the two members, and the other.
    fn pair() -> (&'static str, &'static str) {
        if dials(NodeId::from_name("a"), NodeId::from_name("b")) { ("a", "b") } else { ("b", "a") }
    }

    #[test]
    fn a_proof_holds_for_its_prover_its_verifier_and_its_nonce_only() {
        let (low, high) = pair();
        let (mine, theirs) = (node(low, "secret"), node(high, "secret"));
        let (nonce, other) = ([7; 32], [8; 32]);
        let hello = mine.hello(&nonce);
        let proof = theirs.prove(&hello);
        let from = theirs.hello(&other);
        assert_eq!(mine.verify(&proof, &from, &nonce), Ok(()));
        let secret = Err(Refusal::Secret { theirs: high.into() });
        assert_eq!(mine.verify(&proof, &from, &other), secret);
        assert_eq!(mine.verify(&node(high, "another").prove(&hello), &from, &nonce), secret);
        // Its own proof, sent back.
        assert_eq!(mine.verify(&mine.prove(&hello), &from, &nonce), secret);
        let short = Proof { mac: bytes::Bytes::from_static(b"x") };
        assert!(matches!(mine.verify(&short, &from, &nonce), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn strangers_are_told_why() {
        let (low, high) = pair();
        let (this, peer) = (node(high, "secret"), node(low, "secret"));
        let good = peer.hello(&[1; 32]);
        assert_eq!(this.judge(&good, None), Ok(NodeId::from_name(low)));
        assert_eq!(this.judge(&good, Some(low)), Ok(NodeId::from_name(low)));
        let with = |change: fn(&mut Hello)| {
            let mut hello = good.clone();
            change(&mut hello);
            this.judge(&hello, None).unwrap_err()
        };
        assert_eq!(with(|hello| hello.protocol = 9), Refusal::Protocol { theirs: 9 });
        assert!(matches!(with(|hello| hello.cluster = "x".into()), Refusal::Cluster { .. }));
        assert!(matches!(with(|hello| hello.node = "x".into()), Refusal::UnknownNode { .. }));
        let layout = with(|hello| hello.layout.as_mut().expect("it is given").vnodes = 9);
        assert!(matches!(&layout, Refusal::Layout { parts, .. } if parts.starts_with("vnodes")), "{layout}");
        assert!(matches!(with(|hello| hello.layout = None), Refusal::Layout { .. }));
        assert!(matches!(with(|hello| hello.nonce.clear()), Refusal::Malformed(_)));
        assert!(matches!(this.judge(&good, Some(high)), Err(Refusal::OtherNode { .. })));
        assert!(matches!(peer.judge(&this.hello(&[1; 32]), None), Err(Refusal::Direction { .. })));
        // One's own name, as a stranger would give it.
        assert!(matches!(this.judge(&this.hello(&[1; 32]), None), Err(Refusal::Direction { .. })));
    }
}
