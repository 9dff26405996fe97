//! Between core's words for plugins and the host's. Absent: anything that decides.

use merganser_core::catalog::{PluginEntry, Revision};
use merganser_core::id::{NodeId, PluginHash};
use merganser_core::plugin::{self as core, PluginAnswer, PluginCall, PluginFacts};
use merganser_core::version::{Span, Stamp};
use merganser_plugin_host::{self as host, Answer, BuiltIn, Call, Failure, Loaded};

pub(super) fn hash(hash: PluginHash) -> host::PluginHash {
    host::PluginHash(hash.0)
}

pub(super) fn call(call: PluginCall) -> Call {
    match call {
        PluginCall::Validate { key, value } => Call::Validate { key: key_info(key), value },
        PluginCall::Resolve { key, siblings } => {
            Call::Resolve { key: key_info(key), siblings: siblings.into_iter().map(sibling).collect() }
        }
        PluginCall::Merge { key, states } => Call::Merge { key: key_info(key), states },
        PluginCall::Apply { key, state, operation: applied } => {
            Call::Apply { key: key_info(key), state, operation: operation(applied) }
        }
        PluginCall::Query { key, state, path } => Call::Query { key: key_info(key), state, path },
    }
}

fn key_info(key: core::KeyInfo) -> host::KeyInfo {
    host::KeyInfo { keyspace: key.keyspace, key: key.key, config: key.config }
}

fn operation(operation: core::PluginOperation) -> host::Operation {
    let span = |span: &Span| host::Span { actor: span.actor.0, after: span.after, upto: span.upto };
    host::Operation {
        body: operation.body,
        dot: (operation.dot.actor.0, operation.dot.counter),
        previous: operation.previous,
        millis: operation.stamp.millis,
        logical: operation.stamp.logical,
        op_id: operation.op_id,
        seen: operation.seen.map(|seen| seen.spans().iter().map(span).collect()),
    }
}

fn sibling(sibling: core::PluginSibling) -> host::Sibling {
    host::Sibling {
        dots: sibling.dots.iter().map(|dot| (dot.actor.0, dot.counter)).collect(),
        millis: sibling.stamp.millis,
        logical: sibling.stamp.logical,
        content: sibling.content,
        // Came in as text, so nothing is lost here.
        content_type: sibling.content_type.map(|text| String::from_utf8_lossy(&text).into_owned()),
    }
}

pub(super) fn keyspace(call: &Call) -> &str {
    match call {
        Call::Validate { key, .. }
        | Call::Resolve { key, .. }
        | Call::Merge { key, .. }
        | Call::Fingerprint { key, .. }
        | Call::Apply { key, .. }
        | Call::Retire { key, .. }
        | Call::Query { key, .. } => &key.keyspace,
    }
}

pub(super) fn answer(outcome: Result<Answer, Failure>) -> PluginAnswer {
    match outcome {
        Ok(Answer::Valid) => PluginAnswer::Valid,
        Ok(Answer::Value(value)) => PluginAnswer::Value(value),
        Ok(Answer::Keep { value, content_type }) => {
            PluginAnswer::Keep { value, content_type: content_type.map(Into::into) }
        }
        Ok(Answer::Delete) => PluginAnswer::Delete,
        Ok(Answer::Unresolved(reason)) => PluginAnswer::Unresolved(reason),
        Ok(Answer::Rejected { kind, message }) => {
            PluginAnswer::Rejected { kind: kind.name().into(), message }
        }
        Ok(Answer::Fingerprint(_)) => PluginAnswer::Failed("it answered another question".into()),
        Err(Failure::TooLarge { bytes, limit }) => {
            PluginAnswer::TooLarge { size_bytes: bytes as u64, limit_bytes: limit as u64 }
        }
        // The same question would come to the same.
        Err(
            failure @ (Failure::Trap(_) | Failure::OutOfFuel | Failure::OutOfMemory | Failure::BadAnswer(_)),
        ) => PluginAnswer::Broke(failure.to_string()),
        Err(failure) => PluginAnswer::Failed(failure.to_string()),
    }
}

pub(super) fn facts(loaded: Loaded) -> PluginFacts {
    PluginFacts {
        world: super::world(loaded.world),
        name: loaded.description.name,
        version: loaded.description.version,
        summary: loaded.description.summary,
        size_bytes: loaded.size_bytes as u64,
    }
}

pub(super) fn built_in(built_in: &BuiltIn) -> PluginEntry {
    PluginEntry {
        hash: PluginHash(built_in.hash.0),
        name: built_in.name.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        summary: "ships with every node".into(),
        world: super::world(built_in.world),
        size_bytes: built_in.wasm.len() as u64,
        built_in: true,
        removed: false,
        revision: Revision { stamp: Stamp::default(), node: NodeId(0) },
    }
}
