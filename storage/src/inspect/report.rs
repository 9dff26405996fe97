//! What an inspection found, as plain values.
//!
//! In and out: public fields only. Deliberately absent: text; who prints decides how.

use std::path::PathBuf;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// A file of a database directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// `log`, `table`, `manifest`, `pointer`, `unfinished log`, or `other`.
    pub kind: &'static str,
    /// Its number, 0 if it has none.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
}

/// One fragment of one key, wherever it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// `put`, `merge` or `remove`.
    pub kind: &'static str,
    /// The head's bytes.
    pub head: Vec<u8>,
    /// Length of the body as the caller gave it.
    pub body_bytes: u64,
    /// Length of the body as it is stored.
    pub stored_bytes: u64,
    /// Where the body lies apart in the table, if it does.
    pub body_offset: Option<u64>,
}

/// A log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReport {
    /// The number in its header, 0 if that is unreadable. Differs from the name in a log that waits for reuse.
    pub number: u64,
    /// Whether it stands for all older logs.
    pub restart: bool,
    /// The log before it.
    pub previous: u64,
    /// The length of that one.
    pub previous_len: u64,
    /// Its sound frames.
    pub frames: Vec<FrameReport>,
    /// What is wrong. A torn tail looks like damage here: only a recovery knows what must be there.
    pub damage: Vec<Damage>,
}

/// A frame of a log: one group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameReport {
    /// Where it begins.
    pub offset: u64,
    /// Its length, padding included.
    pub bytes: u64,
    /// The sequence of its first write.
    pub sequence_first: u64,
    /// The log was durable up to here when it was written.
    pub durable_below: u64,
    /// The operations of each write.
    pub writes: Vec<Vec<Entry>>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Its length.
    pub file_bytes: u64,
    /// BLAKE3 of the file, in hex; the manifest says what it should be.
    pub digest: String,
    /// Its format version.
    pub version: u32,
    /// The smallest key.
    pub first_key: Vec<u8>,
    /// The largest key.
    pub last_key: Vec<u8>,
    /// Keys.
    pub keys: u64,
    /// Fragments of them.
    pub fragments: u64,
    /// How many of those are removes.
    pub removes: u64,
    /// The piece of history it holds.
    pub sequence_first: u64,
    /// See `sequence_first`.
    pub sequence_last: u64,
    /// Bytes of bodies that lie apart.
    pub value_bytes: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// Memory that its index and filter take.
    pub resident_bytes: u64,
    /// All fragments, if they were asked for.
    pub entries: Vec<Entry>,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// A manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestReport {
    /// Its edits in order.
    pub edits: Vec<EditReport>,
    /// Numbers of the tables that they leave, newest first, with the digest that each should have.
    pub tables: Vec<(u64, String)>,
    /// The oldest log that is needed.
    pub log_floor: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// Changes that happened together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditReport {
    /// Where the edit begins.
    pub offset: u64,
    /// Its changes in words.
    pub changes: Vec<String>,
}

/// A fragment of a key and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The file.
    pub file: PathBuf,
    /// The sequence of the write, where the file tells (tables tell only a range).
    pub sequence: u64,
    /// What was found.
    pub entry: Entry,
}

/// Where a key was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// In logs and tables, in order of file number. Files that are no longer part of the database count too.
    pub sightings: Vec<Sighting>,
    /// Damage met on the way: the key could be there.
    pub damage: Vec<Damage>,
}
