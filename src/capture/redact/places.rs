//! Finds secrets in a text: by the names before them, and by their own form.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::layers::{Layer, decoded};
use super::names::{end_of_name, is_secret, is_uuid, is_word, looks_drawn};
use super::{MAX_PLACES, encoded, forms, markup, pairs, parts, settings};

/// What secrets and their names look like.
struct Forms {
    /// The name of a parameter in a URL, between what is before it and its equals
    /// sign.
    url_name: Regex,
    /// A user, or a password, before a host.
    user_info: Regex,
    /// A parameter of a form, of a URL in a text, or of a program's text.
    parameter: Regex,
    /// A credential that says so itself.
    bearer: Regex,
}

/// Without them nothing would be safe to show.
static FORMS: LazyLock<Option<Forms>> = LazyLock::new(|| Forms::new().ok());

impl Forms {
    fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            url_name: Regex::new(r"(?:^|[?&;#])[^=&;?#/\s]+=")?,
            user_info: Regex::new(
                r#"//(?:([^/?#\s@:\[\]"'<>\\]+)@|[^/?#\s@:\[\]"'<>\\]*:([^?#\s"'<>\\]+)@)"#,
            )?,
            parameter: Regex::new(
                r#"([A-Za-z0-9_.%\[\]:-]+)\s?:?=>?\s?(?:(["'])|([^&;\s'"<>\\]+))"#,
            )?,
            bearer: Regex::new(
                r"(?i)\b(?:bearer|basic|negotiate|ntlm|dpop|gnap)\s+([A-Za-z0-9._~+/-]{8,}=*)",
            )?,
        })
    }
}

/// A part of a text that is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) range: Range<usize>,
    /// What a stand-in needs around it, since the secret is a number of JSON.
    pub(super) quote: Option<Quote>,
}

/// A quote as the text spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quote {
    Plain,
    /// As the one that stands there.
    Like(Range<usize>),
}

impl Place {
    pub(super) const fn of(range: Range<usize>) -> Self {
        Self { range, quote: None }
    }
}

/// Parts of a text, in bytes.
pub(super) type Places = Vec<Place>;

/// Nothing is shown of a text that cannot be looked through.
pub(super) fn whole(text: &str) -> Places {
    vec![Place::of(0..text.len())]
}

/// What is known of a text that is looked through.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About {
    /// Whether it is a form's fields, where somebody knows.
    pub(super) is_form: Option<bool>,
    /// It goes on in another text.
    pub(super) goes_on: bool,
    /// How many texts it was packed into.
    pub(super) depth: usize,
}

