//! What Kubernetes (v1.30) has besides what [`super::shapes`] lists: every
//! other field, and why it is not honoured. A field that becomes honoured
//! moves there. Never here: an honoured field.

use super::place::{Field, no_effect, refused, refused_except};

const SERVER: &str = "a cluster's server sets it";
const NODES: &str = "say which nodes when you roll out: `rollout start --nodes`";
const NO_SERVER: &str = "a node has no API server: give the program what it needs as a secret";
const MOUNTED: &str = "mount it on the node, and use hostPath";
const NO_TERMINAL: &str = "nobody is there to type: give the program a file or a socket";
const CONTAINED: &str = "containers are kept apart by namespaces and capabilities: leave it out";
const WINDOWS: &str = "every node runs Linux: leave it out";
const OPTIONAL: &str = "make it part of the version";
const HOST_NAMESPACE: &str =
    "a pod sees only its own: reach the node by hostNetwork, or a socket in a hostPath";
const NOT_INDEXED: &str = "a job succeeds once: leave it out";
const FILLED: &str = "a claim is empty at first: have an init container fill it";
const BY_NAME: &str = "a claim's folder is found by the claim's name: leave it out";
const PREEMPTION: &str = "no pod makes place for another: set limits with which all fit";

/// Fields of `kind`, which may be none.
#[must_use]
pub fn of(kind: &str) -> &'static [Field] {
    match kind {
        "ObjectMeta" => OBJECT_META,
        "ObjectMeta of a template" => TEMPLATE_META,
        "Deployment" | "Pod" | "Job" | "PersistentVolumeClaim" => STATUS,
        "JobSpec" => JOB_SPEC,
        "PodSpec" => POD_SPEC,
        "Container" => CONTAINER,
        "Lifecycle" => LIFECYCLE,
        "ResourceRequirements" => RESOURCES,
        "ResourceList" => RESOURCE_LIST,
        "SecurityContext" => SECURITY,
        "PodSecurityContext" => POD_SECURITY,
        "VolumeMount" => VOLUME_MOUNT,
        "Volume" => VOLUME,
        "ConfigMapVolumeSource" | "SecretVolumeSource" => OPTIONAL_SOURCE,
        "KeyToPath" => KEY_TO_PATH,
        "PersistentVolumeClaimSpec" => CLAIM_SPEC,
        "VolumeResourceRequirements" => CLAIM_RESOURCES,
        _ => &[],
    }
}

const OBJECT_META: &[Field] = &[
    ANNOTATIONS,
    CREATION_TIMESTAMP,
    no_effect("deletionGracePeriodSeconds", SERVER),
    no_effect("deletionTimestamp", SERVER),
    FINALIZERS,
    GENERATE_NAME,
    no_effect("generation", SERVER),
    no_effect("managedFields", SERVER),
    no_effect("ownerReferences", SERVER),
    no_effect("resourceVersion", SERVER),
    no_effect("selfLink", SERVER),
    no_effect("uid", SERVER),
];

const TEMPLATE_META: &[Field] = &[
    ANNOTATIONS,
    CREATION_TIMESTAMP,
    no_effect("deletionGracePeriodSeconds", SERVER),
    no_effect("deletionTimestamp", SERVER),
    FINALIZERS,
    no_effect("generateName", "pods are named after their deployment"),
    no_effect("generation", SERVER),
    no_effect("managedFields", SERVER),
    refused_except("namespace", "default", "a node has one namespace: leave it out"),
    no_effect("ownerReferences", SERVER),
    no_effect("resourceVersion", SERVER),
    no_effect("selfLink", SERVER),
    no_effect("uid", SERVER),
];

/// But see [`super::annotations`].
const ANNOTATIONS: Field =
    no_effect("annotations", "nobody reads them; those of AppArmor and seccomp are refused");
const CREATION_TIMESTAMP: Field = no_effect("creationTimestamp", SERVER);
const FINALIZERS: Field =
    refused("finalizers", "what a version no longer has goes at once: leave it out");
const GENERATE_NAME: Field = refused("generateName", "write the whole name as `name`");

const STATUS: &[Field] = &[no_effect("status", SERVER)];

const JOB_SPEC: &[Field] = &[
    refused("backoffLimitPerIndex", NOT_INDEXED),
    refused_except("completionMode", "NonIndexed", NOT_INDEXED),
    refused("managedBy", "the node runs it: leave it out"),
    refused_except("manualSelector", "false", "labels select nothing here: leave it out"),
    refused("maxFailedIndexes", NOT_INDEXED),
    refused("podFailurePolicy", "every failure counts for backoffLimit: leave it out"),
    refused_except(
        "podReplacementPolicy",
        "TerminatingOrFailed",
        "a pod is gone before another one comes in its place: leave it out",
    ),
    no_effect("selector", SERVER),
    refused("successPolicy", NOT_INDEXED),
    refused_except("suspend", "false", "start the rollout when it is time"),
];

