//! The templates that test files use: texts, `.Payload`, `repeat` and `env`.
//!
//! Invariant: a size is looked at before memory is asked for.

use std::borrow::Cow;

/// Bytes that one text may have once its templates are filled in.
const MAX_BYTES: usize = 16 << 20;

/// Fills in the templates of a text.
pub(super) fn templated(text: &str, payload: Option<&str>) -> Result<Vec<u8>, String> {
    let mut filled = Vec::new();
    let mut rest = text;
    let mut trims = false;
    while let Some(at) = rest.find("{{") {
        let (before, from) = rest.split_at(at);
        let action = Action::of(&from[2..])?;
        let before = if trims { before.trim_start() } else { before };
        let before = if action.trims_before {
            before.trim_end()
        } else {
            before
        };
        add(&mut filled, before.as_bytes(), 1)?;
        action.fill(payload, &mut filled)?;
        rest = action.behind;
        trims = action.trims_behind;
    }
    let rest = if trims { rest.trim_start() } else { rest };
    add(&mut filled, rest.as_bytes(), 1)?;
    Ok(filled)
}

fn add(filled: &mut Vec<u8>, bytes: &[u8], times: usize) -> Result<(), String> {
    let size = bytes.len().saturating_mul(times);
    if size.saturating_add(filled.len()) > MAX_BYTES {
        return Err(format!(
            "expected a text of at most {MAX_BYTES} bytes with its templates filled in, found more"
        ));
    }
    filled.reserve(size);
    for _ in 0..times {
        filled.extend_from_slice(bytes);
    }
    Ok(())
}

/// What stands between two pairs of braces.
struct Action<'a> {
    expression: &'a str,
    behind: &'a str,
    trims_before: bool,
    trims_behind: bool,
}

impl<'a> Action<'a> {
    /// Reads one of what follows its opening braces.
    fn of(text: &'a str) -> Result<Self, String> {
        let mut quote = None;
        let mut escaped = false;
        let mut end = None;
        for (at, byte) in text.bytes().enumerate() {
            match (quote, byte) {
                _ if escaped => escaped = false,
                (Some(b'"'), b'\\') => escaped = true,
                (Some(open), _) if open == byte => quote = None,
                (None, b'"' | b'`') => quote = Some(byte),
                (None, b'}') if text.as_bytes().get(at + 1) == Some(&b'}') => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let end = end.ok_or_else(|| refused(text, "a template that ends"))?;
        let (inner, behind) = text.split_at(end);
        let before = inner.strip_prefix('-');
        let before = before.filter(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace()));
        let inner = before.unwrap_or(inner);
        let after = inner.strip_suffix('-');
        let after = after.filter(|rest| rest.ends_with(|c: char| c.is_ascii_whitespace()));
        Ok(Self {
            expression: after.unwrap_or(inner).trim(),
            behind: &behind[2..],
            trims_before: before.is_some(),
            trims_behind: after.is_some(),
        })
    }

    /// Adds what it stands for.
    fn fill(&self, payload: Option<&str>, filled: &mut Vec<u8>) -> Result<(), String> {
        let unknown = || {
            let expected = "a template of a text, .Payload, repeat or env";
            refused(self.expression, expected)
        };
        if self.expression.starts_with("/*") && self.expression.ends_with("*/") {
            return Ok(());
        }
        let words = Words(self.expression).collect::<Option<Vec<Word<'_>>>>();
        let words = words.ok_or_else(unknown)?;
        let mut commands = words.split(|word| matches!(word, Word::Pipe)).peekable();
        let mut value: Option<Cow<'_, [u8]>> = None;
        while let Some(command) = commands.next() {
            let (text, times) = match (command, value.take()) {
                ([Word::Text(text)], None) => (Cow::Borrowed(&**text), 1),
                ([Word::Name(".Payload")], None) => {
                    let payload =
                        payload.ok_or("the template needs a payload, but the test has none")?;
                    (Cow::Borrowed(payload.as_bytes()), 1)
                }
                ([Word::Name("repeat"), Word::Number(times), Word::Text(text)], None) => {
                    (Cow::Borrowed(&**text), *times)
                }
                ([Word::Name("repeat"), Word::Number(times)], Some(text)) => (text, *times),
                ([Word::Name("env"), Word::Text(name)], None) => {
                    let name = String::from_utf8_lossy(name);
                    let found = std::env::var(&*name).unwrap_or_default();
                    (Cow::Owned(found.into_bytes()), 1)
                }
                _ => return Err(unknown()),
            };
            if commands.peek().is_none() {
                return add(filled, &text, times);
            }
            let mut repeated = Vec::new();
            add(&mut repeated, &text, times)?;
            value = Some(Cow::Owned(repeated));
        }
        Err(unknown())
    }
}

fn refused(found: &str, expected: &str) -> String {
    format!(
        "expected {expected}, found {:?}",
        crate::fault::printable(found, 60)
    )
}

/// One word of a template; nothing for one that is not understood.
enum Word<'a> {
    Text(Cow<'a, [u8]>),
    Number(usize),
    Name(&'a str),
    Pipe,
}

struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = Option<Word<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0 = self.0.trim_start();
        let first = self.0.chars().next()?;
        Some(match first {
            '|' => {
                self.0 = &self.0[1..];
                Some(Word::Pipe)
            }
            '`' => self
                .quoted('`')
                .map(|text| Word::Text(Cow::Borrowed(text.as_bytes()))),
            '"' => self.quoted('"').and_then(unquoted).map(Word::Text),
            _ => {
                let is_end = |c: char| c.is_ascii_whitespace() || c == '|';
                let end = self.0.find(is_end).unwrap_or(self.0.len());
                let (word, rest) = self.0.split_at(end);
                self.0 = rest;
                if word.bytes().all(|byte| byte.is_ascii_digit()) {
                    word.parse().ok().map(Word::Number)
                } else {
                    Some(Word::Name(word))
                }
            }
        })
    }
}

