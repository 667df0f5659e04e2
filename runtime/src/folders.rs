//! Where everything of a node lies below its run folder. Paths only: nothing
//! here touches the file system.
//!
//! ```text
//! RUN/launcher.lock
//! RUN/layers/HEX/        one squashfs mount a layer
//! RUN/volumes/…          written by the supervisor, mounted read-only
//! RUN/pods/POD/          pod.bin, hosts, resolv.conf, hostname, shm/
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

    #[must_use]
    pub fn layer(&self, layer: &Digest) -> PathBuf {
        self.layers().join(layer.hex())
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
