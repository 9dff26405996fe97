//! Whatever a module does, the host lives, says what happened, and answers the next call (P7, R7).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use merganser_plugin_host::{
    Answer, Call, Error, Failure, Host, KeyInfo, Limits, PluginHash, Sibling, Stats, World,
};

use crate::built_ins::{HOST as BUILT_INS, kept, plugin, sibling};
use crate::guests::{resolver, resolver_with, resolver_with_allocator};

/// Small limits, so that the hostile come to their end soon.
static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(limits()).expect("an engine"));

fn limits() -> Limits {
    Limits { fuel_base: 20_000_000, memory_base_bytes: 16 << 20, ..Limits::default() }
}

fn conflict() -> Vec<Sibling> {
    vec![sibling(1, 1, "one"), sibling(2, 2, "two")]
}

fn resolve_on(host: &Host, wasm: &[u8]) -> (Result<Answer, Failure>, Stats) {
    let hash = host.load(wasm).expect("it is well-formed").hash;
    host.call(&hash, Call::Resolve { key: KeyInfo::default(), siblings: conflict() })
}

fn resolve(wasm: &[u8]) -> Result<Answer, Failure> {
    resolve_on(&HOST, wasm).0
}

fn host_still_works() {
    let call = Call::Resolve { key: KeyInfo::default(), siblings: conflict() };
    assert_eq!(BUILT_INS.call(&plugin("lww"), call).0, Ok(kept("two")));
    let harmless = resolver("(i32.store8 (global.get $out) (i32.const 1)) (global.get $out)");
    assert_eq!(resolve(&harmless), Ok(Answer::Delete));
}

#[test]
fn a_trap_is_a_failure_that_says_where() {
    let failure = resolve(&resolver("(unreachable)")).unwrap_err();
    assert!(matches!(&failure, Failure::Trap(text) if text.contains("unreachable")), "{failure:?}");
    let outside = resolve(&resolver("(i32.load (i32.const -8))")).unwrap_err();
    assert!(matches!(&outside, Failure::Trap(text) if text.contains("out of bounds")), "{outside:?}");
    host_still_works();
}

#[test]
fn an_endless_loop_ends_when_its_fuel_does() {
    let (answer, stats) = resolve_on(&HOST, &resolver("(loop $for_ever (br $for_ever)) (unreachable)"));
    assert_eq!(answer, Err(Failure::OutOfFuel));
    assert!(stats.fuel >= limits().fuel_base, "{stats:?}");
    host_still_works();
}

#[test]
fn a_loop_with_fuel_left_is_ended_by_the_watchdog() {
    let generous =
        Limits { fuel_base: u64::MAX, fuel_max: u64::MAX, wall: Duration::from_millis(20), ..limits() };
    let host = Host::new(generous).unwrap();
    assert_eq!(
        resolve_on(&host, &resolver("(loop $for_ever (br $for_ever)) (unreachable)")).0,
        Err(Failure::Timeout)
    );
}

#[test]
fn a_memory_bomb_hits_its_limit_and_only_that() {
    let bomb =
        "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
    let (answer, stats) = resolve_on(&HOST, &resolver(bomb));
    assert_eq!(answer, Err(Failure::OutOfMemory));
    assert!(stats.memory_bytes <= limits().memory_bytes(1_000), "{stats:?}");
    // One that is refused memory and could live without is ended as well: its answer would depend on the limit (P8).
    let frugal = "(drop (memory.grow (i32.const 60000))) (i32.store8 (global.get $out) (i32.const 1)) (global.get $out)";
    assert_eq!(resolve(&resolver(frugal)), Err(Failure::OutOfMemory));
    host_still_works();
}

#[test]
fn deep_recursion_overflows_the_guests_stack_and_not_ours() {
    let deep = resolver_with("(func $deep (call $deep))", "(call $deep) (unreachable)");
    let failure = resolve(&deep).unwrap_err();
    assert!(matches!(&failure, Failure::Trap(text) if text.contains("stack")), "{failure:?}");
    host_still_works();
}

/// A resolver whose verdict is written by these stores.
fn verdict(tag: u8, pointer: i32, length: i32) -> Vec<u8> {
    resolver(&format!(
        "(i32.store8 (global.get $out) (i32.const {tag}))
         (i32.store offset=4 (global.get $out) (i32.const {pointer}))
         (i32.store offset=8 (global.get $out) (i32.const {length}))
         (global.get $out)"
    ))
}