const POD_SPEC: &[Field] = &[
    refused(
        "activeDeadlineSeconds",
        "write it as a Job's, or let the program end itself, as timeout(1) does",
    ),
    refused("affinity", NODES),
    refused_except("automountServiceAccountToken", "false", NO_SERVER),
    no_effect("enableServiceLinks", "there are no services to tell of"),
    refused("ephemeralContainers", "put the tools into a container of the pod"),
    refused_except("hostIPC", "false", HOST_NAMESPACE),
    refused_except("hostPID", "false", HOST_NAMESPACE),
    refused_except("hostUsers", "true", "users are those of the node: leave it out"),
    refused("hostname", "a pod's host name is its own name: leave it out"),
    no_effect("imagePullSecrets", "images come with the version"),
    refused("nodeName", NODES),
    refused("nodeSelector", NODES),
    refused("os", WINDOWS),
    refused("overhead", "only limits count: raise those of the containers"),
    refused_except("preemptionPolicy", "PreemptLowerPriority", PREEMPTION),
    refused_except("priority", "0", PREEMPTION),
    refused("priorityClassName", PREEMPTION),
    refused("readinessGates", "use readinessProbe"),
    refused("resourceClaims", "a node does not share out devices: leave it out"),
    refused("resources", "limit each container"),
    refused("runtimeClassName", "a node has one runtime: leave it out"),
    refused_except("schedulerName", "default-scheduler", NODES),
    refused("schedulingGates", "start the rollout when it is time"),
    refused_except("serviceAccount", "default", NO_SERVER),
    refused_except("serviceAccountName", "default", NO_SERVER),
    refused_except("setHostnameAsFQDN", "false", "a pod's host name is its own name: leave it out"),
    refused_except("shareProcessNamespace", "false", "run programs that need it in one container"),
    refused("subdomain", "a deployment's pods are reached by its name: leave it out"),
    no_effect("tolerations", "nodes have no taints"),
    refused("topologySpreadConstraints", "a node runs all replicas: leave it out"),
];

const CONTAINER: &[Field] = &[
    refused("resizePolicy", "new limits replace the pod: leave it out"),
    refused_except("stdin", "false", NO_TERMINAL),
    refused_except("stdinOnce", "false", NO_TERMINAL),
    refused_except("terminationMessagePath", "/dev/termination-log", "write it to standard error"),
    no_effect("terminationMessagePolicy", "the last lines that a container wrote are told"),
    refused_except("tty", "false", NO_TERMINAL),
    refused("volumeDevices", "use a file system: persistentVolumeClaim"),
];

const LIFECYCLE: &[Field] =
    &[refused("stopSignal", "the signal that the image names counts (STOPSIGNAL in a Dockerfile)")];

const RESOURCES: &[Field] = &[refused("claims", "a node does not share out devices: leave it out")];

const RESOURCE_LIST: &[Field] = &[
    refused("hugepages-1Gi", "limit memory"),
    refused("hugepages-2Mi", "limit memory"),
    refused("storage", "what a container may write is limited by ephemeral-storage"),
];

const SECURITY: &[Field] = &[
    refused("appArmorProfile", CONTAINED),
    refused_except("procMount", "Default", "parts of /proc stay hidden: leave it out"),
    refused("seLinuxOptions", CONTAINED),
    refused("windowsOptions", WINDOWS),
];

const POD_SECURITY: &[Field] = &[
    refused("appArmorProfile", CONTAINED),
    no_effect("fsGroupChangePolicy", "only the folder of a volume itself is given to the group"),
    refused("seLinuxOptions", CONTAINED),
    refused("supplementalGroupsPolicy", "the image's groups count for its own user: leave it out"),
    refused("sysctls", "they are the node's: set them there"),
    refused("windowsOptions", WINDOWS),
];

const VOLUME_MOUNT: &[Field] = &[
    refused_except(
        "mountPropagation",
        "None",
        "what is mounted later does not show: mount it before the pod starts",
    ),
    refused_except("recursiveReadOnly", "Disabled", "use readOnly"),
    refused("subPathExpr", "write the whole path as subPath"),
];

const VOLUME: &[Field] = &[
    refused("awsElasticBlockStore", MOUNTED),
    refused("azureDisk", MOUNTED),
    refused("azureFile", MOUNTED),
    refused("cephfs", MOUNTED),
    refused("cinder", MOUNTED),
    refused("csi", MOUNTED),
    refused("downwardAPI", "write what the program has to know in env"),
    refused("ephemeral", "use emptyDir, or persistentVolumeClaim for what is to stay"),
    refused("fc", MOUNTED),
    refused("flexVolume", MOUNTED),
    refused("flocker", MOUNTED),
    refused("gcePersistentDisk", MOUNTED),
    refused("gitRepo", "put the files into the image or a config map"),
    refused("glusterfs", MOUNTED),
    refused("image", "put the files into the container's own image"),
    refused("iscsi", MOUNTED),
    refused("nfs", MOUNTED),
    refused("photonPersistentDisk", MOUNTED),
    refused("portworxVolume", MOUNTED),
    refused("projected", "mount each config map and secret by itself"),
    refused("quobyte", MOUNTED),
    refused("rbd", MOUNTED),
    refused("scaleIO", MOUNTED),
    refused("storageos", MOUNTED),
    refused("vsphereVolume", MOUNTED),
];

const OPTIONAL_SOURCE: &[Field] = &[refused_except("optional", "false", OPTIONAL)];

const CLAIM_SPEC: &[Field] = &[
    refused("dataSource", FILLED),
    refused("dataSourceRef", FILLED),
    refused("selector", BY_NAME),
    refused_except("storageClassName", "", "a claim lies on the node's own flash: leave it out"),
    refused("volumeAttributesClassName", "a claim lies on the node's own flash: leave it out"),
    refused_except("volumeMode", "Filesystem", "use a file system: leave it out"),
    refused("volumeName", BY_NAME),
];

const CLAIM_RESOURCES: &[Field] = &[refused("limits", "requests.storage is the limit")];

const KEY_TO_PATH: &[Field] = &[refused("mode", "use defaultMode, or a volume of its own")];
