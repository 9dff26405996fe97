//! A map of JSON values whose fields are settled one by one: the latest write of a field wins.
//!
//! *Operations* are JSON: `{"set":{"name":"Ada","age":36}}`, `{"remove":"age"}`, `{"remove":["name","age"]}`. *Queries*: the
//! empty path gives the map as JSON, any other path the value of the field of that name (`null` if there is none).
//!
//! "Latest" is causal: each write gets a logical time above all that its replica has seen, so a write always wins over
//! what its author saw; truly concurrent ones are ordered by that time and then by dot. There is no wall clock in it.
//! *State*: `MLM1`, the history of operations (`merganser-causal`), then each field with its logical time, dot, and JSON
//! text; removed fields stay, without text, so that an older write cannot bring them back.

use std::collections::BTreeMap;

use merganser_causal::{History, Outcome, Reader, Writer};
use merganser_plugin_sdk::testing::{Choices, operation};
use merganser_plugin_sdk::{KeyInfo, Operation, Rejection, ReplicatedType, export_replicated_type};
use serde_json::{Map, Value};

const MAGIC: &[u8; 4] = b"MLM1";
const NAME_BYTES_MAX: usize = 256;
const STATE_BYTES_MAX: usize = 1 << 20;

/// The plugin.
pub struct LwwMap;

/// Compares as it wins. The text is part of the order only so that any two states have a join.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Field {
    time: u64,
    dot: (u64, u64),
    /// JSON text; none for a removed field.
    text: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    history: History<()>,
    fields: BTreeMap<String, Field>,
}

impl State {
    fn decode(bytes: &[u8]) -> Result<State, Rejection> {
        let mut reader = Reader::new(bytes, MAGIC)?;
        let mut state = State { history: History::read(&mut reader)?, fields: BTreeMap::new() };
        for _ in 0..reader.count()? {
            let name = reader.text()?;
            let (time, dot) = (reader.number64()?, (reader.number64()?, reader.number64()?));
            let text = match reader.text()? {
                "" => None,
                text => Some(canonical(text)?),
            };
            if state.fields.last_key_value().is_some_and(|(last, _)| last.as_str() >= name) {
                return Err(Rejection::malformed("fields are not in order"));
            }
            state.fields.insert(name.to_owned(), Field { time, dot, text });
        }
        reader.finish()?;
        Ok(state)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        self.history.write(&mut writer);
        writer.number(self.fields.len() as u128);
        for (name, field) in &self.fields {
            writer.bytes(name.as_bytes());
            writer.number(field.time.into());
            writer.number(field.dot.0.into());
            writer.number(field.dot.1.into());
            writer.bytes(field.text.as_deref().unwrap_or_default().as_bytes());
        }
        writer.finish()
    }

    fn join(&mut self, other: State) {
        for (name, theirs) in other.fields {
            self.write(name, theirs);
        }
        self.history.join(&other.history);
    }

    fn write(&mut self, name: String, field: Field) {
        let ours = self.fields.entry(name).or_insert_with(|| field.clone());
        if *ours < field {
            *ours = field;
        }
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), Rejection> {
        let writes = parse(&operation.body)?;
        if self.history.record(operation, ())? == Outcome::Known {
            return Ok(());
        }
        let latest = self.fields.values().map(|field| field.time).max().unwrap_or(0);
        for (name, text) in writes {
            let (time, dot) = (latest.saturating_add(1), operation.dot.order());
            self.write(name, Field { time, dot, text });
        }
        Ok(())
    }

    fn live(&self) -> impl Iterator<Item = (&String, &String)> {
        self.fields.iter().filter_map(|(name, field)| Some((name, field.text.as_ref()?)))
    }
}

/// Text that this plugin would have written itself: one form for each value.
fn canonical(text: &str) -> Result<String, Rejection> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.to_string() == text => Ok(text.to_owned()),
        _ => Err(Rejection::malformed("a field is not JSON in canonical form")),
    }
}

