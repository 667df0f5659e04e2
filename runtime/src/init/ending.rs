//! The end of the machine as a sequence of bounded phases. Pure.

use super::sys::Down;

/// Pods get their grace, from the reconciler, and everything they were is
/// taken down; longer graces than that the machine does not wait for.
pub const PODS_MILLIS_MAX: u64 = 90_000;
/// From SIGTERM to the launcher, if asking did not help: its own supervisor
/// has five seconds to close its store.
pub const LAUNCHER_MILLIS_MAX: u64 = 8_000;
/// From SIGTERM to SIGKILL for everybody else.
pub const TERM_MILLIS_MAX: u64 = 5_000;
/// A process that outlives SIGKILL waits for a device that will not answer.
pub const KILL_MILLIS_MAX: u64 = 3_000;
/// Writing back to a slow flash, and unmounting.
pub const UNMOUNT_MILLIS_MAX: u64 = 60_000;
/// All together.
pub const END_MILLIS_MAX: u64 =
    PODS_MILLIS_MAX + LAUNCHER_MILLIS_MAX + TERM_MILLIS_MAX + KILL_MILLIS_MAX + UNMOUNT_MILLIS_MAX;

/// What is waited for. Each phase begins with what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The node was asked to stop its pods and to end.
    Pods,
    /// SIGTERM to the launcher.
    Launcher,
    /// SIGTERM to everybody.
    Term,
    /// SIGKILL to everybody.
    Kill,
    /// Nobody is left, or nobody who can be helped: unmount, and down.
    Down,
}

/// What the first program sees of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub launcher_runs: bool,
    /// The command that asks the node to stop is at work.
    pub asking: bool,
    /// There is no process left.
    pub alone: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub down: Down,
    phase: Phase,
    deadline_millis: u64,
}

impl Ending {
    /// Begins at `now` (boot clock).
    #[must_use]
    pub fn begin(down: Down, now: u64) -> Self {
        Self { down, phase: Phase::Pods, deadline_millis: now + PODS_MILLIS_MAX }
    }

    #[must_use]
    pub fn deadline_millis(&self) -> u64 {
        self.deadline_millis
    }

    /// The next phase, if this one is over; to be asked again until there is
    /// none.
    pub fn advance(&mut self, seen: Seen, now: u64) -> Option<Phase> {
        let over = now >= self.deadline_millis;
        let (next, millis) = match self.phase {
            Phase::Pods if !seen.launcher_runs => (Phase::Term, TERM_MILLIS_MAX),
            // The command failed: nobody is there who could be asked.
            Phase::Pods if over || !seen.asking => (Phase::Launcher, LAUNCHER_MILLIS_MAX),
            Phase::Launcher if over || !seen.launcher_runs => (Phase::Term, TERM_MILLIS_MAX),
            Phase::Term if seen.alone => (Phase::Down, UNMOUNT_MILLIS_MAX),
            Phase::Term if over => (Phase::Kill, KILL_MILLIS_MAX),
            Phase::Kill if over || seen.alone => (Phase::Down, UNMOUNT_MILLIS_MAX),
            Phase::Pods | Phase::Launcher | Phase::Term | Phase::Kill | Phase::Down => return None,
        };
        self.phase = next;
        self.deadline_millis = now + millis;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Seen = Seen { launcher_runs: true, asking: true, alone: false };

    fn phases(seen: impl Fn(u64) -> Seen) -> Vec<(u64, Phase)> {
        let mut ending = Ending::begin(Down::Reboot, 0);
        let mut phases = Vec::new();
        for now in (0..=END_MILLIS_MAX).step_by(500) {
            while let Some(phase) = ending.advance(seen(now), now) {
                phases.push((now, phase));
            }
        }
        phases
    }

    #[test]
    fn an_orderly_end_waits_for_nobody_twice() {
        let seen = |now| Seen { launcher_runs: now < 4000, asking: now < 4500, alone: now >= 5000 };
        assert_eq!(phases(seen), [(4000, Phase::Term), (5000, Phase::Down)]);
    }

    #[test]
    fn who_does_not_answer_is_ended_step_by_step() {
        // The command gives up after two seconds; the launcher hears SIGTERM.
        let seen = |now| Seen { launcher_runs: now < 3000, asking: now < 2000, alone: now > 9000 };
        assert_eq!(
            phases(seen),
            [
                (2000, Phase::Launcher),
                (3000, Phase::Term),
                (8000, Phase::Kill),
                (9500, Phase::Down)
            ]
        );
    }

    #[test]
    fn nobody_can_keep_the_machine_from_going_down() {
        let all = phases(|_| BUSY);
        let order: Vec<_> = all.iter().map(|(_, phase)| *phase).collect();
        assert_eq!(order, [Phase::Launcher, Phase::Term, Phase::Kill, Phase::Down]);
        assert!(all.last().unwrap().0 <= END_MILLIS_MAX - UNMOUNT_MILLIS_MAX + 1500);
    }

    #[test]
    fn without_a_launcher_there_is_nothing_to_ask() {
        let seen = |_| Seen { launcher_runs: false, asking: false, alone: true };
        assert_eq!(phases(seen), [(0, Phase::Term), (0, Phase::Down)]);
    }
}
