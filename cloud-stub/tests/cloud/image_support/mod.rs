//! What the image tests share: OCI layouts written by hand, other people's
//! tools, loop mounts, and folder trees as comparable values.

#![allow(dead_code)] // each test file uses its part of it

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use wherry_bundle::Digest;
use wherry_bundle::model::Layer;
use wherry_cloud::image::{
    BlobDir, ImageInfo, ImportError, ImportLimits, ImportOptions, ImportedImage, import,
};

pub const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const TAR_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A folder of the test's own, removed at its end.
pub fn work_dir() -> TempDir {
    tempfile::Builder::new().prefix("wherry-test-image-").tempdir().unwrap()
}

/// Runs a tool to its end; its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A blob folder and the defaults.
pub struct Importer {
    pub blobs: BlobDir,
    pub options: ImportOptions,
    pub limits: ImportLimits,
    _dir: TempDir,
}

impl Importer {
    pub fn new() -> Self {
        let dir = work_dir();
        let blobs = BlobDir::open(&dir.path().join("layers")).unwrap();
        Self {
            blobs,
            options: ImportOptions::default(),
            limits: ImportLimits::default(),
            _dir: dir,
        }
    }

    pub fn import(&self, source: &Path) -> Result<Vec<ImportedImage>, ImportError> {
        import(source, &self.options, &self.blobs, &self.limits)
    }

    /// The only image of `source`.
    pub fn one(&self, source: &Path) -> ImageInfo {
        let mut images = self.import(source).unwrap();
        assert_eq!(images.len(), 1, "{images:?}");
        images.remove(0).info
    }

    /// Asserts that `source` is refused with `reason` and leaves nothing.
    pub fn refused(&self, source: &Path, reason: &str) {
        let error = match self.import(source) {
            Ok(images) => panic!("not refused, expected `{reason}`: {images:?}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
        assert_eq!(self.files(), Vec::<String>::new(), "left behind after `{error}`");
    }

    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.blobs.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// An OCI layout written blob by blob, so that any part of it can be wrong.
pub struct Layout {
    pub dir: TempDir,
}

/// A layer for [`Layout::image`]: the blob, its type, and the digest of what
/// is in it.
#[derive(Clone)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub media_type: &'static str,
    pub diff_id: Digest,
}

impl Blob {
    pub fn tar(bytes: Vec<u8>) -> Self {
        let diff_id = Digest::of(&bytes);
        Self { bytes, media_type: TAR_LAYER, diff_id }
    }

    pub fn gzip(tar: &[u8]) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(tar).unwrap();
        let bytes = encoder.finish().unwrap();
        Self { bytes, media_type: GZIP_LAYER, diff_id: Digest::of(tar) }
    }
}

impl Layout {
    pub fn new() -> Self {
        let dir = work_dir();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.hex())
    }

    /// Writes a blob and gives its descriptor.
    pub fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub fn json_blob(&self, value: &Value, media_type: &str) -> Value {
        self.blob(value.to_string().as_bytes(), media_type)
    }

    /// Writes an image; its manifest's descriptor.
    pub fn image(&self, layers: &[Blob], architecture: &str, execution: Value) -> Value {
        let blobs = layers.iter().map(|layer| self.blob(&layer.bytes, layer.media_type)).collect();
        let diff_ids = layers.iter().map(|l| l.diff_id.to_string()).collect();
        self.manifest(blobs, diff_ids, architecture, execution)
    }

    /// Writes an image whose only layer, gzip, is in a file already; the file
    /// becomes the blob.
    pub fn image_of_file(&self, layer: &Path, diff_id: Digest, execution: Value) -> Value {
        let sum = run("sha256sum", &[text(layer)]);
        let digest = Digest::parse(&sum[..64]).unwrap();
        let size = fs::metadata(layer).unwrap().len();
        fs::rename(layer, self.blob_path(&digest)).unwrap();
        let blob = json!({"mediaType": GZIP_LAYER, "digest": digest.to_string(), "size": size});
        self.manifest(vec![blob], vec![diff_id.to_string()], "amd64", execution)
    }

