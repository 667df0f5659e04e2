//! Facts → rows. Pure: the same facts, the same rows.

mod cgroups;
mod containers;
mod host;
mod kernel;
mod network;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use wherry_runtime::probe::{Obstacle, Trial};

use super::facts::Facts;
use super::{Report, Row, State};

pub use cgroups::missing;
pub use containers::filesystems;
pub use kernel::process;
pub use network::network;

/// What every judgement takes into account.
#[derive(Clone, Debug)]
pub struct Context {
    /// Whether a refusal is final: root gets no further.
    pub is_root: bool,
    /// Modules that are there, but not loaded.
    pub modules: BTreeSet<&'static str>,
}

/// How much Wherry needs something.
#[derive(Clone, Copy, Debug)]
enum Weight {
    Needed,
    Wanted,
}

/// Something that was tried.
struct Case<'a> {
    name: &'static str,
    weight: Weight,
    trial: &'a Trial<()>,
    /// To be said when it works.
    found: String,
    /// What a lack means and what to do.
    meaning: &'a str,
    /// Kernel modules by which it may come.
    modules: &'a [&'static str],
}

/// The whole page.
#[must_use]
pub fn judge(facts: &Facts) -> Report {
    let context = Context {
        is_root: facts.user.is_none_or(|(user, _)| user == 0),
        modules: facts.modules.clone(),
    };
    let mut rows = vec![
        host::configuration(&facts.configuration),
        kernel::privileges(facts.user),
        kernel::version(&facts.kernel),
    ];
    rows.extend(process(&context, &facts.tried.process));
    rows.extend(containers::namespaces(&context, &facts.tried.namespaces));
    rows.extend(cgroups::cgroups(&context, &facts.tried.cgroups));
    rows.extend(filesystems(&context, &facts.tried.filesystems));
    rows.extend(network(&context, &facts.tried.network));
    rows.push(host::watchdog(&facts.watchdogs, &facts.modules));
    rows.push(host::clock(facts.clock));
    rows.push(host::rtc(facts.rtc.as_ref(), facts.clock));
    rows.push(host::data(&facts.data, context.is_root));
    rows.push(host::run(&facts.run, context.is_root));
    rows.push(host::memory(facts.memory));
    Report { rows }
}

impl Context {
    fn row(&self, case: Case<'_>) -> Row {
        let Case { name, weight, trial, found, meaning, modules } = case;
        let obstacle = match trial {
            Ok(()) => return ok(name, found),
            Err(obstacle) => obstacle,
        };
        let is_denied = matches!(obstacle, Obstacle::Refused { errno, .. }
            if [libc::EPERM, libc::EACCES].contains(errno));
        let (state, meaning) = if is_denied && !self.is_root {
            (State::Unknown, "run `wherry check` as root to find out".to_owned())
        } else if is_denied {
            (weight.lack(), format!("{meaning}; what runs this process forbids it"))
        } else if obstacle.is_lack() {
            (weight.lack(), format!("{meaning}{}", self.hint(modules)))
        } else {
            (State::Unknown, String::new())
        };
        Row { name, state, found: obstacle.to_string(), meaning }
    }

    /// A kernel without a module loader has them, and yet has not.
    fn hint(&self, modules: &[&'static str]) -> String {
        let there: Vec<&str> =
            modules.iter().copied().filter(|module| self.modules.contains(module)).collect();
        match there.as_slice() {
            [] => String::new(),
            there => format!("; not loaded, but there as modules: {}", there.join(" ")),
        }
    }
}

impl Weight {
    fn lack(self) -> State {
        match self {
            Self::Needed => State::Lacking,
            Self::Wanted => State::Degraded,
        }
    }
}

fn ok(name: &'static str, found: impl Into<String>) -> Row {
    Row { name, state: State::Ok, found: found.into(), meaning: String::new() }
}

fn bad(name: &'static str, state: State, found: impl Into<String>, meaning: &str) -> Row {
    Row { name, state, found: found.into(), meaning: meaning.to_owned() }
}

/// A part of what one child tried; its own failure is every part's.
fn part<T>(whole: &Trial<T>, pick: impl FnOnce(&T) -> Trial<()>) -> Trial<()> {
    match whole {
        Ok(whole) => pick(whole),
        Err(denied @ Obstacle::Refused { errno, .. }) if *errno == libc::EPERM => {
            Err(denied.clone())
        }
        Err(Obstacle::TimedOut) => Err(Obstacle::TimedOut),
        Err(obstacle) => Err(Obstacle::NotTried(obstacle.to_string())),
    }
}
