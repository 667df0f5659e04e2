//! Files that a person carries: updates, and reports.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_bundle::carrier::{self, Item, ReportItem};
use wherry_bundle::message::Message;

fuzz_target!(|bytes: &[u8]| {
    let again = items::<Item>(bytes);
    // What was read is written as it was, and reads back.
    assert_eq!(items::<Item>(&again), again);
    let again = items::<ReportItem>(bytes);
    assert_eq!(items::<ReportItem>(&again), again);
});

/// All items at the beginning of `file`, written anew.
fn items<M: Message>(mut file: &[u8]) -> Vec<u8> {
    let mut again = Vec::new();
    while let Ok(Some(item)) = carrier::read::<M, _>(&mut file) {
        // One that is larger than allowed when written the shortest way cannot
        // be: it was read.
        carrier::write(&mut again, &item).expect("what was read can be written");
    }
    again
}
