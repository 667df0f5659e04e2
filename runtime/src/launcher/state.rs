//! What the launcher knows of its pods. Everything here can be read back
//! from the kernel and the run folder.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use wherry_bundle::message::Exit;
use wherry_bundle::{Digest, Name};
use wherry_cgroups::CgroupPath;

use crate::creator::Report;
use crate::folders::{ContainerFolder, PodFolder};
use crate::process::Identity;
use crate::proto::{ContainerReport, ContainerSpec, ContainerState, PodReport, PodSpec};
use crate::record::StateRecord;

#[derive(Debug)]
pub struct Pod {
    pub spec: PodSpec,
    pub folder: PodFolder,
    pub cgroup: CgroupPath,
    pub containers: BTreeMap<Name, Container>,
    /// Set once it was asked to go; it is taken away when nothing runs.
    pub removal: Option<Removal>,
}

#[derive(Debug)]
pub struct Removal {
    /// Requests that wait for it.
    pub seqs: Vec<u32>,
    pub deadline_millis: u64,
}

/// Of a container's spec only what is needed at any moment: whole specs are
/// large, and lie in the run folder.
#[derive(Debug)]
pub struct Container {
    pub folder: ContainerFolder,
    pub cgroup: CgroupPath,
    pub layers: Vec<Digest>,
    pub stop_signal: u8,
    pub state: State,
}

#[derive(Debug)]
pub enum State {
    Defined,
    Running(Running),
    Exited { exit: Exit, started_millis: u64, at_millis: u64 },
}

#[derive(Debug)]
pub struct Running {
    pub identity: Identity,
    pub since_millis: u64,
    /// The cgroup's count before the start.
    pub oom_kills: u64,
    /// Of a process that another launcher started; `None` for our children.
    pub pidfd: Option<OwnedFd>,
}

/// A creator at work.
#[derive(Debug)]
pub struct Start {
    /// `None` once reaped.
    pub creator: Option<Pid>,
    pub pod: Name,
    pub container: Name,
    /// Requests that wait for it.
    pub seqs: Vec<u32>,
    pub socket: OwnedFd,
    pub deadline_millis: u64,
    pub oom_kills: u64,
    pub forked_into_cgroup: bool,
    /// The container's first process, once there is one, and its wait status
    /// if it has already ended.
    pub init: Option<Identity>,
    pub ended: Option<i32>,
    /// The creator's last word.
    pub outcome: Option<Report>,
}

impl Pod {
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.containers.len() == self.spec.containers.len()
    }

    #[must_use]
    pub fn runs(&self) -> bool {
        self.containers.values().any(|container| matches!(container.state, State::Running(_)))
    }

    #[must_use]
    pub fn report(&self) -> PodReport {
        let spec = &self.spec;
        let containers = self.containers.iter().map(|(name, container)| ContainerReport {
            name: name.clone(),
            state: container.state.report(),
        });
        PodReport {
            name: spec.name.clone(),
            deployment: spec.deployment.clone(),
            generation: spec.generation,
            hash: spec.hash,
            address: spec.address,
            restart_policy: spec.restart_policy,
            grace_millis: spec.grace_millis,
            complete: self.is_complete(),
            order: spec.containers.clone(),
            // As many as the pod's spec names at most.
            containers: containers.collect(),
        }
    }
}

impl Container {
    #[must_use]
    pub fn new(spec: &ContainerSpec, folder: ContainerFolder, cgroup: CgroupPath) -> Self {
        Self {
            folder,
            cgroup,
            layers: spec.layers.to_vec(),
            stop_signal: spec.stop_signal,
            state: State::Defined,
        }
    }
}

impl State {
    #[must_use]
    pub fn report(&self) -> ContainerState {
        match self {
            Self::Defined => ContainerState::Defined,
            Self::Running(running) => ContainerState::Running {
                pid: running.identity.pid.as_raw().unsigned_abs(),
                since_millis: running.since_millis,
            },
            &Self::Exited { exit, started_millis, at_millis } => {
                ContainerState::Exited { exit, started_millis, at_millis }
            }
        }
    }

    /// What is written down; nothing for a container never started.
    #[must_use]
    pub fn record(&self) -> Option<StateRecord> {
        match self {
            Self::Defined => None,
            Self::Running(running) => Some(StateRecord::Running {
                pid: running.identity.pid.as_raw().unsigned_abs(),
                start_ticks: running.identity.start_ticks,
                since_millis: running.since_millis,
                oom_kills: running.oom_kills,
            }),
            &Self::Exited { exit, started_millis, at_millis } => {
                Some(StateRecord::Exited { exit, started_millis, at_millis })
            }
        }
    }
}
