//! The policy that answers now, and how a reload replaces it.
//!
//! In: a new policy, ready to be called. Out: the one to ask, for each event
//! anew. Invariants: an event is answered by one policy from beginning to end;
//! one change at a time, a reload before settings; what could not take its place
//! has changed nothing but what [`Live::health`] says.

mod change_lock;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::configure::Line;
use super::loader::Loader;
use super::metrics::{Change, Family, Metrics, Now, Sample, Value};
use super::pushed::{Key, Pushed, Setting, over, untightened};
use super::{Shared, lock};
use crate::error::Error;
use crate::guest::module::Module;
use crate::limits::after;
use crate::policy::{Policy, PolicySettings};
use crate::protocol::wire::control::HealthState;
use change_lock::{ChangeGuard, ChangeLock};

/// How often it is asked whether the calls of a replaced policy are over.
const RETIRE_POLL: Duration = Duration::from_millis(2);
/// What a call may take beyond its deadline, and its answer after it.
const RETIRE_SLACK: Duration = Duration::from_secs(1);

/// How the agent is, and why it is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// What is wrong, for people; empty where nothing is.
    pub reasons: Vec<String>,
}

/// What health follows from.
#[derive(Debug, Clone, Default)]
struct Causes {
    draining: bool,
    /// Why the last reload was refused, if it was.
    reload: Option<String>,
    /// The most frequent fault, if more than half of the events fault.
    faulty: Option<String>,
}

impl Causes {
    fn health(&self) -> Health {
        let reasons: Vec<String> = self.reload.iter().chain(&self.faulty).cloned().collect();
        let state = if self.draining {
            HealthState::Draining
        } else if reasons.is_empty() {
            HealthState::Healthy
        } else {
            HealthState::Degraded
        };
        Health { state, reasons }
    }
}

/// The policy that answers now; clones are the same one.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    policy: ArcSwap<Policy>,
    /// None where it was made by somebody else and cannot be made again.
    loader: Option<Loader>,
    /// What it was started with, which pushed settings may not loosen.
    operator: PolicySettings,
    /// What is pushed and waits.
    line: Mutex<Line>,
    /// Pushed settings that were not applied, by key.
    not_applied: Mutex<BTreeMap<Key, String>>,
    /// The module that runs, compiled to count instructions or not to, as it is
    /// not now.
    other: Mutex<Option<Arc<Module>>>,
    changes: ChangeLock,
    causes: Mutex<Causes>,
    health: watch::Sender<Health>,
    metrics: Metrics,
    /// Who serves it, once somebody does.
    server: Mutex<Weak<Shared>>,
}

impl From<Arc<Policy>> for Live {
    fn from(policy: Arc<Policy>) -> Self {
        Self::with(policy, None)
    }
}

impl Live {
    /// A policy that `loader` made, and can make again.
    #[must_use]
    pub fn new(policy: Policy, loader: Loader) -> Self {
        Self::with(Arc::new(policy), Some(loader))
    }

    fn with(policy: Arc<Policy>, loader: Option<Loader>) -> Self {
        let causes = Causes::default();
        Self(Arc::new(Inner {
            operator: policy.settings().clone(),
            policy: ArcSwap::new(policy),
            loader,
            line: Mutex::default(),
            not_applied: Mutex::default(),
            other: Mutex::default(),
            changes: ChangeLock::default(),
            health: watch::Sender::new(causes.health()),
            causes: Mutex::new(causes),
            metrics: Metrics::default(),
            server: Mutex::default(),
        }))
    }

