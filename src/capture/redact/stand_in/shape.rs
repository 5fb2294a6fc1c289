//! A stand-in that has the shape of its secret.
//!
//! Letters and digits become any of their kind; of what stands between them stays
//! what attacks are made of: quotes, brackets, spaces, and escapes of these such as
//! `%27`. A word that occurs twice becomes the same word twice, so `1'='1` stays as
//! true as it was. What comes out follows from the ordinary stand-in and the shape
//! alone: equal secrets stay equal, and it tells nothing of the letters.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

/// Words that attacks are made of, which tell nothing of a secret.
const ATTACK_WORDS: [&str; 76] = [
    "alert",
    "and",
    "benchmark",
    "bin",
    "cat",
    "char",
    "chr",
    "cmd",
    "concat",
    "confirm",
    "cookie",
    "curl",
    "database",
    "delay",
    "delete",
    "distinct",
    "dns",
    "document",
    "drop",
    "dual",
    "echo",
    "etc",
    "eval",
    "exec",
    "execute",
    "exists",
    "expression",
    "ftp",
    "from",
    "having",
    "hosts",
    "html",
    "http",
    "https",
    "iframe",
    "img",
    "information",
    "ini",
    "insert",
    "into",
    "javascript",
    "jndi",
    "ldap",
    "ldaps",
    "like",
    "limit",
    "nc",
    "not",
    "null",
    "onclick",
    "onerror",
    "onload",
    "or",
    "passwd",
    "php",
    "powershell",
    "prompt",
    "rmi",
    "runtime",
    "schema",
    "script",
    "select",
    "sh",
    "shadow",
    "sleep",
    "src",
    "substring",
    "svg",
    "system",
    "tables",
    "union",
    "update",
    "vbscript",
    "waitfor",
    "wget",
    "where",
];
/// What an attack has beside such words, and a list of words has not.
const ATTACK_MARKS: [&str; 13] = [
    "'", "\"", "`", "<", "(", "=", ";", "${", "../", "..\\", "--", "/*", "://",
];
/// So many letters and digits of a value without such marks stay hidden.
const LEAST_HIDDEN: usize = 8;

/// One character of a value, or an escape of one.
struct Unit<'a> {
    text: &'a str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is written as it is.
    Fixed,
    /// The same, and this is what it reads as.
    Mark(char),
    /// The same, inside a word.
    Joint,
    /// It is replaced by another of its kind, spelled alike.
    Letter(char, Spelling),
}

/// How a character is spelled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Plain,
    /// As a byte of UTF-8 in hexadecimal, behind so many others.
    Byte {
        before: usize,
    },
    /// In hexadecimal, behind so many bytes and before so many others.
    Hex {
        before: usize,
        behind: usize,
    },
    /// In decimal, in the same frame.
    Decimal {
        before: usize,
        behind: usize,
    },
}

/// Words of a value that may stay readable, where the answer hangs on them: those of
/// attacks alone. None where they are all there is of it, or nearly all.
pub(super) fn words(value: &str) -> BTreeSet<String> {
    readable(&runs(value))
}

fn readable(runs: &[Run<'_>]) -> BTreeSet<String> {
    let (known, others): (Vec<String>, Vec<String>) = runs
        .iter()
        .filter_map(Run::word)
        .partition(|word| is_of_attacks(word));
    let length = |words: &[String]| words.iter().map(String::len).sum::<usize>();
    let (shown, hidden) = (length(&known), length(&others));
    let has_mark = || {
        let text: String = runs.iter().flat_map(|run| run.letters()).collect();
        ATTACK_MARKS.iter().any(|mark| text.contains(mark))
    };
    if hidden > 0 && (hidden >= shown.max(LEAST_HIDDEN) || has_mark()) {
        known.into_iter().collect()
    } else {
        BTreeSet::new()
    }
}

fn is_of_attacks(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    ATTACK_WORDS.contains(&&*word)
}

/// The value's shape, with those of these words readable that may be; none where
/// there is nothing in it to hide.
pub(super) fn shape(value: &str, token: &str, shown: &BTreeSet<String>) -> Option<String> {
    let runs = runs(value);
    let may_stay = readable(&runs);
    let mut known: HashMap<String, Filler> = HashMap::new();
    let mut out = String::with_capacity(value.len());
    let mut hides_any = false;
    for run in &runs {
        let word = run.word();
        if word
            .as_ref()
            .is_some_and(|word| shown.contains(word) && may_stay.contains(word))
        {
            out.extend(run.units.iter().map(|unit| unit.text));
            continue;
        }
        let next = known.len();
        let mut filler = match word {
            Some(word) => {
                let filler = known.entry(word);
                filler.or_insert_with(|| Filler::new(token, next)).clone()
            }
            None => Filler::new(token, next),
        };
        for unit in &run.units {
            hides_any |= matches!(unit.kind, Kind::Letter(..));
            out.push_str(&unit.replaced(&mut filler));
        }
    }
    hides_any.then_some(out)
}

/// Letters and digits that belong together, or what stands between such.
struct Run<'a> {
    units: Vec<Unit<'a>>,
    is_word: bool,
}

