//! `wherry`: everything is in the library.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use wherry::store::keeper;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    match words.as_slice() {
        // Started by the supervisor only.
        [_, role, path] if role == keeper::ROLE => keeper::serve(Path::new(path)),
        _ => wherry::cli::main(words),
    }
}
