//! Text that somebody else wrote, in each format: names, paths, answers, and
//! the fields of a report or a baseline that was read back.
//!
//! Each format has one function for such a text, and one guard that the whole
//! document goes through. The guard knows nothing about fields, so a field
//! that a renderer forgot can still do no harm: no control character gets out,
//! and no line is a command for the CI system that shows it.

use std::io::{self, Write};

use crate::fault::{is_unprintable, printable};

/// What a document is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Lines for people, Markdown and CSV.
    Text {
        /// Whether our own colours are in it.
        colored: bool,
    },
    /// Lines that are meant as commands of GitHub Actions.
    Commands,
    /// JSON, also many documents.
    Json,
    /// HTML, XML or SVG.
    Markup,
}

impl Syntax {
    /// What stands for a character that must not be there as it is.
    fn replace(self, character: char, out: &mut String) {
        match self {
            Self::Text { .. } | Self::Commands => match character {
                ':' | '[' => out.extend(['\\', character]),
                other => out.extend(other.escape_default()),
            },
            Self::Json => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            Self::Markup if is_unprintable(character) => out.push(char::REPLACEMENT_CHARACTER),
            Self::Markup => out.push_str(&format!("&#{};", u32::from(character))),
        }
    }
}

/// Writes a document through its guard.
pub(crate) fn guarded(
    syntax: Syntax,
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut guard = Guard::new(syntax, out);
    write(&mut guard)?;
    guard.finish()
}

/// A text of several lines as the guard lets it through.
pub(crate) fn lines(text: &str, colored: bool) -> String {
    let shown = whole(Syntax::Text { colored }, text.as_bytes());
    String::from_utf8_lossy(&shown).into_owned()
}

/// A whole document as its guard lets it through.
pub(crate) fn whole(syntax: Syntax, document: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(document.len());
    // Writing to memory cannot fail.
    let _ = guarded(syntax, &mut out, |guard| guard.write_all(document));
    out
}

/// How far a CI system's marker has been read: `##[`, or `##word[`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    One,
    Two,
}

impl Marker {
    const fn after(self, character: char) -> Self {
        match (self, character) {
            (Self::None, '#') => Self::One,
            (Self::One | Self::Two, '#') => Self::Two,
            (Self::Two, 'a'..='z' | 'A'..='Z') => Self::Two,
            _ => Self::None,
        }
    }
}

/// Where in a line the next character stands: `::` at its start is a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Behind nothing but white space.
    Blank,
    /// Behind one colon.
    Colon,
    /// Behind anything else.
    Passed,
}

impl Start {
    fn after(self, character: char) -> Self {
        match (self, character) {
            (_, '\n') => Self::Blank,
            (Self::Blank, ':') => Self::Colon,
            (Self::Blank, other) if other.is_whitespace() => Self::Blank,
            _ => Self::Passed,
        }
    }
}

/// What a whole document goes through.
pub(crate) struct Guard<W> {
    out: W,
    syntax: Syntax,
    /// The start of a character whose rest is still to come.
    partial: Vec<u8>,
    /// What may become one of our own colours.
    color: String,
    start: Start,
    marker: Marker,
}

impl<W: Write> Guard<W> {
    pub(crate) const fn new(syntax: Syntax, out: W) -> Self {
        Self {
            out,
            syntax,
            partial: Vec::new(),
            color: String::new(),
            start: Start::Blank,
            marker: Marker::None,
        }
    }

