//! What a machine said: the kernel's console and the shell's commands, kept
//! readable and bounded. No I/O.

use std::fmt;

/// How much of the shell's conversation is kept, in bytes: enough for the
/// commands before a failure.
const SHELL_BYTES_MAX: usize = 64 * 1024;
/// How many of the kernel's last lines an error shows: a panic's first one is
/// followed by more than thirty.
const KERNEL_LINES: usize = 50;
/// How much of one command's output is kept, in bytes.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;

/// The kernel's own word that the machine is in trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The kernel stopped; the line that says why.
    Panic(String),
    /// The *machine* ran out of memory; a cgroup that reached its limit is
    /// none of it.
    OutOfMemory(String),
    /// A driver or the kernel itself is broken, though it runs on.
    Oops(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(line) => write!(f, "the kernel panicked: {line}"),
            Self::OutOfMemory(line) => write!(f, "the machine ran out of memory: {line}"),
            Self::Oops(line) => write!(f, "the kernel is broken: {line}"),
        }
    }
}

/// The first trouble that `console` tells of; a panic before any other, for
/// it ended the machine.
///
/// Sources of the texts: the kernel's `kernel/panic.c`, `mm/oom_kill.c`
/// (`"Memory cgroup out of memory"` is the harmless one), `lib/bug.c`.
#[must_use]
pub fn trouble(console: &str) -> Option<Trouble> {
    let find = |texts: &[&str]| {
        let line = console.lines().find(|line| texts.iter().any(|text| line.contains(text)))?;
        Some(line.trim().to_owned())
    };
    find(&["Kernel panic - not syncing"])
        .map(Trouble::Panic)
        .or_else(|| find(&["Out of memory"]).map(Trouble::OutOfMemory))
        .or_else(|| find(&["Internal error: Oops", "BUG: ", "Oops: "]).map(Trouble::Oops))
}

/// What people read when something failed.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    shell: String,
}

impl Transcript {
    /// A line of the rig's own, such as `power cut`.
    pub(crate) fn note(&mut self, text: &str) {
        self.push(&format!("-- {text}\n"));
    }

    /// A command that was sent.
    pub(crate) fn command(&mut self, words: &[&str]) {
        self.push(&format!("$ {}\n", words.join(" ")));
    }

    /// What came back.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let kept = tail(&text, OUTPUT_BYTES_MAX);
        let gap = if kept.len() < text.len() { "…" } else { "" };
        let end = if kept.is_empty() || kept.ends_with('\n') { "" } else { "\n" };
        self.push(&format!("{gap}{kept}{end}"));
    }

    fn push(&mut self, text: &str) {
        self.shell.push_str(text);
        if self.shell.len() > SHELL_BYTES_MAX {
            self.shell = tail(&self.shell, SHELL_BYTES_MAX / 2).to_owned();
        }
    }

    /// Both halves as one text.
    #[must_use]
    pub fn show(&self, console: &str) -> String {
        let lines: Vec<_> = console.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(KERNEL_LINES);
        let mut text = String::from("-- kernel, last lines\n");
        for line in &lines[from..] {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push_str("-- shell\n");
        text.push_str(&self.shell);
        text
    }
}

/// The end of `text`, at most `bytes` long and whole characters.
fn tail(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_told_apart() {
        let check = |console: &str, expected: Option<Trouble>| {
            assert_eq!(trouble(console), expected, "{console}");
        };
        check("[    0.1] Linux version 6.1\n[  1.0] all is well", None);
        let panic = "[    2.2] Kernel panic - not syncing: sysrq triggered crash";
        check(&format!("{panic}\r\n[    2.3] Rebooting"), Some(Trouble::Panic(panic.into())));
        let oom = "[    9.0] Out of memory: Killed process 71 (wherry) total-vm:1kB";
        check(oom, Some(Trouble::OutOfMemory(oom.into())));
        check(&format!("{oom}\n{panic}"), Some(Trouble::Panic(panic.into())));
        check("[ 9.0] Memory cgroup out of memory: Killed process 80 (hog)", None);
        let oops = "[    3.0] Internal error: Oops: 96000004 [#1] SMP";
        check(oops, Some(Trouble::Oops(oops.into())));
    }

    #[test]
    fn a_transcript_is_bounded_and_keeps_the_end() {
        let mut transcript = Transcript::default();
        for n in 0..1000 {
            transcript.command(&["echo", &n.to_string()]);
            transcript.output("é".repeat(5000).as_bytes());
        }
        let console: String = (0..100).map(|n| format!("line {n}\r\n\r\n")).collect();
        let shown = transcript.show(&console);
        assert!(shown.len() < SHELL_BYTES_MAX + 1024, "{}", shown.len());
        assert!(shown.contains("$ echo 999\n…é"), "the last command is missing");
        assert!(shown.starts_with("-- kernel, last lines\nline 50\n"), "{}", &shown[..80]);
        assert!(shown.contains("line 99\n-- shell\n"));
    }
}
