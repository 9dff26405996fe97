//! Makes guests from WAT: a core module with the metadata of a world embedded, as a compiler would leave it, and a body
//! for the one function that the test is about.
//!
//! The canonical ABI, as far as it is needed here: strings and lists are (pointer, length); a key is three of them; what does
//! not fit a register is returned by pointer. `$out` is such a place, all zeros: ok, none, or keep of nothing.

use wit_component::{StringEncoding, embed_component_metadata};

/// A resolver. `resolve` is the body of a function with the parameters `$siblings` and `$count`; it leaves a pointer to a
/// verdict: tag (0 keep, 1 delete, 2 unresolved) at 0, pointer at 4, length at 8, and for a keep the content type's tag at
/// 12. A sibling takes 48 bytes; the tag of its
/// content is at 24, pointer at 28, length at 32.
pub(crate) fn resolver(resolve: &str) -> Vec<u8> {
    resolver_with("", resolve)
}

/// A resolver with more fields in its module.
pub(crate) fn resolver_with(fields: &str, resolve: &str) -> Vec<u8> {
    let function = format!(
        r#"(func (export "merganser:plugin/resolve@1.0.0#resolve")
             (param i32 i32 i32 i32 i32 i32) (param $siblings i32) (param $count i32) (result i32)
             (local $at i32) (local $length i32) (local $from i32)
             {resolve})"#
    );
    module("resolver", &format!("{REALLOC} {fields} {function}"))
}

/// A lattice. `merge` is the body of a function with the parameters `$states` and `$count`; it leaves a pointer to a result:
/// tag (0 ok) at 0, pointer at 4, length at 8. A state takes 8 bytes: pointer, length.
pub(crate) fn lattice(merge: &str) -> Vec<u8> {
    let functions = format!(
        r#"(func (export "merganser:plugin/merge@1.0.0#merge")
             (param i32 i32 i32 i32 i32 i32) (param $states i32) (param $count i32) (result i32)
             (local $at i32) (local $length i32) (local $from i32)
             {merge})
           (func (export "merganser:plugin/merge@1.0.0#fingerprint")
             (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (global.get $out))"#
    );
    module("lattice", &format!("{REALLOC} {functions}"))
}

/// A resolver with an allocator of its own.
pub(crate) fn resolver_with_allocator(realloc: &str) -> Vec<u8> {
    let resolve = r#"(func (export "merganser:plugin/resolve@1.0.0#resolve")
        (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (global.get $out))"#;
    let realloc = format!(r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})"#);
    module("resolver", &format!("{realloc} {resolve}"))
}

/// Never frees: an instance lives for one call.
const REALLOC: &str = r#"
    (func $alloc (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
      (global.set $heap (i32.add (local.get $at) (local.get $new)))
      (loop $more
        (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
          (then
            (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
            (br $more))))
      (local.get $at))"#;

/// What every guest has: a memory, a heap, and the interface `plugin` with defaults.
fn module(world: &str, fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "merganser:plugin/log@1.0.0" "write" (func $log (param i32 i32 i32)))
          (memory (export "memory") 1)
          (global $heap (mut i32) (i32.const 4096))
          (global $out i32 (i32.const 1024))
          (global $calls (mut i32) (i32.const 0))
          (data (i32.const 16) "guest")
          (data (i32.const 32) "\10\00\00\00\05\00\00\00\10\00\00\00\05\00\00\00\10\00\00\00\05\00\00\00")
          (func (export "merganser:plugin/plugin@1.0.0#describe") (result i32) (i32.const 32))
          (func (export "merganser:plugin/plugin@1.0.0#validate")
            (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (global.get $out))
          (func (export "merganser:plugin/plugin@1.0.0#generate") (param i32 i32) (result i32) (global.get $out))
          {fields})"#
    );
    let mut wasm = wat::parse_str(text).expect("the guest's text");
    let mut wit = wit_parser::Resolve::default();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-sdk/wit/plugin.wit");
    let text = std::fs::read_to_string(path).expect("the contract");
    let package = wit.push_str("plugin.wit", &text).expect("the contract parses");
    let world = wit.select_world(&[package], Some(world)).expect("the world exists");
    embed_component_metadata(&mut wasm, &wit, world, StringEncoding::UTF8, false).expect("metadata");
    wasm
}

/// Body of a resolver that answers with all contents, one after the other: neither idempotent nor settling.
pub(crate) const CONCATENATE_SIBLINGS: &str = r#"
    (i32.store offset=4 (global.get $out) (global.get $heap))
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $count)))
      (if (i32.eqz (i32.load8_u offset=24 (local.get $siblings)))
        (then
          (local.set $length (i32.load offset=32 (local.get $siblings)))
          (memory.copy
            (i32.add (global.get $heap) (local.get $at))
            (i32.load offset=28 (local.get $siblings))
            (local.get $length))
          (local.set $at (i32.add (local.get $at) (local.get $length)))))
      (local.set $siblings (i32.add (local.get $siblings) (i32.const 48)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $next)))
    (i32.store offset=8 (global.get $out) (local.get $at))
    (global.get $out)"#;

/// Body of a lattice that answers with the first state: not commutative.
pub(crate) const FIRST_STATE: &str = r#"
    (i64.store (i32.add (global.get $out) (i32.const 4)) (i64.load (local.get $states)))
    (global.get $out)"#;
