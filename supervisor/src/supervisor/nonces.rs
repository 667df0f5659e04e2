//! Numbers for orders of the cloud that must not come late, or twice.
//!
//! A broker keeps an order for a node that is away, and who listens can send
//! one again. An order that holds a number of these was made shortly after it
//! was given out, by this supervisor, and is taken once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};

use wherry_bundle::exec::Nonce;
use wherry_core::Millis;

/// Given out and not used: the oldest makes room.
const NONCES_MAX: usize = 8;
/// The cloud needs one for one message to come and go, on a thin uplink.
const LIFE: Millis = Millis(60_000);
/// The kernel's random numbers, see random(4).
const RANDOM: &str = "/dev/urandom";

#[derive(Debug, Default)]
pub struct Nonces {
    /// Until when each is good, on the boot clock.
    given: VecDeque<(Nonce, Millis)>,
}

impl Nonces {
    /// # Errors
    /// The machine has no random numbers.
    pub fn give(&mut self, now: Millis) -> io::Result<Nonce> {
        let mut bytes = [0; 16];
        File::open(RANDOM)?.read_exact(&mut bytes)?;
        let nonce = Nonce(bytes);
        if self.given.len() >= NONCES_MAX {
            self.given.pop_front();
        }
        self.given.push_back((nonce, now.saturating_add(LIFE)));
        Ok(nonce)
    }

    /// Whether it is a good one; it is none any more.
    pub fn take(&mut self, nonce: Nonce, now: Millis) -> bool {
        self.given.retain(|(_, until)| *until > now);
        let at = self.given.iter().position(|(given, _)| *given == nonce);
        at.is_some_and(|at| self.given.remove(at).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_good_once_and_for_a_while() {
        let mut nonces = Nonces::default();
        let [one, two] = [1, 2].map(|now| nonces.give(Millis(now)).unwrap());
        assert!(one != two && !nonces.take(Nonce([0; 16]), Millis(3)));
        assert!(nonces.take(two, Millis(3)) && !nonces.take(two, Millis(3)));
        assert!(!nonces.take(one, Millis(1 + LIFE.0)), "it is too old");
        let many: Vec<Nonce> = (0..=NONCES_MAX).map(|_| nonces.give(Millis(5)).unwrap()).collect();
        assert_eq!(nonces.given.len(), NONCES_MAX);
        assert!(!nonces.take(many[0], Millis(6)) && nonces.take(many[NONCES_MAX], Millis(6)));
    }
}
