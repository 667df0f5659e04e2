//! Every shape of source: several platforms, several names, both kinds of
//! `docker save`, media types. Needs squashfs-tools-ng.

use std::fs;
use std::path::{Path, PathBuf};

use crate::image_support::{
    Blob, Entry, INDEX, Importer, Layout, MANIFEST, tar, tar_folder, text, work_dir,
};
use serde_json::{Value, json};
use wherry_bundle::Digest;

fn layer(name: &str) -> Blob {
    Blob::gzip(&tar(&[Entry::file(name, name)]))
}

/// An index of two Linux platforms with what else such indexes hold.
fn multi_platform(layout: &Layout) -> Value {
    let mut amd64 = layout.image(&[layer("base"), layer("amd64")], "amd64", json!({}));
    amd64["platform"] = json!({"architecture": "amd64", "os": "linux"});
    let mut arm = layout.image(&[layer("base"), layer("arm")], "arm", json!({}));
    arm["platform"] = json!({"architecture": "arm", "os": "linux", "variant": "v6"});
    let mut windows = layout.image(&[layer("windows")], "amd64", json!({}));
    windows["platform"] = json!({"architecture": "amd64", "os": "windows"});
    let mut attestation = layout.image(&[layer("attestation")], "unknown", json!({}));
    attestation["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let absent = json!({
        "mediaType": MANIFEST, "size": 7, "digest": Digest::of(b"absent").to_string(),
        "platform": {"architecture": "s390x", "os": "linux"},
    });
    let manifests = [amd64, windows, attestation, absent, arm];
    layout.json_blob(&json!({"schemaVersion": 2, "manifests": manifests}), INDEX)
}

#[test]
fn every_linux_platform_is_imported() {
    let layout = Layout::new();
    let index = multi_platform(&layout);
    layout.index(&[("docker.io/acme/web:latest", index)]);
    let importer = Importer::new();
    let images = importer.import(layout.path()).unwrap();
    let found: Vec<(&str, &str)> = images
        .iter()
        .map(|image| (image.info.reference.as_str(), image.info.architecture.as_str()))
        .collect();
    assert_eq!(found, [("acme/web", "amd64"), ("acme/web", "arm/v6")]);
    // Both stand on the same layer.
    assert_eq!(images[0].info.layers[0], images[1].info.layers[0]);
    assert_eq!(importer.files().len(), 3);
    assert_eq!((images[0].layers_new, images[1].layers_new), (2, 2));
}

#[test]
fn one_platform_can_be_chosen() {
    let layout = Layout::new();
    let index = multi_platform(&layout);
    layout.index(&[("web", index)]);
    let mut importer = Importer::new();
    importer.options.architecture = Some("riscv64".into());
    importer.refused(layout.path(), "has nothing for riscv64, only for: amd64, arm/v6");
    importer.options.architecture = Some("arm/v6".into());
    assert_eq!(importer.one(layout.path()).architecture, "arm/v6");
}

#[test]
fn names_come_from_the_source_or_the_person() {
    let layout = Layout::new();
    let one = layout.image(&[layer("one")], "amd64", json!({}));
    let two = layout.image(&[layer("two")], "amd64", json!({}));
    layout.index(&[("", one.clone())]);
    let mut importer = Importer::new();
    importer.refused(layout.path(), "has no name: give it one");
    importer.options.name = Some("web:1".into());
    assert_eq!(importer.one(layout.path()).reference, "web:1");
    layout.index(&[("one", one.clone()), ("two", two)]);
    let mut importer = Importer::new();
    importer.options.name = Some("web:1".into());
    importer.refused(layout.path(), "two different images for amd64 would have this name");
    importer.options.name = Some("../web".into());
    importer.refused(layout.path(), "is not an image name");
    importer.options.name = None;
    assert_eq!(importer.import(layout.path()).unwrap().len(), 2);
    // containerd's annotation is the full name, beside a bare tag.
    let mut named = one;
    named["annotations"] = json!({
        "org.opencontainers.image.ref.name": "1.2",
        "io.containerd.image.name": "docker.io/library/web:1.2",
    });
    let index = json!({"schemaVersion": 2, "manifests": [named]});
    fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
    assert_eq!(Importer::new().one(layout.path()).reference, "web:1.2");
}

/// What an older `docker save` writes: a folder for each layer, equal layers
/// as links.
fn older_docker_save(dir: &Path) -> (PathBuf, Digest) {
    let tar = tar(&[Entry::file("f", "x")]);
    let id = Digest::of(&tar).to_string();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/f"]},
        "rootfs": {"type": "layers", "diff_ids": [id, id]},
    })
    .to_string();
    let digest = Digest::of(config.as_bytes());
    let files = dir.join("files");
    let (first, second) = ("a".repeat(64), "b".repeat(64));
    fs::create_dir_all(files.join(&first)).unwrap();
    fs::create_dir_all(files.join(&second)).unwrap();
    fs::write(files.join(&first).join("layer.tar"), tar).unwrap();
    let link = format!("../{first}/layer.tar");
    std::os::unix::fs::symlink(link, files.join(&second).join("layer.tar")).unwrap();
    fs::write(files.join(format!("{}.json", digest.hex())), config).unwrap();
    let manifest = json!([{
        "Config": format!("{}.json", digest.hex()), "RepoTags": ["web:1", "web:latest"],
        "Layers": [format!("{first}/layer.tar"), format!("{second}/layer.tar")],
    }]);
    fs::write(files.join("manifest.json"), manifest.to_string()).unwrap();
    (files, digest)
}

