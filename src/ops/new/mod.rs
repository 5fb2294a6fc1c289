//! `new`: a module to start from, in the author's language.
//!
//! In: a folder and a language. Out: the files written and the commands that
//! come next. The sources are those below `fixtures/modules/`, whose built
//! modules the tests run. Nothing that is there is ever overwritten.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::fault::shown;
pub(crate) use crate::guest::inspect::Language;

impl Language {
    /// All of them, in the order that `new` lists them.
    pub const ALL: [Self; 5] = [
        Self::Rust,
        Self::C,
        Self::Zig,
        Self::AssemblyScript,
        Self::Go,
    ];

    /// The name on the command line, and of its folder of fixtures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Zig => "zig",
            Self::AssemblyScript => "assemblyscript",
            Self::Go => "go",
        }
    }

    /// What builds it, and where that comes from.
    #[must_use]
    pub const fn toolchain(self) -> &'static str {
        match self {
            Self::Rust => "Rust and `rustup target add wasm32-unknown-unknown`",
            Self::C => "clang and lld, such as `apt-get install clang lld`",
            Self::Zig => {
                "Zig 0.17, such as `pip install ziglang==0.17.1` and ZIG=\"python3 -m ziglang\""
            }
            Self::AssemblyScript => "Node.js with npm, which fetches AssemblyScript 0.28",
            Self::Go => "Go 1.24 or later",
        }
    }

    /// The file an author edits.
    #[must_use]
    pub const fn policy(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::C => "policy.c",
            Self::Zig => "policy.zig",
            Self::AssemblyScript => "assembly/policy.ts",
            Self::Go => "policy.go",
        }
    }

    /// The step of a CI job that gets the toolchain.
    const fn ci_step(self) -> &'static str {
        match self {
            Self::Rust => "rustup target add wasm32-unknown-unknown",
            Self::C => "sudo apt-get update && sudo apt-get install -y clang lld",
            Self::Zig => {
                "pip install ziglang==0.17.1 && echo ZIG='python3 -m ziglang' >> \"$GITHUB_ENV\""
            }
            Self::AssemblyScript => "npm install",
            Self::Go => "go version",
        }
    }

    const fn ignored(self) -> &'static str {
        match self {
            Self::Rust => "target/\n",
            Self::Zig => "*.o\n.zig-cache/\n",
            Self::AssemblyScript => "node_modules/\n",
            Self::C | Self::Go => "*.o\n",
        }
    }

    /// Its own files, by name.
    const fn sources(self) -> &'static [(&'static str, &'static str)] {
        macro_rules! from {
            ($folder:literal: $($name:literal),*) => {
                &[$(($name, include_str!(concat!("../../../fixtures/modules/", $folder, "/", $name)))),*]
            };
        }
        match self {
            // Under its own name it would make a package of the folder, and
            // packages within packages are left out of what is published.
            Self::Rust => from!("rust": "build.sh", "Cargo.toml.in", "src/lib.rs", "src/agent.rs"),
            Self::C => from!("c": "build.sh", "policy.c", "agent.c", "agent.h"),
            Self::Zig => from!("zig": "build.sh", "policy.zig", "agent.zig"),
            Self::AssemblyScript => {
                from!("assemblyscript": "build.sh", "package.json", "assembly/policy.ts", "assembly/agent.ts", "assembly/answer.ts", "assembly/json.ts")
            }
            Self::Go => from!("go": "build.sh", "go.mod", "policy.go", "agent.go", "json.go"),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Fixtures that hold for the policy in every language.
const FIXTURES: &[(&str, &str)] = &{
    macro_rules! from {
        ($($name:literal),*) => {
            [$((concat!("fixtures/", $name), include_str!(concat!("../../../fixtures/policy/", $name)))),*]
        };
    }
    from!(
        "admin-with-authorization.json",
        "admin-without-authorization.json",
        "body-script.json",
        "form.json",
        "guard-administrator.json",
        "page.json",
        "response.json",
        "scanner.json"
    )
};

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    /// The folder.
    pub folder: PathBuf,
    /// The language.
    pub language: Language,
    /// The files, within the folder.
    pub files: Vec<String>,
}

impl Created {
    /// What to do next, in this order.
    #[must_use]
    pub(crate) fn next(&self) -> [String; 3] {
        let within = |name: &str| shell_word(&self.folder.join(name).to_string_lossy());
        let module = within("policy.wasm");
        [
            format!("sh {}", within("build.sh")),
            format!("wasm-agent validate {module}"),
            format!("wasm-agent run {module} {}", within("fixtures")),
        ]
    }
}

/// A word as a shell takes it, quoted where it must be.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(&byte);
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    let text = text.replace('\'', "'\\''");
    let here = if text.starts_with('-') { "./" } else { "" };
    format!("'{here}{text}'")
}

/// Writes a starter into a folder, which is made if it is not there.
///
/// # Errors
/// [`Error::Usage`] where a file of the starter is there already: then nothing
/// is written. [`Error::Write`] where the system refuses a file.
pub(crate) fn create(folder: &Path, language: Language) -> Result<Created, Error> {
    let files = files(language);
    let taken: Vec<&str> = files
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| folder.join(name).symlink_metadata().is_ok())
        .collect();
    if let Some(first) = taken.first() {
        return Err(Error::Usage(format!(
            "{} already has {first}{}; nothing was written. Name a new or empty folder",
            shown(folder),
            match taken.len() {
                1 => String::new(),
                more => format!(" and {} more of the files", more - 1),
            }
        )));
    }
    for (name, text) in &files {
        write_new(&folder.join(name), text)?;
    }
    Ok(Created {
        folder: folder.to_owned(),
        language,
        files: files.into_iter().map(|(name, _)| name).collect(),
    })
}

/// Every file of a starter, by its name in the folder.
fn files(language: Language) -> Vec<(String, String)> {
    let fill = |text: &str| {
        text.replace("{policy}", language.policy())
            .replace("{toolchain}", language.toolchain())
            .replace("{toolchain-step}", language.ci_step())
    };
    let common = [
        (
            ".github/workflows/policy.yml",
            fill(include_str!("policy.yml")),
        ),
        ("README.md", fill(include_str!("readme.md"))),
        (".gitignore", language.ignored().to_owned()),
    ];
    let sources = language.sources().iter().chain(FIXTURES);
    sources
        .map(|(name, text)| (name.trim_end_matches(".in").to_owned(), (*text).to_owned()))
        .chain(common.map(|(name, text)| (name.to_owned(), text)))
        .collect()
}

/// Fails where the file is there, also where it came in between.
fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    let mode = if path.extension().is_some_and(|extension| extension == "sh") {
        0o777
    } else {
        0o666
    };
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(mode).open(path)
        })
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_starter_has_what_it_needs_and_nothing_twice() {
        for language in Language::ALL {
            let files = files(language);
            let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
            for needed in [
                language.policy(),
                "build.sh",
                "README.md",
                "fixtures/page.json",
            ] {
                assert!(names.contains(&needed), "{language} has no {needed}");
            }
            let mut once = names.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), names.len());
            for (name, text) in &files {
                assert!(
                    !text.contains("{toolchain") && !text.contains("{policy"),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn commands_survive_odd_folders() {
        assert_eq!(shell_word("a/b.wasm"), "a/b.wasm");
        assert_eq!(shell_word("my rules"), "'my rules'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word("-x"), "'./-x'");
    }
}
