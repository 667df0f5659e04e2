//! What one layer holds, judged: every path, link and attribute of its tar is
//! checked here, and overlay semantics are made explicit.
//!
//! - A name given twice: the later one wins, a folder replaces a folder's
//!   attributes only, anything else replaces all that was below (as Docker).
//! - `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all of a
//!   folder's old contents (OCI image specification, "Whiteouts"). Both count
//!   for layers below only, wherever they stand in the tar.
//! - Folders that the tar implies take the attributes that they have in the
//!   layers below, since overlayfs shows the upper folder's.
//!
//! Never here: contents. An inode only says where in the tar they are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::error::printable;
use super::limits::{
    DEVICE_MAJOR_MAX, DEVICE_MINOR_MAX, ImportLimits, LAYER_DEPTH_MAX, LAYER_NAME_BYTES_MAX,
    LAYER_PATH_BYTES_MAX,
};
use super::merged::Merged;
use super::region::Region;
use super::tar_reader::{Kind, TarEntry, TarError, TarReader};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of aufs, which every reader of layers passes over.
const AUFS: &[u8] = b".wh..wh.";

/// A path without leading slash, `.`, `..` or empty parts; empty for the root.
pub(super) type Path = Vec<u8>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attrs {
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970: what squashfs can say.
    pub mtime: u32,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Where in the layer's uncompressed tar its contents are.
    File {
        offset: u64,
        size: u64,
    },
    /// Opaque: shows nothing of the layers below.
    Dir {
        opaque: bool,
    },
    Symlink(Vec<u8>),
    Char {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub attrs: Attrs,
    pub body: Body,
}

/// A layer's contents. Hard links are paths of the same inode.
#[derive(Debug, Default)]
pub(super) struct LayerTree {
    pub inodes: Vec<Inode>,
    pub paths: BTreeMap<Path, usize>,
    pub whiteouts: BTreeSet<Path>,
    /// Paths whose old contents are hidden: by an opaque marker or, once
    /// [`LayerTree::complete`], by a whiteout of what is there again.
    pub opaques: BTreeSet<Path>,
}

/// Why a layer is refused, and at which entry.
#[derive(Debug)]
pub(super) struct Refusal {
    pub entry: String,
    pub what: String,
}

impl LayerTree {
    /// Reads the layer's uncompressed tar. `entries_max` is what the import
    /// has left of [`ImportLimits::entries_max`].
    pub fn read(tar: &Region, limits: &ImportLimits, entries_max: usize) -> Result<Self, Refusal> {
        let mut reader = TarReader::new(tar.clone());
        let mut tree = Self::default();
        let mut count = 0;
        let mut last = String::from("(the first)");
        while let Some(entry) = next(&mut reader, &last)? {
            last = printable(&entry.path);
            count += 1;
            let refuse = |what: String| Refusal { entry: last.clone(), what };
            if count > entries_max {
                return Err(refuse(too_many(limits)));
            }
            if entry.size > limits.file_bytes_max {
                let max = limits.file_bytes_max;
                return Err(refuse(format!("is larger than the limit of {max} bytes a file")));
            }
            tree.add(entry).map_err(refuse)?;
        }
        Ok(tree)
    }

    /// How many entries it counts for.
    pub fn len(&self) -> usize {
        self.paths.len() + self.whiteouts.len()
    }

    pub fn inode(&self, path: &[u8]) -> Option<&Inode> {
        self.paths.get(path).map(|&index| &self.inodes[index])
    }

    /// Adds the folders that the paths imply, with their attributes in
    /// `below` (from which what this layer hides is gone already), and makes
    /// folders that are whited out and there again opaque.
    pub fn complete(
        &mut self,
        below: &Merged,
        limits: &ImportLimits,
        entries_max: usize,
    ) -> Result<(), Refusal> {
        let mut implied: BTreeSet<Path> = BTreeSet::from([Vec::new()]);
        for path in self.paths.keys().chain(&self.whiteouts) {
            implied.extend(parents(path).map(<[u8]>::to_vec));
            if implied.len() > entries_max {
                return Err(Refusal { entry: printable(path), what: too_many(limits) });
            }
        }
        for path in &self.opaques {
            implied.insert(path.clone());
            implied.extend(parents(path).map(<[u8]>::to_vec));
        }
        for path in implied {
            if !self.paths.contains_key(&path) {
                let attrs = below.dir_attrs(&path).cloned().unwrap_or_else(default_dir_attrs);
                self.insert(path, Inode { attrs, body: Body::Dir { opaque: false } });
            }
        }
        let Self { inodes, paths, whiteouts, opaques } = self;
        for path in whiteouts.iter().chain(&*opaques) {
            if let Some(&index) = paths.get(path)
                && let Body::Dir { opaque } = &mut inodes[index].body
            {
                *opaque = true;
            }
        }
        let again: Vec<Path> =
            whiteouts.iter().filter(|path| paths.contains_key(*path)).cloned().collect();
        for path in again {
            whiteouts.remove(&path);
            opaques.insert(path);
        }
        if self.len() > entries_max {
            return Err(Refusal { entry: "(all)".into(), what: too_many(limits) });
        }
        Ok(())
    }

    fn add(&mut self, entry: TarEntry) -> Result<(), String> {
        let path = normal(&entry.path)?;
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let folder = parents(&path).last().unwrap_or_default();
        for parent in parents(&path) {
            if is_reserved(parent) {
                return Err("lies below a whiteout".into());
            }
            if self.inode(parent).is_some_and(|inode| !matches!(inode.body, Body::Dir { .. })) {
                let parent = printable(parent);
                return Err(format!("goes through `{parent}`, which is not a folder"));
            }
        }
        if name == OPAQUE {
            if folder.is_empty() {
                return Err("hides the root of the layers below: flatten the image".into());
            }
            self.opaques.insert(folder.to_vec());
            return Ok(());
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err("is a whiteout of no name".into());
            }
            let hidden = [&path[..path.len() - name.len()], hidden].concat();
            self.whiteouts.insert(hidden);
            return Ok(());
        }
        if path.is_empty() && entry.kind != Kind::Dir {
            return Err("replaces the root, and is not a folder".into());
        }
        if entry.kind == Kind::HardLink {
            return self.add_hard_link(path, &entry.link);
        }
        let body = body(&entry)?;
        let attrs = attrs(entry)?;
        self.insert(path, Inode { attrs, body });
        Ok(())
    }

    fn add_hard_link(&mut self, path: Path, link: &[u8]) -> Result<(), String> {
        let target = normal(link).map_err(|what| format!("is a hard link whose target {what}"))?;
        let shown = printable(link);
        let Some(&index) = self.paths.get(&target) else {
            return Err(format!(
                "is a hard link to `{shown}`, which is not before it in this layer"
            ));
        };
        if matches!(self.inodes[index].body, Body::Dir { .. }) {
            return Err(format!("is a hard link to the folder `{shown}`"));
        }
        if path != target {
            self.remove_below(&path);
            self.paths.insert(path, index);
        }
        Ok(())
    }

    fn insert(&mut self, path: Path, inode: Inode) {
        if !matches!(inode.body, Body::Dir { .. }) {
            self.remove_below(&path);
        }
        self.inodes.push(inode);
        self.paths.insert(path, self.inodes.len() - 1);
    }

    fn remove_below(&mut self, path: &Path) {
        let below = below(path);
        for gone in
            self.paths.range(below.clone()).map(|(path, _)| path.clone()).collect::<Vec<_>>()
        {
            self.paths.remove(&gone);
        }
        for set in [&mut self.whiteouts, &mut self.opaques] {
            for gone in set.range(below.clone()).cloned().collect::<Vec<_>>() {
                set.remove(&gone);
            }
        }
        self.opaques.remove(path);
    }
}

