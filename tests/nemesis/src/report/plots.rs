//! Plots over time, with what was done to the nodes behind them.
//!
//! In: a report. Out: SVG texts. A series has one colour, a kind of fault another one of a paler
//! sort; the legend is the page's, so that nothing ever lies over anything.

use super::Report;
use crate::{faults::Kind, history::Micros, measure::Op, settle::HINTS};
use anyhow::anyhow;
use plotters::prelude::*;

const SIZE: (u32, u32) = (1100, 250);
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(120, 94, 10),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];
const INK: RGBColor = RGBColor(60, 60, 60);

/// A plot with its heading and its legend.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) explained: &'static str,
    /// Name and colour.
    pub(super) legend: Vec<(String, String)>,
    pub(super) svg: String,
}

struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// How the values of a plot are told.
#[derive(Clone, Copy)]
struct Axis {
    title: &'static str,
    /// Values are logarithms of milliseconds.
    log_ms: bool,
    dots: bool,
}

/// The colour of a kind of fault, for pages.
pub(super) fn fault_color(kind: &str) -> RGBColor {
    match Kind::ALL.iter().find(|known| known.name() == kind) {
        Some(Kind::Kill) => RGBColor(214, 39, 40),
        Some(Kind::Pause) => RGBColor(148, 103, 189),
        Some(Kind::Cut) => RGBColor(31, 119, 180),
        Some(Kind::Part) => RGBColor(0, 70, 120),
        Some(Kind::FailedSync) => RGBColor(140, 86, 75),
        Some(Kind::FullDisk) => RGBColor(227, 119, 194),
        Some(Kind::LostDisk) => RGBColor(255, 127, 14),
        Some(Kind::OldDisk) => RGBColor(188, 189, 34),
        Some(Kind::Rot) => RGBColor(23, 190, 207),
        Some(Kind::Clock) | None => RGBColor(127, 127, 127),
    }
}

/// As a page writes it.
pub(super) fn css(color: RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", color.0, color.1, color.2)
}

/// All plots.
pub(super) fn plots(report: &Report) -> anyhow::Result<Vec<Plot>> {
    let (unit, _) = unit(report);
    let time = |us: Micros| us as f64 / unit;
    let slot_s = report.run.slot_us as f64 / 1e6;
    let middle = |begin: Micros| time(begin + report.run.slot_us / 2);
    let by_op = Op::NAMES.iter().enumerate().map(|(op, name)| Series {
        name: (*name).to_owned(),
        points: report.points.iter().map(|p| (middle(p.begin_us), p.ok[op] as f64 / slot_s)).collect(),
    });
    let mut codes: Vec<&String> = report.points.iter().flat_map(|point| point.errors.keys()).collect();
    codes.sort();
    codes.dedup();
    let by_code = codes.into_iter().map(|code| Series {
        name: code.clone(),
        points: report
            .points
            .iter()
            .map(|p| (middle(p.begin_us), p.errors.get(code).copied().unwrap_or(0) as f64 / slot_s))
            .collect(),
    });
    let latency = |name: &str, of: fn(&crate::measure::Point) -> u64| Series {
        name: name.into(),
        points: report
            .points
            .iter()
            .filter(|point| of(point) > 0)
            .map(|point| (middle(point.begin_us), log_ms(of(point))))
            .collect(),
    };
    let latencies = vec![
        latency("read p50", |point| point.read_p50_us),
        latency("write p50", |point| point.write_p50_us),
        latency("read p99", |point| point.read_p99_us),
        latency("write p99", |point| point.write_p99_us),
    ];
    let nodes = || report.run.nodes.iter().enumerate();
    let staleness = nodes().map(|(node, name)| Series {
        name: format!("node {name}"),
        points: report
            .stale
            .iter()
            .filter(|stale| stale.node == node && (stale.seen || stale.missed_us.is_some()))
            .map(|stale| (time(stale.acked_us), log_ms(stale.missed_us.unwrap_or(0))))
            .collect(),
    });
    let sampled = |of: fn(&crate::measure::Sample) -> Option<f64>| -> Vec<Series> {
        let series = nodes().map(|(node, name)| Series {
            name: format!("node {name}"),
            points: report
                .samples
                .iter()
                .filter(|sample| sample.node == node)
                .filter_map(|sample| Some((time(sample.at_us), of(sample)?)))
                .collect(),
        });
        series.collect()
    };
    let memory = sampled(|sample| Some(sample.resident_bytes? as f64 / f64::from(1 << 20)));
    let hints = sampled(|sample| sample.metrics.as_ref()?.get(HINTS).copied());

    let plain = |title| Axis { title, log_ms: false, dots: false };
    let mut plots = vec![
        nodes_plot(report)?,
        plot(report, "Answers", "Requests answered each second.", plain("answers / s"), by_op.collect())?,
        plot(
            report,
            "Errors",
            "Requests that ended without success each second, after all retries of the client library. An \
             uncertain write may have taken effect.",
            plain("errors / s"),
            by_code.collect(),
        )?,
        plot(
            report,
            "Latency",
            "Of answered requests, retries included.",
            Axis { title: "latency", log_ms: true, dots: false },
            latencies,
        )?,
        plot(
            report,
            "Staleness",
            "A key is written each second; so long after its acknowledgement a read at level ONE at that node \
             still missed it. At the bottom: never missed. A node that does not answer misses nothing.",
            Axis { title: "staleness", log_ms: true, dots: true },
            staleness.collect(),
        )?,
    ];
    if hints.iter().any(|series| !series.points.is_empty()) {
        plots.push(plot(
            report,
            "Hints",
            "Writes kept for a node that was away.",
            plain("hints held"),
            hints,
        )?);
    }
    plots.push(plot(report, "Memory", "Resident, of each node's process.", plain("MiB"), memory)?);
    Ok(plots)
}

