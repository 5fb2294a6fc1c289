//! Shards of a replay, joined to what one run would have reported.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::report::{ReplayReport, Shard};
use super::tally::Tally;
use crate::error::Error;
use crate::fault::{printable, shown};
use crate::files::{self, Accept};
use crate::ops::module_info::ModuleInfo;
use crate::report::Report;

/// Bytes of one report; with a hundred examples of each change it has a few
/// MiB.
const MAX_BYTES: u64 = 256 << 20;
/// Characters of a setting that a message shows.
const SHOWN: usize = 120;
const FIX: &str = "write shards with replay --shard I/N --format json";

/// What tells a report from other JSON.
#[derive(Deserialize)]
struct Named {
    schema: Option<String>,
    tool_version: Option<String>,
}

/// One shard's report.
struct Part<'a> {
    path: &'a Path,
    shard: Shard,
    tool_version: String,
    report: ReplayReport,
}

/// In what two reports are not of one replay.
struct Difference {
    what: String,
    first: String,
    other: String,
}

/// Joins the JSON reports of shards.
///
/// # Errors
/// When a file is no such report, a shard is missing or there twice, or they
/// are not of one replay.
pub(crate) fn merge(paths: &[PathBuf]) -> Result<ReplayReport, Error> {
    let parts = paths.iter().map(|path| read(path));
    let mut parts = parts.collect::<Result<Vec<Part<'_>>, Error>>()?;
    parts.sort_by_key(|part| part.shard.index);
    let Some(first) = parts.first() else {
        return Err(Error::NothingChecked("no shard was given".to_owned()));
    };
    for part in &parts {
        if let Some(Difference {
            what,
            first: expected,
            other,
        }) = difference(first, part)
        {
            return Err(malformed(
                part.path,
                format!(
                    "expected a shard of the same replay as {first}: {what} differs: {other} here, {expected} in {first}",
                    first = shown(first.path)
                ),
            ));
        }
    }
    check_complete(&parts, first.shard.of)?;
    let examples = first.report.settings.get("examples");
    let examples = examples.and_then(|examples| examples.parse().ok());
    let examples = examples.unwrap_or(usize::MAX);
    let mut reports = parts.into_iter().map(|part| part.report);
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
        capture_digests: Vec::new(),
        ..tally.into_report()
    })
}

fn malformed(path: &Path, message: String) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        message,
    }
}

fn read(path: &Path) -> Result<Part<'_>, Error> {
    let malformed = |message: String| malformed(path, message);
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
    let is_part = |shard: &Shard| (1..=shard.of).contains(&shard.index);
    let shard = report.shard.filter(is_part).ok_or_else(|| {
        malformed("expected a shard's report, found that of a whole replay".to_owned())
    })?;
    if report.capture_digests.len() != report.captures.len() {
        return Err(malformed(format!(
            "expected \"capture_digests\", a hash of each capture, found {} for {} captures: an older version wrote this report, and nobody can tell whether its captures are those of the other shards; {FIX} again",
            report.capture_digests.len(),
            report.captures.len()
        )));
    }
    Ok(Part {
        path,
        shard,
        tool_version: named.tool_version.unwrap_or_default(),
        report,
    })
}

/// In what a part is not of the same replay as the first.
fn difference(first: &Part<'_>, other: &Part<'_>) -> Option<Difference> {
    let (one, two) = (&first.report, &other.report);
    let module = |module: &ModuleInfo| format!("{} ({} ABI)", module.hash, module.abi);
    let baseline = |report: &ReplayReport| report.baseline.as_ref().map_or("none".into(), module);
    let mut pairs = vec![
        (
            "number of shards",
            first.shard.of.to_string(),
            other.shard.of.to_string(),
        ),
        (
            "version of wasm-agent",
            first.tool_version.clone(),
            other.tool_version.clone(),
        ),
        ("module", module(&one.module), module(&two.module)),
        ("baseline", baseline(one), baseline(two)),
        (
            "--fail-on",
            one.fail_on.to_string(),
            two.fail_on.to_string(),
        ),
        ("--strict", one.strict.to_string(), two.strict.to_string()),
        (
            "--allow-redacted-changes",
            one.allow_redacted_changes.to_string(),
            two.allow_redacted_changes.to_string(),
        ),
    ];
    let names: BTreeSet<&String> = one.settings.keys().chain(two.settings.keys()).collect();
    let flags: Vec<(String, &String)> = names.iter().map(|name| (flag_of(name), *name)).collect();
    for (flag, name) in &flags {
        let value = |report: &ReplayReport| report.settings.get(*name).cloned();
        let value = |report| value(report).unwrap_or_else(|| "none".to_owned());
        pairs.push((flag, value(one), value(two)));
    }
    let differs = pairs.into_iter().find(|(_, first, other)| first != other);
    let differs = differs.map(|(what, first, other)| Difference {
        what: what.to_owned(),
        first: printable(&first, SHOWN),
        other: printable(&other, SHOWN),
    });
    differs.or_else(|| other_capture(one, two))
}

/// The flag that a setting of a report is given with.
fn flag_of(setting: &str) -> String {
    match setting {
        "failure_policy" => "--fail-open".to_owned(),
        "expect_old" => "--expect".to_owned(),
        name => format!("--{}", name.trim_end_matches("_bytes").replace('_', "-")),
    }
}

/// Which capture is not the same. Of a shard that was interrupted nobody knows
/// what it had not read: neither the rest of its last capture nor those behind.
fn other_capture(one: &ReplayReport, two: &ReplayReport) -> Option<Difference> {
    let most = one.captures.len().max(two.captures.len());
    (0..most).find_map(|index| {
        let of = |report: &ReplayReport| {
            let last = index + 1 >= report.captures.len();
            let is_whole = !(report.interrupted && last);
            let file = report.captures.get(index).map(|capture| {
                let format = capture.format.map_or("unreadable", |format| format.name());
                format!("{} ({format})", printable(&capture.file, SHOWN))
            });
            (is_whole, file, report.capture_digests.get(index).cloned())
        };
        let (first, other) = (of(one), of(two));
        let both_whole = first.0 && other.0;
        let told = |what: &str, pair: (Option<String>, Option<String>)| {
            let text = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
            Some(Difference {
                what: what.to_owned(),
                first: text(pair.0),
                other: text(pair.1),
            })
        };
        let are_there = first.1.is_some() && other.1.is_some();
        if first.1 != other.1 && (are_there || both_whole) {
            return told("capture", (first.1, other.1));
        }
        if both_whole && first.2 != other.2 {
            let file = first.1.unwrap_or_default();
            return told(&format!("content of {file}"), (first.2, other.2));
        }
        None
    })
}

fn check_complete(parts: &[Part<'_>], of: u32) -> Result<(), Error> {
    for index in 1..=of {
        let mut same = parts.iter().filter(|part| part.shard.index == index);
        match (same.next(), same.next()) {
            (Some(_), None) => {}
            (None, _) => {
                return Err(Error::Usage(format!(
                    "shard {index}/{of} is missing; a merge needs all {of}"
                )));
            }
            (Some(one), Some(other)) => {
                return Err(Error::Usage(format!(
                    "shard {index}/{of} is there twice: {} and {}",
                    shown(one.path),
                    shown(other.path)
                )));
            }
        }
    }
    Ok(())
}
