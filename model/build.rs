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
    compile_native();
}

fn compile_native() {
    println!("cargo:rerun-if-changed=native/torch.cpp");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where it found libtorch");
    let include = Path::new(&lib).join("../include");
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .std("c++17")
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .file("native/torch.cpp")
        .compile("clade_native");
}
