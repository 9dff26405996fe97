//! What the export macros expand to. The thin layer between the generated `Guest` traits and an author's type.

/// Sends panics to the log, so that the host can say more than "unreachable".
pub fn report_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
}

#[doc(hidden)]
#[macro_export]
macro_rules! __implement_plugin {
    ($exported:ident, $ty:ty, $world:ident) => {
        impl $crate::bindings::plugin::exports::merganser::plugin::plugin::Guest for $exported {
            fn describe() -> $crate::Description {
                $crate::Description {
                    name: env!("CARGO_PKG_NAME").into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    summary: env!("CARGO_PKG_DESCRIPTION").into(),
                }
            }

            fn validate(key: $crate::KeyInfo, value: Vec<u8>) -> Result<(), $crate::Rejection> {
                $crate::guest::report_panics();
                <$ty as $crate::$world>::validate(&key, &value)
            }

            fn generate(seed: Vec<u8>) -> Option<Vec<u8>> {
                $crate::guest::report_panics();
                <$ty as $crate::$world>::generate(&seed)
            }
        }

        #[cfg(target_arch = "wasm32")]
        $crate::bindings::plugin::__export_plugin!($exported with_types_in $crate::bindings::plugin);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __implement_merge {
    ($exported:ident, $ty:ty, $world:ident) => {
        impl $crate::bindings::merge::exports::merganser::plugin::merge::Guest for $exported {
            fn merge(key: $crate::KeyInfo, states: Vec<Vec<u8>>) -> Result<Vec<u8>, $crate::Rejection> {
                $crate::guest::report_panics();
                <$ty as $crate::$world>::merge(&key, &states)
            }

            fn fingerprint(
                key: $crate::KeyInfo,
                state: Vec<u8>,
            ) -> Result<Option<Vec<u8>>, $crate::Rejection> {
                $crate::guest::report_panics();
                <$ty as $crate::$world>::fingerprint(&key, &state)
            }
        }

        #[cfg(target_arch = "wasm32")]
        $crate::bindings::merge::__export_merge!($exported with_types_in $crate::bindings::merge);
    };
}

/// Makes the crate a plugin of world `resolver`. Name, version and summary are those of the crate's manifest.
#[macro_export]
macro_rules! export_resolver {
    ($ty:ty) => {
        const _: () = {
            struct Exported;
            $crate::__implement_plugin!(Exported, $ty, Resolver);

            impl $crate::bindings::resolve::exports::merganser::plugin::resolve::Guest for Exported {
                fn resolve(key: $crate::KeyInfo, siblings: Vec<$crate::Sibling>) -> $crate::Verdict {
                    $crate::guest::report_panics();
                    <$ty as $crate::Resolver>::resolve(&key, &siblings)
                }
            }

            #[cfg(target_arch = "wasm32")]
    $crate::bindings::resolve::__export_resolve!(Exported with_types_in $crate::bindings::resolve);
        };
    };
}

/// Makes the crate a plugin of world `lattice`. Name, version and summary are those of the crate's manifest.
#[macro_export]
macro_rules! export_lattice {
    ($ty:ty) => {
        const _: () = {
            struct Exported;
            $crate::__implement_plugin!(Exported, $ty, Lattice);
            $crate::__implement_merge!(Exported, $ty, Lattice);
        };
    };
}

/// Makes the crate a plugin of world `replicated-type`. Name, version and summary are those of the crate's manifest.
#[macro_export]
macro_rules! export_replicated_type {
    ($ty:ty) => {
        const _: () = {
            struct Exported;
            $crate::__implement_plugin!(Exported, $ty, ReplicatedType);
            $crate::__implement_merge!(Exported, $ty, ReplicatedType);

            impl $crate::bindings::operations::exports::merganser::plugin::operations::Guest for Exported {
                fn apply(
                    key: $crate::KeyInfo,
                    state: Option<Vec<u8>>,
                    operation: $crate::Operation,
                ) -> Result<Vec<u8>, $crate::Rejection> {
                    $crate::guest::report_panics();
                    <$ty as $crate::ReplicatedType>::apply(&key, state.as_deref(), &operation)
                }

                fn retire(
                    key: $crate::KeyInfo,
                    state: Vec<u8>,
                    actors: Vec<u64>,
                ) -> Result<Vec<u8>, $crate::Rejection> {
                    $crate::guest::report_panics();
                    <$ty as $crate::ReplicatedType>::retire(&key, &state, &actors)
                }

                fn query(
                    key: $crate::KeyInfo,
                    state: Vec<u8>,
                    path: Vec<u8>,
                ) -> Result<Vec<u8>, $crate::Rejection> {
                    $crate::guest::report_panics();
                    <$ty as $crate::ReplicatedType>::query(&key, &state, &path)
                }

                fn generate_operation(seed: Vec<u8>) -> Option<Vec<u8>> {
                    $crate::guest::report_panics();
                    <$ty as $crate::ReplicatedType>::generate_operation(&seed)
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::bindings::operations::__export_operations!(Exported with_types_in $crate::bindings::operations);
        };
    };
}
