//! Between paths and keys, safely in both directions.
//!
//! In: a directory to walk, or a key and a directory to write below. Out: keys, or paths that are
//! certain to lie inside the directory whatever the key says: `..`, absolute paths and symbolic
//! links on the way are refused. Absent: the cluster.

use merganser_client::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// Keys of ours inside a keyspace begin with this; no import stores files there.
pub(super) const RESERVED: &str = ".merganser/";

/// A file to store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: String,
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
}

/// Something that cannot be stored, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// Everything below `root`, in the order of names.
pub(super) fn walk(root: &Path, prefix: &str) -> io::Result<(Vec<Found>, Vec<Skipped>)> {
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // The root must be there; of what is below it, one closed directory is no reason to stop.
            Err(error) if directory == root => return Err(error),
            Err(error) => {
                skipped.push(Skipped { path: directory, why: error.to_string() });
                continue;
            }
        };
        for entry in entries {
            let path = entry?.path();
            // Not following links: what they point to may lie anywhere, or be the way we came.
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) => {
                    skipped.push(Skipped { path, why: error.to_string() });
                    continue;
                }
            };
            if metadata.is_dir() {
                directories.push(path);
                continue;
            }
            let key = if metadata.is_file() {
                key_of(root, &path, prefix, metadata.len())
            } else if metadata.is_symlink() {
                Err("a symbolic link".into())
            } else {
                Err("not a regular file".into())
            };
            match key {
                Ok(key) => found.push(Found { key, path, size_bytes: metadata.len() }),
                Err(why) => skipped.push(Skipped { path, why }),
            }
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((found, skipped))
}

fn key_of(root: &Path, path: &Path, prefix: &str, size_bytes: u64) -> Result<String, String> {
    let relative = path.strip_prefix(root).map_err(|_| "outside of the directory".to_owned())?;
    let relative = relative.to_str().ok_or("its path is not UTF-8")?;
    let key = format!("{prefix}{relative}");
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("its key would have {} bytes; at most {KEY_BYTES_MAX} fit", key.len()));
    }
    if size_bytes > VALUE_BYTES_MAX as u64 {
        return Err(format!("{size_bytes} bytes; at most {VALUE_BYTES_MAX} fit"));
    }
    if key.starts_with(RESERVED) {
        return Err(format!("keys that begin with {RESERVED} are the store's own"));
    }
    Ok(key)
}

/// Where the value of a key goes below `root`.
pub(super) fn place(root: &Path, key: &str) -> Result<PathBuf, String> {
    if key.is_empty() || key.contains('\0') {
        return Err("its key is not a path".into());
    }
    let relative = Path::new(key);
    // `components` forgives `a//b` and `a/./b`: then two keys would be one file.
    let rebuilt: PathBuf = relative.components().collect();
    if relative.components().any(|part| !matches!(part, Component::Normal(_)))
        || rebuilt.as_os_str() != relative.as_os_str()
    {
        return Err("its key is not a plain relative path".into());
    }
    let mut way = root.to_owned();
    for part in rebuilt.parent().iter().flat_map(|parent| parent.components()) {
        way.push(part);
        match fs::symlink_metadata(&way) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(format!("{} is in the way and no directory", way.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", way.display())),
        }
    }
    Ok(root.join(rebuilt))
}

/// What is at the place already.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    Same,
    Other,
}

pub(super) fn there(path: &Path, value: &[u8]) -> io::Result<There> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == value.len() as u64 => {
            Ok(if fs::read(path)? == value { There::Same } else { There::Other })
        }
        Ok(metadata) if metadata.is_dir() => {
            Err(io::Error::new(io::ErrorKind::IsADirectory, "a directory is in the way"))
        }
        Ok(_) => Ok(There::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(There::Nothing),
        Err(error) => Err(error),
    }
}

/// Writes a file, whole or not at all; a symbolic link at its place is replaced, not followed.
pub(super) fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // As any new file: readable as the umask says, and not for its owner alone.
    let permissions = fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(directory)?;
    io::Write::write_all(&mut file, value)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
#[path = "paths_test.rs"]
mod paths_test;
