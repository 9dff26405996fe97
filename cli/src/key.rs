//! How a key is named on the command line, and how a key is printed so that what is printed can be typed in again.
//!
//! A key is any bytes. As an argument a key is the bytes of the argument, or with `--key-hex` the bytes that the
//! hexadecimal digits stand for. In print a key stands as it is where a terminal and a shell show every character of it,
//! and as `--key-hex DIGITS` elsewhere. In: arguments, keys of the cluster. Out: bytes, text. Absent: limits of keys,
//! which the cluster checks.

use crate::{
    failure::Failure,
    output::{clean, from_hex, hex},
};
use anyhow::Result;
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The keyspace and the key of a command.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    pub(crate) keyspace: String,
    /// The key's bytes as they are, or hexadecimal digits with --key-hex.
    key: OsString,
    /// KEY is given as hexadecimal digits, as other commands print keys that are no plain text.
    #[arg(long)]
    key_hex: bool,
}

impl KeyArgs {
    /// The key itself.
    pub(crate) fn key(&self) -> Result<Vec<u8>> {
        bytes(&self.key, self.key_hex)
    }
}

/// The bytes of a key that was given as an argument.
pub(crate) fn bytes(argument: &OsStr, is_hex: bool) -> Result<Vec<u8>> {
    if !is_hex {
        return Ok(argument.to_owned().into_vec());
    }
    let digits = std::str::from_utf8(argument.as_bytes()).ok().and_then(from_hex);
    digits.ok_or_else(|| {
        let what = format!("the key {argument:?} is not hexadecimal");
        Failure::usage(what, "give two digits of 0-9 and a-f for each byte, or leave --key-hex out").into()
    })
}

/// A key in print.
pub(crate) fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if is_plain(text) => text.to_owned(),
        _ => format!("--key-hex {}", hex(key)),
    }
}

/// Whether a reader sees each character and a shell takes the text for one argument that is no option.
fn is_plain(text: &str) -> bool {
    let is_quoting = |c: char| c.is_whitespace() || "\\\"'`$&|;<>()*?[]{}!#~".contains(c);
    !text.is_empty() && !text.starts_with('-') && !text.contains(is_quoting) && clean(text) == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_of_a_key_names_the_key_again() {
        let keys: [&[u8]; 9] = [
            b"alice",
            "zoë/cart".as_bytes(),
            b"\xff\x00",
            b"a\x1b[2J",
            "\u{202e}abc".as_bytes(),
            b"-x",
            b"a b",
            b"\\x41",
            b"'q'",
        ];
        for key in keys {
            let text = shown(key);
            let (digits, is_hex) = match text.strip_prefix("--key-hex ") {
                Some(digits) => (digits, true),
                None => (text.as_str(), false),
            };
            assert_eq!(bytes(OsStr::new(digits), is_hex).unwrap(), key, "{text}");
        }
        assert_eq!(shown(b"alice"), "alice");
        assert_eq!(shown(b"\xff\x00"), "--key-hex ff00");
    }

    #[test]
    fn an_argument_need_not_be_text_and_wrong_digits_are_refused() {
        assert_eq!(bytes(OsStr::from_bytes(b"\xffk"), false).unwrap(), b"\xffk");
        for wrong in ["f", "0g", "zz"] {
            assert!(bytes(OsStr::new(wrong), true).is_err(), "{wrong}");
        }
    }
}
