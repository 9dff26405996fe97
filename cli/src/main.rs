//! The one binary: a node, a client, and the tools around them.
//!
//! In: arguments and environment. Out: an exit code (see `failure`). Reading order: `args`, then the
//! command you are after: `serve` · `dev` · `kv` · `keyspace` · `plugin` · `cluster` · `inspect` ·
//! `tree` (import and export). Absent: any decision of a node; that is `core`, behind `server`.

mod args;
mod cluster;
mod connect;
mod context_file;
mod dev;
mod failure;
mod inspect;
mod key;
mod keyspace;
mod kv;
mod output;
mod plugin;
mod serve;
mod tree;

use args::{Cli, Command};
use clap::Parser;
use failure::Exit;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    // What a node runs as a child: no command for people, so that none of its own is spent on arguments.
    if std::env::args().nth(1).as_deref() == Some(merganser_server::COMPILE_COMMAND) {
        return merganser_plugin_host::child_main().into();
    }
    // Wrong arguments end here, with exit code 2.
    let cli = Cli::parse();
    let output = Output { json: cli.global.json };
    let exit = match run(cli, output) {
        Ok(exit) => exit,
        Err(error) => output.error(&error),
    };
    ExitCode::from(exit as u8)
}

fn run(cli: Cli, output: Output) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match cli.command {
        Command::Serve(args) => serve::run(args, output),
        Command::Dev(args) => dev::run(args, output).map(|()| Exit::Ok),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Plugin(args) => plugin::run(args, global, output),
        Command::Get(args) => connect::block_on(kv::get(args, global, output)),
        Command::Put(args) => connect::block_on(kv::put(args, global, output)),
        Command::Del(args) => connect::block_on(kv::del(args, global, output)),
        Command::Apply(args) => connect::block_on(kv::apply(args, global, output)),
        Command::Query(args) => connect::block_on(kv::query(args, global, output)),
        Command::Keyspace(args) => connect::block_on(keyspace::run(args, global, output)),
        Command::Cluster(args) => connect::block_on(cluster::run(args, global, output)),
        Command::Import(args) => connect::block_on(tree::import(args, global, output)),
        Command::Export(args) => connect::block_on(tree::export(args, global, output)),
    }
}
