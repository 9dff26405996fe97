//! Bytes to a checked, compiled component.
//!
//! In come the bytes of an upload, of which nothing is believed; out goes a component that is known to import
//! nothing but the log and to fulfil one of the three worlds. A plain core module, as `cargo build --target
//! wasm32-unknown-unknown` makes it, is wrapped here, so that an author needs no tool besides the compiler.
//! Deliberately absent: adapters for WASI. A module that wants a clock or a file is refused by name.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::bindings::exports::merganser::plugin::{merge, operations, plugin, resolve};
use crate::bindings::merganser::plugin::log;
use crate::error::Error;
use crate::plugin::World;
use crate::sandbox::Guest;

/// Interfaces a plugin may import: the log, and the types, which hold no function.
const ALLOWED_IMPORTS: [&str; 2] = ["merganser:plugin/log@", "merganser:plugin/types@"];

/// A component, ready to be instantiated, and the ways into it.
pub(crate) struct Compiled {
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) world: World,
    pub(crate) plugin: plugin::GuestIndices,
    pub(crate) resolve: Option<resolve::GuestIndices>,
    pub(crate) merge: Option<merge::GuestIndices>,
    pub(crate) operations: Option<operations::GuestIndices>,
    /// The upload was a core module.
    pub(crate) wrapped: bool,
}

/// The linker that every plugin gets: the log and nothing else.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<Guest>, Error> {
    let mut linker = Linker::new(engine);
    log::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |guest| guest)
        .map_err(|e| Error::Engine(format!("{e:#}")))?;
    Ok(linker)
}

/// Checks and compiles an upload whose size was checked already.
pub(crate) fn compile(engine: &Engine, linker: &Linker<Guest>, wasm: &[u8]) -> Result<Compiled, Error> {
    let wrapped = is_core_module(wasm)?;
    let component = match wrapped {
        true => Component::from_binary(engine, &wrap(wasm)?),
        false => Component::from_binary(engine, wasm),
    }
    .map_err(|e| Error::Malformed(format!("{e:#}")))?;

    for (name, _) in component.component_type().imports(engine) {
        if !ALLOWED_IMPORTS.iter().any(|allowed| name.starts_with(allowed)) {
            return Err(Error::ForbiddenImport(name.to_owned()));
        }
    }
    let pre = linker.instantiate_pre(&component).map_err(|e| Error::WrongExports(format!("{e:#}")))?;

    let plugin = plugin::GuestIndices::new(&pre)
        .map_err(|e| Error::WrongExports(format!("no interface merganser:plugin/plugin@1: {e:#}")))?;
    let resolve = resolve::GuestIndices::new(&pre).ok();
    let merge = merge::GuestIndices::new(&pre).ok();
    let operations = operations::GuestIndices::new(&pre).ok();
    let world = match (resolve.is_some(), merge.is_some(), operations.is_some()) {
        (true, false, false) => World::Resolver,
        (false, true, false) => World::Lattice,
        (false, true, true) => World::ReplicatedType,
        _ => {
            let what = "exports must be those of one world: resolve, or merge, or merge and operations";
            return Err(Error::WrongExports(what.into()));
        }
    };
    Ok(Compiled { pre, world, plugin, resolve, merge, operations, wrapped })
}

/// A core module and a component share the magic and differ in the version field.
fn is_core_module(wasm: &[u8]) -> Result<bool, Error> {
    match wasm.first_chunk::<8>() {
        Some(b"\0asm\x01\0\0\0") => Ok(true),
        Some(b"\0asm\x0d\0\x01\0") => Ok(false),
        _ => Err(Error::Malformed("not WebAssembly (text format is not accepted)".into())),
    }
}

/// Makes a component of a core module that carries the metadata `wit-bindgen` embeds.
fn wrap(module: &[u8]) -> Result<Vec<u8>, Error> {
    if let Some(import) = foreign_import(module)? {
        return Err(Error::ForbiddenImport(import));
    }
    // The wrapper is a build tool at heart, and bytes from strangers may well reach an `unwrap` of it.
    let wrapped = catch_unwind(AssertUnwindSafe(|| {
        wit_component::ComponentEncoder::default().validate(true).module(module)?.encode()
    }));
    match wrapped {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(e)) => Err(Error::Malformed(format!("core module cannot be made a component: {e:#}"))),
        Err(_) => Err(Error::Malformed("core module cannot be made a component".into())),
    }
}

/// The first import of a core module that is not one of ours, as `module::name`.
fn foreign_import(module: &[u8]) -> Result<Option<String>, Error> {
    let malformed = |e: wasmparser::BinaryReaderError| Error::Malformed(e.to_string());
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        let wasmparser::Payload::ImportSection(imports) = payload.map_err(malformed)? else { continue };
        for import in imports.into_imports() {
            let import = import.map_err(malformed)?;
            if !ALLOWED_IMPORTS.iter().any(|allowed| import.module.starts_with(allowed)) {
                return Ok(Some(format!("{}::{}", import.module, import.name)));
            }
        }
    }
    Ok(None)
}
