//! Every kind that is read, and its fields that are honoured; what Kubernetes
//! has besides is in [`super::others`]. A field that is in neither is refused.

use super::place::{Field, Shape, honoured, no_effect, refused, refused_except};

const LABELS: &str = "labels select nothing here";
const API: Field = honoured("apiVersion");
const KIND: Field = honoured("kind");
const METADATA: Field = honoured("metadata");

pub const META: Shape = Shape {
    kind: "ObjectMeta",
    fields: &[
        honoured("name"),
        no_effect("labels", LABELS),
        refused_except("namespace", "default", "a node has one namespace: leave it out"),
    ],
};

/// All of them, in the order of this file: for documentation, and for the
/// test that no honoured field is ignored.
pub const ALL: &[&Shape] = &[
    &META,
    &TEMPLATE_META,
    &DEPLOYMENT,
    &DEPLOYMENT_SPEC,
    &SELECTOR,
    &STRATEGY,
    &ROLLING_UPDATE,
    &POD_TEMPLATE,
    &POD,
    &JOB,
    &JOB_SPEC,
    &POD_SPEC,
    &HOST_ALIAS,
    &DNS_CONFIG,
    &DNS_OPTION,
    &CONTAINER,
    &PROBE,
    &EXEC_ACTION,
    &HTTP_GET,
    &HTTP_HEADER,
    &TCP_SOCKET,
    &LIFECYCLE,
    &LIFECYCLE_HANDLER,
    &SLEEP,
    &ENV_VAR,
    &CONTAINER_PORT,
    &RESOURCES,
    &LIMITS,
    &SECURITY,
    &CAPABILITIES,
    &POD_SECURITY,
    &SECCOMP_PROFILE,
    &VOLUME_MOUNT,
    &VOLUME,
    &HOST_PATH_SOURCE,
    &CONFIG_MAP_SOURCE,
    &SECRET_SOURCE,
    &KEY_TO_PATH,
    &CONFIG_MAP,
    &SECRET,
    &ENV_VAR_SOURCE,
    &FIELD_REF,
    &CONFIG_MAP_KEY,
    &SECRET_KEY,
    &ENV_FROM_SOURCE,
    &CONFIG_MAP_ENV,
    &SECRET_ENV,
    &EMPTY_DIR_SOURCE,
    &CLAIM_SOURCE,
    &CLAIM,
    &CLAIM_SPEC,
    &CLAIM_RESOURCES,
    &CLAIM_SIZE,
];

/// A pod template's metadata: its labels have to match the selector.
pub const TEMPLATE_META: Shape = Shape {
    kind: "ObjectMeta of a template",
    fields: &[honoured("labels"), no_effect("name", "pods are named after their deployment")],
};

pub const DEPLOYMENT: Shape =
    Shape { kind: "Deployment", fields: &[API, KIND, METADATA, honoured("spec")] };

pub const DEPLOYMENT_SPEC: Shape = Shape {
    kind: "DeploymentSpec",
    fields: &[
        honoured("replicas"),
        honoured("selector"),
        honoured("strategy"),
        honoured("minReadySeconds"),
        honoured("progressDeadlineSeconds"),
        honoured("template"),
        refused_except("revisionHistoryLimit", "10", "a node keeps its last good generation"),
        refused_except("paused", "false", "do not start a rollout instead"),
    ],
};

pub const SELECTOR: Shape = Shape {
    kind: "LabelSelector",
    fields: &[honoured("matchLabels"), refused("matchExpressions", "use matchLabels")],
};

pub const STRATEGY: Shape =
    Shape { kind: "DeploymentStrategy", fields: &[honoured("type"), honoured("rollingUpdate")] };

pub const ROLLING_UPDATE: Shape = Shape {
    kind: "RollingUpdateDeployment",
    fields: &[honoured("maxUnavailable"), honoured("maxSurge")],
};

pub const POD_TEMPLATE: Shape =
    Shape { kind: "PodTemplateSpec", fields: &[METADATA, honoured("spec")] };

pub const POD: Shape = Shape { kind: "Pod", fields: &[API, KIND, METADATA, honoured("spec")] };

pub const JOB: Shape = Shape { kind: "Job", fields: &[API, KIND, METADATA, honoured("spec")] };

pub const JOB_SPEC: Shape = Shape {
    kind: "JobSpec",
    fields: &[
        honoured("backoffLimit"),
        honoured("activeDeadlineSeconds"),
        honoured("template"),
        refused_except("completions", "1", "a job succeeds once: write more jobs"),
        refused_except("parallelism", "1", "a job has one pod at a time: write more jobs"),
        refused(
            "ttlSecondsAfterFinished",
            "a pod that is done stays for its output, until another form comes or the node boots",
        ),
    ],
};

pub const POD_SPEC: Shape = Shape {
    kind: "PodSpec",
    fields: &[
        honoured("containers"),
        honoured("volumes"),
        honoured("hostNetwork"),
        honoured("restartPolicy"),
        honoured("terminationGracePeriodSeconds"),
        honoured("initContainers"),
        honoured("securityContext"),
        honoured("hostAliases"),
        honoured("dnsPolicy"),
        honoured("dnsConfig"),
    ],
};

