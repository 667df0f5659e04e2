//! The command line: one file a group of commands, all of one shape. Each
//! talks to the HTTP API only; `serve` is the server itself.

mod client;
mod image;
mod logs;
mod node;
mod organise;
mod rollout;
mod table;
mod version;

use anyhow::Result;
use clap::{Parser, Subcommand};

use client::Api;
use table::Output;

const EXAMPLES: &str = "Examples:
  wherry-cloud serve --data /var/lib/wherry-cloud
  wherry-cloud customer add acme
  wherry-cloud project add plant --customer acme
  wherry-cloud node add gw-1 --project plant --arch arm64 --label site=berlin
  wherry-cloud node config gw-1 > wherry.toml
  wherry-cloud application add shop --project plant
  wherry-cloud image import nginx.tar --name nginx:1.22
  wherry-cloud version create -f version.yaml
  wherry-cloud rollout start --version shop@1.0.0.1 --nodes site=berlin
  wherry-cloud rollout status
  wherry-cloud logs gw-1 web -f";

/// The cloud of Wherry: organises nodes, makes versions, rolls them out.
#[derive(Debug, Parser)]
#[command(name = "wherry-cloud", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    /// Where the cloud's API is.
    #[arg(long, global = true, env = "WHERRY_CLOUD_API", default_value = "http://127.0.0.1:8700")]
    api: String,
    /// How what is read is printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: API, broker, database.
    Serve(crate::serve::ServeArgs),
    /// Those for whom projects are run.
    #[command(subcommand)]
    Customer(organise::Customer),
    /// What groups nodes and applications.
    #[command(subcommand)]
    Project(organise::Project),
    /// What a project deploys.
    #[command(subcommand)]
    Application(organise::Application),
    /// Gateways.
    #[command(subcommand)]
    Node(node::Node),
    /// Container images.
    #[command(subcommand)]
    Image(image::Image),
    /// Versions of applications.
    #[command(subcommand)]
    Version(version::Version),
    /// Versions on their way to nodes.
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Log lines of a pod, or of all pods of a deployment.
    Logs(logs::Logs),
    /// What happened on a node.
    Events(logs::Events),
    /// The key that nodes have to trust.
    #[command(subcommand)]
    Key(Key),
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Print the public key.
    Show,
}

/// Does what the arguments say.
///
/// # Errors
/// A message for people, with what to do.
pub fn run(arguments: Arguments) -> Result<()> {
    let api = Api::new(&arguments.api);
    let output = arguments.output;
    match arguments.command {
        Command::Serve(serve) => crate::serve::run(serve),
        Command::Customer(command) => command.run(&api, output),
        Command::Project(command) => command.run(&api, output),
        Command::Application(command) => command.run(&api, output),
        Command::Node(command) => command.run(&api, output),
        Command::Image(command) => command.run(&api, output),
        Command::Version(command) => command.run(&api, output),
        Command::Rollout(command) => command.run(&api, output),
        Command::Logs(command) => command.run(&api, output),
        Command::Events(command) => command.run(&api, output),
        Command::Key(Key::Show) => {
            let key: crate::api::Key = api.get("/v1/key", &[])?;
            table::print(output, &key, |key| format!("{}\n", key.public_key))
        }
    }
}
