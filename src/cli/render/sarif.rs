//! SARIF 2.1.0, the format of code scanning: a rule for each check that found
//! something, a result for each finding.

use std::collections::BTreeSet;
use std::io::{self, Write};

use crate::report::{Case, CaseStatus, Report};
use serde::Serialize;

use super::json;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

#[derive(Serialize)]
struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
struct Run {
    tool: Tool,
    results: Vec<Finding>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    semantic_version: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule_id: String,
    rule_index: usize,
    level: &'static str,
    message: Message,
    locations: [Location; 1],
}

#[derive(Serialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
}

/// One log with one run.
pub(crate) fn write<R: Report>(report: &R, out: &mut dyn Write) -> io::Result<()> {
    let cases = report.cases();
    let found: Vec<(&Case, &'static str)> = cases
        .iter()
        .filter_map(|case| Some((case, level(case.status)?)))
        .collect();
    let ids: BTreeSet<&str> = found.iter().map(|(case, _)| case.name.as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let results = found
        .iter()
        .map(|(case, level)| finding(case, level, &ids))
        .collect();
    let log = Log {
        schema: SCHEMA,
        version: "2.1.0",
        runs: [Run {
            tool: Tool {
                driver: Driver {
                    name: "wasm-agent",
                    semantic_version: env!("CARGO_PKG_VERSION"),
                    rules: ids
                        .iter()
                        .map(|id| Rule {
                            id: (*id).to_owned(),
                        })
                        .collect(),
                },
            },
            results,
        }],
    };
    json::document(&log, out)
}

const fn level(status: CaseStatus) -> Option<&'static str> {
    match status {
        CaseStatus::Passed | CaseStatus::Skipped | CaseStatus::Unchecked => None,
        CaseStatus::Warned => Some("warning"),
        CaseStatus::Failed | CaseStatus::Errored => Some("error"),
    }
}

fn finding(case: &Case, level: &'static str, ids: &[&str]) -> Finding {
    let separator = if case.detail.is_empty() { "" } else { "\n" };
    Finding {
        rule_id: case.name.clone(),
        rule_index: ids.binary_search(&case.name.as_str()).unwrap_or(0),
        level,
        message: Message {
            text: format!("{}{separator}{}", case.message, case.detail),
        },
        locations: [Location {
            physical_location: PhysicalLocation {
                artifact_location: ArtifactLocation {
                    uri: uri(&case.file),
                },
                region: case.line.map(|start_line| Region { start_line }),
            },
        }],
    }
}

/// The path as a URI reference: relative to the working directory where it
/// lies below it, which is where scanners look.
fn uri(path: &str) -> String {
    let here = std::env::current_dir().ok();
    let relative = here
        .and_then(|here| {
            Some(
                std::path::Path::new(path)
                    .strip_prefix(here)
                    .ok()?
                    .to_owned(),
            )
        })
        .map_or_else(|| path.to_owned(), |path| path.display().to_string());
    let relative = relative.strip_prefix("./").unwrap_or(&relative);
    let escaped = escape(relative);
    if relative.starts_with('/') {
        format!("file://{escaped}")
    } else {
        escaped
    }
}

fn escape(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uri_references() {
        assert_eq!(uri("./rules.wasm"), "rules.wasm");
        assert_eq!(uri("a b/ü.wat"), "a%20b/%C3%BC.wat");
        assert_eq!(uri("/no/such/place.wasm"), "file:///no/such/place.wasm");
        let here = std::env::current_dir().unwrap().join("rules.wasm");
        assert_eq!(uri(&here.display().to_string()), "rules.wasm");
    }
}
