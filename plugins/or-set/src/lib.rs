//! A set of texts in which an addition survives a concurrent removal: the shopping cart that forgets nothing.
//!
//! *Operations* are JSON: `{"add":"milk"}`, `{"remove":"milk"}`, or with several: `{"add":["milk","tea"]}`; `{"clear":true}` removes
//! all. A removal takes away what its client had seen, or, where the client sent no context, what its replica has; so an
//! addition elsewhere at the same time stays. A set over 1 MiB takes no additions; removals always pass. *Queries*: the empty path gives the
//! elements in order (`["milk","tea"]`), `count` their number, `has/milk` whether one is there.
//!
//! *State*: `MOS2`, the history of operations (`merganser-causal`), then each element with the dots of the additions that
//! hold it there. No tombstones: a dot that the history contains and the element lacks was removed.

use std::collections::{BTreeMap, BTreeSet};

use merganser_causal::{History, Outcome, Reader, Writer};
use merganser_plugin_sdk::testing::{Choices, operation};
use merganser_plugin_sdk::{KeyInfo, Operation, Rejection, ReplicatedType, export_replicated_type};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

const MAGIC: &[u8; 4] = b"MOS2";
const ELEMENT_BYTES_MAX: usize = 1 << 10;
const STATE_BYTES_MAX: usize = 1 << 20;

/// The plugin.
pub struct OrSet;

type Dots = BTreeSet<(u64, u64)>;

#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    history: History<()>,
    /// Every dot here is in the history.
    elements: BTreeMap<String, Dots>,
}

impl State {
    fn decode(bytes: &[u8]) -> Result<State, Rejection> {
        let mut reader = Reader::new(bytes, MAGIC)?;
        let mut state = State { history: History::read(&mut reader)?, elements: BTreeMap::new() };
        for _ in 0..reader.count()? {
            let element = reader.text()?;
            let mut dots = Dots::new();
            for _ in 0..reader.count()? {
                let dot = (reader.number64()?, reader.number64()?);
                if !state.history.contains(dot) || dots.last().is_some_and(|&last| dot <= last) {
                    return Err(Rejection::malformed("dots are unknown or not in order"));
                }
                dots.insert(dot);
            }
            let in_order = state.elements.last_key_value().is_none_or(|(last, _)| last.as_str() < element);
            if dots.is_empty() || !in_order {
                return Err(Rejection::malformed("elements are empty or not in order"));
            }
            state.elements.insert(element.to_owned(), dots);
        }
        reader.finish()?;
        Ok(state)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        self.history.write(&mut writer);
        writer.number(self.elements.len() as u128);
        for (element, dots) in &self.elements {
            writer.bytes(element.as_bytes());
            writer.number(dots.len() as u128);
            for &(actor, counter) in dots {
                writer.number(actor.into());
                writer.number(counter.into());
            }
        }
        writer.finish()
    }

    /// A dot stays if both sides have it, or if one has it and the other has never heard of it.
    fn join(&mut self, other: State) {
        for (element, dots) in &mut self.elements {
            let theirs = other.elements.get(element);
            dots.retain(|dot| {
                theirs.is_some_and(|theirs| theirs.contains(dot)) || !other.history.contains(*dot)
            });
        }
        for (element, dots) in other.elements {
            let ours = self.elements.entry(element).or_default();
            ours.extend(dots.into_iter().filter(|&dot| !self.history.contains(dot)));
        }
        self.elements.retain(|_, dots| !dots.is_empty());
        self.history.join(&other.history);
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), Rejection> {
        let change = parse(&operation.body)?;
        if self.history.record(operation, ())? == Outcome::Known {
            return Ok(());
        }
        match change {
            Change::Add(elements) => {
                let before = self.content_bytes();
                for element in elements {
                    // The new dot replaces the ones that were seen: one is enough to hold the element.
                    let dots = self.elements.entry(element).or_default();
                    dots.retain(|&dot| !operation.saw(dot));
                    dots.insert(operation.dot.order());
                }
                let after = self.content_bytes();
                if after > STATE_BYTES_MAX && after > before {
                    return Err(Rejection::too_large("the set would be larger than 1 MiB: remove elements"));
                }
            }
            Change::Remove(elements) => {
                for element in elements {
                    if let Some(dots) = self.elements.get_mut(&element) {
                        dots.retain(|&dot| !operation.saw(dot));
                    }
                }
            }
            Change::Clear => {
                self.elements.values_mut().for_each(|dots| dots.retain(|&dot| !operation.saw(dot)));
            }
        }
        self.elements.retain(|_, dots| !dots.is_empty());
        Ok(())
    }

