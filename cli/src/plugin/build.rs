//! `plugin build`: cargo for wasm, then a look at the result with the engine of a node.
//!
//! In: a project. Out: the artifact's path, size, hash and world. A missing target is said before
//! cargo says it in many more words. Absent: `wasm-opt` and the like.

use crate::{
    failure::{Exit, Failure},
    output::{Output, size},
};
use anyhow::{Context as _, Result};
use clap::Args;
use merganser_plugin_host::Loaded;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "wasm32-unknown-unknown";

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The project.
    #[arg(default_value = ".")]
    dir: PathBuf,
}

pub(super) fn run(args: BuildArgs, output: Output) -> Result<Exit> {
    let artifact = compile(&args.dir, output)?;
    let module = std::fs::read(&artifact)
        .with_context(|| format!("failed to read what cargo built, {}", artifact.display()))?;
    let loaded = load(&module)?;
    output.result(
        || {
            format!(
                "{}\n{}, {} {}, world {}\n{}",
                artifact.display(),
                size(module.len() as u64),
                loaded.description.name,
                loaded.description.version,
                loaded.world,
                loaded.hash
            )
        },
        || {
            let mut built = loaded_json(&loaded);
            built["artifact"] = json!(artifact.to_string_lossy());
            built
        },
    )?;
    Ok(Exit::Ok)
}

/// What a node would say to these bytes.
pub(super) fn load(module: &[u8]) -> Result<Loaded> {
    let loaded = super::host()?.load(module).map_err(|error| {
        let hint = "begin from `merganser plugin new`, or read docs/plugins.md";
        Failure::new("refused", format!("a node would refuse it: {error}"), hint)
    });
    Ok(loaded?)
}

pub(super) fn loaded_json(loaded: &Loaded) -> Value {
    json!({
        "hash": loaded.hash.to_string(),
        "world": loaded.world.name(),
        "name": loaded.description.name,
        "version": loaded.description.version,
        "summary": loaded.description.summary,
        "size_bytes": loaded.size_bytes,
        "compile_ms": loaded.compile_ms,
    })
}

/// Builds the project in `dir`; the path of its module.
pub(super) fn compile(dir: &Path, output: Output) -> Result<PathBuf> {
    if !dir.join("Cargo.toml").is_file() {
        let what = format!("{} has no Cargo.toml", dir.display());
        return Err(
            Failure::new("no_project", what, "make a project with `merganser plugin new NAME`").into()
        );
    }
    check_target(dir)?;
    output.note(format!("building {} for {TARGET}", dir.display()));
    let cargo = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(if output.json { Stdio::piped() } else { Stdio::inherit() })
        .output()
        .map_err(no_cargo)?;
    if !cargo.status.success() {
        let told = String::from_utf8_lossy(&cargo.stderr);
        let what = format!("cargo build failed ({}){}", cargo.status, last_line(&told));
        return Err(Failure::new("build", what, "correct what cargo names above, then build again").into());
    }
    let manifest = dir.join("Cargo.toml").canonicalize().context("failed to find the project")?;
    artifact(&cargo.stdout, &manifest).ok_or_else(|| {
        let what = "the project builds no module".to_owned();
        Failure::new("no_module", what, "its Cargo.toml needs crate-type = [\"cdylib\"] under [lib]").into()
    })
}

fn last_line(text: &str) -> String {
    text.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(": {line}")).unwrap_or_default()
}

fn check_target(dir: &Path) -> Result<()> {
    // In the project, because it may name a toolchain of its own.
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(no_cargo)?;
    let libraries = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    if asked.status.success() && Path::new(&libraries).is_dir() {
        return Ok(());
    }
    let what = format!("the compiler has no target {TARGET}");
    Err(Failure::new("no_target", what, format!("rustup target add {TARGET}")).into())
}

fn no_cargo(error: std::io::Error) -> Failure {
    Failure::new("no_cargo", format!("failed to run cargo: {error}"), "install Rust from https://rustup.rs")
}

/// The module of the package with this manifest, among the messages that cargo wrote.
fn artifact(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    let messages = messages.split(|byte| *byte == b'\n');
    let artifacts = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    artifacts
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(manifest))
        .filter_map(|message| {
            let files = message["filenames"].as_array()?;
            let module = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm"))?;
            Some(PathBuf::from(module))
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_projects_own_and_no_dependencys() {
        let message = |manifest: &str, file: &str| {
            json!({ "reason": "compiler-artifact", "manifest_path": manifest, "filenames": [file] })
                .to_string()
        };
        let lines = [
            "not json".to_owned(),
            json!({ "reason": "build-script-executed" }).to_string(),
            message("/p/sdk/Cargo.toml", "/t/sdk.wasm"),
            message("/p/Cargo.toml", "/t/cart.rlib"),
            message("/p/Cargo.toml", "/t/cart.wasm"),
        ];
        let found = artifact(lines.join("\n").as_bytes(), Path::new("/p/Cargo.toml"));
        assert_eq!(found, Some(PathBuf::from("/t/cart.wasm")));
        assert_eq!(artifact(b"", Path::new("/p/Cargo.toml")), None);
    }

    #[test]
    fn a_directory_without_a_project_is_told_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let error = compile(empty.path(), Output { json: true }).unwrap_err();
        assert!(crate::failure::tell(&error).hint.contains("plugin new"));
    }
}
