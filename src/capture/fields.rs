//! Which keys of a JSON access log hold what.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// Which keys of a JSON access log hold what. A path of keys is written with
/// dots, and a key that has dots itself is tried as a whole first.
#[derive(Debug, Clone, Default)]
pub struct FieldMap {
    /// `(what, key)`, in the order given; these are tried before our own.
    pub given: Vec<(String, String)>,
}

/// What a field can be mapped to, and the keys it has in logs of nginx, Caddy,
/// Traefik, Envoy, `HAProxy`, Zentinel and their kin.
const KNOWN: [(&str, &[&str]); 11] = [
    (
        "method",
        &[
            "method",
            "request_method",
            "request.method",
            "RequestMethod",
            "http.method",
            "verb",
            "http_method",
            "http.request.method",
            "httpRequest.requestMethod",
        ],
    ),
    (
        "uri",
        &[
            // What was asked for, before what it was rewritten to.
            "request_uri",
            "original_uri",
            "original_url",
            "originalUrl",
            "url.original",
            "httpRequest.requestUrl",
            "http.url",
            "url",
            "uri",
            "request.uri",
            "RequestPath",
            "path",
            "request_path",
            "url.path",
        ],
    ),
    (
        "query",
        &[
            "query",
            "query_string",
            "args",
            "request_query",
            "url.query",
        ],
    ),
    ("request", &["request", "request_line", "requestLine"]),
    (
        "client_ip",
        &[
            "client_ip",
            "remote_addr",
            "request.client_ip",
            "request.remote_ip",
            "ClientHost",
            "remote_ip",
            "clientip",
            "downstream_remote_address",
            "client.ip",
            "source.ip",
            "httpRequest.remoteIp",
        ],
    ),
    (
        "status",
        &[
            "status",
            "DownstreamStatus",
            "response_code",
            "status_code",
            "http.status_code",
            "response.status",
            "http.response.status_code",
            "httpRequest.status",
        ],
    ),
    (
        "time",
        &[
            "timestamp",
            "time",
            "time_iso8601",
            "ts",
            "StartUTC",
            "start_time",
            "@timestamp",
            "msec",
            "time_local",
        ],
    ),
    (
        "id",
        &[
            "trace_id",
            "request_id",
            "correlation_id",
            "x_request_id",
            "requestId",
        ],
    ),
    (
        "header.host",
        &[
            "host",
            "http_host",
            "request.host",
            "RequestHost",
            "authority",
            "vhost",
            "url.domain",
        ],
    ),
    (
        "header.user-agent",
        &[
            "user_agent",
            "http_user_agent",
            "useragent",
            "request_User-Agent",
            "agent",
            "user_agent.original",
            "httpRequest.userAgent",
        ],
    ),
    (
        "header.referer",
        &[
            "referer",
            "http_referer",
            "referrer",
            "http_referrer",
            "request_Referer",
            "http.request.referrer",
            "httpRequest.referer",
        ],
    ),
];

/// Where logs keep headers by their names.
const HEADERS: [&str; 6] = [
    "request.headers",
    "headers",
    "request_headers",
    "req.headers",
    "http.request.headers",
    "httpRequest.headers",
];

/// Keys that begin as nginx's keys of headers do, and are none.
const NO_HEADERS: [&str; 11] = [
    "http_version",
    "http_protocol",
    "http_scheme",
    "http_code",
    "http_status",
    "http_status_code",
    "http_request",
    "http_path",
    "http_uri",
    "http_url",
    "http_verb",
];

/// A log's object. It tells without a search that it lacks a key, as it lacks most
/// of those that are tried.
#[derive(Clone, Copy)]
pub(super) struct LogObject<'l> {
    value: &'l Value,
    /// Has the [`bit`] of each of its keys.
    present: u128,
}

impl<'l> LogObject<'l> {
    pub(super) fn new(value: &'l Value) -> Self {
        let keys = value.as_object().into_iter().flat_map(Map::keys);
        let present = keys.fold(0, |present, key| present | bit(key));
        Self { value, present }
    }

    /// Whether something may stand at this key; an object without one of its bits
    /// has nothing there.
    fn may_have(self, key: &Key<'_>) -> bool {
        self.present & key.bits != 0
    }
}

/// One of 128 for a key; other keys may have the same.
fn bit(key: &str) -> u128 {
    let bytes = key.as_bytes();
    let end = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default());
    let sum = end(bytes.first()) * 5 + end(bytes.last()) * 11 + bytes.len() * 23;
    1 << (sum % 128)
}

/// A key, or a path of keys, that a log may have.
#[derive(Clone, Copy)]
struct Key<'a> {
    path: &'a str,
    /// Those of the whole path and of its first part.
    bits: u128,
}

