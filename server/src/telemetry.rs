//! Where log lines go: to standard error, for people or as JSON.
//!
//! In: level and format of the configuration. Out: one subscriber for the process; a program
//! that has one already keeps it. Nobody has to read the lines: what nobody takes is dropped and counted, and no
//! thread of the node waits for it. Absent: files and rotation, which are the service manager's.

mod flood;
mod lines;

use crate::config::{Log, LogFormat};
use flood::Flood;
use lines::Lines;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The process's log. Dropping it waits, not for long, until the last lines are out.
pub(crate) struct Telemetry(Option<Lines>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(lines) = &self.0 {
            lines.flush(FLUSH_TIMEOUT);
        }
    }
}

/// Installs the process's subscriber, unless there is one.
pub(crate) fn start(log: &Log) -> io::Result<Telemetry> {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let flood = Arc::new(Flood::default());
    let told = Arc::clone(&flood);
    let lines = Lines::start(io::stderr(), lost(log.format), move || tell(&told))?;
    let writer = lines.clone();
    let lines_out = tracing_subscriber::fmt::layer().log_internal_errors(false);
    let lines_out = match log.format {
        LogFormat::Text => {
            lines_out.with_ansi(io::stderr().is_terminal()).with_writer(move || writer.clone()).boxed()
        }
        LogFormat::Json => lines_out.json().flatten_event(true).with_writer(move || writer.clone()).boxed(),
    };
    let installed =
        tracing_subscriber::registry().with(filter).with(flood::Layer(flood)).with(lines_out).try_init();
    if installed.is_err() {
        tracing::debug!("a log subscriber is installed already; `log.level` and `log.format` are not used");
        return Ok(Telemetry(None));
    }
    Ok(Telemetry(Some(lines)))
}

/// Tells how many lines were kept back of those that came too often.
fn tell(flood: &Flood) {
    for kept in flood.kept_back(Instant::now()) {
        tracing::warn!(line = kept.line, from = kept.target, count = kept.count, "lines_kept_back");
    }
}

/// What stands in the log for lines that nobody took.
fn lost(format: LogFormat) -> fn(u64) -> String {
    match format {
        LogFormat::Text => |count| format!("{count} log lines were lost here: nobody took them\n"),
        LogFormat::Json => {
            |count| format!("{{\"level\":\"WARN\",\"message\":\"lines_lost\",\"count\":{count}}}\n")
        }
    }
}

/// A line for whoever started the process, on standard output. Whether anybody takes it is not the node's affair, so
/// a thread of its own waits for that.
pub(crate) fn say(line: String) {
    // Without a thread nobody is told; the log has the same.
    let _ = std::thread::Builder::new().name("say".into()).spawn(move || {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    });
}
