//! Runs commands and waits for conditions, with errors that show everything.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs to the end; its standard output if it exits 0.
///
/// # Errors
/// The command line, the exit status and both outputs.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{} ended with {}\n{}", show(command), output.status, both(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end, whatever its exit status.
///
/// # Errors
/// It cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(std::process::Stdio::null());
    command.output().with_context(|| format!("cannot start {}", show(command)))
}

/// `program` with words, as `tool("ip", ["link"])`.
pub fn tool<'a>(program: &str, words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

/// Both outputs of a command, as text.
#[must_use]
pub fn both(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Asks again and again until `probe` answers.
///
/// # Errors
/// After `timeout`: what was waited for, and the last error.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > timeout {
            bail!("{what}: not within {timeout:?}: {last}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn show(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    format!("`{} {}`", command.get_program().to_string_lossy(), words.join(" "))
}
