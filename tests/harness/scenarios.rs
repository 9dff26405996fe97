//! Bugs that others have shipped, each as the story of its report, told to the production nodes.
//!
//! Every story holds, and every story bites: with the matching known bug switched on it does not. In: stories.
//! Out: both verdicts. Absent: chance, which meets the same bugs in `sim/`.

use crate::properties::{Check, broken};
use crate::sim::Options;
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
    /// 0: deletes are not collected.
    collect_period_ms: u64,
    /// The bug that it must notice.
    pub bug: Mutant,
    story: fn(&mut Script) -> Check,
}

/// All of them.
pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        report: "riak_kv#679",
        seen: "a coordinator that lost its disk issues a dot again that others have seen, and an \
                 acknowledged write vanishes under the old one (doomstone)",
        nodes: 3,
        keyspaces: SIBLINGS,
        collect_period_ms: 0,
        bug: Mutant::StableActor,
        story: a_lost_disk_takes_no_dots_with_it,
    },
    Scenario {
        report: "scylladb#7082",
        seen: "a write through a node whose clock is behind is acknowledged and discarded",
        nodes: 3,
        keyspaces: LWW,
        collect_period_ms: 0,
        bug: Mutant::ClockAlone,
        story: a_slow_clock_discards_nothing,
    },
    Scenario {
        report: "riak_kv#847",
        seen: "a hint that comes home long after it was kept replaces what was written since",
        nodes: 4,
        keyspaces: SIBLINGS,
        collect_period_ms: 0,
        bug: Mutant::LateHintOverwrites,
        story: a_late_hint_replaces_nothing,
    },
    Scenario {
        report: "riak_kv#1754",
        seen: "writes acknowledged by nodes with another view of who is responsible are lost on their way home",
        nodes: 4,
        keyspaces: SIBLINGS,
        collect_period_ms: 0,
        bug: Mutant::HintDroppedBeforeAck,
        story: two_views_of_who_is_up_lose_nothing,
    },
    Scenario {
        report: "pouchdb#4642",
        seen: "devices that hold the same answer one another with new revisions for ever",
        nodes: 3,
        keyspaces: SIBLINGS,
        collect_period_ms: 0,
        bug: Mutant::EqualContextPingPong,
        story: equal_replicas_fall_silent,
    },
    Scenario {
        report: "scylladb#23712",
        seen: "a hint that comes home after the tombstone of its key was collected brings the value back",
        nodes: 4,
        keyspaces: SIBLINGS,
        collect_period_ms: 20,
        bug: Mutant::ReapWithoutHintCheck,
        story: a_hint_outlasts_no_collection,
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

fn a_late_hint_replaces_nothing(script: &mut Script) -> Check {
    let (primaries, others) = script.roles(0);
    let ([a, b, c], stand_in) = ([primaries[0], primaries[1], primaries[2]], others[0]);
    script.power_loss(c);
    script.pass(3_000)?;
    let first = script.put(a, 0, None)?;
    script.pass(500)?;
    // The hint waits behind a cut while its target comes back.
    script.cut(stand_in, &[a, b, c]);
    script.start(c)?;
    script.pass(3_000)?;
    script.power_loss(b);
    script.pass(2_000)?;
    let shown = script.get(a, 0, Level::Quorum)?;
    holds(shown.values() == [first.value()], "the first put is read")?;
    let second = script.put(a, 0, Some(&shown))?;
    holds(second.is_written(), "the second put is acknowledged by two")?;
    script.mend(stand_in, &[a, b, c]);
    // Time enough for a hint, and too little for anti-entropy.
    script.pass(300)?;
    script.lose_disk(a);
    script.end()?;
    let shown = script.get(b, 0, Level::All)?;
    holds(shown.values() == [second.value()], "the second put is there, and nothing else")
}

fn two_views_of_who_is_up_lose_nothing(script: &mut Script) -> Check {
    let (primaries, others) = script.roles(0);
    let ([a, b, c], stand_in) = ([primaries[0], primaries[1], primaries[2]], others[0]);
    // Here a and the stand-in are up, there b and c: both sides acknowledge.
    for node in [a, stand_in] {
        script.cut(node, &[b, c]);
    }
    script.pass(3_000)?;
    let here = script.put(a, 0, None)?;
    let there = script.put(b, 0, None)?;
    holds(here.is_written() && there.is_written(), "both sides acknowledge")?;
    // One copy is lost, the other is on its way home over a link that loses it, for a while.
    script.lose_disk(a);
    for node in [a, stand_in] {
        script.mend(node, &[b, c]);
    }
    // Links are told up within 30 ms; two heartbeats more, and the hints would be home.
    script.pass(31)?;
    script.cut_silently(stand_in, &[b, c]);
    script.pass(2_000)?;
    script.end()?;
    let shown = script.get(c, 0, Level::All)?;
    let mut values = shown.values();
    values.sort();
    let mut expected = [here.value(), there.value()];
    expected.sort();
    holds(values == expected, "both puts are there, as siblings")
}

fn equal_replicas_fall_silent(script: &mut Script) -> Check {
    let first = script.put(0, 0, None)?;
    let second = script.put(1, 0, None)?;
    holds(first.is_written() && second.is_written(), "both puts are acknowledged")?;
    script.pass(1_000)?;
    // Refilled by exchanges, for nobody kept hints.
    script.lose_disk(2);
    script.start(2)?;
    script.end()?;
    let shown = script.get(2, 0, Level::One)?;
    holds(shown.values().len() == 2, "who lost both has them again")
}

fn a_hint_outlasts_no_collection(script: &mut Script) -> Check {
    let (primaries, others) = script.roles(0);
    let ([a, b, c], stand_in) = ([primaries[0], primaries[1], primaries[2]], others[0]);
    script.power_loss(c);
    script.pass(3_000)?;
    let first = script.put(a, 0, None)?;
    holds(first.is_written(), "the put is acknowledged")?;
    script.pass(500)?;
    // The hint is lost on its way, again and again, and nobody takes its holder to be away.
    script.cut_silently(stand_in, &[c]);
    script.start(c)?;
    script.pass(3_000)?;
    let deleted = script.delete(b, 0, &first)?;
    holds(deleted.is_written(), "the delete is acknowledged")?;
    script.pass(3_000)?;
    // What only processes remember is gone when the hint comes home at last.
    for node in [stand_in, c] {
        script.power_loss(node);
        script.start(node)?;
    }
    script.mend(stand_in, &[c]);
    script.pass(3_000)?;
    let shown = script.get(c, 0, Level::One)?;
    holds(shown.values().is_empty(), "what was deleted stays so")?;
    script.end()?;
    script.pass(3_000)?;
    holds(!script.is_on_a_disk(0), "and nothing is left of it once the hint is home")
}

impl Scenario {
    /// Whether it holds, with a bug or without, and the trace.
    pub fn tell(&self, bug: Option<Mutant>) -> (Check, String) {
        let tune = |options: &mut Options| {
            options.bug = bug.map(Bug::Core);
            options.collect_period_ms = self.collect_period_ms;
            // Repair must not hide what hints do.
            options.anti_entropy_period_ms = if self.nodes > 3 { 20_000 } else { 500 };
        };
        match Script::begin(self.nodes, self.keyspaces, tune) {
            Ok(mut script) => (caught(|| (self.story)(&mut script)), script.trace()),
            Err(violation) => (Err(violation), String::new()),
        }
    }
}
