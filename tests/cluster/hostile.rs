//! Strangers at the door: bytes that are no protocol, connections that say nothing, a node that
//! does not hold the secret. The nodes refuse them, count them, and go on.

use crate::{direct, eventually, executable};
use anyhow::ensure;
use merganser_client::Client;
use merganser_examples::{ensure_keyspace, local::LocalCluster};
use std::process::Stdio;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, process::Command};

#[tokio::test]
async fn strangers_are_refused_and_the_nodes_go_on() {
    let cluster = LocalCluster::start(executable()).await.unwrap();
    let client = Client::connect(cluster.addresses()).await.unwrap();
    ensure_keyspace(&client.admin(), "kept", "siblings").await.unwrap();
    client.keyspace("kept").put_blind("key", "value").await.unwrap();

    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame_of_16_mib = [&preface[..], &[0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01]].concat();
    let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut silent = Vec::new();
    for address in cluster.nodes().iter().flat_map(|node| [&node.client, &node.peer]) {
        silent.push(TcpStream::connect(address).await.unwrap());
        for bytes in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &noise, &frame_of_16_mib, &[preface, &noise[..]].concat()]
        {
            let mut stranger = TcpStream::connect(address).await.unwrap();
            // It may be refused before it has said all.
            let _ = stranger.write_all(bytes).await;
        }
    }

    let mut impostors = Vec::new();
    let directory = tempfile::tempdir().unwrap();
    for node in cluster.nodes() {
        // The node's own configuration, with everything that is its own moved elsewhere.
        let home = directory.path().join(&node.name);
        let told = std::fs::read_to_string(node.home.join("node.toml")).unwrap();
        let mut config: toml::Table = told.parse().unwrap();
        config["storage"]["dir"] = home.to_string_lossy().into_owned().into();
        config["cluster"]["secret"] = "a secret that is not the secret".into();
        for port in ["client", "peer"] {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            config["listen"][port] = free.to_string().into();
        }
        let file = directory.path().join(format!("{}.toml", node.name));
        std::fs::write(&file, config.to_string()).unwrap();
        let mut impostor = Command::new(executable());
        impostor.arg("serve").arg("--config").arg(&file).kill_on_drop(true);
        impostors
            .push(impostor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }
    eventually("a node that does not hold the secret is refused", async || {
        let mut refused = 0.0;
        for address in cluster.addresses() {
            let status = direct(&address).await.admin().status_of(&address).await?;
            let metrics = status.metrics.iter().filter(|metric| metric.name == "links_refused_secret");
            refused += metrics.map(|metric| metric.value).sum::<f64>();
        }
        ensure!(refused >= 1.0, "nobody was refused");
        Ok(())
    })
    .await;

    for address in cluster.addresses() {
        let own = direct(&address).await.keyspace("kept");
        let seen = own.get("key").await.unwrap();
        assert!(seen.value().unwrap().is_some_and(|value| value == "value"), "{seen:?}");
    }
    drop((silent, impostors));
    cluster.stop().await.unwrap();
}
