//! Each law as a property of a case, asked of the plugin through the host.
//!
//! A case is a list of siblings; for lattices only their contents count. States are compared by what they mean: by
//! fingerprint where the plugin gives one, by bytes where it does not.

use std::cell::Cell;

use bytes::Bytes;

use crate::call::{Answer, Call, Failure, KeyInfo, Operation, Sibling, Stats};
use crate::host::Host;
use crate::laws::Law;
use crate::laws::pool::canonical;
use crate::laws::report::shown;
use crate::plugin::{Loaded, PluginHash, World};

/// How a case fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Holds,
    /// The law says nothing about this case.
    Inapplicable,
    Broken {
        left: String,
        right: String,
    },
}

/// Asks the plugin.
pub(super) struct Prover<'a> {
    host: &'a Host,
    plugin: PluginHash,
    world: World,
    key: &'a KeyInfo,
    most: Cell<Stats>,
}

type Asked = Result<Answer, Failure>;

impl<'a> Prover<'a> {
    pub(super) fn new(host: &'a Host, loaded: &Loaded, key: &'a KeyInfo) -> Prover<'a> {
        Prover { host, plugin: loaded.hash, world: loaded.world, key, most: Cell::default() }
    }

    pub(super) fn world(&self) -> World {
        self.world
    }

    /// The most that any one call used.
    pub(super) fn most(&self) -> Stats {
        self.most.get()
    }

    fn ask(&self, call: Call) -> Asked {
        let (answer, stats) = self.host.call(&self.plugin, call);
        let most = self.most.get();
        self.most.set(Stats {
            fuel: most.fuel.max(stats.fuel),
            memory_bytes: most.memory_bytes.max(stats.memory_bytes),
            micros: most.micros.max(stats.micros),
        });
        answer
    }

    pub(super) fn generate(&self, seed: &[u8]) -> Option<Bytes> {
        self.host.generate(&self.plugin, seed).0.ok().flatten()
    }

    pub(super) fn generate_operation(&self, seed: &[u8]) -> Option<Bytes> {
        self.host.generate_operation(&self.plugin, seed).0.ok().flatten()
    }

    pub(super) fn accepts(&self, value: &Bytes) -> Result<bool, Failure> {
        Ok(self.validate(value)? == Answer::Valid)
    }

    pub(super) fn why_rejected(&self, value: &Bytes) -> String {
        match self.validate(value) {
            Ok(Answer::Rejected { message, .. }) => message,
            other => format!("{other:?}"),
        }
    }

    fn validate(&self, value: &Bytes) -> Asked {
        self.ask(Call::Validate { key: self.key.clone(), value: value.clone() })
    }

    fn resolve(&self, siblings: &[Sibling]) -> Asked {
        self.ask(Call::Resolve { key: self.key.clone(), siblings: siblings.to_vec() })
    }

    fn merge(&self, states: &[Bytes]) -> Asked {
        self.ask(Call::Merge { key: self.key.clone(), states: states.to_vec() })
    }

    fn apply(&self, state: &Bytes, op: &Bytes, counter: u64) -> Asked {
        let operation = Operation {
            body: op.clone(),
            dot: (u64::MAX, counter),
            previous: counter - 1,
            millis: counter,
            logical: 0,
            op_id: Bytes::from_static(b"law L5"),
            seen: None,
        };
        self.ask(Call::Apply { key: self.key.clone(), state: Some(state.clone()), operation })
    }

    /// What a joined state means; anything else as it is.
    fn meaning(&self, asked: Asked) -> Asked {
        match asked {
            Ok(Answer::Value(state)) => match self.fingerprint(&state)? {
                Some(print) => Ok(Answer::Fingerprint(Some(print))),
                None => Ok(Answer::Value(state)),
            },
            other => other,
        }
    }

    fn fingerprint(&self, state: &Bytes) -> Result<Option<Bytes>, Failure> {
        match self.ask(Call::Fingerprint { key: self.key.clone(), state: state.clone() })? {
            Answer::Fingerprint(print) => Ok(print),
            _ => Ok(None),
        }
    }

    /// Whether every value of a case is one that could have entered; an operation need not be.
    pub(super) fn is_valid(&self, law: Law, case: &[Sibling]) -> bool {
        let values = case.iter().take(if law == Law::Inflation { 1 } else { case.len() });
        values.filter_map(|item| item.content.as_ref()).all(|value| self.accepts(value) == Ok(true))
    }

    pub(super) fn outcome(&self, law: Law, case: &[Sibling]) -> Outcome {
        let states: Vec<Bytes> = case.iter().filter_map(|item| item.content.clone()).collect();
        let resolver = self.world == World::Resolver;
        match law {
            Law::Deterministic if resolver => same(self.resolve(case), self.resolve(case)),
            Law::Deterministic => same(self.merge(&states), self.merge(&states)),
            Law::Order if resolver => {
                let reversed: Vec<Sibling> = case.iter().rev().cloned().collect();
                same(self.resolve(case), self.resolve(&reversed))
            }
            Law::Order => {
                let reversed: Vec<Bytes> = states.iter().rev().cloned().collect();
                same(self.meaning(self.merge(&states)), self.meaning(self.merge(&reversed)))
            }
            Law::Idempotent if resolver => self.alone_is_kept(case),
            Law::Idempotent => {
                let twice = [states[0].clone(), states[0].clone()];
                same(self.meaning(self.merge(&twice)), self.meaning(Ok(Answer::Value(states[0].clone()))))
            }
            Law::Associative => self.trees_agree(&states),
            Law::Settling => self.settles(case),
            Law::Inflation => self.inflates(&states),
            Law::Canonical => self.answers_are_valid(case, &states),
            Law::Resources => self.answers(case, &states),
        }
    }

    fn alone_is_kept(&self, case: &[Sibling]) -> Outcome {
        match &case[0].content {
            Some(value) => same(self.resolve(&case[..1]).map(untyped), Ok(Answer::Value(value.clone()))),
            None => Outcome::Inapplicable,
        }
    }

    fn trees_agree(&self, states: &[Bytes]) -> Outcome {
        let [a, b, c] = [&states[0], &states[1], &states[2]].map(Bytes::clone);
        let then = |first: Asked, other: &Bytes, first_is_left: bool| match first {
            Ok(Answer::Value(joined)) if first_is_left => self.merge(&[joined, other.clone()]),
            Ok(Answer::Value(joined)) => self.merge(&[other.clone(), joined]),
            other => other,
        };
        let left = self.meaning(then(self.merge(&[a.clone(), b.clone()]), &c, true));
        let right = self.meaning(then(self.merge(&[b.clone(), c.clone()]), &a, false));
        match same(left.clone(), right) {
            Outcome::Holds => same(left, self.meaning(self.merge(&[a, b, c]))),
            other => other,
        }
    }

    /// Two owners in a partition each settle a part and write it back, with stamps of their own; whoever sees both
    /// answers should say what one who saw all siblings says.
    fn settles(&self, case: &[Sibling]) -> Outcome {
        let (first, last) = (&case[..case.len() - 1], &case[1..]);
        let (Ok(Answer::Keep { value: left, .. }), Ok(Answer::Keep { value: right, .. })) =
            (self.resolve(first), self.resolve(last))
        else {
            return Outcome::Inapplicable;
        };
        let whole = self.resolve(case).map(untyped);
        let latest = case.iter().map(|sibling| sibling.millis).max().unwrap_or(0);
        let written = |actor, millis, value: &Bytes| Sibling {
            dots: vec![(actor, 1)],
            millis,
            logical: 0,
            content: Some(value.clone()),
            content_type: None,
        };
        for (left_at, right_at) in [(latest + 1, latest + 2), (latest + 2, latest + 1)] {
            let both = canonical(vec![written(100, left_at, &left), written(101, right_at, &right)]);
            let settled = self.resolve(&both).map(untyped);
            if settled != whole {
                return broken(settled, whole);
            }
        }
        Outcome::Holds
    }

    fn inflates(&self, items: &[Bytes]) -> Outcome {
        let [state, op] = items else { return Outcome::Inapplicable };
        let Ok(Answer::Value(after)) = self.apply(state, op, 1) else { return Outcome::Inapplicable };
        let meaning = self.meaning(Ok(Answer::Value(after.clone())));
        match same(self.meaning(self.merge(&[state.clone(), after.clone()])), meaning.clone()) {
            Outcome::Holds => same(self.meaning(self.apply(&after, op, 2)), meaning),
            other => other,
        }
    }

    fn answers_are_valid(&self, case: &[Sibling], states: &[Bytes]) -> Outcome {
        let asked = match self.world {
            World::Resolver => self.resolve(case),
            _ => self.merge(states),
        };
        match asked {
            Ok(Answer::Value(value) | Answer::Keep { value, .. }) => {
                same(self.validate(&value), Ok(Answer::Valid))
            }
            Ok(_) => Outcome::Inapplicable,
            // Failures are the business of L8.
            Err(_) => Outcome::Inapplicable,
        }
    }

    fn answers(&self, case: &[Sibling], states: &[Bytes]) -> Outcome {
        let mut asked: Vec<Asked> = states.iter().take(1).map(|value| self.validate(value)).collect();
        match self.world {
            World::Resolver => asked.push(self.resolve(case)),
            _ => asked.push(self.merge(states)),
        }
        match asked.into_iter().find_map(Result::err) {
            None => Outcome::Holds,
            Some(failure) => Outcome::Broken { left: failure.to_string(), right: "an answer".into() },
        }
    }
}

