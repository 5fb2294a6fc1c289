//! A policy: a module with its instances, its limits and its failure policy.
//!
//! In: a question. Out: a reply, always. Every command, every transport and every
//! embedding host asks through [`Policy`], so local runs and production cannot
//! differ.

pub(crate) mod bodies;
pub(crate) mod decision;
mod exchange;
pub(crate) mod pool;
mod reply;
pub(crate) mod runtime;
pub(crate) mod smoke;

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use self::bodies::{Bodies, Collected};
use self::decision::{Outcome, decide};
use crate::abi::Abi;
use crate::answer::Answer;
use crate::cost::Cost;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode};
use crate::guest::instance::Instance;
use crate::guest::module::Module;
use crate::guest::{AskSettings, Checked, ExecMode, drive};
use crate::hook::{Hook, HookContext};
use crate::limits::{DeadlineClock, Isolation, Wasi};
use crate::question::{HeaderNames, Phase, Question};
use crate::response::INSTANCE_CHANGED;

pub use self::bodies::{BodyMode, BodySettings, DEFAULT_MAX_BODY_BYTES};
pub use self::decision::FailurePolicy;
pub use self::pool::{Lease, Pool, PoolCounts, PoolSettings, PoolUse};
pub use self::runtime::{PluginRuntime, PluginSettings};
pub use crate::guest::convention::json_buffer::answer::AnswerPolicy;
pub use exchange::Exchange;
use exchange::Kept;
use pool::{Caller, Told};
pub use reply::{Handled, HandledHook, Reply};

/// How a module is asked, and what its faults become.
/// ```
/// use std::time::Duration;
/// use wasm_agent_kit::policy::{FailurePolicy, PolicySettings};
///
/// let mut settings = PolicySettings::default();
/// settings.failure_policy = FailurePolicy::Open;
/// settings.pool.size = 8;
/// settings.pool.wait = Duration::from_millis(50);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySettings {
    /// Instances and limits.
    pub pool: PoolSettings,
    /// How header names are spelled for the guest.
    pub header_names: HeaderNames,
    /// What a fault becomes that an event led to; a hook's fault is a result that
    /// is not ok.
    pub failure_policy: FailurePolicy,
    /// What answers are checked against.
    pub answer_policy: AnswerPolicy,
    /// How the module gets bodies, and how large they may be.
    pub bodies: BodySettings,
}

impl PolicySettings {
    /// How a guest is asked.
    #[must_use]
    pub const fn asking(&self) -> AskSettings<'_> {
        AskSettings {
            header_names: self.header_names,
            answer_policy: &self.answer_policy,
            now: None,
        }
    }
}

/// A module that answers questions: events of HTTP exchanges, or contexts of
/// hooks.
/// ```
/// use std::sync::Arc;
/// use wasm_agent_kit::event::{Event, RequestHead};
/// use wasm_agent_kit::guest::{Engine, EngineSettings, LoadSettings, Module};
/// use wasm_agent_kit::policy::{Policy, PolicySettings};
///
/// let engine = Engine::new(EngineSettings::default())?;
/// let path = "fixtures/modules/rules/rules.wasm".as_ref();
/// let module = Module::load(&engine, path, &LoadSettings::default())?;
/// let policy = Policy::new(Arc::new(module), PolicySettings::default());
/// let event = Event::RequestHeaders(RequestHead {
///     method: "GET".into(),
///     uri: "/".into(),
///     ..RequestHead::default()
/// });
/// let handled = policy.handle(&event);
/// assert!(handled.fault.is_none());
/// # Ok::<(), wasm_agent_kit::error::Error>(())
/// ```
pub struct Policy {
    pool: Pool,
    settings: PolicySettings,
    /// Whether the module has a handler, in the order of [`Phase::ALL`].
    has_handler: [bool; Phase::ALL.len()],
    /// The module's own word, else that of the settings.
    body_mode: BodyMode,
    /// Calls that missed their deadline and were repeated.
    repeats: AtomicU32,
}

/// So many late calls are repeated; more of them are no accident.
const MAX_REPEATS: u32 = 3;

