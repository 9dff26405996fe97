//! The proposals of WebAssembly that a plugin may use: a list of what is allowed, from which both the validator's and
//! the engine's settings are made. What is not named here is off, also what a later release of either library
//! switches on by itself.

macro_rules! allowed {
    ($($feature:ident)*) => {
        /// What the validator accepts.
        pub(crate) fn for_validation() -> wasmparser::WasmFeatures {
            wasmparser::WasmFeatures::empty() $(| wasmparser::WasmFeatures::$feature)*
        }

        /// What the engine compiles.
        pub(crate) fn for_engine() -> wasmtime::WasmFeatures {
            wasmtime::WasmFeatures::empty() $(| wasmtime::WasmFeatures::$feature)*
        }
    };
}

allowed! {
    MUTABLE_GLOBAL
    SATURATING_FLOAT_TO_INT
    SIGN_EXTENSION
    MULTI_VALUE
    FLOATS
    BULK_MEMORY
    REFERENCE_TYPES
    EXTENDED_CONST
    SIMD
    // The adapters that the engine makes between two components of one plugin have both components' memories.
    MULTI_MEMORY
    COMPONENT_MODEL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_machines_or_needs_threads_is_not_on_the_list() {
        let allowed = for_validation();
        for off in [
            wasmparser::WasmFeatures::RELAXED_SIMD,
            wasmparser::WasmFeatures::THREADS,
            wasmparser::WasmFeatures::MEMORY64,
            wasmparser::WasmFeatures::GC,
            wasmparser::WasmFeatures::EXCEPTIONS,
            wasmparser::WasmFeatures::TAIL_CALL,
            wasmparser::WasmFeatures::STACK_SWITCHING,
        ] {
            assert!(!allowed.intersects(off), "{off:?}");
        }
    }
}
