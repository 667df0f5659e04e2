//! `wherry-launcher FOLDER NAME BRIDGE`: the launcher alone, for
//! `wherry-bench`. A program of its own, so that it can be built as what
//! ships is: static, and small.

use anyhow::Result;
use wherry_tests::launcher;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    launcher::serve(&words)
}
