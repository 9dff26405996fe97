//! The preference list: the nodes that a walk clockwise from a token meets, each once.
//!
//! In: a ring and a token. Out: node ids; the first N are the primaries, the rest the stand-ins
//! in their order. Zones: the primaries take a node of a zone not yet present while there is
//! one, so that N copies lie in min(N, zones) zones. Absent: who is up.

use super::{Ring, Slot, Token};
use crate::id::NodeId;

impl Ring {
    /// The first `count` nodes of the walk from the slot of `token`, fewer if the ring has fewer. Of them,
    /// the first `n` are spread over zones; stand-ins follow in plain walk order.
    pub fn preference(&self, token: Token, n: usize, count: usize) -> Vec<NodeId> {
        let count = count.min(self.nodes.len());
        let mut walk: Vec<u32> = Vec::with_capacity(count);
        let zoned = self.nodes.iter().any(|node| !node.zone.is_empty());
        let wanted = if zoned { self.nodes.len() } else { count };
        // By slot, so that a slot has one list.
        let from = token.slot().first_token().0;
        let start = self.points.partition_point(|(point, _)| *point < from);
        for step in 0..self.points.len() {
            if walk.len() == wanted {
                break;
            }
            let (_, index) = self.points[(start + step) % self.points.len()];
            if !walk.contains(&index) {
                walk.push(index);
            }
        }
        if zoned {
            self.spread(&mut walk, n);
        }
        walk.truncate(count);
        walk.into_iter().map(|index| self.nodes[index as usize].id).collect()
    }

    /// The primaries of `token`.
    pub fn primaries(&self, token: Token, n: usize) -> Vec<NodeId> {
        self.preference(token, n, n)
    }

    /// All slots, in stretches that have the same primaries: first, last, and who they are.
    pub fn stretches(&self, n: usize) -> Vec<(Slot, Slot, Vec<NodeId>)> {
        let mut stretches = Vec::new();
        let mut next = Some(Slot(0));
        while let Some(first) = next {
            let from = first.first_token().0;
            // Slots up to that of the first point not before them begin their walk at it.
            let point = self.points.get(self.points.partition_point(|(point, _)| *point < from));
            let last = point.map_or(Slot(u16::MAX), |(point, _)| Token(*point).slot());
            stretches.push((first, last, self.primaries(first.first_token(), n)));
            next = last.0.checked_add(1).map(Slot);
        }
        stretches
    }

    /// Moves nodes of zones not yet present to the front, among the first `n`, keeping the walk
    /// order otherwise.
    fn spread(&self, walk: &mut Vec<u32>, n: usize) {
        let zone = |index: u32| self.nodes[index as usize].zone.as_str();
        for place in 1..n.min(walk.len()) {
            let fresh = walk[place..]
                .iter()
                .position(|&candidate| walk[..place].iter().all(|&taken| zone(taken) != zone(candidate)));
            match fresh {
                Some(0) => {}
                Some(further) => {
                    let moved = walk.remove(place + further);
                    walk.insert(place, moved);
                }
                None => break,
            }
        }
    }
}
