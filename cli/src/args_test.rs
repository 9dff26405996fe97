//! Tests of `args`, as tables: a line in, what it means or that it is refused out.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, String> {
    // Words of a line; quotes are not needed here.
    Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn lines_that_are_accepted() {
    let lines = [
        "merganser get carts alice",
        "merganser get carts alice --siblings --pick 2 --read ONE --json",
        "merganser --json --node a:1,b:2 get carts alice --context-file f",
        "merganser put carts alice value --blind --write 2",
        "merganser put carts alice --file - --read-first",
        "merganser put carts alice -5 --context-file f",
        "merganser put carts alice --blind -- --dashes",
        "merganser del carts alice --read-first --timeout 500ms",
        "merganser apply hits home +1 --write ALL",
        "merganser query hits home",
        "merganser keyspace create carts --n 3 --r 2 --w 2 --policy resolver:cart --write-back-delay 2s",
        "merganser keyspace set carts --policy lww --delete delete-wins --durability interval",
        "merganser keyspace list --json",
        "merganser plugin new cart --world lattice --dir /tmp/x",
        "merganser plugin build",
        "merganser plugin push cart.wasm --name cart",
        "merganser plugin remove cart",
        "merganser put carts alice value --blind --ttl 30d --sloppy",
        "merganser get carts alice --strict",
        "merganser keyspace set carts --quorums strict --ttl 12h --key-rate-max 500",
        "merganser keyspace set carts --reset ttl,key-rate-max",
        "merganser cluster status --metrics",
        "merganser cluster hints --json",
        "merganser cluster repair",
        "merganser cluster hot",
        "merganser cluster topology --keyspace carts --key alice",
        "merganser import dir --keyspace docs --prefix a/ --manifest m --concurrency 8 --write ONE",
        "merganser export dir --keyspace docs --name docs --overwrite --changed",
        "merganser serve --config node.toml --set listen.client=127.0.0.1:1 --check-config",
        "merganser serve --keys --json",
        "merganser inspect key data carts alice",
        "merganser get carts --key-hex ff00",
        "merganser put carts ff00 value --key-hex --blind",
        "merganser inspect key data carts --key-hex ff00",
        "merganser cluster topology --keyspace carts --key ff00 --key-hex",
        "merganser inspect sstable data/000000000001.sst --entries",
        "merganser dev --demo --exit --json",
    ];
    for line in lines {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn lines_that_are_refused_say_why() {
    let rows = [
        ("merganser", "Usage"),
        ("merganser get carts", "<KEY>"),
        ("merganser get carts alice --pick 1", "--siblings"),
        ("merganser get carts alice --read 0", "not a quorum"),
        ("merganser put carts alice value --blind --read-first", "cannot be used with"),
        ("merganser put carts alice value --blind --context-file f", "cannot be used with"),
        ("merganser put carts alice value --file f", "cannot be used with"),
        ("merganser put carts alice v --timeout 5", "500ms, 10s, 2m, 12h or 30d"),
        ("merganser put carts alice v --timeout 0s", "more than 0"),
        ("merganser get carts alice --strict --sloppy", "cannot be used with"),
        ("merganser keyspace set carts --durability maybe", "possible values"),
        ("merganser keyspace set c --write-back-delay 50d", "at most 49 days"),
        ("merganser keyspace create c --write-back-delay 365d", "at most 49 days"),
        ("merganser plugin new lww", "built in"),
        ("merganser plugin new std", "choose another"),
        ("merganser plugin new sdk", "choose another"),
        ("merganser keyspace set c --write-back-never --write-back-delay 1s", "cannot be used with"),
        ("merganser plugin new Cart", "lower-case"),
        ("merganser cluster topology --key alice", "--keyspace"),
        ("merganser import dir", "--keyspace"),
        ("merganser import dir --keyspace k --name a/b", "letters, digits"),
        ("merganser export dir --keyspace k --name a --manifest f", "cannot be used with"),
        ("merganser import dir --keyspace k --concurrency 0", "0 is not in 1"),
    ];
    for (line, why) in rows {
        let error = parse(line).expect_err(line);
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn addresses_come_as_a_list_and_from_any_place_in_the_line() {
    for line in ["merganser --node a:1,b:2 keyspace list", "merganser keyspace list --node a:1 --node b:2"] {
        assert_eq!(parse(line).unwrap().global.addresses, ["a:1", "b:2"], "{line}");
    }
}

#[test]
fn durations_have_a_unit_and_a_limit() {
    let rows =
        [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("12h", 43_200_000), ("30d", 2_592_000_000)];
    for (text, ms) in rows {
        assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
    }
    for wrong in ["", "s", "1", "1w", "-1s", "1.5s", "99999999999999999999s", "999999999m"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}
