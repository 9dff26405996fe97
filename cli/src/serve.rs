//! `serve`: one node, until it is told to stop.
//!
//! In: a configuration file and what is set over it. Out: a node, which tells of itself in its
//! log. Absent: everything that the node does; that is `server`.

use crate::{
    failure::{Exit, Failure},
    output::{Output, table},
};
use anyhow::Result;
use clap::Args;
use merganser_server::{Config, ConfigError, KEYS};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_long_help = keys_help())]
pub(crate) struct ServeArgs {
    /// The configuration; MERGANSER_* variables and --set go over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key of the configuration, such as listen.client=0.0.0.0:7401.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Only say whether the configuration is right.
    #[arg(long)]
    check_config: bool,
    /// Only list the keys of the configuration.
    #[arg(long)]
    keys: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("say it as KEY=VALUE".into()),
    }
}

pub(crate) fn run(args: ServeArgs, output: Output) -> Result<Exit> {
    if args.keys {
        return keys(output);
    }
    let config = Config::load(args.config.as_deref(), &args.settings).map_err(failure)?;
    if args.check_config {
        output.result(|| "the configuration is right".into(), || json!({ "config": "right" }))?;
        return Ok(Exit::Ok);
    }
    merganser_server::serve(config)?;
    Ok(Exit::Ok)
}

fn failure(error: ConfigError) -> Failure {
    let hint = "see all keys with `merganser serve --keys`; try a file with --check-config".to_owned();
    match error {
        ConfigError::Invalid { key, problem, fix } => {
            Failure::new("config", format!("`{key}` {problem}"), fix)
        }
        error => Failure::new("config", error.to_string(), hint),
    }
}

/// For `serve --help`.
fn keys_help() -> String {
    let rows = KEYS.iter().map(|key| vec![format!("  {}", key.name), key.default.into()]);
    let table = table(&["Keys of the configuration:", ""], rows);
    format!("{table}\n\nWhat each means: `merganser serve --keys`")
}

fn keys(output: Output) -> Result<Exit> {
    let rows = || KEYS.iter().map(|key| vec![key.name.into(), key.default.into(), key.help.into()]);
    output.result(
        || table(&["KEY", "DEFAULT", "MEANS"], rows()),
        || {
            KEYS.iter()
                .map(|key| json!({ "key": key.name, "default": key.default, "means": key.help }))
                .collect()
        },
    )?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_cut_at_its_first_equals_sign() {
        assert_eq!(setting("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert_eq!(setting("a="), Ok(("a".into(), String::new())));
        assert!(setting("a").is_err() && setting("=a").is_err());
    }
}
