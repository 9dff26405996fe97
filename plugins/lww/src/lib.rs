//! Last writer wins, for causal siblings: the highest (stamp, dot) is kept, a tombstone included.
//!
//! Any bytes are valid. It is the rule of the native policy `lww`, applied to siblings: only writes that are truly
//! concurrent are compared by stamp, and the losers stay in the conflict log. Note that its answer, written back, gets
//! a stamp of its own: two nodes that settle different parts of a conflict in a partition may keep another value
//! than one that saw all (the law checker warns: L4). Where that matters, serve views without write-back.

use merganser_plugin_sdk::{KeyInfo, Resolver, Sibling, Verdict, export_resolver, testing::Choices};

/// The plugin.
pub struct Lww;

impl Resolver for Lww {
    fn resolve(_: &KeyInfo, siblings: &[Sibling]) -> Verdict {
        let latest = siblings.iter().max_by_key(|sibling| sibling.order());
        match latest.map(Sibling::value) {
            None => Verdict::Unresolved("no siblings were shown".into()),
            Some(None) => Verdict::Delete,
            Some(Some(value)) => Verdict::Keep(value.to_vec()),
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
        assert_eq!(
            resolve(&[sibling(1, 20, "late"), sibling(2, 10, "early")]),
            Verdict::Keep(b"late".into())
        );
        assert_eq!(resolve(&[sibling(1, 10, "low"), sibling(2, 10, "high")]), Verdict::Keep(b"high".into()));
        let mut logical = sibling(1, 10, "later");
        logical.at.logical = 1;
        assert_eq!(resolve(&[logical, sibling(2, 10, "sooner")]), Verdict::Keep(b"later".into()));
    }

    #[test]
    fn a_later_delete_wins_and_an_earlier_one_loses() {
        let resolve = |siblings: &[Sibling]| Lww::resolve(&key("k"), siblings);
        assert_eq!(resolve(&[sibling(1, 10, "value"), tombstone(2, 20)]), Verdict::Delete);
        assert_eq!(resolve(&[sibling(1, 20, "value"), tombstone(2, 10)]), Verdict::Keep(b"value".into()));
    }
}
