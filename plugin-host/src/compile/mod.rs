//! From the bytes of an upload to native code, in a process that may fail.
//!
//! ```text
//!   wasm ──► Compiler ──► this process                          ──► native code
//!                 └─────► child: rlimits, scan, validate, compile ──► checked frame ──┘
//!                                                  Cache: kept on disk, vouched for by this node's key
//! ```
//!
//! Compiling is the one step whose cost an uploader decides, so a node has it done by a child process of its own
//! program, which the system ends at a limit of memory or CPU. In: bytes of an upload. Out: what
//! `Engine::precompile_component` makes, or a refusal by name. Absent: running any of it.

mod cache;
mod child;
mod frame;
mod parent;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use wasmtime::Engine;

pub use cache::Cache;
pub use child::main as child_main;

use crate::error::Error;
use crate::text::printable;
use crate::{admission, load};

/// Who compiles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Compiler {
    /// The calling thread: for the child itself, and for programs that load only what they trust.
    #[default]
    ThisProcess,
    /// A child process that runs [`child_main`]; its memory, CPU and time are bounded.
    Child {
        /// The program.
        program: PathBuf,
        /// What makes it run [`child_main`].
        args: Vec<String>,
    },
}

impl Compiler {
    /// A child that runs the very program that runs now, with this hidden command.
    pub fn this_program(command: &str) -> std::io::Result<Compiler> {
        // On Linux by the link that still means this program when an upgrade has put another in its place.
        let running = PathBuf::from("/proc/self/exe");
        let program = if cfg!(target_os = "linux") { running } else { std::env::current_exe()? };
        Ok(Compiler::Child { program, args: vec![command.into()] })
    }

    /// Native code for the engine's settings. Blocks until it is there or a limit ended the attempt.
    pub(crate) fn compile(&self, engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Compiler::ThisProcess => compile(engine, wasm),
            Compiler::Child { program, args } => parent::compile(program, args, wasm),
        }
    }
}

/// Scans, validates, wraps and compiles. A panic of any of the libraries becomes an error.
fn compile(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let compiled = catch_unwind(AssertUnwindSafe(|| {
        let wrapped = load::is_core_module(wasm)?;
        admission::scan(wasm)?;
        wasmparser::Validator::new_with_features(admission::for_validation())
            .validate_all(wasm)
            .map_err(|error| Error::Malformed(printable(&error.to_string(), load::REASON_BYTES_MAX)))?;
        let component = match wrapped {
            true => &load::wrap(wasm)?,
            false => wasm,
        };
        let malformed = |error: wasmtime::Error| {
            Error::Malformed(printable(&format!("{error:#}"), load::REASON_BYTES_MAX))
        };
        engine.precompile_component(component).map_err(malformed)
    }));
    compiled.unwrap_or_else(|_| Err(Error::Compiler("it panicked".into())))
}
