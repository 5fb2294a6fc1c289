//! The agent: an event in, an agent response out.
//!
//! Every command and every transport answers through [`Agent::handle`], so local
//! runs and production cannot differ.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::abi::{Abi, handler_name};
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode, Refusal};
use crate::guest::convention::json_buffer::answer::{
    AnswerPolicy, CheckedAnswer, STATUS_OF_BLOCK, check_answer, find_refusal,
};
use crate::guest::convention::json_buffer::write_input;
use crate::guest::module::Module;
use crate::guest::{Cost, Instance, RawAnswer, Turns, drive};
use crate::policy::decision::{Answer, FailurePolicy, decide};
use crate::policy::pool::{Lease, Pool, PoolSettings, caught};
use crate::question::HeaderNames;
use crate::question::{Phase, Question};
use crate::response::{AgentResponse, Decision};

/// Longer answers are not checked on a thread that reads.
const LONG_ANSWER_BYTES: u64 = 16 << 10;
/// How much of an answer that was given up is searched for a refusal, in bytes.
const MAX_UNREAD_BYTES: usize = 16 << 20;

/// How an agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentSettings {
    /// Instances and limits.
    pub pool: PoolSettings,
    /// How header names are spelled for the guest.
    pub header_names: HeaderNames,
    /// What a fault becomes.
    pub failure_policy: FailurePolicy,
    /// What answers are checked against.
    pub answer_policy: AnswerPolicy,
}

/// What came of one event.
#[derive(Debug, Clone)]
pub struct Handled {
    /// What the proxy is told; in a box, since it is handed on often.
    pub response: Box<AgentResponse>,
    /// What the guest did wrong, if it did.
    pub fault: Option<Fault>,
    /// What the call cost; none where no guest was called.
    pub cost: Option<Cost>,
    /// Keys of the answer that the contract does not know.
    pub unknown_keys: Vec<String>,
}

/// A module behind its pool, answering events.
pub struct Agent {
    pool: Pool,
    settings: AgentSettings,
    /// Whether the module has a handler, in the order of [`EventKind::ALL`].
    has_handler: [bool; EventKind::ALL.len()],
}

impl Agent {
    /// An agent for a loaded module.
    #[must_use]
    pub fn new(module: Arc<Module>, settings: AgentSettings) -> Self {
        Self {
            has_handler: EventKind::ALL.map(|kind| module.has_handler(handler_name(kind))),
            pool: Pool::new(module, settings.pool),
            settings,
        }
    }

    /// An agent in this one's place, with a pool that counts on where this
    /// one's is.
    #[must_use]
    pub fn followed_by(&self, module: Arc<Module>, settings: AgentSettings) -> Self {
        Self {
            has_handler: EventKind::ALL.map(|kind| module.has_handler(handler_name(kind))),
            pool: self.pool.followed_by(module, settings.pool),
            settings,
        }
    }

    /// Makes the first instance, so that a module whose start fails is refused
    /// before the first event rather than at it.
    ///
    /// # Errors
    /// [`Error::WrongAbi`] for a module of another ABI, [`Error::Start`] with
    /// what the start did wrong.
    pub fn start(&self) -> Result<(), Error> {
        self.pool.module().require(Abi::Agent)?;
        self.pool.fill(1)
    }

    /// Makes all instances that the pool may have, so that no event waits for
    /// one to be made.
    ///
    /// # Errors
    /// Those of [`Agent::start`].
    pub fn fill(&self) -> Result<(), Error> {
        self.pool.module().require(Abi::Agent)?;
        self.pool.fill(self.settings.pool.size)
    }

    /// Whether the module has a handler for events of this kind.
    #[must_use]
    pub const fn handles(&self, kind: EventKind) -> bool {
        self.has_handler[kind as usize]
    }

    /// Answers an event that no guest is to be called for.
    #[must_use]
    pub fn pass(&self) -> Handled {
        self.decided(Ok(Answer::NotCalled), None, Vec::new())
    }

    /// Answers an event that faulted before a guest was called: by
    /// the failure policy, as after a guest's own fault.
    #[must_use]
    pub fn refuse(&self, fault: Fault) -> Handled {
        self.decided(Err(fault), None, Vec::new())
    }

    /// The pool, for its counts.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How this agent answers.
    #[must_use]
    pub const fn settings(&self) -> &AgentSettings {
        &self.settings
    }

    /// Answers one event. Waits for an instance, never fails, never panics.
    #[must_use]
    pub fn handle(&self, event: &Event) -> Handled {
        self.ask(&event.into())
    }

    /// Answers an event, or the input that one was before, byte for byte.
    #[must_use]
    pub fn ask(&self, input: &Question<'_>) -> Handled {
        // Its handlers are absent, which must not pass for an allow.
        if let Err(error) = self.pool.module().require(Abi::Agent) {
            return self.refuse(Fault::new(FaultCode::Internal, error.to_string()));
        }
        let Phase::Event(kind) = input.phase() else {
            let what = "a hook's context, which no agent answers";
            return self.refuse(Fault::new(FaultCode::Internal, what));
        };
        if !self.handles(kind) {
            return self.pass();
        }
        let lease = async { self.pool.lease() };
        drive(self.handle_on(lease, (kind, input), Turns::for_this_thread()))
    }

