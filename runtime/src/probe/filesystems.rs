//! Loop devices, squashfs with its compressors, overlayfs: an image of 231
//! bytes is mounted from memory and read, files are replaced in an overlay.
//!
//! `squashfs-zstd.img` is a folder with one file, `probe`, which holds
//! "wherry " 512 times. Its tables are not compressed, so that a changed
//! compressor's number in the superblock leaves a valid image. Made by
//! `mksquashfs FOLDER squashfs-zstd.img -comp zstd -noI -noX -noF
//! -no-fragments -no-xattrs -no-exports -all-root -mkfs-time 0 -all-time 0
//! -nopad -b 4096` (squashfs-tools 4.5.1).

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use serde::{Deserialize, Serialize};

use super::trial::{Obstacle, Trial, in_child, private_folder};
use crate::layers::loop_device;

const IMAGE: &[u8] = include_bytes!("squashfs-zstd.img");
/// Block devices have whole pages.
const IMAGE_BYTES: u64 = 4096;
const PROBE_TEXT: &str = "wherry ";
const PROBE_REPEATS: usize = 512;
/// Where the superblock has the compressor's number, two bytes, and what
/// they mean (`fs/squashfs/squashfs_fs.h`).
const COMPRESSOR_AT: usize = 20;
const OTHER_COMPRESSORS: [(&str, u8); 4] = [("gzip", 1), ("lzo", 3), ("xz", 4), ("lz4", 5)];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystems {
    pub loop_device: Trial<()>,
    /// Mounting and reading an image that zstd compressed.
    pub zstd: Trial<()>,
    /// Compressors besides zstd whose images can be mounted. One of them
    /// without zstd: squashfs itself is there.
    pub others: Vec<String>,
    pub overlay: Trial<()>,
    /// Replacing a folder of a lower layer, which takes extended attributes
    /// on the tmpfs above.
    pub opaque: Trial<()>,
}

/// Tries all of it, in a mount namespace of its own.
///
/// # Errors
/// Not even that could be made.
pub fn attempt() -> Trial<Filesystems> {
    in_child(|| {
        let folder = private_folder()?;
        let zstd = read_image(folder);
        let loop_device = match &zstd {
            Err(Stage::Loop(obstacle)) => Err(obstacle.clone()),
            Ok(()) | Err(Stage::Mount(_)) => Ok(()),
        };
        let others = OTHER_COMPRESSORS.iter().filter(|(_, number)| has_compressor(folder, *number));
        let others = others.map(|(name, _)| (*name).to_owned()).collect();
        let overlay = overlay(folder);
        let opaque = match &overlay {
            Ok(()) => replace_folder(folder),
            Err(_) => Err(Obstacle::NotTried("overlay".into())),
        };
        let zstd = zstd.map_err(|stage| match stage {
            Stage::Loop(_) => Obstacle::NotTried("a loop device".into()),
            Stage::Mount(obstacle) => obstacle,
        });
        Ok(Filesystems { loop_device, zstd, others, overlay, opaque })
    })
}

/// How far an image came.
enum Stage {
    Loop(Obstacle),
    Mount(Obstacle),
}

fn read_image(folder: &Path) -> Result<(), Stage> {
    let point = mount_image(folder, IMAGE)?;
    let text = fs::read_to_string(point.join("probe"));
    // The namespace's end takes it away in any case.
    let _ = umount2(&point, MntFlags::MNT_DETACH);
    match text {
        Ok(text) if text == PROBE_TEXT.repeat(PROBE_REPEATS) => Ok(()),
        Ok(_) => Err(Stage::Mount(Obstacle::Wrong("zstd gave back something else".into()))),
        Err(error) => Err(Stage::Mount(Obstacle::io("reading a file from squashfs")(error))),
    }
}

fn has_compressor(folder: &Path, number: u8) -> bool {
    let mut image = IMAGE.to_vec();
    if let Some(byte) = image.get_mut(COMPRESSOR_AT) {
        *byte = number;
    }
    match mount_image(folder, &image) {
        Ok(point) => umount2(&point, MntFlags::MNT_DETACH).is_ok(),
        Err(Stage::Loop(_) | Stage::Mount(_)) => false,
    }
}

