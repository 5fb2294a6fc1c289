//! From arguments to the files that are captures: files, folders, standard input.
//!
//! Nothing that lies in a folder is passed over without a word.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::open::{Capture, is_settings};
use crate::error::Error;
use crate::files::by_number;

/// What a folder is searched for.
const EXTENSIONS: [&str; 8] = [
    "json", "jsonl", "ndjson", "har", "gor", "log", "yaml", "yml",
];
/// What may follow an extension. All but the first are not read, and a report
/// says so.
const PACKED: [&str; 10] = [
    "gz", "zst", "bz2", "xz", "lz4", "lzma", "br", "zip", "7z", "z",
];

/// A file in a folder that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The file, or the folder.
    pub path: PathBuf,
    /// Why, for people.
    pub why: Why,
}

/// Why a file in a folder is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has another name than captures have.
    Name,
    /// It is YAML without tests: settings.
    Settings,
    /// Its name begins with a dot.
    Hidden,
    /// The folder has it by another name, too.
    Twice,
    /// A link that leads nowhere, or back to where it lies.
    Link,
    /// A pipe, a socket or a device.
    Kind,
}

impl PassedOver {
    /// A sentence's end.
    #[must_use]
    pub const fn explain(&self) -> &'static str {
        match self.why {
            Why::Name => "does not have the name of a capture",
            Why::Settings => "is YAML without go-ftw tests",
            Why::Hidden => "is hidden",
            Why::Twice => "is a link to a file that is read already",
            Why::Link => "is a link that leads nowhere or to a folder around it",
            Why::Kind => "is no regular file",
        }
    }
}

/// Finds what the arguments name, in a stable order, and what folders hold that
/// is not read.
///
/// # Errors
/// [`Error::Read`] for a path that is not there.
pub fn discover(arguments: &[PathBuf]) -> Result<(Vec<Capture>, Vec<PassedOver>), Error> {
    let mut captures = Vec::new();
    let mut passed_over = Vec::new();
    for argument in arguments {
        if argument.as_os_str() == "-" {
            captures.push(Capture::new(argument, None));
            continue;
        }
        let metadata = std::fs::metadata(argument).map_err(|source| Error::Read {
            path: argument.clone(),
            source,
        })?;
        if metadata.is_dir() {
            below(argument, &mut captures, &mut passed_over)?;
        } else {
            let size = metadata.is_file().then_some(metadata.len());
            captures.push(Capture::new(argument, size));
        }
    }
    if captures.len() > 1 {
        tell_apart(&mut captures);
    }
    Ok((captures, passed_over))
}

/// The captures below a folder. Links are followed.
fn below(
    folder: &Path,
    captures: &mut Vec<Capture>,
    passed_over: &mut Vec<PassedOver>,
) -> Result<(), Error> {
    let mut found: Vec<DirEntry> = Vec::new();
    let mut pass = |path: &Path, why| {
        let path = path.to_owned();
        passed_over.push(PassedOver { path, why });
    };
    let mut walk = WalkDir::new(folder)
        .follow_links(true)
        .sort_by(|one, other| by_number(one.file_name(), other.file_name()))
        .into_iter();
    while let Some(entry) = walk.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_owned();
                if error.depth() > 0 && path.is_symlink() {
                    pass(&path, Why::Link);
                    continue;
                }
                let source = error.into();
                return Err(Error::Read { path, source });
            }
        };
        let is_folder = entry.file_type().is_dir();
        if entry.depth() > 0 && entry.file_name().to_string_lossy().starts_with('.') {
            pass(entry.path(), Why::Hidden);
            if is_folder {
                walk.skip_current_dir();
            }
        } else if is_folder {
        } else if !entry.file_type().is_file() {
            pass(entry.path(), Why::Kind);
        } else if !is_capture(entry.path()) {
            pass(entry.path(), Why::Name);
        } else if is_settings(entry.path()) {
            pass(entry.path(), Why::Settings);
        } else {
            found.push(entry);
        }
    }
    // A file stays in its own place, and not in that of a link to it.
    let mut first: HashMap<(u64, u64), &Path> = HashMap::new();
    let own = |entry: &&DirEntry| !is_linked(folder, entry.path());
    for entry in found.iter().filter(own).chain(&found) {
        if let Some(file) = identity(entry) {
            first.entry(file).or_insert_with(|| entry.path());
        }
    }
    for entry in &found {
        let known = identity(entry).and_then(|file| first.get(&file));
        if known.is_some_and(|path| *path != entry.path()) && is_linked(folder, entry.path()) {
            pass(entry.path(), Why::Twice);
        } else {
            let size = entry.metadata().ok().map(|metadata| metadata.len());
            captures.push(Capture::new(entry.path(), size));
        }
    }
    Ok(())
}

