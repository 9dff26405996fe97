//! The primitives of every encoding of this room: varints, fixed words, length-prefixed bytes.
//!
//! In: bytes from a disk, a peer or a client, never trusted. Out: values, or [`Malformed`].
//! A length is checked against what is left before anything is allocated. Absent: any knowledge
//! of what is encoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes are not what they should be; says what was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// Reads from the front of a buffer without copying.
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Over these bytes.
    pub fn new(bytes: Bytes) -> Reader {
        Reader { rest: bytes }
    }

    /// How much is left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        if self.rest.is_empty() {
            return Err(Malformed(what));
        }
        Ok(self.rest.get_u8())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        if self.rest.len() < 8 {
            return Err(Malformed(what));
        }
        Ok(self.rest.get_u64())
    }

    /// A varint (LEB128), in its shortest form only: one value, one encoding.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value: u64 = 0;
        for index in 0..10 {
            let byte = self.u8(what)?;
            let low = u64::from(byte & 0x7f);
            if index == 9 && byte > 1 {
                return Err(Malformed(what));
            }
            value |= low << (7 * index);
            if byte & 0x80 == 0 {
                return if byte == 0 && index > 0 { Err(Malformed(what)) } else { Ok(value) };
            }
        }
        Err(Malformed(what))
    }

    /// A count of things of which each takes at least `bytes_each`: bounded by what is left.
    pub fn count(&mut self, bytes_each: usize, what: &'static str) -> Result<usize, Malformed> {
        let count = self.varint(what)?;
        if count > (self.rest.len() / bytes_each.max(1)) as u64 {
            return Err(Malformed(what));
        }
        Ok(count as usize)
    }

    /// Exactly `length` bytes, shared with the input.
    pub fn take(&mut self, length: usize, what: &'static str) -> Result<Bytes, Malformed> {
        if length > self.rest.len() {
            return Err(Malformed(what));
        }
        Ok(self.rest.split_to(length))
    }

    /// An array of bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        if self.rest.len() < N {
            return Err(Malformed(what));
        }
        let mut array = [0; N];
        self.rest.copy_to_slice(&mut array);
        Ok(array)
    }

    /// Bytes after their length.
    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, Malformed> {
        let length = self.count(1, what)?;
        self.take(length, what)
    }

    /// UTF-8 after its length.
    pub fn string(&mut self, what: &'static str) -> Result<String, Malformed> {
        let bytes = self.bytes(what)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| Malformed(what))
    }

    /// Nothing may be left.
    pub fn end(self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(what)) }
    }
}

/// Writes what [`Reader`] reads.
pub trait Writer {
    /// See [`Reader::varint`].
    fn varint(&mut self, value: u64);
    /// See [`Reader::bytes`].
    fn bytes(&mut self, bytes: &[u8]);
}

impl Writer for BytesMut {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.put_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut buffer = BytesMut::new();
            buffer.varint(value);
            assert_eq!(Reader::new(buffer.freeze()).varint("v"), Ok(value));
        }
        let rejected: [&[u8]; 5] = [
            &[],
            &[0x80],
            &[0x80, 0x00],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ];
        for bytes in rejected {
            assert!(Reader::new(Bytes::copy_from_slice(bytes)).varint("v").is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_before_allocating() {
        let mut buffer = BytesMut::new();
        buffer.varint(u64::MAX);
        assert_eq!(Reader::new(buffer.clone().freeze()).bytes("b"), Err(Malformed("b")));
        assert_eq!(Reader::new(buffer.freeze()).count(9, "c"), Err(Malformed("c")));
    }
}