pub const HOST_ALIAS: Shape =
    Shape { kind: "HostAlias", fields: &[honoured("ip"), honoured("hostnames")] };

pub const DNS_CONFIG: Shape = Shape {
    kind: "PodDNSConfig",
    fields: &[honoured("nameservers"), honoured("searches"), honoured("options")],
};

pub const DNS_OPTION: Shape =
    Shape { kind: "PodDNSConfigOption", fields: &[honoured("name"), honoured("value")] };

pub const CONTAINER: Shape = Shape {
    kind: "Container",
    fields: &[
        honoured("name"),
        honoured("image"),
        honoured("command"),
        honoured("args"),
        honoured("env"),
        honoured("ports"),
        honoured("resources"),
        honoured("volumeMounts"),
        honoured("workingDir"),
        honoured("securityContext"),
        honoured("startupProbe"),
        honoured("livenessProbe"),
        honoured("readinessProbe"),
        honoured("lifecycle"),
        honoured("envFrom"),
        honoured("restartPolicy"),
        no_effect("imagePullPolicy", "images come with the version"),
    ],
};

pub const PROBE: Shape = Shape {
    kind: "Probe",
    fields: &[
        honoured("exec"),
        honoured("httpGet"),
        honoured("tcpSocket"),
        refused("grpc", "use exec, httpGet or tcpSocket"),
        honoured("initialDelaySeconds"),
        honoured("periodSeconds"),
        honoured("timeoutSeconds"),
        honoured("successThreshold"),
        honoured("failureThreshold"),
        refused("terminationGracePeriodSeconds", "the pod's own grace counts"),
    ],
};

pub const EXEC_ACTION: Shape = Shape { kind: "ExecAction", fields: &[honoured("command")] };

pub const HTTP_GET: Shape = Shape {
    kind: "HTTPGetAction",
    fields: &[
        honoured("path"),
        honoured("port"),
        honoured("httpHeaders"),
        honoured("scheme"),
        refused("host", "the pod's own address is asked"),
    ],
};

pub const HTTP_HEADER: Shape =
    Shape { kind: "HTTPHeader", fields: &[honoured("name"), honoured("value")] };

pub const TCP_SOCKET: Shape = Shape {
    kind: "TCPSocketAction",
    fields: &[honoured("port"), refused("host", "the pod's own address is asked")],
};

pub const LIFECYCLE: Shape = Shape {
    kind: "Lifecycle",
    fields: &[
        honoured("preStop"),
        refused("postStart", "let the program do it, or a container of its own"),
    ],
};

pub const LIFECYCLE_HANDLER: Shape = Shape {
    kind: "LifecycleHandler",
    fields: &[honoured("exec"), honoured("httpGet"), honoured("tcpSocket"), honoured("sleep")],
};

pub const SLEEP: Shape = Shape { kind: "SleepAction", fields: &[honoured("seconds")] };

pub const ENV_VAR: Shape =
    Shape { kind: "EnvVar", fields: &[honoured("name"), honoured("value"), honoured("valueFrom")] };

pub const ENV_VAR_SOURCE: Shape = Shape {
    kind: "EnvVarSource",
    fields: &[
        honoured("fieldRef"),
        honoured("configMapKeyRef"),
        honoured("secretKeyRef"),
        refused("resourceFieldRef", "write the limit as a value"),
    ],
};

pub const FIELD_REF: Shape = Shape {
    kind: "ObjectFieldSelector",
    fields: &[honoured("fieldPath"), no_effect("apiVersion", "there is only v1")],
};

const KEY_REF: &[Field] = &[honoured("name"), honoured("key"), honoured("optional")];
pub const CONFIG_MAP_KEY: Shape = Shape { kind: "ConfigMapKeySelector", fields: KEY_REF };
pub const SECRET_KEY: Shape = Shape { kind: "SecretKeySelector", fields: KEY_REF };

pub const ENV_FROM_SOURCE: Shape = Shape {
    kind: "EnvFromSource",
    fields: &[honoured("prefix"), honoured("configMapRef"), honoured("secretRef")],
};

const CONFIG_REF: &[Field] = &[honoured("name"), honoured("optional")];
pub const CONFIG_MAP_ENV: Shape = Shape { kind: "ConfigMapEnvSource", fields: CONFIG_REF };
pub const SECRET_ENV: Shape = Shape { kind: "SecretEnvSource", fields: CONFIG_REF };

pub const CONTAINER_PORT: Shape = Shape {
    kind: "ContainerPort",
    fields: &[
        honoured("name"),
        honoured("containerPort"),
        honoured("hostPort"),
        honoured("protocol"),
        refused("hostIP", "a host port is published on every address of the node"),
    ],
};

pub const RESOURCES: Shape = Shape {
    kind: "ResourceRequirements",
    fields: &[
        honoured("limits"),
        no_effect("requests", "a node does not schedule: only limits count"),
    ],
};

/// Kubernetes has no `pids`: there it is one limit for all pods of a node.
pub const LIMITS: Shape = Shape {
    kind: "ResourceList",
    fields: &[honoured("cpu"), honoured("memory"), honoured("ephemeral-storage"), honoured("pids")],
};

