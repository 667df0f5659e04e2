//! `wherry`: everything is in the library.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use wherry::store::keeper;
use wherry::supervisor::preflight::kernel;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    match words.as_slice() {
        // Started by the supervisor only.
        [_, role, path] if role == keeper::ROLE => keeper::serve(Path::new(path)),
        [_, role, cgroup] if role == kernel::ROLE => kernel::serve(&cgroup.to_string_lossy()),
        _ => wherry::cli::main(words),
    }
}
