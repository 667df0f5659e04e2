//! Runs this program where nobody can write to it.
//!
//! While a container is being made, its first process still executes this
//! program; a hostile image could reach it by `/proc/self/exe` and write to
//! it (CVE-2019-5736). So it is executed from a read-only mount of its own
//! that no path leads to. That takes no memory: the program stays what the
//! kernel may drop and read again. Where the kernel cannot (before 5.12), it
//! is executed from a copy in memory that is sealed against writing.
//! `open_tree(2)`, `mount_setattr(2)`, `memfd_create(2)`, `fcntl(2)`.
//!
//! Never here: anything but the program itself.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys;

/// The program that runs, whatever its file has become.
pub const SELF_EXE: &str = "/proc/self/exe";
const SELF_EXE_C: &CStr = c"/proc/self/exe";

/// `MFD_EXEC` of `linux/memfd.h`, Linux 6.3: needed where the system-wide
/// default is not executable.
const MFD_EXEC: u32 = 0x10;

/// Why the program could not be sealed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source} (/proc has to be mounted, and memory files executable)")]
pub struct SealError {
    what: &'static str,
    source: io::Error,
}

/// Makes sure that this process runs sealed: returns if it does, else
/// executes itself, sealed, with the same arguments and environment. To be
/// called first thing in `main`, before any thread or state.
///
/// # Errors
/// Nothing has happened then.
pub fn ensure_sealed() -> Result<(), SealError> {
    if is_sealed()? {
        // It was executed by a descriptor's number.
        let _ = nix::sys::prctl::set_name(c"wherry");
        return Ok(());
    }
    let program = match sys::read_only_clone(SELF_EXE_C) {
        Ok(program) => program,
        Err(_) => sealed_copy()?,
    };
    let words = |words: Vec<Vec<u8>>| -> Vec<CString> {
        // Arguments and variables came through execve(2) and hold no NUL.
        words.into_iter().filter_map(|word| CString::new(word).ok()).collect()
    };
    let args = words(std::env::args_os().map(OsStringExt::into_vec).collect());
    let env = words(
        std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
            .collect(),
    );
    match nix::unistd::fexecve(program.as_raw_fd(), &args, &env) {
        Ok(never) => match never {},
        Err(errno) => Err(SealError { what: "executing it sealed", source: errno.into() }),
    }
}

/// Whether this process runs sealed.
///
/// # Errors
/// `/proc` is not mounted.
pub fn is_sealed() -> Result<bool, SealError> {
    let exe = File::open(SELF_EXE).map_err(|source| SealError { what: SELF_EXE, source })?;
    // A file on a disk has no seals to ask for: EINVAL.
    let seals = fcntl(exe.as_raw_fd(), FcntlArg::F_GET_SEALS).unwrap_or(0);
    Ok(SealFlag::from_bits_retain(seals).contains(seals_wanted()) || is_read_only_clone(&exe)?)
}

/// Read-only, and on a mount that is in no mount table: any other can be made
/// writable by root, which root file systems sometimes are.
fn is_read_only_clone(exe: &File) -> Result<bool, SealError> {
    let fail = |source| SealError { what: "looking at its mount", source };
    let flags = fstatvfs(exe).map_err(|errno| fail(errno.into()))?.flags();
    if !flags.contains(FsFlags::ST_RDONLY) {
        return Ok(false);
    }
    // proc_pid_fdinfo(5), proc_pid_mountinfo(5).
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", exe.as_raw_fd()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(fail)?;
    let mount = info.map_err(fail)?;
    let mount = mount.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let listed = |id| mounts.lines().any(|line| line.split(' ').next() == Some(id));
    Ok(mount.is_some_and(|id| !listed(id)))
}

fn seals_wanted() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

fn sealed_copy() -> Result<OwnedFd, SealError> {
    let fail = |what| move |source| SealError { what, source };
    let mut exe = File::open(SELF_EXE).map_err(fail(SELF_EXE))?;
    let flags = MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING;
    let executable = flags | MemFdCreateFlag::from_bits_retain(MFD_EXEC);
    let memory = match memfd_create(c"wherry", executable) {
        // Kernels before 6.3 do not know the flag and need none.
        Err(Errno::EINVAL) => memfd_create(c"wherry", flags),
        result => result,
    };
    let mut copy =
        memory.map(File::from).map_err(|errno| fail("making a memory file")(errno.into()))?;
    io::copy(&mut exe, &mut copy).map_err(fail("copying the program"))?;
    copy.seek(SeekFrom::Start(0)).map_err(fail("copying the program"))?;
    fcntl(copy.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals_wanted()))
        .map_err(|errno| fail("sealing the copy")(errno.into()))?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_copy_is_whole_and_cannot_be_written() {
        let mut copy = File::from(sealed_copy().unwrap());
        let mut program = File::open(SELF_EXE).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), program.metadata().unwrap().len());
        assert_eq!(copy.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(copy.set_len(0).is_err());
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let reopened = std::fs::OpenOptions::new().write(true).open(path);
        assert!(reopened.and_then(|mut file| file.write(b"x")).is_err());
        assert!(program.seek(SeekFrom::Start(0)).is_ok());
    }

    #[test]
    fn a_read_only_clone_stays_read_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, "program").unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let clone = File::from(sys::read_only_clone(&name).unwrap());
        assert!(is_read_only_clone(&clone).unwrap());
        assert!(!is_read_only_clone(&File::open(&path).unwrap()).unwrap());
        let path = format!("/proc/self/fd/{}", clone.as_raw_fd());
        let error = fs::OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        // Root's way to make a mount writable again.
        let flags = nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REMOUNT;
        let none = None::<&str>;
        assert!(nix::mount::mount(none, path.as_str(), none, flags, none).is_err());
    }

    #[test]
    fn a_program_from_a_disk_is_not_sealed() {
        assert!(!is_sealed().unwrap());
    }
}