impl<'a> Words<'a> {
    /// What stands in quotes, with its escapes.
    fn quoted(&mut self, quote: char) -> Option<&'a str> {
        let text = &self.0[1..];
        let mut escaped = false;
        let end = text.find(|c| match c {
            _ if escaped => {
                escaped = false;
                false
            }
            '\\' if quote == '"' => {
                escaped = true;
                false
            }
            c => c == quote,
        })?;
        let (inner, rest) = text.split_at(end);
        self.0 = &rest[1..];
        Some(inner)
    }
}

/// A text of Go without its escapes.
fn unquoted(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let kind = escape.chars().next()?;
        let (plain, digits) = match kind {
            'a' => (Some(7), 0),
            'b' => (Some(8), 0),
            'f' => (Some(12), 0),
            'n' => (Some(b'\n'), 0),
            'r' => (Some(b'\r'), 0),
            't' => (Some(b'\t'), 0),
            'v' => (Some(11), 0),
            '\\' | '"' => (u8::try_from(kind).ok(), 0),
            'x' => (None, 2),
            'u' => (None, 4),
            'U' => (None, 8),
            '0'..='7' => (None, 3),
            _ => return None,
        };
        let from = usize::from(!kind.is_ascii_digit());
        let number = escape.get(from..from + digits)?;
        let radix = if kind.is_ascii_digit() { 8 } else { 16 };
        match (plain, kind) {
            (Some(byte), _) => bytes.push(byte),
            (None, 'u' | 'U') => {
                let c = char::from_u32(u32::from_str_radix(number, radix).ok()?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            (None, _) => bytes.push(u8::from_str_radix(number, radix).ok()?),
        }
        rest = &escape[from + digits..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(Cow::Owned(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        templated(text, Some("<b>")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn the_templates_of_test_files_are_filled_in() {
        for (text, expected) in [
            (r#"a={{ "+" | repeat 3 }}!"#, "a=+++!"),
            (r#"{{repeat 2 "ab"}}"#, "abab"),
            (r#"{{ "a" | repeat 2 | repeat 3 }}"#, "aaaaaa"),
            (r#"{{ "}}" | repeat 1 }}"#, "}}"),
            (r#"{{ "x" }}{{ `\n` }}"#, r"x\n"),
            (r#"{{ "\x41\n\u00e9\101\\\"" }}"#, "A\néA\\\""),
            ("x={{.Payload}}", "x=<b>"),
            ("a {{- .Payload -}} \n b", "a<b>b"),
            ("{{/* nothing */}}.", "."),
            ("no { braces } and }}", "no { braces } and }}"),
        ] {
            assert_eq!(filled(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_template_that_is_known_is_named() {
        for text in [
            "{{ randAlpha 3 }}",
            "{{7*7}}",
            "{{ \"x\" | repeat -1 }}",
            "{{ \"x\" | repeat }}",
            "{{ | repeat 2 }}",
            "{{}}",
            "{{ \"x",
            r#"{{ "\q" }}"#,
        ] {
            assert!(filled(text).unwrap_err().starts_with("expected"), "{text}");
        }
        assert!(
            templated("{{.Payload}}", None)
                .unwrap_err()
                .contains("payload")
        );
    }

    #[test]
    fn a_size_is_looked_at_before_memory_is_asked_for() {
        for text in [
            r#"{{ "x" | repeat 99999999999 }}"#,
            r#"{{ "xx" | repeat 9223372036854775807 }}"#,
            r#"{{ "x" | repeat 16000000 }}{{ "x" | repeat 16000000 }}"#,
            r#"{{ "x" | repeat 100000 | repeat 100000 }}"#,
        ] {
            assert!(filled(text).unwrap_err().contains("at most"), "{text}");
        }
    }
}
