//! Compiling in a child process, and what is kept of it on disk.

use std::path::PathBuf;

use merganser_plugin_host::{Cache, Compiler, Error, Host, Limits, built_in};

use crate::guests::resolver;

fn child() -> Compiler {
    Compiler::Child { program: PathBuf::from(env!("CARGO_BIN_EXE_compile-plugin")), args: Vec::new() }
}

/// Compiles nothing: what it loads was compiled before.
fn no_compiler() -> Compiler {
    Compiler::Child { program: PathBuf::from("/nonexistent/compiler"), args: Vec::new() }
}

#[test]
fn what_ships_compiles_within_the_childs_limits() {
    let host = Host::with(Limits::default(), child(), None).unwrap();
    for plugin in built_in() {
        let loaded = host.load(plugin.wasm).unwrap_or_else(|error| panic!("{}: {error}", plugin.name));
        assert_eq!(loaded.world, plugin.world);
    }
}

#[test]
fn the_next_start_reads_native_code_that_its_own_key_vouches_for_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = resolver("(i32.store8 (global.get $out) (i32.const 1)) (global.get $out)");
    let start =
        |compiler| Host::with(Limits::default(), compiler, Some(Cache::open(dir.path()).unwrap())).unwrap();
    let missing = start(no_compiler()).load(&wasm).unwrap_err();
    assert!(matches!(missing, Error::Host(_)) && missing.is_passing(), "{missing:?}");
    let loaded = start(child()).load(&wasm).unwrap();
    assert_eq!(start(no_compiler()).load(&wasm).unwrap().hash, loaded.hash);

    let mut files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let native = files.find(|path| path.extension().is_some_and(|extension| extension == "native")).unwrap();
    let mut bytes = std::fs::read(&native).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&native, bytes).unwrap();
    assert!(matches!(start(no_compiler()).load(&wasm), Err(Error::Host(_))));
    // Compiled anew, and kept anew; forgotten on disk too when it is unloaded.
    let host = start(child());
    assert_eq!(host.load(&wasm).unwrap().hash, loaded.hash);
    assert!(native.exists() && host.unload(&loaded.hash) && !native.exists());
}

#[test]
fn a_compiler_that_says_nothing_is_the_nodes_fault_and_passes() {
    for program in ["/bin/true", "/bin/false"] {
        let compiler = Compiler::Child { program: PathBuf::from(program), args: Vec::new() };
        let host = Host::with(Limits::default(), compiler, None).unwrap();
        let error = host.load(&resolver("(unreachable)")).unwrap_err();
        assert!(error.is_passing(), "{error:?}");
    }
}
