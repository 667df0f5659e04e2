//! What the words of a command line mean. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use wherry_bundle::Name;
use wherry_bundle::message::LogQuery;

use super::help::Topic;
use crate::config::CONFIG_PATH;
use crate::control::Exec;

/// Events that are shown unless asked otherwise.
const EVENTS_TAIL: u32 = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Run {
        config: PathBuf,
    },
    /// Started by the launcher only.
    Supervisor {
        config: PathBuf,
    },
    /// The machine's first program.
    Init {
        config: PathBuf,
    },
    Reboot,
    PowerOff,
    Check {
        config: Option<PathBuf>,
        output: Output,
    },
    Ps {
        place: Place,
        output: Output,
    },
    Status {
        /// A report for the cloud goes there.
        export: Option<PathBuf>,
        place: Place,
        output: Output,
    },
    /// A carried file is taken up.
    Apply {
        file: PathBuf,
        place: Place,
    },
    Describe {
        pod: Name,
        place: Place,
        output: Output,
    },
    Top {
        pod: Option<Name>,
        follow: bool,
        place: Place,
        output: Output,
    },
    Completion,
    Exec {
        exec: Exec,
        /// Standard input is passed on.
        stdin: bool,
        place: Place,
    },
    Events {
        tail: u32,
        place: Place,
        output: Output,
    },
    Logs {
        query: LogQuery,
        times: bool,
        place: Place,
        output: Output,
    },
    Stop {
        all: bool,
        place: Place,
    },
    /// Newer generations are kept back, or no longer.
    Hold {
        hold: bool,
        place: Place,
    },
    Volumes {
        place: Place,
        output: Output,
    },
    RemoveVolume {
        name: Name,
        place: Place,
    },
    Version,
    Help(Topic),
}

/// Where the node is; see `socket` in the module above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub config: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// What is wrong with a command line, and where to look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; see `{hint}`")]
pub struct Wrong {
    what: String,
    hint: String,
}

/// Every option that any command takes; which ones it does is in `Topic`.
#[derive(Debug, Default)]
struct Options {
    place: Place,
    output: Output,
    pod: Option<Name>,
    container: Option<Name>,
    follow: bool,
    times: bool,
    all: bool,
    tail: Option<u32>,
    since_seconds: Option<u64>,
    file: Option<PathBuf>,
    stdin: bool,
    terminal: bool,
    /// What is run in a container, or done with a volume.
    words: Vec<String>,
}

/// Reads a command line; the program's name comes first.
///
/// # Errors
/// [`Wrong`] says which word is wrong and which help page to read.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Wrong> {
    let mut words = lexopt::Parser::from_iter(args);
    let general = |what: String| Wrong { what, hint: "wherry help".into() };
    let topic = match words.next().map_err(|error| general(error.to_string()))? {
        None => return Err(general("a command is missing".into())),
        Some(Short('h') | Long("help")) => return Ok(Command::Help(Topic::General)),
        Some(Short('V') | Long("version")) => return Ok(Command::Version),
        Some(Value(word)) => {
            let word = word.to_string_lossy().into_owned();
            Topic::named(&word).ok_or_else(|| general(format!("there is no command `{word}`")))?
        }
        Some(other) => return Err(general(other.unexpected().to_string())),
    };
    let wrong = |what: String| Wrong { what, hint: format!("wherry help {}", topic.name()) };
    if topic == Topic::General {
        return help_topic(&mut words).map_err(general);
    }
    match options(topic, &mut words) {
        Ok(None) => Ok(Command::Help(topic)),
        Ok(Some(options)) => command(topic, options).map_err(wrong),
        Err(error) => Err(wrong(error)),
    }
}

