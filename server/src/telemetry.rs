//! Where log lines go: to standard error, for people or as JSON.
//!
//! In: level and format of the configuration. Out: one subscriber for the process; a program
//! that has one already keeps it. Absent: files and rotation, which are the service manager's.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the process's subscriber, unless there is one.
pub(crate) fn start(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a log subscriber is installed already; `log.level` and `log.format` are not used");
    }
}
