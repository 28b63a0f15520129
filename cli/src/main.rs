//! The `kvx` command.
fn main() {}
