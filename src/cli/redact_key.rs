//! The key of redacted values: where it comes from, and which are refused.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use clap::Args;

/// Holds the key itself where no file is named.
const VARIABLE: &str = "WASM_AGENT_REDACT_KEY";
/// Bytes of a key.
const MAX_KEY: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// File with the key for redacted values, so that several files agree on
    /// them; or WASM_AGENT_REDACT_KEY with the key itself [default: a random
    /// key]
    #[arg(long, value_name = "FILE")]
    redact_key_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key that was given.
    pub(super) fn key(&self) -> Result<Option<Vec<u8>>, Error> {
        if let Some(path) = &self.redact_key_file {
            return read(path).map(Some);
        }
        let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let Some(value) = value else { return Ok(None) };
        let key = value.as_encoded_bytes().trim_ascii().to_vec();
        if key.is_empty() {
            return Err(Error::Usage(format!(
                "{VARIABLE}: expected a key, found only spaces; set a key, or unset it for a random one"
            )));
        }
        Ok(Some(key))
    }
}

/// The key in a file, without the line feed that an editor puts behind it.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe that nobody writes to would hold up the start.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    let file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other(
            "--redact-key-file: expected a regular file, found another kind; write the key into a file",
        )));
    }
    let mut key = Vec::new();
    file.take(MAX_KEY + 1)
        .read_to_end(&mut key)
        .map_err(failed)?;
    let usage = |found: &str| {
        Err(Error::Usage(format!(
            "--redact-key-file {}: expected a key of 1 to {MAX_KEY} bytes, found {found}; make one with head -c 32 /dev/urandom | base64 > {}",
            path.display(),
            path.display()
        )))
    };
    if key.len() as u64 > MAX_KEY {
        return usage("more");
    }
    match key.trim_ascii() {
        [] => usage("an empty file"),
        key => Ok(key.to_vec()),
    }
}
