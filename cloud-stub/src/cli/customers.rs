//! `wherry-cloud customer …`

use clap::Subcommand;
use serde_json::json;
use wherry_bundle::Name;

use super::client::{CliError, Client};
use super::output::{list, print, table};
use super::{Output, time};
use crate::view;

#[derive(Debug, Subcommand)]
pub(super) enum Customer {
    /// Add a customer.
    Add { name: Name },
    /// All customers.
    List,
    /// One customer.
    Show { name: Name },
    /// Remove a customer that has no project.
    Remove { name: Name },
}

impl Customer {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Add { name } => {
                let added: view::Customer =
                    client.post("/v1/customers", &json!({ "name": name }))?;
                print(output, &added, |c| format!("customer {} added\n", c.name))
            }
            Self::List => {
                let all: Vec<view::Customer> = client.get("/v1/customers", &[])?;
                print(output, &all, |all| rows(all))
            }
            Self::Show { name } => {
                let one: view::Customer = client.get(&format!("/v1/customers/{name}"), &[])?;
                print(output, &one, |one| rows(std::slice::from_ref(one)))
            }
            Self::Remove { name } => client.delete(&format!("/v1/customers/{name}"), &[]),
        }
    }
}

fn rows(all: &[view::Customer]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|c| [c.name.to_string(), list(&c.projects), time::text(c.created_at)])
        .collect();
    table(["NAME", "PROJECTS", "CREATED"], &rows)
}
