//! Tells the loader where libtorch lies, so that `cargo test` and shipped binaries need no LD_LIBRARY_PATH.
//!
//! The place named by LIBTORCH comes first, then two places relative to the binary:
//! a source tree's `assets/`, and the `lib/` beside an installed `bin/`.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(root) = env::var("LIBTORCH") {
        let lib = Path::new(&root).join("lib");
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../assets/libtorch/lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