    /// What its elements take, as far as it is theirs: a removal makes it smaller.
    fn content_bytes(&self) -> usize {
        self.elements.iter().map(|(element, dots)| element.len() + 3 + 16 * dots.len()).sum()
    }
}

/// An object with one field.
struct Only {
    verb: String,
    operand: Value,
}

impl<'de> Deserialize<'de> for Only {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Only, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Only;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with one field")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Only, A::Error> {
                let first = fields.next_entry()?;
                let (Some((verb, operand)), None) = (first, fields.next_key::<String>()?) else {
                    return Err(A::Error::custom("not one field"));
                };
                Ok(Only { verb, operand })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

enum Change {
    Add(Vec<String>),
    Remove(Vec<String>),
    Clear,
}

fn parse(op: &[u8]) -> Result<Change, Rejection> {
    let usage = || {
        Rejection::malformed(
            r#"an operation is {"add":"x"} or {"remove":"x"}, or with a list of texts, or {"clear":true}"#,
        )
    };
    // By hand and not as a map: a map would drop all but the last of doubled verbs.
    let Ok(Only { verb, operand }) = serde_json::from_slice(op) else { return Err(usage()) };
    if verb == "clear" {
        return if operand == Value::Bool(true) { Ok(Change::Clear) } else { Err(usage()) };
    }
    let operands = match operand {
        Value::Array(operands) => operands,
        operand => vec![operand],
    };
    let mut elements = Vec::new();
    for operand in operands {
        let Value::String(element) = operand else { return Err(usage()) };
        if element.len() > ELEMENT_BYTES_MAX {
            return Err(Rejection::too_large(format!("an element has at most {ELEMENT_BYTES_MAX} bytes")));
        }
        elements.push(element);
    }
    match verb.as_str() {
        "add" => Ok(Change::Add(elements)),
        "remove" => Ok(Change::Remove(elements)),
        _ => Err(usage()),
    }
}

impl ReplicatedType for OrSet {
    fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
        let mut joined = State::default();
        for state in states {
            joined.join(State::decode(state)?);
        }
        Ok(joined.encode())
    }

    fn apply(_: &KeyInfo, state: Option<&[u8]>, operation: &Operation) -> Result<Vec<u8>, Rejection> {
        let mut state = state.map_or_else(|| Ok(State::default()), State::decode)?;
        state.apply(operation)?;
        Ok(state.encode())
    }

    fn retire(_: &KeyInfo, state: &[u8], actors: &[u64]) -> Result<Vec<u8>, Rejection> {
        let mut state = State::decode(state)?;
        state.history.retire(actors);
        Ok(state.encode())
    }

