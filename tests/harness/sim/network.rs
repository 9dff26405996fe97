//! The network: what it does to a message, and who can reach whom.
//!
//! In: messages. Out: when and how often each arrives, if at all. A link loses, delays, repeats
//! and reorders; it can be cut in one direction or both, or clogged. Absent: bytes, which the
//! world keeps; promises.

use super::dice::Dice;
use super::options::Options;

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It never arrives.
    Lost,
    /// It met a cut.
    Cut,
    /// It arrives after so many microseconds, and perhaps once more.
    Arrives(u64, Option<u64>),
}

/// All links.
#[derive(Debug)]
pub(super) struct Network {
    dice: Dice,
    nodes: usize,
    /// Cuts that lie on each directed link.
    cuts: Vec<u32>,
    /// Extra delay of each directed link.
    clogs_us: Vec<u64>,
    /// Off once the cluster heals.
    trouble: bool,
}

impl Network {
    /// Between so many nodes, all links whole.
    pub(super) fn new(nodes: usize, dice: Dice) -> Network {
        Network { dice, nodes, cuts: vec![0; nodes * nodes], clogs_us: vec![0; nodes * nodes], trouble: true }
    }

    /// What becomes of a message.
    pub(super) fn send(&mut self, options: &Options, from: usize, to: usize) -> Fate {
        let link = from * self.nodes + to;
        if self.cuts[link] > 0 {
            return Fate::Cut;
        }
        let delay = self.delay(options, link);
        if !self.trouble {
            return Fate::Arrives(delay, None);
        }
        if self.dice.chance(options.loss_permille) {
            return Fate::Lost;
        }
        let again = self.dice.chance(options.duplicate_permille).then(|| {
            let later = if self.dice.chance(500) { 3 } else { 40 };
            self.delay(options, link) * later
        });
        Fate::Arrives(delay, again)
    }

    fn delay(&mut self, options: &Options, link: usize) -> u64 {
        let delay = self.dice.between(options.delay_us_min, options.delay_us_max) + self.clogs_us[link];
        if self.trouble && self.dice.chance(options.straggler_permille) { delay * 20 } else { delay }
    }

    /// Whether a message sent long ago would still arrive now.
    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.nodes + to] > 0
    }

    /// Whether a directed link is cut or slow.
    pub(super) fn is_troubled(&self, from: usize, to: usize) -> bool {
        self.is_cut(from, to) || self.clogs_us[from * self.nodes + to] > 0
    }

    /// Cuts a directed link; cuts add up.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from * self.nodes + to] += 1;
    }

    /// Takes one cut away.
    pub(super) fn mend(&mut self, from: usize, to: usize) {
        let cuts = &mut self.cuts[from * self.nodes + to];
        *cuts = cuts.saturating_sub(1);
    }

    /// Makes a directed link slow, or (0) as it was.
    pub(super) fn clog(&mut self, from: usize, to: usize, delay_us: u64) {
        self.clogs_us[from * self.nodes + to] = delay_us;
    }

    /// From here on every message arrives once.
    pub(super) fn heal(&mut self) {
        self.trouble = false;
        self.cuts.fill(0);
        self.clogs_us.fill(0);
    }
}
