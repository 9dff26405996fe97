//! What a record of storage says about a key.
//!
//! In: storage keys and heads. Out: names, dots and contexts, for people and programs. A body is
//! not needed for that: only its length is. Absent: values.

use crate::output::{hex, size};
use bytes::Bytes;
use merganser_core::{
    catalog::KeyspaceEntry,
    event::Record,
    id::PluginHash,
    storage_key,
    version::{Content, DotSet, Fragment, KeyState, Standing, Version, codec},
};
use merganser_storage::inspect::Entry;
use serde_json::{Value, json};

/// A body longer than any that a node writes is not made up here.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// Under which storage key a node keeps a key.
pub(super) fn storage_key(keyspace: &str, key: &[u8]) -> Bytes {
    storage_key::object(KeyspaceEntry::id_of(keyspace), key)
}

/// A storage key in words.
pub(super) fn name(stored: &[u8]) -> String {
    let stored = Bytes::copy_from_slice(stored);
    if let Some((keyspace, key)) = storage_key::parse_object(&stored) {
        return format!("{:08x}/{}", keyspace.0, crate::key::shown(&key));
    }
    if stored == storage_key::identity() {
        return "(identity)".into();
    }
    if stored == storage_key::catalog() {
        return "(catalog)".into();
    }
    let hash = stored.len().checked_sub(32).and_then(|at| <[u8; 32]>::try_from(&stored[at..]).ok());
    match hash.map(PluginHash) {
        Some(hash) if stored == storage_key::module(hash) => format!("(module {hash})"),
        _ => format!("({})", hex(&stored)),
    }
}

pub(super) struct Described {
    pub(super) lines: Vec<String>,
    pub(super) json: Value,
}

/// The state in a record, as far as its head tells.
pub(super) fn describe(entry: &Entry) -> Described {
    if entry.kind == "remove" {
        return Described { lines: Vec::new(), json: Value::Null };
    }
    if entry.body_bytes > BODY_BYTES_MAX {
        let problem = format!("a body of {} bytes is none that a node writes", entry.body_bytes);
        return Described { lines: vec![problem.clone()], json: json!({ "problem": problem }) };
    }
    let head = Bytes::copy_from_slice(&entry.head);
    let body = Bytes::from(vec![0; entry.body_bytes as usize]);
    match codec::state(&Record { head, body }) {
        Ok(state) => of_state(&state),
        Err(error) => {
            let problem = format!("the head does not decode: {error}");
            Described { lines: vec![problem.clone()], json: json!({ "problem": problem }) }
        }
    }
}

fn standing(standing: &Standing) -> String {
    match (standing.is_valid(), standing.reason()) {
        (true, _) => format!("valid in epoch {}", standing.epoch()),
        (false, Some(reason)) => format!("set aside in epoch {}: {reason}", standing.epoch()),
        (false, None) => "not validated".into(),
    }
}

fn of_state(state: &KeyState) -> Described {
    match state {
        KeyState::Causal(siblings) => {
            let mut lines = vec![format!("siblings; seen {}", dots(siblings.seen()))];
            lines.extend(siblings.iter().map(|(dot, version)| format!("{dot}  {}", of_version(version))));
            let versions = siblings.iter().map(|(dot, version)| version_json(&dot.to_string(), version));
            let json = json!({
                "kind": "siblings",
                "seen": dots(siblings.seen()),
                "versions": versions.collect::<Vec<_>>(),
            });
            Described { lines, json }
        }
        KeyState::Lww(register) => {
            let line = match &register.winner {
                Some((dot, version)) => format!("lww; {dot}  {}", of_version(version)),
                None => "lww; never written".into(),
            };
            let winner = register.winner.as_ref();
            let version = winner.map(|(dot, version)| version_json(&dot.to_string(), version));
            Described { lines: vec![line], json: json!({ "kind": "lww", "version": version }) }
        }
        KeyState::Lattice(fragments) => {
            let removed = dots(&fragments.removed);
            let mut lines = vec![format!("lattice; epoch {}; removed {removed}", fragments.epoch)];
            let line = |fragment: &Fragment| {
                let (claim, bytes) = (dots(&fragment.claim), size(fragment.value.len() as u64));
                format!("{claim}  {bytes}  {}", standing(&fragment.standing))
            };
            lines.extend(fragments.iter().map(line));
            let parts = fragments
                .iter()
                .map(|fragment| json!({ "claim": dots(&fragment.claim), "bytes": fragment.value.len(), "standing": standing(&fragment.standing) }));
            let json = json!({
                "kind": "lattice",
                "epoch": fragments.epoch,
                "removed": removed,
                "fragments": parts.collect::<Vec<_>>(),
            });
            Described { lines, json }
        }
    }
}

