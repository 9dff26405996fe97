//! The bytes of a log file. `docs/formats.md` draws them; this file alone knows them.
//!
//! In: header fields, staged operations, or bytes that may be damaged. Out: the other of the two.
//! Deliberately absent: files.
//!
//! Two facts make torn tails and damage distinguishable. Every frame says up to which offset the log was
//! durable when it was written, so a bad frame below that offset is damage, not a torn tail. And every
//! checksum is seeded with the log's salt and the offset, so that neither a recycled file's old frames nor a
//! value that contains a log can pass for a frame.

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::encoding::{Reader, put_slice, put_varint};
use crate::fragment::{Body, Fragment, Kind, Value};

pub(crate) const MAGIC: [u8; 8] = *b"MRGN-LOG";
pub(crate) const VERSION: u32 = 1;
/// The header has a sector of its own: no later write touches it.
pub(crate) const HEADER_BYTES: u64 = 4096;
const HEADER_USED_BYTES: usize = 72;
pub(crate) const FRAME_MAGIC: u32 = 0x4d52_4746;
pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Frames start at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;
/// No payload is longer; larger writes are refused before they get here.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 512 << 20;

const FLAG_RESTART: u32 = 1;
const ZSTD_BIT: u8 = 0x10;

/// What the first sector of a log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogHeader {
    /// The log's number; differs from the file's name while a recycled file has not been started.
    pub(crate) number: u64,
    /// Seeds all checksums of the frames.
    pub(crate) salt: u64,
    /// Set on the log that an open starts with: all older logs are contained in it.
    pub(crate) restart: bool,
    /// The log before this one, 0 if none.
    pub(crate) previous: u64,
    /// How long that one is; everything below was durable before this log began.
    pub(crate) previous_len: u64,
    /// Bytes of this log that were durable before it got its name.
    pub(crate) durable_len: u64,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeaderDamage {
    /// Wrong magic or checksum, or too short.
    Unreadable,
    /// Written by a newer program.
    Version(u32),
}

impl LogHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if self.restart { FLAG_RESTART } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        for field in [self.number, self.salt, self.previous, self.previous_len, self.durable_len, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let checksum = xxh3_64_with_seed(&out, 0);
        out.extend_from_slice(&checksum.to_le_bytes());
        assert_eq!(out.len(), HEADER_USED_BYTES);
        out.resize(HEADER_BYTES as usize, 0);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<LogHeader, HeaderDamage> {
        let used = bytes.get(..HEADER_USED_BYTES).ok_or(HeaderDamage::Unreadable)?;
        let (body, checksum) = used.split_at(HEADER_USED_BYTES - 8);
        if body[..8] != MAGIC || xxh3_64_with_seed(body, 0).to_le_bytes() != checksum {
            return Err(HeaderDamage::Unreadable);
        }
        let mut reader = Reader::new(&body[8..]);
        let mut u64s = || reader.u64().expect("the length was checked");
        let version_and_flags = u64s();
        let (version, flags) = (version_and_flags as u32, (version_and_flags >> 32) as u32);
        if version != VERSION {
            return Err(HeaderDamage::Version(version));
        }
        if flags & !FLAG_RESTART != 0 {
            // Whoever gives a flag a meaning raises the version too.
            return Err(HeaderDamage::Unreadable);
        }
        Ok(LogHeader {
            number: u64s(),
            salt: u64s(),
            restart: flags & FLAG_RESTART != 0,
            previous: u64s(),
            previous_len: u64s(),
            durable_len: u64s(),
        })
    }
}

/// What precedes each frame's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_len: u32,
    pub(crate) writes: u32,
    /// Sequence of the first write in it; the others follow one by one.
    pub(crate) sequence_first: u64,
    /// The log was durable up to here when this frame was written.
    pub(crate) durable_below: u64,
    pub(crate) payload_checksum: u64,
}

