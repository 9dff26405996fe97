//! Bugs that others have shipped, each as the story of its report, told to the production nodes.
//!
//! Every story holds, and every story bites: with the matching known bug switched on it does not. In: stories.
//! Out: both verdicts. Absent: chance, which meets the same bugs in `sim/`.

use crate::properties::{Check, broken};
use crate::sim::bug::Bug;
use crate::sim::run::caught;
use crate::sim::script::Script;
use merganser_core::mutant::Mutant;
use merganser_core::request::{Level, Outcome, Problem};

/// Bits of keyspaces.
const SIBLINGS: u64 = 1;
const LWW: u64 = 1 << 3;

/// A report, its story, and the bug that it must notice.
pub struct Scenario {
    /// Whose report.
    pub report: &'static str,
    /// What was seen there.
    pub seen: &'static str,
    nodes: u64,
    keyspaces: u64,
    /// The bug that it must notice.
    pub bug: Mutant,
    story: fn(&mut Script) -> Check,
}

/// All of them.
pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        report: "riak_kv#679",
        seen: "a coordinator that lost its disk issues a dot again that others have seen, and an \
                 acknowledged write vanishes under the old one (doomstone)",
        nodes: 3,
        keyspaces: SIBLINGS,
        bug: Mutant::StableActor,
        story: a_lost_disk_takes_no_dots_with_it,
    },
    Scenario {
        report: "scylladb#7082",
        seen: "a write through a node whose clock is behind is acknowledged and discarded",
        nodes: 3,
        keyspaces: LWW,
        bug: Mutant::ClockAlone,
        story: a_slow_clock_discards_nothing,
    },
];

fn holds(condition: bool, text: &str) -> Check {
    if condition { Ok(()) } else { broken("story", text.into()) }
}

fn a_lost_disk_takes_no_dots_with_it(script: &mut Script) -> Check {
    let first = script.put(0, 0, None)?;
    let deleted = script.delete(0, 0, &first)?;
    holds(deleted.is_written(), "the delete is acknowledged")?;
    script.pass(200)?;
    script.lose_disk(0);
    script.start(0)?;
    script.pass(3_000)?;
    let second = script.put(0, 0, None)?;
    holds(second.is_written(), "the put after the loss is acknowledged")?;
    script.end()?;
    let shown = script.get(1, 0, Level::All)?;
    holds(shown.values() == [second.value()], "the put after the loss is there, and nothing else")
}

fn a_slow_clock_discards_nothing(script: &mut Script) -> Check {
    script.set_clock(0, 400);
    script.set_clock(1, -50);
    let first = script.put(0, 0, None)?;
    let shown = script.get(1, 0, Level::Quorum)?;
    holds(shown.values() == [first.value()], "the first put is read")?;
    let second = script.put(1, 0, Some(&shown))?;
    holds(second.is_written(), "the second put is acknowledged")?;
    let shown = script.get(2, 0, Level::All)?;
    holds(shown.values() == [second.value()], "who wrote after reading has won")?;
    // Far ahead is too far: said, not discarded.
    script.set_clock(0, 3_000);
    let ahead = script.put(0, 0, Some(&shown))?;
    if ahead.is_written() {
        let shown = script.get(1, 0, Level::All)?;
        let refused = script.put(1, 0, Some(&shown))?;
        let skew = matches!(refused.outcome, Outcome::Failed(Problem::ClockSkew { .. }));
        holds(skew, "a write that would have to be stamped far ahead is refused")?;
    }
    script.end()
}

impl Scenario {
    /// Whether it holds, with a bug or without, and the trace.
    pub fn tell(&self, bug: Option<Mutant>) -> (Check, String) {
        match Script::begin(self.nodes, self.keyspaces, |options| options.bug = bug.map(Bug::Core)) {
            Ok(mut script) => (caught(|| (self.story)(&mut script)), script.trace()),
            Err(violation) => (Err(violation), String::new()),
        }
    }
}
