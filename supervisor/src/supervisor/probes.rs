//! When which probe is due, and what its answers come to: Kubernetes' rules
//! over the boot clock.
//!
//! - A startup probe holds the other two back until it has succeeded once.
//! - One try of a probe at a time; the next is due a period after the last
//!   one began.
//! - Thresholds count answers in a row.
//! - A container that was started again begins anew.
//!
//! Pure. Never here: asking, restarting, publishing.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::Name;
use wherry_bundle::health::{self, Check, Probe};
use wherry_core::{Health, Millis};

/// Probes of containers that ran before this supervisor came are spread by
/// this, so that they do not all fire at once.
const SPREAD: Millis = Millis(137);

/// A container, by pod and name.
pub type Target = (Name, Name);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

/// One try of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    pub target: Target,
    pub kind: Kind,
    /// The start of the container that it is about.
    pub started: Millis,
}

/// A try that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub of: Try,
    pub check: Check,
    pub timeout: Millis,
}

/// A container that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    pub pod: &'a Name,
    pub container: &'a Name,
    pub started: Millis,
    pub probes: &'a health::Probes,
    /// It ran before anybody who is here now could ask.
    pub adopted: bool,
}

/// All probes of the node.
#[derive(Debug, Default)]
pub struct Probes {
    tracked: BTreeMap<Target, Tracked>,
}

#[derive(Debug)]
struct Tracked {
    started: Millis,
    adopted: bool,
    startup: Option<Track>,
    liveness: Option<Track>,
    readiness: Option<Track>,
    /// `None`: no probe says anything about it.
    health: Option<Health>,
    /// It is to be restarted.
    is_sick: bool,
}

#[derive(Debug)]
struct Track {
    probe: Probe,
    due: Millis,
    under_way: bool,
    successes: u32,
    failures: u32,
    /// A startup probe that has succeeded.
    is_over: bool,
}

impl Probes {
    /// Takes in which containers run; what no longer does is forgotten.
    pub fn observe<'a>(&mut self, running: impl Iterator<Item = Running<'a>>, now: Millis) {
        let mut seen = BTreeSet::new();
        for container in running.filter(|container| container.probes.iter().next().is_some()) {
            let target = (container.pod.clone(), container.container.clone());
            seen.insert(target.clone());
            let known = self.tracked.get(&target);
            if known.is_none_or(|known| known.started != container.started) {
                let rank = u64::try_from(self.tracked.len()).unwrap_or(u64::MAX);
                let spread = Millis(rank.saturating_mul(SPREAD.0));
                self.tracked.insert(target, Tracked::new(&container, spread, now));
            }
        }
        self.tracked.retain(|target, _| seen.contains(target));
    }

    /// The tries that are due, which count as under way from now on.
    pub fn begin_due(&mut self, now: Millis) -> Vec<Due> {
        let mut all = Vec::new();
        for (target, tracked) in &mut self.tracked {
            let started = tracked.started;
            for (kind, track) in tracked.active() {
                if !track.under_way && track.due <= now {
                    track.under_way = true;
                    track.due = now.saturating_add(seconds(track.probe.period_seconds));
                    let of = Try { target: target.clone(), kind, started };
                    let timeout = seconds(track.probe.timeout_seconds);
                    all.push(Due { of, check: track.probe.check.clone(), timeout });
                }
            }
        }
        all
    }

    /// When something is due next.
    #[must_use]
    pub fn wake_at(&mut self) -> Option<Millis> {
        let tracked = self.tracked.values_mut();
        let waiting = tracked.flat_map(Tracked::active).filter(|(_, track)| !track.under_way);
        waiting.map(|(_, track)| track.due).min()
    }

    /// Takes in what came of a try. True if the container is to be restarted
    /// because of it, and was not before.
    pub fn answered(&mut self, of: &Try, success: bool, now: Millis) -> bool {
        let known = self.tracked.get_mut(&of.target);
        let Some(tracked) = known.filter(|known| known.started == of.started) else {
            return false;
        };
        tracked.answered(of.kind, success, now)
    }

    /// The try could not be made: it is tried again when it is due next.
    pub fn not_tried(&mut self, of: &Try, now: Millis) {
        let known = self.tracked.get_mut(&of.target);
        if let Some(track) =
            known.filter(|known| known.started == of.started).and_then(|known| known.track(of.kind))
        {
            track.under_way = false;
            track.due = track.due.max(now);
        }
    }

    /// What the probes of a pod's containers have come to.
    #[must_use]
    pub fn health_of(&self, pod: &Name) -> BTreeMap<Name, Health> {
        let own = self.tracked.iter().filter(|((of, _), _)| of == pod);
        own.filter_map(|((_, container), t)| Some((container.clone(), t.health?))).collect()
    }

    /// The containers of a pod that are to be restarted.
    #[must_use]
    pub fn sick_of(&self, pod: &Name) -> BTreeSet<Name> {
        let own = self.tracked.iter().filter(|((of, _), tracked)| of == pod && tracked.is_sick);
        own.map(|((_, container), _)| container.clone()).collect()
    }
}

