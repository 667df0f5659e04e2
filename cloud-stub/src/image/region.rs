//! A piece of a file that is read at positions: a blob in an archive, a blob
//! that is a file of its own, a layer's tar.
//!
//! Readers share the file and not its offset, so any number may be open.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use wherry_bundle::Digest;

/// Read from disk at once.
const BUFFER_BYTES: usize = 64 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// `len` bytes of a file, from `offset` on.
#[derive(Clone, Debug)]
pub(super) struct Region {
    file: Arc<File>,
    offset: u64,
    len: u64,
}

impl Region {
    /// The whole of `file`.
    pub fn whole(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), offset: 0, len })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// `None` if it does not lie within this region.
    pub fn part(&self, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Self {
            file: Arc::clone(&self.file),
            offset: self.offset + offset,
            len,
        })
    }

    pub fn reader(&self) -> RegionReader {
        RegionReader { region: self.clone(), at: 0 }
    }

    /// Fills `buffer` from position `at`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the region ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if self.part(at, buffer.len() as u64).is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, self.offset + at)
    }

    pub fn digest(&self) -> io::Result<Digest> {
        let mut reader = self.reader();
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Digest(hasher.finalize().into())),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Whether it starts as gzip or zstd does.
    pub fn is_compressed(&self) -> io::Result<bool> {
        Ok(!matches!(self.compression()?, Compression::None))
    }

    /// The contents, uncompressed when they are gzip or zstd. The kind is
    /// found in the first bytes, as Docker does: media types are wrong often
    /// enough, and the digest of what comes out is checked in any case.
    pub fn decoded(&self) -> io::Result<Box<dyn Read>> {
        let input = BufReader::with_capacity(BUFFER_BYTES, self.reader());
        Ok(match self.compression()? {
            Compression::None => Box::new(input),
            // Several gzip members, as pigz and stargz write them, are one stream.
            Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
            // zstd refuses windows above 128 MiB by itself.
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        })
    }

    fn compression(&self) -> io::Result<Compression> {
        let mut start = [0; 4];
        if self.len < start.len() as u64 {
            return Ok(Compression::None);
        }
        self.read_exact_at(&mut start, 0)?;
        Ok(if start == ZSTD_MAGIC {
            Compression::Zstd
        } else if start.starts_with(&GZIP_MAGIC) {
            Compression::Gzip
        } else {
            Compression::None
        })
    }
}

enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Reads a region from its start.
#[derive(Debug)]
pub(super) struct RegionReader {
    region: Region,
    at: u64,
}

impl Read for RegionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.region.len - self.at;
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.region.file.read_at(&mut buffer[..want], self.region.offset + self.at)?;
        if count == 0 {
            // The file was cut while it was being read.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
