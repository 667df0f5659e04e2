//! Probes of real containers, and single containers that are ended.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{BufRead, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use support::{Node, eventually, name, pod, script};
use wherry_bundle::message::Exit;
use wherry_runtime::proto::{ContainerState, Notice, ProbeCheck, Request, join_words};
use wherry_runtime::terminal::Pair;

/// Says what it finds in `/tmp/out` once `/tmp/done` is there.
const TELLS: &str = "until [ -f /tmp/done ]; do sleep 0.05; done; cat /tmp/out; exec sleep 1000";
const ADDRESS: [u8; 4] = [10, 87, 5, 3];

fn request(container: &str, check: ProbeCheck, timeout_millis: u32) -> Request {
    let (pod, container) = (name("web-0"), name(container));
    Request::Probe { pod, container, check: Box::new(check), timeout_millis }
}

fn exec(args: &[&str]) -> ProbeCheck {
    ProbeCheck::Exec { args: join_words(args.iter().copied()).unwrap() }
}

fn http(port: u16, path: &str, headers: &[&str]) -> ProbeCheck {
    let headers = join_words(headers.iter().copied()).unwrap();
    ProbeCheck::HttpGet { port, path: path.try_into().unwrap(), headers }
}

#[test]
fn a_command_runs_as_the_container_would() {
    let mut node = Node::new("pe");
    let mut main = script("main", TELLS);
    (main.uid, main.gid) = (1000, 1001);
    main.additional_gids.push(7).unwrap();
    main.capabilities = 1 << 10;
    main.working_dir = "/tmp".try_into().unwrap();
    main.env = join_words(["PATH=/nowhere:/bin", "LION=roars"]).unwrap();
    node.create(&pod("web-0", &["main"], Some(ADDRESS)), &[main]);
    let output = node.reader("web-0", "main", "stdout");
    let init = node.start_container("web-0", "main");
    let look = "{ cat /proc/self/status /etc/layer; id; pwd; umask; echo $LION; hostname; \
        ls -l /proc/self/fd; cat /proc/self/cgroup; echo children $(ls -d /proc/[0-9]*); } \
        > out 2>&1; touch done";
    node.ask(request("main", exec(&["sh", "-c", look]), 5_000)).unwrap();
    let text = output.wait_for("children");
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapInh:\t0000000000000400",
        "CapEff:\t0000000000000400",
        "CapBnd:\t0000000000000400",
        "CapAmb:\t0000000000000400",
        "SigBlk:\t0000000000000000",
        "uid=1000 gid=1001 groups=7",
        "top",
        "/tmp",
        "0022",
        "roars",
        "web-0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    // Standard streams; the one that `ls` opens is gone when it looks.
    assert_eq!(text.lines().filter(|line| line.contains(" -> ")).count(), 3, "{text}");
    // The pid and cgroup namespaces are the container's.
    assert!(text.contains("children /proc/1 "), "{text}");
    assert!(!text.contains("wherry-test"), "{text}");
    let groups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    assert!(groups.contains("web-0"), "{groups}");
}

#[test]
fn what_came_instead_of_success_is_told() {
    let mut node = Node::new("pf");
    node.create(&pod("web-0", &["main"], Some(ADDRESS)), &[script("main", "exec sleep 1000")]);
    let start = exec(&["true"]);
    assert_eq!(node.ask(request("main", start, 1_000)).unwrap_err(), "it does not run");
    node.start_container("web-0", "main");
    let mut fails = |check, timeout| node.ask(request("main", check, timeout)).unwrap_err();
    assert_eq!(fails(exec(&["sh", "-c", "exit 3"]), 5_000), "exit code 3");
    assert_eq!(fails(exec(&["sh", "-c", "kill -9 $$"]), 5_000), "signal 9");
    let text = fails(exec(&["no-such-program"]), 5_000);
    assert_eq!(text, "`no-such-program` cannot be executed: No such file or directory");
    let text = fails(exec(&["/etc/layer"]), 5_000);
    assert_eq!(text, "`/etc/layer` cannot be executed: Permission denied");
    let begin = Instant::now();
    assert_eq!(fails(exec(&["sleep", "1000"]), 300), "no answer within 300 ms");
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(fails(exec(&[]), 300).contains("no command"));
    assert!(fails(http(80, "/a b", &[]), 300).contains("not one word"));
    let text = fails(ProbeCheck::TcpConnect { port: 81 }, 5_000);
    assert!(text.contains("10.87.5.3:81") && text.contains("refused"), "{text}");
    // What hung is gone, and what it started too.
    let nested = exec(&["sh", "-c", "sleep 4321 & sleep 4321; true"]);
    assert_eq!(fails(nested, 300), "no answer within 300 ms");
    let left = || {
        let all = support::output("ps", &["-eo", "comm,args"]);
        all.contains("wherry-prober") || all.contains("sleep 4321")
    };
    eventually("the end of what hung", || (!left()).then_some(()));
}