/// The fields an operation writes, removed ones without text.
fn parse(op: &[u8]) -> Result<Vec<(String, Option<String>)>, Rejection> {
    let usage = || Rejection::malformed(r#"an operation is {"set":{"field":value}} or {"remove":"field"}"#);
    let Ok(Value::Object(op)) = serde_json::from_slice(op) else { return Err(usage()) };
    let mut verbs = op.into_iter();
    let (Some((verb, operand)), None) = (verbs.next(), verbs.next()) else { return Err(usage()) };
    let writes: Vec<(String, Option<String>)> = match (verb.as_str(), operand) {
        ("set", Value::Object(fields)) => {
            fields.into_iter().map(|(name, value)| (name, Some(value.to_string()))).collect()
        }
        ("remove", Value::String(name)) => vec![(name, None)],
        ("remove", Value::Array(names)) => {
            let name = |name: Value| name.as_str().map(|name| (name.to_owned(), None));
            names.into_iter().map(name).collect::<Option<_>>().ok_or_else(usage)?
        }
        _ => return Err(usage()),
    };
    if writes.iter().any(|(name, _)| name.len() > NAME_BYTES_MAX) {
        return Err(Rejection::too_large(format!("the name of a field has at most {NAME_BYTES_MAX} bytes")));
    }
    Ok(writes)
}

impl ReplicatedType for LwwMap {
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
        let bytes = state.encode();
        match bytes.len() <= STATE_BYTES_MAX {
            true => Ok(bytes),
            false => Err(Rejection::too_large("the map would be larger than 1 MiB")),
        }
    }

    fn query(_: &KeyInfo, state: &[u8], path: &[u8]) -> Result<Vec<u8>, Rejection> {
        let state = State::decode(state)?;
        let path = std::str::from_utf8(path).map_err(|_| Rejection::malformed("path is not UTF-8"))?;
        if !path.is_empty() {
            let text = state.fields.get(path).and_then(|field| field.text.as_deref());
            return Ok(text.unwrap_or("null").into());
        }
        let mut whole = Map::new();
        for (name, text) in state.live() {
            let value =
                serde_json::from_str(text).map_err(|_| Rejection::malformed("a field is not JSON"))?;
            whole.insert(name.clone(), value);
        }
        Ok(Value::Object(whole).to_string().into())
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
        let name = *choices.pick(&["name", "age", "city", ""]);
        let number = choices.below(100);
        let value = *choices.pick(&["null", "true", r#""Ada""#, "[1,2.5]", r#"{"a":{"b":-0.0}}"#]);
        Some(match choices.below(3) {
            0 => format!(r#"{{"remove":"{name}"}}"#).into(),
            1 => format!(r#"{{"set":{{"{name}":{number}}}}}"#).into(),
            _ => format!(r#"{{"set":{{"{name}":{value},"other":{number}}}}}"#).into(),
        })
    }
}

export_replicated_type!(LwwMap);

#[cfg(test)]
mod tests {
    use merganser_plugin_sdk::{laws, testing::key};

    use super::*;

    fn apply(state: Option<&[u8]>, op: &str, actor: u64, counter: u64) -> Vec<u8> {
        LwwMap::apply(&key("profile"), state, &operation(op, actor, counter)).unwrap()
    }

    fn query(state: &[u8], path: &str) -> String {
        String::from_utf8(LwwMap::query(&key("profile"), state, path.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn fields_changed_on_both_sides_are_settled_one_by_one() {
        let base = apply(None, r#"{"set":{"name":"Ada","age":35}}"#, 1, 1);
        let left = apply(Some(&base), r#"{"set":{"age":36}}"#, 1, 2);
        let right = apply(Some(&base), r#"{"set":{"city":"London"}}"#, 2, 1);
        let merged = LwwMap::merge(&key("profile"), &[left, right]).unwrap();
        assert_eq!(query(&merged, ""), r#"{"age":36,"city":"London","name":"Ada"}"#);
        assert_eq!(query(&merged, "age"), "36");
        assert_eq!(query(&merged, "nothing"), "null");
    }

    #[test]
    fn a_removal_is_not_undone_by_what_it_has_seen() {
        let base = apply(None, r#"{"set":{"age":35}}"#, 9, 1);
        let removed = apply(Some(&base), r#"{"remove":"age"}"#, 1, 1);
        let merged = LwwMap::merge(&key("profile"), &[base, removed.clone()]).unwrap();
        assert_eq!(query(&merged, ""), "{}");
        let again = apply(Some(&removed), r#"{"set":{"age":40}}"#, 1, 2);
        assert_eq!(query(&LwwMap::merge(&key("profile"), &[removed, again]).unwrap(), "age"), "40");
    }

    #[test]
    fn odd_operations_and_states_are_rejected() {
        for op in ["", "{}", r#"{"set":1}"#, r#"{"remove":[1]}"#, r#"{"set":{},"remove":"a"}"#] {
            assert!(parse(op.as_bytes()).is_err(), "{op}");
        }
        for state in
            [&b""[..], b"MLM1\0", b"MLM1\0\x01\x01a\x01\x01\x01\x02 1", b"MLM1\0\x01\x01a\x01\x01\x01\x01x"]
        {
            assert!(LwwMap::validate(&key("profile"), state).is_err(), "{state:?}");
        }
        assert_eq!(LwwMap::validate(&key("profile"), b"MLM1\0\x01\x01a\x01\x01\x01\x011"), Ok(()));
    }

    #[test]
    fn laws_hold_for_generated_states() {
        let states: Vec<_> = (0..12u8).map(|seed| LwwMap::generate(&[seed]).unwrap()).collect();
        let states: Vec<_> = states.iter().map(Vec::as_slice).collect();
        let operations: [&[u8]; 2] = [br#"{"set":{"name":"Bob"}}"#, br#"{"remove":"name"}"#];
        assert_eq!(laws::replicated_type::<LwwMap>(&states, &operations), Ok(()));
    }
}
