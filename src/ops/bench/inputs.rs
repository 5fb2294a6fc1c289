//! What a module is called with, from files: fixtures as they are, and a
//! sample of the transactions that captures hold.
//!
//! A capture may be of any size: it is read to its end once and so many
//! transactions are kept, each as likely as the others. Which ones depends on
//! the capture and the seed alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::cases::{self, BenchCase};
use super::report::Sampled;
use crate::capture::{
    self, Capture, DecodeSettings, Format, Item, Opened, RawTransaction, Redactor, SecretsFound,
    Transaction, Unusable, stable_hash,
};
use crate::error::Error;
use crate::fault::printable;
use crate::fixture;
use crate::guest::convention::json_buffer::input_json;
use crate::ops::replay::report::CaptureInfo;
use crate::question::{HeaderNames, Question, Timed};

/// Events, or hooks, measured one by one.
pub(crate) const MAX_CASES: usize = 200;
/// Bytes of the records that are kept before they are decoded.
const MAX_KEPT_BYTES: usize = 256 << 20;
/// Records that cannot be used are all counted, and so many named.
const EXAMPLES: usize = 3;
/// Bytes of a case's name.
const MAX_NAME: usize = 120;

/// How files are read.
#[derive(Debug, Clone)]
pub(crate) struct InputSettings {
    /// The format of captures; with it every file is one.
    pub format: Option<Format>,
    /// Bytes of one record.
    pub max_record: usize,
    /// How records are decoded.
    pub decode: DecodeSettings,
    /// A record that cannot be used is an error.
    pub strict: bool,
    /// With more of those nothing more is read, and nothing measured.
    pub max_errors: Option<u64>,
    /// Transactions to take of captures.
    pub sample: usize,
    /// What picks them.
    pub seed: u64,
    /// How header names are spelled.
    pub header_names: HeaderNames,
}

/// What a module or an agent is to be called with.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    /// Cases of one exchange share an id and come one after the other.
    pub exchanges: Vec<Vec<BenchCase>>,
    /// What was taken of captures, where there was one.
    pub sampled: Option<Sampled>,
}

impl Inputs {
    /// Sample requests, for an agent whose handlers nobody knows.
    #[must_use]
    pub(crate) fn requests(names: HeaderNames) -> Self {
        let cases = cases::of_request_samples(names).into_iter();
        Self {
            exchanges: cases.map(|case| vec![case]).collect(),
            sampled: None,
        }
    }
}

/// Reads what the arguments name; nothing where they name nothing.
///
/// Files of every format that captures have are told by their content; what
/// is left, and what standard input gives, is fixtures. A `.json` file whose
/// objects look like an access log's is a fixture too.
///
/// # Errors
/// Those of [`fixture::discover`] and [`Capture::open`], [`Error::Malformed`]
/// for a fixture that is none and a capture that gives nothing,
/// [`Error::NothingChecked`] where there is no file, and [`Error::Usage`] for
/// more than [`MAX_CASES`].
pub(crate) fn read_inputs(
    arguments: &[PathBuf],
    settings: &InputSettings,
) -> Result<Option<Inputs>, Error> {
    if arguments.is_empty() {
        return Ok(None);
    }
    let mut exchanges = Vec::new();
    let mut sample = Sample::new(settings);
    let is_json = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    };
    for path in fixture::find(arguments, |path| is_json(path) || capture::is_capture(path))? {
        match sample.open(&path, is_json(&path))? {
            Some(opened) => sample.read(opened)?,
            None => exchanges.extend(fixtures(&path)?),
        }
    }
    exchanges.retain(|inputs: &Named| !inputs.is_empty());
    let written: usize = exchanges.iter().map(Vec::len).sum();
    if written > MAX_CASES {
        return Err(Error::Usage(format!(
            "expected at most {MAX_CASES} events, found {written}; give fewer fixtures"
        )));
    }
    let of_fixtures = exchanges.len();
    let mut secrets = Vec::new();
    let taken = sample.finish(MAX_CASES - written)?;
    let sampled = taken.map(|(captured, sampled)| {
        for (named, found) in captured {
            exchanges.push(named);
            secrets.push(found);
        }
        sampled
    });
    if exchanges.is_empty() {
        return Err(Error::NothingChecked(
            "no fixture and no transaction was found".to_owned(),
        ));
    }
    let mut exchanges = cases::of_exchanges(exchanges, settings.header_names);
    for (exchange, found) in exchanges.iter_mut().skip(of_fixtures).zip(secrets) {
        for case in exchange {
            case.hide(&found, settings.header_names);
        }
    }
    Ok(Some(Inputs { exchanges, sampled }))
}

