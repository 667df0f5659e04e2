//! The prober: a process forked for each probe, gone as soon as its answer is
//! known, or for a command that a person runs. What a program sends back is
//! parsed here, without privileges, and never in the launcher.
//!
//! HTTP and TCP: from the pod's network namespace, as nobody. A command: in
//! the container's namespaces and cgroup, as the container's own user with
//! exactly its capabilities and its filter of system calls. (libcontainer's way
//! into a running container needs its state folder, which only the container's
//! own mount namespace has.) Never here: deadlines; the launcher kills what
//! takes too long.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, chdir, execve, setgroups, setresgid, setresuid, setsid};
use wherry_bundle::limits::cut;
use wherry_cgroups::{CgroupPath, Tree};

use crate::creator::forget_oom_protection;
use crate::folders::PodFolder;
use crate::oci::{DEFAULT_PATH, OPEN_FILES_SOFT};
use crate::process::{Identity, Stat, exit_of};
use crate::proto::{ContainerSpec, ProbeCheck, Words, split_words};
use crate::seccomp::Filter;
use crate::sys;

/// As in Kubernetes, so that applications find it in their logs.
const USER_AGENT: &str = "wherry-probe";
/// `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;
/// The prober's pipe, and a command's streams behind it; nothing else of the
/// launcher's is left open.
const PIPE_FD: i32 = 3;
/// Before the number of a wait status, in the pipe.
pub const ENDED: char = '=';
/// What a program in a terminal finds that is told nothing else.
const TERM: &str = "TERM=xterm";
/// The status line is at the beginning of the first of them.
const ANSWER_BYTES_MAX: usize = 1024;
const STATUS_LINE_BYTES_MAX: usize = 80;
/// As a shell has it.
const NOT_EXECUTED: i32 = 127;
/// The order matters: the user's right to the others ends with the mount
/// namespace's `/proc`.
const NAMESPACES: [&str; 6] = ["ipc", "uts", "net", "cgroup", "pid", "mnt"];

/// One probe. All of it was checked.
#[derive(Debug)]
pub struct Job<'a> {
    pub task: Task<'a>,
    pub pod: &'a PodFolder,
    /// `None`: the host's network.
    pub address: Option<Ipv4Addr>,
    /// The container's first process.
    pub init: Identity,
    pub spec: &'a ContainerSpec,
    pub tree: &'a Tree,
    pub cgroup: &'a CgroupPath,
}

#[derive(Clone, Copy, Debug)]
pub enum Task<'a> {
    Check(&'a ProbeCheck),
    /// A command of a person's: three streams, or one terminal.
    Command {
        args: &'a Words,
        streams: &'a [OwnedFd],
        terminal: bool,
    },
}

/// Runs in the forked child, and ends with its exit status: 0 is success,
/// else the pipe says what came instead. Of a command that ended it says the
/// wait status, behind [`ENDED`].
pub fn run(job: &Job<'_>, pipe: &PipeWriter, launcher: Pid) -> i32 {
    sys::reset_signals();
    let streams = match job.task {
        Task::Command { streams, .. } => streams,
        Task::Check(_) => &[],
    };
    let Ok((pipe, streams)) = keep_only(pipe, streams) else { return 1 };
    sys::clear_environment();
    let _ = nix::sys::prctl::set_name(c"wherry-prober");
    let mut pipe = File::from(pipe);
    // A process group of its own: `kill(0, …)` of a command, which knows no pid
    // namespaces, must not reach the launcher, and at the deadline what the
    // command started ends with it.
    let alone = setsid().map_err(io::Error::from).and_then(|_| sys::die_with_parent(launcher));
    let result = match alone {
        Ok(true) => match job.task {
            Task::Check(check) => probe(job, check, &pipe, launcher),
            Task::Command { args, terminal, .. } => {
                let args: Vec<&str> = split_words(args).collect();
                let ended = exec(job, &args, &pipe, streams, terminal);
                ended.map(|status| drop(writeln!(&pipe, "{ENDED}{status}")))
            }
        },
        Ok(false) => Err("the launcher is gone".into()),
        Err(error) => Err(format!("standing alone: {error}")),
    };
    let Err(text) = result else { return 0 };
    // The status says that it failed, should this not get through.
    let _ = writeln!(pipe, "{text}");
    1
}

