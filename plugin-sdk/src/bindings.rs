//! The contract of `wit/plugin.wit` as Rust, generated. Nothing here is meant to be called by hand: the export
//! macros of [`crate::guest`] do.
//!
//! One small world for each interface, not one for each world of the contract: the macros that `wit-bindgen` makes
//! per interface may exist only once in a crate. A plugin embeds the metadata of the parts it exports, and whoever
//! makes a component of it takes their union, which is the world.
#![allow(missing_docs, unreachable_pub)]

/// Interface `plugin`, the log, and the types that all parts share.
pub mod plugin {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package merganser:sdk;
            world plugin-part {
                import merganser:plugin/log@1.0.0;
                export merganser:plugin/plugin@1.0.0;
            }
        ",
        world: "merganser:sdk/plugin-part",
        pub_export_macro: true,
        export_macro_name: "__export_plugin",
        default_bindings_module: "merganser_plugin_sdk::bindings::plugin",
        additional_derives: [PartialEq, Eq],
        generate_all,
    });
}

/// Interface `resolve`.
pub mod resolve {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package merganser:sdk; world resolve-part { export merganser:plugin/resolve@1.0.0; }",
        world: "merganser:sdk/resolve-part",
        pub_export_macro: true,
        export_macro_name: "__export_resolve",
        default_bindings_module: "merganser_plugin_sdk::bindings::resolve",
        with: { "merganser:plugin/types@1.0.0": super::plugin::merganser::plugin::types },
        generate_all,
    });
}

/// Interface `merge`.
pub mod merge {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package merganser:sdk; world merge-part { export merganser:plugin/merge@1.0.0; }",
        world: "merganser:sdk/merge-part",
        pub_export_macro: true,
        export_macro_name: "__export_merge",
        default_bindings_module: "merganser_plugin_sdk::bindings::merge",
        with: { "merganser:plugin/types@1.0.0": super::plugin::merganser::plugin::types },
        generate_all,
    });
}

/// Interface `operations`.
pub mod operations {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package merganser:sdk; world operations-part { export merganser:plugin/operations@1.0.0; }",
        world: "merganser:sdk/operations-part",
        pub_export_macro: true,
        export_macro_name: "__export_operations",
        default_bindings_module: "merganser_plugin_sdk::bindings::operations",
        with: { "merganser:plugin/types@1.0.0": super::plugin::merganser::plugin::types },
        additional_derives: [PartialEq, Eq],
        generate_all,
    });
}
