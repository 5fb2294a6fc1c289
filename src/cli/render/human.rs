//! What all human output shares: colour, width, tables, figures, errors.

use std::io::{self, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects};
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Table};

use crate::fault::printable;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::escape::{Syntax, guarded, terminal};
use super::layout;
use crate::cli::Color;
pub(crate) use crate::cli::document::Paint;
use crate::cli::document::{Block, Diff, Document, Group, Unit};

/// Width of tables where there is no terminal to ask.
const WIDTH_WITHOUT_TERMINAL: u16 = 100;
/// A table squeezed narrower than this cannot be read.
const LEAST_WIDTH: u16 = 40;

/// From this width on, lists are spelled out in tables.
const WIDE: u16 = 140;

/// How to print for a person.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    colored: bool,
    width: u16,
    /// Whether lines that are too long would be broken within words.
    wraps: bool,
}

impl Style {
    /// For standard output, as the terminal and the environment ask.
    pub(crate) fn of_stdout(color: Color) -> Self {
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
        };
        let terminal = terminal_size::terminal_size_of(io::stdout());
        let width = terminal.map_or(WIDTH_WITHOUT_TERMINAL, |(width, _)| {
            width.0.max(LEAST_WIDTH)
        });
        Self {
            colored,
            width,
            wraps: terminal.is_some(),
        }
    }

    /// For a file.
    pub(crate) const fn plain() -> Self {
        Self {
            colored: false,
            width: WIDTH_WITHOUT_TERMINAL,
            wraps: false,
        }
    }

    /// Writes a document for people, in which nobody else's text does anything.
    pub(crate) fn guarded(
        self,
        out: &mut dyn Write,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let colored = self.colored;
        guarded(Syntax::Text { colored }, out, write)
    }

    /// Sentences in lines as long as a terminal's; elsewhere in one.
    pub(crate) fn wrapped(self, text: &str) -> String {
        self.prose(text, "")
    }

    /// The same behind something as wide as the indent, which what follows the
    /// first line has before it.
    pub(crate) fn prose(self, text: &str, indent: &str) -> String {
        if !self.wraps {
            return text.to_owned();
        }
        let room = self.width().saturating_sub(indent.len());
        let broken = |line| wrap(line, room).join(&format!("\n{indent}"));
        let lines: Vec<String> = text.lines().map(broken).collect();
        lines.join(&format!("\n{indent}"))
    }

    /// A line whose spaces mean something, behind the indent: broken only where it
    /// does not fit.
    fn code(self, line: &str, indent: &str) -> Vec<String> {
        if !self.wraps {
            return vec![line.to_owned()];
        }
        layout::wrap_code(line, self.width().saturating_sub(indent.len()))
    }

    /// Text in a colour, where colour is wanted.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colored {
            return text.to_owned();
        }
        let style = paint.style();
        format!("{style}{text}{style:#}")
    }

    /// Text in a colour, if it has one.
    pub(crate) fn painted(self, paint: Option<Paint>, text: &str) -> String {
        paint.map_or_else(|| text.to_owned(), |paint| self.paint(paint, text))
    }

    /// For a terminal of this width.
    #[cfg(test)]
    pub(crate) const fn of_width(width: u16) -> Self {
        Self {
            colored: false,
            width,
            wraps: true,
        }
    }

    /// Columns of the output.
    pub(crate) fn width(self) -> usize {
        self.width.into()
    }

    /// Whether there is room to spell lists out.
    pub(crate) const fn is_wide(self) -> bool {
        self.width >= WIDE
    }

    /// A table without lines, whose texts alone are coloured.
    pub(super) fn line(self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).style_text_only();
        if self.colored {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }
}

impl Paint {
    fn style(self) -> anstyle::Style {
        let plain = anstyle::Style::new();
        match self {
            Self::Good => plain.fg_color(Some(AnsiColor::Green.into())),
            Self::Warning => plain.fg_color(Some(AnsiColor::Yellow.into())),
            Self::Bad => plain.fg_color(Some(AnsiColor::Red.into())),
            Self::Faint => plain.effects(Effects::DIMMED),
            Self::Strong => plain.effects(Effects::BOLD),
        }
    }

    /// A table cell in this colour.
    pub(crate) fn cell(self, text: &str) -> Cell {
        let cell = Cell::new(text);
        match self {
            Self::Good => cell.fg(comfy_table::Color::DarkGreen),
            Self::Warning => cell.fg(comfy_table::Color::DarkYellow),
            Self::Bad => cell.fg(comfy_table::Color::DarkRed),
            Self::Faint => cell.add_attribute(Attribute::Dim),
            Self::Strong => cell.add_attribute(Attribute::Bold),
        }
    }
}

/// Writes a document for a terminal.
pub(super) fn write(document: &Document, style: Style, out: &mut dyn Write) -> io::Result<()> {
    style.guarded(out, |out| {
        blocks(&document.blocks, style, "", out)?;
        writeln!(out)?;
        let verdict = terminal(&document.verdict.text);
        let both = style.wrapped(&format!("{verdict}{}", terminal(&document.totals)));
        let (verdict, totals) = both.split_at(same_letters(&both, &verdict));
        let verdict = style.painted(document.verdict.paint, verdict);
        writeln!(out, "{verdict}{totals}")
    })
}