impl FrameHeader {
    pub(crate) fn encode(&self, log_number: u64, salt: u64, offset: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&(log_number as u32).to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.writes.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence_first.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable_below.to_le_bytes());
        out[32..40].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = xxh3_64_with_seed(&out[..40], salt ^ offset);
        out[40..48].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// `None` when there is no sound frame header of this log at this offset.
    pub(crate) fn decode(bytes: &[u8], log_number: u64, salt: u64, offset: u64) -> Option<FrameHeader> {
        if !looks_like_frame(bytes, log_number) {
            return None;
        }
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if xxh3_64_with_seed(&bytes[..40], salt ^ offset).to_le_bytes() != bytes[40..48] {
            return None;
        }
        let mut reader = Reader::new(&bytes[8..40]);
        Some(FrameHeader {
            payload_len: reader.u32()?,
            writes: reader.u32()?,
            sequence_first: reader.u64()?,
            durable_below: reader.u64()?,
            payload_checksum: reader.u64()?,
        })
    }

    /// Bytes from this frame's start to the next one's.
    pub(crate) fn frame_len(&self) -> u64 {
        (FRAME_HEADER_BYTES as u64 + u64::from(self.payload_len)).next_multiple_of(ALIGNMENT)
    }
}

/// The cheap test before a checksum: magic and log number.
pub(crate) fn looks_like_frame(bytes: &[u8], log_number: u64) -> bool {
    bytes.len() >= 8
        && bytes[..4] == FRAME_MAGIC.to_le_bytes()
        && bytes[4..8] == (log_number as u32).to_le_bytes()
}

pub(crate) fn payload_checksum<'a>(salt: u64, parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = Xxh3::with_seed(salt);
    parts.for_each(|part| hasher.update(part));
    hasher.digest()
}

/// Writes on their way into a frame: small bytes are copied into one buffer, large bodies are referred to.
#[derive(Default)]
pub(crate) struct Staged {
    buffer: Vec<u8>,
    /// Large bodies and where in the buffer they belong, in order.
    large: Vec<(usize, Bytes)>,
    ops: Vec<StagedOp>,
    pub(crate) writes: u32,
}

struct StagedOp {
    kind: Kind,
    key: (usize, usize),
    head: (usize, usize),
    body: StagedBody,
}

enum StagedBody {
    Copied(usize, usize),
    Large(Body),
}

impl Staged {
    pub(crate) fn with_capacity(bytes: usize) -> Staged {
        Staged { buffer: Vec::with_capacity(bytes), ..Staged::default() }
    }

    pub(crate) fn begin_write(&mut self, ops: usize) {
        self.writes += 1;
        put_varint(&mut self.buffer, ops as u64);
    }

    fn copy(&mut self, bytes: &[u8]) -> (usize, usize) {
        put_slice(&mut self.buffer, bytes);
        (self.buffer.len() - bytes.len(), self.buffer.len())
    }

    pub(crate) fn push_remove(&mut self, key: &[u8]) {
        self.buffer.push(Kind::Remove as u8);
        let key = self.copy(key);
        self.ops.push(StagedOp { kind: Kind::Remove, key, head: (0, 0), body: StagedBody::Copied(0, 0) });
    }

    /// A small body is copied; a large one keeps its own buffer.
    pub(crate) fn push(&mut self, kind: Kind, key: &[u8], head: &[u8], body: Body, large: bool) {
        self.buffer.push(kind as u8 | if body.zstd { ZSTD_BIT } else { 0 });
        let key = self.copy(key);
        let head = self.copy(head);
        if body.zstd {
            put_varint(&mut self.buffer, u64::from(body.raw_len));
        }
        let body = if large {
            put_varint(&mut self.buffer, body.stored.len() as u64);
            self.large.push((self.buffer.len(), body.stored.clone()));
            StagedBody::Large(body)
        } else {
            let (start, end) = self.copy(&body.stored);
            StagedBody::Copied(start, end)
        };
        self.ops.push(StagedOp { kind, key, head, body });
    }

    /// The payload as it will lie on disk.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        let pairs = self.large.iter().flat_map(move |(position, body)| {
            let before = &self.buffer[at..*position];
            at = *position;
            [before, body.as_ref()]
        });
        let rest = self.large.last().map_or(0, |(position, _)| *position);
        pairs.chain([&self.buffer[rest..]])
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.buffer.len() + self.large.iter().map(|(_, body)| body.len()).sum::<usize>()
    }

    /// The operations, sharing this buffer, for the memtable.
    pub(crate) fn into_ops(self) -> impl ExactSizeIterator<Item = (Bytes, Fragment)> {
        let arena = Bytes::from(self.buffer);
        self.ops.into_iter().map(move |op| {
            let cut = |(start, end): (usize, usize)| arena.slice(start..end);
            let body = match op.body {
                StagedBody::Copied(start, end) => Body::raw(cut((start, end))),
                StagedBody::Large(body) => body,
            };
            (cut(op.key), Fragment { kind: op.kind, head: cut(op.head), value: Value::Held(body) })
        })
    }
}

