//! Every field that Kubernetes has is honoured, without effect or refused; the
//! documentation is what the program does.
//!
//! `WHERRY_GOLDEN=write cargo test -p wherry-cloud --test cloud template_fields`
//! writes docs/FIELDS.md anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wherry_cloud::template::fields::{Row, rows};
use wherry_cloud::template::place::Problem;
use wherry_cloud::template::shapes;
use wherry_cloud::version::{Source, check_templates};

/// Fields of Kubernetes v1.30, from its OpenAPI description; also of kinds
/// that are not read, for the day that they are.
const KUBERNETES: [(&str, &str); 59] = [
    ("Capabilities", "add drop"),
    ("ConfigMap", "apiVersion binaryData data immutable kind metadata"),
    ("ConfigMapEnvSource", "name optional"),
    ("ConfigMapKeySelector", "key name optional"),
    ("ConfigMapVolumeSource", "defaultMode items name optional"),
    (
        "Container",
        "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports \
         readinessProbe resizePolicy resources restartPolicy securityContext startupProbe stdin \
         stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices \
         volumeMounts workingDir",
    ),
    ("ContainerPort", "containerPort hostIP hostPort name protocol"),
    ("Deployment", "apiVersion kind metadata spec status"),
    (
        "DeploymentSpec",
        "minReadySeconds paused progressDeadlineSeconds replicas revisionHistoryLimit selector \
         strategy template",
    ),
    ("DeploymentStrategy", "rollingUpdate type"),
    ("DownwardAPIVolumeFile", "fieldRef mode path resourceFieldRef"),
    ("DownwardAPIVolumeSource", "defaultMode items"),
    ("EmptyDirVolumeSource", "medium sizeLimit"),
    ("EnvFromSource", "configMapRef prefix secretRef"),
    ("EnvVar", "name value valueFrom"),
    ("EnvVarSource", "configMapKeyRef fieldRef resourceFieldRef secretKeyRef"),
    ("ExecAction", "command"),
    ("GRPCAction", "port service"),
    ("HTTPGetAction", "host httpHeaders path port scheme"),
    ("HTTPHeader", "name value"),
    ("HostAlias", "hostnames ip"),
    ("HostPathVolumeSource", "path type"),
    ("Job", "apiVersion kind metadata spec status"),
    (
        "JobSpec",
        "activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions \
         managedBy manualSelector maxFailedIndexes parallelism podFailurePolicy \
         podReplacementPolicy selector successPolicy suspend template ttlSecondsAfterFinished",
    ),
    ("KeyToPath", "key mode path"),
    ("LabelSelector", "matchExpressions matchLabels"),
    ("Lifecycle", "postStart preStop"),
    ("LifecycleHandler", "exec httpGet sleep tcpSocket"),
    ("ObjectFieldSelector", "apiVersion fieldPath"),
    ("ObjectMeta", OBJECT_META),
    ("ObjectMeta of a template", OBJECT_META),
    ("PersistentVolumeClaimVolumeSource", "claimName readOnly"),
    ("Pod", "apiVersion kind metadata spec status"),
    ("PodDNSConfig", "nameservers options searches"),
    ("PodDNSConfigOption", "name value"),
    (
        "PodSecurityContext",
        "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser \
         seLinuxOptions seccompProfile supplementalGroups sysctls windowsOptions",
    ),
    (
        "PodSpec",
        "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig \
         dnsPolicy enableServiceLinks ephemeralContainers hostAliases hostIPC hostNetwork hostPID \
         hostUsers hostname imagePullSecrets initContainers nodeName nodeSelector os overhead \
         preemptionPolicy priority priorityClassName readinessGates resourceClaims restartPolicy \
         runtimeClassName schedulerName schedulingGates securityContext serviceAccount \
         serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain \
         terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes",
    ),
    ("PodTemplateSpec", "metadata spec"),
    (
        "Probe",
        "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold \
         tcpSocket terminationGracePeriodSeconds timeoutSeconds",
    ),
    ("ProjectedVolumeSource", "defaultMode sources"),
    ("ResourceFieldSelector", "containerName divisor resource"),
    // A map; these are the names that Kubernetes itself gives.
    ("ResourceList", "cpu ephemeral-storage hugepages-1Gi hugepages-2Mi memory storage"),
    ("ResourceRequirements", "claims limits requests"),
    ("RollingUpdateDeployment", "maxSurge maxUnavailable"),
    ("SeccompProfile", "localhostProfile type"),
    ("Secret", "apiVersion data immutable kind metadata stringData type"),
    ("SecretEnvSource", "name optional"),
    ("PersistentVolumeClaim", "apiVersion kind metadata spec status"),
    (
        "PersistentVolumeClaimSpec",
        "accessModes dataSource dataSourceRef resources selector storageClassName \
         volumeAttributesClassName volumeMode volumeName",
    ),
    ("PersistentVolumeClaimVolumeSource", "claimName readOnly"),
    ("ResourceList of a claim", "storage"),
    ("VolumeResourceRequirements", "limits requests"),
    ("SecretKeySelector", "key name optional"),
    ("SecretVolumeSource", "defaultMode items optional secretName"),
    (
        "SecurityContext",
        "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount \
         readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seLinuxOptions seccompProfile \
         windowsOptions",
    ),
    ("SleepAction", "seconds"),
    ("TCPSocketAction", "host port"),
    (
        "Volume",
        "awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI \
         emptyDir ephemeral fc flexVolume flocker gcePersistentDisk gitRepo glusterfs hostPath \
         iscsi name nfs persistentVolumeClaim photonPersistentDisk portworxVolume projected \
         quobyte rbd scaleIO secret storageos vsphereVolume",
    ),
    (
        "VolumeMount",
        "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
    ),
];

