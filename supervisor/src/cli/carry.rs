//! `apply` and `status --export`: what a person carries to a node without a
//! line, and back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use wherry_bundle::carrier::{self, CarrierError, ReportItem};
use wherry_bundle::message::{Event, Events};

use super::{CliError, ask};
use crate::cli::table::bytes;
use crate::control::{Applied, Client, ClientError, Request, Response};
use crate::io::Io;

#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: CarrierError<embedded_io::ErrorKind> },
}

/// Has the node take up what is in `file`; `-` is standard input.
pub(super) fn apply(socket: &Path, file: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).map_err(error("open", file))?)
    };
    let mut client = Client::ask(socket, &Request::Apply)?;
    client.send_file(&mut source)?;
    let Response::Applied(applied) = client.answer()? else {
        return Err(ClientError::Unexpected.into());
    };
    let Applied { generation, outcome, layers, bytes_supplied, bytes_copied } = applied;
    writeln!(out, "generation {generation} {outcome}")?;
    if layers > 0 {
        let (supplied, copied) = (bytes(bytes_supplied), bytes(bytes_copied));
        writeln!(out, "{layers} layers: {supplied} from the file, {copied} copied on this node")?;
    }
    Ok(writeln!(out, "see `wherry status`")?)
}

/// Writes the node's status and what the cloud does not know yet to `file`.
pub(super) fn export(socket: &Path, file: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let Response::Status(status) = ask(socket, &Request::Status)? else {
        return Err(ClientError::Unexpected.into());
    };
    // Never half a report under its name.
    let new = file.with_extension("part");
    let mut report = Io(File::create(&new).map_err(error("create", &new))?);
    let mut put = |item: ReportItem| {
        let written = carrier::write(&mut report, &item);
        written.map_err(|source| CarryError::Write { path: new.clone(), source })
    };
    put(ReportItem::Status(Box::new(status.node)))?;
    let (mut after, mut count) = (0, 0);
    loop {
        let events = outbox(socket, after)?;
        let Some(last) = events.last() else { break };
        after = last.seq;
        count += events.len();
        put(ReportItem::Events(Events(events)))?;
    }
    put(ReportItem::End)?;
    report.0.sync_all().map_err(error("sync", &new))?;
    std::fs::rename(&new, file).map_err(error("rename", &new))?;
    writeln!(out, "status and {count} events are in {}", file.display())?;
    Ok(writeln!(out, "bring it to the cloud: `wherry-cloud node import-status FILE`")?)
}

fn outbox(socket: &Path, after: u64) -> Result<Vec<Event>, ClientError> {
    match ask(socket, &Request::Outbox { after })? {
        Response::Events(events) => Ok(events),
        _ => Err(ClientError::Unexpected),
    }
}

fn error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CarryError {
    let path = path.to_owned();
    move |source| CarryError::Io { what, path, source }
}