    fn manifest(
        &self,
        layers: Vec<Value>,
        diff_ids: Vec<String>,
        architecture: &str,
        execution: Value,
    ) -> Value {
        let config = json!({
            "architecture": architecture, "os": "linux", "config": execution,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.json_blob(&config, "application/vnd.oci.image.config.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        self.json_blob(&manifest, MANIFEST)
    }

    /// Writes `index.json` of `manifests`, each with its name.
    pub fn index(&self, manifests: &[(&str, Value)]) {
        let manifests: Vec<Value> = manifests
            .iter()
            .map(|(name, descriptor)| {
                let mut descriptor = descriptor.clone();
                if !name.is_empty() {
                    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
                }
                descriptor
            })
            .collect();
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    /// One image called `test` with these layers.
    pub fn of(layers: &[Blob]) -> Self {
        let layout = Self::new();
        let manifest = layout.image(layers, "amd64", json!({}));
        layout.index(&[("test", manifest)]);
        layout
    }

    /// One image of one layer with these entries.
    pub fn of_entries(entries: &[Entry]) -> Self {
        Self::of(&[Blob::tar(tar(entries))])
    }
}

/// An entry of a tar, written as it is given, however wrong.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub mtime: u64,
    pub device: (u32, u32),
    pub pax: Vec<(String, Vec<u8>)>,
}

impl Entry {
    pub fn new(name: &str, kind: u8) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self {
            name: name.into(),
            kind,
            link: Vec::new(),
            data: Vec::new(),
            mode,
            uid: 0,
            mtime: 1_000_000_000,
            device: (0, 0),
            pax: Vec::new(),
        }
    }

    pub fn file(name: &str, data: &str) -> Self {
        Self { data: data.into(), ..Self::new(name, b'0') }
    }

    pub fn dir(name: &str) -> Self {
        Self::new(name, b'5')
    }

    pub fn symlink(name: &str, target: &str) -> Self {
        Self { link: target.into(), mode: 0o777, ..Self::new(name, b'2') }
    }

    pub fn hard_link(name: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(name, b'1') }
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.push((key.into(), value.into()));
        self
    }

    fn header(&self) -> [u8; 512] {
        let mut header = [0; 512];
        header[..self.name.len()].copy_from_slice(&self.name);
        header[100..107].copy_from_slice(format!("{:07o}", self.mode).as_bytes());
        header[108..115].copy_from_slice(format!("{:07o}", self.uid).as_bytes());
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", self.data.len()).as_bytes());
        header[136..147].copy_from_slice(format!("{:011o}", self.mtime).as_bytes());
        header[156] = self.kind;
        header[157..157 + self.link.len()].copy_from_slice(&self.link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..336].copy_from_slice(format!("{:07o}", self.device.0).as_bytes());
        header[337..344].copy_from_slice(format!("{:07o}", self.device.1).as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }
}

/// A whole tar of `entries`.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        if !entry.pax.is_empty() {
            let data = entry.pax.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            let header = Entry { data, ..Entry::new("pax", b'x') };
            out.extend(header.header());
            out.extend(padded(&header.data));
        }
        out.extend(entry.header());
        out.extend(padded(&entry.data));
    }
    out.extend([0; 1024]);
    out
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// A read-only mount, undone when dropped.
pub struct Mount {
    dir: TempDir,
}

impl Mount {
    /// One squashfs file.
    pub fn squashfs(file: &Path) -> Self {
        Self::new("squashfs", "loop,ro,nodev", text(file))
    }

    /// Layers, bottom first, as the node stacks them.
    pub fn overlay(layers: &[Self]) -> Self {
        let lower: Vec<&str> = layers.iter().rev().map(|layer| text(layer.path())).collect();
        if let [one] = lower[..] {
            return Self::new("none", "bind,ro", one);
        }
        Self::new("overlay", &format!("ro,lowerdir={}", lower.join(":")), "overlay")
    }

    fn new(kind: &str, options: &str, source: &str) -> Self {
        let dir = work_dir();
        let mut args = vec!["-n", "-o", options, source, text(dir.path())];
        if kind != "none" {
            args.splice(0..0, ["-t", kind]);
        }
        run("mount", &args);
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-n").arg(self.dir.path()).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.dir.path().display());
        }
    }
}

/// The layers of an image, mounted and stacked.
pub struct Root {
    // Before the layers: it is unmounted first.
    pub merged: Mount,
    pub layers: Vec<Mount>,
}

impl Root {
    pub fn mount(blobs: &BlobDir, layers: &[Layer]) -> Self {
        let mounts: Vec<Mount> = layers
            .iter()
            .map(|layer| {
                let path = blobs.layer_path(&layer.digest);
                assert_eq!(fs::metadata(&path).unwrap().len(), layer.size_bytes);
                Mount::squashfs(&path)
            })
            .collect();
        Self { merged: Mount::overlay(&mounts), layers: mounts }
    }
}

/// One line for each path below `root`, with everything that must be kept:
/// two equal trees have equal snapshots.
pub fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    walk(root, root, &mut inodes, &mut lines);
    lines
}

fn walk(
    root: &Path,
    path: &Path,
    inodes: &mut BTreeMap<(u64, u64), String>,
    lines: &mut BTreeMap<String, String>,
) {
    let meta = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().display().to_string();
    let kind = meta.file_type();
    let mut children = Vec::new();
    let body = if kind.is_dir() {
        children.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        children.sort();
        "dir".into()
    } else if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        // The same inode under a second name is a hard link.
        let first = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
        let digest = Digest::of(&fs::read(path).unwrap()).short();
        format!("file {digest} {} bytes, inode of {first}, {} links", meta.len(), meta.nlink())
    } else {
        let letter = if kind.is_char_device() {
            'c'
        } else if kind.is_block_device() {
            'b'
        } else {
            'p'
        };
        let device = meta.rdev();
        format!("{letter} {}:{}", rustix::fs::major(device), rustix::fs::minor(device))
    };
    let line = format!(
        "{:o} {}:{} @{} {body}{}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        xattrs(path)
    );
    lines.insert(name, line);
    for child in children {
        walk(root, &child, inodes, lines);
    }
}

/// ` name=hex` for each attribute, but overlayfs's own.
pub fn xattrs(path: &Path) -> String {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        // A squashfs in which nothing has an attribute.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let name = str::from_utf8(name).unwrap();
        let mut value = vec![0_u8; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        found.insert(name.to_owned(), value[..length].to_vec());
    }
    found
        .into_iter()
        .map(|(name, value)| {
            let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
            format!(" {name}={hex}")
        })
        .collect()
}

/// Packs a folder as other tools do.
pub fn tar_folder(folder: &Path, archive: &Path) {
    let file = File::create(archive).unwrap();
    let mut builder = tar::Builder::new(file);
    builder.append_dir_all(".", folder).unwrap();
    builder.finish().unwrap();
}
