//! What a guest writes to standard output and error: log lines, escaped, cut
//! and few; and its last words, for the fault that may follow.
//!
//! Memory and time are bounded whatever a guest writes: beyond
//! [`MAX_CALL_BYTES`] in one call it is not even looked at.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::fault::printable;
use crate::log_limiter::LogLimiter;

/// Bytes of one stream that may become log lines in one call.
const MAX_CALL_BYTES: usize = 8 << 10;
/// Bytes of one log line, before escaping.
const MAX_LINE_BYTES: usize = 256;
/// The end of what was written to standard error, kept for a fault.
const MAX_WORDS_BYTES: usize = 4 << 10;
/// Lines of it that are shown, and bytes of each.
const MAX_WORDS_LINES: usize = 16;
const MAX_WORD_LINE_BYTES: usize = 200;
/// Go indents places with tabs; escaped they would only disturb.
const TAB: &str = "    ";

/// Where a guest can write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Error,
}

/// The two streams of one instance.
pub(crate) struct Output {
    log_limiter: Arc<LogLimiter>,
    output: Lines,
    error: Lines,
    /// The end of standard error in this call.
    words: VecDeque<u8>,
}

impl Output {
    pub(crate) fn new(log_limiter: Arc<LogLimiter>) -> Self {
        Self {
            log_limiter,
            output: Lines::default(),
            error: Lines::default(),
            words: VecDeque::new(),
        }
    }

    /// A call begins: what it may write, it may write.
    pub(crate) fn begin_call(&mut self) {
        self.output.seen = 0;
        self.error.seen = 0;
        self.words.clear();
    }

    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Error {
            let end = &bytes[bytes.len().saturating_sub(MAX_WORDS_BYTES)..];
            let over = (self.words.len() + end.len()).saturating_sub(MAX_WORDS_BYTES);
            self.words.drain(..over.min(self.words.len()));
            self.words.extend(end);
        }
        self.lines(stream).write(bytes);
        self.tell(stream);
    }

    /// A call ends, and with it the line begun.
    pub(crate) fn end_call(&mut self) {
        for stream in [Stream::Output, Stream::Error] {
            let lines = self.lines(stream);
            lines.end_line();
            if lines.is_cut() {
                lines.done.push("… (further output was dropped)".to_owned());
            }
            self.tell(stream);
        }
    }

    /// What was last written to standard error in this call, line by line,
    /// fit for a terminal.
    pub(crate) fn last_words(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.words.iter().copied().collect();
        words(&bytes)
    }

    const fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        }
    }

    fn tell(&mut self, stream: Stream) {
        let done = std::mem::take(&mut self.lines(stream).done);
        for line in done {
            match stream {
                // Lines that nobody reads do not count as lines.
                Stream::Output if !tracing::enabled!(tracing::Level::INFO) => {}
                _ if !self.log_limiter.admit() => {}
                Stream::Output => tracing::info!(line, "guest wrote to standard output"),
                Stream::Error => tracing::warn!(line, "guest wrote to standard error"),
            }
        }
    }
}

/// How what matters begins, in the languages that write before they stop.
const BEGINNINGS: [&str; 4] = ["panic: ", "fatal error: ", "thread '", "Assertion failed"];

/// Text of a guest about its end, line by line, fit for a terminal.
pub(crate) fn words(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    let begins = |line: &&str| BEGINNINGS.iter().any(|words| line.starts_with(words));
    let first = lines
        .iter()
        .rposition(begins)
        .unwrap_or(lines.len().saturating_sub(MAX_WORDS_LINES));
    lines
        .iter()
        .skip(first)
        .take(MAX_WORDS_LINES)
        .map(|line| printable(&line.replace('\t', TAB), MAX_WORD_LINE_BYTES))
        .collect()
}

/// One stream cut into lines.
#[derive(Default)]
struct Lines {
    /// Bytes in this call.
    seen: usize,
    begun: Vec<u8>,
    done: Vec<String>,
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        let left = MAX_CALL_BYTES.saturating_sub(self.seen);
        self.seen = self.seen.saturating_add(bytes.len());
        for &byte in bytes.iter().take(left) {
            if byte == b'\n' {
                self.end_line();
            } else if self.begun.len() <= MAX_LINE_BYTES {
                self.begun.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        if !begun.is_empty() {
            let line = String::from_utf8_lossy(&begun).replace('\t', TAB);
            self.done.push(printable(&line, MAX_LINE_BYTES));
        }
    }

    const fn is_cut(&self) -> bool {
        self.seen > MAX_CALL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        Output::new(Arc::new(LogLimiter::new()))
    }

    #[test]
    fn a_flood_is_bounded_and_its_end_is_kept() {
        let mut output = output();
        for _ in 0..100 {
            output.write(Stream::Error, &[b'x'; 100_000]);
        }
        output.write(Stream::Error, b"\npanic: the end\n");
        assert!(output.words.len() <= MAX_WORDS_BYTES);
        assert!(output.words.capacity() <= 4 * MAX_WORDS_BYTES);
        assert!(output.error.begun.len() <= MAX_LINE_BYTES + 1);
        assert_eq!(output.last_words().last().unwrap(), "panic: the end");
        output.begin_call();
        assert_eq!(output.last_words(), Vec::<String>::new());
    }

    #[test]
    fn lines_are_escaped_and_cut() {
        let mut lines = Lines::default();
        lines.write(b"one\n\x1b[2Jtwo\n\n");
        lines.write(&[b'y'; 1000]);
        lines.write(b"\n\xff\n");
        assert_eq!(lines.done[..2], ["one", "\\u{1b}[2Jtwo"]);
        assert!(lines.done[2].ends_with('…') && lines.done[2].len() < 300);
        assert_eq!(lines.done[3], "\u{fffd}");
    }

    #[test]
    fn beyond_its_share_nothing_of_a_call_is_looked_at() {
        let mut lines = Lines::default();
        lines.write(&b"ab\n".repeat(100_000));
        assert!(lines.done.len() <= MAX_CALL_BYTES / 3 + 1);
        assert!(lines.is_cut());
    }
}
