//! What surrounds compiling: a core module is made a component before, and the ways into native code are found after.
//!
//! In come the bytes of an upload, of which nothing is believed, and native code, of which all is; out goes a component
//! that is known to import nothing but the log and to fulfil one of the three worlds. A plain core module, as `cargo build --target
//! wasm32-unknown-unknown` makes it, is wrapped here, so that an author needs no tool besides the compiler.
//! Deliberately absent: adapters for WASI. A module that wants a clock or a file is refused by name.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use wasmparser::Payload;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};
use wit_component::StringEncoding;

use crate::bindings::exports::merganser::plugin::{merge, operations, plugin, resolve};
use crate::error::Error;
use crate::log_rate::LogRate;
use crate::plugin::World;
use crate::sandbox::{self, Guest};
use crate::text::printable;

/// Interfaces a plugin may import: the log, and the types, which hold no function.
const ALLOWED_IMPORTS: [&str; 2] = ["merganser:plugin/log@", "merganser:plugin/types@"];

/// The only contract, from the crate that owns it.
pub(crate) const CONTRACT: &str = include_str!("../../plugin-sdk/wit/plugin.wit");

/// Bytes of a reason that quotes what the upload says.
pub(crate) const REASON_BYTES_MAX: usize = 1 << 10;

/// Bytes of an import's name in the refusal.
const IMPORT_BYTES_MAX: usize = 128;

fn forbidden(import: &str) -> Error {
    Error::ForbiddenImport(printable(import, IMPORT_BYTES_MAX))
}

/// Whether a component may import this.
pub(crate) fn import_allowed(name: &str) -> Result<(), Error> {
    match ALLOWED_IMPORTS.iter().any(|allowed| name.starts_with(allowed)) {
        true => Ok(()),
        false => Err(forbidden(name)),
    }
}

const ONE_WORLD: &str = "exports must be those of one world: resolve, or merge, or merge and operations";

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
    /// What reaches the node's log of all its calls.
    pub(crate) log_rate: Arc<LogRate>,
}

/// The linker that every plugin gets: the log and nothing else.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<Guest>, Error> {
    let mut linker = Linker::new(engine);
    sandbox::add_log(&mut linker).map_err(|e| Error::Engine(format!("{e:#}")))?;
    Ok(linker)
}

/// Takes native code that was compiled before, and finds the ways into it.
///
/// # Safety
/// The code must come from [`crate::compile`] for these engine settings: it runs with the node's own rights.
pub(crate) unsafe fn load(
    engine: &Engine,
    linker: &Linker<Guest>,
    native: &[u8],
    wrapped: bool,
) -> Result<Compiled, Error> {
    // SAFETY: the caller vouches for the bytes.
    let component = unsafe { Component::deserialize(engine, native) }.map_err(|e| {
        Error::Compiler(printable(&format!("its code does not fit the engine: {e:#}"), REASON_BYTES_MAX))
    })?;

    for (name, _) in component.component_type().imports(engine) {
        import_allowed(name)?;
    }
    let wrong = |text: String| Error::WrongExports(printable(&text, REASON_BYTES_MAX));
    let pre = linker.instantiate_pre(&component).map_err(|e| wrong(format!("{e:#}")))?;

    let plugin = plugin::GuestIndices::new(&pre)
        .map_err(|e| wrong(format!("no interface merganser:plugin/plugin@1: {e:#}")))?;
    let resolve = resolve::GuestIndices::new(&pre).ok();
    let merge = merge::GuestIndices::new(&pre).ok();
    let operations = operations::GuestIndices::new(&pre).ok();
    let world = match (resolve.is_some(), merge.is_some(), operations.is_some()) {
        (true, false, false) => World::Resolver,
        (false, true, false) => World::Lattice,
        (false, true, true) => World::ReplicatedType,
        _ => {
            return Err(Error::WrongExports(ONE_WORLD.into()));
        }
    };
    let log_rate = Arc::new(LogRate::new(Instant::now()));
    Ok(Compiled { pre, world, plugin, resolve, merge, operations, wrapped, log_rate })
}

/// A core module and a component share the magic and differ in the version field.
pub(crate) fn is_core_module(wasm: &[u8]) -> Result<bool, Error> {
    match wasm.first_chunk::<8>() {
        Some(b"\0asm\x01\0\0\0") => Ok(true),
        Some(b"\0asm\x0d\0\x01\0") => Ok(false),
        _ => Err(Error::Malformed("not WebAssembly (text format is not accepted)".into())),
    }
}

/// Makes a component of a core module that exports the functions of a world under their canonical names.
///
/// The metadata that `wit-bindgen` left in the module is *not* used: decoding it recurses as deep as it says, and a
/// forged one (packages that need each other) overflows our stack. Which world it is, its exports tell; the metadata
/// we put in its place is our own.
pub(crate) fn wrap(module: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut bare, exports) = take_apart(module)?;
    let exports_of = |interface: &str| {
        let prefix = format!("merganser:plugin/{interface}@1.0.0#");
        exports.iter().any(|name| name.starts_with(&prefix))
    };
    let world = match (exports_of("resolve"), exports_of("merge"), exports_of("operations")) {
        (true, false, false) => World::Resolver,
        (false, true, false) => World::Lattice,
        (false, true, true) => World::ReplicatedType,
        _ => return Err(Error::WrongExports(ONE_WORLD.into())),
    };

    // The encoder is a build tool at heart: a module that is valid and yet odd may well reach an `unwrap` of it.
    let wrapped = catch_unwind(AssertUnwindSafe(|| {
        let mut wit = wit_parser::Resolve::default();
        let package = wit.push_str("plugin.wit", CONTRACT)?;
        let world = wit.select_world(&[package], Some(world.name()))?;
        wit_component::embed_component_metadata(&mut bare, &wit, world, StringEncoding::UTF8, false)?;
        wit_component::ComponentEncoder::default().validate(true).module(&bare)?.encode()
    }));
    match wrapped {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(e)) => Err(Error::WrongExports(printable(&format!("{e:#}"), REASON_BYTES_MAX))),
        Err(_) => Err(Error::Malformed("core module cannot be made a component".into())),
    }
}

/// The module without its custom sections (but for the names of functions, which traps are told with), and the names
/// of its exports. Refuses imports other than ours by name.
fn take_apart(module: &[u8]) -> Result<(Vec<u8>, Vec<String>), Error> {
    let malformed = |e: wasmparser::BinaryReaderError| Error::Malformed(e.to_string());
    let (mut bare, mut exports) = (module[..8].to_vec(), Vec::new());
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        let payload = payload.map_err(malformed)?;
        match &payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import.map_err(malformed)?;
                    if import_allowed(import.module).is_err() {
                        return Err(forbidden(&format!("{}::{}", import.module, import.name)));
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    exports.push(export.map_err(malformed)?.name.to_owned());
                }
            }
            Payload::CustomSection(custom) if custom.name() != "name" => continue,
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            bare.push(id);
            let contents = range.start as usize..range.end as usize;
            let mut length = contents.len();
            while length >= 0x80 {
                bare.push(length as u8 | 0x80);
                length >>= 7;
            }
            bare.push(length as u8);
            bare.extend_from_slice(&module[contents]);
        }
    }
    Ok((bare, exports))
}