/// `actor:1-5 …`: everything after the first number's predecessor, up to the second.
fn dots(set: &DotSet) -> String {
    let spans = set.spans().iter().map(|span| match span.after + 1 == span.upto {
        true => format!("{:?}:{}", span.actor, span.upto),
        false => format!("{:?}:{}-{}", span.actor, span.after + 1, span.upto),
    });
    let text = spans.collect::<Vec<_>>().join(" ");
    if text.is_empty() { "nothing".into() } else { text }
}

fn of_version(version: &Version) -> String {
    let content = match &version.content {
        Content::Value(value) => size(value.len() as u64),
        Content::Tombstone => "deleted".into(),
    };
    let merged = match &version.receipt {
        Some(receipt) => {
            let from: Vec<String> = receipt.merged_from.iter().map(ToString::to_string).collect();
            format!("  made of {} by {:?}", from.join(" "), receipt.plugin)
        }
        None => String::new(),
    };
    let expires = version.expires_at.map_or_else(String::new, |at| format!("  expires at {}", at.0));
    format!("{content} at {}.{}{expires}{merged}", version.stamp.millis, version.stamp.logical)
}

fn version_json(dot: &str, version: &Version) -> Value {
    json!({
        "dot": dot,
        "tombstone": version.content == Content::Tombstone,
        "bytes": version.content.size_bytes(),
        "stamp": { "millis": version.stamp.millis, "logical": version.stamp.logical },
        "request_id": version.request_id.map(|request| hex(&request.0)),
        "expires_at_ms": version.expires_at.map(|at| at.0),
        "receipt": version.receipt.as_ref().map(|receipt| json!({
            "merged_from": receipt.merged_from.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "plugin": receipt.plugin.to_string(),
            "policy_epoch": receipt.epoch,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use merganser_core::{
        id::{ActorId, Dot},
        version::{Siblings, Stamp},
    };

    fn entry(state: &KeyState, key: Bytes) -> Entry {
        let record = codec::record(state);
        Entry {
            key: key.to_vec(),
            kind: "put",
            head: record.head.to_vec(),
            body_bytes: record.body.len() as u64,
            stored_bytes: record.body.len() as u64,
            body_offset: None,
        }
    }

    #[test]
    fn a_head_tells_dots_and_sizes_without_the_body() {
        let mut siblings = Siblings::default();
        for (counter, content) in [(1, Content::Value("abc".into())), (2, Content::Tombstone)] {
            let dot = Dot { actor: ActorId(0xa), counter };
            let stamp = Stamp { millis: 5, logical: 0 };
            let version = Version {
                content,
                stamp,
                content_type: None,
                request_id: None,
                receipt: None,
                expires_at: None,
            };
            siblings.write(&DotSet::new(), dot, 0, version);
        }
        let described = describe(&entry(&KeyState::Causal(siblings), storage_key("carts", b"alice")));
        assert_eq!(described.json["kind"], "siblings");
        assert_eq!(described.json["versions"][0]["bytes"], 3);
        assert_eq!(described.json["versions"][1]["tombstone"], true);
        assert!(described.lines[1].starts_with("000000000000000a:1"), "{:?}", described.lines);
    }

    #[test]
    fn a_head_that_is_none_says_so() {
        let entry = Entry { head: vec![9, 9], ..entry(&KeyState::Causal(Siblings::default()), Bytes::new()) };
        assert!(describe(&entry).lines[0].contains("does not decode"));
        let absurd = Entry { body_bytes: u64::MAX, ..entry };
        assert!(describe(&absurd).lines[0].contains("none that a node writes"));
    }

    #[test]
    fn storage_keys_are_named() {
        assert!(name(&storage_key("carts", b"a\nb")).ends_with("/--key-hex 610a62"));
        assert_eq!(name(&storage_key::identity()), "(identity)");
        assert_eq!(name(&storage_key::catalog()), "(catalog)");
        let module = name(&storage_key::module(PluginHash([7; 32])));
        assert_eq!(module, format!("(module {})", "07".repeat(32)));
        assert_eq!(name(b"xy"), "(7879)");
    }
}