fn identity(entry: &DirEntry) -> Option<(u64, u64)> {
    let metadata = entry.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether a link lies on the way to a file of a folder.
fn is_linked(folder: &Path, file: &Path) -> bool {
    let mut on_the_way = file.ancestors().take_while(|path| *path != folder);
    on_the_way.any(Path::is_symlink)
}

/// Gives each capture a key by its path below the folder that all of them share,
/// so that it is the same wherever that folder lies.
fn tell_apart(captures: &mut [Capture]) {
    let folder_of = |capture: &Capture| capture.path.parent().unwrap_or(Path::new("")).to_owned();
    let mut shared = captures.first().map(folder_of).unwrap_or_default();
    for capture in captures.iter() {
        while !capture.path.starts_with(&shared) {
            shared.pop();
        }
    }
    for capture in captures {
        let path = capture.path.strip_prefix(&shared).unwrap_or(&capture.path);
        let path = path.as_os_str().as_encoded_bytes();
        // It is the same capture, however it is packed.
        let name = path.strip_suffix(b".gz").unwrap_or(path).to_vec();
        capture.known_as(&name);
    }
}

/// Whether a file is one by its name: it ends as captures do, or it is a log that
/// was rotated, with a number or a date behind its name.
#[must_use]
pub(crate) fn is_capture(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut name = name.to_ascii_lowercase();
    if let Some((plain, packed)) = name.rsplit_once('.')
        && PACKED.contains(&packed)
    {
        name = plain.to_owned();
    }
    let has_extension = |name: &str| {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
    };
    if has_extension(&name) {
        return true;
    }
    // Servers of Java end the names of theirs so.
    let name = name.strip_suffix(".txt").unwrap_or(&name);
    let is_of_rotation = |byte: char| byte.is_ascii_digit() || ".-_tz".contains(byte);
    let plain = name.trim_end_matches(is_of_rotation);
    let is_rotated = plain.len() < name.len() && !name[plain.len()..].starts_with(['t', 'z']);
    let is_log = ["access_log", "access-log"]
        .iter()
        .any(|end| plain.ends_with(end));
    is_log || is_rotated && has_extension(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_told_by_their_names() {
        for name in [
            "a.har",
            "A.HAR",
            "a.log.gz",
            "a.LOG.GZ",
            "access.log.1",
            "access.log.2.gz",
            "access_log",
            "access_log.3",
            "access_log-20260712.gz",
            "ssl_access_log",
            "access.log-20260712",
            "access.log-2026-07-12T00.gz",
            "access-2026-07-12.log",
            "app.jsonl.1",
            "a.log.zst",
            "a.har.br",
            "localhost_access_log.2026-07-12.txt",
        ] {
            assert!(is_capture(Path::new(name)), "{name}");
        }
        for name in [
            "notes.md",
            "a.wasm",
            "1",
            "2026-07-12",
            "a.gz",
            "a.txt.1",
            "README",
            "blog",
            "a.txt",
            "error_log",
            "access_log.rs",
            "access_log_tests.md",
        ] {
            assert!(!is_capture(Path::new(name)), "{name}");
        }
    }
}
