//! The settings that a peer may push, and what the operator lets it change.
//!
//! In: what was pushed, any JSON of any size. Out: single settings, or the
//! reason why it is refused as a whole. A setting that would loosen what the
//! operator started the agent with is told apart: it is not applied, unless the
//! operator has opened its key. Costs no more than linear time, and keeps
//! little of what is long.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;

use crate::fault::printable;
use crate::limits::{Isolation, MAX_POOL_SIZE};
use crate::policy::PolicySettings;
use crate::policy::decision::FailurePolicy;

/// Longer words are no misspelled keys, and comparing takes time that grows
/// faster than they do.
const MAX_WORD_BYTES: usize = 32;

named! {
    /// A setting's key, in the form the published agents have.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Key {
        /// Instances and calls at once.
        PoolSize => "pool-size",
        /// Whether a fault is an allow.
        FailOpen => "fail-open",
        /// Time for one call.
        TimeoutMs => "timeout-ms",
        /// Instructions for one call.
        Fuel => "fuel",
        /// Linear memory of one instance.
        MaxMemoryBytes => "max-memory-bytes",
        /// Size of one answer.
        MaxAnswerBytes => "max-answer-bytes",
        /// Whether an instance serves more than one call.
        Isolation => "isolation",
    }
}

impl Key {
    /// Those whose every fault is an allow where the policy is open.
    const LIMITS: [Self; 4] = [
        Self::TimeoutMs,
        Self::Fuel,
        Self::MaxMemoryBytes,
        Self::MaxAnswerBytes,
    ];

    /// The setting of this key that is in force.
    fn of(self, settings: &PolicySettings) -> Setting {
        let (pool, limits) = (&settings.pool, &settings.pool.limits);
        match self {
            Self::PoolSize => Setting::PoolSize(pool.size),
            Self::FailOpen => Setting::FailOpen(settings.failure_policy),
            Self::TimeoutMs => Setting::Timeout(limits.timeout),
            Self::Fuel => Setting::Fuel(limits.fuel),
            Self::MaxMemoryBytes => Setting::MaxMemoryBytes(limits.max_memory_bytes),
            Self::MaxAnswerBytes => Setting::MaxAnswerBytes(limits.max_answer_bytes),
            Self::Isolation => Setting::Isolation(pool.isolation),
        }
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_name(text).ok_or_else(|| unknown(text))
    }
}

/// One setting, with a value that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    PoolSize(usize),
    FailOpen(FailurePolicy),
    Timeout(Duration),
    Fuel(Option<u64>),
    MaxMemoryBytes(u64),
    MaxAnswerBytes(u64),
    Isolation(Isolation),
}

impl Setting {
    fn read(key: Key, value: &Value) -> Result<Self, String> {
        let within = |range: RangeInclusive<u64>| {
            let number = value.as_u64().filter(|number| range.contains(number));
            number.ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                expected(
                    key,
                    &format!("a whole number from {least} to {most}"),
                    value,
                )
            })
        };
        Ok(match key {
            Key::PoolSize => {
                let size = within(1..=MAX_POOL_SIZE as u64)?;
                Self::PoolSize(usize::try_from(size).unwrap_or(MAX_POOL_SIZE))
            }
            Key::FailOpen => match value.as_bool() {
                Some(true) => Self::FailOpen(FailurePolicy::Open),
                Some(false) => Self::FailOpen(FailurePolicy::Closed),
                None => return Err(expected(key, "true or false", value)),
            },
            Key::TimeoutMs => Self::Timeout(Duration::from_millis(within(1..=3_600_000)?)),
            Key::Fuel if value.is_null() => Self::Fuel(None),
            Key::Fuel => Self::Fuel(Some(within(1..=u64::MAX)?)),
            Key::MaxMemoryBytes => Self::MaxMemoryBytes(within(64 << 10..=4 << 30)?),
            Key::MaxAnswerBytes => Self::MaxAnswerBytes(within(0..=u64::from(u32::MAX))?),
            Key::Isolation => {
                let read = value.as_str().and_then(|text| text.parse().ok());
                let what = "pooled, fresh or recycle=N";
                Self::Isolation(read.ok_or_else(|| expected(key, what, value))?)
            }
        })
    }

    pub(crate) const fn key(self) -> Key {
        match self {
            Self::PoolSize(_) => Key::PoolSize,
            Self::FailOpen(_) => Key::FailOpen,
            Self::Timeout(_) => Key::TimeoutMs,
            Self::Fuel(_) => Key::Fuel,
            Self::MaxMemoryBytes(_) => Key::MaxMemoryBytes,
            Self::MaxAnswerBytes(_) => Key::MaxAnswerBytes,
            Self::Isolation(_) => Key::Isolation,
        }
    }

    const fn put(self, settings: &mut PolicySettings) {
        let limits = &mut settings.pool.limits;
        match self {
            Self::PoolSize(size) => settings.pool.size = size,
            Self::FailOpen(policy) => settings.failure_policy = policy,
            Self::Timeout(timeout) => limits.timeout = timeout,
            Self::Fuel(fuel) => limits.fuel = fuel,
            Self::MaxMemoryBytes(bytes) => limits.max_memory_bytes = bytes,
            Self::MaxAnswerBytes(bytes) => limits.max_answer_bytes = bytes,
            Self::Isolation(isolation) => settings.pool.isolation = isolation,
        }
    }

    /// More is looser, among settings of one key.
    fn looseness(self) -> u128 {
        match self {
            Self::PoolSize(size) => size as u128,
            Self::FailOpen(policy) => u128::from(policy == FailurePolicy::Open),
            Self::Timeout(timeout) => timeout.as_nanos(),
            Self::Fuel(fuel) => fuel.map_or(u128::MAX, u128::from),
            Self::MaxMemoryBytes(bytes) | Self::MaxAnswerBytes(bytes) => bytes.into(),
            Self::Isolation(Isolation::Fresh) => 1,
            Self::Isolation(Isolation::Recycle(calls)) => calls.into(),
            Self::Isolation(Isolation::Pooled) => u128::MAX,
        }
    }
}

