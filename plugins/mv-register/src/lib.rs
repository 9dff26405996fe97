//! Keeps every distinct value in one answer, for applications that settle conflicts themselves but want one value to read.
//!
//! One value alone is kept as it is. Several become JSON, the values in order of their bytes:
//!
//! ```text
//! {"values":["milk","tea",{"base64":"/w=="}]}        text as text, anything else as base64
//! ```
//!
//! The answer is recognised when it meets other values: its parts are taken out and joined with them, so that
//! resolving in parts or at once gives the same bytes (law L4). A client's own value that happens to be exactly such an
//! answer is treated as one. A concurrent delete loses against any value (update wins).

use std::collections::BTreeSet;

use base64::prelude::{BASE64_STANDARD, Engine};
use merganser_plugin_sdk::{KeyInfo, Resolver, Sibling, Verdict, export_resolver, testing::Choices};
use serde_json::{Map, Value};

/// The plugin.
pub struct MvRegister;

type Values = BTreeSet<Vec<u8>>;

/// Requires: two values or more, none of which is an answer itself.
fn encode(values: &Values) -> Vec<u8> {
    let value = |value: &Vec<u8>| match std::str::from_utf8(value) {
        Ok(text) => Value::from(text),
        Err(_) => Value::from(Map::from_iter([("base64".into(), BASE64_STANDARD.encode(value).into())])),
    };
    let values: Vec<Value> = values.iter().map(value).collect();
    Value::from(Map::from_iter([("values".into(), values.into())])).to_string().into()
}

/// The values within an answer; none if it is not exactly what [`encode`] makes.
fn decode(bytes: &[u8]) -> Option<Values> {
    if !bytes.starts_with(br#"{"values":["#) {
        return None;
    }
    let whole: Value = serde_json::from_slice(bytes).ok()?;
    let value = |value: &Value| match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(fields) => BASE64_STANDARD.decode(fields.get("base64")?.as_str()?).ok(),
        _ => None,
    };
    let values: Values = whole.get("values")?.as_array()?.iter().map(value).collect::<Option<_>>()?;
    // An answer within an answer is none of ours: we take them apart before we put them together.
    let nested = values.iter().any(|value| decode(value).is_some());
    (values.len() >= 2 && !nested && encode(&values) == bytes).then_some(values)
}

impl Resolver for MvRegister {
    fn resolve(_: &KeyInfo, siblings: &[Sibling]) -> Verdict {
        let mut values = Values::new();
        for value in siblings.iter().filter_map(Sibling::value) {
            match decode(value) {
                Some(several) => values.extend(several),
                None => _ = values.insert(value.to_vec()),
            }
        }
        match values.len() {
            0 => Verdict::Delete,
            1 => Verdict::keep(values.pop_first().unwrap_or_default()),
            _ => Verdict::keep_as(encode(&values), "application/json"),
        }
    }

    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let mut choices = Choices::new(seed);
        let mut one = || match choices.below(4) {
            0 => vec![choices.next() as u8],
            1 => format!("{{\"values\":[\"{}\"]}}", choices.below(3)).into_bytes(),
            _ => choices.pick(&["", "milk", "tea", "eggs", "\"quoted\" \u{1f986}"]).as_bytes().to_vec(),
        };
        let values = Values::from([one(), one(), one()]);
        Some(if values.len() > 1 && seed.len() % 2 == 1 { encode(&values) } else { one() })
    }
}

export_resolver!(MvRegister);

#[cfg(test)]
mod tests {
    use merganser_plugin_sdk::laws;
    use merganser_plugin_sdk::testing::{key, siblings, tombstone};

    use super::*;

    fn resolve(values: &[&[u8]]) -> Vec<u8> {
        match MvRegister::resolve(&key("k"), &siblings(values)) {
            Verdict::Keep(kept) => kept.value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn several_values_become_one_answer_and_answers_flatten() {
        let cart = resolve(&[b"tea", b"milk", b"\xff"]);
        assert_eq!(cart, br#"{"values":["milk","tea",{"base64":"/w=="}]}"#);
        assert_eq!(resolve(&[&cart, b"eggs"]), br#"{"values":["eggs","milk","tea",{"base64":"/w=="}]}"#);
        assert_eq!(resolve(&[&cart]), cart);
        assert_eq!(resolve(&[&cart, &cart, b"tea"]), cart);
    }

    #[test]
    fn values_that_only_look_like_an_answer_are_values() {
        for odd in [
            r#"{"values":["a"]}"#,
            r#"{"values":["b","a"]}"#,
            r#"{"values": ["a","b"]}"#,
            r#"{"values":[1,2]}"#,
        ] {
            assert_eq!(decode(odd.as_bytes()), None, "{odd}");
            assert_eq!(resolve(&[odd.as_bytes()]), odd.as_bytes());
        }
    }

    #[test]
    fn a_delete_loses_against_any_value() {
        let mut with_delete = siblings(&["milk"]);
        with_delete.push(tombstone(7, 99));
        assert_eq!(MvRegister::resolve(&key("k"), &with_delete), Verdict::keep(b"milk"));
        assert_eq!(MvRegister::resolve(&key("k"), &[tombstone(1, 1)]), Verdict::Delete);
    }

    #[test]
    fn laws_hold() {
        let generated: Vec<_> =
            (0..10u8).map(|n| MvRegister::generate(&vec![n; n.into()]).unwrap()).collect();
        let samples: Vec<_> = generated.iter().map(Vec::as_slice).collect();
        assert_eq!(laws::resolver::<MvRegister>(&samples), Ok(()));
    }
}
