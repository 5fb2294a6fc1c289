//! Settings that peers push: in what order they are applied, and what each
//! peer is answered.
//!
//! All settings of one message are applied or all are refused, with a reason.
//! A proxy pushes on every connection it makes, so what is in force already is
//! accepted at once. Else one worker makes the changes, one after the other; all
//! that waits for it is one change, in which the newest value of each key
//! counts. What was applied holds until something else is pushed, for a module
//! that is loaded later too.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokio::sync::oneshot;

use super::live::Live;
use super::metrics::Change;
use super::pushed::{Pushed, Setting};
use crate::fault::printable;
use crate::policy::Handled;
use crate::response::{AgentResponse, Decision};

/// Messages that wait for the worker; the oldest gives way to one more.
const MAX_WAITING: usize = 1024;
/// Bytes that their senders' ids hold together; one alone may be larger.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Tries that may fail where all of them together are refused: so many of the
/// newest messages of all connections, and so many of those before them.
const MAX_TRIES: usize = 8;

const DEFECT: &str = "a defect of this program; please report it";

/// What a message comes to: whether its settings are in force, or why not.
pub(crate) type InForce = Result<(), String>;

/// The answer to one message.
pub(crate) enum Configured {
    Now(InForce),
    /// Once the worker has come to it.
    Later(oneshot::Receiver<InForce>),
}

impl Configured {
    pub(crate) async fn outcome(self) -> InForce {
        match self {
            Self::Now(outcome) => outcome,
            Self::Later(later) => later.await.unwrap_or_else(|_gone| Err(DEFECT.to_owned())),
        }
    }
}

