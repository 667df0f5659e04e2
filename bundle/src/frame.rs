//! Frames on a byte stream (Unix socket, UART, virtio-serial, file), over
//! `embedded-io`'s traits.
//!
//! `57 68` · length of the payload (u32, little endian) · CRC-32 (IEEE) of
//! the payload (u32, little endian) · payload.

use embedded_io::{Read, ReadExactError, Write};

const START: [u8; 2] = *b"Wh";
/// What a frame has besides its payload.
pub const HEADER_BYTES: usize = 10;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError<E: core::fmt::Debug> {
    #[error("input or output: {0:?}")]
    Io(E),
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    #[error("not a frame: it starts with {0:02x?}")]
    Start([u8; 2]),
    #[error("a frame of {bytes} bytes, where at most {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("the checksum of a frame does not match")]
    Checksum,
}

/// Writes one frame.
///
/// # Errors
/// [`FrameError::TooLarge`] above `u32::MAX`, else what the stream says.
pub fn write<W: Write>(stream: &mut W, payload: &[u8]) -> Result<(), FrameError<W::Error>> {
    let Ok(length) = u32::try_from(payload.len()) else {
        return Err(FrameError::TooLarge { bytes: payload.len(), max: u32::MAX as usize });
    };
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(&START);
    header[2..6].copy_from_slice(&length.to_le_bytes());
    header[6..].copy_from_slice(&crc32(payload).to_le_bytes());
    stream.write_all(&header).map_err(FrameError::Io)?;
    stream.write_all(payload).map_err(FrameError::Io)?;
    stream.flush().map_err(FrameError::Io)
}

/// Reads one frame of at most `max` bytes; `None` at a clean end.
///
/// # Errors
/// Nothing is allocated for a frame that is too large.
pub fn read<R: Read>(stream: &mut R, max: usize) -> Result<Option<Vec<u8>>, FrameError<R::Error>> {
    let mut header = [0; HEADER_BYTES];
    let first = stream.read(&mut header[..1]).map_err(FrameError::Io)?;
    if first == 0 {
        return Ok(None);
    }
    exact(stream, &mut header[1..])?;
    let [s0, s1, l0, l1, l2, l3, c0, c1, c2, c3] = header;
    if [s0, s1] != START {
        return Err(FrameError::Start([s0, s1]));
    }
    let bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if bytes > max {
        return Err(FrameError::TooLarge { bytes, max });
    }
    let mut payload = vec![0; bytes];
    exact(stream, &mut payload)?;
    if crc32(&payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(FrameError::Checksum);
    }
    Ok(Some(payload))
}

fn exact<R: Read>(stream: &mut R, buffer: &mut [u8]) -> Result<(), FrameError<R::Error>> {
    stream.read_exact(buffer).map_err(|error| match error {
        ReadExactError::UnexpectedEof => FrameError::Truncated,
        ReadExactError::Other(error) => FrameError::Io(error),
    })
}

/// CRC-32 as in IEEE 802.3 (reflected, polynomial 0xEDB88320).
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (crc >> 8) ^ CRC_TABLE[((crc ^ u32::from(byte)) & 0xff) as usize]
    })
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        #[allow(clippy::cast_possible_truncation)] // i < 256; no `try_from` in const
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn frames_read_back_and_end_cleanly() {
        let mut stream = Vec::new();
        write(&mut stream, b"one").unwrap();
        write(&mut stream, b"").unwrap();
        let mut input = stream.as_slice();
        assert_eq!(read(&mut input, 10).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(read(&mut input, 10).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(read(&mut input, 10).unwrap(), None);
    }

    #[test]
    fn damage_is_noticed() {
        let mut stream = Vec::new();
        write(&mut stream, b"payload").unwrap();
        assert!(matches!(read(&mut &stream[..stream.len() - 1], 10), Err(FrameError::Truncated)));
        assert!(matches!(
            read(&mut &stream[..], 6),
            Err(FrameError::TooLarge { bytes: 7, max: 6 })
        ));
        let last = stream.len() - 1;
        stream[last] ^= 1;
        assert!(matches!(read(&mut &stream[..], 10), Err(FrameError::Checksum)));
        stream[0] = 0;
        assert!(matches!(read(&mut &stream[..], 10), Err(FrameError::Start(_))));
    }
}
