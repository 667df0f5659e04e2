//! Templates and packages as people write them: what they become, and how
//! each mistake is told.

mod claims;
mod inside;
mod jobs;
mod outside;

use std::path::Path;

use wherry_bundle::Digest;
use wherry_bundle::health::{Check, PreStop, Probe, Probes, UpgradePolicy};
use wherry_bundle::model::{
    Deployment, HostPath, HostPathKind, Layer, Protocol, RestartPolicy, Strategy, User,
    VolumeSource,
};
use wherry_cloud::image::ImageInfo;
use wherry_cloud::template::place::Treatment;
use wherry_cloud::template::shapes;
use wherry_cloud::version::{Compiled, compile, load};

const VERSION: &str = "application: zoo
version: 1.4.0
description: New lion enclosure
productType: gateway-single-node
components:
  - name: db
    image: base
    template: db.yaml
  - name: web
    image: base
    template: web.yaml
    startAfter: [db]
configurationFiles:
  - name: lion
    files: [config/lion.properties]
";

const DB: &str = "apiVersion: v1
kind: Pod
metadata: { name: db }
spec:
  restartPolicy: OnFailure
  containers: [{ name: db }]
";

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: { tier: front }
spec:
  replicas: 3
  minReadySeconds: 5
  progressDeadlineSeconds: 60
  selector:
    matchLabels: { app: web }
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
  template:
    metadata:
      labels: { app: web }
    spec:
      hostNetwork: false
      terminationGracePeriodSeconds: 7
      containers:
        - name: nginx
          image: nginx
          command: [/bin/nginx]
          args: [-c, /etc/$(WHERE), $$(WHERE), $(NOT)]
          workingDir: /srv
          imagePullPolicy: IfNotPresent
          env:
            - { name: WHERE, value: here }
            - { name: PATH, value: /own }
          ports:
            - { name: http, containerPort: 80, hostPort: 8080 }
            - { containerPort: 53, protocol: UDP }
          resources:
            limits: { cpu: 250m, memory: 64Mi }
            requests: { cpu: 100m }
          securityContext:
            capabilities: { add: [NET_ADMIN, CAP_CHOWN], drop: [CHOWN] }
          volumeMounts:
            - { name: lion, mountPath: /etc/lion }
            - { name: keys, mountPath: /etc/key, subPath: key.pem, readOnly: true }
        - name: side
          args: [only, args]
      volumes:
        - name: lion
          configMap:
            name: lion
            items: [{ key: lion.properties, path: a/b.properties }]
            defaultMode: 0600
        - name: keys
          secret: { secretName: keys }
        - name: line
          hostPath: { path: /run/line, type: DirectoryOrCreate }
---
apiVersion: v1
kind: Secret
metadata: { name: keys }
data: { key.pem: c2VjcmV0 }
stringData: { plain: text }
";

/// A folder with a package; `change` edits the text of `web.yaml`.
fn package(web: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("version.yaml", VERSION);
    write("db.yaml", DB);
    write("web.yaml", web);
    write("config/lion.properties", "mane=long\n");
    folder
}

fn image(name: &str) -> Option<ImageInfo> {
    if !["base", "nginx"].contains(&name) {
        return None;
    }
    Some(ImageInfo {
        digest: Digest::of(name.as_bytes()),
        reference: name.into(),
        architecture: "amd64".into(),
        layers: vec![Layer { digest: Digest::of(b"layer"), size_bytes: 10 }],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["cmd".into()],
        env: vec!["LANG=C".into(), "PATH=/image".into()],
        working_dir: "/work".into(),
        user: User { uid: 7, gid: 8, additional_gids: vec![9] },
        stop_signal: 3,
        volumes: vec!["/etc/nginx/cache".into(), "/var/cache/nginx".into()],
    })
}

fn compiled(web: &str) -> Result<Compiled, Vec<String>> {
    let folder = package(web);
    let strip = |problems: Vec<_>| {
        let folder = format!("{}/", folder.path().display());
        problems
            .iter()
            .map(|p: &wherry_cloud::template::place::Problem| p.to_string().replace(&folder, ""))
            .collect::<Vec<_>>()
    };
    let package = load(&folder.path().join("version.yaml")).map_err(strip)?;
    let text = serde_json::to_string(&package).unwrap();
    assert_eq!(
        serde_json::from_str::<wherry_cloud::version::VersionPackage>(&text).unwrap(),
        package
    );
    compile(&package, &image).map_err(strip)
}

fn web(compiled: &Compiled) -> &Deployment {
    compiled.deployments.iter().find(|d| d.name.as_str() == "web").unwrap()
}

