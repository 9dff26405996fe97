//! Whether the plugin vouches for a fragment of a lattice's state.
//!
//! A put whose validation was not answered is kept, and joined with nothing before the plugin called it valid. An operand
//! that the plugin refuses, or that no join takes in, is set aside with the reason: it stays in the state, visible, until
//! a delete that saw it, and the others are joined without it. See `docs/decisions/standings.md`.
//!
//! A verdict holds for the policy epoch that it was given in. Under a later epoch (another module, another configuration) an
//! operand that was set aside is asked about anew. So verdicts are ordered: of two replicas' verdicts on one fragment
//! the later epoch's counts, and within one epoch the stricter one. That order makes sync a join.
//!
//! In: verdicts. Out: which of two counts. Absent: asking for them (`replica/tend`).

/// Longest reason in bytes that is kept in a state.
pub const REASON_BYTES_MAX: usize = 160;

/// See the head of this file. Ordered: the greater one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// The policy epoch of the verdict; 0 where there is none.
    epoch: u64,
    verdict: Verdict,
}

/// What the plugin said of a fragment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Unvalidated,
    Valid,
    Aside(String),
}

/// A standing as it counts in a policy epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts<'a> {
    /// Joined with the others.
    Valid,
    /// Joined with nothing until the plugin was asked.
    Unvalidated,
    /// Joined with nothing, for this reason.
    Aside(&'a str),
}

impl Standing {
    /// Not judged.
    pub const UNVALIDATED: Standing = Standing { epoch: 0, verdict: Verdict::Unvalidated };

    /// The plugin vouches for it.
    pub fn valid(epoch: u64) -> Standing {
        Standing { epoch, verdict: Verdict::Valid }
    }

    /// Set aside; the reason is cut to [`REASON_BYTES_MAX`].
    pub fn aside(epoch: u64, reason: &str) -> Standing {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let mut kept: String = reason.chars().map(printable).take(REASON_BYTES_MAX).collect();
        while kept.len() > REASON_BYTES_MAX {
            kept.pop();
        }
        Standing { epoch, verdict: Verdict::Aside(kept) }
    }

    /// How it counts in a policy epoch.
    pub fn counts(&self, epoch: u64) -> Counts<'_> {
        match &self.verdict {
            Verdict::Valid => Counts::Valid,
            Verdict::Aside(reason) if self.epoch >= epoch => Counts::Aside(reason),
            Verdict::Unvalidated | Verdict::Aside(_) => Counts::Unvalidated,
        }
    }

    /// Joined or to be joined, whatever the epoch.
    pub fn is_valid(&self) -> bool {
        self.verdict == Verdict::Valid
    }

    /// The epoch of the verdict.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Why it was set aside, in whatever epoch.
    pub fn reason(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Aside(reason) => Some(reason),
            Verdict::Unvalidated | Verdict::Valid => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_epoch_counts_and_within_one_the_stricter_verdict() {
        let aside = |epoch| Standing::aside(epoch, "poison");
        let ascending = [Standing::UNVALIDATED, Standing::valid(1), aside(1), Standing::valid(2), aside(2)];
        assert!(ascending.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(aside(2).counts(2), Counts::Aside("poison"));
        assert_eq!(aside(2).counts(3), Counts::Unvalidated, "another module is asked anew");
        assert_eq!(Standing::valid(1).counts(3), Counts::Valid);
    }

    #[test]
    fn a_reason_is_short_and_printable() {
        let standing = Standing::aside(1, &"\u{1b}[2Jé".repeat(100));
        let reason = standing.reason().unwrap_or_default();
        assert!(reason.len() <= REASON_BYTES_MAX && reason.starts_with(" [2Jé"), "{reason:?}");
    }
}
