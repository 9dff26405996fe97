//! The standard table: its rows, what they are to reach, and how they are shown.
//!
//! In: nothing but time. Out: Markdown, put between two marks of a document whose prose stays.
//! Absent: explanations; people write those around the marks.

use crate::{
    disk,
    figures::{Figures, Latency},
    point::{Keys, Mix, Point, Policy, Target, Transport},
    session::{Session, Settings},
};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{fmt::Write as _, fs, path::Path, time::Duration};

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";
const DISK_TIME: Duration = Duration::from_secs(1);

/// What a row is to reach. All optional.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Goal {
    server_us_max: Option<f64>,
    per_second_min: Option<f64>,
    p50_ms_max: Option<f64>,
    p99_ms_max: Option<f64>,
    written_bytes_max: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    figures: Figures,
    goal: Goal,
}

/// Everything that one run found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    seconds: f64,
    disk_one_writer: Latency,
    disk_three_writers: Latency,
    rows: Vec<Row>,
}

fn floor_rows() -> Vec<(Point, Goal)> {
    let floor = Point { target: Target::Floor, ..Point::default() };
    let row = |mix, client, in_flight, value_bytes| {
        (Point { mix, client, in_flight, value_bytes, ..floor.clone() }, Goal::default())
    };
    vec![
        row(Mix::Echo, Transport::Unary, 1, 1 << 10),
        row(Mix::Echo, Transport::Unary, 64, 1 << 10),
        row(Mix::Echo, Transport::Pipelined, 64, 1 << 10),
        row(Mix::W, Transport::Unary, 64, 1 << 10),
        row(Mix::C, Transport::Unary, 64, 1 << 10),
        row(Mix::W, Transport::Unary, 64, 10 << 10),
    ]
}

fn cluster_rows() -> Vec<(Point, Goal)> {
    let put = Point::default();
    let get = Point { mix: Mix::C, ..put.clone() };
    let us = |server_us| Goal { server_us_max: Some(server_us), ..Goal::default() };
    let busy = Goal {
        server_us_max: Some(70.0),
        per_second_min: Some(14_000.0),
        p50_ms_max: Some(4.0),
        p99_ms_max: Some(10.0),
        ..Goal::default()
    };
    let large = Goal {
        server_us_max: Some(120.0),
        per_second_min: Some(6_000.0),
        written_bytes_max: Some(35_000.0),
        ..Goal::default()
    };
    let paced = Goal { p99_ms_max: Some(10.0), ..Goal::default() };
    let none = Goal::default();
    vec![
        (Point { in_flight: 1, ..put.clone() }, Goal { p50_ms_max: Some(0.65), ..none }),
        (put.clone(), busy),
        (Point { in_flight: 256, ..put.clone() }, none),
        (Point { keys: Keys::Uniform, ..put.clone() }, none),
        (Point { policy: Policy::Lww, ..put.clone() }, none),
        (Point { value_bytes: 100, ..put.clone() }, none),
        (Point { value_bytes: 10 << 10, ..put.clone() }, large),
        (Point { client: Transport::Pipelined, ..put.clone() }, us(35.0)),
        (Point { client: Transport::Pipelined, in_flight: 256, ..put.clone() }, none),
        (Point { in_flight: 1, ..get.clone() }, none),
        (get.clone(), Goal { server_us_max: Some(40.0), per_second_min: Some(20_000.0), ..none }),
        (Point { read: 1, ..get.clone() }, us(30.0)),
        (Point { value_bytes: 100, ..get.clone() }, none),
        (Point { value_bytes: 10 << 10, ..get.clone() }, none),
        (Point { client: Transport::Pipelined, ..get.clone() }, us(18.0)),
        (Point { mix: Mix::A, ..put.clone() }, none),
        (Point { mix: Mix::A, rate: Some(1_000), ..put.clone() }, none),
        (Point { mix: Mix::A, rate: Some(5_000), ..put.clone() }, paced),
    ]
}

