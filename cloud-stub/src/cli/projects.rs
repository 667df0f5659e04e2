//! `wherry-cloud project …`

use clap::Subcommand;
use serde_json::json;
use wherry_bundle::Name;

use super::client::{CliError, Client};
use super::output::{list, print, table};
use super::{Output, time};
use crate::view;

#[derive(Debug, Subcommand)]
pub(super) enum Project {
    /// Add a project of a customer.
    Add {
        name: Name,
        #[arg(long)]
        customer: Name,
    },
    /// All projects.
    List,
    /// One project.
    Show { name: Name },
    /// Remove a project that has no node and no application.
    Remove { name: Name },
}

impl Project {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Add { name, customer } => {
                let body = json!({ "name": name, "customer": customer });
                let added: view::Project = client.post("/v1/projects", &body)?;
                print(output, &added, |p| format!("project {} added\n", p.name))
            }
            Self::List => {
                let all: Vec<view::Project> = client.get("/v1/projects", &[])?;
                print(output, &all, |all| rows(all))
            }
            Self::Show { name } => {
                let one: view::Project = client.get(&format!("/v1/projects/{name}"), &[])?;
                print(output, &one, |one| rows(std::slice::from_ref(one)))
            }
            Self::Remove { name } => client.delete(&format!("/v1/projects/{name}"), &[]),
        }
    }
}

fn rows(all: &[view::Project]) -> String {
    let row = |p: &view::Project| {
        let (name, customer) = (p.name.to_string(), p.customer.to_string());
        [name, customer, list(&p.nodes), list(&p.applications), time::text(p.created_at)]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(["NAME", "CUSTOMER", "NODES", "APPLICATIONS", "CREATED"], &rows)
}
