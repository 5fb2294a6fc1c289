//! Which keys of a JSON access log hold what.

use serde_json::Value;

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
        ],
    ),
    (
        "uri",
        &[
            // What was asked for, before what it was rewritten to.
            "request_uri",
            "uri",
            "request.uri",
            "RequestPath",
            "path",
            "url",
            "http.url",
            "request_path",
        ],
    ),
    ("query", &["query", "query_string", "args"]),
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
        ],
    ),
    (
        "header.referer",
        &["referer", "http_referer", "referrer", "request_Referer"],
    ),
];

impl FieldMap {
    /// What `--field` can name.
    #[must_use]
    pub fn is_known(what: &str) -> bool {
        KNOWN.iter().any(|(known, _)| *known == what)
            || what
                .strip_prefix("header.")
                .is_some_and(|name| !name.is_empty())
    }

    pub(super) fn find(&self, what: &str, log: &Value) -> Option<String> {
        let given = self
            .given
            .iter()
            .filter(|(name, _)| name == what)
            .map(|(_, key)| key.as_str());
        let known = KNOWN
            .iter()
            .filter(|(name, _)| *name == what)
            .flat_map(|(_, keys)| keys.iter().copied());
        given
            .chain(known)
            .filter_map(|key| lookup(log, key))
            .find(|text| !text.is_empty() && text != "-")
    }

    /// Names that the map itself gives headers.
    pub(super) fn mapped_headers(&self) -> impl Iterator<Item = &str> {
        self.given
            .iter()
            .filter_map(|(what, _)| what.strip_prefix("header."))
    }
}

fn lookup(log: &Value, key: &str) -> Option<String> {
    let found = log
        .get(key)
        .or_else(|| key.split('.').try_fold(log, |value, part| value.get(part)))?;
    match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
