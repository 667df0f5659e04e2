//! `wherry-cloud exec`: a command in a container of a node, with its output and
//! its exit status.

use std::io::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use wherry_bundle::Name;
use wherry_bundle::limits::{ASKED_BY_BYTES_MAX, EXEC_SECONDS_MAX, cut};

use super::client::{CliError, Client};
use super::output::print;
use super::{Output, time};
use crate::view::{ExecOutput, ExecRequest, Executed};

/// As timeout(1) has it.
const TIMED_OUT: u8 = 124;
const UNKNOWN: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct Exec {
    node: Name,
    /// A pod, or a deployment: the first of its pods.
    pod: Name,
    /// The pod's first main one, if none is named.
    #[arg(short, long)]
    container: Option<Name>,
    /// The command is ended after that: up to 5m.
    #[arg(long, default_value = "30s", value_parser = seconds)]
    timeout: u32,
    /// The command and its words, behind `--`; nothing is to be read on its
    /// standard input.
    #[arg(last = true, required = true)]
    args: Vec<String>,
}

impl Exec {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let Self { node, pod, container, timeout, args } = self;
        let request =
            ExecRequest { pod, container, args, seconds_max: timeout, asked_by: asked_by() };
        let executed: Executed = client.post(&format!("/v1/nodes/{node}/exec"), &request)?;
        match output {
            Output::Json => print(output, &executed, |_| String::new())?,
            Output::Table => {
                pass_on(&executed.stdout, "output", &mut io::stdout())?;
                pass_on(&executed.stderr, "errors", &mut io::stderr())?;
            }
        }
        let status = status(&executed);
        if executed.timed_out {
            let what = format!("the command was ended: it took longer than {timeout} s");
            return Err(CliError::Ended { what: Some(what), status });
        }
        if status == 0 { Ok(()) } else { Err(CliError::Ended { what: None, status }) }
    }
}

fn status(executed: &Executed) -> u8 {
    if executed.timed_out {
        return TIMED_OUT;
    }
    executed.exit.shell_status().unwrap_or(UNKNOWN)
}

/// Byte by byte, as the command wrote it.
fn pass_on(of: &ExecOutput, what: &str, to: &mut impl Write) -> Result<(), CliError> {
    let bytes = BASE64_STANDARD.decode(&of.base64).map_err(io::Error::other)?;
    to.write_all(&bytes)?;
    to.flush()?;
    if of.bytes_dropped > 0 {
        eprintln!("({what} cut after {} bytes: {} more)", bytes.len(), of.bytes_dropped);
    }
    Ok(())
}

/// For the record. Nobody checks it here: it is what this program was told.
fn asked_by() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| "somebody".into());
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    let text = host.map_or(user.clone(), |host| format!("{user}@{host}"));
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    cut(&plain, ASKED_BY_BYTES_MAX).to_owned()
}

fn seconds(text: &str) -> Result<u32, String> {
    let seconds = time::parse_seconds(text)?;
    let fits = u32::try_from(seconds).ok().filter(|s| (1..=EXEC_SECONDS_MAX).contains(s));
    fits.ok_or_else(|| format!("a command may take 1s to {}m", EXEC_SECONDS_MAX / 60))
}

#[cfg(test)]
mod tests {
    use wherry_bundle::message::Exit;

    use super::*;

    #[test]
    fn exit_statuses_are_a_shells() {
        for (exit, timed_out, wanted) in [
            (Exit::Code(0), false, 0),
            (Exit::Code(7), false, 7),
            (Exit::Signal(9), false, 137),
            (Exit::OutOfMemory, false, 137),
            (Exit::Unknown, false, 1),
            (Exit::Signal(9), true, 124),
        ] {
            let (stdout, stderr) = Default::default();
            assert_eq!(status(&Executed { exit, timed_out, stdout, stderr }), wanted, "{exit}");
        }
        assert_eq!((seconds("5m"), seconds("90")), (Ok(300), Ok(90)));
        assert!(seconds("0").is_err() && seconds("301").is_err() && seconds("1h").is_err());
    }
}
