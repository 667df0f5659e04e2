//! Which system calls a container may make: Kubernetes' `RuntimeDefault`, as a
//! program for the kernel's filter (`seccomp(2)`).
//!
//! `table` says what is allowed and on which terms, `policy` what follows for
//! one architecture and one set of capabilities, `compile` makes the program;
//! all of that is pure. The C library for it (libseccomp) would have
//! to be built for each target, and the crate without it knows no 32-bit ARM.
//! Never here: deciding who may be without it.

mod compile;
mod policy;
mod table;
#[cfg(test)]
mod tests;

use std::io;

use wherry_bundle::model::Seccomp;

use crate::proto::ContainerSpec;
use crate::sys;
use policy::Architecture;

/// Why a filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): {0}")]
    NoFilters(io::Error),
    #[error("seccomp: {0}")]
    Refused(io::Error),
}

impl From<FilterError> for io::Error {
    fn from(error: FilterError) -> Self {
        let (FilterError::NoFilters(source) | FilterError::Refused(source)) = error;
        source
    }
}

/// A program of the kernel's filter.
#[derive(Clone, Debug)]
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// What a container's programs get, if anything.
    #[must_use]
    pub fn of_container(spec: &ContainerSpec) -> Option<Self> {
        match spec.seccomp {
            Seccomp::RuntimeDefault => Some(Self::runtime_default(spec.capabilities)),
            Seccomp::Unconfined => None,
        }
    }

    /// What Kubernetes calls `RuntimeDefault`, for a container that holds
    /// `capabilities` (bit `n` is number `n` of `capability.h`).
    #[must_use]
    pub fn runtime_default(capabilities: u64) -> Self {
        Self::of(Architecture::OWN, capabilities)
    }

    fn of(architecture: Architecture, capabilities: u64) -> Self {
        let spans = policy::spans(architecture, capabilities);
        Self(compile::program(architecture.audit_number(), &spans))
    }

    /// Binds this process, and all that it executes, for good. It must not be
    /// able to gain privileges (`PR_SET_NO_NEW_PRIVS`), and have one thread.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn install(&self) -> Result<(), FilterError> {
        sys::set_seccomp_filter(&self.0).map_err(|error| match error.raw_os_error() {
            // Without CONFIG_SECCOMP, and with that alone.
            Some(libc::ENOSYS | libc::EINVAL) => FilterError::NoFilters(error),
            _ => FilterError::Refused(error),
        })
    }
}
