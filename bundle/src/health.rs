//! How a container's health is asked after, how it is asked to stop, and what
//! an upgrade is measured by.
//!
//! Kubernetes' fields and meanings. Only the model and its bounds: running a
//! probe is the node's, judging its results the reconciler's.

use serde::{Deserialize, Serialize};

use crate::limits::{PROBE_COUNT_MAX, PROBE_SECONDS_MAX};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Until it has succeeded once, the other two are not run.
    pub startup: Option<Probe>,
    /// Its failure has the container restarted.
    pub liveness: Option<Probe>,
    /// Says whether the container may be led connections.
    pub readiness: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub check: Check,
    pub initial_delay_seconds: u32,
    /// At least 1, as all below.
    pub period_seconds: u32,
    /// What hangs is killed after this long, and has failed.
    pub timeout_seconds: u32,
    /// In a row; always 1 for startup and liveness.
    pub success_threshold: u32,
    /// In a row.
    pub failure_threshold: u32,
}

/// What a probe does, inside the pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// A command in the container; exit code 0 is success.
    Exec { args: Vec<String> },
    /// Any status from 200 to 399 is success.
    HttpGet { port: u16, path: String, headers: Vec<(String, String)> },
    /// A connection is success.
    TcpConnect { port: u16 },
}

/// What is done in a container before its stop signal; its time counts
/// against the grace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreStop {
    Run(Check),
    Sleep { seconds: u32 },
}

/// When a generation is good, and when it has failed, apart from each
/// deployment's own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradePolicy {
    /// All pods have to be available for this long on end.
    pub stable_seconds: u32,
    /// More boots than these since it was taken up, before it was good, mean
    /// that it keeps the node from running.
    pub boots_max: u32,
    /// No hold keeps it back for longer.
    pub hold_seconds_max: u32,
}

impl Default for UpgradePolicy {
    /// A minute; three boots, since gateways are switched off by people too;
    /// a day.
    fn default() -> Self {
        Self { stable_seconds: 60, boots_max: 3, hold_seconds_max: 86_400 }
    }
}

impl UpgradePolicy {
    /// What satisfies both: applications of one node are upgraded together.
    #[must_use]
    pub fn patient_as(self, other: Self) -> Self {
        Self {
            stable_seconds: self.stable_seconds.max(other.stable_seconds),
            boots_max: self.boots_max.max(other.boots_max),
            hold_seconds_max: self.hold_seconds_max.max(other.hold_seconds_max),
        }
    }
}

impl Probes {
    /// Each probe there is, with the field's name in a template.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Probe)> {
        let Self { startup, liveness, readiness } = self;
        [("startupProbe", startup), ("livenessProbe", liveness), ("readinessProbe", readiness)]
            .into_iter()
            .filter_map(|(name, probe)| Some((name, probe.as_ref()?)))
    }

    /// What is wrong, and in which probe.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        self.iter().find_map(|(name, probe)| {
            let once = name != "readinessProbe" && probe.success_threshold != 1;
            let once = once.then(|| "successThreshold must be 1 here".to_owned());
            Some((name, once.or_else(|| probe.fault())?))
        })
    }
}

impl Probe {
    fn fault(&self) -> Option<String> {
        let seconds = [
            ("initialDelaySeconds", self.initial_delay_seconds, 0, PROBE_SECONDS_MAX),
            ("periodSeconds", self.period_seconds, 1, PROBE_SECONDS_MAX),
            ("timeoutSeconds", self.timeout_seconds, 1, PROBE_SECONDS_MAX),
            ("successThreshold", self.success_threshold, 1, PROBE_COUNT_MAX),
            ("failureThreshold", self.failure_threshold, 1, PROBE_COUNT_MAX),
        ];
        seconds
            .into_iter()
            .find(|(_, value, low, high)| !(low..=high).contains(&value))
            .map(|(field, _, low, high)| format!("{field} must be {low} to {high}"))
            .or_else(|| self.check.fault())
    }
}

impl Check {
    /// Sizes of words are checked with those of the command line.
    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            Self::Exec { args } if args.is_empty() => Some("the command is empty".into()),
            Self::HttpGet { port: 0, .. } | Self::TcpConnect { port: 0 } => {
                Some("a port must be 1 to 65535".into())
            }
            Self::HttpGet { path, headers, .. } => {
                let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
                let header = |(name, value): &(String, String)| {
                    !name.is_empty()
                        && plain(name)
                        && !name.contains(':')
                        && value.chars().all(|c| c == ' ' || c.is_ascii_graphic())
                };
                if !path.starts_with('/') || !plain(path) {
                    Some(format!("`{path}` is not a plain absolute path"))
                } else if !headers.iter().all(header) {
                    Some("a header must be plain ASCII on one line".into())
                } else {
                    None
                }
            }
            Self::Exec { .. } | Self::TcpConnect { .. } => None,
        }
    }

    /// All free text in it, to be bounded.
    pub(crate) fn words(&self) -> Vec<&String> {
        match self {
            Self::Exec { args } => args.iter().collect(),
            Self::HttpGet { path, headers, .. } => {
                let headers = headers.iter().flat_map(|(name, value)| [name, value]);
                std::iter::once(path).chain(headers).collect()
            }
            Self::TcpConnect { .. } => Vec::new(),
        }
    }
}
