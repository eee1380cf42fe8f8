//! Gives the build its name: the version and a digest of this crate's sources, which are all that
//! gateway and engine must agree on.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src");
    let mut sources: Vec<PathBuf> = fs::read_dir("src")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    sources.sort();
    // FNV-1a, 64 bits: enough to tell two states of a few files apart.
    let mut digest: u64 = 0xcbf2_9ce4_8422_2325;
    for source in sources {
        for byte in fs::read(source)? {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    println!("cargo::rustc-env=WSGATE_BUILD={}+{digest:016x}", env::var("CARGO_PKG_VERSION")?);
    Ok(())
}
