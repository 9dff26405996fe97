//! The system's own programs: `ip`, `nft`, `mount`, `strace`.
//!
//! In: a program and its arguments. Out: what it printed, or what it complained about.

use anyhow::{Context as _, bail};
use std::{ffi::OsStr, process::Command};

/// Runs a program to its end.
pub(crate) fn run<I>(program: &str, arguments: I) -> anyhow::Result<String>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    // Root's programs, also where PATH is a user's.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).args(arguments);
    let output = command.output().with_context(|| format!("failed to run {program}"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}`: {}", words.join(" "), complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same with the words in one text.
pub(crate) fn say(program: &str, words: &str) -> anyhow::Result<String> {
    run(program, words.split_whitespace())
}
