//! `wherry-cloud completion`: what a shell needs to complete this command line.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use super::client::CliError;

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// It reads what this prints: `wherry-cloud completion bash >
    /// /etc/bash_completion.d/wherry-cloud`.
    shell: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub fn run(self, command: clap::Command) -> Result<(), CliError> {
        Ok(io::stdout().write_all(&script(self.shell, command))?)
    }
}

fn script(shell: Of, mut command: clap::Command) -> Vec<u8> {
    let shell = match shell {
        Of::Bash => Shell::Bash,
        Of::Zsh => Shell::Zsh,
        Of::Fish => Shell::Fish,
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Arguments;

    fn text(shell: Of) -> String {
        String::from_utf8(script(shell, Arguments::command())).unwrap()
    }

    fn bash(words: &[&str]) -> String {
        let output = Command::new("bash").args(words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What bash makes of a line whose last word is to be completed.
    fn completed(line: &[&str]) -> Vec<String> {
        let (last, before) = (line[line.len() - 1], line[line.len() - 2]);
        let script = format!(
            "{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n\
             complete=$(complete -p wherry-cloud)\nfunction=${{complete#*-F }}\n\
             ${{function%% *}} wherry-cloud '{last}' '{before}'\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            text(Of::Bash),
            line.join(" "),
            line.len() - 1
        );
        bash(&["-c", &script]).lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_and_options() {
        bash(&["-n", "-c", &text(Of::Bash)]);
        assert_eq!(completed(&["wherry-cloud", "roll"]), ["rollout"]);
        assert_eq!(completed(&["wherry-cloud", "rollout", "sta"]), ["start", "status"]);
        assert_eq!(completed(&["wherry-cloud", "exec", "--time"]), ["--timeout"]);
    }

    #[test]
    fn other_shells_get_scripts_of_their_own() {
        assert!(text(Of::Zsh).starts_with("#compdef wherry-cloud"));
        assert!(text(Of::Fish).contains("complete -c wherry-cloud"));
        for shell in [Of::Zsh, Of::Fish] {
            assert!(text(shell).contains("rollout") && text(shell).contains("exec"));
        }
    }
}