const OBJECT_META: &str = "annotations creationTimestamp deletionGracePeriodSeconds \
     deletionTimestamp finalizers generateName generation labels managedFields name namespace \
     ownerReferences resourceVersion selfLink uid";

/// They came after v1.30.
/// And what Kubernetes does not have at all: `pids` is a node's setting there.
const NEWER: [&str; 5] = [
    "ResourceList.pids",
    "Lifecycle.stopSignal",
    "PodSpec.resources",
    "PodSecurityContext.supplementalGroupsPolicy",
    "Volume.image",
];

/// A line `@KIND` stands where a field of that kind may be.
const OBJECTS: &str = "apiVersion: apps/v1
@Deployment
kind: Deployment
metadata:
  name: web
  @ObjectMeta
spec:
  @DeploymentSpec
  selector:
    @LabelSelector
    matchLabels: { app: web }
  strategy:
    @DeploymentStrategy
    rollingUpdate:
      @RollingUpdateDeployment
      maxSurge: 1
  template:
    @PodTemplateSpec
    metadata:
      @ObjectMeta of a template
      labels: { app: web }
    spec:
      @PodSpec
      securityContext:
        @PodSecurityContext
        seccompProfile:
          @SeccompProfile
          type: RuntimeDefault
      containers:
        - name: one
          @Container
          env:
            - name: A
              @EnvVar
            - name: B
              valueFrom:
                @EnvVarSource
                fieldRef:
                  @ObjectFieldSelector
                  fieldPath: metadata.name
            - name: C
              valueFrom:
                configMapKeyRef:
                  @ConfigMapKeySelector
                  name: config
                  key: a
            - name: D
              valueFrom:
                secretKeyRef:
                  @SecretKeySelector
                  name: secret
                  key: a
          envFrom:
            - prefix: X_
              @EnvFromSource
              configMapRef:
                @ConfigMapEnvSource
                name: config
            - secretRef:
                @SecretEnvSource
                name: secret
          ports:
            - containerPort: 80
              @ContainerPort
          resources:
            @ResourceRequirements
            limits:
              @ResourceList
              cpu: 1
          securityContext:
            @SecurityContext
            capabilities:
              @Capabilities
              add: [CHOWN]
          volumeMounts:
            - { name: config, mountPath: /config }
            - name: host
              @VolumeMount
              mountPath: /host
          startupProbe:
            exec:
              @ExecAction
              command: [ask]
          livenessProbe:
            @Probe
            httpGet:
              @HTTPGetAction
              port: 80
              httpHeaders:
                - name: A
                  @HTTPHeader
                  value: b
          readinessProbe:
            tcpSocket:
              @TCPSocketAction
              port: 80
          lifecycle:
            @Lifecycle
            preStop:
              @LifecycleHandler
              sleep:
                @SleepAction
                seconds: 1
      volumes:
        - name: config
          @Volume
          configMap:
            @ConfigMapVolumeSource
            name: config
            items:
              - key: a
                @KeyToPath
                path: b
        - name: secret
          secret:
            @SecretVolumeSource
            secretName: secret
        - name: host
          hostPath:
            @HostPathVolumeSource
            path: /srv
        - name: run
          emptyDir:
            @EmptyDirVolumeSource
            sizeLimit: 1Mi
        - name: data
          persistentVolumeClaim:
            @PersistentVolumeClaimVolumeSource
            claimName: data
      hostAliases:
        - ip: 10.0.0.9
          @HostAlias
          hostnames: [plc]
      dnsConfig:
        @PodDNSConfig
        nameservers: [10.0.0.53]
        options:
          - name: ndots
            @PodDNSConfigOption
            value: \"2\"
