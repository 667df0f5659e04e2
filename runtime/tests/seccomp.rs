//! What programs in containers may ask of the kernel, by asking it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use support::{Layers, Node, RIG, name, output, pod, script};
use wherry_bundle::Digest;
use wherry_bundle::message::Exit;
use wherry_bundle::model::Seccomp;
use wherry_runtime::proto::{ContainerSpec, ProbeCheck, Request, join_words};

const SYS_ADMIN: u64 = 1 << 21;
const SIGSYS: u8 = 31;

/// Runs the rig in a container, as `change` wants that to be.
fn rig(node: &mut Node, word: &str, change: impl Fn(&mut ContainerSpec)) -> (Exit, String) {
    let mut container = script("main", &format!("exec /rig {word}"));
    container.layers.push(layer(node)).unwrap();
    change(&mut container);
    node.run_script(container)
}

/// The rig and the libraries that it needs, all by their own paths.
fn layer(node: &Node) -> Digest {
    static LAYER: OnceLock<Digest> = OnceLock::new();
    *LAYER.get_or_init(|| pack(node.layers()))
}

fn pack(layers: &Layers) -> Digest {
    layers.of(fill)
}

fn fill(folder: &Path) {
    let place = |from: &str, to: &str| {
        let to = folder.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    place(RIG, "rig");
    // It has nothing to say of a static program.
    let ldd = Command::new("ldd").arg(RIG).output().unwrap();
    let text = String::from_utf8(ldd.stdout).unwrap();
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        place(path, path);
    }
}

fn said<'a>(text: &'a str, call: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(call)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{call} is not in:\n{text}"))
}

#[test]
fn what_no_container_needs_is_refused_and_the_rest_goes_on() {
    let mut node = Node::new("sc");
    let (exit, text) = rig(&mut node, "calls", |_| {});
    assert_eq!(exit, Exit::Code(0), "{text}");
    for call in [
        "keyctl",
        "add_key",
        "bpf",
        "mount",
        "kexec_load",
        "open_by_handle_at",
        "io_uring_setup",
        "userfaultfd",
        "setns",
        "unshare-user",
        "personality",
        "socket-alg",
        "socket-alg-above",
        "socket-vsock",
        "socket-raw",
        "socket-packet",
        "init_module",
    ] {
        assert_eq!(said(&text, call), "EPERM", "{call}");
    }
    for call in ["clone3", "no-call"] {
        assert_eq!(said(&text, call), "ENOSYS", "{call}");
    }
    for call in ["getpid", "ptrace", "unshare-fs", "personality-asked", "socket"] {
        assert_eq!(said(&text, call), "ok", "{call}");
    }
    // The C library asks for clone3 first.
    let (exit, text) = rig(&mut node, "threads", |_| {});
    assert_eq!((exit, text.as_str()), (Exit::Code(0), "threads 6\n"));
}

#[test]
fn without_a_filter_the_kernel_answers_for_itself() {
    let mut node = Node::new("su");
    let unconfined = |spec: &mut ContainerSpec| spec.seccomp = Seccomp::Unconfined;
    let (exit, text) = rig(&mut node, "calls", unconfined);
    assert_eq!(exit, Exit::Code(0), "{text}");
    for (call, answer) in
        [("keyctl", "EOPNOTSUPP"), ("mount", "EFAULT"), ("clone3", "EINVAL"), ("setns", "EBADF")]
    {
        assert_eq!(said(&text, call), answer, "{call}");
    }
    for call in ["getpid", "personality", "socket"] {
        assert_eq!(said(&text, call), "ok", "{call}");
    }
    // Its capabilities are none all the same.
    for call in ["socket-raw", "socket-packet"] {
        assert_eq!(said(&text, call), "EPERM", "{call}");
    }
    assert!(["EPERM", "ENOSYS"].contains(&said(&text, "init_module")));
    for call in ["socket-alg", "socket-vsock"] {
        assert_ne!(said(&text, call), "EPERM", "{call}");
    }
    assert_eq!(said(&text, "no-call"), "ENOSYS");
}

#[test]
fn what_a_capability_is_for_comes_with_it() {
    let mut node = Node::new("sp");
    let text = "busybox mount -t tmpfs none /srv && busybox unshare -m true && \
        busybox umount /srv && echo done";
    let with = |capabilities| {
        let mut container = script("main", text);
        container.capabilities = capabilities;
        container
    };
    assert_eq!(node.run_script(with(SYS_ADMIN)), (Exit::Code(0), "done\n".into()));
    assert_ne!(node.run_script(with(0)).0, Exit::Code(0));
    let (_, text) = rig(&mut node, "calls", |spec| spec.capabilities = SYS_ADMIN);
    assert_eq!(said(&text, "mount"), "EFAULT");
    assert_eq!(said(&text, "clone3"), "EINVAL");
    for call in ["keyctl", "kexec_load", "socket-alg", "open_by_handle_at", "personality"] {
        assert_eq!(said(&text, call), "EPERM", "{call}");
    }
}

#[test]
fn calls_of_another_architecture_end_the_program() {
    let mut node = Node::new("sx");
    // Not every kernel has them.
    let here = Command::new(RIG).arg("i386").output().unwrap();
    if here.stdout != b"i386 true\n" {
        println!("skipped: this machine has no calls of 32 bits");
        return;
    }
    assert_eq!(rig(&mut node, "i386", |_| {}).0, Exit::Signal(SIGSYS));
    let (_, text) = rig(&mut node, "i386", |spec| spec.seccomp = Seccomp::Unconfined);
    assert_eq!(text, "i386 true\n");
}

/// The launcher is its parent, and would else take the stop for an end.
#[test]
fn a_program_that_has_itself_traced_goes_on() {
    let mut node = Node::new("sr");
    let (exit, text) = rig(&mut node, "traced", |_| {});
    assert_eq!((exit, text.as_str()), (Exit::Code(0), "went on\n"));
}

#[test]
fn commands_in_a_container_are_filtered_as_it_is() {
    let mut node = Node::new("se");
    let [plain, mut free] = ["plain", "free"].map(|name| script(name, "exec sleep 1000"));
    free.seccomp = Seccomp::Unconfined;
    node.create(&pod("web-0", &["plain", "free"], None), &[plain, free]);
    for (container, mode) in [("plain", 2), ("free", 0)] {
        let pid = node.start_container("web-0", container);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = format!("Seccomp:\t{mode}");
        assert!(status.lines().any(|found| found == line), "{status}");
        let look = format!("busybox grep -qx '{line}' /proc/self/status");
        let args = join_words(["sh", "-c", &look]).unwrap();
        let (pod, container) = (name("web-0"), name(container));
        let check = Box::new(ProbeCheck::Exec { args });
        node.ask(Request::Probe { pod, container, check, timeout_millis: 5_000 }).unwrap();
    }
}

/// Prints what the promise in SPECIFICATION.md says; bounds it loosely, since
/// machines differ.
#[test]
fn a_call_costs_little_more_than_without_a_filter() {
    let mut node = Node::new("st");
    let mut nanos = |seccomp| {
        let mut best = u32::MAX;
        for _ in 0..3 {
            let (_, text) = rig(&mut node, "time", |spec| spec.seccomp = seccomp);
            best = best.min(text.trim().parse().unwrap());
        }
        best
    };
    let (with, without) = (nanos(Seccomp::RuntimeDefault), nanos(Seccomp::Unconfined));
    println!("getpid: {with} ns, {without} ns without a filter, on {}", output("uname", &["-r"]));
    assert!(with < without + 1000, "{with} ns, {without} without");
}
