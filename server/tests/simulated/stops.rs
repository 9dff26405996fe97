//! Nodes that stop, in order and without, while they are asked.

use super::{NAMES, elapsed, pass, told};
use merganser_client::{Client, Quorum};
use std::time::Duration;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Puts values that nobody else puts, one after the other, until `until`; those that were acknowledged.
async fn put_until(until: Duration, number: usize, client: Client) -> anyhow::Result<Vec<String>> {
    let keys = client.keyspace("k");
    let mut acknowledged = Vec::new();
    while elapsed() < until {
        let value = format!("{number}-{}", acknowledged.len());
        keys.put_blind(format!("key-{value}"), value.clone()).await?;
        acknowledged.push(value);
        pass(Duration::from_millis(20)).await;
    }
    Ok(acknowledged)
}

async fn are_there(client: &Client, values: &[String]) -> anyhow::Result<()> {
    let keys = client.keyspace("k").with_read(Quorum::All);
    for value in values {
        let entry = keys.get(format!("key-{value}")).await?;
        assert_eq!(entry.value()?.map(|found| found.as_ref()), Some(value.as_bytes()));
    }
    Ok(())
}

#[test]
fn a_stop_in_order_costs_no_client_an_error() {
    told(
        21,
        |_| {},
        async |world| {
            let mut health = HealthClient::new(world.channel("a").await?);
            let kv = HealthCheckRequest { service: "merganser.v1.Kv".into() };
            let mut watched = health.watch(kv).await?.into_inner();
            let first = watched.message().await?.map(|reply| reply.status());
            assert_eq!(first, Some(ServingStatus::Serving));
            let before = world.status("a").await?.incarnation;

            let until = elapsed() + Duration::from_secs(6);
            let mut busy = Vec::new();
            for number in 1..=4 {
                let client = world
                    .client(number as u64)
                    .pipelined(number % 2 == 0)
                    .connect(NAMES.map(super::address))
                    .await?;
                busy.push(tokio::spawn(put_until(until, number, client)));
            }
            pass(Duration::from_secs(2)).await;
            world.stop("a");
            let told = watched.message().await?.map(|reply| reply.status());
            assert_eq!(
                told,
                Some(ServingStatus::NotServing),
                "balancers are told before anything is refused"
            );
            let mut acknowledged = Vec::new();
            for client in busy {
                acknowledged.extend(client.await??);
            }
            assert!(acknowledged.len() > 400, "{}", acknowledged.len());

            world.start("a");
            pass(Duration::from_millis(100)).await;
            world.linked(&NAMES).await?;
            assert_eq!(world.status("a").await?.incarnation, before, "it stopped clean");
            are_there(&world.connect(5).await?, &acknowledged).await
        },
    );
}

#[test]
fn a_node_that_lost_power_comes_back_and_nothing_acknowledged_is_lost() {
    told(
        22,
        |_| {},
        async |world| {
            let until = elapsed() + Duration::from_secs(12);
            let mut acknowledged = Vec::new();
            let mut busy = Vec::new();
            for number in 1..=3 {
                busy.push(tokio::spawn(put_until(until, number, world.connect(number as u64).await?)));
            }
            for name in NAMES {
                pass(Duration::from_secs(1)).await;
                world.lose_power(name);
                pass(Duration::from_secs(1)).await;
                world.start(name);
                pass(Duration::from_millis(100)).await;
                world.linked(&NAMES).await?;
            }
            for client in busy {
                acknowledged.extend(client.await??);
            }
            assert!(acknowledged.len() > 300, "{}", acknowledged.len());
            are_there(&world.connect(5).await?, &acknowledged).await
        },
    );
}
