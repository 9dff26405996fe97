//! What `merganser dev` says, for people or for programs.
//!
//! In: events. Out: on standard output one JSON object in a line for each, or text with colour
//! where a terminal reads it. Absent: deciding what happened.

use crate::output::{Output, table};
use serde::Serialize;
use std::{io::IsTerminal as _, path::Path};

/// Something that a reader may want to know.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event<'a> {
    /// A port was not free.
    PortTaken { what: &'a str, wanted: u16, port: u16 },
    /// A node of an earlier run still ran and was ended.
    OrphanEnded { node: &'a str },
    /// All nodes answer and see one another.
    Ready { dir: &'a Path, resumed: bool, nodes: Vec<Node<'a>> },
    /// A command was carried out.
    Done { command: &'a str, what: String },
    /// A command was not.
    Failed { command: &'a str, error: String },
    /// The answer to `status`.
    Status { nodes: Vec<Sight<'a>>, cut: Option<String> },
    /// The answer to `help`.
    Help { text: &'a str },
    /// A node ended that nobody had asked to.
    Died { node: &'a str, how: String, log: &'a Path, last_words: Vec<String> },
    /// A line of the story that is being told.
    Story { line: &'a str },
    /// All nodes have stopped.
    Stopped { dir: &'a Path, killed: Vec<&'a str> },
}

/// A node for the first look.
#[derive(Debug, Serialize)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) pid: u32,
    pub(super) log: &'a Path,
}

/// A node as `status` shows it.
#[derive(Debug, Serialize)]
pub(super) struct Sight<'a> {
    pub(super) name: &'a str,
    pub(super) client: String,
    pub(super) condition: &'static str,
    pub(super) pid: Option<u32>,
    /// Peers that it says are up, and those that it says are not; none if it does not answer.
    pub(super) sees: Option<Sees>,
}

/// How a node sees its peers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sees {
    pub(super) up: Vec<String>,
    pub(super) down: Vec<String>,
}

/// A way to say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    json: bool,
    colour: bool,
}

/// Terminal colours, by what they stand for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tone {
    Title,
    Command,
    Quiet,
    Good,
    Bad,
}

impl Report {
    pub(super) fn new(out: Output) -> Report {
        let json = out.json;
        let wished = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Report { json, colour: !json && wished && std::io::stdout().is_terminal() }
    }

    /// Whether a program listens.
    pub(super) fn json(self) -> bool {
        self.json
    }

    /// Whether somebody types at a console and reads what it answers.
    pub(super) fn prompts(self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    /// Says it.
    pub(super) fn event(self, event: &Event<'_>) {
        let text = if self.json {
            // Strings, numbers, lists: there is nothing in an event that JSON could not hold,
            // except a path that is no text.
            serde_json::to_string(event)
                .unwrap_or_else(|error| format!("{{\"event\":\"failed\",\"error\":\"{error}\"}}"))
        } else {
            self.text(event)
        };
        say(&text);
    }

    /// `text` in a tone, where there are colours.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Title => "1",
            Tone::Command => "36",
            Tone::Quiet => "2",
            Tone::Good => "32",
            Tone::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    fn text(self, event: &Event<'_>) -> String {
        match event {
            Event::PortTaken { what, wanted, port } => {
                format!("Port {wanted} ({what}) is taken; {port} is used instead.")
            }
            Event::OrphanEnded { node } => {
                format!("Node {node} still ran from an earlier start, and was stopped.")
            }
            Event::Ready { dir, resumed, nodes } => {
                let again = if *resumed { " again, with the data that was there" } else { "" };
                let mut text =
                    self.paint(Tone::Title, &format!("A cluster of {} nodes is up{again}.", nodes.len()));
                let row = |node: &Node<'_>| {
                    let log = node.log.display().to_string();
                    vec![node.name.into(), node.client.clone(), node.peer.clone(), node.pid.to_string(), log]
                };
                let rows = table(&["node", "clients", "peers", "process", "log"], nodes.iter().map(row));
                text.push_str(&format!("\n\n{rows}"));
                text.push_str(&format!("\n\nData: {}\n", dir.display()));
                text
            }
            Event::Done { what, .. } => self.paint(Tone::Good, what),
            Event::Failed { error, .. } => self.paint(Tone::Bad, error),
            Event::Status { nodes, cut } => {
                let row = |node: &Sight<'_>| {
                    let pid = node.pid.map(|pid| pid.to_string()).unwrap_or_default();
                    let sees = match &node.sees {
                        Some(sees) if sees.down.is_empty() => format!("{} up", sees.up.join(", ")),
                        Some(sees) if sees.up.is_empty() => format!("{} down", sees.down.join(", ")),
                        Some(sees) => format!("{} up, {} down", sees.up.join(", "), sees.down.join(", ")),
                        None => "(no answer)".into(),
                    };
                    vec![node.name.into(), node.client.clone(), node.condition.into(), pid, sees]
                };
                let mut text = table(&["node", "clients", "is", "process", "sees"], nodes.iter().map(row));
                if let Some(cut) = cut {
                    text.push_str(&format!("\ncut: {cut}"));
                }
                text
            }
            Event::Help { text } => (*text).to_owned(),
            Event::Died { node, how, log, last_words } => {
                let mut text = self.paint(Tone::Bad, &format!("Node {node} died unexpectedly ({how})."));
                text.push_str(&format!("\n  last lines of {}:", log.display()));
                for line in last_words {
                    text.push_str(&format!("\n    {line}"));
                }
                text.push_str(&format!("\n  `restart {node}` starts it again."));
                text
            }
            Event::Story { line } => (*line).to_owned(),
            Event::Stopped { dir, killed } => {
                let killed = match killed.as_slice() {
                    [] => String::new(),
                    some => format!(" {} did not stop in time and had to be killed.", some.join(", ")),
                };
                format!("All nodes have stopped.{killed} Their data stays in {}.", dir.display())
            }
        }
    }
}

/// A reader that has gone away is no reason to leave nodes behind.
fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Report {
        Report { json: false, colour: false }
    }

    #[test]
    fn a_death_is_told_with_its_last_words_and_what_to_do() {
        let died = Event::Died {
            node: "b",
            how: "signal: 9 (SIGKILL)".into(),
            log: Path::new("d/b/log"),
            last_words: vec!["one".into(), "two".into()],
        };
        assert_eq!(
            plain().text(&died),
            "Node b died unexpectedly (signal: 9 (SIGKILL)).\n  last lines of d/b/log:\n    one\n    two\n  \
             `restart b` starts it again."
        );
    }

    #[test]
    fn status_tells_who_sees_whom() {
        let sight =
            |name, sees| Sight { name, client: "x:1".into(), condition: "running", pid: Some(7), sees };
        let sees = |up: &[&str], down: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Some(Sees { up: own(up), down: own(down) })
        };
        let nodes =
            vec![sight("a", sees(&[], &["b", "c"])), sight("b", sees(&["c"], &["a"])), sight("c", None)];
        let text = plain().text(&Event::Status { nodes, cut: Some("a | b c".into()) });
        let rows: Vec<&str> =
            text.lines().map(|line| line.rsplit("  ").next().unwrap_or(line).trim()).collect();
        assert_eq!(rows, ["sees", "b, c down", "c up, a down", "(no answer)", "cut: a | b c"]);
    }

    #[test]
    fn programs_get_one_line_for_an_event() {
        let failed = Event::Failed { command: "kill x", error: "two\nlines".into() };
        let json = serde_json::to_string(&failed).unwrap();
        assert_eq!(json, r#"{"event":"failed","command":"kill x","error":"two\nlines"}"#);
    }
}
