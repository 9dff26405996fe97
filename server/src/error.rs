//! Why a node could not start, or had to stop.

use crate::config::ConfigError;
use crate::set_aside::NotSetAside;
use merganser_core::boot::NotThisNodes;
use merganser_core::membership::RejoinReason;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Each variant is another thing for the operator to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the configuration; nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another program has the address, or it is not one of this machine.
    #[error("cannot listen for {what} at {address}: {source}; choose another `listen.{key}`")]
    Listen {
        /// `clients` or `peers`.
        what: &'static str,
        /// The key of the configuration.
        key: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The data directory cannot be used, or the disk failed while the node ran.
    #[error("storage: {0}")]
    Storage(#[from] merganser_storage::Error),
    /// What this node wrote about itself does not decode: restore the directory, or start empty.
    #[error(
        "{what} on disk is damaged: {reason}; start with an empty `storage.dir` and let the peers fill it"
    )]
    Damaged {
        /// Which record.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The data directory is not this node's; nothing of it was changed.
    #[error(
        "`storage.dir` {} is not for node {node:?} of cluster {cluster:?}: {reason}; nothing was changed; \
        give this node its own directory, or an empty one, which its peers fill", dir.display()
    )]
    NotThisNodes {
        /// Which directory.
        dir: PathBuf,
        /// The node of this configuration.
        node: String,
        /// Its cluster.
        cluster: String,
        /// Whose it is.
        reason: NotThisNodes,
    },
    /// This disk may not be used again. It was set aside; start again, with an empty directory.
    #[error(
        "{}; its contents are in {} now: start the node again, and its peers fill it", why(*.reason), aside.display()
    )]
    SetAside {
        /// Why.
        reason: RejoinReason,
        /// Where its contents are.
        aside: PathBuf,
    },
    /// This disk may not be used again, and stays where it is: an operator has to look.
    #[error("{}; the contents of `storage.dir` stay where they are: {source}", why(*.reason))]
    NotSetAside {
        /// Why the disk may not be used.
        reason: RejoinReason,
        /// Why it was not set aside.
        source: NotSetAside,
    },
    /// An earlier start began to set the directory's contents aside and could not finish.
    #[error("the contents of `storage.dir` were being set aside: {0}")]
    HalfSetAside(NotSetAside),
    /// The plugin engine does not run on this machine, or a built-in plugin was refused.
    #[error("plugins: {0}")]
    Plugins(String),
    /// The operating system gave no thread or no event queue.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// A thread of the node panicked; see the log.
    #[error("the node's thread panicked; see the log above")]
    Panicked,
}

fn why(reason: RejoinReason) -> &'static str {
    match reason {
        RejoinReason::OldDisk => "this disk is older than what its node has told others since",
        RejoinReason::Forgotten => "this node was away for so long that the others have forgotten it",
    }
}
