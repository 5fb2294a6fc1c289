//! What becomes of one frame: an event for a guest, an answer at once, or the
//! end of the connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::configure::{Configured, configure, response};
use super::connection::Connection;
use super::exchanges::Problem;
use super::job::Job;
use super::metrics::Seen;
use crate::event::Event;
use crate::fault::{Fault, FaultCode};
use crate::policy::decision::FailurePolicy;
use crate::protocol::wire::control::Cancel;
use crate::protocol::wire::event::{read_v1, read_v2};
use crate::protocol::wire::frame::{Frame, Protocol, kind};
use crate::protocol::wire::{BadMessage, HttpVersion, Message, RequestType};

/// How a peer broke the protocol, beyond the frames themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a message of type {0:#04x}, which no proxy may send here")]
    Type(u8),
    #[error("an event that cannot be read ({0}) and has no correlation id to answer to")]
    Unanswerable(&'static str),
}

/// Answers are sent, and others have their turn, after so much time.
const TURN: Duration = Duration::from_micros(200);
/// Calls that take longer on average gain more from other threads than handing
/// them over costs.
const SLOW_CALL: Duration = Duration::from_micros(100);

/// What one connection does before others have their turn.
pub(crate) struct Turn {
    began: Instant,
    calls: u32,
    used: Duration,
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            calls: 0,
            used: Duration::ZERO,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.used >= TURN
    }

    /// Whether calls are so slow that the rest is for other threads.
    fn is_slow(&self) -> bool {
        self.is_over() && self.used >= SLOW_CALL * self.calls
    }

    fn called(&mut self) {
        self.calls += 1;
        self.used = self.began.elapsed();
    }
}

/// Begins or answers what one frame holds.
pub(crate) fn receive(
    connection: &Arc<Connection>,
    frame: Frame<'_>,
    turn: &mut Turn,
) -> Result<(), Violation> {
    let message = match (connection.dialect().protocol, frame.kind) {
        (Protocol::V1, _) => read_v1(frame.payload),
        // Has a reader of its own.
        (Protocol::Grpc, kind) => return Err(Violation::Type(kind)),
        (Protocol::V2, kind::PING) => {
            connection.send(kind::PONG, |out| out.extend_from_slice(frame.payload));
            return Ok(());
        }
        (Protocol::V2, kind::CANCEL) => {
            // There is nobody to tell about a cancel that cannot be read.
            if let Ok(cancel) = serde_json::from_slice::<Cancel>(frame.payload) {
                connection.cancel(&cancel.correlation_id);
            }
            return Ok(());
        }
        (Protocol::V2, other) => {
            let kind = RequestType::from_byte(other).ok_or(Violation::Type(other))?;
            read_v2(kind, connection.dialect().encoding, frame.payload)
        }
    };
    dispatch(connection, message, turn)
}

/// Begins or answers what one message asks, whichever transport read it.
pub(crate) fn dispatch(
    connection: &Arc<Connection>,
    message: Result<Message, BadMessage>,
    turn: &mut Turn,
) -> Result<(), Violation> {
    match message {
        Ok(Message::Event(event, version)) => {
            begin(connection, event, version, turn);
            Ok(())
        }
        Ok(Message::Unhandled {
            correlation_id,
            ends_exchange,
        }) => {
            let (ticket, _) = connection.begin(&correlation_id);
            if ends_exchange {
                let exchanges = &connection.shared().exchanges;
                exchanges.completed(connection.origin(), &correlation_id);
            }
            let handled = connection.shared().policy().pass();
            connection.answer_plain((ticket, &correlation_id), handled, Some(Seen::Other));
            Ok(())
        }
        Ok(Message::Configure {
            correlation_id,
            config,
        }) => {
            let (ticket, _) = connection.begin(&correlation_id);
            // In the line before anything else is read, so that the newest wins.
            let live = &connection.shared().live;
            let sender = (connection.number(), correlation_id.len());
            match configure(live, &config, sender) {
                Configured::Now(outcome) => {
                    connection.answer_plain((ticket, &correlation_id), response(outcome), None);
                }
                later @ Configured::Later(_) => {
                    let connection = Arc::clone(connection);
                    tokio::spawn(async move {
                        let handled = response(later.outcome().await);
                        connection.answer_plain((ticket, &correlation_id), handled, None);
                    });
                }
            }
            Ok(())
        }
        Err(bad) => refuse(connection, bad),
    }
}

/// Calls a guest for an event, if there is a handler for it; where none is
/// free, queues it, if there is room for it.
fn begin(connection: &Arc<Connection>, event: Event, version: HttpVersion, turn: &mut Turn) {
    let (ticket, room) = connection.begin(event.correlation_id());
    let policy = connection.shared().policy();
    let mut asked = connection.join(event, version, &policy);
    if room && !policy.handles(asked.event.kind()) {
        connection.answer(ticket, asked, policy.pass());
        return;
    }
    if let Some(problem) = asked.joined.problem {
        let handled = policy.refuse(unjoined(problem));
        connection.answer(ticket, asked, handled);
        return;
    }
    if let Some(handled) = connection.collect(&mut asked, &policy) {
        connection.answer(ticket, asked, handled);
        return;
    }
    let job = Job::new(asked, Arc::clone(connection), ticket);
    let queue = &connection.shared().queue;
    // Not before those who have waited longer.
    let waits = if room && queue.is_empty() && !turn.is_slow() {
        let waits = job.begin(policy);
        turn.called();
        waits
    } else {
        Some(job)
    };
    let Some(job) = waits else { return };
    let refused = if room { queue.push(job) } else { Some(job) };
    if let Some(job) = refused {
        let what = if room {
            "the queue is full"
        } else {
            "too many in flight on one connection"
        };
        job.refuse(Fault::new(FaultCode::Overload, what));
    }
}

/// Why an event is not asked about, in the words of a log.
pub(super) fn unjoined(problem: Problem) -> Fault {
    match problem {
        Problem::HeadLost => Fault::new(
            FaultCode::HeadLost,
            "the head of this body's request was forgotten, or could not be read",
        ),
        Problem::Incomplete => Fault::new(
            FaultCode::BodyIncomplete,
            "the chunks before this one were collected for the module that was replaced",
        ),
        Problem::Ambiguous => Fault::new(
            FaultCode::AmbiguousExchange,
            "several open requests have this correlation id, and it is unclear which of them the body belongs to",
        ),
    }
}

/// Answers what could not be read by the failure policy; v1 needs no id.
fn refuse(connection: &Arc<Connection>, bad: BadMessage) -> Result<(), Violation> {
    let id = match (bad.correlation_id, connection.dialect().protocol) {
        (Some(id), _) => id,
        (None, Protocol::V1) => String::new(),
        (None, Protocol::V2 | Protocol::Grpc) => {
            return Err(Violation::Unanswerable(bad.what.name()));
        }
    };
    let (ticket, _) = connection.begin(&id);
    let shared = connection.shared();
    if shared.policy().settings().failure_policy == FailurePolicy::Open {
        // It may have been a head, and its exchange goes on.
        shared.exchanges.lose(connection.origin(), &id);
    }
    let handled = shared
        .policy()
        .refuse(Fault::new(FaultCode::BadEvent(bad.what), bad.at));
    connection.answer_plain((ticket, &id), handled, Some(Seen::Unreadable));
    Ok(())
}
