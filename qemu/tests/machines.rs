//! Real machines: each architecture boots Debian's kernel and does what a rig
//! promises.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use wherry_rig::{Arch, Error, Forward, Machine, PowerOff, Rig, Trouble, disk};

const SHORT: Duration = Duration::from_secs(20);

/// An emulated machine takes a processor of the two that CI has, however many
/// tests run at a time.
static PLACES: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];

fn place() -> MutexGuard<'static, ()> {
    loop {
        for place in &PLACES {
            match place.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(failed)) => return failed.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Everything that one machine can be asked for without ending it, then a
/// boot of a second one from what the first left on its disk.
fn check(arch: Arch, machine_name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    disk::make(&image, 64, None).unwrap();
    let mut machine = Machine::new(arch);
    machine.boot_limit = Duration::from_secs(30);
    machine.disk = Some(image);
    machine.forwards = vec![Forward { host: free_port(), guest: 8000 }];

    let rig = machine.boot().unwrap();
    assert_eq!(rig.check(&["uname", "-m"], SHORT).unwrap().trim(), machine_name);
    commands(&rig);
    files(&rig);
    root_can_be_left(&rig);
    network(&rig, &machine);
    rig.check(&["sh", "-c", "echo kept >/data/a; sync; echo lost >/data/b"], SHORT).unwrap();
    let folder = rig.folder().to_owned();
    rig.cut_power().unwrap();
    assert!(!rig.is_running());
    let error = rig.run(&["true"], SHORT).unwrap_err().to_string();
    assert!(error.starts_with("`true`: the power was cut\n"), "{error}");
    drop(rig);
    assert!(!folder.exists());

    let rig = machine.boot().unwrap();
    assert_eq!(rig.get("/data/a").unwrap(), b"kept\n");
    assert!(rig.get("/data/b").is_err());
    rig.check(&["sh", "-c", "echo in order >/data/c"], SHORT).unwrap();
    rig.run(&["poweroff"], SHORT).unwrap();
    assert_eq!(rig.wait_power_off(SHORT).unwrap(), PowerOff::Shutdown);
    drop(rig);

    let rig = machine.boot().unwrap();
    assert_eq!(rig.get("/data/c").unwrap(), b"in order\n");
    let clean = rig.check(&["dmesg"], SHORT).unwrap();
    assert!(!clean.contains("recovery complete"), "{clean}");
    rig.run(&["reboot"], SHORT).unwrap();
    assert_eq!(rig.wait_power_off(SHORT).unwrap(), PowerOff::Reset);
    assert_eq!(rig.trouble(), None);
}

fn commands(rig: &Rig) {
    let both = ["sh", "-c", "printf 'a\\0b\\n'; echo bad >&2; exit 7"];
    let output = rig.run(&both, SHORT).unwrap();
    assert_eq!((output.status, output.stdout), (7, b"a\0b\n".to_vec()));
    assert_eq!(output.stderr, b"bad\n");
    let words = ["printf", "%s|", "a b", "$(id)", "x\ny", r"\n", ""];
    assert_eq!(rig.check(&words, SHORT).unwrap(), "a b|$(id)|x\ny|\\n||");
    assert_eq!(rig.run(&["no-such-program"], SHORT).unwrap().status, 127);

    let error = rig.run(&["sleep", "60"], Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.starts_with("`sleep 60` did not end within 1s\n"), "{error}");
    assert!(error.contains("\n$ no-such-program\n"), "{error}");

    let pid = rig.start(&["sh", "-c", "echo begun; sleep 60"], "/tmp/log").unwrap();
    rig.check(&["kill", "-0", &pid.to_string()], SHORT).unwrap();
    assert_eq!(rig.get("/tmp/log").unwrap(), b"begun\n");
    rig.check(&["kill", &pid.to_string()], SHORT).unwrap();
}

fn files(rig: &Rig) {
    let content: Vec<u8> =
        (0..700_001u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    rig.put("/tmp/new folder/file", 0o640, &content).unwrap();
    let begin = Instant::now();
    let back = rig.get("/tmp/new folder/file").unwrap();
    let differs = back.iter().zip(&content).position(|(a, b)| a != b);
    assert_eq!((back.len(), differs), (content.len(), None));
    assert!(begin.elapsed() < SHORT);
    let mode = rig.check(&["stat", "-c", "%a", "/tmp/new folder/file"], SHORT).unwrap();
    assert_eq!(mode, "640\n");
    assert!(rig.put("/proc/no", 0o644, b"x").is_err());
    let error = rig.get("/no").unwrap_err().to_string();
    assert!(error.starts_with("cannot read /no\n"), "{error}");
}

/// Containers leave their root by pivot_root(2), which the kernel's first
/// root refuses.
fn root_can_be_left(rig: &Rig) {
    let script = "mkdir -p /tmp/new/old && mount -t tmpfs new /tmp/new && mkdir /tmp/new/old && \
        cd /tmp/new && busybox pivot_root . old && [ -d /old/bin ]";
    rig.check(&["unshare", "-m", "sh", "-c", script], SHORT).unwrap();
    let controllers = rig.get("/sys/fs/cgroup/cgroup.controllers").unwrap();
    let controllers = String::from_utf8(controllers).unwrap();
    for wanted in ["cpu", "memory", "pids"] {
        assert!(controllers.split_whitespace().any(|name| name == wanted), "{controllers}");
    }
}

fn network(rig: &Rig, machine: &Machine) {
    // out: a listener on the host's loopback
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let there = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the host\n").unwrap();
    });
    let heard = rig.check(&["nc", "10.0.2.2", &port], SHORT).unwrap();
    assert_eq!(heard, "from the host\n");
    there.join().unwrap();

    // in: a port of the host that leads to the machine's
    let serve = ["nc", "-ll", "-p", "8000", "-e", "echo", "from the machine"];
    let pid = rig.start(&serve, "/tmp/nc").unwrap();
    let begin = Instant::now();
    let heard = loop {
        match ask(machine.forwards[0].host) {
            heard if !heard.is_empty() => break heard,
            _ if begin.elapsed() > SHORT => panic!("nothing heard\n{}", rig.transcript()),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    assert_eq!(heard, "from the machine\n");
    rig.check(&["kill", &pid.to_string()], SHORT).unwrap();

    let carrier = || rig.get("/sys/class/net/eth0/carrier").unwrap();
    rig.link(false).unwrap();
    assert_eq!(carrier(), b"0\n");
    rig.link(true).unwrap();
    assert_eq!(carrier(), b"1\n");
}

fn ask(port: u16) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let _ = stream.read_to_string(&mut text);
    }
    text
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn aarch64() {
    let _place = place();
    check(Arch::Aarch64, "aarch64");
}

#[test]
fn armv7() {
    let _place = place();
    check(Arch::Armv7, "armv7l");
}

#[test]
fn x86_64() {
    let _place = place();
    check(Arch::X86_64, "x86_64");
}

#[test]
fn a_panic_is_noticed_by_whoever_waits() {
    let _place = place();
    let rig = Machine::new(Arch::Aarch64).boot().unwrap();
    let panic = ["sh", "-c", "echo c >/proc/sysrq-trigger"];
    match rig.run(&panic, SHORT).unwrap_err() {
        Error::Failed { what, trouble: Some(Trouble::Panic(line)), transcript } => {
            assert!(what.contains("the machine ended"), "{what}");
            assert!(line.contains("sysrq triggered crash"), "{line}");
            assert!(transcript.contains("Kernel panic"), "{transcript}");
        }
        other => panic!("{other}"),
    }
    assert!(rig.wait_power_off(SHORT).is_err(), "a panic is no power-off");
}

#[test]
fn nothing_runs_longer_than_its_limit() {
    let _place = place();
    let mut machine = Machine::new(Arch::Aarch64);
    machine.time_limit = Duration::from_secs(8);
    let begin = Instant::now();
    let rig = machine.boot().unwrap();
    let pid = rig.pid();
    let error = rig.run(&["sleep", "60"], Duration::from_secs(60)).unwrap_err().to_string();
    assert!(error.contains("the machine ran for its limit of 8s and was killed"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_machine_without_memory_says_so() {
    let _place = place();
    let mut machine = Machine::new(Arch::Aarch64);
    machine.memory_mib = 40;
    machine.boot_limit = Duration::from_secs(20);
    match machine.boot() {
        Err(Error::Failed { what, transcript, .. }) => {
            assert!(what.starts_with("booting: "), "{what}");
            assert!(transcript.starts_with("-- kernel, last lines\n"), "{transcript}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn writes_are_logged() {
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let (image, log) = (folder.path().join("disk"), folder.path().join("log"));
    disk::make(&image, 64, None).unwrap();
    let mut machine = Machine::new(Arch::Aarch64);
    machine.disk = Some(image);
    machine.log_writes = Some(log.clone());
    let rig = machine.boot().unwrap();
    rig.check(&["sh", "-c", "echo a >/data/a; sync"], SHORT).unwrap();
    rig.cut_power().unwrap();
    // dm-log-writes' magic number, little-endian
    let bytes = std::fs::read(&log).unwrap();
    assert_eq!(bytes[..8], 0x006a_7366_7773_6872_u64.to_le_bytes());
    assert!(bytes.len() > 4096, "{} bytes", bytes.len());
}

/// The program that a person calls; nothing starts the binary that it puts
/// into the machine. What it makes for itself is below `folder`.
fn program(folder: &Path, words: &[&str], typed: &str) -> Output {
    let mut rig = Command::new(env!("CARGO_BIN_EXE_rig"))
        .env("TMPDIR", folder)
        .args(["--binary", "/dev/null"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    rig.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = rig.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("rig: aarch64 with 128 MiB is up\n"), "{said}");
    output
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_program_passes_a_command_s_output_and_status_on() {
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let words = ["--", "sh", "-c", "uname -m; echo bad >&2; exit 7"];
    let output = program(folder.path(), &words, "");
    assert_eq!((output.status.code(), output.stdout), (Some(7), b"aarch64\n".to_vec()));
    assert!(output.stderr.ends_with(b"\nbad\n"));
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}

#[test]
fn the_program_gives_a_shell() {
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), &["--shell"], "echo $((6 * 7)) at /data; exit\n");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("'exit' leaves") && said.contains("42 at /data"), "{said}");
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}

#[test]
fn the_program_keeps_what_a_machine_was() {
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), &["--keep", "--", "sh", "-c", "echo kept >/data/a"], "");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let kept = said.lines().find_map(|line| line.strip_prefix("rig: kept ")).unwrap();
    for name in ["console", "transcript", "initramfs", "disk"] {
        let file = std::fs::metadata(Path::new(kept).join(name));
        assert!(file.is_ok_and(|file| file.is_file()), "{name}");
    }
    let transcript = std::fs::read_to_string(Path::new(kept).join("transcript")).unwrap();
    assert!(transcript.contains("$ sh -c echo kept >/data/a"), "{transcript}");
    let disk = Path::new(kept).join("disk");
    let words = ["--disk", disk.to_str().unwrap(), "--", "cat", "/data/a"];
    assert_eq!(program(folder.path(), &words, "").stdout, b"kept\n");
}

#[test]
fn the_program_takes_the_power_away() {
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let disk = disk.to_str().unwrap();
    let writes = "echo synced >/data/a; sync; echo begun >/data/b; sleep 60; sync";
    let begin = Instant::now();
    let cut = ["--disk", disk, "--cut-power-after", "5", "--", "sh", "-c", writes];
    let output = program(folder.path(), &cut, "");
    assert!(begin.elapsed() < Duration::from_secs(60), "the command ran to its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("rig: the power was cut\n"), "{said}");
    // The disk is as the cut left it: what was not synced never got there.
    let again = program(folder.path(), &["--disk", disk, "--", "ls", "/data"], "");
    let left = String::from_utf8(again.stdout).unwrap();
    assert_eq!(left.lines().filter(|name| *name != "lost+found").collect::<Vec<_>>(), ["a"]);
    assert_eq!(names(folder.path()), ["disk"]);
}
