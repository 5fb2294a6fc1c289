//! Settings pushed by the proxy.
//!
//! A setting is in force or it is refused with a reason; nothing is accepted
//! and then ignored. What is pushed is compared with what is in force, so the
//! same push on every connection is accepted every time.

use serde_json::Value;

use crate::agent::Agent;
use crate::decision::FailurePolicy;
use crate::response::{AgentResponse, Decision};

/// Answers a push.
pub(crate) fn configure(agent: &Agent, config: &Value) -> AgentResponse {
    match check(agent, config) {
        Ok(()) => AgentResponse::allow(),
        Err(reason) => {
            tracing::warn!(reason, "pushed settings refused");
            let mut response = AgentResponse::new(Decision::Block {
                status: 403,
                body: Some(reason),
            });
            response.tag("config-refused");
            response
        }
    }
}

fn check(agent: &Agent, config: &Value) -> Result<(), String> {
    let pushed = match config {
        Value::Null => return Ok(()),
        Value::Object(pushed) => pushed,
        _ => return Err("expected an object of settings".to_owned()),
    };
    let pool = &agent.settings().pool;
    let open = agent.settings().failure_policy == FailurePolicy::Open;
    for (key, value) in pushed {
        let in_force: Value = match key.as_str() {
            "pool-size" => pool.size.into(),
            "fail-open" => open.into(),
            "timeout-ms" => u64::try_from(pool.limits.timeout.as_millis())
                .unwrap_or(u64::MAX)
                .into(),
            "fuel" => pool.limits.fuel.into(),
            "max-memory-bytes" => pool.limits.max_memory_bytes.into(),
            "max-answer-bytes" => pool.limits.max_answer_bytes.into(),
            _ => {
                return Err(format!(
                    "unknown setting {}",
                    crate::fault::printable(key, 64)
                ));
            }
        };
        if *value != in_force {
            return Err(format!(
                "{key} is {in_force} here and cannot be changed by the proxy; start the agent with another value"
            ));
        }
    }
    Ok(())
}
