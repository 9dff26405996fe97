//! The list of what an import stored: the format of `--manifest` files and of the index in the
//! keyspace.
//!
//! ```text
//! merganser-manifest 1
//! <crc32> <blake3> <size> <key as a JSON string>
//! …
//! ```
//!
//! One line for each key, complete in itself, so that a file to which a killed process was
//! appending is whole but for its last line. In: entries or text. Out: text or entries; a later line
//! of a key replaces an earlier one. Absent: files and keyspaces.

use std::collections::BTreeMap;

pub(super) const HEADER: &str = "merganser-manifest 1\n";

/// What was stored under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) blake3: blake3::Hash,
    pub(super) size_bytes: u64,
}

impl Stored {
    pub(super) fn of(bytes: &[u8]) -> Stored {
        Stored { blake3: blake3::hash(bytes), size_bytes: bytes.len() as u64 }
    }
}

/// By key.
pub(super) type Entries = BTreeMap<String, Stored>;

/// One line, its end included.
pub(super) fn line(key: &str, stored: &Stored) -> String {
    let key = serde_json::Value::from(key);
    let body = format!("{} {} {key}", stored.blake3.to_hex(), stored.size_bytes);
    format!("{:08x} {body}\n", crc32fast::hash(body.as_bytes()))
}

/// Adds what the text lists; says which line is wrong.
pub(super) fn read(text: &str, entries: &mut Entries) -> Result<(), String> {
    let Some(mut rest) = text.strip_prefix(HEADER) else {
        return Err("it does not begin as a manifest of this version".into());
    };
    let mut number = 1;
    // What follows the last line end was being written when the writer stopped: never acknowledged.
    while let Some((line, further)) = rest.split_once('\n') {
        number += 1;
        let (key, stored) = parse(line).ok_or_else(|| format!("line {number} is damaged"))?;
        entries.insert(key, stored);
        rest = further;
    }
    Ok(())
}

fn parse(line: &str) -> Option<(String, Stored)> {
    let (crc, body) = line.split_once(' ')?;
    if crc != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
        return None;
    }
    let mut parts = body.splitn(3, ' ');
    let blake3 = blake3::Hash::from_hex(parts.next()?).ok()?;
    let size_bytes = parts.next()?.parse().ok()?;
    let key: String = serde_json::from_str(parts.next()?).ok()?;
    Some((key, Stored { blake3, size_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(keys: &[&str]) -> String {
        let lines = keys.iter().map(|key| line(key, &Stored::of(key.as_bytes())));
        HEADER.to_owned() + &lines.collect::<String>()
    }

    #[test]
    fn any_key_that_is_text_comes_back() {
        let keys = ["a/b", "with space", "line\nend \"quoted\" \\", "ä\u{1f}", ""];
        let mut entries = Entries::new();
        read(&text(&keys), &mut entries).unwrap();
        assert_eq!(entries.len(), keys.len());
        for key in keys {
            assert_eq!(entries[key], Stored::of(key.as_bytes()));
        }
    }

    #[test]
    fn a_last_line_cut_short_is_left_out_and_any_other_damage_is_named() {
        let whole = text(&["a", "b"]);
        for cut in 1..line("b", &Stored::of(b"b")).len() {
            let mut entries = Entries::new();
            read(&whole[..whole.len() - cut], &mut entries).unwrap();
            assert_eq!(entries.keys().collect::<Vec<_>>(), ["a"]);
        }
        let damaged = whole.replacen(" 1 ", " 2 ", 1);
        assert_eq!(read(&damaged, &mut Entries::new()), Err("line 2 is damaged".into()));
        assert!(read("hello", &mut Entries::new()).unwrap_err().contains("manifest"));
    }

    #[test]
    fn a_later_line_of_a_key_replaces_an_earlier_one() {
        let mut entries = Entries::new();
        let again = line("a", &Stored::of(b"newer"));
        read(&(text(&["a"]) + &again), &mut entries).unwrap();
        assert_eq!(entries["a"], Stored::of(b"newer"));
    }
}