fn pack(files: &Path, archive: &Path) {
    let mut builder = tar::Builder::new(fs::File::create(archive).unwrap());
    builder.follow_symlinks(false);
    builder.append_dir_all("", files).unwrap();
    builder.finish().unwrap();
}

#[test]
fn an_older_docker_save_is_read() {
    let dir = work_dir();
    let (files, digest) = older_docker_save(dir.path());
    let archive = dir.path().join("save.tar");
    pack(&files, &archive);
    let images = Importer::new().import(&archive).unwrap();
    let names: Vec<&str> = images.iter().map(|i| i.info.reference.as_str()).collect();
    assert_eq!(names, ["web:1", "web"]);
    assert_eq!(images[0].info.digest, digest);
    assert_eq!(images[0].info.cmd, ["/f"]);
    assert_eq!(images[0].info.layers[0], images[0].info.layers[1]);
    // The name of the configuration states its digest.
    let config = files.join(format!("{}.json", digest.hex()));
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("/f", "/g")).unwrap();
    pack(&files, &archive);
    Importer::new().refused(&archive, "damaged or forged");
}

#[test]
fn a_newer_docker_save_is_both() {
    let layout = Layout::new();
    let manifest = layout.image(&[layer("one")], "amd64", json!({}));
    layout.index(&[("web:1", manifest.clone())]);
    let oci = Importer::new().one(layout.path());
    let blob = |digest: &str| format!("blobs/sha256/{}", Digest::parse(digest).unwrap().hex());
    let manifest = fs::read(layout.path().join(blob(manifest["digest"].as_str().unwrap())));
    let manifest: Value = serde_json::from_slice(&manifest.unwrap()).unwrap();
    let docker = json!([{
        "Config": blob(manifest["config"]["digest"].as_str().unwrap()), "RepoTags": ["web:1"],
        "Layers": [blob(manifest["layers"][0]["digest"].as_str().unwrap())],
    }]);
    fs::write(layout.path().join("manifest.json"), docker.to_string()).unwrap();
    let dir = work_dir();
    let archive = dir.path().join("save.tar");
    tar_folder(layout.path(), &archive);
    assert_eq!(Importer::new().one(&archive), oci);
    // Without the OCI side, the same again.
    fs::remove_file(layout.path().join("index.json")).unwrap();
    tar_folder(layout.path(), &archive);
    assert_eq!(Importer::new().one(&archive), oci);
}

#[test]
fn layers_of_every_media_type_are_read() {
    let tar = tar(&[Entry::file("f", "x")]);
    let mut layers = vec![Blob::tar(tar.clone()), Blob::gzip(&tar), Blob::gzip(&tar)];
    layers[2].media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    layers.push(Blob {
        bytes: zstd,
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
        ..layers[0].clone()
    });
    // As pigz and stargz do: several members, one stream.
    let (one, two) = tar.split_at(700);
    let bytes = [Blob::gzip(one).bytes, Blob::gzip(two).bytes].concat();
    layers.push(Blob { bytes, ..layers[1].clone() });
    let image = Importer::new().one(Layout::of(&layers).path());
    assert_eq!(image.layers.len(), 5);
    assert!(image.layers.iter().all(|layer| layer == &image.layers[0]));
}

#[test]
fn images_that_share_layers_see_the_same_accounts() {
    let below = Blob::tar(tar(&[Entry::file("etc/passwd", "lion:x:5:5::/:\n")]));
    let above = Blob::tar(tar(&[Entry::file(".wh.etc", ""), Entry::file("etc/other", "")]));
    let layout = Layout::new();
    let image = |cmd: &str, user: &str, layers: &[Blob]| {
        layout.image(layers, "amd64", json!({"Cmd": [cmd], "User": user}))
    };
    let lion = image("a", "lion", std::slice::from_ref(&below));
    let both = [below, above];
    let (first, second) = (image("b", "7", &both), image("c", "8", &both));
    layout.index(&[("lion", lion.clone()), ("first", first.clone()), ("second", second)]);
    let images = Importer::new().import(layout.path()).unwrap();
    let uids: Vec<u32> = images.iter().map(|image| image.info.user.uid).collect();
    assert_eq!(uids, [5, 7, 8]);
    // The folder is whited out and there again: the account is gone for good,
    // also when the layers are known from the image before.
    layout.index(&[("lion", lion), ("first", first), ("second", image("d", "lion", &both))]);
    Importer::new().refused(layout.path(), "user `lion` is not in its /etc/passwd");
}

#[test]
fn what_is_no_image_is_said_so() {
    let dir = work_dir();
    let file = dir.path().join("file");
    let archive = dir.path().join("other.tar");
    fs::write(&file, "hello".repeat(1000)).unwrap();
    fs::write(&archive, tar(&[Entry::file("f", "x")])).unwrap();
    for other in [&file, &archive, &dir.path().to_path_buf()] {
        Importer::new().refused(other, "is not an image: give an OCI layout folder");
    }
    let gone = dir.path().join("gone");
    Importer::new().refused(&gone, &format!("{}: No such file", text(&gone)));
    assert!(!Importer::new().import(&gone).unwrap_err().is_refusal());
    assert!(Importer::new().import(&archive).unwrap_err().is_refusal());
    let layout = Layout::new();
    layout.index(&[]);
    Importer::new().refused(layout.path(), "holds no image for Linux");
}
