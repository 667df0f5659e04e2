//! The CRI log format, a line a record:
//!
//! `2026-11-23T05:00:00.123456789Z stdout F text`
//!
//! Time in UTC, stream, `F` for a full line or `P` for a part of one, text.
//! Source: Kubernetes' design proposal "CRI logging", as containerd and CRI-O
//! write it.
//! Pure: bytes in, bytes out.

use wherry_bundle::message::LogStream;

use crate::clock::WallNanos;

/// A longer line is cut into parts of this length, so that a container that
/// prints no newline needs no more memory than this a stream.
pub const PART_BYTES_MAX: usize = 8 * 1024;
/// Parts are joined to one line up to this length when they are read.
pub const LINE_BYTES_MAX: usize = 32 * 1024;

/// Turns what one stream prints into records.
#[derive(Debug, Default)]
pub struct Encoder {
    /// What came after the last newline; shorter than [`PART_BYTES_MAX`].
    pending: Vec<u8>,
    /// The last record was a part of a line, whose end is still to come.
    is_open: bool,
}

/// One record of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub time: WallNanos,
    pub stream: LogStream,
    pub full: bool,
    pub text: &'a [u8],
}

impl Encoder {
    /// Goes on where another one ended: `is_open` if its last record was a part.
    #[must_use]
    pub fn resumed(is_open: bool) -> Self {
        Self { is_open, ..Self::default() }
    }

    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Appends to `out` the records that `bytes` completes.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        time: WallNanos,
        stream: LogStream,
        out: &mut Vec<u8>,
    ) {
        while !bytes.is_empty() {
            let room = PART_BYTES_MAX - self.pending.len();
            let window = &bytes[..room.min(bytes.len())];
            if let Some(end) = window.iter().position(|&b| b == b'\n') {
                self.record(&window[..end], time, stream, true, out);
                bytes = &bytes[end + 1..];
            } else if window.len() == room {
                self.record(window, time, stream, false, out);
                bytes = &bytes[room..];
            } else {
                self.pending.extend_from_slice(window);
                return;
            }
        }
    }

    /// What waits for its newline becomes a part of a line, so that it is not
    /// lost with this process.
    pub fn part(&mut self, time: WallNanos, stream: LogStream, out: &mut Vec<u8>) {
        if self.has_pending() {
            self.record(&[], time, stream, false, out);
        }
    }

    /// The container has ended: what it left without a newline is a line.
    pub fn finish(&mut self, time: WallNanos, stream: LogStream, out: &mut Vec<u8>) {
        if self.is_open || self.has_pending() {
            self.record(&[], time, stream, true, out);
        }
    }

    fn record(
        &mut self,
        text: &[u8],
        time: WallNanos,
        stream: LogStream,
        full: bool,
        out: &mut Vec<u8>,
    ) {
        self.is_open = !full;
        let tag = if full { 'F' } else { 'P' };
        let head = format!("{} {} {tag} ", time.rfc3339(), stream_text(stream));
        out.extend_from_slice(head.as_bytes());
        // Given back, not kept: most containers are silent most of the time.
        out.extend_from_slice(&std::mem::take(&mut self.pending));
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

impl<'a> Record<'a> {
    /// Reads one line without its newline; `None` for what is no record.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |&b| b == b' ');
        let time = WallNanos::parse(std::str::from_utf8(parts.next()?).ok()?)?;
        let stream = match parts.next()? {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            _ => return None,
        };
        let full = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, full, text: parts.next()? })
    }
}

/// Joins the parts of a line; one for each file that is read.
#[derive(Debug, Default)]
pub struct Joiner {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Joiner {
    /// The whole line that `record` ends, if it ends one. A line above
    /// [`LINE_BYTES_MAX`] comes as several.
    pub fn push(&mut self, record: &Record<'_>) -> Option<Vec<u8>> {
        let parts = match record.stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        parts.extend_from_slice(record.text);
        let whole = record.full || parts.len() + PART_BYTES_MAX > LINE_BYTES_MAX;
        whole.then(|| std::mem::take(parts))
    }
}

#[must_use]
pub fn stream_text(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: WallNanos = WallNanos(1_795_410_000_123_456_789);

    fn encode(pieces: &[&[u8]]) -> String {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        for piece in pieces {
            encoder.feed(piece, TIME, LogStream::Stdout, &mut out);
        }
        encoder.finish(TIME, LogStream::Stdout, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_format_is_that_of_cri() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        encoder.feed(b"a b\n\nhalf", TIME, LogStream::Stderr, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-23T05:00:00.123456789Z stderr F a b\n\
             2026-11-23T05:00:00.123456789Z stderr F \n"
        );
    }

    #[test]
    fn how_a_line_is_cut_into_reads_does_not_matter() {
        let whole = encode(&[b"one\ntwo\nthree"]);
        assert_eq!(whole.lines().count(), 3);
        assert_eq!(encode(&[b"o", b"ne", b"\n", b"two\nth", b"ree"]), whole);
    }

    #[test]
    fn a_long_line_comes_in_parts_and_is_joined_again() {
        for length in [PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 20_000] {
            let line = "x".repeat(length);
            let text = encode(&[line.as_bytes(), b"\nnext\n"]);
            let mut joiner = Joiner::default();
            let mut joined = Vec::new();
            for record in text.lines().map(|line| Record::parse(line.as_bytes()).unwrap()) {
                assert!(record.text.len() <= PART_BYTES_MAX);
                joined.extend(joiner.push(&record));
            }
            assert_eq!(joined, [line.into_bytes(), b"next".to_vec()], "{length}");
        }
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let text = encode(&[&vec![b'x'; 10 * LINE_BYTES_MAX]]);
        let mut joiner = Joiner::default();
        let lines: Vec<Vec<u8>> = text
            .lines()
            .filter_map(|line| joiner.push(&Record::parse(line.as_bytes()).unwrap()))
            .collect();
        assert!(lines.len() >= 10 && lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
    }

    #[test]
    fn a_line_that_is_cut_by_a_death_is_one_line() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        encoder.feed(b"one\nhalf", TIME, LogStream::Stdout, &mut out);
        assert!(encoder.has_pending());
        encoder.part(TIME, LogStream::Stdout, &mut out);
        encoder.part(TIME, LogStream::Stdout, &mut out);
        let mut whole = out.clone();
        encoder.finish(TIME, LogStream::Stdout, &mut whole);
        assert!(whole.ends_with(b" stdout F \n"), "its own end");
        // The next one goes on with it, or ends it with the container.
        let go_on = |bytes: &[u8]| {
            let (mut encoder, mut out) = (Encoder::resumed(true), out.clone());
            encoder.feed(bytes, TIME, LogStream::Stdout, &mut out);
            encoder.finish(TIME, LogStream::Stdout, &mut out);
            let mut joiner = Joiner::default();
            let records = out.split(|&b| b == b'\n').filter_map(Record::parse);
            let lines = records.filter_map(|record| joiner.push(&record));
            lines.map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(go_on(b" more\ntwo\n"), ["one", "half more", "two"]);
        assert_eq!(go_on(b"\n"), ["one", "half"]);
        assert_eq!(go_on(b""), ["one", "half"]);
    }

    #[test]
    fn other_lines_are_no_records() {
        for line in ["", "x", "2026-11-23T05:00:00.123456789Z stdin F x", "nonsense stdout F x"] {
            assert_eq!(Record::parse(line.as_bytes()), None, "{line}");
        }
    }
}
