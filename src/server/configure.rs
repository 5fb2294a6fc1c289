//! Settings that peers push: in what order they are applied, and what each
//! peer is answered.
//!
//! All settings of one message are applied or all are refused, with a reason.
//! A proxy pushes on every connection it makes, so what is in force already is
//! accepted at once. Else one worker makes the changes, one after the other; all
//! that waits for it is one change, in which the newest value of each key
//! counts. What was applied holds until something else is pushed, for a module
//! that is loaded later too.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokio::sync::oneshot;

use super::live::Live;
use super::metrics::Change;
use super::pushed::{Pushed, Setting};
use crate::fault::printable;
use crate::response::{AgentResponse, Decision};

/// Messages that wait for the worker; the oldest gives way to one more.
const MAX_WAITING: usize = 1024;
/// Bytes that their senders' ids hold together; one alone may be larger.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Changes that are tried where all of them together are refused.
const MAX_TRIES: usize = 8;

const DEFECT: &str = "a defect of this program; please report it";

/// What a message comes to: whether its settings are in force, or why not.
pub(crate) type Outcome = Result<(), String>;

/// The answer to one message.
pub(crate) enum Reply {
    Now(Outcome),
    /// Once the worker has come to it.
    Later(oneshot::Receiver<Outcome>),
}

impl Reply {
    pub(crate) async fn outcome(self) -> Outcome {
        match self {
            Self::Now(outcome) => outcome,
            Self::Later(reply) => reply.await.unwrap_or_else(|_gone| Err(DEFECT.to_owned())),
        }
    }
}

/// One message that waits for the worker.
struct Waiting {
    pushed: Pushed,
    /// What its sender's id holds meanwhile.
    bytes: usize,
    reply: oneshot::Sender<Outcome>,
}

impl Waiting {
    fn answer(self, live: &Live, result: Result<Change, String>) {
        // The peer may be gone.
        let _ = self.reply.send(told(live, &self.pushed, result));
    }
}

/// Messages that wait, the oldest first.
#[derive(Default)]
pub(super) struct Line {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// There is a worker, or one is about to begin.
    has_worker: bool,
}

impl Line {
    /// Adds one message, and hands back those that have to give way.
    fn push(&mut self, waiting: Waiting) -> Vec<Waiting> {
        self.bytes += waiting.bytes;
        self.waiting.push_back(waiting);
        let mut given_up = Vec::new();
        while self.waiting.len() > MAX_WAITING
            || self.bytes > MAX_WAITING_BYTES && self.waiting.len() > 1
        {
            given_up.extend(self.waiting.pop_front().inspect(|oldest| {
                self.bytes -= oldest.bytes;
            }));
        }
        given_up
    }

    fn take_all(&mut self) -> VecDeque<Waiting> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// Decides about what was pushed, or puts it into the line; `id_bytes` are held
/// by its sender until then. Costs no more than reading it did.
pub(crate) fn configure(live: &Live, config: &Value, id_bytes: usize) -> Reply {
    let pushed = match Pushed::read(config) {
        Ok(pushed) => pushed,
        Err(reason) => return Reply::Now(told(live, &Pushed::default(), Err(reason))),
    };
    let pushed = match live.permitted(pushed) {
        Ok(pushed) => pushed,
        Err(reason) => return Reply::Now(told(live, &Pushed::default(), Err(reason))),
    };
    let mut line = live.line();
    if !line.has_worker && live.are_in_force(&pushed.settings) {
        drop(line);
        return Reply::Now(told(live, &pushed, Ok(Change::Unchanged)));
    }
    let (reply, later) = oneshot::channel();
    let given_up = line.push(Waiting {
        pushed,
        bytes: id_bytes,
        reply,
    });
    if !line.has_worker {
        line.has_worker = true;
        let live = live.clone();
        // Makes instances and waits for calls to end, which takes its time.
        tokio::task::spawn_blocking(move || work(&live));
    }
    drop(line);
    for waiting in given_up {
        waiting.answer(live, Err("newer settings came before these".to_owned()));
    }
    Reply::Later(later)
}

/// Applies what waits until nothing does.
fn work(live: &Live) {
    loop {
        let turn = live.turn_for_settings();
        let mut line = live.line();
        let batch = line.take_all();
        if batch.is_empty() {
            line.has_worker = false;
            return;
        }
        drop(line);
        // A panic is a defect of ours and goes no further; whoever waits is told.
        if catch_unwind(AssertUnwindSafe(|| apply(live, batch.into()))).is_err() {
            tracing::error!("{DEFECT}");
        }
        drop(turn);
    }
}

/// Applies all of them as one change; where that is refused, the newest of them
/// first, so that no bad one keeps a good one out.
fn apply(live: &Live, batch: Vec<Waiting>) {
    let all = batch.iter().flat_map(|waiting| &waiting.pushed.settings);
    let all: Vec<Setting> = all.copied().collect();
    if let Ok(change) = live.configure(&all) {
        for waiting in batch {
            waiting.answer(live, Ok(change));
        }
        return;
    }
    let mut newer: Vec<Setting> = Vec::new();
    let mut refused: Vec<(Vec<Setting>, String)> = Vec::new();
    for waiting in batch.into_iter().rev() {
        let settings = &waiting.pushed.settings;
        let with_newer: Vec<Setting> = settings.iter().chain(&newer).copied().collect();
        let before = refused.iter().find(|(tried, _)| tried == settings);
        let result = if let Some((_, reason)) = before {
            Err(reason.clone())
        } else if refused.len() >= MAX_TRIES {
            Err("newer settings came before these".to_owned())
        } else {
            live.configure(&with_newer)
        };
        match &result {
            Ok(_) => newer = with_newer,
            Err(reason) => refused.push((settings.clone(), reason.clone())),
        }
        waiting.answer(live, result);
    }
}

/// Counts and logs what came of it; says whether it is in force.
fn told(live: &Live, pushed: &Pushed, result: Result<Change, String>) -> Outcome {
    let metrics = live.metrics();
    match result {
        Ok(change) => {
            let looser = live.remark(pushed);
            metrics.configured(if looser.is_empty() {
                change
            } else {
                Change::Limited
            });
            if !looser.is_empty() && live.may_log() {
                let looser = looser.join("; ");
                tracing::warn!(looser, "pushed settings not applied");
            }
            if change == Change::Applied && live.may_log() {
                let agent = live.agent();
                let settings = agent.settings();
                tracing::info!(
                    pool_size = settings.pool.size,
                    policy = settings.failure_policy.name(),
                    limits = ?settings.pool.limits,
                    isolation = %settings.pool.isolation,
                    "pushed settings applied"
                );
            }
            Ok(())
        }
        Err(reason) => {
            metrics.configured(Change::Refused);
            let reason = printable(&reason, 512);
            if live.may_log() {
                tracing::warn!(reason, "pushed settings refused");
            }
            Err(reason)
        }
    }
}

/// What a proxy is answered; any decision but allow is a refusal.
pub(crate) fn response(result: Outcome) -> AgentResponse {
    match result {
        Ok(()) => AgentResponse::allow(),
        Err(reason) => {
            let mut response = AgentResponse::new(Decision::Block {
                status: 403,
                body: Some(reason),
            });
            response.tag("config-refused");
            response
        }
    }
}
