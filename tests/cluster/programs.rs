//! What a newcomer runs: the examples, the story, and `merganser dev` itself where it must refuse.

use crate::{executable, merganser, text};
use merganser_examples::{local::LocalCluster, quickstart, shopping_cart, siblings};
use tokio::process::Command;

#[tokio::test]
async fn the_examples_do_what_they_say() {
    let cluster = LocalCluster::start(executable()).await.unwrap();
    let addresses = cluster.addresses();
    quickstart::run(&addresses).await.unwrap();
    assert_eq!(siblings::run(&addresses).await.unwrap(), "ada, ben, cleo");
    let carts = shopping_cart::run(&addresses).await.unwrap();
    assert_eq!(carts.set, r#"["eggs","tea"]"#);
    assert_eq!(carts.settled, r#"{"milk":2,"tea":2}"#);
    // A second time, on what the first one left.
    quickstart::run(&addresses).await.unwrap();
    assert_eq!(siblings::run(&addresses).await.unwrap(), "ada, ben, cleo");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn the_story_is_told_to_its_end_and_can_be_told_again() {
    let directory = tempfile::tempdir().unwrap();
    for telling in 1..=2 {
        let mut command = Command::new(executable());
        command.args(["dev", "--demo", "--exit", "--base-port", "0", "--dir"]).arg(directory.path());
        if telling == 2 {
            // A machine without a toolchain.
            command.env("PATH", "");
        }
        let told = command.output().await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert!(told.status.success(), "telling {telling} broke off\n{out}\n{err}");
        for part in [
            "A cluster of 3 nodes is up",
            "Our trip to the lakes",
            r#"{"eggs":6,"milk":1,"tea":2}"#,
            "5. Every node gives the same answers",
            "All nodes have stopped.",
        ] {
            assert!(out.contains(part), "telling {telling} lacks {part:?}\n{out}");
        }
        assert!(!out.contains('\u{1b}'), "colours are for terminals");
        assert!(telling == 1 || out.contains("It could not be built on this machine."), "{out}");
    }
}

#[tokio::test]
async fn a_second_supervisor_is_refused_and_bad_words_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start_in(executable(), directory.path(), 3).await.unwrap();
    let second =
        Command::new(executable()).args(["dev", "--dir"]).arg(directory.path()).output().await.unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another `merganser dev`") && said.contains("--dir"), "{said}");

    for word in ["cut", "cut a | a", "kill z", "explode", "heal now", "resume"] {
        cluster.say(word).await.unwrap_err();
    }
    let status = cluster.say("status").await.unwrap();
    let up = |node: &serde_json::Value| node["sees"]["up"].as_array().map(Vec::len);
    let seen: Vec<_> = status["nodes"].as_array().unwrap().iter().map(up).collect();
    assert_eq!(seen, [Some(2), Some(2), Some(2)], "{status}");

    cluster.say("stop c").await.unwrap();
    let refused = cluster.say("pause c").await.unwrap_err().to_string();
    assert!(refused.contains("`restart c` starts it"), "{refused}");
    cluster.say("restart c").await.unwrap();
    let shown = text(&merganser(&cluster.addresses(), &["cluster", "status"]).await);
    assert!(cluster.addresses().iter().all(|address| shown.contains(address.as_str())), "{shown}");
    cluster.stop().await.unwrap();
}
