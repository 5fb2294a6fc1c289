//! What `validate` found: files, their rows and what the modules cost.

use std::time::Duration;

use serde::Serialize;

use crate::check::{Check, CheckId, CheckStatus};
use crate::fault::{BadAnswer, Fault, FaultCode, TrapKind, printable};
use crate::guest::inspect::Language;
use crate::report::{Case, CaseStatus, Report, Verdict};

use super::growth::Growth;

/// What else becomes of an answer with an unknown decision.
const PUBLISHED_ALLOW: &str = "sentinel-agent-wasm 0.1.0 and zentinel-agent-wasm 0.2.0 allow the request on any unknown text as a decision; here it is a fault, which blocks or, with --fail-open, allows and says so";

/// One check as it came out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// The check.
    #[serde(flatten)]
    pub check: Check,
    /// What the guest did wrong, where that is what was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultCode>,
    /// More lines: a backtrace, a sequence of calls.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl From<Check> for Row {
    fn from(check: Check) -> Self {
        Self {
            check,
            fault: None,
            detail: String::new(),
        }
    }
}

impl Row {
    pub(super) fn fault(
        id: impl Into<CheckId>,
        expected: impl Into<String>,
        fault: &Fault,
    ) -> Self {
        let found = format!("{}: {}", fault.code, printable(&fault.detail, 300));
        Self {
            check: Check::fail(id, expected, found, fix_of(fault.code)),
            fault: Some(fault.code),
            detail: fault.story(),
        }
    }

    pub(super) fn skip(
        id: impl Into<CheckId>,
        expected: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Check::pass(id, expected, why)
            .with(CheckStatus::Skip, "")
            .into()
    }

    /// Says where the agents that others have published act otherwise on such an answer.
    pub(super) fn beside_published(
        mut self,
        faults: impl IntoIterator<Item = Option<FaultCode>>,
    ) -> Self {
        let unknown = FaultCode::BadAnswer(BadAnswer::UnknownDecision);
        if faults.into_iter().any(|fault| fault == Some(unknown)) {
            if !self.detail.is_empty() {
                self.detail.push('\n');
            }
            self.detail.push_str(PUBLISHED_ALLOW);
        }
        self
    }

    pub(super) fn with_detail(mut self, detail: String) -> Self {
        self.detail = detail;
        self
    }
}

/// What came of one sample event on a fresh instance.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SampleCost {
    /// The handler that was called.
    pub handler: &'static str,
    /// The sample's name.
    pub sample: &'static str,
    /// The decision, or the fault.
    pub outcome: String,
    /// Instructions of alloc, handler and dealloc together; nothing where the
    /// call faulted.
    pub fuel: Option<u64>,
    /// Bytes of the answer.
    pub answer_bytes: u64,
    /// Linear memory after the call.
    pub memory_bytes: u64,
}

/// What a module costs.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Metrics {
    /// Wall clock of compiling.
    pub compile_us: u64,
    /// Wall clock of making an instance, the median of several.
    pub instantiate_us: u64,
    /// Linear memory of an instance before its first call.
    pub instance_memory_bytes: u64,
    /// What calls keep of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Each sample event.
    pub samples: Vec<SampleCost>,
}

/// What is known of a file that holds a module.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ModuleFacts {
    /// `sha256:` and the hash of the file.
    pub hash: String,
    /// Bytes of the binary.
    pub size_bytes: u64,
    /// The ABI it is held to, where one could be settled.
    pub abi: Option<&'static str>,
    /// The toolchain's language, where the module says so.
    pub language: Option<Language>,
    /// `name version` of the tools that made it.
    pub producers: Vec<String>,
    /// Functions have names, so backtraces do.
    pub has_names: bool,
    /// Backtraces have files and lines.
    pub has_dwarf: bool,
}

/// One file and its rows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ModuleReport {
    /// The file, as it was given.
    pub path: String,
    /// How the file came out.
    pub verdict: Verdict,
    /// What it is; nothing where it could not be read.
    #[serde(flatten)]
    pub facts: Option<ModuleFacts>,
    /// Every check, in the order a reader wants them.
    pub checks: Vec<Row>,
    /// What it costs; nothing where it was not compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// A flag that has no effect on the module, in words.
    #[serde(skip)]
    pub unused_flag: Option<String>,
}

impl ModuleReport {
    /// How many checks came out like this.
    #[must_use]
    pub(crate) fn count(&self, status: CheckStatus) -> usize {
        self.checks
            .iter()
            .filter(|row| row.check.status == status)
            .count()
    }
}

/// Every file and its rows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ValidateReport {
    /// Warnings fail.
    pub deny_warnings: bool,
    /// The files in the order they were given.
    pub modules: Vec<ModuleReport>,
}

impl Report for ValidateReport {
    const SCHEMA: &'static str = "wasm-agent/validate/1";

