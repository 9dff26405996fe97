//! `get`, `put`, `del`, `apply`, `query`.
//!
//! In: keys and values from arguments, files or standard input. Out: values raw on stdout, notes
//! on stderr, contexts in the file the user names. A write says where its context comes from:
//! `--context-file`, `--read-first`, or `--blind`. With none of them it carries no context, which only
//! a lattice keyspace accepts.

use crate::{
    args::{Global, Read, Write},
    connect::{reader, writer},
    context_file,
    failure::{Exit, Failure},
    key::KeyArgs,
    output::{Output, bytes_json, hex, size},
};
use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use merganser_client::{
    Content, Context, Entry, Error, Keyspace, Resolution, Sibling, State, VALUE_BYTES_MAX, Written, proto,
};
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Read as _},
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    at: KeyArgs,
    /// Show all versions, tombstones too, with no plugin asked.
    #[arg(long)]
    siblings: bool,
    /// Print the value of this sibling alone, as numbered by --siblings.
    #[arg(long, value_name = "NUMBER", requires = "siblings")]
    pick: Option<usize>,
    /// Write the context there, for the next put or del of this key; with --pick of an operand that is apart, of that one alone.
    #[arg(long, value_name = "FILE")]
    context_file: Option<PathBuf>,
    #[command(flatten)]
    read: Read,
}

/// Where the bytes to send come from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The value; without it and without --file, standard input. After `--` it may begin with a dash.
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Read the value from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
}

/// Where the context of a write comes from.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Based {
    /// Write with the context in this file, and put the new one there.
    #[arg(long, value_name = "FILE")]
    context_file: Option<PathBuf>,
    /// Get the key first and replace all that is there.
    #[arg(long)]
    read_first: bool,
    /// Deliberately without a context: beside whatever is there.
    #[arg(long)]
    blind: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    at: KeyArgs,
    #[command(flatten)]
    bytes: Source,
    #[command(flatten)]
    based: Based,
    /// Kept beside the value, such as application/json.
    #[arg(long, default_value = "")]
    content_type: String,
    /// The value reads as deleted after so long, such as 10m or 30d.
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    ttl: Option<std::time::Duration>,
    #[command(flatten)]
    write: Write,
}

#[derive(Debug, Args)]
pub(crate) struct DelArgs {
    #[command(flatten)]
    at: KeyArgs,
    #[command(flatten)]
    based: Based,
    #[command(flatten)]
    write: Write,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    at: KeyArgs,
    #[command(flatten)]
    bytes: Source,
    /// Apply it to a state that holds at least what the context in this file covers, and put the new context there.
    #[arg(long, value_name = "FILE", conflicts_with = "read_first")]
    context_file: Option<PathBuf>,
    /// Get the key first and apply it to a state that holds at least what was found.
    #[arg(long)]
    read_first: bool,
    #[command(flatten)]
    write: Write,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    at: KeyArgs,
    /// In the plugin's own language; empty = the whole.
    #[arg(default_value = "")]
    path: String,
    /// Ask a state that holds at least what the context in this file covers.
    #[arg(long, value_name = "FILE")]
    context_file: Option<PathBuf>,
    #[command(flatten)]
    read: Read,
}