/// Below a tenth of a millisecond nothing is told apart.
fn log_ms(us: u64) -> f64 {
    (us as f64 / 1e3).max(0.1).log10()
}

fn told_ms(log: f64) -> String {
    let ms = 10f64.powf(log);
    match ms {
        _ if ms >= 999.0 => format!("{:.0} s", ms / 1e3),
        _ if ms >= 0.99 => format!("{ms:.0} ms"),
        _ => format!("{ms:.1} ms"),
    }
}

fn told_time(time: f64, unit: &str) -> String {
    format!("{time:.0} {unit}")
}

/// The unit of the time axis in microseconds, and its name: minutes where seconds would be many.
fn unit(report: &Report) -> (f64, &'static str) {
    if report.run.load_end_us > 600_000_000 { (6e7, "min") } else { (1e6, "s") }
}

/// Where the time axis ends, and how many parts of a round length it has.
fn time_axis(report: &Report) -> (f64, usize, &'static str) {
    let (unit, name) = unit(report);
    let end = (report.run.load_end_us as f64 / unit).max(1.0);
    let steps =
        [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 43_200.0];
    let step = steps.into_iter().find(|step| end / step <= 16.0).unwrap_or(86_400.0);
    (end, (end / step).ceil() as usize + 1, name)
}

fn plot(
    report: &Report,
    title: &'static str,
    explained: &'static str,
    axis: Axis,
    series: Vec<Series>,
) -> anyhow::Result<Plot> {
    let values = || series.iter().flat_map(|series| series.points.iter().map(|(_, y)| *y));
    let highest = values().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = match axis.log_ms {
        true => (-1.0, if highest.is_finite() { highest.max(1.0).ceil() } else { 1.0 }),
        false => (0.0, if highest > 0.0 { highest * 1.08 } else { 1.0 }),
    };
    let (end, ticks, name) = time_axis(report);
    let (unit, _) = unit(report);
    let time = |us: Micros| us as f64 / unit;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(26)
            .y_label_area_size(74)
            .build_cartesian_2d(0.0..end, low..high)
            .map_err(drawing)?;
        let bands = report.faults.iter().flat_map(|entry| {
            let (begin, over) = (time(entry.begin_us), entry.end_us.map_or(end, time));
            let color = fault_color(entry.kind);
            let width = end / 1100.0;
            let fault = Rectangle::new(
                [(begin, low), (over.max(begin + width).min(end), high)],
                color.mix(0.22).filled(),
            );
            // A disk that is being refilled.
            let whole = entry.refilled_us.map(|us| time(us).min(end)).filter(|whole| *whole > over);
            let refill =
                whole.map(|whole| Rectangle::new([(over, low), (whole, high)], color.mix(0.08).filled()));
            std::iter::once(fault).chain(refill)
        });
        chart.draw_series(bands).map_err(drawing)?;
        let grid = if axis.log_ms { (high - low) as usize + 1 } else { 6 };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK)
            .x_labels(ticks)
            .y_labels(grid)
            .x_label_formatter(&|x| told_time(*x, name))
            .y_label_formatter(&|y| match axis.log_ms {
                true => told_ms(*y),
                false if high >= 10.0 => format!("{y:.0}"),
                false => format!("{y:.1}"),
            })
            .y_desc(axis.title)
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
            .draw()
            .map_err(drawing)?;
        for (series, color) in series.iter().zip(COLORS.iter().cycle()) {
            if axis.dots {
                let dots = series.points.iter().map(|point| Circle::new(*point, 2, color.mix(0.7).filled()));
                chart.draw_series(dots).map_err(drawing)?;
            } else {
                let line = LineSeries::new(series.points.iter().copied(), color.stroke_width(1));
                chart.draw_series(line).map_err(drawing)?;
            }
        }
        root.present().map_err(drawing)?;
    }
    let legend = series.iter().zip(COLORS.iter().cycle());
    let legend = legend.map(|(series, color)| (series.name.clone(), css(*color))).collect();
    Ok(Plot { title, explained, legend, svg })
}

