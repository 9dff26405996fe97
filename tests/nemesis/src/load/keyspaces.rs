//! The keyspaces that are loaded: one of each policy.
//!
//! In: nothing. Out: their names and settings, made in a cluster that is up. Absent: what is done
//! to their keys.

use crate::{check::Kind, options::Load};
use anyhow::{Context as _, bail};
use merganser_client::{Client, Error, proto::KeyspaceSettings};
use std::time::Duration;

/// A keyspace under load.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) name: &'static str,
    pub(crate) policy: &'static str,
    pub(crate) kind: Kind,
    /// How much of the load it gets.
    pub(crate) weight: u32,
    /// Keys that are used throughout, beside those that are used for a while only.
    pub(crate) hot_keys: u32,
    /// Its values end by themselves after 5 to 40 seconds.
    pub(crate) fleeting: bool,
}

impl Space {
    /// How much it gets of that load.
    pub(crate) fn weight_in(&self, load: Load) -> u32 {
        match (load, self.kind) {
            (Load::Exact, Kind::Set | Kind::Counter) => 1,
            (Load::Exact, _) => 0,
            (Load::Mixed, _) => self.weight,
        }
    }
}

/// All of them. Sets have no hot keys: they would grow without end.
pub(crate) const SPACES: &[Space] = &[
    Space { name: "plain", policy: "siblings", kind: Kind::Causal, weight: 34, hot_keys: 8, fleeting: false },
    Space { name: "register", policy: "lww", kind: Kind::Lww, weight: 20, hot_keys: 8, fleeting: false },
    Space {
        name: "settled",
        policy: "resolver:lww",
        kind: Kind::Settled,
        weight: 14,
        hot_keys: 4,
        fleeting: false,
    },
    Space {
        name: "fleeting",
        policy: "siblings",
        kind: Kind::Causal,
        weight: 10,
        hot_keys: 4,
        fleeting: true,
    },
    Space {
        name: "set",
        policy: "lattice:or-set",
        kind: Kind::Set,
        weight: 12,
        hot_keys: 0,
        fleeting: false,
    },
    Space {
        name: "count",
        policy: "lattice:pn-counter",
        kind: Kind::Counter,
        weight: 12,
        hot_keys: 4,
        fleeting: false,
    },
    CANARY,
];

/// One key a second, written once and watched for at every node.
pub(crate) const CANARY: Space =
    Space { name: "canary", policy: "siblings", kind: Kind::Causal, weight: 0, hot_keys: 0, fleeting: false };

/// The one with this name.
pub(crate) fn find(name: &str) -> Option<&'static Space> {
    SPACES.iter().find(|space| space.name == name)
}

/// Creates them and waits until all nodes are ready for them.
pub(crate) async fn create(client: &Client) -> anyhow::Result<()> {
    let admin = client.admin();
    for space in SPACES {
        let settings =
            KeyspaceSettings { n: 3, r: 2, w: 2, policy: space.policy.into(), ..Default::default() };
        match admin.create_keyspace(space.name, settings).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error).with_context(|| format!("failed to create `{}`", space.name)),
        }
        let mut waits = 0;
        loop {
            let prepared = admin.keyspace(space.name).await?.prepared.unwrap_or_default();
            if prepared.waiting.is_empty() {
                break;
            }
            waits += 1;
            if waits > 600 {
                bail!("{} are not ready for `{}` after a minute", prepared.waiting.join(", "), space.name);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
