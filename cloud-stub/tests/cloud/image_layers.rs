//! One layer at a time: what is in its tar is what the kernel shows when the
//! squashfs is mounted. Needs root, loop devices and squashfs-tools-ng.

use std::fs;
use std::time::Duration;

use crate::image_support::{Blob, Entry, Importer, Layout, Root, snapshot, tar, xattrs};
use wherry_bundle::Digest;

/// VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE, effective (capability.h).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn everything() -> Vec<Entry> {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(255));
    vec![
        Entry { uid: 7, ..Entry::dir("./").mode(0o711) },
        Entry::dir("bin/"),
        Entry { uid: 12, ..Entry::file("bin/su", "program").mode(0o4755) },
        Entry::hard_link("bin/su-link", "./bin/su"),
        Entry::symlink("bin/sh", "/bin/../su"),
        Entry::file("bin/ping", "p").pax("SCHILY.xattr.security.capability", &CAPABILITY),
        Entry::file("bin/user", "")
            .pax("SCHILY.xattr.user.line", b"a=\nb\0")
            .pax("LIBARCHIVE.xattr.user.%65mpty", b"")
            .pax("SCHILY.xattr.trusted.t", b"1"),
        Entry::file("big-owner", "").pax("uid", b"3000000000").pax("gid", b"70000"),
        Entry::file("fraction", "").pax("mtime", b"1234567890.987"),
        Entry::file("before-1970", "").pax("mtime", b"-1.5"),
        Entry { device: (1, 3), ..Entry::new("null", b'3').mode(0o666) },
        Entry { device: (259, 1000), ..Entry::new("disk", b'4') },
        Entry::new("fifo", b'6').mode(0o600),
        Entry::file("pax", "long").pax("path", long.as_bytes()),
        Entry::symlink("long-link", "x").pax("linkpath", "y/".repeat(400).as_bytes()),
        Entry::file("empty", ""),
        Entry::file("blocks", &"0123456789abcdef".repeat(20_000)),
        Entry::dir("tmp").mode(0o1777),
    ]
}

#[test]
fn every_kind_of_entry_arrives() {
    let layout = Layout::of_entries(&everything());
    let importer = Importer::new();
    let image = importer.one(layout.path());
    let root = Root::mount(&importer.blobs, &image.layers);
    let found = snapshot(root.layers[0].path());
    let time = 1_000_000_000;
    let long = "d".repeat(200);
    let empty = Digest::of(b"").short();
    let file = |text: &str, name: &str, links: u32| {
        let digest = Digest::of(text.as_bytes()).short();
        format!("file {digest} {} bytes, inode of {name}, {links} links", text.len())
    };
    let blocks = "0123456789abcdef".repeat(20_000);
    let expected: Vec<(String, String)> = vec![
        ("".into(), format!("711 7:0 @{time} dir")),
        ("bin".into(), format!("755 0:0 @{time} dir")),
        ("bin/su".into(), format!("4755 12:0 @{time} {}", file("program", "bin/su", 2))),
        ("bin/su-link".into(), format!("4755 12:0 @{time} {}", file("program", "bin/su", 2))),
        ("bin/sh".into(), format!("777 0:0 @{time} -> /bin/../su")),
        (
            "bin/ping".into(),
            format!(
                "644 0:0 @{time} {} security.capability=0100000200040000000000000000000000000000",
                file("p", "bin/ping", 1)
            ),
        ),
        (
            "bin/user".into(),
            format!(
                "644 0:0 @{time} {} trusted.t=31 user.empty= user.line=613d0a6200",
                file("", "bin/user", 1)
            ),
        ),
        ("big-owner".into(), format!("644 3000000000:70000 @{time} {}", file("", "big-owner", 1))),
        ("fraction".into(), format!("644 0:0 @1234567890 {}", file("", "fraction", 1))),
        ("before-1970".into(), format!("644 0:0 @0 {}", file("", "before-1970", 1))),
        ("null".into(), format!("666 0:0 @{time} c 1:3")),
        ("disk".into(), format!("644 0:0 @{time} b 259:1000")),
        ("fifo".into(), format!("600 0:0 @{time} p 0:0")),
        (long.clone(), "755 0:0 @0 dir".into()),
        (
            format!("{long}/{}", "f".repeat(255)),
            format!("644 0:0 @{time} {}", file("long", &format!("{long}/{}", "f".repeat(255)), 1)),
        ),
        ("long-link".into(), format!("777 0:0 @{time} -> {}", "y/".repeat(400))),
        ("empty".into(), format!("644 0:0 @{time} file {empty} 0 bytes, inode of empty, 1 links")),
        ("blocks".into(), format!("644 0:0 @{time} {}", file(&blocks, "blocks", 1))),
        ("tmp".into(), format!("1777 0:0 @{time} dir")),
    ];
    let mut found = found;
    for (path, line) in expected {
        assert_eq!(found.remove(&path).as_deref(), Some(line.as_str()), "{path}");
    }
    assert!(found.is_empty(), "more than expected: {found:?}");
}

