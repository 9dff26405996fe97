//! The bytes of a table file around its data: header, block trailers, index, properties, footer.
//! `docs/formats.md` draws them; this file alone knows them.
//!
//! In: fields, or bytes that may be damaged. Out: the other of the two. Deliberately absent: files, and the
//! inside of data blocks and filters.

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::compress;
use crate::encoding::{Reader, put_slice, put_varint};

pub(crate) const MAGIC: [u8; 8] = *b"MRGN-SST";
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const FOOTER_BYTES: usize = 88;
pub(crate) const TRAILER_BYTES: usize = 16;
/// No block is larger once decompressed: index and filter of a very large table are the largest.
pub(crate) const BLOCK_RAW_BYTES_MAX: usize = 1 << 30;

pub(crate) fn encode_header() -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out
}

/// Where a block lies, trailer included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Handle {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Where a large body lies: stored bytes without any framing; what checks them is kept with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueFrame {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) raw_len: u32,
    pub(crate) zstd: bool,
    /// Of the stored bytes; goes unchanged from flush through every compaction.
    pub(crate) checksum: u64,
}

/// What a block is for; part of what its checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockKind {
    Data = 1,
    Index = 2,
    Filter = 3,
    Properties = 4,
}

const ENCODING_RAW: u8 = 0;
const ENCODING_ZSTD: u8 = 1;

/// A block's payload, compressed if that pays, before it has a place in the file.
pub(crate) struct EncodedBlock {
    payload: Vec<u8>,
    kind: BlockKind,
    encoding: u8,
    raw_len: u32,
}

impl EncodedBlock {
    /// `level` of `None` leaves the block raw.
    pub(crate) fn new(raw: Vec<u8>, kind: BlockKind, level: Option<i32>) -> EncodedBlock {
        assert!(raw.len() <= BLOCK_RAW_BYTES_MAX, "the builder bounds its blocks");
        let raw_len = raw.len() as u32;
        match level.and_then(|level| compress::compress(&raw, level)) {
            Some(payload) => EncodedBlock { payload, kind, encoding: ENCODING_ZSTD, raw_len },
            None => EncodedBlock { payload: raw, kind, encoding: ENCODING_RAW, raw_len },
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.payload.len() + TRAILER_BYTES
    }

    /// Appends the block as it lies at `offset` of a table with this salt.
    pub(crate) fn put(&self, out: &mut Vec<u8>, salt: u64, offset: u64) {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[0] = self.encoding;
        trailer[1] = self.kind as u8;
        trailer[4..8].copy_from_slice(&self.raw_len.to_le_bytes());
        let checksum = block_checksum(&self.payload, &trailer[..8], salt, offset);
        trailer[8..].copy_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&self.payload);
        out.extend_from_slice(&trailer);
    }
}

fn block_checksum(payload: &[u8], trailer: &[u8], salt: u64, offset: u64) -> u64 {
    let mut hasher = Xxh3::with_seed(salt ^ offset);
    hasher.update(payload);
    hasher.update(trailer);
    hasher.digest()
}

/// The raw payload of a block read from `offset`; the text says what is wrong with it.
pub(crate) fn decode_block(
    stored: Bytes,
    kind: BlockKind,
    salt: u64,
    offset: u64,
) -> Result<Bytes, &'static str> {
    let payload_len = stored.len().checked_sub(TRAILER_BYTES).ok_or("a block shorter than its trailer")?;
    let (payload, trailer) = (stored.slice(..payload_len), &stored[payload_len..]);
    if block_checksum(&payload, &trailer[..8], salt, offset).to_le_bytes() != trailer[8..] {
        return Err("a block with a bad checksum");
    }
    if trailer[1] != kind as u8 {
        return Err("a block of another kind");
    }
    let raw_len = u32::from_le_bytes(trailer[4..8].try_into().expect("four bytes")) as usize;
    match trailer[0] {
        ENCODING_RAW if raw_len == payload.len() => Ok(payload),
        ENCODING_ZSTD if raw_len <= BLOCK_RAW_BYTES_MAX => {
            compress::decompress(&payload, raw_len).map(Bytes::from).ok_or("a block that does not decompress")
        }
        _ => Err("a block of unknown encoding"),
    }
}

/// The last bytes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Length 0 when the table has no filter.
    pub(crate) filter: Handle,
    pub(crate) index: Handle,
    pub(crate) properties: Handle,
    /// Seeds the checksums of the blocks.
    pub(crate) salt: u64,
}