impl Run<'_> {
    /// Its characters, as they read.
    fn letters(&self) -> impl Iterator<Item = char> {
        self.units.iter().filter_map(|unit| match unit.kind {
            Kind::Letter(letter, _) | Kind::Mark(letter) => Some(letter),
            Kind::Joint | Kind::Fixed => unit.text.chars().next(),
        })
    }

    /// Its letters and digits.
    fn word(&self) -> Option<String> {
        let word: String = self.letters().collect();
        let word = word.trim_matches(is_joint);
        (self.is_word && !word.is_empty()).then(|| word.to_owned())
    }
}

/// What joins the parts of a name or a token.
const fn is_joint(letter: char) -> bool {
    matches!(letter, '-' | '_' | '.')
}

fn runs(value: &str) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut rest = value;
    while let Some(unit) = Unit::first(rest) {
        rest = &rest[unit.text.len()..];
        let is_letter = matches!(unit.kind, Kind::Letter(letter, _) if !is_hidden_mark(letter));
        let is_part = is_letter || unit.kind == Kind::Joint;
        match runs.last_mut() {
            Some(run) if run.is_word == is_letter || run.is_word && is_part => {
                run.units.push(unit);
            }
            _ => runs.push(Run {
                units: vec![unit],
                is_word: is_letter,
            }),
        }
    }
    runs
}

impl<'a> Unit<'a> {
    /// The first of a text.
    fn first(text: &'a str) -> Option<Self> {
        let first = text.chars().next()?;
        let escape = match first {
            '%' => percent(text),
            '\\' => backslash(text),
            '&' => entity(text),
            _ => None,
        };
        if let Some((length, kind)) = escape {
            return Some(Self {
                text: &text[..length],
                kind,
            });
        }
        let kind = if is_joint(first) {
            Kind::Joint
        } else if hides(first) {
            Kind::Letter(first, Spelling::Plain)
        } else {
            Kind::Fixed
        };
        Some(Self {
            text: &text[..first.len_utf8()],
            kind,
        })
    }

    fn replaced(&self, filler: &mut Filler) -> Cow<'a, str> {
        let Kind::Letter(letter, spelling) = self.kind else {
            return Cow::Borrowed(self.text);
        };
        let other = filler.instead_of(letter, matches!(spelling, Spelling::Byte { .. }));
        let (before, behind, digits) = match spelling {
            Spelling::Plain => return Cow::Owned(other.to_string()),
            Spelling::Byte { before } => (before, 0, format!("{:02x}", u32::from(other))),
            Spelling::Hex { before, behind } => {
                let width = self.text.len() - before - behind;
                let digits = format!("{:0width$x}", u32::from(other));
                (before, behind, digits)
            }
            Spelling::Decimal { before, behind } => (before, behind, u32::from(other).to_string()),
        };
        let is_upper = self
            .text
            .bytes()
            .skip(before)
            .any(|it| it.is_ascii_uppercase());
        let digits = if is_upper {
            digits.to_ascii_uppercase()
        } else {
            digits
        };
        let end = self.text.len() - behind;
        Cow::Owned(format!(
            "{}{digits}{}",
            &self.text[..before],
            &self.text[end..]
        ))
    }
}

/// Whether a mark is one that passwords have as often as attacks.
const fn is_hidden_mark(letter: char) -> bool {
    matches!(letter, '!' | '#' | '*' | ',' | ':' | '?' | '@' | '^' | '~')
}

/// Whether a character may tell of a secret. Those that attacks are made of, and
/// secrets hardly ever, do not: marks, spaces, and their full-width forms.
fn hides(letter: char) -> bool {
    if letter.is_ascii() {
        return letter.is_ascii_alphanumeric() || is_hidden_mark(letter);
    }
    let is_mark = matches!(letter, '\u{2000}'..='\u{206f}' | '\u{ff00}'..='\u{ffef}' | '\u{fffd}');
    letter.is_alphanumeric() || !(is_mark || letter.is_whitespace())
}

