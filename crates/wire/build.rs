//! Makes the name of the build: the version and a digest of this crate's sources. No other build
//! script makes one.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src");
    let mut sources = Vec::new();
    collect(Path::new("src"), &mut sources)?;
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

/// Adds all files below `directory` to `sources`.
fn collect(directory: &Path, sources: &mut Vec<PathBuf>) -> io::Result<()> {
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else {
            sources.push(path);
        }
    }
    Ok(())
}