/// The range of all paths below `path`, which is not the root.
pub(super) fn below(path: &[u8]) -> Range<Path> {
    // `0` follows `/` in ASCII.
    [path, b"/"].concat()..[path, b"0"].concat()
}

/// The folders above `path`, outermost first, without the root.
pub(super) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// The plain form of a name in an archive.
///
/// # Errors
/// What is wrong with it, to follow its name in a message.
pub(super) fn normal(name: &[u8]) -> Result<Path, String> {
    if name.is_empty() {
        return Err("has no name".into());
    }
    // umoci writes the root of what it inserts as `/`.
    if name.starts_with(b"/") && name != b"/" {
        return Err("is an absolute name".into());
    }
    if name.contains(&0) {
        return Err("has a NUL in its name".into());
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for part in name.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            return Err("has `..` in its name".into());
        }
        if part.len() > LAYER_NAME_BYTES_MAX {
            return Err(format!("has a part longer than {LAYER_NAME_BYTES_MAX} bytes"));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
        depth += 1;
    }
    if path.len() > LAYER_PATH_BYTES_MAX {
        return Err(format!("is longer than {LAYER_PATH_BYTES_MAX} bytes"));
    }
    if depth > LAYER_DEPTH_MAX {
        return Err(format!("is more than {LAYER_DEPTH_MAX} folders deep"));
    }
    Ok(path)
}

fn next(reader: &mut TarReader, last: &str) -> Result<Option<TarEntry>, Refusal> {
    reader.next().map_err(|error| {
        let what = match error {
            TarError::Truncated => error.to_string(),
            error => format!("the entry after it {error}"),
        };
        Refusal { entry: last.to_owned(), what }
    })
}

fn is_reserved(path: &[u8]) -> bool {
    // Old layers of aufs have a folder `.wh..wh.plnk`; nothing of it counts.
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    name.starts_with(WHITEOUT) && !name.starts_with(AUFS)
}