pub(crate) async fn get(args: GetArgs, global: &Global, output: Output) -> Result<Exit> {
    let (name, key) = (&args.at.keyspace, args.at.key()?);
    let keys = reader(&global.connect().await?, name, &args.read);
    let entry = match args.siblings {
        true => keys.get_siblings(&key).await?,
        false => keys.get(&key).await?,
    };
    if let Some(path) = &args.context_file {
        let picked = args.pick.and_then(|number| entry.siblings().get(number.checked_sub(1)?));
        let apart = picked.filter(|sibling| !sibling.apart.is_empty());
        let context = apart.map_or(entry.context(), |sibling| &sibling.context);
        context_file::write(path, name, &key, context)?;
    }
    if let Resolution::Unresolved { reason } = entry.resolution() {
        output.note(format!("the key is unresolved: {reason}"));
    }
    if let Some(number) = args.pick {
        return pick(&entry, number, output);
    }
    let exit = match (entry.state(), entry.value(), args.siblings) {
        (State::Found, _, true) | (State::Found, Ok(_), false) => Exit::Ok,
        (State::Found, Err(_), false) => Exit::Siblings,
        (State::NotFound | State::Deleted, _, true) if !entry.siblings().is_empty() => Exit::Ok,
        (State::NotFound | State::Deleted, _, _) => Exit::NotFound,
    };
    if output.json {
        output.result(String::new, || entry_json(&entry))?;
        return Ok(exit);
    }
    match (entry.value(), args.siblings) {
        (Ok(Some(value)), false) => output.raw(value)?,
        (Ok(None), _) if entry.siblings().is_empty() => {
            let deleted = if entry.state() == State::Deleted { " (it was deleted)" } else { "" };
            output.note(format!("not found{deleted}"));
        }
        (_, true) => output.result(|| describe(entry.siblings()), || Value::Null)?,
        (Err(error), false) => {
            output.note(format!("merganser: {}\n{}", error.what(), describe(entry.siblings())));
            output.note("  next: look with --siblings --pick, then put one value with --context-file");
        }
        (Ok(None), false) => output.note("not found"),
    }
    Ok(exit)
}

fn pick(entry: &Entry, number: usize, output: Output) -> Result<Exit> {
    match number.checked_sub(1).and_then(|index| entry.siblings().get(index)).map(Sibling::value) {
        Some(Some(value)) if output.json => output.result(String::new, || bytes_json(value))?,
        Some(Some(value)) => output.raw(value)?,
        Some(None) => {
            return Err(Failure::new("tombstone", format!("sibling {number} is a delete"), "pick another")
                .exits(Exit::NotFound)
                .into());
        }
        None => {
            let count = entry.siblings().len();
            let what = format!("there is no sibling {number}; there are {count}, counted from 1");
            return Err(Failure::new("no_sibling", what, "list them with --siblings")
                .exits(Exit::NotFound)
                .into());
        }
    }
    Ok(Exit::Ok)
}

pub(crate) async fn put(args: PutArgs, global: &Global, output: Output) -> Result<Exit> {
    let value = read_bytes("value", &args.bytes)?;
    let (name, key) = (&args.at.keyspace, args.at.key()?);
    let key = key.as_slice();
    let context = context_of(&args.based, name, key)?;
    let mut keys = writer(&global.connect().await?, name, &args.write).with_content_type(args.content_type);
    if let Some(ttl) = args.ttl {
        keys = keys.with_ttl(ttl);
    }
    let written = match (&args.based, context) {
        (_, Some(context)) if context.is_empty() => keys.put_blind(key, value).await,
        (_, Some(context)) => keys.put(key, value, &context).await,
        (Based { read_first: true, .. }, None) => keys.get(key).await?.put(value).await,
        (Based { blind: true, .. }, None) => keys.put_blind(key, value).await,
        (_, None) => keys.join(key, value).await,
    };
    finish(written.map_err(|error| explain(error, "put"))?, &args.based, name, key, output)
}

pub(crate) async fn del(args: DelArgs, global: &Global, output: Output) -> Result<Exit> {
    let (name, key) = (&args.at.keyspace, args.at.key()?);
    let key = key.as_slice();
    let context = context_of(&args.based, name, key)?;
    let keys = writer(&global.connect().await?, name, &args.write);
    let written = match (&args.based, context) {
        (_, Some(context)) => keys.delete(key, &context).await,
        (Based { read_first: true, .. }, None) => {
            let mut entry = keys.get(key).await?;
            if entry.state() != State::Found {
                return not_found(output);
            }
            entry.delete().await
        }
        (Based { blind: true, .. }, None) => keys.delete_blind(key).await,
        (_, None) => Err(Error::ContextRequired),
    };
    finish(written.map_err(|error| explain(error, "delete"))?, &args.based, name, key, output)
}

fn not_found(output: Output) -> Result<Exit> {
    output.note("not found: there is nothing to delete");
    if output.json {
        output.result(String::new, || json!({ "state": "not_found" }))?;
    }
    Ok(Exit::NotFound)
}