impl Policy {
    /// A policy of a loaded module.
    #[must_use]
    pub fn new(module: Arc<Module>, settings: PolicySettings) -> Self {
        Self::behind(Pool::new(module, settings.pool), settings)
    }

    /// A policy in this one's place, with a pool that counts on where this
    /// one's is.
    #[must_use]
    pub fn followed_by(&self, module: Arc<Module>, settings: PolicySettings) -> Self {
        Self::behind(self.pool.followed_by(module, settings.pool), settings)
    }

    fn behind(pool: Pool, settings: PolicySettings) -> Self {
        let has = |phase: Phase| pool.module().handles(phase);
        let body_mode = settings.bodies.mode_of(pool.module());
        Self {
            has_handler: Phase::ALL.map(has),
            body_mode,
            pool,
            settings,
            repeats: AtomicU32::new(0),
        }
    }

    /// The same with one instance that nobody else uses.
    #[must_use]
    pub fn alone(&self) -> Self {
        let mut settings = self.settings.clone();
        settings.pool.size = 1;
        Self::new(Arc::clone(self.pool.module()), settings)
    }

    /// Makes the first instance, so that a module whose start fails is refused
    /// before the first question rather than at it. A host that asks about events
    /// alone, or hooks alone, asks [`Module::require`] too: other questions are
    /// faults.
    ///
    /// # Errors
    /// [`Error::Start`] with what the start did wrong.
    pub fn start(&self) -> Result<(), Error> {
        self.pool.fill(1)
    }

    /// Makes all instances that the pool may have, so that no question waits for
    /// one to be made.
    ///
    /// # Errors
    /// [`Error::Start`] with what the start did wrong.
    pub fn fill(&self) -> Result<(), Error> {
        self.pool.fill(self.settings.pool.size)
    }

