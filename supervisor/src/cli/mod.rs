//! The command line: `wherry COMMAND`.
//!
//! A file a group of commands. All but `run` and `check` talk to a running node through
//! its control socket. Exit codes: 0 done, 1 failed, 2 wrong usage.
//! Never here: doing what a command asks for other than by asking the node.

mod args;
mod carry;
mod check;
mod completion;
mod exec;
mod help;
mod logs;
mod machine;
mod process;
mod show;
pub(crate) mod table;
mod top;
mod volume;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wherry_bundle::message::Exit;

use crate::config::{CONFIG_PATH, Config, ConfigError, RUN_DIR, RunDir};
use crate::control::{Client, ClientError, Request, Response};
use args::{Command, Place};

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Why a command failed. Its text is printed after `wherry: `.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Process(#[from] process::ProcessError),
    #[error(transparent)]
    Machine(#[from] machine::MachineError),
    #[error(transparent)]
    Carry(#[from] carry::CarryError),
    #[error("cannot run here, for want of: {0}")]
    CannotRun(String),
    #[error("the terminal: {0}")]
    Terminal(io::Error),
    /// What a command in a container ended with: this one does too.
    #[error("{0}")]
    Ended(Exit),
}

/// Runs the command that `args` (program name first) give.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match args::parse(args) {
        Ok(command) => command,
        Err(_) if machine::is_first_program() => Command::Init { config: CONFIG_PATH.into() },
        Err(wrong) => {
            report(&wrong.to_string());
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        // `wherry logs | head`: whoever read has enough.
        Err(CliError::Ended(exit)) => exec::exit_code(exit),
        Err(CliError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            report(&error.to_string());
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    let out = &mut io::stdout().lock();
    match command {
        Command::Run { config } => Ok(process::run(&config)?),
        Command::Supervisor { config } => Ok(process::supervisor(&config)?),
        Command::Init { config } => Ok(machine::init(&config)?),
        Command::Reboot => Ok(machine::reboot()?),
        Command::PowerOff => Ok(machine::power_off()?),
        Command::Check { config, output } => check::check(config.as_deref(), output, out),
        Command::Hold { hold, place } => Ok(process::hold(&socket(&place)?, hold, out)?),
        Command::Ps { place, output } => show::ps(&socket(&place)?, output, out),
        Command::Status { export: Some(file), place, .. } => {
            carry::export(&socket(&place)?, &file, out)
        }
        Command::Status { export: None, place, output } => {
            show::status(&socket(&place)?, output, out)
        }
        Command::Apply { file, place } => carry::apply(&socket(&place)?, &file, out),
        Command::Describe { pod, place, output } => {
            show::describe(&socket(&place)?, pod, output, out)
        }
        Command::Top { pod, follow, place, output } => {
            top::top(&socket(&place)?, pod.as_ref(), follow, output, out)
        }
        Command::Exec { exec, stdin, place } => exec::exec(&socket(&place)?, exec, stdin),
        Command::Completion => Ok(write!(out, "{}", completion::bash())?),
        Command::Events { tail, place, output } => {
            show::events(&socket(&place)?, tail, output, out)
        }
        Command::Logs { query, times, place, output } => {
            logs::logs(&socket(&place)?, query, times, output, out)
        }
        Command::Volumes { place, output } => volume::ls(&socket(&place)?, output, out),
        Command::RemoveVolume { name, place } => volume::rm(&socket(&place)?, name, out),
        Command::Stop { all, place } => Ok(process::stop(&socket(&place)?, all, out)?),
        Command::Version => Ok(writeln!(out, "wherry {}", env!("CARGO_PKG_VERSION"))?),
        Command::Help(topic) => Ok(write!(out, "{}", help::text(topic))?),
    }
}

fn report(text: &str) {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "wherry: {text}");
}

/// One question, one answer.
fn ask(socket: &Path, request: &Request) -> Result<Response, ClientError> {
    Client::ask(socket, request)?.answer()
}

/// The control socket: below the given run folder, else below the one that
/// the given or the usual configuration names.
fn socket(place: &Place) -> Result<PathBuf, CliError> {
    let run = match (&place.run_dir, &place.config) {
        (Some(run_dir), _) => RunDir(run_dir.clone()),
        (None, Some(config)) => Config::load(config)?.run,
        (None, None) => match Config::load(Path::new(CONFIG_PATH)) {
            Err(ConfigError::Read { .. }) => RunDir(RUN_DIR.into()),
            result => result?.run,
        },
    };
    Ok(run.socket())
}
