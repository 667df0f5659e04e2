//! The command line: a file a group of commands, all of one shape. Everything
//! but `serve`, `template` and `completion` is a client of the HTTP API.
//!
//! What was asked for goes to standard output, everything else to standard
//! error. Exit status 0 is success, 1 a failure, 2 a wrong command line
//! or, of `template check`, a file that cannot be read; of `exec` it is the
//! command's.

mod applications;
mod archive;
mod broker_url;
mod carried;
mod client;
mod completion;
mod customers;
mod exec;
mod images;
mod logs;
mod nodes;
mod output;
mod projects;
mod rollouts;
mod serve;
mod templates;
mod time;
mod versions;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use client::{CliError, Client};

/// Where the API is when nobody says.
const API: &str = "http://127.0.0.1:8700";

#[derive(Debug, Parser)]
#[command(name = "wherry-cloud", version, about, long_about = None)]
struct Arguments {
    /// Address of the API.
    #[arg(long, global = true, env = "WHERRY_CLOUD_API", default_value = API, value_name = "URL")]
    api: String,
    /// How to print what was asked for: table or json. Of `version export` the
    /// file to write, `-` for standard output.
    #[arg(short, long, global = true, value_name = "FORMAT")]
    output: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: database, broker and API.
    Serve(serve::Serve),
    /// Who fleets belong to.
    #[command(subcommand)]
    Customer(customers::Customer),
    /// Nodes and applications that belong together.
    #[command(subcommand)]
    Project(projects::Project),
    /// Gateways.
    #[command(subcommand)]
    Node(nodes::Node),
    /// What projects deploy.
    #[command(subcommand)]
    Application(applications::Application),
    /// Container images.
    #[command(subcommand)]
    Image(images::Image),
    /// Versions of applications.
    #[command(subcommand)]
    Version(versions::Version),
    /// What versions are made of; works without a server.
    #[command(subcommand)]
    Template(templates::Template),
    /// Bringing versions to nodes.
    #[command(subcommand)]
    Rollout(rollouts::Rollout),
    /// Log lines of a node's containers.
    Logs(logs::Logs),
    /// Run a command in a container of a node, and end with its exit status.
    Exec(exec::Exec),
    /// What happened on a node.
    Events(nodes::Events),
    /// The key that nodes trust.
    #[command(subcommand)]
    Key(nodes::Key),
    /// What a shell needs to complete this command line.
    Completion(completion::Completion),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", error.report());
            error.status()
        }
    }
}

fn run(Arguments { api, output, command }: Arguments) -> Result<(), CliError> {
    let client = Client::new(&api);
    // Its output is a file.
    let command = match command {
        Command::Version(versions::Version::Export(export)) => return export.run(&client, output),
        command => command,
    };
    let output = output.map_or(Output::Table, |format| format_of(&format));
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Customer(command) => command.run(&client, output),
        Command::Project(command) => command.run(&client, output),
        Command::Node(command) => command.run(&client, output),
        Command::Application(command) => command.run(&client, output),
        Command::Image(command) => command.run(&client, output),
        Command::Version(command) => command.run(&client, output),
        Command::Template(command) => command.run(output),
        Command::Rollout(command) => command.run(&client, output),
        Command::Logs(command) => command.run(&client, output),
        Command::Exec(command) => command.run(&client, output),
        Command::Events(command) => command.run(&client, output),
        Command::Key(command) => command.run(&client, output),
        Command::Completion(command) => command.run(Arguments::command()),
    }
}

/// A word that is no format is a wrong command line.
fn format_of(word: &str) -> Output {
    Output::from_str(word, true).unwrap_or_else(|_| {
        let what = format!("`{word}` is no output: write `-o table` or `-o json`\n");
        Arguments::command().error(ErrorKind::InvalidValue, what).exit()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