#[test]
fn whiteouts_become_what_overlayfs_takes() {
    let below = tar(&[
        Entry::dir("a").mode(0o700),
        Entry::file("a/old", "1"),
        Entry::dir("gone"),
        Entry::file("gone/x", "1"),
        Entry::dir("again"),
        Entry::file("again/x", "1"),
        Entry::dir("kept").mode(0o1777),
        Entry::file("kept/x", "1"),
        Entry::dir("kept/deep").mode(0o750),
        Entry::file("swap", "was a file"),
    ]);
    let above = tar(&[
        // After what it does not hide, before it, and where nothing was.
        Entry::file("a/new", "2"),
        Entry::file("a/.wh..wh..opq", ""),
        Entry::file(".wh.gone", ""),
        Entry::file(".wh.again", ""),
        Entry::file("again/y", "2"),
        Entry::file("kept/deep/new", "2"),
        Entry::file("kept/.wh.never-there", ""),
        Entry::dir("swap"),
        Entry::file("swap/inside", "2"),
        Entry::file(".wh..wh.plnk", "aufs"),
    ]);
    let layout = Layout::of(&[Blob::tar(below), Blob::gzip(&above)]);
    let importer = Importer::new();
    let image = importer.one(layout.path());
    let root = Root::mount(&importer.blobs, &image.layers);
    let upper = root.layers[1].path();
    assert_eq!(xattrs(&upper.join("a")), " trusted.overlay.opaque=79");
    let layer = snapshot(upper);
    assert_eq!(layer["gone"], "0 0:0 @0 c 0:0");
    assert!(!layer.contains_key(".wh..wh.plnk"));
    let merged = snapshot(root.merged.path());
    let names: Vec<&str> = merged.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "",
            "a",
            "a/new",
            "again",
            "again/y",
            "kept",
            "kept/deep",
            "kept/deep/new",
            "kept/x",
            "swap",
            "swap/inside"
        ]
    );
    // Folders that the upper layer only implies look as they did below.
    assert!(merged["a"].starts_with("700 0:0 @1000000000 dir"), "{}", merged["a"]);
    assert!(merged["kept"].starts_with("1777 0:0 @1000000000 dir"), "{}", merged["kept"]);
    assert!(merged["kept/deep"].starts_with("750 0:0 @1000000000"), "{}", merged["kept/deep"]);
    assert!(merged["again"].starts_with("755 0:0 @0 dir"), "{}", merged["again"]);
}

#[test]
fn of_two_equal_names_the_later_counts() {
    let layout = Layout::of_entries(&[
        Entry::file("file", "first"),
        Entry::hard_link("link", "file"),
        Entry::file("file", "second"),
        Entry::dir("dir").mode(0o700),
        Entry::file("dir/x", ""),
        Entry::dir("dir").mode(0o711),
        Entry::dir("swap"),
        Entry::file("swap/x", ""),
        Entry::symlink("swap", "dir"),
        Entry::dir("linked"),
        Entry::file("linked/x", ""),
        Entry::hard_link("linked", "file"),
    ]);
    let importer = Importer::new();
    let image = importer.one(layout.path());
    let root = Root::mount(&importer.blobs, &image.layers);
    let path = root.merged.path();
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "second");
    assert_eq!(fs::read_to_string(path.join("link")).unwrap(), "first");
    let found = snapshot(path);
    assert!(found["dir"].starts_with("711"), "{}", found["dir"]);
    assert_eq!(found["swap"], "777 0:0 @1000000000 -> dir");
    assert!(found.contains_key("dir/x"));
    assert!(found["linked"].contains("inode of file, 2 links"), "{}", found["linked"]);
}

#[test]
fn the_digest_depends_on_the_contents_only() {
    let mut entries = everything();
    let layout = Layout::of_entries(&entries);
    let first = Importer::new();
    let image = first.one(layout.path());
    assert_eq!(first.import(layout.path()).unwrap()[0].layers_new, 0);
    assert_eq!(first.files(), [format!("{}.squashfs", image.layers[0].digest.hex())]);
    let bytes = fs::read(first.blobs.layer_path(&image.layers[0].digest)).unwrap();
    assert_eq!(Digest::of(&bytes), image.layers[0].digest);
    // squashfs notes times in seconds.
    std::thread::sleep(Duration::from_millis(1100));
    // Another folder, another order of entries (links stay after targets).
    entries.reverse();
    let target = entries.iter().position(|e| e.name == b"bin/su").unwrap();
    let target = entries.remove(target);
    entries.insert(0, target);
    let other = Importer::new();
    let images = other.import(Layout::of_entries(&entries).path()).unwrap();
    assert_eq!(images[0].info.layers, image.layers);
    assert_eq!(images[0].layers_new, 1);
}

#[test]
fn a_damaged_layer_is_mended_by_importing_again() {
    let layout = Layout::of_entries(&everything());
    let importer = Importer::new();
    let layer = importer.one(layout.path()).layers[0];
    let path = importer.blobs.layer_path(&layer.digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(importer.import(layout.path()).unwrap()[0].layers_new, 1);
    assert_eq!(Digest::of(&fs::read(&path).unwrap()), layer.digest);
}