    /// Begins an exchange.
    #[must_use]
    pub const fn exchange(&self) -> Exchange<'_> {
        Exchange::new(self)
    }

    /// The ABI its module is written to.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.pool.module().abi
    }

    /// The pool, for its module, settings and counts.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How this policy answers.
    #[must_use]
    pub const fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// How the module gets bodies: its own word goes before that of the settings.
    #[must_use]
    pub const fn body_mode(&self) -> BodyMode {
        self.body_mode
    }

    /// Whether the module has a handler for events of this kind.
    #[must_use]
    pub const fn handles(&self, kind: EventKind) -> bool {
        self.has_handler[kind as usize]
    }

    fn keeps_exchange(&self) -> bool {
        self.pool.module().convention.keeps_exchange()
    }

    const fn has(&self, phase: Phase) -> bool {
        match phase {
            Phase::Event(kind) => self.handles(kind),
            Phase::Hook(hook) => self.has_hook(hook),
        }
    }

    /// Whether the module has this hook. `after_hook` is optional.
    #[must_use]
    pub const fn has_hook(&self, hook: Hook) -> bool {
        self.has_handler[EventKind::ALL.len() + hook as usize]
    }

    /// Answers an event that no guest is to be called for.
    #[must_use]
    pub fn pass(&self) -> Handled {
        self.decided(Ok(Outcome::NotCalled), None, Vec::new())
    }

    /// Answers a chunk of a body whose rest is to come, in the module's place.
    pub(crate) fn collects(&self) -> Handled {
        let mut handled = self.pass();
        handled.response.needs_more = true;
        handled.is_collected = true;
        handled
    }

    /// Whether the module has this body asked about whole.
    pub(crate) const fn collects_bodies(&self, kind: EventKind) -> bool {
        let is_body = matches!(kind, EventKind::RequestBody | EventKind::ResponseBody);
        is_body && matches!(self.body_mode, BodyMode::Whole) && self.handles(kind)
    }

    /// A question outside any exchange. Where the module wants whole bodies, a part of
    /// one is a fault: nobody keeps it until the rest comes.
    fn whole<'q>(&self, question: &'q Question<'_>) -> Result<Asked<'q>, Box<Handled>> {
        match self.collect(&mut Bodies::default(), question) {
            Err(handled) if handled.is_collected => Err(Box::new(self.refuse(bodies::alone()))),
            asked => asked,
        }
    }

    /// The question to ask, with the whole body in it; or the answer in the module's
    /// place.
    fn collect<'q>(
        &self,
        bodies: &mut Bodies,
        question: &'q Question<'_>,
    ) -> Result<Asked<'q>, Box<Handled>> {
        let as_it_is = Asked {
            question: Cow::Borrowed(question),
            chunks: 1,
        };
        let collector = match question.phase() {
            Phase::Event(kind) if self.collects_bodies(kind) => {
                &mut bodies[usize::from(!kind.is_request())]
            }
            _ => return Ok(as_it_is),
        };
        let Question::Event(event) = question else {
            // Only a whole one was recorded as chunk 0 with the input of a guest.
            return match question.chunk_index() {
                None | Some(0) => Ok(as_it_is),
                Some(_) => Err(Box::new(self.refuse(bodies::alone()))),
            };
        };
        let mut event = event.as_ref().clone();
        let Some(chunk) = bodies::chunk_of(&mut event) else {
            return Ok(as_it_is);
        };
        match collector.take(chunk, self.settings.bodies.max_bytes) {
            Ok(Collected::Whole(chunks)) => Ok(Asked {
                question: Cow::Owned(event.into()),
                chunks,
            }),
            Ok(Collected::More) => Err(Box::new(self.collects())),
            Err(fault) => Err(Box::new(self.refuse(fault))),
        }
    }

    /// Answers an event that failed before a guest was called: by the failure
    /// policy, as after a guest's own fault.
    #[must_use]
    pub fn refuse(&self, fault: Fault) -> Handled {
        self.decided(Err(fault), None, Vec::new())
    }

    /// Answers any question, also input recorded earlier, byte for byte. Waits for
    /// an instance, never fails, never panics. Its thread is taken until there is
    /// an answer; an async host uses [`Policy::ask_async`].
    #[must_use]
    pub fn ask(&self, question: &Question<'_>) -> Reply {
        match self.whole(question) {
            Ok(asked) => self.ask_kept(&mut Kept::default(), &asked),
            Err(handled) => (*handled).into(),
        }
    }

    /// The same as a future, for any executor. It gives its thread back while it
    /// waits for an instance, and after each [`SLICE`](crate::guest::SLICE) that
    /// the guest computes; checking an answer of 1 MiB may hold it for some
    /// milliseconds. If the future is dropped in a call, its instance is too.
    ///
    /// It has to be polled to its end or dropped: one that nobody polls may hold a
    /// place that others wait for, and the time counts towards the deadline of its
    /// guest.
    ///
    /// ```no_run
    /// # use wasm_agent_kit::{policy::{Policy, Reply}, question::Question};
    /// async fn answer(policy: &Policy, question: &Question<'_>) -> Reply {
    ///     policy.ask_async(question).await
    /// }
    /// ```
    pub async fn ask_async(&self, question: &Question<'_>) -> Reply {
        match self.whole(question) {
            Ok(asked) => self.ask_kept_async(&mut Kept::default(), &asked).await,
            Err(handled) => (*handled).into(),
        }
    }

    /// Answers one event. Waits for an instance, never fails, never panics. Its
    /// thread is taken until there is an answer; an async host uses
    /// [`Policy::handle_async`].
    #[must_use]
    pub fn handle(&self, event: &Event) -> Handled {
        match self.whole(&event.into()) {
            Ok(asked) => self.answered(self.called(&mut Kept::default(), &asked)),
            Err(handled) => *handled,
        }
    }

    /// The same as a future, see [`Policy::ask_async`].
    pub async fn handle_async(&self, event: &Event) -> Handled {
        match self.whole(&event.into()) {
            Ok(asked) => self.answered(self.called_async(&mut Kept::default(), &asked).await),
            Err(handled) => *handled,
        }
    }

    /// Calls a hook. Waits for its turn, never fails, never panics. A hook that
    /// the module lacks is not called, and changes nothing.
    #[must_use]
    pub fn hook(&self, hook: Hook, context: HookContext) -> HandledHook {
        let question = Question::Hook(hook, Cow::Borrowed(&context));
        let called = self.called(&mut Kept::default(), &question.into());
        HandledHook::of(context, called)
    }

    /// The same as a future, see [`Policy::ask_async`].
    pub async fn hook_async(&self, hook: Hook, context: HookContext) -> HandledHook {
        let question = Question::Hook(hook, Cow::Borrowed(&context));
        let asked = question.into();
        let called = self.called_async(&mut Kept::default(), &asked).await;
        HandledHook::of(context, called)
    }

    /// Whether equal questions are equal for the guest, so that its answers can be
    /// compared: it reads no clock and no random bytes, or they repeat.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.settings.pool.limits.wasi != Wasi::Real
            || !self.pool.module().facts.reads_clocks_or_random_bytes()
    }

    fn ask_kept<'a>(&'a self, kept: &mut Kept<'a>, asked: &Asked<'_>) -> Reply {
        match context_of(&asked.question) {
            None => self.answered(self.called(kept, asked)).into(),
            Some(Ok(context)) => HandledHook::of(context, self.called(kept, asked)).into(),
            Some(Err(fault)) => HandledHook::of(HookContext::default(), Called::not(fault)).into(),
        }
    }

    async fn ask_kept_async<'a>(&'a self, kept: &mut Kept<'a>, asked: &Asked<'_>) -> Reply {
        match context_of(&asked.question) {
            None => self.answered(self.called_async(kept, asked).await).into(),
            Some(Ok(context)) => {
                let called = self.called_async(kept, asked).await;
                HandledHook::of(context, called).into()
            }
            Some(Err(fault)) => HandledHook::of(HookContext::default(), Called::not(fault)).into(),
        }
    }

    /// How a question of an exchange is asked.
    const fn asking(&self, kept: &Kept<'_>) -> AskSettings<'_> {
        AskSettings {
            now: kept.now,
            ..self.settings.asking()
        }
    }

    /// Calls the guest, on the instance that was kept for this exchange if one was.
    fn called<'a>(&'a self, kept: &mut Kept<'a>, asked: &Asked<'_>) -> Called {
        let question = &*asked.question;
        if let Some(called) = self.uncalled(question.phase()) {
            return called;
        }
        let before = kept.take(self.keeps_exchange());
        let same = self.same(kept, question);
        let mode = ExecMode::for_this_thread();
        let lease = async {
            match (before?, same) {
                (Some(lease), _) => Ok(lease),
                (None, Some(same)) => {
                    let lease = self.pool.lease_same(same, (Caller::Thread, mode));
                    Box::pin(lease).await
                }
                (None, None) => self.pool.lease(),
            }
        };
        let called = drive(self.called_on(lease, kept, (question, mode)));
        // Only the instance of the chunks before knows what they said.
        let may_repeat = same.is_none();
        if may_repeat
            && called.is_late()
            && self.settings.pool.limits.clock == DeadlineClock::Processor
        {
            return self
                .repeated(kept, question, called)
                .of_body_in(asked.chunks);
        }
        called.of_body_in(asked.chunks)
    }

    /// The same call on an instance of its own, while no other guest runs: what
    /// shares a processor with others may take long without any fault of its own.
    ///
    /// Only where others ran, and only [`MAX_REPEATS`] times: a guest may also be slow
    /// because of what its instance held, which a new one does not.
    fn repeated(&self, kept: &Kept<'_>, question: &Question<'_>, called: Called) -> Called {
        let module = self.pool.module();
        let had_company = called.waited_for_processor() || !module.engine.is_idle();
        if !had_company || self.keeps_exchange() {
            return called;
        }
        if self.repeats.fetch_add(1, Ordering::Relaxed) >= MAX_REPEATS {
            return called;
        }
        let again = module.engine.alone(|| {
            let mut instance = Instance::new(module, self.settings.pool.limits).ok()?;
            let (result, cost) = instance.ask(question, self.asking(kept));
            let cost = Some(cost);
            let is_moved = called.is_moved;
            Some(Called {
                result,
                cost,
                is_moved,
            })
        });
        match again.filter(|again| !again.is_late()) {
            Some(again) => {
                tracing::warn!(
                    "a call missed its deadline while other work ran; on a new instance and alone it met it, so this fault is not counted"
                );
                again
            }
            None => called,
        }
    }

    async fn called_async<'a>(&'a self, kept: &mut Kept<'a>, asked: &Asked<'_>) -> Called {
        let question = &*asked.question;
        if let Some(called) = self.uncalled(question.phase()) {
            return called;
        }
        let before = kept.take(self.keeps_exchange());
        let same = self.same(kept, question);
        let mode = ExecMode::InSlices;
        let lease = async {
            match (before?, same) {
                (Some(lease), _) => Ok(lease),
                (None, Some(same)) => {
                    let lease = self.pool.lease_same(same, (Caller::Task, mode));
                    Box::pin(lease).await
                }
                (None, None) => self.pool.lease_async().await,
            }
        };
        let called = self.called_on(lease, kept, (question, mode)).await;
        called.of_body_in(asked.chunks)
    }

    /// The instance that was asked about the chunks before this one. A guest that gets
    /// each chunk may keep what it was told, which only that instance has.
    fn same(&self, kept: &mut Kept<'_>, question: &Question<'_>) -> Option<Told> {
        *kept.chunks_of(self.chunk_kind(question)?)
    }

    /// The kind of a chunk whose instance matters to the chunks after it.
    fn chunk_kind(&self, question: &Question<'_>) -> Option<EventKind> {
        match question.phase() {
            Phase::Event(kind) if self.keeps_chunks_together(kind) => Some(kind),
            _ => None,
        }
    }

    /// Whether all chunks of such a body are for one instance.
    pub(crate) const fn keeps_chunks_together(&self, kind: EventKind) -> bool {
        let is_body = matches!(kind, EventKind::RequestBody | EventKind::ResponseBody);
        is_body
            && matches!(self.body_mode, BodyMode::Chunks)
            && !matches!(self.settings.pool.isolation, Isolation::Fresh)
    }

    /// What comes of a question that no guest is called for: the module has no handler
    /// for it, or is called by the other ABI. The handlers of that are absent too,
    /// which must not pass for an allow.
    fn uncalled(&self, phase: Phase) -> Option<Called> {
        if let Err(error) = self.pool.module().require(phase.abi()) {
            let fault = Fault::new(FaultCode::Internal, error.to_string());
            return Some(Called::not(fault));
        }
        let uncalled = Called {
            result: Ok(None),
            cost: None,
            is_moved: false,
        };
        (!self.has(phase)).then_some(uncalled)
    }

    /// Answers one event that the module has a handler for, on an instance that
    /// [`Pool::try_lease`] has found free. The future gives way while the guest
    /// computes, see [`SLICE`](crate::guest::SLICE), and never panics.
    pub(crate) async fn handle_leased<'a>(
        &'a self,
        lease: impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send,
        (event, chunks): (&Event, u32),
    ) -> (Handled, Option<Told>) {
        let question = Question::from(event);
        let asked = (&question, ExecMode::InSlices);
        let mut kept = Kept::default();
        let called = self.called_on(lease, &mut kept, asked).await;
        let told = self.same(&mut kept, &question);
        (self.answered(called.of_body_in(chunks)), told)
    }

    async fn called_on<'a>(
        &'a self,
        lease: impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send,
        kept: &mut Kept<'a>,
        (question, mode): (&Question<'_>, ExecMode),
    ) -> Called {
        // Pinned where it stands: a future that is moved is copied, whole.
        let called = pin!(async {
            match lease.await {
                Err(fault) => {
                    if let Some(kind) = self.chunk_kind(question) {
                        let told = kept.chunks_of(kind);
                        *told = Some(Told::without_one(*told));
                    }
                    Called::not(*fault)
                }
                Ok(mut lease) => {
                    let asking = self.asking(kept);
                    let (result, mut cost) = lease.ask_in(mode, question, asking).await;
                    cost.waited = lease.take_waited();
                    let is_moved = lease.lacks_chunks();
                    if let Some(kind) = self.chunk_kind(question) {
                        *kept.chunks_of(kind) = Some(lease.told());
                    }
                    if self.keeps_exchange() {
                        kept.keep(lease);
                    }
                    Called {
                        result,
                        cost: Some(cost),
                        is_moved,
                    }
                }
            }
        });
        caught(called).await
    }

    fn answered(&self, called: Called) -> Handled {
        let Called {
            result,
            cost,
            is_moved,
        } = called;
        let mut handled = self.decided_of(result, cost);
        if is_moved {
            handled.response.tag(INSTANCE_CHANGED);
        }
        handled
    }

    fn decided_of(&self, result: Result<Option<Checked>, Fault>, cost: Option<Cost>) -> Handled {
        match result {
            Ok(Some(Checked {
                answer: Answer::Response(response),
                unknown_keys,
            })) => self.decided(Ok(Outcome::Given(response)), cost, unknown_keys),
            Ok(None) if cost.is_none() => self.pass(),
            Ok(None) => self.decided(Ok(Outcome::Empty), cost, Vec::new()),
            Ok(Some(_)) => self.decided(Err(wrong_answer()), cost, Vec::new()),
            Err(fault) => self.decided(Err(fault), cost, Vec::new()),
        }
    }

    fn decided(
        &self,
        result: Result<Outcome, Fault>,
        cost: Option<Cost>,
        unknown_keys: Vec<String>,
    ) -> Handled {
        let policy = self.settings.failure_policy;
        let (response, fault) = match result {
            Ok(outcome) => (decide(Ok(outcome), policy), None),
            Err(fault) => (decide(Err(&fault), policy), Some(fault)),
        };
        Handled {
            response,
            fault,
            cost,
            unknown_keys,
            is_collected: false,
        }
    }
}

