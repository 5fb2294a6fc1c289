//! Settings pushed by the proxy.
//!
//! All of them are applied or all are refused, with a reason; nothing is
//! accepted and then ignored. A proxy pushes on every connection it makes, so
//! what is in force already is accepted at once. What was applied holds until
//! something else is pushed, for a module that is loaded later too.

use std::time::Duration;

use serde_json::Value;

use super::live::Live;
use super::metrics::Change;
use crate::agent::AgentSettings;
use crate::decision::FailurePolicy;
use crate::fault::printable;
use crate::limits::{Isolation, MAX_POOL_SIZE};
use crate::response::{AgentResponse, Decision};

/// The settings a proxy may push, in the form the published agents have.
const KEYS: [&str; 7] = [
    "pool-size",
    "fail-open",
    "timeout-ms",
    "fuel",
    "max-memory-bytes",
    "max-answer-bytes",
    "isolation",
];

/// Decides about what can be decided without changing anything: settings that
/// are in force already, and settings that cannot be.
pub(crate) fn at_once(live: &Live, config: &Value) -> Option<Result<(), String>> {
    let running = live.agent();
    let in_force = match changed(running.settings(), config) {
        Ok(settings) if settings == *running.settings() => Ok(false),
        Ok(_) => return None,
        Err(reason) => Err(reason),
    };
    Some(told(live, in_force))
}

/// Applies what was pushed.
///
/// # Errors
/// Why nothing of it was applied.
pub(crate) async fn configure(live: &Live, config: Value) -> Result<(), String> {
    if let Some(result) = at_once(live, &config) {
        return result;
    }
    let worker = live.clone();
    let work = move || worker.configure(|settings| changed(settings, &config));
    let result = match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime ends, or a defect of ours that has told of itself.
        Err(error) => Err(error.to_string()),
    };
    told(live, result)
}

/// Counts and logs what came of it; says whether it is in force.
fn told(live: &Live, result: Result<bool, String>) -> Result<(), String> {
    let metrics = live.metrics();
    match result {
        Ok(true) => {
            metrics.configured(Change::Applied);
            let agent = live.agent();
            let settings = agent.settings();
            tracing::info!(
                pool_size = settings.pool.size,
                policy = settings.failure_policy.name(),
                limits = ?settings.pool.limits,
                isolation = %settings.pool.isolation,
                "pushed settings applied"
            );
            Ok(())
        }
        Ok(false) => {
            metrics.configured(Change::Unchanged);
            Ok(())
        }
        Err(reason) => {
            metrics.configured(Change::Refused);
            tracing::warn!(reason, "pushed settings refused");
            Err(reason)
        }
    }
}

/// What a proxy is answered; any decision but allow is a refusal.
pub(crate) fn response(result: Result<(), String>) -> AgentResponse {
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

/// The settings with what was pushed over them.
pub(super) fn changed(settings: &AgentSettings, config: &Value) -> Result<AgentSettings, String> {
    let mut settings = settings.clone();
    let pushed = match config {
        Value::Null => return Ok(settings),
        Value::Object(pushed) => pushed,
        _ => return Err("expected an object of settings".to_owned()),
    };
    for (key, value) in pushed {
        apply(&mut settings, key, value)?;
    }
    Ok(settings)
}

fn apply(settings: &mut AgentSettings, key: &str, value: &Value) -> Result<(), String> {
    let pool = &mut settings.pool;
    let limits = &mut pool.limits;
    let within = |range: std::ops::RangeInclusive<u64>| {
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
    match key {
        "pool-size" => {
            let size = within(1..=MAX_POOL_SIZE as u64)?;
            pool.size = usize::try_from(size).unwrap_or(MAX_POOL_SIZE);
        }
        "fail-open" => {
            let is_open = value.as_bool();
            settings.failure_policy = match is_open {
                Some(true) => FailurePolicy::Open,
                Some(false) => FailurePolicy::Closed,
                None => return Err(expected(key, "true or false", value)),
            };
        }
        "timeout-ms" => limits.timeout = Duration::from_millis(within(1..=3_600_000)?),
        "fuel" if value.is_null() => limits.fuel = None,
        "fuel" => limits.fuel = Some(within(1..=u64::MAX)?),
        "max-memory-bytes" => limits.max_memory_bytes = within(64 << 10..=4 << 30)?,
        "max-answer-bytes" => limits.max_answer_bytes = within(0..=u64::from(u32::MAX))?,
        "isolation" => {
            let isolation = value
                .as_str()
                .and_then(|text| text.parse::<Isolation>().ok());
            pool.isolation =
                isolation.ok_or_else(|| expected(key, "pooled, fresh or recycle=N", value))?;
        }
        _ => return Err(unknown(key)),
    }
    Ok(())
}

fn expected(key: &str, what: &str, found: &Value) -> String {
    let found = printable(&found.to_string(), 64);
    format!("{key}: expected {what}, found {found}")
}

fn unknown(key: &str) -> String {
    let near = |known: &&&str| strsim::damerau_levenshtein(known, key) <= 3;
    let hint = KEYS.iter().find(near).map_or_else(
        || format!("known are {}", KEYS.join(", ")),
        |known| format!("did you mean {known}?"),
    );
    format!("unknown setting {}; {hint}", printable(key, 64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_setting_is_applied() {
        let config = json!({"pool-size": 7, "fail-open": true, "timeout-ms": 20, "fuel": 1000,
            "max-memory-bytes": 131_072, "max-answer-bytes": 4096, "isolation": "recycle=9"});
        for key in KEYS {
            assert!(config.get(key).is_some(), "{key}");
        }
        let settings = changed(&AgentSettings::default(), &config).unwrap();
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
            (
                json!({"module": "/x.wasm"}),
                "unknown setting module; known are pool-size",
            ),
        ] {
            let reason = changed(&AgentSettings::default(), &config).unwrap_err();
            assert!(reason.contains(why), "{reason}");
            // It goes into an answer and into the log.
            assert!(reason.len() < 300, "{}", reason.len());
        }
    }
}
