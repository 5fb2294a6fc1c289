//! Shards of a replay, joined to what one run would have reported.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::report::{ReplayReport, Shard};
use super::tally::Tally;
use crate::error::Error;
use crate::fault::{printable, shown};
use crate::files::{self, Accept};
use crate::report::Report;

/// Bytes of one report; with a hundred examples of each change it has a few
/// MiB.
const MAX_BYTES: u64 = 256 << 20;
const FIX: &str = "write shards with replay --shard I/N --format json";

/// What tells a report from other JSON.
#[derive(Deserialize)]
struct Named {
    schema: Option<String>,
}

/// Joins the JSON reports of shards.
///
/// # Errors
/// When a file is no such report, a shard is missing or there twice, or they
/// are not of one replay.
pub(crate) fn merge(paths: &[PathBuf]) -> Result<ReplayReport, Error> {
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
                message: format!("expected {what} as in {}, found another", shown(first_path)),
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
    let mut reports = parts.into_iter().map(|(_, _, report)| report);
    let mut tally = Tally::of_report(reports.next().unwrap_or_default());
    for mut report in reports {
        let whole = &mut tally.report;
        whole.interrupted |= report.interrupted;
        if report.captures.len() > whole.captures.len() {
            whole.captures = std::mem::take(&mut report.captures);
        }
        tally.absorb(Tally::of_report(report), examples);
    }
    Ok(ReplayReport {
        shard: None,
        ..tally.into_report()
    })
}

fn read(path: &Path) -> Result<(Shard, ReplayReport), Error> {
    let malformed = |message: String| Error::Malformed {
        path: path.to_owned(),
        message,
    };
    let text = files::read(path, Accept::Stream, ("a replay's report", MAX_BYTES))?;
    let named: Named = serde_json::from_slice(&text).map_err(|error| {
        malformed(format!(
            "expected a replay's report as JSON: {error}; {FIX}"
        ))
    })?;
    if named.schema.as_deref() != Some(ReplayReport::SCHEMA) {
        let found = named.schema.map_or_else(
            || "none".to_owned(),
            |schema| format!("{:?}", printable(&schema, 60)),
        );
        return Err(malformed(format!(
            "expected \"schema\": {:?}, found {found}; {FIX}",
            ReplayReport::SCHEMA,
        )));
    }
    let report: ReplayReport = serde_json::from_slice(&text)
        .map_err(|error| malformed(format!("expected a replay's report: {error}; {FIX}")))?;
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
                    shown(path),
                    shown(other)
                )));
            }
        }
    }
    Ok(())
}
