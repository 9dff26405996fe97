//! The plugins that ship with the host: bytes made from `plugins/` and committed beside them, so that no Wasm toolchain is
//! needed to build this crate. They are plugins like any other: nothing is compiled until [`crate::Host::load`].

use std::sync::LazyLock;

use crate::plugin::{PluginHash, World};

/// A plugin that ships with the host.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// The name by which keyspaces refer to it.
    pub name: &'static str,
    /// The contract it fulfils.
    pub world: World,
    /// The module, to be given to [`crate::Host::load`].
    pub wasm: &'static [u8],
    /// BLAKE3 of the module.
    pub hash: PluginHash,
}

/// What `merganser plugin new` writes, compiled: a shopping cart resolver, for machines without a Wasm toolchain. Not one of
/// the built-in policies.
pub const TEMPLATE_CART: &[u8] = include_bytes!("../../plugins/artifacts/template-cart.wasm");

macro_rules! artifact {
    ($name:literal, $world:ident) => {
        ($name, World::$world, include_bytes!(concat!("../../plugins/artifacts/", $name, ".wasm")).as_slice())
    };
}

static BUILT_IN: LazyLock<Vec<BuiltIn>> = LazyLock::new(|| {
    let artifacts = [
        artifact!("automerge", ReplicatedType),
        artifact!("lww", Resolver),
        artifact!("lww-map", ReplicatedType),
        artifact!("mv-register", Resolver),
        artifact!("or-set", ReplicatedType),
        artifact!("pn-counter", ReplicatedType),
    ];
    let built_in = |(name, world, wasm)| BuiltIn { name, world, wasm, hash: PluginHash::of(wasm) };
    artifacts.into_iter().map(built_in).collect()
});

/// All plugins that ship with the host, by name.
pub fn built_in() -> &'static [BuiltIn] {
    &BUILT_IN
}
