//! The last code of ours in a container: executes its program.
//!
//! libcontainer's own executor cannot tell its caller that execve(2) failed.
//! This one reports on a close-on-exec pipe: its end without a word means
//! that the program runs. The filter of system calls is installed right here,
//! after everything that it would forbid.

use std::ffi::CString;
use std::io::Write;
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

use crate::seccomp::Filter;

/// Executes the spec's program; if that fails, says so on the pipe.
#[derive(Clone, Debug)]
pub struct ReportingExecutor {
    report: Arc<std::io::PipeWriter>,
    filter: Option<Filter>,
}

impl ReportingExecutor {
    /// `report` must be close-on-exec, as Rust's pipes are.
    #[must_use]
    pub fn new(report: std::io::PipeWriter, filter: Option<Filter>) -> Self {
        Self { report: Arc::new(report), filter }
    }

    /// If the launcher is gone, so is everyone who would want to know.
    fn failed(&self, text: String) -> ExecutorError {
        let _ = (&*self.report).write_all(text.as_bytes());
        ExecutorError::Other(text)
    }
}

impl Executor for ReportingExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|process| process.args().as_deref());
        let words: Vec<CString> = args
            .unwrap_or_default()
            .iter()
            .filter_map(|word| CString::new(word.as_bytes()).ok())
            .collect();
        let Some(program) = words.first() else { return Err(ExecutorError::InvalidArg) };
        if let Some(Err(error)) = self.filter.as_ref().map(Filter::install) {
            return Err(self.failed(format!("filtering its system calls: {error}")));
        }
        // Looks along PATH, which is the container's by now.
        let Err(errno) = nix::unistd::execvp(program, &words);
        Err(self.failed(format!("executing `{}`: {errno}", program.to_string_lossy())))
    }

    /// Nothing to check beforehand: executing is the test.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }
}
