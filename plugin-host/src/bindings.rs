//! The only `bindgen!` on the host: the contract of `plugin-sdk/wit/plugin.wit` as Rust types.
//!
//! In comes the WIT package; out go the types of the boundary and, for each exported interface, a typed way in.
//! One world of our own exports every interface, so that the types exist once and a component is asked which of
//! the interfaces it has, rather than being matched against each world in turn.
#![allow(missing_docs, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../plugin-sdk/wit",
    inline: "
        package merganser:host;

        world every {
            import merganser:plugin/log@1.0.0;
            export merganser:plugin/plugin@1.0.0;
            export merganser:plugin/resolve@1.0.0;
            export merganser:plugin/merge@1.0.0;
            export merganser:plugin/operations@1.0.0;
        }
    ",
    world: "merganser:host/every",
    ownership: Borrowing { duplicate_if_necessary: true },
});