/// Measures all rows whose name contains `only`.
pub(crate) async fn measure(settings: Settings, only: &str) -> Result<Report> {
    let seconds = settings.measured.as_secs_f64();
    let disk_one_writer = disk::sync_latency(&settings.dir, 1, DISK_TIME)?;
    let disk_three_writers = disk::sync_latency(&settings.dir, 3, DISK_TIME)?;
    let mut session = Session::new(settings);
    let points: Vec<_> = floor_rows()
        .into_iter()
        .chain(cluster_rows())
        .filter(|(point, _)| point.to_string().contains(only))
        .collect();
    let progress = ProgressBar::new(points.len() as u64)
        .with_style(ProgressStyle::with_template("{pos}/{len} {bar:20} {msg}").context("a fixed template")?);
    let mut rows = Vec::new();
    for (point, goal) in points {
        progress.set_message(point.to_string());
        rows.push(Row { figures: session.measure(&point).await?, goal });
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(Report { machine: machine(), seconds, disk_one_writer, disk_three_writers, rows })
}

impl Report {
    /// The measured part of the document.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let disk = |latency: &Latency| format!("{:.2} / {:.2} ms", latency.p50_ms, latency.p99_ms);
        let _ = writeln!(
            text,
            "{}. {} s a row after 1 s of warm-up; 5,000 records, zipf 0.99, incompressible values, unless said.\n\
             A 1 KiB overwrite and its fdatasync, p50 / p99: {} with one writer, {} with three.\n",
            self.machine,
            self.seconds,
            disk(&self.disk_one_writer),
            disk(&self.disk_three_writers),
        );
        let (floor, cluster): (Vec<&Row>, Vec<&Row>) =
            self.rows.iter().partition(|row| row.figures.point.target == Target::Floor);
        let _ = writeln!(
            text,
            "| gRPC alone (one process, the same messages, nothing stored) | server µs/op | client µs/op | \
             ops/s | p50 / p99 / p99.9 ms | others' CPU |\n|---|--:|--:|--:|--:|--:|"
        );
        for Row { figures, .. } in floor {
            let _ = writeln!(
                text,
                "| {} | {:.1} | {:.1} | {} | {} | {:.0} % |",
                figures.point,
                figures.server_us,
                figures.client_us,
                thousands(figures.per_second),
                quantiles(&figures.latency),
                figures.others_share * 100.0
            );
        }
        let _ = writeln!(
            text,
            "\n| three nodes, N=3, synced | server µs/op | client µs/op | ops/s | p50 / p99 / p99.9 ms | \
             events a turn | appends a sync | written B/op | others' CPU | to reach |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|---|"
        );
        for Row { figures, goal } in cluster {
            let counted = figures.nodes.unwrap_or_default();
            let _ = writeln!(
                text,
                "| {} | **{:.1}** | {:.1} | {} | {} | {:.1} | {:.1} | {} | {:.0} % | {} |",
                figures.point,
                figures.server_us,
                figures.client_us,
                thousands(figures.per_second),
                quantiles(&figures.latency),
                counted.events_per_turn,
                counted.appends_per_sync,
                thousands(counted.written_bytes),
                figures.others_share * 100.0,
                goal.judge(figures)
            );
        }
        let failed: Vec<_> = self.rows.iter().filter(|row| row.figures.errors > 0).collect();
        for Row { figures, .. } in failed {
            let error = figures.error.as_deref().unwrap_or_default();
            let _ = writeln!(text, "\n{}: {} requests failed, first: {error}", figures.point, figures.errors);
        }
        text
    }
}

impl Goal {
    /// What was to be reached, and whether it was.
    fn judge(&self, figures: &Figures) -> String {
        let most = |limit: Option<f64>, found: f64, unit: &str| {
            limit.map(|limit| (format!("≤ {} {unit}", thousands(limit)), found <= limit))
        };
        let least = self
            .per_second_min
            .map(|limit| (format!("≥ {}/s", thousands(limit)), figures.per_second >= limit));
        let parts = [
            most(self.server_us_max, figures.server_us, "µs"),
            least,
            most(self.p50_ms_max, figures.latency.p50_ms, "ms p50"),
            most(self.p99_ms_max, figures.latency.p99_ms, "ms p99"),
            most(self.written_bytes_max, figures.nodes.map_or(0.0, |counted| counted.written_bytes), "B"),
        ];
        let mark = |(text, reached): (String, bool)| format!("{text} {}", if reached { "✓" } else { "✗" });
        parts.into_iter().flatten().map(mark).collect::<Vec<_>>().join(", ")
    }
}

