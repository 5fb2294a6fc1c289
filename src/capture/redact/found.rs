//! The secrets that were found in an exchange; removes them from other texts.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::super::base_64;
use super::body::Tail;
use super::finder::{Finder, Rest};
use super::layers::Layer;
use super::stand_in::{REST, STAND_IN, Shapes, StandIn, around, is_inside};
use super::{binary, encoded, places};

/// Bytes of all secrets of one exchange that are looked for elsewhere, too.
/// With more of them nothing of its texts is shown.
const MAX_KNOWN_BYTES: usize = 256 << 10;
/// Bytes of one of them; a longer one is looked for by its beginning.
const MAX_SECRET_BYTES: usize = 16 << 10;
/// Shorter values are too common to be replaced wherever they occur.
const LEAST_ECHOED: usize = 6;
/// With so many secrets that a module may be asked about no more are taken, nor more
/// words of one.
const MAX_SHAPED: usize = 256;
const MAX_WORDS: usize = 64;
/// Ends what was quoted in part.
const ELLIPSIS: char = '…';
/// Bytes of a secret that is looked for in base64, too.
const MAX_ENCODED_BYTES: usize = 1 << 10;
/// What stays of an input and an answer where nothing else is shown: without
/// it they could not be read at all.
const STAY: [&str; 4] = ["method", "client_ip", "encoding", "decision"];

/// Secrets found so far, and where.
#[derive(Debug, Default, Clone)]
pub struct SecretsFound {
    secrets: Vec<Secret>,
    seen: HashSet<Secret>,
    known_bytes: usize,
    /// What stands for each of them.
    tokens: Vec<Arc<str>>,
    /// Each finds a part of the secrets, the larger parts first.
    parts: Vec<Arc<Part>>,
    /// Numbers of secrets of any length, by their hash.
    numbers: HashMap<[u8; 16], usize>,
    /// There were more secrets than are kept.
    pub(super) is_full: bool,
    /// Inputs may hold no more than a part of a secret.
    cuts: Option<Arc<Cuts>>,
    /// How the exchange's id is written, from its first record on.
    id: Option<(String, String)>,
    /// What chunks left for the next ones, of either body.
    pub(super) tails: [Tail; 2],
    /// Where secrets stood, since the last [`begin`](Self::begin).
    pub fields: Vec<String>,
    known_fields: HashSet<String>,
    /// How many stood anywhere, known ones too.
    pub(super) count: usize,
    /// Shapes that stand for secrets.
    shapes: HashSet<Arc<str>>,
    /// Secrets that are written by their shape, and words of them that may stay
    /// readable where the answer hangs on them.
    pub(super) shaped: Shapes,
}

/// One secret as it is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Secret {
    text: Arc<str>,
    /// It is the beginning of a longer one.
    is_cut: bool,
    /// It is what base64 makes of one.
    is_encoded: bool,
}

/// Where else a secret is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echoed {
    All,
    /// Nowhere if it is a value that stands in many places: a word, an address.
    Rare,
}

impl Echoed {
    pub(super) fn has(self, secret: &str) -> bool {
        let classes = [
            u8::is_ascii_digit as fn(&u8) -> bool,
            u8::is_ascii_alphabetic,
            |it: &u8| !it.is_ascii_alphanumeric(),
        ];
        let classes = classes
            .iter()
            .filter(|it| secret.as_bytes().iter().any(**it));
        self == Self::All
            || ((classes.count() > 1 || secret.len() >= 12)
                && secret.parse::<std::net::IpAddr>().is_err())
    }
}

#[derive(Debug)]
struct Part {
    secrets: Range<usize>,
    bytes: usize,
    finder: Finder,
}

/// A place in a text, and the secret that stands there.
#[derive(Debug)]
struct Place {
    range: Range<usize>,
    secret: usize,
}

/// What tells parts of secrets.
#[derive(Debug)]
struct Cuts {
    /// All that is in a secret, in pieces of the least length.
    pieces: HashMap<[u8; LEAST_ECHOED], usize>,
    /// Finds their ends, read backwards.
    backwards: Finder,
    /// Of a secret only the beginning is known.
    any_cut: bool,
}

impl SecretsFound {
    /// Forgets where secrets stood, and keeps which they are: for the next
    /// record of the same exchange.
    pub fn begin(&mut self) {
        // Their memory, too: an exchange may be kept for long.
        self.fields = Vec::new();
        self.known_fields = HashSet::new();
    }

