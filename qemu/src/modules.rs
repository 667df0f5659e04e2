//! Which kernel modules have to be loaded, and in which order: read from the
//! modules themselves, for Debian's packages hold no `modules.dep`. No I/O.
//!
//! Sources: elf(5) for the sections, the kernel's `include/linux/module.h`
//! for `.modinfo` (`depends=`, `softdep=pre:`).

use std::collections::BTreeMap;

/// What a gateway's kernel has to offer Wherry, beyond what is built in.
pub const WHERRY: [&str; 16] = [
    // ext4's and the connection tracker's checksums, found by name only
    "crc32c_generic",
    "ext4",
    "squashfs",
    "loop",
    "overlay",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_numgen",
    "nft_fib_ipv4",
    "nft_reject_ipv4",
    "nf_conntrack_netlink",
];

/// What the machine itself needs.
pub const MACHINE: [&str; 4] = ["virtio_pci", "virtio_console", "virtio_blk", "virtio_net"];

/// Modules needing modules: a longer chain is a loop.
const DEPTH_MAX: u32 = 32;

/// Why modules cannot be ordered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a file nor built in.
    #[error("the kernel has no module {0}")]
    Unknown(String),
    /// Compressed ones would have to be unpacked first.
    #[error("module {0} is compressed, which rigs do not read")]
    Compressed(String),
    /// No ELF file with a `.modinfo`.
    #[error("{0} is not a kernel module")]
    Malformed(String),
    /// They need each other.
    #[error("module {0} needs itself")]
    Loop(String),
    /// Reading one failed.
    #[error(transparent)]
    Read(#[from] crate::tree::Error),
}

/// The modules of one kernel.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Path of each module's file by the module's name.
    files: BTreeMap<String, String>,
    built_in: Vec<String>,
}

