//! Finds secrets in a text: by the names before them, and by their own form.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::layers::{Layer, decoded};

/// Bytes of a name; what is longer is hidden unread.
const LONGEST_NAME: usize = 256;

/// What secrets and their names look like.
struct Forms {
    /// Names of secrets: of headers, parameters, keys of JSON and fields of forms.
    name: Regex,
    /// The name of a parameter in a URL, between what is before it and its equals
    /// sign.
    url_name: Regex,
    /// A password before a host.
    user_info: Regex,
    /// A name in quotes or without, its colon, and the quotes of its value.
    pair: Regex,
    /// A parameter of a form, of a URL in a text, or of a program's text.
    parameter: Regex,
    /// A credential that says so itself.
    bearer: Regex,
    /// A part of a form with files.
    part: Regex,
    /// An element with a text.
    element: Regex,
}

/// Without them nothing would be safe to show.
static FORMS: LazyLock<Option<Forms>> = LazyLock::new(|| Forms::new().ok());

impl Forms {
    fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            name: Regex::new(concat!(
                r"(?i)passw(?:or)?d|passphrase|passcode|secret|credential|session[-_]?id|sessid",
                r"|(?:api|private|access|auth|subscription|functions?)[-_]?key",
                r"|(?:token|jwt|authorization)\]?$",
                r"|(?:^|[-_.\[])(?:pass|pwd|sig|signature|session|sid|otp|auth)\]?$",
            ))?,
            url_name: Regex::new(r"(?:^|[?&;#])[^=&;?#/\s]+=")?,
            user_info: Regex::new(r"//([^/?#\s@:]*):([^/?#\s@]+)@")?,
            pair: Regex::new(
                r#"([A-Za-z0-9_.$@\[\]-]+)(?:\\*["'])?\s*:\s*(\\*["']|[\[{]|[A-Za-z0-9+/_.-]{6,})"#,
            )?,
            parameter: Regex::new(
                r#"([A-Za-z0-9_.%\[\]-]+)\s?=\s?(?:(\\*["'])|([^&;\s'"<>\\]+))"#,
            )?,
            bearer: Regex::new(r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{8,}=*)")?,
            part: Regex::new(
                r#"(?s)name="([^"\r\n]+)"[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n(.*?)(?:\r?\n--|$)"#,
            )?,
            element: Regex::new(r"<([A-Za-z0-9_:.-]+)(?:\s[^<>]*)?>([^<]+)</")?,
        })
    }
}

/// Parts of a text, in bytes.
pub(super) type Places = Vec<Range<usize>>;

/// Nothing is shown of a text that cannot be looked through.
pub(super) fn whole(text: &str) -> Places {
    std::iter::once(0..text.len()).collect()
}

/// Whether what stands under this name is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let is_name = |forms: &Forms| forms.name.is_match(&decoded(name));
    name.len() > LONGEST_NAME || FORMS.as_ref().is_none_or(is_name)
}

/// In a path with a query, or in a URL, however often parts of it are encoded.
pub(super) fn in_url(url: &str) -> Places {
    let Some(forms) = &*FORMS else {
        return whole(url);
    };
    let mut places = Vec::new();
    let deeper = Layer::each(url, |layer| {
        let here = parameters(&layer.text, &forms.url_name)
            .into_iter()
            .chain(captured(&forms.user_info, 2, &layer.text));
        places.extend(here.map(|it| layer.origin(it.start)..layer.origin(it.end)));
    });
    if let Some(deeper) = deeper {
        // What a name or a value is there nobody has read.
        let begin = url[..deeper].rfind(['?', '&', ';', '#', '/']);
        places.push(begin.map_or(0, |at| at + 1)..url.len());
    }
    places
}

/// Values of parameters that are secrets.
fn parameters(url: &str, names: &Regex) -> Places {
    let query = url.find('?').unwrap_or(url.len());
    let fragment = url.find('#').unwrap_or(url.len());
    let found: Vec<(Range<usize>, bool, Cow<'_, str>)> = names
        .find_iter(url)
        .map(|it| {
            let name = it.as_str().trim_start_matches(['?', '&', ';', '#']);
            let is_of_path = it.start() < query && it.end() <= fragment;
            (it.range(), is_of_path, decoded(name.trim_end_matches('=')))
        })
        .collect();
    let any = |wanted: &str| {
        let mut names = found.iter().map(|(_, _, name)| name);
        names.any(|name| name.eq_ignore_ascii_case(wanted))
    };
    // What an identity provider hands over; either alone is anything.
    let is_login = any("code") && any("state");
    let mut of_path = Ends::of(url, &['/', '?', '#', ';']);
    let mut of_query = Ends::of(url, &['&', '#']);
    let mut places = Vec::new();
    for (all, is_of_path, name) in found {
        let is_handed_over = is_login && matches!(&*name, "code" | "state");
        if is_secret(&name) || is_handed_over {
            let ends = if is_of_path {
                &mut of_path
            } else {
                &mut of_query
            };
            places.push(all.end..ends.next(all.end));
        }
    }
    places
}

/// The next of some characters, for places that only go forwards: each part of
/// a text is looked through once, however many begin in it.
struct Ends<'a> {
    text: &'a str,
    ends: &'a [char],
    found: Option<usize>,
}