/// The value, as it is pushed.
impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolSize(size) => size.fmt(out),
            Self::FailOpen(policy) => (*policy == FailurePolicy::Open).fmt(out),
            Self::Timeout(timeout) => timeout.as_millis().fmt(out),
            Self::Fuel(None) => out.write_str("null"),
            Self::Fuel(Some(number))
            | Self::MaxMemoryBytes(number)
            | Self::MaxAnswerBytes(number) => number.fmt(out),
            Self::Isolation(isolation) => isolation.fmt(out),
        }
    }
}

/// What one message pushes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pushed {
    /// To be applied.
    pub(crate) settings: Vec<Setting>,
    /// Left as they are, because they would loosen what the operator chose.
    pub(crate) looser: Vec<Setting>,
}

impl Pushed {
    /// Reads what was pushed; all of it is right, or it is refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(config: &Value) -> Result<Self, String> {
        let pushed = match config {
            Value::Null => return Ok(Self::default()),
            Value::Object(pushed) => pushed,
            _ => return Err("expected an object of settings".to_owned()),
        };
        let settings = pushed
            .iter()
            .map(|(key, value)| Setting::read(key.parse()?, value))
            .collect::<Result<_, String>>()?;
        Ok(Self {
            settings,
            looser: Vec::new(),
        })
    }

    /// Takes out what would loosen the operator's settings, but for the keys
    /// that the operator has opened.
    pub(crate) fn within(mut self, operator: &PolicySettings, opened: &[Key]) -> Self {
        let (looser, settings) = self.settings.into_iter().partition(|setting| {
            let bound = setting.key().of(operator);
            setting.looseness() > bound.looseness() && !opened.contains(&setting.key())
        });
        self.settings = settings;
        self.looser.extend::<Vec<Setting>>(looser);
        self
    }

    /// For each key of this push what health says of it: nothing where it is
    /// applied. `running` is what is in force now.
    pub(crate) fn remarks<'a>(
        &'a self,
        operator: &'a PolicySettings,
        running: &'a PolicySettings,
        opened: &'a [Key],
    ) -> impl Iterator<Item = (Key, Option<String>)> + 'a {
        let mut with_it = over(running, &self.settings);
        // A newer message that came with this one may have opened it.
        with_it.failure_policy = running.failure_policy;
        let kept: Vec<_> = tighter(&with_it, operator, opened).collect();
        let applied = self.settings.iter().map(move |setting| {
            let key = setting.key();
            let is_kept = kept.contains(&key) && key.of(running) != *setting;
            (key, is_kept.then(|| too_tight(*setting, operator)))
        });
        let looser = self.looser.iter().map(|setting| {
            let key = setting.key();
            let bound = key.of(operator);
            let name = key.name();
            let remark = format!(
                "{name}: {setting} was pushed and is not applied, because it is looser than {bound}, which the agent was started with; --accept-settings {name} permits it"
            );
            (key, Some(remark))
        });
        applied.chain(looser)
    }
}

