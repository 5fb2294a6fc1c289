//! Exit codes: one exhaustive match from errors and verdicts.

use crate::error::Error;
use crate::report::Verdict;
use crate::server::bind::BindError;

/// Success.
pub(crate) const OK: u8 = 0;
/// The module failed.
pub(crate) const FAILED: u8 = 1;
/// The command line cannot be carried out; nothing was started.
pub(crate) const USAGE: u8 = 2;
/// An input is unreadable or malformed, or a report could not be written.
pub(crate) const UNREADABLE: u8 = 3;
/// Nothing was checked. Never green.
pub(crate) const NOTHING_CHECKED: u8 = 4;
/// `bench` could not tell a regression from noise.
pub(crate) const INCONCLUSIVE: u8 = 5;

/// `serve` could not bind, or stopped with calls unanswered.
pub(crate) const UNSERVED: u8 = 6;

/// The list at the end of each command's help.
pub(crate) const HELP: &str = "Exit status:
  0  success
  1  the module failed: contract broken, expectation missed, fault
  2  usage: nothing was started
  3  an input is unreadable or malformed, or the report could not be written
  4  nothing was checked";

/// The list at the end of `bench`'s help.
pub(crate) const BENCH_HELP: &str = "Exit status:
  0  measured; compared: better or equal
  1  regressed, or the module faulted while it was measured
  2  usage: nothing was started
  3  an input is unreadable or malformed, or the report could not be written
  4  nothing was measured or compared
  5  inconclusive: noise exceeds the threshold";

/// The list at the end of `serve`'s help.
pub(crate) const SERVE_HELP: &str = "Exit status:
  0  stopped by a signal, and all received events were answered
  1  the module does not keep the contract, or faults at its smoke call
  2  usage: nothing was started
  3  the module is unreadable or malformed
  6  the socket could not be bound, or the grace period ran out";

/// The list at the end of `replay`'s help.
pub(crate) const REPLAY_HELP: &str = "Exit status:
  0  no difference that --fail-on counts as a failure
  1  decisions differ, the module faulted, or a test of a test file failed
  2  usage: nothing was started
  3  a capture or module is unreadable, or with --strict one of the records;
     or the report could not be written
  4  nothing was checked: no transaction was replayed, or the module has no
     handler for any of them
  5  no such difference, and the replay was interrupted, or without
     --allow-redacted-changes a record says that redacting changed its decision";

/// The exit code of a finished operation.
pub(crate) const fn of_verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Passed | Verdict::Unchecked => OK,
        Verdict::Failed => FAILED,
        Verdict::Unreadable => UNREADABLE,
        Verdict::NothingChecked => NOTHING_CHECKED,
        Verdict::Inconclusive => INCONCLUSIVE,
    }
}

/// The exit code of an operation that could not be done.
pub(crate) fn of_error(error: &anyhow::Error) -> u8 {
    if error.is::<BindError>() {
        return UNSERVED;
    }
    match error.downcast_ref::<Error>() {
        Some(
            Error::Refused { .. }
            | Error::WrongAbi { .. }
            | Error::Start { .. }
            | Error::Smoke { .. }
            | Error::CompileTime { .. },
        ) => FAILED,
        Some(Error::Usage(_)) => USAGE,
        Some(Error::NothingChecked(_)) => NOTHING_CHECKED,
        Some(
            Error::Read { .. } | Error::Write { .. } | Error::Malformed { .. } | Error::Host { .. },
        ) => UNREADABLE,
        // The enum may grow; what is new is no success.
        Some(_) | None => UNREADABLE,
    }
}
