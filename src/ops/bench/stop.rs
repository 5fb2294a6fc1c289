//! Why measuring ends early: an error, or a guest or agent that failed.

use super::cases::BenchCase;
use super::report::BenchFailure;
use crate::client::AskError;
use crate::error::Error;
use crate::fault::Fault;

/// Why measuring ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// It could not be done at all.
    Error(Error),
    /// The guest faulted: a result of its own.
    Failure(Box<BenchFailure>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Stop {
    pub(super) fn fault(during: &str, case: Option<&BenchCase>, fault: Fault) -> Self {
        let fault = match case {
            Some(case) => case.hidden(fault),
            None => fault,
        };
        Self::failure(BenchFailure {
            during: during.to_owned(),
            case: case.map(|case| case.name.clone()),
            message: fault.to_string(),
            others: None,
            fault: Some(fault),
        })
    }

    /// A running agent: nobody there is an error, whoever fails a failure.
    pub(super) fn ask(during: &str, error: AskError) -> Self {
        let (case, message) = match error {
            AskError::Connect { .. } => return Self::no_agent(error),
            AskError::Failed { case, reason } => (Some(case), reason),
            other => (None, other.to_string()),
        };
        Self::failure(BenchFailure {
            during: during.to_owned(),
            case,
            message,
            others: None,
            fault: None,
        })
    }

    fn failure(failure: BenchFailure) -> Self {
        Self::Failure(Box::new(failure))
    }

    pub(super) fn no_agent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::host("cannot measure the agent", source)
    }

    pub(super) fn no_thread(source: std::io::Error) -> Self {
        Self::host("cannot start a thread", source)
    }

    pub(super) fn host(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        Self::Error(Error::Host { what, source })
    }
}
