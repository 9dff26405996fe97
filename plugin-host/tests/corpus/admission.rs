//! Uploads that want to hurt before anything of them runs.

use std::fmt::Write as _;

use super::{Case, case, wat};
use crate::guests::resolver_with;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = components();
    cases.extend(modules());
    cases.extend(features());
    cases.extend(functions());
    cases.extend(imports());
    cases
}

/// `levels` components, each of which instantiates the one before `width` times; the first, `innermost`.
fn laughs(levels: usize, width: usize, innermost: &str) -> Vec<u8> {
    let mut text = format!("(component $c0 {innermost})");
    for level in 1..=levels {
        let instances = format!("(instance (instantiate $c{}))", level - 1).repeat(width);
        // Each is defined in its parent and aliased from outside by the index it has there.
        text = format!(
            "{text} (component $c{level} (alias outer 1 $c{} (component $c{})) {instances})",
            level - 1,
            level - 1
        );
    }
    let top = format!("(instance (instantiate $c{levels}))");
    wat(&format!("(component {text} {top})"))
}

fn components() -> Vec<Case> {
    let module = "(core module $m) (core instance (instantiate $m))";
    let memory = "(core module $m (memory 1)) (core instance (instantiate $m))";
    let table = "(core module $m (table 1 funcref) (table 1 funcref)) (core instance (instantiate $m))";
    let nest =
        |depth: usize| wat(&format!("(component {}{})", "(component ".repeat(depth), ")".repeat(depth)));
    let two_memories = r#"(component
        (component $a
            (core module $m (memory (export "m") 1)
                (func (export "f") (param i32 i32)) (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func (export "f") (param "s" string)
                (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "r")))))
        (component $b
            (import "f" (func $f (param "s" string)))
            (core module $l (memory (export "m") 1) (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0))
            (core instance $l (instantiate $l))
            (core func $g (canon lower (func $f) (memory (core memory $l "m")) (realloc (core func $l "r"))))
            (core module $m (import "" "g" (func (param i32 i32))))
            (core instance (instantiate $m (with "" (instance (export "g" (func $g)))))))
        (instance $x (instantiate $a))
        (instance (instantiate $b (with "f" (func $x "f")))))"#;
    vec![
        case("laughs 2 x 1,000", laughs(2, 1_000, ""), "instances (nested ones unfolded), allowed are 256"),
        case("laughs 3 x 300", laughs(3, 300, ""), "instances (nested ones unfolded), allowed are 256"),
        case(
            "laughs 9 x 10 (smallest)",
            laughs(9, 10, ""),
            "instances (nested ones unfolded), allowed are 256",
        ),
        case("laughs with core modules", laughs(3, 300, module), "unfolded), allowed are"),
        case(
            "laughs with memories",
            laughs(2, 3, memory),
            "memories (nested instances unfolded), allowed are 4",
        ),
        case("laughs with tables", laughs(2, 3, table), "tables (nested instances unfolded), allowed are 16"),
        case(
            "many core instances",
            wat(&format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(17))),
            "17 core instances",
        ),
        case(
            "instances without count",
            wat(&format!("(component (component $c) {})", "(instance (instantiate $c))".repeat(999))),
            "1000 instances",
        ),
        case("components 8 deep", nest(8), "components within each other"),
        case("components 90 deep", nest(90), "components within each other"),
        case("33 modules", wat(&format!("(component {})", "(core module)".repeat(33))), "33 modules"),
        case("adapter between two memories", wat(two_memories), "not a merganser plugin"),
        case(
            "a module as an import",
            wat(r#"(component (import "merganser:plugin/types@1.0.0" (core module)))"#),
            "module is passed as a value",
        ),
        case(
            "a component as an import",
            wat(r#"(component (component (import "c" (component))))"#),
            "component is passed as a value",
        ),
        case(
            "a module as an export",
            wat(r#"(component (core module $m) (export "m" (core module $m)))"#),
            "module is passed as a value",
        ),
        case("an empty component", wat("(component)"), "not a merganser plugin"),
        case(
            "an alias of what is not there",
            b"\0asm\x0d\0\x01\0\x06\x06\x01\x04\x01\x02\x09\x09".to_vec(),
            "malformed",
        ),
    ]
}

fn modules() -> Vec<Case> {
    let many = |what: &str, count: usize| wat(&format!("(module {})", what.repeat(count)));
    let mut types = String::new();
    for number in 0..20_001 {
        let _ = write!(types, "(type (func (param {})))", "i32 ".repeat(number % 7));
    }
    let mut exports = String::from("(func $f)");
    for number in 0..4_001 {
        let _ = write!(exports, "(export \"e{number}\" (func $f))");
    }
    let long = "x".repeat(2_000);
    vec![
        case("20,001 functions", many("(func)", 20_001), "20001 functions, allowed are 20000"),
        case("900,000 functions", many("(func)", 900_000), "functions, allowed are 20000"),
        case("20,001 types", wat(&format!("(module {types})")), "20001 types"),
        case("4,001 exports", wat(&format!("(module {exports})")), "4001 exports"),
        case("a long export", wat(&format!("(module (func (export \"{long}\")))")), "2000 bytes in one name"),
        case("10,001 globals", many("(global i32 (i32.const 0))", 10_001), "10001 globals"),
        case(
            "20,001 data segments",
            wat(&format!("(module (memory 1) {})", "(data (i32.const 0) \"x\")".repeat(20_001))),
            "20001 data and element segments",
        ),
        case(
            "20,001 element segments",
            wat(&format!(
                "(module (table 1 funcref) (func $f) {})",
                "(elem (i32.const 0) $f)".repeat(20_001)
            )),
            "20001 data and element segments",
        ),
        case("5 memories", many("(memory 1)", 5), "5 memories, allowed are 4"),
        case("17 tables", many("(table 1 funcref)", 17), "17 tables, allowed are 16"),
        case(
            "a 5 MiB custom section",
            wat(&format!("(module (@custom \"x\" \"{}\"))", "y".repeat(5 << 20))),
            "bytes in custom sections",
        ),
        case(
            "4 GiB of memory",
            resolver_with("(memory $big 65536)", "(unreachable)"),
            "65536 pages in one memory",
        ),
        case(
            "a table of a thousand million",
            resolver_with("(table 1000000000 funcref)", "(unreachable)"),
            "1000000000 elements in one table",
        ),
        case(
            "data before the memory",
            resolver_with("(data (i32.const -4) \"xxxx\")", "(unreachable)"),
            "out of bounds",
        ),
        case(
            "data beyond the memory",
            resolver_with("(data (i32.const 99999999) \"x\")", "(unreachable)"),
            "out of bounds",
        ),
        case("an empty module", wat("(module)"), "not a merganser plugin"),
        case("nothing", Vec::new(), "not WebAssembly"),
        case("text", b"(module)".to_vec(), "not WebAssembly"),
        case(
            "a count of 2^32 functions",
            b"\0asm\x01\0\0\0\x03\x05\xff\xff\xff\xff\x0f".to_vec(),
            "functions, allowed are",
        ),
        case(
            "a section longer than the file",
            b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f".to_vec(),
            "malformed",
        ),
    ]
}

fn features() -> Vec<Case> {
    vec![
        case("a 64-bit memory", wat("(module (memory i64 1))"), "memory64"),
        case("a shared memory", wat("(module (memory 1 1 shared))"), "threads"),
        case(
            "an atomic",
            wat("(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))"),
            "threads",
        ),
        case("a structure", wat("(module (type (struct (field i32))))"), "gc"),
        case("a tag", wat("(module (tag))"), "exceptions"),
        case("a tail call", wat("(module (func $f (return_call $f)))"), "tail calls"),
        case(
            "relaxed SIMD",
            wat("(module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))"),
            "relaxed SIMD",
        ),
        case(
            "a typed function reference",
            wat("(module (type $t (func)) (func (param (ref $t))))"),
            "malformed",
        ),
        case("a small page", wat("(module (memory 1 (pagesize 1)))"), "malformed"),
        case(
            "wide arithmetic",
            wat(
                "(module (func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3))))",
            ),
            "malformed",
        ),
    ]
}

/// One function with this body, over so many locals.
fn function(locals: usize, body: &str) -> Vec<u8> {
    wat(&format!("(module (func (param i32) (local {}) {body}))", "i32 ".repeat(locals)))
}

fn functions() -> Vec<Case> {
    let diamonds = |count: usize, locals: usize| {
        let mut body = String::new();
        for number in 0..count {
            let at = 1 + number % locals;
            let _ = write!(body, "local.get 0 if local.get {at} i32.const 1 i32.add local.set {at} end ");
        }
        function(locals, &body)
    };
    vec![
        case("16,000 ifs over 1,600 locals", diamonds(16_000, 1_600), "locals times blocks in one function"),
        case("32,000 ifs over 3,200 locals", diamonds(32_000, 3_200), "in one function, allowed are"),
        case("1,900 ifs over 1,000 locals", diamonds(1_900, 1_000), "not a merganser plugin"),
        case("5,001 locals", function(5_001, ""), "5001 locals in one function"),
        case("50,001 locals", function(50_001, ""), "locals in one function"),
        case("20,001 blocks", function(1, &"block end ".repeat(20_001)), "20001 blocks in one function"),
        case(
            "1,001 blocks within each other",
            function(1, &format!("{}{}", "block ".repeat(1_001), "end ".repeat(1_001))),
            "1001 blocks within each other",
        ),
        case(
            "100,000 branch targets",
            function(1, &format!("block local.get 0 br_table {} end", "0 ".repeat(100_000))),
            "branch targets in one function",
        ),
        case(
            "a function of 300 KB",
            function(1, &"local.get 0 drop ".repeat(100_000)),
            "bytes in one function",
        ),
    ]
}

fn imports() -> Vec<Case> {
    let import = |module: &str, name: &str| wat(&format!("(module (import \"{module}\" \"{name}\" (func)))"));
    vec![
        case(
            "WASI preview 1",
            import("wasi_snapshot_preview1", "random_get"),
            "wasi_snapshot_preview1::random_get",
        ),
        case(
            "WASI preview 2",
            wat(r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance)))"#),
            "imports wasi:clocks/monotonic-clock@0.2.0",
        ),
        case(
            "another interface of ours",
            wat(r#"(component (import "merganser:plugin/kv@1.0.0" (instance)))"#),
            "imports merganser:plugin/kv@1.0.0",
        ),
        case("an import with an escape", import("a\\1b[2J\\0ab", "c"), "imports a"),
        case("a long import", import(&"y".repeat(100_000), "z"), "bytes in one name"),
        case(
            "2,001 imports",
            wat(&format!("(module {})", "(import \"a\" \"b\" (func))".repeat(2_001))),
            "2001 imports",
        ),
        case(
            "an imported memory",
            wat(r#"(module (import "env" "memory" (memory 1)))"#),
            "imports env::memory",
        ),
    ]
}