    fn query(_: &KeyInfo, state: &[u8], path: &[u8]) -> Result<Vec<u8>, Rejection> {
        let elements = State::decode(state)?.elements;
        let path = std::str::from_utf8(path).map_err(|_| Rejection::malformed("path is not UTF-8"))?;
        match (path, path.strip_prefix("has/")) {
            ("", _) => Ok(Value::from_iter(elements.into_keys()).to_string().into()),
            ("count", _) => Ok(elements.len().to_string().into()),
            (_, Some(element)) => Ok(elements.contains_key(element).to_string().into()),
            _ => Err(Rejection::malformed("the paths of a set are the empty one, count, and has/ELEMENT")),
        }
    }

    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let mut choices = Choices::new(seed);
        let mut state = State::default();
        for counter in 1..=choices.below(40) {
            let actor = choices.below(3);
            let op = Self::generate_operation(&choices.next().to_le_bytes())?;
            state.apply(&operation(op, actor, counter)).ok()?;
        }
        Some(state.encode())
    }

    fn generate_operation(seed: &[u8]) -> Option<Vec<u8>> {
        let mut choices = Choices::new(seed);
        let verb = choices.pick(&["add", "add", "remove"]);
        let element = choices.pick(&["milk", "tea", "eggs", "bread", ""]);
        Some(format!(r#"{{"{verb}":"{element}"}}"#).into())
    }
}

export_replicated_type!(OrSet);

#[cfg(test)]
mod tests {
    use merganser_plugin_sdk::{laws, testing::key};

    use super::*;

    fn apply(state: Option<&[u8]>, op: &str, actor: u64, counter: u64) -> Vec<u8> {
        OrSet::apply(&key("cart"), state, &operation(op, actor, counter)).unwrap()
    }

    fn elements(state: &[u8]) -> String {
        String::from_utf8(OrSet::query(&key("cart"), state, b"").unwrap()).unwrap()
    }

    #[test]
    fn a_cart_changed_on_both_sides_of_a_partition_keeps_both_sides() {
        let base = apply(None, r#"{"add":["milk","eggs"]}"#, 1, 1);
        let left = apply(Some(&base), r#"{"remove":"eggs"}"#, 1, 2);
        let left = apply(Some(&left), r#"{"add":"tea"}"#, 1, 3);
        let right = apply(Some(&base), r#"{"add":"bread"}"#, 2, 1);
        let merged = OrSet::merge(&key("cart"), &[left.clone(), right.clone()]).unwrap();
        assert_eq!(elements(&merged), r#"["bread","milk","tea"]"#);
        assert_eq!(merged, OrSet::merge(&key("cart"), &[right, left]).unwrap());
    }

    #[test]
    fn an_addition_survives_a_concurrent_removal() {
        let base = apply(None, r#"{"add":"milk"}"#, 1, 1);
        let removed = apply(Some(&base), r#"{"remove":"milk"}"#, 1, 2);
        let added = apply(Some(&base), r#"{"add":"milk"}"#, 2, 1);
        let merged = OrSet::merge(&key("cart"), &[removed.clone(), added]).unwrap();
        assert_eq!(elements(&merged), r#"["milk"]"#);
        assert_eq!(elements(&OrSet::merge(&key("cart"), &[removed, base]).unwrap()), "[]");
        assert_eq!(OrSet::query(&key("cart"), &merged, b"has/milk").unwrap(), b"true");
        assert_eq!(OrSet::query(&key("cart"), &merged, b"count").unwrap(), b"1");
    }

    #[test]
    fn a_removal_takes_what_its_client_saw_and_a_clear_takes_all_of_it() {
        use merganser_plugin_sdk::Span;
        let milk = apply(None, r#"{"add":"milk"}"#, 1, 1);
        let both = apply(Some(&milk), r#"{"add":"milk"}"#, 2, 1);
        let both = OrSet::merge(&key("cart"), &[both, apply(Some(&milk), r#"{"add":"tea"}"#, 3, 1)]).unwrap();
        // The client had seen the first addition only.
        let seen = Some(vec![Span { actor: 1, after: 0, upto: 1 }]);
        for body in [r#"{"remove":"milk"}"#, r#"{"clear":true}"#] {
            let stale = Operation { seen: seen.clone(), ..operation(body, 4, 1) };
            let stale = OrSet::apply(&key("cart"), Some(&both), &stale).unwrap();
            assert_eq!(elements(&stale), r#"["milk","tea"]"#, "{body}");
        }
        assert_eq!(elements(&apply(Some(&both), r#"{"remove":"milk"}"#, 4, 1)), r#"["tea"]"#);
        assert_eq!(elements(&apply(Some(&both), r#"{"clear":true}"#, 4, 1)), "[]");
    }

    /// F11: two sides below the limit join to a set above it.
    #[test]
    fn a_set_over_the_limit_takes_removals_and_no_additions() {
        let side = |actor: u64| {
            let mut state = None;
            for n in 1..=12u64 {
                let texts: Vec<String> = (0..58).map(|text| format!("{actor} {n} {text:01010}")).collect();
                let op = Value::from_iter([("add".to_owned(), Value::from(texts))]).to_string();
                state = Some(apply(state.as_deref(), &op, actor, n));
            }
            state.unwrap()
        };
        let over = OrSet::merge(&key("cart"), &[side(1), side(2)]).unwrap();
        assert!(over.len() > STATE_BYTES_MAX);
        let add = OrSet::apply(&key("cart"), Some(&over), &operation(r#"{"add":"x"}"#, 1, 99));
        assert_eq!(add.unwrap_err().kind, merganser_plugin_sdk::RejectionKind::TooLarge);
        let again = format!(r#"{{"add":"1 1 {:01010}"}}"#, 0);
        assert_eq!(
            OrSet::query(&key("cart"), &apply(Some(&over), &again, 1, 98), b"count").unwrap(),
            b"1392"
        );
        let removed = apply(Some(&over), &again.replace("add", "remove"), 1, 99);
        assert_eq!(OrSet::query(&key("cart"), &removed, b"count").unwrap(), b"1391");
        assert!(elements(&apply(Some(&removed), r#"{"remove":"nothing"}"#, 1, 100)).len() > 10);
        assert_eq!(elements(&apply(Some(&removed), r#"{"clear":true}"#, 1, 101)), "[]");
    }

    /// Fault 1.7: a removed element does not come back by a retry elsewhere.
    #[test]
    fn a_retry_of_an_addition_after_its_removal_changes_nothing() {
        let add = Operation { op_id: vec![7; 16], ..operation(r#"{"add":"milk"}"#, 1, 1) };
        let mut state = OrSet::apply(&key("cart"), None, &add).unwrap();
        state = apply(Some(&state), r#"{"remove":"milk"}"#, 1, 2);
        for n in 3..80 {
            state = apply(Some(&state), &format!(r#"{{"add":"{n}"}}"#), 1, n);
        }
        let retry = Operation { op_id: vec![7; 16], ..operation(r#"{"add":"milk"}"#, 2, 1) };
        assert_eq!(OrSet::apply(&key("cart"), Some(&state), &retry).unwrap(), state);
    }

    #[test]
    fn odd_operations_and_states_are_rejected() {
        for op in [
            "",
            "{}",
            "[]",
            r#"{"add":1}"#,
            r#"{"add":"a","remove":"a"}"#,
            r#"{"take":"a"}"#,
            r#"{"add":"a","add":"b"}"#,
        ] {
            assert!(parse(op.as_bytes()).is_err(), "{op}");
        }
        for state in [
            &b""[..],
            b"MOS2",
            b"MOS2\0\0\0",
            b"MOS1\0\0\0\0",
            b"MOS2\0\0\0\x01\x01a\x01\x01\x01",
            b"MOS2\0\0\0\0\0",
        ] {
            assert!(OrSet::validate(&key("cart"), state).is_err(), "{state:?}");
        }
        assert_eq!(OrSet::validate(&key("cart"), b"MOS2\0\0\0\0"), Ok(()));
    }

    #[test]
    fn laws_hold_for_generated_states() {
        let states: Vec<_> = (0..12u8).map(|seed| OrSet::generate(&[seed]).unwrap()).collect();
        let states: Vec<_> = states.iter().map(Vec::as_slice).collect();
        let operations: [&[u8]; 2] = [br#"{"add":"milk"}"#, br#"{"remove":"milk"}"#];
        assert_eq!(laws::replicated_type::<OrSet>(&states, &operations), Ok(()));
    }
}
