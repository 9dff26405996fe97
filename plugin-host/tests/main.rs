//! The host against real guests: the built-in plugins, and hostile ones written as text. No Wasm toolchain is needed.

mod built_ins;
mod compile;
mod corpus;
mod guests;
mod hostile;
mod laws;
