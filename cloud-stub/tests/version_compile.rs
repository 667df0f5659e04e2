//! Templates and packages as people write them: what they become, and how
//! each mistake is told.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use wherry_bundle::Digest;
use wherry_bundle::model::{Deployment, Layer, Protocol, RestartPolicy, Strategy, User};
use wherry_cloud::image::ImageInfo;
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
    assert_eq!(web.pod.volumes[0].mode, 0o600);
    assert_eq!(web.pod.volumes[0].items["lion.properties"], "a/b.properties");
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
            "web.yaml:19: spec.template.spec.hostPID: not supported",
        ),
        (
            "          workingDir: /srv",
            "          lifecycle: {}",
            &*format!("web.yaml:26: {container}.lifecycle: not supported"),
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
                "web.yaml:29: {container}.env[0].valueFrom: not supported: write the value, or mount a config map"
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
            &format!("web.yaml:35: {container}.resources.limits.hugepages-2Mi: not supported"),
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
                "web.yaml:40: {container}.volumeMounts[0].mountPath: must be a plain absolute path, not / and not below /proc"
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
            "web.yaml:53: apiVersion `v1`, kind `Service`: use apps/v1 Deployment, or v1 Pod, ConfigMap or Secret",
        ),
        ("key.pem: c2VjcmV0", "key.pem: '%'", "web.yaml:56: data.key.pem: must be base64"),
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
        .replace("hostNetwork", "hostIPC")
        .replace("replicas: 3", "replicas: x")
        .replace("workingDir", "tty");
    let problems = compiled(&text).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn what_only_shows_when_all_is_together() {
    for (line, changed, wanted) in [
        ("            name: lion", "            name: wolf", "there is no ConfigMap `wolf`"),
        ("key: lion.properties", "key: wolf.properties", "`lion` has no file `wolf.properties`"),
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

#[test]
fn the_defaults_of_a_rolling_update_are_kubernetes_own() {
    let strategy = |replicas: &str, rolling: &str| {
        let text = WEB
            .replace("replicas: 3", replicas)
            .replace("    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }\n", rolling);
        web(&compiled(&text).unwrap()).strategy
    };
    let rolling =
        |max_unavailable, max_surge| Strategy::RollingUpdate { max_unavailable, max_surge };
    assert_eq!(strategy("replicas: 8", ""), rolling(2, 2));
    assert_eq!(strategy("replicas: 3", ""), rolling(0, 1));
    assert_eq!(strategy("replicas: 0", ""), rolling(1, 0));
    let half = "    rollingUpdate: { maxUnavailable: 50%, maxSurge: 0 }\n";
    assert_eq!(strategy("replicas: 3", half), rolling(1, 0));
    assert_eq!(
        strategy("replicas: 1", half),
        Strategy::RollingUpdate { max_unavailable: 1, max_surge: 0 }
    );
}

/// Every honoured field changes the result; what is accepted without effect
/// does not.
#[test]
fn no_honoured_field_is_ignored() {
    let before = compiled(WEB).unwrap();
    for (line, changed) in [
        ("replicas: 3", "replicas: 4"),
        ("minReadySeconds: 5", "minReadySeconds: 6"),
        ("progressDeadlineSeconds: 60", "progressDeadlineSeconds: 61"),
        ("maxSurge: 1 }", "maxSurge: 2 }"),
        ("maxUnavailable: 0", "maxUnavailable: 1"),
        ("hostNetwork: false", "restartPolicy: Always"),
        ("terminationGracePeriodSeconds: 7", "terminationGracePeriodSeconds: 8"),
        ("- name: nginx", "- name: engine"),
        ("image: nginx", "image: base"),
        ("command: [/bin/nginx]", "command: [/bin/other]"),
        ("args: [-c,", "args: [-d,"),
        ("workingDir: /srv", "workingDir: /srv2"),
        ("value: here", "value: there"),
        ("name: http,", "name: web,"),
        ("containerPort: 80,", "containerPort: 81,"),
        ("hostPort: 8080", "hostPort: 8081"),
        ("protocol: UDP", "protocol: TCP"),
        ("cpu: 250m", "cpu: 251m"),
        ("memory: 64Mi", "memory: 65Mi"),
        ("add: [NET_ADMIN,", "add: [NET_RAW,"),
        ("drop: [CHOWN]", "drop: []"),
        ("mountPath: /etc/lion", "mountPath: /etc/tiger"),
        ("subPath: key.pem, ", ""),
        ("path: a/b.properties", "path: b.properties"),
        ("defaultMode: 0600", "defaultMode: 0640"),
        ("stringData: { plain: text }", "stringData: { plain: other }"),
        ("data: { key.pem: c2VjcmV0 }", "data: { key.pem: c2VjcmU= }"),
    ] {
        assert!(WEB.contains(line), "{line}");
        let after = compiled(&WEB.replacen(line, changed, 1));
        let after = after.unwrap_or_else(|problems| panic!("{changed}: {problems:#?}"));
        let same = after == before;
        assert_eq!(same, line == "hostNetwork: false", "{line} -> {changed}");
    }
    for (line, changed) in [
        ("imagePullPolicy: IfNotPresent", "imagePullPolicy: Always"),
        ("requests: { cpu: 100m }", "requests: { cpu: 200m }"),
        ("labels: { tier: front }", "labels: { tier: back }"),
    ] {
        assert_eq!(compiled(&WEB.replacen(line, changed, 1)).unwrap(), before, "{changed}");
    }
}
