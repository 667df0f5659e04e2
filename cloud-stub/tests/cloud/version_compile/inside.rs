//! What a template says of a container's inside: variables, users, volumes in
//! memory, and what runs before it.

use wherry_bundle::model::{Role, User, VolumeSource};
use wherry_bundle::{Fact, Word};

use super::{compiled, web};

pub const INSIDE: &str = "apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  securityContext:
    { runAsUser: 1000, runAsGroup: 1001, runAsNonRoot: false, supplementalGroups: [20], fsGroup: 30 }
  initContainers:
    - { name: zero, command: [prepare] }
    - { name: helper, restartPolicy: Always, securityContext: { runAsUser: 0 } }
  containers:
    - name: one
      args: [--at=$(ADDRESS), $(TEXT)]
      envFrom:
        - { prefix: MAP_, configMapRef: { name: map } }
        - { secretRef: { name: none, optional: true } }
      env:
        - { name: ADDRESS, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
        - { name: TEXT, valueFrom: { configMapKeyRef: { name: map, key: text } } }
        - { name: WORD, valueFrom: { secretKeyRef: { name: keys, key: word } } }
        - { name: GONE, valueFrom: { secretKeyRef: { name: keys, key: gone, optional: true } } }
      securityContext:
        { runAsUser: 0, runAsGroup: 6, runAsNonRoot: false, readOnlyRootFilesystem: false,
          allowPrivilegeEscalation: false, privileged: false }
      volumeMounts:
        - { name: run, mountPath: /run/x, subPath: a }
  volumes:
    - { name: run, emptyDir: { medium: Memory, sizeLimit: 16Mi } }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: map }
data: { text: hello }
---
apiVersion: v1
kind: Secret
metadata: { name: keys }
stringData: { word: lion }
";

/// As [`super::HONOURED`].
pub const HONOURED: [(&str, &str, &str); 38] = [
    ("PodSpec.initContainers", "    - { name: zero, command: [prepare] }\n", ""),
    ("PodSpec.securityContext", "supplementalGroups: [20]", "supplementalGroups: []"),
    ("PodSecurityContext.runAsUser", "runAsUser: 1000", "runAsUser: 1002"),
    ("PodSecurityContext.runAsGroup", "runAsGroup: 1001", "runAsGroup: 1002"),
    ("PodSecurityContext.runAsNonRoot", "runAsNonRoot: false, sup", "runAsNonRoot: true, sup"),
    ("PodSecurityContext.supplementalGroups", "Groups: [20]", "Groups: [20, 21]"),
    ("PodSecurityContext.fsGroup", "fsGroup: 30", "fsGroup: 31"),
    ("Container.restartPolicy", "restartPolicy: Always, ", ""),
    ("Container.restartPolicy", "restartPolicy: Always", "restartPolicy: Never"),
    ("Container.restartPolicy", "- name: one\n", "- name: one\n      restartPolicy: Always\n"),
    ("Container.envFrom", "        - { prefix: MAP_, configMapRef: { name: map } }\n", ""),
    ("EnvFromSource.prefix", "prefix: MAP_, ", ""),
    ("EnvFromSource.configMapRef", "configMapRef: { name: map", "configMapRef: { name: mop"),
    ("EnvFromSource.secretRef", "secretRef: { name: none", "secretRef: { name: keys"),
    ("SecretEnvSource.name", "name: none, optional", "name: keys, optional"),
    ("SecretEnvSource.optional", "none, optional: true", "none, optional: false"),
    ("EnvVar.valueFrom", "valueFrom: { configMapKeyRef: { name: map, key: text } }", "value: x"),
    ("EnvVarSource.fieldRef", "fieldRef: {", "other: {"),
    ("ObjectFieldSelector.fieldPath", "fieldPath: status.podIP", "fieldPath: metadata.name"),
    ("EnvVarSource.configMapKeyRef", "configMapKeyRef: { name: map, key: text", "fieldRef: {"),
    ("EnvVarSource.secretKeyRef", "secretKeyRef: { name: keys, key: word", "fieldRef: {"),
    ("SecretKeySelector.name", "name: keys, key: word", "name: locks, key: word"),
    ("SecretKeySelector.key", "name: keys, key: word", "name: keys, key: gone"),
    ("SecretKeySelector.optional", "gone, optional: true", "gone, optional: false"),
    ("SecurityContext.runAsUser", "{ runAsUser: 0, runAsGroup", "{ runAsUser: 5, runAsGroup"),
    ("SecurityContext.runAsGroup", "runAsGroup: 6", "runAsGroup: 7"),
    ("SecurityContext.runAsNonRoot", "runAsNonRoot: false, read", "runAsNonRoot: true, read"),
    ("SecurityContext.readOnlyRootFilesystem", "Filesystem: false", "Filesystem: true"),
    ("SecurityContext.allowPrivilegeEscalation", "Escalation: false", "Escalation: true"),
    ("SecurityContext.privileged", "privileged: false", "privileged: true"),
    ("ConfigMapKeySelector.name", "name: map, key: text", "name: mop, key: text"),
    ("ConfigMapKeySelector.key", "name: map, key: text", "name: map, key: test"),
    ("ConfigMapKeySelector.optional", "name: map, key: text", "name: map, key: text, optional: 1"),
    ("ConfigMapEnvSource.name", "configMapRef: { name: map", "configMapRef: { name: keys"),
    (
        "ConfigMapEnvSource.optional",
        "configMapRef: { name: map",
        "configMapRef: { optional: 1, name: map",
    ),
    ("Volume.emptyDir", "emptyDir: {", "secret: {"),
    ("EmptyDirVolumeSource.medium", "medium: Memory", "medium: HugePages"),
    ("EmptyDirVolumeSource.sizeLimit", "sizeLimit: 16Mi", "sizeLimit: 17Mi"),
];

