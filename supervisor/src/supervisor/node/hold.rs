//! Newer generations that are kept back: by an operator, by a program of the
//! site, or until an update window.
//!
//! Only before they are taken up; what is under way goes through. A hold by
//! somebody does not outlast what the version allows: who made it may be gone.
//! A window is waited for as long as that takes. The time of a hold is counted
//! on the boot clock from when it began to keep that generation back, and a
//! supervisor that comes back goes on counting; a reboot begins anew. A held
//! bundle is kept in RAM: the broker has it too, and brings it again.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wherry_bundle::limits::cut;
use wherry_bundle::message::{EventKind, Held};
use wherry_bundle::{Bundle, Generation};
use wherry_core::Millis;

use super::Node;
use crate::clock;
use crate::config::Update;
use crate::supervisor::run_file;
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
    /// What holds it counts no more from then on; `None`: a window.
    until: Option<Millis>,
    held: Held,
}

/// What keeps newer generations back, for people.
enum Hold {
    /// An operator or a program.
    Somebody(String),
    /// Outside of the update windows.
    Window(String),
}

/// Since when somebody keeps a generation back: in the run folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Since {
    generation: Generation,
    at: Millis,
}

impl Since {
    /// Changes whenever the postcard form of this type does.
    const SCHEMA: u8 = 1;
}

impl Node {
    /// Keeps `bundle` back if something holds it; else gives it back.
    pub(super) fn hold(
        &mut self,
        bundle: Box<Bundle>,
        envelope: Vec<u8>,
        now: Millis,
    ) -> Option<(Box<Bundle>, Vec<u8>)> {
        let generation = bundle.generation;
        let known = self.waiting.take().filter(|waiting| waiting.held.generation == generation);
        // A node that runs nothing has nothing that a hold could protect.
        let hold = self.found_hold(generation).filter(|_| self.bundle.is_some());
        let (by, until) = match hold {
            None => return Some((bundle, envelope)),
            Some(Hold::Window(by)) => (by, None),
            Some(Hold::Somebody(by)) => {
                let longest = u64::from(bundle.upgrade.hold_seconds_max).saturating_mul(1_000);
                let until = self.held_since(generation, now).saturating_add(Millis(longest));
                if until <= now {
                    return Some((bundle, envelope));
                }
                (by, Some(until))
            }
        };
        let held = Held { generation, by };
        if known.is_none_or(|known| known.held != held) {
            let text = format!("generation {generation} is held: {}", held.by);
            self.tell(EventKind::GenerationHeld, "", &text, now);
        }
        self.waiting = Some(Waiting { bundle, envelope, until, held });
        None
    }

    /// Since when somebody holds `generation`: since now, if nobody did yet.
    fn held_since(&self, generation: Generation, now: Millis) -> Millis {
        let path = self.config.run.held_since();
        let kept = run_file::load::<Since>(Since::SCHEMA, &path).unwrap_or_else(|error| {
            log::warn!("since when generation {generation} is held is not known: {error}");
            None
        });
        if let Some(kept) = kept.filter(|kept| kept.generation == generation && kept.at <= now) {
            return kept.at;
        }
        let since = Since { generation, at: now };
        if let Err(error) = run_file::save(Since::SCHEMA, &path, &since) {
            log::warn!("since when generation {generation} is held is not kept: {error}");
        }
        now
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.waiting.as_ref().map(|waiting| &waiting.held)
    }

    /// Takes up what waits once nothing holds it; when to look again.
    pub(super) fn end_hold(&mut self, now: Millis) -> Option<Millis> {
        let Waiting { bundle, envelope, until, held } = self.waiting.as_ref()?;
        let look_at = self.look_again.min(until.unwrap_or(self.look_again));
        if now < look_at && self.found_hold(held.generation).is_some() {
            return Some(look_at);
        }
        self.look_again = now.saturating_add(LOOK_AGAIN);
        let (bundle, envelope) = (bundle.clone(), envelope.clone());
        match self.hold(bundle, envelope, now) {
            Some((bundle, envelope)) => {
                self.take_up(*bundle, envelope, None, now);
                None
            }
            None => {
                let until = self.waiting.as_ref().and_then(|waiting| waiting.until);
                Some(self.look_again.min(until.unwrap_or(self.look_again)))
            }
        }
    }

    /// What waits is forgotten: something else came.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting = None;
    }

    /// Who or what holds `generation` at the moment. Windows first: the time
    /// of somebody's hold is not to run out while one is waited for.
    fn found_hold(&self, generation: Generation) -> Option<Hold> {
        let update = &self.config.update;
        // Whoever brought it stands beside the gateway and means now.
        if self.brought != Some(generation)
            && let Some(by) = closed(update)
        {
            return Some(Hold::Window(by.into()));
        }
        if self.config.run.hold().exists() {
            return Some(Hold::Somebody("an operator (`wherry release` lets it go)".into()));
        }
        let path = update.hold_files.iter().find(|path| path.exists())?;
        Some(Hold::Somebody(format!("{}{}", path.display(), reason(path))))
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

/// Why no update window is open; `None` if one is, or there are none.
fn closed(update: &Update) -> Option<&'static str> {
    if update.windows.is_empty() {
        return None;
    }
    let wall = clock::wall_now().seconds();
    if wall < CLOCK_SET_SECONDS_MIN {
        return Some("its clock is not set: nobody knows its update windows");
    }
    let local = update.zone.local_seconds(i64::try_from(wall).unwrap_or(i64::MAX));
    let open = update.windows.iter().any(|window| window.is_open(local));
    (!open).then_some("outside of its update windows")
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
