//! A causal context in a file, so that a shell user can carry one from a get to a put.
//!
//! One line: `merganser-context 1 <keyspace> <key> <context> <crc32>`, keyspace, key and
//! context in hex. In: a path. Out: the context, if the file is whole and of the
//! key asked about: a context of another key would only be refused later and say less.

use crate::{
    failure::Failure,
    output::{from_hex, hex},
};
use anyhow::{Context as _, Result};
use merganser_client::Context;
use std::{fs, io::Write, path::Path};

const MAGIC: &str = "merganser-context";
const VERSION: &str = "1";

/// Reads the context of this key.
pub(crate) fn read(path: &Path, keyspace: &str, key: &[u8]) -> Result<Context> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(
            "context_file",
            format!("context file {}: {error}", path.display()),
            "get the key with the same --context-file first",
        )
    })?;
    let damaged = |why: &str| {
        Failure::new(
            "context_file",
            format!("context file {}: {why}", path.display()),
            "get the key again with --context-file",
        )
    };
    let line = text.strip_suffix('\n').ok_or_else(|| damaged("it ends in the middle"))?;
    let (body, crc) = line.rsplit_once(' ').ok_or_else(|| damaged("it is not a context file"))?;
    if crc != checksum(body) {
        return Err(damaged("its checksum does not match").into());
    }
    let parts: Vec<&str> = body.split(' ').collect();
    let [MAGIC, VERSION, of_keyspace, of_key, context] = parts[..] else {
        return Err(damaged("it is not a context file of this version").into());
    };
    if of_keyspace != hex(keyspace.as_bytes()) || of_key != hex(key) {
        return Err(damaged("it holds the context of another key").into());
    }
    let context = from_hex(context).ok_or_else(|| damaged("its context is not hex"))?;
    Ok(Context::from_bytes(context))
}

/// Replaces the file, whole or not at all.
pub(crate) fn write(path: &Path, keyspace: &str, key: &[u8], context: &Context) -> Result<()> {
    let body =
        format!("{MAGIC} {VERSION} {} {} {}", hex(keyspace.as_bytes()), hex(key), hex(context.as_bytes()));
    let line = format!("{body} {}\n", checksum(&body));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(line.as_bytes())?;
        file.persist(path)?;
        anyhow::Ok(())
    };
    write().with_context(|| format!("failed to write context file {}", path.display()))
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32fast::hash(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, keyspace: &str, key: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context");
        fs::write(&path, text).unwrap();
        read(&path, keyspace, key).unwrap_err().to_string()
    }

    #[test]
    fn a_context_goes_through_a_file_unchanged_and_over_an_older_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context");
        for context in [&b""[..], &[0, 255, 7]] {
            let context = Context::from_bytes(context.to_vec());
            write(&path, "my carts", b"a key\n\xff", &context).unwrap();
            assert_eq!(read(&path, "my carts", b"a key\n\xff").unwrap(), context);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no partial file is left");
    }

    #[test]
    fn a_file_of_another_key_or_a_damaged_one_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context");
        write(&path, "carts", b"alice", &Context::from_bytes("c")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(refusal(&text, "carts", b"bob").contains("another key"));
        assert!(refusal(&text, "orders", b"alice").contains("another key"));
        assert!(refusal(text.trim_end(), "carts", b"alice").contains("middle"));
        assert!(refusal(&text.replacen('1', "2", 1), "carts", b"alice").contains("checksum"));
        assert!(refusal("hello\n", "carts", b"alice").contains("not a context file"));
        let missing = read(&directory.path().join("none"), "carts", b"alice").unwrap_err();
        assert_eq!(crate::failure::tell(&missing).hint, "get the key with the same --context-file first");
    }
}