/// For a point alone.
pub(crate) fn one(figures: &Figures) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", figures.point);
    let _ = writeln!(
        text,
        "  {} ops/s over {:.1} s, {} failed",
        thousands(figures.per_second),
        figures.seconds,
        figures.errors
    );
    for (name, latency) in [("all", Some(figures.latency)), ("gets", figures.gets), ("puts", figures.puts)] {
        if let Some(latency) = latency {
            let max_ms = latency.max_ms;
            let _ =
                writeln!(text, "  p50 / p99 / p99.9 ms of {name}: {}, max {max_ms:.2}", quantiles(&latency));
        }
    }
    let _ = writeln!(text, "  CPU µs/op: servers {:.1}, client {:.1}", figures.server_us, figures.client_us);
    let threads = figures.threads_us.iter().filter(|(_, us)| **us >= 0.05);
    let threads: Vec<String> = threads.map(|(name, us)| format!("{name} {us:.1}")).collect();
    let _ = writeln!(text, "  by thread: {}", threads.join(", "));
    if let Some(counted) = figures.nodes {
        let (written, accounted) = (thousands(counted.written_bytes), thousands(figures.accounted_bytes));
        let _ = writeln!(text, "  written B/op: {written} (accounted by the kernel: {accounted})");
        let _ = writeln!(
            text,
            "  events a turn {:.1}, appends a sync {:.1}, messages a frame {:.1}; per op: turns {:.2}, \
             syncs {:.2}, bytes between nodes {}",
            counted.events_per_turn,
            counted.appends_per_sync,
            counted.messages_per_frame,
            counted.turns,
            counted.syncs,
            thousands(counted.peer_bytes)
        );
    }
    let _ = writeln!(text, "  others used {:.0} % of the machine", figures.others_share * 100.0);
    if let Some(error) = &figures.error {
        let _ = writeln!(text, "  first failure: {error}");
    }
    text
}

/// Replaces what is between the marks of `file`.
pub(crate) fn write(file: &Path, measured: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let Some(text) = replaced(&text, measured) else {
        bail!("{} has no lines `{BEGIN}` and `{END}`, in this order", file.display());
    };
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}

fn replaced(text: &str, measured: &str) -> Option<String> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{measured}\n{END}{tail}"))
}

fn quantiles(latency: &Latency) -> String {
    format!("{:.2} / {:.2} / {:.2}", latency.p50_ms, latency.p99_ms, latency.p999_ms)
}

/// `12,345`; with two digits after the point where it is small and has some.
fn thousands(number: f64) -> String {
    if number < 10.0 && number.fract() != 0.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2 × Some CPU, Linux 6.1`.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("CPU", |(_, model)| model.trim());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let release = read("/proc/sys/kernel/osrelease");
    let release = release.split(['-', '\n']).next().unwrap_or_default();
    format!("{cpus} × {model}, Linux {release}; servers and load generator share them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&text, "new").expect("both marks are there");
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n{END}\nb\n"));
        assert_eq!(replaced(&new, "new"), Some(new), "twice is once");
        assert_eq!(replaced(&format!("{END} {BEGIN}"), "new"), None);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in
            [(0.0, "0"), (0.65, "0.65"), (70.0, "70"), (999.6, "1,000"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn every_row_of_the_standard_table_can_be_measured_and_has_a_name_of_its_own() {
        let rows: Vec<_> = floor_rows().into_iter().chain(cluster_rows()).collect();
        for (point, _) in &rows {
            point.check().expect("a point of the table");
        }
        let names = |target| {
            let of_target = rows.iter().filter(move |(point, _)| point.target == target);
            of_target.map(|(point, _)| point.to_string()).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(names(Target::Floor) + names(Target::Cluster), rows.len());
    }
}
