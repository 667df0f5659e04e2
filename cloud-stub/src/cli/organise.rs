//! `customer`, `project`, `application`.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use wherry_bundle::Name;

use super::client::Api;
use super::table::{Output, columns, facts, list, print};
use crate::view;

#[derive(Debug, Subcommand)]
pub enum Customer {
    /// Add a customer.
    Add { name: Name },
    /// List all customers.
    List,
    /// Show one customer.
    Show { name: Name },
    /// Remove a customer that has no project.
    Remove { name: Name },
}

impl Customer {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        match self {
            Self::Add { name } => api.create("/v1/customers", &json!({ "name": name })),
            Self::Remove { name } => api.delete(&format!("/v1/customers/{name}"), &[]),
            Self::List => {
                let all: Vec<view::Customer> = api.get("/v1/customers", &[])?;
                print(output, &all, |all| {
                    columns(
                        ["NAME", "PROJECTS"],
                        all.iter().map(|c| [c.name.to_string(), list(&c.projects)]),
                    )
                })
            }
            Self::Show { name } => {
                let one: view::Customer = api.get(&format!("/v1/customers/{name}"), &[])?;
                print(output, &one, |c| {
                    facts([("name", c.name.to_string()), ("projects", list(&c.projects))])
                })
            }
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Project {
    /// Add a project of a customer.
    Add {
        name: Name,
        #[arg(long)]
        customer: Name,
    },
    /// List all projects.
    List,
    /// Show one project.
    Show { name: Name },
    /// Remove a project that has neither node nor application.
    Remove { name: Name },
}

impl Project {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        match self {
            Self::Add { name, customer } => {
                api.create("/v1/projects", &json!({ "name": name, "customer": customer }))
            }
            Self::Remove { name } => api.delete(&format!("/v1/projects/{name}"), &[]),
            Self::List => {
                let all: Vec<view::Project> = api.get("/v1/projects", &[])?;
                print(output, &all, |all| {
                    let rows = all.iter().map(|p| {
                        let counts = [p.nodes.len().to_string(), list(&p.applications)];
                        let [nodes, applications] = counts;
                        [p.name.to_string(), p.customer.to_string(), nodes, applications]
                    });
                    columns(["NAME", "CUSTOMER", "NODES", "APPLICATIONS"], rows)
                })
            }
            Self::Show { name } => {
                let one: view::Project = api.get(&format!("/v1/projects/{name}"), &[])?;
                print(output, &one, |p| {
                    facts([
                        ("name", p.name.to_string()),
                        ("customer", p.customer.to_string()),
                        ("nodes", list(&p.nodes)),
                        ("applications", list(&p.applications)),
                    ])
                })
            }
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Application {
    /// Add an application of a project.
    Add {
        name: Name,
        #[arg(long)]
        project: Name,
    },
    /// List all applications.
    List,
    /// Show one application.
    Show { name: Name },
    /// Remove an application that has no version.
    Remove { name: Name },
}

impl Application {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        match self {
            Self::Add { name, project } => {
                api.create("/v1/applications", &json!({ "name": name, "project": project }))
            }
            Self::Remove { name } => api.delete(&format!("/v1/applications/{name}"), &[]),
            Self::List => {
                let all: Vec<view::Application> = api.get("/v1/applications", &[])?;
                print(output, &all, |all| {
                    let rows = all.iter().map(|a| {
                        let newest = a.versions.last().map(ToString::to_string).unwrap_or_default();
                        [a.name.to_string(), a.project.to_string(), newest]
                    });
                    columns(["NAME", "PROJECT", "NEWEST"], rows)
                })
            }
            Self::Show { name } => {
                let one: view::Application = api.get(&format!("/v1/applications/{name}"), &[])?;
                print(output, &one, |a| {
                    facts([
                        ("name", a.name.to_string()),
                        ("project", a.project.to_string()),
                        ("versions", list(&a.versions)),
                    ])
                })
            }
        }
    }
}