    /// Answers one event that the module has a handler for, on an instance that
    /// [`Pool::try_lease`] has found free. The future gives way while the guest
    /// computes, see [`SLICE`](crate::guest::SLICE), and never panics.
    pub async fn handle_leased<'a>(
        &'a self,
        lease: impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send,
        event: &Event,
    ) -> Handled {
        let input = Question::from(event);
        self.handle_on(lease, (event.kind(), &input), Turns::Many)
            .await
    }

    async fn handle_on<'a>(
        &'a self,
        lease: impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send,
        asked: (EventKind, &Question<'_>),
        turns: Turns,
    ) -> Handled {
        // Pinned where it stands: a future that is moved is copied, whole.
        let called = pin!(async {
            match lease.await {
                Err(fault) => (Err(*fault), None),
                Ok(mut lease) => {
                    let names = self.settings.header_names;
                    let policy = &self.settings.answer_policy;
                    let (result, mut cost) =
                        call_asked(&mut lease, asked, turns, (names, policy)).await;
                    cost.waited = lease.waited();
                    (result, Some(cost))
                }
            }
        });
        let (result, cost) = caught(called).await;
        match result {
            Ok(Some(answer)) => self.decided(
                Ok(Answer::Given(answer.response)),
                cost,
                answer.unknown_keys,
            ),
            Ok(None) => self.decided(Ok(Answer::Empty), cost, Vec::new()),
            Err(fault) => self.decided(Err(fault), cost, Vec::new()),
        }
    }

    fn decided(
        &self,
        result: Result<Answer, Fault>,
        cost: Option<Cost>,
        unknown_keys: Vec<String>,
    ) -> Handled {
        let policy = self.settings.failure_policy;
        let (response, fault) = match result {
            Ok(answer) => (decide(Ok(answer), policy), None),
            Err(fault) => (decide(Err(&fault), policy), Some(fault)),
        };
        Handled {
            response,
            fault,
            cost,
            unknown_keys,
        }
    }
}

/// Calls the event's handler on an instance and checks its answer; `None` is
/// the empty answer.
pub fn call_event(
    instance: &mut Instance,
    event: &Event,
    names: HeaderNames,
    policy: &AnswerPolicy,
) -> (Result<Option<CheckedAnswer>, Fault>, Cost) {
    let (input, turns) = (Question::from(event), Turns::for_this_thread());
    drive(call_asked(
        instance,
        (event.kind(), &input),
        turns,
        (names, policy),
    ))
}

async fn call_asked(
    instance: &mut Instance,
    (kind, input): (EventKind, &Question<'_>),
    turns: Turns,
    (names, policy): (HeaderNames, &AnswerPolicy),
) -> (Result<Option<CheckedAnswer>, Fault>, Cost) {
    let write = |out: &mut Vec<u8>| write_input(input, names, out);
    let called = instance.call_in(turns, kind as usize, write).await;
    let cost = called.cost;
    let is_long = cost.answer_bytes > LONG_ANSWER_BYTES || called.result.is_err();
    if is_long && turns == Turns::Many {
        give_way().await;
    }
    let checking = Instant::now();
    let result = match called.result {
        Ok(RawAnswer::Empty) => Ok(None),
        Ok(RawAnswer::Bytes(bytes)) => {
            check_answer(bytes, kind, input.chunk_index(), policy).map(Some)
        }
        Err(mut fault) => {
            fault.refusal = refusal_in_unread(instance.unread_answer());
            Err(fault)
        }
    };
    // Not what it waited for its turn in between.
    let took = cost.time.saturating_add(checking.elapsed());
    let is_overdue = is_long && took > instance.timeout();
    (within_deadline(result, is_overdue), cost)
}

/// Checking belongs to the call. An answer that takes too long is a fault,
/// and if it refuses it does so all the same.
fn within_deadline(
    checked: Result<Option<CheckedAnswer>, Fault>,
    is_overdue: bool,
) -> Result<Option<CheckedAnswer>, Fault> {
    match checked {
        Ok(Some(answer)) if is_overdue && answer.response.decision == Decision::Allow => {
            let what = "the deadline passed while the answer was checked";
            Err(Fault::new(FaultCode::Deadline, what))
        }
        checked => checked,
    }
}

/// The refusal in an answer of which only a part can be read. Where that is
/// more than is looked at, nobody can tell, and it refuses.
fn refusal_in_unread(bytes: &[u8]) -> Option<Refusal> {
    let looked_at = &bytes[..bytes.len().min(MAX_UNREAD_BYTES)];
    find_refusal(looked_at).or_else(|| {
        (bytes.len() > MAX_UNREAD_BYTES).then_some(Refusal {
            status: STATUS_OF_BLOCK,
        })
    })
}

/// Lets others have their turn once: what follows is long, and is not done on
/// a thread that reads.
async fn give_way() {
    let mut has_given_way = false;
    poll_fn(|_| {
        if std::mem::replace(&mut has_given_way, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
