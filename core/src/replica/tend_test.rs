//! Lattices whose plugin fails, hangs, or refuses what it was not shown: told by whole clusters.

use crate::catalog::{OnUnvalidated, Policy, Settings};
use crate::event::{Event, Notice};
use crate::id::{ClientTicket, RequestId};
use crate::plugin::{PluginAnswer, PluginCall};
use crate::request::{
    Basis, GetReply, Level, MERGED_BYTES_MAX, Operation, Outcome, Problem, QueryReply, Request, Resolution,
    Sloppiness, Want, WriteReply,
};
use crate::story::*;
use bytes::Bytes;

fn lattice() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Lattice(named("join")));
    cluster
}

fn is_bad(value: &Bytes) -> bool {
    value.starts_with(b"bad")
}

/// Refuses, and joins nothing with, what begins with "bad".
fn knows_bad(call: &PluginCall) -> Option<Says> {
    let rejected =
        || Some(Says::This(PluginAnswer::Rejected { kind: "malformed".into(), message: "no words".into() }));
    match call {
        PluginCall::Validate { value, .. } if is_bad(value) => rejected(),
        PluginCall::Merge { states, .. } if states.iter().any(is_bad) => rejected(),
        _ => None,
    }
}

/// Validation is never answered; otherwise as [`knows_bad`].
fn validates_nothing(call: &PluginCall) -> Option<Says> {
    match call {
        PluginCall::Validate { .. } => Some(Says::Nothing),
        call => knows_bad(call),
    }
}

fn hangs(call: &PluginCall) -> Option<Says> {
    matches!(call, PluginCall::Merge { .. } | PluginCall::Apply { .. }).then_some(Says::Nothing)
}

fn never_applies(call: &PluginCall) -> Option<Says> {
    matches!(call, PluginCall::Apply { .. }).then_some(Says::Nothing)
}

fn reason(resolution: &Resolution) -> &str {
    match resolution {
        Resolution::Unresolved { reason, .. } => reason,
        _ => "",
    }
}

/// What is shown, without what is apart.
fn joined(reply: &GetReply) -> Vec<String> {
    let shown = reply.siblings.iter().filter(|sibling| sibling.apart.is_none()).cloned().collect();
    values(&GetReply { siblings: shown, ..reply.clone() })
}

/// Puts without waiting for more than what happens at once.
fn put_now(cluster: &mut Cluster, node: usize, value: &'static str) -> Option<Outcome> {
    let ticket = ClientTicket(cluster.next_ticket);
    cluster.next_ticket += 1;
    let operation = Operation::Put {
        value: Bytes::from_static(value.as_bytes()),
        content_type: None,
        basis: Basis::Unsaid,
        request_id: RequestId(u128::from(ticket.0).to_be_bytes()),
        ttl_ms: None,
    };
    send(cluster, node, ticket, Level::Keyspace, operation);
    cluster.outcomes.remove(&ticket)
}

fn send(cluster: &mut Cluster, node: usize, ticket: ClientTicket, level: Level, operation: Operation) {
    let request = Request {
        keyspace: "k".to_owned(),
        key: Bytes::from_static(b"key"),
        level,
        sloppiness: Sloppiness::Keyspace,
        timeout_ms: None,
        until: None,
        retry_of_ms_ago: None,
        operation,
    };
    cluster.queue.push_back((node, Event::Client { ticket, request }));
    cluster.run();
}

fn apply(cluster: &mut Cluster, node: usize, op: &str, context: Option<Bytes>) -> Outcome {
    let request_id = RequestId(u128::from(cluster.next_ticket).to_be_bytes());
    let op = Bytes::copy_from_slice(op.as_bytes());
    cluster.ask(node, Level::One, Operation::Apply { op, context, request_id })
}

fn query(cluster: &mut Cluster, node: usize, level: Level, context: Option<Bytes>) -> Outcome {
    cluster.ask(node, level, Operation::Query { path: Bytes::new(), context })
}