pub const SECURITY: Shape = Shape {
    kind: "SecurityContext",
    fields: &[
        honoured("capabilities"),
        honoured("runAsUser"),
        honoured("runAsGroup"),
        honoured("runAsNonRoot"),
        honoured("readOnlyRootFilesystem"),
        honoured("allowPrivilegeEscalation"),
        honoured("privileged"),
        honoured("seccompProfile"),
    ],
};

pub const CAPABILITIES: Shape =
    Shape { kind: "Capabilities", fields: &[honoured("add"), honoured("drop")] };

pub const POD_SECURITY: Shape = Shape {
    kind: "PodSecurityContext",
    fields: &[
        honoured("runAsUser"),
        honoured("runAsGroup"),
        honoured("runAsNonRoot"),
        honoured("supplementalGroups"),
        honoured("fsGroup"),
        honoured("seccompProfile"),
    ],
};

pub const SECCOMP_PROFILE: Shape = Shape {
    kind: "SeccompProfile",
    fields: &[
        honoured("type"),
        refused("localhostProfile", "nodes have no profiles of their own: use RuntimeDefault"),
    ],
};

pub const VOLUME_MOUNT: Shape = Shape {
    kind: "VolumeMount",
    fields: &[honoured("name"), honoured("mountPath"), honoured("subPath"), honoured("readOnly")],
};

pub const VOLUME: Shape = Shape {
    kind: "Volume",
    fields: &[
        honoured("name"),
        honoured("configMap"),
        honoured("secret"),
        honoured("hostPath"),
        honoured("emptyDir"),
        honoured("persistentVolumeClaim"),
    ],
};

pub const EMPTY_DIR_SOURCE: Shape =
    Shape { kind: "EmptyDirVolumeSource", fields: &[honoured("medium"), honoured("sizeLimit")] };

pub const HOST_PATH_SOURCE: Shape =
    Shape { kind: "HostPathVolumeSource", fields: &[honoured("path"), honoured("type")] };

pub const CONFIG_MAP_SOURCE: Shape = Shape {
    kind: "ConfigMapVolumeSource",
    fields: &[honoured("name"), honoured("items"), honoured("defaultMode")],
};

pub const SECRET_SOURCE: Shape = Shape {
    kind: "SecretVolumeSource",
    fields: &[honoured("secretName"), honoured("items"), honoured("defaultMode")],
};

pub const KEY_TO_PATH: Shape =
    Shape { kind: "KeyToPath", fields: &[honoured("key"), honoured("path")] };

pub const CONFIG_MAP: Shape = Shape {
    kind: "ConfigMap",
    fields: &[
        API,
        KIND,
        METADATA,
        honoured("data"),
        honoured("binaryData"),
        no_effect("immutable", "a version never changes"),
    ],
};

pub const SECRET: Shape = Shape {
    kind: "Secret",
    fields: &[
        API,
        KIND,
        METADATA,
        honoured("data"),
        honoured("stringData"),
        no_effect("type", "every secret is a set of files"),
        no_effect("immutable", "a version never changes"),
    ],
};

pub const CLAIM_SOURCE: Shape = Shape {
    kind: "PersistentVolumeClaimVolumeSource",
    fields: &[honoured("claimName"), honoured("readOnly")],
};

pub const CLAIM: Shape =
    Shape { kind: "PersistentVolumeClaim", fields: &[API, KIND, METADATA, honoured("spec")] };

pub const CLAIM_SPEC: Shape = Shape {
    kind: "PersistentVolumeClaimSpec",
    fields: &[honoured("accessModes"), honoured("resources")],
};

pub const CLAIM_RESOURCES: Shape =
    Shape { kind: "VolumeResourceRequirements", fields: &[honoured("requests")] };

pub const CLAIM_SIZE: Shape =
    Shape { kind: "ResourceList of a claim", fields: &[honoured("storage")] };

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What is read has its fields in the documentation, and under test.
    #[test]
    fn each_shape_of_this_file_is_in_the_list() {
        let text = include_str!("shapes.rs");
        let between = |line: &'static str, before: &str, after: &str| {
            line.trim_start().strip_prefix(before)?.split_once(after).map(|(name, _)| name)
        };
        let declared: BTreeSet<&str> =
            text.lines().filter_map(|line| between(line, "pub const ", ": Shape")).collect();
        let listed: Vec<&str> = text.lines().filter_map(|line| between(line, "&", ",")).collect();
        assert!(declared.contains("POD_SPEC"), "{declared:?}");
        assert_eq!(listed.len(), ALL.len());
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), declared);
        let kinds: BTreeSet<&str> = ALL.iter().map(|shape| shape.kind).collect();
        assert_eq!(kinds.len(), ALL.len(), "two shapes of one kind");
    }

    #[test]
    fn no_field_is_listed_twice() {
        for shape in ALL {
            let mut names = BTreeSet::new();
            for field in shape.all() {
                let both = "is in shapes.rs or others.rs a second time";
                assert!(names.insert(field.name), "{}.{} {both}", shape.kind, field.name);
            }
        }
    }
}