/// A question to ask a guest, and in how many chunks its body came.
struct Asked<'q> {
    question: Cow<'q, Question<'q>>,
    chunks: u32,
}

impl<'q> From<Question<'q>> for Asked<'q> {
    fn from(question: Question<'q>) -> Self {
        Self {
            question: Cow::Owned(question),
            chunks: 1,
        }
    }
}

/// What came of a call, or of none.
pub(crate) struct Called {
    result: Result<Option<Checked>, Fault>,
    /// None where no guest was called.
    cost: Option<Cost>,
    /// Another instance was asked about the chunks before, or some of them.
    is_moved: bool,
}

impl Called {
    const fn not(fault: Fault) -> Self {
        Self {
            result: Err(fault),
            cost: None,
            is_moved: false,
        }
    }

    /// The answer to a body that came in so many chunks, held against what can be
    /// carried out.
    fn of_body_in(mut self, chunks: u32) -> Self {
        self.result = bodies::check(self.result, chunks);
        self
    }

    /// Whether others had the processor during a good part of the call.
    fn waited_for_processor(&self) -> bool {
        let cost = self.cost.unwrap_or_default();
        cost.time > cost.computed + cost.computed / 5
    }

    fn is_late(&self) -> bool {
        matches!(&self.result, Err(fault) if fault.code == FaultCode::Deadline)
    }
}

/// A call in which a panic is a fault of ours and goes no further. It leaves
/// the instance in mid-call, which ends it.
fn caught(mut call: Pin<&mut impl Future<Output = Called>>) -> impl Future<Output = Called> {
    poll_fn(move |context| {
        catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))).unwrap_or_else(|_panic| {
            let what = "a defect of this program; please report it";
            Poll::Ready(Called::not(Fault::new(FaultCode::Internal, what)))
        })
    })
}

/// The context of a hook that is asked about; nothing of an event.
fn context_of(question: &Question<'_>) -> Option<Result<HookContext, Fault>> {
    match (question.phase(), question) {
        (_, Question::Hook(_, context)) => Some(Ok(context.as_ref().clone())),
        (Phase::Hook(_), Question::Exact { json, .. }) => {
            let context = serde_json::from_slice(json);
            Some(context.map_err(|error| {
                let what = format!("a hook's context that is none: {error}");
                Fault::new(FaultCode::Internal, what)
            }))
        }
        _ => None,
    }
}

/// A defect of a calling convention, which must not pass for an empty answer.
fn wrong_answer() -> Fault {
    Fault::new(
        FaultCode::Internal,
        "the answer is to another question; please report it",
    )
}
