//! What may be said to a running `merganser dev`.
//!
//! In: a line, the names of the nodes. Out: a command, or why it is none. Absent: carrying it out.

use std::collections::BTreeSet;

/// Shown where somebody types.
pub(super) const INVITATION: &str =
    "Type `cut a | b c`, `heal`, `kill a`, `status`, or `help`; Ctrl-C stops the nodes.";

/// Shown for `help`.
pub(super) const HELP: &str = "\
  status              the nodes, and how each sees the others
  cut a | b c         cut every connection between the groups (`cut a`: a from all others)
  cut silently a | b  the same as a black hole: connections stay open and nothing arrives
  heal                connect everyone again
  kill a              kill -9
  stop a              end it as an operator would, with SIGTERM
  restart a           start it again (running: stop it first)
  wipe a              kill it, take its disk away, and start it empty: the others refill it
  pause a             freeze it with SIGSTOP
  resume a            let it go on
  help                this list
  quit                stop all nodes; the data stays";

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Status,
    /// Which nodes stay together.
    Cut {
        groups: Vec<BTreeSet<String>>,
        silent: bool,
    },
    Heal,
    Kill(String),
    Stop(String),
    Restart(String),
    Wipe(String),
    Pause(String),
    Resume(String),
    Help,
    Quit,
}

/// Reads a line; none if it is empty.
pub(super) fn parse(line: &str, nodes: &[String]) -> Result<Option<Command>, String> {
    let (word, rest) = match line.trim().split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (line.trim(), ""),
    };
    let node = |make: fn(String) -> Command| match nodes.iter().find(|node| *node == rest) {
        Some(node) => Ok(Some(make(node.clone()))),
        None => Err(format!("`{word}` needs one of the nodes {}", nodes.join(", "))),
    };
    let alone = |command: Command| match rest {
        "" => Ok(Some(command)),
        _ => Err(format!("`{word}` stands alone")),
    };
    match word {
        "" => Ok(None),
        "status" => alone(Command::Status),
        "cut" => cut(rest, nodes).map(Some),
        "heal" => alone(Command::Heal),
        "kill" => node(Command::Kill),
        "stop" => node(Command::Stop),
        "restart" => node(Command::Restart),
        "wipe" => node(Command::Wipe),
        "pause" => node(Command::Pause),
        "resume" => node(Command::Resume),
        "help" | "?" => alone(Command::Help),
        "quit" | "exit" => alone(Command::Quit),
        _ => Err(format!("`{word}` is no command; `help` lists them")),
    }
}

fn cut(rest: &str, nodes: &[String]) -> Result<Command, String> {
    let (silent, rest) = match rest.strip_prefix("silently") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let mut unnamed: BTreeSet<&String> = nodes.iter().collect();
    let mut groups = Vec::new();
    for part in rest.split('|') {
        let mut group = BTreeSet::new();
        for name in part.split([' ', '\t', ',']).filter(|name| !name.is_empty()) {
            let Some(node) = nodes.iter().find(|node| *node == name) else {
                return Err(format!("there is no node `{name}`, only {}", nodes.join(", ")));
            };
            if !unnamed.remove(node) {
                return Err(format!("`{name}` cannot be on two sides"));
            }
            group.insert(node.clone());
        }
        if group.is_empty() {
            return Err("a side of the cut is empty; say for example `cut a | b c`".into());
        }
        groups.push(group);
    }
    if groups.len() == 1 && !unnamed.is_empty() {
        groups.push(unnamed.iter().map(|node| (*node).clone()).collect());
    } else if groups.len() == 1 {
        return Err("nothing is on the other side".into());
    } else if let Some(node) = unnamed.first() {
        return Err(format!("on which side is `{node}`?"));
    }
    Ok(Command::Cut { groups, silent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Option<Command>, &str>) {
        let nodes = ["a", "b", "c"].map(String::from);
        assert_eq!(parse(line, &nodes), expected.map_err(String::from), "{line:?}");
    }

    fn sides(groups: &[&[&str]], silent: bool) -> Result<Option<Command>, &'static str> {
        let set = |group: &&[&str]| group.iter().map(|name| (*name).to_owned()).collect();
        Ok(Some(Command::Cut { groups: groups.iter().map(set).collect(), silent }))
    }

    #[test]
    fn lines_become_commands() {
        check("  ", Ok(None));
        check("status", Ok(Some(Command::Status)));
        check(" kill b ", Ok(Some(Command::Kill("b".into()))));
        check("restart\tc", Ok(Some(Command::Restart("c".into()))));
        check("wipe c", Ok(Some(Command::Wipe("c".into()))));
        check("quit", Ok(Some(Command::Quit)));
        check("kill", Err("`kill` needs one of the nodes a, b, c"));
        check("kill d", Err("`kill` needs one of the nodes a, b, c"));
        check("heal a", Err("`heal` stands alone"));
        check("explode", Err("`explode` is no command; `help` lists them"));
    }

    #[test]
    fn a_cut_names_every_node_once_or_one_side_only() {
        check("cut a | b c", sides(&[&["a"], &["b", "c"]], false));
        check("cut b,c|a", sides(&[&["b", "c"], &["a"]], false));
        check("cut a|b|c", sides(&[&["a"], &["b"], &["c"]], false));
        check("cut b", sides(&[&["b"], &["a", "c"]], false));
        check("cut silently a | b c", sides(&[&["a"], &["b", "c"]], true));
        check("cut", Err("a side of the cut is empty; say for example `cut a | b c`"));
        check("cut a |", Err("a side of the cut is empty; say for example `cut a | b c`"));
        check("cut a | a b", Err("`a` cannot be on two sides"));
        check("cut a | b", Err("on which side is `c`?"));
        check("cut a | x", Err("there is no node `x`, only a, b, c"));
        check("cut a b c", Err("nothing is on the other side"));
    }

    #[test]
    fn help_lists_every_command() {
        for word in
            ["status", "cut", "silently", "heal", "kill", "stop", "restart", "pause", "resume", "quit"]
        {
            assert!(HELP.contains(word), "{word}");
        }
    }
}
