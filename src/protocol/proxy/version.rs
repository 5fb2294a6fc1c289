//! The version of the proxy at the other end.

use std::fmt;
use std::str::FromStr;

/// A release: `0.6.54`. One that is to come, `0.6.54-rc.1`, is taken for the
/// release before it, whose quirks it may have; what follows a `+` is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    /// Before all releases.
    pub const OLDEST: Self = Self::new(0, 0, 0);
    /// The first release that uses challenges, redirects and response header
    /// operations as they are meant, and passes unchanged bodies on whole.
    pub const REPAIRED: Self = Self::new(0, 6, 54);
    /// The newest release before that one that was looked at; those between them
    /// are treated like it.
    pub const UNREPAIRED: Self = Self::new(0, 6, 45);

    const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let release = text.split('+').next().unwrap_or_default();
        let (numbers, is_to_come) = match release.split_once('-') {
            Some((numbers, _)) => (numbers, true),
            None => (release, false),
        };
        let mut parts = numbers.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => {
                let patch = patch.saturating_sub(is_to_come.into());
                Ok(Self::new(major, minor, patch))
            }
            _ => Err("expected a version such as 0.6.45".to_owned()),
        }
    }
}

/// The releases in which something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Releases {
    /// The first of zentinel-proxy; none where all before the last have it.
    first: Option<Version>,
    /// The last of zentinel-proxy; none where nothing says that it ends.
    last: Option<Version>,
    /// In sentinel-proxy 0.4.14 too.
    in_sentinel: bool,
}

impl Releases {
    pub(crate) const UNREPAIRED: Self = Self {
        first: None,
        last: Some(Version::UNREPAIRED),
        in_sentinel: true,
    };
    pub(crate) const REPAIRED: Self = Self {
        first: Some(Version::REPAIRED),
        last: None,
        in_sentinel: false,
    };
    /// All that were looked at.
    pub(crate) const ALL: Self = Self {
        first: None,
        last: Some(Version::REPAIRED),
        in_sentinel: true,
    };

    /// Those of zentinel-proxy only.
    pub(crate) const fn of_zentinel(self) -> Self {
        Self {
            in_sentinel: false,
            ..self
        }
    }
}

impl fmt::Display for Releases {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("zentinel-proxy")?;
        if let Some(first) = self.first {
            write!(out, " from {first} on")?;
        }
        if let Some(last) = self.last {
            write!(out, " up to {last}")?;
        }
        if self.in_sentinel {
            out.write_str(" and sentinel-proxy 0.4.14")?;
        }
        Ok(())
    }
}

/// Whose quirks are worked around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyQuirks {
    /// Those of the version in the handshake; without one, the oldest. The
    /// default.
    #[default]
    Auto,
    /// Nobody's: answers go out as the module gave them.
    Off,
    /// Those of this version, whatever the handshake says.
    Version(Version),
}

impl FromStr for ProxyQuirks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            version => version
                .parse()
                .map(Self::Version)
                .map_err(|_no_version| "expected auto, off or a version such as 0.6.45".to_owned()),
        }
    }
}

impl fmt::Display for ProxyQuirks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("auto"),
            Self::Off => out.write_str("off"),
            Self::Version(version) => version.fmt(out),
        }
    }
}

/// The proxy at the other end of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// None where quirks are off.
    version: Option<Version>,
}

impl Proxy {
    /// The proxy whose handshake said this version; a v1 connection has none.
    ///
    /// The version is that of the protocol crate, which Zentinel releases with
    /// the proxy. Sentinel's (0.4.x and before) sorts where it behaves. One
    /// that is no version may be any proxy, so it is taken for the oldest.
    #[must_use]
    pub(crate) fn new(quirks: ProxyQuirks, handshake: Option<&str>) -> Self {
        let version = match quirks {
            ProxyQuirks::Off => None,
            ProxyQuirks::Version(version) => Some(version),
            ProxyQuirks::Auto => Some(
                handshake
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(Version::OLDEST),
            ),
        };
        Self { version }
    }

    /// Whether it sends a request's body where it sent the last head with that
    /// correlation id, rather than where it sent the body's own. All releases
    /// up to 0.6.54 do.
    #[must_use]
    pub(crate) const fn sends_bodies_after_ids(self) -> bool {
        self.version.is_some()
    }

    /// Whether it has the quirks of releases before 0.6.54.
    #[must_use]
    pub(crate) fn is_unrepaired(self) -> bool {
        self.version
            .is_some_and(|version| version < Version::REPAIRED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshakes_version_tells_the_generation() {
        for (handshake, unrepaired) in [
            (None, true),
            (Some(""), true),
            (Some("next"), true),
            (Some("0.4.14"), true),
            (Some("0.6.45"), true),
            (Some("0.6.46"), true),
            (Some("0.6.53"), true),
            (Some("0.6.54-rc.1"), true),
            (Some("0.6.54"), false),
            (Some("0.6.54+build-7"), false),
            (Some("0.6.55-rc.1"), false),
            (Some("0.7.0-beta"), false),
            (Some("0.10.0"), false),
            (Some("1.0.0"), false),
        ] {
            let proxy = Proxy::new(ProxyQuirks::Auto, handshake);
            assert_eq!(proxy.is_unrepaired(), unrepaired, "{handshake:?}");
            assert!(!Proxy::new(ProxyQuirks::Off, handshake).is_unrepaired());
        }
        let forced: ProxyQuirks = "0.6.45".parse().unwrap();
        assert!(Proxy::new(forced, Some("0.6.54")).is_unrepaired());
    }

    #[test]
    fn the_setting_reads_its_three_forms() {
        for text in ["auto", "off", "0.6.45"] {
            assert_eq!(text.parse::<ProxyQuirks>().unwrap().to_string(), text);
        }
        for bad in ["", "on", "0.6", "0.6.45.1", "-1.0.0", "0.6.x"] {
            assert!(bad.parse::<ProxyQuirks>().is_err(), "{bad}");
        }
    }
}
