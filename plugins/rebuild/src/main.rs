//! Makes `artifacts/*.wasm` again from their sources, or checks that they still are what the sources make.
//!
//! ```text
//!   cargo run -p rebuild               compile, write artifacts/*.wasm and artifacts/HASHES
//!   cargo run -p rebuild -- --check    compile, compare with what is committed; writes nothing
//! ```
//!
//! The bytes depend on the exact compiler, which `HASHES` names; where another one is installed, or the target
//! `wasm32-unknown-unknown` is not, the check says so and succeeds, because there is nothing it could compare. They do not
//! depend on where the checkout or the registry are: those paths are mapped away.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

const TARGET: &str = "wasm32-unknown-unknown";

/// Artifact, and the crate it is made of as the compiler writes it.
const ARTIFACTS: [(&str, &str); 7] = [
    ("automerge", "automerge_plugin"),
    ("lww", "lww"),
    ("lww-map", "lww_map"),
    ("mv-register", "mv_register"),
    ("or-set", "or_set"),
    ("pn-counter", "pn_counter"),
    ("template-cart", "template_cart"),
];

fn main() -> Result<ExitCode> {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("usage: rebuild [--check]"),
    };
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("plugins/")?.to_owned();
    let compiler = output("rustc", &["--version"])?;
    if check {
        let committed = std::fs::read_to_string(plugins.join("artifacts/HASHES"))?;
        let needed = committed
            .lines()
            .find_map(|line| line.strip_prefix("# compiler: "))
            .context("no compiler in HASHES")?;
        if needed != compiler {
            println!("not compared: the artifacts were made by {needed}, here is {compiler}");
            return Ok(ExitCode::SUCCESS);
        }
        let libraries =
            PathBuf::from(output("rustc", &["--print", "sysroot"])?).join("lib/rustlib").join(TARGET);
        if !libraries.exists() {
            println!("not compared: no {TARGET} here (rustup target add {TARGET})");
            return Ok(ExitCode::SUCCESS);
        }
    }

    let built = build(&plugins)?;
    let mut hashes = format!(
        "# What is in this directory: BLAKE3, bytes, file. Made by `cargo run -p rebuild` in plugins/.\n\
         # compiler: {compiler}\n"
    );
    let mut differ = Vec::new();
    for (artifact, library) in ARTIFACTS {
        let file = format!("{artifact}.wasm");
        let wasm = std::fs::read(built.join(format!("{library}.wasm")))?;
        writeln!(hashes, "{}  {:>8}  {file}", blake3::hash(&wasm), wasm.len())?;
        let at = plugins.join("artifacts").join(&file);
        if !check {
            std::fs::write(&at, &wasm)?;
        } else if std::fs::read(&at)? != wasm {
            differ.push(file);
        }
    }
    let listed = plugins.join("artifacts/HASHES");
    match check {
        false => std::fs::write(&listed, &hashes)?,
        true if differ.is_empty() && std::fs::read_to_string(&listed)? != hashes => {
            differ.push("HASHES".into())
        }
        true => {}
    }
    match differ.is_empty() {
        true => print!("{hashes}"),
        false => println!("not what the sources make, run `cargo run -p rebuild`: {}", differ.join(", ")),
    }
    Ok(if differ.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compiles all plugins, and says where they are.
fn build(plugins: &Path) -> Result<PathBuf> {
    let repository = plugins.parent().context("plugins/ has no parent")?;
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir().context("no home directory")?.join(".cargo"),
    };
    // One directory per registry, named after a hash of its address.
    let registries = std::fs::read_dir(cargo_home.join("registry/src"))?;
    let registries: Vec<PathBuf> =
        registries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let mapped =
        registries.iter().map(|path| (path.as_path(), "registry")).chain([(repository, "merganser")]);
    let flags: Vec<String> =
        mapped.map(|(from, to)| format!("'--remap-path-prefix={}={to}'", from.display())).collect();

    let target_dir = plugins.join("target/artifacts");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(plugins)
        .args(["build", "--locked", "--release", "--target", TARGET, "--workspace", "--exclude", "rebuild"])
        .arg("--target-dir")
        .arg(&target_dir)
        .args(["--config", &format!("target.{TARGET}.rustflags = [{}]", flags.join(", "))])
        // These would take the place of the flags above and in .cargo/config.toml.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()?;
    ensure!(built.success(), "the plugins do not compile");
    Ok(target_dir.join(TARGET).join("release"))
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("failed to run {program}"))?;
    ensure!(output.status.success(), "{program} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