/// Why a footer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FooterDamage {
    Unreadable,
    Version(u32),
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for handle in [self.filter, self.index, self.properties] {
            out.extend_from_slice(&handle.offset.to_le_bytes());
            out.extend_from_slice(&handle.len.to_le_bytes());
        }
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&MAGIC);
        let checksum = xxh3_64_with_seed(&out, 0);
        out.extend_from_slice(&checksum.to_le_bytes());
        assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Footer, FooterDamage> {
        let (body, checksum) = bytes.split_at_checked(FOOTER_BYTES - 8).ok_or(FooterDamage::Unreadable)?;
        if body[72..80] != MAGIC || xxh3_64_with_seed(body, 0).to_le_bytes() != *checksum {
            return Err(FooterDamage::Unreadable);
        }
        let mut reader = Reader::new(body);
        let mut u64s = || reader.u64().expect("the length was checked");
        let mut handle = || Handle { offset: u64s(), len: u64s() };
        let (filter, index, properties) = (handle(), handle(), handle());
        let salt = u64s();
        let _reserved = u64s();
        let version_and_flags = u64s();
        match (version_and_flags as u32, version_and_flags >> 32) {
            (VERSION, 0) => Ok(Footer { filter, index, properties, salt }),
            // Whoever gives a flag a meaning raises the version too.
            (VERSION, _) => Err(FooterDamage::Unreadable),
            (other, _) => Err(FooterDamage::Version(other)),
        }
    }
}

/// Facts about a table that its file tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Properties {
    pub(crate) first_key: Bytes,
    pub(crate) last_key: Bytes,
    pub(crate) keys: u64,
    pub(crate) fragments: u64,
    pub(crate) removes: u64,
    pub(crate) sequence_first: u64,
    pub(crate) sequence_last: u64,
    /// Bytes of value frames.
    pub(crate) value_bytes: u64,
    pub(crate) data_blocks: u64,
    /// Bytes of older tables that this one hides, estimated when it was written.
    pub(crate) hidden_bytes: u64,
}

impl Properties {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |id: u64, value: &[u8]| {
            put_varint(&mut out, id);
            put_slice(&mut out, value);
        };
        put(1, &self.first_key);
        put(2, &self.last_key);
        let numbers = [
            self.keys,
            self.fragments,
            self.removes,
            self.sequence_first,
            self.sequence_last,
            self.value_bytes,
            self.data_blocks,
            self.hidden_bytes,
        ];
        for (id, number) in (3..).zip(numbers) {
            put(id, &number.to_le_bytes());
        }
        out
    }

    /// Properties that a newer program added are skipped.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Properties> {
        let mut properties = Properties::default();
        let mut reader = Reader::new(bytes);
        while reader.remaining() > 0 {
            let id = reader.varint()?;
            let value = reader.slice()?;
            let number = || Some(u64::from_le_bytes(value.try_into().ok()?));
            match id {
                1 => properties.first_key = bytes.slice_ref(value),
                2 => properties.last_key = bytes.slice_ref(value),
                3 => properties.keys = number()?,
                4 => properties.fragments = number()?,
                5 => properties.removes = number()?,
                6 => properties.sequence_first = number()?,
                7 => properties.sequence_last = number()?,
                8 => properties.value_bytes = number()?,
                9 => properties.data_blocks = number()?,
                10 => properties.hidden_bytes = number()?,
                _ => {}
            }
        }
        Some(properties)
    }
}

/// What the manifest remembers of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMeta {
    pub(crate) number: u64,
    pub(crate) file_bytes: u64,
    /// BLAKE3 of the whole file.
    pub(crate) digest: [u8; 32],
    pub(crate) properties: Properties,
}

impl TableMeta {
    /// What a key takes, on average.
    pub(crate) fn bytes_per_key(&self) -> u64 {
        self.file_bytes / self.properties.keys.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_accepted_only_at_its_own_place_and_as_its_own_kind() {
        let raw = b"some payload, some payload, some payload, some payload".repeat(4);
        for level in [None, Some(1)] {
            let mut out = Vec::new();
            EncodedBlock::new(raw.clone(), BlockKind::Data, level).put(&mut out, 7, 100);
            let decode = |bytes: &[u8], kind, salt, offset| {
                decode_block(Bytes::copy_from_slice(bytes), kind, salt, offset)
            };
            assert_eq!(decode(&out, BlockKind::Data, 7, 100).as_deref(), Ok(raw.as_slice()));
            assert!(decode(&out, BlockKind::Index, 7, 100).is_err());
            assert!(decode(&out, BlockKind::Data, 8, 100).is_err());
            assert!(decode(&out, BlockKind::Data, 7, 116).is_err());
            for at in 0..out.len() {
                let mut damaged = out.clone();
                damaged[at] ^= 0x20;
                assert!(decode(&damaged, BlockKind::Data, 7, 100).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn footer_and_properties_come_back() {
        let handle = |offset| Handle { offset, len: 9 };
        let footer = Footer { filter: handle(1), index: handle(2), properties: handle(3), salt: 4 };
        let bytes = footer.encode();
        assert_eq!(Footer::decode(&bytes), Ok(footer));
        assert_eq!(Footer::decode(&bytes[1..]), Err(FooterDamage::Unreadable));
        let properties =
            Properties { first_key: Bytes::from("a"), keys: 7, removes: 2, ..Properties::default() };
        assert_eq!(Properties::decode(&properties.encode().into()), Some(properties));
    }
}
