//! `plugin new | build | check | push | list | remove`: the life of a conflict policy.
//!
//! ```text
//!   new ──▶ a project ──▶ build ──▶ .wasm ──▶ check ──▶ push ──▶ keyspace set --policy resolver:NAME
//!                                     laws, offline       every node compiles it
//! ```
//!
//! In: projects and modules. Out: artifacts, reports, plugins in the cluster. `build` and `check`
//! use the very engine that a node runs. Absent: attaching a plugin; that is `keyspace`.

mod build;
mod check;
mod new;

use crate::{
    args::Global,
    connect,
    failure::{Exit, Failure},
    output::{Output, hex, size, table},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use merganser_client::proto;
use merganser_plugin_host::{Compiler, Host, Limits};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct PluginArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a project for a plugin, ready to build.
    New(new::NewArgs),
    /// Compile a project.
    Build(build::BuildArgs),
    /// Check the laws that a plugin must keep, with the engine of a node and without one.
    Check(check::CheckArgs),
    /// Upload a plugin to the cluster. Changes no keyspace.
    Push(PushArgs),
    /// The plugins of the cluster.
    List,
    /// Remove a plugin that no keyspace uses.
    Remove {
        /// Its name, or its hash.
        plugin: String,
    },
}

#[derive(Debug, Args)]
struct PushArgs {
    /// The module, or the directory of its project, which is built first.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The name under which keyspaces refer to it [default: the one it gives itself].
    #[arg(long)]
    name: Option<String>,
    /// Upload it whatever the laws say, and without asking them.
    #[arg(long)]
    unchecked: bool,
}

pub(crate) fn run(args: PluginArgs, global: &Global, output: Output) -> Result<Exit> {
    match args.action {
        Action::New(args) => new::run(args, output),
        Action::Build(args) => build::run(args, output),
        Action::Check(args) => check::run(args, output),
        Action::Push(args) => connect::block_on(push(args, global, output)),
        Action::List => connect::block_on(list(global, output)),
        Action::Remove { plugin } => connect::block_on(remove(&plugin, global, output)),
    }
}

/// The module at `path`, which may also be a project.
fn module(path: &Path, output: Output) -> Result<(PathBuf, Vec<u8>)> {
    let artifact = if path.is_dir() { build::compile(path, output)? } else { path.to_owned() };
    let module = std::fs::read(&artifact).map_err(|error| {
        let what = format!("failed to read {}: {error}", artifact.display());
        Failure::new("file", what, "name a .wasm file, or the directory of a plugin project")
    })?;
    Ok((artifact, module))
}

/// The engine of a node; it compiles in a child process too, so that no module takes this program with it.
fn host() -> Result<Host> {
    let compiler = Compiler::this_program(merganser_server::COMPILE_COMMAND)?;
    Ok(Host::with(Limits::default(), compiler, None)?)
}

async fn push(args: PushArgs, global: &Global, output: Output) -> Result<Exit> {
    let (_, module) = module(&args.path, output)?;
    if !args.unchecked {
        check::before_push(&module)?;
    }
    let admin = global.admin().await?;
    let bar = output.bar(module.len() as u64, "{bar:32} {bytes}/{total_bytes} {wide_msg}");
    bar.set_message("uploading");
    let moving = bar.clone();
    let total = module.len() as u64;
    let uploaded = admin.upload_plugin(args.name.as_deref().unwrap_or_default(), module, move |progress| {
        moving.set_position(progress.sent_bytes);
        if progress.sent_bytes == total {
            moving.set_message("every node checks and compiles it");
        }
    });
    let reply = uploaded.await;
    bar.finish_and_clear();
    let reply = reply?;
    let plugin = reply.plugin.unwrap_or_default();
    output.result(
        || {
            let policy = match plugin.world() {
                proto::World::Resolver => "resolver",
                _ => "lattice",
            };
            let mut text = format!(
                "{} {}  {}\nready on {}",
                plugin.name,
                plugin.version,
                hex(&plugin.hash),
                reply.ready.join(", ")
            );
            if !reply.waiting.is_empty() {
                text += &format!("; {} will get it when they are back", reply.waiting.join(", "));
            }
            let next = format!("merganser keyspace set KEYSPACE --policy {policy}:{}", plugin.name);
            format!("{text}\nuse it: {next}")
        },
        || json!({ "plugin": plugin_json(&plugin), "ready": reply.ready, "waiting": reply.waiting }),
    )?;
    Ok(Exit::Ok)
}

async fn list(global: &Global, output: Output) -> Result<Exit> {
    let plugins = global.admin().await?.plugins().await?;
    let text = || {
        let rows = plugins.iter().map(|plugin| {
            let from = if plugin.built_in { "built in" } else { "pushed" };
            vec![
                plugin.name.clone(),
                plugin.version.clone(),
                world_name(plugin.world()).into(),
                hex(&plugin.hash).chars().take(12).collect(),
                size(plugin.size_bytes),
                from.into(),
                plugin.keyspaces.join(", "),
            ]
        });
        table(&["PLUGIN", "VERSION", "WORLD", "HASH", "SIZE", "FROM", "KEYSPACES"], rows)
    };
    output.result(text, || plugins.iter().map(plugin_json).collect())?;
    Ok(Exit::Ok)
}

async fn remove(plugin: &str, global: &Global, output: Output) -> Result<Exit> {
    let removed = global.admin().await?.remove_plugin(plugin).await?;
    output.result(|| format!("removed {} {}", removed.name, hex(&removed.hash)), || plugin_json(&removed))?;
    Ok(Exit::Ok)
}

fn plugin_json(plugin: &proto::Plugin) -> Value {
    json!({
        "name": plugin.name,
        "version": plugin.version,
        "summary": plugin.summary,
        "world": world_name(plugin.world()),
        "hash": hex(&plugin.hash),
        "size_bytes": plugin.size_bytes,
        "built_in": plugin.built_in,
        "keyspaces": plugin.keyspaces,
    })
}

fn world_name(world: proto::World) -> &'static str {
    match world {
        proto::World::Unspecified => "unknown",
        proto::World::Resolver => "resolver",
        proto::World::Lattice => "lattice",
        proto::World::ReplicatedType => "replicated-type",
    }
}