    fn verdict(&self) -> Verdict {
        let any = |verdict| self.modules.iter().any(|module| module.verdict == verdict);
        if self.modules.is_empty() {
            Verdict::NothingChecked
        } else if any(Verdict::Unreadable) {
            Verdict::Unreadable
        } else if any(Verdict::Failed) {
            Verdict::Failed
        } else {
            Verdict::Passed
        }
    }

    fn cases(&self) -> Vec<Case> {
        self.modules
            .iter()
            .flat_map(|module| module.checks.iter().map(|row| self.case(module, row)))
            .collect()
    }
}

impl ValidateReport {
    fn case(&self, module: &ModuleReport, row: &Row) -> Case {
        let check = &row.check;
        let status = match check.status {
            CheckStatus::Pass => CaseStatus::Passed,
            CheckStatus::Skip => CaseStatus::Skipped,
            CheckStatus::Warn if self.deny_warnings => CaseStatus::Failed,
            CheckStatus::Warn => CaseStatus::Warned,
            CheckStatus::Fail if row.fault.is_some() => CaseStatus::Errored,
            CheckStatus::Fail if module.verdict == Verdict::Unreadable => CaseStatus::Errored,
            CheckStatus::Fail => CaseStatus::Failed,
        };
        let message = match check.status {
            CheckStatus::Pass => String::new(),
            CheckStatus::Skip => check.found.clone(),
            CheckStatus::Warn | CheckStatus::Fail => {
                let fix = if check.fix.is_empty() { "" } else { "; " };
                format!(
                    "expected {}, found {}{fix}{}",
                    check.expected, check.found, check.fix
                )
            }
        };
        Case {
            suite: module.path.clone(),
            name: check.id.to_string(),
            status,
            message,
            detail: row.detail.clone(),
            file: module.path.clone(),
            line: line_in(&row.detail),
            time: Duration::ZERO,
        }
    }
}

/// The line that the assembler's message points at, `--> <anon>:6:4`.
fn line_in(detail: &str) -> Option<usize> {
    let (_, place) = detail.split_once("--> ")?;
    place.split(':').nth(1)?.parse().ok()
}

/// What a guest's author can do about a fault.
fn fix_of(code: FaultCode) -> &'static str {
    match code {
        FaultCode::Trap(TrapKind::StackOverflow) => {
            "bound the recursion; the stack of a call is limited to 512 KiB"
        }
        FaultCode::Trap(_) => {
            "answer on every path; a panic or abort blocks the request with 500, or refuses for a hook"
        }
        FaultCode::Deadline => {
            "do less work in each call, or raise --timeout here and in production"
        }
        FaultCode::Fuel => "do less work in each call, or raise --fuel here and in production",
        FaultCode::MemoryLimit => "use less memory, or raise --max-memory here and in production",
        FaultCode::AnswerLimit => {
            "give a smaller answer, or raise --max-answer here and in production"
        }
        FaultCode::AllocNull | FaultCode::AllocOutOfBounds => {
            "alloc must return the address of a free block of that size, growing memory if need be"
        }
        FaultCode::AnswerOutOfBounds => {
            "return (address << 32) | length of a block inside memory, both unsigned"
        }
        FaultCode::BadAnswer(_) => {
            "answer one JSON object as UTF-8, with a known \"decision\" (a hook: with \"ok\") and values of the right types"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckKind;

    fn report(statuses: &[CheckStatus], deny_warnings: bool) -> ValidateReport {
        let row = |status| Row::from(Check::pass(CheckKind::State, "a", "b").with(status, "c"));
        ValidateReport {
            deny_warnings,
            modules: vec![ModuleReport {
                unused_flag: None,
                path: "m.wasm".to_owned(),
                verdict: Verdict::Passed,
                facts: None,
                checks: statuses.iter().copied().map(row).collect(),
                metrics: None,
            }],
        }
    }

    #[test]
    fn a_denied_warning_is_a_failure_in_every_format() {
        let status = |deny| report(&[CheckStatus::Warn], deny).cases()[0].status;
        assert_eq!(status(false), CaseStatus::Warned);
        assert_eq!(status(true), CaseStatus::Failed);
    }

    #[test]
    fn an_unreadable_file_outweighs_a_failed_one() {
        let mut report = report(&[], false);
        assert_eq!(report.verdict(), Verdict::Passed);
        report.modules.push(report.modules[0].clone());
        report.modules[0].verdict = Verdict::Failed;
        assert_eq!(report.verdict(), Verdict::Failed);
        report.modules[1].verdict = Verdict::Unreadable;
        assert_eq!(report.verdict(), Verdict::Unreadable);
        report.modules.clear();
        assert_eq!(report.verdict(), Verdict::NothingChecked);
    }

    #[test]
    fn the_line_of_a_syntax_error_is_read_off_its_picture() {
        assert_eq!(line_in("  --> <anon>:6:4\n   |"), Some(6));
        assert_eq!(line_in("0: func[2] at wasm offset 0x70"), None);
    }
}
