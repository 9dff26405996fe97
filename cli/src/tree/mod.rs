//! `import DIR` and `export DIR`: a directory tree in a keyspace, and back, checked byte for byte.
//!
//! ```text
//!  DIR ──▶ walk ──▶ put each file under prefix + path ──▶ index, in the keyspace itself
//!                            │ acknowledged                  .merganser/import/NAME/…
//!                            ▼                                        │
//!                     manifest file ──────────────┐                   ▼
//!                                                 └──▶ get each ──▶ BLAKE3 ──▶ DIR
//! ```
//!
//! In: regular files of at most 1 MiB whose path is text of at most 256 bytes; all others are
//! reported and skipped. Out: the same bytes. There is no call that lists keys, so an import
//! leaves an index of what it stored. Not kept: empty directories, modes, times, links.

mod export;
mod import;
mod index;
mod manifest;
mod paths;

use crate::{
    args::{Global, Write},
    failure::Exit,
    output::Output,
};
use anyhow::Result;
use clap::Args;
use std::{path::PathBuf, time::Duration};

/// Files at the same time.
const CONCURRENCY_DEFAULT: u16 = 32;
/// Time for one file with all its retries: longer than most restarts take.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The directory.
    dir: PathBuf,
    /// Into which keyspace.
    #[arg(long)]
    keyspace: String,
    /// What each key begins with, before the path inside DIR.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Under which name the index of what was stored is kept, for `export`.
    #[arg(long, default_value = "default", value_parser = index::name)]
    name: String,
    /// Store no index; then only --manifest knows what was stored.
    #[arg(long)]
    no_index: bool,
    /// Append each acknowledged file, with its BLAKE3, to this file.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Do not look first whether a key is there already: faster, and in a keyspace that keeps
    /// siblings a second import makes some.
    #[arg(long)]
    blind: bool,
    /// Files at the same time.
    #[arg(long, default_value_t = CONCURRENCY_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    #[command(flatten)]
    write: Write,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The directory; made if it is not there.
    dir: PathBuf,
    /// From which keyspace.
    #[arg(long)]
    keyspace: String,
    /// Cut this from the beginning of each key; keys without it are left out.
    #[arg(long, default_value = "")]
    prefix: String,
    /// The name that the import was given.
    #[arg(long, default_value = "default", value_parser = index::name)]
    name: String,
    /// Take the list of keys from this file instead of the index.
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    manifest: Option<PathBuf>,
    /// Replace files that are there with other content.
    #[arg(long)]
    overwrite: bool,
    /// Also write what changed since it was imported.
    #[arg(long)]
    changed: bool,
    /// Files at the same time.
    #[arg(long, default_value_t = CONCURRENCY_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    #[command(flatten)]
    read: crate::args::Read,
}

pub(crate) async fn import(args: ImportArgs, global: &Global, output: Output) -> Result<Exit> {
    import::run(args, global, output).await
}

pub(crate) async fn export(args: ExportArgs, global: &Global, output: Output) -> Result<Exit> {
    export::run(args, global, output).await
}

/// A client that does not give a file up before its time is over.
async fn patient(global: &Global) -> Result<merganser_client::Client> {
    let timeout = global.timeout.unwrap_or(FILE_TIMEOUT);
    let builder = global.builder().timeout(timeout).attempts_max(u32::MAX).pipelined(true);
    Ok(builder.connect(global.addresses.iter()).await?)
}
