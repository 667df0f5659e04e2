//! An import streams: its memory does not grow with the files of a layer.
//! Alone in its process, so that nothing else counts. Needs squashfs-tools-ng.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "cloud/image_support/mod.rs"]
mod image_support;

use std::fs;
use std::io::{BufWriter, Write};

use image_support::{Importer, Layout};
use serde_json::json;

const FILE_BYTES: u64 = 48 << 20;
const GROWTH_KIB_MAX: u64 = 16 << 10;

#[test]
fn memory_does_not_grow_with_the_layer() {
    let layout = Layout::new();
    // Lines of numbers: compress four times or so, as programs do.
    let path = layout.path().join("layer");
    let file = BufWriter::new(fs::File::create(&path).unwrap());
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let mut hash = sha256::Writer::new(&mut gzip);
    let mut header = tar::Header::new_ustar();
    header.set_path("big").unwrap();
    header.set_size(FILE_BYTES);
    header.set_mode(0o644);
    header.set_cksum();
    hash.write_all(header.as_bytes()).unwrap();
    for number in 0..FILE_BYTES / 16 {
        hash.write_all(format!("{:015}\n", number * number).as_bytes()).unwrap();
    }
    hash.write_all(&[0; 1024]).unwrap();
    let diff_id = hash.digest();
    gzip.finish().unwrap().flush().unwrap();
    let manifest = layout.image_of_file(&path, diff_id, json!({}));
    layout.index(&[("big", manifest)]);

    let before = high_water_kib();
    let importer = Importer::new();
    let image = importer.one(layout.path());
    assert!(image.layers[0].size_bytes > FILE_BYTES / 20);
    let growth = high_water_kib() - before;
    assert!(growth < GROWTH_KIB_MAX, "grew by {growth} KiB");
}

/// The most memory that this process ever had (proc_pid_status(5)).
fn high_water_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

mod sha256 {
    use std::io::{self, Write};

    use sha2::{Digest as _, Sha256};
    use wherry_bundle::Digest;

    /// Hashes what passes through.
    pub struct Writer<W> {
        inner: W,
        hasher: Sha256,
    }

    impl<W: Write> Writer<W> {
        pub fn new(inner: W) -> Self {
            Self { inner, hasher: Sha256::new() }
        }

        pub fn digest(self) -> Digest {
            Digest(self.hasher.finalize().into())
        }
    }

    impl<W: Write> Write for Writer<W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.inner.write(bytes)?;
            self.hasher.update(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.inner.flush()
        }
    }
}