    /// Bytes of memory that it takes, estimated.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let parts: usize = self.parts.iter().map(|it| it.finder.size_bytes()).sum();
        // Each is there twice.
        let fields = self.fields.iter();
        let fields: usize = fields.map(|it| 2 * (it.len() + size_of::<String>())).sum();
        size_of::<Self>()
            + parts
            + fields
            + self.known_bytes
            + self.secrets.len() * 4 * size_of::<Secret>()
            + self.numbers.len() * 64
            + self.shapes.iter().map(|it| it.len() + 64).sum::<usize>()
            + self
                .id
                .as_ref()
                .map_or(0, |(id, shown)| id.len() + shown.len())
            + self.tails.iter().map(|it| it.text.len()).sum::<usize>()
    }

    /// Whether any secret was found.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.is_full || !self.secrets.is_empty()
    }

    /// Whether any secret was met in the exchange, also one that is too short to be
    /// looked for elsewhere.
    #[must_use]
    pub const fn met_any(&self) -> bool {
        self.is_full || self.count > 0
    }

    #[cfg(test)]
    pub(super) fn known_tokens(&self) -> usize {
        self.tokens.iter().collect::<HashSet<_>>().len()
    }

    /// Takes a secret in all its spellings, and what stands for it.
    pub(super) fn note<'s>(
        &mut self,
        field: &str,
        spellings: impl IntoIterator<Item = &'s str>,
        stand_in: &StandIn<'_>,
    ) {
        self.count += 1;
        self.note_field(field);
        let mut last: Option<Arc<str>> = None;
        for spelling in spellings {
            self.ask_about(stand_in.asked(spelling));
            if stand_in.is_shape() {
                self.shapes.insert(stand_in.of(spelling).into());
            }
            let Some(secret) = self.room_for(spelling) else {
                continue;
            };
            let encoded = encodings(&secret);
            for secret in std::iter::once(secret).chain(encoded) {
                let text = stand_in.of(&secret.text);
                self.keep(secret, text, &mut last);
            }
        }
    }

    /// Takes a secret that may be written by its shape, and words of it.
    fn ask_about(&mut self, asked: Option<(&str, BTreeSet<String>)>) {
        if let Some((token, words)) = asked
            && (self.shaped.len() < MAX_SHAPED || self.shaped.contains_key(token))
        {
            let known = self.shaped.entry(token.to_owned()).or_default();
            if known.len() < MAX_WORDS {
                known.extend(words);
            }
        }
    }

    /// Keeps a secret, if it is not kept yet, and what stands for it.
    fn keep(&mut self, secret: Secret, text: String, last: &mut Option<Arc<str>>) {
        if !self.seen.insert(secret.clone()) {
            return;
        }
        let token = last.take().filter(|last| **last == *text);
        let token = token.unwrap_or_else(|| text.into());
        self.secrets.push(secret);
        self.tokens.push(Arc::clone(&token));
        *last = Some(token);
    }

    /// Takes another text that the same stands for.
    pub(super) fn note_as(&mut self, secret: &str, token: &str) {
        self.note_field("data");
        if let Some(secret) = self.room_for(secret) {
            let encoded = encodings(&secret);
            let mut last = None;
            for secret in std::iter::once(secret).chain(encoded) {
                self.keep(secret, token.to_owned(), &mut last);
            }
        }
    }

    /// Whether it is the shape of a secret, and so none.
    pub(super) fn is_shape(&self, text: &str) -> bool {
        self.shapes.contains(text)
    }

    pub(super) fn note_field(&mut self, field: &str) {
        if !self.known_fields.contains(field) {
            self.known_fields.insert(field.to_owned());
            self.fields.push(field.to_owned());
        }
    }

    /// A secret that is not kept yet, if it has to be and there is room.
    fn room_for(&mut self, secret: &str) -> Option<Secret> {
        if secret.len() < LEAST_ECHOED || self.is_full {
            return None;
        }
        let kept = secret.floor_char_boundary(MAX_SECRET_BYTES);
        let secret = Secret {
            text: secret[..kept].into(),
            is_cut: kept < secret.len(),
            is_encoded: false,
        };
        if self.seen.contains(&secret) {
            return None;
        }
        if self.known_bytes + kept > MAX_KNOWN_BYTES {
            // Nothing is looked for any more.
            *self = Self {
                is_full: true,
                numbers: std::mem::take(&mut self.numbers),
                cuts: self.cuts.take(),
                id: self.id.take(),
                tails: std::mem::take(&mut self.tails),
                fields: std::mem::take(&mut self.fields),
                known_fields: std::mem::take(&mut self.known_fields),
                count: self.count,
                ..Self::default()
            };
            return None;
        }
        self.known_bytes += kept;
        Some(secret)
    }

    /// The number of a secret, in the order in which they were met.
    pub(super) fn number(&mut self, secret: &str) -> usize {
        let mut key = [0; 16];
        key.copy_from_slice(&Sha256::digest(secret)[..16]);
        let next = self.numbers.len() + 1;
        *self.numbers.entry(key).or_insert(next)
    }

    /// Whether it stands for a secret that has a number.
    pub(super) fn is_numbered(&self, text: &str) -> bool {
        let text = text.trim_matches(['"', '\'', ' ']);
        let number = text.strip_prefix(STAND_IN);
        let number = number.and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| (1..=self.numbers.len()).contains(&number))
    }

    /// Makes known to [`text`](Self::text) what was found since the last time.
    /// What is new is joined with parts that are not much larger, so each
    /// secret is read again a few times only, however many come after it.
    pub(super) fn index(&mut self) {
        let mut begin = self.parts.last().map_or(0, |part| part.secrets.end);
        let end = self.secrets.len();
        if begin == end {
            return;
        }
        let lengths = self.secrets[begin..].iter().map(|it| it.text.len());
        let mut bytes: usize = lengths.sum();
        while let Some(last) = self.parts.pop_if(|last| last.bytes < 2 * bytes) {
            begin = last.secrets.start;
            bytes += last.bytes;
        }
        let secrets = self.secrets.iter().enumerate().skip(begin);
        let finder = Finder::new(secrets.map(|(number, it)| (number, it.text.bytes())));
        self.parts.push(Arc::new(Part {
            secrets: begin..end,
            bytes,
            finder,
        }));
    }

    /// The secrets alone, to be looked for in other inputs of the exchange.
    #[must_use]
    pub fn known(&self) -> Self {
        let mut known = self.clone();
        known.begin();
        known.count = 0;
        known.id = None;
        known.tails = Default::default();
        known
    }

    /// The same, to be looked for in parts of its inputs.
    #[must_use]
    pub fn known_in_parts(&self) -> Self {
        let mut known = self.known();
        known.cuts = Some(Arc::new(Cuts::of(&self.secrets)));
        known
    }

    pub(super) const fn looks_for_cuts(&self) -> bool {
        self.cuts.is_some()
    }

    /// Any text, without the secrets that were found.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !may_hold_secret(text) || !self.is_any() {
            return Cow::Borrowed(text);
        }
        if self.is_full {
            return Cow::Owned(REST.to_owned());
        }
        let mut places = self.places(text);
        places.retain_mut(|place| {
            if is_inside(text, &place.range) {
                return false;
            }
            // Of a stand-in that it begins in nothing changes.
            if let Some(stand_in) = around(text, &place.range) {
                place.range.start = place.range.start.max(stand_in.end);
            }
            true
        });
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for Place { range, secret } in places {
            out.push_str(&text[at..range.start]);
            out.push_str(&self.tokens[secret]);
            at = range.end;
        }
        out.push_str(&text[at..]);
        Cow::Owned(out)
    }

    /// The same of a text that may quote others no further than to a `…`:
    /// without the beginning of a secret before one, too.
    #[must_use]
    pub fn quoting_text(&self, text: &str) -> String {
        let text = self.text(text);
        let mut out = String::with_capacity(text.len());
        for piece in text.split_inclusive(ELLIPSIS) {
            let rest = piece.strip_suffix(ELLIPSIS).and_then(|quoted| {
                let rest = self.begun(quoted.as_bytes())?;
                Some((&quoted[..quoted.len() - rest.length], rest.secret))
            });
            match rest {
                Some((before, secret)) => {
                    out.extend([before, &*self.tokens[secret]]);
                    out.push(ELLIPSIS);
                }
                None => out.push_str(piece),
            }
        }
        out
    }

    /// The longest beginning of a secret that a text ends with.
    fn begun(&self, text: &[u8]) -> Option<Rest> {
        let ends = self.parts.iter().filter_map(|part| {
            let rest = part.finder.read(text.iter().copied(), |_| {});
            let is_plain = |it: &Rest| !self.secrets[it.secret].is_encoded;
            rest.filter(|rest| rest.length >= LEAST_ECHOED && is_plain(rest))
        });
        ends.max_by_key(|rest| rest.length)
    }

    /// Where secrets stand, however they are spelled. Those that overlap are one
    /// place, so that nothing is left of either.
    fn places(&self, text: &str) -> Vec<Place> {
        let mut all = Vec::new();
        Layer::each(text, |layer| {
            for part in &self.parts {
                let mut places = Vec::new();
                // Of a secret that is known by its beginning it is all the rest.
                let mut cut: Option<Place> = None;
                let text = &*layer.text;
                part.finder.read(text.bytes(), |hit| {
                    let found = &self.secrets[hit.secret];
                    let mut place = Place {
                        range: hit.end - found.text.len()..hit.end,
                        secret: hit.secret,
                    };
                    if found.is_cut {
                        place.range.end = text.len();
                        cut.get_or_insert(place);
                    } else {
                        join(&mut places, place);
                    }
                });
                if let Some(cut) = cut {
                    join(&mut places, cut);
                }
                for place in &mut places {
                    place.range = layer.origin(place.range.start)..layer.origin(place.range.end);
                }
                all.push(places);
            }
        });
        if all.len() < 2 {
            return all.pop().unwrap_or_default();
        }
        let mut apart: Vec<Place> = all.into_iter().flatten().collect();
        apart.sort_by_key(|place| (place.range.end, std::cmp::Reverse(place.range.start)));
        let mut places = Vec::new();
        for place in apart {
            join(&mut places, place);
        }
        places
    }

    /// Secrets that begin before a place of a text and end behind it, and what
    /// of one begins at its end where it goes on.
    pub(super) fn across(&self, text: &str, from: usize, goes_on: bool) -> places::Places {
        let places = self.places(text).into_iter().map(|it| it.range);
        let mut all: places::Places = places
            .filter(|it| it.start < from && it.end > from)
            .map(places::Place::of)
            .collect();
        if goes_on && let Some(rest) = self.begun(text.as_bytes()) {
            all.push(places::Place::of(text.len() - rest.length..text.len()));
        }
        all
    }

    /// Every text and key of a value, without the secrets that were found.
    /// Whether there were any.
    pub(super) fn texts(&self, value: &mut Value) -> bool {
        replace_texts(value, &mut |text, kind| match kind {
            Kind::Bytes => self.base64(text),
            Kind::Key => other(self.key(text)),
            // A client that sends one of these words as its cookie changes none.
            Kind::Encoding if PROTOCOL_WORDS.contains(&text) => None,
            Kind::Text | Kind::Encoding => other(self.text(text)),
        })
    }

    /// A key of an answer, or of a hook's context, which may be a secret. The
    /// words that all of them have stay.
    #[must_use]
    pub fn key<'a>(&self, key: &'a str) -> Cow<'a, str> {
        if is_word(key) {
            return Cow::Borrowed(key);
        }
        self.text(key)
    }

    /// Bytes in base64, without the secrets that were found in them. None
    /// where there were none.
    fn base64(&self, data: &str) -> Option<String> {
        let is_plain = |it: &Place| !self.secrets[it.secret].is_encoded;
        if self.is_full || self.places(data).iter().any(is_plain) {
            // It is itself what is secret.
            return Some(base_64::encode(REST));
        }
        encoded::edit_base64(data, REST, &mut |text| other(self.text(text)))
    }

    /// The same, without what was left of a secret at either end. Secrets are
    /// looked for in the bytes, since a cut may have gone through a character,
    /// and in their text, as which a secret that is no UTF-8 is known.
    fn cut_base64(&self, data: &str) -> Option<String> {
        if self.without_rests(data.as_bytes()).is_some() {
            return Some(base_64::encode(REST));
        }
        let bytes = base_64::decode(data).ok()?;
        let other = self.without_rests(&bytes);
        let text = binary::as_text(other.as_ref().unwrap_or(&bytes));
        let of_text = self.without_rests(text.as_bytes());
        let of_text = of_text.map(|it| binary::as_bytes(&String::from_utf8_lossy(&it)));
        of_text.or(other).map(base_64::encode)
    }

    /// Every text of a value whose parts may be cut: without what was left of
    /// a secret at either end.
    pub(super) fn cut_texts(&self, value: &mut Value) -> bool {
        replace_texts(value, &mut |text, kind| {
            match kind {
                Kind::Bytes => return self.cut_base64(text),
                Kind::Key if is_word(text) => return None,
                Kind::Key | Kind::Text | Kind::Encoding => {}
            }
            let rest = self.without_rests(text.as_bytes())?;
            Some(String::from_utf8(rest).unwrap_or_else(|_| REST.to_owned()))
        })
    }

    /// The text without the beginning of a secret at its end, the end of one at
    /// its beginning, and without anything if it is made of parts of them.
    fn without_rests(&self, text: &[u8]) -> Option<Vec<u8>> {
        let cuts = self.cuts.as_ref()?;
        if text.len() < LEAST_ECHOED || !self.is_any() {
            return None;
        }
        if self.is_full || cuts.any_cut {
            return Some(REST.into());
        }
        if let Some(secret) = cuts.whole(text) {
            return Some(self.tokens[secret].as_bytes().to_vec());
        }
        let end = self.begun(text);
        let begin = cuts.backwards.read(text.iter().rev().copied(), |_| {});
        let begin = begin.filter(|rest| rest.length >= LEAST_ECHOED);
        let (from, to) = (
            begin.map_or(0, |rest| rest.length),
            text.len() - end.map_or(0, |rest| rest.length),
        );
        let token =
            |rest: Option<Rest>| rest.map_or(&[][..], |rest| self.tokens[rest.secret].as_bytes());
        match (begin, end) {
            (None, None) => None,
            (Some(_), Some(_)) if from >= to => Some(token(begin).to_vec()),
            _ => Some([token(begin), &text[from..to], token(end)].concat()),
        }
    }

    /// Hides every text of an input or an answer, since it could hold a secret
    /// that was not kept.
    pub(super) fn hide_texts(value: &mut Value) {
        let Value::Object(map) = value else {
            replace_texts(value, &mut hidden);
            return;
        };
        let is_base64 = binary::is_base64(map);
        for (key, value) in map.iter_mut() {
            if !(value.is_string() && STAY.contains(&key.as_str())) {
                replace_text(value, Kind::of(key, is_base64), &mut hidden);
            }
        }
        replace_keys(map, &mut hidden);
    }

    /// Whether it is known how the exchange's id is written.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.id.as_ref().is_some_and(|(known, _)| known == id)
    }

    /// How the exchange's id is written: the same in all its records, whatever
    /// is found later.
    pub(super) fn id(&mut self, id: &str, or_hashed: impl FnOnce() -> String) -> String {
        if let Some((known, shown)) = &self.id
            && known == id
        {
            return shown.clone();
        }
        let shown = if self.is_full {
            or_hashed()
        } else {
            self.text(id).into_owned()
        };
        self.id
            .get_or_insert_with(|| (id.to_owned(), shown.clone()));
        shown
    }
}

