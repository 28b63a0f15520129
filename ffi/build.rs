//! Gives the library its versioned name: programs that were linked against one ABI never load
//! another.

/// The number of the ABI. It changes when a function or a struct is changed or goes away.
const ABI: u32 = 0;

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libkvx.so.{ABI}");
    println!("cargo:rerun-if-changed=build.rs");
}