impl<'a> Key<'a> {
    fn new(path: &'a str) -> Self {
        let first = path.split('.').next().unwrap_or(path);
        let bits = bit(path) | bit(first);
        Self { path, bits }
    }
}

/// [`HEADERS`] with their bits.
static HEADER_KEYS: LazyLock<[Key<'static>; HEADERS.len()]> =
    LazyLock::new(|| HEADERS.map(Key::new));

/// [`KNOWN`] with the bits of its keys.
static KNOWN_KEYS: LazyLock<[(&str, Vec<Key<'static>>); KNOWN.len()]> = LazyLock::new(|| {
    KNOWN.map(|(what, paths)| (what, paths.iter().map(|path| Key::new(path)).collect()))
});

/// A header that a log has.
pub(super) struct Logged<'a> {
    pub(super) name: String,
    pub(super) value: &'a Value,
}

impl FieldMap {
    /// What `--field` can name.
    #[must_use]
    pub fn is_known(what: &str) -> bool {
        KNOWN.iter().any(|(known, _)| *known == what)
            || what
                .strip_prefix("header.")
                .is_some_and(|name| !name.is_empty())
    }

    /// The first value that the log has for it.
    pub(super) fn find(&self, what: &str, log: LogObject<'_>) -> Option<String> {
        self.all(what, log).next()
    }

    /// What the keys that were given hold, not those of our own.
    pub(super) fn given(&self, what: &str, log: LogObject<'_>) -> Option<String> {
        let mut keys = self.given_keys(what);
        keys.find_map(|key| text_at(log, key))
    }

    /// What the first of its keys holds that holds anything.
    pub(super) fn raw<'l>(&self, what: &str, log: LogObject<'l>) -> Vec<&'l Value> {
        let values = self.keys(what, log).map(|key| {
            let values = values_at(log, key);
            values.filter(|value| !is_nothing(value)).collect()
        });
        let mut filled = values.filter(|values: &Vec<_>| !values.is_empty());
        filled.next().unwrap_or_default()
    }

    /// Whether one of its keys holds a list of different texts.
    pub(super) fn is_list(&self, what: &str, log: LogObject<'_>) -> bool {
        self.keys(what, log).any(|key| {
            let mut values = values_at(log, key);
            let (first, second) = (values.next(), values.next());
            if second.is_none() && first.is_none_or(|first| !first.is_array()) {
                return false;
            }
            let texts = texts_at(log, key);
            texts.iter().any(|text| *text != texts[0])
        })
    }

    /// All headers of the log that are known by their place, and whether there
    /// are some without a name.
    pub(super) fn headers(log: LogObject<'_>) -> (Vec<Logged<'_>>, bool) {
        let mut found = Vec::new();
        let mut has_nameless = false;
        let keys = HEADER_KEYS.iter().filter(|key| log.may_have(key));
        for place in keys.flat_map(|key| values_at(log, *key)) {
            let named = named_values(place);
            let is_list = matches!(place, Value::Array(items) if items.len() != named.len());
            has_nameless |=
                is_list || !place.is_object() && !place.is_array() && !is_nothing(place);
            found.extend(named.into_iter().map(|(name, value)| Logged {
                name: name.to_ascii_lowercase(),
                value,
            }));
        }
        let keys = log.value.as_object().into_iter().flatten();
        let of_keys = keys.filter_map(|(key, value)| {
            let name = header_of(key)?;
            Some(Logged { name, value })
        });
        found.extend(of_keys);
        (found, has_nameless)
    }

    /// What each of its keys holds first.
    pub(super) fn all<'a>(
        &'a self,
        what: &'a str,
        log: LogObject<'a>,
    ) -> impl Iterator<Item = String> + 'a {
        self.keys(what, log)
            .filter_map(move |key| text_at(log, key))
    }

    /// All values of the first of its keys that holds any.
    pub(super) fn values(&self, what: &str, log: LogObject<'_>) -> Vec<String> {
        let mut keys = self.keys(what, log).map(|key| texts_at(log, key));
        keys.find(|values| !values.is_empty()).unwrap_or_default()
    }

    /// The keys that this log may have, those that were given first.
    fn keys<'a>(&'a self, what: &'a str, log: LogObject<'a>) -> impl Iterator<Item = Key<'a>> {
        let known = KNOWN_KEYS.iter().find(|(name, _)| *name == what);
        let known = known.map_or(&[][..], |(_, keys)| keys);
        let known = known.iter().filter(move |key| log.may_have(key));
        self.given_keys(what).chain(known.copied())
    }

    fn given_keys<'a>(&'a self, what: &'a str) -> impl Iterator<Item = Key<'a>> {
        let given = self.given.iter().filter(move |(name, _)| name == what);
        given.map(|(_, key)| Key::new(key))
    }

    /// Names that the map itself gives headers.
    pub(super) fn mapped_headers(&self) -> impl Iterator<Item = &str> {
        self.given
            .iter()
            .filter_map(|(what, _)| what.strip_prefix("header."))
    }
}

