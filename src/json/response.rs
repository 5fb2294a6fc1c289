//! An agent response as JSON, field by field: each answer of `serve`, and of a
//! replay, which holds it against the one that was recorded.

use super::{Object, write_serialized, write_string};
use crate::response::{AgentResponse, Audit, Decision, HeaderOp};

/// Appends what [`serde::Serialize`] gives, at a fraction of its price.
pub(crate) fn write(response: &AgentResponse, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    match &response.decision {
        Decision::Allow => object.raw("decision", "\"allow\""),
        other => write_serialized(other, object.key("decision")),
    }
    changes(response, &mut object);
    let mut audit = object.object("audit");
    labels(&response.audit, &mut audit);
    if let Some(confidence) = &response.audit.confidence {
        write_serialized(confidence, audit.key("confidence"));
    }
    reasons(&response.audit, &mut audit);
    audit.end();
    object.flag("needs_more", response.needs_more);
    for (key, mutation) in [
        ("request_body_mutation", &response.request_body_mutation),
        ("response_body_mutation", &response.response_body_mutation),
    ] {
        match mutation {
            None => object.raw(key, "null"),
            mutation => write_serialized(mutation, object.key(key)),
        }
    }
    object.end();
}

/// Writes the fields for headers and for the router.
pub(crate) fn changes(response: &AgentResponse, object: &mut Object<'_>) {
    object.array("request_headers", &response.request_headers, header_op);
    object.array("response_headers", &response.response_headers, header_op);
    let mut metadata = object.object("routing_metadata");
    for (key, value) in &response.routing_metadata {
        metadata.pair(key, value);
    }
    metadata.end();
}

/// Writes an audit's tags and rule ids.
pub(crate) fn labels(audit: &Audit, object: &mut Object<'_>) {
    texts("tags", &audit.tags, object);
    texts("rule_ids", &audit.rule_ids, object);
}

/// Writes an audit's reason codes.
pub(crate) fn reasons(audit: &Audit, object: &mut Object<'_>) {
    texts("reason_codes", &audit.reason_codes, object);
}

fn texts(key: &str, texts: &[String], object: &mut Object<'_>) {
    object.array(key, texts, |text, out| write_string(text, out));
}

fn header_op(op: &HeaderOp, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    let mut named = |key, name: &str, value: Option<&String>| {
        let mut inner = object.object(key);
        inner.text("name", name);
        if let Some(value) = value {
            inner.text("value", value);
        }
        inner.end();
    };
    match op {
        HeaderOp::Set { name, value } => named("set", name, Some(value)),
        HeaderOp::Add { name, value } => named("add", name, Some(value)),
        HeaderOp::Remove { name } => named("remove", name, None),
    }
    object.end();
}
