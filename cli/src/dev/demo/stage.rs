//! The stage: says lines, and runs real commands of this executable in front of the reader.
//!
//! In: words, command lines. Out: events of the report; the commands' answers. Absent: the plot.

use super::super::{
    report::{Event, Tone},
    supervisor::Supervisor,
};
use anyhow::{Context as _, bail};
use merganser_client::{Client, Error};
use std::{fs, path::PathBuf, process::Output, process::Stdio};
use tokio::process::Command;

/// Exit codes of `merganser` that are an answer: done, and siblings that nothing settled.
const ANSWERS: [i32; 2] = [0, 4];
/// A command's answer is cut to so many lines; a compiler may say much.
const LINES_MAX: usize = 24;

/// Where the story is told.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    supervisor: &'a mut Supervisor,
    /// Where files of the story are.
    scratch: PathBuf,
    /// Each telling has keys of its own, so that it may be told again.
    key: String,
    client: String,
}

impl<'a> Stage<'a> {
    /// Makes the place for its files.
    pub(super) fn new(supervisor: &'a mut Supervisor) -> anyhow::Result<Stage<'a>> {
        let stories = supervisor.dir().join("story");
        let told = (1..).find(|number| !stories.join(number.to_string()).exists()).unwrap_or_default();
        let scratch = stories.join(told.to_string());
        fs::create_dir_all(&scratch).with_context(|| format!("failed to create {}", scratch.display()))?;
        let key = if told == 1 { "trip".into() } else { format!("trip-{told}") };
        let first = supervisor.names().into_iter().next().unwrap_or_default();
        let client = supervisor.client_address(&first)?;
        Ok(Stage { supervisor, scratch, key, client })
    }

    /// Where the nodes are in its hands.
    pub(super) fn supervisor(&mut self) -> &mut Supervisor {
        self.supervisor
    }

    /// The key that the story is about.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// A file of the story.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// All nodes.
    pub(super) fn names(&self) -> Vec<String> {
        self.supervisor.names()
    }

    /// The first node, and the others.
    pub(super) fn sides(&self) -> (String, Vec<String>) {
        let mut names = self.names();
        let left = names.remove(0);
        (left, names)
    }

    /// Where clients reach a node.
    pub(super) fn address(&self, name: &str) -> anyhow::Result<String> {
        self.supervisor.client_address(name)
    }

    /// Whether there is such a keyspace.
    pub(super) async fn has_keyspace(&self, name: &str) -> anyhow::Result<bool> {
        match Client::connect([self.client.clone()]).await?.admin().keyspace(name).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. } | Error::UnknownKeyspace { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A heading.
    pub(super) fn title(&self, title: &str) {
        self.line("");
        self.line(&self.supervisor.report().paint(Tone::Title, title));
    }

    /// Some words.
    pub(super) fn say(&self, words: &str) {
        self.line("");
        words.lines().for_each(|line| self.line(line));
    }

    /// How a reader gets the same command line.
    pub(super) fn how_to_type(&self) {
        let executable = quoted(&self.supervisor.executable().display().to_string());
        self.line("");
        self.command(&format!("alias merganser={executable}"));
        self.command(&format!("export MERGANSER_NODE={}", self.client));
        self.command(&format!("cd {}", quoted(&self.scratch.display().to_string())));
    }

    /// A word to the console of `merganser dev`, and its answer.
    pub(super) fn console(&self, word: &str, answer: &str) {
        self.line("");
        let report = self.supervisor.report();
        self.line(&format!("  (merganser dev) {}", report.paint(Tone::Command, word)));
        self.answer(answer);
    }

    /// A table at the end.
    pub(super) fn table(&self, header: &[&str], rows: Vec<Vec<String>>) {
        self.line("");
        crate::output::table(header, rows).lines().for_each(|line| self.line(line));
    }

    /// Runs a command, shows it and its answer; what it wrote to standard output.
    pub(super) async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.command(&command_line(arguments));
        let output = self.output(arguments).await?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        self.answer(&out);
        self.answer(&err);
        succeeded(&output, arguments)?;
        Ok(out)
    }

    /// Runs a command whose answer says nothing that the reader does not know.
    pub(super) async fn run_quietly(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.command(&command_line(arguments));
        succeeded(&self.output(arguments).await?, arguments)
    }

    /// Runs a command that must answer just so.
    pub(super) async fn run_and_expect(&self, arguments: &[&str], expected: &str) -> anyhow::Result<()> {
        let answer = self.run(arguments).await?;
        if answer.trim_end() != expected {
            bail!("`{}` should have answered {expected:?}", command_line(arguments));
        }
        Ok(())
    }

    /// An answer must contain this.
    pub(super) fn expect(&self, answer: &str, part: &str) -> anyhow::Result<()> {
        if !answer.contains(part) {
            bail!("{part:?} is missing in {answer:?}");
        }
        Ok(())
    }

    /// `get`, with the answer going to a file.
    pub(super) async fn get_file(
        &self,
        keyspace: &str,
        file: &str,
        options: &[&str],
    ) -> anyhow::Result<Vec<u8>> {
        let arguments = [&["get", keyspace, self.key()], options].concat();
        self.command(&format!("{} > {file}", command_line(&arguments)));
        let output = self.output(&arguments).await?;
        succeeded(&output, &arguments)?;
        fs::write(self.file(file), &output.stdout).with_context(|| format!("failed to write {file}"))?;
        Ok(output.stdout)
    }

    /// `put`, from a file that is written before.
    pub(super) async fn put_file(
        &self,
        keyspace: &str,
        file: &str,
        value: &[u8],
        options: &[&str],
    ) -> anyhow::Result<()> {
        fs::write(self.file(file), value).with_context(|| format!("failed to write {file}"))?;
        let arguments = [&["put", keyspace, self.key(), "--file", file], options].concat();
        self.run(&arguments).await.map(|_| ())
    }

    /// Runs a command and shows nothing.
    pub(super) async fn output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Command::new(self.supervisor.executable())
            .args(arguments)
            .env("MERGANSER_NODE", &self.client)
            .current_dir(&self.scratch)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("failed to run {}", command_line(arguments)))
    }

    /// Shows a command.
    pub(super) fn command(&self, line: &str) {
        self.line(&format!("  $ {}", self.supervisor.report().paint(Tone::Command, line)));
    }

    /// Shows an answer.
    pub(super) fn answer(&self, text: &str) {
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let (shown, rest) = lines.split_at(lines.len().min(LINES_MAX));
        for line in shown {
            self.line(&self.supervisor.report().paint(Tone::Quiet, &format!("    {line}")));
        }
        if !rest.is_empty() {
            self.line(&format!("    … and {} lines more", rest.len()));
        }
    }

    fn line(&self, line: &str) {
        self.supervisor.report().event(&Event::Story { line });
    }
}

/// As a shell would take it.
pub(super) fn command_line(arguments: &[&str]) -> String {
    let words = arguments.iter().map(|argument| quoted(argument));
    std::iter::once("merganser".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// An error unless the command gave an answer.
fn succeeded(output: &Output, arguments: &[&str]) -> anyhow::Result<()> {
    match output.status.code() {
        Some(code) if ANSWERS.contains(&code) => Ok(()),
        _ => bail!("`{}` failed ({})\n{}", command_line(arguments), output.status, text(&output.stderr)),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed() {
        let shown = command_line(&["put", "carts", "a/b", r#"{"milk":1}"#, "it's", ""]);
        assert_eq!(shown, r#"merganser put carts a/b '{"milk":1}' 'it'\''s' ''"#);
    }
}
