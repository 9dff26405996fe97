//! The child's side: bounds itself, reads a module from standard input, writes a frame to standard output.

use std::io::{self, Read as _, Write as _};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{compile, frame};
use crate::engine;
use crate::error::Error;

/// Private memory that compiling may take. What a debug build takes for Automerge, the largest, fits.
pub(super) const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// CPU that compiling may take, in seconds. The largest plugins known take 2 s on a slow machine.
pub(super) const CPU_S_MAX: u64 = 10;
/// The compiler recurses as deep as blocks and types nest, which admission bounds.
const STACK_BYTES: usize = 16 << 20;

/// What the child does, whole. The caller exits with the code.
pub fn main() -> u8 {
    let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
        let outcome = bound().and_then(|()| {
            let mut wasm = Vec::new();
            let read = io::stdin().lock().take(MEMORY_BYTES_MAX / 4).read_to_end(&mut wasm);
            read.map_err(|error| Error::Engine(format!("standard input: {error}")))?;
            compile(&engine::for_compiling()?, &wasm)
        });
        let mut out = io::stdout().lock();
        out.write_all(&frame::write(&outcome)).and_then(|()| out.flush())
    });
    match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => 0,
        _ => 1,
    }
}

/// The limits hold from here on, whatever the module makes the compiler do.
fn bound() -> Result<(), Error> {
    let limit = |resource, current, maximum| {
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
            .map_err(|error| Error::Engine(format!("failed to limit the compiler's {resource:?}: {error}")))
    };
    limit(Resource::Data, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX)?;
    limit(Resource::Cpu, CPU_S_MAX, CPU_S_MAX + 1)?;
    limit(Resource::Core, 0, 0)
}