#[test]
fn a_containers_inside_is_as_the_template_says() {
    let compiled = compiled(INSIDE).unwrap();
    let pod = &web(&compiled).pod;
    let [zero, helper, one] = &pod.containers[..] else { panic!("{pod:?}") };
    assert_eq!((zero.role, helper.role, one.role), (Role::Init, Role::Sidecar, Role::Main));
    assert_eq!(zero.args, ["prepare"]);
    assert!(zero.read_only_root && !one.read_only_root);
    let groups = vec![20, 30];
    let user = |uid, gid| User { uid, gid, additional_gids: groups.clone() };
    assert_eq!(zero.user, user(1000, 1001));
    assert_eq!((&helper.user, &one.user), (&user(0, 1001), &user(0, 6)));
    assert_eq!(pod.fs_group, Some(30));
    let mut at = Word::from("--at=");
    at.append(&Fact::PodAddress.into());
    assert_eq!(one.args, [Word::from("/entry"), at, "hello".into()]);
    let env: Vec<String> = one.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let own = ["MAP_text=hello", "ADDRESS=$(status.podIP)", "TEXT=hello", "WORD=lion"];
    assert_eq!(env[2..], own);
    assert_eq!(pod.volumes[0].source, VolumeSource::EmptyDir { bytes_max: 16 << 20 });
    assert!(!one.mounts[0].read_only);
}

#[test]
fn whoever_names_another_user_leaves_the_images_groups() {
    // The image runs as 7:8, in group 9.
    let user = |security: &str| {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec:\n  containers:\n    \
            - name: one\n      securityContext: "
            .to_owned();
        let compiled = compiled(&(text + security + "\n")).unwrap();
        let user = web(&compiled).pod.containers[0].user.clone();
        (user.uid, user.gid, user.additional_gids)
    };
    assert_eq!(user("{}"), (7, 8, vec![9]));
    assert_eq!(user("{ runAsUser: 7 }"), (7, 8, vec![9]));
    assert_eq!(user("{ runAsUser: 5 }"), (5, 0, vec![]));
    assert_eq!(user("{ runAsGroup: 6 }"), (7, 6, vec![9]));
}

#[test]
fn mistakes_inside_are_told_with_their_paths() {
    for (line, changed, problem) in [
        (
            "securityContext: { runAsUser: 0 }",
            "securityContext: { runAsNonRoot: true, runAsUser: 0 }",
            "web.yaml:9: spec.initContainers[1]: runAsNonRoot, but it would run as root: set runAsUser",
        ),
        (
            "command: [prepare] }",
            "command: [prepare], livenessProbe: { exec: { command: [a] } } }",
            "web.yaml:8: spec.initContainers[0].livenessProbe: only for what runs on: an init container ends by itself",
        ),
        (
            "fieldPath: status.podIP",
            "fieldPath: status.hostIP",
            "web.yaml:17: spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: `status.hostIP` is not known here: use metadata.name, metadata.namespace, spec.nodeName or status.podIP",
        ),
        (
            "name: map, key: text",
            "name: map, key: test",
            "web.yaml:18: spec.containers[0].env[1].valueFrom.configMapKeyRef.key: `map` has no file `test`",
        ),
        (
            "name: keys, key: word",
            "name: lock, key: word",
            "web.yaml:19: spec.containers[0].env[2].valueFrom.secretKeyRef.name: there is no Secret `lock`",
        ),
        (
            "name: none, optional: true",
            "name: none",
            "web.yaml:15: spec.containers[0].envFrom[1].secretRef.name: there is no Secret `none`",
        ),
        (
            "privileged: false",
            "privileged: true",
            "web.yaml:23: spec.containers[0].securityContext.privileged: no container is: ask for the capabilities that it needs",
        ),
        (
            "sizeLimit: 16Mi",
            "sizeLimit: 16Gi",
            "web.yaml:27: spec.volumes[0].emptyDir.sizeLimit: must be bytes, such as 16Mi, and 1Gi at most",
        ),
        (
            "spec:\n",
            "spec:\n  hostNetwork: true\n",
            "web.yaml:12: spec.containers[0]: status.podIP: with hostNetwork the pod has no address of its own",
        ),
        (
            "{ name: run, emptyDir",
            "{ name: run, configMap: { name: map }, emptyDir",
            "web.yaml:27: spec.volumes[0]: must have one of configMap, secret, emptyDir, hostPath and persistentVolumeClaim",
        ),
    ] {
        assert!(INSIDE.contains(line), "{line}");
        let problems = compiled(&INSIDE.replacen(line, changed, 1)).unwrap_err();
        assert!(problems.iter().any(|p| p == problem), "{problem}\nis not in\n{problems:#?}");
    }
}

#[test]
fn binary_configuration_is_no_variable() {
    let text = INSIDE.replace("data: { text: hello }", "binaryData: { text: /w== }");
    let problems = compiled(&text).unwrap_err();
    let what = "what `text` holds is not text: mount it as a file instead";
    assert_eq!(problems.iter().filter(|problem| problem.contains(what)).count(), 2);
}
