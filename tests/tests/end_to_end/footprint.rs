//! What an idle node holds. Exact figures are the benchmark's; what is gated
//! here holds for every build.

use anyhow::{Context, Result, ensure};
use wherry_tests::node::PATIENCE;
use wherry_tests::package::{Component, Package};
use wherry_tests::run::wait_for;
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::with_gateway;

/// Of launcher and supervisor together: twice what a debug build takes with
/// ten pods. What is shared with the program's file does not count, as that
/// depends on the build.
const ANONYMOUS_KIB_MAX: u64 = 8 * 1024;
/// The supervisor's own, one of which pushes figures; a library that keeps a pool
/// of them would show.
const THREADS_MAX: usize = 9;

#[test]
fn an_idle_node_keeps_no_database_open_and_little_memory() {
    with_gateway("small", |host, cloud, node| {
        let template = lion("many", "replicas: 10", "", &env(&[EVERYWHERE]));
        let component = Component::new("many", "lion:1.0.0", template);
        Package::new("1.0.0", vec![component]).roll_out(cloud, host)?;
        node.wait_running(1)?;
        let (launcher, supervisor) = node.pids()?;
        wait_for("the database's keeper to end", PATIENCE, || {
            Ok(children(supervisor)?.is_empty().then_some(()))
        })?;
        let anonymous = anonymous_kib(launcher)? + anonymous_kib(supervisor)?;
        println!("{anonymous} KiB anonymous");
        ensure!(anonymous <= ANONYMOUS_KIB_MAX, "{anonymous} KiB of anonymous memory");
        let threads = std::fs::read_dir(format!("/proc/{supervisor}/task"))?.count();
        ensure!(threads <= THREADS_MAX, "{threads} threads");
        Ok(())
    });
}

/// Those of all its threads.
fn children(pid: i32) -> Result<String> {
    let mut all = String::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may end at any time.
        all += &std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
    }
    Ok(all)
}

/// `Anonymous` of `proc_pid_smaps_rollup(5)`.
fn anonymous_kib(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()).context("no such line")?;
    Ok(kib.parse()?)
}
