//! Everything that a judgement rests on, as data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wherry_runtime::probe::{self, Tried};

use super::disk::Disk;
use super::host::{self, Memory, Rtc, Watchdog};
use crate::config::{CONFIG_PATH, Config, ConfigError, DataDir, RunDir};

/// What is to be checked: the node of a configuration, or of the defaults.
#[derive(Clone, Debug)]
pub struct Subject {
    pub configuration: Configuration,
    pub data: DataDir,
    pub run: RunDir,
    pub cgroup: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    Good {
        path: PathBuf,
        node: String,
    },
    /// None at the usual place, and none was named.
    None,
    Wrong(String),
}

/// One host, at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    pub configuration: Configuration,
    /// Effective user and capabilities (`capabilities(7)`, a bit each);
    /// `None` without `/proc`.
    pub user: Option<(u32, u64)>,
    /// `uname(2)`: release and machine.
    pub kernel: (String, String),
    pub tried: Tried,
    /// Modules that are there, but not loaded, of those that matter here.
    pub modules: BTreeSet<&'static str>,
    pub watchdogs: Vec<Watchdog>,
    /// Seconds since 1970.
    pub clock: i64,
    pub rtc: Option<Rtc>,
    pub data: Disk,
    pub run: Disk,
    pub memory: Option<Memory>,
}

impl Subject {
    /// What `path` says, or the usual place if it is `None`; the defaults
    /// where there is no good configuration.
    #[must_use]
    pub fn load(path: Option<&Path>) -> Self {
        match Config::load(path.unwrap_or(Path::new(CONFIG_PATH))) {
            Ok(config) => {
                let path = path.unwrap_or(Path::new(CONFIG_PATH)).to_owned();
                Self::of(&config, path)
            }
            Err(ConfigError::Read { source, .. })
                if path.is_none() && source.kind() == std::io::ErrorKind::NotFound =>
            {
                Self::defaults(Configuration::None)
            }
            Err(error) => Self::defaults(Configuration::Wrong(error.to_string())),
        }
    }

    #[must_use]
    pub fn of(config: &Config, path: PathBuf) -> Self {
        Self {
            configuration: Configuration::Good { path, node: config.node.to_string() },
            data: config.data.clone(),
            run: config.run.clone(),
            cgroup: config.cgroup.clone(),
        }
    }

    fn defaults(configuration: Configuration) -> Self {
        let (data, run, cgroup) = Config::default_places();
        Self { configuration, data, run, cgroup }
    }
}

impl Facts {
    /// Looks and tries.
    #[must_use]
    pub fn gather(subject: Subject) -> Self {
        let kernel = host::kernel();
        Self {
            user: host::user(),
            modules: host::modules(&kernel.0),
            kernel,
            tried: probe::all(&subject.cgroup),
            watchdogs: host::watchdogs(),
            clock: host::clock(),
            rtc: host::rtc(),
            data: Disk::at(&subject.data.0),
            run: Disk::at(&subject.run.0),
            memory: host::memory(),
            configuration: subject.configuration,
        }
    }
}
