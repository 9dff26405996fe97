//! A real tree of thousands of files goes in at W=2 while a node is killed half-way and comes
//! back; every file that was acknowledged comes out again, byte for byte.

use crate::{eventually, executable, merganser, text};
use anyhow::ensure;
use merganser_examples::local::LocalCluster;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

/// Files to import.
const FILES: usize = 3_000;
/// The largest value.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[tokio::test]
async fn every_acknowledged_file_comes_back_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, back) = (directory.path().join("tree"), directory.path().join("back"));
    plant(&tree);
    let before = hashes(&tree);
    assert!(before.len() >= 2_000, "only {} files were found", before.len());

    let mut cluster = LocalCluster::start(executable()).await.unwrap();
    let nodes = cluster.addresses();
    text(&merganser(&nodes, &["keyspace", "create", "files", "--n", "3", "--r", "2", "--w", "2"]).await);
    let manifest = directory.path().join("manifest");
    let import = Command::new(executable())
        .arg("--node")
        .arg(nodes.join(","))
        .args(["import", "--keyspace", "files", "--manifest"])
        .args([&manifest, &tree])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("half of the files are acknowledged", async || {
        let acknowledged = fs::read_to_string(&manifest)?.lines().count();
        ensure!(acknowledged >= before.len() / 2, "{acknowledged}");
        Ok(())
    })
    .await;
    cluster.say("kill b").await.unwrap();
    cluster.say("restart b").await.unwrap();
    let imported = import.wait_with_output().await.unwrap();
    println!("{}", text(&imported).trim());

    let (listed, into) = (manifest.to_string_lossy(), back.to_string_lossy());
    let exported = merganser(&nodes, &["export", "--keyspace", "files", "--manifest", &listed, &into]).await;
    println!("{}", text(&exported).trim());
    let after = hashes(&back);
    assert_eq!(after.len(), before.len(), "every file was acknowledged, and is back");
    for (path, hash) in &before {
        assert_eq!(after.get(path), Some(hash), "{}", path.display());
    }
    cluster.stop().await.unwrap();
}

/// Copies real files: sources of crates, as many as are wanted, else this repository's own.
fn plant(tree: &Path) {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let crates = cargo.into_iter().chain(home).map(|cargo| cargo.join("registry/src"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut planted = 0;
    for source in crates.chain([here]) {
        copy(&source, &tree.join(planted.to_string()), &mut planted);
    }
}

fn copy(from: &Path, to: &Path, planted: &mut usize) {
    let Ok(entries) = fs::read_dir(from) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if *planted >= FILES {
            return;
        } else if kind.is_dir() && name != "target" && name != ".git" {
            copy(&path, &to.join(&name), planted);
        } else if kind.is_file() && entry.metadata().is_ok_and(|file| file.len() <= FILE_BYTES_MAX) {
            fs::create_dir_all(to).unwrap();
            fs::copy(&path, to.join(&name)).unwrap();
            *planted += 1;
        }
    }
}

/// Every file below `root`, by its path from there.
fn hashes(root: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let (mut hashes, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let hash = blake3::hash(&fs::read(&path).unwrap());
                hashes.insert(path.strip_prefix(root).unwrap().to_owned(), hash);
            }
        }
    }
    hashes
}
