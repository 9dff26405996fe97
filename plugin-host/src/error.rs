//! What can go wrong while a plugin is *admitted*. What goes wrong while it *runs* is a [`Failure`], which is not an
//! error of the host but an outcome that the cluster expects (R7).

use crate::call::Failure;

/// Why an upload was not admitted. Nothing was kept of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The upload is larger than allowed; not a byte of it was parsed.
    #[error("plugin has {bytes} bytes, allowed are {limit}")]
    TooLarge {
        /// Size of the upload.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The upload's shape is over a limit; nothing of it was compiled.
    #[error("plugin has {count} {what}, allowed are {limit}")]
    OverLimit {
        /// What there is too much of.
        what: String,
        /// How much there is, or how much there was when counting ended.
        count: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The compiler gave up on this plugin, or was made to.
    #[error("plugin cannot be compiled: {0}")]
    Compiler(String),
    /// This node ended twice while it compiled or tried the plugin.
    #[error(
        "plugin is quarantined: the node ended {attempts} times while it was loading; to try again, remove {mark}"
    )]
    Quarantined {
        /// Starts that did not survive it.
        attempts: u8,
        /// The file that says so.
        mark: String,
    },
    /// This machine could not do its part just now. Says nothing about the plugin: try again.
    #[error("the node could not load the plugin: {0}")]
    Host(String),
    /// The bytes are no WebAssembly component, and no core module that can be made one.
    #[error("malformed plugin: {0}")]
    Malformed(String),
    /// The plugin wants something of its host other than the log.
    #[error("plugin imports {0}, but the only import there is, is merganser:plugin/log")]
    ForbiddenImport(String),
    /// Valid WebAssembly, but not one of the three worlds.
    #[error("not a merganser plugin: {0}")]
    WrongExports(String),
    /// The plugin could not even say who it is.
    #[error("plugin failed to describe itself: {0}")]
    Describe(Failure),
    /// The engine itself could not be set up on this machine.
    #[error("wasm engine: {0}")]
    Engine(String),
}

impl Error {
    /// Whether the same bytes may fare better later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Host(_) | Error::Describe(Failure::Host(_) | Failure::Timeout))
    }
}
