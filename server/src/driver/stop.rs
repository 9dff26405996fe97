//! Stopping in order: clients' requests first, then what peers asked, then the marker.
//!
//! ```text
//!   Stop ─▶ no client waits, or half the time is up ─▶ links closed
//!        ─▶ nothing in flight: clean marker │ time is up: none, the next boot takes a new actor
//! ```

use super::Driver;
use merganser_core::event::WriteOp;
use merganser_core::id::Millis;
use merganser_core::membership::RejoinReason;

/// A stop that is under way.
pub(crate) struct Stopping {
    /// Of the present phase.
    pub(super) deadline: Millis,
    /// The first phase is over.
    pub(super) links_closed: bool,
    phase_ms: u64,
    failed: Option<merganser_storage::Error>,
}

/// How the driver ended.
pub(crate) enum Stopped {
    /// With nothing in flight: write this, synced, as the last.
    Clean(WriteOp),
    /// With something in flight, which a peer may or may not hold.
    Unclean,
    /// The disk failed.
    Failed(merganser_storage::Error),
    /// This disk may not be used again.
    RejoinEmpty(RejoinReason),
}

impl Driver {
    pub(super) fn begin_stop(&mut self, now: Millis, drain_ms: u64) {
        if self.under_way.stopping.is_none() {
            let phase_ms = drain_ms / 2;
            self.under_way.stopping =
                Some(Stopping { deadline: now.after(phase_ms), links_closed: false, phase_ms, failed: None });
        }
    }

    pub(super) fn storage_stopped(&mut self, error: merganser_storage::Error) {
        tracing::error!(%error, "storage_stopped");
        let stopping =
            Stopping { deadline: Millis(0), links_closed: false, phase_ms: 0, failed: Some(error) };
        self.under_way.stopping = Some(stopping);
    }

    /// Whether the node has come to an end, looked at after each turn.
    pub(super) fn stopped(&mut self, now: Millis) -> Option<super::Stopped> {
        if let Some(reason) = self.under_way.rejoin_empty {
            self.close_links(now);
            return Some(Stopped::RejoinEmpty(reason));
        }
        let waits = !self.under_way.clients.is_empty() || !self.under_way.operators.is_empty();
        let stopping = self.under_way.stopping.as_mut()?;
        if let Some(error) = stopping.failed.take() {
            return Some(Stopped::Failed(error));
        }
        if !stopping.links_closed {
            if waits && now < stopping.deadline {
                return None;
            }
            stopping.links_closed = true;
            stopping.deadline = now.after(stopping.phase_ms);
            self.close_links(now);
            self.apply(now);
        }
        if let Some(marker) = self.node.clean_marker() {
            return Some(Stopped::Clean(marker));
        }
        let late = self.under_way.stopping.as_ref().is_some_and(|stopping| now >= stopping.deadline);
        late.then_some(Stopped::Unclean)
    }
}