/// Where a text that begins with another one ends to be that one, wherever its
/// lines are broken.
fn same_letters(text: &str, start: &str) -> usize {
    let letters = |text: &str| text.chars().filter(|it| !it.is_whitespace()).count();
    let mut ends = text
        .char_indices()
        .map(|(at, letter)| at + letter.len_utf8());
    let end = ends.find(|&end| letters(&text[..end]) >= letters(start));
    end.unwrap_or(0)
}

/// Blocks below each other, each line behind the indent.
fn blocks(blocks: &[Block], style: Style, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    // Figures of a chart stand in tables.
    let is_shown = |block: &&Block| !matches!(block, Block::Chart(_) | Block::Folded(_));
    let mut before = None;
    for block in blocks.iter().filter(is_shown) {
        if before.is_some_and(|before| is_apart(before, block)) {
            writeln!(out)?;
        }
        self::block(block, style, indent, out)?;
        before = Some(block);
    }
    Ok(())
}

/// Whether a blank line stands between these two.
fn is_apart(before: &Block, block: &Block) -> bool {
    match block {
        Block::Subject { .. } => !matches!(before, Block::Subject { .. }),
        Block::Table(table) => {
            table.has_headings() && !matches!(before, Block::Subject { .. } | Block::Heading(_))
        }
        Block::Heading(_) => true,
        _ => false,
    }
}

fn block(block: &Block, style: Style, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    match block {
        Block::Subject { name, facts } => subject((name, facts), style, out),
        Block::Text(span) => {
            let text = style.prose(&terminal(&span.text), indent);
            writeln!(out, "{indent}{}", style.painted(span.paint, &text))
        }
        Block::Table(table) => layout::table(table, style, out),
        Block::Diff(diff) => self::diff(diff, style, indent, out),
        Block::Code(text) => code(text, style, indent, out),
        Block::Json(value) => code(&format!("{value:#}"), style, indent, out),
        Block::Group(group) => self::group(group, style, indent, out),
        Block::Note { text, about } => {
            let note = style.paint(Paint::Warning, "note:");
            writeln!(out, "{note} {}", style.prose(&terminal(text), "      "))?;
            if about.is_empty() {
                return Ok(());
            }
            let about = style.prose(&terminal(about), "  ");
            writeln!(out, "  {}", style.paint(Paint::Faint, &about))
        }
        Block::Heading(text) => {
            let text = style.prose(&terminal(text), indent);
            writeln!(out, "{}", style.paint(Paint::Strong, &text))
        }
        Block::Chart(_) | Block::Folded(_) => Ok(()),
    }
}

fn code(text: &str, style: Style, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    text.lines()
        .flat_map(|line| style.code(&terminal(line), indent))
        .try_for_each(|line| writeln!(out, "{indent}{line}"))
}

fn group(group: &Group, style: Style, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{indent}")?;
    let mut hanging = 2;
    if let Some(mark) = &group.mark {
        write!(out, "{} ", style.painted(mark.paint, &mark.text))?;
        hanging = columns(&mark.text) + 1;
    }
    let title = style.prose(&terminal(&group.title), &format!("{indent}{:hanging$}", ""));
    writeln!(out, "{title}")?;
    blocks(&group.blocks, style, &format!("{indent}    "), out)
}

/// On one line, where there is room for it.
fn subject((name, facts): (&str, &str), style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (name, facts) = (terminal(name), terminal(facts));
    let fits = columns(&name) + 2 + columns(&facts) <= style.width();
    write!(out, "{}", style.paint(Paint::Strong, &name))?;
    if facts.is_empty() {
        return writeln!(out);
    }
    if fits {
        return writeln!(out, "  {facts}");
    }
    let lines = wrap(&facts, style.width().saturating_sub(2));
    writeln!(out)?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

fn diff(diff: &Diff, style: Style, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    let path = format!("{}{}", terminal(&diff.path), diff.remark);
    let path = style.prose(&path, indent);
    let paint = (!diff.remark.is_empty()).then_some(Paint::Warning);
    writeln!(out, "{indent}{}", style.painted(paint, &path))?;
    let is_real = diff.remark.is_empty();
    for (paint, sign, value) in [
        (Paint::Bad, '-', &diff.before),
        (Paint::Good, '+', &diff.after),
    ] {
        let line = style.prose(
            &format!("{sign} {}", terminal(value)),
            &format!("{indent}    "),
        );
        let paint = if is_real { paint } else { Paint::Faint };
        writeln!(out, "{indent}  {}", style.paint(paint, &line))?;
    }
    Ok(())
}

/// An error and its causes, one line each. Whatever a file put into them, only
/// line breaks are left to do anything.
pub(crate) fn error_chain(error: &anyhow::Error) -> String {
    let style = Paint::Bad.style();
    let word = match AutoStream::choice(&io::stderr()) {
        ColorChoice::Never => "error:".to_owned(),
        _ => format!("{style}error:{style:#}"),
    };
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        text.push_str(&format!("\n  caused by: {cause}"));
    }
    let lines: Vec<String> = text.lines().map(|line| printable(line, 1024)).collect();
    format!("{word} {}", lines.join("\n"))
}

