//! What clients do to versions and registers: read, put on top of what they saw, put blindly,
//! delete, and put again without reading in between.

use super::{Intent, Worker, context, keyspaces::Space};
use crate::check::Kind;
use crate::history::{Act, Saw, value};
use merganser_client::Dot;
use rand::Rng;

impl Worker {
    /// Returns how many requests it took.
    pub(super) async fn versioned(&mut self, space: &'static Space, key: &str) -> u64 {
        let size = if self.dice.random_bool(0.05) { 16_000 } else { self.dice.random_range(40..800) };
        let id = self.id();
        let bytes = value(id, space.name, key, size);
        match self.dice.random_range(0..100) {
            0..35 => {
                self.read(space, key).await;
                1
            }
            35..50 => {
                let ttl = self.ttl(space);
                let intent = Intent { ttl, ..Intent::new(id, Act::Put, Vec::new()) };
                self.write(space, key, intent, self.keys(space, ttl).put_blind(key, bytes)).await;
                1
            }
            50..60 => self.delete(space, key, id).await,
            _ => self.update(space, key, id, bytes).await,
        }
    }

    async fn update(&mut self, space: &'static Space, key: &str, id: u64, bytes: Vec<u8>) -> u64 {
        let Some(look) = self.read(space, key).await else { return 1 };
        let mut seen = dots(&look.saw);
        let ttl = self.ttl(space);
        let keys = self.keys(space, ttl);
        let intent = Intent { ttl, ..Intent::new(id, Act::Put, seen.clone()) };
        let written = match look.context.is_empty() {
            true => self.write(space, key, intent, keys.put_blind(key, bytes)).await,
            false => {
                let context = context(&look);
                self.write(space, key, intent, keys.put(key, bytes, &context)).await
            }
        };
        // Its answer's context covers what was seen and the write itself.
        let Some(written) = written else { return 2 };
        let Some(dot) = written.dot.filter(|_| self.dice.random_bool(0.3)) else { return 2 };
        seen.push(dot);
        let id = self.id();
        let bytes = value(id, space.name, key, 60);
        let intent = Intent { ttl, ..Intent::new(id, Act::Put, seen) };
        self.write(space, key, intent, keys.put(key, bytes, &written.context)).await;
        3
    }

    async fn delete(&mut self, space: &'static Space, key: &str, id: u64) -> u64 {
        let keys = self.keys(space, None);
        if space.kind == Kind::Lww && self.dice.random_bool(0.5) {
            let intent = Intent::new(id, Act::Delete, Vec::new());
            self.write(space, key, intent, keys.delete_blind(key)).await;
            return 1;
        }
        let Some(look) = self.read(space, key).await else { return 1 };
        if look.context.is_empty() {
            return 1;
        }
        let intent = Intent::new(id, Act::Delete, dots(&look.saw));
        let context = context(&look);
        self.write(space, key, intent, keys.delete(key, &context)).await;
        2
    }
}

fn dots(saw: &Saw) -> Vec<Dot> {
    match saw {
        Saw::Versions(shown) => shown.iter().flat_map(|version| version.dots.iter().copied()).collect(),
        Saw::Elements(_) | Saw::Count(_) => Vec::new(),
    }
}
