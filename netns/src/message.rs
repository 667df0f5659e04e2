//! Netlink messages as bytes: one builder, one reader. Pure.
//!
//! Format: netlink(7), `linux/netlink.h`. Headers and most of rtnetlink are in
//! the host's byte order; nfnetlink's numbers are big-endian. Lengths include
//! their own header; everything starts at a multiple of four.

use std::net::Ipv4Addr;

/// Of `nlmsghdr`: length, type, flags, sequence number, port.
pub const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const NESTED: u16 = 1 << 15;
const NET_BYTE_ORDER: u16 = 1 << 14;

/// One message under construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `flags` are `NLM_F_*`; `header` is what follows `nlmsghdr` for this
    /// kind (`ifinfomsg`, `nfgenmsg`…).
    pub fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&low16(flags).to_ne_bytes());
        bytes.extend_from_slice(header);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    /// A message of an nfnetlink subsystem. `nfgenmsg`: family, version,
    /// resource (big-endian).
    pub fn nfnetlink(subsystem: i32, kind: i32, flags: i32, family: i32, resource: i32) -> Self {
        let [.., family] = family.to_be_bytes();
        let [_, _, high, low] = resource.to_be_bytes();
        Self::new(low16(subsystem << 8 | kind), flags, &[family, 0, high, low])
    }

    pub fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = narrow(ATTRIBUTE_HEADER_BYTES + payload.len());
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    /// A string with the NUL that the kernel wants.
    pub fn text(self, kind: u16, text: &str) -> Self {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat())
    }

    /// In the host's byte order: rtnetlink.
    pub fn u32(self, kind: u16, number: u32) -> Self {
        self.attribute(kind, &number.to_ne_bytes())
    }

    /// The low 32 bits, big-endian: nfnetlink. The kernel's names for numbers
    /// are signed in C, counts and ids are not.
    pub fn be32(self, kind: u16, number: impl Into<i64>) -> Self {
        let [_, _, _, _, bytes @ ..] = number.into().to_be_bytes();
        self.attribute(kind, &bytes)
    }

    pub fn address(self, kind: u16, address: Ipv4Addr) -> Self {
        self.attribute(kind, &address.octets())
    }

    /// An attribute that holds attributes.
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = narrow(filled.bytes.len() - start);
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Bytes as they are, for a header inside an attribute.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The message as it is sent.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    /// Sets more `NLM_F_*` flags.
    pub fn flag(mut self, flag: i32) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | low16(flag);
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Types and flags are C `int`s by name, and 16 bits wide in a message.
fn low16(number: i32) -> u16 {
    let [_, _, bytes @ ..] = number.to_be_bytes();
    u16::from_be_bytes(bytes)
}

/// Lengths inside a message fit 16 bits because all that goes in is bounded
/// (the longest is a map over [`crate::service::PODS_MAX`] pods).
fn narrow(number: usize) -> u16 {
    assert!(number <= usize::from(u16::MAX), "a netlink attribute of {number} bytes");
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub kind: u16,
    pub sequence: u32,
    /// What follows `nlmsghdr`.
    pub body: &'a [u8],
}

impl Received<'_> {
    /// Of an `NLMSG_ERROR`: the errno, 0 for an acknowledgement.
    pub fn error(&self) -> Option<i32> {
        let code = self.body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes).saturating_neg());
        code.filter(|_| i32::from(self.kind) == libc::NLMSG_ERROR)
    }
}

/// The messages of one packet; ends at the first that is malformed.
pub fn messages(mut packet: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(packet, 0)?).ok()?;
        // The kernel may return a truncated copy of what it refuses.
        let body = packet.get(HEADER_BYTES..length.min(packet.len()))?;
        let kind = u16::from_ne_bytes(*packet.get(4..)?.first_chunk()?);
        let received = Received { kind, sequence: u32_at(packet, 8)?, body };
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    })
}

/// The attributes in `bytes`; ends at the first that is malformed.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let payload = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !(NESTED | NET_BYTE_ORDER), payload))
    })
}

pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, payload)| payload)
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A NUL-terminated string.
pub fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn golden_message() {
        let bytes = Message::new(0x10, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &[0; 4])
            .text(3, "lo")
            .nested(18, |nested| nested.u32(1, 7).be32(2, 7))
            .finish(9);
        let expected = [
            48, 0, 0, 0, 0x10, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            0, 0, 0, 0, // header
            7, 0, 3, 0, b'l', b'o', 0, 0, // padded string
            20, 0, 18, 0x80, 8, 0, 1, 0, 7, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 7,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn reads_what_it_writes() {
        let first = Message::new(5, 0, &[1, 2, 3, 4]).text(3, "x").nested(18, |n| n.u32(1, 7));
        let packet = [first.finish(1), Message::new(6, 0, &[]).finish(2)].concat();
        let read: Vec<_> = messages(&packet).collect();
        assert_eq!(read.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(5, 1), (6, 2)]);
        assert_eq!(text_of(find(&read[0].body[4..], 3).unwrap()), "x");
        let nested = find(&read[0].body[4..], 18).unwrap();
        assert_eq!(find(nested, 1), Some(&7u32.to_ne_bytes()[..]));
    }

    #[test]
    fn every_truncation_ends_quietly() {
        let whole = Message::new(5, 0, &[0; 4]).text(3, "name").u32(4, 1).finish(1);
        for end in 0..whole.len() {
            for message in messages(&whole[..end]) {
                attributes(message.body.get(4..).unwrap_or_default()).for_each(drop);
            }
        }
        // Lengths of zero must not make a reader spin.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}
