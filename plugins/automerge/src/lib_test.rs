//! The plugin natively, over real Automerge documents.

use automerge::transaction::Transactable;
use automerge::{ActorId, ObjType, ROOT, ReadDoc};
use merganser_plugin_sdk::{laws, testing::key};

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
    let folded = AutomergePlugin::merge(&key("k"), &states).unwrap();
    assert!(folded.len() < loose.len() / 10, "{} bytes folded to {}", loose.len(), folded.len());
    assert_eq!(folded, AutomergePlugin::merge(&key("k"), &[loose.clone(), base]).unwrap());
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

#[test]
fn laws_hold_for_generated_states() {
    let states: Vec<_> = (0..7u8).map(|seed| AutomergePlugin::generate(&[seed]).unwrap()).collect();
    let changes = AutomergePlugin::generate_operation(b"op").unwrap();
    let mut states: Vec<_> = states.iter().map(Vec::as_slice).collect();
    states.extend([&b""[..], &changes]);
    assert_eq!(laws::replicated_type::<AutomergePlugin>(&states, &[&changes]), Ok(()));
}
