//! Hostile and damaged images: each is refused with its reason and leaves
//! nothing in the layer folder.

use std::fs;
use std::os::unix::fs::symlink;

use crate::image_support::{Blob, Entry, Importer, Layout, MANIFEST, tar, tar_folder, work_dir};
use serde_json::json;
use wherry_bundle::Digest;
use wherry_bundle::limits::LAYERS_MAX;
use wherry_cloud::image::ImportLimits;

/// Entries of a layer after a good one, and why they are refused.
fn hostile_entries() -> Vec<(Vec<Entry>, &'static str)> {
    let file = |name: &str| Entry::file(name, "x");
    let pax = |key: &str, value: &str| Entry::file("f", "x").pax(key, value.as_bytes());
    let nested = "d/".repeat(200);
    vec![
        (vec![file("../escaped")], "entry `../escaped`: has `..` in its name"),
        (vec![file("a/../../b")], "has `..`"),
        (vec![file("/etc/passwd")], "is an absolute name"),
        (vec![pax("path", "/etc/shadow")], "is an absolute name"),
        (vec![pax("path", "a\0b")], "has a NUL in its name"),
        (vec![pax("path", &"n".repeat(256))], "has a part longer than 255 bytes"),
        (
            vec![pax("path", &format!("{}x", "0123456789/".repeat(400)))],
            "is longer than 4095 bytes",
        ),
        (vec![pax("path", &nested)], "folders deep"),
        (vec![Entry::symlink("etc", "/etc"), file("etc/cron")], "goes through `etc`"),
        (vec![Entry::symlink("a", "."), Entry::dir("a/b")], "goes through `a`"),
        (vec![file("f"), file("f/x")], "goes through `f`"),
        (vec![Entry::symlink("a", ".."), file("a/.wh.x")], "goes through `a`"),
        (vec![Entry::hard_link("l", "../../etc/passwd")], "hard link whose target has `..`"),
        (vec![Entry::hard_link("l", "/etc/passwd")], "hard link whose target is an absolute"),
        (vec![Entry::hard_link("l", "missing")], "hard link to `missing`, which is not before"),
        (vec![Entry::hard_link("l", "later"), file("later")], "which is not before it"),
        (vec![Entry::dir("d"), Entry::hard_link("l", "d")], "hard link to the folder"),
        (vec![Entry::symlink("l", "")], "without a usable target"),
        (vec![Entry::new("whiteout", b'3')], "device 0:0"),
        (vec![Entry { device: (5000, 0), ..Entry::new("c", b'3') }], "squashfs cannot keep"),
        (vec![file(".wh.")], "whiteout of no name"),
        (vec![file("a/.wh...")], "whiteout of no name"),
        (vec![file(".wh.a/b")], "below a whiteout"),
        (vec![file(".wh..wh..opq")], "hides the root"),
        (vec![Entry::new("./", b'6')], "replaces the root"),
        (vec![file("f"), Entry::hard_link(".", "f")], "replaces the root"),
        (vec![Entry::symlink("./", "/")], "replaces the root"),
        (vec![pax("SCHILY.xattr.trusted.overlay.redirect", "/x")], "overlayfs's own"),
        (vec![pax("SCHILY.xattr.user.overlay.opaque", "y")], "overlayfs's own"),
        (vec![pax("SCHILY.xattr.system.posix_acl_access", "y")], "squashfs cannot keep"),
        (vec![pax("SCHILY.xattr.user.a b", "y")], "not a plain name"),
        (vec![pax("GNU.sparse.major", "1")], "is a sparse file"),
        (vec![Entry::new("s", b'S')], "is a sparse file"),
        (vec![Entry::new("m", b'M')], "unknown type `M`"),
        (vec![pax("size", "100")], "two different sizes"),
        (vec![pax("uid", "4294967295")], "not a Linux user"),
        (vec![pax("gid", "5000000000")], "not a Linux user"),
        (vec![pax("mtime", "soon")], "damaged time"),
    ]
}

#[test]
fn hostile_layers_are_refused() {
    for (mut entries, reason) in hostile_entries() {
        entries.insert(0, Entry::file("good", "good"));
        // A good layer below: nothing of it may stay either.
        let below = Blob::gzip(&tar(&[Entry::file("base", "x")]));
        let layout = Layout::of(&[below, Blob::tar(tar(&entries))]);
        Importer::new().refused(layout.path(), reason);
    }
}

