//! `wherry-cloud template check` as a person uses it: no server runs.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const WEB: &str = "# A comment, so that lines and values differ.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector:
    matchLabels: { app: web }
  template:
    metadata:
      labels: { app: web }
    spec:
      containers:
        - name: nginx
          image: not-imported:1
          volumeMounts:
            - { name: conf, mountPath: /etc/nginx }
        - name: own-image-of-the-component
      volumes:
        - name: conf
          configMap:
            name: nginx
            items: [{ key: nginx.conf, path: nginx.conf }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: nginx }
data:
  nginx.conf: |
    worker_processes 1;
";

/// Runs `template check FILES` in a folder with these files.
fn check(files: &[(&str, &str)], words: &[&str]) -> (Output, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_wherry-cloud"));
    // No server answers there.
    command.env("WHERRY_CLOUD_API", "http://127.0.0.1:1").current_dir(folder.path());
    (command.args(["template", "check"]).args(words).output().unwrap(), folder)
}

/// Its exit status, standard output and standard error.
fn told(files: &[(&str, &str)], words: &[&str]) -> (i32, String, String) {
    let (output, _) = check(files, words);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The lines that are told of one file; there have to be some.
fn problems(text: &str) -> Vec<String> {
    let (status, out, err) = told(&[("a.yaml", text)], &["a.yaml"]);
    assert_eq!((status, &*err), (1, ""), "{out}");
    out.lines().map(str::to_owned).collect()
}

#[test]
fn a_good_file_is_one_line() {
    let fine = |files: &[(&str, &str)], words: &[&str], line: &str| {
        assert_eq!(told(files, words), (0, line.to_owned(), String::new()));
    };
    fine(&[("a.yaml", WEB)], &["a.yaml"], "2 objects are fine\n");
    fine(&[("a.yaml", "")], &["a.yaml"], "0 objects are fine\n");
    let (web, config) = WEB.split_once("---\n").unwrap();
    let both = [("web.yaml", web), ("config.yaml", config)];
    fine(&both, &["web.yaml", "config.yaml"], "2 objects are fine\n");
    fine(&both, &["config.yaml"], "1 object is fine\n");
    // It may be made of plain files.
    let line = "1 object is fine; version.yaml has to make ConfigMap nginx\n";
    fine(&both, &["web.yaml"], line);
    fine(&both, &["web.yaml", "-o", "json"], "[]\n");
}

#[test]
fn all_problems_of_all_files_are_told_at_once() {
    let bad = WEB
        .replace("    spec:\n", "    spec:\n      nodeName: gw-1\n")
        .replace("image: not-imported:1", "imgae: nginx")
        .replace("kind: ConfigMap", "kind: Service");
    let files = [("a.yaml", &*bad), ("b.yaml", "a: [1"), ("c.yaml", WEB), ("d.yaml", "- 1\n")];
    let (status, out, err) = told(&files, &["d.yaml", "a.yaml", "b.yaml", "c.yaml"]);
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "a.yaml:13: spec.template.spec.nodeName: not supported: say which nodes when you roll out: `rollout start --nodes`",
        "a.yaml:16: spec.template.spec.containers[0].imgae: not supported: did you mean `image`?",
        "a.yaml:26: apiVersion `v1`, kind `Service`: use apps/v1 Deployment, batch/v1 Job, or v1 Pod, ConfigMap, Secret or PersistentVolumeClaim",
        "b.yaml:",
        "c.yaml:5: metadata.name: the name is taken at a.yaml:5: choose another one",
        "d.yaml:1: must be a map",
        "d.yaml:1: apiVersion ``, kind ``: use",
    ];
    for line in expected {
        assert!(lines.iter().any(|found| found.starts_with(line)), "{line}\nnot in\n{out}");
    }
    assert_eq!((status, lines.len(), &*err), (1, expected.len(), ""), "{out}");
}

