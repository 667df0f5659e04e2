//! Containers on the real kernel, as root: what they share, how they end,
//! what they may, and what is left of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::{Node, empty, mount, name, pod, script};
use wherry_bundle::message::Exit;
use wherry_bundle::model::HostPathKind;
use wherry_runtime::proto::{
    ContainerState, EmptyDir, HostPort, MountSource, MountSpec, Request, Service, Services,
};

#[test]
fn containers_of_a_pod_share_the_loopback_and_write_to_their_fifos() {
    let mut node = Node::new("lo");
    let pod = pod("web-0", &["server", "client"], Some([10, 87, 5, 3]));
    let server = script("server", "exec httpd -f -p 127.0.0.1:80 -h /etc");
    let text = "until wget -qO- http://127.0.0.1/layer; do sleep 0.05; done; hostname; \
        echo oops >&2";
    let client = script("client", text);
    node.create(&pod, &[server, client]);
    let (stdout, stderr) =
        (node.reader("web-0", "client", "stdout"), node.reader("web-0", "client", "stderr"));
    node.start_container("web-0", "server");
    node.start_container("web-0", "client");
    assert_eq!(node.exit_of("client"), Exit::Code(0));
    assert_eq!(stdout.read(), "top\nweb-0\n");
    assert_eq!(stderr.read().lines().last(), Some("oops"));
    node.ask(Request::RemovePod { pod: name("web-0") }).unwrap();
    assert!(node.list().is_empty());
}

#[test]
fn exits_are_what_really_happened() {
    let mut node = Node::new("ex");
    assert_eq!(node.run_script(script("main", "exit 7")).0, Exit::Code(7));
    assert_eq!(node.run_script(script("main", "kill -6 $$; exit 3")).0, Exit::Code(3));
    let mut hog = script("main", "exec dd if=/dev/zero of=/tmp/big bs=1M count=200");
    hog.memory_bytes = Some(24 << 20);
    assert_eq!(node.run_script(hog).0, Exit::OutOfMemory);

    let pod = pod("long-0", &["main"], None);
    let text = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    node.create(&pod, &[script("main", text)]);
    let output = node.reader("long-0", "main", "stdout");
    let first = node.start_container("long-0", "main");
    assert!(matches!(
        node.state_of("long-0", "main"),
        ContainerState::Running { pid, .. } if pid == first
    ));
    output.wait_for("ready");
    node.ask(Request::TerminatePod { pod: name("long-0") }).unwrap();
    assert_eq!(node.exit_of("main"), Exit::Code(9));
    // Again, on a fresh writable layer, and ended the hard way.
    let second = node.start_container("long-0", "main");
    assert_ne!(first, second);
    output.wait_for("ready");
    node.ask(Request::KillPod { pod: name("long-0") }).unwrap();
    assert_eq!(node.exit_of("main"), Exit::Signal(9));
    assert!(matches!(
        node.state_of("long-0", "main"),
        ContainerState::Exited { exit: Exit::Signal(9), .. }
    ));
    assert_eq!(zombies_of(node.launcher_pid()), Vec::<String>::new());
}

#[test]
fn a_container_gets_nothing_that_was_not_asked_for() {
    let mut node = Node::new("se");
    let text = "cat /proc/1/status; echo; cat /etc/layer; \
        echo x > /proc/sys/kernel/hostname || echo proc-sys-read-only; \
        ls /dev; echo x > /etc/hosts || echo hosts-read-only; \
        ls /sys/fs/cgroup; cat /proc/self/cgroup; ls /proc/self/fd";
    let (exit, text) = node.run_script(script("main", text));
    assert_eq!(exit, Exit::Code(0), "{text}");
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        // Nothing of the launcher's own handling is inherited.
        "SigBlk:\t0000000000000000",
        // SIGQUIT is ignored by the shell itself.
        "SigIgn:\t0000000000000004",
        "top",
        "proc-sys-read-only",
        "hosts-read-only",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    for absent in ["loop0", "sda", "wherry", "memory.limit_in_bytes"] {
        assert!(!text.lines().any(|found| found.contains(absent)), "{absent} is in:\n{text}");
    }
    // Standard streams, and the one that `ls` opens.
    let descriptors: Vec<&str> = text.lines().rev().take(4).collect();
    assert_eq!(descriptors, ["3", "2", "1", "0"], "{text}");
}

