//! The formats of reports: their names on the command line, and the one place
//! where a format is matched to its renderer.

use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::PathBuf;

use crate::report::Report;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::human::Style;
use super::{github, html, human, json, junit, markdown, sarif};
use crate::cli::document::Document;

/// What a report can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people
    Human,
    /// One document, with all that was found
    Json,
    /// One document for each fixture or transaction, one a line
    Jsonl,
    /// One line for each figure
    Csv,
    /// For a comment on a pull request or a job summary
    Markdown,
    /// One page without external files
    Html,
    /// JUnit XML
    Junit,
    /// Annotations for GitHub Actions
    Github,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// A report that can be written in several formats.
pub(crate) trait Render: Report {
    /// What it can be written as.
    const FORMATS: &'static [Format];

    /// Writes it in a format that not every report has alike: for people, or
    /// in lines.
    fn write(&self, format: Format, style: Style, out: &mut dyn Write) -> io::Result<()>;

    /// Writes it in the format asked for.
    fn render(&self, format: Format, style: Style, out: &mut dyn Write) -> io::Result<()>
    where
        Self: Sized,
    {
        match format {
            Format::Json => json::write(self, out),
            Format::Junit => junit::write(self, out),
            Format::Github => github::write(self, out),
            Format::Sarif => sarif::write(self, out),
            Format::Human | Format::Markdown | Format::Html | Format::Jsonl | Format::Csv => {
                self.write(format, style, out)
            }
        }
    }
}

/// Writes a document in a format for people.
pub(super) fn document(
    document: &Document,
    format: Format,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Markdown => markdown::write(document, out),
        Format::Html => html::write(document, out),
        _ => human::write(document, style, out),
    }
}

/// Where the report goes: one format on standard output, any in files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs<R: Render + 'static> {
    /// Format of standard output
    #[arg(
        short = 'o',
        long,
        alias = "output",
        value_parser = formats::<R>(),
        default_value = "human"
    )]
    pub(crate) format: Format,

    /// Write a further report to a file, such as junit=report.xml; repeatable;
    /// a symbolic link is followed
    #[arg(long = "report", value_name = "FORMAT=PATH", value_parser = report_target::<R>)]
    pub(crate) reports: Vec<(Format, PathBuf)>,

    #[arg(skip)]
    report: PhantomData<fn() -> R>,
}

fn formats<R: Render>() -> impl TypedValueParser<Value = Format> {
    let values = R::FORMATS.iter().filter_map(Format::to_possible_value);
    PossibleValuesParser::new(values).try_map(|name| Format::from_str(&name, false))
}

fn report_target<R: Render>(text: &str) -> Result<(Format, PathBuf), String> {
    let (name, path) = text
        .split_once('=')
        .filter(|(_, path)| !path.is_empty())
        .ok_or("expected FORMAT=PATH, such as junit=report.xml")?;
    match Format::from_str(name, true) {
        Ok(format) if R::FORMATS.contains(&format) => Ok((format, PathBuf::from(path))),
        _ => {
            let known = R::FORMATS.iter().filter_map(Format::to_possible_value);
            let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
            Err(format!(
                "expected one of {} before the =, found {name:?}",
                known.join(", ")
            ))
        }
    }
}
