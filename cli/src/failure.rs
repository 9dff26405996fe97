//! How commands fail: exit codes, and the two lines that a user gets.
//!
//! In: an `anyhow::Error`, most often around a [`Failure`] of ours or an error of the client.
//! Out: [`Told`]. Exit codes are part of the interface:
//!
//! | 0 | 1 | 2 | 3 | 4 | 5 |
//! |---|---|---|---|---|---|
//! | done | failed | wrong arguments | not found | siblings that nothing settled | a write of unknown fate |

use crate::output::hex;
use merganser_client::Error;
use serde_json::{Value, json};
use std::fmt;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Error = 1,
    Usage = 2,
    NotFound = 3,
    Siblings = 4,
    Uncertain = 5,
}

/// Something that a command found wrong itself.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: &'static str,
    what: String,
    hint: String,
    exit: Exit,
}

impl Failure {
    /// What happened, and what to do next.
    pub(crate) fn new(code: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { code, what: what.into(), hint: hint.into(), exit: Exit::Error }
    }

    /// The arguments make no sense together.
    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, ..Failure::new("usage", what, hint) }
    }

    /// With another exit code than 1.
    pub(crate) fn exits(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// What a user, or a program, is told.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: String,
    pub(crate) exit: Exit,
    facts: Value,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message, "hint": self.hint });
        if let (Value::Object(error), Value::Object(facts)) = (&mut error, &self.facts) {
            error.extend(facts.clone());
        }
        json!({ "error": error })
    }
}

pub(crate) fn tell(error: &anyhow::Error) -> Told {
    let context = |inner: &str| {
        // What commands said around the error, outermost first, unless it is the error itself.
        let around: Vec<String> =
            error.chain().map(ToString::to_string).take_while(|text| text != inner).collect();
        around.iter().map(|text| format!("{text}: ")).collect::<String>()
    };
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        return Told {
            code: failure.code,
            message: format!("{}{}", context(&failure.to_string()), failure.what),
            hint: failure.hint.clone(),
            exit: failure.exit,
            facts: json!({}),
        };
    }
    if let Some(client) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) {
        return Told {
            code: client.code(),
            message: format!("{}{}", context(&client.to_string()), client.what()),
            hint: client.hint().into(),
            exit: exit_of(client),
            facts: facts(client),
        };
    }
    Told {
        code: "failed",
        message: format!("{error:#}"),
        hint: String::new(),
        exit: Exit::Error,
        facts: json!({}),
    }
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::NotFound { .. } => Exit::NotFound,
        Error::Unresolved { .. } => Exit::Siblings,
        Error::Uncertain(_) => Exit::Uncertain,
        _ => Exit::Error,
    }
}

fn facts(error: &Error) -> Value {
    match error {
        Error::Unavailable { node, sent, .. } => json!({ "node": node, "sent": sent }),
        Error::NotEnoughReplicas { needed, reachable } => json!({ "needed": needed, "reachable": reachable }),
        Error::Uncertain(write) => json!({
            "dot": write.dot.map(|dot| dot.to_string()),
            "replicas": write.replicas,
            "needed": write.needed,
        }),
        Error::SiblingLimit { siblings, limit, size_bytes, limit_bytes, context } => json!({
            "siblings": siblings,
            "limit": limit,
            "size_bytes": size_bytes,
            "limit_bytes": limit_bytes,
            "context": hex(context.as_bytes()),
        }),
        Error::OperandLimit { operands, operands_max, size_bytes, size_bytes_max, context } => json!({
            "operands": operands,
            "operands_max": operands_max,
            "size_bytes": size_bytes,
            "size_bytes_max": size_bytes_max,
            "context": hex(context.as_bytes()),
        }),
        Error::TooLarge { what, size_bytes, limit_bytes } => {
            json!({ "what": what, "size_bytes": size_bytes, "limit_bytes": limit_bytes })
        }
        Error::InvalidValue { kind, reason } => json!({ "kind": kind, "reason": reason }),
        Error::UnknownKeyspace { keyspace } => json!({ "keyspace": keyspace }),
        Error::Overloaded { retry_after } => json!({ "retry_after_ms": retry_after.as_millis() as u64 }),
        Error::InvalidArgument { field, .. } => json!({ "field": field }),
        Error::ClockSkew { ahead } => json!({ "ahead_ms": ahead.as_millis() as u64 }),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn each_kind_of_error_has_its_exit_code_and_says_what_to_do_next() {
        let not_found = Error::NotFound { what: "no plugin is called x".into() };
        let unresolved = Error::Unresolved { reason: "2 versions".into() };
        let rows = [
            (anyhow::Error::new(not_found), Exit::NotFound, "not_found"),
            (anyhow::Error::new(unresolved), Exit::Siblings, "unresolved"),
            (anyhow::Error::new(Error::ContextRequired), Exit::Error, "context_required"),
            (anyhow::Error::new(Failure::usage("a", "b")), Exit::Usage, "usage"),
            (anyhow::Error::new(Failure::new("x", "a", "b").exits(Exit::Siblings)), Exit::Siblings, "x"),
        ];
        for (error, exit, code) in rows {
            let told = tell(&error);
            assert_eq!((told.exit, told.code), (exit, code));
            assert!(!told.hint.is_empty());
            assert_eq!(told.json()["error"]["code"], code);
        }
    }

    #[test]
    fn what_a_command_said_around_an_error_comes_first_and_nothing_twice() {
        let error = Err::<(), _>(Error::ContextRequired).context("alice").context("import").unwrap_err();
        assert_eq!(tell(&error).message, "import: alice: a write without a context");
        let plain = anyhow::anyhow!("inner").context("outer");
        assert_eq!(tell(&plain).message, "outer: inner");
    }

    #[test]
    fn facts_stand_beside_code_and_hint() {
        let error = anyhow::Error::new(Error::NotEnoughReplicas { needed: 2, reachable: 1 });
        assert_eq!(tell(&error).json()["error"]["reachable"], 1);
    }
}
