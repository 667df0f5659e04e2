//! A machine that runs: commands, files, its network cable, its power, and
//! what it said. Dropping it ends QEMU and removes its folder. Every failure
//! carries a transcript.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{End, Process};
use crate::qmp::{PowerOff, Qmp};
use crate::shell::{self, Output, Request, Shell};
use crate::transcript::{self, Transcript, Trouble};
use crate::{boot, modules, packages, qemu, qmp, tree};

/// More than the machine's own limit of a command that its answer may take:
/// an emulated machine may be busy.
const ANSWER_EXTRA: Duration = Duration::from_secs(15);
/// How long moving a file may take.
const FILE_LIMIT: Duration = Duration::from_secs(120);
/// The status of a command that SIGKILL ended.
const KILLED: i32 = 128 + 9;
/// How long SIGKILL may take, and QEMU's end after a shell's.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why a machine does not boot, or what went wrong in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kernel or busybox cannot be had.
    #[error("cannot get the machine's packages")]
    Packages(#[from] packages::Error),
    /// A file of theirs.
    #[error("cannot use the machine's packages")]
    Tree(#[from] tree::Error),
    /// A module.
    #[error("cannot put the machine's modules together")]
    Modules(#[from] modules::Error),
    /// The emulator is not there.
    #[error(
        "{program} is not there: install {package} (`apt-get install --no-install-recommends {package}`)"
    )]
    NoEmulator {
        /// What was looked for.
        program: String,
        /// Debian's package.
        package: &'static str,
    },
    /// The caller's description cannot be booted.
    #[error("the machine cannot be booted so: {0}")]
    Description(String),
    /// A file system error.
    #[error("{}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Talking to QEMU failed.
    #[error("cannot control QEMU")]
    Qmp(#[from] qmp::Error),
    /// Something went wrong in the machine.
    #[error("{what}{}\n{transcript}", said(trouble.as_ref()))]
    Failed {
        /// What did not work.
        what: String,
        /// What the kernel says about it.
        trouble: Option<Trouble>,
        /// The kernel's last lines and the shell's.
        transcript: String,
    },
}

fn said(trouble: Option<&Trouble>) -> String {
    trouble.map_or_else(String::new, |trouble| format!(": {trouble}"))
}

/// A running machine.
#[derive(Debug)]
pub struct Rig {
    pub(crate) process: Process,
    pub(crate) parts: Parts,
    pub(crate) qmp: Qmp,
    pub(crate) shell: Mutex<Shell>,
    pub(crate) terminal: Mutex<UnixStream>,
}

/// What there is of a machine before it speaks.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) folder: Folder,
    pub(crate) files: qemu::Files,
    pub(crate) transcript: Mutex<Transcript>,
    pub(crate) started: Instant,
    pub(crate) time_limit: Duration,
    pub(crate) cut: AtomicBool,
}

/// The rig's folder, which goes with it unless it is to be kept.
#[derive(Debug)]
pub(crate) enum Folder {
    Removed(TempDir),
    Kept(PathBuf),
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Removed(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

impl crate::Machine {
    /// Boots it; returns when its shell answers.
    ///
    /// # Errors
    /// Something that it is made of cannot be had, or it does not come up in
    /// `boot_limit`: then with its transcript.
    pub fn boot(&self) -> Result<Rig, Error> {
        boot::boot(self)
    }
}

impl Rig {
    /// Runs a command to its end; the machine kills it after `timeout`
    /// (whole seconds, rounded up). A word is a word: no shell reads them.
    /// What it starts and leaves behind must not write to its own output: see
    /// [`Self::start`].
    ///
    /// # Errors
    /// It ran longer, or the machine is no more; an exit status other than 0
    /// is none.
    pub fn run(&self, words: &[&str], timeout: Duration) -> Result<Output, Error> {
        lock(&self.parts.transcript).command(words);
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let begin = Instant::now();
        let what = || format!("`{}`", words.join(" "));
        let output = self.ask(&Request::Run { words, seconds }, timeout + ANSWER_EXTRA, &what)?;
        if output.status == KILLED && begin.elapsed() >= timeout {
            let what = format!("{} did not end within {timeout:?}", what());
            return Err(self.parts.failed(what));
        }
        Ok(output)
    }

    /// As [`Self::run`]; its standard output, if it exits 0.
    ///
    /// # Errors
    /// Also any other exit status, with everything that it wrote.
    pub fn check(&self, words: &[&str], timeout: Duration) -> Result<String, Error> {
        let output = self.run(words, timeout)?;
        if output.status != 0 {
            let what = format!("`{}` exits with {}", words.join(" "), output.status);
            return Err(self.parts.failed(what));
        }
        Ok(output.text())
    }

    /// Starts a command that runs on, in a session of its own, its output and
    /// errors in the machine's file `log`; its process id.
    ///
    /// # Errors
    /// The machine is no more.
    pub fn start(&self, words: &[&str], log: &str) -> Result<u32, Error> {
        lock(&self.parts.transcript).command(words);
        let what = || format!("`{}`", words.join(" "));
        let output = self.ask(&Request::Start { words, file: log }, ANSWER_EXTRA, &what)?;
        let pid = output.text().trim().parse();
        pid.map_err(|_| self.parts.failed(format!("{} has no process id", what())))
    }

    /// Makes a file in the machine, and the folders above it; under its name
    /// it is there whole or not at all.
    ///
    /// # Errors
    /// No room, or the machine is no more.
    pub fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        lock(&self.parts.transcript).note(&format!("put {path}, {} bytes", content.len()));
        let what = || format!("writing {path}");
        let output = self.ask(&Request::Put { path, mode, content }, FILE_LIMIT, &what)?;
        if output.status != 0 {
            return Err(self.parts.failed(what()));
        }
        Ok(())
    }

    /// A file of the machine.
    ///
    /// # Errors
    /// It cannot be read, or the machine is no more.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Error> {
        let words = ["cat", path];
        let output = self.run(&words, FILE_LIMIT)?;
        if output.status != 0 {
            return Err(self.parts.failed(format!("cannot read {path}")));
        }
        Ok(output.stdout)
    }

