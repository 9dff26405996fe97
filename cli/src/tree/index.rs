//! The list of an import, kept in the keyspace itself, so that any machine can export.
//!
//! ```text
//! .merganser/import/NAME/head        a manifest of the parts
//! .merganser/import/NAME/<blake3>    a manifest of keys, at most 512 KiB
//! ```
//!
//! Parts are named by their content and written before the head, so that a head never names a
//! part that is not there, however the import ends. All of it is read as siblings, so that no
//! plugin makes anything of it. In: entries. Out: the same; several heads
//! of concurrent imports count together. Absent: removal of parts that no head names any more.

use super::{
    manifest::{self, Entries, HEADER, Stored},
    paths::RESERVED,
};
use crate::failure::Failure;
use anyhow::{Context as _, Result};
use merganser_client::{Entry, Keyspace, State, VALUE_BYTES_MAX};

/// Parts stay well below what a value may have.
const PART_BYTES_MAX: usize = VALUE_BYTES_MAX / 2;

/// A name that fits into a key, with a hash behind it.
pub(super) fn name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.len() {
        1..=64 if text.chars().all(allowed) => Ok(text.to_owned()),
        _ => Err("1 to 64 letters, digits, `-`, `_` or `.`".into()),
    }
}

fn key(name: &str, part: &str) -> String {
    format!("{RESERVED}import/{name}/{part}")
}

/// Adds `entries` to what the index holds.
pub(super) async fn store(keys: &Keyspace, name: &str, mut entries: Entries) -> Result<()> {
    let mut head = keys.get_siblings(key(name, "head")).await.context("failed to read the index")?;
    let mut all = read_all(keys, name, &head).await?;
    all.append(&mut entries);
    let mut parts = Entries::new();
    for part in split(&all) {
        let stored = Stored::of(part.as_bytes());
        let hex = stored.blake3.to_hex();
        let mut entry = keys.get_siblings(key(name, &hex)).await?;
        if entry.state() != State::Found {
            entry.put(part).await.context("failed to store a part of the index")?;
        }
        parts.insert(hex.to_string(), stored);
    }
    let lines: String = parts.iter().map(|(part, stored)| manifest::line(part, stored)).collect();
    let text = HEADER.to_owned() + &lines;
    head.put(text).await.context("failed to store the index")?;
    Ok(())
}

/// What the index lists; an error that says so if there is none.
pub(super) async fn load(keys: &Keyspace, name: &str) -> Result<Entries> {
    let head = keys.get_siblings(key(name, "head")).await.context("failed to read the index")?;
    if head.state() != State::Found {
        let what = format!("keyspace `{}` has no index called `{name}`", keys.name());
        let hint = "name the one that the import was given with --name, or its --manifest file";
        return Err(Failure::new("no_index", what, hint).exits(crate::failure::Exit::NotFound).into());
    }
    read_all(keys, name, &head).await
}

async fn read_all(keys: &Keyspace, name: &str, head: &Entry) -> Result<Entries> {
    let mut parts = Entries::new();
    for text in head.siblings().iter().filter_map(|sibling| sibling.value()) {
        read_text(text, &mut parts, "the index")?;
    }
    let mut entries = Entries::new();
    for (part, stored) in parts {
        let entry = keys.get_siblings(key(name, &part)).await?;
        // Two imports may have written one part at the same time: equal bytes, any of them will do.
        let values = entry.siblings().iter().filter_map(|sibling| sibling.value());
        let whole = values.into_iter().find(|value| Stored::of(value) == stored);
        let Some(text) = whole else {
            return Err(damaged(&format!("part {part} of the index"), "it is missing or changed").into());
        };
        read_text(text, &mut entries, "a part of the index")?;
    }
    Ok(entries)
}

fn read_text(bytes: &[u8], entries: &mut Entries, what: &str) -> Result<()> {
    let text = std::str::from_utf8(bytes).map_err(|_| damaged(what, "it is not text"))?;
    manifest::read(text, entries).map_err(|why| damaged(what, &why).into())
}

fn damaged(what: &str, why: &str) -> Failure {
    Failure::new("damaged_index", format!("{what}: {why}"), "import again, or export with --manifest FILE")
}

/// Manifests of at most [`PART_BYTES_MAX`] bytes. A part of the same keys is the same part.
fn split(entries: &Entries) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for (key, stored) in entries {
        let line = manifest::line(key, stored);
        match parts.last_mut() {
            Some(part) if part.len() + line.len() <= PART_BYTES_MAX => part.push_str(&line),
            _ => parts.push(HEADER.to_owned() + &line),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_into_values_and_hold_every_key_once() {
        let entries: Entries =
            (0..20_000).map(|i| (format!("dir/{i:05}-{}", "x".repeat(200)), Stored::of(b"v"))).collect();
        let parts = split(&entries);
        assert!(parts.len() > 10);
        let mut read = Entries::new();
        for part in &parts {
            assert!(part.len() <= PART_BYTES_MAX);
            manifest::read(part, &mut read).unwrap();
        }
        assert_eq!(read, entries);
        assert!(split(&Entries::new()).is_empty());
    }

    #[test]
    fn a_name_always_leaves_room_for_the_hash_in_the_key() {
        let longest = name(&"n".repeat(64)).unwrap();
        let part = blake3::hash(b"").to_hex();
        assert!(key(&longest, &part).len() <= merganser_client::KEY_BYTES_MAX);
        for wrong in ["", "a/b", "ä", &"n".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
