//! A text edited with Automerge, as any program would that keeps such documents in the store.
//!
//! In: a document's bytes. Out: the bytes of what was changed, which is all that needs to be put.
//! Absent: the store.

use anyhow::{Context as _, bail};
use automerge::{AutoCommit, ChangeHash, ObjId, ObjType, ROOT, ReadDoc as _, transaction::Transactable as _};

/// Where in the document the text is.
const FIELD: &str = "text";

/// A new document.
pub(super) fn document(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut document = AutoCommit::new();
    let id = document.put_object(ROOT, FIELD, ObjType::Text)?;
    document.splice_text(&id, 0, 0, text)?;
    Ok(document.save())
}

/// One person at one text.
#[derive(Debug)]
pub(super) struct Writer {
    document: AutoCommit,
    opened: Vec<ChangeHash>,
}

impl Writer {
    /// Opens what somebody saved.
    pub(super) fn open(bytes: &[u8]) -> anyhow::Result<Writer> {
        let mut document = AutoCommit::load(bytes)?;
        let opened = document.get_heads();
        Ok(Writer { document, opened })
    }

    /// Adds at the end.
    pub(super) fn append(&mut self, text: &str) -> anyhow::Result<()> {
        let id = self.text()?;
        let end = self.document.length(&id);
        Ok(self.document.splice_text(&id, end, 0, text)?)
    }

    /// Writes `new` in place of the first `old`.
    pub(super) fn replace(&mut self, old: &str, new: &str) -> anyhow::Result<()> {
        let id = self.text()?;
        let text = self.document.text(&id)?;
        let at = text.find(old).with_context(|| format!("the text does not contain {old:?}"))?;
        let (position, length) = (text[..at].chars().count(), old.chars().count());
        Ok(self.document.splice_text(&id, position, length as isize, new)?)
    }

    /// What was changed since it was opened.
    pub(super) fn changes(&mut self) -> Vec<u8> {
        self.document.save_after(&self.opened)
    }

    fn text(&self) -> anyhow::Result<ObjId> {
        match self.document.get(ROOT, FIELD)? {
            Some((_, id)) => Ok(id),
            None => bail!("the document has no field {FIELD:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_of_two_people_meet_in_one_text() {
        let shared = document("Our trip\n").unwrap();
        let (mut ada, mut ben) = (Writer::open(&shared).unwrap(), Writer::open(&shared).unwrap());
        ada.append("Ada: by train!\n").unwrap();
        ben.replace("trip", "trip to the lakes").unwrap();
        let whole = [shared, ben.changes(), ada.changes()].concat();
        let merged = Writer::open(&whole).unwrap();
        let text = merged.document.text(merged.text().unwrap()).unwrap();
        assert_eq!(text, "Our trip to the lakes\nAda: by train!\n");
    }

    #[test]
    fn what_is_no_document_or_has_no_text_is_refused() {
        assert!(Writer::open(b"nonsense").is_err());
        let mut empty = Writer::open(&AutoCommit::new().save()).unwrap();
        assert!(empty.append("x").is_err());
    }
}
