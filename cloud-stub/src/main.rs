//! `wherry-cloud`: the server, and the command line that talks to it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    wherry_cloud::cli::main()
}
