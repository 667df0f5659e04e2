//! `wherry`: everything is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    wherry::cli::main(std::env::args_os())
}
