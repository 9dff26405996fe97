//! What a reader is shown of a state (R1, R2, R7, R8). Pure.
//!
//! In: a keyspace's policy, a joined state without what has expired, a plugin's answer. Out: what is shown, or the question
//! to ask the plugin first. Nothing is stored. Absent: quorums and contexts.

use super::key_info;
use crate::catalog::{DeleteSemantics, KeyspaceEntry, Policy};
use crate::id::Dot;
use crate::plugin::{PluginAnswer, PluginCall, PluginSibling};
use crate::replica::within_limit;
use crate::request::{CONTENT_TYPE_BYTES_MAX, Presence, Resolution, SiblingView, VALUE_BYTES_MAX, Want};
use crate::target::Target;
use crate::version::{
    Content, Counts, DotSet, Fragment, Fragments, KeyState, Register, Siblings, Stamp, expiry,
};
use bytes::Bytes;

/// Operands that are named where they are not in the value.
const NAMED_MAX: usize = 3;
const NOT_VALIDATED: &str = "not validated yet";

/// What is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) presence: Presence,
    pub(super) siblings: Vec<SiblingView>,
    pub(super) resolution: Resolution,
}

/// What is shown, or what to ask first.
pub(super) enum Shown {
    Now(View),
    Ask(PluginCall),
}