/// `settings` with these over them; of one key the last is taken.
pub(crate) fn over<'a>(
    settings: &PolicySettings,
    pushed: impl IntoIterator<Item = &'a Setting>,
) -> PolicySettings {
    let mut settings = settings.clone();
    for setting in pushed {
        setting.put(&mut settings);
    }
    settings
}

/// The limits that are tighter than the operator's although the policy is open.
/// Whoever pushed these would turn refusals into faults, and so into allows.
pub(crate) fn tighter<'a>(
    settings: &'a PolicySettings,
    operator: &'a PolicySettings,
    opened: &'a [Key],
) -> impl Iterator<Item = Key> + 'a {
    let is_open = settings.failure_policy == FailurePolicy::Open;
    Key::LIMITS.into_iter().filter(move |key| {
        let is_tighter = key.of(settings).looseness() < key.of(operator).looseness();
        is_open && is_tighter && !opened.contains(key)
    })
}

/// `settings` with the operator's limits for those that are [`tighter`], and
/// what is said of each.
pub(crate) fn untightened(
    settings: PolicySettings,
    operator: &PolicySettings,
    opened: &[Key],
) -> (PolicySettings, Vec<(Key, String)>) {
    let mut kept = settings.clone();
    let mut remarks = Vec::new();
    for key in tighter(&settings, operator, opened) {
        key.of(operator).put(&mut kept);
        remarks.push((key, too_tight(key.of(&settings), operator)));
    }
    (kept, remarks)
}

/// What is said of a limit that is not applied because the policy is open.
fn too_tight(setting: Setting, operator: &PolicySettings) -> String {
    let key = setting.key();
    let (name, bound) = (key.name(), key.of(operator));
    format!(
        "{name}: {setting} was pushed and is not applied, because it is tighter than {bound}, which the agent was started with, and with fail-open a call that exceeds it is allowed; --accept-settings {name} permits it"
    )
}

fn expected(key: Key, what: &str, found: &Value) -> String {
    let found = printable(&found.to_string(), 64);
    format!("{}: expected {what}, found {found}", key.name())
}