/// A secret as it is in base64, wherever in the encoded text it begins: without
/// the characters that others have a part in.
fn encodings(secret: &Secret) -> Vec<Secret> {
    const LEAST: usize = 8;
    let text = secret.text.as_bytes();
    if !(LEAST..=MAX_ENCODED_BYTES).contains(&text.len()) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for before in 0..3 {
        let mut padded = vec![0; before];
        padded.extend_from_slice(text);
        let encoded = base_64::encode(&padded);
        let from = [0, 2, 3][before];
        let to = padded.len() / 3 * 4 + [0, 1, 2][padded.len() % 3];
        let standard = &encoded[from..to];
        let url = standard.replace('+', "-").replace('/', "_");
        let is_other = url != standard;
        for text in [Some(standard), is_other.then_some(&*url)]
            .into_iter()
            .flatten()
        {
            all.push(Secret {
                text: text.into(),
                is_cut: false,
                is_encoded: true,
            });
        }
    }
    all
}

impl Cuts {
    fn of(secrets: &[Secret]) -> Self {
        let mut pieces = HashMap::new();
        let plain = || secrets.iter().enumerate().filter(|(_, it)| !it.is_encoded);
        for (number, secret) in plain() {
            for piece in secret.text.as_bytes().windows(LEAST_ECHOED) {
                if let Ok(piece) = piece.try_into() {
                    pieces.entry(piece).or_insert(number);
                }
            }
        }
        Self {
            pieces,
            backwards: Finder::new(plain().map(|(number, it)| (number, it.text.bytes().rev()))),
            any_cut: secrets.iter().any(|secret| secret.is_cut),
        }
    }

