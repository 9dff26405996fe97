//! From file, environment and flags to a checked [`Config`].
//!
//! In: sources, the later over the earlier. Out: the typed configuration. Unknown keys are
//! refused, with the nearest known one, before any type is looked at. Environment variables
//! without a `__` are other programs' and not looked at.

use super::keys::{KEYS, MEMBER_KEYS, nearest};
use super::{Config, ConfigError};
use ::config::{Environment, File, FileFormat, Value, ValueKind};
use std::collections::HashMap;
use std::path::Path;

/// Longest secret file that is read.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

impl Config {
    /// Reads `file`, then `MERGANSER_SECTION__KEY` variables, then `overrides` (`section.key`,
    /// value), and checks that everything holds together.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Config, ConfigError> {
        let text = match file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::Unreadable(format!("{}: {error}", path.display())))?,
            ),
            None => None,
        };
        let mut config = read(text.as_deref(), std::env::vars().collect(), overrides)?;
        let base = file.and_then(Path::parent).unwrap_or(Path::new(""));
        if let Some(secret_file) = config.cluster.secret_file.take() {
            config.cluster.secret.0 = read_secret(&base.join(secret_file), &config)?;
        }
        config.check()?;
        Ok(config)
    }
}

/// Merges the sources and types them; nothing is checked yet.
pub(super) fn read(
    text: Option<&str>,
    environment: HashMap<String, String>,
    overrides: &[(String, String)],
) -> Result<Config, ConfigError> {
    let ours = |name: &String| name.starts_with("MERGANSER_") && name.contains("__");
    let environment: HashMap<_, _> = environment.into_iter().filter(|(name, _)| ours(name)).collect();
    let variables = Environment::with_prefix("MERGANSER").prefix_separator("_").separator("__");
    let mut builder = ::config::Config::builder()
        .add_source(File::from_str(text.unwrap_or(""), FileFormat::Toml))
        .add_source(variables.source(Some(environment)));
    for (key, value) in overrides {
        known(key)?;
        builder = builder.set_override(key, value.as_str()).map_err(unreadable)?;
    }
    let merged = builder.build().map_err(unreadable)?;
    let sections: HashMap<String, Value> = merged.clone().try_deserialize().map_err(unreadable)?;
    let mut sections: Vec<_> = sections.iter().collect();
    sections.sort_by_key(|(name, _)| *name);
    for (section, value) in sections {
        match &value.kind {
            ValueKind::Table(keys) => {
                for (key, value) in keys {
                    known(&format!("{section}.{key}"))?;
                    if let ("cluster", "members", ValueKind::Array(members)) =
                        (section.as_str(), key.as_str(), &value.kind)
                    {
                        members.iter().try_for_each(known_member)?;
                    }
                }
            }
            _ => return known(section).map(|()| unreachable!("every known key is in a section")),
        }
    }
    merged.try_deserialize().map_err(unreadable)
}

fn known(key: &str) -> Result<(), ConfigError> {
    if KEYS.iter().any(|known| known.name == key) {
        return Ok(());
    }
    let nearest = nearest(key, KEYS.iter().map(|key| key.name)).map(str::to_owned);
    Err(ConfigError::UnknownKey { key: key.to_owned(), nearest })
}

fn known_member(member: &Value) -> Result<(), ConfigError> {
    let ValueKind::Table(keys) = &member.kind else { return Ok(()) };
    for key in keys.keys() {
        if !MEMBER_KEYS.iter().any(|known| known.name == key) {
            let nearest = nearest(key, MEMBER_KEYS.iter().map(|key| key.name));
            return Err(ConfigError::UnknownKey {
                key: format!("cluster.members.{key}"),
                nearest: nearest.map(|name| format!("cluster.members.{name}")),
            });
        }
    }
    Ok(())
}

fn unreadable(error: ::config::ConfigError) -> ConfigError {
    ConfigError::Unreadable(error.to_string())
}

fn read_secret(path: &Path, config: &Config) -> Result<String, ConfigError> {
    let invalid = |problem: String, fix: &str| ConfigError::Invalid {
        key: "cluster.secret_file".into(),
        problem,
        fix: fix.into(),
    };
    if !config.cluster.secret.0.is_empty() {
        return Err(invalid("and `cluster.secret` are both given".into(), "keep one"));
    }
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size > SECRET_FILE_BYTES_MAX {
        return Err(invalid(
            format!("names {}, which has {size} bytes", path.display()),
            "is that the secret? 16 to 4096 bytes are one",
        ));
    }
    let secret = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("names {}: {error}", path.display()), "make it readable text"))?;
    Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
}
