//! The `kiegate` binary.

fn main() {}