impl Catalogue {
    /// From the paths of a kernel package and its `modules.builtin`.
    pub fn new<'a>(paths: impl Iterator<Item = &'a str>, built_in: &str) -> Self {
        let is_module = |path: &&str| path.ends_with(".ko") || path.contains(".ko.");
        let files = paths.filter(is_module).map(|path| (name_of(path), path.to_owned()));
        Self { files: files.collect(), built_in: built_in.lines().map(name_of).collect() }
    }

    /// The paths to load, each after what it needs; what is built in is left
    /// out. `read` gives a file's content.
    ///
    /// # Errors
    /// A module that is neither there nor built in.
    pub fn order(
        &self,
        wanted: &[String],
        mut read: impl FnMut(&str) -> Result<Vec<u8>, crate::tree::Error>,
    ) -> Result<Vec<String>, Error> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(&name_of(name), true, 0, &mut read, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        required: bool,
        depth: u32,
        read: &mut impl FnMut(&str) -> Result<Vec<u8>, crate::tree::Error>,
        order: &mut Vec<String>,
    ) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::Loop(name.to_owned()));
        }
        let Some(path) = self.files.get(name) else {
            // A soft dependency may be an alias, which nobody has to have.
            let fine = !required || self.built_in.iter().any(|built_in| built_in == name);
            return if fine { Ok(()) } else { Err(Error::Unknown(name.to_owned())) };
        };
        if !path.ends_with(".ko") {
            return Err(Error::Compressed(path.clone()));
        }
        if order.contains(path) {
            return Ok(());
        }
        let needs = needs(&read(path)?).ok_or_else(|| Error::Malformed(path.clone()))?;
        for (name, required) in needs {
            self.visit(&name, required, depth + 1, read, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// `kernel/net/ipv4/nf-tables.ko` is `nf_tables`, as the kernel calls it.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// The names that a module's own `.modinfo` asks for first, and whether it
/// cannot do without.
fn needs(elf: &[u8]) -> Option<Vec<(String, bool)>> {
    let info = section(elf, ".modinfo")?;
    let mut names = Vec::new();
    for entry in info.split(|&byte| byte == 0).filter_map(|entry| str::from_utf8(entry).ok()) {
        if let Some(list) = entry.strip_prefix("depends=") {
            let list = list.split(',').filter(|name| !name.is_empty());
            names.extend(list.map(|name| (name_of(name), true)));
        } else if let Some(list) = entry.strip_prefix("softdep=pre:") {
            let list = list.split_whitespace().take_while(|&name| name != "post:");
            names.extend(list.map(|name| (name_of(name), false)));
        }
    }
    Some(names)
}

/// The content of a little-endian ELF file's section.
fn section<'a>(elf: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let magic = elf.get(..6)?;
    let wide = match magic {
        [0x7f, b'E', b'L', b'F', 1, 1] => false,
        [0x7f, b'E', b'L', b'F', 2, 1] => true,
        _ => return None,
    };
    let word = |at: usize| if wide { number(elf, at, 8) } else { number(elf, at, 4) };
    let (table, entry_size, names_at) = if wide {
        (word(0x28)?, number(elf, 0x3a, 2)?, number(elf, 0x3e, 2)?)
    } else {
        (word(0x20)?, number(elf, 0x2e, 2)?, number(elf, 0x32, 2)?)
    };
    let count = number(elf, if wide { 0x3c } else { 0x30 }, 2)?;
    let header = |index: usize| table.checked_add(index.checked_mul(entry_size)?);
    let content = |header: usize| {
        let (at, size) = if wide { (0x18, 0x20) } else { (0x10, 0x14) };
        let from = word(header.checked_add(at)?)?;
        let size = word(header.checked_add(size)?)?;
        elf.get(from..from.checked_add(size)?)
    };
    let names = content(header(names_at)?)?;
    for index in 0..count {
        let header = header(index)?;
        let name = names.get(number(elf, header, 4)?..)?;
        if name.split(|&byte| byte == 0).next()? == wanted.as_bytes() {
            return content(header);
        }
    }
    None
}

/// A little-endian number of `size` bytes at `at`.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    let number = bytes
        .iter()
        .rev()
        .try_fold(0u64, |sum, &byte| sum.checked_mul(256)?.checked_add(u64::from(byte)))?;
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the two sections that matter.
    fn module(wide: bool, info: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let (head, row) = if wide { (0x40, 0x40) } else { (0x34, 0x28) };
        let mut elf = vec![0; head];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1]);
        elf.extend(info);
        elf.extend(names);
        let table = elf.len();
        let put = |elf: &mut Vec<u8>, at: usize, value: usize, size: usize| {
            elf[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        elf.resize(table + 3 * row, 0);
        let word = if wide { 8 } else { 4 };
        let places: [usize; 4] =
            if wide { [0x28, 0x3a, 0x3c, 0x3e] } else { [0x20, 0x2e, 0x30, 0x32] };
        put(&mut elf, places[0], table, word);
        put(&mut elf, places[1], row, 2);
        put(&mut elf, places[2], 3, 2);
        put(&mut elf, places[3], 2, 2);
        let (at, size) = if wide { (0x18, 0x20) } else { (0x10, 0x14) };
        for (index, name, from, length) in
            [(1, 1, head, info.len()), (2, 10, head + info.len(), names.len())]
        {
            put(&mut elf, table + index * row, name, 4);
            put(&mut elf, table + index * row + at, from, word);
            put(&mut elf, table + index * row + size, length, word);
        }
        elf
    }

    fn check(wanted: &[&str], expected: Result<&[&str], &str>) {
        let files: [(&str, &[u8]); 5] = [
            ("kernel/fs/ext4.ko", b"license=GPL\0depends=jbd2,mb-cache\0softdep=pre: crc32c md5\0"),
            ("kernel/fs/jbd2.ko", b"depends=mbcache\0"),
            ("kernel/fs/mb-cache.ko", b"depends=\0"),
            ("kernel/crypto/md5.ko", b"name=md5\0"),
            ("kernel/fs/mbcache.ko", b"depends=\0"),
        ];
        let paths =
            files.iter().map(|(path, _)| *path).chain(["kernel/x/squeezed.ko.xz", "boot/vmlinuz"]);
        let catalogue = Catalogue::new(paths, "kernel/drivers/virtio-pci.ko\n");
        let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
        for wide in [true, false] {
            let order = catalogue.order(&wanted, |path| {
                let (_, info) = files.iter().find(|(file, _)| *file == path).unwrap();
                Ok(module(wide, info))
            });
            let order = order.map_err(|error| error.to_string());
            assert_eq!(
                order.as_deref().map_err(String::as_str),
                expected
                    .map(|paths| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>())
                    .as_deref()
                    .map_err(|error| *error),
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn each_comes_after_what_it_needs_and_once() {
        let ext4 = [
            "kernel/fs/mbcache.ko",
            "kernel/fs/jbd2.ko",
            "kernel/fs/mb-cache.ko",
            "kernel/crypto/md5.ko",
            "kernel/fs/ext4.ko",
        ];
        check(&["ext4", "jbd2"], Ok(&ext4));
        check(&["virtio_pci", "mb-cache"], Ok(&["kernel/fs/mb-cache.ko"]));
        check(&["ext5"], Err("the kernel has no module ext5"));
        check(
            &["squeezed"],
            Err("module kernel/x/squeezed.ko.xz is compressed, which rigs do not read"),
        );
    }

    #[test]
    fn a_broken_file_is_no_module() {
        let whole = module(true, b"depends=a\0");
        assert_eq!(needs(&whole), Some(vec![("a".to_owned(), true)]));
        for length in 0..whole.len() - 1 {
            // Any prefix: an answer or none, never a panic.
            let _ = needs(&whole[..length]);
        }
        assert_eq!(needs(&whole[..80]), None);
        assert_eq!(needs(b"#!/bin/sh"), None);
    }
}
