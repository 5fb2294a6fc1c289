//! A record's output, as far as it has to be one: an answer of the phase.
//!
//! In: the JSON that was recorded. Out: nothing, or what is wrong with it. It is
//! compared as it was recorded, so of what else it holds nothing is lost here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::hook::HookContext;
use crate::json::explain;
use crate::question::Phase;
use crate::response::AgentResponse;

#[derive(Deserialize)]
#[expect(dead_code, reason = "only their types count")]
struct ResponseText {
    decision: DecisionText,
    request_headers: Option<Vec<OpText>>,
    response_headers: Option<Vec<OpText>>,
    routing_metadata: Option<BTreeMap<String, String>>,
    audit: Option<AuditText>,
    needs_more: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only their types count")]
enum DecisionText {
    Allow,
    Block {
        status: u16,
        body: Option<String>,
    },
    Redirect {
        url: String,
        status: u16,
    },
    Challenge {
        challenge_type: String,
        params: Option<BTreeMap<String, String>>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only their types count")]
enum OpText {
    Set { name: String, value: String },
    Add { name: String, value: String },
    Remove { name: String },
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only their types count")]
struct AuditText {
    tags: Option<Vec<String>>,
    rule_ids: Option<Vec<String>>,
    confidence: Option<f64>,
    reason_codes: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only their types count")]
struct ResultText {
    ok: bool,
    ctx: Option<HookContext>,
    error: Option<String>,
    details: Option<Vec<IgnoredAny>>,
}

/// Whether it is an answer.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(json: &[u8], phase: Phase) -> Result<(), String> {
    /// What most requests are answered with.
    static ALLOW: LazyLock<Vec<u8>> =
        LazyLock::new(|| serde_json::to_vec(&AgentResponse::allow()).unwrap_or_default());
    if json == ALLOW.as_slice() {
        return Ok(());
    }
    // Our readers take a list for an object, if its elements fit.
    if !json.starts_with(b"{") {
        let what = match phase {
            Phase::Event(_) => "decision",
            Phase::Hook(_) => "ok",
        };
        return Err(format!(
            "expected \"output\" to be null or an object with {what:?}"
        ));
    }
    let read = match phase {
        Phase::Event(_) => explain::parse::<ResponseText>(json).map(drop),
        Phase::Hook(_) => explain::parse::<ResultText>(json).map(drop),
    };
    read.map_err(|why| format!("output: {why}"))
}
