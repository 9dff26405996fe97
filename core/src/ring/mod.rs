//! The ring: which nodes hold a key.
//!
//! ```text
//!      token = BLAKE3(keyspace, key)[..8]
//!        │
//!   ─────●──▶─┬───────┬──┬──────────┬─── … a circle of 2^64 tokens
//!            b.17    a.3 c.201     b.44      virtual nodes: a walk clockwise meets b, a, c
//! ```
//!
//! In: the members with zone and weight. Out: for each token, the order in which distinct nodes
//! are met: the preference list (DeCandia et al., Dynamo, SOSP 2007, §4.2–4.3). Tokens follow
//! from the node's id alone, so a layout is as small as its list of members. Absent: who is
//! up, and how a layout changes.

mod preference;

use crate::id::{KeyspaceId, NodeId};

/// Virtual nodes for each unit of weight.
pub const VNODES_DEFAULT: u32 = 256;

/// A position on the circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Where a key stands on the circle.
pub fn token(keyspace: KeyspaceId, key: &[u8]) -> Token {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&keyspace.0.to_be_bytes());
    hasher.update(key);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Token(u64::from_be_bytes(first))
}

/// A member of the cluster as the ring sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RingNode {
    /// Its id; tokens follow from it.
    pub id: NodeId,
    /// Nodes of one zone fail together; empty = no zones.
    pub zone: String,
    /// Share of the keys relative to the others; 0 takes part without holding any.
    pub weight: f64,
    /// Virtual nodes for each unit of weight.
    pub vnodes: u32,
}

impl RingNode {
    /// How many virtual nodes it has.
    fn points(&self) -> u32 {
        let points = (self.weight.clamp(0.0, 1024.0) * f64::from(self.vnodes)).round() as u32;
        if self.weight > 0.0 { points.max(1) } else { 0 }
    }
}

/// All virtual nodes in token order.
#[derive(Clone, Debug)]
pub struct Ring {
    nodes: Vec<RingNode>,
    /// (token, index into `nodes`), sorted by token; unique tokens.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// The ring of these members; the order in which they are given does not matter.
    pub fn new(mut nodes: Vec<RingNode>) -> Ring {
        nodes.sort_by_key(|node| node.id);
        nodes.dedup_by_key(|node| node.id);
        let mut points = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            points.extend(vnode_tokens(node.id, node.points()).map(|token| (token, index as u32)));
        }
        // Equal tokens of two nodes: the smaller id keeps it, on every node alike.
        points.sort_unstable();
        points.dedup_by_key(|(token, _)| *token);
        Ring { nodes, points }
    }

    /// The members, by id.
    pub fn nodes(&self) -> &[RingNode] {
        &self.nodes
    }

    /// The share of all tokens for which `node` is the first primary, 0 to 1.
    pub fn share(&self, node: NodeId) -> f64 {
        let Some(mut previous) = self.points.last().map(|(token, _)| *token) else { return 0.0 };
        let single = self.points.len() == 1;
        let mut owned: u128 = 0;
        for (token, index) in &self.points {
            if self.nodes[*index as usize].id == node {
                owned += if single { 1 << 64 } else { u128::from(token.wrapping_sub(previous)) };
            }
            previous = *token;
        }
        owned as f64 / (1u128 << 64) as f64
    }
}

/// The tokens of a node's virtual nodes: one in each of `points` equal parts of the circle, at a
/// hashed place within it. Against tokens hashed anywhere this takes the luck of the count out
/// of the spread (see the test), and a token still depends on nothing but its own node.
fn vnode_tokens(node: NodeId, points: u32) -> impl Iterator<Item = u64> {
    let width = if points == 0 { 0 } else { u64::MAX / u64::from(points) };
    (0..points).map(move |i| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"merganser vnode");
        hasher.update(&node.0.to_be_bytes());
        hasher.update(&i.to_be_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        let place = (u128::from(u64::from_be_bytes(first)) * u128::from(width)) >> 64;
        u64::from(i) * width + place as u64
    })
}

#[cfg(test)]
mod ring_test;