/// Siblings as they are shown: in dot order, byte-equal ones once with all of their dots (R1).
pub(super) fn shown(siblings: &Siblings) -> Vec<SiblingView> {
    let mut shown: Vec<SiblingView> = Vec::with_capacity(siblings.len());
    let mut places: Vec<usize> = Vec::with_capacity(siblings.len());
    for ((dot, version), (place, first)) in siblings.iter().zip(siblings.firsts().into_iter().enumerate()) {
        let content = version.content.value();
        match (first < place).then(|| places[first]) {
            Some(earlier) => {
                places.push(earlier);
                let earlier = &mut shown[earlier];
                earlier.dots.push(*dot);
                earlier.stamp = earlier.stamp.max(version.stamp);
                // Gone only once the last of them is.
                earlier.expires_at = match (earlier.expires_at, version.expires_at) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
            None => {
                places.push(shown.len());
                shown.push(SiblingView {
                    content: content.cloned(),
                    dots: vec![*dot],
                    stamp: version.stamp,
                    content_type: version.content_type.clone(),
                    receipt: version.receipt.clone(),
                    expires_at: version.expires_at,
                    apart: None,
                    context: Bytes::new(),
                });
            }
        }
    }
    shown
}

/// What a get of `state` answers.
pub(super) fn view(target: &Target, state: &KeyState, want: Want) -> Shown {
    match state {
        KeyState::Causal(siblings) => causal(target, siblings, want),
        KeyState::Lww(register) => Shown::Now(lww(register)),
        KeyState::Lattice(fragments) => lattice(target, fragments, want),
    }
}

/// What it answers once the plugin has spoken.
pub(super) fn answered(entry: &KeyspaceEntry, state: &KeyState, answer: PluginAnswer) -> View {
    let Some(plugin) = entry.settings.policy.plugin() else { return nothing() };
    let (plugin, epoch) = (plugin.hash, entry.epoch);
    let candidates = match state {
        KeyState::Causal(siblings) => candidates(entry, siblings),
        KeyState::Lattice(fragments) => return lattice_answered(entry, fragments, answer),
        KeyState::Lww(_) => Vec::new(),
    };
    let resolution = Resolution::Resolved { plugin, epoch };
    let settled = match answer {
        PluginAnswer::Value(value) if matches!(state, KeyState::Lattice(_)) => Ok((value, None)),
        answer => settled(answer, &candidates),
    };
    match settled {
        Ok((value, content_type)) => {
            let mut dots: Vec<_> =
                candidates.iter().flat_map(|sibling| sibling.dots.iter().copied()).collect();
            dots.sort_unstable();
            let stamp = candidates.iter().map(|sibling| sibling.stamp).max().unwrap_or_default();
            let expires_at = match state {
                KeyState::Causal(siblings) => {
                    expiry::of_resolution(siblings.iter().map(|(_, version)| version))
                }
                _ => None,
            };
            let merged = SiblingView {
                content: Some(value),
                dots,
                stamp,
                content_type,
                receipt: None,
                expires_at,
                apart: None,
                context: Bytes::new(),
            };
            View { presence: Presence::Found, siblings: vec![merged], resolution }
        }
        Err(PluginAnswer::Delete) => View { presence: Presence::Deleted, siblings: Vec::new(), resolution },
        Err(other) => {
            let reason = reason(other);
            let resolution = Resolution::Unresolved { reason, plugin, epoch };
            View { presence: Presence::Found, siblings: candidates, resolution }
        }
    }
}

/// The value and content type that a resolver settled on, or what it answered instead. What is shown and what an owner
/// stores is told here, so that both are the same (R4).
pub(super) fn settled(
    answer: PluginAnswer,
    shown: &[SiblingView],
) -> Result<(Bytes, Option<Bytes>), PluginAnswer> {
    match answer {
        PluginAnswer::Keep { content_type: Some(named), .. } if named.len() > CONTENT_TYPE_BYTES_MAX => {
            let reason =
                format!("its content type has {} bytes, allowed are {CONTENT_TYPE_BYTES_MAX}", named.len());
            Err(PluginAnswer::Failed(reason))
        }
        // A client could not have written it either.
        PluginAnswer::Keep { value, .. } if value.len() > VALUE_BYTES_MAX => Err(PluginAnswer::TooLarge {
            size_bytes: value.len() as u64,
            limit_bytes: VALUE_BYTES_MAX as u64,
        }),
        PluginAnswer::Keep { value, content_type: Some(named) } => Ok((value, Some(named))),
        PluginAnswer::Keep { value, content_type: None } => {
            let mut types = shown.iter().filter(|sibling| sibling.content.is_some());
            let first = types.next().and_then(|sibling| sibling.content_type.clone());
            let agreed = first.filter(|first| types.all(|other| other.content_type.as_ref() == Some(first)));
            Ok((value, agreed))
        }
        other => Err(other),
    }
}

/// Why an answer is none.
pub(crate) fn reason(answer: PluginAnswer) -> String {
    match answer {
        PluginAnswer::Unresolved(reason) | PluginAnswer::Failed(reason) | PluginAnswer::Broke(reason) => {
            reason
        }
        PluginAnswer::TooLarge { size_bytes, limit_bytes } => {
            format!("merged value too large: {size_bytes} bytes, the limit is {limit_bytes}")
        }
        PluginAnswer::Rejected { kind, message } => format!("{kind}: {message}"),
        other => format!("an answer to another question: {other:?}"),
    }
}

fn nothing() -> View {
    View { presence: Presence::NotFound, siblings: Vec::new(), resolution: Resolution::NoneNeeded }
}

/// What the delete semantics leave for people and plugins to choose from (R8).
fn candidates(entry: &KeyspaceEntry, siblings: &Siblings) -> Vec<SiblingView> {
    let all = shown(siblings);
    match entry.settings.delete_semantics {
        DeleteSemantics::PluginDecides => all,
        DeleteSemantics::DeleteWins if all.iter().any(|sibling| sibling.content.is_none()) => Vec::new(),
        DeleteSemantics::UpdateWins | DeleteSemantics::DeleteWins => {
            all.into_iter().filter(|sibling| sibling.content.is_some()).collect()
        }
    }
}

fn causal(target: &Target, siblings: &Siblings, want: Want) -> Shown {
    let entry = &target.entry;
    if siblings.is_empty() {
        // Seen something, and none of it is live: all of it has expired.
        let presence = if siblings.seen().is_empty() { Presence::NotFound } else { Presence::Deleted };
        return Shown::Now(View { presence, ..nothing() });
    }
    let any_value = siblings.values().next().is_some();
    if want == Want::Siblings {
        let presence = if any_value { Presence::Found } else { Presence::Deleted };
        let all = shown(siblings);
        let resolution = if all.len() > 1 { Resolution::Siblings } else { Resolution::NoneNeeded };
        return Shown::Now(View { presence, siblings: all, resolution });
    }
    let candidates = candidates(entry, siblings);
    match (&entry.settings.policy, candidates.len()) {
        (_, 0) => Shown::Now(View { presence: Presence::Deleted, ..nothing() }),
        (_, 1) => {
            let deleted = candidates[0].content.is_none();
            let (presence, siblings) =
                if deleted { (Presence::Deleted, Vec::new()) } else { (Presence::Found, candidates) };
            Shown::Now(View { presence, siblings, resolution: Resolution::NoneNeeded })
        }
        (Policy::Resolver(_), _) => {
            let siblings = candidates
                .into_iter()
                .map(|sibling| PluginSibling {
                    dots: sibling.dots,
                    stamp: sibling.stamp,
                    content: sibling.content,
                    content_type: sibling.content_type,
                })
                .collect();
            Shown::Ask(PluginCall::Resolve { key: key_info(target), siblings })
        }
        _ => Shown::Now(View {
            presence: Presence::Found,
            siblings: candidates,
            resolution: Resolution::Siblings,
        }),
    }
}

fn lww(register: &Register) -> View {
    match &register.winner {
        None => nothing(),
        Some((_, version)) if version.content == Content::Tombstone => {
            View { presence: Presence::Deleted, ..nothing() }
        }
        Some((dot, version)) => {
            let winner = SiblingView {
                content: version.content.value().cloned(),
                dots: vec![*dot],
                stamp: version.stamp,
                content_type: version.content_type.clone(),
                receipt: None,
                expires_at: version.expires_at,
                apart: None,
                context: Bytes::new(),
            };
            View { presence: Presence::Found, siblings: vec![winner], resolution: Resolution::NoneNeeded }
        }
    }
}

/// Fragments as they are shown where they could not be joined.
fn operands<'a>(entry: &KeyspaceEntry, fragments: impl Iterator<Item = &'a Fragment>) -> Vec<SiblingView> {
    fragments.map(|fragment| operand(entry, fragment)).collect()
}