/// Which node is up, and what is done to it.
fn nodes_plot(report: &Report) -> anyhow::Result<Plot> {
    let count = report.run.nodes.len();
    let (end, ticks, name) = time_axis(report);
    let up = RGBColor(190, 225, 200);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, 48 + 46 * count as u32)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(26)
            .y_label_area_size(74)
            .build_cartesian_2d(0.0..end, 0.0..count as f64)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(INK)
            .x_labels(ticks)
            .y_labels(0)
            .x_label_formatter(&|x| told_time(*x, name))
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .draw()
            .map_err(drawing)?;
        // The first node is on top.
        let row = |node: usize| (count - 1 - node) as f64;
        let bar = |node: usize, begin: f64, over: f64, low: f64, high: f64, color: RGBColor| {
            let over = over.max(begin + end / 1100.0).min(end);
            Rectangle::new([(begin, row(node) + low), (over, row(node) + high)], color.filled())
        };
        let (unit, _) = unit(report);
        let seconds = |us: Micros| us as f64 / unit;
        chart.draw_series((0..count).map(|node| bar(node, 0.0, end, 0.12, 0.48, up))).map_err(drawing)?;
        let down = report.down.iter().map(|down| {
            bar(down.node, seconds(down.begin_us), down.end_us.map_or(end, seconds), 0.12, 0.48, INK)
        });
        chart.draw_series(down).map_err(drawing)?;
        let faults = report.faults.iter().filter_map(|entry| {
            let node = report.run.nodes.iter().position(|name| *name == entry.node)?;
            let (begin, over) = (seconds(entry.begin_us), entry.end_us.map_or(end, seconds));
            Some(bar(node, begin, over, 0.52, 0.88, fault_color(entry.kind)))
        });
        chart.draw_series(faults).map_err(drawing)?;
        let style = ("sans-serif", 14).into_font().color(&INK);
        for (node, name) in report.run.nodes.iter().enumerate() {
            let (_, y) = chart.backend_coord(&(0.0, row(node) + 0.5));
            root.draw(&Text::new(format!("node {name}"), (14, y - 8), style.clone())).map_err(drawing)?;
        }
        root.present().map_err(drawing)?;
    }
    let legend = vec![("up".into(), css(up)), ("no process, or stopped".into(), css(INK))];
    let explained = "Above, what is done to a node; below, whether it runs.";
    Ok(Plot { title: "Nodes", explained, legend, svg })
}

fn drawing<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("failed to draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_units() {
        assert_eq!([-1.0, 0.0, 1.0, 3.0, 4.0].map(told_ms), ["0.1 ms", "1 ms", "10 ms", "1 s", "10 s"]);
        assert_eq!((told_time(90.0, "s"), told_time(2.0, "min")), ("90 s".into(), "2 min".into()));
        assert_eq!(css(RGBColor(1, 16, 255)), "#0110ff");
    }
}
