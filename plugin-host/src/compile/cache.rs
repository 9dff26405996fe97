//! Native code of earlier compilations, kept in the node's data directory, and the marks of compilations under way.
//!
//! Native code is run with the node's own rights, so a file is believed only where a MAC under a key of this node vouches
//! for it: bytes that were changed, copied from another node, or left by another build are compiled anew. The key
//! lies beside the files (mode 0600); who can read it can also replace the program.
//!
//! A mark is set before a plugin is compiled and tried, and taken away after, whatever came of it. A node that finds
//! marks of two attempts at one plugin died in both, and does not try a third time.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use wasmtime::Engine;

use crate::error::Error;
use crate::plugin::PluginHash;

const KEY_FILE: &str = "key";
const MAC_BYTES: usize = 32;
/// Starts that may die while a plugin is compiled before it is left alone.
const ATTEMPTS_MAX: u8 = 2;

/// See the head of this file. Opened once a process.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// In this directory, which is made where it is not there.
    pub fn open(dir: &Path) -> Result<Cache, Error> {
        let failed = |error: io::Error| Error::Host(format!("{}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(failed)?;
        let key = key(dir).map_err(failed)?;
        Ok(Cache { dir: dir.to_owned(), key })
    }

    /// What was compiled of it before by an engine with these settings.
    pub(crate) fn get(&self, engine: &Engine, plugin: &PluginHash) -> Option<Vec<u8>> {
        let mut file = fs::read(self.file(engine, plugin)).ok()?;
        let native = file.split_off(file.len().min(MAC_BYTES));
        let mac = blake3::Hash::from_slice(&file).ok()?;
        // Compared in constant time.
        (mac == self.mac(engine, plugin, &native)).then_some(native)
    }

    /// Keeps it. A disk that is full costs time at the next start and nothing else.
    pub(crate) fn put(&self, engine: &Engine, plugin: &PluginHash, native: &[u8]) {
        let file = self.file(engine, plugin);
        let beside = file.with_extension("new");
        let written = private(&beside, false)
            .and_then(|mut out| {
                out.write_all(self.mac(engine, plugin, native).as_bytes())?;
                out.write_all(native)
            })
            .and_then(|()| fs::rename(&beside, &file));
        if let Err(error) = written {
            let _ = fs::remove_file(&beside);
            tracing::warn!(file = %file.display(), %error, "plugin_cache_not_written");
        }
    }

    /// Removes all that is kept of a plugin, of whatever build.
    pub(crate) fn remove(&self, plugin: &PluginHash) {
        let prefix = plugin.to_string();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Marks that it is being compiled and tried. Refused where that killed the node twice.
    pub(crate) fn mark(&self, plugin: &PluginHash) -> Result<Mark, Error> {
        // The directory goes with the data where a disk is set aside.
        let _ = fs::create_dir_all(&self.dir);
        let path = self.dir.join(format!("compiling-{plugin}"));
        let before = fs::read(&path).ok().and_then(|bytes| bytes.first().copied()).unwrap_or(0);
        if before >= ATTEMPTS_MAX {
            return Err(Error::Quarantined { attempts: before, mark: path.display().to_string() });
        }
        let marked = private(&path, false).and_then(|mut file| {
            file.write_all(&[before + 1])?;
            file.sync_all()
        });
        marked.map_err(|error| Error::Host(format!("{}: {error}", path.display())))?;
        Ok(Mark(path))
    }

    fn file(&self, engine: &Engine, plugin: &PluginHash) -> PathBuf {
        let fingerprint = fingerprint(engine).to_hex();
        self.dir.join(format!("{plugin}-{}.native", &fingerprint[..16]))
    }

    fn mac(&self, engine: &Engine, plugin: &PluginHash, native: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(&plugin.0).update(fingerprint(engine).as_bytes()).update(native);
        mac.finalize()
    }
}

/// A compilation under way; dropped when it is over.
#[derive(Debug)]
pub(crate) struct Mark(PathBuf);

impl Drop for Mark {
    fn drop(&mut self) {
        // One that stays costs the plugin an attempt, no more.
        let _ = fs::remove_file(&self.0);
    }
}

/// All that decides which native code comes of a module: the engine's settings, this build, the contract.
fn fingerprint(engine: &Engine) -> blake3::Hash {
    struct Into(blake3::Hasher);
    impl Hasher for Into {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut into = Into(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut into);
    into.write(env!("CARGO_PKG_VERSION").as_bytes());
    into.write(crate::load::CONTRACT.as_bytes());
    into.0.finalize()
}

/// This node's key, made at the first start.
fn key(dir: &Path) -> io::Result<[u8; 32]> {
    let path = dir.join(KEY_FILE);
    let mut key = [0; 32];
    match File::open(&path).and_then(|mut file| file.read_exact(&mut key)) {
        Ok(()) => return Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Half a key, after a crash: nothing that it vouched for is lost but time.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => fs::remove_file(&path)?,
        Err(error) => return Err(error),
    }
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut file = private(&path, true)?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}

/// A file that only this user may read.
fn private(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).create_new(new).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::for_compiling;
    use std::os::unix::fs::PermissionsExt as _;

    const PLUGIN: PluginHash = PluginHash([7; 32]);

    #[test]
    fn what_this_node_did_not_write_is_not_believed() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let engine = for_compiling().unwrap();
        let (cache, other) = (Cache::open(here.path()).unwrap(), Cache::open(there.path()).unwrap());
        cache.put(&engine, &PLUGIN, b"native");
        assert_eq!(cache.get(&engine, &PLUGIN).as_deref(), Some(&b"native"[..]));
        assert_eq!(Cache::open(here.path()).unwrap().get(&engine, &PLUGIN).as_deref(), Some(&b"native"[..]));
        let mode = fs::metadata(here.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // A file of another node, one of another plugin, a changed one, a cut one.
        let file = cache.file(&engine, &PLUGIN);
        fs::copy(&file, other.file(&engine, &PLUGIN)).unwrap();
        assert_eq!(other.get(&engine, &PLUGIN), None);
        fs::copy(&file, cache.file(&engine, &PluginHash([8; 32]))).unwrap();
        assert_eq!(cache.get(&engine, &PluginHash([8; 32])), None);
        let good = fs::read(&file).unwrap();
        for at in [0, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, bad).unwrap();
            assert_eq!(cache.get(&engine, &PLUGIN), None);
        }
        fs::write(&file, &good[..20]).unwrap();
        assert_eq!(cache.get(&engine, &PLUGIN), None);
        cache.remove(&PLUGIN);
        assert!(!file.exists());
    }

    #[test]
    fn a_plugin_that_two_starts_died_of_is_not_tried_a_third_time() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        drop(cache.mark(&PLUGIN).unwrap());
        for _ in 0..ATTEMPTS_MAX {
            // The process dies: nobody takes the mark away.
            std::mem::forget(cache.mark(&PLUGIN).unwrap());
        }
        let refused = cache.mark(&PLUGIN).unwrap_err();
        assert!(matches!(refused, Error::Quarantined { attempts: ATTEMPTS_MAX, .. }), "{refused:?}");
        assert!(cache.mark(&PluginHash([8; 32])).is_ok());
    }
}
