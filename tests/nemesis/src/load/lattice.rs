//! What clients do to sets and counters, and how the plugins' answers read.

use super::{Intent, Worker, keyspaces::Space};
use crate::history::{Act, Saw};
use crate::options::Load;
use merganser_client::Error;
use rand::Rng;

impl Worker {
    /// Returns how many requests it took.
    pub(super) async fn set(&mut self, space: &'static Space, key: &str) -> u64 {
        let keys = self.keys(space, None);
        let id = self.id();
        // Sets that are used throughout do not grow without end.
        let adds = if self.shared.load == Load::Exact { 40..68 } else { 40..90 };
        match self.dice.random_range(0..100) {
            0..40 => {
                self.read(space, key).await;
                1
            }
            drawn if adds.contains(&drawn) => {
                let op = format!("{{\"add\":\"{id:016x}\"}}");
                let intent = Intent::new(id, Act::Add, Vec::new());
                self.write(space, key, intent, keys.apply(key, op)).await;
                1
            }
            _ => {
                let Some(look) = self.read(space, key).await else { return 1 };
                let Saw::Elements(elements) = look.saw else { return 1 };
                if elements.is_empty() {
                    return 1;
                }
                let element = elements[self.dice.random_range(0..elements.len())];
                let op = format!("{{\"remove\":\"{element:016x}\"}}");
                let intent = Intent::new(id, Act::Remove(element), Vec::new());
                self.write(space, key, intent, keys.apply(key, op)).await;
                2
            }
        }
    }

    /// Returns how many requests it took.
    pub(super) async fn counter(&mut self, space: &'static Space, key: &str) -> u64 {
        if self.dice.random_bool(0.4) {
            self.read(space, key).await;
            return 1;
        }
        let by = self.dice.random_range(1..1000);
        let intent = Intent::new(self.id(), Act::Increment(by), Vec::new());
        self.write(space, key, intent, self.keys(space, None).apply(key, format!("+{by}"))).await;
        1
    }
}

/// The elements of an `or-set`.
pub(super) fn elements(result: &[u8]) -> Result<Vec<u64>, Error> {
    let elements: Option<Vec<String>> = serde_json::from_slice(result).ok();
    let ids = elements.into_iter().flatten().map(|element| u64::from_str_radix(&element, 16).ok());
    ids.collect::<Option<Vec<u64>>>().ok_or_else(|| odd(result))
}

/// The value of a `pn-counter`.
pub(super) fn count(result: &[u8]) -> Result<u64, Error> {
    std::str::from_utf8(result).ok().and_then(|text| text.parse().ok()).ok_or_else(|| odd(result))
}

fn odd(result: &[u8]) -> Error {
    Error::Server { code: 13, reason: format!("the plugin answered {:?}", String::from_utf8_lossy(result)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_plugins_are_read_whole_or_not_at_all() {
        assert_eq!(elements(br#"["00000000000000ff","0000000000000001"]"#).unwrap(), [255, 1]);
        assert_eq!(elements(b"[]").unwrap(), [0; 0]);
        assert!(elements(br#"["milk"]"#).is_err());
        assert_eq!(count(b"42").unwrap(), 42);
        assert!(count(b"-1").is_err() && count(b"").is_err());
    }
}
