//! The shipped artifacts are what they say, and each does what it is for, through the host.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use merganser_plugin_host::{
    Answer, Call, Host, KeyInfo, Limits, Operation, PluginHash, RejectionKind, Sibling, TEMPLATE_CART,
    built_in,
};

/// One host for all tests here; a plugin is compiled when a test first asks for it, because Automerge takes seconds.
pub(crate) static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(Limits::default()).expect("an engine"));

pub(crate) fn plugin(name: &str) -> PluginHash {
    let plugin = built_in().iter().find(|plugin| plugin.name == name).expect(name);
    if !HOST.contains(&plugin.hash) {
        HOST.load(plugin.wasm).expect(name);
    }
    plugin.hash
}

pub(crate) fn sibling(actor: u64, millis: u64, value: impl Into<Bytes>) -> Sibling {
    Sibling { dots: vec![(actor, 1)], millis, logical: 0, content: Some(value.into()), content_type: None }
}

pub(crate) fn resolve(name: &str, siblings: Vec<Sibling>) -> Answer {
    let call = Call::Resolve { key: KeyInfo::default(), siblings };
    HOST.call(&plugin(name), call).0.expect(name)
}

/// An operation without an id that follows its actor's one before.
pub(crate) fn operation(body: impl Into<Bytes>, dot: (u64, u64)) -> Operation {
    let (previous, millis) = (dot.1 - 1, 1_700_000_000_000 + dot.1);
    Operation { body: body.into(), dot, previous, millis, logical: 0, op_id: Bytes::new(), seen: None }
}

/// What a resolver keeps.
pub(crate) fn kept(value: impl Into<Bytes>) -> Answer {
    Answer::Keep { value: value.into(), content_type: None }
}

fn apply(name: &str, state: Option<Bytes>, op: &str, dot: (u64, u64)) -> Bytes {
    let operation = Operation { op_id: format!("{dot:?}").into(), ..operation(op.to_owned(), dot) };
    let call = Call::Apply { key: KeyInfo::default(), state, operation };
    value(HOST.call(&plugin(name), call).0.expect(name))
}

fn merge(name: &str, states: Vec<Bytes>) -> Bytes {
    value(HOST.call(&plugin(name), Call::Merge { key: KeyInfo::default(), states }).0.expect(name))
}

fn query(name: &str, state: &Bytes, path: &str) -> String {
    let (state, path) = (state.clone(), Bytes::copy_from_slice(path.as_bytes()));
    let answer = HOST.call(&plugin(name), Call::Query { key: KeyInfo::default(), state, path }).0;
    String::from_utf8(value(answer.expect(name)).into()).expect("text")
}

fn value(answer: Answer) -> Bytes {
    match answer {
        Answer::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn artifacts_are_what_the_list_of_hashes_says() {
    let listed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/artifacts/HASHES")).unwrap();
    let listed: BTreeMap<&str, (&str, &str)> = listed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            (columns[2], (columns[0], columns[1]))
        })
        .collect();
    let shipped =
        built_in().iter().map(|plugin| (plugin.name, plugin.wasm)).chain([("template-cart", TEMPLATE_CART)]);
    let mut names = Vec::new();
    for (name, wasm) in shipped {
        let (hash, bytes) = listed[format!("{name}.wasm").as_str()];
        assert_eq!(
            (PluginHash::of(wasm).to_string().as_str(), wasm.len().to_string().as_str()),
            (hash, bytes),
            "{name}"
        );
        names.push(name);
    }
    assert_eq!(listed.len(), names.len());
}

#[test]
fn each_says_who_it_is_and_fulfils_its_world() {
    for plugin in built_in() {
        let loaded = HOST.load(plugin.wasm).expect(plugin.name);
        assert!(HOST.contains(&plugin.hash) && HOST.list().contains(&loaded));
        assert_eq!((loaded.description.name.as_str(), loaded.world), (plugin.name, plugin.world));
        assert!(loaded.wrapped && !loaded.description.summary.is_empty(), "{loaded:?}");
    }
}