#[test]
fn programs_get_a_list() {
    let bad = WEB
        .replace("image: not-imported:1", "tty: true")
        .replace("metadata: {", "metadata: { labels: 1, x: 2,");
    let (status, out, err) = told(&[("a.yaml", &bad)], &["a.yaml", "-o", "json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    let expected = json!([
        {
            "file": "a.yaml",
            "line": 15,
            "path": "spec.template.spec.containers[0].tty",
            "problem": "not supported",
            "hint": "nobody is there to type: give the program a file or a socket",
        },
        {
            "file": "a.yaml",
            "line": 27,
            "path": "metadata.x",
            "problem": "not supported",
            "hint": "ObjectMeta has no such field",
        },
    ]);
    assert_eq!((status, list, &*err), (1, expected, ""));
    let missing = WEB.replace("  name: web\n", "  labels: {}\n");
    let (_, out, _) = told(&[("a.yaml", &missing)], &["a.yaml", "-o", "json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&list[0]["problem"], &list[0]["hint"]),
        (&"`name` is missing".into(), &Value::Null)
    );
}

#[test]
fn a_wrong_command_line_and_an_unreadable_file_are_status_2() {
    let (status, _, err) = told(&[], &[]);
    assert_eq!(status, 2, "{err}");
    let (status, _, err) = told(&[("a.yaml", WEB)], &["a.yaml", "-o", "xml"]);
    assert_eq!(status, 2, "{err}");
    let bad = WEB.replace("image:", "tty: true #");
    let (status, out, err) =
        told(&[("a.yaml", &bad)], &["none.yaml", "a.yaml", ".", "also-none.yaml"]);
    assert_eq!((status, out.lines().count()), (2, 1), "what can be read is looked at: {out}");
    assert_eq!(err.lines().count(), 4, "{err}");
    for part in [
        "error: not all files can be read",
        "  none.yaml: No such",
        "  .: Is a",
        "  also-none.yaml: ",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (status, out, _) = told(&[("a.yaml", WEB)], &["a.yaml", "none.yaml"]);
    assert_eq!((status, &*out), (2, ""));
}

#[test]
fn a_file_that_is_no_text_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, long) = (folder.path().join("bytes"), folder.path().join("long"));
    fs::write(&bytes, b"a: \xff").unwrap();
    fs::write(&long, "é".repeat(1 << 20)).unwrap();
    let paths = [bytes.to_str().unwrap(), long.to_str().unwrap(), "/dev/zero"];
    let (status, out, _) = told(&[], &paths);
    assert_eq!((status, out.lines().count()), (1, 3), "{out}");
    assert!(out.contains("bytes: is not UTF-8 text"), "{out}");
    assert_eq!(out.matches("has more than the 1048576 bytes").count(), 2, "{out}");
}

#[test]
fn so_many_problems_that_nobody_reads_them_are_cut_short() {
    let fields: String = (0..300).map(|i| format!("  x{i}: 1\n")).collect();
    let text = WEB.replace("  name: web\n", &format!("  name: web\n{fields}"));
    let (status, out, err) = told_of(&text);
    assert_eq!((status, out.lines().count()), (1, 200), "{out}");
    assert_eq!(err, "there may be more: 200 are told at once\n");
}

/// Each line that is marked, and no other, has a problem.
#[test]
fn lines_are_those_of_the_file() {
    let text = "# one
%YAML 1.2
---
apiVersion: v1
kind: ConfigMap
metadata: { name: long }
data:
  a: |
    several
    lines

  # and a comment
  b: >-
    more

    lines
  c: 'quoted
    over lines'
  d: 1 # !
binaryData: { e: YQ==,

  f: '%' } # !
...
---
# é, which is two bytes
apiVersion: v1
kind: Pod
metadata:
  name: pod
spec:
  hostPID: # !
    true
  containers:

  -
    # of the container
    name: one
    env:
    - name: É
      value: \"a
        b\"
    -   value: x # !
    - { name: A,
        value: 1 } # !
    stdin: # !

      true
    workingDir: # !
      >-
      relative
---
kind: Nothing # !
";
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let marked: Vec<usize> = text
            .lines()
            .zip(1..)
            .filter_map(|(line, number)| line.contains("# !").then_some(number))
            .collect();
        let told = problems(&text);
        let lines: Vec<usize> =
            told.iter().map(|line| line.split(':').nth(1).unwrap().parse().unwrap()).collect();
        assert_eq!(lines, marked, "{told:#?}");
    }
    // A text that is not YAML.
    for (bad, line) in [
        ("a: 1\nb: [\n\n", 4),
        ("a: 1\n\tb: 1\n", 2),
        ("a: 1\nb: c: d\n", 2),
        ("a: 1\n\na: 2\n", 3),
    ] {
        let told = problems(bad);
        assert!(told[0].starts_with(&format!("a.yaml:{line}: ")), "{line}: {told:?}");
    }
}