pub(crate) async fn apply(args: ApplyArgs, global: &Global, output: Output) -> Result<Exit> {
    let op = read_bytes("operation", &args.bytes)?;
    let (name, key) = (&args.at.keyspace, args.at.key()?);
    let keys: Keyspace = writer(&global.connect().await?, name, &args.write);
    let based = Based { context_file: args.context_file, read_first: args.read_first, blind: false };
    let context = match (context_of(&based, name, &key)?, args.read_first) {
        (None, true) => Some(keys.get_siblings(&key).await?.context().clone()),
        (context, _) => context.filter(|context| !context.is_empty()),
    };
    let written = match context {
        Some(context) => keys.apply_after(&key, op, &context).await?,
        None => keys.apply(&key, op).await?,
    };
    finish(written, &based, name, &key, output)
}

pub(crate) async fn query(args: QueryArgs, global: &Global, output: Output) -> Result<Exit> {
    let (name, key) = (&args.at.keyspace, args.at.key()?);
    let keys = reader(&global.connect().await?, name, &args.read);
    let context = match &args.context_file {
        Some(path) => Some(context_file::read(path, name, &key)?),
        None => None,
    };
    let answer = match context.filter(|context| !context.is_empty()) {
        Some(context) => keys.query_after(&key, args.path, &context).await?,
        None => keys.query(&key, args.path).await?,
    };
    if let Resolution::Unresolved { reason } = &answer.resolution {
        output.note(format!("the key is unresolved: {reason}"));
    }
    if output.json {
        output.result(String::new, || {
            json!({
                "state": state_name(answer.state),
                "result": bytes_json(&answer.result),
                "resolution": resolution_json(&answer.resolution),
                "acks": acks_json(&answer.acks),
            })
        })?;
    } else if answer.state == State::Found {
        output.raw(&answer.result)?;
    } else {
        output.note("not found");
    }
    Ok(if answer.state == State::Found { Exit::Ok } else { Exit::NotFound })
}

fn context_of(based: &Based, keyspace: &str, key: &[u8]) -> Result<Option<Context>> {
    based.context_file.as_deref().map(|path| context_file::read(path, keyspace, key)).transpose()
}

fn finish(written: Written, based: &Based, keyspace: &str, key: &[u8], output: Output) -> Result<Exit> {
    if let Some(path) = &based.context_file {
        context_file::write(path, keyspace, key, &written.context)?;
    }
    if output.json {
        output.result(String::new, || written_json(&written))?;
        return Ok(Exit::Ok);
    }
    let (acks, needed) = (written.acks.replicas.join(", "), written.acks.needed);
    let sloppy = if written.acks.sloppy { ", with stand-ins" } else { "" };
    let dot = written.dot.map(|dot| format!(" as {dot}")).unwrap_or_default();
    output.note(format!("written{dot}; acknowledged by {acks} ({needed} needed{sloppy})"));
    if !written.unvalidated.is_empty() {
        output.note(format!(
            "the plugin did not look at the value: {}; it is stored unvalidated",
            written.unvalidated
        ));
    }
    if written.siblings > 1 {
        output.note(format!("{} concurrent versions now, this one included", written.siblings));
    }
    Ok(Exit::Ok)
}

/// The client's hint speaks to programs; at a shell there is more to say.
fn explain(error: Error, verb: &str) -> anyhow::Error {
    match error {
        Error::ContextRequired => {
            let what = format!("a {verb} without a context");
            let hint = match verb {
                // A blind delete is for registers only: elsewhere nobody could say what it deletes.
                "delete" => {
                    "add --read-first to delete what is there, or --context-file FILE of an earlier get"
                }
                _ => {
                    "add --read-first to replace what is there, --context-file FILE of an earlier get, or --blind"
                }
            };
            Failure::new("context_required", what, hint).into()
        }
        error => error.into(),
    }
}