fn operand(entry: &KeyspaceEntry, fragment: &Fragment) -> SiblingView {
    SiblingView {
        content: Some(fragment.value.clone()),
        dots: last_dots(&fragment.claim),
        stamp: Stamp::default(),
        content_type: None,
        receipt: None,
        expires_at: None,
        apart: match fragment.standing.counts(entry.epoch) {
            Counts::Valid => None,
            Counts::Unvalidated => Some(NOT_VALIDATED.to_owned()),
            Counts::Aside(reason) => Some(format!("set aside: {reason}")),
        },
        context: Bytes::new(),
    }
}

/// The last dot of each actor whose puts a fragment contains.
fn last_dots(claim: &DotSet) -> Vec<Dot> {
    let mut dots: Vec<Dot> = Vec::new();
    for span in claim.spans() {
        match dots.last_mut() {
            Some(last) if last.actor == span.actor => last.counter = span.upto,
            _ => dots.push(Dot { actor: span.actor, counter: span.upto }),
        }
    }
    dots
}

fn lattice(target: &Target, fragments: &Fragments, want: Want) -> Shown {
    let entry = &target.entry;
    if fragments.is_empty() {
        let presence = if fragments.is_unwritten() { Presence::NotFound } else { Presence::Deleted };
        return Shown::Now(View { presence, ..nothing() });
    }
    if want == Want::Siblings {
        let mut siblings = operands(entry, fragments.iter());
        siblings.iter_mut().for_each(|sibling| sibling.stamp = fragments.stamp);
        let resolution = match siblings.len() > 1 || siblings.iter().any(|sibling| sibling.apart.is_some()) {
            true => Resolution::Siblings,
            false => Resolution::NoneNeeded,
        };
        return Shown::Now(View { presence: Presence::Found, siblings, resolution });
    }
    let states: Vec<_> = fragments.valid().map(|fragment| fragment.value.clone()).collect();
    match states.len() {
        0 | 1 => {
            let mut view = View {
                presence: Presence::Found,
                siblings: operands(entry, fragments.valid()),
                resolution: Resolution::NoneNeeded,
            };
            view.siblings.iter_mut().for_each(|sibling| sibling.stamp = fragments.stamp);
            Shown::Now(with_apart(entry, fragments, view))
        }
        _ => Shown::Ask(PluginCall::Merge { key: key_info(target), states }),
    }
}

/// What a lattice's get answers once its valid fragments are joined, or are not.
fn lattice_answered(entry: &KeyspaceEntry, fragments: &Fragments, answer: PluginAnswer) -> View {
    let Some(plugin) = entry.settings.policy.plugin() else { return nothing() };
    let (plugin, epoch) = (plugin.hash, entry.epoch);
    match within_limit(answer) {
        PluginAnswer::Value(value) => {
            let claims = DotSet::union(fragments.valid().map(|fragment| &fragment.claim));
            let merged = SiblingView {
                content: Some(value),
                dots: last_dots(&claims),
                stamp: fragments.stamp,
                content_type: None,
                receipt: None,
                expires_at: None,
                apart: None,
                context: Bytes::new(),
            };
            let resolution = Resolution::Resolved { plugin, epoch };
            let view = View { presence: Presence::Found, siblings: vec![merged], resolution };
            with_apart(entry, fragments, view)
        }
        other => {
            let reason = reason(other);
            let siblings = operands(entry, fragments.iter());
            let resolution = Resolution::Unresolved { reason, plugin, epoch };
            View { presence: Presence::Found, siblings, resolution }
        }
    }
}

