//! `wherry logs`: lines as they come.

use std::io::Write;
use std::path::Path;

use wherry_bundle::message::{LogLine, LogQuery};

use super::args::Output;
use super::{CliError, show};
use crate::clock::millis_text;
use crate::control::{Client, ClientError, Request, Response};

/// What is put before each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    pod: bool,
    container: bool,
    time: bool,
}

pub(super) fn logs(
    socket: &Path,
    query: LogQuery,
    times: bool,
    output: Output,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let prefix = prefix(socket, &query, times)?;
    let mut client = Client::ask(socket, &Request::Logs(query))?;
    loop {
        let lines = match client.answer()? {
            Response::LogLines(lines) => lines,
            Response::Done => return Ok(()),
            _ => return Err(ClientError::Unexpected.into()),
        };
        for line in &lines {
            match output {
                Output::Table => writeln!(out, "{}{}", prefix.text(line), line.text)?,
                Output::Json => writeln!(out, "{}", serde_json::to_string(line)?)?,
            }
        }
        out.flush()?;
    }
}

/// A pod with one container needs no name before its lines.
fn prefix(socket: &Path, query: &LogQuery, time: bool) -> Result<Prefix, CliError> {
    let status = show::local_status(socket)?.node;
    let one = status.pods.iter().find(|pod| pod.name == query.pod);
    let several = one.is_none_or(|pod| pod.containers.len() > 1);
    Ok(Prefix { pod: one.is_none(), container: query.container.is_none() && several, time })
}

impl Prefix {
    fn text(self, line: &LogLine) -> String {
        let mut text = String::new();
        if self.time {
            text = format!("{} ", millis_text(line.wall_time));
        }
        let name = match (self.pod, self.container) {
            (true, true) => format!("[{}/{}] ", line.pod, line.container),
            (true, false) => format!("[{}] ", line.pod),
            (false, true) => format!("[{}] ", line.container),
            (false, false) => String::new(),
        };
        text + &name
    }
}