impl<'a> Ends<'a> {
    const fn of(text: &'a str, ends: &'a [char]) -> Self {
        Self {
            text,
            ends,
            found: None,
        }
    }

    /// The first from there on, or the end of the text.
    fn next(&mut self, from: usize) -> usize {
        match self.found {
            Some(found) if found >= from => found,
            _ => {
                let next = self.text[from..].find(self.ends);
                *self
                    .found
                    .insert(next.map_or(self.text.len(), |next| from + next))
            }
        }
    }
}

/// In any text: pairs of JSON and of what looks like it, parameters, parts of
/// forms, elements, and credentials that say so themselves.
pub(super) fn in_text(text: &str) -> Places {
    let Some(forms) = &*FORMS else {
        return whole(text);
    };
    let mut places = Vec::new();
    if text.contains(':') {
        // Up to where all is hidden already, so that lists within lists are
        // looked through once.
        let mut covered = 0;
        for found in forms.pair.captures_iter(text) {
            if let Some(value) = found.get(2)
                && value.start() >= covered
                && is_secret(end_of_name(&found[1]))
            {
                covered = value_of_pair(text, value.range(), &mut places);
            }
        }
        places.extend(captured(&forms.user_info, 2, text));
    }
    if text.contains('=') {
        parameters_of_text(text, &forms.parameter, &mut places);
        places.extend(secret_values(&forms.part, text));
    }
    if text.contains('<') {
        places.extend(secret_values(&forms.element, text));
    }
    places.extend(captured(&forms.bearer, 1, text));
    places.retain(|place| !WORDS.contains(&&text[place.clone()]));
    places
}

/// Parameters of a form, of a URL in a text, or of a program's text.
fn parameters_of_text(text: &str, form: &Regex, places: &mut Places) {
    let is_form = !text.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '{'));
    // As with pairs: what is hidden already is not looked through again.
    let mut covered = 0;
    for found in form.captures_iter(text) {
        let (quote, value) = (found.get(2), found.get(3));
        let Some(begin) = quote.map(|it| it.end()).or(value.map(|it| it.start())) else {
            continue;
        };
        if begin < covered || !is_secret(end_of_name(&found[1])) {
            continue;
        }
        covered = match (quote, value) {
            (Some(quote), _) => string_end(text, begin, quote.as_str()),
            (None, Some(value)) if !is_form => value.end(),
            _ => text[begin..].find('&').map_or(text.len(), |it| begin + it),
        };
        places.push(begin..covered);
    }
}

/// What a form finds as its second part, where its first is a secret's name.
fn secret_values(form: &Regex, text: &str) -> Places {
    let found = form.captures_iter(text);
    found
        .filter(|found| is_secret(&found[1]))
        .filter_map(|found| Some(found.get(2)?.range()))
        .collect()
}

/// A name in a text has no clear beginning: of a long one it is the end.
fn end_of_name(name: &str) -> &str {
    &name[name.ceil_char_boundary(name.len().saturating_sub(LONGEST_NAME))..]
}

/// Values that say how credentials are used, or of what kind a field is.
const WORDS: [&str; 10] = [
    "true",
    "false",
    "null",
    "include",
    "omit",
    "same-origin",
    "required",
    "optional",
    "password",
    "hidden",
];

/// Hides the value whose opening stands there: a string, all strings of a list
/// or object, or a bare word. Hands back where it ends.
fn value_of_pair(text: &str, opening: Range<usize>, places: &mut Places) -> usize {
    let open = &text[opening.clone()];
    if open.ends_with(['"', '\'']) {
        let end = string_end(text, opening.end, open);
        places.push(opening.end..end);
        return end;
    }
    if !matches!(open, "[" | "{") {
        let end = opening.end;
        places.push(opening);
        return end;
    }
    let mut depth = 0_usize;
    let mut at = opening.start;
    while let Some(next) = text[at..].find(['"', '[', ']', '{', '}']) {
        at += next;
        match text.as_bytes()[at] {
            b'"' => {
                let end = string_end(text, at + 1, "\"");
                places.push(at + 1..end);
                at = end;
            }
            b'[' | b'{' => depth += 1,
            _ => depth = depth.saturating_sub(1),
        }
        at = (at + 1).min(text.len());
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Where a string ends that began with this quote; a text that was cut ends it
/// too.
fn string_end(text: &str, begin: usize, quote: &str) -> usize {
    let mut at = begin;
    while let Some(found) = text[at..].find(quote) {
        let end = at + found;
        let escapes = text[begin..end]
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'\\')
            .count();
        if escapes % 2 == 0 {
            return end;
        }
        at = end + 1;
    }
    text.len()
}

fn captured(form: &Regex, group: usize, text: &str) -> Places {
    let found = form.captures_iter(text);
    found
        .filter_map(|found| Some(found.get(group)?.range()))
        .collect()
}