/// What a query's reader is told of operands that the state lacks which was asked.
pub(super) fn of_query(entry: &KeyspaceEntry, state: &KeyState) -> Resolution {
    match state {
        KeyState::Lattice(fragments) => with_apart(entry, fragments, nothing()).resolution,
        _ => Resolution::NoneNeeded,
    }
}

/// The view of what is joined, and the names of what is not (R7).
fn with_apart(entry: &KeyspaceEntry, fragments: &Fragments, mut view: View) -> View {
    let apart = operands(entry, fragments.unjoined());
    let Some(plugin) = entry.settings.policy.plugin().filter(|_| !apart.is_empty()) else { return view };
    let named = apart.iter().take(NAMED_MAX).map(|operand| {
        let dot = operand.dots.last().map(Dot::to_string).unwrap_or_default();
        format!("{dot} ({})", operand.apart.as_deref().unwrap_or_default())
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match apart.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let reason = format!("not in the value: {named}{more}");
    view.resolution = Resolution::Unresolved { reason, plugin: plugin.hash, epoch: entry.epoch };
    // Shown after the value: the read's context covers them, and a delete with that context removes them.
    view.siblings.extend(apart);
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorId;

    fn sibling(actor: u64, content: Option<&'static str>, content_type: Option<&'static str>) -> SiblingView {
        SiblingView {
            content: content.map(Bytes::from),
            dots: vec![Dot { actor: ActorId(actor), counter: 1 }],
            stamp: Stamp::default(),
            content_type: content_type.map(Bytes::from),
            receipt: None,
            expires_at: None,
            apart: None,
            context: Bytes::new(),
        }
    }

    fn typed(named: Option<&'static str>, shown: &[SiblingView]) -> Option<Bytes> {
        let answer =
            PluginAnswer::Keep { value: Bytes::from("merged"), content_type: named.map(Bytes::from) };
        settled(answer, shown).expect("it settles").1
    }

    #[test]
    fn a_resolution_obeys_the_limit_of_clients() {
        let keep = |size| PluginAnswer::Keep { value: Bytes::from(vec![1; size]), content_type: None };
        assert!(settled(keep(VALUE_BYTES_MAX), &[]).is_ok());
        assert!(matches!(settled(keep(VALUE_BYTES_MAX + 1), &[]), Err(PluginAnswer::TooLarge { .. })));
    }

    #[test]
    fn a_resolution_has_the_type_that_its_plugin_names_or_that_all_values_have() {
        let (json, image) = ("application/json", "image/png");
        let alike = [sibling(1, Some("a"), Some(json)), sibling(2, Some("b"), Some(json))];
        let mixed = [sibling(1, Some("a"), Some(image)), sibling(2, Some("b"), Some(json))];
        let bare = [sibling(1, Some("a"), Some(json)), sibling(2, Some("b"), None)];
        let deleted = [sibling(1, None, None), sibling(2, Some("b"), Some(json))];
        assert_eq!(typed(Some(image), &alike), Some(Bytes::from(image)));
        assert_eq!(typed(None, &alike), Some(Bytes::from(json)));
        assert_eq!(typed(None, &mixed), None, "merged JSON is no image");
        assert_eq!(typed(None, &bare), None);
        assert_eq!(typed(None, &deleted), Some(Bytes::from(json)));
    }

    #[test]
    fn a_type_that_no_client_could_have_given_is_no_answer() {
        let content_type = Some(Bytes::from(vec![b'x'; CONTENT_TYPE_BYTES_MAX + 1]));
        let answer = PluginAnswer::Keep { value: Bytes::new(), content_type };
        let refused = settled(answer, &[sibling(1, Some("a"), None)]);
        assert!(
            matches!(&refused, Err(PluginAnswer::Failed(reason)) if reason.contains("256 bytes")),
            "{refused:?}"
        );
    }
}
