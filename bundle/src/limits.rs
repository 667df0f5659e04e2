//! Every bound that cloud and node share, each with its unit and its reason.

/// Length of a [`crate::Name`]: a DNS label (RFC 1123), so that names can be
/// host names and folder names.
pub const NAME_BYTES_MAX: usize = 63;
/// Length of a deployment's name: leaves room for `-` and a ten digit serial
/// in the pod's name, which is a [`crate::Name`] too.
pub const DEPLOYMENT_NAME_BYTES_MAX: usize = 52;
/// An encoded envelope: a whole bundle with its configuration files in it.
/// It travels as one MQTT message and is held in memory twice.
pub const ENVELOPE_BYTES_MAX: usize = 512 * 1024;
/// Any MQTT payload: the largest one is an envelope.
pub const MQTT_PAYLOAD_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + 4 * 1024;
/// Bytes of a chunk: what one `chunk/data` message carries. A chunk of a layer
/// has about 32 KiB; a cut is forced here.
pub const CHUNK_BYTES_MAX: usize = 128 * 1024;
/// Chunks that one `chunk/get` asks for.
pub const CHUNKS_PER_GET_MAX: usize = 16;
/// Chunks of one chunk list: a list is a chunk itself, so it has to fit into
/// [`CHUNK_BYTES_MAX`] at 36 bytes for each.
pub const CHUNKS_PER_LIST_MAX: usize = 2048;
/// Chunk lists of one layer: about 4 GiB of it.
pub const CHUNK_LISTS_MAX: usize = 64;
/// Bytes that a node has asked for and not got: bounds the memory of a
/// transfer, whatever the image's size.
pub const TRANSFER_WINDOW_BYTES: usize = 512 * 1024;
/// Deployments in one bundle.
pub const DEPLOYMENTS_MAX: usize = 64;
/// Pods that one node runs, surge included.
pub const PODS_MAX: usize = 128;
/// Containers in one pod.
pub const CONTAINERS_MAX: usize = 16;
/// Images in one bundle.
pub const IMAGES_MAX: usize = 64;
/// Layers of one image: overlayfs takes up to 500, mount options one page.
pub const LAYERS_MAX: usize = 32;
/// Configuration objects (config maps and secrets) in one bundle.
pub const CONFIGS_MAX: usize = 128;
/// Files in one configuration object.
pub const CONFIG_FILES_MAX: usize = 64;
/// Bytes of all files of one configuration object (as in Kubernetes, less).
pub const CONFIG_BYTES_MAX: usize = 256 * 1024;
/// Words of a command line, and environment variables.
pub const WORDS_MAX: usize = 256;
/// Bytes of a command line or of an environment, all words together: has to
/// fit in one launcher packet together with the rest of a container.
pub const WORDS_BYTES_MAX: usize = 16 * 1024;
/// Volumes of one pod, and mounts of one container.
pub const VOLUMES_MAX: usize = 32;
/// Names that a pod has for other machines, and search domains and options of
/// its resolver.
pub const HOST_NAMES_MAX: usize = 16;
/// Name servers of one pod: the C library asks no more (resolv.conf(5)).
pub const NAMESERVERS_MAX: usize = 3;
/// Processes and threads of one container: a fork bomb must not take the
/// gateway's own.
pub const CONTAINER_PIDS_MAX: u32 = 1024;
/// What a container may write outside its volumes if its template does not
/// say. It lies in RAM and counts for the container's memory limit.
pub const STORAGE_BYTES: u64 = 64 << 20;
/// Bytes of one volume in memory, and of what a container may write besides.
pub const EMPTY_DIR_BYTES_MAX: u64 = 1 << 30;
/// Claims in one bundle.
pub const CLAIMS_MAX: usize = 32;
/// Bytes of one claim: more flash than any gateway has, and far from where sums
/// of them overflow.
pub const CLAIM_BYTES_MAX: u64 = 1 << 40;
/// Ports of one container.
pub const PORTS_MAX: usize = 32;
/// Length of a path in a container.
pub const PATH_BYTES_MAX: usize = 255;
/// Length of a free text that a person reads: descriptions, errors.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Lines of a pod's output that are reported with its failure.
pub const FAILED_LINES_MAX: usize = 10;
/// Length of each of them: a status has to stay small.
pub const FAILED_LINE_BYTES_MAX: usize = 256;
/// Grace between SIGTERM and SIGKILL that a pod may ask for, in seconds.
pub const GRACE_SECONDS_MAX: u32 = 600;
/// Failures that a job may be allowed: more is a typing error.
pub const JOB_FAILURES_MAX: u32 = 1_000;
/// The deadline of a job, in seconds: thirty days.
pub const JOB_SECONDS_MAX: u32 = 30 * 86_400;
/// Any length of time in a probe, in seconds: a day.
pub const PROBE_SECONDS_MAX: u32 = 86_400;
/// Results in a row that a probe may ask for.
pub const PROBE_COUNT_MAX: u32 = 1_000;
/// An upgrade's stability window or hold, in seconds: thirty days.
pub const UPGRADE_SECONDS_MAX: u32 = 30 * 86_400;
/// Boots that an upgrade may be allowed before it was good.
pub const UPGRADE_BOOTS_MAX: u32 = 1_000;

/// How long a command that the cloud has run may take, in seconds: somebody
/// waits for it, with a connection open.
pub const EXEC_SECONDS_MAX: u32 = 300;
/// Of what such a command writes to one stream: what a person reads, and two
/// streams fit in one message.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Who had it run: a user and a machine.
pub const ASKED_BY_BYTES_MAX: usize = 64;
/// The encoded order: its words, and names.
pub const SIGNED_EXEC_BYTES_MAX: usize = WORDS_BYTES_MAX + WORDS_MAX + 1024;

/// Cuts `text` to [`TEXT_BYTES_MAX`], at a character's boundary.
#[must_use]
pub fn bounded_text(text: &str) -> String {
    cut(text, TEXT_BYTES_MAX).to_owned()
}

/// The beginning of `text` that has at most `bytes_max`, to a character's
/// boundary.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
