//! Compiles the `.proto` files in Rust alone (protox), so that no protoc is needed.

use prost::Message;
use std::{env, fs, path::PathBuf};

const FILES: &[&str] = &[
    "merganser/v1/kv.proto",
    "merganser/v1/keyspaces.proto",
    "merganser/v1/plugins.proto",
    "merganser/v1/cluster.proto",
    "merganser/internal/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
