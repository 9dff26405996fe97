//! The plugin natively, over real Automerge documents.

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc};
use merganser_plugin_sdk::laws;
use merganser_plugin_sdk::testing::{key, operation};

use super::*;

fn query(state: &[u8], path: &str) -> String {
    String::from_utf8(AutomergePlugin::query(&key("k"), state, path.as_bytes()).unwrap()).unwrap()
}

fn fingerprint(state: &[u8]) -> Vec<u8> {
    AutomergePlugin::fingerprint(&key("k"), state).unwrap().unwrap()
}

/// A note in a list, and its text.
fn note() -> (Automerge, automerge::ObjId) {
    let mut document = Automerge::new().with_actor(ActorId::from(b"first"));
    let mut transaction = document.transaction();
    let notes = transaction.put_object(ROOT, "notes", ObjType::List).unwrap();
    let note = transaction.insert_object(&notes, 0, ObjType::Map).unwrap();
    transaction.put(&note, "stars", 5).unwrap();
    let text = transaction.put_object(&note, "text", ObjType::Text).unwrap();
    transaction.splice_text(&text, 0, 0, "duck").unwrap();
    transaction.commit();
    (document, text)
}

/// Types this at the end, one change for each character.
fn type_in(document: &mut Automerge, text: &automerge::ObjId, typed: &str) {
    for letter in typed.chars() {
        let mut transaction = document.transaction();
        let end = transaction.length(text);
        transaction.splice_text(text, end, 0, &letter.to_string()).unwrap();
        transaction.commit();
    }
}

