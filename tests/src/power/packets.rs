//! MQTT 3.1.1 packets in a stream of bytes, as far as a reader needs them
//! (OASIS standard, sections 2.2, 3.3 and 3.4).

use std::ops::Range;

/// More than the largest packet that a node or its cloud sends.
const PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `id` is 0 with quality of service 0.
    Publish {
        topic: String,
        id: u16,
        payload: Vec<u8>,
    },
    PubAck {
        id: u16,
    },
    Other,
}

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub struct Packets {
    bytes: Vec<u8>,
}

impl Packets {
    /// What cannot be a packet any more is forgotten.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.bytes.len() > PENDING_BYTES_MAX {
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next one that is there whole.
    pub fn next_packet(&mut self) -> Option<Packet> {
        let (header, body) = frame(&self.bytes)?;
        let end = body.end;
        let packet = parse(header, self.bytes.get(body)?).unwrap_or(Packet::Other);
        self.bytes.drain(..end);
        Some(packet)
    }
}

/// The first byte, and where the part behind the length is; `None` if it is
/// not all there.
fn frame(bytes: &[u8]) -> Option<(u8, Range<usize>)> {
    let &header = bytes.first()?;
    let mut length = 0;
    for (index, shift) in [0, 7, 14, 21].into_iter().enumerate() {
        let &byte = bytes.get(1 + index)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let start = 2 + index;
            return (bytes.len() >= start + length).then_some((header, start..start + length));
        }
    }
    None
}

fn parse(header: u8, body: &[u8]) -> Option<Packet> {
    match header >> 4 {
        3 => {
            let (topic_bytes, rest) = number(body)?;
            let (topic, rest) = rest.split_at_checked(usize::from(topic_bytes))?;
            let (id, payload) = if header & 0b110 == 0 { (0, rest) } else { number(rest)? };
            let topic = String::from_utf8_lossy(topic).into_owned();
            Some(Packet::Publish { topic, id, payload: payload.to_vec() })
        }
        4 => Some(Packet::PubAck { id: number(body)?.0 }),
        _ => Some(Packet::Other),
    }
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_however_the_bytes_come() {
        let mut long = vec![0x32, 0x83, 0x01, 0, 3, b'a', b'/', b'b', 0, 9];
        long.extend([7; 124]);
        let stream: Vec<u8> =
            [&[0xc0, 0][..], &long, &[0x40, 2, 0, 9], &[0x30, 4, 0, 1, b't', b'x']].concat();
        let publish = |topic: &str, id, payload: Vec<u8>| {
            let topic = topic.into();
            Packet::Publish { topic, id, payload }
        };
        let wanted = [
            Packet::Other,
            publish("a/b", 9, vec![7; 124]),
            Packet::PubAck { id: 9 },
            publish("t", 0, b"x".to_vec()),
        ];
        for step in [1, 3, 200] {
            let mut packets = Packets::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(step) {
                packets.push(bytes);
                found.extend(std::iter::from_fn(|| packets.next_packet()));
            }
            assert_eq!(found, wanted);
        }
    }
}
