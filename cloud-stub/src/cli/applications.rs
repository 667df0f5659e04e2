//! `wherry-cloud application …`

use clap::Subcommand;
use serde_json::json;
use wherry_bundle::Name;

use super::client::{CliError, Client};
use super::output::{list, print, table};
use super::{Output, time};
use crate::view;

#[derive(Debug, Subcommand)]
pub(super) enum Application {
    /// Add an application of a project.
    Add {
        name: Name,
        #[arg(long)]
        project: Name,
    },
    /// All applications.
    List,
    /// One application.
    Show { name: Name },
    /// Remove an application that has no version.
    Remove { name: Name },
}

impl Application {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Add { name, project } => {
                let body = json!({ "name": name, "project": project });
                let added: view::Application = client.post("/v1/applications", &body)?;
                print(output, &added, |a| format!("application {} added\n", a.name))
            }
            Self::List => {
                let all: Vec<view::Application> = client.get("/v1/applications", &[])?;
                print(output, &all, |all| rows(all))
            }
            Self::Show { name } => {
                let one: view::Application =
                    client.get(&format!("/v1/applications/{name}"), &[])?;
                print(output, &one, |one| rows(std::slice::from_ref(one)))
            }
            Self::Remove { name } => client.delete(&format!("/v1/applications/{name}"), &[]),
        }
    }
}

fn rows(all: &[view::Application]) -> String {
    let row = |a: &view::Application| {
        [a.name.to_string(), a.project.to_string(), list(&a.versions), time::text(a.created_at)]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(["NAME", "PROJECT", "VERSIONS", "CREATED"], &rows)
}
