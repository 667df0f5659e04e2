//! `wherry-cloud template …`

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Output;
use super::client::CliError;
use super::output::{plain, print};
use crate::template::fields;
use crate::template::place::{PROBLEMS_MAX, Problem};
use crate::template::yaml::TEXT_BYTES_MAX;
use crate::version::{Checked, Source, check_templates};

#[derive(Debug, Subcommand)]
pub(super) enum Template {
    /// Tell all that is wrong with files of Kubernetes YAML, each with file,
    /// line and path. Images are not looked at. Exit status 1 if there is
    /// anything, 2 if a file cannot be read.
    Check {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Every field that Kubernetes has, and what becomes of it, as Markdown.
    Fields,
}

impl Template {
    pub fn run(self, output: Output) -> Result<(), CliError> {
        match self {
            Self::Check { files } => check(&files, output),
            Self::Fields => print(output, &fields::rows(), |_| fields::markdown()),
        }
    }
}

fn check(paths: &[PathBuf], output: Output) -> Result<(), CliError> {
    let (mut files, mut unreadable, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let file = path.display().to_string();
        match read(path) {
            Ok(bytes) if bytes.len() > TEXT_BYTES_MAX => {
                let what = format!("has more than the {TEXT_BYTES_MAX} bytes that are allowed");
                problems.push(Problem::whole(&file, what));
            }
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => files.push(Source { file, text }),
                Err(_) => problems.push(Problem::whole(&file, "is not UTF-8 text")),
            },
            Err(error) => unreadable.push(format!("{file}: {error}")),
        }
    }
    let checked = check_templates(&files).unwrap_or_else(|found| {
        problems.extend(found);
        Checked::default()
    });
    if !unreadable.is_empty() || !problems.is_empty() || output == Output::Json {
        print(output, &problems, |problems| {
            problems.iter().map(|problem| plain(&problem.to_string()) + "\n").collect()
        })?;
    } else {
        print(output, &(), |()| good(&checked))?;
    }
    if problems.len() >= PROBLEMS_MAX {
        eprintln!("there may be more: {PROBLEMS_MAX} are told at once");
    }
    match (unreadable.is_empty(), problems.is_empty()) {
        (false, _) => Err(CliError::Unreadable(unreadable)),
        (true, false) => Err(CliError::Problems),
        (true, true) => Ok(()),
    }
}

/// No more than what is refused for its length anyway.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn good(Checked { objects, elsewhere }: &Checked) -> String {
    let mut text = match objects {
        1 => "1 object is fine".to_owned(),
        objects => format!("{objects} objects are fine"),
    };
    if !elsewhere.is_empty() {
        let names: Vec<_> =
            elsewhere.iter().map(|config| format!("{:?} {}", config.kind, config.name)).collect();
        text += &format!("; version.yaml has to make {}", names.join(", "));
    }
    text + "\n"
}
