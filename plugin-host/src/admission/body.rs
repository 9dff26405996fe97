//! What one function holds that makes it costly to compile.

use wasmparser::{FunctionBody, Operator};

use super::bounds::{self, within};
use super::scan::malformed;
use crate::error::Error;

/// Refuses a function whose compilation would cost more than its bytes let expect.
pub(super) fn check(body: &FunctionBody<'_>) -> Result<(), Error> {
    let range = body.range();
    within("bytes in one function", range.end - range.start, bounds::BODY_BYTES)?;
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(malformed)? {
        locals = locals.saturating_add(u64::from(group.map_err(malformed)?.0));
    }
    within("locals in one function", locals, bounds::LOCALS)?;

    let (mut blocks, mut open, mut deepest, mut targets) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut operators = body.get_operators_reader().map_err(malformed)?;
    while !operators.eof() {
        match operators.read().map_err(malformed)? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                blocks += 1;
                open += 1;
                deepest = deepest.max(open);
            }
            Operator::End => open = open.saturating_sub(1),
            Operator::BrTable { targets: table } => targets += u64::from(table.len()) + 1,
            _ => {}
        }
    }
    within("blocks in one function", blocks, bounds::BLOCKS)?;
    within("blocks within each other", deepest, bounds::NESTING)?;
    within("branch targets in one function", targets, bounds::TARGETS)?;
    within("locals times blocks in one function", locals * (blocks + targets), bounds::LOCALS_TIMES_BLOCKS)
}
