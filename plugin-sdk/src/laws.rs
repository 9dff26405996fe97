//! The laws of the contract, checked natively in an author's own tests.
//!
//! In come sample values; out comes the first broken law with the values that break it. The host checks the same
//! laws again when a plugin is uploaded, on the compiled module, with generated and recorded values and a shrunk
//! counterexample; here they are at hand while the code is being written. This is testing, not proof.

use std::fmt::Debug;

use crate::testing::{key, operation, siblings};
use crate::{Lattice, ReplicatedType, Resolver, Verdict};

/// A law does not hold, and for these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which law.
    pub law: &'static str,
    /// What was put in and what came out.
    pub example: String,
}

fn same<T: PartialEq + Debug>(law: &'static str, input: &[&[u8]], left: T, right: T) -> Result<(), Broken> {
    if left == right {
        return Ok(());
    }
    let input: Vec<String> = input.iter().map(|value| value.escape_ascii().to_string()).collect();
    Err(Broken { law, example: format!("for {input:?}: {left:?} is not {right:?}") })
}

/// Checks that a resolver answers alike twice, and that settling a settled key changes nothing: one value is kept as it
/// is, and two nodes that each resolved a part agree with one that saw all. Tries all pairs and triples of samples.
pub fn resolver<R: Resolver>(samples: &[&[u8]]) -> Result<(), Broken> {
    let resolve = |values: &[&[u8]]| R::resolve(&key("law"), &siblings(values));
    for &a in samples {
        same("L2: one value is kept as it is", &[a], kept(resolve(&[a])), Some(a.to_vec()))?;
        for &b in samples {
            same("L0: the same answer twice", &[a, b], resolve(&[a, b]), resolve(&[a, b]))?;
            for &c in samples {
                let whole = resolve(&distinct(&[a, b, c]));
                let parts = (resolve(&distinct(&[a, b])), resolve(&distinct(&[b, c])));
                if let (Verdict::Keep(left), Verdict::Keep(right)) = parts {
                    // The samples have no content type, and a value that is left alone keeps its own.
                    let settled = kept(resolve(&distinct(&[&left.value, &right.value])));
                    same("L4: settled in parts or at once", &[a, b, c], settled, kept(whole))?;
                }
            }
        }
    }
    Ok(())
}

/// The bytes that are kept.
fn kept(verdict: Verdict) -> Option<Vec<u8>> {
    match verdict {
        Verdict::Keep(kept) => Some(kept.value),
        Verdict::Delete | Verdict::Unresolved(_) => None,
    }
}

/// The host shows equal bytes once.
fn distinct<'a>(values: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let mut seen: Vec<&[u8]> = Vec::new();
    for value in values {
        if !seen.contains(value) {
            seen.push(value);
        }
    }
    seen
}

/// Checks that merging is commutative, associative and idempotent, over all triples of samples, which must be valid
/// states. States are compared by their fingerprints where there are any.
pub fn lattice<L: Lattice>(samples: &[&[u8]]) -> Result<(), Broken> {
    join(samples, &|states| L::merge(&key("law"), states).ok(), &|state| {
        L::fingerprint(&key("law"), state).ok().flatten().unwrap_or_else(|| state.to_vec())
    })
}

/// As [`lattice`], and that an operation only ever adds to a state, and that a retry changes nothing.
pub fn replicated_type<T: ReplicatedType>(samples: &[&[u8]], operations: &[&[u8]]) -> Result<(), Broken> {
    let merge = |states: &[Vec<u8>]| T::merge(&key("law"), states).ok();
    let meaning =
        |state: &[u8]| T::fingerprint(&key("law"), state).ok().flatten().unwrap_or_else(|| state.to_vec());
    join(samples, &merge, &meaning)?;
    let meaning_of = |state: Option<Vec<u8>>| state.as_deref().map(meaning);
    for (counter, &op) in (1..).zip(operations) {
        let mut operation = operation(op, u64::MAX, counter);
        operation.op_id = b"once".into();
        let apply = |state: Option<&[u8]>| T::apply(&key("law"), state, &operation).ok();
        for before in samples.iter().map(|&state| Some(state)).chain([None]) {
            let Some(after) = apply(before) else { continue };
            let input = [before.unwrap_or_default(), op];
            if let Some(before) = before {
                let joined = merge(&[before.to_vec(), after.clone()]);
                same("L5: operations only add", &input, meaning_of(joined), Some(meaning(&after)))?;
            }
            let mut again = operation.clone();
            (again.dot.counter, again.previous) = (counter + 1000, counter);
            let retried = T::apply(&key("law"), Some(&after), &again);
            same("a retry changes nothing", &input, meaning_of(retried.ok()), Some(meaning(&after)))?;
        }
    }
    Ok(())
}

type Merge<'a> = &'a dyn Fn(&[Vec<u8>]) -> Option<Vec<u8>>;

fn join(samples: &[&[u8]], merge: Merge<'_>, meaning: &dyn Fn(&[u8]) -> Vec<u8>) -> Result<(), Broken> {
    let merge2 = |a: &[u8], b: &[u8]| merge(&[a.to_vec(), b.to_vec()]);
    let meaning_of = |state: Option<Vec<u8>>| state.as_deref().map(meaning);
    for &a in samples {
        same("L2: merge(a, a) = a", &[a], meaning_of(merge2(a, a)), Some(meaning(a)))?;
        for &b in samples {
            let ab = merge2(a, b);
            same("L1: merge(a, b) = merge(b, a)", &[a, b], meaning_of(ab.clone()), meaning_of(merge2(b, a)))?;
            for &c in samples {
                let left = ab.as_deref().and_then(|ab| merge2(ab, c));
                let right = merge2(b, c).and_then(|bc| merge2(a, &bc));
                let tree = "L3: merge(merge(a, b), c) = merge(a, merge(b, c))";
                same(tree, &[a, b, c], meaning_of(left.clone()), meaning_of(right))?;
                let at_once = merge(&[a.to_vec(), b.to_vec(), c.to_vec()]);
                same("L3: all at once or one by one", &[a, b, c], meaning_of(left), meaning_of(at_once))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyInfo, Rejection, Sibling};

    struct Max;
    impl Resolver for Max {
        fn resolve(_: &KeyInfo, siblings: &[Sibling]) -> Verdict {
            match siblings.iter().filter_map(Sibling::value).max() {
                Some(value) => Verdict::keep(value),
                None => Verdict::Delete,
            }
        }
    }

    struct Concatenation;
    impl Resolver for Concatenation {
        fn resolve(_: &KeyInfo, siblings: &[Sibling]) -> Verdict {
            Verdict::keep(siblings.iter().filter_map(Sibling::value).collect::<Vec<_>>().concat())
        }
    }
    impl Lattice for Concatenation {
        fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
            Ok(states.concat())
        }
    }
    impl Lattice for Max {
        fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
            states.iter().max().cloned().ok_or_else(|| Rejection::malformed("no states"))
        }
    }

    #[test]
    fn lawful_plugins_pass() {
        assert_eq!(resolver::<Max>(&[b"a", b"b", b"cc"]), Ok(()));
        assert_eq!(lattice::<Max>(&[b"a", b"b", b"cc"]), Ok(()));
    }

    #[test]
    fn a_broken_law_comes_with_its_values() {
        let broken = resolver::<Concatenation>(&[b"a", b"b", b"c"]).unwrap_err();
        assert!(broken.law.starts_with("L4"), "{broken:?}");
        let broken = lattice::<Concatenation>(&[b"a", b"b"]).unwrap_err();
        assert!(broken.law.starts_with("L2") && broken.example.contains("\"a\""), "{broken:?}");
    }
}
