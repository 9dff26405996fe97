//! Plugins that want to hurt while they run.

use super::{Case, case};
use crate::guests::{resolver, resolver_with, resolver_with_allocator};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = starts();
    cases.extend(bodies());
    cases.extend(answers());
    cases
}

fn start(fields: &str) -> Vec<u8> {
    resolver_with(&format!("{fields} (start $start)"), "(unreachable)")
}

fn starts() -> Vec<Case> {
    vec![
        case(
            "start traps",
            start("(func $start (unreachable))"),
            "failed to describe itself: plugin trapped",
        ),
        case("start loops", start("(func $start (loop $l (br $l)))"), "ran out of fuel"),
        case("start recurses", start("(func $start (call $start))"), "stack"),
        case(
            "start grows memory",
            start("(func $start (loop $l (drop (memory.grow (i32.const 16))) (br $l)))"),
            "ran out of memory",
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let table = "(table $t 1 funcref)";
    let answer = "(i32.store8 (global.get $out) (i32.const 1)) (global.get $out)";
    let log = |length: usize| {
        resolver(&format!(
            "(drop (memory.grow (i32.const 200)))
             (loop $more (call $log (i32.const 3) (i32.const 65536) (i32.const {length})) (br $more)) (unreachable)"
        ))
    };
    vec![
        case("a loop", resolver("(loop $l (br $l)) (unreachable)"), "ran out of fuel"),
        case("a trap", resolver("(unreachable)"), "trapped"),
        case("a division by zero", resolver("(i32.div_s (i32.const 1) (i32.const 0))"), "divide by zero"),
        case("recursion", resolver_with("(func $deep (call $deep))", "(call $deep) (unreachable)"), "stack"),
        case(
            "a memory bomb",
            resolver("(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)"),
            "ran out of memory",
        ),
        // P8: what a guest would do after a refusal is not heard, because other limits would have heard another answer.
        case(
            "a refused memory, survived",
            resolver(&format!("(drop (memory.grow (i32.const 60000))) {answer}")),
            "ran out of memory",
        ),
        case(
            "a refused table, survived",
            resolver_with(
                table,
                &format!("(drop (table.grow $t (ref.null func) (i32.const 99999))) {answer}"),
            ),
            "ran out of memory",
        ),
        case(
            "a table bomb",
            resolver_with(
                table,
                "(loop $l (drop (table.grow $t (ref.null func) (i32.const 999))) (br $l)) (unreachable)",
            ),
            "ran out of memory",
        ),
        case(
            "a memory filled again and again",
            resolver(
                "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 60000)) (br $l)) (unreachable)",
            ),
            "ran out of fuel",
        ),
        case("a flood of short lines", log(5), "ran out of fuel"),
        case("a flood of 8 MiB lines", log(8 << 20), "ran out of fuel"),
        case(
            "a line outside the memory",
            resolver("(call $log (i32.const 3) (i32.const -8) (i32.const 64)) (unreachable)"),
            "malformed answer",
        ),
        case(
            "a level that there is not",
            resolver("(call $log (i32.const 99) (i32.const 16) (i32.const 5)) (unreachable)"),
            "malformed answer",
        ),
    ]
}

fn verdict(tag: u8, pointer: i32, length: i32) -> Vec<u8> {
    resolver(&format!(
        "(drop (memory.grow (i32.const 200)))
         (i32.store8 (global.get $out) (i32.const {tag}))
         (i32.store offset=4 (global.get $out) (i32.const {pointer}))
         (i32.store offset=8 (global.get $out) (i32.const {length})) (global.get $out)"
    ))
}

fn answers() -> Vec<Case> {
    vec![
        case("a list beyond the memory", verdict(0, 4096, 1 << 30), "malformed answer"),
        case("a list that wraps around", verdict(0, -16, -1), "malformed answer"),
        case("an unknown tag", verdict(77, 0, 0), "malformed answer"),
        case("an answer outside the memory", resolver("(i32.const -4)"), "malformed answer"),
        case("an answer at an odd place", resolver("(i32.const 3)"), "malformed answer"),
        case("12 MiB of answer", verdict(0, 4096, 12 << 20), "malformed answer"),
        case(
            "a byte too much",
            verdict(0, 4096, (4 << 20) + 1),
            "answered 4194305 bytes, allowed are 4194304",
        ),
        case(
            "an allocator that points nowhere",
            resolver_with_allocator("(i32.const -16)"),
            "malformed answer",
        ),
        case(
            "an allocator that loops",
            resolver_with_allocator("(loop $l (br $l)) (unreachable)"),
            "ran out of fuel",
        ),
        case(
            "a reason that clears the screen",
            resolver(
                "(i64.store (i32.const 4096) (i64.const 0x0a4a325b1b4a5b1b))
             (i32.store8 (global.get $out) (i32.const 2))
             (i32.store offset=4 (global.get $out) (i32.const 4096))
             (i32.store offset=8 (global.get $out) (i32.const 8)) (global.get $out)",
            ),
            "answered Unresolved",
        ),
    ]
}
