//! One event on its way through a guest.
//!
//! Invariant: a job is answered exactly once or given up by its peer. One that
//! is dropped on the way, by a panic or at the end of the process, answers as
//! an internal fault.
//!
//! A job is called where it was read, if an instance is free and nobody waits
//! for one. A call that computes on gives way after a moment and goes on on a
//! guest thread, as do events that had to wait; so neither a runaway nor a
//! crowd keeps a connection's thread from its other work.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio_util::sync::ReusableBoxFuture;

use super::Shared;
use super::connection::{Connection, Given, Ticket};
use super::exchanges::{JoinedEvent, Problem};
use super::queue::Work;
use super::receive;
use super::record::Source;
use crate::event::Event;
use crate::fault::{Fault, FaultCode};
use crate::policy::bodies::{self, Collector};
use crate::policy::pool::{Told, Wish};
use crate::policy::{Handled, Policy, Pool};
use crate::response::{AgentResponse, Audit, Decision};

thread_local! {
    /// The box of a call that ended here, for the next: it is large, and the
    /// allocator slow with what is.
    static SPARE: Cell<Option<Steps>> = const { Cell::new(None) };
}

/// A call's steps; its job comes back if it never began.
type Steps = ReusableBoxFuture<'static, Option<Job>>;

pub(crate) struct Job {
    /// None once it is answered.
    asked: Option<JoinedEvent>,
    connection: Arc<Connection>,
    ticket: Ticket,
    /// It no longer waits for the instance of the chunks before.
    takes_any: bool,
}

impl Job {
    pub(crate) const fn new(
        asked: JoinedEvent,
        connection: Arc<Connection>,
        ticket: Ticket,
    ) -> Self {
        Self {
            asked: Some(asked),
            connection,
            ticket,
            takes_any: false,
        }
    }

    /// Bytes of the body in it.
    pub(crate) fn body_bytes(&self) -> usize {
        match self.asked.as_ref().map(|asked| &asked.event) {
            Some(Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. }) => {
                chunk.data.len()
            }
            _ => 0,
        }
    }

    /// Whether its call can begin where there is a place for one: the instance that it
    /// is for is not in another call.
    pub(crate) fn is_ready(&self, pool: &Pool) -> bool {
        match self.wish() {
            Wish::Same(told) => !pool.is_lent(told.instance),
            Wish::Any | Wish::Other(_) => true,
        }
    }

    /// The instance that was asked about the chunk before.
    fn told(&self) -> Option<Told> {
        self.asked.as_ref().and_then(|asked| asked.joined.told)
    }

    fn wish(&self) -> Wish {
        match self.told() {
            None => Wish::Any,
            Some(told) if self.takes_any => Wish::Other(told),
            Some(told) => Wish::Same(told),
        }
    }

    /// Makes it a call of any instance, since it waited too long for its own. False
    /// where any would have done.
    pub(crate) fn gives_in(&mut self) -> bool {
        let waits = self.told().is_some() && !self.takes_any;
        self.takes_any |= waits;
        waits
    }

    pub(crate) const fn queued(&self) -> Instant {
        self.ticket.since()
    }

    /// Calls a guest here and now, up to where the call gives way; a guest
    /// thread takes it from there. Hands the job back where no guest is free.
    pub(crate) fn begin(self, policy: Arc<Policy>) -> Option<Self> {
        let shared = Arc::clone(self.connection.shared());
        let mut call = Call::new(self, policy);
        match call.step() {
            Poll::Ready(None) => {
                SPARE.set(Some(call.steps));
                shared.queue.instance_freed();
                None
            }
            Poll::Ready(refused) => refused,
            Poll::Pending => {
                shared.queue.go_on(call);
                None
            }
        }
    }

    /// Calls a guest and answers; hands the job back where no guest is free.
    async fn call(mut self, policy: Arc<Policy>) -> Option<Self> {
        if let Some(fault) = self.collected_for_another(&policy) {
            self.answer(policy.refuse(fault));
            return None;
        }
        let Some(lease) = policy.pool().try_lease_for(self.wish()) else {
            return Some(self);
        };
        let asked = self.asked.as_mut()?;
        let shared = self.connection.shared();
        shared.live.metrics().waited(self.ticket.since().elapsed());
        let event = (&asked.event, asked.joined.chunks);
        let (mut handled, told) = policy.handle_leased(lease, event).await;
        if let Some(told) = told.filter(|_| asked.has_more_chunks()) {
            let kind = asked.event.kind();
            shared.exchanges.asked(asked.joined.place, kind, told);
        }
        if !asked.joined.other_heads.is_empty() {
            // In a box: it is rare, and every call's future would have its size.
            handled = Box::pin(judge_with_each(&policy, asked, handled)).await;
        }
        let mut source = None;
        if let Some(recorder) = &self.connection.shared().settings.recorder {
            if asked.joined.is_unclear {
                // Whose secrets are in it is not known.
                recorder.leave_out();
            } else {
                source = Some(Source {
                    exchange: asked.joined.number,
                    module: policy.pool().module().hash.as_str().into(),
                    names: policy.settings().header_names,
                    policy: Arc::downgrade(&policy),
                });
            }
        }
        self.answer(Given { handled, source });
        None
    }

    /// Why the policy of now cannot be asked: it wants whole bodies, and the one before
    /// it, for which this chunk waited, did not.
    fn collected_for_another(&mut self, policy: &Policy) -> Option<Fault> {
        let asked = self.asked.as_mut()?;
        let kind = asked.event.kind();
        if asked.joined.chunks > 0 || !policy.collects_bodies(kind) {
            return None;
        }
        let chunk = bodies::chunk_of(&mut asked.event)?;
        if !chunk.is_last {
            return Some(receive::unjoined(Problem::Incomplete));
        }
        let max_bytes = policy.settings().bodies.max_bytes;
        Collector::new(true).take(chunk, max_bytes).err()
    }

    /// Whether somebody still waits for its answer; else it is given up.
    pub(crate) fn is_awaited(&mut self) -> bool {
        let is_awaited = self.connection.is_awaited(self.ticket);
        if !is_awaited {
            self.asked = None;
            let shared = self.connection.shared();
            shared.live.metrics().abandoned(None);
        }
        is_awaited
    }

    /// Answers by the failure policy.
    pub(crate) fn refuse(mut self, fault: Fault) {
        let handled = self.connection.shared().policy().refuse(fault);
        self.answer(handled);
    }

    fn answer(&mut self, given: impl Into<Given>) {
        if let Some(asked) = self.asked.take() {
            self.connection.answer(self.ticket, asked, given);
        }
    }
}

