//! What can be read of a document without fetching it.

use automerge::{AutoSerde, Automerge, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, Value};
use merganser_plugin_sdk::Rejection;

use crate::chunks::Chunks;
use crate::document::Loaded;
use crate::unloadable;

/// Answers a path, see the head of the crate.
pub(crate) fn answer(loaded: &Loaded, chunks: &Chunks<'_>, path: &str) -> Result<Vec<u8>, Rejection> {
    let document = &loaded.document;
    match (path, path.strip_prefix("?since=")) {
        ("?heads", _) => {
            let heads: Vec<String> = document.get_heads().iter().map(ChangeHash::to_string).collect();
            Ok(serde_json::Value::from(heads).to_string().into())
        }
        (_, Some(hashes)) => {
            let hashes = hashes.split(',').filter(|hash| !hash.is_empty());
            let heads: Vec<ChangeHash> =
                hashes.map(|hash| hash.parse().map_err(unloadable)).collect::<Result<_, _>>()?;
            Ok(document.save_after(&heads))
        }
        ("?problems", _) => {
            let aside = loaded.aside.iter().map(|change| {
                serde_json::json!({
                    "actor": change.actor_id().to_string(),
                    "sequence": change.seq(),
                    "hash": change.hash().to_string(),
                })
            });
            let aside: Vec<serde_json::Value> = aside.collect();
            let waiting: Vec<String> = waiting(loaded, chunks).iter().map(ChangeHash::to_string).collect();
            Ok(serde_json::json!({ "aside": aside, "waiting": waiting }).to_string().into())
        }
        _ if path.starts_with('?') => {
            Err(Rejection::malformed("the questions are ?heads, ?since=HASH,HASH and ?problems"))
        }
        _ => value(document, path),
    }
}

fn value(document: &Automerge, path: &str) -> Result<Vec<u8>, Rejection> {
    let whole = serde_json::to_value(AutoSerde::from(document)).map_err(unloadable)?;
    let (mut at, mut json, mut text) = (Some((ROOT, ObjType::Map)), &whole, false);
    for step in path.split('/').filter(|step| !step.is_empty()) {
        json = match json {
            serde_json::Value::Object(fields) => fields.get(step),
            serde_json::Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        }
        .ok_or_else(|| Rejection::malformed(format!("there is no {step:?} at {path:?}")))?;
        at = at.and_then(|(object, kind)| inner(document, &object, kind, step));
        text = matches!(at, Some((_, ObjType::Text)));
    }
    match json {
        serde_json::Value::String(plain) if text => Ok(plain.clone().into()),
        json => Ok(json.to_string().into()),
    }
}

/// The object that the step leads to, if it is one.
fn inner(document: &Automerge, object: &ObjId, kind: ObjType, step: &str) -> Option<(ObjId, ObjType)> {
    let found = match kind {
        ObjType::List => document.get(object, step.parse::<usize>().ok()?),
        _ => document.get(object, step),
    };
    match found {
        Ok(Some((Value::Object(kind), id))) => Some((id, kind)),
        _ => None,
    }
}

/// Hashes of the loose changes that wait for others, each once, in order.
pub(crate) fn waiting(loaded: &Loaded, chunks: &Chunks<'_>) -> Vec<ChangeHash> {
    let is_aside = |hash: &ChangeHash| loaded.aside.iter().any(|change| change.hash() == *hash);
    let mut waiting = Vec::new();
    for chunk in chunks.loose() {
        // Bundles have no change of their own; what they hold is in the document or waits within it.
        let Ok(change) = Change::from_bytes(chunk.to_vec()) else { continue };
        let hash = change.hash();
        if loaded.document.get_change_by_hash(&hash).is_none() && !is_aside(&hash) {
            waiting.push(hash);
        }
    }
    waiting.sort_unstable();
    waiting.dedup();
    waiting
}
