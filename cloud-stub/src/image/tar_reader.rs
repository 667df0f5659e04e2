//! Reads tar archives: ustar, GNU and PAX, as POSIX.1-2017 `pax` and the GNU
//! tar manual describe them. Where tools differ, what Go's `archive/tar` does
//! counts, since Docker and containerd see archives through it.
//!
//! Strict and bounded: what it cannot keep exactly (sparse files, unknown
//! types) is refused, never guessed. It judges no paths: see [`super::tree`].

use std::collections::BTreeMap;
use std::io;

use super::limits::{HEADER_BYTES_MAX, XATTRS_BYTES_MAX};
use super::pax;
use super::region::Region;

const BLOCK: u64 = 512;
const BLOCK_BYTES: usize = 512;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    #[error("{0}")]
    Io(io::Error),
    #[error("the archive is truncated")]
    Truncated,
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Unsupported(String),
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// One entry, with every extension header already taken into account.
#[derive(Debug)]
pub(super) struct TarEntry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Where the contents are in the archive; none but for files.
    pub offset: u64,
    pub size: u64,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since 1970, rounded down.
    pub mtime: i64,
    pub major: u64,
    pub minor: u64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Goes through an archive once.
#[derive(Debug)]
pub(super) struct TarReader {
    region: Region,
    at: u64,
}

/// The extension headers before an entry.
#[derive(Default)]
struct Extensions {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<pax::Records>,
}

impl TarReader {
    pub fn new(region: Region) -> Self {
        Self { region, at: 0 }
    }

    /// The next entry; `None` at the end.
    pub fn next(&mut self) -> Result<Option<TarEntry>, TarError> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            let Some(header) = self.header()? else {
                return if extended { Err(TarError::Truncated) } else { Ok(None) };
            };
            let size = number(&header[124..136])?;
            let size =
                u64::try_from(size).map_err(|_| TarError::Malformed("has a negative size"))?;
            match header[156] {
                b'x' => {
                    let records =
                        pax::parse(&self.extension(size)?).map_err(TarError::Malformed)?;
                    if extensions.pax.replace(records).is_some() {
                        return Err(TarError::Malformed("has two PAX headers"));
                    }
                }
                // A comment on the whole archive: Docker ignores it as well.
                b'g' => {
                    self.extension(size)?;
                    continue;
                }
                b'L' => extensions.long_path = Some(c_string(&self.extension(size)?)),
                b'K' => extensions.long_link = Some(c_string(&self.extension(size)?)),
                _ => return self.entry(&header, size, extensions).map(Some),
            }
            extended = true;
        }
    }

    fn header(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        // Some writers leave the two closing blocks out.
        if self.at == self.region.len() {
            return Ok(None);
        }
        let mut header = [0; BLOCK_BYTES];
        self.read(&mut header, self.at)?;
        self.at += BLOCK;
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let stored = number(&header[148..156])?;
        header[148..156].fill(b' ');
        let sum: i64 = header.iter().map(|&byte| i64::from(byte)).sum();
        if sum != stored {
            return Err(TarError::Malformed("is not a tar archive, or damaged: wrong checksum"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let length = usize::try_from(size.min(HEADER_BYTES_MAX + 1)).unwrap_or(usize::MAX);
        if size > HEADER_BYTES_MAX {
            return Err(TarError::Malformed("has an extension header that is too long"));
        }
        let mut bytes = vec![0; length];
        self.read(&mut bytes, self.at)?;
        self.skip(size)?;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK_BYTES],
        size: u64,
        extensions: Extensions,
    ) -> Result<TarEntry, TarError> {
        let records = extensions.pax.unwrap_or_default();
        if records.sparse {
            return Err(TarError::Unsupported(
                "is a sparse file: make the layer again without them".into(),
            ));
        }
        if records.size.is_some_and(|given| size != 0 && given != size) {
            return Err(TarError::Malformed("has two different sizes"));
        }
        let size = records.size.unwrap_or(size);
        let path = extensions.long_path.or(records.path).unwrap_or_else(|| ustar_path(header));
        let link =
            extensions.long_link.or(records.link).unwrap_or_else(|| c_string(&header[157..257]));
        let kind = kind(header[156], &path)?;
        let size = if kind == Kind::File { size } else { 0 };
        let offset = self.at;
        self.skip(size)?;
        let xattr_bytes: usize = records.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
        if xattr_bytes > XATTRS_BYTES_MAX {
            return Err(TarError::Malformed("has too large extended attributes"));
        }
        let id = |given: Option<u64>, field: &[u8]| match given {
            Some(id) => Ok(id),
            None => u64::try_from(number(field)?)
                .map_err(|_| TarError::Malformed("has a negative owner or device number")),
        };
        let device = matches!(kind, Kind::Char | Kind::Block);
        Ok(TarEntry {
            path,
            link,
            kind,
            offset,
            size,
            mode: u32::try_from(number(&header[100..108])? & 0o7777).unwrap_or_default(),
            uid: id(records.uid, &header[108..116])?,
            gid: id(records.gid, &header[116..124])?,
            mtime: records.mtime.map_or_else(|| number(&header[136..148]), Ok)?,
            major: if device { id(None, &header[329..337])? } else { 0 },
            minor: if device { id(None, &header[337..345])? } else { 0 },
            xattrs: records.xattrs,
        })
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), TarError> {
        self.region.read_exact_at(buffer, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Io(error),
        })
    }

    fn skip(&mut self, size: u64) -> Result<(), TarError> {
        let end = self.at.checked_add(size).ok_or(TarError::Truncated)?;
        if end > self.region.len() {
            return Err(TarError::Truncated);
        }
        // The last block's padding may be missing at the very end.
        let next = end.checked_next_multiple_of(BLOCK).ok_or(TarError::Truncated)?;
        self.at = next.min(self.region.len());
        Ok(())
    }
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind, TarError> {
    Ok(match flag {
        // Before POSIX, a folder was a file whose name ends with a slash.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Dir,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        b'S' => {
            let what = "is a sparse file: make the layer again without them";
            return Err(TarError::Unsupported(what.into()));
        }
        other => {
            let what = format!("has the unknown type `{}`", char::from(other).escape_default());
            return Err(TarError::Unsupported(what));
        }
    })
}

/// Name and, in ustar but not in GNU headers, what goes before it.
fn ustar_path(header: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let name = c_string(&header[..100]);
    if &header[257..263] != b"ustar\0" {
        return name;
    }
    // The `star` dialect keeps times where the end of the prefix would be.
    let end = if &header[508..] == b"tar\0" { 476 } else { 500 };
    let mut path = c_string(&header[345..end]);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name);
    path
}

fn c_string(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|&byte| byte != 0).collect()
}

/// A numeric field: octal text, or big-endian two's complement when the first
/// bit is set (GNU).
fn number(field: &[u8]) -> Result<i64, TarError> {
    if field[0] & 0x80 != 0 {
        let mut value: i128 = if field[0] & 0x40 != 0 { -1 } else { 0 };
        value = (value << 6) | i128::from(field[0] & 0x3f);
        for &byte in &field[1..] {
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| TarError::Malformed("has a number too large"));
    }
    let text: &[u8] = field.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(text.len());
    text[..end].iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => Ok(value * 8 + i64::from(byte - b'0')),
        _ => Err(TarError::Malformed("is not a tar archive, or damaged: not an octal number")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   755 \0").unwrap(), 0o755);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\x01\0\0\0").unwrap(), 1 << 24);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(b"00009\0\0\0").is_err());
        assert!(number(&[0x80, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