/// The exchanges of a fixture file, or of standard input.
fn fixtures(path: &Path) -> Result<Vec<Named>, Error> {
    fixture::discover(&[path.to_owned()])?
        .iter()
        .map(|input| {
            let fixture = fixture::parse(input).map_err(|error| Error::Malformed {
                message: format!("{}:{}: {}", error.line, error.column, error.message),
                path: error.path,
            })?;
            Ok(numbered(&fixture.name, cases::inputs(&fixture)))
        })
        .collect()
}

/// Inputs of an exchange, by name.
type Named = Vec<(String, Timed<Question<'static>>)>;

/// Inputs that share a name have a number each.
fn numbered(name: &str, inputs: Vec<Timed<Question<'static>>>) -> Named {
    let many = inputs.len() > 1;
    let numbered = inputs.into_iter().enumerate().map(|(index, input)| {
        let name = if many {
            format!("{name} [{}]", index + 1)
        } else {
            name.to_owned()
        };
        (name, input)
    });
    numbered.collect()
}

/// The transactions with the least draws so far.
struct Sample<'a> {
    settings: &'a InputSettings,
    /// By draw and position: the same for every run.
    kept: BTreeMap<(u64, u64), RawTransaction>,
    kept_bytes: usize,
    /// Where a capture gave nothing, and why.
    first_unusable: Option<Unusable>,
    sampled: Sampled,
}

/// Captured exchanges, each with its secrets.
type Captured = (Vec<(Named, SecretsFound)>, Sampled);

impl<'a> Sample<'a> {
    fn new(settings: &'a InputSettings) -> Self {
        Self {
            settings,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            first_unusable: None,
            sampled: Sampled {
                seed: settings.seed,
                ..Sampled::default()
            },
        }
    }

    /// The file as a capture, unless it is a fixture.
    fn open(&self, path: &Path, is_json: bool) -> Result<Option<Opened>, Error> {
        // What can be read only once is not looked into.
        let is_once = path.as_os_str() == "-" || path.exists() && !path.is_file();
        if is_once && self.settings.format.is_none() {
            return Ok(None);
        }
        let capture = Capture::new(path, None);
        let opened = capture.open(
            self.settings.format,
            self.settings.max_record,
            &Arc::new(AtomicU64::new(0)),
        )?;
        let is_fixture = self.settings.format.is_none()
            && is_json
            && matches!(opened.format, None | Some(Format::JsonLog));
        Ok((!is_fixture).then_some(opened))
    }

    fn read(&mut self, opened: Opened) -> Result<(), Error> {
        let file = self.sampled.captures.len() as u64;
        self.sampled.captures.push(CaptureInfo {
            file: opened.file.to_string(),
            format: opened.format,
            loses: opened
                .format
                .and_then(|format| format.loses().map(str::to_owned)),
        });
        for item in opened {
            match item {
                Item::Transaction(frame) => self.draw(file, frame),
                Item::Unusable(unusable) => self.unusable(unusable)?,
                Item::Skipped(_) => self.sampled.skipped += 1,
            }
        }
        Ok(())
    }

    fn unusable(&mut self, mut unusable: Unusable) -> Result<(), Error> {
        unusable.why = Redactor::with_numbers().text(&unusable.why);
        self.sampled.unusable += 1;
        if let Some(most) = self.settings.max_errors
            && self.sampled.unusable > most
        {
            let first = self.first_unusable.as_ref().unwrap_or(&unusable);
            let why =
                format!("more than {most} records cannot be used (--max-errors); the first is ");
            return Err(refused(first, &why));
        }
        self.first_unusable.get_or_insert_with(|| unusable.clone());
        if self.sampled.examples.len() < EXAMPLES {
            self.sampled.examples.push(unusable);
        }
        Ok(())
    }