/// The options and words after the command; `None` if help is asked for.
fn options(topic: Topic, words: &mut lexopt::Parser) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    let text = |error: lexopt::Error| error.to_string();
    while let Some(word) = words.next().map_err(text)? {
        let name = match &word {
            Short(letter) => format!("-{letter}"),
            Long(name) => format!("--{name}"),
            Value(value) => {
                if topic == Topic::Volume && options.words.len() < 2 {
                    options.words.push(utf8(value.clone())?);
                    continue;
                }
                if topic == Topic::Apply && options.file.is_none() {
                    options.file = Some(value.into());
                    continue;
                }
                if topic == Topic::Exec && options.pod.is_some() {
                    let mut command = vec![value.clone()];
                    command.extend(words.raw_args().map_err(text)?);
                    options.words = command.into_iter().map(utf8).collect::<Result<_, _>>()?;
                    return Ok(Some(options));
                }
                if !topic.takes_pod() || options.pod.is_some() {
                    return Err(format!("`{}` is one word too many", value.to_string_lossy()));
                }
                options.pod = Some(name_of(value, "POD")?);
                continue;
            }
        };
        if matches!(name.as_str(), "-h" | "--help") {
            return Ok(None);
        }
        if !topic.options().contains(&name.as_str()) {
            let known = topic.options().join(" ");
            return Err(format!("unknown option `{name}` of `wherry {}` ({known})", topic.name()));
        }
        let mut value = || words.value().map_err(text);
        match name.as_str() {
            "--config" => options.place.config = Some(value()?.into()),
            "--run-dir" => options.place.run_dir = Some(value()?.into()),
            "-o" | "--output" => options.output = output(&value()?)?,
            "-c" | "--container" => options.container = Some(name_of(&value()?, "--container")?),
            "--tail" => options.tail = Some(number(&value()?, "--tail")?),
            "--since" => options.since_seconds = Some(seconds(&value()?)?),
            "-f" | "--follow" => options.follow = true,
            "-i" | "--stdin" => options.stdin = true,
            "-t" | "--tty" if topic == Topic::Exec => options.terminal = true,
            "-t" | "--times" => options.times = true,
            "--all" => options.all = true,
            "--export" => options.file = Some(value()?.into()),
            other => return Err(format!("unknown option `{other}`")),
        }
    }
    Ok(Some(options))
}

fn command(topic: Topic, options: Options) -> Result<Command, String> {
    let Options { place, output, pod, container, follow, times, all, tail, .. } = options;
    let Options { since_seconds, file, stdin, terminal, words, .. } = options;
    let config = || place.config.clone().unwrap_or_else(|| CONFIG_PATH.into());
    if topic == Topic::Top {
        return Ok(Command::Top { pod, follow, place, output });
    }
    let pod = || pod.ok_or("which pod? Give the name of a pod or a deployment");
    Ok(match topic {
        Topic::Run => Command::Run { config: config() },
        Topic::Supervisor => Command::Supervisor { config: config() },
        Topic::Init => Command::Init { config: config() },
        Topic::Reboot => Command::Reboot,
        Topic::PowerOff => Command::PowerOff,
        Topic::Check => Command::Check { config: place.config, output },
        Topic::Ps => Command::Ps { place, output },
        Topic::Status => Command::Status { export: file, place, output },
        Topic::Apply => {
            let file = file.ok_or("which file? `-` is standard input")?;
            Command::Apply { file, place }
        }
        Topic::Describe => Command::Describe { pod: pod()?, place, output },
        Topic::Events => Command::Events { tail: tail.unwrap_or(EVENTS_TAIL), place, output },
        Topic::Logs => {
            let query = LogQuery { pod: pod()?, container, tail, since_seconds, follow };
            Command::Logs { query, times, place, output }
        }
        Topic::Exec => {
            let pod = pod()?;
            if words.is_empty() {
                return Err("which command? Write it behind `--`".into());
            }
            let exec = Exec { pod, container, args: words, terminal };
            Command::Exec { exec, stdin, place }
        }
        Topic::Volume => volume(&words, place, output)?,
        Topic::Stop => Command::Stop { all, place },
        Topic::Hold => Command::Hold { hold: true, place },
        Topic::Release => Command::Hold { hold: false, place },
        Topic::Completion => Command::Completion,
        Topic::Version => Command::Version,
        Topic::General | Topic::Top => Command::Help(Topic::General),
    })
}

