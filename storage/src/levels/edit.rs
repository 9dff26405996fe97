//! The bytes of one manifest edit: changes that happen together.
//!
//! In: changes, or bytes that may be damaged. Out: the other of the two. Deliberately absent: framing and
//! checksums (`manifest`).

use bytes::Bytes;

use crate::encoding::{Reader, put_slice, put_varint};
use crate::key_span::KeySpan;
use crate::table::TableMeta;
use crate::table::format::Properties;

/// One change. The tags are on disk: do not change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    HashSeed(u64),
    AddTable(Box<TableMeta>),
    RemoveTable(u64),
    LogFloor(u64),
    SequenceFlushed(u64),
    /// What a table holds of some keys is given up, and hides what is older.
    Excise {
        table: u64,
        keys: KeySpan,
    },
}

const TAG_HASH_SEED: u64 = 1;
const TAG_ADD_TABLE: u64 = 2;
const TAG_REMOVE_TABLE: u64 = 3;
const TAG_LOG_FLOOR: u64 = 4;
const TAG_SEQUENCE_FLUSHED: u64 = 5;
const TAG_EXCISE: u64 = 6;

pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    for change in changes {
        let (tag, value) = match change {
            Change::HashSeed(seed) => (TAG_HASH_SEED, seed.to_le_bytes().to_vec()),
            Change::AddTable(meta) => (TAG_ADD_TABLE, encode_table(meta)),
            Change::RemoveTable(number) => (TAG_REMOVE_TABLE, number.to_le_bytes().to_vec()),
            Change::LogFloor(number) => (TAG_LOG_FLOOR, number.to_le_bytes().to_vec()),
            Change::SequenceFlushed(sequence) => (TAG_SEQUENCE_FLUSHED, sequence.to_le_bytes().to_vec()),
            Change::Excise { table, keys } => (TAG_EXCISE, encode_excision(*table, keys)),
        };
        put_varint(&mut out, tag);
        put_slice(&mut out, &value);
    }
    out
}

/// `None` when the bytes are not an edit. An unknown change cannot be skipped: it could remove a table.
pub(crate) fn decode(bytes: &Bytes) -> Option<Vec<Change>> {
    let mut reader = Reader::new(bytes);
    let mut changes = Vec::new();
    while reader.remaining() > 0 {
        let tag = reader.varint()?;
        let value = bytes.slice_ref(reader.slice()?);
        let number = || Some(u64::from_le_bytes(value.as_ref().try_into().ok()?));
        changes.push(match tag {
            TAG_HASH_SEED => Change::HashSeed(number()?),
            TAG_ADD_TABLE => Change::AddTable(Box::new(decode_table(&value)?)),
            TAG_REMOVE_TABLE => Change::RemoveTable(number()?),
            TAG_LOG_FLOOR => Change::LogFloor(number()?),
            TAG_SEQUENCE_FLUSHED => Change::SequenceFlushed(number()?),
            TAG_EXCISE => decode_excision(&value)?,
            _ => return None,
        });
    }
    Some(changes)
}

fn encode_table(meta: &TableMeta) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&meta.number.to_le_bytes());
    out.extend_from_slice(&meta.file_bytes.to_le_bytes());
    out.extend_from_slice(&meta.digest);
    out.extend_from_slice(&meta.properties.encode());
    out
}

fn decode_table(value: &Bytes) -> Option<TableMeta> {
    let mut reader = Reader::new(value);
    let (number, file_bytes) = (reader.u64()?, reader.u64()?);
    let digest = reader.take(32)?.try_into().ok()?;
    let properties = Properties::decode(&value.slice(reader.position()..))?;
    Some(TableMeta { number, file_bytes, digest, properties })
}

fn encode_excision(table: u64, keys: &KeySpan) -> Vec<u8> {
    let mut out = table.to_le_bytes().to_vec();
    put_slice(&mut out, &keys.from);
    put_slice(&mut out, &keys.to);
    out
}

fn decode_excision(value: &Bytes) -> Option<Change> {
    let mut reader = Reader::new(value);
    let table = reader.u64()?;
    let (from, to) = (value.slice_ref(reader.slice()?), value.slice_ref(reader.slice()?));
    (reader.remaining() == 0 && from < to).then_some(Change::Excise { table, keys: KeySpan { from, to } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_come_back_and_unknown_changes_are_refused() {
        let properties =
            Properties { first_key: Bytes::from("a"), last_key: Bytes::from("z"), ..Properties::default() };
        let meta = TableMeta { number: 4, file_bytes: 99, digest: [7; 32], properties };
        let changes = vec![
            Change::HashSeed(1),
            Change::AddTable(Box::new(meta)),
            Change::RemoveTable(3),
            Change::LogFloor(5),
            Change::SequenceFlushed(6),
            Change::Excise { table: 4, keys: KeySpan { from: Bytes::from("b"), to: Bytes::from("ba") } },
        ];
        let mut bytes = encode(&changes);
        assert_eq!(decode(&bytes.clone().into()), Some(changes));
        put_varint(&mut bytes, 77);
        put_slice(&mut bytes, b"from the future");
        assert_eq!(decode(&bytes.into()), None);
    }
}
