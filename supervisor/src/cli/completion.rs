//! Completion for bash, made of the same list as the help pages.

use super::help::Topic;

/// A script for bash to read.
#[must_use]
pub fn bash() -> String {
    let names: Vec<&str> = Topic::ALL.iter().map(|topic| topic.name()).collect();
    let cases: String = Topic::ALL.iter().map(|topic| case(*topic)).collect();
    format!(
        "# bash completion of wherry; `wherry completion` prints it.
_wherry() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} words
    if [ \"$COMP_CWORD\" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{}' -- \"$word\"))
        return
    fi
    case $before in
    --config | --run-dir | --export)
        COMPREPLY=($(compgen -f -- \"$word\"))
        return
        ;;
    -o | --output)
        COMPREPLY=($(compgen -W 'json table' -- \"$word\"))
        return
        ;;
    esac
    case ${{COMP_WORDS[1]}} in
{cases}    esac
    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))
}}
complete -o default -F _wherry wherry
",
        names.join(" ")
    )
}

fn case(topic: Topic) -> String {
    let pods =
        if topic.takes_pod() { " $(wherry ps 2>/dev/null | sed -n '2,$s/ .*//p')" } else { "" };
    let words = match topic {
        Topic::General => Topic::ALL.iter().map(|topic| topic.name()).collect(),
        _ => [topic.options(), vec!["--help"]].concat(),
    };
    format!("    {}) words=\"{}{pods}\" ;;\n", topic.name(), words.join(" "))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What bash makes of a line whose last word is to be completed.
    fn completed(line: &str) -> Vec<String> {
        let script = format!(
            "{}\nwherry() {{ printf 'POD PHASE\\nweb-1 available\\ndb-1 waiting\\n'; }}\n\
             COMP_WORDS=({line})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n_wherry\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_options_and_pods() {
        assert_eq!(completed("wherry desc"), ["describe"]);
        assert_eq!(completed("wherry describe we"), ["web-1"]);
        assert_eq!(completed("wherry logs web-1 --fo"), ["--follow"]);
        assert_eq!(completed("wherry ps -o j"), ["json"]);
        assert_eq!(completed("wherry help re"), ["reboot", "release"]);
        assert_eq!(completed("wherry ps we"), Vec::<String>::new());
    }
}