fn unknown(key: &str) -> String {
    let distance = |known: &Key| strsim::damerau_levenshtein(known.name(), key);
    let near = Key::ALL
        .iter()
        .filter(|_| key.len() <= MAX_WORD_BYTES)
        .find(|known| distance(known) <= 3);
    let hint = near.map_or_else(
        || format!("known are {}", Key::ALL.map(Key::name).join(", ")),
        |known| format!("did you mean {}?", known.name()),
    );
    format!("unknown setting {}; {hint}", printable(key, 64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::shortened::Shortened;

    fn changed(settings: &PolicySettings, config: &Value) -> Result<PolicySettings, String> {
        // As it comes in, whatever its size.
        let Shortened(config) = serde_json::from_value(config.clone()).unwrap();
        Ok(over(settings, &Pushed::read(&config)?.settings))
    }

    #[test]
    fn every_setting_is_applied() {
        let config = json!({"pool-size": 7, "fail-open": true, "timeout-ms": 20, "fuel": 1000,
            "max-memory-bytes": 131_072, "max-answer-bytes": 4096, "isolation": "recycle=9"});
        for key in Key::ALL {
            assert!(config.get(key.name()).is_some(), "{key:?}");
        }
        let settings = changed(&PolicySettings::default(), &config).unwrap();
        assert_eq!(settings.pool.size, 7);
        assert_eq!(settings.failure_policy, FailurePolicy::Open);
        assert_eq!(settings.pool.limits.timeout, Duration::from_millis(20));
        assert_eq!(settings.pool.limits.fuel, Some(1000));
        assert_eq!(settings.pool.limits.max_memory_bytes, 131_072);
        assert_eq!(settings.pool.limits.max_answer_bytes, 4096);
        assert_eq!(settings.pool.isolation, Isolation::Recycle(9));
        let again = changed(&settings, &json!({"fuel": null})).unwrap();
        assert_eq!(again.pool.limits.fuel, None);
        assert_eq!(changed(&settings, &json!({})).unwrap(), settings);
        assert_eq!(changed(&settings, &json!(null)).unwrap(), settings);
    }

    #[test]
    fn what_cannot_be_applied_is_refused_by_name() {
        for (config, why) in [
            (json!([]), "an object"),
            (json!("pool-size"), "an object"),
            (
                json!({"pool-size": 0}),
                "pool-size: expected a whole number from 1 to 1024, found 0",
            ),
            (json!({"pool-size": 1025}), "found 1025"),
            (json!({"pool-size": -1}), "found -1"),
            (json!({"pool-size": "4"}), "found \"4\""),
            (json!({"pool-size": 4.5}), "found 4.5"),
            (json!({"fail-open": "yes"}), "true or false"),
            (json!({"timeout-ms": 0}), "timeout-ms"),
            (json!({"fuel": 0}), "fuel"),
            (json!({"max-memory-bytes": 1}), "max-memory-bytes"),
            (
                json!({"isolation": "shared"}),
                "isolation: expected pooled, fresh or recycle=N, found \"shared\"",
            ),
            (json!({"isolation": 1}), "found 1"),
            (json!({"isolation": "x".repeat(1_000_000)}), "…"),
            (json!({"pool_size": 4}), "did you mean pool-size?"),
            (json!({"pool-size": [1, 2]}), "found [\"…\"]"),
            (json!({"pool-size": {"x": 1}}), "found {\"…\":\"…\"}"),
            (json!({"k".repeat(1_000_000): 4}), "…; known are"),
            (
                json!({"module": "/x.wasm"}),
                "unknown setting module; known are pool-size",
            ),
        ] {
            let reason = changed(&PolicySettings::default(), &config).unwrap_err();
            assert!(reason.contains(why), "{reason}");
            // It goes into an answer and into the log.
            assert!(reason.len() < 300, "{}", reason.len());
        }
    }

    /// For each key: stricter than the operator's, the same, and looser.
    #[test]
    fn what_is_looser_is_told_apart() {
        let operator = PolicySettings {
            pool: crate::policy::pool::PoolSettings {
                size: 4,
                isolation: Isolation::Recycle(10),
                limits: crate::limits::Limits {
                    fuel: Some(1000),
                    ..crate::limits::Limits::default()
                },
                ..crate::policy::pool::PoolSettings::default()
            },
            ..PolicySettings::default()
        };
        for (key, within, looser) in [
            (
                "pool-size",
                vec![json!(1), json!(4)],
                vec![json!(5), json!(1024)],
            ),
            ("fail-open", vec![json!(false)], vec![json!(true)]),
            ("timeout-ms", vec![json!(1), json!(100)], vec![json!(101)]),
            (
                "fuel",
                vec![json!(1), json!(1000)],
                vec![json!(1001), json!(null)],
            ),
            (
                "max-memory-bytes",
                vec![json!(65536), json!(64 << 20)],
                vec![json!((64 << 20) + 1)],
            ),
            (
                "max-answer-bytes",
                vec![json!(0), json!(1 << 20)],
                vec![json!((1 << 20) + 1)],
            ),
            (
                "isolation",
                vec![json!("fresh"), json!("recycle=1"), json!("recycle=10")],
                vec![json!("recycle=11"), json!("pooled")],
            ),
        ] {
            let read = |value: &Value| Pushed::read(&json!({key: value})).unwrap();
            for value in &within {
                let pushed = read(value).within(&operator, &[]);
                assert_eq!(
                    (pushed.settings.len(), pushed.looser.len()),
                    (1, 0),
                    "{key} {value}"
                );
            }
            for value in &looser {
                let pushed = read(value).within(&operator, &[]);
                assert_eq!(
                    (pushed.settings.len(), pushed.looser.len()),
                    (0, 1),
                    "{key} {value}"
                );
                let remark = pushed
                    .remarks(&operator, &operator, &[])
                    .next()
                    .unwrap()
                    .1
                    .unwrap();
                assert!(remark.starts_with(key), "{remark}");
                let opened = read(value).within(&operator, &[key.parse().unwrap()]);
                assert_eq!(opened.looser, [], "{key} {value}");
            }
        }
        // An operator who set no limit is the loosest there is.
        let open = PolicySettings {
            failure_policy: FailurePolicy::Open,
            ..PolicySettings::default()
        };
        let all = json!({"fail-open": true, "fuel": null, "isolation": "pooled"});
        assert_eq!(Pushed::read(&all).unwrap().within(&open, &[]).looser, []);
    }
}
