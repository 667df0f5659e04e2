//! Help pages, and which options a command takes.

const PLACE: [&str; 2] = ["--config", "--run-dir"];

/// A command, or the overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    General,
    Run,
    Supervisor,
    Init,
    Reboot,
    PowerOff,
    Check,
    Ps,
    Status,
    Describe,
    Top,
    Events,
    Logs,
    Exec,
    Apply,
    Volume,
    Stop,
    Hold,
    Release,
    Completion,
    Version,
}

impl Topic {
    pub const ALL: [Self; 21] = [
        Self::General,
        Self::Run,
        Self::Supervisor,
        Self::Init,
        Self::Reboot,
        Self::PowerOff,
        Self::Check,
        Self::Ps,
        Self::Status,
        Self::Describe,
        Self::Top,
        Self::Events,
        Self::Logs,
        Self::Exec,
        Self::Apply,
        Self::Volume,
        Self::Stop,
        Self::Hold,
        Self::Release,
        Self::Completion,
        Self::Version,
    ];

    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Some(match word {
            "help" => Self::General,
            "run" => Self::Run,
            "supervisor" => Self::Supervisor,
            "init" => Self::Init,
            "reboot" => Self::Reboot,
            "poweroff" => Self::PowerOff,
            "check" => Self::Check,
            "ps" => Self::Ps,
            "status" => Self::Status,
            "describe" => Self::Describe,
            "top" => Self::Top,
            "events" => Self::Events,
            "logs" => Self::Logs,
            "exec" => Self::Exec,
            "apply" => Self::Apply,
            "volume" => Self::Volume,
            "stop" => Self::Stop,
            "hold" => Self::Hold,
            "release" => Self::Release,
            "completion" => Self::Completion,
            "version" => Self::Version,
            _ => return None,
        })
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "help",
            Self::Run => "run",
            Self::Supervisor => "supervisor",
            Self::Init => "init",
            Self::Reboot => "reboot",
            Self::PowerOff => "poweroff",
            Self::Check => "check",
            Self::Ps => "ps",
            Self::Status => "status",
            Self::Describe => "describe",
            Self::Top => "top",
            Self::Events => "events",
            Self::Logs => "logs",
            Self::Exec => "exec",
            Self::Apply => "apply",
            Self::Volume => "volume",
            Self::Stop => "stop",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Completion => "completion",
            Self::Version => "version",
        }
    }

    #[must_use]
    pub fn takes_pod(self) -> bool {
        matches!(self, Self::Describe | Self::Logs | Self::Top | Self::Exec)
    }

    /// All options but `--help`.
    #[must_use]
    pub fn options(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Self::General | Self::Version | Self::Completion | Self::Reboot | Self::PowerOff => {
                return Vec::new();
            }
            Self::Run | Self::Supervisor | Self::Init => return vec!["--config"],
            Self::Check => return vec!["--config", "-o", "--output"],
            Self::Ps | Self::Describe | Self::Volume => &["-o", "--output"],
            Self::Status => &["--export", "-o", "--output"],
            Self::Top => &["-f", "--follow", "-o", "--output"],
            Self::Events => &["--tail", "-o", "--output"],
            Self::Logs => &[
                "-c",
                "--container",
                "-f",
                "--follow",
                "--tail",
                "--since",
                "-t",
                "--times",
                "-o",
                "--output",
            ],
            Self::Exec => &["-c", "--container", "-i", "--stdin", "-t", "--tty"],
            Self::Stop => &["--all"],
            Self::Apply | Self::Hold | Self::Release => &[],
        };
        own.iter().chain(&PLACE).copied().collect()
    }
}

/// The page about `topic`.
#[must_use]
pub fn text(topic: Topic) -> String {
    let page = match topic {
        Topic::General => GENERAL,
        Topic::Run => RUN,
        Topic::Supervisor => SUPERVISOR,
        Topic::Init => INIT,
        Topic::Reboot => REBOOT,
        Topic::PowerOff => POWER_OFF,
        Topic::Check => CHECK,
        Topic::Ps => PS,
        Topic::Status => STATUS,
        Topic::Describe => DESCRIBE,
        Topic::Top => TOP,
        Topic::Events => EVENTS,
        Topic::Logs => LOGS,
        Topic::Exec => EXEC,
        Topic::Apply => APPLY,
        Topic::Volume => VOLUME,
        Topic::Stop => STOP,
        Topic::Hold => HOLD,
        Topic::Release => RELEASE,
        Topic::Completion => COMPLETION,
        Topic::Version => VERSION,
    };
    let place = if topic.options().contains(&"--run-dir") { PLACE_PAGE } else { "" };
    format!("{page}{place}")
}

