//! What a test file expects of a module's answers, and what they miss of it.

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
