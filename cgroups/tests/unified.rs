//! What is written on v2, in a folder that imitates it: this needs no pure v2
//! machine. That a v2 kernel takes it is tested where there is one.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::fs;
use std::path::{Path, PathBuf};

use wherry_cgroups::{CgroupPath, Devices, Error, Layout, Limits, Mounts, Tree};

/// Folders with the files that the kernel would make in them.
struct Imitation {
    root: tempfile::TempDir,
}

impl Imitation {
    fn new(controllers: &str) -> Self {
        let imitation = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["", "site", "site/wherry", "site/wherry/web-1", "site/wherry/web-1/nginx"] {
            let folder = imitation.root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in [
                ("cgroup.controllers", controllers),
                ("cgroup.subtree_control", ""),
                ("cgroup.procs", ""),
                ("cgroup.freeze", "0\n"),
                ("cgroup.kill", ""),
                ("cgroup.events", "populated 1\nfrozen 1\n"),
                ("cpu.stat", "usage_usec 1234567\nuser_usec 1\n"),
            ] {
                fs::write(folder.join(name), text).unwrap();
            }
        }
        for controller in controllers.split(' ') {
            for (name, text) in match controller {
                "cpu" => vec![("cpu.max", "max 100000\n")],
                "memory" => vec![
                    ("memory.max", "max\n"),
                    ("memory.swap.max", "max\n"),
                    ("memory.oom.group", "0\n"),
                    ("memory.current", "4096\n"),
                    ("memory.peak", "8192\n"),
                    ("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 1\n"),
                ],
                "pids" => vec![("pids.max", "max\n"), ("pids.current", "3\n")],
                _ => vec![],
            } {
                for folder in ["site/wherry", "site/wherry/web-1", "site/wherry/web-1/nginx"] {
                    fs::write(imitation.root.path().join(folder).join(name), text).unwrap();
                }
            }
        }
        imitation
    }