---
apiVersion: v1
@Pod
kind: Pod
metadata: { name: pod }
spec: { containers: [{ name: one }] }
---
apiVersion: batch/v1
@Job
kind: Job
metadata: { name: job }
spec:
  @JobSpec
  template: { spec: { restartPolicy: Never, containers: [{ name: one }] } }
---
apiVersion: v1
@ConfigMap
kind: ConfigMap
metadata: { name: config }
data: { a: b }
---
apiVersion: v1
@Secret
kind: Secret
metadata: { name: secret }
data: { a: Yg== }
---
apiVersion: v1
@PersistentVolumeClaim
kind: PersistentVolumeClaim
metadata: { name: data }
spec:
  @PersistentVolumeClaimSpec
  accessModes: [ReadWriteOnce]
  resources:
    @VolumeResourceRequirements
    requests:
      @ResourceList of a claim
      storage: 1Mi
";

/// Where each line `@KIND` is.
const PATHS: [(&str, &str); 53] = [
    ("Deployment", ""),
    ("ObjectMeta", "metadata."),
    ("DeploymentSpec", "spec."),
    ("LabelSelector", "spec.selector."),
    ("DeploymentStrategy", "spec.strategy."),
    ("RollingUpdateDeployment", "spec.strategy.rollingUpdate."),
    ("PodTemplateSpec", "spec.template."),
    ("ObjectMeta of a template", "spec.template.metadata."),
    ("PodSpec", "spec.template.spec."),
    ("Container", "spec.template.spec.containers[0]."),
    ("EnvVar", "spec.template.spec.containers[0].env[0]."),
    ("EnvVarSource", "spec.template.spec.containers[0].env[1].valueFrom."),
    ("ObjectFieldSelector", "spec.template.spec.containers[0].env[1].valueFrom.fieldRef."),
    ("ConfigMapKeySelector", "spec.template.spec.containers[0].env[2].valueFrom.configMapKeyRef."),
    ("SecretKeySelector", "spec.template.spec.containers[0].env[3].valueFrom.secretKeyRef."),
    ("EnvFromSource", "spec.template.spec.containers[0].envFrom[0]."),
    ("ConfigMapEnvSource", "spec.template.spec.containers[0].envFrom[0].configMapRef."),
    ("SecretEnvSource", "spec.template.spec.containers[0].envFrom[1].secretRef."),
    ("PodSecurityContext", "spec.template.spec.securityContext."),
    ("SeccompProfile", "spec.template.spec.securityContext.seccompProfile."),
    ("ContainerPort", "spec.template.spec.containers[0].ports[0]."),
    ("ResourceRequirements", "spec.template.spec.containers[0].resources."),
    ("ResourceList", "spec.template.spec.containers[0].resources.limits."),
    ("SecurityContext", "spec.template.spec.containers[0].securityContext."),
    ("Capabilities", "spec.template.spec.containers[0].securityContext.capabilities."),
    ("VolumeMount", "spec.template.spec.containers[0].volumeMounts[1]."),
    ("ExecAction", "spec.template.spec.containers[0].startupProbe.exec."),
    ("Probe", "spec.template.spec.containers[0].livenessProbe."),
    ("HTTPGetAction", "spec.template.spec.containers[0].livenessProbe.httpGet."),
    ("HTTPHeader", "spec.template.spec.containers[0].livenessProbe.httpGet.httpHeaders[0]."),
    ("TCPSocketAction", "spec.template.spec.containers[0].readinessProbe.tcpSocket."),
    ("Lifecycle", "spec.template.spec.containers[0].lifecycle."),
    ("LifecycleHandler", "spec.template.spec.containers[0].lifecycle.preStop."),
    ("SleepAction", "spec.template.spec.containers[0].lifecycle.preStop.sleep."),
    ("Volume", "spec.template.spec.volumes[0]."),
    ("ConfigMapVolumeSource", "spec.template.spec.volumes[0].configMap."),
    ("KeyToPath", "spec.template.spec.volumes[0].configMap.items[0]."),
    ("SecretVolumeSource", "spec.template.spec.volumes[1].secret."),
    ("HostPathVolumeSource", "spec.template.spec.volumes[2].hostPath."),
    ("EmptyDirVolumeSource", "spec.template.spec.volumes[3].emptyDir."),
    ("HostAlias", "spec.template.spec.hostAliases[0]."),
    ("PodDNSConfig", "spec.template.spec.dnsConfig."),
    ("PodDNSConfigOption", "spec.template.spec.dnsConfig.options[0]."),
    ("Pod", ""),
    ("Job", ""),
    ("JobSpec", "spec."),
    ("ConfigMap", ""),
    ("Secret", ""),
    ("PersistentVolumeClaimVolumeSource", "spec.template.spec.volumes[4].persistentVolumeClaim."),
    ("PersistentVolumeClaim", ""),
    ("PersistentVolumeClaimSpec", "spec."),
    ("VolumeResourceRequirements", "spec.resources."),
    ("ResourceList of a claim", "spec.resources.requests."),
];

