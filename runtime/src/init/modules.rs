//! Kernel modules: by path, or by name from `/lib/modules/RELEASE`, with what
//! `modules.dep` says they need. `finit_module(2)`, `modules.dep(5)`.
//!
//! Compressed modules are the kernel's to unpack (Linux 5.17,
//! `MODULE_DECOMPRESS`): this program holds no unpacker.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::sys;

/// Modules needing modules: a longer list is a damaged file.
const NEEDED_MAX: usize = 64;
/// Folders in folders below `/lib/modules/RELEASE`.
const DEPTH_MAX: u32 = 12;

#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("module `{name}`: not below {} (is it built in, or of another kernel?)", folder.display())]
    NotFound { name: String, folder: PathBuf },
    #[error("module {}: {source}", path.display())]
    Load { path: PathBuf, source: io::Error },
}

/// The modules of the running kernel.
#[derive(Debug)]
pub struct Modules {
    folder: PathBuf,
    /// `modules.dep`, empty if there is none.
    needs: String,
    built_in: String,
}

impl Modules {
    /// Of the kernel whose release (`uname -r`) is `release`.
    #[must_use]
    pub fn open(root: &Path, release: &str) -> Self {
        let folder = root.join(release);
        let read = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
        Self { needs: read("modules.dep"), built_in: read("modules.builtin"), folder }
    }

    /// Loads a module and what it needs; one that is loaded, or built in, is
    /// fine.
    ///
    /// # Errors
    /// There is no such file, or the kernel refuses it.
    pub fn load(&self, module: &str) -> Result<(), ModuleError> {
        let wanted = name_of(module);
        if Path::new("/sys/module").join(&wanted).is_dir() || self.is_built_in(&wanted) {
            return Ok(());
        }
        for path in self.files(module)? {
            insert(&path).map_err(|source| ModuleError::Load { path, source })?;
        }
        Ok(())
    }

    fn is_built_in(&self, name: &str) -> bool {
        self.built_in.lines().any(|line| name_of(line) == name)
    }

    /// What to load for `module`, in order.
    fn files(&self, module: &str) -> Result<Vec<PathBuf>, ModuleError> {
        let listed = needed(&self.needs, module);
        if !listed.is_empty() {
            return Ok(listed.into_iter().map(|path| self.folder.join(path)).collect());
        }
        if module.starts_with('/') {
            return Ok(vec![module.into()]);
        }
        let found = find(&self.folder, &name_of(module), 0);
        let missing = || ModuleError::NotFound { name: module.into(), folder: self.folder.clone() };
        Ok(vec![found.ok_or_else(missing)?])
    }
}

fn insert(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match sys::load_module(file.as_fd(), c"") {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        outcome => outcome,
    }
}

/// `kernel/net/nf-tables.ko.xz` is `nf_tables`, as the kernel calls it.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// A line of `modules.dep` is `PATH: PATH…`, what is needed last comes first
/// in loading. Empty if the file does not tell.
fn needed(dep: &str, module: &str) -> Vec<String> {
    let name = name_of(module);
    let line = dep.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| {
        name_of(path) == name && (!module.starts_with('/') || module.ends_with(path))
    });
    let Some((path, needs)) = line else { return Vec::new() };
    let mut files: Vec<String> = needs.split_whitespace().rev().map(str::to_owned).collect();
    files.truncate(NEEDED_MAX);
    files.push(path.to_owned());
    files
}

fn find(folder: &Path, name: &str, depth: u32) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        // Not through links: `build` and `source` lead anywhere.
        let kind = entry.file_type().ok()?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() {
            folders.push(path);
        } else if file.contains(".ko") && name_of(&file) == name {
            return Some(path);
        }
    }
    if depth >= DEPTH_MAX {
        return None;
    }
    folders.iter().find_map(|folder| find(folder, name, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
        kernel/lib/crc16.ko:\nkernel/net/nft-nat.ko.xz: kernel/net/nf_nat.ko.xz\n";

    #[test]
    fn what_is_needed_comes_first() {
        let ext4 = ["kernel/lib/crc16.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko"];
        assert_eq!(needed(DEP, "ext4"), ext4);
        assert_eq!(needed(DEP, "/lib/modules/6.1/kernel/fs/ext4/ext4.ko"), ext4);
        assert_eq!(needed(DEP, "nft_nat"), ["kernel/net/nf_nat.ko.xz", "kernel/net/nft-nat.ko.xz"]);
        assert_eq!(needed(DEP, "crc16"), ["kernel/lib/crc16.ko"]);
        assert!(needed(DEP, "xfs").is_empty());
        assert!(needed(DEP, "/opt/ext4.ko").is_empty());
    }

    #[test]
    fn without_a_list_files_are_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("6.1/kernel/drivers/net");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("wherry-test-net.ko"), "").unwrap();
        fs::write(root.path().join("6.1/modules.builtin"), "kernel/fs/fuse/fuse.ko\n").unwrap();
        let modules = Modules::open(root.path(), "6.1");
        assert_eq!(modules.files("wherry_test_net").unwrap(), [folder.join("wherry-test-net.ko")]);
        assert_eq!(modules.files("/x/y.ko").unwrap(), [PathBuf::from("/x/y.ko")]);
        assert!(modules.load("fuse").is_ok());
        let error = modules.load("wherry_test_absent").unwrap_err();
        assert!(matches!(error, ModuleError::NotFound { .. }), "{error}");
        let error = modules.load("wherry_test_net").unwrap_err();
        assert!(error.to_string().contains("wherry-test-net.ko"), "{error}");
    }
}
