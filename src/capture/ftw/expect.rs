//! What a test expects of a module's answers.

use std::sync::LazyLock;

use regex::Regex;

use super::{OneOrMany, Output};
use crate::response::{AgentResponse, Decision};

/// What a test expects of the module's answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The test's name: rule, test and stage.
    pub test: String,
    /// Statuses the client may get; none where any will do.
    pub status: Vec<u16>,
    /// Rules that must fire.
    pub expect_ids: Vec<String>,
    /// Rules that must not fire.
    pub no_expect_ids: Vec<String>,
    /// No rule but the expected ones may fire.
    pub isolated: bool,
}

impl Expectation {
    /// Whether there is anything to hold answers against.
    pub(super) const fn checks_any(&self) -> bool {
        let ids = !self.expect_ids.is_empty() || !self.no_expect_ids.is_empty();
        ids || !self.status.is_empty() || self.isolated
    }

    /// Holds answers against it: one line for each miss.
    #[must_use]
    pub fn check(&self, responses: &[&AgentResponse]) -> Vec<String> {
        let fired: Vec<&str> = responses
            .iter()
            .flat_map(|response| response.audit.rule_ids.iter().map(String::as_str))
            .collect();
        let refused = responses
            .iter()
            .map(|response| &response.decision)
            .find(|decision| **decision != Decision::Allow);
        let mut missed = Vec::new();
        if !self.status.is_empty() {
            let found = match refused {
                // A module that allows leaves the status to the upstream.
                None if self.status.iter().any(|status| *status < 400) => None,
                None => Some("allow".to_owned()),
                Some(decision) => match decision.status() {
                    Some(status) if self.status.contains(&status) => None,
                    Some(status) => Some(format!("{} {status}", decision.name())),
                    None => Some(decision.name().to_owned()),
                },
            };
            if let Some(found) = found {
                missed.push(format!("status: expected {:?}, found {found}", self.status));
            }
        }
        for id in &self.expect_ids {
            if !fired.contains(&id.as_str()) {
                missed.push(format!("rule {id}: expected to fire, found {fired:?}"));
            }
        }
        for id in &self.no_expect_ids {
            if fired.contains(&id.as_str()) {
                missed.push(format!("rule {id}: expected not to fire, found {fired:?}"));
            }
        }
        if self.isolated {
            let others: Vec<&str> = fired
                .iter()
                .copied()
                .filter(|id| !self.expect_ids.iter().any(|known| known == id))
                .collect();
            if !others.is_empty() {
                missed.push(format!(
                    "isolated: expected no other rule, found {others:?}"
                ));
            }
        }
        missed
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_rules_are_held_against_answers() {
        let mut block = AgentResponse::new(Decision::Block {
            status: 403,
            body: None,
        });
        block.audit.rule_ids.push("942100".to_owned());
        let expect = |status: &[u16], ids: &[&str], not: &[&str]| Expectation {
            status: status.to_vec(),
            expect_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            no_expect_ids: not.iter().map(|id| (*id).to_owned()).collect(),
            ..Expectation::default()
        };
        assert!(
            expect(&[403], &["942100"], &["1"])
                .check(&[&block])
                .is_empty()
        );
        assert_eq!(
            expect(&[200], &["1"], &["942100"]).check(&[&block]).len(),
            3
        );
        let allow = AgentResponse::allow();
        assert!(expect(&[200], &[], &[]).check(&[&allow]).is_empty());
        assert_eq!(expect(&[403], &[], &[]).check(&[&allow]).len(), 1);
    }

    #[test]
    fn a_test_without_anything_to_check_is_none() {
        assert!(!Expectation::default().checks_any());
        let expect = Expectation {
            status: vec![403],
            ..Expectation::default()
        };
        assert!(expect.checks_any());
    }
}
