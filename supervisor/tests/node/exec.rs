//! Commands that a person runs in containers.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use wherry_bundle::exec::{Exec, Executed, SignedExec};
use wherry_bundle::limits::EXEC_OUTPUT_BYTES_MAX;
use wherry_bundle::message::{Exit, Order, Outcome};
use wherry_runtime::terminal::Pair;

use crate::cloud::Cloud;
use crate::rig::{Rig, bundle, deployment, key, name};

const SERVES: &str = "echo lion > /tmp/lion; exec sleep 1000000";

fn exec(rig: &Rig, words: &[&str]) -> (Option<i32>, String, String) {
    let output = rig.cli(&[&["exec"], words].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_persons_command_is_run_told_of_and_ended_with_them() {
    let mut rig = Rig::new("exec");
    let layer = rig.layer();
    let two = deployment("web", 1, &[], &[("main", SERVES), ("side", SERVES)]);
    rig.take_up(&bundle(1, layer, vec![two]));
    rig.start();
    rig.wait_running();
    let (code, text, aside) =
        exec(&rig, &["web", "--", "sh", "-c", "cat /tmp/lion; echo $HOSTNAME >&2; exit 7"]);
    assert_eq!((code, text.as_str(), aside.as_str()), (Some(7), "lion\n", "web-1\n"));
    assert_eq!(exec(&rig, &["web-1", "-c", "side", "sh", "-c", ":"]).0, Some(0));
    assert_eq!(exec(&rig, &["web-1", "--", "sh", "-c", "kill -9 $$"]).0, Some(137));
    for (words, why) in [
        (&["db", "true"][..], "there is no pod or deployment `db`"),
        (&["web-1", "-c", "aside", "true"], "has no container `aside`, only: main, side"),
        (&["web-1", "no-such"], "`no-such` cannot be executed"),
    ] {
        let (code, _, aside) = exec(&rig, words);
        assert!(code == Some(1) && aside.contains(why), "{code:?} {aside}");
    }
    let events = rig.out(&["events"]);
    for text in ["a person runs `sh -c :`", "exit 7` ended: exit code 7", "ended: signal 9"] {
        assert!(events.contains(text), "{text} is not in\n{events}");
    }

    // Standard input goes through, and whoever is gone ends their command.
    let mut command =
        rig.command_line(&["exec", "web-1", "-i", "--", "sh", "-c", "cat; sleep 999"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"roar\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "roar\n");
    child.kill().unwrap();
    child.wait().unwrap();
    rig.wait("the command's end", |rig| rig.out(&["events"]).contains("sleep 999` ended"));
    assert!(rig.json(&["ps"])[0]["phase"] == "available");
}

#[test]
fn a_terminal_is_passed_on() {
    let mut rig = Rig::new("tty");
    let layer = rig.layer();
    rig.take_up(&bundle(1, layer, vec![deployment("web", 1, &[], &[("main", SERVES)])]));
    rig.start();
    rig.wait_running();
    let Pair { master, program } = Pair::new().unwrap();
    let stream = |program: &OwnedFd| Stdio::from(program.try_clone().unwrap());
    let look = "[ -t 0 ] && echo is one; read line; echo got $line; exec sleep 999";
    let mut command: Command = rig.command_line(&["exec", "web", "-it", "--", "sh", "-c", look]);
    command.stdin(stream(&program)).stdout(stream(&program)).stderr(stream(&program));
    let mut child = command.spawn().unwrap();
    drop((command, program));
    let mut master = std::fs::File::from(master);
    let mut reader = BufReader::new(master.try_clone().unwrap());
    let mut text = String::new();
    while !text.contains("is one") {
        reader.read_line(&mut text).unwrap();
    }
    master.write_all(b"roar\r").unwrap();
    while !text.contains("got roar") {
        reader.read_line(&mut text).unwrap();
    }
    // Ctrl-C is for the command in the container, not for this one.
    master.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
}

/// A cloud that has commands run: each order has an id of its own.
struct Remote {
    cloud: Cloud,
    next_id: u64,
}

impl Remote {
    fn order(&mut self, order: Order) -> u64 {
        self.next_id += 1;
        self.cloud.order(self.next_id, order);
        self.next_id
    }

    /// Signed, with a number that the node gave.
    fn sealed(&mut self, words: &[&str], change: impl FnOnce(&mut Exec)) -> SignedExec {
        let id = self.order(Order::PrepareExec);
        let Ok(Outcome::Prepared(nonce)) = self.cloud.outcome(id).0 else { panic!("no number") };
        let mut exec = Exec {
            node: name("gw-1"),
            nonce,
            pod: name("web"),
            container: None,
            args: words.iter().map(|word| (*word).to_owned()).collect(),
            seconds_max: 30,
            asked_by: "anna@desk".into(),
        };
        change(&mut exec);
        SignedExec::seal(&exec, &key()).unwrap()
    }

    fn begin(&mut self, words: &[&str], change: impl FnOnce(&mut Exec)) -> u64 {
        let sealed = self.sealed(words, change);
        self.order(Order::Exec(sealed))
    }

    fn executed(&self, id: u64) -> Result<Executed, String> {
        self.cloud.outcome(id).0.map(|outcome| match outcome {
            Outcome::Executed(executed) => executed,
            other => panic!("{other:?}"),
        })
    }

    fn run(&mut self, words: &[&str], change: impl FnOnce(&mut Exec)) -> Result<Executed, String> {
        let id = self.begin(words, change);
        self.executed(id)
    }
}

#[test]
fn the_cloud_has_commands_run_unless_that_is_forbidden() {
    let mut rig = Rig::new("far");
    let layer = rig.layer();
    let two = deployment("web", 1, &[], &[("main", SERVES), ("side", SERVES)]);
    rig.take_up(&bundle(1, layer, vec![two]));
    let cloud = Cloud::start(&rig);
    rig.start();
    rig.wait_running();
    cloud.status("the node", |status| status.phase.is_running());
    let mut remote = Remote { cloud, next_id: 0 };
    let unchanged = |_: &mut Exec| {};

    let ran = remote.run(&["sh", "-c", "cat /tmp/lion; echo $HOSTNAME >&2; exit 7"], unchanged);
    let ran = ran.unwrap();
    assert_eq!((ran.exit, ran.timed_out), (Exit::Code(7), false));
    assert_eq!((&*ran.stdout.bytes, &*ran.stderr.bytes), (&b"lion\n"[..], &b"web-1\n"[..]));
    // Nobody types; what is too much is counted; what is left behind is left.
    let much = "cat; sleep 999 & exec cat /bin/busybox";
    let ran = remote.run(&["sh", "-c", much], |exec| exec.container = Some(name("side"))).unwrap();
    let size = std::fs::metadata("/bin/busybox").unwrap().len();
    assert_eq!((ran.exit, ran.stdout.bytes.len()), (Exit::Code(0), EXEC_OUTPUT_BYTES_MAX));
    assert_eq!(ran.stdout.bytes_dropped, size - EXEC_OUTPUT_BYTES_MAX as u64);

    for (change, why) in [
        (
            &(|exec: &mut Exec| exec.pod = name("db")) as &dyn Fn(&mut Exec),
            "`db`, only the pods: web-1",
        ),
        (
            &|exec| exec.container = Some(name("aside")),
            "has no container `aside`, only: main, side",
        ),
        (&|exec| exec.args = vec!["no-such".into()], "`no-such` cannot be executed"),
        (&|exec| exec.nonce.0[0] ^= 1, "too late, or twice"),
        (&|exec| exec.node = name("gw-2"), "the order is for node `gw-2`"),
    ] {
        let error = remote.run(&["true"], change).unwrap_err();
        assert!(error.contains(why), "{error}, not {why}");
    }
    let sealed = remote.sealed(&["sh", "-c", ":"], unchanged);
    let [first, again] = [sealed.clone(), sealed].map(|sealed| remote.order(Order::Exec(sealed)));
    assert_eq!(remote.executed(first).unwrap().exit, Exit::Code(0));
    assert!(remote.executed(again).unwrap_err().contains("too late, or twice"));

    // A few at a time; ended by their time, or by who asked.
    let [timed, second, third] = [1, 30, 30]
        .map(|seconds| remote.begin(&["sleep", "999"], |exec| exec.seconds_max = seconds));
    let fourth = remote.run(&["true"], unchanged);
    assert!(fourth.unwrap_err().contains("3 commands of the cloud's are under way"));
    let timed = remote.executed(timed).unwrap();
    assert_eq!((timed.exit, timed.timed_out), (Exit::Signal(9), true));
    for id in [second, third] {
        remote.order(Order::End { id });
        let ended = remote.executed(id).unwrap();
        assert_eq!((ended.exit, ended.timed_out), (Exit::Signal(9), false));
    }
    remote.cloud.event("anna@desk runs from the cloud `sh -c :`");
    remote.cloud.event("`sleep 999` ended: its time was over (signal 9)");
    assert!(rig.out(&["events"]).contains("exit 7` ended: exit code 7"));
    assert!(rig.json(&["ps"])[0]["phase"] == "available");

    rig.kill();
    let mut config = std::fs::OpenOptions::new().append(true).open(rig.config()).unwrap();
    config.write_all(b"[exec]\nfrom_cloud = false\n").unwrap();
    rig.start();
    remote.cloud.status("the node again", |status| status.phase.is_running());
    let id = remote.order(Order::PrepareExec);
    let error = remote.cloud.outcome(id).0.unwrap_err();
    assert!(error.contains("takes no commands from the cloud"), "{error}");
}