    /// Takes the power away, now: nothing in the machine gets a chance. What
    /// it handed to its disk stays, for that is in the host's memory.
    ///
    /// # Errors
    /// QEMU does not die.
    pub fn cut_power(&self) -> Result<(), Error> {
        self.parts.cut.store(true, Ordering::SeqCst);
        self.process.kill();
        // Another thread's command may hold the transcript's lock only briefly.
        lock(&self.parts.transcript).note("power cut");
        match self.process.wait(END_LIMIT) {
            Some(_) => Ok(()),
            None => Err(self.parts.failed("QEMU outlives SIGKILL".to_owned())),
        }
    }

    /// Plugs the network cable in, or out.
    ///
    /// # Errors
    /// QEMU is no more.
    pub fn link(&self, up: bool) -> Result<(), Error> {
        let text = if up { "network cable in" } else { "network cable out" };
        lock(&self.parts.transcript).note(text);
        Ok(self.qmp.set_link(qemu::NETWORK, up)?)
    }

    /// Waits until the machine ends by itself; how it did.
    ///
    /// # Errors
    /// It does not within `timeout`, or panics, or its time is up.
    pub fn wait_power_off(&self, timeout: Duration) -> Result<PowerOff, Error> {
        let begin = Instant::now();
        let end = self.process.wait(timeout);
        let Some(End::Exited(_)) = end else {
            let text = format!("no power-off within {timeout:?}");
            return Err(self.parts.failed(self.parts.ending(end).unwrap_or(text)));
        };
        if let Some(Trouble::Panic(_)) = self.trouble() {
            return Err(self.parts.failed("the machine ended".to_owned()));
        }
        // QEMU's last word may be on its way still.
        loop {
            match self.qmp.power_off() {
                Some(end) => return Ok(end),
                None if begin.elapsed() > timeout + END_LIMIT => {
                    return Err(self.parts.failed("QEMU ended without saying why".to_owned()));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Whether it runs, as far as QEMU is concerned.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.wait(Duration::ZERO).is_none()
    }

    /// When QEMU was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.parts.started
    }

    /// QEMU's process id on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where console, initramfs and sockets are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.parts.folder.path()
    }

    /// What the kernel wrote to its console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.parts.console()
    }

    /// Whether the kernel told of a panic, an oops, or that the machine (no
    /// mere cgroup) ran out of memory.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        transcript::trouble(&self.console())
    }

    /// The kernel's last lines and the shell's, for people.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.parts.shown()
    }

    /// A connection to the virtio console, for a person's shell.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn terminal(&self) -> io::Result<UnixStream> {
        lock(&self.terminal).try_clone()
    }

    fn ask(
        &self,
        request: &Request<'_>,
        timeout: Duration,
        what: &dyn Fn() -> String,
    ) -> Result<Output, Error> {
        let mut shell = lock(&self.shell);
        let answer = shell.ask(request, timeout);
        let mut transcript = lock(&self.parts.transcript);
        match answer {
            Ok(output) => {
                transcript.output(&output.stdout);
                transcript.output(&output.stderr);
                Ok(output)
            }
            Err(error) => {
                transcript.output(shell.partial());
                drop(transcript);
                drop(shell);
                Err(self.parts.lost(&self.process, &error, &what()))
            }
        }
    }
}

impl Parts {
    /// The error for an answer that did not come.
    pub(crate) fn lost(&self, process: &Process, error: &shell::Error, what: &str) -> Error {
        let ending = match error {
            shell::Error::Ended => self.ending(process.wait(END_LIMIT)),
            shell::Error::Silent
            | shell::Error::Io(_)
            | shell::Error::TooLarge
            | shell::Error::Zero => None,
        };
        self.failed(format!("{what}: {}", ending.unwrap_or_else(|| error.to_string())))
    }

    /// Why there is no machine any more, if so.
    fn ending(&self, end: Option<End>) -> Option<String> {
        match end? {
            End::TimeUp => Some(format!(
                "the machine ran for its limit of {:?} and was killed",
                self.time_limit
            )),
            End::Killed if self.cut.load(Ordering::SeqCst) => Some("the power was cut".to_owned()),
            End::Killed => Some("QEMU was killed".to_owned()),
            End::Exited(status) => {
                let complaints = fs::read_to_string(&self.files.complaints).unwrap_or_default();
                let complaints = complaints.trim();
                let colon = if complaints.is_empty() { "" } else { ": " };
                Some(format!("the machine ended (QEMU: {status}{colon}{complaints})"))
            }
        }
    }

    pub(crate) fn failed(&self, what: String) -> Error {
        let trouble = transcript::trouble(&self.console());
        Error::Failed { what, trouble, transcript: self.shown() }
    }

    fn shown(&self) -> String {
        lock(&self.transcript).show(&self.console())
    }

    fn console(&self) -> String {
        let bytes = fs::read(&self.files.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Folder::Kept(folder) = &self.parts.folder {
            // For people; there is nobody to tell that it failed.
            let _ = fs::write(folder.join("transcript"), self.transcript());
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
