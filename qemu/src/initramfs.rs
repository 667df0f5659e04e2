//! Puts the machine's first root together: busybox, the rig's own scripts,
//! modules in load order, `wherry`, configuration. The same input gives the
//! same bytes. It boots nothing.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};

use crate::cpio::Archive;
use crate::machine::{File, Init, SHELL};

/// Where the guest's scripts find the modules, in order.
const MODULES_LIST: &str = "/etc/rig/modules";
/// Where the guest's script finds the disk's first program.
const FIRST: &str = "/etc/rig/first";

/// What people and tests call by name; each is a link to busybox.
pub const APPLETS: [&str; 88] = [
    "[",
    "ash",
    "awk",
    "base64",
    "basename",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "halt",
    "head",
    "hostname",
    "id",
    "insmod",
    "ip",
    "kill",
    "killall",
    "ln",
    "losetup",
    "ls",
    "lsmod",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mount",
    "mountpoint",
    "mv",
    "nc",
    "nproc",
    "nsenter",
    "od",
    "pidof",
    "ping",
    "poweroff",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "reboot",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "uniq",
    "unshare",
    "uptime",
    "vi",
    "wc",
];
/// Those that are at home elsewhere, or started by a path.
const PLACED: [(&str, &str); 5] = [
    ("/sbin/init", "../bin/busybox"),
    ("/bin/wget", "busybox"),
    ("/bin/xargs", "busybox"),
    ("/sbin/mke2fs", "../bin/busybox"),
    ("/sbin/udhcpc", "../bin/busybox"),
];

const SCRIPTS: [(&str, &str); 5] = [
    ("/bin/rig-setup", include_str!("guest/rig-setup")),
    ("/bin/rig-shell", SHELL),
    ("/bin/rig-end", include_str!("guest/rig-end")),
    ("/bin/rig-lease", include_str!("guest/rig-lease")),
    ("/bin/rig-terminal", include_str!("guest/rig-terminal")),
];

/// What goes into one.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    /// Static, of the machine's architecture.
    pub busybox: &'a [u8],
    /// Path in the kernel's package and content, in load order.
    pub modules: &'a [(String, Vec<u8>)],
    /// The caller's, over everything else.
    pub files: &'a [File],
    /// Who is the first program.
    pub init: Init,
}

/// The compressed archive.
///
/// # Errors
/// A file that the form cannot hold.
pub(crate) fn build(content: &Content<'_>) -> io::Result<Vec<u8>> {
    // No time and no name of this machine.
    let packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    let mut archive = Archive::new(packed);
    archive.device("/dev/console", 5, 1)?;
    archive.device("/dev/null", 1, 3)?;
    for folder in ["/data", "/mnt", "/proc", "/root", "/run", "/sys", "/tmp"] {
        archive.folder(folder)?;
    }
    archive.file("/bin/busybox", 0o755, content.busybox)?;
    for applet in APPLETS {
        archive.symlink(&format!("/bin/{applet}"), "busybox")?;
    }
    for (path, target) in PLACED {
        archive.symlink(path, target)?;
    }
    for (path, script) in SCRIPTS {
        archive.file(path, 0o755, script.as_bytes())?;
    }
    match content.init {
        Init::Busybox => {
            archive.file("/init", 0o755, include_bytes!("guest/init"))?;
            archive.file("/etc/inittab", 0o644, include_bytes!("guest/inittab"))?;
        }
        Init::Wherry => {}
        Init::Disk(first) => {
            archive.file("/init", 0o755, include_bytes!("guest/init-disk"))?;
            archive.file(FIRST, 0o644, format!("{first}\n").as_bytes())?;
        }
    }
    let mut list = String::new();
    for (path, module) in content.modules {
        archive.file(path, 0o644, module)?;
        list.push_str(&format!("/{path}\n"));
    }
    archive.file(MODULES_LIST, 0o644, list.as_bytes())?;
    for file in content.files {
        archive.file(&file.path, file.mode, &file.content)?;
    }
    let mut packed = archive.finish()?;
    packed.flush()?;
    packed.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let modules = [("lib/modules/6.1/a.ko".to_owned(), vec![1, 2, 3])];
        let files = [File::new("/etc/x", 0o600, "y")];
        let content =
            Content { busybox: b"#!", modules: &modules, files: &files, init: Init::Busybox };
        let once = build(&content).unwrap();
        assert_eq!(once, build(&content).unwrap());
        // gzip's own header: no time in it
        assert_eq!(once[4..8], [0; 4]);
        let other = Content { init: Init::Wherry, ..content };
        assert_ne!(once, build(&other).unwrap());
    }
}
