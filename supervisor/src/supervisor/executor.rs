//! Does what a plan asks for: turns each action into requests to the
//! launcher, and their answers into one outcome an action.
//!
//! Never here: deciding, retrying. Each request is idempotent, and whether it
//! is asked again is the reconciler's affair.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use wherry_bundle::message::Exit;
use wherry_bundle::{Bundle, Digest, Name};
use wherry_core::{Action, Millis, ObservedPod};
use wherry_runtime::client::LauncherClient;
use wherry_runtime::packet::PacketError;
use wherry_runtime::proto::{ClaimSpec, Packet, ProbeCheck, Request};

use super::probes::{Target, Try};
use super::spec::{PodOrder, claim_specs};
use super::{translate, volumes};
use crate::subnet::Subnet;

/// The launcher cannot be talked to: this process has to end, and the
/// launcher, if it lives, starts another.
#[derive(Debug, thiserror::Error)]
#[error("the launcher does not take requests: {0}")]
pub struct LauncherLost(PacketError);

/// What came of a request or an action.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done(Action),
    /// The pod is there, with all its containers.
    Created(Name, ObservedPod),
    Failed(Action, String),
    /// What came of a probe.
    Probed(Try, Result<(), String>),
    /// Nobody could be asked: that says nothing of the container.
    NotProbed(Try),
    /// All pods were reported.
    Listed,
    /// A person's command has ended, or could not be executed.
    Executed(u32, Result<Exit, String>),
    /// Whether the usage came or not, nothing more is to be expected.
    UsageAnswered(u32),
    /// The launcher could not end the node.
    NotEnded(String),
}

#[derive(Debug)]
pub struct Executor {
    launcher: LauncherClient,
    subnet: Subnet,
    volumes: PathBuf,
    next_seq: u32,
    /// What each unanswered request is part of.
    asked: BTreeMap<u32, Purpose>,
    /// Actions with unanswered requests.
    running: BTreeMap<Action, Running>,
}

/// Something that is run in a container before it is told to stop.
#[derive(Debug)]
pub struct Hook {
    pub container: Name,
    pub check: ProbeCheck,
    pub timeout: Millis,
}

fn probe_request((pod, container): Target, check: ProbeCheck, timeout: Millis) -> Request {
    let timeout_millis = u32::try_from(timeout.0).unwrap_or(u32::MAX);
    Request::Probe { pod, container, check: Box::new(check), timeout_millis }
}

#[derive(Debug)]
enum Purpose {
    Action(Action),
    Probe(Try),
    List,
    Usage,
    Exec,
    /// Whose answer changes nothing.
    Nothing,
    End,
}

#[derive(Debug, Default)]
struct Running {
    unanswered: usize,
    error: Option<String>,
    /// For `CreatePod`: what is there when all is done.
    pod: Option<ObservedPod>,
}

impl Executor {
    #[must_use]
    pub fn new(launcher: LauncherClient, subnet: Subnet, volumes: PathBuf) -> Self {
        Self {
            launcher,
            subnet,
            volumes,
            next_seq: 1,
            asked: BTreeMap::new(),
            running: BTreeMap::new(),
        }
    }

