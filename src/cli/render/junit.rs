//! JUnit XML, in the dialect CI systems read: a suite for each file, a failed
//! expectation as `<failure>`, a fault as `<error>`.

use std::io::{self, Write};

use crate::report::{Case, CaseStatus, Report};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::escape::{Syntax, guarded, terminal, terminal_lines};

/// The report's cases, grouped by suite in the order they come.
pub(crate) fn write<R: Report>(report: &R, out: &mut dyn Write) -> io::Result<()> {
    let mut document = quick_junit::Report::new("wasm-agent");
    let mut suite: Option<TestSuite> = None;
    for case in report.cases() {
        if suite
            .as_ref()
            .is_none_or(|suite| suite.name.as_str() != terminal(&case.suite))
        {
            document.add_test_suites(suite.take());
            suite = Some(TestSuite::new(terminal(&case.suite)));
        }
        if let Some(suite) = &mut suite {
            suite.add_test_case(test_case(&case));
        }
    }
    document.add_test_suites(suite);
    guarded(Syntax::Markup, out, |out| {
        document.serialize(out).map_err(io::Error::other)
    })
}

fn test_case(case: &Case) -> TestCase {
    let status = match case.status {
        CaseStatus::Passed | CaseStatus::Warned => TestCaseStatus::success(),
        CaseStatus::Failed => unsuccessful(NonSuccessKind::Failure, case),
        CaseStatus::Errored => unsuccessful(NonSuccessKind::Error, case),
        CaseStatus::Skipped | CaseStatus::Unchecked => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(terminal(&case.message));
            skipped
        }
    };
    let mut test = TestCase::new(terminal(&case.name), status);
    test.set_classname(terminal(&case.suite));
    test.set_time(case.time);
    match case.status {
        CaseStatus::Warned => drop(test.set_system_out(terminal_lines(&case.message))),
        CaseStatus::Unchecked if !case.detail.is_empty() => {
            test.set_system_out(terminal_lines(&case.detail));
        }
        _ => {}
    }
    test
}

fn unsuccessful(kind: NonSuccessKind, case: &Case) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(terminal(&case.message));
    if !case.detail.is_empty() {
        status.set_description(terminal_lines(&case.detail));
    }
    status
}
