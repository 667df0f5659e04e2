//! The data partition: waited for, checked, mounted. `mount(2)`, `fsck(8)`.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use wherry_bundle::message::Exit;

use super::config::Data;
use crate::mounts;

/// What fsck's exit code says (`fsck(8)`), a sum of bits.
const CORRECTED: u8 = 1 | 2;
const FAILED: u8 = 4 | 8 | 16 | 32 | 128;

/// What came of checking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Clean,
    Corrected,
    /// The file system is mounted all the same: the kernel may know better.
    Failed,
}

/// What fsck's end means.
#[must_use]
pub fn checked(exit: Exit) -> Checked {
    match exit {
        Exit::Code(code) if code & FAILED != 0 => Checked::Failed,
        Exit::Code(code) if code & CORRECTED != 0 => Checked::Corrected,
        Exit::Code(0) => Checked::Clean,
        Exit::Code(_) | Exit::Signal(_) | Exit::OutOfMemory | Exit::Unknown => Checked::Failed,
    }
}

impl Data {
    /// Whether the device is there, as far as it can be seen.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.device.starts_with('/') || Path::new(&self.device).exists()
    }

    #[must_use]
    pub fn is_mounted(&self) -> bool {
        mounts::table().is_ok_and(|points| points.contains(&self.mount))
    }

    /// The configured check of the device, if there is one.
    #[must_use]
    pub fn check_command(&self) -> Option<Vec<String>> {
        let words = self.fsck.iter().chain([&self.device]).cloned();
        (!self.fsck.is_empty()).then(|| words.collect())
    }

    /// Mounts it; mounted already is fine. Reading wears out no flash:
    /// access times are not kept.
    ///
    /// # Errors
    /// What `mount(2)` says.
    pub fn mount(&self) -> io::Result<()> {
        if self.is_mounted() {
            return Ok(());
        }
        fs::create_dir_all(&self.mount)?;
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = (!self.options.is_empty()).then_some(self.options.as_str());
        let (device, fs) = (Some(self.device.as_str()), Some(self.fs.as_str()));
        match mount(device, &self.mount, fs, flags, options) {
            // A disk that cannot be written still has the pods on it.
            Err(Errno::EROFS | Errno::EACCES) => {
                log::error!("{}: only readable", self.device);
                Ok(mount(device, &self.mount, fs, flags | MsFlags::MS_RDONLY, options)?)
            }
            outcome => Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_fsck_are_understood() {
        for (exit, result) in [
            (Exit::Code(0), Checked::Clean),
            (Exit::Code(1), Checked::Corrected),
            (Exit::Code(3), Checked::Corrected),
            (Exit::Code(4), Checked::Failed),
            (Exit::Code(5), Checked::Failed),
            (Exit::Code(127), Checked::Failed),
            (Exit::Signal(9), Checked::Failed),
            (Exit::Unknown, Checked::Failed),
        ] {
            assert_eq!(checked(exit), result, "{exit:?}");
        }
    }

    #[test]
    fn the_device_ends_the_command() {
        let mut data = Data {
            device: "/dev/wherry-test-none".into(),
            fs: "ext4".into(),
            mount: "/data".into(),
            options: String::new(),
            wait_seconds: 1,
            fsck: vec!["/sbin/e2fsck".into(), "-p".into()],
        };
        let words = data.check_command().unwrap();
        assert_eq!(words, ["/sbin/e2fsck", "-p", "/dev/wherry-test-none"]);
        assert!(!data.is_there() && !data.is_mounted());
        data.device = "ubi0:data".into();
        data.fsck.clear();
        assert!(data.is_there() && data.check_command().is_none());
    }
}