#[test]
fn a_realistic_package_becomes_what_it_says() {
    let compiled = compiled(WEB).unwrap();
    let web = web(&compiled);
    assert_eq!(web.replicas, 3);
    assert_eq!(web.strategy, Strategy::RollingUpdate { max_unavailable: 0, max_surge: 1 });
    assert_eq!((web.min_ready_seconds, web.progress_deadline_seconds), (5, 60));
    assert_eq!(web.after.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["db"]);
    assert_eq!(web.pod.termination_grace_seconds, 7);
    let [nginx, side] = &web.pod.containers[..] else { panic!("two containers") };
    assert_eq!(nginx.args, ["/bin/nginx", "-c", "/etc/here", "$(WHERE)", "$(NOT)"]);
    assert_eq!(side.args, ["/entry", "only", "args"]);
    let env: Vec<String> = nginx.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(env, ["PATH=/own", "LANG=C", "WHERE=here"]);
    assert_eq!((nginx.working_dir.as_str(), side.working_dir.as_str()), ("/srv", "/work"));
    assert_eq!(nginx.capabilities.iter().collect::<Vec<_>>(), ["NET_ADMIN"]);
    assert_eq!((nginx.ports[0].host_port, nginx.ports[0].container_port), (Some(8080), 80));
    assert_eq!(nginx.ports[1].protocol, Protocol::Udp);
    assert_eq!(nginx.resources.cpu_millis, Some(250));
    assert_eq!(nginx.resources.memory_bytes, Some(64 << 20));
    assert_eq!((nginx.user.uid, nginx.stop_signal), (7, 3));
    assert_eq!(nginx.mounts[1].sub_path.as_deref(), Some("key.pem"));
    let VolumeSource::Config(lion) = &web.pod.volumes[0].source else { panic!("{web:?}") };
    assert_eq!(lion.mode, 0o600);
    assert_eq!(lion.items["lion.properties"], "a/b.properties");
    let line = HostPath { path: "/run/line".into(), kind: HostPathKind::DirectoryOrCreate };
    assert_eq!(web.pod.volumes[2].source, VolumeSource::HostPath(line));
    let secret = compiled.configs.iter().find(|c| c.key.name.as_str() == "keys").unwrap();
    assert_eq!(secret.files["key.pem"], b"secret");
    assert_eq!(secret.files["plain"], b"text");
    assert_eq!(compiled.images.len(), 2);

    let db = &compiled.deployments[0];
    assert_eq!((db.name.as_str(), db.replicas, db.strategy), ("db", 1, Strategy::Recreate));
    assert_eq!(db.pod.restart_policy, RestartPolicy::OnFailure);
    assert_eq!(db.pod.containers[0].args, ["/entry", "cmd"]);
    assert_eq!(db.pod.termination_grace_seconds, 30);
}