#[test]
fn what_objects_say_of_each_other_is_looked_at() {
    let volumes = "spec.template.spec.volumes[0].configMap";
    let mount = "spec.template.spec.containers[0].volumeMounts[0]";
    for (line, changed, wanted) in [
        (
            "key: nginx.conf",
            "key: other.conf",
            format!("a.yaml:23: {volumes}.items[0].key: `nginx` has no file `other.conf`"),
        ),
        (
            "mountPath: /etc/nginx",
            "mountPath: /etc/nginx, subPath: other.conf",
            format!("a.yaml:17: {mount}.subPath: the volume `conf` has no file `other.conf`"),
        ),
        (
            "own-image-of-the-component\n",
            "nginx\n",
            "a.yaml:2: deployments.web.containers: \"nginx\" is there twice".into(),
        ),
        (
            "own-image-of-the-component\n",
            "two\n          ports: [{ containerPort: 1, hostPort: 80 }, { containerPort: 2, hostPort: 80 }]\n",
            "a.yaml:2: deployments.web.ports: host port 80 is published twice".into(),
        ),
        (
            "---\n",
            "---\napiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec: { containers: [{ name: a }] }\n---\n",
            "a.yaml:27: metadata.name: the name is taken at a.yaml:5: choose another one".into(),
        ),
    ] {
        assert!(WEB.contains(line), "{line}");
        assert_eq!(problems(&WEB.replacen(line, changed, 1)), [wanted]);
    }
    // A pod of the name that another kind has is another thing.
    let (status, ..) =
        told(&[("a.yaml", &WEB.replace("nginx }\ndata", "web }\ndata"))], &["a.yaml"]);
    assert_eq!(status, 0);
}

#[test]
fn what_would_confine_a_program_is_not_ignored() {
    let annotated = |text: &str| {
        WEB.replace("  name: web\n", &format!("  name: web\n  annotations: {{ {text} }}\n"))
            .replace("      labels:", &format!("      annotations: {{ {text} }}\n      labels:"))
    };
    let key = "container.apparmor.security.beta.kubernetes.io/nginx";
    let told = problems(&annotated(&format!("{key}: runtime/default")));
    let what = "not supported: use securityContext, as far as it is supported";
    assert_eq!(
        told,
        [
            format!("a.yaml:6: metadata.annotations.{key}: {what}"),
            format!("a.yaml:12: spec.template.metadata.annotations.{key}: {what}"),
        ]
    );
    let (status, out, _) = told_of(&annotated("prometheus.io/scrape: 'true'"));
    assert_eq!((status, &*out), (0, "2 objects are fine\n"));
}

fn told_of(text: &str) -> (i32, String, String) {
    told(&[("a.yaml", text)], &["a.yaml"])
}

/// `kubectl get deployment -o yaml`: defaults are written out.
#[test]
fn what_a_cluster_prints_is_taken() {
    let text = "apiVersion: apps/v1
kind: Deployment
metadata:
  annotations:
    deployment.kubernetes.io/revision: \"1\"
  creationTimestamp: \"2024-05-01T10:00:00Z\"
  generation: 1
  labels:
    app: web
  name: web
  namespace: default
  resourceVersion: \"12345\"
  uid: 0f0e7a3c-0000-4000-8000-000000000000
spec:
  progressDeadlineSeconds: 600
  replicas: 1
  revisionHistoryLimit: 10
  selector:
    matchLabels:
      app: web
  strategy:
    rollingUpdate:
      maxSurge: 25%
      maxUnavailable: 25%
    type: RollingUpdate
  template:
    metadata:
      creationTimestamp: null
      labels:
        app: web
    spec:
      containers:
      - image: nginx:1.22
        imagePullPolicy: IfNotPresent
        name: nginx
        ports:
        - containerPort: 80
          protocol: TCP
        resources: {}
        terminationMessagePath: /dev/termination-log
        terminationMessagePolicy: File
        volumeMounts:
        - mountPath: /etc/nginx
          name: conf
      dnsPolicy: ClusterFirst
      restartPolicy: Always
      schedulerName: default-scheduler
      securityContext: {}
      terminationGracePeriodSeconds: 30
      volumes:
      - configMap:
          defaultMode: 420
          name: nginx
        name: conf
status:
  availableReplicas: 1
  conditions:
  - lastUpdateTime: \"2024-05-01T10:00:00Z\"
    status: \"True\"
    type: Available
";
    let line = "1 object is fine; version.yaml has to make ConfigMap nginx\n";
    assert_eq!(told_of(text), (0, line.to_owned(), String::new()));
}
