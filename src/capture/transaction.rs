//! One exchange as it was captured.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Expectation, Mark, Place, Remark, read_back};
use crate::abi::Abi;
use crate::event::{Event, EventKind};
use crate::question::{Phase, Question, Timed};
use crate::time::since_1970;

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
    /// When it was called, in nanoseconds since 1970: where the capture does not say,
    /// when the call before it was.
    pub at_ns: Option<i64>,
    /// What was answered at the time, where the capture knows.
    pub recorded: Option<Recorded<'a>>,
}

impl CapturedStep<'_> {
    pub(super) fn into_owned(self) -> CapturedStep<'static> {
        CapturedStep {
            input: self.input.into_owned(),
            at_ns: self.at_ns,
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

    /// What its records say of their redacted inputs.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let says = |mark: &Mark| self.remarks.contains(&Remark::of_mark(*mark));
        Mark::ALL.into_iter().rev().find(says)
    }

    /// What its calls ask, in order.
    pub fn questions(&self) -> impl Iterator<Item = &Question<'a>> + Clone {
        self.steps.iter().map(|step| &step.input)
    }

    /// Bytes of its bodies.
    pub(super) fn body_bytes(&self) -> usize {
        let events = self.questions().filter_map(Question::event);
        let bodies = events.map(|event| match event {
            Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => {
                chunk.data.len()
            }
            Event::RequestHeaders(_) | Event::ResponseHeaders(_) => 0,
        });
        bodies.sum()
    }

    /// The same with their times.
    pub(crate) fn timed(&self) -> impl Iterator<Item = Timed<&Question<'a>>> + Clone {
        self.steps.iter().map(|step| Timed {
            at: step.at_ns.and_then(since_1970),
            question: &step.input,
        })
    }

    /// The same, each read back from the bytes that the guest got, see
    /// [`read_back`].
    pub(crate) fn read_back(&self) -> Result<Vec<Timed<Question<'static>>>, String> {
        let questions = read_back(self.questions())?;
        let times = self.timed().map(|timed| timed.at);
        let timed = times.zip(questions);
        Ok(timed.map(|(at, question)| Timed { at, question }).collect())
    }

    /// When it began, in nanoseconds since 1970.
    #[must_use]
    pub fn at_ns(&self) -> Option<i64> {
        self.steps.first()?.at_ns
    }

    /// Puts all its calls at one time, or each where the capture does not say when
    /// it was at the time of the one before.
    pub(super) fn place_in_time(&mut self, all_at: Option<i64>) {
        let mut last = None;
        for step in &mut self.steps {
            step.at_ns = all_at.or(step.at_ns).or(last);
            last = step.at_ns;
        }
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