fn wrote(outcome: Option<Outcome>) -> WriteReply {
    match outcome {
        Some(Outcome::Wrote(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// R5: with a hanging plugin each put was waited for until the plugin's end.
#[test]
fn a_put_is_acknowledged_while_the_join_of_the_one_before_hangs() {
    let mut cluster = lattice();
    wrote(put_now(&mut cluster, 0, "a"));
    cluster.plugin_says = hangs;
    assert!(put_now(&mut cluster, 0, "b").is_none(), "it waits for a join that may come at once");
    // Here, and at those that it was sent to.
    (0..2).for_each(|_| cluster.pass(5));
    assert_eq!(cluster.outcomes.len(), 1);
    cluster.outcomes.clear();
    for value in ["c", "d", "e"] {
        wrote(put_now(&mut cluster, 0, value));
    }
    cluster.plugin_says = |_| None;
    // The joins that nobody answers are given up, and tried again.
    cluster.live(20_000);
    assert_eq!(joined(&cluster.get(1, Level::All)), ["a b c d e"]);
    let found = cluster.ask(0, Level::One, Operation::Get { want: Want::Siblings });
    assert!(matches!(found, Outcome::Got(reply) if reply.siblings.len() == 1), "and it is stored as one");
}

#[test]
fn where_the_plugin_answers_at_once_a_put_costs_one_write_on_each_replica() {
    let mut cluster = lattice();
    wrote(put_now(&mut cluster, 0, "a"));
    cluster.writes.clear();
    for value in ["b", "c", "d", "e"] {
        wrote(put_now(&mut cluster, 0, value));
    }
    let per_node: Vec<usize> =
        (0..3).map(|node| cluster.writes.iter().filter(|at| **at == node).count()).collect();
    assert_eq!(per_node, [4, 4, 4]);
}

/// A4, part 3 2.8: what overload let through made a key unreadable for ever.
#[test]
fn what_was_not_validated_is_kept_apart_said_and_set_aside_once_it_is_refused() {
    let mut cluster = lattice();
    wrote(put_now(&mut cluster, 0, "a"));
    cluster.plugin_says = validates_nothing;
    let reply = cluster.wrote(0, Level::Keyspace, "bad", Basis::Unsaid);
    assert_eq!(reply.unvalidated.as_deref(), Some("no answer in time"));
    cluster.wrote(0, Level::Keyspace, "b", Basis::Unsaid);
    let read = cluster.get(1, Level::All);
    assert_eq!(joined(&read), ["a"], "neither is joined");
    assert!(reason(&read.resolution).contains("not validated yet"), "{:?}", read.resolution);
    // The plugin answers again.
    cluster.plugin_says = knows_bad;
    cluster.live(60_000);
    let read = cluster.get(2, Level::All);
    assert_eq!(joined(&read), ["a b"], "the good one is joined");
    assert!(reason(&read.resolution).contains("malformed: no words"), "{:?}", read.resolution);
    assert!(cluster.notices.iter().any(|notice| matches!(notice, Notice::SetAside { .. })));
    for node in 0..3 {
        let here = cluster.get(node, Level::One);
        assert_eq!((joined(&here), &here.resolution), (joined(&read), &read.resolution), "node {node}");
    }
    // Puts and operations go on, and a delete of it alone takes it away.
    wrote(put_now(&mut cluster, 0, "c"));
    assert!(matches!(apply(&mut cluster, 0, "d", None), Outcome::Wrote(_)));
    let all = match cluster.ask(0, Level::All, Operation::Get { want: Want::Siblings }) {
        Outcome::Got(reply) => reply,
        other => panic!("{other:?}"),
    };
    let aside = all.siblings.iter().find(|sibling| sibling.apart.is_some()).expect("it is shown");
    let delete =
        Operation::Delete { basis: Basis::Context(aside.context.clone()), request_id: RequestId([9; 16]) };
    assert!(matches!(cluster.ask(1, Level::All, delete), Outcome::Wrote(_)));
    cluster.live(3_000);
    let read = cluster.get(2, Level::All);
    assert_eq!((joined(&read), reason(&read.resolution)), (vec!["a b c d".to_owned()], ""));
}

#[test]
fn a_keyspace_may_rather_refuse_what_was_not_validated() {
    let mut cluster = Cluster::new(3);
    let settings =
        Settings { on_unvalidated: OnUnvalidated::Refuse, ..Settings::new(Policy::Lattice(named("join"))) };
    cluster.keyspace_with("k", settings);
    cluster.plugin_says = validates_nothing;
    let outcome = cluster.put(0, Level::Keyspace, "a", Basis::Unsaid);
    assert!(matches!(outcome, Outcome::Failed(Problem::Unresolved { .. })), "{outcome:?}");
    cluster.plugin_says = |_| None;
    assert!(cluster.get(0, Level::All).siblings.is_empty());
}

#[test]
fn in_a_resolver_keyspace_the_reply_says_that_the_value_was_not_validated() {
    let mut cluster = Cluster::new(3);
    cluster.keyspace("k", Policy::Resolver(named("union")));
    cluster.plugin_says = validates_nothing;
    let reply = cluster.wrote(0, Level::Keyspace, "a", Basis::Blind);
    assert!(reply.unvalidated.is_some());
    cluster.plugin_says = |_| None;
    assert_eq!(cluster.wrote(0, Level::Keyspace, "b", Basis::Blind).unvalidated, None);
}

/// An operand that validates and joins with nothing.
fn traps_on_bad(call: &PluginCall) -> Option<Says> {
    match call {
        PluginCall::Merge { states, .. } if states.iter().any(is_bad) => {
            Some(Says::This(PluginAnswer::Broke("plugin trapped".into())))
        }
        _ => None,
    }
}

#[test]
fn an_operand_that_makes_joins_fail_is_found_and_the_others_are_joined() {
    let mut cluster = lattice();
    cluster.plugin_says = no_joins;
    for value in ["a", "b", "bad", "c", "d"] {
        cluster.wrote(0, Level::Keyspace, value, Basis::Unsaid);
    }
    cluster.plugin_says = traps_on_bad;
    cluster.live(60_000);
    let read = cluster.get(1, Level::All);
    assert_eq!(joined(&read), ["a b c d"]);
    assert!(reason(&read.resolution).contains("plugin trapped"), "{:?}", read.resolution);
}

/// B3, part 3 1.5: fragments grew without bound.
#[test]
fn beyond_the_limit_a_put_is_refused_with_the_context_and_a_delete_with_it_makes_room() {
    let mut cluster = Cluster::new(3);
    let settings = Settings { siblings_max: 4, ..Settings::new(Policy::Lattice(named("join"))) };
    cluster.keyspace_with("k", settings);
    cluster.plugin_says = no_joins;
    for value in ["a", "b", "c", "d"] {
        cluster.wrote(0, Level::Keyspace, value, Basis::Unsaid);
    }
    let context = match cluster.put(0, Level::Keyspace, "e", Basis::Unsaid) {
        Outcome::Failed(Problem::OperandLimit { operands: 4, operands_max: 4, context, .. }) => context,
        other => panic!("{other:?}"),
    };
    let delete = Operation::Delete { basis: Basis::Context(context), request_id: RequestId([9; 16]) };
    assert!(matches!(cluster.ask(0, Level::All, delete), Outcome::Wrote(_)));
    cluster.wrote(0, Level::Keyspace, "f", Basis::Unsaid);
    assert_eq!(joined(&cluster.get(1, Level::All)), ["f"]);
}

fn answers_too_much(call: &PluginCall) -> Option<Says> {
    let too_much = || Says::This(PluginAnswer::Value(Bytes::from(vec![b'x'; MERGED_BYTES_MAX + 1])));
    matches!(call, PluginCall::Merge { .. }).then(too_much)
}

/// F7 (3): it was tried again at each put and each read, for ever.
#[test]
fn a_merged_value_that_is_too_large_is_a_state_of_the_key_with_a_way_out() {
    let mut cluster = lattice();
    cluster.wrote(0, Level::All, "a", Basis::Unsaid);
    cluster.plugin_says = answers_too_much;
    cluster.wrote(0, Level::All, "b", Basis::Unsaid);
    let read = cluster.get(0, Level::All);
    assert!(reason(&read.resolution).starts_with("merged value too large: 4194305 bytes"));
    assert_eq!(joined(&read), ["a", "b"]);
    let joins = |cluster: &Cluster| cluster.nodes.iter().map(|node| node.counters.joins).sum::<u64>();
    let before = joins(&cluster);
    for value in ["c", "d", "e", "f"] {
        cluster.wrote(0, Level::All, value, Basis::Unsaid);
    }
    cluster.live(30_000);
    assert!(joins(&cluster) - before <= 3, "what is too large is not tried at each put");
    let views = cluster.nodes[0].counters.views;
    (0..5).for_each(|_| drop(cluster.get(0, Level::All)));
    assert!(cluster.nodes[0].counters.views - views <= 1, "nor at each read");
    cluster.plugin_says = |_| None;
    let context = cluster.get(0, Level::All).context;
    let delete = Operation::Delete { basis: Basis::Context(context), request_id: RequestId([9; 16]) };
    assert!(matches!(cluster.ask(0, Level::All, delete), Outcome::Wrote(_)));
    cluster.wrote(0, Level::All, "g", Basis::Unsaid);
    assert_eq!(joined(&cluster.get(1, Level::All)), ["g"]);
}

#[test]
fn an_operation_whose_plugin_hangs_is_refused_with_nothing_done_and_stops_no_put() {
    let mut cluster = lattice();
    wrote(put_now(&mut cluster, 0, "a"));
    cluster.plugin_says = never_applies;
    let request_id = RequestId([7; 16]);
    let op = Bytes::from_static(b"x");
    let ticket = ClientTicket(777);
    send(&mut cluster, 0, ticket, Level::One, Operation::Apply { op, context: None, request_id });
    // Its operand is stored beside what the plugin is shown.
    wrote(put_now(&mut cluster, 0, "b"));
    assert!(!cluster.outcomes.contains_key(&ticket));
    cluster.pass(5_000);
    let outcome = cluster.outcomes.remove(&ticket);
    assert!(matches!(outcome, Some(Outcome::Failed(Problem::Unresolved { .. }))), "{outcome:?}");
    cluster.plugin_says = |_| None;
    cluster.live(20_000);
    let read = cluster.get(1, Level::All);
    assert_eq!(joined(&read), ["a b"], "nothing of the operation is there");
    // The answer, late: nobody waits for it.
    for (node, ticket, call) in std::mem::take(&mut cluster.unanswered) {
        let answer = union(call);
        cluster.queue.push_back((node, Event::PluginDone { ticket, answer }));
    }
    cluster.run();
    assert_eq!(joined(&cluster.get(1, Level::All)), ["a b"]);
    assert!(matches!(apply(&mut cluster, 0, "y", None), Outcome::Wrote(_)));
    assert_eq!(joined(&cluster.get(2, Level::All)), ["a b y"]);
}

#[test]
fn an_answer_to_an_operation_finds_puts_that_came_meanwhile_and_keeps_them() {
    let mut cluster = lattice();
    wrote(put_now(&mut cluster, 0, "a"));
    cluster.plugin_says = never_applies;
    let ticket = ClientTicket(777);
    let op = Bytes::from_static(b"x");
    let request_id = RequestId([7; 16]);
    send(&mut cluster, 0, ticket, Level::One, Operation::Apply { op, context: None, request_id });
    wrote(put_now(&mut cluster, 0, "b"));
    cluster.plugin_says = |_| None;
    for (node, ticket, call) in std::mem::take(&mut cluster.unanswered) {
        let answer = union(call);
        cluster.queue.push_back((node, Event::PluginDone { ticket, answer }));
    }
    cluster.run();
    assert!(matches!(cluster.outcomes.remove(&ticket), Some(Outcome::Wrote(_))));
    assert_eq!(joined(&cluster.get(2, Level::All)), ["a b x"]);
}

/// review-plugins 13: a remove through a lagging coordinator was an acknowledged nothing.
#[test]
fn an_operation_with_a_context_is_applied_to_a_state_that_covers_it_or_not_at_all() {
    let mut cluster = lattice();
    cluster.isolate(2);
    let reply = cluster.wrote(0, Level::Keyspace, "a", Basis::Unsaid);
    // The lagging one reaches nobody: nothing is done.
    let stale = apply(&mut cluster, 2, "x", Some(reply.context.clone()));
    assert_eq!(stale, Outcome::Failed(Problem::Stale));
    let stale = query(&mut cluster, 2, Level::One, Some(reply.context.clone()));
    assert_eq!(stale, Outcome::Failed(Problem::Stale));
    cluster.cut.clear();
    match query(&mut cluster, 2, Level::One, Some(reply.context.clone())) {
        Outcome::Queried(QueryReply { result, .. }) => assert_eq!(result, "a"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(apply(&mut cluster, 2, "x", Some(reply.context)), Outcome::Wrote(_)));
    assert_eq!(joined(&cluster.get(2, Level::One)), ["a x"], "it was applied to what its client saw");
}

/// F21: a reader was told to write something else.
#[test]
fn a_query_that_the_plugin_refuses_speaks_of_the_state_and_not_of_the_reader() {
    let mut cluster = lattice();
    wrote(put_now(&mut cluster, 0, "a"));
    cluster.plugin_says = |call| {
        let rejected = || PluginAnswer::Rejected {
            kind: "malformed".into(),
            message: "not a state of this plugin".into(),
        };
        matches!(call, PluginCall::Query { .. }).then(|| Says::This(rejected()))
    };
    match query(&mut cluster, 1, Level::One, None) {
        Outcome::Failed(Problem::Unresolved { reason }) => {
            assert_eq!(reason, "malformed: not a state of this plugin");
        }
        other => panic!("{other:?}"),
    }
}

/// The bugs that these stories must notice, one at a time.
#[cfg(feature = "mutants")]
mod known_bugs {
    use super::*;
    use crate::mutant::Mutant;

    fn with(bug: Option<Mutant>) -> Cluster {
        let mut cluster = lattice();
        cluster.nodes.iter_mut().for_each(|node| node.config.mutant = bug);
        wrote(put_now(&mut cluster, 0, "a"));
        cluster
    }

    fn is_acknowledged_while_the_join_hangs(bug: Option<Mutant>) -> bool {
        let mut cluster = with(bug);
        cluster.plugin_says = hangs;
        put_now(&mut cluster, 0, "b");
        (0..20).for_each(|_| cluster.pass(5));
        !cluster.outcomes.is_empty()
    }

    fn shown_beside_what_was_not_validated(bug: Option<Mutant>) -> Vec<String> {
        let mut cluster = with(bug);
        cluster.plugin_says = validates_nothing;
        cluster.wrote(0, Level::Keyspace, "bad", Basis::Unsaid);
        joined(&cluster.get(0, Level::All))
    }

    fn stored_beside_what_was_not_validated(bug: Option<Mutant>) -> usize {
        let mut cluster = with(bug);
        cluster.plugin_says = validates_nothing;
        cluster.wrote(0, Level::Keyspace, "c", Basis::Unsaid);
        cluster.plugin_says = |call| match call {
            PluginCall::Validate { value, .. } if value == "c" => Some(Says::Nothing),
            _ => None,
        };
        cluster.wrote(0, Level::Keyspace, "b", Basis::Unsaid);
        cluster.live(20_000);
        match cluster.ask(0, Level::One, Operation::Get { want: Want::Siblings }) {
            Outcome::Got(reply) => reply.siblings.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn are_noticed() {
        assert!(is_acknowledged_while_the_join_hangs(None));
        assert!(!is_acknowledged_while_the_join_hangs(Some(Mutant::PutWaitsForJoin)));
        assert_eq!(shown_beside_what_was_not_validated(None), ["a"]);
        assert_ne!(shown_beside_what_was_not_validated(Some(Mutant::UnvalidatedJoins)), ["a"]);
        assert_eq!(stored_beside_what_was_not_validated(None), 2);
        assert_eq!(stored_beside_what_was_not_validated(Some(Mutant::AsideStopsOthers)), 3);
    }
}