/// The objects with `line` in place of `@KIND`, and that line's number.
fn objects(kind: &str, line: &str) -> (String, usize) {
    let wanted = format!("@{kind}");
    let (mut text, mut number) = (String::new(), 0);
    for found in OBJECTS.lines() {
        if found.trim() == wanted {
            number = text.lines().count() + 1;
            text += &format!("{}\n", found.replace(&wanted, line));
        } else if !found.trim_start().starts_with('@') {
            text += &format!("{found}\n");
        }
    }
    assert!(number > 0, "OBJECTS has no line `@{kind}`");
    (text, number)
}

fn check(text: &str) -> Result<(), Vec<Problem>> {
    let source = Source { file: "x.yaml".into(), text: text.into() };
    check_templates(&[source]).map(|checked| assert_eq!(checked.objects, 6))
}

fn refused() -> Vec<Row> {
    rows().into_iter().filter(|row| row.treatment == "refused").collect()
}

#[test]
fn objects_without_refused_fields_are_fine() {
    for (kind, _) in PATHS {
        let (text, _) = objects(kind, "# nothing");
        assert_eq!(check(&text), Ok(()), "{kind}");
    }
    let kinds: BTreeSet<&str> = shapes::ALL.iter().map(|shape| shape.kind).collect();
    assert_eq!(PATHS.iter().map(|(kind, _)| *kind).collect::<BTreeSet<_>>(), kinds);
}

