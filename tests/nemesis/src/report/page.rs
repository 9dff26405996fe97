//! The page: verdict, plots, faults, and how to do the same again.
//!
//! In: a report. Out: one HTML text that needs nothing else: no script, no font, no link.

use super::{Report, plots};
use crate::{
    check::Violation,
    faults::{Kind, inflict::Entry},
    measure::Op,
};
use std::{collections::BTreeMap, fmt::Write as _};

/// More would not be read.
const VIOLATIONS_MAX: usize = 200;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:1120px;margin:24px auto;padding:0 16px}\
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:28px 0 2px}p{margin:4px 0}\
.note{color:#666;font-size:13px}.verdict{padding:12px 16px;border-radius:6px;margin:14px 0;font-size:17px}\
.holds{background:#e3f4e7;border-left:6px solid #1f9d4d}.violated{background:#fbe6e4;border-left:6px solid #c62828}\
table{border-collapse:collapse;margin:8px 0;font-size:13.5px}td,th{padding:3px 12px 3px 0;text-align:left;vertical-align:top;\
border-bottom:1px solid #e6e6e6}th{color:#555;font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}\
code{background:#f3f3f3;padding:2px 5px;border-radius:3px;font-size:13px}svg{width:100%;height:auto;display:block}\
.legend{font-size:13px;margin:4px 0}.legend span{display:inline-block;margin-right:16px;white-space:nowrap}\
.legend i{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:5px;vertical-align:-1px}\
pre{white-space:pre-wrap;margin:0;font-size:12.5px}";

/// The whole page.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Merganser under a nemesis</title>\
         <style>{STYLE}</style><h1>Merganser under a nemesis</h1>"
    );
    verdict(&mut html, report)?;
    facts(&mut html, report)?;
    violations(&mut html, &report.verdict.violations)?;
    let kinds = Kind::ALL.iter().map(|kind| kind.name()).filter(|kind| report.run.faults.contains(kind));
    let bands: Vec<(String, String)> =
        kinds.map(|kind| (kind.to_owned(), plots::css(plots::fault_color(kind)))).collect();
    write!(
        html,
        "<h2>Over time</h2><p class=\"note\">Behind each plot, what is done to some node; paler, a lost or \
        old disk that is being refilled.</p>"
    )?;
    legend(&mut html, &bands)?;
    for plot in plots::plots(report)? {
        write!(html, "<h2>{}</h2><p class=\"note\">{}</p>", plot.title, plot.explained)?;
        legend(&mut html, &plot.legend)?;
        html.push_str(&plot.svg);
    }
    faults(&mut html, report)?;
    html.push_str("</html>\n");
    Ok(html)
}

fn verdict(html: &mut String, report: &Report) -> std::fmt::Result {
    let count = report.verdict.violations.len();
    let (class, words) = match count {
        0 => ("holds", "Everything holds.".to_owned()),
        1 => ("violated", "1 violation.".to_owned()),
        _ => ("violated", format!("{count} violations.")),
    };
    write!(
        html,
        "<div class=\"verdict {class}\"><b>{words}</b> {}. {}.</div>",
        escaped(&report.counts()),
        escaped(&report.rest())
    )
}

fn facts(html: &mut String, report: &Report) -> std::fmt::Result {
    let run = &report.run;
    let answered = report.answered();
    let answered: Vec<String> =
        Op::NAMES.iter().zip(answered).map(|(name, count)| format!("{count} × {name}")).collect();
    let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
    for (code, count) in report.points.iter().flat_map(|point| &point.errors) {
        *errors.entry(code).or_default() += count;
    }
    let errors = match errors.is_empty() {
        true => "none".to_owned(),
        false => {
            errors.iter().map(|(code, count)| format!("{count} × {code}")).collect::<Vec<_>>().join(", ")
        }
    };
    let missed = report.stale.iter().filter(|stale| stale.missed_us.is_some()).count();
    let mut rows = vec![
        ("the same again", format!("<code>{}</code>", escaped(&run.command))),
        ("what ran", escaped(&format!("{}, driven by nemesis {}", run.merganser, run.nemesis))),
        ("seed", run.seed.to_string()),
        ("began", escaped(&run.began)),
        ("cluster", format!("{} nodes, N=3 R=2 W=2, data on {}", run.nodes.len(), escaped(run.disks))),
        ("load", format!("{} requests/s asked for, for {} s", run.rate, run.duration_s)),
        ("answered", answered.join(", ")),
        ("errors", errors),
        ("faults", by_kind(report)),
        ("canaries", format!("{} looked for, {missed} of them missed at first", report.stale.len())),
    ];
    if let Some(refills) = refills(report) {
        rows.push(("disks whole again", refills));
    }
    if !run.skipped.is_empty() {
        rows.push(("skipped", escaped(&run.skipped.join("; "))));
    }
    if report.verdict.looked.undecided > 0 {
        rows.push((
            "undecided",
            format!("{} (behind a stored resolution that no client saw)", report.verdict.looked.undecided),
        ));
    }
    html.push_str("<table>");
    for (name, value) in rows {
        write!(html, "<tr><th>{name}</th><td>{value}</td></tr>")?;
    }
    html.push_str("</table>");
    Ok(())
}

/// `18: 4 × kill, …`
fn by_kind(report: &Report) -> String {
    let of = |kind: &&str| report.faults.iter().filter(|entry| *entry.kind == **kind).count();
    let kinds = report.run.faults.iter().map(|kind| format!("{} × {kind}", of(kind)));
    format!("{}: {}", report.faults.len(), kinds.collect::<Vec<_>>().join(", "))
}

/// How long disks that had lost something took to be refilled, if there were any.
fn refills(report: &Report) -> Option<String> {
    let loses = |entry: &&Entry| Kind::ALL.iter().any(|kind| kind.name() == entry.kind && kind.loses_data());
    let lost: Vec<_> = report.faults.iter().filter(loses).collect();
    let took = |entry: &&Entry| Some(entry.refilled_us?.saturating_sub(entry.end_us?) as f64 / 1e6);
    let mut times: Vec<f64> = lost.iter().copied().filter_map(|entry| took(&entry)).collect();
    times.sort_by(f64::total_cmp);
    if lost.is_empty() {
        return None;
    }
    Some(match (times.get(times.len() / 2), times.last()) {
        (Some(middle), Some(longest)) => format!(
            "{} of {}, within {middle:.1} s (median), {longest:.1} s at most",
            times.len(),
            lost.len()
        ),
        _ => format!("0 of {}", lost.len()),
    })
}

fn violations(html: &mut String, violations: &[Violation]) -> std::fmt::Result {
    if violations.is_empty() {
        return Ok(());
    }
    html.push_str("<h2>Violations</h2><table><tr><th>property</th><th>at</th><th>what</th></tr>");
    for Violation { property, at, what } in violations.iter().take(VIOLATIONS_MAX) {
        let (at, what) = (escaped(at), escaped(what));
        write!(html, "<tr><td>{property}</td><td>{at}</td><td><pre>{what}</pre></td></tr>")?;
    }
    html.push_str("</table>");
    if violations.len() > VIOLATIONS_MAX {
        write!(
            html,
            "<p class=\"note\">… and {} more; the JSON file has all.</p>",
            violations.len() - VIOLATIONS_MAX
        )?;
    }
    Ok(())
}

fn legend(html: &mut String, entries: &[(String, String)]) -> std::fmt::Result {
    html.push_str("<div class=\"legend\">");
    for (name, color) in entries {
        write!(html, "<span><i style=\"background:{color}\"></i>{}</span>", escaped(name))?;
    }
    html.push_str("</div>");
    Ok(())
}

fn faults(html: &mut String, report: &Report) -> std::fmt::Result {
    html.push_str(
        "<h2>Faults</h2><table><tr><th>#</th><th>from</th><th>to</th><th>node</th><th>kind</th><th>what</th></tr>",
    );
    for entry in &report.faults {
        let time = |us: u64| format!("{:.1} s", us as f64 / 1e6);
        let mut what = escaped(&entry.what);
        if let (Some(whole), Some(end)) = (entry.refilled_us, entry.end_us) {
            write!(what, "; whole again {} after", time(whole.saturating_sub(end)))?;
        }
        for note in &entry.notes {
            write!(what, "<br><span class=\"note\">{}</span>", escaped(note))?;
        }
        let color = plots::css(plots::fault_color(entry.kind));
        write!(
            html,
            "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td>\
             <td class=\"legend\"><span><i style=\"background:{color}\"></i>{}</span></td><td>{what}</td></tr>",
            entry.number,
            time(entry.begin_us),
            entry.end_us.map_or("—".into(), time),
            escaped(&entry.node),
            entry.kind,
        )?;
    }
    html.push_str("</table>");
    Ok(())
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_cannot_become_markup() {
        assert_eq!(escaped("<b>\"a\" & b</b>"), "&lt;b&gt;&quot;a&quot; &amp; b&lt;/b&gt;");
    }
}
