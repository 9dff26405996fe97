//! Why members are not linked, for whoever looks at the cluster's status, and for a log that does not say it twice a second.
//!
//! In: handshakes that failed. Out: the last reason of each member; whether a reason is news. Absent: the reasons, which
//! are the handshake's.

use merganser_core::id::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A reason is logged again after so long.
const QUIET: Duration = Duration::from_secs(60);
/// Strangers make up names as they like.
const REASONS_MAX: usize = 64;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    of_members: BTreeMap<NodeId, String>,
    logged: BTreeMap<String, Instant>,
}

impl Refusals {
    /// A link was refused, here or by the other side; whether to log it.
    pub(super) fn note(&self, member: Option<NodeId>, reason: &str) -> bool {
        let mut known = self.0.lock();
        if let Some(member) = member {
            known.of_members.insert(member, reason.to_owned());
        }
        let now = Instant::now();
        known.logged.retain(|_, at| now.duration_since(*at) < QUIET);
        let is_news = !known.logged.contains_key(reason) && known.logged.len() < REASONS_MAX;
        if is_news {
            known.logged.insert(reason.to_owned(), now);
        }
        is_news
    }

    /// A member is linked.
    pub(super) fn linked(&self, member: NodeId) {
        self.0.lock().of_members.remove(&member);
    }

    /// Why the last link with a member was refused; None: it was not, or is linked since.
    pub(crate) fn of(&self, member: NodeId) -> Option<String> {
        self.0.lock().of_members.get(&member).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_news_once_a_minute_and_a_members_last_one_is_known_until_it_is_linked() {
        let refusals = Refusals::default();
        let member = NodeId(7);
        assert!(refusals.note(Some(member), "weights"));
        assert!(!refusals.note(Some(member), "weights"));
        assert!(refusals.note(Some(member), "zones"));
        assert_eq!(refusals.of(member).as_deref(), Some("zones"));
        tokio::time::advance(QUIET).await;
        assert!(refusals.note(None, "weights"));
        refusals.linked(member);
        assert_eq!(refusals.of(member), None);
    }
}