fn volume(words: &[String], place: Place, output: Output) -> Result<Command, String> {
    match words {
        [verb] if verb == "ls" => Ok(Command::Volumes { place, output }),
        [verb, name] if verb == "rm" => {
            let name = Name::new(name).map_err(|error| format!("NAME: {error}"))?;
            Ok(Command::RemoveVolume { name, place })
        }
        _ => Err("say `ls`, or `rm NAME`".into()),
    }
}

/// `wherry help [COMMAND]`.
fn help_topic(words: &mut lexopt::Parser) -> Result<Command, String> {
    match words.next().map_err(|error| error.to_string())? {
        None => Ok(Command::Help(Topic::General)),
        Some(Value(word)) => {
            let word = word.to_string_lossy().into_owned();
            let topic = Topic::named(&word).ok_or(format!("there is no command `{word}`"))?;
            Ok(Command::Help(topic))
        }
        Some(Short('h') | Long("help")) => Ok(Command::Help(Topic::General)),
        Some(other) => Err(other.unexpected().to_string()),
    }
}

fn output(value: &OsString) -> Result<Output, String> {
    match value.to_str() {
        Some("json") => Ok(Output::Json),
        Some("table") => Ok(Output::Table),
        Some(_) | None => {
            Err(format!("`{}` is no output: use json or table", value.to_string_lossy()))
        }
    }
}

fn utf8(word: OsString) -> Result<String, String> {
    word.into_string().map_err(|word| format!("`{}` is not UTF-8", word.to_string_lossy()))
}

fn name_of(value: &OsString, what: &str) -> Result<Name, String> {
    Name::new(&value.to_string_lossy()).map_err(|error| format!("{what}: {error}"))
}

fn number(value: &OsString, option: &str) -> Result<u32, String> {
    let text = value.to_string_lossy();
    text.parse().map_err(|_| format!("{option}: `{text}` is not a number of lines"))
}

