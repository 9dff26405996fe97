//! A set of tags, one per line, that only grows: the smallest lattice there is.
//!
//! A put is a join: writing `red` to a key that holds `blue` leaves both, on every node, in whatever order the writes
//! arrive. For sets that shrink, counters and maps see the plugins that Merganser ships.

use std::collections::BTreeSet;

use merganser_plugin_sdk::{KeyInfo, Lattice, Rejection, export_lattice};

/// The plugin.
pub struct Tags;

/// Lines in order, each once, each ended: equal sets are equal bytes, and no other bytes are accepted.
fn parse(state: &[u8]) -> Result<BTreeSet<&str>, Rejection> {
    let text = std::str::from_utf8(state).map_err(|_| Rejection::malformed("tags are text"))?;
    let tags: BTreeSet<&str> = text.split_terminator('\n').collect();
    match encode(&tags) == state {
        true => Ok(tags),
        false => Err(Rejection::malformed("tags are lines, in order, each once, each ended by a newline")),
    }
}

fn encode(tags: &BTreeSet<&str>) -> Vec<u8> {
    tags.iter().flat_map(|tag| [tag, "\n"]).collect::<String>().into()
}

impl Lattice for Tags {
    fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
        let mut all = BTreeSet::new();
        for state in states {
            all.extend(parse(state)?);
        }
        Ok(encode(&all))
    }

    /// For `merganser plugin check`: states to try the laws on.
    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let names = ["red", "green", "blue", "black"];
        let some = names.into_iter().zip(seed).filter(|(_, bit)| *bit % 2 == 1).map(|(name, _)| name);
        Some(encode(&some.collect()))
    }
}

export_lattice!(Tags);

#[cfg(test)]
mod tests {
    use merganser_plugin_sdk::{laws, testing::key};

    use super::*;

    #[test]
    fn both_sides_are_in_the_join() {
        let joined = Tags::merge(&key("photo/1"), &[b"blue\n".into(), b"black\nred\n".into()]);
        assert_eq!(joined, Ok(b"black\nblue\nred\n".into()));
    }

    #[test]
    fn states_that_are_not_canonical_are_refused() {
        for odd in ["red", "red\nblue\n", "red\nred\n"] {
            assert!(Tags::validate(&key("photo/1"), odd.as_bytes()).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn the_laws_of_a_lattice_hold() {
        assert_eq!(laws::lattice::<Tags>(&[b"", b"red\n", b"blue\nred\n", b"green\n"]), Ok(()));
    }
}
