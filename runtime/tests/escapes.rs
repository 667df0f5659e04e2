//! What programs in containers try in order to get out, each by the name that
//! it is known by. Nothing is filtered here: what the filter of system calls
//! refuses (`seccomp.rs`) has to be refused without it too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::{Node, RIG, empty, mount, name, pod, script};
use wherry_bundle::Digest;
use wherry_bundle::message::Exit;
use wherry_bundle::model::Seccomp;
use wherry_runtime::proto::{ContainerSpec, EmptyDir, ProbeCheck, Request, join_words};

/// Whoever writes it has a program run as root outside of any container.
const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// Numbers of what the launcher's processes have open: a way out would be one of
/// the first.
const DESCRIPTORS: std::ops::Range<u32> = 3..24;
/// Tries commands and prints `NAME: what the last one said`.
const TRY: &str =
    "try() { name=$1; shift; said=$(\"$@\" 2>&1) && said=DONE; echo \"$name: $said\"; }
    put() { echo \"$2\" > \"$1\"; }
";

fn free(container: &str, text: &str) -> ContainerSpec {
    ContainerSpec { seccomp: Seccomp::Unconfined, ..script(container, text) }
}

#[test]
fn the_kernel_and_its_devices_are_out_of_reach() {
    let mut node = Node::new("kn");
    let pattern = fs::read_to_string(CORE_PATTERN).unwrap();
    let enabled = "/sys/kernel/mm/transparent_hugepage/enabled";
    let sys = if Path::new(enabled).exists() { enabled } else { "/sys/kernel/rcu_normal" };
    assert!(Path::new(sys).exists(), "{sys} is not there to be tried");
    // Each would do no harm if it came through.
    let tries = [
        ("core-pattern", format!("put {CORE_PATTERN} '{}'", pattern.trim())),
        ("sysrq", "put /proc/sysrq-trigger h".into()),
        ("sys", format!("put {sys} never")),
        ("remount-sys", "busybox mount -o remount,rw /sys".into()),
        ("remount-proc", "busybox mount -o remount,rw /proc/sys".into()),
        ("unmask", "busybox umount /proc/sys".into()),
        ("mount", "busybox mount -t tmpfs none /srv".into()),
        ("bind", "busybox mount -o bind /etc /srv".into()),
        ("mknod-disk", "busybox mknod /tmp/disk b 7 0".into()),
        ("mknod-memory", "busybox mknod /tmp/memory c 1 1".into()),
        ("module", "busybox insmod /bin/busybox".into()),
        ("chroot", "busybox chroot /srv /bin/true".into()),
        ("hostname", "hostname lion".into()),
        ("address", "busybox ip address add 10.1.2.3/32 dev lo".into()),
        ("nice", "busybox renice -n -5 -p 1".into()),
    ];
    // Not every kernel has it.
    let is_there = |name: &str| name != "sysrq" || Path::new("/proc/sysrq-trigger").exists();
    let tries: Vec<_> = tries.into_iter().filter(|(name, _)| is_there(name)).collect();
    let text: String =
        tries.iter().map(|(name, command)| format!("try {name} {command}\n")).collect();
    let (exit, said) = node.run_script(free("main", &format!("{TRY}{text}")));
    assert_eq!(exit, Exit::Code(0), "{said}");
    let refusals = [
        "Operation not permitted",
        "Permission denied",
        "Read-only file system",
        // No kernel of loadable modules.
        "does not support",
        "denied",
        "are you root",
    ];
    for (name, _) in &tries {
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let line = line.unwrap_or_else(|| panic!("{name} is not in:\n{said}"));
        assert!(refusals.iter().any(|refusal| line.contains(refusal)), "{name}: {line}\n{said}");
    }
    assert_eq!(fs::read_to_string(CORE_PATTERN).unwrap(), pattern);
}

#[test]
fn processes_outside_of_the_container_are_not_there() {
    let mut node = Node::new("pr");
    let other = free("other", "exec sleep 1000");
    node.create(&pod("web-0", &["other"], None), &[other]);
    let pid = node.start_container("web-0", "other");
    let launcher = node.launcher_pid();
    // All there are: the shell, and the one that it asks.
    let text = format!(
        "{TRY}try other busybox kill -0 {pid}\ntry launcher busybox kill -0 {launcher}\n\
         try memory cat /proc/{pid}/mem\nbusybox ls /proc | busybox grep -c '^[0-9]'"
    );
    let (_, said) = node.run_script(free("main", &text));
    let lines: Vec<&str> = said.lines().collect();
    let [other, launcher, memory, count] = lines[..] else { panic!("{said}") };
    assert!(other.contains("No such process") && launcher.contains("No such process"), "{said}");
    assert!(memory.contains("No such file"), "{said}");
    assert!(count.parse::<u32>().unwrap() <= 3, "{said}");
    node.ask(Request::KillPod { pod: name("web-0") }).unwrap();
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime's.
#[test]
fn no_descriptor_of_the_runtime_is_a_way_out() {
    let mut node = Node::new("wd");
    let folders = node.layers().of(|folder| {
        for number in DESCRIPTORS {
            fs::create_dir_all(folder.join(format!("proc/self/fd/{number}"))).unwrap();
            fs::create_dir_all(folder.join("srv")).unwrap();
            symlink(format!("/proc/self/fd/{number}"), folder.join(format!("srv/{number}")))
                .unwrap();
        }
    });
    let inside = "test \"$(busybox stat -c %d:%i ../../../../../../../..)\" = \
        \"$(busybox stat -c %d:%i /)\" || echo OUTSIDE";
    for number in DESCRIPTORS {
        let mut container = free("main", inside);
        container.layers.push(folders).unwrap();
        container.working_dir = format!("/srv/{number}").as_str().try_into().unwrap();
        let spec = pod("cwd-0", &["main"], None);
        node.create(&spec, &[container]);
        let output = node.reader("cwd-0", "main", "stdout");
        let request = Request::StartContainer { pod: name("cwd-0"), container: name("main") };
        if node.ask(request).is_ok() {
            node.exit_of("main");
        }
        assert_eq!(output.read(), "", "{number}");
        node.ask(Request::RemovePod { pod: name("cwd-0") }).unwrap();
    }
    // A command in a container whose working directory became one meanwhile.
    let mut container = free("main", "exec sleep 1000");
    container.working_dir = "/srv".try_into().unwrap();
    node.create(&pod("web-0", &["main"], None), &[container]);
    let pid = node.start_container("web-0", "main");
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    let srv = root.join("srv");
    let mut refused = 0;
    for number in DESCRIPTORS {
        // By the container, as far as anyone can tell.
        let _ = fs::remove_file(&srv);
        let _ = fs::remove_dir(&srv);
        symlink(format!("/proc/self/fd/{number}"), &srv).unwrap();
        let args =
            join_words(["/bin/sh", "-c", &format!("! ({inside}) | busybox grep -q OUTSIDE")]);
        let check = Box::new(ProbeCheck::Exec { args: args.unwrap() });
        let (pod, container) = (name("web-0"), name("main"));
        let probe = Request::Probe { pod, container, check, timeout_millis: 5_000 };
        if let Err(error) = node.ask(probe) {
            assert!(error.contains("cannot be executed"), "{number}: {error}");
            refused += 1;
        }
    }
    assert!(refused > 0, "no descriptor was tried");
    node.ask(Request::KillPod { pod: name("web-0") }).unwrap();
}

/// CVE-2025-31133 and -52565: what is masked is masked with the container's
/// `/dev/null`, which another container of the pod may have made a symlink.
#[test]
fn no_volume_takes_the_place_of_the_devices() {
    let mut node = Node::new("dv");
    let alias = node.layers().of(|folder| {
        fs::create_dir(folder.join("dev")).unwrap();
        symlink("/dev", folder.join("alias")).unwrap();
    });
    let mut spec = pod("web-0", &["a", "b", "c"], None);
    let dir = EmptyDir { volume: name("run"), bytes_max: 1 << 20, gid: None };
    spec.empty_dirs.push(dir).unwrap();
    let names = "null console core kcore zero";
    let links = format!("for at in {names}; do busybox ln -s {CORE_PATTERN} /run/$at; done");
    let mut a = free("a", &links);
    a.mounts.push(mount(empty("run", None), "/run")).unwrap();
    let text = "cat /proc/kcore /proc/keys /proc/timer_list; \
        busybox stat -c '%F %t:%T' /dev/null; echo x > /dev/null && echo written";
    let mut b = free("b", text);
    b.layers.push(alias).unwrap();
    b.mounts.push(mount(empty("run", None), "/alias")).unwrap();
    node.create(&spec, &[a, b]);
    node.start_container("web-0", "a");
    assert_eq!(node.exit_of("a"), Exit::Code(0));
    let output = node.reader("web-0", "b", "stdout");
    node.start_container("web-0", "b");
    node.exit_of("b");
    assert_eq!(output.read(), "character special file 1:3\nwritten\n");
    let mut c = free("c", text);
    c.mounts.push(mount(empty("run", None), "/dev")).unwrap();
    let (pod, spec) = (name("web-0"), Box::new(c));
    let error = node.ask(Request::DefineContainer { pod, spec }).unwrap_err();
    assert!(error.contains("what each container has in /dev"), "{error}");
}

/// CVE-2025-52881: the image has symlinks where the kernel's files go.
#[test]
fn no_symlink_of_an_image_leads_the_kernels_files_elsewhere() {
    let mut node = Node::new("li");
    // The machine's own.
    let mounts = || -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let at = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_owned();
        let own = |at: &String| !at.starts_with("/tmp/") && !at.starts_with("/run/");
        text.lines().map(at).filter(own).collect()
    };
    let before = mounts();
    let pattern = fs::read_to_string(CORE_PATTERN).unwrap().trim().to_owned();
    for (link, target) in [
        ("proc", "srv"),
        ("proc", "/dev"),
        ("sys", "srv"),
        ("dev", "srv"),
        ("dev/null", CORE_PATTERN),
        ("dev/console", CORE_PATTERN),
    ] {
        let layer = node.layers().of(|folder| {
            let path = folder.join(link);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        });
        let text = format!(
            "cat /proc/kcore /proc/keys; (echo '{pattern}' > {CORE_PATTERN}) 2>/dev/null && echo WRITTEN; \
             (echo h > /proc/sysrq-trigger) 2>/dev/null && echo WRITTEN; echo end"
        );
        let mut container = free("main", &text);
        container.layers.push(layer).unwrap();
        node.create(&pod("web-0", &["main"], None), &[container]);
        let output = node.reader("web-0", "main", "stdout");
        let request = Request::StartContainer { pod: name("web-0"), container: name("main") };
        // It starts with all in its place, or not at all.
        match node.ask(request) {
            Ok(()) => {
                node.exit_of("main");
                assert_eq!(output.read(), "end\n", "{link} -> {target}");
            }
            Err(error) => assert!(!error.is_empty() && link != "dev/null", "{link}: {error}"),
        }
        node.ask(Request::RemovePod { pod: name("web-0") }).unwrap();
        assert_eq!(mounts(), before, "{link} -> {target}");
    }
}

/// CVE-2019-5736: the container runs whoever starts it, and writes to its file.
#[test]
fn what_starts_containers_and_commands_is_not_changed_from_inside() {
    let mut node = Node::new("ex");
    let own = || Digest::of(&fs::read(RIG).unwrap());
    let before = own();
    let itself =
        node.layers().of(|folder| symlink("/proc/self/exe", folder.join("itself")).unwrap());
    let text = "while [ ! -e /tmp/stop ]; do for exe in /proc/[0-9]*/exe; do \
        (echo x >> $exe) 2>/dev/null && echo \"WRITTEN $(busybox readlink $exe)\"; done; done";
    let mut container = free("main", text);
    container.layers.push(itself).unwrap();
    node.create(&pod("web-0", &["main"], None), &[container.clone()]);
    let output = node.reader("web-0", "main", "stdout");
    let pid = node.start_container("web-0", "main");
    for program in ["/itself", "/bin/true"].into_iter().cycle().take(30) {
        let args = join_words([program, "attached"]).unwrap();
        let check = Box::new(ProbeCheck::Exec { args });
        let (pod, container) = (name("web-0"), name("main"));
        // `true` ends well; what the program itself does with that is its own.
        let _ = node.ask(Request::Probe { pod, container, check, timeout_millis: 5_000 });
    }
    fs::write(format!("/proc/{pid}/root/tmp/stop"), "").unwrap();
    node.exit_of("main");
    assert_eq!(output.read(), "");
    container.name = name("first");
    container.args = join_words(["/itself"]).unwrap();
    node.create(&pod("one-0", &["first"], None), &[container]);
    let request = Request::StartContainer { pod: name("one-0"), container: name("first") };
    if node.ask(request).is_ok() {
        node.exit_of("first");
    }
    assert_eq!(own(), before);
}
