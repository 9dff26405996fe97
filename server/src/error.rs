//! Why a node could not start, or had to stop.

use crate::config::ConfigError;
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
