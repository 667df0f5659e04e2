//! A program that is kept running: when to start it, by what became of it.
//! Pure but for [`Keeper::start`]'s callback.

use nix::unistd::Pid;

/// Between an end and the next start: soon at first, then rarely, so that a
/// program that cannot run costs next to nothing.
const RESTART_MILLIS_FIRST: u64 = 200;
const RESTART_MILLIS_MAX: u64 = 30_000;
/// After running so long an end counts as the first again.
const STABLE_MILLIS: u64 = 60_000;

/// One program. All times are milliseconds on the boot clock.
#[derive(Debug)]
pub struct Keeper {
    name: String,
    state: State,
    attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting {
        start_at: u64,
    },
    Running {
        pid: Pid,
        since: u64,
    },
    /// Not to be started (again).
    Held,
}

impl Keeper {
    /// To be started at `start_at`.
    #[must_use]
    pub fn new(name: String, start_at: u64) -> Self {
        Self { name, state: State::Waiting { start_at }, attempt: 0 }
    }

    /// Not started before [`Keeper::release`].
    #[must_use]
    pub fn held(name: String) -> Self {
        Self { name, state: State::Held, attempt: 0 }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Waiting { .. } | State::Held => None,
        }
    }

    #[must_use]
    pub fn start_at(&self) -> Option<u64> {
        match self.state {
            State::Waiting { start_at } => Some(start_at),
            State::Running { .. } | State::Held => None,
        }
    }

    #[must_use]
    pub fn is_due(&self, now: u64) -> bool {
        self.start_at().is_some_and(|at| at <= now)
    }

    /// Starts it by `start`; a failure counts as its end.
    pub fn start(&mut self, now: u64, start: impl FnOnce() -> std::io::Result<Pid>) {
        match start() {
            Ok(pid) => {
                log::info!("{} started, pid {pid}", self.name);
                self.state = State::Running { pid, since: now };
            }
            Err(error) => {
                log::error!("starting {}: {error}", self.name);
                self.state = State::Waiting { start_at: now + self.delay() };
            }
        }
    }

    /// Its process ended.
    pub fn ended(&mut self, now: u64) {
        match self.state {
            State::Running { since, .. } => {
                if now.saturating_sub(since) >= STABLE_MILLIS {
                    self.attempt = 0;
                }
                self.state = State::Waiting { start_at: now + self.delay() };
            }
            State::Waiting { .. } | State::Held => {}
        }
    }

    /// Is not started again; what runs goes on.
    pub fn hold(&mut self) {
        if let State::Waiting { .. } = self.state {
            self.state = State::Held;
        }
    }

    /// May be started from now on.
    pub fn release(&mut self, now: u64) {
        if self.state == State::Held {
            self.state = State::Waiting { start_at: now };
        }
    }

    fn delay(&mut self) -> u64 {
        let delay = RESTART_MILLIS_FIRST.saturating_mul(1 << self.attempt.min(16));
        self.attempt = self.attempt.saturating_add(1);
        delay.min(RESTART_MILLIS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keeper: &mut Keeper, at: u64) {
        keeper.start(at, || Ok(Pid::from_raw(7)));
    }

    #[test]
    fn back_off_grows_and_is_forgotten() {
        let mut keeper = Keeper::new("getty".into(), 0);
        assert!(keeper.is_due(0));
        let mut delays = Vec::new();
        for _ in 0..10 {
            run(&mut keeper, 1000);
            assert_eq!((keeper.pid(), keeper.start_at()), (Some(Pid::from_raw(7)), None));
            keeper.ended(1000);
            delays.push(keeper.start_at().unwrap() - 1000);
        }
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        run(&mut keeper, 1000);
        keeper.ended(1000 + STABLE_MILLIS);
        assert_eq!(keeper.start_at(), Some(1000 + STABLE_MILLIS + 200));
    }

    #[test]
    fn what_cannot_be_started_is_tried_again() {
        let mut keeper = Keeper::new("getty".into(), 0);
        keeper.start(50, || Err(std::io::ErrorKind::NotFound.into()));
        assert!(!keeper.is_due(249) && keeper.is_due(250));
    }

    #[test]
    fn what_is_held_waits_for_its_release() {
        let mut keeper = Keeper::held("launcher".into());
        assert!(!keeper.is_due(u64::MAX));
        keeper.release(5);
        assert!(keeper.is_due(5));
        run(&mut keeper, 5);
        keeper.hold();
        assert!(keeper.pid().is_some(), "what runs goes on");
        keeper.ended(6);
        keeper.hold();
        assert!(!keeper.is_due(u64::MAX));
    }
}