/// The header that a key of nginx (`http_cookie`) or of Traefik
/// (`request_Cookie`) is of.
fn header_of(key: &str) -> Option<String> {
    let is_known = || KNOWN.iter().any(|(_, keys)| keys.contains(&key));
    let name = match key {
        "cookie" | "authorization" | "x_forwarded_for" => key,
        _ => {
            let of_nginx = key.strip_prefix("http_");
            let of_traefik = key.strip_prefix("request_");
            let of_traefik =
                of_traefik.filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()));
            of_nginx.or(of_traefik)?
        }
    };
    let is_header = !NO_HEADERS.contains(&key) && !is_known();
    let is_plain = !name.is_empty() && !name.contains('.');
    (is_header && is_plain).then(|| name.replace('_', "-").to_ascii_lowercase())
}

/// The texts at a path of keys. A list of names and values is a map, which may
/// have a name several times.
fn texts_at(log: LogObject<'_>, key: Key<'_>) -> Vec<String> {
    values_at(log, key).flat_map(texts).collect()
}

/// The first of them.
fn text_at(log: LogObject<'_>, key: Key<'_>) -> Option<String> {
    values_at(log, key).find_map(first_text)
}

/// The same values as they are.
fn values_at<'l>(log: LogObject<'l>, key: Key<'_>) -> impl Iterator<Item = &'l Value> + use<'l> {
    let direct = log.value.get(key.path);
    let deep = match direct {
        None if key.path.contains('.') => values_at_path(log.value, key.path),
        _ => Vec::new(),
    };
    direct.into_iter().chain(deep)
}

fn values_at_path<'l>(log: &'l Value, path: &str) -> Vec<&'l Value> {
    let mut found = vec![log];
    for part in path.split('.') {
        let values = found.into_iter();
        found = values.flat_map(|value| step(value, part)).collect();
    }
    found
}

/// Whether a log says with it that there is nothing.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || text == "-",
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The values of a name in a map, or in a list of names and values.
fn step<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    if let Value::Object(map) = value {
        return map.get(name).into_iter().collect();
    }
    let named = named_values(value).into_iter();
    let same = named.filter(|(found, _)| found.eq_ignore_ascii_case(name));
    same.map(|(_, value)| value).collect()
}

/// Names and values of a map, or of a list of `{"name": …, "value": …}` or of
/// pairs.
pub(super) fn named_values(value: &Value) -> Vec<(&str, &Value)> {
    match value {
        Value::Object(map) => map.iter().map(|(name, it)| (name.as_str(), it)).collect(),
        Value::Array(items) => items.iter().filter_map(pair).collect(),
        _ => Vec::new(),
    }
}

fn pair(item: &Value) -> Option<(&str, &Value)> {
    match item {
        Value::Object(item) => {
            let name = item.get("name").or_else(|| item.get("key"))?;
            Some((name.as_str()?, item.get("value")?))
        }
        Value::Array(item) => match item.as_slice() {
            [name, value] => Some((name.as_str()?, value)),
            _ => None,
        },
        _ => None,
    }
}

/// A value as text, or those of a list; what is empty or `-` is none.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) if !items.iter().any(Value::is_array) => {
            items.iter().flat_map(texts).collect()
        }
        value => text(value).into_iter().collect(),
    }
}

/// The first of them.
fn first_text(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) if !items.iter().any(Value::is_array) => {
            items.iter().find_map(first_text)
        }
        value => text(value),
    }
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Bool(value) => Cow::Owned(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.is_empty() && text != "-").then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Logs that have something at this path alone: as one key, and within objects.
    fn logs(path: &str, value: &Value) -> [Value; 2] {
        let parts = path.rsplit('.');
        let nested = parts.fold(value.clone(), |value, part| json!({ part: value }));
        [json!({ path: value }), nested]
    }

    #[test]
    fn every_known_key_is_found_wherever_it_stands() {
        let fields = FieldMap::default();
        for (what, paths) in KNOWN {
            for log in paths.iter().flat_map(|path| logs(path, &json!("x"))) {
                let found = fields.find(what, LogObject::new(&log));
                assert_eq!(found.as_deref(), Some("x"), "{what}: {log}");
            }
        }
        for log in HEADERS
            .iter()
            .flat_map(|path| logs(path, &json!({"A": "x"})))
        {
            let (found, _) = FieldMap::headers(LogObject::new(&log));
            assert_eq!(found.len(), 1, "{log}");
        }
    }
}
