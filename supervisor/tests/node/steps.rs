//! Supervisor, launcher and the whole machine killed after each single action
//! of an upgrade, and of the way back from one that fails: each time the node
//! ends where it should, and nothing was restarted that need not be.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_bundle::Bundle;
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::model::{Deployment, Layer};

use crate::cloud::Cloud;
use crate::container_pids;
use crate::rig::{Rig, bundle, deployment, sealed};

/// More than any of these upgrades needs.
const ACTIONS_MAX: usize = 60;
/// Of a way back: one pod made, and taken away again.
const ACTIONS_MIN: usize = 4;
/// An upgrade that goes no further by itself.
const QUIET: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Victim {
    Supervisor,
    Launcher,
    /// Of the machine: all containers are gone too.
    Power,
}

struct Site {
    rig: Rig,
    cloud: Cloud,
    layer: Layer,
    generation: u64,
}

impl Site {
    /// Generation 1 is good.
    fn new(id: &str, victim: Victim) -> Self {
        let mut rig = match victim {
            Victim::Supervisor | Victim::Launcher => Rig::new(id),
            Victim::Power => Rig::with_boots(id),
        };
        let layer = rig.layer();
        let cloud = Cloud::start(&rig);
        rig.start();
        let mut site = Self { rig, cloud, layer, generation: 0 };
        site.issue(true);
        site.wait_settled(1);
        site
    }

    /// Issues the next generation: one that will be good, or one whose pods
    /// never become available.
    fn issue(&mut self, good: bool) {
        self.generation += 1;
        let script = format!("exec sleep {}000000", self.generation);
        let web = deployment("web", 2, &[], &[("main", &script)]);
        let web = if good {
            web
        } else {
            Deployment { min_ready_seconds: 1_000, progress_deadline_seconds: 1, ..web }
        };
        let still = deployment("still", 1, &[], &[("main", "exec sleep 1000000")]);
        let upgrade = UpgradePolicy { stable_seconds: 1, ..UpgradePolicy::default() };
        let bundle = bundle(self.generation, self.layer, vec![still, web]);
        self.cloud.desire(sealed(&Bundle { upgrade, ..bundle }));
    }

    fn wait_settled(&mut self, generation: u64) {
        self.rig.wait(&format!("generation {generation} and nothing else"), |rig| {
            let status = rig.cli(&["status", "-o", "json"]);
            let status: serde_json::Value =
                serde_json::from_slice(&status.stdout).unwrap_or_default();
            status["generation"] == generation && status["phase"] == "good"
        });
    }

    /// Kills `victim` once `count` actions were begun since the log was `from`
    /// bytes long; false if there are not so many.
    fn kill_after(&mut self, victim: Victim, from: usize, count: usize) -> bool {
        let start = Instant::now();
        loop {
            let log = self.rig.log();
            let since = log.get(from..).unwrap_or_default();
            if since.matches(" begins ").count() >= count {
                break;
            }
            let ended = since.contains("is good") || since.contains("failed:");
            let is_over = ended && since.matches("is running").count() > 0;
            if is_over || start.elapsed() > QUIET {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match victim {
            Victim::Supervisor => kill(Pid::from_raw(self.rig.pids().1), Signal::SIGKILL).unwrap(),
            Victim::Launcher => {
                self.rig.kill();
                self.rig.start();
            }
            Victim::Power => {
                self.rig.lose_power();
                self.rig.start();
            }
        }
        true
    }
}

/// Of all containers: pods that stay have the same.
fn still(rig: &Rig) -> Vec<(String, i64)> {
    container_pids(rig).into_iter().filter(|(name, _)| name.contains("still")).collect()
}

fn every_step(id: &str, victim: Victim, good: bool) {
    let mut site = Site::new(id, victim);
    let untouched = still(&site.rig);
    let mut current = site.generation;
    let mut kills = 0;
    for count in 1..ACTIONS_MAX {
        let before = container_pids(&site.rig);
        let from = site.rig.log().len();
        site.issue(good);
        if !site.kill_after(victim, from, count) {
            break;
        }
        kills += 1;
        if good {
            current = site.generation;
        } else {
            let failed = site.generation;
            site.rig.wait("the failure on record", |rig| {
                let status = rig.cli(&["status", "-o", "json"]);
                let status: serde_json::Value =
                    serde_json::from_slice(&status.stdout).unwrap_or_default();
                status["failed"]["generation"] == failed
            });
        }
        site.wait_settled(current);
        let what = format!("{victim:?} killed after action {count}");
        let pods = container_pids(&site.rig);
        assert_eq!(pods.len(), 3, "{what}: {pods:?}");
        if matches!(victim, Victim::Power) {
            continue;
        }
        assert_eq!(still(&site.rig), untouched, "{what}: a pod that stays was restarted");
        if !good {
            assert_eq!(pods, before, "{what}: a pod of the good generation was restarted");
        }
    }
    assert!(kills >= ACTIONS_MIN, "only {kills} actions");
}

#[test]
fn the_supervisor_dies_at_every_step_of_an_upgrade() {
    every_step("sup", Victim::Supervisor, true);
}

#[test]
fn the_supervisor_dies_at_every_step_of_the_way_back() {
    every_step("sback", Victim::Supervisor, false);
}

#[test]
fn the_launcher_dies_at_every_step_of_an_upgrade() {
    every_step("lau", Victim::Launcher, true);
}

#[test]
fn the_launcher_dies_at_every_step_of_the_way_back() {
    every_step("lback", Victim::Launcher, false);
}

#[test]
fn the_power_goes_at_every_step_of_an_upgrade() {
    every_step("pow", Victim::Power, true);
}

#[test]
fn the_power_goes_at_every_step_of_the_way_back() {
    every_step("pback", Victim::Power, false);
}