#[test]
fn bombs_are_refused() {
    let refused = |limits: ImportLimits, layers: &[Blob], reason: &str| {
        let mut importer = Importer::new();
        importer.limits = limits;
        importer.refused(Layout::of(layers).path(), reason);
    };
    let limits = ImportLimits::default;
    let big = Blob::gzip(&tar(&[Entry::file("big", &"x".repeat(100_000))]));
    refused(
        ImportLimits { layer_bytes_max: 50_000, ..limits() },
        std::slice::from_ref(&big),
        "uncompressed, is above the limit of 50000 bytes",
    );
    refused(
        ImportLimits { file_bytes_max: 50_000, ..limits() },
        std::slice::from_ref(&big),
        "larger than the limit of 50000 bytes a file",
    );
    // Each layer is small enough, both are not.
    let other = Blob::gzip(&tar(&[Entry::file("other", &"y".repeat(100_000))]));
    refused(
        ImportLimits { total_bytes_max: 150_000, ..limits() },
        &[big, other],
        "is above the limit of",
    );
    let many: Vec<Entry> = (0..100).map(|n| Entry::file(&format!("f{n}"), "")).collect();
    let many = Blob::tar(tar(&many));
    let few = ImportLimits { entries_max: 50, ..limits() };
    refused(few.clone(), &[many], "more than 50 entries");
    // Few entries, but each implies many folders.
    let deep = |n: u32| Entry::file(&format!("{n}/a/b/c/d/e/f/g/h/i/j"), "");
    refused(few.clone(), &[Blob::tar(tar(&[deep(1), deep(2), deep(3), deep(4), deep(5)]))], "more");
    let twenty = |layer: u32| {
        let entries: Vec<Entry> =
            (0..20).map(|n| Entry::file(&format!("l{layer}-f{n}"), "")).collect();
        Blob::tar(tar(&entries))
    };
    refused(few, &[twenty(1), twenty(2), twenty(3)], "more than 50 entries");
    // 80 MiB of zeros in 80 KiB.
    let zeros = Blob::gzip(&vec![0; 80 << 20]);
    refused(limits(), &[zeros], "compression ratio is above the limit of 200 to one");
    let layer = Blob::tar(tar(&[Entry::file("f", "")]));
    refused(limits(), &vec![layer; LAYERS_MAX + 1], "has 33 layers, where 1 to 32 are allowed");
    refused(limits(), &[], "has 0 layers");
}

#[test]
fn a_header_bomb_is_refused() {
    let mut header = Entry::new("x", b'x');
    header.data = vec![b'1'; 300 << 10];
    let layout = Layout::of_entries(&[header, Entry::file("f", "")]);
    Importer::new().refused(layout.path(), "extension header that is too long");
    let value = vec![b'v'; 150 << 10];
    let layout = Layout::of_entries(&[Entry::file("f", "").pax("SCHILY.xattr.user.v", &value)]);
    Importer::new().refused(layout.path(), "too large extended attributes");
}

#[test]
fn damaged_blobs_are_refused() {
    let layer = Blob::gzip(&tar(&[Entry::file("f", "contents")]));
    let digest = Digest::of(&layer.bytes);
    // The layer's bytes, then its length.
    let layout = Layout::of(std::slice::from_ref(&layer));
    let mut bytes = layer.bytes.clone();
    bytes[20] ^= 1;
    fs::write(layout.blob_path(&digest), &bytes).unwrap();
    Importer::new().refused(layout.path(), "damaged or forged");
    fs::write(layout.blob_path(&digest), &layer.bytes[..30]).unwrap();
    Importer::new().refused(layout.path(), "has 30 bytes instead of");
    fs::remove_file(layout.blob_path(&digest)).unwrap();
    Importer::new().refused(layout.path(), "is not in the image");
    // Right digests of wrong things.
    let other = Blob { diff_id: Digest::of(b"other"), ..layer.clone() };
    Importer::new().refused(Layout::of(&[other]).path(), "uncompressed, but the image names");
    let cut = Blob { bytes: layer.bytes[..40].to_vec(), ..layer.clone() };
    Importer::new().refused(Layout::of(&[cut]).path(), "damaged or truncated");
    let unknown = Blob { media_type: "application/vnd.oci.image.layer.v1.tar+xz", ..layer };
    Importer::new().refused(Layout::of(&[unknown]).path(), "unknown type");
    let text = Blob::tar(b"this is not a tar archive".repeat(100));
    Importer::new().refused(Layout::of(&[text]).path(), "is not a tar archive");
}

#[test]
fn truncated_tars_are_refused() {
    let whole = tar(&[Entry::file("first", "x"), Entry::file("f", &"x".repeat(5000))]);
    for length in [100, 512, 1024 + 100, 1024 + 512 + 600] {
        let layout = Layout::of(&[Blob::tar(whole[..length].to_vec())]);
        Importer::new().refused(layout.path(), "truncated");
    }
    // And the archive around an image, wherever it is cut.
    let layout = Layout::of(&[Blob::tar(whole)]);
    let dir = work_dir();
    let (archive, cut) = (dir.path().join("image.tar"), dir.path().join("cut.tar"));
    tar_folder(layout.path(), &archive);
    let bytes = fs::read(&archive).unwrap();
    assert_eq!(Importer::new().one(&archive).layers.len(), 1);
    // What follows the last file's contents is padding and two empty blocks.
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    for length in (0..=end).step_by(357).chain([end]) {
        fs::write(&cut, &bytes[..length]).unwrap();
        let importer = Importer::new();
        assert!(importer.import(&cut).is_err(), "cut at {length} of {}", bytes.len());
        assert!(importer.files().is_empty(), "{:?}", importer.files());
    }
}

