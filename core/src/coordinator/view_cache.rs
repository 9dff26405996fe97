//! Plugins' answers to the questions that reads ask, kept for the next read that asks the same.
//!
//! A question is known by its key, the plugin, the policy's epoch and configuration, and *which*
//! versions it is about; values are not hashed for it, as they may have megabytes:
//!
//! - Siblings are named by their dots, with what else the plugin is shown of each: stamp, content
//!   type, whether it is a delete, and the length of its value. A dot has one content (a second one is a hard
//!   error, reported wherever two copies meet, and a length that differs tells them apart here).
//! - Fragments are named by their claims. A claim says exactly whose values a fragment contains; two
//!   replicas that joined them in another order may hold other bytes, but by the laws of a lattice
//!   the same state, so that a join of the one serves for the other.
//!
//! What is named is what would be sent: after deletes were judged, and what has expired is a delete.
//! So an answer cannot outlive its question. Answers are what clients are *shown*; a resolution that
//! will be stored (R3) is always asked for anew. No answer, or a refusal, is not kept (R7), but for
//! a join whose value is too large.
//!
//! In: questions, answers. Out: answers. Bounded in bytes; what was used longest ago goes first.

use crate::catalog::KeyspaceEntry;
use crate::plugin::{PluginAnswer, PluginCall};
use crate::target::Target;
use crate::version::KeyState;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What an entry takes beside its value, about.
const ENTRY_BYTES: usize = 256;
/// One answer may take so much of the whole.
const SHARE_MAX: usize = 8;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    storage_key: Bytes,
    digest: [u8; 16],
}

/// See the head of this file.
#[derive(Default)]
pub(crate) struct ViewCache {
    answers: BTreeMap<Question, Cached>,
    /// By their last use.
    order: BTreeMap<u64, Question>,
    uses: u64,
    bytes: usize,
}

struct Cached {
    answer: PluginAnswer,
    used: u64,
    bytes: usize,
}

/// What `call`, about the live `state` of a key, asks. None: an answer would not serve another.
pub(super) fn question(target: &Target, state: &KeyState, call: &PluginCall) -> Option<Question> {
    let mut hasher = blake3::Hasher::new();
    policy(&mut hasher, &target.entry)?;
    match (call, state) {
        (PluginCall::Resolve { siblings, .. }, KeyState::Causal(_)) => {
            hasher.update(b"resolve");
            for sibling in siblings {
                number(&mut hasher, sibling.dots.len() as u64);
                for dot in &sibling.dots {
                    hasher.update(&dot.actor.0.to_be_bytes());
                    number(&mut hasher, dot.counter);
                }
                number(&mut hasher, sibling.stamp.millis);
                number(&mut hasher, sibling.stamp.logical.into());
                sized(&mut hasher, sibling.content.as_ref().map(Bytes::len));
                sized(&mut hasher, sibling.content_type.as_ref().map(Bytes::len));
                hasher.update(sibling.content_type.as_deref().unwrap_or_default());
            }
        }
        (PluginCall::Merge { .. }, KeyState::Lattice(fragments)) => {
            hasher.update(b"merge");
            number(&mut hasher, fragments.epoch);
            for fragment in fragments.valid() {
                let spans = fragment.claim.spans();
                number(&mut hasher, spans.len() as u64);
                for span in spans {
                    hasher.update(&span.actor.0.to_be_bytes());
                    number(&mut hasher, span.after);
                    number(&mut hasher, span.upto);
                }
            }
        }
        _ => return None,
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Some(Question { storage_key: target.storage_key.clone(), digest })
}

fn policy(hasher: &mut blake3::Hasher, entry: &KeyspaceEntry) -> Option<()> {
    hasher.update(&entry.settings.policy.plugin()?.hash.0);
    number(hasher, entry.epoch);
    number(hasher, entry.settings.plugin_config.len() as u64);
    hasher.update(&entry.settings.plugin_config);
    Some(())
}

fn number(hasher: &mut blake3::Hasher, number: u64) {
    hasher.update(&number.to_be_bytes());
}

fn sized(hasher: &mut blake3::Hasher, size: Option<usize>) {
    number(hasher, size.map_or(0, |size| size as u64 + 1));
}

impl ViewCache {
    /// The answer, if it is known.
    pub(super) fn get(&mut self, question: &Question) -> Option<PluginAnswer> {
        let cached = self.answers.get_mut(question)?;
        self.uses += 1;
        if let Some(question) = self.order.remove(&cached.used) {
            self.order.insert(self.uses, question);
        }
        cached.used = self.uses;
        Some(cached.answer.clone())
    }

    /// Keeps an answer, if it is one and is small enough.
    pub(super) fn put(&mut self, question: Question, answer: &PluginAnswer, bytes_max: usize) {
        let size = match answer {
            PluginAnswer::Value(value) => value.len(),
            PluginAnswer::Keep { value, content_type } => {
                value.len() + content_type.as_ref().map_or(0, Bytes::len)
            }
            PluginAnswer::Delete => 0,
            PluginAnswer::Unresolved(reason) => reason.len(),
            // The same operands come to no less.
            PluginAnswer::TooLarge { .. } => 0,
            PluginAnswer::Valid
            | PluginAnswer::Rejected { .. }
            | PluginAnswer::Broke(_)
            | PluginAnswer::Failed(_) => return,
        };
        let bytes = size + question.storage_key.len() + ENTRY_BYTES;
        if bytes > bytes_max / SHARE_MAX {
            return;
        }
        self.remove(&question);
        while self.bytes + bytes > bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(&oldest);
        }
        self.uses += 1;
        self.bytes += bytes;
        self.order.insert(self.uses, question.clone());
        self.answers.insert(question, Cached { answer: answer.clone(), used: self.uses, bytes });
    }

    fn remove(&mut self, question: &Question) {
        if let Some(cached) = self.answers.remove(question) {
            self.bytes -= cached.bytes;
            self.order.remove(&cached.used);
        }
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod view_cache_test;
