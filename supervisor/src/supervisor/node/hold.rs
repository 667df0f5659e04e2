//! Newer generations that are kept back: by an operator, by a program of the
//! site, or until an update window.
//!
//! Only before they are taken up; what is under way goes through. No hold
//! outlasts what the version allows, counted on the boot clock. A held bundle
//! is kept in RAM: the broker has it too, and brings it again.

use std::fs;
use std::path::Path;

use wherry_bundle::Bundle;
use wherry_bundle::limits::cut;
use wherry_bundle::message::{EventKind, Held};
use wherry_core::Millis;

use super::Node;
use crate::clock;
use crate::window::CLOCK_SET_SECONDS_MIN;

/// Between looks at what holds it.
const LOOK_AGAIN: Millis = Millis(10_000);
/// Of a hold file, for people.
const REASON_BYTES_MAX: usize = 100;

/// A bundle that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    bundle: Box<Bundle>,
    envelope: Vec<u8>,
    /// No hold counts any more from then on.
    until: Millis,
    held: Held,
}

impl Node {
    /// Keeps `bundle` back if something holds it; else gives it back.
    pub(super) fn hold(
        &mut self,
        bundle: Box<Bundle>,
        envelope: Vec<u8>,
        now: Millis,
    ) -> Option<(Box<Bundle>, Vec<u8>)> {
        let known = self.waiting.take().filter(|w| w.bundle.generation == bundle.generation);
        let longest = Millis(u64::from(bundle.upgrade.hold_seconds_max).saturating_mul(1_000));
        let until = known.as_ref().map_or(now.saturating_add(longest), |waiting| waiting.until);
        // A node that runs nothing has nothing that a hold could protect.
        let by = self.held_by().filter(|_| self.bundle.is_some() && now < until);
        let Some(by) = by else { return Some((bundle, envelope)) };
        let held = Held { generation: bundle.generation, by };
        if known.is_none_or(|known| known.held != held) {
            let text = format!("generation {} is held: {}", held.generation, held.by);
            self.tell(EventKind::GenerationHeld, "", &text, now);
        }
        self.waiting = Some(Waiting { bundle, envelope, until, held });
        None
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.waiting.as_ref().map(|waiting| &waiting.held)
    }

    /// Takes up what waits once nothing holds it; when to look again.
    pub(super) fn end_hold(&mut self, now: Millis) -> Option<Millis> {
        let Waiting { bundle, envelope, until, .. } = self.waiting.as_ref()?;
        if self.held_by().is_some() && now < *until && now < self.look_again {
            return Some(self.look_again.min(*until));
        }
        self.look_again = now.saturating_add(LOOK_AGAIN);
        let (bundle, envelope) = (bundle.clone(), envelope.clone());
        match self.hold(bundle, envelope, now) {
            Some((bundle, envelope)) => {
                self.take_up(*bundle, envelope, None, now);
                None
            }
            None => Some(self.look_again),
        }
    }

    /// What waits is forgotten: something else came.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting = None;
    }

    /// Who or what holds newer generations at the moment.
    fn held_by(&self) -> Option<String> {
        if self.config.run.hold().exists() {
            return Some("an operator (`wherry release` lets it go)".into());
        }
        let update = &self.config.update;
        if let Some(path) = update.hold_files.iter().find(|path| path.exists()) {
            return Some(format!("{}{}", path.display(), reason(path)));
        }
        if update.windows.is_empty() {
            return None;
        }
        let wall = clock::wall_now().seconds();
        if wall < CLOCK_SET_SECONDS_MIN {
            return Some("its clock is not set: nobody knows its update windows".into());
        }
        let local = update.zone.local_seconds(i64::try_from(wall).unwrap_or(i64::MAX));
        let open = update.windows.iter().any(|window| window.is_open(local));
        (!open).then(|| "outside of its update windows".into())
    }

    /// Makes or ends an operator's hold.
    pub(super) fn set_hold(&mut self, hold: bool) -> Result<(), String> {
        let path = self.config.run.hold();
        let done = if hold { fs::write(&path, "") } else { remove(&path) };
        // What follows is decided at once.
        self.look_again = Millis(0);
        done.map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The first line of a hold file.
fn reason(path: &Path) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(REASON_BYTES_MAX as u64).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text).into_owned();
    match (read, text.lines().next()) {
        (Ok(_), Some(line)) => format!(" ({})", cut(line, REASON_BYTES_MAX)),
        (Ok(_) | Err(_), _) => String::new(),
    }
}