/// The value alone: the content type of a lone sibling is not the plugin's to say.
fn untyped(answer: Answer) -> Answer {
    match answer {
        Answer::Keep { value, .. } => Answer::Value(value),
        other => other,
    }
}

/// Failures are the business of L8: they say nothing about the other laws.
fn same(left: Asked, right: Asked) -> Outcome {
    match (left, right) {
        (Ok(left), Ok(right)) if left == right => Outcome::Holds,
        (Err(_), Err(_)) => Outcome::Inapplicable,
        (left, right) => broken(left, right),
    }
}

fn broken(left: Asked, right: Asked) -> Outcome {
    let text = |asked: Asked| match asked {
        Ok(Answer::Value(value) | Answer::Keep { value, content_type: None }) => shown(&value),
        Ok(Answer::Keep { value, content_type: Some(named) }) => format!("{}, {named}", shown(&value)),
        Ok(Answer::Valid) => "valid".into(),
        Ok(Answer::Delete) => "delete".into(),
        Ok(Answer::Unresolved(reason)) => format!("unresolved: {reason}"),
        Ok(Answer::Rejected { kind, message }) => format!("rejected, {}: {message}", kind.name()),
        Ok(Answer::Fingerprint(Some(print))) => format!("fingerprint {}", shown(&print)),
        Ok(Answer::Fingerprint(None)) => "no fingerprint".into(),
        Err(failure) => failure.to_string(),
    };
    Outcome::Broken { left: text(left), right: text(right) }
}
