//! Parses the values of `serve`'s options.

use std::time::Duration;

use crate::cli::TimeArg;

/// The words that the published agents' environments use.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" | "" => Ok(false),
        _ => Err("expected 1, true, yes, 0, false or no".to_owned()),
    }
}

/// None where it is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval(pub(super) Option<Duration>);

pub(super) fn interval(text: &str) -> Result<Interval, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Ok(Interval(None)),
        _ => text.parse::<TimeArg>().map(|time| Interval(Some(time.0))),
    }
}

/// Permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u32);

impl std::fmt::Display for Mode {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:04o}", self.0)
    }
}

pub(super) fn octal(text: &str) -> Result<Mode, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600)
        .map(Mode)
        .ok_or_else(|| {
            "expected octal permission bits such as 0660, with read and write for the owner"
                .to_owned()
        })
}

/// A group's number, looked up in the system's list where a name was given.
pub(super) fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group")
        .map_err(|error| format!("cannot look the name up in /etc/group: {error}"))?;
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?))
        })
        .find_map(|(name, number)| (name == text).then(|| number.parse().ok())?)
        .ok_or_else(|| "no such group in /etc/group".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_of_the_published_agents_are_read() {
        for (text, value) in [
            ("1", true),
            ("TRUE", true),
            ("Yes", true),
            ("0", false),
            ("false", false),
            ("no", false),
            ("", false),
        ] {
            assert_eq!(boolean(text), Ok(value), "{text}");
        }
        assert!(boolean("on please").is_err());
    }

    #[test]
    fn modes_and_groups_are_read() {
        assert_eq!(octal("0660"), Ok(Mode(0o660)));
        for bad in ["", "9", "01777", "0060", "660x"] {
            assert!(octal(bad).is_err(), "{bad}");
        }
        assert_eq!(group("17"), Ok(17));
        assert_eq!(group("root"), Ok(0));
        assert!(group("no such group").is_err());
    }
}
