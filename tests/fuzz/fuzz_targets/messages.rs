//! Everything that comes over MQTT, on either side. The first byte says what
//! it is taken for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_bundle::message::{
    ChunkData, ChunkGet, Command, EventAck, Events, LogChunk, Message, Reply, Status,
};
use wherry_bundle::metrics::Metrics;
use wherry_bundle::metrics::text::{Labels, render};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, payload)) = bytes.split_first() else { return };
    match kind % 9 {
        0 => decode::<ChunkGet>(payload),
        1 => decode::<ChunkData>(payload),
        2 => decode::<Command>(payload),
        3 => decode::<EventAck>(payload),
        4 => decode::<Events>(payload),
        5 => decode::<LogChunk>(payload),
        6 => decode::<Reply>(payload),
        7 => decode::<Metrics>(payload),
        _ => decode::<Status>(payload),
    }
    if let (7, Ok(metrics)) = (kind % 9, Metrics::from_bytes(payload)) {
        let text = render(&[(Labels::new(), &metrics.tidy())]);
        assert!(text.lines().all(|line| line.starts_with('#') || line.contains(' ')));
    }
});

fn decode<M: Message + PartialEq + std::fmt::Debug>(payload: &[u8]) {
    if let Ok(message) = M::from_bytes(payload) {
        let bytes = message.to_bytes().expect("what was read can be written");
        assert_eq!(M::from_bytes(&bytes).as_ref(), Ok(&message));
    }
}
