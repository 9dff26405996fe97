//! Small documents for the law checker: one common beginning, then edits by an actor of the seed's own.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc};
use merganser_plugin_sdk::testing::Choices;

/// Always the same bytes, so that all samples are versions of one document.
fn beginning() -> Result<(Automerge, ObjId), AutomergeError> {
    let mut document = Automerge::new().with_actor(ActorId::from([0u8; 16]));
    let mut transaction = document.transaction();
    let text = transaction.put_object(ROOT, "text", ObjType::Text)?;
    transaction.splice_text(&text, 0, 0, "the duck")?;
    transaction.commit_with(CommitOptions::default().with_time(0));
    Ok((document, text))
}

fn edited(seed: &[u8]) -> Result<(Automerge, Vec<automerge::ChangeHash>), AutomergeError> {
    let (mut document, text) = beginning()?;
    let before = document.get_heads();
    let mut choices = Choices::new(seed);
    let actor: Vec<u8> = [choices.next(), choices.next()].iter().flat_map(|n| n.to_le_bytes()).collect();
    document.set_actor(ActorId::from(actor));
    for _ in 0..=choices.below(4) {
        let mut transaction = document.transaction();
        let length = transaction.length(&text);
        let at = choices.below(length as u64 + 1) as usize;
        match choices.below(3) {
            0 if at < length => transaction.splice_text(&text, at, 1, "")?,
            1 => transaction.put(ROOT, *choices.pick(&["title", "author"]), choices.below(100))?,
            _ => {
                transaction.splice_text(&text, at, 0, choices.pick::<&str>(&["a", "quick ", "\u{1f986}"]))?
            }
        }
        transaction.commit_with(CommitOptions::default().with_time(0));
    }
    Ok((document, before))
}

/// A document, or the common beginning and changes.
pub(crate) fn document(seed: &[u8]) -> Option<Vec<u8>> {
    let (document, _) = edited(seed).ok()?;
    Some(if seed.first().is_some_and(|byte| byte % 2 == 1) {
        document.save()
    } else {
        document.save_after(&[])
    })
}

/// Only changes: they wait where the common beginning is not there.
pub(crate) fn changes(seed: &[u8]) -> Option<Vec<u8>> {
    let (document, before) = edited(seed).ok()?;
    Some(document.save_after(&before))
}
