//! What a service says to the manager that started it: that it is ready, that
//! it lives, that it ends. `sd_notify(3)`; the same words go to our own first
//! program ([`crate::init`]) as to systemd.
//!
//! A manager that does not listen is nobody's trouble: nothing here fails.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where the manager listens: a path, or `@` and an abstract name.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// After how many microseconds without a sign of life it acts.
pub const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";
/// Whom that is meant for.
const WATCHDOG_PID_VARIABLE: &str = "WATCHDOG_PID";
/// Signs of life in that time: one may be late.
const BEATS_A_TIMEOUT: u32 = 3;
/// More often than that nobody can want to know.
const BEAT_MIN: Duration = Duration::from_millis(500);

pub const READY: &str = "READY=1";
pub const ALIVE: &str = "WATCHDOG=1";
pub const STOPPING: &str = "STOPPING=1";

/// The way to the manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    is_ready: bool,
}

impl Notifier {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let manager = env::var(SOCKET_VARIABLE).ok().and_then(|place| connect(&place));
        Self { manager, is_ready: false }
    }

    /// The service does what it is for. Said once.
    pub fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            self.say(READY);
        }
    }

    /// The service proves that it lives.
    pub fn alive(&self) {
        self.say(ALIVE);
    }

    pub fn stopping(&self) {
        self.say(STOPPING);
    }

    fn say(&self, text: &str) {
        if let Some((socket, manager)) = &self.manager
            && let Err(error) = socket.send_to_addr(text.as_bytes(), manager)
        {
            log::debug!("telling the service manager {text}: {error}");
        }
    }
}

fn connect(place: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let manager = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(place),
    };
    let socket = UnixDatagram::unbound().and_then(|socket| {
        // The launcher waits for nobody.
        socket.set_nonblocking(true).map(|()| socket)
    });
    match (socket, manager) {
        (Ok(socket), Ok(manager)) => Some((socket, manager)),
        (Err(error), _) | (_, Err(error)) => {
            log::warn!("{SOCKET_VARIABLE}={place}: {error}");
            None
        }
    }
}

/// How often the process `main` (the launcher) has to prove that it lives;
/// `None` if nobody asked.
#[must_use]
pub fn beat_interval(main: u32) -> Option<Duration> {
    let meant = env::var(WATCHDOG_PID_VARIABLE).ok();
    let micros = env::var(WATCHDOG_VARIABLE).ok()?;
    interval(&micros, meant.as_deref(), main)
}

fn interval(micros: &str, meant: Option<&str>, main: u32) -> Option<Duration> {
    if meant.is_some_and(|pid| pid.parse() != Ok(main)) {
        return None;
    }
    let timeout = micros.parse().ok().filter(|micros| *micros > 0).map(Duration::from_micros)?;
    Some((timeout / BEATS_A_TIMEOUT).max(BEAT_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(place: &str, manager: &UnixDatagram) {
        let mut notifier = Notifier { manager: connect(place), is_ready: false };
        notifier.ready();
        notifier.ready();
        notifier.alive();
        notifier.stopping();
        let mut texts = Vec::new();
        let mut buffer = [0; 64];
        manager.set_nonblocking(true).unwrap();
        while let Ok(length) = manager.recv(&mut buffer) {
            texts.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        assert_eq!(texts, [READY, ALIVE, STOPPING]);
    }

    #[test]
    fn a_manager_hears_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        check(path.to_str().unwrap(), &UnixDatagram::bind(&path).unwrap());
        let name = format!("wherry-test-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&format!("@{name}"), &UnixDatagram::bind_addr(&address).unwrap());
    }

    #[test]
    fn a_manager_that_is_not_there_harms_nobody() {
        let mut notifier = Notifier { manager: connect("/wherry-test/none"), is_ready: false };
        notifier.ready();
        notifier.alive();
        Notifier::default().stopping();
    }

    #[test]
    fn beats_come_three_times_as_often_as_they_must() {
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(interval("30000000", None, 7), seconds(10));
        assert_eq!(interval("30000000", Some("7"), 7), seconds(10));
        assert_eq!(interval("30000000", Some("8"), 7), None);
        assert_eq!(interval("0", None, 7), None);
        assert_eq!(interval("soon", None, 7), None);
        assert_eq!(interval("1", None, 7), Some(BEAT_MIN));
    }
}
