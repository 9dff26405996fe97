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