/// In a path with a query, or in a URL, however often parts of it are encoded.
pub(super) fn in_url(url: &str) -> Places {
    let Some(forms) = &*FORMS else {
        return whole(url);
    };
    let mut places = Vec::new();
    let deeper = Layer::each(url, |layer| {
        let text = &*layer.text;
        let mut here = parameters(text, &forms.url_name);
        user_info(&forms.user_info, text, &mut here);
        forms::credentials(text, false, &mut here);
        in_path(text, 0..text.len(), &mut here);
        if text.contains(':') {
            pairs::find(text, &mut here);
        }
        encoded::find(text, About::default(), &mut here);
        here.retain(|place| !is_word(&text[place.range.clone()]));
        places.extend(here.into_iter().map(|it| layer.place(it)));
    });
    if let Some(deeper) = deeper {
        // What a name or a value is there nobody has read.
        let begin = url[..deeper].rfind(['?', '&', ';', '#', '/']);
        places.push(Place::of(begin.map_or(0, |at| at + 1)..url.len()));
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
    let mut of_path = Ends::of(url, &['/', '?', '#', ';']);
    let mut of_query = Ends::of(url, &['&', '#']);
    let mut login = Login::new(&url[..query]);
    let mut places = Vec::new();
    for (all, is_of_path, name) in found {
        let ends = if is_of_path {
            &mut of_path
        } else {
            &mut of_query
        };
        if is_secret(&name) {
            places.push(Place::of(all.end..ends.next(all.end)));
        } else if login.is_part(&name) {
            login.add(&name, url, all.end..ends.next(all.end));
        }
    }
    login.places(url, &mut places);
    places
}

/// What an identity provider hands over. Its parameters alone may be anything:
/// a currency, a country, an error.
struct Login {
    is_callback: bool,
    code: Vec<Range<usize>>,
    state: Vec<Range<usize>>,
}

impl Login {
    fn new(path: &str) -> Self {
        const PATHS: [&str; 7] = [
            "callback", "oauth", "oidc", "auth", "login", "signin", "sso",
        ];
        let path = &path[..path.floor_char_boundary(2_048)].to_ascii_lowercase();
        Self {
            is_callback: PATHS.iter().any(|it| path.contains(it)) || path.ends_with("/cb"),
            code: Vec::new(),
            state: Vec::new(),
        }
    }

    fn is_part(&self, name: &str) -> bool {
        ["code", "state", "grant_type"]
            .iter()
            .any(|it| name.eq_ignore_ascii_case(it))
    }

    fn add(&mut self, name: &str, text: &str, value: Range<usize>) {
        if name.eq_ignore_ascii_case("grant_type") {
            self.is_callback |= text[value].starts_with("authorization_code");
        } else if name.eq_ignore_ascii_case("code") {
            self.code.push(value);
        } else {
            self.state.push(value);
        }
    }

    fn places(self, text: &str, places: &mut Places) {
        let with_state = self.state.iter().any(|it| it.len() >= 6);
        let least = if with_state || self.is_callback {
            6
        } else {
            20
        };
        let (code, state) = (self.code, self.state);
        let mut is_login = false;
        for value in code {
            if looks_drawn(&text[value.clone()], least) {
                is_login = true;
                places.push(Place::of(value));
            }
        }
        if is_login {
            places.extend(state.into_iter().filter(|it| it.len() >= 6).map(Place::of));
        }
    }
}

/// What the segments before one say about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Plain,
    /// One that opens an account follows.
    Opens,
    /// One that confirms something, or calls a hook, may follow.
    Confirms,
}

impl Segment {
    fn of(text: &str, next: &str) -> Option<Self> {
        const OPENS: [&str; 22] = [
            "resetpassword",
            "passwordreset",
            "passwordresets",
            "forgotpassword",
            "setpassword",
            "changepassword",
            "newpassword",
            "createpassword",
            "recoverpassword",
            "passwordrecovery",
            "accountrecovery",
            "recover",
            "recovery",
            "magiclink",
            "magic",
            "loginlink",
            "onetimelogin",
            "passwordless",
            "password",
            "reset",
            "token",
            "resetpw",
        ];
        const CONFIRMS: [&str; 24] = [
            "verify",
            "verifyemail",
            "emailverify",
            "verification",
            "emailverification",
            "confirm",
            "confirmemail",
            "emailconfirm",
            "confirmation",
            "confirmations",
            "activate",
            "activation",
            "invite",
            "invites",
            "invitation",
            "invitations",
            "acceptinvite",
            "unsubscribe",
            "hook",
            "hooks",
            "webhook",
            "webhooks",
            "webhookb2",
            "incomingwebhook",
        ];
        if text.len() > 24 || !text.is_ascii() {
            return None;
        }
        let plain = text.to_ascii_lowercase().replace(['-', '_'], "");
        let of_team = |it: &str| {
            it.len() > 7
                && it.starts_with(['T', 'E'])
                && it
                    .bytes()
                    .all(|it| it.is_ascii_uppercase() || it.is_ascii_digit())
        };
        match &*plain {
            it if OPENS.contains(&it) => Some(Self::Opens),
            it if CONFIRMS.contains(&it) => Some(Self::Confirms),
            "services" | "workflows" | "triggers" if of_team(next) => Some(Self::Confirms),
            _ => None,
        }
    }