#[test]
fn lying_lengths_and_tags_are_malformed_answers() {
    for (what, lie) in [
        ("a list beyond the memory", verdict(0, 4096, 1 << 30)),
        ("a list that wraps around", verdict(0, -16, -1)),
        ("a list of negative length", verdict(0, 0, -1)),
        ("an unknown tag", verdict(9, 0, 0)),
        ("text that is no UTF-8", resolver("(i32.store8 (i32.const 2048) (i32.const 255))
            (i32.store8 (global.get $out) (i32.const 2)) (i32.store offset=4 (global.get $out) (i32.const 2048))
            (i32.store offset=8 (global.get $out) (i32.const 1)) (global.get $out)")),
        ("an answer outside the memory", resolver("(i32.const -4)")),
        ("an allocator that points nowhere", resolver_with_allocator("(i32.const -16)")),
    ] {
        let failure = resolve(&lie).unwrap_err();
        assert!(matches!(failure, Failure::BadAnswer(_)), "{what}: {failure:?}");
    }
    assert_eq!(resolve(&resolver_with_allocator("(loop $l (br $l)) (unreachable)")), Err(Failure::OutOfFuel));
    host_still_works();
}

#[test]
fn an_answer_larger_than_allowed_is_refused_with_its_size() {
    let large = |bytes: u32| {
        resolver(&format!(
            "(drop (memory.grow (i32.const 200)))
             (i32.store offset=4 (global.get $out) (i32.const 4096))
             (i32.store offset=8 (global.get $out) (i32.const {bytes}))
             (global.get $out)"
        ))
    };
    let limit = limits().answer_bytes_max;
    assert!(matches!(resolve(&large(limit as u32)), Ok(Answer::Keep { value, .. }) if value.len() == limit));
    let failure = Failure::TooLarge { bytes: limit + 1, limit };
    assert_eq!(resolve(&large(limit as u32 + 1)), Err(failure));
    // Far larger ones are not even read.
    let failure = resolve(&large(12 << 20)).unwrap_err();
    assert!(matches!(failure, Failure::BadAnswer(_)), "{failure:?}");
}

#[test]
fn reasons_and_messages_are_cut_at_their_limit() {
    let wordy = resolver(
        "(memory.fill (i32.const 8192) (i32.const 120) (i32.const 30000))
         (i32.store8 (global.get $out) (i32.const 2))
         (i32.store offset=4 (global.get $out) (i32.const 8192))
         (i32.store offset=8 (global.get $out) (i32.const 30000)) (global.get $out)",
    );
    let limit = limits().message_bytes_max;
    assert_eq!(resolve(&wordy), Ok(Answer::Unresolved("x".repeat(limit))));
}

#[test]
fn every_call_gets_a_fresh_instance() {
    // Answers with as many bytes as it was called before, by its own count.
    let counting = resolver(
        "(i32.store offset=4 (global.get $out) (i32.const 16))
         (i32.store offset=8 (global.get $out) (global.get $calls))
         (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1)))
         (global.get $out)",
    );
    for _ in 0..3 {
        assert_eq!(resolve(&counting), Ok(kept(Bytes::new())));
    }
    assert_eq!(HOST.load(&counting).unwrap().description.name, "guest");
}

#[test]
fn a_flood_of_log_lines_is_bounded_and_the_last_is_shown() {
    struct Counter(&'static AtomicUsize);
    impl tracing::Subscriber for Counter {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "merganser::plugin"
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    static LINES: AtomicUsize = AtomicUsize::new(0);
    let flood = resolver(
        "(local.set $at (i32.const 1000))
         (loop $more
           (call $log (i32.const 3) (i32.const 16) (i32.const 5))
           (br_if $more (local.tee $at (i32.sub (local.get $at) (i32.const 1)))))
         (unreachable)",
    );
    let failure = tracing::subscriber::with_default(Counter(&LINES), || resolve(&flood)).unwrap_err();
    assert_eq!(LINES.load(Ordering::Relaxed), limits().log_lines_max + 1);
    assert!(
        matches!(&failure, Failure::Trap(text) if text.contains("last error logged: guest")),
        "{failure:?}"
    );
}

#[test]
fn what_traps_when_it_starts_is_not_admitted() {
    let start = resolver_with("(func $start (unreachable)) (start $start)", "(unreachable)");
    let error = HOST.load(&start).unwrap_err();
    assert!(matches!(error, Error::Describe(Failure::Trap(_))), "{error:?}");
    let endless = resolver_with("(func $start (loop $l (br $l))) (start $start)", "(unreachable)");
    assert_eq!(HOST.load(&endless).unwrap_err(), Error::Describe(Failure::OutOfFuel));
    assert!(!HOST.contains(&PluginHash::of(&endless)));
}

#[test]
fn imports_other_than_the_log_are_refused_by_name() {
    let wasi = wat::parse_str(
        r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64))))))"#,
    )
    .unwrap();
    assert_eq!(HOST.load(&wasi), Err(Error::ForbiddenImport("wasi:clocks/monotonic-clock@0.2.0".into())));

    let preview1 = wat::parse_str(
        r#"(module (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32))))"#,
    )
    .unwrap();
    assert_eq!(
        HOST.load(&preview1),
        Err(Error::ForbiddenImport("wasi_snapshot_preview1::random_get".into()))
    );
}

