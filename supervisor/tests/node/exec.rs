//! Commands that a person runs in containers.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use wherry_runtime::terminal::Pair;

use crate::rig::{Rig, bundle, deployment};

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