#[test]
fn a_command_that_signals_its_group_reaches_nobody_else() {
    let mut node = Node::new("pg");
    node.create(&pod("web-0", &["main"], Some(ADDRESS)), &[script("main", "exec sleep 1000")]);
    node.start_container("web-0", "main");
    let deaf = exec(&["sh", "-c", "trap '' TERM; kill -15 0; exit 0"]);
    node.ask(request("main", deaf, 5_000)).unwrap();
    let dead = exec(&["sh", "-c", "kill -9 0"]);
    assert_eq!(node.ask(request("main", dead, 5_000)).unwrap_err(), "signal 9");
    node.ask(request("main", exec(&["sh", "-c", ":"]), 5_000)).unwrap();
    assert!(matches!(node.state_of("web-0", "main"), ContainerState::Running { .. }));
}

#[test]
fn http_and_tcp_are_tried_at_the_pods_own_address() {
    let mut node = Node::new("ph");
    let serve = "mkdir /tmp/www; echo hello > /tmp/www/index.html; \
        exec httpd -f -p 80 -h /tmp/www";
    let silent = "while :; do nc -l -p 90 -e sleep 1000; done";
    let rude = "while :; do echo who is there | nc -l -p 91; done";
    let containers = [script("main", serve), script("silent", silent), script("rude", rude)];
    node.create(&pod("web-0", &["main", "silent", "rude"], Some(ADDRESS)), &containers);
    for container in ["main", "silent", "rude"] {
        node.start_container("web-0", container);
    }
    let mut until = |check: ProbeCheck| {
        let begin = Instant::now();
        while let Err(text) = node.ask(request("main", check.clone(), 2_000)) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(ProbeCheck::TcpConnect { port: 80 });
    until(http(80, "/", &["X-Lion: roars", "Host: lion"]));
    let mut fails = |check, timeout| node.ask(request("main", check, timeout)).unwrap_err();
    assert_eq!(fails(http(80, "/nothing", &[]), 2_000), "status 404");
    let begin = Instant::now();
    while fails(http(90, "/", &[]), 300) != "no answer within 300 ms" {
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    let begin = Instant::now();
    while fails(http(91, "/", &[]), 2_000) != "no HTTP answer: `who is there`" {
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn what_hangs_delays_nobody() {
    let mut node = Node::new("pd");
    node.create(
        &pod("web-0", &["main", "late"], Some(ADDRESS)),
        &[script("main", "exec sleep 1000"), script("late", "exec sleep 1000")],
    );
    node.start_container("web-0", "main");
    let hang = || request("main", exec(&["sleep", "1000"]), 60_000);
    let hanging: Vec<u32> = (0..20).map(|_| node.send(hang())).collect();
    let begin = Instant::now();
    node.start_container("web-0", "late");
    node.ask(request("main", exec(&["sh", "-c", ":"]), 20_000)).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30), "they waited for the others");
    // The pod takes them along.
    node.ask(Request::RemovePod { pod: name("web-0") }).unwrap();
    for seq in hanging {
        assert_eq!(node.answer(seq).unwrap_err(), "signal 9");
    }
    assert!(node.list().is_empty());
}

#[test]
fn one_container_is_ended_and_the_other_stays() {
    let mut node = Node::new("p1");
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let gentle = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let containers = [script("deaf", deaf), script("gentle", gentle)];
    node.create(&pod("web-0", &["deaf", "gentle"], None), &containers);
    let outputs = ["deaf", "gentle"].map(|container| node.reader("web-0", container, "stdout"));
    for container in ["deaf", "gentle"] {
        node.start_container("web-0", container);
    }
    outputs.iter().for_each(|output| drop(output.wait_for("ready")));
    let terminate = |container: &str| Request::TerminateContainer {
        pod: name("web-0"),
        container: name(container),
    };
    node.ask(terminate("deaf")).unwrap();
    node.ask(terminate("gentle")).unwrap();
    assert_eq!(node.exit_of("gentle"), Exit::Code(9));
    assert!(matches!(node.state_of("web-0", "deaf"), ContainerState::Running { .. }));
    node.start_container("web-0", "gentle");
    outputs[1].wait_for("ready");
    let kill = Request::KillContainer { pod: name("web-0"), container: name("deaf") };
    node.ask(kill.clone()).unwrap();
    assert_eq!(node.exit_of("deaf"), Exit::Signal(9));
    assert!(matches!(node.state_of("web-0", "gentle"), ContainerState::Running { .. }));
    node.ask(kill).unwrap();
    node.ask(terminate("nobody")).unwrap();
}

fn exec_in(node: &mut Node, args: &[&str], streams: &[OwnedFd], terminal: bool) -> u32 {
    let args = Box::new(join_words(args.iter().copied()).unwrap());
    let (pod, container) = (name("web-0"), name("main"));
    node.send_with(Request::Exec { pod, container, args, terminal }, streams)
}

fn ended(node: &mut Node, wanted: u32) -> Result<Exit, String> {
    node.wait_for(|notice| match notice {
        Notice::Ended { seq, exit } if *seq == wanted => Some(Ok(*exit)),
        Notice::Failed { seq, error } if *seq == wanted => Some(Err(error.to_string())),
        _ => None,
    })
}

/// The ends of pipes for a command, and ours of its output.
fn pipes(input: &str) -> (Vec<OwnedFd>, PipeReader, PipeReader) {
    let (stdin, mut write) = std::io::pipe().unwrap();
    write.write_all(input.as_bytes()).unwrap();
    let (output, stdout) = std::io::pipe().unwrap();
    let (errors, stderr) = std::io::pipe().unwrap();
    (vec![stdin.into(), stdout.into(), stderr.into()], output, errors)
}

#[test]
fn a_persons_command_has_their_streams_and_its_own_end() {
    let mut node = Node::new("xc");
    node.create(&pod("web-0", &["main"], Some(ADDRESS)), &[script("main", "exec sleep 1000")]);
    node.start_container("web-0", "main");
    let (streams, mut output, mut errors) = pipes("roar\n");
    let look = "read word; echo $word $HOSTNAME; ls /proc/self/fd | wc -l; echo aside >&2; \
        grep Seccomp: /proc/self/status; exit 7";
    let seq = exec_in(&mut node, &["sh", "-c", look], &streams, false);
    drop(streams);
    assert_eq!(ended(&mut node, seq), Ok(Exit::Code(7)));
    let (mut text, mut aside) = (String::new(), String::new());
    output.read_to_string(&mut text).unwrap();
    errors.read_to_string(&mut aside).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // `ls` opens the folder.
    assert_eq!((&lines[..], aside.as_str()), (&["roar web-0", "4", "Seccomp:\t2"][..], "aside\n"));

    let (streams, _output, _errors) = pipes("");
    let seq = exec_in(&mut node, &["no-such"], &streams, false);
    let error = ended(&mut node, seq).unwrap_err();
    assert!(error.contains("`no-such` cannot be executed"), "{error}");
    let seq = exec_in(&mut node, &["true"], &[], false);
    assert!(ended(&mut node, seq).unwrap_err().contains("did not come with it"));

    // It is killed when nobody wants it any more, and the container goes on.
    let (streams, output, _errors) = pipes("");
    let seq = exec_in(&mut node, &["sh", "-c", "echo there; exec sleep 1000"], &streams, false);
    let mut line = String::new();
    std::io::BufReader::new(output).read_line(&mut line).unwrap();
    node.ask(Request::EndExec { of: seq }).unwrap();
    assert_eq!(ended(&mut node, seq), Ok(Exit::Signal(9)));
    assert!(matches!(node.state_of("web-0", "main"), ContainerState::Running { .. }));
}

#[test]
fn a_terminal_is_the_commands_own() {
    let mut node = Node::new("xt");
    node.create(&pod("web-0", &["main"], Some(ADDRESS)), &[script("main", "exec sleep 1000")]);
    node.start_container("web-0", "main");
    let Pair { master, program } = Pair::new().unwrap();
    let look = "[ -t 0 ] && echo is one; echo $TERM; read line; echo got $line; exec sleep 1000";
    let seq = exec_in(&mut node, &["sh", "-c", look], &[program], true);
    let mut master = std::fs::File::from(master);
    master.write_all(b"roar\n").unwrap();
    let mut text = String::new();
    let mut reader = std::io::BufReader::new(master.try_clone().unwrap());
    while !text.contains("got roar") {
        reader.read_line(&mut text).unwrap();
    }
    assert!(text.contains("is one") && text.contains("xterm"), "{text}");
    // Ctrl-C goes to what runs in it.
    master.write_all(b"\x03").unwrap();
    assert_eq!(ended(&mut node, seq), Ok(Exit::Signal(2)));
}
