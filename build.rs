//! Compiles `proto/` without protoc: messages, services, and the descriptors that gRPC reflection
//! serves.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 8] = [
    "kv.proto",
    "auth.proto",
    "rpc.proto",
    "v3lock.proto",
    "v3election.proto",
    "health.proto",
    "cluster_admin.proto",
    "peer.proto",
];

// The clock, disk and thread ports belong to the store, so a build script uses the file system
// directly.
#[expect(clippy::disallowed_methods)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");

    let descriptors = protox::compile(FILES, ["proto"])?;

    // Clients of reflection need no comments and source positions, which are most of the bytes.
    let mut reflected = descriptors.clone();
    reflected.file.retain(|file| file.package() != "ordinal.peer.v1");
    for file in &mut reflected.file {
        file.source_code_info = None;
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), reflected.encode_to_vec())?;

    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
