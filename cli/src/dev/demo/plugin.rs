//! The scene in which the reader's own plugin settles the conflict.
//!
//! In: a cluster in which one cart has two siblings. Out: the same cart, settled by a module that
//! was generated, built, checked and pushed here, or, where the machine has no Wasm target, by the
//! one of the same source that is shipped. Absent: what a plugin is.

use super::stage::{Stage, command_line};
use anyhow::Context as _;
use std::fs;

/// What the plugin is called in the story.
const NAME: &str = "my-cart";
/// The template's own source, compiled when this executable was made.
const PREBUILT: &[u8] = include_bytes!("../../../../plugins/artifacts/template-cart.wasm");

/// Brings a plugin about and lets it settle the cart; the policy that is then in force.
pub(super) async fn settle(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    stage.title("4. Your own rule");
    stage.say(
        "No shipped policy knows what your carts mean. You write one function, in any language that\n\
         compiles to WebAssembly; here is one to start from:",
    );
    stage.run(&["plugin", "new", NAME]).await?;
    let module = build(stage).await?;
    stage.run(&["plugin", "check", &module]).await?;
    stage.say("The nodes store and compile it; then the keyspace gets a new policy, with its data as it is:");
    stage.run(&["plugin", "push", &module, "--name", NAME]).await?;
    let policy = format!("resolver:{NAME}");
    stage.run_quietly(&["keyspace", "set", "carts", "--policy", &policy]).await?;
    stage.say("The same cart as before, now settled by your function, on whatever node it is read:");
    let cart = r#"{"eggs":6,"milk":1,"tea":2}"#;
    stage.run_and_expect(&["get", "carts", stage.key(), "--read", "ALL"], cart).await?;
    Ok(policy)
}

/// The project, built here if that can be done; else a file with the module that is shipped.
async fn build(stage: &Stage<'_>) -> anyhow::Result<String> {
    let arguments = ["plugin", "build", NAME];
    stage.command(&command_line(&arguments));
    let built = stage.output(&arguments).await?;
    if built.status.success() {
        stage.answer(&String::from_utf8_lossy(&built.stdout));
        return Ok(NAME.into());
    }
    stage.answer(&String::from_utf8_lossy(&built.stderr));
    let shipped = format!("{NAME}.wasm");
    let file = stage.file(&shipped);
    fs::write(&file, PREBUILT).with_context(|| format!("failed to write {}", file.display()))?;
    stage.say(&format!(
        "It could not be built on this machine. No matter: the same source, compiled beforehand, is part\n\
         of this executable and now in {shipped}."
    ));
    Ok(shipped)
}
