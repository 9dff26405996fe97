//! Sorted tables: immutable files of keys in order.
//!
//! ```text
//!   header │ value frames and runs of data blocks, as they came │ filter │ index │ properties │ footer
//! ```
//!
//! In: sorted groups (`builder`). Out: groups of a key or of a range (`reader`, `source`). `format` knows the
//! bytes of the file, `index` and `block` those inside an index and a data block, `filter` those of a filter, `health` what is wrong with it. Deliberately absent:
//! which tables exist (`levels`) and what fragments mean (`fragment`).

pub(crate) mod block;
pub(crate) mod builder;
pub(crate) mod filter;
pub(crate) mod format;
pub(crate) mod health;
pub(crate) mod index;
pub(crate) mod reader;
pub(crate) mod source;
pub(crate) mod verify;

pub(crate) use format::{TableMeta, ValueFrame};
pub(crate) use reader::{Patience, Table};
