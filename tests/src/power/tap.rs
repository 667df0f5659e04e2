//! A relay between node and broker that reads along.
//!
//! What goes up is noted with the length that the disk's record has *before*
//! the broker gets it, and what comes down before the node gets it: whatever
//! a mark says had happened when the record was that long, and what follows
//! from it had not.
//! Never here: a change of what is relayed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use wherry_bundle::message::{EventAck, Events, Message, Status};
use wherry_bundle::topic::Topic;
use wherry_bundle::{Name, envelope};

use super::marks::{Mark, Told};
use super::packets::{Packet, Packets};
use crate::host::{Host, Side, WAN_ADDRESS};

/// Where the node finds its broker instead of 1883.
pub const PORT: u16 = 1893;
const READ_BYTES: usize = 64 * 1024;

/// A relay that lives until the process ends.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The record of the disk's writes.
    record: PathBuf,
    node: Name,
    marks: Mutex<Vec<Mark>>,
    line: Mutex<Line>,
}

/// The way to the broker.
#[derive(Debug, Default)]
struct Line {
    is_cut: bool,
    /// Both ends of what goes over it now.
    ends: Vec<TcpStream>,
}

impl Tap {
    /// Listens in the wan namespace, on every address, and relays to the
    /// cloud's own broker there.
    ///
    /// # Errors
    /// The port is taken.
    pub fn open(host: &Host, node: &str, record: &Path) -> Result<Self> {
        let shared = Arc::new(Shared {
            record: record.to_owned(),
            node: Name::new(node)?,
            marks: Mutex::new(Vec::new()),
            line: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        host.inside(Side::Wan, move || {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).context("the tap's port")?;
            // Threads are in the namespace of the one that made them.
            thread::spawn(move || accept(&listener, &for_thread));
            Ok(())
        })?;
        Ok(Self { shared })
    }

    /// All that was told so far, in order.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        self.shared.marks().clone()
    }

    /// Cuts the node off from the broker, until [`Self::mend_line`].
    pub fn cut_line(&self) {
        let mut line = self.shared.line();
        line.is_cut = true;
        for end in line.ends.drain(..) {
            // It fails when the other side was faster.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Lets the node come back.
    pub fn mend_line(&self) {
        self.shared.line().is_cut = false;
    }

    /// Notes that the node has so many events waiting, durably.
    pub fn note_queued(&self, count: u64) {
        self.shared.note(Told::Queued(count));
    }

    /// Whether the node said that `generation` runs.
    #[must_use]
    pub fn has_run(&self, generation: u64) -> bool {
        self.shared.marks().iter().any(|mark| mark.told == Told::Running(generation))
    }
}

impl Shared {
    fn marks(&self) -> MutexGuard<'_, Vec<Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, told: Told) {
        let position = std::fs::metadata(&self.record).map_or(0, |file| file.len());
        let mut marks = self.marks();
        marks.push(Mark { position, told });
    }
}

impl Line {
    /// False: it was cut meanwhile. The node has one connection at a time;
    /// those before are over.
    fn keep(&mut self, ends: [&TcpStream; 2]) -> bool {
        let ends: io::Result<Vec<TcpStream>> = ends.map(TcpStream::try_clone).into_iter().collect();
        self.ends = ends.unwrap_or_default();
        !self.is_cut && !self.ends.is_empty()
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for node in listener.incoming().flatten() {
        if shared.line().is_cut {
            continue;
        }
        // No broker: the node finds its connection closed.
        let Ok(broker) = TcpStream::connect((WAN_ADDRESS, 1883)) else { continue };
        let (Ok(node_2), Ok(broker_2)) = (node.try_clone(), broker.try_clone()) else { continue };
        if !shared.line().keep([&node, &broker]) {
            continue;
        }
        let up = Arc::new(Connection { shared: Arc::clone(shared), desired: Mutex::default() });
        let down = Arc::clone(&up);
        thread::spawn(move || {
            let _ = relay(node, broker, |packet| up.note_up(packet));
        });
        thread::spawn(move || {
            let _ = relay(broker_2, node_2, |packet| down.note_down(packet));
        });
    }
}

/// Until one side closes; then both are closed.
fn relay(mut from: TcpStream, mut to: TcpStream, note: impl Fn(&Packet)) -> io::Result<()> {
    let mut packets = Packets::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        let bytes = &buffer[..length];
        packets.push(bytes);
        while let Some(packet) = packets.next_packet() {
            note(&packet);
        }
        if length == 0 || to.write_all(bytes).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return to.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    /// Generations that the node has not confirmed, by packet id.
    desired: Mutex<BTreeMap<u16, u64>>,
}

impl Connection {
    fn desired(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.desired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_up(&self, packet: &Packet) {
        match packet {
            Packet::PubAck { id } => {
                if let Some(generation) = self.desired().remove(id) {
                    self.shared.note(Told::TakenUp(generation));
                }
            }
            Packet::Publish { topic, payload, .. } => match Topic::parse(topic) {
                Some((_, Topic::Status)) => self.note_status(payload),
                Some((_, Topic::Event)) => {
                    if let Ok(Events(events)) = Events::from_bytes(payload) {
                        self.shared.note(Told::Events(events));
                    }
                }
                _ => {}
            },
            Packet::Other => {}
        }
    }

    fn note_status(&self, payload: &[u8]) {
        let Ok(Status::Online(status)) = Status::from_bytes(payload) else { return };
        self.shared.note(Told::TakenUp(status.generation.0));
        if status.phase.is_running() {
            self.shared.note(Told::Running(status.generation.0));
        }
    }

    fn note_down(&self, packet: &Packet) {
        let Packet::Publish { topic, id, payload } = packet else { return };
        match Topic::parse(topic) {
            Some((_, Topic::Desired)) => {
                let Ok(bundle) = envelope::open_kept(payload, &self.shared.node) else { return };
                self.desired().insert(*id, bundle.generation.0);
                self.shared.note(Told::Issued(bundle.generation.0));
            }
            Some((_, Topic::EventAck)) => {
                if let Ok(ack) = EventAck::from_bytes(payload) {
                    self.shared.note(Told::Acked(ack.seq));
                }
            }
            _ => {}
        }
    }
}
