//! A map of JSON values whose fields are settled one by one: the latest write of a field wins.
//!
//! *Operations* are JSON: `{"set":{"name":"Ada","age":36}}`, `{"remove":"age"}`, `{"remove":["name","age"]}`, `{"clear":true}`.
//! *Queries*: the empty path gives the map as JSON, any other path the value of the field of that name (`null` if there
//! is none). Numbers are kept as they are written; none is rounded.
//!
//! A write replaces what its client had seen of the field, or, where the client sent no context, what its replica has.
//! Of writes that are truly concurrent the one with the latest stamp is shown, and a removal takes away only what it has
//! seen, so a write elsewhere at the same time stays.
//!
//! *State*: `MLM2`, the history of operations (`merganser-causal`), then each field with the writes that nobody has replaced: dot,
//! stamp, JSON text. Removed names cost nothing: a dot that the history contains and the field lacks was replaced or removed.
//! A map over 1 MiB takes only what makes it smaller.

use std::collections::BTreeMap;

use merganser_causal::{History, Outcome, Reader, Writer};
use merganser_plugin_sdk::testing::{Choices, operation};
use merganser_plugin_sdk::{KeyInfo, Operation, Rejection, ReplicatedType, export_replicated_type};

mod json;

use json::{Json, canonical, write_text};

const MAGIC: &[u8; 4] = b"MLM2";
const NAME_BYTES_MAX: usize = 256;
const STATE_BYTES_MAX: usize = 1 << 20;
/// The year 10889; a stamp beyond is none that a clock gave.
const MILLIS_MAX: u128 = 1 << 48;

/// The plugin.
pub struct LwwMap;

/// Compares as it wins, its dot behind it. The text is part of the order only so that any two states have a join.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Write {
    millis: u64,
    logical: u32,
    /// JSON text.
    text: String,
}

/// Writes of a field by their dots.
type Field = BTreeMap<(u64, u64), Write>;

#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    history: History<()>,
    /// Every dot here is in the history.
    fields: BTreeMap<String, Field>,
}

impl State {
    /// `checks`: whether each text is JSON in its one form. What was accepted once need not be asked again.
    fn decode(bytes: &[u8], checks: bool) -> Result<State, Rejection> {
        let mut reader = Reader::new(bytes, MAGIC)?;
        let mut state = State { history: History::read(&mut reader)?, fields: BTreeMap::new() };
        for _ in 0..reader.count()? {
            let name = reader.text()?;
            let mut field = Field::new();
            for _ in 0..reader.count()? {
                let dot = (reader.number64()?, reader.number64()?);
                if !state.history.contains(dot)
                    || field.last_key_value().is_some_and(|(&last, _)| dot <= last)
                {
                    return Err(Rejection::malformed("dots are unknown or not in order"));
                }
                let millis = reader.number(MILLIS_MAX)? as u64;
                let logical = reader.number(u32::MAX.into())? as u32;
                let text = reader.text()?;
                if checks && canonical(text)? != text {
                    return Err(Rejection::malformed("a field is not JSON in its one form"));
                }
                field.insert(dot, Write { millis, logical, text: text.to_owned() });
            }
            let in_order = state.fields.last_key_value().is_none_or(|(last, _)| last.as_str() < name);
            if field.is_empty() || !in_order {
                return Err(Rejection::malformed("fields are empty or not in order"));
            }
            state.fields.insert(name.to_owned(), field);
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
            writer.number(field.len() as u128);
            for (&(actor, counter), write) in field {
                writer.number(actor.into());
                writer.number(counter.into());
                writer.number(write.millis.into());
                writer.number(write.logical.into());
                writer.bytes(write.text.as_bytes());
            }
        }
        writer.finish()
    }

    /// A write stays if both sides have it, or if one has it and the other has never heard of it.
    fn join(&mut self, other: State) {
        for (name, field) in &mut self.fields {
            let theirs = other.fields.get(name);
            let is_there = |dot: &(u64, u64)| theirs.is_some_and(|theirs| theirs.contains_key(dot));
            field.retain(|dot, _| is_there(dot) || !other.history.contains(*dot));
        }
        for (name, theirs) in other.fields {
            let ours = self.fields.entry(name).or_default();
            for (dot, write) in theirs {
                match ours.get_mut(&dot) {
                    Some(known) => *known = write.max(known.clone()),
                    None if self.history.contains(dot) => {}
                    None => _ = ours.insert(dot, write),
                }
            }
        }
        self.fields.retain(|_, field| !field.is_empty());
        self.history.join(&other.history);
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), Rejection> {
        let change = parse(&operation.body)?;
        if self.history.record(operation, ())? == Outcome::Known {
            return Ok(());
        }
        let before = self.content_bytes();
        let is_set = matches!(change, Change::Set(_));
        match change {
            Change::Set(fields) => {
                let millis = operation.at.millis.min(MILLIS_MAX as u64);
                for (name, text) in fields {
                    let field = self.fields.entry(name).or_default();
                    field.retain(|&dot, _| !operation.saw(dot));
                    let logical = operation.at.logical;
                    field.insert(operation.dot.order(), Write { millis, logical, text });
                }
            }
            Change::Remove(names) => {
                for name in names {
                    if let Some(field) = self.fields.get_mut(&name) {
                        field.retain(|&dot, _| !operation.saw(dot));
                    }
                }
            }
            Change::Clear => {
                self.fields.values_mut().for_each(|field| field.retain(|&dot, _| !operation.saw(dot)));
            }
        }
        self.fields.retain(|_, field| !field.is_empty());
        let after = self.content_bytes();
        if is_set && after > STATE_BYTES_MAX && after > before {
            return Err(Rejection::too_large(
                "the map would be larger than 1 MiB: remove fields, or set smaller values",
            ));
        }
        Ok(())
    }

