//! The map natively.

use merganser_plugin_sdk::{RejectionKind, Span, Stamp, laws, testing::key};

use super::*;

fn apply(state: Option<&[u8]>, op: &str, actor: u64, counter: u64) -> Vec<u8> {
    LwwMap::apply(&key("profile"), state, &operation(op, actor, counter)).unwrap()
}

fn at(state: Option<&[u8]>, op: &str, (actor, counter): (u64, u64), millis: u64) -> Vec<u8> {
    let operation = Operation { at: Stamp { millis, logical: 0 }, ..operation(op, actor, counter) };
    LwwMap::apply(&key("profile"), state, &operation).unwrap()
}

fn query(state: &[u8], path: &str) -> String {
    String::from_utf8(LwwMap::query(&key("profile"), state, path.as_bytes()).unwrap()).unwrap()
}

fn merge(states: &[Vec<u8>]) -> Vec<u8> {
    LwwMap::merge(&key("profile"), states).unwrap()
}

#[test]
fn fields_changed_on_both_sides_are_settled_one_by_one() {
    let base = apply(None, r#"{"set":{"name":"Ada","age":35}}"#, 1, 1);
    let left = apply(Some(&base), r#"{"set":{"age":36}}"#, 1, 2);
    let right = apply(Some(&base), r#"{"set":{"city":"London"}}"#, 2, 1);
    let merged = merge(&[left, right]);
    assert_eq!(query(&merged, ""), r#"{"age":36,"city":"London","name":"Ada"}"#);
    assert_eq!(query(&merged, "age"), "36");
    assert_eq!(query(&merged, "nothing"), "null");
}

#[test]
fn of_concurrent_writes_the_latest_is_shown_however_many_came_before() {
    let base = at(None, r#"{"set":{"age":1}}"#, (1, 1), 10);
    let mut busy = base.clone();
    for n in 2..30 {
        busy = at(Some(&busy), &format!(r#"{{"set":{{"age":{n}}}}}"#), (1, n), 10 + n);
    }
    let late = at(Some(&base), r#"{"set":{"age":"late"}}"#, (2, 1), 500);
    let merged = merge(&[busy, late]);
    assert_eq!(query(&merged, "age"), r#""late""#);
    // Who has seen it replaces it, whatever its own clock says.
    assert_eq!(query(&at(Some(&merged), r#"{"set":{"age":7}}"#, (3, 1), 1), "age"), "7");
}

#[test]
fn a_removal_takes_what_it_has_seen_and_no_more() {
    let base = apply(None, r#"{"set":{"age":35}}"#, 9, 1);
    let removed = apply(Some(&base), r#"{"remove":"age"}"#, 1, 1);
    assert_eq!(query(&merge(&[base.clone(), removed.clone()]), ""), "{}");
    let again = apply(Some(&removed), r#"{"set":{"age":40}}"#, 1, 2);
    assert_eq!(query(&merge(&[removed.clone(), again]), "age"), "40");
    let meanwhile = apply(Some(&base), r#"{"set":{"age":41}}"#, 2, 1);
    let both = merge(&[removed, meanwhile]);
    assert_eq!(query(&both, "age"), "41");
    // A client that had seen only the first write.
    let seen = Some(vec![Span { actor: 9, after: 0, upto: 1 }]);
    let stale = Operation { seen, ..operation(r#"{"clear":true}"#, 4, 1) };
    assert_eq!(query(&LwwMap::apply(&key("profile"), Some(&both), &stale).unwrap(), "age"), "41");
    assert_eq!(query(&apply(Some(&both), r#"{"clear":true}"#, 4, 1), ""), "{}");
}

/// F12: 267 bytes stayed for each removed name.
#[test]
fn removed_names_cost_nothing() {
    let mut state = apply(None, r#"{"set":{"stays":1}}"#, 1, 1);
    for n in 1..2_000u64 {
        state = apply(Some(&state), &format!(r#"{{"set":{{"{n:0250}":true}}}}"#), 1, 2 * n);
        state = apply(Some(&state), &format!(r#"{{"remove":"{n:0250}"}}"#), 1, 2 * n + 1);
    }
    assert!(state.len() < 100, "{} bytes", state.len());
    assert_eq!(query(&state, ""), r#"{"stays":1}"#);
}

/// F11: two sides below the limit join to a map above it.
#[test]
fn a_map_over_the_limit_takes_only_what_makes_it_smaller() {
    let big = "x".repeat(50_000);
    let side = |actor: u64| {
        let mut state = None;
        for n in 1..=13 {
            let op = format!(r#"{{"set":{{"{actor}/{n}":"{big}"}}}}"#);
            state = Some(apply(state.as_deref(), &op, actor, n));
        }
        state.unwrap()
    };
    let over = merge(&[side(1), side(2)]);
    assert!(over.len() > STATE_BYTES_MAX);
    let larger = operation(r#"{"set":{"new":1}}"#, 1, 99);
    let refused = LwwMap::apply(&key("profile"), Some(&over), &larger).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::TooLarge);
    let smaller = format!(r#"{{"set":{{"1/1":"{}"}}}}"#, &big[..49_999]);
    assert_eq!(query(&apply(Some(&over), &smaller, 1, 99), "1/1").len(), 50_001);
    assert_eq!(query(&apply(Some(&over), r#"{"remove":["1/1","nothing"]}"#, 1, 99), "1/1"), "null");
    assert_eq!(query(&apply(Some(&over), r#"{"clear":true}"#, 1, 99), ""), "{}");
}

/// F36: each of these was rounded or dropped without a word.
#[test]
fn numbers_are_exact_and_doubled_fields_refused() {
    for number in
        ["18446744073709551616", "-9223372036854775809", "1e-400", "0.1000000000000000055", "-0", "1e2"]
    {
        assert_eq!(query(&apply(None, &format!(r#"{{"set":{{"x":{number}}}}}"#), 1, 1), "x"), number);
    }
    for op in
        [r#"{"set":{"x":1},"set":{"y":2}}"#, r#"{"set":{"x":1,"x":2}}"#, r#"{"set":{"x":{"a":1,"a":2}}}"#]
    {
        assert!(parse(op.as_bytes()).is_err(), "{op}");
    }
    let deep = format!(r#"{{"set":{{"x":{}1{}}}}}"#, "[".repeat(126), "]".repeat(126));
    assert!(parse(deep.as_bytes()).err().unwrap().message.contains("nested deeper"));
}

/// F20: a put that claims the end of time made every later `set` an acknowledged nothing.
#[test]
fn a_forged_stamp_or_dot_is_refused_or_replaced() {
    let forge = |millis: u128, dot: u64| {
        let mut writer = Writer::new(MAGIC);
        let mut history = History::<()>::default();
        history.record(&operation("", 1, 1), ()).unwrap();
        history.write(&mut writer);
        writer.number(1);
        writer.bytes(b"a");
        [1, 1, dot.into(), millis, 0].iter().for_each(|&number| writer.number(number));
        writer.bytes(b"1");
        writer.finish()
    };
    assert!(LwwMap::validate(&key("profile"), &forge(u128::from(u64::MAX), 1)).is_err());
    assert!(LwwMap::validate(&key("profile"), &forge(1, 2)).is_err());
    let latest = forge(MILLIS_MAX, 1);
    assert_eq!(LwwMap::validate(&key("profile"), &latest), Ok(()));
    let set = apply(Some(&latest), r#"{"set":{"a":2}}"#, 2, 1);
    assert_eq!(query(&merge(&[latest, set.clone()]), "a"), "2");
    assert_eq!(query(&apply(Some(&set), r#"{"remove":"a"}"#, 2, 2), ""), "{}");
}

#[test]
fn odd_operations_and_states_are_rejected() {
    for op in
        ["", "{}", r#"{"set":1}"#, r#"{"remove":[1]}"#, r#"{"set":{},"remove":"a"}"#, r#"{"clear":false}"#]
    {
        assert!(parse(op.as_bytes()).is_err(), "{op}");
    }
    for state in [&b""[..], b"MLM2\0", b"MLM1\0\0\0\0", b"MLM2\0\0\0\x01\x01a\0", b"MLM2\0\0\0\0\0"] {
        assert!(LwwMap::validate(&key("profile"), state).is_err(), "{state:?}");
    }
    assert_eq!(LwwMap::validate(&key("profile"), b"MLM2\0\0\0\0"), Ok(()));
}

#[test]
fn laws_hold_for_generated_states() {
    let states: Vec<_> = (0..12u8).map(|seed| LwwMap::generate(&[seed]).unwrap()).collect();
    let states: Vec<_> = states.iter().map(Vec::as_slice).collect();
    let operations: [&[u8]; 3] =
        [br#"{"set":{"name":"Bob"}}"#, br#"{"remove":"name"}"#, br#"{"clear":true}"#];
    assert_eq!(laws::replicated_type::<LwwMap>(&states, &operations), Ok(()));
}