#[test]
fn changes_made_apart_are_woven_together_and_read_by_path() {
    let (mut left, text) = note();
    let mut right = left.fork().with_actor(ActorId::from(b"other"));
    let base = left.save();
    let heads = left.get_heads();
    type_in(&mut left, &text, "ling");
    let mut transaction = right.transaction();
    transaction.splice_text(&text, 0, 0, "a ").unwrap();
    transaction.commit();

    let states = [base, left.save_after(&heads), right.save_after(&heads)];
    let merged = AutomergePlugin::merge(&key("k"), &states).unwrap();
    assert_eq!(query(&merged, "notes/0/text"), "a duckling");
    assert_eq!(query(&merged, "notes/0/stars"), "5");
    assert_eq!(query(&merged, ""), r#"{"notes":[{"stars":5,"text":"a duckling"}]}"#);
    assert!(AutomergePlugin::query(&key("k"), &merged, b"notes/1").is_err());
    left.merge(&mut right).unwrap();
    assert_eq!(fingerprint(&merged), fingerprint(&left.save()));

    let plain = Automerge::load(&merged).unwrap();
    assert_eq!(plain.text(&text).unwrap(), "a duckling");
    let since = format!("?since={}", heads.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    let delta = AutomergePlugin::query(&key("k"), &merged, since.as_bytes()).unwrap();
    let (mut client, text) = note();
    client.load_incremental(&delta).unwrap();
    assert_eq!(client.text(&text).unwrap(), "a duckling");
}

#[test]
fn changes_wait_for_what_they_depend_on_and_are_kept() {
    let (mut document, text) = note();
    let base = document.save();
    let heads = document.get_heads();
    type_in(&mut document, &text, "s!");
    let later = document.save_after(&heads);
    assert_eq!(AutomergePlugin::validate(&key("k"), &later), Ok(()));
    let early = AutomergePlugin::merge(&key("k"), &[later.clone(), later.clone()]).unwrap();
    assert_ne!(fingerprint(&early), fingerprint(b""));
    let whole = AutomergePlugin::merge(&key("k"), &[early, base]).unwrap();
    assert_eq!(query(&whole, "notes/0/text"), "ducks!");
    assert_eq!(fingerprint(&whole), fingerprint(&document.save()));
}

#[test]
fn a_set_that_outgrows_its_budget_is_folded_without_changing_its_meaning() {
    let (mut document, text) = note();
    let heads = document.get_heads();
    let base = document.save();
    let typed = "quack ".repeat(500);
    type_in(&mut document, &text, &typed);
    let loose = document.save_after(&heads);
    assert!(loose.len() > FOLD_BYTES_MIN, "{} bytes of loose changes", loose.len());
    let states = [base.clone(), loose.clone()];
    let unfolded = AutomergePlugin::merge(&key("k"), &states).unwrap();
    assert_eq!(unfolded.len(), base.len() + loose.len(), "a merge does not fold");
    let folded = apply(Some(&base), &loose).unwrap();
    assert!(folded.len() < loose.len() / 10, "{} bytes folded to {}", loose.len(), folded.len());
    assert_eq!(folded, apply(Some(&loose), &base).unwrap());
    assert_eq!(fingerprint(&folded), fingerprint(&document.save()));
    assert_eq!(query(&folded, "notes/0/text"), format!("duck{typed}"));
    // Idempotent to the byte, whatever the size.
    assert_eq!(AutomergePlugin::merge(&key("k"), &[loose.clone(), loose.clone()]).unwrap(), loose);
}

#[test]
fn what_is_not_automerge_is_rejected_at_the_door() {
    let (document, _) = note();
    let good = document.save();
    assert_eq!(AutomergePlugin::validate(&key("k"), &good), Ok(()));
    assert_eq!(AutomergePlugin::validate(&key("k"), b""), Ok(()));
    for length in 1..good.len() {
        assert!(AutomergePlugin::validate(&key("k"), &good[..length]).is_err(), "cut at {length}");
    }
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        assert!(AutomergePlugin::validate(&key("k"), &damaged).is_err(), "flipped at {at}");
    }
}

fn apply(state: Option<&[u8]>, op: &[u8]) -> Result<Vec<u8>, Rejection> {
    AutomergePlugin::apply(&key("k"), state, &operation(op, 1, 1))
}

/// 1.4 and F2: each of these was acknowledged, and then nobody could read the document.
#[test]
fn an_operation_that_does_not_load_is_refused() {
    let (mut document, text) = note();
    let (base, heads) = (document.save(), document.get_heads());
    type_in(&mut document, &text, "s");
    let good = document.save_after(&heads);
    let chunk = |rest: &[u8]| [&b"\x85\x6f\x4a\x83"[..], rest].concat();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [
        chunk(b"\0\0\0\0\x01\x03abc"),
        chunk(b"\0\0\0\0\x01\x01\0"),
        chunk(b"\0\0\0\0\0\x01\0"),
        chunk(b"\0\0\0\0\x02\x03abc"),
        chunk(b"\0\0\0\0\x07\x01\0"),
        flipped,
        good[..good.len() - 1].to_vec(),
        [&good[..], b"abc"].concat(),
        Vec::new(),
    ] {
        assert!(apply(Some(&base), &bad).is_err(), "{bad:?}");
    }
    assert_eq!(query(&apply(Some(&base), &good).unwrap(), "notes/0/text"), "ducks");
}

/// F19: both are change 1 of actor aa.
#[test]
fn of_two_changes_under_one_number_one_is_set_aside_and_the_rest_stays_readable() {
    let made = |field: &str| {
        let mut document = Automerge::new().with_actor(ActorId::from(b"aa"));
        for n in 0..3 {
            let mut transaction = document.transaction();
            transaction.put(ROOT, field, n).unwrap();
            transaction.commit();
        }
        document
    };
    let (x, y, (other, _)) = (made("x"), made("y"), note());
    for states in [
        [x.save(), y.save(), other.save()],
        [x.save_after(&[]), y.save_after(&[]), other.save()],
        [y.save_after(&[]), other.save(), x.save()],
    ] {
        let both = AutomergePlugin::merge(&key("k"), &states).unwrap();
        let whole: serde_json::Value = serde_json::from_str(&query(&both, "")).unwrap();
        assert_eq!(whole["notes"][0]["text"], "duck");
        let (x_hash, y_hash) = (x.get_changes(&[])[0].hash(), y.get_changes(&[])[0].hash());
        let (kept, aside) = if x_hash < y_hash { ("x", y_hash) } else { ("y", x_hash) };
        assert_eq!((&whole[kept], whole.as_object().unwrap().len()), (&2.into(), 2), "{whole}");
        let problems = query(&both, "?problems");
        assert!(problems.contains(&aside.to_string()) && problems.contains("\"sequence\":1"), "{problems}");
        let reversed: Vec<_> = states.iter().rev().cloned().collect();
        let reversed = AutomergePlugin::merge(&key("k"), &reversed).unwrap();
        assert_eq!(fingerprint(&both), fingerprint(&reversed));
    }
    assert_eq!(query(&other.save(), "?problems"), r#"{"aside":[],"waiting":[]}"#);
    let refused = apply(Some(&x.save_after(&[])), &y.save_after(&[])).unwrap_err();
    assert_eq!(refused.kind, merganser_plugin_sdk::RejectionKind::Forbidden);
    // A whole state is taken as it is, so that what was read here can be put elsewhere.
    let both = [x.save_after(&[]), y.save_after(&[])].concat();
    assert_eq!(AutomergePlugin::validate(&key("k"), &both), Ok(()));
    assert!(apply(None, &both).is_err());
}

#[test]
fn a_change_deflated_and_not_is_one() {
    let mut document = Automerge::new().with_actor(ActorId::from(b"aa"));
    let mut transaction = document.transaction();
    transaction.put(ROOT, "text", "quack ".repeat(200)).unwrap();
    transaction.commit();
    let mut change = document.get_changes(&[])[0].clone();
    let (plain, deflated) = (change.raw_bytes().to_vec(), change.bytes().into_owned());
    assert_eq!((plain[8], deflated[8]), (1, 2));
    let merged = AutomergePlugin::merge(&key("k"), &[deflated, plain.clone()]).unwrap();
    assert_eq!(merged, plain);
}

#[test]
fn what_unpacks_to_more_than_can_be_read_is_refused() {
    let mut document = Automerge::new();
    let mut transaction = document.transaction();
    transaction.put(ROOT, "text", "a".repeat(5_000_000)).unwrap();
    transaction.commit();
    let refused = AutomergePlugin::validate(&key("k"), &document.save()).unwrap_err();
    assert_eq!(refused.kind, merganser_plugin_sdk::RejectionKind::TooLarge);
    assert!(apply(None, &document.save()).is_err());
}

#[test]
fn laws_hold_for_generated_states() {
    let states: Vec<_> = (0..7u8).map(|seed| AutomergePlugin::generate(&[seed]).unwrap()).collect();
    let changes = AutomergePlugin::generate_operation(b"op").unwrap();
    let mut states: Vec<_> = states.iter().map(Vec::as_slice).collect();
    states.extend([&b""[..], &changes]);
    assert_eq!(laws::replicated_type::<AutomergePlugin>(&states, &[&changes]), Ok(()));
}