/// An escape of this character.
fn escaped(code: u32, spelling: Spelling) -> Kind {
    let is_lead = matches!(spelling, Spelling::Byte { .. }) && code >= 0xc0;
    match char::from_u32(code) {
        // How many bytes there are tells no letter.
        Some(_) if is_lead => Kind::Fixed,
        Some(letter) if letter.is_ascii() && !hides(letter) => Kind::Mark(letter),
        Some(letter) => Kind::Letter(letter, spelling),
        None => Kind::Fixed,
    }
}

/// `%27`, or `%2527` and so on, or `%u0027`.
fn percent(text: &str) -> Option<(usize, Kind)> {
    if text
        .get(1..2)
        .is_some_and(|it| it.eq_ignore_ascii_case("u"))
    {
        let spelling = Spelling::Hex {
            before: 2,
            behind: 0,
        };
        return Some((6, escaped(hex(text, 2, 4)?, spelling)));
    }
    let layers = text.as_bytes()[1..].chunks(2).take_while(|it| it == b"25");
    // The last `25` may be the percent sign itself.
    let deepest = 1 + 2 * layers.count();
    let mut before = [deepest, deepest.saturating_sub(2)].into_iter();
    before.find_map(|before| {
        let code = hex(text, before, 2).filter(|_| before > 0)?;
        Some((before + 2, escaped(code, Spelling::Byte { before })))
    })
}

/// `\u0027`, `\x27`, `\n` and such.
fn backslash(text: &str) -> Option<(usize, Kind)> {
    let second = text.chars().nth(1)?;
    let hexadecimal = Spelling::Hex {
        before: 2,
        behind: 0,
    };
    let (width, spelling) = match second {
        'u' => (4, hexadecimal),
        'x' => (2, Spelling::Byte { before: 2 }),
        'n' | 'r' | 't' | 'b' | 'f' => return Some((2, Kind::Fixed)),
        _ => return None,
    };
    Some((2 + width, escaped(hex(text, 2, width)?, spelling)))
}

/// `&#39;`, `&#x27;` and `&quot;`.
fn entity(text: &str) -> Option<(usize, Kind)> {
    const NAMES: [&str; 6] = ["&amp;", "&apos;", "&gt;", "&lt;", "&nbsp;", "&quot;"];
    if let Some(name) = NAMES.iter().find(|name| text.starts_with(**name)) {
        return Some((name.len(), Kind::Fixed));
    }
    let inside = text.strip_prefix("&#")?;
    let end = inside.bytes().take(9).position(|byte| byte == b';')?;
    let inside = &inside[..end];
    let length = end + 3;
    let (code, spelling) = match inside.strip_prefix(['x', 'X']) {
        Some(digits) => (
            u32::from_str_radix(digits, 16),
            Spelling::Hex {
                before: 3,
                behind: 1,
            },
        ),
        None => (
            inside.parse(),
            Spelling::Decimal {
                before: 2,
                behind: 1,
            },
        ),
    };
    Some((length, escaped(code.ok()?, spelling)))
}

