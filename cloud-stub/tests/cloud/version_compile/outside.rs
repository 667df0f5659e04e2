//! What a template says of a pod's surroundings: names, devices, limits, and
//! volumes that its image declares.

use wherry_bundle::model::{Dns, HostAlias, HostPath, HostPathKind, VolumeSource};

use super::{compiled, web};

pub const OUTSIDE: &str = "apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  hostAliases:
    - { ip: 192.0.2.9, hostnames: [plc, plc.example] }
  dnsPolicy: None
  dnsConfig:
    nameservers: [192.0.2.53]
    searches: [line.example.]
    options: [{ name: ndots, value: \"2\" }, { name: edns0 }]
  containers:
    - name: one
      resources: { limits: { pids: 32, ephemeral-storage: 4Mi } }
      volumeMounts:
        - { name: modem, mountPath: /dev/modem }
  volumes:
    - { name: modem, hostPath: { path: /dev/ttyS0, type: CharDevice } }
";

/// As [`super::HONOURED`].
pub const HONOURED: [(&str, &str, &str); 12] = [
    ("PodSpec.hostAliases", "    - { ip: 192.0.2.9, hostnames: [plc, plc.example] }\n", ""),
    ("HostAlias.ip", "ip: 192.0.2.9", "ip: 192.0.2.8"),
    ("HostAlias.hostnames", "[plc, plc.example]", "[plc]"),
    ("PodSpec.dnsPolicy", "dnsPolicy: None", "dnsPolicy: Default"),
    ("PodSpec.dnsConfig", "dnsConfig:\n    nameservers", "dnsConfig:\n    servers"),
    ("PodDNSConfig.nameservers", "[192.0.2.53]", "[192.0.2.53, 192.0.2.54]"),
    ("PodDNSConfig.searches", "searches: [line.example.]", "searches: []"),
    ("PodDNSConfig.options", ", { name: edns0 }]", "]"),
    ("PodDNSConfigOption.name", "name: edns0", "name: rotate"),
    ("PodDNSConfigOption.value", "value: \"2\"", "value: \"3\""),
    ("ResourceList.pids", "pids: 32", "pids: 33"),
    ("ResourceList.ephemeral-storage", "ephemeral-storage: 4Mi", "ephemeral-storage: 5Mi"),
];

#[test]
fn a_pods_surroundings_are_as_the_template_says() {
    let compiled = compiled(OUTSIDE).unwrap();
    let pod = &web(&compiled).pod;
    let names = ["plc", "plc.example"].map(str::to_owned).to_vec();
    assert_eq!(pod.host_aliases, [HostAlias { address: "192.0.2.9".parse().unwrap(), names }]);
    let dns = Dns {
        alone: true,
        nameservers: vec!["192.0.2.53".parse().unwrap()],
        searches: vec!["line.example".into()],
        options: vec!["ndots:2".into(), "edns0".into()],
    };
    assert_eq!(pod.dns, dns);
    let limits = pod.containers[0].resources;
    assert_eq!((limits.pids, limits.storage_bytes), (Some(32), Some(4 << 20)));
    let device = HostPath { path: "/dev/ttyS0".into(), kind: HostPathKind::CharDevice };
    assert_eq!(pod.volumes[0].source, VolumeSource::HostPath(device));
}

#[test]
fn volumes_of_an_image_are_for_what_can_write_nowhere_else() {
    let volumes = |more: &str| {
        let compiled = compiled(&OUTSIDE.replacen("      volumeMounts:\n", more, 1)).unwrap();
        web(&compiled).pod.containers[0].image_volumes.clone()
    };
    assert_eq!(volumes("      volumeMounts:\n"), ["/etc/nginx/cache", "/var/cache/nginx"]);
    let mount = "  - { name: run, emptyDir: {} }\n";
    let over = |path: &str| {
        let text = OUTSIDE.replacen("  volumes:\n", &format!("  volumes:\n  {mount}"), 1);
        let line = format!("      volumeMounts:\n        - {{ name: run, mountPath: {path} }}\n");
        let compiled = compiled(&text.replacen("      volumeMounts:\n", &line, 1)).unwrap();
        web(&compiled).pod.containers[0].image_volumes.clone()
    };
    assert_eq!(over("/var/cache"), ["/etc/nginx/cache"]);
    assert_eq!(over("/var/cache/nginx/x"), ["/etc/nginx/cache", "/var/cache/nginx"]);
    let writable =
        "      securityContext: { readOnlyRootFilesystem: false }\n      volumeMounts:\n";
    assert_eq!(volumes(writable), Vec::<String>::new());
}

#[test]
fn mistakes_outside_are_told_with_their_paths() {
    for (line, changed, problem) in [
        ("ip: 192.0.2.9", "ip: plc", "web.yaml:6: spec.hostAliases[0].ip: must be an IP address"),
        (
            "[plc, plc.example]",
            "[\"plc x\"]",
            "web.yaml:6: spec.hostAliases[0].hostnames[0]: `plc x` is not a host name",
        ),
        (
            ", hostnames: [plc, plc.example]",
            "",
            "web.yaml:6: spec.hostAliases[0]: `hostnames` is missing: an address needs a name",
        ),
        (
            "dnsPolicy: None",
            "dnsPolicy: Some",
            "web.yaml:7: spec.dnsPolicy: must be ClusterFirst, ClusterFirstWithHostNet, Default or None",
        ),
        (
            "    nameservers: [192.0.2.53]\n",
            "",
            "web.yaml:8: spec.dnsConfig: dnsPolicy: None needs a name server here",
        ),
        (
            "[192.0.2.53]",
            "[192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]",
            "web.yaml:9: spec.dnsConfig.nameservers: 4 of them, where at most 3 are allowed",
        ),
        (
            "name: edns0",
            "name: \"a b\"",
            "web.yaml:11: spec.dnsConfig.options[1]: must be an option of resolv.conf, such as name: ndots, value: \"2\"",
        ),
        (
            "pids: 32",
            "pids: 0",
            "web.yaml:14: spec.containers[0].resources.limits.pids: must be a whole number from 1 to 1024",
        ),
        (
            "4Mi",
            "4Gi",
            "web.yaml:14: spec.containers[0].resources.limits.ephemeral-storage: must be bytes, such as 16Mi, and 1Gi at most: it is in memory",
        ),
        (
            "mountPath: /dev/modem",
            "readOnly: true, mountPath: /dev/modem",
            "web.yaml:16: spec.containers[0].volumeMounts[0].readOnly: no mount keeps a program from writing to a device: leave it out",
        ),
        (
            "mountPath: /dev/modem",
            "subPath: a, mountPath: /dev/modem",
            "web.yaml:16: spec.containers[0].volumeMounts[0].subPath: a device has nothing below it",
        ),
        (
            ", type: CharDevice",
            "",
            "web.yaml:18: spec.volumes[0].hostPath.path: a device needs `type: CharDevice`",
        ),
        (
            "path: /dev/ttyS0",
            "path: /srv/ttyS0",
            "web.yaml:18: spec.volumes[0].hostPath.path: a device is somewhere below /dev",
        ),
    ] {
        assert!(OUTSIDE.contains(line), "{line}");
        let problems = compiled(&OUTSIDE.replacen(line, changed, 1)).unwrap_err();
        assert!(problems.iter().any(|p| p == problem), "{problem}\nis not in\n{problems:#?}");
    }
}
