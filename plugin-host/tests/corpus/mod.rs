//! The hostile corpus: each kind of attack on admission and on a call, made here by a few lines, and by what name it
//! must be refused or ended. Compiled in a child process, as a node does it.

mod admission;
mod calls;

use std::path::PathBuf;
use std::sync::LazyLock;

use merganser_plugin_host::{Call, Compiler, Error, Host, KeyInfo, Limits};

use crate::built_ins::sibling;

/// CPU that one of them may cost, compiling and calling together.
const CPU_TICKS_MAX: u64 = 200;

static HOST: LazyLock<Host> = LazyLock::new(|| {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_compile-plugin"));
    let limits = Limits { fuel_base: 20_000_000, memory_base_bytes: 16 << 20, ..Limits::default() };
    Host::with(limits, Compiler::Child { program, args: Vec::new() }, None).expect("an engine")
});

/// One of the corpus: what it is, and a part of what must be said of it.
struct Case {
    name: &'static str,
    wasm: Vec<u8>,
    said: &'static str,
}

fn case(name: &'static str, wasm: Vec<u8>, said: &'static str) -> Case {
    Case { name, wasm, said }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// What the host says of an upload, and then of a call: never more than one of the two fails.
fn outcome(wasm: &[u8]) -> String {
    let loaded = match HOST.load(wasm) {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(!matches!(error, Error::Host(_)), "{error}");
            return error.to_string();
        }
    };
    let siblings = vec![sibling(1, 1, "one"), sibling(2, 2, "two")];
    let (answer, stats) = HOST.call(&loaded.hash, Call::Resolve { key: KeyInfo::default(), siblings });
    assert!(stats.memory_bytes <= 64 << 20, "{stats:?}");
    assert!(HOST.unload(&loaded.hash));
    match answer {
        Ok(answer) => format!("answered {answer:?}"),
        Err(failure) => failure.to_string(),
    }
}

/// CPU of this thread's process and of the children it has waited for, in hundredths of a second.
fn children_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<u64> = after_name.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    // Fields 16 and 17 of proc(5), which counts from 1 and has two before these.
    fields.iter().skip(13).take(2).sum()
}

#[test]
fn each_is_refused_or_ended_by_name_and_soon() {
    let cases: Vec<Case> = admission::cases().into_iter().chain(calls::cases()).collect();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for Case { name, wasm, said } in &cases {
        let before = children_ticks();
        let outcome = outcome(wasm);
        // The child's own limit of memory (256 MiB) is the system's; its CPU is looked at here.
        let ticks = children_ticks() - before;
        if !outcome.contains(said) || outcome.chars().any(char::is_control) {
            wrong.push(format!("{name} ({} bytes): {outcome:?}, not {said:?}", wasm.len()));
        }
        if ticks > CPU_TICKS_MAX {
            wrong.push(format!("{name} ({} bytes): {ticks} hundredths of a second", wasm.len()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
