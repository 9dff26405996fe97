//! What goes to the terminal, to a pipe, or to a program.
//!
//! In: values, notes, tables, JSON. Out: values and tables on stdout, notes on stderr; with
//! `--json` one JSON document on stdout and nothing else. A reader that closed its pipe ends the
//! command quietly: nothing here uses the printing macros, which would panic. Absent: colours.

use crate::failure::Exit;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// How this run of the binary speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// For programs.
    pub(crate) json: bool,
}

impl Output {
    /// Raw bytes; on a terminal a line end is added where there is none.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        if stdout.is_terminal() && !bytes.ends_with(b"\n") {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    }

    /// A result: `text` for people, `json` for programs.
    pub(crate) fn result(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        let line = if self.json { json().to_string() } else { clean(&text()) };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    }

    /// For people only, beside the result.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.json {
            // Whoever closed stderr does not want notes.
            let _ = writeln!(io::stderr().lock(), "{}", clean(&text.to_string()));
        }
    }

    /// Why the command failed: what happened, then what to do next.
    pub(crate) fn error(&self, error: &anyhow::Error) -> Exit {
        if is_closed_pipe(error) {
            return Exit::Ok;
        }
        let told = crate::failure::tell(error);
        // Nothing is left to tell if the streams are gone, too.
        if self.json {
            let _ = writeln!(io::stdout().lock(), "{}", told.json());
        } else {
            let mut stderr = io::stderr().lock();
            let _ = writeln!(stderr, "merganser: {}", clean(&told.message));
            if !told.hint.is_empty() {
                let _ = writeln!(stderr, "  next: {}", told.hint);
            }
        }
        told.exit
    }

    /// A progress bar on stderr, hidden where nobody would see it.
    pub(crate) fn bar(&self, length: u64, template: &str) -> indicatif::ProgressBar {
        let bar = if self.json || !io::stderr().is_terminal() {
            indicatif::ProgressBar::hidden()
        } else {
            indicatif::ProgressBar::new(length)
        };
        match indicatif::ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A text with each character that a terminal would obey, or show as nothing, in escaped form: names, versions and reasons
/// come from plugins, peers and other clients. Line ends and tabs stay.
pub(crate) fn clean(text: &str) -> String {
    let is_hidden = |c: char| match c {
        '\n' | '\t' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control(),
    };
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) {
            true => cleaned.extend(c.escape_unicode()),
            false => cleaned.push(c),
        }
    }
    cleaned
}

/// Bytes as a program can take them: text where they are text, hex otherwise.
pub(crate) fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::json!({ "encoding": "utf-8", "data": text }),
        Err(_) => serde_json::json!({ "encoding": "hex", "data": hex(bytes) }),
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The other way round; none where it is not hex.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digits = |at: usize| text.get(at..at + 2).filter(|pair| !pair.starts_with('+'));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(digits(at)?, 16).ok()).collect()
}

/// For people: 1,536 → `1.5 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A table in the plainest style, aligned by columns.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.iter().copied());
    table.add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_there_and_back_and_anything_else_is_refused() {
        assert_eq!(from_hex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!(from_hex(""), Some(Vec::new()));
        for wrong in ["0", "0g", "+1", "ä0", "0 "] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nothing_that_a_terminal_would_obey_is_printed() {
        assert_eq!(clean("a\x1b[2J\r\u{9b}31m\u{202e}b"), "a\\u{1b}[2J\\u{d}\\u{9b}31m\\u{202e}b");
        assert_eq!(clean("zoë 漢字 🦆\n\tend"), "zoë 漢字 🦆\n\tend");
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_hex() {
        assert_eq!(bytes_json(b"a")["encoding"], "utf-8");
        assert_eq!(bytes_json(&[0xff])["data"], "ff");
    }

    #[test]
    fn a_table_has_no_spaces_at_line_ends() {
        let table = table(&["node", "zone"], [vec!["a".into(), String::new()]]);
        assert!(table.lines().all(|line| line == line.trim_end()), "{table:?}");
        assert_eq!(table.lines().count(), 2);
    }
}
