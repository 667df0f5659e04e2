//! Which commands were already passed on: the broker may deliver one twice.

use std::collections::VecDeque;

/// Ids that are remembered: far more than can be under way at once.
const IDS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct SeenCommands {
    ids: VecDeque<u64>,
}

impl SeenCommands {
    /// False if `id` is among the last ones.
    pub fn is_new(&mut self, id: u64) -> bool {
        if self.ids.contains(&id) {
            return false;
        }
        if self.ids.len() == IDS_MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_once_while_it_is_remembered() {
        let mut seen = SeenCommands::default();
        assert!(seen.is_new(1));
        assert!(!seen.is_new(1));
        for id in 2..2 + IDS_MAX as u64 {
            assert!(seen.is_new(id));
        }
        assert!(seen.is_new(1));
        assert_eq!(seen.ids.len(), IDS_MAX);
    }
}
