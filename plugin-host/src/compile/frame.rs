//! What the child says to its parent: one frame.
//!
//! ```text
//!   kind: 1 byte │ length: 8 bytes, little-endian │ native code, or the fields of the error
//! ```
//!
//! The parent trusts the frame's *contents* as far as it trusts its own program; it still checks the shape, because the
//! child may be ended in the middle of it.

use crate::error::Error;

const NATIVE: u8 = 0;
const MALFORMED: u8 = 1;
const OVER_LIMIT: u8 = 2;
const FORBIDDEN_IMPORT: u8 = 3;
const WRONG_EXPORTS: u8 = 4;
const COMPILER: u8 = 5;
const ENGINE: u8 = 6;

const HEAD_BYTES: usize = 9;

/// The frame of an outcome.
pub(super) fn write(outcome: &Result<Vec<u8>, Error>) -> Vec<u8> {
    let text;
    let (kind, contents) = match outcome {
        Ok(native) => (NATIVE, native.as_slice()),
        Err(error) => {
            let (kind, of_kind) = match error {
                Error::Malformed(reason) => (MALFORMED, reason.clone()),
                Error::OverLimit { what, count, limit } => (OVER_LIMIT, format!("{count} {limit} {what}")),
                Error::ForbiddenImport(import) => (FORBIDDEN_IMPORT, import.clone()),
                Error::WrongExports(reason) => (WRONG_EXPORTS, reason.clone()),
                Error::Compiler(reason) => (COMPILER, reason.clone()),
                other => (ENGINE, other.to_string()),
            };
            text = of_kind;
            (kind, text.as_bytes())
        }
    };
    let mut frame = Vec::with_capacity(HEAD_BYTES + contents.len());
    frame.push(kind);
    frame.extend_from_slice(&(contents.len() as u64).to_le_bytes());
    frame.extend_from_slice(contents);
    frame
}

/// The outcome in a frame; none where the frame is not whole.
pub(super) fn read(mut frame: Vec<u8>) -> Option<Result<Vec<u8>, Error>> {
    let (head, contents) = frame.split_first_chunk::<HEAD_BYTES>()?;
    let length = u64::from_le_bytes(head[1..].try_into().ok()?);
    if length != contents.len() as u64 {
        return None;
    }
    let kind = head[0];
    if kind == NATIVE {
        return Some(Ok(frame.split_off(HEAD_BYTES)));
    }
    let text = String::from_utf8(contents.to_vec()).ok()?;
    Some(Err(match kind {
        MALFORMED => Error::Malformed(text),
        OVER_LIMIT => {
            let mut fields = text.splitn(3, ' ');
            let count = fields.next()?.parse().ok()?;
            let limit = fields.next()?.parse().ok()?;
            Error::OverLimit { what: fields.next()?.into(), count, limit }
        }
        FORBIDDEN_IMPORT => Error::ForbiddenImport(text),
        WRONG_EXPORTS => Error::WrongExports(text),
        COMPILER => Error::Compiler(text),
        ENGINE => Error::Engine(text),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_reads_back_and_a_cut_frame_is_none() {
        for outcome in [
            Ok(vec![1, 2, 3]),
            Ok(Vec::new()),
            Err(Error::Malformed("m".into())),
            Err(Error::OverLimit { what: "core instances (unfolded)".into(), count: u64::MAX, limit: 16 }),
            Err(Error::ForbiddenImport("wasi".into())),
            Err(Error::WrongExports("w".into())),
            Err(Error::Compiler("c".into())),
        ] {
            let frame = write(&outcome);
            assert_eq!(read(frame[..frame.len() - 1].to_vec()), None);
            assert_eq!(read(frame), Some(outcome));
        }
        assert_eq!(read(vec![]), None);
        assert_eq!(read(vec![99, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
