//! The part of a test file that says what is expected.

use std::sync::LazyLock;

use regex::Regex;

use serde::Deserialize;

use super::super::Expectation;

#[derive(Deserialize, Default, Clone)]
pub(super) struct Output {
    pub(super) status: Option<OneOrMany<u16>>,
    pub(super) response_contains: Option<String>,
    pub(super) log_contains: Option<String>,
    pub(super) no_log_contains: Option<String>,
    pub(super) log: Option<Log>,
    pub(super) expect_error: Option<bool>,
    #[serde(default)]
    pub(super) isolated: bool,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(Deserialize, Default, Clone)]
pub(super) struct Log {
    #[serde(default)]
    pub(super) expect_ids: Vec<u64>,
    #[serde(default)]
    pub(super) no_expect_ids: Vec<u64>,
    pub(super) match_regex: Option<String>,
    pub(super) no_match_regex: Option<String>,
}

static RULE_ID: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^\s*\[?id\s+\\?"?(\d+)\\?"?\]?\s*$"#).ok());

pub(super) fn expectation(name: &str, output: &Output) -> (Expectation, bool) {
    let mut not_checked = output.response_contains.is_some() || output.expect_error == Some(true);
    let mut expect = Expectation {
        test: name.to_owned(),
        isolated: output.isolated,
        status: match &output.status {
            None => Vec::new(),
            Some(OneOrMany::One(status)) => vec![*status],
            Some(OneOrMany::Many(statuses)) => statuses.clone(),
        },
        ..Expectation::default()
    };
    expect.status.retain(|status| *status != 0);
    let mut from_text = |text: &Option<String>, ids: &mut Vec<String>| {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else {
            return;
        };
        match RULE_ID.as_ref().and_then(|form| form.captures(text)) {
            Some(found) => ids.push(found[1].to_owned()),
            None => not_checked = true,
        }
    };
    from_text(&output.log_contains, &mut expect.expect_ids);
    from_text(&output.no_log_contains, &mut expect.no_expect_ids);
    if let Some(log) = &output.log {
        expect
            .expect_ids
            .extend(log.expect_ids.iter().map(u64::to_string));
        expect
            .no_expect_ids
            .extend(log.no_expect_ids.iter().map(u64::to_string));
        not_checked |= log.match_regex.is_some() || log.no_match_regex.is_some();
    }
    (expect, not_checked)
}
