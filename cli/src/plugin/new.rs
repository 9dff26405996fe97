//! `plugin new`: a project that builds and passes its tests at once.
//!
//! In: a name, a world. Out: a directory with the template of that world and the SDK beside it, so
//! that the project needs nothing of this repository. Absent: other languages; docs/plugins.md tells
//! what they need.

use crate::{
    failure::{Exit, Failure},
    output::Output,
};
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The plugin's name, which is its crate's.
    #[arg(value_parser = crate_name)]
    name: String,
    /// What it fulfils: any function of concurrent versions, or a join.
    #[arg(long, value_enum, default_value_t = Template::Resolver)]
    world: Template,
    /// Where to make it [default: a directory with the plugin's name].
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Template {
    Resolver,
    Lattice,
}

/// A file of the project: its path, and its text.
type File = (&'static str, &'static str);

/// Files of the repository, named by what follows `plugin-sdk/`.
macro_rules! files {
    ($($place:literal: $from:literal),+ $(,)?) => {
        [$(($place, include_str!(concat!("../../../plugin-sdk/", $from)))),+]
    };
}

const SDK: [File; 9] = files! {
    "sdk/Cargo.toml": "Cargo.toml",
    "sdk/src/bindings.rs": "src/bindings.rs",
    "sdk/src/guest.rs": "src/guest.rs",
    "sdk/src/laws.rs": "src/laws.rs",
    "sdk/src/lib.rs": "src/lib.rs",
    "sdk/src/log.rs": "src/log.rs",
    "sdk/src/testing.rs": "src/testing.rs",
    "sdk/src/values.rs": "src/values.rs",
    "sdk/wit/plugin.wit": "wit/plugin.wit",
};

const RESOLVER: [File; 3] = files! {
    "Cargo.toml": "template/resolver/Cargo.toml.template",
    "src/lib.rs": "template/resolver/src/lib.rs",
    ".cargo/config.toml": "template/resolver/.cargo/config.toml",
};

const LATTICE: [File; 3] = files! {
    "Cargo.toml": "template/lattice/Cargo.toml.template",
    "src/lib.rs": "template/lattice/src/lib.rs",
    ".cargo/config.toml": "template/lattice/.cargo/config.toml",
};

fn crate_name(text: &str) -> Result<String, String> {
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let is_built_in = merganser_plugin_host::built_in().iter().any(|plugin| plugin.name == text);
    // Crates that the project itself depends on, or that every Rust program has.
    let is_taken =
        ["std", "core", "alloc", "test", "proc_macro", "sdk", "merganser-plugin-sdk"].contains(&text);
    match starts && text.len() <= 64 && text.chars().all(allowed) {
        true if is_built_in => {
            Err(format!("`{text}` is built in and could not be pushed; choose another name"))
        }
        true if is_taken => Err(format!("a crate of the project is called `{text}`; choose another name")),
        true => Ok(text.to_owned()),
        false => Err("a lower-case letter, then up to 63 of a-z, 0-9, `-` and `_`".into()),
    }
}

pub(super) fn run(args: NewArgs, output: Output) -> Result<Exit> {
    let directory = args.dir.unwrap_or_else(|| PathBuf::from(&args.name));
    write(&directory, &args.name, args.world)?;
    let shown = directory.display();
    output.result(
        || {
            format!(
                "made {shown}\nnext:  cd {shown} && cargo test\n       merganser plugin build {shown}\n       \
                 merganser plugin check {shown}\n       merganser plugin push {shown}"
            )
        },
        || json!({ "directory": directory.to_string_lossy(), "name": args.name }),
    )?;
    Ok(Exit::Ok)
}

fn write(directory: &Path, name: &str, world: Template) -> Result<()> {
    let taken = directory.symlink_metadata().is_ok()
        && !std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if taken {
        let what = format!("{} exists and is not an empty directory", directory.display());
        return Err(Failure::new("exists", what, "choose another name, or another place with --dir").into());
    }
    for (path, text) in files_of(world) {
        let path = directory.join(path);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        written
            .and_then(|()| std::fs::write(&path, text.replace("{{name}}", name)))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

fn files_of(world: Template) -> impl Iterator<Item = File> {
    let template = match world {
        Template::Resolver => RESOLVER,
        Template::Lattice => LATTICE,
    };
    let ignore = [(".gitignore", "/target\n")];
    template.into_iter().chain(SDK).chain(ignore)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs};

    fn below(directory: &Path) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut directories = vec![directory.to_owned()];
        while let Some(next) = directories.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.insert(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files
    }

    #[test]
    fn a_project_has_its_name_its_template_and_the_whole_sdk() {
        let here = tempfile::tempdir().unwrap();
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-sdk");
        let mut embedded = below(&sdk.join("src")).into_iter().map(|file| format!("sdk/src/{file}"));
        for (world, text) in [(Template::Resolver, "impl Resolver"), (Template::Lattice, "impl Lattice")] {
            let project = here.path().join(format!("{world:?}"));
            write(&project, "my-merge", world).unwrap();
            let files = below(&project);
            assert!(embedded.all(|file| files.contains(&file)), "a file of the SDK is not embedded");
            assert!(files.contains("sdk/wit/plugin.wit") && files.contains(".gitignore"));
            assert!(fs::read_to_string(project.join("Cargo.toml")).unwrap().contains("name = \"my-merge\""));
            assert!(fs::read_to_string(project.join("src/lib.rs")).unwrap().contains(text));
            for file in files {
                assert!(!fs::read_to_string(project.join(&file)).unwrap().contains("{{"), "{file}");
            }
        }
    }

    #[test]
    fn nothing_that_is_there_is_written_over() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("mine"), "mine").unwrap();
        assert!(write(here.path(), "x", Template::Lattice).is_err());
        assert_eq!(below(here.path()).len(), 1);
        let empty = here.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write(&empty, "x", Template::Lattice).unwrap();
    }

    #[test]
    fn names_are_what_cargo_takes() {
        for (name, right) in [
            ("cart", true),
            ("a-b_2", true),
            ("", false),
            ("2a", false),
            ("A", false),
            ("a/b", false),
            ("a\"", false),
        ] {
            assert_eq!(crate_name(name).is_ok(), right, "{name}");
        }
    }
}
