//! Annotations for GitHub Actions: one workflow command for each problem.

use std::io::{self, Write};

use wasm_agent_kit::report::{CaseStatus, Report};

/// A line for each case that failed or was remarked upon, then one that counts.
pub(crate) fn write<R: Report>(report: &R, out: &mut dyn Write) -> io::Result<()> {
    let cases = report.cases();
    for case in &cases {
        let level = match case.status {
            CaseStatus::Passed | CaseStatus::Skipped => continue,
            CaseStatus::Warned => "warning",
            CaseStatus::Failed | CaseStatus::Errored => "error",
        };
        let line = case
            .line
            .map(|line| format!(",line={line}"))
            .unwrap_or_default();
        let separator = if case.detail.is_empty() { "" } else { "\n" };
        writeln!(
            out,
            "::{level} file={}{line},title={}::{}",
            property(&case.file),
            property(&case.name),
            data(&format!("{}{separator}{}", case.message, case.detail)),
        )?;
    }
    let count = |status| cases.iter().filter(|case| case.status == status).count();
    writeln!(
        out,
        "::notice title=wasm-agent::{} passed, {} failed, {} warnings, {} skipped",
        count(CaseStatus::Passed) + count(CaseStatus::Warned),
        count(CaseStatus::Failed) + count(CaseStatus::Errored),
        count(CaseStatus::Warned),
        count(CaseStatus::Skipped),
    )
}

fn data(text: &str) -> String {
    let shown = |c: char| match c {
        '\r' | '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let text: String = text.chars().map(shown).collect();
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_or_fake_a_command() {
        assert_eq!(data("50%\n::error::x"), "50%25%0A::error::x");
        assert_eq!(property("a:b,c"), "a%3Ab%2Cc");
        assert_eq!(data("\u{1b}[31m\0"), "\u{fffd}[31m\u{fffd}");
    }
}