/// At most one byte more than a value may have, so that the limit is told and not memory spent.
fn read_bytes(what: &str, bytes: &Source) -> Result<Bytes> {
    let limit = VALUE_BYTES_MAX as u64 + 1;
    let mut read = Vec::new();
    match (&bytes.value, &bytes.file) {
        (Some(value), _) => return Ok(Bytes::from(value.clone())),
        (None, Some(path)) if path.as_path() != Path::new("-") => {
            let file = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut read));
            file.map_err(|error| {
                Failure::new("file", format!("{}: {error}", path.display()), "name a file that can be read")
            })?;
        }
        (None, _) if std::io::stdin().is_terminal() => {
            return Err(Failure::usage(
                format!("no {what}"),
                "give it as an argument, with --file, or through a pipe",
            )
            .into());
        }
        (None, _) => {
            std::io::stdin().lock().take(limit).read_to_end(&mut read)?;
        }
    }
    if read.len() as u64 == limit {
        let told = format!("the {what} has more than {VALUE_BYTES_MAX} bytes");
        return Err(
            Failure::new("too_large", told, "send less: a value may be split over several keys").into()
        );
    }
    Ok(Bytes::from(read))
}

/// One line for each version.
fn describe(siblings: &[Sibling]) -> String {
    let line = |(index, sibling): (usize, &Sibling)| {
        let dots: Vec<String> = sibling.dots.iter().map(ToString::to_string).collect();
        let content = match &sibling.content {
            Content::Value(value) => format!("{}  {}", size(value.len() as u64), preview(value)),
            Content::Tombstone => "deleted".into(),
        };
        let merged = if sibling.receipt.is_some() { "  (a stored resolution)" } else { "" };
        let apart = match sibling.apart.as_str() {
            "" => String::new(),
            why => format!("  ({why})"),
        };
        format!("{}  {}  {content}{merged}{apart}", index + 1, dots.join(" "))
    };
    siblings.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn preview(value: &[u8]) -> String {
    let more = |shown: usize| if shown < value.len() { "…" } else { "" };
    match std::str::from_utf8(value) {
        Ok(text) => {
            let start: String = text.chars().take(48).collect();
            format!("{start:?}{}", more(start.len()))
        }
        Err(_) => {
            let start = &value[..value.len().min(24)];
            format!("{}{}", hex(start), more(start.len()))
        }
    }
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "state": state_name(entry.state()),
        "value": entry.value().ok().flatten().map(|value| bytes_json(value)),
        "siblings": entry.siblings().iter().map(sibling_json).collect::<Vec<_>>(),
        "context": hex(entry.context().as_bytes()),
        "resolution": resolution_json(entry.resolution()),
        "acks": acks_json(entry.acks()),
    })
}

fn sibling_json(sibling: &Sibling) -> Value {
    json!({
        "value": sibling.value().map(|value| bytes_json(value)),
        "tombstone": sibling.content == Content::Tombstone,
        "dots": sibling.dots.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stamp": { "millis": sibling.stamp.millis, "logical": sibling.stamp.logical },
        "content_type": sibling.content_type,
        "apart": sibling.apart,
        "context": hex(sibling.context.as_bytes()),
        "receipt": sibling.receipt.as_ref().map(|receipt| json!({
            "merged_from": receipt.merged_from.iter()
                .map(|dot| format!("{:016x}:{}", dot.actor, dot.counter)).collect::<Vec<_>>(),
            "plugin_hash": hex(&receipt.plugin_hash),
            "policy_epoch": receipt.policy_epoch,
        })),
    })
}

fn resolution_json(resolution: &Resolution) -> Value {
    match resolution {
        Resolution::NoneNeeded => json!({ "kind": "none_needed" }),
        Resolution::Resolved { plugin_hash, policy_epoch } => {
            json!({ "kind": "resolved", "plugin_hash": hex(plugin_hash), "policy_epoch": policy_epoch })
        }
        Resolution::Unresolved { reason } => json!({ "kind": "unresolved", "reason": reason }),
        Resolution::Siblings => json!({ "kind": "siblings" }),
    }
}

fn written_json(written: &Written) -> Value {
    json!({
        "dot": written.dot.map(|dot| dot.to_string()),
        "context": hex(written.context.as_bytes()),
        "siblings": written.siblings,
        "unvalidated": written.unvalidated,
        "acks": acks_json(&written.acks),
    })
}

fn acks_json(acks: &proto::Acks) -> Value {
    json!({ "replicas": acks.replicas, "needed": acks.needed, "sloppy": acks.sloppy })
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Found => "found",
        State::NotFound => "not_found",
        State::Deleted => "deleted",
    }
}
