//! Reads a table piece by piece, only to see whether it is as it was written.
//!
//! In: an open table and which block. Out: the bytes that were read; what is wrong is noted in the table's
//! health. Past the block cache (the system's page cache may still answer). Deliberately absent: pace and
//! order, which are the caller's.

use std::sync::Arc;

use super::format::FOOTER_BYTES;
use super::reader::Table;
use crate::error::Error;
use crate::fragment::Value;

impl Table {
    /// Reads footer, properties, index and filter again. What is wrong there hides nothing as long as memory
    /// has it: the table is to be written anew.
    pub(crate) fn verify_description(&self) -> u64 {
        if self.lost().is_some() {
            return 0;
        }
        let described = self.describe().or_else(|_| self.describe());
        match described {
            Ok(described) => {
                if let Err(error) = &described.filter {
                    self.health().note_frail(&error.to_string());
                }
                let footer = described.footer;
                footer.filter.len + footer.index.len + footer.properties.len + FOOTER_BYTES as u64
            }
            Err(error) => {
                self.health().note_frail(&error.to_string());
                FOOTER_BYTES as u64
            }
        }
    }

    /// Reads a block and the bodies that lie apart from it. Says how many bytes and bodies that were; fails only
    /// where reading is no use at all.
    pub(crate) fn verify_block(self: &Arc<Self>, at: usize) -> Result<(u64, u64), Error> {
        let keys = self.block_keys(at);
        if keys.without(&self.health().excised()).is_empty() {
            return Ok((0, 0));
        }
        let handle = self.index().handle(at);
        let block = match self.read_block(at) {
            Ok(block) => block,
            Err(error) if error.hidden_keys().is_some() => return Ok((handle.len, 0)),
            Err(error) => return Err(error),
        };
        let (mut bytes, mut values) = (handle.len, 0);
        for group in 0..block.count() {
            let Some((key, fragments)) = block.group(group, self) else {
                // Noted, and all that this block can say.
                let _ = self.undecodable(at);
                return Ok((bytes, values));
            };
            for fragment in &fragments {
                let Value::At(_, frame) = &fragment.value else { continue };
                if self.health().is_excised(&key) {
                    continue;
                }
                bytes += u64::from(frame.len);
                values += 1;
                match self.read_value(&key, frame) {
                    Ok(_) => self.health().clear(frame.offset),
                    Err(error) if error.hidden_keys().is_some() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.health().clear(handle.offset);
        Ok((bytes, values))
    }
}
