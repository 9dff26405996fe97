//! Nobody has to read what a node prints, and a hang-up is a clean stop.

use crate::{eventually, executable};
use merganser_client::Client;
use merganser_client::proto::KeyspaceSettings;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::process::Stdio;
use tokio::process::Command;

/// A port that is free now.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_node_serves_on_where_nobody_takes_its_output_and_a_hang_up_stops_it_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (client, peer) = (format!("127.0.0.1:{}", port()), format!("127.0.0.1:{}", port()));
    let config = directory.path().join("a.toml");
    let text = format!(
        "[node]\nname = \"a\"\n[cluster]\nname = \"unread\"\nsecret = \"sixteen bytes at least\"\n\
         members = [{{ name = \"a\", client_address = \"{client}\", peer_address = \"{peer}\" }}]\n\
         [storage]\ndir = \"data\"\n"
    );
    std::fs::write(&config, text).unwrap();
    // Not a byte can be written there: a disk of logs that is full, on both streams.
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut node = Command::new(executable());
    let node = node.arg("serve").arg("--config").arg(&config).current_dir(directory.path());
    let mut node = node.stdout(full()).stderr(full()).kill_on_drop(true).spawn().unwrap();

    eventually("the node serves", async || {
        let client = Client::connect([&client]).await?;
        let settings = KeyspaceSettings { n: 1, r: 1, w: 1, policy: "siblings".into(), ..Default::default() };
        let _ = client.admin().create_keyspace("kept", settings).await;
        client.keyspace("kept").put_blind("key", "value").await?;
        Ok(())
    })
    .await;
    assert!(node.try_wait().unwrap().is_none(), "the node ended");

    let pid = rustix::process::Pid::from_raw(node.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let ended = node.wait().await.unwrap();
    assert_eq!(ended.code(), Some(0), "{ended}");
}
