//! The compiler's child process on its own, for tests of this crate; a node runs it as a hidden command of `merganser`.

use std::process::ExitCode;

fn main() -> ExitCode {
    merganser_plugin_host::child_main().into()
}
