//! What a guest did wrong, as data.
//!
//! A fault is never an error of the tool: it lives inside an outcome, is
//! reported, and is what fail-open and fail-closed decide about. Its code is
//! short and stable; the guest's own words and backtrace stay beside it and
//! never go to a proxy.

use std::fmt;

use serde::Serialize;

/// A stable name for what happened, as it stands in `reason_codes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultCode {
    /// A wasm trap.
    Trap(TrapKind),
    /// The call ran longer than its deadline.
    Deadline,
    /// The call used up its fuel.
    Fuel,
    /// A growth of memory or table was refused and the guest then trapped, or
    /// an instance could not be made within the limits.
    MemoryLimit,
    /// The answer is larger than allowed.
    AnswerLimit,
    /// `alloc` answered 0 for an input that is not empty.
    AllocNull,
    /// `alloc` answered a range outside linear memory.
    AllocOutOfBounds,
    /// The answer is said to lie outside memory.
    AnswerOutOfBounds,
    /// The guest returned, and what it returned cannot be used.
    BadAnswer(BadAnswer),
    /// The event itself could not be read.
    BadEvent(BadEvent),
    /// No instance came free in time.
    Overload,
    /// A body whose request was forgotten before it came.
    HeadLost,
    /// A body that may belong to any of several requests with one id.
    AmbiguousExchange,
    /// A body that is longer than what is collected for a module.
    BodyTooLarge,
    /// A body that cannot be collected, since a part of it is missing.
    BodyIncomplete,
    /// A defect of this program.
    Internal,
}

named! {
    /// What made a guest trap.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum TrapKind {
        /// AssemblyScript's `abort`.
        Abort => "abort",
        /// The stack of the call was used up.
        StackOverflow => "stack-overflow",
        /// Memory was accessed outside its bounds.
        OutOfBounds => "out-of-bounds",
        /// A table was accessed outside its bounds.
        TableOutOfBounds => "table-out-of-bounds",
        /// An indirect call of nothing.
        NullCall => "null-call",
        /// An indirect call of another type.
        BadSignature => "bad-signature",
        /// An integer that does not fit.
        IntegerOverflow => "integer-overflow",
        /// A division by zero.
        DivideByZero => "divide-by-zero",
        /// A float that is no integer.
        BadConversion => "bad-conversion",
        /// `unreachable`, as after a panic.
        Unreachable => "unreachable",
        /// Any other.
        Other => "other",
        /// The program exited.
        Exit => "exit",
    }

    /// Why an answer cannot be used.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum BadAnswer {
        /// Bytes that are no UTF-8.
        NotUtf8 => "not-utf8",
        /// No JSON.
        NotJson => "not-json",
        /// JSON, but no object.
        NotAnObject => "not-an-object",
        /// A key occurs more than once.
        DuplicateKey => "duplicate-key",
        /// A value of another type than its key has.
        Mistyped => "mistyped",
        /// An agent's answer without a decision.
        NoDecision => "no-decision",
        /// A decision that nobody knows.
        UnknownDecision => "unknown-decision",
        /// A challenge that does not say of which type.
        NoChallengeType => "no-challenge-type",
        /// A header that may not be sent.
        BadHeader => "bad-header",
        /// A change of a body that cannot be made.
        BodyMutation => "body-mutation",
        /// A request's body of bytes for a proxy that takes text only.
        BinaryRequestBody => "binary-request-body",
        /// A hook's answer that does not say whether it is ok.
        NoOk => "no-ok",
        /// A hook's answer with a context that lacks keys.
        IncompleteContext => "incomplete-ctx",
    }

    /// Why an event cannot be read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum BadEvent {
        /// Bytes that cannot be read at all.
        Malformed => "malformed",
        /// A value of another type than its key has.
        Mistyped => "mistyped",
        /// A key is missing.
        Missing => "missing",
        /// A type of event that nobody knows.
        UnknownType => "unknown-type",
        /// It came before the handshake.
        BeforeHandshake => "before-handshake",
        /// More bytes than a guest's memory can have.
        TooLarge => "too-large",
    }
}

impl FaultCode {
    /// Whether the instance must not be called again.
    ///
    /// An answer that was read and then disliked leaves the instance whole; a
    /// pointer out of range does not speak for its state.
    #[must_use]
    pub const fn poisons(self) -> bool {
        match self {
            Self::BadAnswer(_)
            | Self::BadEvent(_)
            | Self::Overload
            | Self::HeadLost
            | Self::AmbiguousExchange
            | Self::BodyTooLarge
            | Self::BodyIncomplete => false,
            Self::Trap(_)
            | Self::Deadline
            | Self::Fuel
            | Self::MemoryLimit
            | Self::AnswerLimit
            | Self::AllocNull
            | Self::AllocOutOfBounds
            | Self::AnswerOutOfBounds
            | Self::Internal => true,
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(kind) => write!(out, "trap:{}", kind.name()),
            Self::Deadline => out.write_str("deadline"),
            Self::Fuel => out.write_str("fuel"),
            Self::MemoryLimit => out.write_str("memory-limit"),
            Self::AnswerLimit => out.write_str("answer-limit"),
            Self::AllocNull => out.write_str("alloc:null"),
            Self::AllocOutOfBounds => out.write_str("alloc:out-of-bounds"),
            Self::AnswerOutOfBounds => out.write_str("bad-answer:out-of-bounds"),
            Self::BadAnswer(what) => write!(out, "bad-answer:{}", what.name()),
            Self::BadEvent(what) => write!(out, "bad-event:{}", what.name()),
            Self::Overload => out.write_str("overload"),
            Self::HeadLost => out.write_str("head-lost"),
            Self::AmbiguousExchange => out.write_str("ambiguous-exchange"),
            Self::BodyTooLarge => out.write_str("body-too-large"),
            Self::BodyIncomplete => out.write_str("body-incomplete"),
            Self::Internal => out.write_str("internal"),
        }
    }
}