/// `90s`, `5m`, `1h30m`, `2d`; a bare number is seconds.
fn seconds(value: &OsString) -> Result<u64, String> {
    let text = value.to_string_lossy();
    let wrong = || format!("--since: `{text}` is not a time: write 90s, 5m, 1h30m or 2d");
    let (mut total, mut number) = (0_u64, None::<u64>);
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            let so_far = number.unwrap_or(0).checked_mul(10);
            number = Some(so_far.and_then(|n| n.checked_add(digit.into())).ok_or_else(wrong)?);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let length = number.take().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
        total = total.checked_add(length).ok_or_else(wrong)?;
    }
    match number {
        Some(seconds) if total == 0 => Ok(seconds),
        None if !text.is_empty() => Ok(total),
        Some(_) | None => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("wherry").chain(line.split_whitespace());
        super::parse(words.map(OsString::from)).map_err(|wrong| wrong.to_string())
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn commands_are_understood() {
        let place = Place::default();
        let at = Place { config: Some("/w.toml".into()), run_dir: None };
        let query = LogQuery {
            pod: name("web-1"),
            container: Some(name("lion")),
            tail: Some(5),
            since_seconds: Some(5400),
            follow: true,
        };
        for (line, command) in [
            ("run", Command::Run { config: CONFIG_PATH.into() }),
            ("run --config=/w.toml", Command::Run { config: "/w.toml".into() }),
            ("supervisor --config /w.toml", Command::Supervisor { config: "/w.toml".into() }),
            ("init", Command::Init { config: CONFIG_PATH.into() }),
            ("init --config /w.toml", Command::Init { config: "/w.toml".into() }),
            ("reboot", Command::Reboot),
            ("poweroff", Command::PowerOff),
            ("check", Command::Check { config: None, output: Output::Table }),
            (
                "check -o json --config /w.toml",
                Command::Check { config: Some("/w.toml".into()), output: Output::Json },
            ),
            ("ps", Command::Ps { place: place.clone(), output: Output::Table }),
            ("ps -o json --config /w.toml", Command::Ps { place: at, output: Output::Json }),
            (
                "status -ojson",
                Command::Status { export: None, place: place.clone(), output: Output::Json },
            ),
            (
                "describe web -o table",
                Command::Describe { pod: name("web"), place: place.clone(), output: Output::Table },
            ),
            (
                "events --tail 7",
                Command::Events { tail: 7, place: place.clone(), output: Output::Table },
            ),
            (
                "logs -c lion web-1 -f --tail=5 --since 1h30m -t",
                Command::Logs { query, times: true, place: place.clone(), output: Output::Table },
            ),
            (
                "stop --all --run-dir /r",
                Command::Stop {
                    all: true,
                    place: Place { config: None, run_dir: Some("/r".into()) },
                },
            ),
            ("hold", Command::Hold { hold: true, place: place.clone() }),
            ("release", Command::Hold { hold: false, place: place.clone() }),
            (
                "top",
                Command::Top {
                    pod: None,
                    follow: false,
                    place: place.clone(),
                    output: Output::Table,
                },
            ),
            (
                "top web -f",
                Command::Top {
                    pod: Some(name("web")),
                    follow: true,
                    place: place.clone(),
                    output: Output::Table,
                },
            ),
            ("completion", Command::Completion),
            (
                "exec web -c lion -it -- sh -c x -i",
                Command::Exec {
                    exec: Exec {
                        pod: name("web"),
                        container: Some(name("lion")),
                        args: ["sh", "-c", "x", "-i"].map(str::to_owned).into(),
                        terminal: true,
                    },
                    stdin: true,
                    place: place.clone(),
                },
            ),
            (
                "exec web-1 ls -l",
                Command::Exec {
                    exec: Exec {
                        pod: name("web-1"),
                        container: None,
                        args: ["ls", "-l"].map(str::to_owned).into(),
                        terminal: false,
                    },
                    stdin: false,
                    place: place.clone(),
                },
            ),
            ("version", Command::Version),
            ("--version", Command::Version),
            ("help", Command::Help(Topic::General)),
            ("help logs", Command::Help(Topic::Logs)),
            ("--help", Command::Help(Topic::General)),
            ("logs --help", Command::Help(Topic::Logs)),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_help_offered() {
        for (line, parts) in [
            ("", &["a command is missing", "`wherry help`"][..]),
            ("check --run-dir /r", &["`--run-dir`", "`wherry help check`"]),
            ("lgos", &["no command `lgos`"]),
            ("--al", &["--al"]),
            ("ps --follow", &["`--follow`", "`wherry ps`", "-o", "`wherry help ps`"]),
            ("logs web --tial 3", &["`--tial`", "--tail", "`wherry help logs`"]),
            ("logs", &["which pod?"]),
            ("logs web db", &["`db` is one word too many"]),
            ("ps web", &["`web` is one word too many"]),
            ("exec web", &["which command?", "`--`"]),
            ("exec -- ls", &["which command?"]),
            ("logs WEB", &["POD", "`WEB`"]),
            ("logs web --tail", &["--tail"]),
            ("logs web --tail x", &["--tail", "`x`"]),
            ("logs web --since 5x", &["--since", "`5x`", "1h30m"]),
            ("status -o yaml", &["`yaml`", "json or table"]),
            ("stop --all=1", &["--all"]),
            ("help lgos", &["no command `lgos`"]),
        ] {
            let error = parse(line).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "`{line}`: `{part}` is not in: {error}");
            }
        }
    }

    #[test]
    fn times_are_read() {
        for (text, wanted) in [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("1h30m", Some(5400)),
            ("2d", Some(172_800)),
            ("0s", Some(0)),
            ("", None),
            ("h", None),
            ("1h30", None),
            ("-1s", None),
            ("99999999999999999999", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(seconds(&text.into()).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        for topic in Topic::ALL {
            assert_eq!(Topic::named(topic.name()), Some(topic));
            let page = super::super::help::text(topic);
            for option in topic.options() {
                assert!(page.contains(option), "`{option}` is not on the page of {topic:?}");
            }
        }
    }
}
