//! The shipped plugins as native code: core's questions as calls of the traits that their authors wrote.
//!
//! In: a call. Out: the plugin's answer, as the plugin host would hand it to core. Absent: Wasm and its limits.

use merganser_core::plugin::{KeyInfo, PluginAnswer, PluginCall, PluginOperation, PluginSibling};
use merganser_plugin_sdk::{
    Content, Dot, Kept, KeyInfo as Key, Operation, Rejection, ReplicatedType, Resolver, Sibling, Span, Stamp,
    Verdict,
};

fn key(key: &KeyInfo) -> Key {
    Key { keyspace: key.keyspace.clone(), key: key.key.to_vec(), config: key.config.to_vec() }
}

fn sibling(sibling: &PluginSibling) -> Sibling {
    let dot = |dot: &merganser_core::id::Dot| Dot { actor: dot.actor.0, counter: dot.counter };
    Sibling {
        dots: sibling.dots.iter().map(dot).collect(),
        at: Stamp { millis: sibling.stamp.millis, logical: sibling.stamp.logical },
        content: match &sibling.content {
            Some(value) => Content::Value(value.to_vec()),
            None => Content::Tombstone,
        },
        content_type: sibling.content_type.as_ref().map(|text| String::from_utf8_lossy(text).into_owned()),
    }
}

fn operation(operation: &PluginOperation) -> Operation {
    let span = |span: &merganser_core::version::Span| Span {
        actor: span.actor.0,
        after: span.after,
        upto: span.upto,
    };
    Operation {
        body: operation.body.to_vec(),
        dot: Dot { actor: operation.dot.actor.0, counter: operation.dot.counter },
        previous: operation.previous,
        at: Stamp { millis: operation.stamp.millis, logical: operation.stamp.logical },
        op_id: operation.op_id.to_vec(),
        seen: operation.seen.as_ref().map(|seen| seen.spans().iter().map(span).collect()),
    }
}

fn told(answer: Result<Vec<u8>, Rejection>) -> PluginAnswer {
    match answer {
        Ok(value) => PluginAnswer::Value(value.into()),
        Err(rejection) => rejected(&rejection),
    }
}

fn rejected(rejection: &Rejection) -> PluginAnswer {
    PluginAnswer::Rejected {
        kind: format!("{:?}", rejection.kind).to_lowercase(),
        message: rejection.message.clone(),
    }
}

/// A question to a resolver.
pub(super) fn resolver<R: Resolver>(call: &PluginCall) -> PluginAnswer {
    match call {
        PluginCall::Validate { key: of, value } => match R::validate(&key(of), value) {
            Ok(()) => PluginAnswer::Valid,
            Err(rejection) => rejected(&rejection),
        },
        PluginCall::Resolve { key: of, siblings } => {
            let siblings: Vec<Sibling> = siblings.iter().map(sibling).collect();
            match R::resolve(&key(of), &siblings) {
                Verdict::Keep(Kept { value, content_type }) => {
                    PluginAnswer::Keep { value: value.into(), content_type: content_type.map(Into::into) }
                }
                Verdict::Delete => PluginAnswer::Delete,
                Verdict::Unresolved(why) => PluginAnswer::Unresolved(why),
            }
        }
        _ => no_such_question(),
    }
}

/// A question to a replicated type.
pub(super) fn replicated_type<T: ReplicatedType>(call: &PluginCall) -> PluginAnswer {
    match call {
        PluginCall::Validate { key: of, value } => match T::validate(&key(of), value) {
            Ok(()) => PluginAnswer::Valid,
            Err(rejection) => rejected(&rejection),
        },
        PluginCall::Merge { key: of, states } => {
            let states: Vec<Vec<u8>> = states.iter().map(|state| state.to_vec()).collect();
            told(T::merge(&key(of), &states))
        }
        PluginCall::Apply { key: of, state, operation: applied } => {
            told(T::apply(&key(of), state.as_deref(), &operation(applied)))
        }
        PluginCall::Query { key: of, state, path } => told(T::query(&key(of), state, path)),
        PluginCall::Resolve { .. } => no_such_question(),
    }
}

/// What the host says where a module does not export what is asked for.
pub(super) fn no_such_question() -> PluginAnswer {
    PluginAnswer::Failed("not a question to this plugin".into())
}
