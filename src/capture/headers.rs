//! Header fields as a capture has them, made what a proxy would send.

use crate::event::Headers;

/// Takes the HTTP/2 pseudo-headers away and hands back `(name, value)` of
/// each. `:authority` becomes `host` where there is none.
pub(super) fn split_pseudo(headers: &mut Headers) -> Headers {
    if !headers.iter().any(|(name, _)| name.starts_with(':')) {
        return Headers::new();
    }
    let (pseudo, mut plain) = headers
        .iter()
        .partition::<Headers, _>(|(name, _)| name.starts_with(':'));
    if plain.value("host").is_none()
        && let Some(authority) = pseudo.value(":authority")
    {
        plain.prepend("host", authority);
    }
    *headers = plain;
    pseudo
}

/// Released proxies send a value that is not visible ASCII as an empty one;
/// says whether there was any.
pub(super) fn as_production(headers: &mut Headers) -> bool {
    let is_sent = |value: &str| {
        value
            .bytes()
            .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
    };
    if headers.iter().all(|(_, value)| is_sent(value)) {
        return false;
    }
    let fields = headers.iter();
    *headers = fields
        .map(|(name, value)| (name, if is_sent(value) { value } else { "" }))
        .collect();
    true
}

/// Bytes of a header value as text: what is not UTF-8 is Latin-1, as HTTP's
/// grammar once had it. Either way it is not visible ASCII.
pub(super) fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(
        |_| bytes.iter().map(|byte| char::from(*byte)).collect(),
        str::to_owned,
    )
}

/// Bytes of a request target as text: what is not UTF-8 is percent-encoded.
pub(super) fn target(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        if byte.is_ascii() {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Path and query of an absolute URL, its scheme, and its authority without
/// credentials.
pub(super) fn split_url(url: &str) -> Option<(&str, &str, String)> {
    let (scheme, rest) = url.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let rest = rest.strip_prefix("//").filter(|_| is_scheme)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    Some((scheme, authority, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_path_and_query() {
        for (url, path) in [
            ("https://a.example/x?y=1#z", "/x?y=1"),
            ("https://a.example", "/"),
            ("http://a.example?q", "/?q"),
        ] {
            assert_eq!(split_url(url).unwrap().2, path, "{url}");
        }
        for path in [
            "data:text/plain,hi",
            "/login?next=https://a.example/x",
            "//a/b",
        ] {
            assert!(split_url(path).is_none(), "{path}");
        }
        assert_eq!(
            split_url("https://ann:pw@a.example/").unwrap().1,
            "a.example"
        );
    }

    #[test]
    fn pseudo_headers_go_and_the_authority_becomes_host() {
        let mut headers = Headers::from([
            (":authority", "a.example"),
            (":path", "/x"),
            ("accept", "*/*"),
        ]);
        let pseudo = split_pseudo(&mut headers);
        assert_eq!(pseudo.len(), 2);
        assert_eq!(headers.iter().next(), Some(("host", "a.example")));
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn what_no_proxy_sends_is_empty() {
        let mut headers = Headers::from([("a", "é"), ("b", "plain\ttab"), ("c", "x\u{1}")]);
        assert!(as_production(&mut headers));
        let values: Vec<&str> = headers.iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["", "plain\ttab", ""]);
    }

    #[test]
    fn bytes_that_are_no_text_keep_their_meaning() {
        assert_eq!(target(b"/a\xff"), "/a%FF");
        assert_eq!(text(b"caf\xe9"), "café");
    }
}