#[test]
fn a_forged_manifest_or_configuration_is_refused() {
    let layer = Blob::gzip(&tar(&[Entry::file("f", "x")]));
    let layout = Layout::new();
    let manifest = layout.image(&[layer], "amd64", json!({"Cmd": ["/good"]}));
    layout.index(&[("test", manifest)]);
    for entry in fs::read_dir(layout.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let mut forged = bytes.clone();
        let last = forged.len() - 3;
        forged[last] ^= 1;
        fs::write(&path, forged).unwrap();
        Importer::new().refused(layout.path(), "damaged or forged");
        fs::write(&path, bytes).unwrap();
    }
    Importer::new().one(layout.path());
}

#[test]
fn blobs_outside_of_the_layout_are_not_read() {
    let layer = Blob::gzip(&tar(&[Entry::file("f", "x")]));
    let digest = Digest::of(&layer.bytes);
    let layout = Layout::of(std::slice::from_ref(&layer));
    let outside = work_dir();
    fs::write(outside.path().join("blob"), &layer.bytes).unwrap();
    fs::remove_file(layout.blob_path(&digest)).unwrap();
    symlink(outside.path().join("blob"), layout.blob_path(&digest)).unwrap();
    Importer::new().refused(layout.path(), "leads out of the layout");
    // Inside it may link: some tools save space so.
    fs::write(layout.path().join("blob"), &layer.bytes).unwrap();
    fs::remove_file(layout.blob_path(&digest)).unwrap();
    symlink("../../blob", layout.blob_path(&digest)).unwrap();
    Importer::new().one(layout.path());
    fs::remove_file(layout.blob_path(&digest)).unwrap();
    let fifo = layout.blob_path(&digest);
    crate::image_support::run("mkfifo", &[crate::image_support::text(&fifo)]);
    Importer::new().refused(layout.path(), "not a regular file");
}

#[test]
fn hostile_archives_are_refused() {
    let dir = work_dir();
    let archive = dir.path().join("image.tar");
    let refused = |entries: &[Entry], reason: &str| {
        fs::write(&archive, tar(entries)).unwrap();
        Importer::new().refused(&archive, reason);
    };
    let manifest = r#"[{"Config":"c.json","RepoTags":["x"],"Layers":["../../etc/passwd"]}]"#;
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":["{}"]}}}}"#,
        Digest::of(b"")
    );
    let config = Entry::file("c.json", &config);
    refused(&[Entry::file("manifest.json", manifest), config.clone()], "has `..` in its name");
    let manifest = Entry::file("manifest.json", &manifest.replace("../../etc/passwd", "l"));
    let with = |entry: Entry| [manifest.clone(), config.clone(), entry];
    refused(&with(Entry::symlink("l", "/etc/passwd")), "outside of the archive");
    refused(&with(Entry::symlink("l", "../x")), "outside of the archive");
    refused(&with(Entry::symlink("l", "l")), "links form a circle");
    refused(&with(Entry::hard_link("l", "../x")), "has `..`");
    refused(&with(Entry::file("/l", "")), "absolute name");
    refused(&with(Entry::new("l", b'3')), "is a device");
    refused(&with(Entry::file("k", "")), "blob l: is not in the archive");
    let many: Vec<Entry> = (0..=10_000).map(|n| Entry::dir(&format!("d{n}"))).collect();
    refused(&many, "above the limit of 10000 entries");
    refused(&[Entry::file("manifest.json", "[{]")], "manifest.json is not valid JSON");
    refused(&[Entry::file("manifest.json", &" ".repeat(5 << 20))], "above the limit of 4194304");
}

#[test]
fn hostile_indexes_are_refused() {
    let layout = Layout::new();
    let index = |descriptor: serde_json::Value| {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
    };
    index(json!({"mediaType": MANIFEST, "size": 5, "digest": "sha256:../../../etc/passwd"}));
    Importer::new().refused(layout.path(), "is not named by a SHA-256 digest");
    index(
        json!({"mediaType": MANIFEST, "size": 5, "digest": format!("sha512:{}", "0".repeat(128))}),
    );
    Importer::new().refused(layout.path(), "is not named by a SHA-256 digest");
    let mut inner = layout.image(&[], "amd64", json!({}));
    for _ in 0..6 {
        inner = layout.json_blob(
            &json!({"schemaVersion": 2, "manifests": [inner]}),
            crate::image_support::INDEX,
        );
    }
    index(inner);
    Importer::new().refused(layout.path(), "depth of indexes");
    let big = json!({"mediaType": MANIFEST, "annotations": {"a": "x".repeat(5 << 20)}});
    index(layout.json_blob(&big, MANIFEST));
    Importer::new().refused(layout.path(), "above the limit of 4194304 bytes");
    fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    Importer::new().refused(layout.path(), "layout version `2.0.0`");
}