    fn draw(&mut self, file: u64, mut frame: RawTransaction) {
        let position = self.sampled.transactions;
        self.sampled.transactions += 1;
        let drawn = [frame.key, file, self.settings.seed].map(u64::to_le_bytes);
        let draw = (stable_hash(&drawn.concat()), position);
        let is_full = self.kept.len() >= self.settings.sample;
        let last = self.kept.last_key_value();
        if is_full && last.is_some_and(|(last, _)| draw > *last) {
            return;
        }
        // What is kept must not hold on to the block it was read in.
        frame.detach();
        self.kept_bytes += frame.size_bytes();
        self.kept.insert(draw, frame);
        while self.kept.len() > self.settings.sample
            || self.kept_bytes > MAX_KEPT_BYTES && self.kept.len() > 1
        {
            let left_out = self.kept.pop_last().map(|(_, frame)| frame.size_bytes());
            self.kept_bytes -= left_out.unwrap_or_default();
        }
    }

    /// What was drawn, in the captures' order, with no more events than this.
    fn finish(mut self, room: usize) -> Result<Option<Captured>, Error> {
        if self.sampled.captures.is_empty() {
            return Ok(None);
        }
        let kept = std::mem::take(&mut self.kept).into_iter();
        let mut frames: Vec<(u64, RawTransaction)> = kept
            .map(|((_, position), frame)| (position, frame))
            .collect();
        frames.sort_unstable_by_key(|(position, _)| *position);
        let mut exchanges = Vec::new();
        let mut events = 0;
        for (_, mut frame) in frames {
            let decoded = capture::decode(&mut frame, &self.settings.decode);
            for unusable in decoded.unusable {
                self.unusable(unusable)?;
            }
            let Some(transaction) = decoded.transaction else {
                continue;
            };
            match transaction.read_back() {
                Ok(inputs) if inputs.is_empty() => {}
                Ok(inputs) if events + inputs.len() <= room => {
                    events += inputs.len();
                    for remark in &transaction.remarks {
                        *self.sampled.remarks.entry(*remark).or_default() += 1;
                    }
                    let mut found = secrets(&transaction);
                    let name = name(&transaction, &mut found);
                    exchanges.push((numbered(&name, inputs), found));
                }
                Ok(_no_room) => {}
                Err(why) => self.unusable(Unusable {
                    place: transaction.place.clone(),
                    why,
                })?,
            }
        }
        self.sampled.taken = exchanges.len() as u64;
        self.sampled.events = events as u64;
        if let Some(unusable) = self.first_unusable
            && (self.settings.strict || exchanges.is_empty())
        {
            return Err(refused(&unusable, ""));
        }
        Ok(Some((exchanges, self.sampled)))
    }
}

fn refused(unusable: &Unusable, before: &str) -> Error {
    let Unusable { place, why } = unusable;
    Error::Malformed {
        path: place.file.as_ref().into(),
        message: format!(
            "{before}record {} at byte {}: {why}",
            place.record, place.offset
        ),
    }
}

/// What is secret in a transaction, whichever of its events says so.
fn secrets(transaction: &Transaction<'_>) -> SecretsFound {
    let mut found = SecretsFound::default();
    for step in &transaction.steps {
        Redactor::with_numbers().input(&input_json(&step.input), &mut found);
    }
    found
}

/// Where it stands and what was asked, without what is secret in it.
fn name(transaction: &Transaction<'_>, found: &mut SecretsFound) -> String {
    let place = &transaction.place;
    let file = Path::new(place.file.as_ref()).file_name();
    let file = file.unwrap_or_default().to_string_lossy();
    let asked = transaction
        .request_line()
        .map(|(method, uri)| format!(" {method} {}", Redactor::with_numbers().uri(&uri, found)));
    let name = format!("{file}:{}{}", place.record, asked.unwrap_or_default());
    printable(&name, MAX_NAME)
}
