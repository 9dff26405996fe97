//! Links between nodes: black-holed, cut in one direction, slow.

use super::clients::only;
use super::{NAMES, World, elapsed, heal, hold, pass, told};
use merganser_client::{Error, Quorum, State};
use merganser_server::Config;
use std::time::Duration;

/// Keepalive asks, waits, and the dialler's longest pause; a second for the rest.
const LINKED_AGAIN_MAX: Duration = Duration::from_secs(1 + 3 + 2 + 1);

fn no_keepalive(config: &mut Config) {
    config.listen.peer_keepalive_interval_ms = 3_600_000;
    config.listen.peer_keepalive_timeout_ms = 3_600_000;
}

/// Half a second in which all that `a` and `b` say to each other is lost: what comes after it on
/// the same connection can never be delivered.
async fn lose_half_a_second() {
    turmoil::partition("a", "b");
    pass(Duration::from_millis(500)).await;
    heal();
}

async fn put_at_all(world: &World, key: &str) -> Result<(), Error> {
    let client = only(world, "a").await.expect("a client that asks nobody yet");
    let all = client.keyspace("k").with_write(Quorum::All).with_timeout(Duration::from_secs(1));
    all.put_blind(key, "v").await.map(drop)
}

#[test]
fn keepalive_ends_a_black_holed_link_and_it_is_dialled_again() {
    told(
        11,
        |_| {},
        async |world| {
            lose_half_a_second().await;
            let healed = elapsed();
            world.until("a", |topology| topology.nodes.iter().any(|node| !node.up)).await?;
            world.linked(&NAMES).await?;
            let took = elapsed() - healed;
            assert!(took <= LINKED_AGAIN_MAX, "{took:?}");
            put_at_all(&world, "k1").await?;
            Ok(())
        },
    );
}

#[test]
fn without_keepalive_a_black_holed_link_stays_one() {
    told(11, no_keepalive, async |world| {
        lose_half_a_second().await;
        pass(Duration::from_secs(60)).await;
        assert_eq!(world.figure("a", "links_down").await?, 0.0, "nobody has noticed");
        let error = put_at_all(&world, "k1").await.unwrap_err();
        assert!(matches!(error, Error::Uncertain(_) | Error::NotEnoughReplicas { .. }), "{error}");
        Ok(())
    });
}

#[test]
fn a_cut_in_one_direction_stops_no_quorum_and_heals() {
    told(
        12,
        |_| {},
        async |world| {
            let keys = world.connect(1).await?.keyspace("k");
            for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
                turmoil::partition_oneway(from, to);
                let cut = elapsed();
                for number in 0.. {
                    let asked = elapsed();
                    keys.put_blind(format!("{from}{number}"), "v").await?;
                    assert!(
                        elapsed() - asked <= Duration::from_secs(1),
                        "{from} to {to}: {:?}",
                        elapsed() - asked
                    );
                    if elapsed() - cut > Duration::from_secs(6) {
                        break;
                    }
                    pass(Duration::from_millis(50)).await;
                }
                turmoil::repair_oneway(from, to);
                let healed = elapsed();
                world.linked(&NAMES).await?;
                assert!(elapsed() - healed <= LINKED_AGAIN_MAX, "{from} to {to}: {:?}", elapsed() - healed);
            }
            Ok(())
        },
    );
}

#[test]
fn what_waits_for_a_slow_peer_is_bounded_and_slows_no_quorum() {
    let settle = |config: &mut Config| {
        // The link stays, however slow.
        no_keepalive(config);
        config.limits.peer_queue_mb = 1;
    };
    told(13, settle, async |world| {
        let keys = only(&world, "a").await?.keyspace("k");
        turmoil::hold("a", "c");
        const VALUES: usize = 60;
        for number in 0..VALUES {
            let asked = elapsed();
            keys.put_blind(format!("{number}"), vec![number as u8; 256 << 10]).await?;
            let took = elapsed() - asked;
            assert!(took <= Duration::from_millis(200), "{number}: {took:?}");
        }
        // 15 MiB did not go into 1 MiB and what a connection holds: they were dropped, not kept.
        let dropped = world.figure("a", "peer_messages_dropped").await?;
        assert!(dropped >= 20.0, "{dropped}");
        heal();
        // What was dropped comes home by itself.
        let at_c = only(&world, "c").await?.keyspace("k").with_read(Quorum::One);
        let healed = elapsed();
        let mut missing = VALUES;
        while missing > 0 {
            assert!(elapsed() - healed < Duration::from_secs(60), "{missing} are missing");
            pass(Duration::from_millis(500)).await;
            missing = 0;
            for number in 0..VALUES {
                missing += usize::from(at_c.get(format!("{number}")).await?.state() != State::Found);
            }
        }
        Ok(())
    });
}

#[test]
fn a_node_that_hangs_is_known_to_be_back_soon_after() {
    told(
        14,
        |_| {},
        async |world| {
            hold("c");
            pass(Duration::from_secs(10)).await;
            heal();
            let healed = elapsed();
            world.linked(&NAMES).await?;
            put_at_all(&world, "k1").await?;
            assert!(elapsed() - healed <= LINKED_AGAIN_MAX, "{:?}", elapsed() - healed);
            Ok(())
        },
    );
}
