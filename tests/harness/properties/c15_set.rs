//! C15 of `or-set`: an element is there if an addition of it is held that no held removal had seen.
//!
//! In: what a state holds, and its reading. Of an addition that was applied twice, at two coordinators, a removal may
//! have seen one copy only: there either reading is right.

use super::{Check, broken};
use crate::models::{Held, Models, place_name};
use crate::sim::PLACES;

pub(super) fn on_reading(models: &Models, held: &Held, reading: &str) -> Check {
    let (must, may) = models.elements(held, PLACES);
    for place in 0..PLACES {
        let name = place_name(place);
        let is_there = reading.contains(&format!("\"{name}\""));
        if is_there && !may.contains(&place) {
            let text = format!("every addition of {name} was seen by a removal, and the set says {reading}");
            return broken("C15", text);
        }
        if !is_there && must.contains(&place) {
            let text = format!("an addition of {name} was seen by no removal, and the set says {reading}");
            return broken("C15", text);
        }
    }
    Ok(())
}
