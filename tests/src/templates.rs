//! Small templates for tests.

/// A deployment of one lion that listens on every address of its pod, port
/// 9000. `pod` and `container` are further lines of YAML, at the level of the
/// pod's and of the container's fields.
#[must_use]
pub fn lion(name: &str, spec: &str, pod: &str, container: &str) -> String {
    let indent = |text: &str, by: usize| -> String {
        text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
    };
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  selector:
    matchLabels: {{ app: {name} }}
{}  template:
    metadata:
      labels: {{ app: {name} }}
    spec:
      terminationGracePeriodSeconds: 2
{}      containers:
        - name: lion
{}",
        indent(spec, 2),
        indent(pod, 6),
        indent(container, 10),
    )
}

/// The `env` field of a container.
#[must_use]
pub fn env(variables: &[(&str, &str)]) -> String {
    let lines = variables.iter().map(|(n, v)| format!("  - name: {n}\n    value: \"{v}\"\n"));
    std::iter::once("env:\n".to_owned()).chain(lines).collect()
}

/// What makes a lion answer on all addresses.
pub const EVERYWHERE: (&str, &str) = ("LISTEN", "0.0.0.0:9000");