    /// Whether a later segment is what it announces.
    fn announces(self, segment: &str) -> bool {
        match self {
            Self::Plain => false,
            Self::Opens => looks_drawn(segment, 8) && !is_file(segment),
            Self::Confirms => looks_drawn(segment, 20) && !is_uuid(segment) && !is_file(segment),
        }
    }
}

/// Whether a segment of a path is a file's name.
fn is_file(segment: &str) -> bool {
    let end = segment.rsplit_once('.').map(|(_, end)| end);
    end.is_some_and(|end| {
        (1..6).contains(&end.len()) && end.bytes().all(|it| it.is_ascii_lowercase())
    })
}

/// Segments of a path that open something, such as a link to a new password.
fn in_path(text: &str, part: Range<usize>, places: &mut Places) {
    let url = &text[part.clone()];
    let path = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let mut before = Segment::Plain;
    let mut at = part.start;
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        if before.announces(segment) {
            places.push(Place::of(at..at + segment.len()));
        }
        let next = segments.peek().copied().unwrap_or_default();
        // `reset/confirm` opens as `reset` does.
        if before != Segment::Opens {
            before = Segment::of(segment, next).unwrap_or(before);
        }
        at += segment.len() + 1;
    }
}

/// URLs that stand in a text.
fn urls_in_text(text: &str, places: &mut Places) {
    const ENDS: [char; 10] = [' ', '\n', '\r', '\t', '"', '\'', '<', '>', ')', '\\'];
    let mut at = 0;
    while let Some(found) = text[at..].find("://") {
        let begin = at + found + 3;
        let end = text[begin..].find(ENDS).map_or(text.len(), |it| begin + it);
        in_path(text, begin..end, places);
        at = end;
    }
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
pub(super) fn in_text(text: &str, about: About) -> Places {
    let Some(forms) = &*FORMS else {
        return whole(text);
    };
    let mut places = Vec::new();
    let is_form = about.is_form.unwrap_or_else(|| looks_like_form(text));
    let deeper = Layer::each(text, |layer| {
        let about = About {
            // What a field holds is another text.
            is_form: Some(is_form && !layer.is_decoded()),
            ..about
        };
        let mut here = Vec::new();
        in_layer(&layer.text, about, forms, &mut here);
        here.retain(|place| !is_word(&layer.text[place.range.clone()]));
        places.extend(here.into_iter().map(|it| layer.place(it)));
    });
    if let Some(deeper) = deeper {
        // Nobody has read what stands there.
        const ENDS: [char; 8] = ['&', ';', '\n', ' ', '\t', '<', '>', '='];
        let begin = text[..deeper].rfind(ENDS).map_or(0, |at| at + 1);
        let end = if is_form {
            text[deeper..]
                .find(ENDS)
                .map_or(text.len(), |at| deeper + at)
        } else {
            text.len()
        };
        places.push(Place::of(begin..end));
    }
    places
}

/// The name of the list, object or element of secrets that a text ends in.
pub(super) fn open_container(text: &str) -> Option<Range<usize>> {
    let mut open = None;
    Layer::each(text, |layer| {
        let mut none = Vec::new();
        let of_pairs = pairs::find(&layer.text, &mut none);
        let of_markup = markup::find(&layer.text, false, &mut none);
        let here = of_pairs.or(of_markup);
        let here = here.map(|it| layer.origin(it.start)..layer.origin(it.end));
        open = open.take().or(here);
    });
    open
}

fn in_layer(text: &str, about: About, forms: &Forms, places: &mut Places) {
    if memchr::memchr(b':', text.as_bytes()).is_some() {
        pairs::find(text, places);
        if text.contains("//") {
            user_info(&forms.user_info, text, places);
            urls_in_text(text, places);
        }
    }
    if text.contains('=') {
        parameters_of_text(text, about, &forms.parameter, places);
        parts::find(text, places);
    }
    if text.contains('<') {
        markup::find(text, about.goes_on, places);
    }
    settings::find(text, places);
    let credentials = captured(&forms.bearer, 1, text).into_iter();
    places.extend(credentials.filter(|it| is_no_word(&text[it.range.clone()])));
    let numbers = places.len();
    forms::credentials(text, about.goes_on, places);
    pairs::quote_numbers(text, &mut places[numbers..]);
    encoded::find(text, about, places);
}

/// Whether a text is nothing but the fields of a form.
pub(super) fn looks_like_form(text: &str) -> bool {
    let text = text.trim_end();
    let is_name = |it: &str| {
        !it.is_empty()
            && it.len() < 256
            && it.bytes().all(|it| {
                it.is_ascii_alphanumeric()
                    || matches!(it, b'_' | b'.' | b'%' | b'[' | b']' | b'-' | b'+' | b'$')
            })
    };
    let begin = text.split_once('=').map(|(name, _)| name);
    let bytes = text.as_bytes();
    begin.is_some_and(is_name)
        && memchr::memchr3(b'\n', b'<', b'{', bytes).is_none()
        && (memchr::memchr(b'&', bytes).is_some()
            || memchr::memchr3(b' ', b'\t', b'\r', bytes).is_none())
}

/// Parameters of a form, of a URL in a text, or of a program's text.
fn parameters_of_text(text: &str, about: About, form: &Regex, places: &mut Places) {
    // As with pairs: what is hidden already is not looked through again.
    let is_form = about.is_form.unwrap_or_default();
    let mut covered = 0;
    let most = places.len() + MAX_PLACES;
    let mut login = Login::new("");
    for found in form.captures_iter(text) {
        let (quote, value) = (found.get(2), found.get(3));
        let Some(begin) = quote.map(|it| it.end()).or(value.map(|it| it.start())) else {
            continue;
        };
        let name = end_of_name(found[1].trim_end_matches(':'));
        if begin < covered {
            continue;
        }
        let is_part = login.is_part(name);
        if !is_part && !is_secret(name) {
            continue;
        }
        let begin = if is_form {
            begin - quote.map_or(0, |it| it.len())
        } else {
            begin
        };
        let end = match (quote, value) {
            _ if is_form => text[begin..]
                .find('&')
                .map_or(text.trim_end().len().max(begin), |it| begin + it),
            (Some(quote), _) => pairs::string_end(text, begin, quote.as_str()),
            (None, Some(value)) => value.end(),
            (None, None) => continue,
        };
        covered = end;
        if is_part {
            login.add(name, text, begin..end);
        } else if !is_word(&text[begin..end]) {
            places.push(Place::of(begin..end));
        }
        if places.len() > most {
            // Nothing of the text is shown.
            return;
        }
    }
    login.places(text, places);
}

/// What opens an account, before a host. Many write `@` and `/` there as they are.
fn user_info(form: &Regex, text: &str, places: &mut Places) {
    for found in form.captures_iter(text) {
        let user = found.get(1).filter(|it| looks_drawn(it.as_str(), 8));
        // What begins like a port and a path is no password.
        let is_port = |it: &str| {
            let begin = it.split_once('/').map(|(begin, _)| begin);
            begin.is_some_and(|it| it.bytes().all(|it| it.is_ascii_digit()))
        };
        let password = found.get(2).filter(|it| !is_port(it.as_str()));
        places.extend(user.or(password).map(|it| Place::of(it.range())));
    }
}

/// Whether it is more than a word, as in `basic authentication`.
fn is_no_word(text: &str) -> bool {
    let rest = text.as_bytes().get(1..).unwrap_or_default();
    text.len() >= 20
        || text.bytes().any(|it| it.is_ascii_digit())
        || (rest.iter().any(u8::is_ascii_uppercase)
            && text.bytes().any(|it| it.is_ascii_lowercase()))
}

fn captured(form: &Regex, group: usize, text: &str) -> Places {
    let found = form.captures_iter(text);
    found
        .filter_map(|found| Some(Place::of(found.get(group)?.range())))
        .collect()
}
