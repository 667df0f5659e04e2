//! Images made and converted by other people's tools (umoci, skopeo, tar):
//! what a container would see is what umoci unpacks. Needs root, loop
//! devices, and the Debian packages umoci, skopeo, libcap2-bin,
//! busybox-static, squashfs-tools-ng.

use std::fs;
use std::os::unix::fs::{self as unix, PermissionsExt, chown};
use std::path::Path;

use crate::image_support::{Importer, Root, run, snapshot, tar_folder, text, work_dir};
use rustix::fs::XattrFlags;
use tempfile::TempDir;
use wherry_bundle::model::User;

/// A layout with the image `web:1.2`, of four layers: busybox with all that
/// is hard to keep, changes and deletions, an opaque folder, a whiteout.
struct Made {
    dir: TempDir,
}

impl Made {
    fn new() -> Self {
        let made = Self { dir: work_dir() };
        run("umoci", &["init", "--layout", &made.at("oci")]);
        let image = made.image();
        run("umoci", &["new", "--image", &image]);
        let bundle = made.at("bundle");
        run("umoci", &["unpack", "--image", &image, &bundle]);
        let root = made.dir.path().join("bundle/rootfs");
        first_layer(&root);
        run("umoci", &["repack", "--refresh-bundle", "--image", &image, &bundle]);
        second_layer(&root);
        run("umoci", &["repack", "--image", &image, &bundle]);
        let new = made.dir.path().join("new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("fresh"), "3").unwrap();
        run("umoci", &["insert", "--image", &image, "--opaque", text(&new), "/opt/replaced"]);
        run("umoci", &["insert", "--image", &image, "--whiteout", "/opt/unwanted"]);
        let config = [
            "config",
            "--image",
            &image,
            "--config.user",
            "lion",
            "--config.entrypoint",
            "/bin/busybox",
            "--config.cmd",
            "httpd",
            "--config.env",
            "A=1",
            "--config.env",
            "B=x=y",
            "--config.workingdir",
            "/srv/",
            "--config.stopsignal",
            "SIGRTMIN+3",
        ];
        run("umoci", &config);
        made
    }

    fn at(&self, name: &str) -> String {
        text(&self.dir.path().join(name)).to_owned()
    }

    fn image(&self) -> String {
        self.at("oci:web-1.2")
    }

    fn layout(&self) -> std::path::PathBuf {
        self.dir.path().join("oci")
    }
}

fn first_layer(root: &Path) {
    for dir in ["bin", "etc", "dev", "srv", "opt/replaced", "opt/unwanted/deep", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).unwrap();
    unix::symlink("busybox", root.join("bin/ls")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/ping")).unwrap();
    run("setcap", &["cap_net_raw+ep", text(&root.join("bin/ping"))]);
    fs::write(root.join("bin/su"), "s").unwrap();
    fs::set_permissions(root.join("bin/su"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::write(root.join("srv/owned"), "x").unwrap();
    chown(root.join("srv/owned"), Some(100_000), Some(4_000_000)).unwrap();
    let attribute = ("user.note", b"a\nb\0c");
    let owned = root.join("srv/owned");
    rustix::fs::setxattr(&owned, attribute.0, attribute.1, XattrFlags::empty()).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
    fs::File::open(&owned).unwrap().set_modified(old).unwrap();
    run("mknod", &["-m", "620", text(&root.join("dev/tty9")), "c", "4", "9"]);
    run("mknod", &["-m", "600", text(&root.join("dev/fifo")), "p"]);
    fs::write(root.join("opt/replaced/old"), "1").unwrap();
    fs::write(root.join("opt/unwanted/deep/x"), "1").unwrap();
    fs::write(root.join("etc/removed"), "1").unwrap();
    // Found through links, and only in the layer above this one.
    fs::create_dir_all(root.join("usr/share/accounts")).unwrap();
    unix::symlink("../usr/share/accounts/passwd", root.join("etc/passwd")).unwrap();
    fs::write(root.join("usr/share/accounts/passwd"), "lion:x:1:1::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "dialout:x:20:lion\nlion:x:500:\n").unwrap();
}

fn second_layer(root: &Path) {
    fs::remove_file(root.join("etc/removed")).unwrap();
    fs::write(root.join("usr/share/accounts/passwd"), "root:x:0:0::/:\nlion:x:500:501::/:\n")
        .unwrap();
    fs::write(root.join("bin/su"), "new").unwrap();
    fs::remove_file(root.join("bin/ls")).unwrap();
    fs::create_dir(root.join("bin/ls")).unwrap();
    fs::write(root.join("bin/ls/was-a-link"), "2").unwrap();
}

#[test]
fn a_container_sees_what_umoci_unpacks() {
    let made = Made::new();
    let importer = Importer::new();
    let image = importer.one(&made.layout());
    assert_eq!(image.layers.len(), 4);
    let reference = made.at("reference");
    run("umoci", &["unpack", "--image", &made.image(), &reference]);
    let root = Root::mount(&importer.blobs, &image.layers);
    let mut expected = snapshot(&Path::new(&reference).join("rootfs"));
    let mut found = snapshot(root.merged.path());
    // umoci sets the times of folders as it goes; and overlayfs counts the
    // links of the layer that a file is in.
    let hard = ["", "opt", "opt/replaced"];
    for path in hard {
        assert!(found.remove(path).is_some() && expected.remove(path).is_some(), "{path}");
    }
    assert!(found["bin/ping"].contains("security.capability="), "{}", found["bin/ping"]);
    assert!(found["bin/sh"].contains("inode of bin/busybox, 2 links"), "{}", found["bin/sh"]);
    assert!(!found.contains_key("opt/replaced/old") && !found.contains_key("opt/unwanted"));
    for (path, line) in &expected {
        assert_eq!(found.get(path), Some(line), "{path}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn the_configuration_is_resolved() {
    let made = Made::new();
    let image = Importer::new().one(&made.layout());
    assert_eq!(image.reference, "web-1.2");
    assert_eq!(image.entrypoint, ["/bin/busybox"]);
    assert_eq!(image.cmd, ["httpd"]);
    assert!(image.env.contains(&"A=1".into()) && image.env.contains(&"B=x=y".into()));
    assert_eq!(image.working_dir, "/srv");
    assert_eq!(image.user, User { uid: 500, gid: 501, additional_gids: vec![20] });
    assert_eq!(image.stop_signal, 37);
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    assert_eq!(image.architecture, machine);
    for (user, expected) in [
        ("lion:dialout", User { uid: 500, gid: 20, additional_gids: vec![] }),
        ("77", User { uid: 77, gid: 0, additional_gids: vec![] }),
        ("", User::default()),
    ] {
        run("umoci", &["config", "--image", &made.image(), "--config.user", user]);
        assert_eq!(Importer::new().one(&made.layout()).user, expected, "{user}");
    }
    run("umoci", &["config", "--image", &made.image(), "--config.user", "tiger"]);
    Importer::new().refused(&made.layout(), "user `tiger` is not in its /etc/passwd");
}

#[test]
fn all_formats_give_the_same_image() {
    let made = Made::new();
    let layout = format!("oci:{}", made.image());
    let skopeo = |target: &str, more: &[&str]| {
        run("skopeo", &[&["--insecure-policy", "copy", "-q"], more, &[&layout, target]].concat());
    };
    skopeo(&format!("oci-archive:{}:acme/web:1.2", made.at("oci.tar")), &[]);
    skopeo(&format!("docker-archive:{}:docker.io/acme/web:1.2", made.at("docker.tar")), &[]);
    skopeo(&format!("oci:{}:acme/web:1.2", made.at("zstd")), &["--dest-compress-format", "zstd"]);
    tar_folder(&made.layout(), Path::new(&made.at("packed.tar")));
    run("gzip", &["-k", &made.at("docker.tar")]);

    let mut importer = Importer::new();
    importer.options.name = Some("acme/web:1.2".into());
    let expected = importer.one(&made.layout());
    importer.options.name = None;
    for source in ["oci.tar", "docker.tar", "docker.tar.gz", "zstd"] {
        // A folder of its own, so that nothing is known yet.
        let other = Importer::new();
        let image = other.one(Path::new(&made.at(source)));
        assert_eq!(image, expected, "{source}");
        let again = importer.import(Path::new(&made.at(source))).unwrap();
        assert_eq!(again[0].layers_new, 0, "{source}");
    }
    assert_eq!(importer.files().len(), expected.layers.len());
    let packed = Importer::new().one(Path::new(&made.at("packed.tar")));
    assert_eq!((packed.reference.as_str(), &packed.layers), ("web-1.2", &expected.layers));
}