#[test]
fn lww_keeps_the_latest_and_honours_a_later_delete() {
    assert_eq!(resolve("lww", vec![sibling(1, 2, "new"), sibling(2, 1, "old")]), kept("new"));
    let delete = Sibling { content: None, ..sibling(3, 9, "") };
    assert_eq!(resolve("lww", vec![sibling(1, 2, "new"), delete]), Answer::Delete);
}

#[test]
fn mv_register_keeps_all_values_in_one_answer() {
    let both = resolve("mv-register", vec![sibling(1, 1, "tea"), sibling(2, 1, "milk")]);
    let json = Some("application/json".into());
    assert_eq!(both, Answer::Keep { value: r#"{"values":["milk","tea"]}"#.into(), content_type: json });
}

#[test]
fn a_cart_changed_on_both_sides_of_a_partition_keeps_both() {
    let base = apply("or-set", None, r#"{"add":["milk","eggs"]}"#, (1, 1));
    let left = apply("or-set", Some(base.clone()), r#"{"remove":"eggs"}"#, (1, 2));
    let right = apply("or-set", Some(base), r#"{"add":"tea"}"#, (2, 1));
    assert_eq!(query("or-set", &merge("or-set", vec![left, right]), ""), r#"["milk","tea"]"#);
}

#[test]
fn counters_add_up_and_maps_settle_field_by_field() {
    let (left, right) = (apply("pn-counter", None, "+5", (1, 1)), apply("pn-counter", None, "-2", (2, 1)));
    assert_eq!(query("pn-counter", &merge("pn-counter", vec![left, right]), ""), "3");
    let left = apply("lww-map", None, r#"{"set":{"name":"Ada"}}"#, (1, 1));
    let right = apply("lww-map", None, r#"{"set":{"age":36.5}}"#, (2, 1));
    assert_eq!(query("lww-map", &merge("lww-map", vec![left, right]), ""), r#"{"age":36.5,"name":"Ada"}"#);
}

#[test]
fn what_is_no_state_is_rejected_and_never_traps() {
    let poisons: [&[u8]; 4] =
        [b"\xff", b"MOS2\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x85\x6f\x4a\x83garbage", b"MPN9"];
    for plugin in built_in().iter().filter(|plugin| plugin.name != "lww" && plugin.name != "mv-register") {
        for poison in poisons {
            let call = Call::Validate { key: KeyInfo::default(), value: Bytes::from_static(poison) };
            let answer = HOST.call(&self::plugin(plugin.name), call).0;
            assert!(matches!(answer, Ok(Answer::Rejected { .. })), "{}: {answer:?}", plugin.name);
        }
    }
    let call = Call::Validate { key: KeyInfo::default(), value: Bytes::from_static(b"MPN9") };
    let answer = HOST.call(&plugin("pn-counter"), call).0.unwrap();
    assert!(matches!(answer, Answer::Rejected { kind: RejectionKind::UnsupportedVersion, .. }), "{answer:?}");
}

#[test]
fn deeply_nested_json_fits_the_small_guest_stack_or_is_rejected() {
    for depth in [10, 100, 120, 127, 200, 100_000] {
        let nested = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for (name, op) in [
            ("lww-map", format!(r#"{{"set":{{"a":{nested}}}}}"#)),
            ("or-set", format!(r#"{{"add":{nested}}}"#)),
        ] {
            let operation = operation(op, (1, 1));
            let call = Call::Apply { key: KeyInfo::default(), state: None, operation };
            let answer = HOST.call(&plugin(name), call).0.expect(name);
            let taken = matches!(answer, Answer::Value(_));
            assert!(taken == (name == "lww-map" && depth <= 120), "{name} at {depth}: {answer:?}");
            if let Answer::Value(state) = answer {
                assert!(query(name, &merge(name, vec![state.clone(), state]), "").contains(&nested));
            }
        }
        let value = format!(r#"{{"values":[{nested},"a"]}}"#);
        assert_eq!(resolve("mv-register", vec![sibling(1, 1, value.clone())]), kept(value));
    }
}