/// One line of the template, changed: the exact problem that is told.
#[test]
fn every_mistake_is_told_with_file_line_and_path() {
    let container = "spec.template.spec.containers[0]";
    let cases = [
        (
            "      hostNetwork: false",
            "      hostPID: true",
            "web.yaml:19: spec.template.spec.hostPID: not supported: a pod sees only its own: reach the node by hostNetwork, or a socket in a hostPath",
        ),
        (
            "          workingDir: /srv",
            "          lifecycle: { postStart: {} }",
            &*format!(
                "web.yaml:26: {container}.lifecycle.postStart: not supported: let the program do it, or a container of its own"
            ),
        ),
        (
            "          workingDir: /srv",
            "          workingDir: ../x",
            &format!(
                "web.yaml:26: {container}.workingDir: must be a plain absolute path, not below /proc"
            ),
        ),
        (
            "          image: nginx",
            "          image: nginx:9",
            &format!(
                "web.yaml:23: {container}.image: there is no image `nginx:9`: import it first (wherry-cloud image import)"
            ),
        ),
        (
            "value: here",
            "value: 80",
            &format!("web.yaml:29: {container}.env[0].value: must be text: put it in quotes"),
        ),
        (
            "value: here",
            "valueFrom: {}",
            &format!(
                "web.yaml:29: {container}.env[0].valueFrom: must have one of fieldRef, configMapKeyRef and secretKeyRef"
            ),
        ),
        (
            "containerPort: 80,",
            "containerPort: 0,",
            &format!(
                "web.yaml:32: {container}.ports[0].containerPort: must be a whole number from 1 to 65535"
            ),
        ),
        (
            "protocol: UDP",
            "protocol: SCTP",
            &format!("web.yaml:33: {container}.ports[1].protocol: must be TCP or UDP"),
        ),
        (
            "cpu: 250m",
            "cpu: fast",
            &format!(
                "web.yaml:35: {container}.resources.limits.cpu: must be processors, such as 2, 0.5 or 250m"
            ),
        ),
        (
            "memory: 64Mi",
            "hugepages-2Mi: 1",
            &format!(
                "web.yaml:35: {container}.resources.limits.hugepages-2Mi: not supported: limit memory"
            ),
        ),
        (
            "add: [NET_ADMIN,",
            "add: [ALL,",
            &format!(
                "web.yaml:38: {container}.securityContext.capabilities.add[0]: `ALL` is not a capability that can be named here"
            ),
        ),
        (
            "mountPath: /etc/lion",
            "mountPath: /proc/x",
            &format!(
                "web.yaml:40: {container}.volumeMounts[0].mountPath: must be a plain absolute path outside /proc and what each container has in /dev, and not /"
            ),
        ),
        (
            "readOnly: true",
            "readOnly: false",
            &format!(
                "web.yaml:41: {container}.volumeMounts[1].readOnly: config maps and secrets are always read-only"
            ),
        ),
        (
            "        - name: lion\n",
            "        - name: tiger\n",
            &format!(
                "web.yaml:40: {container}.volumeMounts[0].name: there is no volume `lion` in this pod"
            ),
        ),
        (
            "defaultMode: 0600",
            "defaultMode: 0o7777",
            "web.yaml:49: spec.template.spec.volumes[0].configMap.defaultMode: must be a whole number from 0 to 511",
        ),
        (
            "replicas: 3",
            "replicas: -1",
            "web.yaml:7: spec.replicas: must be a whole number from 0 to 128",
        ),
        (
            "matchLabels: { app: web }",
            "matchLabels: { app: x }",
            "web.yaml:11: spec.selector.matchLabels.app: no such label in template.metadata.labels",
        ),
        (
            "maxSurge: 1 }",
            "maxSurge: 0 }",
            "web.yaml:14: spec.strategy.rollingUpdate: maxUnavailable and maxSurge cannot both be 0",
        ),
        (
            "type: RollingUpdate",
            "type: BlueGreen",
            "web.yaml:12: spec.strategy: `BlueGreen` is no strategy: use RollingUpdate or Recreate",
        ),
        (
            "  labels: { tier: front }",
            "  namespace: x",
            "web.yaml:5: metadata.namespace: not supported: a node has one namespace: leave it out",
        ),
        (
            "kind: Secret",
            "kind: Service",
            "web.yaml:55: apiVersion `v1`, kind `Service`: use apps/v1 Deployment, batch/v1 Job, or v1 Pod, ConfigMap, Secret or PersistentVolumeClaim",
        ),
        ("key.pem: c2VjcmV0", "key.pem: '%'", "web.yaml:58: data.key.pem: must be base64"),
        (
            "rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }",
            "rollingUpdate: { maxUnavailable: 0%, maxSurge: 0 }",
            "web.yaml:14: spec.strategy.rollingUpdate: maxUnavailable and maxSurge cannot both be 0",
        ),
        (
            "progressDeadlineSeconds: 60",
            "progressDeadlineSeconds: 5",
            "web.yaml:9: spec.progressDeadlineSeconds: must be more than minReadySeconds, which is 5",
        ),
        (
            "mountPath: /etc/key,",
            "mountPath: /etc/lion,",
            &format!("web.yaml:41: {container}.volumeMounts[1]: `/etc/lion` is mounted at twice"),
        ),
        (
            "path: a/b.properties }]",
            "path: a }, { key: lion.properties, path: b }]",
            "web.yaml:48: spec.template.spec.volumes[0].configMap.items[1]: the key `lion.properties` is there twice",
        ),
        (
            "path: a/b.properties }]",
            "path: a }, { key: other, path: a }]",
            "web.yaml:48: spec.template.spec.volumes[0].configMap.items[1]: two files at `a`",
        ),
        (
            "path: /run/line",
            "path: /run/../etc",
            "web.yaml:53: spec.template.spec.volumes[2].hostPath.path: must be a plain absolute path outside /proc",
        ),
        (
            "type: DirectoryOrCreate",
            "type: Socket",
            "web.yaml:53: spec.template.spec.volumes[2].hostPath.type: must be Directory, DirectoryOrCreate, CharDevice or empty",
        ),
        (
            "path: a/b.properties }]",
            "path: ../b }]",
            "web.yaml:48: spec.template.spec.volumes[0].configMap.items[0].path: must be a plain relative path",
        ),
        (
            "kind: Secret\nmetadata: { name: keys }\ndata: { key.pem: c2VjcmV0 }\nstringData: { plain: text }\n",
            "kind: ConfigMap\nmetadata: { name: keys }\ndata: { a: b }\nbinaryData: { a: YQ== }\n",
            "web.yaml:58: data.a: is in binaryData too",
        ),
        (
            "  name: web\n",
            "  name: Web\n",
            "web.yaml:4: metadata.name: `Web` is not a name: use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit first and last",
        ),
    ];
    for (line, changed, wanted) in cases {
        assert!(WEB.contains(line), "{line}");
        let problems = compiled(&WEB.replacen(line, changed, 1)).unwrap_err();
        assert!(problems.iter().any(|p| p == wanted), "wanted: {wanted}\ngot: {problems:#?}");
    }
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let text = WEB
        .replace("hostNetwork: false", "hostIPC: true")
        .replace("replicas: 3", "replicas: x")
        .replace("workingDir", "tty");
    let problems = compiled(&text).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn what_only_shows_when_all_is_together() {
    for (line, changed, wanted) in [
        (
            "            name: lion",
            "            name: wolf",
            "web.yaml:47: spec.template.spec.volumes[0].configMap.name: there is no ConfigMap `wolf`",
        ),
        (
            "key: lion.properties",
            "key: wolf.properties",
            "web.yaml:48: spec.template.spec.volumes[0].configMap.items[0].key: `lion` has no file `wolf.properties`",
        ),
        (
            "subPath: key.pem",
            "subPath: wolf.pem",
            "web.yaml:41: spec.template.spec.containers[0].volumeMounts[1].subPath: the volume `keys` has no file `wolf.pem`",
        ),
        (
            "hostPort: 8080 }",
            "hostPort: 53 }\n            - { containerPort: 54, hostPort: 53 }",
            "host port 53 is published twice",
        ),
    ] {
        let problems = compiled(&WEB.replacen(line, changed, 1)).unwrap_err();
        assert!(
            problems.iter().any(|p| p.contains(wanted)),
            "wanted: {wanted}\ngot: {problems:#?}"
        );
    }
}

#[test]
fn mistakes_in_version_yaml_are_told_too() {
    for (line, changed, wanted) in [
        (
            "version: 1.4.0",
            "version: 1.4",
            "version.yaml:2: version: `1.4` is not a version number: write X.Y.Z, as in 1.4.0; the build number comes by itself",
        ),
        ("description:", "descripton:", "version.yaml:3: descripton: not supported"),
        ("gateway-single-node", "gateway", "use one of gateway-single-node"),
        (
            "template: web.yaml",
            "template: ../web.yaml",
            "must be a plain path below the folder of version.yaml",
        ),
        ("template: web.yaml", "template: none.yaml", "No such file"),
        ("startAfter: [db]", "startAfter: [cache]", "there is no other component `cache`"),
        ("  - name: web", "  - name: db", "is there twice"),
    ] {
        let folder = package(WEB);
        let path = folder.path().join("version.yaml");
        std::fs::write(&path, VERSION.replacen(line, changed, 1)).unwrap();
        let problems: Vec<String> =
            load(&path).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(
            problems.iter().any(|p| p.contains(wanted)),
            "wanted: {wanted}\ngot: {problems:#?}"
        );
    }
    assert!(load(Path::new("/nonexistent/version.yaml")).is_err());
}

/// A package may come from any client.
#[test]
fn a_package_that_no_loader_made_is_checked_too() {
    let folder = package(WEB);
    let good = load(&folder.path().join("version.yaml")).unwrap();
    let check = |package, wanted: &str| {
        let problems: Vec<String> =
            compile(&package, &image).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(problems.iter().any(|p| p == wanted), "wanted: {wanted}\ngot: {problems:#?}");
    };
    let mut package = good.clone();
    package.components[0].name = package.components[1].name.clone();
    check(package, "version.yaml: the component `web` is there twice");
    let mut package = good.clone();
    package.components.remove(0);
    check(package, "version.yaml: startAfter: there is no other component `db`");
    let mut package = good;
    package.components[0].start_after = package.components[1].start_after.clone();
    check(package, "version.yaml: startAfter: there is no other component `db`");
}

#[test]
fn a_version_says_when_it_is_good() {
    let load_with = |upgrade: &str| {
        let folder = package(WEB);
        let path = folder.path().join("version.yaml");
        std::fs::write(&path, format!("{VERSION}{upgrade}")).unwrap();
        load(&path)
    };
    assert_eq!(load_with("").unwrap().upgrade, UpgradePolicy::default());
    let upgrade = load_with("upgrade: { stableSeconds: 5, holdSecondsMax: 0 }\n").unwrap().upgrade;
    let expected =
        UpgradePolicy { stable_seconds: 5, hold_seconds_max: 0, ..UpgradePolicy::default() };
    assert_eq!(upgrade, expected);
    let problems = load_with("upgrade: { bootsMax: -1, stable: 3 }\n").unwrap_err();
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:#?}");
    assert!(texts.iter().any(|t| t.contains("upgrade.bootsMax: must be a whole number from 0")));
    assert!(texts.iter().any(|t| t.contains("upgrade.stable: not supported")));
}

#[test]
fn a_link_does_not_lead_out_of_the_folder() {
    let folder = package(WEB);
    let outside = tempfile::NamedTempFile::new().unwrap();
    let path = folder.path().join("config/lion.properties");
    for target in [outside.path(), Path::new("/dev/null"), folder.path()] {
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(target, &path).unwrap();
        let problems = load(&folder.path().join("version.yaml")).unwrap_err();
        let text = problems[0].to_string();
        assert!(text.contains("must be a plain file below the folder of version.yaml"), "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("../web.yaml", &path).unwrap();
    assert!(load(&folder.path().join("version.yaml")).is_ok());
}

#[test]
fn pods_are_replaced_one_at_a_time_unless_the_template_says_otherwise() {
    let strategy = |replicas: &str, rolling: &str| {
        let text = WEB
            .replace("replicas: 3", replicas)
            .replace("    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }\n", rolling);
        web(&compiled(&text).unwrap()).strategy
    };
    let rolling =
        |max_unavailable, max_surge| Strategy::RollingUpdate { max_unavailable, max_surge };
    for replicas in ["replicas: 0", "replicas: 1", "replicas: 8"] {
        assert_eq!(strategy(replicas, ""), rolling(0, 1), "{replicas}");
    }
    let quarter = "    rollingUpdate: { maxUnavailable: 25%, maxSurge: 25% }\n";
    assert_eq!(strategy("replicas: 8", quarter), rolling(2, 2));
    assert_eq!(strategy("replicas: 0", quarter), rolling(1, 0));
    // What is not said of one does not follow from the other.
    assert_eq!(
        strategy("replicas: 8", "    rollingUpdate: { maxUnavailable: 3 }\n"),
        rolling(3, 1)
    );
    assert_eq!(strategy("replicas: 8", "    rollingUpdate: { maxSurge: 0 }\n"), rolling(1, 0));
    let half = "    rollingUpdate: { maxUnavailable: 50%, maxSurge: 0 }\n";
    assert_eq!(strategy("replicas: 3", half), rolling(1, 0));
    assert_eq!(
        strategy("replicas: 1", half),
        Strategy::RollingUpdate { max_unavailable: 1, max_surge: 0 }
    );
}

/// Honoured fields, each with a change that has to change the result, or, for
/// those that hold others together, to be noticed as a mistake.
const HONOURED: [(&str, &str, &str); 61] = [
    ("Deployment.apiVersion", "apiVersion: apps/v1", "apiVersion: v1"),
    ("Deployment.kind", "kind: Deployment", "kind: ReplicaSet"),
    ("Deployment.metadata", "metadata:\n  name: web\n  labels: { tier: front }\n", ""),
    ("Deployment.spec", "\nspec:\n", "\nspec: {}\nx:\n"),
    ("ObjectMeta.name", "  name: web", "  name: tiger"),
    ("ObjectMeta of a template.labels", "labels: { app: web }", "labels: { app: x }"),
    ("DeploymentSpec.replicas", "replicas: 3", "replicas: 4"),
    ("DeploymentSpec.minReadySeconds", "minReadySeconds: 5", "minReadySeconds: 6"),
    (
        "DeploymentSpec.progressDeadlineSeconds",
        "progressDeadlineSeconds: 60",
        "progressDeadlineSeconds: 61",
    ),
    ("DeploymentSpec.selector", "{ app: web }", "{ app: y }"),
    ("LabelSelector.matchLabels", "matchLabels: { app: web }", "matchLabels: { app: y }"),
    (
        "DeploymentSpec.strategy",
        "  strategy:\n    type: RollingUpdate\n    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }\n",
        "  strategy: { type: Recreate }\n",
    ),
    (
        "DeploymentStrategy.type",
        "type: RollingUpdate\n    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }",
        "type: Recreate",
    ),
    (
        "DeploymentStrategy.rollingUpdate",
        "rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }",
        "rollingUpdate: { maxSurge: 3 }",
    ),
    ("RollingUpdateDeployment.maxSurge", "maxSurge: 1 }", "maxSurge: 2 }"),
    ("RollingUpdateDeployment.maxUnavailable", "maxUnavailable: 0", "maxUnavailable: 1"),
    ("DeploymentSpec.template", "  template:\n", "  template: {}\n  x:\n"),
    ("PodTemplateSpec.metadata", "    metadata:\n      labels: { app: web }\n", ""),
    ("PodTemplateSpec.spec", "    spec:\n", "    spec: {}\n    x:\n"),
    ("PodSpec.hostNetwork", "hostNetwork: false", "hostNetwork: yes_please"),
    ("PodSpec.restartPolicy", "hostNetwork: false", "restartPolicy: Never"),
    (
        "PodSpec.terminationGracePeriodSeconds",
        "terminationGracePeriodSeconds: 7",
        "terminationGracePeriodSeconds: 8",
    ),
    ("PodSpec.containers", "        - name: side\n          args: [only, args]\n", ""),
    ("PodSpec.volumes", "        - name: keys\n          secret: { secretName: keys }\n", ""),
    ("Container.name", "- name: nginx", "- name: engine"),
    ("Container.image", "image: nginx", "image: base"),
    ("Container.command", "command: [/bin/nginx]", "command: [/bin/other]"),
    ("Container.args", "args: [-c,", "args: [-d,"),
    ("Container.workingDir", "workingDir: /srv", "workingDir: /srv2"),
    ("Container.env", "            - { name: WHERE, value: here }\n", ""),
    ("EnvVar.name", "name: WHERE", "name: THERE"),
    ("EnvVar.value", "value: here", "value: there"),
    ("Container.ports", "            - { containerPort: 53, protocol: UDP }\n", ""),
    ("ContainerPort.name", "name: http,", "name: web,"),
    ("ContainerPort.containerPort", "containerPort: 80,", "containerPort: 81,"),
    ("ContainerPort.hostPort", "hostPort: 8080", "hostPort: 8081"),
    ("ContainerPort.protocol", "protocol: UDP", "protocol: TCP"),
    ("Container.resources", "limits: { cpu: 250m, memory: 64Mi }", "limits: {}"),
    ("ResourceRequirements.limits", "limits: { cpu: 250m,", "limits: {"),
    ("ResourceList.cpu", "cpu: 250m", "cpu: 251m"),
    ("ResourceList.memory", "memory: 64Mi", "memory: 65Mi"),
    (
        "Container.securityContext",
        "securityContext:\n            capabilities: { add: [NET_ADMIN, CAP_CHOWN], drop: [CHOWN] }",
        "securityContext: {}",
    ),
    ("SecurityContext.capabilities", "{ add: [NET_ADMIN, CAP_CHOWN], drop: [CHOWN] }", "{}"),
    ("Capabilities.add", "add: [NET_ADMIN,", "add: [NET_RAW,"),
    ("Capabilities.drop", "drop: [CHOWN]", "drop: []"),
    ("Container.volumeMounts", "            - { name: lion, mountPath: /etc/lion }\n", ""),
    ("VolumeMount.name", "{ name: lion, mountPath", "{ name: keys, mountPath"),
    ("VolumeMount.mountPath", "mountPath: /etc/lion", "mountPath: /etc/tiger"),
    ("VolumeMount.subPath", "subPath: key.pem, ", ""),
    ("VolumeMount.readOnly", "readOnly: true", "readOnly: false"),
    ("Volume.name", "- name: keys\n", "- name: other\n"),
    (
        "Volume.configMap",
        "configMap:\n            name: lion",
        "configMap:\n            name: wolf",
    ),
    ("ConfigMapVolumeSource.name", "            name: lion", "            name: wolf"),
    (
        "ConfigMapVolumeSource.items",
        "            items: [{ key: lion.properties, path: a/b.properties }]\n",
        "",
    ),
    ("KeyToPath.key", "key: lion.properties", "key: wolf.properties"),
    ("KeyToPath.path", "path: a/b.properties", "path: b.properties"),
    ("ConfigMapVolumeSource.defaultMode", "defaultMode: 0600", "defaultMode: 0640"),
    ("Volume.hostPath", "hostPath: { path: /run/line,", "secret: { path: /run/line,"),
    ("HostPathVolumeSource.path", "path: /run/line", "path: /run/other"),
    ("HostPathVolumeSource.type", "type: DirectoryOrCreate", "type: Directory"),
    ("Volume.secret", "secret: { secretName: keys }", "configMap: { name: lion }"),
];

/// More of them, in the Secret, the ConfigMap and the Pod below.
const HONOURED_ELSEWHERE: [(&str, &str, &str); 28] = [
    ("SecretVolumeSource.secretName", "secretName: keys", "secretName: locks"),
    ("SecretVolumeSource.items", "items: [{ key: key.pem, path: key }], ", ""),
    ("SecretVolumeSource.defaultMode", "defaultMode: 0400", "defaultMode: 0440"),
    ("Pod.apiVersion", "v1 #pod", "v2"),
    ("Pod.kind", "Pod", "Job"),
    ("Pod.metadata", "{ name: web } #pod", "{ name: cat }"),
    ("Pod.spec", "spec:", "spec: {}\nx:"),
    ("PodSpec.hostNetwork", "hostNetwork: true", "hostNetwork: false"),
    ("PodSpec.restartPolicy", "restartPolicy: Never", "restartPolicy: OnFailure"),
    ("ConfigMap.apiVersion", "v1 #map", "v2"),
    ("ConfigMap.kind", "ConfigMap", "ConfigMaps"),
    ("ConfigMap.metadata", "{ name: map }", "{ name: other }"),
    ("ConfigMap.data", "{ plain: text }", "{ plain: other }"),
    ("ConfigMap.data", "plain: text", "plainer: text"),
    ("ConfigMap.binaryData", "binary: YQ==", "binary: Yg=="),
    ("Secret.apiVersion", "v1 #secret", "v2"),
    ("Secret.kind", "Secret", "Secrets"),
    ("Secret.metadata", "{ name: keys }", "{ name: nails }"),
    ("Secret.data", "key.pem: c2VjcmV0", "key.pem: c2VjcmU="),
    ("Secret.stringData", "string: text", "string: other"),
    ("Secret.stringData", "string: text", "key.pem: wins"),
    ("Container.name", "name: one", "name: two"),
    ("VolumeMount.mountPath", "mountPath: /keys", "mountPath: /locks"),
    ("PodSpec.securityContext", "securityContext: { seccompProfile: { type: Unconfined } }", ""),
    ("PodSecurityContext.seccompProfile", "seccompProfile: { type: Unconfined }", ""),
    ("SecurityContext.seccompProfile", "seccompProfile: { type: RuntimeDefault }", ""),
    ("SeccompProfile.type", "type: RuntimeDefault", "type: Localhost"),
    ("SeccompProfile.type", "type: Unconfined", "type: RuntimeDefault"),
];

const ELSEWHERE: &str = "apiVersion: v1 #pod
kind: Pod
metadata: { name: web } #pod
spec:
  hostNetwork: true
  restartPolicy: Never
  containers:
    - name: one
      volumeMounts: [{ name: k, mountPath: /keys }]
      securityContext: { seccompProfile: { type: RuntimeDefault } }
    - name: other
  securityContext: { seccompProfile: { type: Unconfined } }
  volumes:
    - name: k
      secret: { items: [{ key: key.pem, path: key }], defaultMode: 0400, secretName: keys }
---
apiVersion: v1 #map
kind: ConfigMap
metadata: { name: map }
data: { plain: text }
binaryData: { binary: YQ== }
---
apiVersion: v1 #secret
kind: Secret
metadata: { name: keys }
data: { key.pem: c2VjcmV0 }
stringData: { string: text }
";

/// More of them, in the Pod below.
const HONOURED_HEALTH: [(&str, &str, &str); 31] = [
    ("Container.startupProbe", "startupProbe:", "livenessProbe:"),
    ("Container.readinessProbe", "readinessProbe:", "startupProbe:"),
    ("Container.livenessProbe", "livenessProbe:", "readinessProbe:"),
    ("Container.lifecycle", "lifecycle: { preStop: { sleep: { seconds: 3 } } }", "tty: false"),
    ("Probe.exec", "exec:", "tcpSocket:"),
    ("Probe.httpGet", "httpGet:", "tcpSocket:"),
    ("Probe.tcpSocket", "tcpSocket:", "exec:"),
    ("Probe.initialDelaySeconds", "initialDelaySeconds: 1", "initialDelaySeconds: 2"),
    ("Probe.periodSeconds", "periodSeconds: 2", "periodSeconds: 3"),
    ("Probe.timeoutSeconds", "timeoutSeconds: 3", "timeoutSeconds: 4"),
    ("Probe.successThreshold", "successThreshold: 4", "successThreshold: 5"),
    ("Probe.failureThreshold", "failureThreshold: 5", "failureThreshold: 6"),
    ("ExecAction.command", "command: [ask]", "command: [ask, more]"),
    ("HTTPGetAction.path", "path: /ready", "path: /live"),
    ("HTTPGetAction.path", "path: /ready", "path: ready"),
    ("HTTPGetAction.port", "port: admin", "port: 80"),
    ("HTTPGetAction.port", "port: admin", "port: nobody"),
    ("HTTPGetAction.scheme", "scheme: HTTP", "scheme: HTTPS"),
    ("HTTPGetAction.httpHeaders", "httpHeaders: [{ name: X-A, value: b }]", "httpHeaders: []"),
    ("HTTPHeader.name", "name: X-A", "name: X-B"),
    ("HTTPHeader.name", "name: X-A", "name: 'X-A:'"),
    ("HTTPHeader.value", "value: b", "value: c"),
    ("TCPSocketAction.port", "port: 5432", "port: 5433"),
    ("Lifecycle.preStop", "preStop: { sleep: { seconds: 3 } }", ""),
    ("LifecycleHandler.sleep", "sleep: { seconds: 3 }", "exec: { command: [bye] }"),
    ("LifecycleHandler.exec", "sleep: { seconds: 3 }", "exec: { command: [bye, bye] }"),
    ("LifecycleHandler.httpGet", "sleep: { seconds: 3 }", "httpGet: { port: 9 }"),
    ("LifecycleHandler.tcpSocket", "sleep: { seconds: 3 }", "tcpSocket: { port: 9 }"),
    ("LifecycleHandler.sleep", "sleep: { seconds: 3 }", "sleep: {}"),
    ("SleepAction.seconds", "seconds: 3", "seconds: 4"),
    ("SleepAction.seconds", "seconds: 3", "seconds: 31"),
];

const HEALTH: &str = "apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  containers:
    - name: one
      ports: [{ containerPort: 8081, name: admin }]
      startupProbe:
        exec: { command: [ask] }
        initialDelaySeconds: 1
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: 5
      readinessProbe:
        httpGet: { port: admin, path: /ready, scheme: HTTP, httpHeaders: [{ name: X-A, value: b }] }
        successThreshold: 4
      livenessProbe:
        tcpSocket: { port: 5432 }
      lifecycle: { preStop: { sleep: { seconds: 3 } } }
";

#[test]
fn probes_are_what_kubernetes_makes_of_them() {
    let compiled = compiled(HEALTH).unwrap();
    let container = &web(&compiled).pod.containers[0];
    let with = |check| Probe {
        check,
        initial_delay_seconds: 0,
        period_seconds: 10,
        timeout_seconds: 1,
        success_threshold: 1,
        failure_threshold: 3,
    };
    let startup = Probe {
        initial_delay_seconds: 1,
        period_seconds: 2,
        timeout_seconds: 3,
        failure_threshold: 5,
        ..with(Check::Exec { args: vec!["ask".into()] })
    };
    let headers = vec![("X-A".into(), "b".into())];
    let get = Check::HttpGet { port: 8081, path: "/ready".into(), headers };
    let expected = Probes {
        startup: Some(startup),
        readiness: Some(Probe { success_threshold: 4, ..with(get) }),
        liveness: Some(with(Check::TcpConnect { port: 5432 })),
    };
    assert_eq!(container.probes, expected);
    assert_eq!(container.pre_stop, Some(PreStop::Sleep { seconds: 3 }));
}

#[test]
fn mistakes_in_probes_are_told_with_their_paths() {
    let container = "spec.containers[0]";
    for (line, changed, problem) in [
        (
            "        tcpSocket: { port: 5432 }",
            "        grpc: { port: 5432 }",
            format!(
                "web.yaml:18: {container}.livenessProbe.grpc: not supported: use exec, httpGet or tcpSocket"
            ),
        ),
        (
            "        tcpSocket: { port: 5432 }",
            "        successThreshold: 2\n        tcpSocket: { port: 5432 }",
            format!(
                "web.yaml:18: {container}.livenessProbe.successThreshold: must be 1 for a startup or liveness probe"
            ),
        ),
        (
            "        tcpSocket: { port: 5432 }",
            "        exec: { command: [] }\n        tcpSocket: { port: 5432 }",
            format!("web.yaml:17: {container}.livenessProbe: has more than one handler"),
        ),
        (
            "        tcpSocket: { port: 5432 }",
            "        periodSeconds: 0",
            format!(
                "web.yaml:17: {container}.livenessProbe: needs one of exec, httpGet and tcpSocket"
            ),
        ),
        (
            "httpGet: { port: admin,",
            "httpGet: { host: other, port: admin,",
            format!(
                "web.yaml:15: {container}.readinessProbe.httpGet.host: not supported: the pod's own address is asked"
            ),
        ),
        (
            "port: admin",
            "port: nobody",
            format!(
                "web.yaml:15: {container}.readinessProbe.httpGet.port: this container has no port of the name `nobody`"
            ),
        ),
        (
            "scheme: HTTP,",
            "scheme: HTTPS,",
            format!(
                "web.yaml:15: {container}.readinessProbe.httpGet.scheme: only HTTP is supported: use exec with a client of the image for HTTPS"
            ),
        ),
    ] {
        assert!(HEALTH.contains(line), "{line}");
        let problems = compiled(&HEALTH.replacen(line, changed, 1)).unwrap_err();
        assert!(problems.contains(&problem), "{problem}\nis not in\n{problems:#?}");
    }
}

#[test]
fn no_honoured_field_is_ignored() {
    let mut tested = std::collections::BTreeSet::new();
    for (text, cases) in [
        (WEB, &HONOURED[..]),
        (ELSEWHERE, &HONOURED_ELSEWHERE[..]),
        (HEALTH, &HONOURED_HEALTH[..]),
        (inside::INSIDE, &inside::HONOURED[..]),
        (jobs::JOB, &jobs::HONOURED[..]),
        (outside::OUTSIDE, &outside::HONOURED[..]),
        (claims::CLAIMS, &claims::HONOURED[..]),
    ] {
        let before = compiled(text).unwrap();
        for (field, line, changed) in cases {
            assert!(text.contains(line), "{field}: {line}");
            let after = compiled(&text.replacen(line, changed, 1));
            assert_ne!(after.as_ref(), Ok(&before), "{field}: {line} -> {changed}");
            tested.insert((*field).to_owned());
        }
    }
    for shape in shapes::ALL {
        for field in shape.fields.iter().filter(|field| field.treatment == Treatment::Honoured) {
            let name = format!("{}.{}", shape.kind, field.name);
            assert!(tested.contains(&name), "no test that {name} does anything");
        }
    }
}

#[test]
fn what_has_no_effect_has_none() {
    let before = compiled(WEB).unwrap();
    for (line, changed) in [
        ("imagePullPolicy: IfNotPresent", "imagePullPolicy: Always"),
        ("requests: { cpu: 100m }", "requests: { cpu: 200m }"),
        ("labels: { tier: front }", "labels: { tier: back }"),
        ("kind: Secret\n", "kind: Secret\ntype: Opaque\nimmutable: true\n"),
        ("labels: { app: web }\n    spec", "labels: { app: web }\n      name: x\n    spec"),
        ("hostNetwork: false", "restartPolicy: Always"),
    ] {
        assert!(WEB.contains(line), "{line}");
        assert_eq!(compiled(&WEB.replacen(line, changed, 1)).unwrap(), before, "{changed}");
    }
}