impl Tracked {
    fn new(container: &Running<'_>, spread: Millis, now: Millis) -> Self {
        let Running { started, probes, adopted, .. } = *container;
        let track = |probe: &Option<Probe>| {
            let probe = probe.clone()?;
            let delayed = started.saturating_add(seconds(probe.initial_delay_seconds));
            let period = seconds(probe.period_seconds).0.max(1);
            let later = if adopted { Millis(spread.0 % period) } else { Millis(0) };
            let due = delayed.max(now.saturating_add(later));
            let (under_way, is_over) = (false, false);
            Some(Track { probe, due, under_way, successes: 0, failures: 0, is_over })
        };
        let asked = probes.startup.is_some() || probes.readiness.is_some();
        let health = if adopted { Health::Unknown } else { Health::NotReady };
        Self {
            started,
            adopted,
            startup: track(&probes.startup),
            liveness: track(&probes.liveness),
            readiness: track(&probes.readiness),
            health: asked.then_some(health),
            is_sick: false,
        }
    }

    /// The probes that are tried at this stage.
    fn active(&mut self) -> impl Iterator<Item = (Kind, &mut Track)> {
        let starts = self.startup.as_ref().is_some_and(|startup| !startup.is_over);
        let is_sick = self.is_sick;
        let all = [
            (Kind::Startup, self.startup.as_mut()),
            (Kind::Liveness, self.liveness.as_mut()),
            (Kind::Readiness, self.readiness.as_mut()),
        ];
        all.into_iter()
            .filter(move |(kind, _)| !is_sick && (*kind == Kind::Startup) == starts)
            .filter_map(|(kind, track)| Some((kind, track?)))
    }

    fn track(&mut self, kind: Kind) -> Option<&mut Track> {
        match kind {
            Kind::Startup => self.startup.as_mut(),
            Kind::Liveness => self.liveness.as_mut(),
            Kind::Readiness => self.readiness.as_mut(),
        }
    }

    fn answered(&mut self, kind: Kind, success: bool, now: Millis) -> bool {
        let Some(track) = self.track(kind) else { return false };
        track.under_way = false;
        track.due = track.due.max(now);
        if success {
            track.failures = 0;
            track.successes = track.successes.saturating_add(1);
        } else {
            track.successes = 0;
            track.failures = track.failures.saturating_add(1);
        }
        let passed = track.successes >= track.probe.success_threshold;
        let failed = track.failures >= track.probe.failure_threshold;
        match kind {
            Kind::Startup if passed => {
                track.is_over = true;
                if self.readiness.is_none() {
                    self.is_ready(now);
                }
                false
            }
            Kind::Readiness if passed => {
                self.is_ready(now);
                false
            }
            Kind::Readiness => {
                if failed {
                    self.health = Some(Health::NotReady);
                }
                false
            }
            Kind::Startup | Kind::Liveness => {
                let news = failed && !self.is_sick;
                self.is_sick |= failed;
                news
            }
        }
    }

