//! What this machine's kernel lacks of what bundles ask for: tried in a process
//! of its own ([`ROLE`]), since trying forks, and takes some tenths of a second.
//! Once a boot, when the first bundle comes; again while something is lacking,
//! for a module may be loaded meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::{fs, io::Read as _};

use serde::{Deserialize, Serialize};
use wherry_bundle::Bundle;
use wherry_runtime::seal::SELF_EXE;

use crate::check;

/// The word by which this program is started to try the kernel; the second one
/// is the cgroup's name.
pub const ROLE: &str = "kernel-check";
/// Some names and the kernel's words for each.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Waiting for a process.
const STACK_BYTES: usize = 64 * 1024;

/// By the names of `wherry check`, with what was found. Empty: nothing is known
/// to be lacking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacks {
    /// Without these no container can be made.
    pub containers: Vec<(String, String)>,
    /// Controllers by which limits are kept.
    pub controllers: Vec<String>,
    /// Without these no port can be published.
    pub ports: Vec<(String, String)>,
}

/// Knows what the kernel lacks, or finds it out.
#[derive(Debug)]
pub struct Kernel {
    /// Is there once all was found.
    record: PathBuf,
    cgroup: String,
    known: Option<Lacks>,
    asked: bool,
}

impl Lacks {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.controllers.is_empty() && self.ports.is_empty()
    }

    /// Tries. The caller must be single-threaded.
    fn find(cgroup: &str) -> Self {
        let found = check::for_bundles(cgroup);
        let rows = |rows: Vec<check::Row>| -> Vec<(String, String)> {
            let lacking = rows.into_iter().filter(|row| row.state == check::State::Lacking);
            lacking.map(|row| (row.name.to_owned(), row.found)).collect()
        };
        Self {
            containers: rows(found.containers),
            controllers: found.controllers.into_iter().map(str::to_owned).collect(),
            ports: rows(found.ports),
        }
    }
}

impl Kernel {
    /// `record` is below the run folder: what it says holds for this boot.
    #[must_use]
    pub fn new(record: PathBuf, cgroup: String) -> Self {
        let known = record.exists().then(Lacks::default);
        Self { record, cgroup, known, asked: false }
    }

    /// What is known of it. If nothing is, it is found out; `done` is called
    /// then, on another thread.
    pub fn lacks(&mut self, done: impl FnOnce(Lacks) + Send + 'static) -> Option<Lacks> {
        if self.known.is_none() && !self.asked {
            match ask(self.cgroup.clone(), done) {
                Ok(()) => self.asked = true,
                Err(error) => {
                    log::warn!("what the kernel lacks is not known: {error}");
                    return Some(Lacks::default());
                }
            }
        }
        self.known.clone()
    }

    /// To be called with what `done` was called with.
    pub fn learn(&mut self, lacks: Lacks) {
        self.asked = false;
        if lacks.is_empty()
            && let Err(error) = fs::write(&self.record, "")
        {
            log::warn!("{}: {error}", self.record.display());
        }
        self.known = Some(lacks);
    }

    /// What is lacking may be there when the next bundle comes.
    pub fn forget_lacks(&mut self) {
        if self.known.as_ref().is_some_and(|lacks| !lacks.is_empty()) {
            self.known = None;
        }
    }
}

/// The process of its own: prints what is lacking. Alone in its process, and
/// single-threaded.
#[must_use]
pub fn serve(cgroup: &str) -> ExitCode {
    match serde_json::to_writer(io::stdout(), &Lacks::find(cgroup)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Why `bundle` cannot run on this kernel, for people.
pub fn reasons(bundle: &Bundle, lacks: &Lacks) -> Vec<String> {
    let text = |(name, found): &(String, String)| format!("the kernel lacks {name} ({found})");
    let containers = || bundle.deployments.iter().flat_map(|d| &d.pod.containers);
    let mut reasons: Vec<String> = lacks.containers.iter().map(text).collect();
    for controller in &lacks.controllers {
        let asks = match controller.as_str() {
            "memory" => containers().any(|c| c.resources.memory_bytes.is_some()),
            "cpu" => containers().any(|c| c.resources.cpu_millis.is_some()),
            _ => false,
        };
        if asks {
            reasons.push(format!(
                "a limit needs the cgroup controller {controller}, which the kernel lacks"
            ));
        }
    }
    if containers().any(|c| c.ports.iter().any(|port| port.host_port.is_some())) {
        reasons.extend(lacks.ports.iter().map(text));
    }
    reasons
}

fn ask(cgroup: String, done: impl FnOnce(Lacks) + Send + 'static) -> io::Result<()> {
    let work = move || {
        let lacks = run(Path::new(SELF_EXE), &cgroup).unwrap_or_else(|error| {
            log::warn!("what the kernel lacks cannot be found out: {error}");
            Lacks::default()
        });
        done(lacks);
    };
    let thread = thread::Builder::new().name("wherry-kernel".into()).stack_size(STACK_BYTES);
    thread.spawn(work).map(drop)
}

/// Each trial has its own deadline, and so the whole has.
fn run(program: &Path, cgroup: &str) -> io::Result<Lacks> {
    let mut child = Command::new(program)
        .args([ROLE, cgroup])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut answer = Vec::new();
    let read = child
        .stdout
        .take()
        .map_or(Ok(0), |out| out.take(ANSWER_BYTES_MAX).read_to_end(&mut answer));
    child.wait()?;
    read?;
    serde_json::from_slice(&answer).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::sample;

    fn lacks(containers: &[&str], controllers: &[&str], ports: &[&str]) -> Lacks {
        let rows = |names: &[&str]| names.iter().map(|n| ((*n).into(), "ENODEV".into())).collect();
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        Lacks { containers: rows(containers), controllers, ports: rows(ports) }
    }

    #[test]
    fn only_what_the_bundle_asks_for_counts() {
        let mut bundle = sample::bundle();
        for container in bundle.deployments.iter_mut().flat_map(|d| &mut d.pod.containers) {
            container.ports.clear();
            container.resources.memory_bytes = None;
            container.resources.cpu_millis = Some(100);
        }
        assert_eq!(reasons(&bundle, &Lacks::default()), Vec::<String>::new());
        assert_eq!(
            reasons(&bundle, &lacks(&["squashfs-zstd"], &[], &[])),
            ["the kernel lacks squashfs-zstd (ENODEV)"]
        );
        let most = lacks(&[], &["memory", "pids"], &["nftables-nat"]);
        assert_eq!(reasons(&bundle, &most), Vec::<String>::new());
        let [why] = &reasons(&bundle, &lacks(&[], &["cpu"], &[]))[..] else { panic!() };
        assert!(why.contains("controller cpu"), "{why}");
    }

    #[test]
    fn a_good_kernel_is_tried_once_a_boot_and_a_poor_one_again() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("kernel-checked");
        let mut kernel = Kernel::new(record.clone(), "wherry-test".into());
        kernel.learn(lacks(&["overlay"], &[], &[]));
        assert!(kernel.known.is_some() && !record.exists());
        kernel.forget_lacks();
        assert_eq!(kernel.known, None);
        kernel.learn(Lacks::default());
        kernel.forget_lacks();
        assert_eq!(kernel.known, Some(Lacks::default()));
        assert_eq!(Kernel::new(record, "wherry-test".into()).known, Some(Lacks::default()));
    }
}
