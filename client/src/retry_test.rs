//! Tests of `retry`, as tables: an error and a standing in, a step out.

use super::*;
use merganser_core::id::{ActorId, Dot};

fn unavailable(sent: bool) -> Error {
    Error::Unavailable { node: "a".into(), reason: "refused".into(), sent }
}

fn uncertain(counter: Option<u64>) -> Error {
    Error::Uncertain(Box::new(Uncertain {
        dot: counter.map(|counter| Dot { actor: ActorId(1), counter }),
        replicas: vec!["a".into()],
        needed: 2,
        cause: "timed out".into(),
        pending: None,
    }))
}

fn internal() -> Error {
    Error::Server { code: 13, reason: "its disk".into() }
}

fn standing(attempts: u32, candidate: usize) -> Standing {
    Standing { attempts, candidate, candidates: 3, remaining: Duration::from_secs(5) }
}

fn ask(candidate: usize, after_ms: u64) -> Step {
    Step::Ask { candidate, after: Duration::from_millis(after_ms) }
}

#[test]
fn each_error_leads_to_its_step() {
    let overloaded = Error::Overloaded { retry_after: Duration::from_millis(300) };
    let rows = [
        ("the other nodes are asked at once", unavailable(false), standing(1, 0), ask(1, 0)),
        ("also when the first one asked is not the first", unavailable(true), standing(2, 2), ask(0, 0)),
        ("a second round waits", unavailable(false), standing(3, 2), ask(0, 80)),
        (
            "too few replicas: another node may reach more",
            Error::NotEnoughReplicas { needed: 2, reachable: 1 },
            standing(1, 0),
            ask(1, 20),
        ),
        (
            "too late: nothing was done, and another node may be quicker",
            Error::Late,
            standing(1, 0),
            ask(1, 0),
        ),
        ("uncertain: the same node knows the write", uncertain(Some(1)), standing(1, 1), ask(1, 20)),
        ("overloaded: as long as the node says", overloaded.clone(), standing(1, 0), ask(1, 300)),
        ("attempts are bounded", unavailable(false), standing(10, 0), Step::GiveUp),
        ("a wrong request stays wrong", Error::ContextRequired, standing(1, 0), Step::GiveUp),
        (
            "so does a refused value",
            Error::InvalidValue { kind: String::new(), reason: String::new() },
            standing(1, 0),
            Step::GiveUp,
        ),
        (
            "and an unknown keyspace",
            Error::UnknownKeyspace { keyspace: "x".into() },
            standing(1, 0),
            Step::GiveUp,
        ),
        ("what failed inside one node may work in another", internal(), standing(1, 0), ask(1, 0)),
        (
            "and an unknown method",
            Error::Server { code: 12, reason: String::new() },
            standing(1, 0),
            Step::GiveUp,
        ),
    ];
    for (why, error, standing, expected) in rows {
        assert_eq!(next(&Patience::default(), standing, &error, 1.0), expected, "{why}");
        assert_eq!(is_curable(&error), expected != Step::GiveUp || standing.attempts == 10, "{why}");
    }
    assert_eq!(next(&Patience::default(), standing(3, 2), &internal(), 1.0), Step::GiveUp, "all were asked");
    let soon_over = Standing { remaining: Duration::from_millis(250), ..standing(1, 0) };
    assert_eq!(next(&Patience::default(), soon_over, &overloaded, 0.0), Step::GiveUp);
}

#[test]
fn pauses_double_up_to_a_limit_and_jitter_takes_at_most_half() {
    let patience = Patience::default();
    let pauses =
        |jitter| [1, 2, 3, 7, 30, u32::MAX].map(|attempts| pause(&patience, attempts, jitter).as_millis());
    assert_eq!(pauses(1.0), [20, 40, 80, 1000, 1000, 1000]);
    assert_eq!(pauses(0.0), [10, 20, 40, 500, 500, 500]);
}

fn outcome(attempts: impl IntoIterator<Item = Error>) -> Error {
    let mut fate = Fate::default();
    let mut last = None;
    for error in attempts {
        fate.note(&error);
        last = Some(error);
    }
    fate.outcome(last.unwrap())
}

#[test]
fn an_attempt_of_unknown_fate_makes_the_write_uncertain_whatever_fails_later() {
    let few = Error::NotEnoughReplicas { needed: 2, reachable: 1 };
    assert_eq!(outcome([unavailable(false), few.clone()]).code(), "not_enough_replicas");
    assert_eq!(outcome([unavailable(false)]).code(), "unavailable");
    assert_eq!(outcome([unavailable(true)]).code(), "uncertain");
    assert_eq!(outcome([unavailable(true), few.clone()]).code(), "uncertain");
    assert_eq!(outcome([internal(), few.clone()]).code(), "uncertain");
    assert_eq!(outcome([uncertain(Some(1)), few, Error::ContextRequired]).code(), "uncertain");
}

#[test]
fn the_dot_of_an_uncertain_write_is_kept() {
    let rows = [
        (vec![uncertain(Some(3)), unavailable(true)], Some(3)),
        (vec![unavailable(true), uncertain(Some(4))], Some(4)),
        (vec![uncertain(Some(3)), uncertain(Some(4))], Some(4)),
        (vec![uncertain(Some(3)), uncertain(None)], Some(3)),
        (vec![unavailable(true), unavailable(false)], None),
    ];
    for (attempts, expected) in rows {
        match outcome(attempts) {
            Error::Uncertain(facts) => assert_eq!(facts.dot.map(|dot| dot.counter), expected),
            error => panic!("{error}"),
        }
    }
}