impl Serialize for FaultCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One frame of the guest's own stack, innermost first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StackFrame {
    /// Demangled name, or `func[N]` where the module has no names.
    pub function: String,
    /// `file:line:column`, where the module has DWARF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Offset in the module's binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasm_offset: Option<u64>,
}

impl fmt::Display for StackFrame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.function)?;
        match (&self.location, self.wasm_offset) {
            (Some(location), _) => write!(out, " at {location}"),
            (None, Some(offset)) => write!(out, " at wasm offset {offset:#x}"),
            (None, None) => Ok(()),
        }
    }
}

/// What a faulty answer had said before it went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The status to refuse with: the answer's own where that was usable.
    pub status: u16,
}

/// What a guest did wrong in one call.
/// ```
/// use wasm_agent_kit::fault::{Fault, FaultCode};
///
/// fn is_the_guests(fault: &Fault) -> bool {
///     !matches!(fault.code, FaultCode::Overload | FaultCode::Internal)
/// }
/// let fault = Fault::new(FaultCode::Deadline, "still running after its deadline");
/// assert!(is_the_guests(&fault));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Fault {
    /// What happened.
    pub code: FaultCode,
    /// A sentence for people: what was expected and what was found. May hold
    /// the guest's own words, so it is escaped and cut before it is shown.
    pub detail: String,
    /// What the guest wrote about it before it stopped, line by line, escaped
    /// and cut; empty for most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// The guest's stack at a trap, empty otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<StackFrame>,
    /// Set when the answer named a refusing decision. Invariant: such an
    /// answer is never turned into an allow, in either failure mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

impl Fault {
    /// A fault without a backtrace.
    #[must_use]
    pub fn new(code: FaultCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            words: Vec::new(),
            backtrace: Vec::new(),
            refusal: None,
        }
    }
}

impl Fault {
    /// The guest's stack, one numbered frame a line, innermost first; empty
    /// where there is none.
    #[must_use]
    pub fn stack(&self) -> String {
        let frames = self.backtrace.iter().enumerate();
        let lines: Vec<String> = frames
            .map(|(depth, frame)| format!("{depth}: {frame}"))
            .collect();
        lines.join("\n")
    }

    /// The guest's own words about it, then its stack.
    #[must_use]
    pub fn story(&self) -> String {
        let lines = self.words.iter().cloned();
        let stack = self.stack();
        lines
            .chain(stack.lines().map(str::to_owned))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Takes in output of the guest: its first line goes before the detail.
    pub(crate) fn say(&mut self, words: Vec<String>) {
        if let Some(first) = words.first() {
            // Rust names the place on one line and the reason on the next.
            let next = words.get(1).filter(|_| first.ends_with(':'));
            let next = next.map(|next| format!(" {next}")).unwrap_or_default();
            self.detail = format!("{first}{next}; {}", self.detail);
        }
        self.words = words;
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.detail)
    }
}

/// Guest text of unknown origin, made fit for a log line or a terminal.
///
/// Control characters are escaped, so neither a fake log line nor a terminal
/// command survives; the rest is cut after `max_bytes`.
#[must_use]
pub fn printable(text: &str, max_bytes: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_bytes) + 16);
    for character in text.chars() {
        if out.len() >= max_bytes {
            out.push('…');
            break;
        }
        if is_unprintable(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// C0 and C1 controls, and the characters that reorder or hide text.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The path as messages show it.
#[must_use]
pub fn shown(path: &std::path::Path) -> String {
    printable(&path.to_string_lossy(), 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_cannot_fake_a_line_or_drive_a_terminal() {
        let shown = printable("\u{1b}[2J\nERROR all lost\u{9b}1m\u{202e}", 256);
        assert_eq!(shown, "\\u{1b}[2J\\nERROR all lost\\u{9b}1m\\u{202e}");
        assert_eq!(printable(&"x".repeat(1000), 10), "xxxxxxxxxx…");
    }

    #[test]
    fn only_faults_that_leave_the_instance_whole_keep_it() {
        assert!(!FaultCode::BadAnswer(BadAnswer::NotJson).poisons());
        assert!(FaultCode::AnswerOutOfBounds.poisons());
        assert!(FaultCode::AnswerLimit.poisons());
        assert!(FaultCode::Trap(TrapKind::Unreachable).poisons());
    }
}
