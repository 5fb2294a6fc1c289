//! The part of a test file that says what is expected.

use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;

use super::super::Expectation;
use super::sent::{flag, text};
use super::yaml::{Node, Value};

static RULE_ID: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^\s*\[?id\s+\\?"?(\d+)\\?"?\]?\s*$"#).ok());

/// What a test expects, and whether it expects more than a module can meet.
pub(super) fn expectation(
    name: &str,
    output: Option<&Node>,
) -> Result<(Expectation, bool), String> {
    let mut expect = Expectation {
        test: name.to_owned(),
        ..Expectation::default()
    };
    let Some(output) = output else {
        return Ok((expect, false));
    };
    output.expect_mapping("output")?;
    let flag = |key: &str| output.get(key).map_or(Ok(false), |it| flag(key, it));
    expect.isolated = flag("isolated")?;
    expect.status = numbers::<u16>("status", output)?;
    expect.status.retain(|status| *status != 0);
    let mut not_checked = flag("expect_error")?
        || ["response_contains", "html_contains"]
            .into_iter()
            .any(|key| output.get(key).is_some());
    for (key, ids) in [
        ("log_contains", &mut expect.expect_ids),
        ("no_log_contains", &mut expect.no_expect_ids),
    ] {
        let found = output.get(key).map(|it| text(key, it)).transpose()?;
        let Some(found) = found.filter(|text| !text.is_empty()) else {
            continue;
        };
        match RULE_ID.as_ref().and_then(|form| form.captures(&found)) {
            Some(rule) => ids.push(rule[1].to_owned()),
            None => not_checked = true,
        }
    }
    if let Some(log) = output.get("log") {
        log.expect_mapping("log")?;
        let ids = |key| numbers::<u64>(key, log);
        let texts = |ids: Vec<u64>| ids.into_iter().map(|id| id.to_string());
        expect.expect_ids.extend(texts(ids("expect_ids")?));
        expect.no_expect_ids.extend(texts(ids("no_expect_ids")?));
        let has = |key| log.get(key).is_some();
        not_checked |= has("match_regex") || has("no_match_regex");
    }
    Ok((expect, not_checked))
}

/// One number, or a list of them.
fn numbers<T: FromStr>(key: &str, node: &Node) -> Result<Vec<T>, String> {
    let Some(node) = node.get(key) else {
        return Ok(Vec::new());
    };
    let number = |node: &Node| {
        let text = text(key, node)?;
        text.parse().ok().ok_or_else(|| {
            let shown = crate::fault::printable(&text, 40);
            format!("expected a number in \"{key}\", found {shown:?}")
        })
    };
    match &node.value {
        Value::List { items, .. } => items.iter().map(|item| number(item)).collect(),
        _ => Ok(vec![number(node)?]),
    }
}
