//! C15 of `lww-map`: a field shows a held write of it that no other held write of it had seen.
//!
//! In: what a state holds, and its reading. Which of several concurrent writes wins is the type's own; that all replicas
//! agree is C6's.

use super::{Check, broken};
use crate::models::{Held, Models, TypeOp, place_name};
use crate::sim::PLACES;

pub(super) fn on_reading(models: &Models, held: &Held, reading: &str) -> Check {
    for place in 0..PLACES {
        let name = place_name(place);
        let shown = value_of(reading, &name);
        let candidates = models.candidates(held, place);
        let fits = |write: &&TypeOp| match write {
            TypeOp::Set(_, value) => shown == Some(*value),
            _ => shown.is_none(),
        };
        let holds = if candidates.is_empty() { shown.is_none() } else { candidates.iter().any(fits) };
        if !holds {
            let text = format!("{name} should show one of {candidates:?}, and the map says {reading}");
            return broken("C15", text);
        }
    }
    Ok(())
}

/// The number behind a field's name in `{"e0":1,"e1":2}`.
fn value_of(reading: &str, name: &str) -> Option<u64> {
    let (_, rest) = reading.split_once(&format!("\"{name}\":"))?;
    let end = rest.find([',', '}'])?;
    rest[..end].parse().ok()
}
