//! A launcher without a supervisor: whoever holds the other end of its socket
//! asks it for things. For benchmarks of what the launcher alone costs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wherry_bundle::model::{RestartPolicy, Role, Seccomp};
use wherry_bundle::{Digest, Generation, Name};
use wherry_runtime::check::Allowed;
use wherry_runtime::client::{LauncherClient, NoticeReader};
use wherry_runtime::folders::Folders;
use wherry_runtime::launcher::{LauncherConfig, NetworkSettings, Supervisor, run};
use wherry_runtime::proto::{ContainerSpec, Dns, Notice, Packet, PodSpec, Request, join_words};
use wherry_runtime::seal;

use crate::host::{Host, Process, Side};

/// What `wherry-launcher FOLDER NAME BRIDGE` does: serves descriptor 3.
///
/// # Errors
/// What the launcher says.
pub fn serve(words: &[String]) -> Result<()> {
    let [folder, name, bridge] = words else { bail!("usage: FOLDER NAME BRIDGE") };
    seal::ensure_sealed()?;
    let folder = Path::new(folder);
    run(LauncherConfig {
        run_dir: folder.join("run"),
        layers_dir: folder.join("layers"),
        claims_dir: folder.join("volumes"),
        cgroup_prefix: name.clone(),
        network: NetworkSettings {
            bridge: bridge.clone(),
            subnet_base: Ipv4Addr::new(10, 87, 0, 0),
            subnet_prefix: 16,
            dns: Vec::new(),
        },
        allowed: Allowed::default(),
        supervisor: Supervisor::Attached(crate::sys::inherited_fd()?),
    })?;
    Ok(())
}

/// The asking end.
#[derive(Debug)]
pub struct Launcher {
    client: LauncherClient,
    notices: NoticeReader,
    folders: Folders,
    layers: PathBuf,
    seq: u32,
    _process: Process,
}

impl Launcher {
    /// Starts `program`, a build of `wherry-launcher`, on the gateway's side.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(host: &Host, program: &Path) -> Result<Self> {
        let (ours, theirs) = crate::sys::packet_pair()?;
        let layers = host.folder().join("layers");
        std::fs::create_dir_all(&layers)?;
        let mut command = Command::new(program);
        command.arg(host.folder()).arg(host.name()).arg(host.bridge());
        crate::sys::pass_fd(&mut command, theirs.as_fd());
        let process = host.spawn(Side::Gateway, &mut command, "launcher")?;
        let client = LauncherClient::new(ours);
        Ok(Self {
            notices: client.reader()?,
            client,
            folders: Folders::new(host.folder().join("run")),
            layers,
            seq: 0,
            _process: process,
        })
    }

    /// Makes a layer file of a folder; its digest.
    ///
    /// # Errors
    /// What mksquashfs says.
    pub fn add_layer(&self, root: &Path) -> Result<Digest> {
        let file = self.layers.join("new");
        let mut make = Command::new("mksquashfs");
        make.arg(root).arg(&file).args(["-comp", "zstd", "-all-root", "-quiet", "-no-progress"]);
        crate::run::run(&mut make)?;
        let digest = Digest::of(&std::fs::read(&file)?);
        std::fs::rename(&file, self.layers.join(format!("{}.squashfs", digest.hex())))?;
        Ok(digest)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The launcher's own words.
    pub fn ask(&mut self, request: Request) -> Result<()> {
        self.ask_all([request])
    }

    /// Asks for several things at once, as a supervisor does, and waits for
    /// all answers.
    ///
    /// # Errors
    /// The launcher's own words about the first that failed.
    pub fn ask_all(&mut self, requests: impl IntoIterator<Item = Request>) -> Result<()> {
        let mut waiting = BTreeSet::new();
        for request in requests {
            self.seq += 1;
            waiting.insert(self.seq);
            self.client.send(&Packet { seq: self.seq, request })?;
        }
        while !waiting.is_empty() {
            match self.notices.recv()?.context("the launcher is gone")? {
                Notice::Done { seq } => drop(waiting.remove(&seq)),
                Notice::Failed { seq, error } if waiting.contains(&seq) => bail!("{error}"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until a container ends.
    ///
    /// # Errors
    /// The launcher is gone.
    pub fn wait_exit(&mut self) -> Result<()> {
        loop {
            let notice = self.notices.recv()?.context("the launcher is gone")?;
            if matches!(notice, Notice::Exited { .. }) {
                return Ok(());
            }
        }
    }

    /// A pod with these containers, each a lion that prints a time stamp and
    /// waits to be killed. `number`: of the pod, and of its address.
    ///
    /// # Errors
    /// The launcher's own words.
    pub fn define(&mut self, number: u8, containers: &[Name], layer: Digest) -> Result<Name> {
        let pod = Name::new(&format!("bench-{number}"))?;
        self.ask(Request::CreatePod(Box::new(PodSpec {
            name: pod.clone(),
            deployment: Name::new("bench")?,
            generation: Generation(1),
            hash: Digest::of(b"bench"),
            address: Some(Ipv4Addr::new(10, 87, 1, number)),
            restart_policy: RestartPolicy::Never,
            grace_millis: 1_000,
            containers: containers.iter().map(|name| (name.clone(), Role::Main)).collect(),
            empty_dirs: heapless::Vec::new(),
            host_aliases: heapless::Vec::new(),
            dns: Dns::default(),
        })))?;
        let define = |name: &Name| {
            let spec = Box::new(stamp(name, layer)?);
            Ok(Request::DefineContainer { pod: pod.clone(), spec })
        };
        let requests: Vec<Request> = containers.iter().map(define).collect::<Result<_>>()?;
        self.ask_all(requests)?;
        Ok(pod)
    }

    /// The reading end of a container's standard output.
    ///
    /// # Errors
    /// There is none.
    pub fn stdout(&self, pod: &Name, container: &Name) -> Result<BufReader<File>> {
        let path = self.folders.pod(pod).container(container).stdout();
        // Both ways, so that opening does not wait for a writer.
        let file = File::options().read(true).write(true).open(&path);
        Ok(BufReader::new(file.with_context(|| path.display().to_string())?))
    }

    /// Where a pod's network namespace is pinned.
    #[must_use]
    pub fn netns(&self, pod: &Name) -> PathBuf {
        self.folders.pod(pod).namespace("net")
    }
}

fn stamp(name: &Name, layer: Digest) -> Result<ContainerSpec> {
    let words = |words: &[&str]| join_words(words.iter().copied()).context("few words");
    Ok(ContainerSpec {
        name: name.clone(),
        args: words(&["/bin/wherry-lion"])?,
        env: words(&["PATH=/bin", "LION_STAMP=1"])?,
        working_dir: "/".try_into()?,
        uid: 1000,
        gid: 1000,
        additional_gids: heapless::Vec::new(),
        capabilities: 0,
        cpu_millis: None,
        memory_bytes: Some(64 << 20),
        pids: None,
        storage_bytes: None,
        layers: [layer].into_iter().collect(),
        mounts: heapless::Vec::new(),
        stop_signal: 15,
        read_only_root: true,
        image_volumes: heapless::Vec::new(),
        seccomp: Seccomp::RuntimeDefault,
    })
}
