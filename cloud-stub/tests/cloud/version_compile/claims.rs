//! Claims: what they ask for, and pods that name them.

use wherry_bundle::Name;
use wherry_bundle::model::{AccessMode, Claim, ClaimVolume, VolumeSource};

use super::{compiled, web};

pub const CLAIMS: &str = "apiVersion: v1 #pod
kind: Pod
metadata: { name: web }
spec:
  containers:
    - name: one
      volumeMounts: [{ name: store, mountPath: /data }]
  volumes:
    - name: store
      persistentVolumeClaim: { claimName: data, readOnly: true }
---
apiVersion: v1 #claim
kind: PersistentVolumeClaim
metadata: { name: data }
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests: { storage: 64Mi }
";

/// As [`super::HONOURED`].
pub const HONOURED: [(&str, &str, &str); 13] = [
    ("Volume.persistentVolumeClaim", "persistentVolumeClaim: {", "emptyDir: {"),
    ("PersistentVolumeClaimVolumeSource.claimName", "claimName: data", "claimName: other"),
    ("PersistentVolumeClaimVolumeSource.readOnly", "readOnly: true", "readOnly: false"),
    ("PersistentVolumeClaim.apiVersion", "v1 #claim", "v2"),
    ("PersistentVolumeClaim.kind", "kind: PersistentVolumeClaim", "kind: PersistentVolume"),
    ("PersistentVolumeClaim.metadata", "{ name: data }", "{ name: other }"),
    ("PersistentVolumeClaim.spec", "spec:\n  accessModes", "spec: {}\nx:\n  accessModes"),
    ("PersistentVolumeClaimSpec.accessModes", "[ReadWriteOnce]", "[ReadWriteMany]"),
    ("PersistentVolumeClaimSpec.accessModes", "[ReadWriteOnce]", "[]"),
    ("PersistentVolumeClaimSpec.resources", "  resources:\n    requests", "  resources: {}\n  x"),
    ("VolumeResourceRequirements.requests", "requests: {", "limits: {"),
    ("ResourceList of a claim.storage", "storage: 64Mi", "storage: 65Mi"),
    ("ResourceList of a claim.storage", "storage: 64Mi", "cpu: 1"),
];

#[test]
fn a_claim_is_as_the_template_says() {
    let compiled = compiled(CLAIMS).unwrap();
    let claim = Name::new("data").unwrap();
    let source = ClaimVolume { claim: claim.clone(), read_only: true };
    assert_eq!(web(&compiled).pod.volumes[0].source, VolumeSource::Claim(source));
    let access = AccessMode::ReadWriteOnce;
    assert_eq!(compiled.claims, [Claim { name: claim, bytes_max: 64 << 20, access }]);
    let both = CLAIMS.replacen("[ReadWriteOnce]", "[ReadWriteOnce, ReadWriteMany]", 1);
    assert_eq!(super::compiled(&both).unwrap().claims[0].access, AccessMode::ReadWriteMany);
    for same in ["storageClassName: \"\"", "volumeMode: Filesystem", "volumeName: null"] {
        let text = CLAIMS.replacen("  accessModes", &format!("  {same}\n  accessModes"), 1);
        assert_eq!(super::compiled(&text).as_ref(), Ok(&compiled), "{same}");
    }
}

#[test]
fn mistakes_in_claims_are_told_with_their_paths() {
    let mode = "web.yaml:16: spec.accessModes[0]: not supported: ";
    for (line, changed, problem) in [
        (
            "claimName: data",
            "claimName: date",
            "web.yaml:10: spec.volumes[0].persistentVolumeClaim.claimName: there is no PersistentVolumeClaim `date` in this version: add one of that name to a template, with its size in spec.resources.requests.storage",
        ),
        (
            "claimName: data",
            "claimName: ../data",
            "web.yaml:10: spec.volumes[0].persistentVolumeClaim.claimName: `../data` is not a name: use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit first and last",
        ),
        (
            "[ReadWriteOnce]",
            "[ReadWriteOncePod]",
            &format!(
                "{mode}use ReadWriteOnce: an old pod ends before the new one starts, and no other node is there"
            ),
        ),
        (
            "[ReadWriteOnce]",
            "[ReadOnlyMany]",
            &format!(
                "{mode}nothing could ever come into it: use ReadWriteMany, and `readOnly` where it is mounted"
            ),
        ),
        (
            "[ReadWriteOnce]",
            "[Once]",
            "web.yaml:16: spec.accessModes[0]: must be ReadWriteOnce or ReadWriteMany",
        ),
        ("  accessModes: [ReadWriteOnce]\n", "", "web.yaml:15: spec: `accessModes` is missing"),
        (
            "64Mi",
            "2Ti",
            "web.yaml:18: spec.resources.requests.storage: must be bytes, such as 64Mi, and 1Ti at most",
        ),
        (
            "64Mi",
            "much",
            "web.yaml:18: spec.resources.requests.storage: must be bytes, such as 64Mi, and 1Ti at most",
        ),
        (
            "  accessModes",
            "  storageClassName: fast\n  accessModes",
            "web.yaml:16: spec.storageClassName: not supported: a claim lies on the node's own flash: leave it out",
        ),
        (
            "  accessModes",
            "  volumeMode: Block\n  accessModes",
            "web.yaml:16: spec.volumeMode: not supported: use a file system: leave it out",
        ),
        (
            "requests: {",
            "limits: { storage: 1Gi }\n    requests: {",
            "web.yaml:18: spec.resources.limits: not supported: requests.storage is the limit",
        ),
    ] {
        assert!(CLAIMS.contains(line), "{line}");
        let problems = compiled(&CLAIMS.replacen(line, changed, 1)).unwrap_err();
        assert!(problems.iter().any(|p| p == problem), "{problem}\nis not in\n{problems:#?}");
    }
    let (_, claim) = CLAIMS.split_once("---\n").unwrap();
    let problems = compiled(&format!("{CLAIMS}---\n{claim}")).unwrap_err();
    assert_eq!(problems, ["web.yaml: there are two of PersistentVolumeClaim `data`"]);
}