    /// Writes what was held back.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let mut text = String::new();
        self.give_color_up(&mut text);
        if !self.partial.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let mut shown = String::with_capacity(text.len());
        for character in text.chars() {
            if !self.is_color(character, &mut shown) {
                self.character(character, &mut shown);
            }
        }
        self.out.write_all(shown.as_bytes())
    }

    fn character(&mut self, character: char, shown: &mut String) {
        let is_command = match character {
            ':' => self.start == Start::Colon && self.syntax != Syntax::Commands,
            '[' => self.marker == Marker::Two,
            '\n' => false,
            other => is_unprintable(other),
        };
        if is_command {
            self.syntax.replace(character, shown);
        } else {
            shown.push(character);
        }
        self.start = self.start.after(character);
        self.marker = self.marker.after(character);
    }

    /// Whether it is part of what may be a colour: `ESC [ 1 ; 31 m`.
    fn is_color(&mut self, character: char, shown: &mut String) -> bool {
        const LONGEST: usize = 32;
        if self.syntax != (Syntax::Text { colored: true }) {
            return false;
        }
        let fits = match (self.color.len(), character) {
            (0, '\u{1b}') | (1, '[') => true,
            (2..LONGEST, '0'..='9' | ';') => true,
            (2.., 'm') => {
                shown.push_str(&self.color);
                shown.push('m');
                self.color.clear();
                return true;
            }
            _ => false,
        };
        if fits {
            self.color.push(character);
        } else {
            self.give_color_up(shown);
        }
        fits
    }

    /// It was none of ours.
    fn give_color_up(&mut self, shown: &mut String) {
        for character in std::mem::take(&mut self.color).chars() {
            self.character(character, shown);
        }
    }
}

impl<W: Write> Write for Guard<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.partial.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.partial);
        let mut rest = whole.as_slice();
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text(text)?;
                    break;
                }
                Err(error) => error,
            };
            let (text, after) = rest.split_at(error.valid_up_to());
            self.text(&String::from_utf8_lossy(text))?;
            match error.error_len() {
                Some(wrong) => {
                    self.text("\u{fffd}")?;
                    rest = after.get(wrong..).unwrap_or_default();
                }
                None => {
                    self.partial = after.to_vec();
                    break;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// All of a text on one line of a terminal.
pub(crate) fn terminal(text: &str) -> String {
    printable(text, usize::MAX)
}

/// The lines of a text, each fit for a terminal.
pub(crate) fn terminal_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(terminal).collect();
    lines.join("\n")
}

/// Text with nothing left that HTML or SVG would take for its own.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            '\t' => out.push_str("&#9;"),
            // Not allowed in a document at all, or changing its direction.
            char if is_unprintable(char) => out.push(char::REPLACEMENT_CHARACTER),
            char => out.push(char),
        }
    }
    out
}

/// What keeps a text from being a link or the name of a person or an issue,
/// and is not seen.
const APART: &str = "&#8203;";

/// A text that Markdown shows as it is, on one line, also in a table.
pub(crate) fn markdown(text: &str) -> String {
    let text = terminal(text);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.extend(["@", APART]),
            '#' => out.extend(["\\#", APART]),
            // `https://` and `www.` are links without any mark.
            ':' if characters.peek() == Some(&'/') => out.extend([":", APART]),
            '.' if ends_in_www(&out) => out.extend([APART, "."]),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' | '$' | '!' => {
                out.push('\\');
                out.push(character);
            }
            other => out.push(other),
        }
    }
    // What would begin a list, a heading or a rule.
    let is_mark = |first: char| matches!(first, '-' | '+' | '=');
    if out.starts_with(is_mark) {
        out.insert(0, '\\');
    }
    out
}

fn ends_in_www(text: &str) -> bool {
    let at = text.len().saturating_sub(3);
    text.get(at..)
        .is_some_and(|end| end.eq_ignore_ascii_case("www"))
}

/// A text as code in Markdown, whatever backticks it has; not for a table.
pub(crate) fn markdown_code(text: &str) -> String {
    let text = terminal(text);
    let fence = "`".repeat(longest_ticks(&text) + 1);
    // A space on each side is not shown, and an empty span is none.
    if text.is_empty() || text.contains('`') || text.starts_with(' ') {
        format!("{fence} {text} {fence}")
    } else {
        format!("{fence}{text}{fence}")
    }
}

