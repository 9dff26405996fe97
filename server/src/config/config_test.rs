//! Sources in their order, and each way in which a configuration can be wrong.

use super::keys::MEMBER_KEYS;
use super::load::read;
use super::*;
use std::collections::HashMap;

const GOOD: &str = r#"
[node]
name = "a"
[cluster]
name = "dev"
secret = "sixteen bytes or more"
members = [
  { name = "a", client_address = "127.0.0.1:7401", peer_address = "127.0.0.1:7501" },
  { name = "b", client_address = "b.example:7401", peer_address = "b.example:7501", zone = "z", weight = 2 },
]
[storage]
dir = "data"
[limits]
timeout_ms = 1500
"#;

fn load(text: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let overrides: Vec<_> = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let config = read(Some(text), environment, &overrides)?;
    config.check().map(|()| config)
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let plain = load(GOOD, &[], &[]).unwrap();
    assert_eq!((plain.limits.timeout_ms, plain.limits.hedge_ms), (1_500, 20));
    assert_eq!((plain.cluster.members[1].weight, plain.cluster.members[0].weight), (2.0, 1.0));
    assert_eq!(plain.client_address().unwrap().port(), 7401);
    let environment = [("MERGANSER_LIMITS__TIMEOUT_MS", "900"), ("MERGANSER_LOG__FORMAT", "json")];
    let config = load(GOOD, &environment, &[]).unwrap();
    assert_eq!((config.limits.timeout_ms, config.log.format), (900, LogFormat::Json));
    let overrides = [("limits.timeout_ms", "700"), ("listen.client", "0.0.0.0:0")];
    let config = load(GOOD, &environment, &overrides).unwrap();
    assert_eq!((config.limits.timeout_ms, config.client_address().unwrap().port()), (700, 0));
}

#[test]
fn variables_of_other_programs_are_left_alone() {
    assert!(load(GOOD, &[("MERGANSER_ENDPOINT", "x"), ("PATH", "/bin")], &[]).is_ok());
}

#[test]
fn each_mistake_is_told_with_its_key_and_the_fix() {
    let check = |from: &str, to: &str, expected: &[&str]| {
        assert!(GOOD.contains(from), "{from} is not in the good one");
        let error = load(&GOOD.replacen(from, to, 1), &[], &[]).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    };
    check(
        "timeout_ms = 1500",
        "timeot_ms = 1500",
        &["`limits.timeot_ms`", "did you mean `limits.timeout_ms`"],
    );
    check("weight = 2", "wieght = 2", &["`cluster.members.wieght`", "`cluster.members.weight`"]);
    check("timeout_ms = 1500", "timeout_ms = \"soon\"", &["timeout_ms"]);
    check("timeout_ms = 1500", "timeout_ms = 0", &["`limits.timeout_ms` is 0", "1 to 60000"]);
    check("sixteen bytes or more", "short", &["`cluster.secret` has 5 bytes", "at least 16"]);
    check("name = \"a\"\n", "name = \"c\"\n", &["`cluster.members` has no entry named \"c\""]);
    check("name = \"a\"\n", "", &["`node.name` is not given"]);
    check("name = \"a\"\n", "name = \"a\"\nweight = 3\n", &["`node.weight`", "make them equal"]);
    check("name = \"b\"", "name = \"a\"", &["`cluster.members`", "share an id"]);
    check("weight = 2", "weight = -1", &["`cluster.members.weight` of \"b\" is -1"]);
    check("weight = 2", "weight = nan", &["`cluster.members.weight`"]);
    check("127.0.0.1:7501", "127.0.0.1", &["`cluster.members.peer_address` of \"a\"", "HOST:PORT"]);
    check("127.0.0.1:7401", "localhost:7401", &["`listen.client`", "write an IP"]);
    check("dir = \"data\"", "", &["`storage.dir` is not given"]);
    check("[storage]", "[storrage]", &["`storrage.dir`", "`storage.dir`"]);
    check("[storage]", "[storage", &["cannot read"]);
}

#[test]
fn a_secret_is_never_printed() {
    let config = load(GOOD, &[], &[]).unwrap();
    assert!(!format!("{config:?}").contains("sixteen"));
}

#[test]
fn every_key_of_the_table_is_taken_and_has_the_default_that_the_table_says() {
    let defaults = format!("{:?}", Config::default());
    for key in KEYS {
        let field = key.name.split_once('.').unwrap().1;
        assert!(defaults.contains(&format!("{field}: ")), "{} is in no struct", key.name);
        if let Ok(number) = key.default.parse::<u64>() {
            assert!(defaults.contains(&format!("{field}: {number}")), "{}: not {number}", key.name);
        }
    }
    let fields =
        defaults.matches(": ").count() - "node cluster listen storage limits repair log".split(' ').count();
    assert_eq!(fields, KEYS.len(), "a struct has a field that the table does not name: {defaults}");
}

/// `MERGANSER_BLESS=1` writes the tables anew.
#[test]
fn the_reference_in_the_documentation_is_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let document = std::fs::read_to_string(path).unwrap();
    let table = |keys: &[Key]| -> String {
        let rows = keys.iter().map(|key| format!("| `{}` | {} | {} |\n", key.name, key.default, key.help));
        ["| key | default | what it is for |\n|---|---|---|\n".to_owned()].into_iter().chain(rows).collect()
    };
    let mut expected = document.clone();
    let sections: HashMap<&str, &[Key]> = [("config keys", KEYS), ("member keys", MEMBER_KEYS)].into();
    for (name, keys) in sections {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = expected.find(&begin).expect("the document has the mark") + begin.len();
        let to = expected.find(&end).expect("the document has the end mark");
        expected.replace_range(from..to, &table(keys));
    }
    if std::env::var_os("MERGANSER_BLESS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let document = std::fs::read_to_string(path).unwrap();
    assert!(document == expected, "docs/operations.md is behind the table; run with MERGANSER_BLESS=1");
}
