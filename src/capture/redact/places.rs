//! Where secrets stand in a text: by the names before them, and by what they
//! say of themselves.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Characters of a name; what is longer is hidden unread.
const LONGEST_NAME: usize = 256;

/// Names of secrets: of headers, parameters, keys of JSON and fields of forms.
static NAMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i)passw(?:or)?d|passphrase|passcode|secret|credential|session[-_]?id|sessid",
        r"|(?:api|private|access|auth|subscription|functions?)[-_]?key",
        r"|(?:token|jwt|authorization)\]?$",
        r"|(?:^|[-_.\[])(?:pass|pwd|sig|signature|session|sid|otp|auth)\]?$",
    ))
    .ok()
});

/// Parts of a text, in bytes.
pub(super) type Places = Vec<Range<usize>>;

/// Nothing is shown of a text that cannot be looked through.
pub(super) fn whole(text: &str) -> Places {
    std::iter::once(0..text.len()).collect()
}

/// Whether what stands under this name is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    // Without the rule nothing would be safe to show.
    name.len() > LONGEST_NAME
        || NAMES
            .as_ref()
            .is_none_or(|form| form.is_match(&decoded(name)))
}

/// A text without its percent encoding.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |index: usize| char::from(*bytes.get(index)?).to_digit(16);
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The name of a parameter in a URL, and its equals sign.
static URL_NAME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?:^|[?&;#])([^=&;?#/\s]{1,256})=").ok());

/// A password before a host.
static USER_INFO: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"//([^/?#\s@:]*):([^/?#\s@]+)@").ok());

/// In a path with a query, or in a URL.
pub(super) fn in_url(url: &str) -> Places {
    let (Some(names), Some(user_info)) = (URL_NAME.as_ref(), USER_INFO.as_ref()) else {
        return whole(url);
    };
    let mut places = captured(user_info, 2, url);
    let query = url.find('?').unwrap_or(url.len());
    let of = |name: &str| {
        names
            .captures_iter(url)
            .any(|found| decoded(&found[1]).eq_ignore_ascii_case(name))
    };
    // What an identity provider hands over; either alone is anything.
    let is_login = url.contains("code=") && url.contains("state=") && of("code") && of("state");
    for found in names.captures_iter(url) {
        let (Some(all), Some(name)) = (found.get(0), found.get(1)) else {
            continue;
        };
        let rest = &url[all.end()..];
        let ends: &[char] = if all.start() < query && !url[..all.end()].contains('#') {
            &['/', '?', '#', ';']
        } else {
            &['&', '#']
        };
        let value = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let name = decoded(name.as_str());
        let is_handed_over = is_login && matches!(&*name, "code" | "state");
        if is_secret(&name) || is_handed_over || holds_url_with_secret(value) {
            places.push(all.end()..all.end() + value.len());
        }
    }
    places
}

/// Whether a parameter's value is a URL, encoded, that has a secret.
fn holds_url_with_secret(value: &str) -> bool {
    let is_encoded = value.contains("%3D") || value.contains("%3d");
    is_encoded && !in_url(&decoded(value)).is_empty()
}

/// A name in quotes or without, its colon, and the quotes of its value.
static PAIR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"([A-Za-z0-9_.$@\[\]-]{1,256})(?:\\*["'])?\s*:\s*(\\*["']|[\[{]|[A-Za-z0-9+/_.-]{6,})"#,
    )
    .ok()
});

/// A parameter of a form, of a URL in a text, or of a program's text.
static PARAMETER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"([A-Za-z0-9_.%\[\]-]{1,256})\s?=\s?(?:(\\*["'])|([^&;\s'"<>\\]+))"#).ok()
});

/// A credential that says so itself.
static BEARER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{8,}=*)").ok());

/// A part of a form with files.
static PART: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"(?s)name="([^"]{1,256})"[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n(.*?)(?:\r?\n--|$)"#).ok()
});

/// An element with a text.
static ELEMENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"<([A-Za-z0-9_:.-]{1,256})(?:\s[^<>]*)?>([^<]+)</").ok());

/// In any text: pairs of JSON and of what looks like it, parameters, parts of
/// forms, elements, and credentials that say so themselves.
pub(super) fn in_text(text: &str) -> Places {
    let (Some(pair), Some(parameter), Some(part), Some(element), Some(bearer), Some(user_info)) = (
        PAIR.as_ref(),
        PARAMETER.as_ref(),
        PART.as_ref(),
        ELEMENT.as_ref(),
        BEARER.as_ref(),
        USER_INFO.as_ref(),
    ) else {
        return whole(text);
    };
    let mut places = Vec::new();
    if text.contains(':') {
        // Up to where all is hidden already, so that lists within lists are
        // looked through once.
        let mut covered = 0;
        for found in pair.captures_iter(text) {
            if let Some(value) = found.get(2).filter(|_| is_secret(&found[1]))
                && value.start() >= covered
            {
                covered = value_of_pair(text, value.range(), &mut places);
            }
        }
        places.extend(captured(user_info, 2, text));
    }
    if text.contains('=') {
        let is_form = !text.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '{'));
        for found in parameter.captures_iter(text) {
            if !is_secret(&found[1]) {
                continue;
            }
            if let Some(quote) = found.get(2) {
                places.push(quote.end()..string_end(text, quote.end(), quote.as_str()));
            } else if let Some(value) = found.get(3) {
                let rest = &text[value.start()..];
                let whole = rest.find('&').unwrap_or(rest.len());
                let length = if is_form { whole } else { value.len() };
                places.push(value.start()..value.start() + length);
            }
        }
        for found in part.captures_iter(text) {
            places.extend(
                found
                    .get(2)
                    .filter(|_| is_secret(&found[1]))
                    .map(|it| it.range()),
            );
        }
    }
    if text.contains('<') {
        for found in element.captures_iter(text) {
            places.extend(
                found
                    .get(2)
                    .filter(|_| is_secret(&found[1]))
                    .map(|it| it.range()),
            );
        }
    }
    places.extend(captured(bearer, 1, text));
    places.retain(|place| !WORDS.contains(&&text[place.clone()]));
    places
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