fn mount_image(folder: &Path, image: &[u8]) -> Result<std::path::PathBuf, Stage> {
    let file = memory_file(image).map_err(Stage::Loop)?;
    let point = folder.join("squashfs");
    fs::create_dir_all(&point).map_err(|e| Stage::Loop(Obstacle::io("making a folder")(e)))?;
    // Held until the mount holds it: then the kernel frees it with the mount.
    let (path, _device) =
        loop_device(&file).map_err(|error| Stage::Loop(Obstacle::io("a loop device")(error)))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some(&path), &point, Some("squashfs"), flags, None::<&str>)
        .map_err(|errno| Stage::Mount(Obstacle::refused("mounting squashfs")(errno)))?;
    Ok(point)
}

fn memory_file(image: &[u8]) -> Trial<File> {
    let memory = memfd_create(c"wherry-check", MemFdCreateFlag::MFD_CLOEXEC);
    let mut file = File::from(memory.map_err(Obstacle::refused("a memory file"))?);
    file.write_all(image)
        .and_then(|()| file.set_len(IMAGE_BYTES))
        .map_err(Obstacle::io("writing a memory file"))?;
    Ok(file)
}

/// An overlay as containers have it: layers below, a tmpfs above.
fn overlay(folder: &Path) -> Trial<()> {
    for name in ["lower/old", "upper", "work", "merged"] {
        fs::create_dir_all(folder.join(name)).map_err(Obstacle::io("making a folder"))?;
    }
    fs::write(folder.join("lower/old/file"), "below").map_err(Obstacle::io("writing a file"))?;
    let path = |name: &str| folder.join(name).display().to_string();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", path("lower"), path("upper"), path("work"));
    let (kind, merged) = ("overlay", folder.join("merged"));
    mount(Some(kind), &merged, Some(kind), MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(Obstacle::refused("mounting overlay"))?;
    let file = merged.join("old/file");
    fs::write(&file, "above").map_err(Obstacle::io("writing in the overlay"))?;
    match (fs::read_to_string(&file), fs::read_to_string(folder.join("lower/old/file"))) {
        (Ok(above), Ok(below)) if above == "above" && below == "below" => Ok(()),
        found => Err(Obstacle::Wrong(format!("the overlay gave back {found:?}"))),
    }
}

fn replace_folder(folder: &Path) -> Trial<()> {
    let old = folder.join("merged/old");
    fs::remove_dir_all(&old).map_err(Obstacle::io("removing a folder in the overlay"))?;
    fs::create_dir(&old).map_err(Obstacle::io("making it anew"))?;
    match fs::read_dir(&old).map(Iterator::count) {
        Ok(0) => Ok(()),
        _ => Err(Obstacle::Wrong("a new folder of the overlay shows the old one's files".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_reads_the_image_and_nothing_stays() {
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let found = attempt().unwrap();
        for trial in [&found.loop_device, &found.zstd, &found.overlay, &found.opaque] {
            assert_eq!(*trial, Ok(()));
        }
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn a_compressor_that_no_kernel_has_is_not_found() {
        let found = in_child(|| Ok(has_compressor(private_folder()?, 77)));
        assert_eq!(found, Ok(false));
    }

    #[test]
    fn a_damaged_image_does_not_pass() {
        let trial = in_child(|| {
            let folder = private_folder()?;
            // In the middle of the zstd frame's text.
            let mut image = IMAGE.to_vec();
            image[0x6c] ^= 0x20;
            let point = mount_image(folder, &image).map_err(|_| Obstacle::TimedOut)?;
            let text = fs::read_to_string(point.join("probe"));
            Ok(text.is_ok_and(|text| text == PROBE_TEXT.repeat(PROBE_REPEATS)))
        });
        assert_eq!(trial, Ok(false));
    }
}
