//! Rebuilds the crate when `../lua` changes: `include_dir!` reads it at compile time, and without
//! this line a new or changed file would silently not be embedded.

fn main() {
    println!("cargo:rerun-if-changed=../lua");
}
