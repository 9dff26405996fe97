//! `keyspace create | set | show | list`.
//!
//! In: a name and settings. Out: the keyspace as the cluster has it, and which nodes are ready for
//! it. Absent: checks of the settings; the cluster makes them and names the wrong one.

use crate::{
    args::Global,
    failure::Exit,
    output::{Output, hex, table},
};
use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use merganser_client::proto::{self, DeleteSemantics, Durability, KeyspaceSettings, OnUnvalidated, Quorums};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct KeyspaceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a keyspace.
    Create {
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings; what is not named stays as it is.
    Set {
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Set back to the default: siblings-max, delete, durability, write-back-delay, quorums, ttl, key-rate-max, on-unvalidated, plugin-config.
        #[arg(long, value_name = "SETTING", value_delimiter = ',')]
        reset: Vec<String>,
    },
    /// Settings of a keyspace, and which nodes are ready for it.
    Show { name: String },
    /// All keyspaces.
    List,
}

#[derive(Debug, Args)]
struct Settings {
    /// Replicas of each key [default: 3].
    #[arg(long)]
    n: Option<u32>,
    /// Replicas that must answer a read [default: a majority].
    #[arg(long)]
    r: Option<u32>,
    /// Replicas that must acknowledge a write [default: a majority].
    #[arg(long)]
    w: Option<u32>,
    /// How conflicts end: siblings, lww, resolver:PLUGIN or lattice:PLUGIN [default: siblings].
    #[arg(long)]
    policy: Option<String>,
    /// A file that is handed to the plugin with each call, 64 KiB at most.
    #[arg(long, value_name = "FILE")]
    plugin_config: Option<PathBuf>,
    /// What wins if a key is deleted and changed at the same time.
    #[arg(long, value_enum)]
    delete: Option<Winner>,
    /// When a write counts as stored [default: sync].
    #[arg(long, value_enum)]
    durability: Option<Stored>,
    /// Blind puts are refused at this many siblings [default: 64].
    #[arg(long)]
    siblings_max: Option<u32>,
    /// How long after the last write a resolution is stored, 49d at most.
    #[arg(long, value_name = "TIME", value_parser = crate::args::short_duration)]
    write_back_delay: Option<std::time::Duration>,
    /// Never store a resolution, only show it.
    #[arg(long, conflicts_with = "write_back_delay")]
    write_back_never: bool,
    /// Whether others may stand in for primaries that are away [default: sloppy].
    #[arg(long, value_enum)]
    quorums: Option<Counted>,
    /// Values read as deleted after so long, unless a put says otherwise [default: never].
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    ttl: Option<std::time::Duration>,
    /// Requests per second for any one key at one node; more are refused [default: no limit].
    #[arg(long, value_name = "RATE")]
    key_rate_max: Option<u32>,
    /// What becomes of a put whose value the plugin did not look at in time [default: keep].
    #[arg(long, value_enum)]
    on_unvalidated: Option<Unvalidated>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Unvalidated {
    /// It is stored, flagged; in a lattice it is joined once it was validated.
    Keep,
    /// It is refused.
    Refuse,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Counted {
    /// Always writable: the next nodes of the ring stand in.
    Sloppy,
    /// Primaries only.
    Strict,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Winner {
    #[value(name = "update-wins")]
    Update,
    #[value(name = "delete-wins")]
    Delete,
    #[value(name = "plugin-decides")]
    Plugin,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stored {
    Sync,
    Interval,
    None,
}

impl Settings {
    fn into_wire(self, new: bool) -> Result<KeyspaceSettings> {
        let plugin_config = match &self.plugin_config {
            Some(path) => {
                std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?
            }
            None => Vec::new(),
        };
        let policy = match self.policy {
            None if new => "siblings".into(),
            policy => policy.unwrap_or_default(),
        };
        let delete_semantics = match self.delete {
            None | Some(Winner::Update) => DeleteSemantics::UpdateWins,
            Some(Winner::Delete) => DeleteSemantics::DeleteWins,
            Some(Winner::Plugin) => DeleteSemantics::PluginDecides,
        };
        let durability = match self.durability {
            None | Some(Stored::Sync) => Durability::Sync,
            Some(Stored::Interval) => Durability::Interval,
            Some(Stored::None) => Durability::None,
        };
        let delay_ms = self.write_back_delay.map(|delay| u32::try_from(delay.as_millis())).transpose()?;
        Ok(KeyspaceSettings {
            n: self.n.unwrap_or_default(),
            r: self.r.unwrap_or_default(),
            w: self.w.unwrap_or_default(),
            policy,
            plugin_config: plugin_config.into(),
            delete_semantics: delete_semantics as i32,
            durability: durability as i32,
            siblings_max: self.siblings_max.unwrap_or_default(),
            write_back_delay_ms: delay_ms,
            write_back_never: self.write_back_never,
            quorums: match self.quorums {
                None => Quorums::Unspecified,
                Some(Counted::Sloppy) => Quorums::Sloppy,
                Some(Counted::Strict) => Quorums::Strict,
            } as i32,
            ttl_ms: self.ttl.map_or(0, |ttl| ttl.as_millis() as u64),
            key_rate_max: self.key_rate_max.unwrap_or_default(),
            on_unvalidated: match self.on_unvalidated {
                None => OnUnvalidated::Unspecified,
                Some(Unvalidated::Keep) => OnUnvalidated::Keep,
                Some(Unvalidated::Refuse) => OnUnvalidated::Refuse,
            } as i32,
        })
    }

    /// Fields to set back: those named, and those given with the value that on the wire means "as it is".
    fn resets(&self, named: &[String]) -> Vec<String> {
        let wire = |name: &String| match name.as_str() {
            "delete" => "delete_semantics".to_owned(),
            "write-back-delay" | "write-back-never" => "write_back_delay_ms".into(),
            "ttl" => "ttl_ms".into(),
            name => name.replace('-', "_"),
        };
        let mut resets: Vec<String> = named.iter().map(wire).collect();
        if matches!(self.delete, Some(Winner::Update)) {
            resets.push("delete_semantics".into());
        }
        if matches!(self.durability, Some(Stored::Sync)) {
            resets.push("durability".into());
        }
        resets
    }
}

pub(crate) async fn run(args: KeyspaceArgs, global: &Global, output: Output) -> Result<Exit> {
    let admin = global.admin().await?;
    let keyspace = match args.action {
        Action::Create { name, settings } => admin.create_keyspace(&name, settings.into_wire(true)?).await?,
        Action::Set { name, settings, reset } => {
            let resets = settings.resets(&reset);
            admin.update_keyspace(&name, settings.into_wire(false)?, resets).await?
        }
        Action::Show { name } => admin.keyspace(&name).await?,
        Action::List => {
            let keyspaces = admin.keyspaces().await?;
            output.result(|| list(&keyspaces), || keyspaces.iter().map(keyspace_json).collect())?;
            return Ok(Exit::Ok);
        }
    };
    output.result(|| show(&keyspace), || keyspace_json(&keyspace))?;
    Ok(Exit::Ok)
}

fn list(keyspaces: &[proto::Keyspace]) -> String {
    let rows = keyspaces.iter().map(|keyspace| {
        let settings = keyspace.settings.clone().unwrap_or_default();
        let waiting = keyspace.prepared.as_ref().map_or(0, |prepared| prepared.waiting.len());
        vec![
            keyspace.name.clone(),
            format!("{}/{}/{}", settings.n, settings.r, settings.w),
            settings.policy,
            keyspace.policy_epoch.to_string(),
            if waiting == 0 { "all nodes".into() } else { format!("{waiting} nodes wait") },
        ]
    });
    table(&["KEYSPACE", "N/R/W", "POLICY", "EPOCH", "READY"], rows)
}

fn show(keyspace: &proto::Keyspace) -> String {
    let settings = keyspace.settings.clone().unwrap_or_default();
    let prepared = keyspace.prepared.clone().unwrap_or_default();
    let mut rows = vec![
        ("keyspace", keyspace.name.clone()),
        ("n / r / w", format!("{} / {} / {}", settings.n, settings.r, settings.w)),
        ("policy", settings.policy.clone()),
        ("policy epoch", keyspace.policy_epoch.to_string()),
        ("delete", delete_name(settings.delete_semantics()).into()),
        ("durability", durability_name(settings.durability()).into()),
        ("siblings max", settings.siblings_max.to_string()),
        ("quorums", quorums_name(settings.quorums()).into()),
    ];
    if !keyspace.plugin_hash.is_empty() {
        rows.push(("plugin", hex(&keyspace.plugin_hash)));
        rows.push(("unvalidated", unvalidated_name(settings.on_unvalidated()).into()));
    }
    if settings.policy.starts_with("resolver:") {
        let write_back = match (settings.write_back_never, settings.write_back_delay_ms) {
            (true, _) => "never".into(),
            (false, Some(delay)) => format!("after {delay} ms"),
            (false, None) => "after the default time".into(),
        };
        rows.push(("write-back", write_back));
    }
    if settings.ttl_ms > 0 {
        rows.push(("ttl", format!("{} ms", settings.ttl_ms)));
    }
    if settings.key_rate_max > 0 {
        rows.push(("key rate max", format!("{}/s at a node", settings.key_rate_max)));
    }
    rows.push(("ready", prepared.ready.join(", ")));
    if !prepared.waiting.is_empty() {
        rows.push(("waiting", prepared.waiting.join(", ")));
    }
    let lines: Vec<String> = rows.into_iter().map(|(name, value)| format!("{name:<14}{value}")).collect();
    lines.join("\n")
}

fn delete_name(semantics: DeleteSemantics) -> &'static str {
    match semantics {
        DeleteSemantics::UpdateWins => "update-wins",
        DeleteSemantics::DeleteWins => "delete-wins",
        DeleteSemantics::PluginDecides => "plugin-decides",
    }
}

fn unvalidated_name(setting: OnUnvalidated) -> &'static str {
    match setting {
        OnUnvalidated::Unspecified => "unknown",
        OnUnvalidated::Keep => "keep",
        OnUnvalidated::Refuse => "refuse",
    }
}

fn quorums_name(quorums: Quorums) -> &'static str {
    match quorums {
        Quorums::Unspecified => "unknown",
        Quorums::Sloppy => "sloppy",
        Quorums::Strict => "strict",
    }
}

fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Interval => "interval",
        Durability::None => "none",
    }
}

fn keyspace_json(keyspace: &proto::Keyspace) -> Value {
    let settings = keyspace.settings.clone().unwrap_or_default();
    let prepared = keyspace.prepared.clone().unwrap_or_default();
    json!({
        "name": keyspace.name,
        "n": settings.n,
        "r": settings.r,
        "w": settings.w,
        "policy": settings.policy,
        "plugin_config": crate::output::bytes_json(&settings.plugin_config),
        "delete": delete_name(settings.delete_semantics()),
        "durability": durability_name(settings.durability()),
        "siblings_max": settings.siblings_max,
        "write_back_delay_ms": settings.write_back_delay_ms,
        "write_back_never": settings.write_back_never,
        "quorums": quorums_name(settings.quorums()),
        "ttl_ms": settings.ttl_ms,
        "key_rate_max": settings.key_rate_max,
        "on_unvalidated": unvalidated_name(settings.on_unvalidated()),
        "policy_epoch": keyspace.policy_epoch,
        "plugin_hash": hex(&keyspace.plugin_hash),
        "ready": prepared.ready,
        "waiting": prepared.waiting,
    })
}
