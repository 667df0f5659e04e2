//! Where everything of a node lies below its run folder. Paths only: nothing
//! here touches the file system.
//!
//! ```text
//! RUN/launcher.lock
//! RUN/layers/HEX.INODE/  one squashfs mount a layer file
//! RUN/volumes/…          written by the supervisor, mounted read-only
//! RUN/pods/POD/          pod.bin, hosts, resolv.conf, hostname, shm/
//!              empty/VOLUME/  what lives as long as the pod
//!              ns/       net, ipc, uts: bind mounts of nsfs files
//!              c/NAME/   spec.bin, state.bin, stdout, stderr, stage/
//! ```

use std::path::{Path, PathBuf};

use wherry_bundle::{Digest, Name};

/// The run folder of a node.
#[derive(Clone, Debug)]
pub struct Folders {
    run: PathBuf,
}

/// The folder of one pod.
#[derive(Clone, Debug)]
pub struct PodFolder(PathBuf);

/// The folder of one container.
#[derive(Clone, Debug)]
pub struct ContainerFolder(PathBuf);

impl Folders {
    #[must_use]
    pub fn new(run: PathBuf) -> Self {
        Self { run }
    }

    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join("launcher.lock")
    }

    #[must_use]
    pub fn layers(&self) -> PathBuf {
        self.run.join("layers")
    }

    /// Where the file `inode` of a layer is mounted.
    #[must_use]
    pub fn layer(&self, layer: &Digest, inode: u64) -> PathBuf {
        self.layers().join(Self::layer_name(layer, inode))
    }

    #[must_use]
    pub fn layer_name(layer: &Digest, inode: u64) -> String {
        format!("{}.{inode:x}", layer.hex())
    }

    /// [`Self::layer`] backwards.
    #[must_use]
    pub fn layer_of(path: &Path) -> Option<(Digest, u64)> {
        let (layer, inode) = path.file_name()?.to_str()?.split_once('.')?;
        let layer = Digest::parse(&format!("sha256:{layer}"))?;
        Some((layer, u64::from_str_radix(inode, 16).ok()?))
    }

    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.run.join("volumes")
    }

    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.run.join("pods")
    }

    #[must_use]
    pub fn pod(&self, pod: &Name) -> PodFolder {
        PodFolder(self.pods().join(pod.as_str()))
    }
}

impl PodFolder {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.0.join("pod.bin")
    }

    #[must_use]
    pub fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    #[must_use]
    pub fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    /// `/dev/shm` of all the pod's containers.
    #[must_use]
    pub fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// Below it, a folder for each volume that lives as long as the pod.
    #[must_use]
    pub fn empty_dirs(&self) -> PathBuf {
        self.0.join("empty")
    }

    #[must_use]
    pub fn empty_dir(&self, volume: &Name) -> PathBuf {
        self.empty_dirs().join(volume.as_str())
    }

    #[must_use]
    pub fn namespaces(&self) -> PathBuf {
        self.0.join("ns")
    }

    /// `kind` as in `/proc/PID/ns`.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> PathBuf {
        self.namespaces().join(kind)
    }

    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.0.join("c")
    }

    #[must_use]
    pub fn container(&self, container: &Name) -> ContainerFolder {
        ContainerFolder(self.containers().join(container.as_str()))
    }
}

impl ContainerFolder {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    #[must_use]
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.bin")
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state.bin")
    }

    #[must_use]
    pub fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// Where the creator mounts, in a mount namespace of its own; see
    /// [`crate::rootfs`].
    #[must_use]
    pub fn stage(&self) -> PathBuf {
        self.0.join("stage")
    }
}
