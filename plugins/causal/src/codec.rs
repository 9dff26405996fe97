//! Bytes of a state: four bytes of magic (three letters and a version), then numbers as LEB128 and byte strings with
//! their length before them.
//!
//! Exactly one encoding of each state is accepted: numbers in their shortest form, collections strictly ascending (the
//! types check that), nothing behind the end. So equal states have equal bytes (law L6). Lengths are checked against
//! what is there before anything is allocated.

use merganser_plugin_sdk::Rejection;

/// Builds an encoding.
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins with the magic.
    pub fn new(magic: &[u8; 4]) -> Writer {
        Writer(magic.to_vec())
    }

    /// A number.
    pub fn number(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// How far it is from one number to another, in either direction.
    pub(crate) fn distance(&mut self, from: u64, to: u64) {
        let distance = i128::from(to) - i128::from(from);
        self.number((distance.unsigned_abs() << 1) - u128::from(distance < 0));
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u128);
        self.0.extend_from_slice(bytes);
    }

    /// The finished encoding.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes an encoding apart.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the magic: another version of the same letters is [`Rejection::unsupported_version`].
    pub fn new(bytes: &'a [u8], magic: &[u8; 4]) -> Result<Reader<'a>, Rejection> {
        match bytes.split_first_chunk::<4>() {
            Some((head, rest)) if head == magic => Ok(Reader(rest)),
            Some((head, _)) if head[..3] == magic[..3] => {
                Err(Rejection::unsupported_version("state was written by another version of this plugin"))
            }
            _ => Err(Rejection::malformed("not a state of this plugin")),
        }
    }

    /// A number up to `max`.
    pub fn number(&mut self, max: u128) -> Result<u128, Rejection> {
        let mut number = 0u128;
        for shift in (0..126).step_by(7) {
            let Some((&byte, rest)) = self.0.split_first() else {
                return Err(Rejection::malformed("state ends within a number"));
            };
            self.0 = rest;
            number |= u128::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(Rejection::malformed("number is not in its shortest form"));
                }
                return match number <= max {
                    true => Ok(number),
                    false => Err(Rejection::malformed("number is out of range")),
                };
            }
        }
        Err(Rejection::malformed("number is too long"))
    }

    /// A 64-bit number.
    pub fn number64(&mut self) -> Result<u64, Rejection> {
        Ok(self.number(u128::from(u64::MAX))? as u64)
    }

    /// A number up to `max`, by its distance from another.
    pub(crate) fn from(&mut self, from: u64, max: u64) -> Result<u64, Rejection> {
        let distance = self.number(u128::from(u64::MAX) << 1)?;
        let size = i128::try_from(distance.div_ceil(2)).unwrap_or(i128::MAX);
        let to = i128::from(from) + if distance % 2 == 1 { -size } else { size };
        let to = u64::try_from(to).ok().filter(|to| *to <= max);
        to.ok_or_else(|| Rejection::malformed("a number is out of range"))
    }

    /// How many items follow, each of which takes at least one byte.
    pub fn count(&mut self) -> Result<usize, Rejection> {
        let left = self.0.len() as u128;
        Ok(self.number(left)? as usize)
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], Rejection> {
        let length = self.number64()?;
        match usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length)) {
            Some((bytes, rest)) => {
                self.0 = rest;
                Ok(bytes)
            }
            None => Err(Rejection::malformed("state ends within a byte string")),
        }
    }

    /// A byte string that is text.
    pub fn text(&mut self) -> Result<&'a str, Rejection> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Rejection::malformed("text is not UTF-8"))
    }

    /// Nothing may follow.
    pub fn finish(self) -> Result<(), Rejection> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Rejection::malformed("something follows the end of the state")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_have_one_form() {
        for number in [0, 1, 127, 128, 1 << 63, u128::from(u64::MAX), 1 << 100] {
            let mut writer = Writer::new(b"TST1");
            writer.number(number);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, b"TST1").unwrap();
            assert_eq!(reader.number(u128::MAX), Ok(number));
            assert_eq!(reader.finish(), Ok(()));
        }
        let mut long = Reader::new(b"TST1\x80\x00", b"TST1").unwrap();
        assert!(long.number(u128::MAX).is_err());
        let mut endless = Reader::new(
            b"TST1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"TST1",
        )
        .unwrap();
        assert!(endless.number(u128::MAX).is_err());
    }

    #[test]
    fn lying_lengths_and_other_versions_are_rejected() {
        assert!(Reader::new(b"TST1\xff\xff\x7fabc", b"TST1").unwrap().bytes().is_err());
        assert!(Reader::new(b"TST1\x05abc", b"TST1").unwrap().count().is_err());
        let other = Reader::new(b"TST2", b"TST1").err().map(|rejection| rejection.kind);
        assert_eq!(other, Some(merganser_plugin_sdk::RejectionKind::UnsupportedVersion));
    }
}