fn body(entry: &TarEntry) -> Result<Body, String> {
    Ok(match entry.kind {
        Kind::File => Body::File { offset: entry.offset, size: entry.size },
        Kind::Dir => Body::Dir { opaque: false },
        Kind::Fifo => Body::Fifo,
        Kind::Symlink => {
            let link = &entry.link;
            if link.is_empty() || link.contains(&0) || link.len() > LAYER_PATH_BYTES_MAX {
                return Err("is a symbolic link without a usable target".into());
            }
            Body::Symlink(link.clone())
        }
        Kind::Char => {
            let (major, minor) = device(entry)?;
            if (major, minor) == (0, 0) {
                return Err("is the device 0:0, which would be a whiteout".into());
            }
            Body::Char { major, minor }
        }
        Kind::Block => {
            let (major, minor) = device(entry)?;
            Body::Block { major, minor }
        }
        // Handled before; a hard link has no body of its own.
        Kind::HardLink => return Err("is a hard link in the wrong place".into()),
    })
}

fn device(entry: &TarEntry) -> Result<(u32, u32), String> {
    let TarEntry { major, minor, .. } = *entry;
    if major > DEVICE_MAJOR_MAX || minor > DEVICE_MINOR_MAX {
        return Err(format!("is device {major}:{minor}, which squashfs cannot keep"));
    }
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err("has a device number too large".into()),
    }
}

fn attrs(entry: TarEntry) -> Result<Attrs, String> {
    let id = |id: u64| {
        // The last number means "no change" to chown.
        let id = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
        id.ok_or_else(|| String::from("has an owner that is not a Linux user or group"))
    };
    for name in entry.xattrs.keys() {
        let namespace = name.split_once('.').map_or("", |(namespace, _)| namespace);
        if !matches!(namespace, "user" | "trusted" | "security") {
            return Err(format!("has the attribute `{}`, which squashfs cannot keep", shown(name)));
        }
        // Would make overlayfs look elsewhere in the layers.
        if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            return Err(format!("has the attribute `{}`, which is overlayfs's own", shown(name)));
        }
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
        if name.len() > LAYER_NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(format!("has the attribute `{}`, which is not a plain name", shown(name)));
        }
    }
    let latest = i64::from(u32::MAX);
    Ok(Attrs {
        mode: entry.mode,
        uid: id(entry.uid)?,
        gid: id(entry.gid)?,
        mtime: u32::try_from(entry.mtime.clamp(0, latest)).unwrap_or_default(),
        xattrs: entry.xattrs,
    })
}

fn shown(name: &str) -> String {
    printable(name.as_bytes())
}

fn default_dir_attrs() -> Attrs {
    Attrs { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
}

fn too_many(limits: &ImportLimits) -> String {
    format!("the image has more than {} entries", limits.entries_max)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    /// Every kind of header and of PAX record.
    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut entry = |kind: tar::EntryType, name: &str, link: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_uid(1 << 22);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            builder.append_data(&mut header, name, data).unwrap();
        };
        entry(tar::EntryType::Directory, "dir/", "", b"");
        entry(tar::EntryType::Regular, &"long/".repeat(30), "", b"");
        entry(tar::EntryType::Regular, "file", "", &[7; 700]);
        entry(tar::EntryType::Link, "link", "file", b"");
        entry(tar::EntryType::Symlink, "dir/sym", "../file", b"");
        let records: [(&str, &[u8]); 5] = [
            ("path", b"dir/pax"),
            ("mtime", b"-12.5"),
            ("uid", b"70000"),
            ("SCHILY.xattr.user.a", b"b"),
            ("LIBARCHIVE.xattr.user.%62", b"AAE"),
        ];
        builder.append_pax_extensions(records).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        header.set_cksum();
        builder.append(&header, &b"pax"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    /// Makes the checksums of the first block right, so that damage in it is
    /// seen by more than the checksum.
    fn mend(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn damage_is_an_error_and_never_more() {
        const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
        let whole = sample();
        let mut file = tempfile::tempfile().unwrap();
        let mut state = SEED;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let (mut read, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = u8::try_from(random(256)).unwrap();
                let block = &mut bytes[at / 512 * 512..][..512];
                if &block[257..262] == b"ustar" {
                    mend(block);
                }
            }
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&bytes).unwrap();
            let region = Region::whole(file.try_clone().unwrap()).unwrap();
            match LayerTree::read(&region, &ImportLimits::default(), 100) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    }

    #[test]
    fn names_have_one_plain_form() {
        for (name, plain) in
            [("./a//b/./c/", "a/b/c"), (".", ""), ("./", ""), ("/", ""), ("..a/b..", "..a/b..")]
        {
            assert_eq!(normal(name.as_bytes()).unwrap(), plain.as_bytes());
        }
        for bad in ["", "//", "/a", "..", "a/..", "a\0"] {
            assert!(normal(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let above: Vec<&[u8]> = parents(b"a/bc/d").collect();
        assert_eq!(above, [&b"a"[..], b"a/bc"]);
    }
}