/// A JSON document as a block in Markdown.
pub(crate) fn markdown_json(value: &serde_json::Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && is_unprintable(character) {
            Syntax::Json.replace(character, &mut shown);
        } else {
            shown.push(character);
        }
    }
    markdown_block("json", &shown)
}

/// Lines as a block in Markdown, whatever backticks they have.
pub(crate) fn markdown_block(language: &str, text: &str) -> String {
    let text = terminal_lines(text);
    // A fence longer than any within.
    let fence = "`".repeat(longest_ticks(&text).max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}")
}

fn longest_ticks(text: &str) -> usize {
    let runs = text.split(|character| character != '`').map(str::len);
    runs.max().unwrap_or(0)
}

/// A text that HTML within Markdown shows as it is.
pub(crate) fn markdown_html(text: &str) -> String {
    let text = terminal(text);
    // Entities have the sign, too.
    let between_signs: Vec<String> = text.split('#').map(html).collect();
    between_signs
        .join(&format!("#{APART}"))
        .replace('@', &format!("@{APART}"))
        .replace("](", &format!("]{APART}("))
        .replace("://", &format!(":{APART}//"))
        .replace("www.", &format!("www{APART}."))
}

/// One field of a CSV line, which no spreadsheet takes for a formula.
pub(crate) fn csv(text: &str) -> String {
    const MARKS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    let text = terminal(text);
    let mut out = String::with_capacity(text.len());
    // Spreadsheets differ in what they take for the end of a field.
    let mut begins = true;
    for character in text.chars() {
        if begins && MARKS.contains(&character) {
            out.push('\'');
        }
        begins = matches!(character, ',' | ';' | '|' | '"') || begins && character == ' ';
        out.push(character);
    }
    if out.contains([',', ';', '"', '\'']) {
        format!("\"{}\"", out.replace('"', "\"\""))
    } else {
        out
    }
}

/// The text behind a command of GitHub Actions.
pub(crate) fn command_data(text: &str) -> String {
    let text = terminal_lines(&text.replace("\r\n", "\n"));
    text.replace('%', "%25").replace('\n', "%0A")
}

