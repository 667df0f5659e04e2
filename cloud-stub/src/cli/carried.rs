//! `wherry-cloud version export` and `node import-status`: what a person
//! carries to a node and back.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use wherry_bundle::Name;
use wherry_bundle::carrier::{self, CarrierError, Item};
use wherry_bundle::frame::FrameError;

use super::Output;
use super::client::{CliError, Client};
use super::output::{print, size};
use crate::view::{ExportRequest, Recipients, ReportImported, VersionId, phase_text};

/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";

#[derive(Debug, Args)]
pub(super) struct Export {
    /// APPLICATION@X.Y.Z.N.
    version: VersionId,
    #[command(flatten)]
    to: To,
    /// What the nodes run already, as APPLICATION@X.Y.Z.N: the file leaves out
    /// what it has, and is of no use to other nodes.
    #[arg(long, value_name = "VERSION")]
    since: Option<VersionId>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// Only this node can take it.
    #[arg(long)]
    node: Option<Name>,
    /// Every node of the project can take it that the version is for.
    #[arg(long, value_name = "PROJECT")]
    any_of_project: Option<Name>,
}

impl Export {
    /// `output` is where the file goes.
    pub fn run(self, client: &Client, output: Option<String>) -> Result<(), CliError> {
        let Some(output) = output else {
            return Err(CliError::input("say where the file goes: -o FILE, or -o - "));
        };
        let to = match (self.to.node, self.to.any_of_project) {
            (Some(node), _) => Recipients::Node(node),
            (None, Some(project)) => Recipients::AnyOfProject(project),
            (None, None) => {
                return Err(CliError::input("say for whom: --node or --any-of-project"));
            }
        };
        let request = ExportRequest { version: self.version, to, since: self.since };
        let answer = client.post_for_stream("/v1/exports", &request)?;
        let summary = if output == STANDARD_OUTPUT {
            copy(answer, &mut io::stdout().lock(), Path::new("standard output"))?
        } else {
            write_file(answer, Path::new(&output))?
        };
        eprintln!("{}", summary.text(&request.version));
        Ok(())
    }
}

/// What went into the file.
#[derive(Debug, Default)]
struct Summary {
    nodes: Vec<Name>,
    layers: u64,
    chunks: u64,
    bytes: u64,
}

impl Summary {
    fn text(&self, version: &VersionId) -> String {
        let nodes: Vec<&str> = self.nodes.iter().map(Name::as_str).collect();
        let Self { layers, chunks, bytes, .. } = self;
        let (nodes, size) = (nodes.join(", "), size(*bytes));
        format!("{version} for {nodes}: {layers} layers, {chunks} chunks, {size}")
    }
}

/// Writes a temporary file beside `path`, and gives it its name when it is
/// whole and on the disk.
fn write_file(answer: impl Read, path: &Path) -> Result<Summary, CliError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::File { path, source }
    };
    let mut file = File::create(&part).map_err(failed(&part))?;
    let written = copy(answer, &mut file, &part).and_then(|summary| {
        file.sync_all().map_err(failed(&part))?;
        fs::rename(&part, path).map_err(failed(path))?;
        Ok(summary)
    });
    if written.is_err() {
        // What is there is of no use to anybody.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Copies items up to the last one; `name` is of `output`.
fn copy(answer: impl Read, output: &mut impl Write, name: &Path) -> Result<Summary, CliError> {
    let mut summary = Summary::default();
    let mut tee = Tee { input: answer, output, failed: None, bytes: 0 };
    loop {
        let item = match carrier::read(&mut tee) {
            Ok(item) => item,
            Err(error) => {
                let path = name.to_owned();
                return Err(match tee.failed {
                    Some(source) => CliError::File { path, source },
                    None => broken_off(&error),
                });
            }
        };
        match item {
            Some(Item::Start(_) | Item::List(_)) => {}
            Some(Item::Envelope { node, bytes: _ }) => summary.nodes.push(node),
            Some(Item::Layer(_)) => summary.layers += 1,
            Some(Item::Chunk(_)) => summary.chunks += 1,
            Some(Item::End) => break,
            None => return Err(broken_off(&CarrierError::Frame(FrameError::Truncated))),
        }
    }
    summary.bytes = tee.bytes;
    let path = name.to_owned();
    tee.output.flush().map_err(|source| CliError::File { path, source })?;
    Ok(summary)
}

fn broken_off(error: &CarrierError<io::Error>) -> CliError {
    CliError::BrokenOff { what: format!("the cloud did not send the whole file: {error}") }
}

/// Writes down what is read.
struct Tee<'a, R, W> {
    input: R,
    output: &'a mut W,
    /// Of the output; one of the input is told by the reading itself.
    failed: Option<io::Error>,
    bytes: u64,
}

impl<R, W> embedded_io::ErrorType for Tee<'_, R, W> {
    type Error = io::Error;
}

impl<R: Read, W: Write> embedded_io::Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let Err(error) = self.output.write_all(&buffer[..count]) {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        self.bytes += count as u64;
        Ok(count)
    }
}

/// `wherry-cloud node import-status`
pub(super) fn import_status(client: &Client, file: &Path, output: Output) -> Result<(), CliError> {
    let opened =
        File::open(file).map_err(|source| CliError::File { path: file.to_owned(), source })?;
    let imported: ReportImported = client.upload("/v1/reports", &[], &opened)?;
    print(output, &imported, imported_text)
}

fn imported_text(imported: &ReportImported) -> String {
    let ReportImported { node, generation, phase, events, events_new, .. } = imported;
    let mut text = format!(
        "{node}: generation {generation}, {}; {events} events, {events_new} of them new\n",
        phase_text(phase)
    );
    if imported.taken_up {
        text += "it took up what was carried to it\n";
    }
    if !imported.status_taken {
        text += "it is connected: its status here is newer than this one, and stays\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use wherry_bundle::carrier::Start;

    use super::*;

    fn whole() -> Vec<u8> {
        let start = Start { version: "shop@1.0.0.1".into(), since: None };
        let node = "gw-1".parse().unwrap();
        let mut file = Vec::new();
        for item in [
            Item::Start(start),
            Item::Envelope { node, bytes: vec![1] },
            Item::Chunk(vec![2; 100]),
            Item::End,
        ] {
            carrier::write(&mut file, &item).unwrap();
        }
        file
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("update");
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let file = whole();
        for short in [0, 5, file.len() - 12, file.len() - 1] {
            let error = write_file(&file[..short], &path).unwrap_err();
            assert!(error.to_string().contains("did not send the whole file"), "{short}: {error}");
            assert_eq!(files(), 0);
        }
        let summary = write_file(&*file, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), file);
        assert_eq!(files(), 1);
        let text = summary.text(&"shop@1.0.0.1".parse().unwrap());
        assert_eq!(text, format!("shop@1.0.0.1 for gw-1: 0 layers, 1 chunks, {} B", file.len()));
        // One that was there stays when the next is not whole.
        write_file(&file[..20], &path).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), file);
        let nowhere = dir.path().join("none/update");
        let error = write_file(&*file, &nowhere).unwrap_err().to_string();
        assert!(error.contains("none/update.part"), "{error}");
    }

    #[test]
    fn an_output_that_is_full_says_so() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = copy(&*whole(), &mut Full, Path::new("stick")).unwrap_err().to_string();
        assert!(error.starts_with("stick: ") && error.contains("space"), "{error}");
    }
}