#[test]
fn what_is_no_plugin_is_refused_with_the_reason() {
    let good = resolver("(unreachable)");
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("text", b"(module)".to_vec()),
        ("a cut module", good[..good.len() / 2].to_vec()),
        ("a header of a later version", b"\0asm\x02\0\0\0".to_vec()),
        ("a module with garbage", [&good[..200], &[0xff; 200]].concat()),
    ] {
        let error = HOST.load(&bytes).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{what}: {error:?}");
    }
    for empty in ["(component)", "(module)"] {
        let empty = wat::parse_str(empty).unwrap();
        assert!(matches!(HOST.load(&empty), Err(Error::WrongExports(_))));
    }
}

#[test]
fn damaged_uploads_never_bring_the_host_down() {
    let good = resolver("(unreachable)");
    // The embedded metadata is among what is damaged: decoding it once overflowed the stack.
    let mut refused = 0;
    for at in (8..good.len()).step_by(11) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        match HOST.load(&bytes) {
            Ok(loaded) => assert!(HOST.unload(&loaded.hash)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20, "{refused} of {}", good.len());
    host_still_works();
}

#[test]
fn a_huge_upload_is_refused_before_it_is_looked_at() {
    let limit = limits().module_bytes_max;
    let huge = vec![0; 100 << 20];
    assert_eq!(HOST.load(&huge), Err(Error::TooLarge { bytes: huge.len(), limit }));
}

#[test]
fn a_missing_plugin_and_a_question_for_another_world_are_failures() {
    let call = Call::Merge { key: KeyInfo::default(), states: vec!["a".into()] };
    assert_eq!(BUILT_INS.call(&PluginHash([7; 32]), call.clone()), (Err(Failure::Missing), Stats::default()));
    assert_eq!(BUILT_INS.call(&plugin("lww"), call), (Err(Failure::WrongWorld), Stats::default()));

    let guest = resolver("(global.get $out) (drop) (global.get $out)");
    let loaded = HOST.load(&guest).unwrap();
    assert_eq!((loaded.world, loaded.wrapped), (World::Resolver, true));
    assert_eq!(HOST.load(&guest), Ok(loaded.clone()));
    assert!(HOST.unload(&loaded.hash) && !HOST.unload(&loaded.hash));
    let call = Call::Resolve { key: KeyInfo::default(), siblings: conflict() };
    assert_eq!(HOST.call(&loaded.hash, call).0, Err(Failure::Missing));
}

#[test]
fn more_threads_than_slots_all_get_their_answers() {
    let host = Host::new(Limits { concurrent_calls: 2, ..limits() }).unwrap();
    let hash =
        host.load(&resolver("(i32.store8 (global.get $out) (i32.const 1)) (global.get $out)")).unwrap().hash;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let call = Call::Resolve { key: KeyInfo::default(), siblings: conflict() };
                    assert_eq!(host.call(&hash, call).0, Ok(Answer::Delete));
                }
            });
        }
    });
}

#[test]
fn the_same_call_costs_the_same_fuel() {
    let call = || Call::Resolve { key: KeyInfo::default(), siblings: conflict() };
    let (first, second) =
        (BUILT_INS.call(&plugin("mv-register"), call()), BUILT_INS.call(&plugin("mv-register"), call()));
    assert_eq!(first.0, second.0);
    assert_eq!(first.1.fuel, second.1.fuel);
    assert_eq!(first.1.memory_bytes, second.1.memory_bytes);
}