    /// The secret that a text is a part of, or the first of several.
    fn whole(&self, text: &[u8]) -> Option<usize> {
        let mut pieces = text.windows(LEAST_ECHOED);
        let secret = |piece: &[u8]| {
            let piece: [u8; LEAST_ECHOED] = piece.try_into().ok()?;
            self.pieces.get(&piece).copied()
        };
        let first = secret(pieces.next()?)?;
        pieces.all(|piece| secret(piece).is_some()).then_some(first)
    }
}

/// Adds a place that ends behind all others to them.
fn join(places: &mut Vec<Place>, mut place: Place) {
    while let Some(last) = places.pop_if(|last| place.range.start < last.range.end) {
        if last.range.start < place.range.start {
            place.range.start = last.range.start;
            place.secret = last.secret;
        }
    }
    places.push(place);
}

/// Values of the protocol's own fields.
const PROTOCOL_WORDS: [&str; 10] = [
    "allow",
    "block",
    "challenge",
    "redirect",
    "deny",
    "drop",
    "replace",
    "pass_through",
    "base64",
    "utf8",
];

/// What a text of a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// A key of an object.
    Key,
    /// Bytes in base64.
    Bytes,
    /// Says that the text beside it is bytes in base64.
    Encoding,
}

impl Kind {
    /// Of what an object has under this key.
    fn of(key: &str, is_base64: bool) -> Self {
        match key {
            "data" if is_base64 => Self::Bytes,
            "encoding" | "decision" | "action" => Self::Encoding,
            _ => Self::Text,
        }
    }
}

