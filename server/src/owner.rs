//! Whose data directory this is, in a file that is read before the directory is opened.
//!
//! ```text
//!   start ─▶ check OWNER ─▶ open storage ─▶ check the identity record ─▶ note OWNER
//! ```
//!
//! To open storage is to recover it, which writes. So that a directory at another node's or another cluster's place is refused
//! with not one byte changed, the file `OWNER` beside the data says in two lines what the identity record says. The record is
//! what counts: a directory without the file is judged by it. In: the configuration. Out: go on, or whose the
//! directory is. Absent: who a node is after a start, which core's `boot` says.

use crate::config::Config;
use crate::error::Error;
use merganser_core::boot::{NotThisNodes, Owner};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Its name in the data directory.
pub(crate) const FILE: &str = "OWNER";
/// Written whole and synced, then renamed.
pub(crate) const TEMPORARY: &str = "OWNER.tmp";

/// Whom the configuration describes.
pub(crate) fn of(config: &Config) -> Owner {
    Owner { cluster: config.cluster.name.clone(), node: config.node.name.clone() }
}

/// What an operator is told of a directory that is not this node's.
pub(crate) fn refused(config: &Config, reason: &NotThisNodes) -> Error {
    Error::NotThisNodes {
        dir: config.storage.dir.clone(),
        node: config.node.name.clone(),
        cluster: config.cluster.name.clone(),
        reason: reason.clone(),
    }
}

/// Refuses a directory whose file names somebody else.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    let text = match fs::read_to_string(config.storage.dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    match parse(&text) {
        Some(owner) if owner != of(config) => Err(refused(config, &NotThisNodes::Owner(owner))),
        // Its own, or torn: the record says more.
        _ => Ok(()),
    }
}

/// Writes the file where it does not say the same already. Requires that the identity record is this node's.
pub(crate) fn note(config: &Config) -> io::Result<()> {
    let (dir, text) = (&config.storage.dir, text(&of(config)));
    if fs::read_to_string(dir.join(FILE)).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let mut file = File::create(dir.join(TEMPORARY))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(dir.join(TEMPORARY), dir.join(FILE))?;
    sync_dir(dir)
}

fn text(owner: &Owner) -> String {
    format!("cluster {}\nnode {}\n", owner.cluster, owner.node)
}

fn parse(text: &str) -> Option<Owner> {
    let (cluster, node) = text.strip_suffix('\n')?.split_once('\n')?;
    let (cluster, node) = (cluster.strip_prefix("cluster ")?, node.strip_prefix("node ")?);
    Some(Owner { cluster: cluster.to_owned(), node: node.to_owned() })
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    Ok(rustix::fs::fsync(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, cluster: &str, node: &str) -> Config {
        let mut config = Config::default();
        config.storage.dir = dir.to_owned();
        (config.cluster.name, config.node.name) = (cluster.into(), node.into());
        config
    }

    #[test]
    fn a_directory_is_its_owners_and_nobody_elses() {
        let dir = tempfile::tempdir().expect("a directory");
        let mine = config(dir.path(), "shop", "a");
        check(&mine).expect("nobody's yet");
        note(&mine).expect("noted");
        note(&mine).expect("noted already");
        check(&mine).expect("its own");
        for (cluster, node) in [("shop", "b"), ("staging", "a")] {
            let error = check(&config(dir.path(), cluster, node)).expect_err("another's").to_string();
            assert!(error.contains("node \"a\" of cluster \"shop\""), "{error}");
            assert!(error.contains(&dir.path().display().to_string()), "{error}");
        }
        fs::write(dir.path().join(FILE), "cluster sh").expect("torn");
        check(&mine).expect("the record judges");
    }
}