#[test]
fn another_user_keeps_what_was_asked_for() {
    let mut node = Node::new("us");
    let mut container =
        script("main", "cat /proc/self/status; id; pwd; umask; echo yes > /dev/stdout");
    (container.uid, container.gid) = (1000, 1001);
    container.additional_gids.push(7).unwrap();
    container.capabilities = 1 << 10;
    // It is not in the image.
    container.working_dir = "/var/lib/lion".try_into().unwrap();
    let (exit, text) = node.run_script(container);
    assert_eq!(exit, Exit::Code(0), "{text}");
    for line in [
        "CapEff:\t0000000000000400",
        "CapBnd:\t0000000000000400",
        "CapAmb:\t0000000000000400",
        "uid=1000 gid=1001 groups=7",
        "/var/lib/lion",
        "0022",
        "yes",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let mut node = Node::new("fa");
    let pod = pod("bad-0", &["a", "b", "c", "d", "e"], None);
    let mut a = script("a", "");
    a.args = wherry_runtime::proto::join_words(["/no/such/program"]).unwrap();
    let mut b = script("b", "");
    b.layers.push(wherry_bundle::Digest([9; 32])).unwrap();
    let mut c = script("c", "");
    let missing = MountSpec {
        source: MountSource::Files("not/there".try_into().unwrap()),
        destination: "/data".try_into().unwrap(),
        read_only: true,
    };
    c.mounts.push(missing).unwrap();
    let mut d = script("d", "");
    d.args = wherry_runtime::proto::join_words(["/etc/layer"]).unwrap();
    let mut e = script("e", "");
    e.memory_bytes = Some(256 << 10);
    node.create(&pod, &[a, b, c, d, e]);
    for (container, reason) in [
        ("a", "executing `/no/such/program`: ENOENT"),
        ("b", "has to be fetched first"),
        ("c", "volume not/there"),
        ("d", "executing `/etc/layer`: EACCES"),
        ("e", "memory limit is too low"),
    ] {
        let request = Request::StartContainer { pod: name("bad-0"), container: name(container) };
        let error = node.ask(request).unwrap_err();
        assert!(error.contains(reason), "{error}");
        assert_eq!(node.state_of("bad-0", container), ContainerState::Defined);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(children_of(node.launcher_pid()), Vec::<String>::new());
}

#[test]
fn a_kill_at_any_moment_of_a_start_ends_it() {
    let mut node = Node::new("ki");
    node.create(&pod("web-0", &["a"], None), &[script("a", "sleep 1000")]);
    let (pod, container) = (name("web-0"), name("a"));
    for step in 0..16 {
        let (pod, container) = (pod.clone(), container.clone());
        let seq = node.send(Request::StartContainer { pod: pod.clone(), container });
        std::thread::sleep(Duration::from_millis(2 * step));
        node.ask(Request::KillPod { pod }).unwrap();
        if node.answer(seq).is_ok() {
            assert_eq!(node.exit_of("a"), Exit::Signal(9), "step {step}");
        }
        let state = node.state_of("web-0", "a");
        assert!(!matches!(state, ContainerState::Running { .. }), "step {step}: {state:?}");
    }
    // A removal in the middle of a start takes all away.
    node.send(Request::StartContainer { pod: pod.clone(), container });
    node.ask(Request::RemovePod { pod }).unwrap();
    assert!(node.list().is_empty());
}

#[test]
fn a_fork_bomb_stays_in_its_container() {
    let mut node = Node::new("fb");
    let text = "i=0; while [ $i -lt 2000 ]; do sleep 1000 & i=$((i + 1)); done";
    let mut bomb = script("main", text);
    bomb.memory_bytes = None;
    let (exit, _) = node.run_script(bomb);
    // The shell gives up where the kernel does.
    assert_eq!(exit, Exit::Code(2));
}

#[test]
fn volumes_are_read_only_and_hosts_files_follow_what_is_published() {
    let mut node = Node::new("vo");
    let volume = node.run_dir.join("volumes/abc/lion");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("lion.properties"), "roar=1\n").unwrap();
    let text = "cat /etc/lion/lion.properties; echo x > /etc/lion/x || echo read-only; \
        until busybox grep -q shop /etc/hosts; do sleep 0.05; done; \
        cat /etc/hosts /etc/resolv.conf";
    let mut container = script("main", text);
    let mount = MountSpec {
        source: MountSource::Files("abc/lion".try_into().unwrap()),
        destination: "/etc/lion".try_into().unwrap(),
        read_only: true,
    };
    container.mounts.push(mount).unwrap();
    node.create(&pod("web-4", &["main"], Some([10, 87, 5, 4])), &[container]);
    let output = node.reader("web-4", "main", "stdout");
    node.start_container("web-4", "main");
    let shop = Service {
        name: name("shop"),
        address: [10, 87, 5, 130].into(),
        pods: [[10, 87, 5, 4].into()].into_iter().collect(),
        ports: [HostPort {
            protocol: wherry_bundle::model::Protocol::Tcp,
            host_port: 8080,
            container_port: 80,
        }]
        .into_iter()
        .collect(),
    };
    node.ask(Request::Publish(Box::new(Services([shop].into_iter().collect())))).unwrap();
    assert_eq!(node.exit_of("main"), Exit::Code(0));
    let text = output.read();
    for part in ["roar=1", "read-only", "10.87.5.130", "10.87.5.4", "nameserver 10.9.8.7"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn requests_are_idempotent_and_contradictions_refused() {
    let mut node = Node::new("id");
    let spec = pod("web-1", &["main"], Some([10, 87, 5, 9]));
    let container = script("main", "sleep 100");
    for _ in 0..2 {
        node.create(&spec, std::slice::from_ref(&container));
        node.start_container_quietly("web-1", "main");
    }
    let mut other = spec.clone();
    other.grace_millis += 1;
    let error = node.ask(Request::CreatePod(Box::new(other))).unwrap_err();
    assert!(error.contains("another pod of this name"), "{error}");
    let mut twin = spec.clone();
    twin.name = name("web-2");
    let error = node.ask(Request::CreatePod(Box::new(twin))).unwrap_err();
    assert!(error.contains("its address is pod web-1's"), "{error}");
    let mut changed = container;
    changed.uid = 5;
    let (pod, spec) = (name("web-1"), Box::new(changed));
    let error = node.ask(Request::DefineContainer { pod, spec }).unwrap_err();
    assert!(error.contains("another container of this name"), "{error}");
    for _ in 0..2 {
        node.ask(Request::KillPod { pod: name("web-1") }).unwrap();
        node.ask(Request::RemovePod { pod: name("web-1") }).unwrap();
    }
    assert!(!Path::new(&node.run_dir).join("pods/web-1").exists());
    assert_eq!(fs::read_dir(node.run_dir.join("layers")).unwrap().count(), 0);
}

impl Node {
    /// For a container that may be running.
    fn start_container_quietly(&mut self, pod: &str, container: &str) {
        let (pod, container) = (name(pod), name(container));
        self.ask(Request::StartContainer { pod, container }).unwrap();
    }
}

fn zombies_of(parent: u32) -> Vec<String> {
    children_of(parent).into_iter().filter(|stat| stat.contains(") Z ")).collect()
}

/// `/proc/PID/stat` of each child.
fn children_of(parent: u32) -> Vec<String> {
    let wanted = format!(" {parent} ");
    let stats = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
            after.get(2..).is_some_and(|rest| rest.starts_with(&wanted))
        })
        .collect()
}

#[test]
fn an_empty_dir_is_its_pods_and_as_large_as_it_may_be() {
    let mut node = Node::new("ed");
    let dir = |volume: &str, gid| EmptyDir { volume: name(volume), bytes_max: 64 << 10, gid };
    let mut spec = pod("web-0", &["a", "b"], None);
    spec.empty_dirs = [dir("run", None), dir("group", Some(77))].into_iter().collect();
    let mut a = script("a", "echo from a > /run/shared; chmod 600 /run/shared; mkdir /run/sub/x");
    a.mounts.push(mount(empty("run", None), "/run")).unwrap();
    a.mounts.push(mount(empty("run", Some("sub")), "/run/sub")).unwrap();
    (a.uid, a.gid) = (1000, 1000);
    let text = "cat /run/shared; ls /run/sub; \
        busybox dd if=/dev/zero of=/run/much bs=1k count=100 2>&1 | busybox grep -i space; \
        echo x > /group/file && busybox stat -c '%g %a' /group /group/file; \
        busybox grep -c ' /run tmpfs' /proc/mounts";
    let mut b = script("b", text);
    (b.uid, b.gid) = (1000, 1000);
    b.additional_gids.push(77).unwrap();
    b.mounts.push(mount(empty("run", None), "/run")).unwrap();
    b.mounts.push(mount(empty("group", None), "/group")).unwrap();
    node.create(&spec, &[a, b]);
    node.start_container("web-0", "a");
    assert_eq!(node.exit_of("a"), Exit::Code(0));
    let output = node.reader("web-0", "b", "stdout");
    node.start_container("web-0", "b");
    assert_eq!(node.exit_of("b"), Exit::Code(0));
    let text = output.read();
    let lines: Vec<&str> = text.lines().collect();
    let [shared, sub, full, group, file, mounts] = lines[..] else { panic!("{text}") };
    assert_eq!((shared, sub, mounts), ("from a", "x", "1"), "{text}");
    assert!(full.contains("No space left"), "{text}");
    assert_eq!((group, file), ("77 2775", "77 644"), "{text}");
    let folder = node.run_dir.join("pods/web-0/empty/run");
    assert!(folder.join("shared").exists());
    node.ask(Request::RemovePod { pod: name("web-0") }).unwrap();
    assert!(!folder.exists(), "it goes with its pod");
}

#[test]
fn no_symlink_in_a_volume_leads_a_mount_elsewhere() {
    let mut node = Node::new("sl");
    let mut spec = pod("web-0", &["a", "b"], None);
    let dir = EmptyDir { volume: name("run"), bytes_max: 64 << 10, gid: None };
    spec.empty_dirs.push(dir).unwrap();
    let mut a = script("a", "busybox ln -s /etc /run/out; busybox ln -s ../../../.. /run/up");
    a.mounts.push(mount(empty("run", None), "/run")).unwrap();
    let mut b = script("b", "");
    b.mounts.push(mount(empty("run", Some("out")), "/data")).unwrap();
    node.create(&spec, &[a, b]);
    node.start_container("web-0", "a");
    assert_eq!(node.exit_of("a"), Exit::Code(0));
    let request = Request::StartContainer { pod: name("web-0"), container: name("b") };
    let error = node.ask(request).unwrap_err();
    assert!(error.contains("empty/run/out") && error.contains("symlink"), "{error}");
}

#[test]
fn a_read_only_root_leaves_tmp_and_volumes_to_write_to() {
    let mut node = Node::new("ro");
    let text = "for path in / /etc /tmp /dev/shm; do \
        echo x > $path/x 2> /dev/null && echo $path; done; echo 'echo runs' > /tmp/run; \
        chmod +x /tmp/run; /tmp/run; busybox touch /etc/hosts 2>&1";
    let mut container = script("main", text);
    container.read_only_root = true;
    let (_, output) = node.run_script(container);
    let lines: Vec<&str> = output.lines().collect();
    let [tmp, shm, runs, hosts] = lines[..] else { panic!("{output}") };
    assert_eq!((tmp, shm, runs), ("/tmp", "/dev/shm", "runs"));
    assert!(hosts.contains("Read-only"), "{hosts}");
}

#[test]
fn what_an_image_declares_as_volume_is_there_and_can_be_written_to() {
    let mut node = Node::new("iv");
    let text = "echo x > /etc/x 2> /dev/null || echo read-only; \
        echo x > /bin/x && ls /bin/busybox /bin/x; echo x > /new/x && cat /new/x; \
        busybox stat -c '%u %a' /bin /new; busybox touch /bin/busybox && echo changed";
    let mut container = script("main", text);
    container.read_only_root = true;
    for path in ["/bin", "/new"] {
        container.image_volumes.push(path.try_into().unwrap()).unwrap();
    }
    let (exit, output) = node.run_script(container);
    let lines: Vec<&str> = output.lines().collect();
    let expected = ["read-only", "/bin/busybox", "/bin/x", "x", "0 755", "0 755", "changed"];
    assert_eq!((exit, &lines[..]), (Exit::Code(0), &expected[..]), "{output}");
}

#[test]
fn processes_and_storage_have_limits() {
    let mut node = Node::new("li");
    // What it writes to /tmp and to the rest is one sum.
    let text = "busybox mkdir -p /var; cd /tmp; busybox dd if=/dev/zero of=a bs=1k count=700 2> /dev/null && echo fits; \
        busybox dd if=/dev/zero of=/var/b bs=1k count=700 2>&1 | busybox grep -o 'No space'; \
        for n in 1 2 3 4 5 6 7 8; do sleep 9 & done; echo all";
    for read_only_root in [false, true] {
        let mut container = script("main", text);
        (container.pids, container.storage_bytes) = (Some(5), Some(1 << 20));
        container.read_only_root = read_only_root;
        container.image_volumes.push("/var".try_into().unwrap()).unwrap();
        let (exit, output) = node.run_script(container);
        assert!(output.starts_with("fits\nNo space\n"), "{output}");
        assert!(!output.contains("all") && exit != Exit::Code(0), "{exit:?}: {output}");
    }
}

#[test]
fn a_pod_has_names_and_a_resolver_of_its_own() {
    let mut node = Node::new("dn");
    let mut spec = pod("web-0", &["main"], Some([10, 87, 5, 3]));
    let alias = ("192.0.2.9".parse().unwrap(), "plc plc.example".try_into().unwrap());
    spec.host_aliases.push(alias).unwrap();
    spec.dns.nameservers.push("192.0.2.53".parse().unwrap()).unwrap();
    spec.dns.searches = "line.example".try_into().unwrap();
    spec.dns.options = "ndots:2".try_into().unwrap();
    let text = "cat /etc/resolv.conf; busybox grep plc /etc/hosts";
    node.create(&spec, &[script("main", text)]);
    let output = node.reader("web-0", "main", "stdout");
    node.start_container("web-0", "main");
    assert_eq!(node.exit_of("main"), Exit::Code(0));
    let text = output.read();
    for line in ["nameserver 10.9.8.7", "nameserver 192.0.2.53", "192.0.2.9\tplc plc.example"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in: {text}");
    }
    let ends = |key: &str, end: &str| {
        text.lines().any(|line| line.starts_with(key) && line.ends_with(end))
    };
    assert!(ends("search", "line.example") && ends("options", "ndots:2"), "{text}");
    // They outlive what is published.
    node.ask(Request::Publish(Box::default())).unwrap();
    let hosts = fs::read_to_string(node.run_dir.join("pods/web-0/hosts")).unwrap();
    assert!(hosts.contains("plc.example"), "{hosts}");
}

#[test]
fn a_device_is_there_under_a_name_of_its_own() {
    let mut node = Node::new("de");
    let device = |path: &str| MountSource::Host {
        path: path.try_into().unwrap(),
        kind: HostPathKind::CharDevice,
    };
    let text = ": < /dev/modem && echo opens; ls /dev/loop-control 2>&1 | busybox wc -l; \
        busybox stat -c '%F' /dev/modem";
    for source in ["/dev/loop-control", "/dev/null"] {
        let mut container = script("main", text);
        container.mounts.push(mount(device(source), "/dev/modem")).unwrap();
        if source == "/dev/null" {
            let spec = pod("other-0", &["main"], None);
            node.ask(Request::CreatePod(Box::new(spec))).unwrap();
            let (pod, spec) = (name("other-0"), Box::new(container));
            let error = node.ask(Request::DefineContainer { pod, spec }).unwrap_err();
            assert!(error.contains("not among `[devices] paths`"), "{error}");
            continue;
        }
        let (exit, output) = node.run_script(container);
        assert_eq!((exit, output.as_str()), (Exit::Code(0), "opens\n1\ncharacter special file\n"));
    }
    // One that is not plugged in, and one that is no device.
    for (number, source) in ["/dev/wherry-test/none", "/dev/wherry-test"].into_iter().enumerate() {
        let mut container = script("main", "");
        container.mounts.push(mount(device(source), "/dev/modem")).unwrap();
        let spec = pod(&format!("none-{number}"), &["main"], None);
        node.create(&spec, &[container]);
        let request = Request::StartContainer { pod: spec.name.clone(), container: name("main") };
        let error = node.ask(request).unwrap_err();
        assert!(error.contains(source) && error.contains("plugged in"), "{error}");
    }
}