/// Closes all of the launcher's descriptors but these.
fn keep_only(pipe: &PipeWriter, streams: &[OwnedFd]) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
    let first = PIPE_FD + 1;
    let after = first + i32::try_from(streams.len()).unwrap_or(i32::MAX - first);
    // Out of the way of the numbers that they get.
    let aside = |fd: &OwnedFd| fcntl(fd.as_raw_fd(), FcntlArg::F_DUPFD_CLOEXEC(after));
    let aside = streams.iter().map(aside).collect::<Result<Vec<_>, _>>()?;
    sys::place_fd(pipe.as_fd(), PIPE_FD)?;
    for (from, to) in aside.into_iter().zip(first..) {
        nix::unistd::dup2(from, to)?;
    }
    sys::close_from(after);
    let streams = (first..after).map(sys::take_inherited_fd).collect::<io::Result<_>>()?;
    Ok((sys::take_inherited_fd(PIPE_FD)?, streams))
}

fn probe(job: &Job<'_>, check: &ProbeCheck, pipe: &File, launcher: Pid) -> Result<(), String> {
    let address = IpAddr::V4(job.address.unwrap_or(Ipv4Addr::LOCALHOST));
    match check {
        ProbeCheck::Exec { args } => {
            let args: Vec<&str> = split_words(args).collect();
            let null = OpenOptions::new().read(true).write(true).open("/dev/null");
            let null = OwnedFd::from(null.map_err(|error| error.to_string())?);
            match exec(job, &args, pipe, vec![null], false)? {
                0 => Ok(()),
                status => Err(exit_of(status).to_string()),
            }
        }
        ProbeCheck::TcpConnect { port } => {
            become_nobody(job, launcher)?;
            connect(SocketAddr::new(address, *port)).map(drop)
        }
        ProbeCheck::HttpGet { port, path, headers } => {
            become_nobody(job, launcher)?;
            let stream = connect(SocketAddr::new(address, *port))?;
            let headers: Vec<&str> = split_words(headers).collect();
            get(stream, &format!("{address}:{port}"), path, &headers)
        }
    }
}

/// In the pod's network namespace, with no rights.
fn become_nobody(job: &Job<'_>, launcher: Pid) -> Result<(), String> {
    if job.address.is_some() {
        let path = job.pod.namespace("net");
        let netns = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    sys::set_privileges(0, || set_user(NOBODY, NOBODY, &[])).map_err(privileges)?;
    // Changing the user ended that.
    sys::die_with_parent(launcher).map_err(privileges)?;
    Ok(())
}

fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).map_err(|error| format!("connecting to {address}: {error}"))
}

fn get(mut stream: TcpStream, host: &str, path: &str, headers: &[&str]) -> Result<(), String> {
    let says = |name: &str| {
        let own =
            |header: &&str| header.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        headers.iter().any(own)
    };
    let mut request = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in
        [("Host", host), ("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Connection", "close")]
    {
        if !says(name) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("asking {host}: {error}"))?;
    judge(&status_line(stream).map_err(|error| format!("reading from {host}: {error}"))?)
}

fn status_line(mut stream: TcpStream) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut buffer = [0_u8; ANSWER_BYTES_MAX];
    while answer.len() < ANSWER_BYTES_MAX && !answer.contains(&b'\n') {
        let room = buffer.get_mut(..ANSWER_BYTES_MAX - answer.len()).unwrap_or_default();
        match stream.read(room)? {
            0 => break,
            count => answer.extend_from_slice(room.get(..count).unwrap_or_default()),
        }
    }
    let line = answer.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().to_owned())
}

/// `HTTP/1.1 204 No Content` is success.
fn judge(line: &str) -> Result<(), String> {
    let shown: String =
        cut(line, STATUS_LINE_BYTES_MAX).chars().filter(|c| !c.is_control()).collect();
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/"));
    let status = words.next().and_then(|word| word.parse::<u16>().ok()).filter(|_| is_http);
    match status {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None => Err(format!("no HTTP answer: `{shown}`")),
    }
}

/// Runs a command in the container and waits for its end: its wait status.
/// `streams`: one for all, or three.
fn exec(
    job: &Job<'_>,
    args: &[&str],
    pipe: &File,
    streams: Vec<OwnedFd>,
    terminal: bool,
) -> Result<i32, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    job.tree.join_self(job.cgroup).map_err(|error| text(&error))?;
    forget_oom_protection();
    enter(job.init).map_err(|error| format!("entering the container: {error}"))?;
    // What the command sends to its group does not end the one who waits.
    SigSet::all().thread_block().map_err(|error| text(&error))?;
    // The new pid namespace is for children only.
    let child = sys::fork_child(|| {
        sys::reset_signals();
        let error = become_program(job.spec, args, &streams, terminal);
        let mut pipe = pipe;
        let _ = writeln!(pipe, "`{}` cannot be executed: {error}", args.first().unwrap_or(&""));
        NOT_EXECUTED
    })
    .map_err(|error| text(&error))?;
    // Whoever reads what it wrote sees its end by that alone.
    drop(streams);
    sys::wait_for(child).map_err(|error| text(&error))
}

