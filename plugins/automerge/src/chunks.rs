//! A set of Automerge chunks, told apart by their bytes and put in order without being loaded.
//!
//! ```text
//!   chunk:   85 6f 4a 83 │ checksum, 4 bytes │ type │ length, LEB128 │ contents
//!   type:    0 document · 1 change · 2 deflated change · 3 bundle of changes
//! ```
//!
//! The state of a key is such a set, written one chunk after the other: documents first, the largest first, then loose
//! changes in an order in which most find what they depend on. Whatever `Automerge::load` accepts as a whole is such
//! a set, and every set can be given to `Automerge::load`.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use automerge::Change;
use merganser_plugin_sdk::Rejection;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Chunks that are whole by their headers; their contents were not looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chunks<'a> {
    /// Whole documents, the largest first.
    documents: BTreeSet<(Reverse<usize>, &'a [u8])>,
    /// Changes and bundles of them, by the number of their first operation.
    loose: BTreeSet<(u64, Cow<'a, [u8]>)>,
}

impl<'a> Chunks<'a> {
    /// Adds the chunks of a state, or of whatever else Automerge wrote.
    pub(crate) fn add(&mut self, mut bytes: &'a [u8]) -> Result<(), Rejection> {
        while !bytes.is_empty() {
            let (kind, contents, length) = header(bytes)?;
            let (chunk, rest) = bytes.split_at(length);
            match kind {
                0 => self.documents.insert((Reverse(length), chunk)),
                1 => self.loose.insert(loose(contents, Cow::Borrowed(chunk))),
                // Deflated and not, a change is the same one: it is kept as it is before it was deflated.
                2 => self.loose.insert(match Change::from_bytes(chunk.to_vec()) {
                    Ok(change) => {
                        let plain = change.raw_bytes().to_vec();
                        let (_, contents, _) = header(&plain)?;
                        let (order, _) = loose(contents, Cow::Borrowed(&[]));
                        (order, Cow::Owned(plain))
                    }
                    Err(_) => (u64::MAX, Cow::Borrowed(chunk)),
                }),
                3 => self.loose.insert((u64::MAX, Cow::Borrowed(chunk))),
                _ => return Err(Rejection::unsupported_version(format!("chunk of unknown type {kind}"))),
            };
            bytes = rest;
        }
        Ok(())
    }

    /// All chunks, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> + '_ {
        let documents = self.documents.iter().map(|&(_, chunk)| chunk);
        documents.chain(self.loose())
    }

    /// The loose ones among them.
    pub(crate) fn loose(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.loose.iter().map(|(_, chunk)| &chunk[..])
    }

    /// The set as the bytes of a state.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length());
        self.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        bytes
    }

    /// Bytes of the encoding.
    pub(crate) fn length(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    /// Bytes of the largest document.
    pub(crate) fn largest_document(&self) -> usize {
        self.documents.first().map_or(0, |(Reverse(length), _)| *length)
    }
}

/// A loose change behind the number of its first operation.
fn loose<'a>(contents: &[u8], chunk: Cow<'a, [u8]>) -> (u64, Cow<'a, [u8]>) {
    (first_operation(contents).unwrap_or(u64::MAX), chunk)
}

/// Type, contents, and whole length of the chunk at the beginning.
fn header(bytes: &[u8]) -> Result<(u8, &[u8], usize), Rejection> {
    let ends = || Rejection::malformed("ends within a chunk");
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(ends)?;
    if *magic != MAGIC {
        return Err(Rejection::malformed("not an Automerge chunk"));
    }
    let (_checksum, rest) = rest.split_first_chunk::<4>().ok_or_else(ends)?;
    let (&kind, mut rest) = rest.split_first().ok_or_else(ends)?;
    let length = number(&mut rest).and_then(|length| usize::try_from(length).ok()).ok_or_else(ends)?;
    let contents = rest.get(..length).ok_or_else(ends)?;
    Ok((kind, contents, bytes.len() - rest.len() + length))
}

/// The number of a change's first operation, which is above those of all that it depends on.
fn first_operation(mut change: &[u8]) -> Option<u64> {
    let dependencies = usize::try_from(number(&mut change)?).ok()?.checked_mul(32)?;
    change = change.get(dependencies..)?;
    let actor = usize::try_from(number(&mut change)?).ok()?;
    change = change.get(actor..)?;
    let _sequence = number(&mut change)?;
    number(&mut change)
}

/// Takes an LEB128 number off the front.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