    fn tree(&self) -> Tree {
        let mounts = Mounts { unified: Some(self.root.path().into()), v1: vec![] };
        Tree::over(&mounts, "site/wherry").unwrap()
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    #[track_caller]
    fn check(&self, files: &[(&str, &str)]) {
        for (path, expected) in files {
            assert_eq!(fs::read_to_string(self.file(path)).unwrap(), *expected, "{path}");
        }
    }
}

fn nginx() -> CgroupPath {
    CgroupPath::container("web-1", "nginx").unwrap()
}

/// One write replaces the start of a plain file; the kernel has no such rest.
fn clear(path: &Path) {
    fs::write(path, "").unwrap();
}

#[test]
fn limits_are_written_as_v2_wants_them() {
    let imitation = Imitation::new("cpu memory pids");
    let tree = imitation.tree();
    assert_eq!(tree.layout(), Layout::V2);
    let files = [
        "site/wherry/web-1/nginx/cpu.max",
        "site/wherry/web-1/nginx/memory.max",
        "site/wherry/web-1/nginx/memory.swap.max",
        "site/wherry/web-1/nginx/memory.oom.group",
        "site/wherry/web-1/nginx/pids.max",
    ];
    files.iter().for_each(|file| clear(&imitation.file(file)));
    let limits = Limits {
        cpu_millis: Some(250),
        memory_bytes: Some(64 << 20),
        pids: Some(32),
        devices: Devices::Container,
    };
    tree.create(&nginx(), &limits).unwrap();
    let expected = ["25000 100000", "67108864", "0", "1", "32"];
    imitation.check(&files.into_iter().zip(expected).collect::<Vec<_>>());

    files.iter().for_each(|file| clear(&imitation.file(file)));
    tree.create(&nginx(), &Limits::default()).unwrap();
    let expected = ["max 100000", "max", "max", "1", "max"];
    imitation.check(&files.into_iter().zip(expected).collect::<Vec<_>>());
    // The pod is no unit of death: its containers are.
    tree.create(&CgroupPath::pod("web-1").unwrap(), &Limits::default()).unwrap();
    imitation.check(&[("site/wherry/web-1/memory.oom.group", "0\n")]);
}

#[test]
fn controllers_are_enabled_all_the_way_down() {
    let imitation = Imitation::new("memory io");
    let tree = imitation.tree();
    tree.create(&nginx(), &Limits::default()).unwrap();
    imitation.check(&[
        ("cgroup.subtree_control", "+memory"),
        ("site/cgroup.subtree_control", "+memory"),
        ("site/wherry/cgroup.subtree_control", "+memory"),
        ("site/wherry/web-1/cgroup.subtree_control", "+memory"),
        ("site/wherry/web-1/nginx/cgroup.subtree_control", ""),
    ]);
}

#[test]
fn without_a_controller_only_a_memory_limit_is_refused() {
    let imitation = Imitation::new("");
    let tree = imitation.tree();
    let soft = Limits { cpu_millis: Some(100), pids: Some(5), ..Limits::default() };
    tree.create(&nginx(), &soft).unwrap();
    let hard = Limits { memory_bytes: Some(1 << 20), ..soft };
    assert!(matches!(tree.create(&nginx(), &hard), Err(Error::NoMemoryController)));
    fs::write(imitation.file("site/wherry/web-1/nginx/cgroup.procs"), "7\n8\n").unwrap();
    let usage = tree.usage(&nginx()).unwrap();
    assert_eq!((usage.cpu_micros, usage.memory_bytes, usage.pids), (1_234_567, 0, 2));
}

#[test]
fn usage_is_read_and_old_kernels_have_no_peak() {
    let imitation = Imitation::new("cpu memory pids");
    let tree = imitation.tree();
    let usage = tree.usage(&nginx()).unwrap();
    assert_eq!((usage.memory_bytes, usage.memory_bytes_peak), (4096, 8192));
    assert_eq!((usage.cpu_micros, usage.pids, usage.oom_kills), (1_234_567, 3, 1));
    fs::remove_file(imitation.file("site/wherry/web-1/nginx/memory.peak")).unwrap();
    assert_eq!(tree.usage(&nginx()).unwrap().memory_bytes_peak, 4096);
    let gone = CgroupPath::pod("gone-1").unwrap();
    assert!(tree.usage(&gone).unwrap_err().is_missing());
}

#[test]
fn processes_join_freeze_and_die_by_v2_files() {
    let imitation = Imitation::new("memory");
    let tree = imitation.tree();
    tree.join_self(&nginx()).unwrap();
    tree.freeze(&nginx()).unwrap();
    tree.kill(&CgroupPath::pod("web-1").unwrap()).unwrap();
    let at = |name: &str| format!("site/wherry/web-1/nginx/{name}");
    imitation.check(&[
        (&at("cgroup.procs"), "0"),
        (&at("cgroup.freeze"), "1\n"),
        ("site/wherry/web-1/cgroup.kill", "1"),
    ]);
    tree.thaw(&nginx()).unwrap();
    imitation.check(&[(&at("cgroup.freeze"), "0\n")]);
}

#[test]
fn who_is_there_already_does_not_join_again() {
    let imitation = Imitation::new("memory");
    let tree = imitation.tree();
    let procs = tree.unified_folder(&nginx()).unwrap().join("cgroup.procs");
    let own = format!("1\n{}\n", std::process::id());
    fs::write(&procs, &own).unwrap();
    tree.join_self(&nginx()).unwrap();
    assert_eq!(fs::read_to_string(&procs).unwrap(), own);
}

#[test]
fn names_and_pids_are_listed() {
    let imitation = Imitation::new("memory");
    let tree = imitation.tree();
    fs::write(imitation.file("site/wherry/web-1/nginx/cgroup.procs"), "0\n30\n12\n").unwrap();
    fs::write(imitation.file("site/wherry/web-1/cgroup.procs"), "5\n").unwrap();
    assert_eq!(tree.pods().unwrap(), ["web-1"]);
    let pod = CgroupPath::pod("web-1").unwrap();
    assert_eq!(tree.children(&pod).unwrap(), ["nginx"]);
    assert_eq!(tree.pids(&pod).unwrap(), [5, 12, 30]);
    assert_eq!(tree.pids(&nginx()).unwrap(), [12, 30]);
    let gone = CgroupPath::pod("gone-1").unwrap();
    assert!(tree.pids(&gone).unwrap().is_empty());
    assert!(tree.children(&gone).unwrap().is_empty());
    tree.kill(&gone).unwrap();
    tree.remove(&gone).unwrap();
}