fn hex(text: &str, at: usize, width: usize) -> Option<u32> {
    let digits = text.get(at..at + width)?;
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Characters in place of those of one word.
#[derive(Clone)]
struct Filler {
    seed: [u8; 32],
    at: usize,
}

impl Filler {
    fn new(token: &str, word: usize) -> Self {
        let seed = Sha256::new()
            .chain_update(token)
            .chain_update([0])
            .chain_update(word.to_le_bytes());
        Self {
            seed: seed.finalize().into(),
            at: 0,
        }
    }

    fn next(&mut self) -> u32 {
        if self.at == self.seed.len() {
            self.seed = Sha256::digest(self.seed).into();
            self.at = 0;
        }
        self.at += 1;
        u32::from(self.seed[self.at - 1])
    }

    /// A character of the same kind and as many bytes.
    fn instead_of(&mut self, letter: char, is_byte: bool) -> char {
        let (first, count) = match letter {
            '0'..='9' => ('1', 9),
            'a'..='z' => ('a', 26),
            'A'..='Z' => ('A', 26),
            _ if is_hidden_mark(letter) => ('~', 1),
            _ if is_byte => ('\u{80}', 64),
            // A byte of a body that is no text.
            '\u{ef80}'..='\u{efff}' => ('\u{ef80}', 128),
            _ if letter.len_utf8() == 2 => ('\u{3b1}', 17),
            _ if letter.len_utf8() == 3 => ('\u{4e00}', 256),
            _ => ('\u{20000}', 256),
        };
        // It may be the same one: that it is not would tell something.
        char::from_u32(u32::from(first) + self.next() % count).unwrap_or('x')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shaped(value: &str, readable: &[&str]) -> Option<String> {
        let readable = readable.iter().map(|word| (*word).to_owned()).collect();
        shape(value, "redacted:1", &readable)
    }

    /// A value with its letters as `a`, `A` and `1`, as its shape has to have them.
    fn classes(text: &str) -> String {
        let class = |letter: char| match letter {
            'a'..='z' => 'a',
            'A'..='Z' => 'A',
            '0'..='9' => '1',
            other => other,
        };
        text.chars().map(class).collect()
    }

    #[test]
    fn escapes_of_marks_stay_and_those_of_letters_do_not() {
        for (value, stay) in [
            ("a%27b", "%27"),
            ("a%2527b", "%2527"),
            ("a%25", "%25"),
            ("a%u0027b", "%u0027"),
            ("a\\u0027b\\x3c", "\\u0027"),
            ("a&#39;b&quot;", "&#39;"),
            ("a&#x3c;b", "&#x3c;"),
            ("a%zzb", "%"),
        ] {
            let out = shaped(value, &[]).unwrap();
            assert!(out.contains(stay), "{value}: {out}");
            assert_eq!(out.len(), value.len(), "{value}: {out}");
        }
        for value in [
            "%61%62%63%64%65",
            "\\u0061\\u0062\\u0063\\u0064",
            "%c3%a9%41%c3%a9%42",
            "\u{e9}\u{4e2d}\u{1f600}",
        ] {
            let out = shaped(value, &[]).unwrap();
            assert_ne!(out, value);
            assert_eq!(out.len(), value.len(), "{value}: {out}");
        }
        assert_eq!(shaped("' -- ';", &[]), None, "it would be the value itself");
    }

    #[test]
    fn words_of_attacks_alone_are_readable_and_never_all() {
        let out = shaped("x' UNION SELECT y", &["UNION", "SELECT"]).unwrap();
        assert!(out.contains("' UNION SELECT "), "{out}");
        for value in [
            "UNION SELECT",
            "secret",
            "sk_live_abc",
            "select union horse",
            "'correct horse' battery=staple",
            "prod:hunter:9",
            "hunter/dragon/99x",
        ] {
            assert!(words(value).is_empty(), "{value}");
            let all: Vec<&str> = value.split([' ', ':', '/', '=', '\'']).collect();
            let out = shaped(value, &all).unwrap();
            let is_shown = |word: &&&str| word.len() > 3 && out.contains(**word);
            assert_eq!(all.iter().find(is_shown), None, "{value}: {out}");
        }
        assert_eq!(words("1' oR x1").into_iter().collect::<Vec<_>>(), ["oR"]);
        assert_eq!(
            words("something or another").len(),
            1,
            "most of it is hidden"
        );
        let out = shaped("1' OR '1'='1", &["OR"]).unwrap();
        let digit = &out[..1];
        assert_eq!(out, format!("{digit}' OR '{digit}'='{digit}"));
    }

    #[test]
    fn marks_of_passwords_are_hidden() {
        assert_eq!(classes(&shaped("Zx!@^*()?1", &[]).unwrap()), "Aa~~~~()~1");
        let out = shaped("Passw%21%40rd", &[]).unwrap();
        assert!(out.ends_with(|it: char| it.is_ascii_lowercase()), "{out}");
        assert_eq!(&out[5..11], "%7e%7e", "{out}");
        assert_eq!(shaped("!!##", &[]).as_deref(), Some("~~~~"));
    }

    /// Nobody who has the shape can rule a letter out.
    #[test]
    fn the_shape_follows_from_the_kinds_of_characters_alone() {
        let all = |letters: &str| -> BTreeSet<String> {
            let values = letters.chars().map(|letter| format!("{letter}' or b"));
            values.filter_map(|value| shaped(&value, &[])).collect()
        };
        assert_eq!(all("acdefghijklmnopqrstuvwxyz").len(), 1);
        assert_eq!(all("0123456789").len(), 1);
    }

    proptest! {
        #[test]
        fn length_and_kinds_stay(value in "[a-zA-Z0-9 '\"<>;=()/_.-]{0,40}") {
            match shaped(&value, &[]) {
                None => prop_assert!(!value.bytes().any(|byte| byte.is_ascii_alphanumeric())),
                Some(out) => {
                    prop_assert_eq!(classes(&out), classes(&value));
                    prop_assert_eq!(Some(out), shaped(&value, &[]));
                }
            }
        }

        #[test]
        fn no_text_is_too_odd(value: String) {
            if let Some(out) = shaped(&value, &[]) {
                prop_assert!(out != value || value.len() < 8);
            }
        }
    }
}
