//! Shards of a replay, joined to what one run would have reported.

use std::path::{Path, PathBuf};

use super::report::{ReplayReport, Shard};
use super::tally::Tally;
use crate::error::Error;
use crate::report::Report;

/// Joins the JSON reports of shards.
///
/// # Errors
/// When a file is no such report, a shard is missing or there twice, or they
/// are not of one replay.
pub fn merge(paths: &[PathBuf]) -> Result<ReplayReport, Error> {
    let mut parts: Vec<(&Path, Shard, ReplayReport)> = Vec::new();
    for path in paths {
        let (shard, report) = read(path)?;
        parts.push((path, shard, report));
    }
    parts.sort_by_key(|part| part.1.index);
    let Some((first_path, first_shard, first)) = parts.first() else {
        return Err(Error::NothingChecked("no shard was given".to_owned()));
    };
    let of = first_shard.of;
    for (path, shard, report) in &parts {
        let refuse = |what: &str| {
            Err(Error::Malformed {
                path: (*path).to_owned(),
                message: format!(
                    "expected {what} as in {}, found another",
                    first_path.display()
                ),
            })
        };
        if shard.of != of {
            return refuse("the same number of shards");
        }
        if report.module.hash != first.module.hash
            || report.baseline.as_ref().map(|module| &module.hash)
                != first.baseline.as_ref().map(|module| &module.hash)
        {
            return refuse("the same modules");
        }
        if report.settings != first.settings {
            return refuse("the same settings");
        }
        if !report.interrupted && !first.interrupted && report.captures != first.captures {
            return refuse("the same captures");
        }
    }
    check_complete(&parts, of)?;
    let examples = first
        .settings
        .get("examples")
        .and_then(|examples| examples.parse().ok())
        .unwrap_or(usize::MAX);
    let mut merged = first.clone();
    merged.shard = None;
    let mut tally = Tally::default();
    for (_, _, report) in parts {
        merged.interrupted |= report.interrupted;
        if report.captures.len() > merged.captures.len() {
            merged.captures.clone_from(&report.captures);
        }
        tally.absorb(Tally::of_report(report), examples);
    }
    tally.into_report(&mut merged);
    Ok(merged)
}

fn read(path: &Path) -> Result<(Shard, ReplayReport), Error> {
    let malformed = |message: String| Error::Malformed {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let envelope: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| malformed(format!("expected JSON: {error}")))?;
    let schema = envelope.get("schema").and_then(serde_json::Value::as_str);
    if schema != Some(ReplayReport::SCHEMA) {
        return Err(malformed(format!(
            "expected \"schema\": {:?}, found {}; write shards with replay --shard I/N --format json",
            ReplayReport::SCHEMA,
            schema.map_or_else(|| "none".to_owned(), |schema| format!("{schema:?}"))
        )));
    }
    let report: ReplayReport = serde_json::from_value(envelope)
        .map_err(|error| malformed(format!("expected a replay's report: {error}")))?;
    let shard = report.shard.filter(|shard| shard.of > 0).ok_or_else(|| {
        malformed("expected a shard's report, found that of a whole replay".to_owned())
    })?;
    Ok((shard, report))
}

fn check_complete(parts: &[(&Path, Shard, ReplayReport)], of: u32) -> Result<(), Error> {
    for index in 1..=of {
        let mut same = parts.iter().filter(|part| part.1.index == index);
        match (same.next(), same.next()) {
            (Some(_), None) => {}
            (None, _) => {
                return Err(Error::Usage(format!(
                    "shard {index}/{of} is missing; a merge needs all {of}"
                )));
            }
            (Some((path, ..)), Some((other, ..))) => {
                return Err(Error::Usage(format!(
                    "shard {index}/{of} is there twice: {} and {}",
                    path.display(),
                    other.display()
                )));
            }
        }
    }
    Ok(())
}
