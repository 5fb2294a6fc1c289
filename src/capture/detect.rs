//! What a capture is written in, told by its first bytes.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::Format;
use super::access_log::COMBINED;

static YAML_TESTS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?m)^(tests|rule_id|meta)\s*:").ok());

/// The format, or what to say of a file that has none.
pub(super) fn detect(head: &[u8]) -> Result<Format, String> {
    if head.is_empty() {
        return Err("the file is empty".to_owned());
    }
    // Bodies in it may be of any bytes.
    if is_gor(head) {
        return Ok(Format::Gor);
    }
    foreign(head)?;
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let start = text
        .iter()
        .position(|byte| !byte.is_ascii_whitespace())
        .unwrap_or(text.len());
    let text = &text[start..];
    if text.first() == Some(&b'{') {
        return Ok(json(text));
    }
    let first_lines = || text.split(|byte| *byte == b'\n').take(20);
    if first_lines().any(|line| COMBINED.as_ref().is_some_and(|form| form.is_match(line))) {
        return Ok(Format::AccessLog);
    }
    if YAML_TESTS.as_ref().is_some_and(|form| form.is_match(text)) {
        return Ok(Format::Ftw);
    }
    if has_our_line(text) {
        return Ok(Format::Jsonl);
    }
    Err(format!(
        "expected one of {}; found none of them. Name it with --input-format if it is one",
        Format::ALL.map(Format::name).join(", ")
    ))
}

/// Formats people have and that are not read, by their first bytes.
fn foreign(head: &[u8]) -> Result<(), String> {
    let refused = match head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            "expected UTF-8, found UTF-16; convert it with iconv -f UTF-16 -t UTF-8"
        }
        [0xd4, 0xc3, 0xb2, 0xa1, ..]
        | [0xa1, 0xb2, 0xc3, 0xd4, ..]
        | [0x0a, 0x0d, 0x0d, 0x0a, ..] => {
            "a packet capture is not read; turn it into a .gor file with goreplay --input-raw FILE --output-file"
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd is not read; unpack it first (zstd -d)",
        [b'P', b'K', 3, 4, ..] => "a zip archive is not read; unpack it first",
        _ if head.iter().take(512).any(|byte| *byte == 0) => {
            "expected text, found binary data; Envoy's tap writes JSON with format JSON_BODY_AS_BYTES or JSON_BODY_AS_STRING"
        }
        _ => return Ok(()),
    };
    Err(refused.to_owned())
}

/// Tells JSON formats by the keys of their first object.
fn json(text: &[u8]) -> Format {
    let keys = first_keys(text);
    let has = |name: &str| keys.iter().any(|key| key == name);
    if has("log") && !has("message") && !has("phase") {
        return Format::Har;
    }
    if keys
        .iter()
        .any(|key| super::envoy_tap::WRAPPERS.contains(&key.as_str()))
    {
        return Format::EnvoyTap;
    }
    if is_ours(&keys) || has_our_line(text) {
        return Format::Jsonl;
    }
    Format::JsonLog
}

fn is_ours(keys: &[String]) -> bool {
    ["phase", "input"]
        .iter()
        .all(|key| keys.iter().any(|have| have == key))
}

/// Whether it is a recording all the same: its first line may be broken, or of
/// a version to come.
fn has_our_line(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').take(20);
    lines.any(|line| line.starts_with(b"{") && is_ours(&first_keys(line)))
}

/// The keys of the first object, as far as the text goes.
fn first_keys(text: &[u8]) -> Vec<String> {
    let mut keys = Vec::new();
    let mut depth = 0_usize;
    let mut string: Option<usize> = None;
    let mut escaped = false;
    let mut last: Option<(usize, usize)> = None;
    for (at, byte) in text.iter().enumerate() {
        match (string, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(from), b'"') => {
                last = Some((from, at));
                string = None;
            }
            (Some(_), _) => {}
            (None, b'"') => string = Some(at + 1),
            (None, b'{' | b'[') => depth += 1,
            (None, b'}' | b']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            (None, b':') if depth == 1 => {
                if let Some((from, to)) = last.take() {
                    keys.push(String::from_utf8_lossy(&text[from..to]).into_owned());
                }
            }
            (None, _) => {}
        }
    }
    keys
}

/// `1 <id> <nanoseconds>` on a line of its own.
fn is_gor(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    super::gor::Header::parse(line).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_content() {
        for (text, format) in [
            (&b"{\"log\":{\"version\":\"1.2\",\"entries\":[]}}"[..], Format::Har),
            (b"\xef\xbb\xbf{\"log\":{", Format::Har),
            (b"{\"http_buffered_trace\":{}}", Format::EnvoyTap),
            (b"{\n \"httpStreamedTraceSegment\": {", Format::EnvoyTap),
            (b"{\"v\":1,\"id\":\"a\",\"phase\":\"request_headers\",\"input\":{}}", Format::Jsonl),
            (b"{\"v\":2}\n{\"v\":1,\"id\":\"a\",\"phase\":\"request_headers\",\"input\":{}}", Format::Jsonl),
            (b"alf of a line\"}\n{\"v\":1,\"id\":\"a\",\"phase\":\"request_headers\",\"input\":{}}", Format::Jsonl),
            (b"{\"method\":\"GET\",\"path\":\"/\"}\n", Format::JsonLog),
            (b"1 abcdef0123456789abcdef01 1700000000000000000\nGET / HTTP/1.1\r\n", Format::Gor),
            (b"---\nmeta:\n  author: x\ntests:\n", Format::Ftw),
            (b"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 2326 \"-\" \"curl\"\n", Format::AccessLog),
        ] {
            assert_eq!(detect(text), Ok(format), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (head, word) in [
            (&b"\xff\xfe{\0"[..], "UTF-16"),
            (b"", "empty"),
            (b"\xd4\xc3\xb2\xa1\x02\x00", "goreplay"),
            (b"\x0a\x05abc\0\0", "binary"),
            (b"hello world\n", "--input-format"),
        ] {
            assert!(detect(head).unwrap_err().contains(word), "{word}");
        }
    }
}