const GENERAL: &str = "\
wherry runs versioned applications on this gateway, as a cloud asks for them.

usage: wherry COMMAND [OPTIONS]

  run               be the node: run until told to stop
  check             what this host offers and lacks for that
  status            how far the node is with what it has to run
  ps                the pods
  describe POD      everything about a pod
  top [POD]         what the pods use
  logs POD          what a pod's containers print
  exec POD -- CMD   run a command in a container
  events            what happened of late
  apply FILE        take up an update that somebody brought
  volume ls         what claims hold (rm NAME: remove one that nothing claims)
  hold              keep newer generations back for now
  release           let newer generations come again
  stop              end the node; containers run on (--all: remove them)
  init              be the machine's first program, and run the node
  reboot            stop the pods with their grace, then reboot
  poweroff          stop the pods with their grace, then switch off
  completion        words for the shell to complete
  version           this program's version
  help [COMMAND]    this page, or a command's

POD is a pod's name, or a deployment's: then all its pods.
Exit codes: 0 done, 1 failed, 2 wrong usage.
";

const RUN: &str = "\
usage: wherry run [--config FILE]

Becomes the node's launcher and starts its supervisor. Needs root. Pods that
were running when the node ended are taken over, not restarted.

  --config FILE     the node's configuration (/etc/wherry/wherry.toml);
                    `wherry-cloud node config NODE` prints it

SIGTERM or SIGINT ends the node; containers run on. The environment variable
WHERRY_LOG sets how much is logged: error, warn, info, debug or trace.

example:
  WHERRY_LOG=debug wherry run --config ./wherry.toml
";

const SUPERVISOR: &str = "\
usage: wherry supervisor --config FILE

Started by `wherry run`; of no use otherwise.
";

const INIT: &str = "\
usage: wherry init [--config FILE]

Is the first program of a machine (init=/sbin/wherry on the kernel's command
line; as process 1, no command means this one). Mounts the system's file
systems, loads modules, sets up the network, has the data partition checked
and mounts it, feeds the watchdog, keeps the node and other services running.

  --config FILE     the node's configuration (/etc/wherry/wherry.toml), whose
                    section [init] says what the machine has

It goes on with what works, and says on the console what does not. SIGTERM and
SIGINT reboot; SIGUSR1, SIGUSR2 and SIGPWR switch off.
";

const REBOOT: &str = "\
usage: wherry reboot

Stops every pod with its grace, writes everything back, unmounts, reboots. For
machines whose first program is `wherry init`. Returns at once.
";

const POWER_OFF: &str = "\
usage: wherry poweroff

Stops every pod with its grace, writes everything back, unmounts, switches
off. For machines whose first program is `wherry init`. Returns at once.
";

const CHECK: &str = "\
usage: wherry check [--config FILE] [-o json|table]

Says what this host offers to Wherry and what it lacks, what a lack means and
what to do. It tries most of it, in namespaces of its own, and leaves nothing
behind; a node may be running. Needs root to be of much use.

  --config FILE     the node's configuration (/etc/wherry/wherry.toml); without
                    one, the defaults are checked
  -o, --output O    json or table

States: ok; degraded, Wherry runs with something missing; lacking, it cannot
run; unknown, it could not be found out. Exits 1 if anything is lacking.

example:
  wherry check -o json | jq -r '.rows[] | select(.state != \"ok\") | .name'
";

const PS: &str = "\
usage: wherry ps [-o json|table]

Lists the pods: how each does, its containers that run, restarts, address.

  -o, --output O    json or table

examples:
  wherry ps
  wherry ps -o json | jq -r '.[] | select(.phase != \"available\") | .name'
";

const STATUS: &str = "\
usage: wherry status [-o json|table] [--export FILE]

Says which generation the node works towards, how far it is, what it refused,
and whether the cloud is there.

  -o, --output O    json or table
  --export FILE     write status and events that the cloud does not know to
                    FILE, for `wherry-cloud node import-status FILE`

examples:
  wherry status -o json | jq -r .phase
  wherry status --export /media/stick/gw-1.report
";

const DESCRIBE: &str = "\
usage: wherry describe POD [-o json|table]

