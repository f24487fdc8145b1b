//! The `kiegate` binary: see `kiegate::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiegate::cli::main()
}
