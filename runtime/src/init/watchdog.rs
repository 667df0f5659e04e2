//! The hardware watchdog: fed only while launcher and supervisor prove that
//! they live. `Documentation/watchdog/watchdog-api.rst` of the kernel.
//!
//! [`Policy`] decides and is pure, [`Device`] is the file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::config::Watchdog;
use super::sys;

/// Proofs in the time after which the machine would be reset: one may be
/// late.
const PROOFS_A_TIMEOUT: u64 = 3;
/// Without a proof for this many timeouts the watchdog is left to do its
/// work: a supervisor that crashes is back long before.
const PATIENCE_TIMEOUTS: u64 = 2;
/// From the end of booting to the first proof: the store may have to be put
/// in order on a slow flash.
const FIRST_PROOF_MILLIS_MAX: u64 = 120_000;

/// When to feed. All times are milliseconds on the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    timeout_millis: u64,
    fed_at: u64,
    /// Until when it is fed without another proof.
    trusted_until: u64,
}

impl Policy {
    /// Begins at `now`, with the device just opened, which feeds it.
    #[must_use]
    pub fn new(timeout_seconds: u32, now: u64) -> Self {
        let timeout_millis = u64::from(timeout_seconds.max(1)) * 1000;
        Self { timeout_millis, fed_at: now, trusted_until: now + FIRST_PROOF_MILLIS_MAX }
    }

    /// How often launcher and supervisor are to prove that they live.
    #[must_use]
    pub fn proof_interval_millis(&self) -> u64 {
        self.timeout_millis / PROOFS_A_TIMEOUT
    }

    #[must_use]
    pub fn timeout_millis(&self) -> u64 {
        self.timeout_millis
    }

    /// Something bounded goes on for at most `millis` during which there can
    /// be no proof: booting, ending.
    pub fn trust_for(&mut self, millis: u64, now: u64) {
        self.trusted_until = self.trusted_until.max(now.saturating_add(millis));
    }

    /// Booting is over: proofs have to come.
    pub fn booted(&mut self, now: u64) {
        self.trusted_until = now + FIRST_PROOF_MILLIS_MAX;
    }

    /// A proof came; true if the device is to be fed now, which spares a
    /// wake-up of its own.
    pub fn proved(&mut self, now: u64) -> bool {
        self.trusted_until = now + PATIENCE_TIMEOUTS * self.timeout_millis;
        let due = now >= self.fed_at + self.proof_interval_millis() / 2;
        if due {
            self.fed_at = now;
        }
        due
    }

    /// When to look again; `None`: not before the next proof.
    #[must_use]
    pub fn next(&self, now: u64) -> Option<u64> {
        (now <= self.trusted_until).then(|| self.fed_at + self.timeout_millis / 2)
    }

    /// True if the device is to be fed now, for want of a proof in time.
    pub fn is_due(&mut self, now: u64) -> bool {
        let due = self.next(now).is_some_and(|at| at <= now);
        if due {
            self.fed_at = now;
        }
        due
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {source}")]
pub struct WatchdogError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// An open, and so running, watchdog.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    policy: Policy,
    refused: bool,
}

impl Device {
    /// Opens it, which starts it, and sets its time.
    ///
    /// # Errors
    /// There is none, or somebody else has it.
    pub fn open(config: &Watchdog, now: u64) -> Result<Self, WatchdogError> {
        let fail = |what, source| WatchdogError { what, path: config.device.clone(), source };
        let file = File::options().write(true).open(&config.device);
        let file = file.map_err(|source| fail("opening the watchdog", source))?;
        let timeout = match sys::watchdog_set_timeout(file.as_fd(), config.timeout_seconds) {
            Ok(seconds) => seconds,
            Err(error) => {
                let path = config.device.display();
                log::warn!("{path}: its time cannot be set and is taken for right: {error}");
                config.timeout_seconds
            }
        };
        let policy = Policy::new(timeout, now);
        log::info!("watchdog {}: {timeout} s", config.device.display());
        Ok(Self { file, path: config.device.clone(), policy, refused: false })
    }

    pub fn policy(&mut self) -> &mut Policy {
        &mut self.policy
    }

    /// A proof came.
    pub fn proved(&mut self, now: u64) {
        if self.policy.proved(now) {
            self.feed();
        }
    }

    /// Feeds it if the policy says so; when to look again.
    pub fn tick(&mut self, now: u64) -> Option<u64> {
        let was_trusted = self.policy.next(now).is_some();
        if self.policy.is_due(now) {
            self.feed();
        }
        if !was_trusted && !self.refused {
            self.refused = true;
            log::error!(
                "launcher or supervisor do not prove that they live: the watchdog is left to reset the machine"
            );
        } else if was_trusted {
            self.refused = false;
        }
        self.policy.next(now)
    }

    fn feed(&mut self) {
        // What is no real device (a driver without the request) takes a write.
        let fed = sys::watchdog_feed(self.file.as_fd()).or_else(|_| self.file.write_all(b"\0"));
        if let Err(error) = fed {
            log::error!("feeding {}: {error}", self.path.display());
        }
    }

    /// Stops it, where the driver lets itself be stopped: the machine is
    /// switched off. The "magic close".
    pub fn stop(mut self) {
        if let Err(error) = self.file.write_all(b"V") {
            log::warn!("stopping {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which it is fed from 0 to `until` seconds, with proofs at
    /// `proofs`.
    fn fed(policy: &mut Policy, until: u64, proofs: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut times = Vec::new();
        for second in 0..=until {
            let now = second * 1000;
            let by_proof = proofs(second) && policy.proved(now);
            if by_proof || policy.is_due(now) {
                times.push(second);
            }
        }
        times
    }

    #[test]
    fn proofs_feed_it_and_no_timer_runs_beside_them() {
        let mut policy = Policy::new(30, 0);
        policy.booted(0);
        assert_eq!(policy.proof_interval_millis(), 10_000);
        let times = fed(&mut policy, 100, |second| second % 10 == 0);
        assert_eq!(times, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert!(policy.next(100_000) > Some(110_000));
    }

    #[test]
    fn it_starves_when_proofs_stay_away() {
        let mut policy = Policy::new(30, 0);
        let times = fed(&mut policy, 400, |second| second <= 100 && second % 10 == 0);
        let last = times.last().copied().unwrap();
        assert!((130..=160).contains(&last), "{times:?}");
        assert_eq!(policy.next(400_000), None);
        // It would be fed again: who proves itself late is alive.
        assert!(policy.proved(400_000));
    }

    #[test]
    fn a_machine_that_never_comes_up_starves_it_too() {
        let mut policy = Policy::new(30, 0);
        policy.trust_for(300_000, 0);
        policy.booted(40_000);
        let times = fed(&mut policy, 1000, |_| false);
        let last = times.last().copied().unwrap();
        assert!((145..=160).contains(&last), "{times:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] < 30), "{times:?}");
    }

    #[test]
    fn a_device_is_fed_and_stopped_by_the_letter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let config = Watchdog { device: path.clone(), timeout_seconds: 9 };
        let mut device = Device::open(&config, 0).unwrap();
        device.proved(3_000);
        device.proved(3_001);
        assert_eq!(std::fs::read(&path).unwrap(), b"\0", "the second proof came too soon");
        device.tick(7_500);
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0");
        assert_eq!(device.tick(60_000), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0");
        device.stop();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0V");
        assert!(
            Device::open(&Watchdog { device: folder.path().join("none"), ..config }, 0).is_err()
        );
    }
}