/// Puts another text in each text's place, where there is one. Whether there
/// was any.
fn replace_texts(value: &mut Value, other: &mut impl FnMut(&str, Kind) -> Option<String>) -> bool {
    replace_text(value, Kind::Text, other)
}

fn replace_text(
    value: &mut Value,
    kind: Kind,
    other: &mut impl FnMut(&str, Kind) -> Option<String>,
) -> bool {
    match value {
        Value::String(text) => {
            let other = other(text, kind);
            other.map(|other| *text = other).is_some()
        }
        Value::Array(values) => values
            .iter_mut()
            .fold(false, |any, value| replace_texts(value, other) | any),
        Value::Object(map) => {
            let is_base64 = binary::is_base64(map);
            let any = map.iter_mut().fold(false, |any, (key, value)| {
                replace_text(value, Kind::of(key, is_base64), other) | any
            });
            replace_keys(map, other) | any
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Puts other keys in their place, in their order; each is there once.
fn replace_keys(
    map: &mut Map<String, Value>,
    other: &mut impl FnMut(&str, Kind) -> Option<String>,
) -> bool {
    let others: Vec<Option<String>> = map.keys().map(|key| other(key, Kind::Key)).collect();
    if others.iter().all(Option::is_none) {
        return false;
    }
    let before = std::mem::take(map);
    // How many have become the same: as many as somebody sends.
    let mut alike: HashMap<String, usize> = HashMap::new();
    for ((key, value), other) in before.into_iter().zip(others) {
        let wanted = other.unwrap_or(key);
        let mut key = wanted.clone();
        while map.contains_key(&key) {
            let count = alike.entry(wanted.clone()).or_insert(0);
            *count += 1;
            key = match *count {
                1 => format!("{wanted}'"),
                count => format!("{wanted}'{count}"),
            };
        }
        map.insert(key, value);
    }
    true
}

fn other(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Borrowed(_same) => None,
        Cow::Owned(other) => Some(other),
    }
}

/// Whether it is a key that inputs and answers have in any case.
fn is_word(key: &str) -> bool {
    const WORDS: [&str; 31] = [
        "action",
        "audit",
        "bytes_received",
        "bytes_sent",
        "challenge",
        "challenge_type",
        "chunk_index",
        "client_ip",
        "confidence",
        "correlation_id",
        "decision",
        "details",
        "encoding",
        "headers",
        "is_last",
        "method",
        "needs_more",
        "params",
        "reason_codes",
        "redirect",
        "remove",
        "replace",
        "request_body_mutation",
        "request_headers",
        "response_body_mutation",
        "response_headers",
        "routing_metadata",
        "rule_ids",
        "status",
        "tenant_id",
        "total_size",
    ];
    WORDS.contains(&key)
}

fn hidden(text: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::Bytes => Some(base_64::encode(REST)),
        Kind::Key => (may_hold_secret(text) && !is_word(text)).then(|| REST.to_owned()),
        Kind::Text if may_hold_secret(text) => Some(REST.to_owned()),
        Kind::Text | Kind::Encoding => None,
    }
}

/// Whether a text is long enough for [`SecretsFound::text`] to replace any of it.
#[must_use]
pub(crate) const fn may_hold_secret(text: &str) -> bool {
    text.len() >= LEAST_ECHOED
}
