//! One thing that goes wrong a hundred thousand times is told a few times, and counted.
//!
//! In: log events, each from its place in the program. Out: which of them are told, and how many of a place were
//! kept back. Debug and trace levels are told whole: whoever asked for them wants them. Lines of plugins, whose place
//! is one for all plugins, are bounded where they are made. Absent: what the lines say.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;

/// Lines of one place that are told in one period.
const TOLD_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);
/// The target of the lines of plugins.
const PLUGIN_TARGET: &str = "merganser::plugin";

/// What was said lately, by place.
#[derive(Default)]
pub(super) struct Flood {
    places: Mutex<HashMap<Identifier, Place>>,
}

struct Place {
    since: Instant,
    told: u32,
    kept: u64,
    line: String,
    target: &'static str,
}

/// Lines of one place that were not told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The first of them, without its fields.
    pub(super) line: String,
    pub(super) target: &'static str,
    pub(super) count: u64,
}

impl Flood {
    fn may_tell(
        &self,
        now: Instant,
        place: Identifier,
        target: &'static str,
        line: impl FnOnce() -> String,
    ) -> bool {
        let mut places = self.places.lock();
        let place = places.entry(place).or_insert_with(|| Place {
            since: now,
            told: 0,
            kept: 0,
            line: String::new(),
            target,
        });
        if place.kept == 0 && now.duration_since(place.since) >= PERIOD {
            (place.since, place.told) = (now, 0);
        }
        if place.told < TOLD_MAX {
            place.told += 1;
            return true;
        }
        if place.kept == 0 {
            place.line = line();
        }
        place.kept += 1;
        false
    }

    /// What was kept back in periods that are over; it counts as told from here on.
    pub(super) fn kept_back(&self, now: Instant) -> Vec<Kept> {
        let mut places = self.places.lock();
        let over = |place: &&mut Place| place.kept > 0 && now.duration_since(place.since) >= PERIOD;
        let take = |place: &mut Place| {
            let (line, count) = (std::mem::take(&mut place.line), std::mem::take(&mut place.kept));
            (place.since, place.told) = (now, 0);
            Kept { line, target: place.target, count }
        };
        places.values_mut().filter(over).map(take).collect()
    }
}

/// Asks before each event.
pub(super) struct Layer(pub(super) Arc<Flood>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let place = event.metadata();
        if *place.level() > Level::INFO || place.target() == PLUGIN_TARGET {
            return true;
        }
        let line = || {
            let mut message = Message::default();
            event.record(&mut message);
            message.0
        };
        self.0.may_tell(Instant::now(), place.callsite(), place.target(), line)
    }
}

/// The message among an event's fields.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// Counts the events that get through.
    #[derive(Clone, Default)]
    struct Through(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Through {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut message = Message::default();
            event.record(&mut message);
            self.0.lock().push(message.0);
        }
    }

    #[test]
    fn a_hundred_thousand_lines_of_one_place_are_told_in_twenty_and_one() {
        let (flood, through) = (Arc::new(Flood::default()), Through::default());
        let subscriber = tracing_subscriber::registry().with(Layer(Arc::clone(&flood))).with(through.clone());
        tracing::subscriber::with_default(subscriber, || {
            for key in 0..100_000 {
                tracing::error!(key, "corrupt_record");
                if key % 10_000 == 0 {
                    // Other places are not kept back for it, nor are lines that somebody asked for.
                    tracing::info!("another");
                    tracing::debug!(key, "detail");
                }
            }
            for _ in 0..100 {
                tracing::debug!("detail");
                tracing::warn!(target: PLUGIN_TARGET, "of a plugin");
            }
        });
        let count = |line: &str| through.0.lock().iter().filter(|told| *told == line).count();
        assert_eq!(count("corrupt_record"), TOLD_MAX as usize);
        assert_eq!((count("another"), count("detail"), count("of a plugin")), (10, 110, 100));
        let now = Instant::now();
        assert_eq!(flood.kept_back(now), [], "the period is not over");
        let kept = flood.kept_back(now + PERIOD);
        let counts: Vec<(&str, u64)> = kept.iter().map(|kept| (kept.line.as_str(), kept.count)).collect();
        assert_eq!(counts, [("corrupt_record", 100_000 - u64::from(TOLD_MAX))]);
        assert_eq!(flood.kept_back(now + 2 * PERIOD), [], "told once");
    }

    #[test]
    fn a_place_that_was_quiet_for_a_period_may_speak_again() {
        let (flood, through) = (Arc::new(Flood::default()), Through::default());
        let subscriber = tracing_subscriber::registry().with(Layer(Arc::clone(&flood))).with(through);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..=TOLD_MAX {
                tracing::warn!("again");
            }
        });
        let place = flood.places.lock().keys().next().cloned().expect("one place");
        let now = Instant::now();
        let may = |now| flood.may_tell(now, place.clone(), "", String::new);
        assert!(!may(now + PERIOD), "what was kept back is told first");
        assert_eq!(flood.kept_back(now + PERIOD).len(), 1);
        assert!(may(now + PERIOD));
    }
}