fn enter(init: Identity) -> io::Result<()> {
    let pid = init.pid;
    let open = |kind: &str| File::open(PathBuf::from(format!("/proc/{pid}/ns/{kind}")));
    let mut namespaces = Vec::new();
    for kind in NAMESPACES {
        namespaces.push(open(kind)?);
    }
    // The launcher may have reaped it meanwhile, and the number be another
    // process's: looked at afterwards, what was opened is known to be its own.
    if Stat::read(pid)?.start_ticks != init.start_ticks {
        return Err(Errno::ESRCH.into());
    }
    for namespace in namespaces {
        setns(namespace, CloneFlags::empty())?;
    }
    Ok(())
}

/// Never returns if all goes well.
fn become_program(
    spec: &ContainerSpec,
    args: &[&str],
    streams: &[OwnedFd],
    terminal: bool,
) -> String {
    if let Err(error) = prepare(spec, streams, terminal) {
        return error.to_string();
    }
    let words = |words: &[&str]| -> Vec<CString> {
        words.iter().filter_map(|word| CString::new(*word).ok()).collect()
    };
    let mut env: Vec<&str> = split_words(&spec.env).collect();
    if !env.iter().any(|word| word.starts_with("PATH=")) {
        env.push(DEFAULT_PATH);
    }
    if terminal && !env.iter().any(|word| word.starts_with("TERM=")) {
        env.push(TERM);
    }
    let path = env.iter().find_map(|word| word.strip_prefix("PATH=")).unwrap_or_default();
    let program = args.first().copied().unwrap_or_default();
    let (argv, envp) = (words(args), words(&env));
    if let Some(Err(error)) = Filter::of_container(spec).as_ref().map(Filter::install) {
        return format!("filtering its system calls: {error}");
    }
    let mut last = Errno::ENOENT;
    for candidate in candidates(program, path) {
        let Ok(candidate) = CString::new(candidate) else { continue };
        let Err(error) = execve(&candidate, &argv, &envp);
        // What is found and may not be run says more than what is not found.
        if error != Errno::ENOENT && error != Errno::ENOTDIR {
            last = error;
        }
    }
    last.desc().to_owned()
}

fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    path.split(':').filter(|folder| !folder.is_empty()).map(|f| format!("{f}/{program}")).collect()
}

fn prepare(spec: &ContainerSpec, streams: &[OwnedFd], terminal: bool) -> io::Result<()> {
    for number in 0..=2 {
        let own = usize::try_from(number).ok().and_then(|number| streams.get(number));
        let stream = own.or(streams.first()).ok_or(Errno::EBADF)?;
        sys::place_fd(stream.as_fd(), number)?;
    }
    if terminal {
        setsid()?;
        sys::control_terminal(std::io::stdin().as_fd())?;
    }
    umask(Mode::from_bits_truncate(0o022));
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_SOFT.min(hard), hard)?;
    chdir(Path::new(spec.working_dir.as_str()))?;
    // The container may have made a symlink of it, to a descriptor of this very
    // process (CVE-2024-21626): the kernel has no path to what is outside.
    nix::unistd::getcwd()?;
    let user = || set_user(spec.uid, spec.gid, &spec.additional_gids);
    sys::set_privileges(spec.capabilities, user)?;
    // Changing the user ended that. Whether the prober still lives cannot be
    // asked: it has no number in this pid namespace.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

fn set_user(uid: u32, gid: u32, additional: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = additional.iter().map(|&gid| Gid::from_raw(gid)).collect();
    setgroups(&groups)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

fn privileges(error: io::Error) -> String {
    format!("giving up rights: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_success_of_http_is_one() {
        for line in ["HTTP/1.1 200 OK", "HTTP/1.0 204", "HTTP/1.1 399 x"] {
            assert_eq!(judge(line), Ok(()), "{line}");
        }
        assert_eq!(judge("HTTP/1.1 503 Unavailable"), Err("status 503".into()));
        for line in ["", "200", "SSH-2.0-x 200", "HTTP/1.1", "HTTP/1.1 ok", "\x1b[2J"] {
            assert!(judge(line).unwrap_err().starts_with("no HTTP answer"), "{line}");
        }
    }

    #[test]
    fn a_program_is_looked_for_along_the_path() {
        assert_eq!(candidates("/bin/x", "/a:/b"), ["/bin/x"]);
        assert_eq!(candidates("x", "/a::/b"), ["/a/x", "/b/x"]);
    }
}