/// One of such a command's properties.
pub(crate) fn command_property(text: &str) -> String {
    command_data(&terminal(text))
        .replace(':', "%3A")
        .replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Syntax = Syntax::Text { colored: false };
    const NASTY: &str = "\u{1b}[31m\u{1b}]0;t\u{7}\u{9b}1m\u{202e}\u{2028}\t\r\n::error::x\n \t::y\n\
        :::z\n##[error]x ##vso[task]y a##b[c] \u{0}\u{e0041}é\u{1b}";

    /// In every way to cut it, also within a character.
    fn in_pieces(syntax: Syntax, document: &str) -> String {
        let expected = whole(syntax, document.as_bytes());
        for cut in 0..document.len() {
            let (left, right) = document.as_bytes().split_at(cut);
            let mut out = Vec::new();
            let write = |guard: &mut dyn Write| {
                guard.write_all(left)?;
                guard.write_all(right)
            };
            guarded(syntax, &mut out, write).unwrap();
            assert_eq!(out, expected, "{cut}");
        }
        String::from_utf8(expected).unwrap()
    }

    #[test]
    fn no_document_drives_a_terminal_or_a_ci_system() {
        for syntax in [
            TEXT,
            Syntax::Text { colored: true },
            Syntax::Commands,
            Syntax::Markup,
        ] {
            let shown = in_pieces(syntax, NASTY);
            let shown = shown.replace("\u{1b}[31m", "");
            let tame = |character: char| character == '\n' || !is_unprintable(character);
            assert!(shown.chars().all(tame), "{syntax:?}: {shown:?}");
            let is_command = |line: &str| line.trim_start().starts_with("::");
            let found = shown.lines().any(is_command);
            assert_eq!(found, syntax == Syntax::Commands, "{shown:?}");
            assert!(
                !shown.contains("##[") && !shown.contains("##vso["),
                "{shown:?}"
            );
        }
        assert_eq!(in_pieces(TEXT, "::error::x\na::b"), ":\\:error::x\na::b");
        assert_eq!(in_pieces(Syntax::Markup, " ::e"), " :&#58;e");
    }

    #[test]
    fn our_own_colours_pass_and_nothing_that_begins_like_one() {
        let colored = Syntax::Text { colored: true };
        for fine in ["\u{1b}[1;31mx\u{1b}[0m", "\u{1b}[38;5;10m"] {
            assert_eq!(in_pieces(colored, fine), fine);
        }
        for odd in [
            "\u{1b}[2J",
            "\u{1b}\u{1b}[1A",
            "\u{1b}[",
            "\u{1b}[1;1",
            "\u{1b}[é",
        ] {
            assert!(!in_pieces(colored, odd).contains('\u{1b}'), "{odd:?}");
            assert!(!in_pieces(TEXT, odd).contains('\u{1b}'), "{odd:?}");
        }
    }

    #[test]
    fn json_stays_what_it_was() {
        let value = serde_json::json!({ NASTY: [NASTY, "##[x]"] });
        let shown = in_pieces(Syntax::Json, &format!("{value:#}\n"));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
        let tame = |character: char| character == '\n' || !is_unprintable(character);
        assert!(shown.chars().all(tame), "{shown:?}");
        let block = markdown_json(&serde_json::json!(["\u{202e}````"]));
        assert!(
            block.starts_with("`````json\n") && block.contains("\\u202e"),
            "{block}"
        );
    }

    #[test]
    fn what_is_no_text_is_shown_as_that() {
        assert_eq!(whole(TEXT, b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}".as_bytes());
    }

    #[test]
    fn a_field_is_one_field_and_no_formula() {
        assert_eq!(csv("plain 1:a_b-c"), "plain 1:a_b-c");
        assert_eq!(csv("a,\"b\""), "\"a,\"\"b\"\"\"");
        for (text, field) in [
            ("=1+1", "\"'=1+1\""),
            ("@x", "\"'@x\""),
            (" -1", "\" '-1\""),
            ("a;=1", "\"a;'=1\""),
            ("\"+1", "\"\"\"'+1\""),
            ("＝1", "\"'＝1\""),
            ("\t=1", "\\t=1"),
            ("a\r\nb", "a\\r\\nb"),
        ] {
            assert_eq!(csv(text), field, "{text:?}");
        }
    }

    #[test]
    fn markdown_shows_a_text_and_makes_nothing_of_it() {
        assert_eq!(markdown("block 403"), "block 403");
        for (text, shown) in [
            ("a|b`c`\n<b>", "a\\|b\\`c\\`\\\\n&lt;b&gt;"),
            ("[x](https://y)", "\\[x\\](https:&#8203;//y)"),
            ("@you #1", "@&#8203;you \\#&#8203;1"),
            ("www.y.z", "www&#8203;.y.z"),
            ("- x", "\\- x"),
            ("![](x) $a$", "\\!\\[\\](x) \\$a\\$"),
        ] {
            assert_eq!(markdown(text), shown, "{text:?}");
        }
        assert_eq!(markdown_code("a"), "`a`");
        assert_eq!(markdown_code("a`b``c\n"), "``` a`b``c\\n ```");
        assert_eq!(markdown_code(""), "`  `");
        assert_eq!(markdown_html("<a> @b"), "&lt;a&gt; @&#8203;b");
        assert_eq!(markdown_html("'#1 [a](b)"), "&#39;#&#8203;1 [a]&#8203;(b)");
    }

    #[test]
    fn text_cannot_end_or_fake_a_command() {
        assert_eq!(command_data("50%\r\n::error::x"), "50%25%0A::error::x");
        assert_eq!(command_property("a:b,c\n"), "a%3Ab%2Cc\\n");
        assert_eq!(command_data("\u{1b}[31m\0"), "\\u{1b}[31m\\u{0}");
    }
}