/// Decodes a frame's payload; the operations share its bytes. `None` when it is not one.
pub(crate) fn decode_payload(payload: &Bytes, writes: u32) -> Option<Vec<Vec<(Bytes, Fragment)>>> {
    let mut reader = Reader::new(payload);
    let mut out = Vec::new();
    for _ in 0..writes {
        // An operation takes at least two bytes.
        let count = reader.len_up_to(reader.remaining() / 2)?;
        let ops = (0..count).map(|_| decode_op(payload, &mut reader)).collect::<Option<Vec<_>>>()?;
        out.push(ops);
    }
    (reader.remaining() == 0).then_some(out)
}

fn decode_op(payload: &Bytes, reader: &mut Reader<'_>) -> Option<(Bytes, Fragment)> {
    let bits = reader.u8()?;
    let kind = Kind::from_bits(bits & !ZSTD_BIT)?;
    let zstd = bits & ZSTD_BIT != 0;
    let key = payload.slice_ref(reader.slice()?);
    if kind == Kind::Remove {
        return (!zstd).then(|| (key, Fragment::remove()));
    }
    let head = payload.slice_ref(reader.slice()?);
    let raw_len = if zstd { Some(reader.len_up_to(crate::limits::BODY_BYTES_MAX)? as u32) } else { None };
    let stored = payload.slice_ref(reader.slice()?);
    let body = match raw_len {
        Some(raw_len) => Body { stored, raw_len, zstd },
        None => Body::raw(stored),
    };
    Some((key, Fragment { kind, head, value: Value::Held(body) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> LogHeader {
        LogHeader { number: 7, salt: 9, restart: true, previous: 6, previous_len: 8192, durable_len: 4096 }
    }

    #[test]
    fn a_header_comes_back_and_no_bit_of_it_may_flip() {
        let bytes = header().encode();
        assert_eq!(LogHeader::decode(&bytes), Ok(header()));
        for at in 0..HEADER_USED_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(LogHeader::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_frame_counts_only_in_its_own_log_and_place() {
        let frame = FrameHeader {
            payload_len: 10,
            writes: 1,
            sequence_first: 3,
            durable_below: 4096,
            payload_checksum: 5,
        };
        let bytes = frame.encode(7, 9, 4096);
        assert_eq!(FrameHeader::decode(&bytes, 7, 9, 4096), Some(frame));
        for (number, salt, offset) in [(8, 9, 4096), (7, 8, 4096), (7, 9, 4104)] {
            assert_eq!(FrameHeader::decode(&bytes, number, salt, offset), None);
        }
    }

    #[test]
    fn staged_operations_decode_to_what_they_were() {
        let mut staged = Staged::default();
        staged.begin_write(3);
        staged.push(Kind::Put, b"a", b"head", Body::raw(Bytes::from("small")), false);
        staged.push(
            Kind::Merge,
            b"b",
            b"",
            Body { stored: Bytes::from("packed"), raw_len: 99, zstd: true },
            true,
        );
        staged.push_remove(b"c");
        staged.begin_write(0);
        let payload: Bytes = staged.parts().flat_map(|part| part.to_vec()).collect::<Vec<u8>>().into();
        assert_eq!(payload.len(), staged.payload_len());
        let show = |(key, part): &(Bytes, Fragment)| {
            let Value::Held(body) = &part.value else { panic!("staged bodies are held") };
            (key.clone(), part.kind, part.head.clone(), body.stored.clone(), body.raw_len, body.zstd)
        };
        let decoded = decode_payload(&payload, 2).expect("it was just staged");
        assert_eq!((decoded.len(), decoded[0].len(), decoded[1].len()), (2, 3, 0));
        let staged_ops: Vec<_> = staged.into_ops().collect();
        assert_eq!(
            decoded[0].iter().map(show).collect::<Vec<_>>(),
            staged_ops.iter().map(show).collect::<Vec<_>>()
        );
        for cut in 0..payload.len() {
            assert!(decode_payload(&payload.slice(..cut), 2).is_none(), "cut at {cut}");
        }
    }
}
