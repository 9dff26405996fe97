//! The parent's side: starts the child, feeds it, waits no longer than a deadline, and reads how it ended.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::child::{CPU_S_MAX, MEMORY_BYTES_MAX};
use super::frame;
use crate::error::Error;

/// How long the child may take by the clock: several times its CPU, because the node goes before it.
const WALL: Duration = Duration::from_secs(90);
/// Native code that is accepted from a child; ten times the largest upload.
const NATIVE_BYTES_MAX: u64 = 128 << 20;

const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;
const SIGXCPU: i32 = 24;

pub(super) fn compile(program: &Path, args: &[String], wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let host = |error: std::io::Error| Error::Host(format!("failed to run the compiler: {error}"));
    let mut command = Command::new(program);
    command.args(args).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Reaped(command.spawn().map_err(host)?);
    let (mut stdin, stdout) = match (child.0.stdin.take(), child.0.stdout.take()) {
        (Some(stdin), Some(stdout)) => (stdin, stdout),
        _ => return Err(Error::Host("the compiler has no pipes".into())),
    };

    // The child reads all before it writes, so one thread feeds it and then listens; this one watches the clock.
    let (said, hears) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Where the child has ended already, how it ended tells more than this.
            let _ = stdin.write_all(wasm);
            drop(stdin);
            let mut bytes = Vec::new();
            let read = stdout.take(NATIVE_BYTES_MAX).read_to_end(&mut bytes);
            let _ = said.send(read.map(|_| bytes));
        });
        let heard = hears.recv_timeout(WALL);
        if heard.is_err() {
            // Ends the pipe, and with it the thread.
            child.0.kill().map_err(host)?;
        }
        let status = child.0.wait().map_err(host)?;
        match heard {
            Ok(bytes) => match frame::read(bytes.map_err(host)?) {
                Some(outcome) => outcome,
                None => Err(ended(status)),
            },
            Err(_) => Err(Error::Host(format!("compiling took more than {} s by the clock", WALL.as_secs()))),
        }
    })
}

/// Why there is no whole frame.
fn ended(status: ExitStatus) -> Error {
    match status.signal() {
        Some(SIGXCPU) => Error::Compiler(format!("compiling takes more than {CPU_S_MAX} s of CPU")),
        Some(SIGABRT | SIGSEGV) => Error::Compiler(format!(
            "compiling takes more than {} MiB of memory, or nests too deep",
            MEMORY_BYTES_MAX >> 20
        )),
        _ => Error::Host(format!("the compiler ended early: {status}")),
    }
}

/// A child that does not outlive the attempt.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail where it was waited for, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
