//! One exchange as it was captured.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Expectation, Place, Remark};
use crate::abi::Abi;
use crate::event::{Event, EventKind};
use crate::question::{Phase, Question};

/// What was answered at the time.
#[derive(Debug, Clone)]
pub struct Recorded<'a> {
    /// The agent response or the hook's result, as JSON.
    pub response: Cow<'a, [u8]>,
    /// Instructions of the call.
    pub fuel: Option<u64>,
    /// The hash of the module that answered.
    pub module: Option<Cow<'a, str>>,
}

/// One call of a transaction.
#[derive(Debug, Clone)]
pub struct CapturedStep<'a> {
    /// What the guest gets.
    pub input: Question<'a>,
    /// What was answered at the time, where the capture knows.
    pub recorded: Option<Recorded<'a>>,
}

impl CapturedStep<'_> {
    pub(super) fn into_owned(self) -> CapturedStep<'static> {
        CapturedStep {
            input: self.input.into_owned(),
            recorded: self.recorded.map(|recorded| Recorded {
                response: Cow::Owned(recorded.response.into_owned()),
                fuel: recorded.fuel,
                module: recorded.module.map(|hash| Cow::Owned(hash.into_owned())),
            }),
        }
    }
}

/// One exchange, as captured; parts of it are parts of its records.
#[derive(Debug, Clone)]
pub struct Transaction<'a> {
    /// Where its first record stands.
    pub place: Place,
    /// The id all its events share.
    pub id: Cow<'a, str>,
    /// When it began, in nanoseconds since 1970.
    pub at_ns: Option<i64>,
    /// Its events in order.
    pub steps: Vec<CapturedStep<'a>>,
    /// What a test file expects of it.
    pub expect: Option<Box<Expectation>>,
    /// What a reader should know.
    pub remarks: Vec<Remark>,
}

impl<'a> Transaction<'a> {
    /// The same without its records.
    #[must_use]
    pub fn into_owned(self) -> Transaction<'static> {
        let steps = self.steps.into_iter().map(CapturedStep::into_owned);
        Transaction {
            place: self.place,
            id: Cow::Owned(self.id.into_owned()),
            at_ns: self.at_ns,
            steps: steps.collect(),
            expect: self.expect,
            remarks: self.remarks,
        }
    }

    /// The ABI of the modules that it can be replayed to.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.steps
            .first()
            .map_or(Abi::Agent, |step| step.input.phase().abi())
    }

    /// What its calls ask, in order.
    pub fn questions(&self) -> impl Iterator<Item = &Question<'a>> + Clone {
        self.steps.iter().map(|step| &step.input)
    }

    /// Method and path with query of the request, where one is known.
    #[must_use]
    pub fn request_line(&self) -> Option<(String, String)> {
        #[derive(Deserialize)]
        struct Line {
            method: Option<String>,
            uri: Option<String>,
        }
        match &self.steps.first()?.input {
            Question::Event(event) => match event.as_ref() {
                Event::RequestHeaders(head) => Some((head.method.clone(), head.uri.clone())),
                Event::RequestBody {
                    request: Some(head),
                    ..
                }
                | Event::ResponseBody {
                    request: Some(head),
                    ..
                } => Some((head.method.clone(), head.uri.clone())),
                _ => None,
            },
            Question::Exact {
                phase: Phase::Event(_),
                json,
                ..
            } => {
                let line: Line = serde_json::from_slice(json).ok()?;
                Some((line.method?, line.uri?))
            }
            Question::Hook(..) | Question::Exact { .. } => None,
        }
    }

    /// The status of the captured response, where there is one.
    #[must_use]
    pub fn response_status(&self) -> Option<u16> {
        #[derive(Deserialize)]
        struct Status {
            status: Option<u16>,
        }
        self.steps.iter().find_map(|step| match &step.input {
            Question::Event(event) => match event.as_ref() {
                Event::ResponseHeaders(head) => Some(head.status),
                _ => None,
            },
            Question::Exact {
                phase: Phase::Event(EventKind::ResponseHeaders),
                json,
                ..
            } => serde_json::from_slice::<Status>(json).ok()?.status,
            Question::Hook(..) | Question::Exact { .. } => None,
        })
    }
}