/// Microseconds or milliseconds, three figures.
pub(crate) fn time(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 1_000.0 {
        format!("{micros:.1} µs")
    } else if micros < 1_000_000.0 {
        format!("{:.1} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}

impl Unit {
    /// A value, for people.
    pub(crate) fn show(self, value: u64) -> String {
        match self {
            Self::Instructions => count(value),
            Self::Nanoseconds => time(Duration::from_nanos(value)),
        }
    }
}

/// Bytes in the largest binary unit that keeps a figure before the point.
pub(crate) fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

/// The start of a hash, which tells it from others.
pub(crate) fn short_hash(hash: &str) -> String {
    const SHOWN: usize = "sha256:".len() + 12;
    printable(hash.get(..SHOWN).unwrap_or(hash), SHOWN)
}

/// A name of which only so many letters can be shown: its end tells it from
/// others.
pub(crate) fn end_of(name: &str, most: usize) -> String {
    let letters = name.chars().count();
    if letters <= most {
        return name.to_owned();
    }
    let end = name.chars().skip(letters + 1 - most);
    std::iter::once('…').chain(end).collect()
}

/// A number of things, by their word for one.
pub(crate) fn plural(number: u64, word: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {word}{s}", count(number))
}

/// A count with thousands set apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// Text in lines of at most `width` characters, broken at spaces, and inside
/// of words that are longer than a line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    fill(
        text.split([' ', '\n']).filter(|word| !word.is_empty()),
        width,
    )
}

fn fill<'a>(words: impl Iterator<Item = &'a str>, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words {
        let room = width.saturating_sub(columns(&line));
        let length = columns(word);
        if !line.is_empty() && length + 1 > room {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        let mut rest = word;
        while columns(rest) > width {
            let (start, end) = rest.split_at(break_at(rest, width));
            lines.push(start.to_owned());
            rest = end;
        }
        line.push_str(rest);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Where to break a long word: behind the last of what joins names.
fn break_at(word: &str, width: usize) -> usize {
    let mut used = 0;
    let (mut end, mut joint) = (0, None);
    for (at, character) in word.char_indices() {
        used += character.width().unwrap_or(0);
        // One that is wider than the line has a line of its own.
        if used > width && end > 0 {
            break;
        }
        end = at + character.len_utf8();
        if is_joint(character) {
            joint = Some(end);
        }
    }
    joint.unwrap_or(end)
}

/// What joins names to one word.
pub(super) const fn is_joint(character: char) -> bool {
    matches!(character, ':' | '.' | '_' | '-' | '/')
}

/// How many columns of a terminal a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::document::Span;

    #[test]
    fn sentences_are_broken_between_words_on_a_terminal_alone() {
        let text = "one two three four-and-a-half";
        assert_eq!(Style::plain().wrapped(text), text);
        let narrow = Style {
            width: 9,
            wraps: true,
            ..Style::plain()
        };
        assert_eq!(narrow.wrapped(text), "one two\nthree\nfour-and-\na-half");
        assert_eq!(narrow.wrapped(""), "");
        assert_eq!(narrow.wrapped("one\n\ntwo"), "one\n\ntwo");
    }

    #[test]
    fn a_verdict_that_is_broken_keeps_its_colour() {
        let document = Document {
            title: "",
            verdict: Span::new(Paint::Bad, "nothing was checked"),
            totals: ": none".to_owned(),
            blocks: Vec::new(),
        };
        let style = Style {
            colored: true,
            width: 9,
            wraps: true,
        };
        let mut out = Vec::new();
        write(&document, style, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\n\u{1b}[31mnothing\nwas\nchecked\u{1b}[0m:\nnone\n");
    }

    #[test]
    fn figures_carry_their_unit() {
        assert_eq!(time(Duration::from_nanos(1_530)), "1.5 µs");
        assert_eq!(time(Duration::from_micros(45_600)), "45.6 ms");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(12), "12");
        assert_eq!(end_of("one::two", 6), "…::two");
        assert_eq!(end_of("two", 3), "two");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
    }

    #[test]
    fn no_line_is_wider_than_asked_and_nothing_is_lost() {
        let text = "torture:request_headers:uri-nested-escapes and some more words";
        for width in 1..70 {
            let lines = wrap(text, width);
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{width}"
            );
            let plain = |text: &str| text.replace(' ', "");
            assert_eq!(plain(&lines.concat()), plain(text));
        }
        assert_eq!(wrap("a b", 3), ["a b"]);
        assert_eq!(wrap("ab cd", 4), ["ab", "cd"]);
        assert_eq!(wrap("on_request_headers", 12), ["on_request_", "headers"]);
    }
}
