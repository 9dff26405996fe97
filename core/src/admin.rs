//! What operators ask and are told: keyspaces, plugins, the node's own view.
//!
//! In: typed requests from the gRPC shell. Out: typed replies. Absent: status of sockets and
//! disks, which the shell knows itself.

use crate::catalog::{KeyspaceEntry, PluginEntry, Settings};
use crate::id::NodeId;
use bytes::Bytes;

/// What an operator asks.
#[derive(Clone, Debug)]
pub enum AdminRequest {
    /// A new keyspace.
    CreateKeyspace {
        /// 1 to 64 of `a-z 0-9 - _ .`.
        name: String,
        /// With its settings.
        settings: Settings,
    },
    /// Other settings; a changed policy begins a new epoch.
    UpdateKeyspace {
        /// Which.
        name: String,
        /// All of its settings.
        settings: Settings,
    },
    /// One keyspace.
    GetKeyspace {
        /// Which.
        name: String,
    },
    /// All keyspaces.
    ListKeyspaces,
    /// A module, whole and within its size limit; compiled before it is accepted.
    UploadPlugin {
        /// Empty: the module's own name.
        name: String,
        /// The module.
        module: Bytes,
    },
    /// One plugin, by name or hash in hex.
    GetPlugin {
        /// Which.
        plugin: String,
    },
    /// All plugins.
    ListPlugins,
    /// Forget a plugin, by name or hash in hex.
    RemovePlugin {
        /// Which.
        plugin: String,
    },
}

/// What an operator is told.
#[derive(Clone, Debug, PartialEq)]
pub enum AdminReply {
    /// Keyspaces asked for.
    Keyspaces(Vec<KeyspaceView>),
    /// Plugins asked for.
    Plugins(Vec<PluginView>),
    /// Nothing was done.
    Failed(AdminProblem),
}

/// A keyspace and who is ready for it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyspaceView {
    /// As in the catalog.
    pub entry: KeyspaceEntry,
    /// Nodes that know it and hold its plugin, compiled.
    pub ready: Vec<NodeId>,
    /// Nodes that have not said so yet.
    pub waiting: Vec<NodeId>,
}

/// A plugin and who is ready for it.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginView {
    /// As in the catalog.
    pub entry: PluginEntry,
    /// Keyspaces whose policy refers to it.
    pub keyspaces: Vec<String>,
    /// Nodes that hold it, compiled.
    pub ready: Vec<NodeId>,
    /// Nodes that have not said so yet.
    pub waiting: Vec<NodeId>,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminProblem {
    /// The name is taken.
    #[error("{what} {name:?} exists already")]
    AlreadyExists {
        /// `keyspace` or `plugin`.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// No such thing.
    #[error("there is no {what} {name:?}; list those that there are")]
    NotFound {
        /// `keyspace` or `plugin`.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// A setting that cannot be.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// Which.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// It is in use, or built in.
    #[error("{0}")]
    Refused(String),
    /// This node's storage failed.
    #[error("storage failed: {0}")]
    Storage(String),
}
