//! Speaks to QEMU itself (QMP: lines of JSON): commands, and why the machine
//! ended. Knows nothing of the guest.
//!
//! Source: QEMU's `docs/interop/qmp-spec.txt` and `qapi/run-state.json`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

/// QEMU answers at once; this is for a host that is very busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Why the machine ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerOff {
    /// It was switched off by its own kernel.
    Shutdown,
    /// It wanted to start again; rigs do not.
    Reset,
    /// Its watchdog was not fed.
    Watchdog,
}

/// Why QEMU did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error("cannot speak to QEMU")]
    Io(#[from] io::Error),
    /// It refused.
    #[error("QEMU refuses {command}: {answer}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// Its error.
        answer: String,
    },
    /// It is silent, or gone.
    #[error("QEMU does not answer {0}")]
    Silent(&'static str),
}

/// A connection to a QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    link: Mutex<(UnixStream, Receiver<Value>)>,
    ends: Arc<Mutex<Option<PowerOff>>>,
}

impl Qmp {
    /// Takes a fresh connection into use.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, Error> {
        let ends = Arc::new(Mutex::new(None));
        let (send, answers) = channel();
        let reader = BufReader::new(stream.try_clone()?);
        let seen = Arc::clone(&ends);
        std::thread::Builder::new().name("rig-qmp".to_owned()).spawn(move || {
            for line in reader.lines() {
                let Ok(line) = line else { return };
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(end) = end_of(&value) {
                    // A watchdog's end is followed by a mere shutdown.
                    lock(&seen).get_or_insert(end);
                } else if value.get("return").or_else(|| value.get("error")).is_some()
                    && send.send(value).is_err()
                {
                    return;
                }
            }
        })?;
        let qmp = Self { link: Mutex::new((stream, answers)), ends };
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Plugs the network cable in, or out.
    pub(crate) fn set_link(&self, name: &str, up: bool) -> Result<(), Error> {
        self.ask("set_link", &json!({ "name": name, "up": up }))
    }

    /// What QEMU said about the machine's end, if it said so.
    pub(crate) fn power_off(&self) -> Option<PowerOff> {
        *lock(&self.ends)
    }

    fn ask(&self, command: &'static str, arguments: &Value) -> Result<(), Error> {
        let mut link = lock(&self.link);
        let (stream, answers) = &mut *link;
        writeln!(stream, "{}", json!({ "execute": command, "arguments": arguments }))?;
        let answer = answers.recv_timeout(ANSWER_LIMIT).map_err(|_| Error::Silent(command))?;
        match answer.get("error") {
            None => Ok(()),
            Some(error) => Err(Error::Refused { command, answer: error.to_string() }),
        }
    }
}

fn end_of(value: &Value) -> Option<PowerOff> {
    let reason = value.pointer("/data/reason").and_then(Value::as_str);
    match (value.get("event")?.as_str()?, reason) {
        ("WATCHDOG", _) => Some(PowerOff::Watchdog),
        ("SHUTDOWN", Some("guest-reset")) => Some(PowerOff::Reset),
        ("SHUTDOWN", Some("guest-shutdown")) => Some(PowerOff::Shutdown),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let check = |line: &str, expected| {
            let value = serde_json::from_str(line).unwrap();
            assert_eq!(end_of(&value), expected, "{line}");
        };
        check(
            r#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}"#,
            Some(PowerOff::Shutdown),
        );
        check(
            r#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#,
            Some(PowerOff::Reset),
        );
        check(r#"{"event":"WATCHDOG","data":{"action":"poweroff"}}"#, Some(PowerOff::Watchdog));
        check(r#"{"event":"RESUME"}"#, None);
        check(r#"{"return":{}}"#, None);
    }

    #[test]
    fn refusals_and_silence_are_errors() {
        let (here, there) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut lines = BufReader::new(there.try_clone().unwrap()).lines();
                let mut there = there;
                let mut answer = |text: &str| {
                    let asked = lines.next().unwrap().unwrap();
                    writeln!(there, "{text}").unwrap();
                    asked
                };
                answer(r#"{"return":{}}"#);
                let asked = answer(r#"{"error":{"class":"DeviceNotFound"}}"#);
                assert!(asked.contains(r#""name":"net0""#), "{asked}");
            });
            let qmp = Qmp::new(here).unwrap();
            assert!(matches!(qmp.set_link("net0", false), Err(Error::Refused { .. })));
            let silent = qmp.set_link("net0", true);
            assert!(matches!(silent, Err(Error::Silent(_) | Error::Io(_))), "{silent:?}");
        });
    }
}