/// One message that waits for the worker.
struct Waiting {
    pushed: Pushed,
    /// The number of the connection that it came on.
    connection: u64,
    /// What its sender's id holds meanwhile.
    bytes: usize,
    reply: oneshot::Sender<InForce>,
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

/// Decides about what this connection pushed, or puts it into the line;
/// `id_bytes` are held by its sender until then. Costs no more than reading it
/// did.
pub(crate) fn configure(
    live: &Live,
    config: &Value,
    (connection, id_bytes): (u64, usize),
) -> Configured {
    let pushed = match Pushed::read(config) {
        Ok(pushed) => pushed,
        Err(reason) => return Configured::Now(told(live, &Pushed::default(), Err(reason))),
    };
    let pushed = match live.permitted(pushed) {
        Ok(pushed) => pushed,
        Err(reason) => return Configured::Now(told(live, &Pushed::default(), Err(reason))),
    };
    let mut line = live.line();
    if !line.has_worker && live.are_in_force(&pushed.settings) {
        drop(line);
        return Configured::Now(told(live, &pushed, Ok(Change::Unchanged)));
    }
    let (reply, later) = oneshot::channel();
    let given_up = line.push(Waiting {
        pushed,
        connection,
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
    Configured::Later(later)
}

/// Applies what waits until nothing does.
fn work(live: &Live) {
    loop {
        let guard = live.lock_for_settings();
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
        drop(guard);
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
    let mut tries = Tries::default();
    for waiting in batch.into_iter().rev() {
        let result = tries.next(live, &waiting);
        waiting.answer(live, result);
    }
}

/// What came of one message after the other, the newest first.
#[derive(Default)]
struct Tries {
    /// What is in force of them.
    newer: Vec<Setting>,
    /// What was tried and refused, and why.
    refused: Vec<(Vec<Setting>, String)>,
    /// Whose newest message was seen.
    connections: HashSet<u64>,
    /// Tries that failed, of newest messages and of others.
    failed: [usize; 2],
}

impl Tries {
    fn next(&mut self, live: &Live, waiting: &Waiting) -> Result<Change, String> {
        let settings = &waiting.pushed.settings;
        let is_newest = self.connections.insert(waiting.connection);
        // What is known already costs nobody a try.
        if let Some((_, reason)) = self.refused.iter().find(|(tried, _)| tried == settings) {
            return Err(reason.clone());
        }
        // No connection uses up the tries of another one's newest message.
        let failed = &mut self.failed[usize::from(!is_newest)];
        if *failed >= MAX_TRIES {
            return Err("newer settings came before these".to_owned());
        }
        let with_newer: Vec<Setting> = settings.iter().chain(&self.newer).copied().collect();
        let result = live.configure(&with_newer);
        match &result {
            Ok(_) => self.newer = with_newer,
            Err(reason) => {
                *failed += 1;
                self.refused.push((settings.clone(), reason.clone()));
            }
        }
        result
    }
}

/// Counts and logs what came of it; says whether it is in force.
fn told(live: &Live, pushed: &Pushed, result: Result<Change, String>) -> InForce {
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
                let policy = live.policy();
                let settings = policy.settings();
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
pub(crate) fn response(result: InForce) -> Handled {
    let mut response = AgentResponse::allow();
    if let Err(reason) = result {
        response.decision = Decision::Block {
            status: 403,
            body: Some(reason),
        };
        response.tag("config-refused");
    }
    Handled {
        is_collected: false,
        response: Box::new(response),
        fault: None,
        cost: None,
        unknown_keys: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::guest::module::LoadSettings;
    use crate::policy::PolicySettings;
    use crate::server::loader::Loader;

    const GOOD: u64 = 1;
    const BAD: u64 = 2;

    fn live() -> Live {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/modules/right/allow.wat");
        let loader = Loader::new(path, LoadSettings::default(), true);
        Live::new(loader.start(PolicySettings::default()).unwrap(), loader)
    }

    /// What each message is answered that waits for one change, the oldest first.
    fn answers(live: &Live, messages: &[(u64, Value)]) -> Vec<InForce> {
        let (batch, replies): (Vec<_>, Vec<_>) = messages
            .iter()
            .map(|(connection, config)| {
                let (reply, later) = oneshot::channel();
                let waiting = Waiting {
                    pushed: Pushed::read(config).unwrap(),
                    connection: *connection,
                    bytes: 0,
                    reply,
                };
                (waiting, later)
            })
            .unzip();
        apply(live, batch);
        let answer = |mut later: oneshot::Receiver<InForce>| later.try_recv().unwrap();
        replies.into_iter().map(answer).collect()
    }

    /// The smoke call's answer is longer.
    fn bad(bytes: usize) -> (u64, Value) {
        (BAD, json!({"max-answer-bytes": bytes}))
    }

    #[test]
    fn one_bad_setting_many_times_costs_one_try() {
        let live = live();
        let mut messages = vec![(GOOD, json!({"pool-size": 1}))];
        messages.extend((0..100).map(|_| bad(4)));
        // Of the same connection too.
        messages.insert(1, (BAD, json!({"timeout-ms": 77})));
        let answers = answers(&live, &messages);
        assert_eq!(answers[..2], [Ok(()), Ok(())]);
        assert!(answers[2..].iter().all(|answer| *answer == answers[2]));
        assert!(answers[2].is_err());
        let policy = live.policy();
        assert_eq!(policy.settings().pool.size, 1);
        assert_eq!(policy.settings().pool.limits.timeout.as_millis(), 77);
    }

    #[test]
    fn many_bad_settings_use_up_the_tries_of_their_own_connection() {
        let live = live();
        let mut messages = vec![(GOOD, json!({"pool-size": 1}))];
        messages.insert(0, (BAD, json!({"timeout-ms": 77})));
        messages.extend((0..=MAX_TRIES).map(bad));
        let answers = answers(&live, &messages);
        assert_eq!(
            answers[0],
            Err("newer settings came before these".to_owned())
        );
        assert_eq!(answers[1], Ok(()));
        assert!(answers[2..].iter().all(Result::is_err));
        assert_eq!(live.policy().settings().pool.size, 1);
    }
}