    /// The policy to ask about one event.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.0.policy.load_full()
    }

    /// The same for a look at it, which counts no reference.
    pub(crate) fn policy_now(&self) -> Guard<Arc<Policy>> {
        self.0.policy.load()
    }

    /// How the agent is; follows every change.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.health.subscribe()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// All that is counted, as it is now.
    #[must_use]
    pub fn picture(&self) -> Vec<Family> {
        let server = lock(&self.0.server).upgrade();
        let now = server.map_or_else(Now::default, |server| server.now());
        let mut families = self.0.metrics.picture(&self.policy(), now);
        let now = self.0.health.borrow().state;
        let states = HealthState::ALL.map(|state| {
            let is_now = f64::from(u8::from(state == now));
            Sample::new(Value::Gauge(is_now)).with("state", state.name())
        });
        families.push(Family::new(
            "wasm_agent_health",
            "Health of the agent: 1 for the current state.",
            states,
        ));
        families
    }

    /// Loads the module's file again and lets it answer from now on, if it
    /// passes all that the first one passed. Returns when the last call of the
    /// old one is over, so no answer after it is the old one's.
    ///
    /// Compiles and waits: not for a thread that others wait for.
    ///
    /// # Errors
    /// Why the old one goes on answering; [`Live::health`] says so too.
    pub fn reload(&self) -> Result<Arc<Policy>, Error> {
        let _one_at_a_time = self.0.changes.for_reload();
        let Some(loader) = &self.0.loader else {
            return Err(Error::Usage(
                "this agent was not loaded from a file".to_owned(),
            ));
        };
        let loaded = loader.again(&self.policy());
        let refused = loaded.as_ref().err();
        let refused = refused.map(|error| format!("reload refused: {}", error.in_one_line()));
        self.0.metrics.reloaded(match &refused {
            None => Change::Applied,
            Some(_) => Change::Refused,
        });
        self.note(|causes| causes.reload = refused);
        let policy = Arc::new(loaded?);
        *lock(&self.0.other) = None;
        self.replace(Arc::clone(&policy));
        Ok(policy)
    }

    /// What of it may be applied at all.
    ///
    /// # Errors
    /// Why none of it may be.
    pub(super) fn permitted(&self, pushed: Pushed) -> Result<Pushed, String> {
        let fixed = match &self.0.loader {
            None => "this agent's settings cannot be changed",
            Some(loader) if loader.keeps_settings() => {
                "settings cannot be changed (--keep-settings)"
            }
            Some(loader) => return Ok(pushed.within(&self.0.operator, loader.accepted_settings())),
        };
        let running = self.policy();
        if over(running.settings(), &pushed.settings) == *running.settings() {
            Ok(pushed)
        } else {
            Err(fixed.to_owned())
        }
    }

    pub(super) fn are_in_force(&self, pushed: &[Setting]) -> bool {
        let running = self.policy();
        self.with_pushed(running.settings(), pushed).0 == *running.settings()
    }

    /// These settings with what was pushed over them, as far as it is applied,
    /// and what is said of limits that are not.
    fn with_pushed(
        &self,
        settings: &PolicySettings,
        pushed: &[Setting],
    ) -> (PolicySettings, Vec<(Key, String)>) {
        untightened(over(settings, pushed), &self.0.operator, self.opened())
    }

    /// The keys that the operator lets peers push freely.
    fn opened(&self) -> &[Key] {
        let loader = self.0.loader.as_ref();
        loader.map_or(&[], Loader::accepted_settings)
    }

    /// What was pushed and waits.
    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.0.line)
    }

    /// Waits until settings may be changed.
    pub(super) fn lock_for_settings(&self) -> ChangeGuard<'_> {
        self.0.changes.for_settings()
    }

    /// Lets a policy answer from now on that has these settings over those in
    /// force.
    ///
    /// Makes instances and waits: not for a thread that others wait for. Whoever
    /// calls this has the turn.
    ///
    /// # Errors
    /// Why the settings stay as they are.
    pub(super) fn configure(&self, pushed: &[Setting]) -> Result<Change, String> {
        let running = self.policy();
        let (settings, not_applied) = self.with_pushed(running.settings(), pushed);
        if settings == *running.settings() {
            return Ok(Change::Unchanged);
        }
        let loader = self.0.loader.as_ref();
        let loader = loader.ok_or("this agent's settings cannot be changed")?;
        let now = running.pool().module();
        let mut other = lock(&self.0.other);
        let module = loader.module_for(&settings, now, other.as_ref());
        let module = module.map_err(|error| error.in_one_line())?;
        if !Arc::ptr_eq(&module, now) {
            // Kept, whatever comes of the rest: a peer may push it again and again.
            *other = Some(Arc::clone(&module));
        }
        let policy = loader.adjusted(&running, module, settings);
        let policy = policy.map_err(|error| error.in_one_line())?;
        if let Some(server) = lock(&self.0.server).upgrade() {
            let started = server.start_guests(policy.settings().pool.size);
            started.map_err(|error| format!("cannot start threads: {error}"))?;
        }
        if !Arc::ptr_eq(policy.pool().module(), now) {
            *other = Some(Arc::clone(now));
        }
        drop(other);
        drop(running);
        self.note_tighter(pushed, not_applied);
        self.replace(Arc::new(policy));
        Ok(Change::Applied)
    }

    /// Keeps what was not applied of accepted settings, and returns it.
    pub(super) fn remark(&self, pushed: &Pushed) -> Vec<String> {
        let mut not_applied = lock(&self.0.not_applied);
        let mut remarks = Vec::new();
        let running = self.policy();
        let opened = self.opened();
        for (key, remark) in pushed.remarks(&self.0.operator, running.settings(), opened) {
            remarks.extend(remark.clone());
            match remark {
                Some(remark) => not_applied.insert(key, remark),
                None => not_applied.remove(&key),
            };
        }
        remarks
    }

    /// Keeps what is said of limits that are not applied, and logs it of those
    /// that were in force until this push opened the policy.
    fn note_tighter(&self, pushed: &[Setting], not_applied: Vec<(Key, String)>) {
        for (key, remark) in not_applied {
            let is_pushed = pushed.iter().any(|setting| setting.key() == key);
            if !is_pushed && self.may_log() {
                tracing::warn!(remark, "pushed settings are no longer applied");
            }
            lock(&self.0.not_applied).insert(key, remark);
        }
    }

    /// Pushed settings that were not applied, because they would loosen what
    /// the agent was started with, or turn refusals into faults that are allowed.
    #[must_use]
    pub fn settings_not_applied(&self) -> Vec<String> {
        lock(&self.0.not_applied).values().cloned().collect()
    }

    /// Whether one more line may be written that a peer has caused.
    pub(super) fn may_log(&self) -> bool {
        let server = lock(&self.0.server).upgrade();
        server.is_none_or(|server| server.log_limiter.admit())
    }

    /// From now on all that was received is answered, and no more.
    pub(crate) fn say_draining(&self) {
        self.note(|causes| causes.draining = true);
    }

    /// The most frequent fault, if more than half of the events fault.
    pub(crate) fn say_faulty(&self, what: Option<String>) {
        self.note(|causes| causes.faulty = what);
    }

    pub(crate) fn served_by(&self, server: &Arc<Shared>) {
        *lock(&self.0.server) = Arc::downgrade(server);
    }

    fn replace(&self, policy: Arc<Policy>) {
        let size = policy.settings().pool.size;
        let old = self.0.policy.swap(policy);
        if let Some(server) = lock(&self.0.server).upgrade() {
            // Threads that still call the old one are not there for the new one.
            let busy = old.pool().usage().in_use;
            if let Err(error) = server.start_guests(size + busy) {
                tracing::warn!(%error, "cannot start threads; events may wait for calls of the old module");
            }
            server.queue.pool_changed();
        }
        let limits = old.settings().pool.limits;
        let calls = limits.timeout.saturating_mul(2);
        let until = after(Instant::now(), calls.saturating_add(RETIRE_SLACK));
        // Dropped here rather than by the last call: unmapping takes its time.
        while Arc::strong_count(&old) > 1 && Instant::now() < until {
            std::thread::sleep(RETIRE_POLL);
        }
    }

    fn note(&self, change: impl FnOnce(&mut Causes)) {
        let mut causes = lock(&self.0.causes);
        change(&mut causes);
        let health = causes.health();
        self.0.health.send_if_modified(|known| {
            let differs = *known != health;
            *known = health;
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::guest::module::LoadSettings;

    /// Whatever a host sets, "for ever" ends no change.
    #[test]
    fn a_reload_works_without_a_limit_of_time() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/modules/right/allow.wat");
        let loader = Loader::new(path, LoadSettings::default(), true);
        let mut settings = PolicySettings::default();
        settings.pool.limits.timeout = Duration::MAX;
        settings.pool.wait = Duration::MAX;
        let live = Live::new(loader.start(settings).unwrap(), loader);
        live.reload().unwrap();
        live.configure(&[Setting::PoolSize(1)]).unwrap();
        assert_eq!(live.policy().settings().pool.size, 1);
    }
}