    /// What its fields take, as far as it is theirs: a smaller value or a removal makes it smaller.
    fn content_bytes(&self) -> usize {
        let of_field = |field: &Field| field.values().map(|write| write.text.len() + 32).sum::<usize>();
        self.fields.iter().map(|(name, field)| name.len() + of_field(field)).sum()
    }

    /// Fields with the text that is shown of each.
    fn shown(&self) -> impl Iterator<Item = (&String, &String)> {
        self.fields.iter().filter_map(|(name, field)| Some((name, text(field)?)))
    }
}

/// Of several writes the latest.
fn text(field: &Field) -> Option<&String> {
    let latest = field.iter().max_by_key(|(dot, write)| (write.millis, write.logical, **dot));
    latest.map(|(_, write)| &write.text)
}

enum Change {
    Set(BTreeMap<String, String>),
    Remove(Vec<String>),
    Clear,
}

fn parse(op: &[u8]) -> Result<Change, Rejection> {
    let usage = r#"an operation is {"set":{"field":value}}, {"remove":"field"} or {"clear":true}"#;
    let explained = |rejection: Rejection| Rejection::malformed(format!("{usage}: {}", rejection.message));
    let text = std::str::from_utf8(op).map_err(|_| Rejection::malformed("an operation is UTF-8"))?;
    let mut json = Json::new(text);
    let change = verb(&mut json).map_err(explained)?;
    let names: Vec<&String> = match &change {
        Change::Set(fields) => fields.keys().collect(),
        Change::Remove(names) => names.iter().collect(),
        Change::Clear => Vec::new(),
    };
    if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
        return Err(Rejection::too_large(format!("the name of a field has at most {NAME_BYTES_MAX} bytes")));
    }
    Ok(change)
}

/// An object of one field.
fn verb(json: &mut Json<'_>) -> Result<Change, Rejection> {
    if !json.takes(b'{') {
        return Err(json.unexpected());
    }
    let verb = json.string()?;
    if !json.takes(b':') {
        return Err(json.unexpected());
    }
    let change = match verb.as_str() {
        "set" => Change::Set(json.fields(0)?),
        "remove" if json.takes(b'[') => {
            let mut names = Vec::new();
            while !json.takes(b']') {
                if !names.is_empty() {
                    json.comma()?;
                }
                names.push(json.string()?);
            }
            Change::Remove(names)
        }
        "remove" => Change::Remove(vec![json.string()?]),
        "clear" => {
            let mut operand = String::new();
            json.value(&mut operand, 0)?;
            match operand == "true" {
                true => Change::Clear,
                false => return Err(Rejection::malformed("clear takes true")),
            }
        }
        _ => return Err(Rejection::malformed("unknown verb")),
    };
    if json.peek() == Some(b',') {
        return Err(Rejection::malformed("one verb at a time"));
    }
    if !json.takes(b'}') {
        return Err(json.unexpected());
    }
    json.end()?;
    Ok(change)
}

impl ReplicatedType for LwwMap {
    fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
        let mut joined = State::default();
        for state in states {
            joined.join(State::decode(state, false)?);
        }
        Ok(joined.encode())
    }

    fn validate(_: &KeyInfo, state: &[u8]) -> Result<(), Rejection> {
        State::decode(state, true).map(|_| ())
    }

    fn apply(_: &KeyInfo, state: Option<&[u8]>, operation: &Operation) -> Result<Vec<u8>, Rejection> {
        let mut state = state.map_or_else(|| Ok(State::default()), |state| State::decode(state, false))?;
        state.apply(operation)?;
        Ok(state.encode())
    }

    fn retire(_: &KeyInfo, state: &[u8], actors: &[u64]) -> Result<Vec<u8>, Rejection> {
        let mut state = State::decode(state, false)?;
        state.history.retire(actors);
        Ok(state.encode())
    }

    fn query(_: &KeyInfo, state: &[u8], path: &[u8]) -> Result<Vec<u8>, Rejection> {
        let state = State::decode(state, false)?;
        let path = std::str::from_utf8(path).map_err(|_| Rejection::malformed("path is not UTF-8"))?;
        if !path.is_empty() {
            let text = state.fields.get(path).and_then(text);
            return Ok(text.map_or("null", String::as_str).into());
        }
        let mut whole = String::from("{");
        for (name, text) in state.shown() {
            whole.push_str(if whole.len() > 1 { "," } else { "" });
            write_text(&mut whole, name);
            whole.push(':');
            whole.push_str(text);
        }
        whole.push('}');
        Ok(whole.into())
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
        Some(match choices.below(8) {
            0 => br#"{"clear":true}"#.into(),
            1 | 2 => format!(r#"{{"remove":"{name}"}}"#).into(),
            3 | 4 => format!(r#"{{"set":{{"{name}":{number}}}}}"#).into(),
            _ => format!(r#"{{"set":{{"{name}":{value},"other":{number}}}}}"#).into(),
        })
    }
}

export_replicated_type!(LwwMap);

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