Says everything about a pod, or about all pods of a deployment: containers,
images, limits, what it uses, its latest events.

  -o, --output O    json or table

examples:
  wherry describe web-3
  wherry describe web
";

const TOP: &str = "\
usage: wherry top [POD] [-f] [-o json|table]

Says what each pod uses: processor time over a second (thousandths of a
processor), memory and how much of its limit that is, processes, and, where the
kernel counts it, the percentage of the last ten seconds in which something in
the pod waited for a processor, for memory or for a disk. Largest memory first.

  -f, --follow      again every two seconds, until interrupted
  -o, --output O    json or table

examples:
  wherry top
  wherry top web -f
";

const COMPLETION: &str = "\
usage: wherry completion

Prints what bash needs to complete commands, options and names of pods.

examples:
  wherry completion > /etc/bash_completion.d/wherry
  source <(wherry completion)
";

const EVENTS: &str = "\
usage: wherry events [--tail N] [-o json|table]

Lists what happened of late, oldest first, whether the cloud has it or not.

  --tail N          the newest N (40)
  -o, --output O    json or table

example:
  wherry events --tail 100
";

const LOGS: &str = "\
usage: wherry logs POD [-c CONTAINER] [-f] [--tail N] [--since T]

Prints what the containers of a pod, or of all pods of a deployment, printed.
With more than one of them, each line begins with where it comes from. Logs
are kept in RAM, bounded, and go with their pod.

  -c, --container C only this container
  -f, --follow      go on with new lines until interrupted
  --tail N          the last N lines of each container
  --since T         lines of the last 90s, 5m, 1h30m or 2d
  -t, --times       begin each line with its time
  -o, --output O    table, or json: an object a line

examples:
  wherry logs web -f
  wherry logs web-3 -c nginx --since 10m
";

const EXEC: &str = "\
usage: wherry exec POD [-c CONTAINER] [-i] [-t] -- COMMAND [ARGUMENT...]

Runs a command in a container of a pod, or of a deployment's first pod: as the
container's user, with its rights and limits and no more. Exits as the command
does, 128 and the signal's number if one ended it. An event tells what was run.

  -c, --container C in this container (the pod's first that is no init
                    container and no sidecar)
  -i, --stdin       pass standard input on
  -t, --tty         give it a terminal, which follows the size of this one

examples:
  wherry exec web-3 -- cat /etc/hosts
  wherry exec web -c nginx -it -- sh
  zcat rows.sql.gz | wherry exec db -i -- psql
";

const APPLY: &str = "\
usage: wherry apply FILE [OPTIONS]

Takes up an update that `wherry-cloud version export` wrote, without a network
and with the same checks: signature, addressee, generation, room. Chunks that
the file leaves out come from layers that are here already. After a failure,
what came so far is kept. `-` reads standard input.

examples:
  wherry apply /media/stick/shop.wherry
  zstd -dc shop.wherry.zst | wherry apply -
";

const VOLUME: &str = "\
usage: wherry volume ls [-o json|table]
       wherry volume rm NAME

Lists the folders that PersistentVolumeClaims have on this node's flash: what
each holds, what its claim is for, whether the file system enforces that or it
is only watched, and who uses it. One that no claim names any more stays until
it is removed. What the current or the last good generation claims is not
removed.

  -o, --output O    json or table

examples:
  wherry volume ls -o json | jq -r '.[] | select(.used_by == []) | .name'
  wherry volume rm old-data
";

const STOP: &str = "\
usage: wherry stop [--all]

Ends the node. Its containers run on, and the next `wherry run` takes them
over.

  --all             stop and remove every pod, and all mounts, rules and
                    interfaces made for them; the next `wherry run` starts
                    them anew

examples:
  wherry stop
  wherry stop --all
";

const HOLD: &str = "\
usage: wherry hold [OPTIONS]

Keeps newer generations from being taken up, until `wherry release`, a reboot,
or the time that their version allows. What is under way goes through. The
cloud sees what is held, and why.

";

const RELEASE: &str = "\
usage: wherry release [OPTIONS]

Ends `wherry hold`. Files that hold and update windows (section [update] of the
configuration) count as before.

";

const VERSION: &str = "\
usage: wherry version

Prints this program's version.
";

const PLACE_PAGE: &str = "
Which node:
  --config FILE     its configuration (/etc/wherry/wherry.toml)
  --run-dir DIR     its run folder (/run/wherry)
";