/// Asks about a body with the head of each other exchange that it may belong
/// to. The first refusal or fault stands; answers that ask for different changes
/// cannot be carried out together.
async fn judge_with_each(policy: &Policy, asked: &mut JoinedEvent, handled: Handled) -> Handled {
    if handled.response.decision != Decision::Allow {
        return handled;
    }
    for head in std::mem::take(&mut asked.joined.other_heads) {
        if let Event::RequestBody { request, .. } = &mut asked.event {
            *request = Some(head);
        }
        let judged = match policy.pool().try_lease() {
            Some(lease) => policy.handle_leased(lease, (&asked.event, 1)).await.0,
            None => policy.refuse(Fault::new(FaultCode::Overload, "no guest was free")),
        };
        if judged.response.decision != Decision::Allow || judged.fault.is_some() {
            return judged;
        }
        if !asks_the_same(&judged.response, &handled.response) {
            let what = "this body may belong to several requests, whose answers differ";
            return policy.refuse(Fault::new(FaultCode::AmbiguousExchange, what));
        }
    }
    handled
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.asked.is_none() {
            return;
        }
        let fault = Fault::new(
            FaultCode::Internal,
            "the event was dropped; please report it",
        );
        let handled = self.connection.shared().policy().refuse(fault);
        self.answer(handled);
    }
}

/// Whether two answers differ in nothing but what is written down.
fn asks_the_same(one: &AgentResponse, other: &AgentResponse) -> bool {
    let without_audit = |response: &AgentResponse| AgentResponse {
        audit: Audit::default(),
        ..response.clone()
    };
    without_audit(one) == without_audit(other)
}

/// A call that was begun. Its job comes back if it never really was, because
/// no instance was free.
pub(crate) struct Call {
    steps: Steps,
    connection: Arc<Connection>,
    ticket: Ticket,
}

impl Call {
    fn new(job: Job, policy: Arc<Policy>) -> Self {
        let (connection, ticket) = (Arc::clone(&job.connection), job.ticket);
        let call = job.call(policy);
        let steps = match SPARE.take() {
            Some(mut spare) => {
                spare.set(call);
                spare
            }
            None => ReusableBoxFuture::new(call),
        };
        Self {
            steps,
            connection,
            ticket,
        }
    }

    /// Goes on with it until it gives way. It waits for nothing but the
    /// processor, so nobody has to be woken. A panic is told and ends it; its
    /// job then answers for itself.
    fn step(&mut self) -> Poll<Option<Job>> {
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| self.steps.poll(&mut context)));
        polled.unwrap_or_else(|_panic| {
            tracing::error!("a defect of this program; please report it");
            Poll::Ready(None)
        })
    }

    /// Goes on with it to its end, or until nobody waits for its answer any
    /// more: the guest is then stopped in mid-call, and its instance replaced.
    /// Whoever waits for the processor comes first each time: others' answers
    /// are worth more than a runaway's haste.
    fn finish(mut self) -> Option<Job> {
        loop {
            if let Poll::Ready(done) = self.step() {
                return done;
            }
            if !self.connection.is_awaited(self.ticket) {
                return None;
            }
            std::thread::yield_now();
        }
    }
}

/// The life of a guest thread: call after call until the queue is closed.
pub(crate) fn work(shared: &Shared) {
    while let Some(work) = shared.queue.next(|| shared.policy()) {
        let call = match work {
            Work::GoOn(call) => call,
            Work::Call(mut job) => {
                if !job.is_awaited() {
                    continue;
                }
                if shared.queue.is_expired(&job) && !job.gives_in() {
                    job.refuse(super::queue::waited_too_long());
                    continue;
                }
                Call::new(*job, shared.policy())
            }
        };
        if let Some(job) = call.finish() {
            // Somebody was quicker; it is still the next in turn.
            shared.queue.push_front(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is made, moved and dropped for every event: what is awaited by value
    /// several layers deep is in it as often as there are layers.
    #[test]
    fn a_call_is_small() {
        const fn size<R>(_: fn(Job, Arc<Policy>) -> R) -> usize {
            size_of::<R>()
        }
        let size = size(|job, policy| job.call(policy));
        assert!(size <= 3 << 10, "{size} bytes");
    }
}
