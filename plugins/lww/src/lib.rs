//! Last writer wins, for causal siblings: the highest (stamp, dot) is kept, a tombstone included.
//!
//! Any bytes are valid. It is the rule of the native policy `lww`, applied to siblings: only writes that are truly
//! concurrent are compared by stamp, and the losers stay in the conflict log. Note that its answer, written back, gets
//! a stamp of its own: two nodes that settle different parts of a conflict in a partition may keep another value
//! than one that saw all (the law checker warns: L4). Where that matters, serve views without write-back.

use merganser_plugin_sdk::{Kept, KeyInfo, Resolver, Sibling, Verdict, export_resolver, testing::Choices};

/// The plugin.
pub struct Lww;

impl Resolver for Lww {
    fn resolve(_: &KeyInfo, siblings: &[Sibling]) -> Verdict {
        let latest = siblings.iter().max_by_key(|sibling| sibling.order());
        let Some(latest) = latest else { return Verdict::Unresolved("no siblings were shown".into()) };
        match latest.value() {
            None => Verdict::Delete,
            Some(value) => {
                Verdict::Keep(Kept { value: value.to_vec(), content_type: latest.content_type.clone() })
            }
        }
    }

    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let mut choices = Choices::new(seed);
        let length = choices.below(64);
        Some((0..length).map(|_| choices.next() as u8).collect())
    }
}

export_resolver!(Lww);

#[cfg(test)]
mod tests {
    use merganser_plugin_sdk::testing::{key, sibling, tombstone};

    use super::*;

    #[test]
    fn the_highest_stamp_wins_and_the_dot_breaks_ties() {
        let resolve = |siblings: &[Sibling]| Lww::resolve(&key("k"), siblings);
        assert_eq!(resolve(&[sibling(1, 20, "late"), sibling(2, 10, "early")]), Verdict::keep(b"late"));
        assert_eq!(resolve(&[sibling(1, 10, "low"), sibling(2, 10, "high")]), Verdict::keep(b"high"));
        let mut logical = sibling(1, 10, "later");
        logical.at.logical = 1;
        assert_eq!(resolve(&[logical, sibling(2, 10, "sooner")]), Verdict::keep(b"later"));
    }

    #[test]
    fn a_later_delete_wins_and_an_earlier_one_loses() {
        let resolve = |siblings: &[Sibling]| Lww::resolve(&key("k"), siblings);
        assert_eq!(resolve(&[sibling(1, 10, "value"), tombstone(2, 20)]), Verdict::Delete);
        assert_eq!(resolve(&[sibling(1, 20, "value"), tombstone(2, 10)]), Verdict::keep(b"value"));
    }
}
