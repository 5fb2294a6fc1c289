//! Annotations for GitHub Actions: one workflow command for each problem.

use std::io::{self, Write};

use crate::report::{CaseStatus, Report};

use super::escape::{Syntax, command_data, command_property, guarded};

/// A line for each case that failed or was remarked upon, then one that counts.
pub(crate) fn write<R: Report>(report: &R, out: &mut dyn Write) -> io::Result<()> {
    guarded(Syntax::Commands, out, |out| commands(report, out))
}

fn commands<R: Report>(report: &R, out: &mut dyn Write) -> io::Result<()> {
    let cases = report.cases();
    for case in &cases {
        let level = match case.status {
            // A remark is shown also where nothing was checked.
            CaseStatus::Unchecked if !case.detail.is_empty() => "notice",
            CaseStatus::Passed | CaseStatus::Skipped | CaseStatus::Unchecked => continue,
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
            command_property(&case.file),
            command_property(&case.name),
            command_data(&format!("{}{separator}{}", case.message, case.detail)),
        )?;
    }
    let count = |status| cases.iter().filter(|case| case.status == status).count();
    let unchecked = match count(CaseStatus::Unchecked) {
        0 => String::new(),
        count => format!(", {count} unchecked"),
    };
    writeln!(
        out,
        "::notice title=wasm-agent::{} passed, {} failed, {} warnings, {} skipped{unchecked}",
        count(CaseStatus::Passed) + count(CaseStatus::Warned),
        count(CaseStatus::Failed) + count(CaseStatus::Errored),
        count(CaseStatus::Warned),
        count(CaseStatus::Skipped),
    )
}