    fn is_ready(&mut self, now: Millis) {
        match self.health {
            Some(Health::Ready { .. }) => {}
            // It was so before anybody could ask.
            Some(Health::Unknown) if self.adopted => {
                self.health = Some(Health::Ready { since: self.started });
            }
            Some(Health::Unknown | Health::NotReady) | None => {
                self.health = Some(Health::Ready { since: now });
            }
        }
    }
}

fn seconds(seconds: u32) -> Millis {
    Millis(u64::from(seconds).saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::sample::name;

    fn probe(delay: u32, successes: u32, failures: u32) -> Probe {
        Probe {
            check: Check::TcpConnect { port: 80 },
            initial_delay_seconds: delay,
            period_seconds: 10,
            timeout_seconds: 1,
            success_threshold: successes,
            failure_threshold: failures,
        }
    }

    struct Site {
        all: Probes,
        pod: Name,
        container: Name,
        probes: health::Probes,
        started: Millis,
        adopted: bool,
    }

    impl Site {
        fn new(probes: health::Probes, adopted: bool) -> Self {
            let (pod, container) = (name("web-1"), name("main"));
            let (all, started) = (Probes::default(), Millis(1_000));
            Self { all, pod, container, probes, started, adopted }
        }

        /// What is due at `now`.
        fn due(&mut self, now: u64) -> Vec<Kind> {
            let running = Running {
                pod: &self.pod,
                container: &self.container,
                started: self.started,
                probes: &self.probes,
                adopted: self.adopted,
            };
            self.all.observe(std::iter::once(running), Millis(now));
            self.all.begin_due(Millis(now)).into_iter().map(|due| due.of.kind).collect()
        }

        fn says(&mut self, kind: Kind, success: bool, now: u64) -> bool {
            let target = (self.pod.clone(), self.container.clone());
            self.all.answered(&Try { target, kind, started: self.started }, success, Millis(now))
        }

        fn health(&self) -> Option<Health> {
            self.all.health_of(&self.pod).get(&self.container).copied()
        }

        fn wakes(&mut self) -> Option<u64> {
            self.all.wake_at().map(|at| at.0)
        }
    }

    #[test]
    fn readiness_needs_its_successes_in_a_row_and_is_lost_by_its_failures() {
        let readiness = Some(probe(2, 2, 2));
        let mut site = Site::new(health::Probes { readiness, ..Default::default() }, false);
        assert_eq!(site.due(1_000), []);
        assert_eq!((site.health(), site.wakes()), (Some(Health::NotReady), Some(3_000)));
        assert_eq!(site.due(3_000), [Kind::Readiness]);
        assert_eq!((site.due(60_000), site.wakes()), (vec![], None), "one at a time");
        site.says(Kind::Readiness, true, 3_100);
        assert_eq!((site.health(), site.wakes()), (Some(Health::NotReady), Some(13_000)));
        for (at, success, health) in [
            (13_000, false, Health::NotReady),
            (23_000, true, Health::NotReady),
            (33_000, true, Health::Ready { since: Millis(33_100) }),
            (43_000, false, Health::Ready { since: Millis(33_100) }),
            (53_000, true, Health::Ready { since: Millis(33_100) }),
            (63_000, false, Health::Ready { since: Millis(33_100) }),
            (73_000, false, Health::NotReady),
        ] {
            assert_eq!(site.due(at), [Kind::Readiness], "{at}");
            assert!(!site.says(Kind::Readiness, success, at + 100));
            assert_eq!(site.health(), Some(health), "{at}");
        }
        assert_eq!(site.all.sick_of(&site.pod), BTreeSet::new());
    }

    #[test]
    fn a_startup_probe_holds_the_others_back() {
        let probes = health::Probes {
            startup: Some(probe(0, 1, 3)),
            liveness: Some(probe(5, 1, 1)),
            readiness: Some(probe(0, 1, 1)),
        };
        let mut site = Site::new(probes, false);
        assert_eq!(site.due(1_000), [Kind::Startup]);
        assert!(!site.says(Kind::Startup, false, 1_100));
        assert_eq!(site.due(11_000), [Kind::Startup]);
        assert!(!site.says(Kind::Startup, true, 12_000));
        assert_eq!(site.due(12_000), [Kind::Liveness, Kind::Readiness]);
        site.says(Kind::Readiness, true, 12_100);
        assert_eq!(site.health(), Some(Health::Ready { since: Millis(12_100) }));
        assert!(site.says(Kind::Liveness, false, 13_000), "told once");
        assert_eq!(site.all.sick_of(&site.pod), BTreeSet::from([site.container.clone()]));
        assert_eq!((site.due(90_000), site.wakes()), (vec![], None), "nothing more to ask");
        // Started again, all begins anew; an answer from before means nothing.
        let old = site.started;
        site.started = Millis(100_000);
        assert_eq!(site.due(100_000), [Kind::Startup]);
        assert_eq!(site.health(), Some(Health::NotReady));
        let target = (site.pod.clone(), site.container.clone());
        let late = Try { target, kind: Kind::Startup, started: old };
        site.all.answered(&late, true, Millis(100_100));
        assert_eq!(site.due(110_000), []);
    }

    #[test]
    fn a_startup_that_never_comes_is_sick_in_the_end() {
        let startup = Some(probe(0, 1, 2));
        let mut site = Site::new(health::Probes { startup, ..Default::default() }, false);
        assert_eq!(site.due(1_000), [Kind::Startup]);
        assert!(!site.says(Kind::Startup, false, 2_000));
        assert_eq!(site.due(11_000), [Kind::Startup]);
        assert!(site.says(Kind::Startup, false, 12_000));
    }

    #[test]
    fn what_ran_before_is_unknown_until_it_was_asked() {
        let readiness = Some(probe(0, 1, 2));
        let mut site = Site::new(health::Probes { readiness, ..Default::default() }, true);
        assert_eq!(site.due(50_000), [Kind::Readiness]);
        assert_eq!(site.health(), Some(Health::Unknown));
        site.says(Kind::Readiness, false, 50_100);
        assert_eq!(site.health(), Some(Health::Unknown));
        assert_eq!(site.due(60_000), [Kind::Readiness]);
        site.says(Kind::Readiness, true, 60_100);
        assert_eq!(site.health(), Some(Health::Ready { since: site.started }));
    }

    #[test]
    fn what_was_not_tried_counts_neither_way() {
        let liveness = Some(probe(0, 1, 1));
        let mut site = Site::new(health::Probes { liveness, ..Default::default() }, false);
        let target = (site.pod.clone(), site.container.clone());
        let of = Try { target, kind: Kind::Liveness, started: site.started };
        for at in [1_000, 11_000, 21_000] {
            assert_eq!(site.due(at), [Kind::Liveness]);
            site.all.not_tried(&of, Millis(at + 10));
            assert_eq!(site.wakes(), Some(at + 10_000));
        }
        assert_eq!(site.all.sick_of(&site.pod), BTreeSet::new());
    }

    #[test]
    fn a_try_that_took_longer_than_the_period_is_followed_at_once() {
        let liveness = Some(probe(0, 1, 9));
        let mut site = Site::new(health::Probes { liveness, ..Default::default() }, false);
        assert_eq!(site.health(), None, "no word about readiness");
        assert_eq!(site.due(1_000), [Kind::Liveness]);
        site.says(Kind::Liveness, false, 31_000);
        assert_eq!(site.wakes(), Some(31_000));
    }
}