    /// Asks for all pods.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn list(&mut self) -> Result<(), LauncherLost> {
        self.ask(Purpose::List, Request::List).map(drop)
    }

    /// Asks what a pod uses; the number names the question.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn usage(&mut self, pod: &Name) -> Result<u32, LauncherLost> {
        self.ask(Purpose::Usage, Request::Usage { pod: pod.clone() })
    }

    /// Runs a person's command with its standard streams; the number names it.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn exec(&mut self, request: Request, streams: &[OwnedFd]) -> Result<u32, LauncherLost> {
        let seq = self.number(Purpose::Exec);
        self.launcher.send_with(&Packet { seq, request }, streams).map_err(LauncherLost)?;
        Ok(seq)
    }

    /// Ends the command `of`; [`Outcome::Executed`] comes all the same.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn end_exec(&mut self, of: u32) -> Result<(), LauncherLost> {
        self.ask(Purpose::Nothing, Request::EndExec { of }).map(drop)
    }

    /// Has a claim's folder made, or its limit set.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn provide_claim(&mut self, claim: ClaimSpec) -> Result<(), LauncherLost> {
        self.ask(Purpose::Nothing, Request::ProvideClaim(claim)).map(drop)
    }

    /// The command `seq` has ended.
    pub fn ended(&mut self, seq: u32, exit: Exit) -> Option<Outcome> {
        self.asked.remove(&seq)?;
        Some(Outcome::Executed(seq, Ok(exit)))
    }

    /// Ends launcher and supervisor, with `all` every pod as well.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn end(&mut self, all: bool) -> Result<(), LauncherLost> {
        let request = if all { Request::Purge } else { Request::Stop };
        self.ask(Purpose::End, request).map(drop)
    }

    /// Tells whoever watches over the node that the loop goes on.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn beat(&mut self) -> Result<(), LauncherLost> {
        // Never answered, so there is no number to remember.
        self.launcher.send(&Packet { seq: 0, request: Request::Alive }).map_err(LauncherLost)
    }

    /// Begins `action`; its outcome comes by [`Self::answered`], or at once
    /// when it could not even be asked for. `Fetch` is not for the launcher.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn begin(
        &mut self,
        action: Action,
        bundle: Option<&Bundle>,
    ) -> Result<Option<Outcome>, LauncherLost> {
        let (requests, pod) = match self.requests(&action, bundle) {
            Ok(requests) => requests,
            Err(error) => return Ok(Some(Outcome::Failed(action, error))),
        };
        self.begin_all(action, requests, pod)
    }

    /// Begins [`Action::PreStop`]: `hooks` run side by side.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn prepare_to_stop(
        &mut self,
        action: Action,
        pod: &Name,
        hooks: Vec<Hook>,
    ) -> Result<Option<Outcome>, LauncherLost> {
        let requests = hooks.into_iter().map(|Hook { container, check, timeout }| {
            probe_request((pod.clone(), container), check, timeout)
        });
        self.begin_all(action, requests.collect(), None)
    }

    /// Begins a probe; its outcome comes by [`Self::answered`].
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn probe(
        &mut self,
        of: Try,
        check: ProbeCheck,
        timeout: Millis,
    ) -> Result<(), LauncherLost> {
        let request = probe_request(of.target.clone(), check, timeout);
        self.ask(Purpose::Probe(of), request).map(drop)
    }

    fn begin_all(
        &mut self,
        action: Action,
        requests: Vec<Request>,
        pod: Option<ObservedPod>,
    ) -> Result<Option<Outcome>, LauncherLost> {
        if requests.is_empty() {
            return Ok(Some(Outcome::Done(action)));
        }
        let running = Running { unanswered: requests.len(), error: None, pod };
        self.running.insert(action.clone(), running);
        for request in requests {
            self.ask(Purpose::Action(action.clone()), request)?;
        }
        Ok(None)
    }

    /// The answer to request `seq`. The outcome, if it was the last one that
    /// its action waited for.
    pub fn answered(&mut self, seq: u32, result: Result<(), String>) -> Option<Outcome> {
        let action = match self.asked.remove(&seq)? {
            Purpose::Action(action) => action,
            Purpose::Probe(of) => return Some(Outcome::Probed(of, result)),
            Purpose::List => return Some(Outcome::Listed),
            Purpose::Usage => return Some(Outcome::UsageAnswered(seq)),
            Purpose::Exec => {
                let error = result.err().unwrap_or_default();
                return Some(Outcome::Executed(seq, Err(error)));
            }
            Purpose::Nothing => {
                if let Err(error) = result {
                    log::warn!("{error}");
                }
                return None;
            }
            Purpose::End => return result.err().map(Outcome::NotEnded),
        };
        let running = self.running.get_mut(&action)?;
        running.unanswered = running.unanswered.saturating_sub(1);
        // The first error is the cause of those that follow.
        running.error = running.error.take().or(result.err());
        if running.unanswered > 0 {
            return None;
        }
        let running = self.running.remove(&action)?;
        Some(match (running.error, running.pod, action) {
            (Some(error), _, action) => Outcome::Failed(action, error),
            (None, Some(made), Action::CreatePod { pod, .. }) => Outcome::Created(pod, made),
            (None, _, action) => Outcome::Done(action),
        })
    }

    /// Request `seq` for a probe was not even begun. A hook that was not has
    /// failed.
    pub fn not_tried(&mut self, seq: u32, error: &str) -> Option<Outcome> {
        if let Some(Purpose::Probe(of)) = self.asked.get(&seq) {
            let of = of.clone();
            self.asked.remove(&seq);
            return Some(Outcome::NotProbed(of));
        }
        self.answered(seq, Err(error.to_owned()))
    }

    /// Actions that have no outcome yet.
    pub fn in_flight(&self) -> impl Iterator<Item = &Action> {
        self.running.keys()
    }

    /// Removes volumes of pods that are neither in `used` nor being made.
    pub fn prune_volumes(&self, mut used: BTreeSet<Digest>) {
        used.extend(
            self.running.values().filter_map(|running| running.pod.as_ref()).map(|p| p.hash),
        );
        if let Err(error) = volumes::prune(&self.volumes, &used) {
            log::warn!("unused volumes are left: {error}");
        }
    }

    fn requests(
        &self,
        action: &Action,
        bundle: Option<&Bundle>,
    ) -> Result<(Vec<Request>, Option<ObservedPod>), String> {
        let request = match action {
            Action::CreatePod { pod, deployment, address } => {
                let (requests, made) = self.create(pod, deployment, *address, bundle)?;
                return Ok((requests, Some(made)));
            }
            Action::StartContainer { pod, container } => {
                Request::StartContainer { pod: pod.clone(), container: container.clone() }
            }
            Action::TerminateContainer { pod, container } => {
                Request::TerminateContainer { pod: pod.clone(), container: container.clone() }
            }
            Action::KillContainer { pod, container } => {
                Request::KillContainer { pod: pod.clone(), container: container.clone() }
            }
            Action::TerminatePod { pod } => Request::TerminatePod { pod: pod.clone() },
            Action::KillPod { pod } => Request::KillPod { pod: pod.clone() },
            Action::RemovePod { pod } => Request::RemovePod { pod: pod.clone() },
            Action::Publish { publication } => {
                let services = translate::services(publication, self.subnet);
                Request::Publish(Box::new(services.ok_or("it does not fit in one request")?))
            }
            Action::PreStop { .. } => return Err("it has its own way to begin".into()),
            Action::Fetch { .. } => return Err("layers are fetched by the agent".into()),
        };
        Ok((vec![request], None))
    }

    fn create(
        &self,
        pod: &Name,
        deployment: &Name,
        number: Option<u16>,
        bundle: Option<&Bundle>,
    ) -> Result<(Vec<Request>, ObservedPod), String> {
        let found = bundle.and_then(|bundle| Some((bundle, bundle.deployment(deployment)?)));
        let (bundle, deployment) =
            found.ok_or_else(|| format!("no bundle has deployment `{deployment}`"))?;
        let address = match number {
            Some(number) => {
                let address = self.subnet.pod(number);
                Some(address.ok_or_else(|| format!("{} has no host {number}", self.subnet))?)
            }
            None => None,
        };
        let order =
            PodOrder::new(bundle, deployment, pod, address).map_err(|error| error.to_string())?;
        volumes::write(&self.volumes, bundle, deployment).map_err(|error| error.to_string())?;
        let made = translate::created_pod(&order, number);
        let claims = claim_specs(bundle, deployment).map(Request::ProvideClaim);
        let mut requests: Vec<Request> = claims.collect();
        requests.push(Request::CreatePod(Box::new(order.pod)));
        requests.extend(
            order
                .containers
                .into_iter()
                .map(|spec| Request::DefineContainer { pod: pod.clone(), spec: Box::new(spec) }),
        );
        Ok((requests, made))
    }

    fn ask(&mut self, purpose: Purpose, request: Request) -> Result<u32, LauncherLost> {
        let seq = self.number(purpose);
        self.launcher.send(&Packet { seq, request }).map_err(LauncherLost)?;
        Ok(seq)
    }

    fn number(&mut self, purpose: Purpose) -> u32 {
        let seq = self.next_seq;
        self.next_seq = self.next_seq.wrapping_add(1);
        self.asked.insert(seq, purpose);
        seq
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use wherry_runtime::packet::{self, Received, Wait};

    use super::*;
    use crate::supervisor::sample::{self, name};

    fn executor(volumes: &std::path::Path) -> (Executor, OwnedFd) {
        let (own, launcher) = packet::pair().unwrap();
        let client = LauncherClient::new(own);
        (Executor::new(client, Subnet::default(), volumes.to_owned()), launcher)
    }

    fn requests(launcher: &OwnedFd) -> Vec<Packet> {
        let mut buffer = Vec::new();
        let mut all = Vec::new();
        while let Received::Packet(packet) =
            packet::receive(launcher.as_fd(), &mut buffer, Wait::No).unwrap()
        {
            all.push(packet);
        }
        all
    }

    #[test]
    fn a_pod_is_there_when_all_of_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (mut executor, launcher) = executor(dir.path());
        let bundle = sample::bundle();
        let action =
            Action::CreatePod { pod: name("web-1"), deployment: name("web"), address: Some(2) };
        assert_eq!(executor.begin(action.clone(), Some(&bundle)).unwrap(), None);
        assert!(executor.in_flight().eq([&action]));
        let hash = bundle.pod_hash(&bundle.deployments[0]);
        assert!(dir.path().join(hash.hex()).join("keys/key.pem").exists());
        let asked = requests(&launcher);
        let [create, define] = &asked[..] else { panic!("{asked:?}") };
        assert!(matches!(&create.request, Request::CreatePod(spec) if spec.hash == hash));
        assert!(matches!(&define.request, Request::DefineContainer { .. }));
        executor.prune_volumes(BTreeSet::new());
        assert!(dir.path().join(hash.hex()).exists(), "pruned while the pod is being made");
        assert_eq!(executor.answered(create.seq, Ok(())), None);
        match executor.answered(define.seq, Ok(())) {
            Some(Outcome::Created(pod, made)) => {
                assert_eq!((pod, made.hash, made.complete), (name("web-1"), hash, true));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(executor.in_flight().count(), 0);
        assert_eq!(executor.answered(define.seq, Ok(())), None, "answered twice");
        executor.prune_volumes(BTreeSet::new());
        assert!(!dir.path().join(hash.hex()).exists());
    }

    #[test]
    fn a_claim_is_there_before_its_pod() {
        use wherry_bundle::model::{AccessMode, Claim, ClaimVolume, Mount, Volume, VolumeSource};
        let dir = tempfile::tempdir().unwrap();
        let (mut executor, launcher) = executor(dir.path());
        let mut bundle = sample::bundle();
        let access = AccessMode::ReadWriteOnce;
        bundle.claims = vec![Claim { name: name("data"), bytes_max: 9, access }];
        let source = VolumeSource::Claim(ClaimVolume { claim: name("data"), read_only: false });
        let pod = &mut bundle.deployments[0].pod;
        pod.volumes.push(Volume { name: name("store"), source });
        let (volume, path) = (name("store"), "/data".to_owned());
        pod.containers[0].mounts.push(Mount { volume, path, sub_path: None, read_only: false });
        let action =
            Action::CreatePod { pod: name("web-1"), deployment: name("web"), address: Some(2) };
        executor.begin(action, Some(&bundle)).unwrap();
        let asked = requests(&launcher);
        let [claim, create, _] = &asked[..] else { panic!("{asked:?}") };
        assert!(matches!(&claim.request, Request::ProvideClaim(it) if it.name == name("data")));
        assert!(matches!(&create.request, Request::CreatePod(_)));
    }

    #[test]
    fn the_first_error_is_told_once_all_are_answered() {
        let dir = tempfile::tempdir().unwrap();
        let (mut executor, launcher) = executor(dir.path());
        let action =
            Action::CreatePod { pod: name("web-1"), deployment: name("web"), address: None };
        executor.begin(action.clone(), Some(&sample::bundle())).unwrap();
        let seqs: Vec<u32> = requests(&launcher).iter().map(|packet| packet.seq).collect();
        assert_eq!(executor.answered(seqs[0], Err("no bridge".into())), None);
        assert_eq!(
            executor.answered(seqs[1], Err("no such pod".into())),
            Some(Outcome::Failed(action, "no bridge".into()))
        );
    }

    #[test]
    fn what_cannot_be_asked_for_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mut executor, launcher) = executor(dir.path());
        for (deployment, address) in [("web", Some(1)), ("other", Some(2))] {
            let action =
                Action::CreatePod { pod: name("x-1"), deployment: name(deployment), address };
            let outcome = executor.begin(action, Some(&sample::bundle())).unwrap();
            assert!(matches!(outcome, Some(Outcome::Failed(..))), "{outcome:?}");
        }
        assert_eq!(requests(&launcher), []);
        drop(launcher);
        executor.list().unwrap_err();
    }
}
