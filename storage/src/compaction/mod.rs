//! Keeping the number of sorted runs small.
//!
//! In: the sizes of the runs. Out: a choice (`pick`, pure) and its execution (`run`: merge, reduce, write).
//! Applying the result, the manifest edit and the new shape, is `db::background`'s. Deliberately absent:
//! leveled compaction, and splitting runs by key ranges.

pub(crate) mod pick;
pub(crate) mod run;
