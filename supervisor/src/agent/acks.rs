//! Confirmations in the order of arrival.
//!
//! MQTT 3.1.1 asks for that order (section 4.6) and some brokers end the
//! connection otherwise. A desired envelope is confirmed when the supervisor
//! has stored it; what arrived after it waits behind.

use std::collections::VecDeque;

/// Packet ids of received messages of one connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    packet_id: u16,
    done: bool,
}

impl Acks {
    /// A message with quality of service 0 has id 0 and is not confirmed.
    pub fn received(&mut self, packet_id: u16) {
        if packet_id != 0 {
            self.waiting.push_back(Waiting { packet_id, done: false });
        }
    }

    pub fn done(&mut self, packet_id: u16) {
        let found = self.waiting.iter_mut().find(|w| w.packet_id == packet_id && !w.done);
        if let Some(waiting) = found {
            waiting.done = true;
        }
    }

    /// The next one that may be sent.
    pub fn next(&mut self) -> Option<u16> {
        let packet_id = self.waiting.front().filter(|waiting| waiting.done)?.packet_id;
        self.waiting.pop_front();
        Some(packet_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_one_holds_back_those_behind_it() {
        let mut acks = Acks::default();
        for packet_id in [0, 7, 8, 9] {
            acks.received(packet_id);
        }
        acks.done(8);
        acks.done(0);
        assert_eq!(acks.next(), None);
        acks.done(7);
        assert_eq!([acks.next(), acks.next(), acks.next()], [Some(7), Some(8), None]);
    }
}
