//! `new`: arguments to the operation, what it wrote to a few lines.

use std::path::PathBuf;

use crate::ops::new::{self, Created, Language};
use anyhow::Result;
use clap::{Args, ValueEnum};

use super::render::human::{Paint, Style};
use super::{exit, render};

const EXAMPLES: &str = "Examples:
  wasm-agent new policy
  wasm-agent new policy --lang go

Exit status: 0 written, 2 a file exists already, 3 a file cannot be written.";

/// Start a module: a policy that builds, fixtures with expectations, a CI file
///
/// Existing files are never overwritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NewArgs {
    /// The folder to write to
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Language of the policy
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    Rust,
    C,
    Zig,
    #[value(name = "assemblyscript", alias = "as", alias = "ts")]
    AssemblyScript,
    Go,
}

impl Lang {
    const fn language(self) -> Language {
        match self {
            Self::Rust => Language::Rust,
            Self::C => Language::C,
            Self::Zig => Language::Zig,
            Self::AssemblyScript => Language::AssemblyScript,
            Self::Go => Language::Go,
        }
    }
}

/// Runs the command and says how the process is to exit.
pub(crate) fn exec(args: &NewArgs, style: Style) -> Result<u8> {
    let created = new::create(&args.folder, args.lang.language())?;
    let text = told(&created, style);
    render::to_stdout(|out| style.guarded(out, |out| out.write_all(text.as_bytes())));
    Ok(exit::OK)
}

fn told(created: &Created, style: Style) -> String {
    let within = |name: &str| render::shown(&created.folder.join(name));
    let mut text = format!(
        "{} {} files; the policy is in {}\nto build it: {}\n\nnext:\n",
        style.paint(Paint::Good, "wrote"),
        created.files.len(),
        style.paint(Paint::Strong, &within(created.language.policy())),
        created.language.toolchain(),
    );
    for command in created.next() {
        text.push_str(&format!("  {command}\n"));
    }
    text
}