#[test]
fn every_refused_field_is_told_with_line_path_and_hint() {
    let refused = refused();
    assert!(refused.len() > 80, "{}", refused.len());
    for Row { kind, field, hint, .. } in refused {
        let (text, line) = objects(kind, &format!("{field}: other"));
        let prefix = PATHS.iter().find(|(known, _)| *known == kind).unwrap().1;
        let wanted = Problem {
            file: "x.yaml".into(),
            line,
            path: format!("{prefix}{field}"),
            what: "not supported".into(),
            hint: Some(hint.unwrap().into()),
        };
        let problems = check(&text).unwrap_err();
        assert!(problems.contains(&wanted), "wanted: {wanted:#?}\ngot: {problems:#?}");
    }
}

#[test]
fn a_value_that_asks_for_nothing_is_taken() {
    let mut values = 0;
    for Row { kind, field, except, .. } in refused() {
        let (text, _) = objects(kind, &format!("{field}: null"));
        assert_eq!(check(&text), Ok(()), "{kind}.{field}: null");
        let Some(value) = except else { continue };
        let (text, _) = objects(kind, &format!("{field}: {value}"));
        assert_eq!(check(&text), Ok(()), "{kind}.{field}: {value}");
        values += 1;
    }
    assert!(values > 10, "{values}");
}

#[test]
fn a_field_without_effect_is_taken() {
    let without: Vec<Row> = rows().into_iter().filter(|row| row.treatment == "no effect").collect();
    assert!(without.len() > 20, "{}", without.len());
    for Row { kind, field, .. } in without {
        let (text, _) = objects(kind, &format!("{field}: other"));
        assert_eq!(check(&text), Ok(()), "{kind}.{field}");
    }
}

#[test]
fn every_unknown_field_is_told() {
    for (kind, prefix) in PATHS {
        let (text, line) = objects(kind, "zebra: other");
        let problems = check(&text).unwrap_err();
        let wanted =
            format!("x.yaml:{line}: {prefix}zebra: not supported: {kind} has no such field");
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [wanted]);
    }
}

#[test]
fn every_field_of_kubernetes_is_listed() {
    for shape in shapes::ALL {
        let known = KUBERNETES.iter().find(|(kind, _)| *kind == shape.kind);
        let (kind, known) = known.unwrap_or_else(|| panic!("no fields of {} here", shape.kind));
        let mut listed: BTreeSet<&str> = shape.all().map(|field| field.name).collect();
        listed.retain(|field| !NEWER.contains(&&*format!("{kind}.{field}")));
        assert_eq!(listed, known.split(' ').collect::<BTreeSet<_>>(), "{kind}");
    }
}

fn program(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wherry-cloud"));
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_documentation_is_what_the_program_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FIELDS.md");
    let text = program(&["template", "fields"]);
    if std::env::var_os("WHERRY_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == text, "docs/FIELDS.md is not what `template fields` prints:\n{text}");
    // A cell too many would be cut off without a word.
    for line in text.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(line.matches('|').count(), 4, "{line}");
    }
}

#[test]
fn the_fields_are_there_for_programs() {
    let list: Value =
        serde_json::from_str(&program(&["template", "fields", "-o", "json"])).unwrap();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), rows().len());
    let of = |kind: &str, field: &str| {
        list.iter().find(|row| row["kind"] == kind && row["field"] == field).unwrap()
    };
    assert_eq!(of("Container", "image")["treatment"], "honoured");
    assert_eq!(of("Container", "imagePullPolicy")["hint"], "images come with the version");
    let host_pid = of("PodSpec", "hostPID");
    assert_eq!((&host_pid["treatment"], &host_pid["except"]), (&"refused".into(), &"false".into()));
}
