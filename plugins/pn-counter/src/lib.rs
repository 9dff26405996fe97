//! A counter: concurrent increments and decrements add up, none is lost and none counts twice.
//!
//! *Operations* are text: `+5`, `-3`, `7`, and `reset`, which takes off what its replica has counted; what was added elsewhere
//! meanwhile stays, and two resets of the same take it off once. *Queries*: the empty path gives the value (`42`), `detail` gives
//! `{"value":42,"plus":45,"minus":3}`. *State*: `MPN2`, the history of operations per actor with their sums
//! (`merganser-causal`, which recognises retries by their id), then what resets have taken off.

use merganser_causal::{History, Outcome, Reader, Tally, Writer};
use merganser_plugin_sdk::testing::{Choices, operation};
use merganser_plugin_sdk::{KeyInfo, Operation, Rejection, ReplicatedType, export_replicated_type};

const MAGIC: &[u8; 4] = b"MPN2";
/// Larger sums are no result of counting: sums of all actors still fit.
const SUM_MAX: u128 = 1 << 100;

/// The plugin.
pub struct PnCounter;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Sums {
    plus: u128,
    minus: u128,
}

impl Tally for Sums {
    const ONE_BY_ONE_MAX: usize = 128;

    fn add(&mut self, other: &Sums) {
        self.plus = self.plus.saturating_add(other.plus).min(SUM_MAX);
        self.minus = self.minus.saturating_add(other.minus).min(SUM_MAX);
    }

    fn write(&self, writer: &mut Writer) {
        writer.number(self.plus);
        writer.number(self.minus);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Sums, Rejection> {
        Ok(Sums { plus: reader.number(SUM_MAX)?, minus: reader.number(SUM_MAX)? })
    }
}

type State = History<Sums>;

fn decode(bytes: &[u8]) -> Result<State, Rejection> {
    let mut reader = Reader::new(bytes, MAGIC)?;
    let state = State::read(&mut reader)?;
    reader.finish()?;
    Ok(state)
}

fn encode(state: &State) -> Vec<u8> {
    let mut writer = Writer::new(MAGIC);
    state.write(&mut writer);
    writer.finish()
}

fn change(state: &mut State, operation: &Operation) -> Result<(), Rejection> {
    if operation.body.trim_ascii() != b"reset" {
        return state.record(operation, parse(&operation.body)?).map(|_| ());
    }
    if state.record(operation, Sums::default())? == Outcome::New {
        state.clear();
    }
    Ok(())
}

/// What counts: all operations, without what was taken off.
fn total(state: &State) -> Sums {
    let (total, off) = state.totals();
    Sums { plus: total.plus.saturating_sub(off.plus), minus: total.minus.saturating_sub(off.minus) }
}

fn parse(op: &[u8]) -> Result<Sums, Rejection> {
    let text = std::str::from_utf8(op).ok().map(str::trim);
    let Some(amount) = text.and_then(|text| text.parse::<i64>().ok()) else {
        return Err(Rejection::malformed(
            "an operation is reset, or a whole number of 64 bits, such as +5 or -3",
        ));
    };
    let size = u128::from(amount.unsigned_abs());
    Ok(if amount >= 0 { Sums { plus: size, minus: 0 } } else { Sums { plus: 0, minus: size } })
}

impl ReplicatedType for PnCounter {
    fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
        let mut joined = State::default();
        for state in states {
            joined.join(&decode(state)?);
        }
        Ok(encode(&joined))
    }

    fn apply(_: &KeyInfo, state: Option<&[u8]>, operation: &Operation) -> Result<Vec<u8>, Rejection> {
        let mut state = state.map_or_else(|| Ok(State::default()), decode)?;
        change(&mut state, operation)?;
        Ok(encode(&state))
    }

    fn retire(_: &KeyInfo, state: &[u8], actors: &[u64]) -> Result<Vec<u8>, Rejection> {
        let mut state = decode(state)?;
        state.retire(actors);
        Ok(encode(&state))
    }

    fn query(_: &KeyInfo, state: &[u8], path: &[u8]) -> Result<Vec<u8>, Rejection> {
        let Sums { plus, minus } = total(&decode(state)?);
        let value = plus as i128 - minus as i128;
        match path {
            b"" => Ok(value.to_string().into()),
            b"detail" => Ok(format!(r#"{{"value":{value},"plus":{plus},"minus":{minus}}}"#).into()),
            _ => Err(Rejection::malformed("the paths of a counter are the empty one and detail")),
        }
    }

    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let mut choices = Choices::new(seed);
        let mut state = State::default();
        for counter in 1..=choices.below(100) {
            let body = match choices.below(12) {
                0 => "reset".to_owned(),
                _ => (choices.next() as i16).to_string(),
            };
            let mut operation = operation(body, choices.below(3), counter);
            if choices.below(2) == 1 {
                operation.op_id = vec![choices.below(8) as u8];
            }
            change(&mut state, &operation).ok()?;
        }
        Some(encode(&state))
    }

    fn generate_operation(seed: &[u8]) -> Option<Vec<u8>> {
        let mut choices = Choices::new(seed);
        Some(match choices.below(8) {
            0 => b"reset".into(),
            _ => format!("{:+}", choices.next() as i16).into(),
        })
    }
}

export_replicated_type!(PnCounter);

#[cfg(test)]
mod tests {
    use merganser_plugin_sdk::{laws, testing::key};

    use super::*;

    fn apply(state: Option<&[u8]>, op: &str, actor: u64, counter: u64, id: &str) -> Vec<u8> {
        let operation = Operation { op_id: id.into(), ..operation(op, actor, counter) };
        PnCounter::apply(&key("k"), state, &operation).unwrap()
    }

    fn value(state: &[u8]) -> String {
        String::from_utf8(PnCounter::query(&key("k"), state, b"").unwrap()).unwrap()
    }

    #[test]
    fn concurrent_operations_add_up_and_retries_do_not() {
        let base = apply(None, "+10", 1, 1, "a");
        let left = apply(Some(&base), "+5", 1, 2, "b");
        let right = apply(Some(&base), "-3", 2, 1, "c");
        let retried = apply(Some(&right), "+5", 2, 2, "b");
        let merged = PnCounter::merge(&key("k"), &[left.clone(), retried]).unwrap();
        assert_eq!(value(&merged), "12");
        assert_eq!(apply(Some(&left), "+5", 1, 3, "b"), left);
        let detail = PnCounter::query(&key("k"), &merged, b"detail").unwrap();
        assert_eq!(detail, br#"{"value":12,"plus":15,"minus":3}"#);
    }

    #[test]
    fn anything_but_a_number_is_rejected() {
        for op in ["", "five", "1.5", "9223372036854775808", "+-3"] {
            assert!(parse(op.as_bytes()).is_err(), "{op}");
        }
        for state in [&b""[..], b"MPN2", b"MPN1\0\0\0", b"MPN2\x01", b"MPN2\0\0", b"MPN2\0\0\0\0", b"{}"] {
            assert!(PnCounter::validate(&key("k"), state).is_err(), "{state:?}");
        }
        assert_eq!(PnCounter::validate(&key("k"), b"MPN2\0\0\0"), Ok(()));
    }

    #[test]
    fn laws_hold_for_generated_states() {
        let states: Vec<_> = (0..8u8).map(|seed| PnCounter::generate(&[seed]).unwrap()).collect();
        let states: Vec<_> = states.iter().map(Vec::as_slice).collect();
        assert_eq!(laws::replicated_type::<PnCounter>(&states, &[b"+1", b"-2"]), Ok(()));
    }
}
