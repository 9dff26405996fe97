//! Requests: answered, refused, in time, and round nodes that hang.

use super::{NAMES, World, address, elapsed, heal, hold, pass, told};
use crate::cluster::problem;
use merganser_client::proto::kv_client::KvClient;
use merganser_client::proto::problem::Detail;
use merganser_client::proto::quorum::{Kind, Level};
use merganser_client::proto::{self, GetRequest, PutRequest};
use merganser_client::{Client, Error, Quorum};
use std::time::Duration;

#[test]
fn a_value_put_by_the_client_is_read_at_every_node() {
    told(
        1,
        |_| {},
        async |world| {
            let client = world.connect(1).await?;
            client.keyspace("k").put_blind("cart", "3 apples").await?;
            for name in NAMES {
                let alone = only(&world, name).await?;
                let entry = alone.keyspace("k").with_read(Quorum::All).get("cart").await?;
                assert_eq!(entry.value()?.unwrap(), "3 apples", "at {name}");
            }
            Ok(())
        },
    );
}

#[test]
fn no_read_takes_longer_than_a_second_while_a_node_hangs_and_no_write_longer_than_its_limit() {
    told(
        2,
        |_| {},
        async |world| {
            let clients =
                [world.connect(1).await?, world.client(2).pipelined(true).connect(NAMES.map(address)).await?];
            hold("b");
            let began = elapsed();
            let busy = clients.map(|client| tokio::spawn(ask_for(Duration::from_secs(20), client)));
            for (number, client) in busy.into_iter().enumerate() {
                let (answered, [write, read]) = client.await??;
                println!("client {number}: {answered} requests, the slowest took {write:?} and {read:?}");
                assert!(read <= Duration::from_secs(1), "client {number}: a read took {read:?}");
                assert!(write <= Duration::from_millis(3_500), "client {number}: a write took {write:?}");
                assert!(answered > 1_000, "client {number}: {answered} requests in {:?}", elapsed() - began);
            }
            heal();
            Ok(())
        },
    );
}

/// One request after the other, each of which must succeed: how many, and how long the slowest write and read took.
async fn ask_for(time: Duration, client: Client) -> anyhow::Result<(u32, [Duration; 2])> {
    let keys = client.keyspace("k");
    let (began, mut answered, mut slowest) = (elapsed(), 0, [Duration::ZERO; 2]);
    while elapsed() - began < time {
        let (asked, key) = (elapsed(), format!("key-{}", answered / 2 % 60));
        if answered % 2 == 0 {
            keys.put_blind(key, format!("{answered}")).await?;
        } else {
            keys.get(key).await?;
        }
        let slowest = &mut slowest[answered as usize % 2];
        *slowest = (*slowest).max(elapsed() - asked);
        answered += 1;
        pass(Duration::from_millis(10)).await;
    }
    Ok((answered, slowest))
}

#[test]
fn what_a_node_hears_of_when_its_client_has_given_it_up_is_not_carried_out() {
    told(
        5,
        |_| {},
        async |world| {
            let client = world.connect(1).await?;
            let keys = client.keyspace("k");
            let names: Vec<String> = (0..12).map(|number| format!("key-{number}")).collect();
            for name in &names {
                keys.put_blind(name, "0").await?;
            }
            hold("b");
            // Those of which `b` is asked first are written by another in the end, and replaced.
            let mut puts: tokio::task::JoinSet<_> = names
                .iter()
                .cloned()
                .map(|name| {
                    let keys = keys.clone();
                    async move { keys.put_blind(name, "1").await }
                })
                .collect();
            while let Some(written) = puts.join_next().await {
                written??;
            }
            for name in &names {
                let entry = keys.get_siblings(name).await?;
                keys.put(name, "2", entry.context()).await?;
            }
            heal();
            pass(Duration::from_secs(3)).await;
            let all = keys.with_read(Quorum::All);
            for name in &names {
                let siblings = all.get_siblings(name).await?;
                let values: Vec<_> =
                    siblings.siblings().iter().map(|sibling| sibling.value().cloned()).collect();
                assert_eq!(values, [Some("2".into())], "{name}");
            }
            assert!(world.figure("b", "requests_late").await? >= 1.0);
            Ok(())
        },
    );
}

#[test]
fn a_deadline_is_kept_by_the_node_and_by_the_client() {
    told(
        3,
        |_| {},
        async |world| {
            let mut kv = KvClient::new(world.channel("a").await?);
            hold("c");
            // The node answers in time, by name, that a replica did not.
            let all = proto::Quorum { kind: Some(Kind::Level(Level::All as i32)), ..Default::default() };
            let put = PutRequest { write: Some(all), timeout_ms: 300, ..put("k1", 1) };
            let asked = elapsed();
            let status = kv.put(put).await.unwrap_err();
            let took = elapsed() - asked;
            let detail = problem(&status).detail;
            assert!(
                matches!(detail, Some(Detail::Uncertain(_) | Detail::NotEnoughReplicas(_))),
                "{detail:?}"
            );
            assert!((Duration::from_millis(250)..Duration::from_millis(400)).contains(&took), "{took:?}");

            // The library tries again until the whole time is up, and not longer.
            let all = world.connect(1).await?.keyspace("k").with_write(Quorum::All);
            let asked = elapsed();
            let error = all.with_timeout(Duration::from_secs(1)).put_blind("k2", "v").await.unwrap_err();
            let took = elapsed() - asked;
            assert!(matches!(error, Error::Uncertain(_) | Error::NotEnoughReplicas { .. }), "{error}");
            assert!((Duration::from_millis(500)..Duration::from_millis(1_050)).contains(&took), "{took:?}");

            // Nobody answers at all.
            let alone = world.client(2).follow_topology(false).connect([address("c")]).await?;
            let asked = elapsed();
            let get = alone.keyspace("k").with_timeout(Duration::from_secs(1));
            let error = get.get("k1").await.unwrap_err();
            let took = elapsed() - asked;
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            assert!((Duration::from_millis(500)..Duration::from_millis(1_050)).contains(&took), "{took:?}");
            Ok(())
        },
    );
}

#[test]
fn a_message_beyond_its_limit_is_refused_by_name_and_its_connection_goes_on() {
    told(
        4,
        |_| {},
        async |world| {
            let mut kv = KvClient::new(world.channel("a").await?).max_encoding_message_size(16 << 20);
            kv.put(put("k1", 1)).await?;
            let connections = turmoil::established_tcp_stream_count();
            for size in [(1 << 20) + 1, 3 << 20, 8 << 20] {
                let status = kv.put(put("k1", size)).await.unwrap_err();
                assert!(matches!(problem(&status).detail, Some(Detail::TooLarge(_))), "{size}: {status}");
            }
            kv.put(put("k1", 1 << 20)).await?;
            let get = GetRequest { keyspace: "k".into(), key: "k1".into(), ..Default::default() };
            assert_eq!(kv.get(get).await?.into_inner().siblings.len(), 2, "two were taken");
            assert_eq!(turmoil::established_tcp_stream_count(), connections);
            Ok(())
        },
    );
}

pub(super) fn put(key: &'static str, size: usize) -> PutRequest {
    PutRequest {
        keyspace: "k".into(),
        key: key.into(),
        value: vec![7; size].into(),
        blind: true,
        ..Default::default()
    }
}

/// A client that knows one node.
pub(super) async fn only(world: &World, name: &str) -> anyhow::Result<Client> {
    Ok(world.client(9).follow_topology(false).connect([address(name)]).await?)
}
