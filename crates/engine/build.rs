//! Refuses to build an engine that would be tied to the Python of the build machine.

fn main() {
    println!("cargo::rerun-if-env-changed=PYO3_BUILD_EXTENSION_MODULE");
    // `.cargo/config.toml` sets it, for a cargo that is started inside the source tree.
    if std::env::var_os("PYO3_BUILD_EXTENSION_MODULE").is_none() {
        println!(
            "cargo::error=PYO3_BUILD_EXTENSION_MODULE is not set: start cargo inside the source \
             tree, or by `make`"
        );
    }
}
