//! One event on its way through a guest.
//!
//! Invariant: a job is answered exactly once or given up by its peer. One that
//! is dropped on the way, by a panic or at the end of the process, answers as
//! an internal fault.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Connection, Ticket};
use crate::agent::Handled;
use crate::event::Event;
use crate::fault::{Fault, FaultCode};

pub(crate) struct Job {
    /// None once it is answered.
    event: Option<Event>,
    connection: Arc<Connection>,
    ticket: Ticket,
    queued: Instant,
}

impl Job {
    pub(crate) fn new(event: Event, connection: Arc<Connection>, ticket: Ticket) -> Self {
        Self {
            event: Some(event),
            connection,
            ticket,
            queued: Instant::now(),
        }
    }

    pub(crate) const fn queued(&self) -> Instant {
        self.queued
    }

    /// Calls the guest and answers. Must run on a guest thread.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(self.connection.shared());
        if !self.connection.is_awaited(self.ticket) {
            self.event = None;
            shared.live.metrics().abandoned();
            return;
        }
        if shared.queue.is_expired(&self) {
            self.refuse(super::queue::waited_too_long());
            return;
        }
        shared.live.metrics().waited(self.queued.elapsed());
        let agent = shared.agent();
        let Some(event) = &mut self.event else { return };
        shared.context.complete(event);
        let handled = agent.handle(event);
        self.answer(handled);
    }

    /// Answers by the failure policy.
    pub(crate) fn refuse(mut self, fault: Fault) {
        let handled = self.connection.shared().agent().refuse(fault);
        self.answer(handled);
    }

    fn answer(&mut self, handled: Handled) {
        if let Some(event) = self.event.take() {
            self.connection.answer(self.ticket, event, handled);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.event.is_none() {
            return;
        }
        let fault = Fault::new(
            FaultCode::Internal,
            "the event was dropped; please report it",
        );
        let handled = self.connection.shared().agent().refuse(fault);
        self.answer(handled);
    }
}

/// The life of a guest thread: job after job until the queue is closed.
pub(crate) fn work(shared: &super::Shared) {
    while let Some(job) = shared.queue.pop() {
        // The job answers for itself as it is dropped; the thread lives on.
        if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
            tracing::error!("a defect of this program; please report it");
        }
    }
}
