//! Tests of `paths`: what is stored, and that nothing is ever written outside of the directory.

use super::*;
use std::os::unix::{ffi::OsStrExt, fs::symlink};

#[test]
fn every_regular_file_becomes_a_key_and_the_rest_says_why_not() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    write(&at("b/c.txt"), b"c").unwrap();
    write(&at("a"), b"").unwrap();
    write(&at(".hidden"), b"h").unwrap();
    write(&at("large"), &vec![0; VALUE_BYTES_MAX + 1]).unwrap();
    write(&at("just fits"), &vec![0; VALUE_BYTES_MAX]).unwrap();
    write(&at(&format!("{}/too-long", "d".repeat(250))), b"x").unwrap();
    fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), b"x").unwrap();
    symlink("/etc", at("link")).unwrap();

    let (found, skipped) = walk(root.path(), "p/").unwrap();
    let keys: Vec<&str> = found.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(keys, ["p/.hidden", "p/a", "p/b/c.txt", "p/just fits"]);
    let mut why: Vec<&str> = skipped.iter().map(|skipped| skipped.why.as_str()).collect();
    why.sort();
    assert_eq!(why.len(), 4);
    assert!(why[0].contains("1048577 bytes") && why[1] == "a symbolic link", "{why:?}");
    assert!(why[2].contains("not UTF-8") || why[3].contains("not UTF-8"), "{why:?}");
    assert!(why.iter().any(|why| why.contains("would have 261 bytes")), "{why:?}");
    assert!(walk(&at("nowhere"), "").is_err());
}

#[test]
fn the_stores_own_keys_are_not_imported() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join(".merganser/import/x"), b"x").unwrap();
    let (found, skipped) = walk(root.path(), "").unwrap();
    assert_eq!((found.len(), skipped.len()), (0, 1));
}

#[test]
fn no_key_reaches_outside_of_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("link")).unwrap();
    write(&root.path().join("file"), b"x").unwrap();
    let rows = [
        ("a", true),
        ("a/b/c", true),
        ("a/..b/...", true),
        (" ", true),
        ("..", false),
        ("../a", false),
        ("a/../../b", false),
        ("a/..", false),
        ("/etc/passwd", false),
        ("//a", false),
        ("a//b", false),
        ("a/./b", false),
        ("./a", false),
        ("a/", false),
        (".", false),
        ("", false),
        ("a\0b", false),
        ("link/a", false),
        ("link/b/c", false),
        ("file/a", false),
    ];
    for (key, allowed) in rows {
        match place(root.path(), key) {
            Ok(path) => assert!(allowed && path.starts_with(root.path()), "{key}: {}", path.display()),
            Err(why) => assert!(!allowed, "{key}: {why}"),
        }
    }
}

#[test]
fn a_link_at_the_place_of_a_file_is_replaced_and_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    write(&victim, b"mine").unwrap();
    symlink(&victim, root.path().join("a")).unwrap();
    let path = place(root.path(), "a").unwrap();
    assert_eq!(there(&path, b"mine").unwrap(), There::Other);
    write(&path, b"value").unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
    assert_eq!(fs::read(root.path().join("a")).unwrap(), b"value");
    assert_eq!(there(&path, b"value").unwrap(), There::Same);
    assert_eq!(there(&path, b"valuf").unwrap(), There::Other);
    assert_eq!(there(&root.path().join("b"), b"").unwrap(), There::Nothing);
    assert!(there(root.path(), b"").is_err());
}
