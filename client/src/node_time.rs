//! What this client knows of a node's own time: until when an attempt is worth something there.
//!
//! A request may lie in the socket of a node that stands still, or in the network. This client gives it up and asks
//! another node; carried out late, it would be a second effect. So each write says until when somebody waits for it, by the time
//! of the node that it goes to. In: a node's answers to `Now`. Out: moments of that node, rather too early than too late: by as
//! much as the answer took. Absent: wall clocks, which need not agree.

use merganser_proto::v1;
use std::time::Duration;
use tokio::time::Instant;

/// Asked anew after so long: until then clocks drift apart by some milliseconds at most.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// Of no use after so long.
const KNOWN_FOR: Duration = Duration::from_secs(300);

/// See the head of this file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeTime {
    told: v1::Moment,
    /// When it was told, by this client's time.
    at: Instant,
}

impl NodeTime {
    /// Just told.
    pub(crate) fn new(told: v1::Moment) -> NodeTime {
        NodeTime { told, at: Instant::now() }
    }

    /// That of the node at an instant of this client, or a little before.
    pub(crate) fn moment(&self, at: Instant) -> v1::Moment {
        let since = at.saturating_duration_since(self.at).as_millis() as u64;
        v1::Moment { running_ms: self.told.running_ms.saturating_add(since), ..self.told }
    }

    /// Whether it is time to ask again.
    pub(crate) fn is_stale(&self) -> bool {
        self.at.elapsed() > FRESH_FOR
    }

    /// Whether it says nothing any more.
    pub(crate) fn is_too_old(&self) -> bool {
        self.at.elapsed() > KNOWN_FOR
    }
}
