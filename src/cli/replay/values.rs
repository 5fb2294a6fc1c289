//! Parses the values of `replay`'s options.

use std::str::FromStr;

use crate::capture::{FieldMap, Format};
use crate::ops::replay::{FailOn, LANES, Match, Shard};
use crate::time::nanoseconds;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use regex::Regex;

pub(super) fn input_format() -> impl TypedValueParser<Value = Format> {
    let named = |format: Format| PossibleValue::new(format.name()).help(format.title());
    PossibleValuesParser::new(Format::ALL.map(named)).try_map(|name| {
        let mut all = Format::ALL.into_iter();
        all.find(|format| format.name() == name)
            .ok_or("no format of this name")
    })
}

pub(super) fn speed(text: &str) -> Result<f64, String> {
    text.strip_suffix('x')
        .unwrap_or(text)
        .parse::<f64>()
        .ok()
        .filter(|factor| (0.001..=100_000.0).contains(factor))
        .ok_or_else(|| "expected a factor such as 1x or 10x".to_owned())
}

pub(super) fn time(text: &str) -> Result<i64, String> {
    nanoseconds(text).ok_or_else(|| {
        "expected a time from 1970 to 2262 such as 2026-03-01T09:30:00Z (RFC 3339)".to_owned()
    })
}

pub(in crate::cli) fn share(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| "expected a share above 0 and up to 1, such as 0.1".to_owned())
}

pub(super) fn field(text: &str) -> Result<(String, String), String> {
    let (what, key) = text
        .split_once('=')
        .filter(|(_, key)| !key.is_empty())
        .ok_or("expected WHAT=KEY, such as uri=request.path")?;
    if FieldMap::is_known(what) {
        Ok((what.to_owned(), key.to_owned()))
    } else {
        Err("expected method, uri, query, request, client_ip, status, time, id or header.NAME before the =".to_owned())
    }
}

pub(super) fn matching(text: &str) -> Result<Match, String> {
    let (what, value) = text
        .split_once('=')
        .ok_or("expected path=REGEX, method=NAME or status=CODE")?;
    match what {
        "path" => Regex::new(value)
            .map(Match::Path)
            .map_err(|error| format!("not a regular expression: {error}")),
        "method" => Ok(Match::Method(value.to_owned())),
        "status" => statuses(value)
            .map(|(from, to)| Match::Status(from, to))
            .ok_or_else(|| "expected a status such as 404, 4xx or 400-499".to_owned()),
        _ => Err("expected path, method or status before the =".to_owned()),
    }
}

fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (u16::from_str(from).ok()?, u16::from_str(to).ok()?);
    (100 <= from && from <= to && to <= 999).then_some((from, to))
}

pub(super) fn shard(text: &str) -> Result<Shard, String> {
    let refuse = || format!("expected I/N with I from 1 to N and N up to {LANES}, such as 1/4");
    let (index, of) = text.split_once('/').ok_or_else(refuse)?;
    let from_job = (index == "auto").then(job_index).transpose()?;
    let index = from_job.as_deref().unwrap_or(index);
    let (index, of): (u32, u32) = (
        index.parse().map_err(|_no_number| refuse())?,
        of.parse().map_err(|_no_number| refuse())?,
    );
    if (1..=LANES).contains(&of) && (1..=of).contains(&index) {
        Ok(Shard { index, of })
    } else {
        Err(refuse())
    }
}

/// The part's number, from 1, where Kubernetes counts from 0.
fn job_index() -> Result<String, String> {
    let index = std::env::var("JOB_COMPLETION_INDEX").map_err(|_unset| {
        "auto needs JOB_COMPLETION_INDEX, which an Indexed Job sets".to_owned()
    })?;
    let index: u32 = index.parse().map_err(|_no_number| {
        format!("expected JOB_COMPLETION_INDEX to be a number, found {index:?}")
    })?;
    Ok((u64::from(index) + 1).to_string())
}

pub(super) fn fail_on(text: &str) -> Result<FailOn, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(FailOn::Percent)
            .ok_or_else(|| "expected a share from 0% to 100%".to_owned());
    }
    match text {
        "any" => Ok(FailOn::Any),
        "decision" => Ok(FailOn::Decision),
        "recorded" => Ok(FailOn::Recorded),
        "fault" => Ok(FailOn::Fault),
        "never" => Ok(FailOn::Never),
        _ => {
            Err("expected any, decision, recorded, fault, never or a share such as 0.5%".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_shards_read_their_forms() {
        assert_eq!(statuses("4xx"), Some((400, 499)));
        assert_eq!(statuses("404"), Some((404, 404)));
        assert_eq!(statuses("200-299"), Some((200, 299)));
        for bad in ["", "xx", "0xx", "40", "500-400", "1000"] {
            assert_eq!(statuses(bad), None, "{bad}");
        }
        assert_eq!(shard("2/4"), Ok(Shard { index: 2, of: 4 }));
        for bad in ["0/4", "5/4", "1/0", "1", "1/241", "a/b"] {
            assert!(shard(bad).is_err(), "{bad}");
        }
        assert_eq!(fail_on("0.5%"), Ok(FailOn::Percent(0.5)));
        assert!(fail_on("101%").is_err() && fail_on("sometimes").is_err());
    }
}
