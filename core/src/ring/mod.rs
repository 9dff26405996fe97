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

impl Token {
    /// The slot that it lies in.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> (64 - SLOT_BITS)) as u16)
    }
}

/// Leading bits of a token that name its slot.
pub const SLOT_BITS: u32 = 16;

/// One of 2^16 equal parts of the circle: the unit of placement, of repair and of collection. All
/// keys of a slot have the same preference list, whatever the layout, so that what is kept
/// by slot outlives a change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// All of them, in token order.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..=u16::MAX).map(Slot)
    }

    /// Its first token.
    pub fn first_token(self) -> Token {
        Token(u64::from(self.0) << (64 - SLOT_BITS))
    }

    /// Its last token.
    pub fn last_token(self) -> Token {
        Token(self.first_token().0 | (u64::MAX >> SLOT_BITS))
    }
}

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

    /// The share of all slots for which `node` is the first primary, 0 to 1.
    pub fn share(&self, node: NodeId) -> f64 {
        let slot = |token: u64| u64::from(Token(token).slot().0);
        let Some((last, _)) = self.points.last() else { return 0.0 };
        // A point has the slots that begin after the point before it, and not after itself.
        let mut previous = None;
        let mut owned = 0;
        for (token, index) in &self.points {
            if self.nodes[*index as usize].id == node {
                owned += match previous {
                    Some(previous) => slot(*token) - slot(previous),
                    None => slot(*token) + (1 << SLOT_BITS) - slot(*last),
                };
            }
            previous = Some(*token);
        }
        owned as f64 / f64::from(1u32 << SLOT_BITS)
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
