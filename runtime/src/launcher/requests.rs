//! One function a request. Each is idempotent, and answers for itself.

use std::os::fd::OwnedFd;

use wherry_bundle::Name;

use super::Launcher;
use super::starts::kill_creator;
use super::state::State;
use crate::proto::{Notice, Packet, Pressure, Request, Services, Usage};
use crate::{check, claims, sys};

impl Launcher {
    pub(super) fn serve_request(&mut self, packet: Packet, streams: &[OwnedFd]) {
        let seq = packet.seq;
        // Whoever asks has read its configuration.
        self.notifier.ready();
        let ending = self.ending.is_some();
        match packet.request {
            Request::List => {
                let reports: Vec<_> = self.pods.values().map(super::Pod::report).collect();
                for report in reports {
                    self.link.send(&Notice::Pod(Box::new(report)));
                }
                self.answer(seq, Ok(()));
            }
            Request::CreatePod(_)
            | Request::DefineContainer { .. }
            | Request::StartContainer { .. }
            | Request::Probe { .. }
            | Request::Exec { .. }
            | Request::Publish(_)
            | Request::ProvideClaim(_)
                if ending =>
            {
                self.answer(seq, Err("the node is ending".into()));
            }
            Request::CreatePod(spec) => {
                let name = spec.name.clone();
                let checked = check::pod(&spec).map_err(|refused| refused.to_string());
                let result = checked.and_then(|()| self.create_pod(*spec));
                self.answer(seq, result.map_err(|text| format!("creating pod {name}: {text}")));
            }
            Request::DefineContainer { pod, spec } => {
                let checked = check::container(&spec, &self.allowed);
                let checked = checked.map_err(|refused| refused.to_string());
                let result = checked.and_then(|()| self.define_container(&pod, &spec));
                let at = format!("defining {pod}/{}", spec.name);
                self.answer(seq, result.map_err(|text| format!("{at}: {text}")));
            }
            Request::ProvideClaim(claim) => {
                let checked = check::claim(&claim).map_err(|refused| refused.to_string());
                let provide = || claims::provide(&self.claims_dir, &claim);
                let result = checked.and_then(|()| provide().map_err(|error| error.to_string()));
                self.answer(seq, result.map_err(|text| format!("volume {}: {text}", claim.name)));
            }
            Request::StartContainer { pod, container } => {
                self.start_container(seq, &pod, &container);
            }
            Request::TerminatePod { pod } => {
                self.terminate(&pod, None);
                self.answer(seq, Ok(()));
            }
            Request::TerminateContainer { pod, container } => {
                self.terminate(&pod, Some(&container));
                self.answer(seq, Ok(()));
            }
            Request::KillContainer { pod, container } => {
                let result = self.kill_container(&pod, &container);
                let at = format!("killing {pod}/{container}");
                self.answer(seq, result.map_err(|text| format!("{at}: {text}")));
            }
            Request::Probe { pod, container, check, timeout_millis } => {
                self.probe(seq, &pod, &container, &check, timeout_millis);
            }
            Request::KillPod { pod } => {
                let result = self.kill(&pod);
                self.answer(seq, result.map_err(|text| format!("killing pod {pod}: {text}")));
            }
            Request::RemovePod { pod } => self.begin_removal(&pod, Some(seq)),
            Request::Publish(services) => {
                let result = self.publish(&services);
                self.answer(seq, result.map_err(|text| format!("publishing: {text}")));
            }
            Request::Usage { pod } => {
                let result = self.usage(&pod);
                self.answer(seq, result.map_err(|text| format!("usage of pod {pod}: {text}")));
            }
            Request::Stop => {
                self.answer(seq, Ok(()));
                self.stop();
            }
            Request::Purge => self.purge(seq),
            Request::Alive => self.notifier.alive(),
            Request::Exec { pod, container, args, terminal } => {
                let begun = self.exec(seq, &pod, &container, &args, streams, terminal);
                if let Err(text) = begun {
                    self.answer(seq, Err(format!("in {pod}/{container}: {text}")));
                }
            }
            Request::EndExec { of } => {
                self.end_exec(of);
                self.answer(seq, Ok(()));
            }
        }
    }

    /// To each running container, or only to the one, its own signal. One that
    /// has ended meanwhile is what was wanted.
    fn terminate(&self, pod: &Name, only: Option<&Name>) {
        let Some(pod) = self.pods.get(pod) else { return };
        let meant = pod.containers.iter().filter(|(name, _)| only.is_none_or(|one| one == *name));
        for (_, container) in meant {
            let State::Running(running) = &container.state else { continue };
            let signal = i32::from(container.stop_signal);
            let sent = match &running.pidfd {
                Some(pidfd) => sys::pidfd_kill(std::os::fd::AsFd::as_fd(pidfd), signal),
                // A child that was not reaped.
                None => sys::kill_child(running.identity.pid, signal),
            };
            if let Err(error) = sent {
                log::debug!("signal {signal} to {}: {error}", container.cgroup);
            }
        }
    }

    fn kill_container(&mut self, pod: &Name, container: &Name) -> Result<(), String> {
        let entry = self.pods.get(pod).and_then(|pod| pod.containers.get(container));
        let Some(entry) = entry else { return Ok(()) };
        self.tree.kill(&entry.cgroup).map_err(|error| error.to_string())
    }

    /// Starts under way end too.
    fn kill(&mut self, pod: &Name) -> Result<(), String> {
        let Some(entry) = self.pods.get(pod) else { return Ok(()) };
        for start in self.starts.iter_mut().filter(|start| start.pod == *pod) {
            kill_creator(start);
            // Its sudden end is explained.
            start.forked_into_cgroup = false;
        }
        self.tree.kill(&entry.cgroup).map_err(|error| error.to_string())
    }

    fn publish(&mut self, services: &Services) -> Result<(), String> {
        self.network.publish(services).map_err(|error| error.to_string())?;
        let entries = self.host_entries();
        for pod in self.pods.values().filter(|pod| pod.removal.is_none()) {
            self.network
                .update_hosts(&pod.spec, &pod.folder, &entries)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn usage(&mut self, pod: &Name) -> Result<(), String> {
        let cgroup = &self.pods.get(pod).ok_or("there is no such pod")?.cgroup;
        let usage = self.tree.usage(cgroup).map_err(|error| error.to_string())?;
        let usage = Usage {
            cpu_micros: usage.cpu_micros,
            memory_bytes: usage.memory_bytes,
            memory_bytes_peak: usage.memory_bytes_peak,
            pids: usage.pids,
            oom_kills: usage.oom_kills,
            pressure: usage.pressure.map(|known| Pressure {
                cpu: known.cpu,
                memory: known.memory,
                io: known.io,
            }),
        };
        self.link.send(&Notice::Usage { pod: pod.clone(), usage });
        Ok(())
    }
}
