//! Recognizes the format of a capture by its first bytes.

use super::Format;

/// In which order the formats are asked whether a file is theirs.
const ORDER: [Format; 7] = [
    // Bodies in it may be of any bytes.
    Format::Gor,
    Format::Har,
    Format::EnvoyTap,
    Format::AccessLog,
    Format::Ftw,
    Format::Jsonl,
    Format::JsonLog,
];

/// How gzip begins.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The first bytes of a capture, in the parts that formats are told by.
pub(super) struct Head<'a> {
    bytes: &'a [u8],
    /// Without a byte order mark, and what is blank before the first character.
    pub(super) text: &'a [u8],
    /// Of the JSON object that it begins with.
    pub(super) keys: Keys,
}

impl<'a> Head<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut head = Self {
            bytes,
            text: text.trim_ascii_start(),
            keys: Keys::default(),
        };
        if head.is_json() {
            head.keys = Keys::of(head.text);
        }
        head
    }

    pub(super) fn is_json(&self) -> bool {
        self.text.starts_with(b"{")
    }

    /// Whether the first object has this key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.has(name)
    }

    /// Its lines: those that tell the format may stand behind others.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        self.text.split(|byte| *byte == b'\n')
    }

    /// Whether objects are written over several lines: none stands in one line,
    /// and the first line ends where only an object that goes on does.
    fn spans_lines(&self) -> bool {
        let is_whole = |line: &[u8]| {
            let line = line.trim_ascii();
            let line = line.strip_suffix(b",").unwrap_or(line);
            line.starts_with(b"{") && Keys::of(line).end == Some(line.len())
        };
        let first = self.text.split(|byte| *byte == b'\n').next();
        let first = first.unwrap_or_default();
        first.len() < self.text.len()
            && matches!(first.trim_ascii().last(), Some(b'{' | b'[' | b','))
            && !self.lines().any(is_whole)
    }

    /// Whether it is a fixture of `run`, by the keys that only those have.
    fn is_fixture(&self) -> bool {
        let has = |name| self.has(name);
        let is_request = ["method", "uri", "request", "path", "log", "message"]
            .into_iter()
            .any(has);
        let is_event = has("event") && has("input");
        let is_hook = has("context") && ["hook", "before", "after", "expect"].into_iter().any(has);
        !is_request && (has("steps") || is_event || is_hook)
    }
}

/// The format, or what to say of a file that has none.
pub(super) fn detect(bytes: &[u8]) -> Result<Format, String> {
    let head = Head::of(bytes);
    if let Some(wide) = wide(bytes) {
        return Err(format!(
            "expected UTF-8, found {wide}; convert it with iconv -f {wide} -t UTF-8"
        ));
    }
    let mut formats = ORDER.into_iter();
    let found = formats.find(|format| (format.reader().recognises)(&head));
    match found {
        Some(Format::Jsonl | Format::JsonLog) if head.spans_lines() => Err(
            "expected one JSON object a line, found objects that span several lines; write each in one line with jq -c . FILE".to_owned(),
        ),
        Some(Format::JsonLog) if head.is_fixture() => Err(
            "expected a capture, found a fixture; wasm-agent run MODULE FILE checks it".to_owned(),
        ),
        Some(format) => Ok(format),
        None if head.text.starts_with(&GZIP) => Err(
            "expected one layer of gzip at the beginning, found gzip behind other bytes or within gzip; unpack it first (gzip -d)".to_owned(),
        ),
        None => Err(foreign(bytes)
            .map(str::to_owned)
            .or_else(|| other_log(&head))
            .unwrap_or_else(|| format!(
                "expected one of {}; found none of them. Name it with --input-format if it is one",
                Format::ALL.map(Format::name).join(", ")
            ))),
    }
}

/// Whether a first line of JSON is a whole object, and others follow.
pub(super) fn has_lines(bytes: &[u8]) -> bool {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    let first = first.trim_ascii();
    Keys::of(first).end == Some(first.len()) && !rest.trim_ascii().is_empty()
}

/// Text whose characters have more than a byte, with or without a mark.
pub(super) fn wide(head: &[u8]) -> Option<&'static str> {
    let has_nuls = |size: usize, at: &[usize]| {
        let mut units = head.chunks_exact(size).take(8);
        let all = units.all(|unit| {
            let is_nul = |place: &usize| unit[*place] == 0;
            let is_text = |place: &usize| unit[*place] != 0;
            at.iter().all(is_nul)
                && (0..size)
                    .filter(|place| !at.contains(place))
                    .all(|place| is_text(&place))
        });
        head.len() >= size * 4 && all
    };
    Some(match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        _ if has_nuls(4, &[1, 2, 3]) => "UTF-32LE",
        _ if has_nuls(4, &[0, 1, 2]) => "UTF-32BE",
        _ if has_nuls(2, &[1]) => "UTF-16LE",
        _ if has_nuls(2, &[0]) => "UTF-16BE",
        _ => return None,
    })
}

/// Formats people have and that are not read, by their first bytes.
fn foreign(head: &[u8]) -> Option<&'static str> {
    Some(match head {
        [0xd4, 0xc3, 0xb2, 0xa1, ..]
        | [0xa1, 0xb2, 0xc3, 0xd4, ..]
        | [0x4d, 0x3c, 0xb2, 0xa1, ..]
        | [0xa1, 0xb2, 0x3c, 0x4d, ..]
        | [0x0a, 0x0d, 0x0d, 0x0a, ..] => {
            "a packet capture is not read; turn it into a .gor file with goreplay --input-raw FILE --output-file"
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            "zstd is not read; unpack it first (zstd -d)"
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "bzip2 is not read; unpack it first (bzip2 -d)",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz is not read; unpack it first (xz -d)",
        [0x5d, 0, 0, ..] => "lzma is not read; unpack it first (xz -d --format=lzma)",
        [b'L', b'Z', b'I', b'P', ..] => "lzip is not read; unpack it first (lzip -d)",
        [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => {
            "lz4 is not read; unpack it first (lz4 -d)"
        }
        [0xff, 0x06, 0, 0, b's', b'N', b'a', b'P', ..] => "snappy is not read; unpack it first",
        [b'P', b'K', 3 | 5 | 7, 4 | 6 | 8, ..] => {
            "a zip archive is not read; unpack it first (unzip)"
        }
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => {
            "a 7z archive is not read; unpack it first (7z x)"
        }
        [b'R', b'a', b'r', b'!', ..] => "a rar archive is not read; unpack it first",
        [0x1f, 0x9d | 0xa0, ..] => "a file of compress is not read; unpack it first (gzip -d)",
        _ if head.get(257..262) == Some(b"ustar") => {
            "a tar archive is not read; unpack it first (tar -x)"
        }
        _ if head.iter().take(512).any(|byte| *byte == 0) => {
            "expected text, found binary data. If Envoy's tap wrote it: it writes JSON with format JSON_BODY_AS_BYTES or JSON_BODY_AS_STRING"
        }
        _ => return None,
    })
}

/// Logs and lists that are text and not read, by their lines.
fn other_log(head: &Head<'_>) -> Option<String> {
    let begins = |line: &[u8], with: &[u8]| line.starts_with(with);
    let inner = head.text.strip_prefix(b"[");
    if inner.is_some_and(|inner| inner.trim_ascii_start().starts_with(b"{")) {
        return Some("expected one JSON object a line, found an array of them; write each in one line with jq -c '.[]' FILE".to_owned());
    }
    let has_byte = |byte| memchr::memchr(byte, head.bytes).is_some();
    if has_byte(b'\r') && !has_byte(b'\n') {
        return Some("expected lines that end in a line feed, found carriage returns alone; convert them with tr '\\r' '\\n' < FILE".to_owned());
    }
    let is_w3c = |line: &[u8]| {
        let marks: [&[u8]; 3] = [b"#Fields:", b"#Version:", b"#Software:"];
        marks.iter().any(|mark| begins(line, mark))
    };
    let has = |form: &str| {
        let form = regex::bytes::Regex::new(form).ok();
        form.is_some_and(|form| head.lines().any(|line| form.is_match(line)))
    };
    let found = if head.lines().any(is_w3c) {
        "a log in the W3C extended format, as CloudFront and IIS write it"
    } else if has(r"^(http|https|h2|grpcs|ws|wss) \d{4}-\d\d-\d\dT\S+Z (app/)?\S+ \S+:\d+ ") {
        "a log of an AWS load balancer"
    } else if has(r"\d+ \[\d\d/\w{3}/\d{4}:[\d:.]+\] \S+ \S+/\S+ [-\d]+/[-\d]+/[-\d]+/[-\d]+/") {
        "a log of HAProxy's format httplog"
    } else {
        return None;
    };
    Some(format!(
        "{found} is not read; of access logs the combined format and JSON are. Write it as JSON, an object a line with the keys method, uri, client_ip, status, time and header names such as user_agent (--field maps others)"
    ))
}

/// The keys of a JSON object and those of objects in it, as far as the text goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    top: Vec<String>,
    /// Of an object that is the value of a key: that key's place, and a key.
    within: Vec<(usize, String)>,
    /// The keys whose values are objects.
    objects: Vec<usize>,
    /// Bytes of the whole object, where it ends in the text.
    end: Option<usize>,
}

impl Keys {
    pub(super) fn of(text: &[u8]) -> Self {
        let mut keys = Self::default();
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
                (None, b'{' | b'[') => {
                    if depth == 1 && *byte == b'{' {
                        keys.objects.extend(keys.top.len().checked_sub(1));
                    }
                    depth += 1;
                }
                (None, b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        keys.end = Some(at + 1);
                        break;
                    }
                }
                (None, b':') if depth == 1 || depth == 2 => {
                    let Some((from, to)) = last.take() else {
                        continue;
                    };
                    let key = String::from_utf8_lossy(&text[from..to]).into_owned();
                    if depth == 1 {
                        keys.top.push(key);
                    } else if let Some(outer) = keys.top.len().checked_sub(1) {
                        keys.within.push((outer, key));
                    }
                }
                (None, _) => {}
            }
        }
        keys
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.top.iter().any(|key| key == name)
    }

    /// Whether a key's value is an object with one of these keys, or one that
    /// the text holds no key of.
    pub(super) fn has_object(&self, name: &str, inner: &[&str]) -> bool {
        let place = self.top.iter().position(|key| key == name);
        let Some(place) = place.filter(|place| self.objects.contains(place)) else {
            return false;
        };
        let mut known = self.within.iter().filter(|(outer, _)| *outer == place);
        let is_cut = self.end.is_none() && known.clone().next().is_none();
        is_cut || known.any(|(_, key)| inner.contains(&key.as_str()))
    }
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
            (b"# tests\n\n  \"rule_id\" : 1\n  tests:\n", Format::Ftw),
            (b"--- # x\r\n'tests':\r\n- test_id: 1\r\n", Format::Ftw),
            (b"{tests: [{test_id: 1}]}\n", Format::Ftw),
            (b"{\"log\": \"a\\n\", \"stream\": \"stdout\"}\n", Format::JsonLog),
            (b"{\"log\": {\"level\": \"info\"}, \"method\": \"GET\", \"uri\": \"/\"}\n", Format::JsonLog),
            (b"{\"a\": {\n{\"method\":\"GET\",\"path\":\"/\"}\n", Format::JsonLog),
            (b"t stdout F {\"method\":\"GET\",\"path\":\"/\"}\n", Format::JsonLog),
            (b"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 2326 \"-\" \"curl\"\n", Format::AccessLog),
            (b"Listening on 8080\n{\"method\":\"GET\",\"path\":\"/\"}\n", Format::JsonLog),
            (b"{\"level\":\"info\"}\n192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1\n", Format::AccessLog),
            (b"{\"method\":\"GET\",\"path\":\"/\"}\n192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1\n", Format::JsonLog),
            (b"{\"log\":{\"version\":\"1\"},\"method\":\"GET\",\"uri\":\"/\"}\n", Format::JsonLog),
            (b"{\"method\":\"GET\",\"path\":\"/\"},\n{\"method\":\"GET\",\"path\":\"/\"}\n", Format::JsonLog),
        ] {
            assert_eq!(detect(text), Ok(format), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn lines_behind_many_others_tell_the_format() {
        let banner = "a banner\n".repeat(25);
        let line = "192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1\n";
        let text = format!("{banner}{line}");
        assert_eq!(detect(text.as_bytes()), Ok(Format::AccessLog));
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (head, word) in [
            (&b"\xff\xfe{\0"[..], "UTF-16"),
            (b"\xd4\xc3\xb2\xa1\x02\x00", "goreplay"),
            (b"\x0a\x05abc\0\0", "binary"),
            (b"hello world\n", "--input-format"),
            (b"\x1f\x8b\x08\0\0", "gzip -d"),
            (b"\xef\xbb\xbf\x1f\x8b\x08\0\0", "gzip -d"),
            (b"{\0\"\0a\0\"\0", "UTF-16LE"),
            (b"\0{\0\"\0a\0\"", "UTF-16BE"),
            (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
            (b"BZh91AY&SY", "bzip2"),
            (b"\xfd7zXZ\0\0", "xz -d"),
            (b"\x04\x22\x4d\x18d", "lz4"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
            (b"PK\x03\x04", "zip"),
            (b"[{\"a\":1},\n{}]", "array"),
            (b"{\n \"method\": \"GET\",\n \"a\": {}\n}\n", "span"),
            (b"{\"v\": 1,\n\"phase\": \"x\",\n\"input\": {}\n}\n", "span"),
            (b"{\"event\":\"request_headers\",\"input\":{},\"expect\":{}}", "wasm-agent run"),
            (b"{\"name\":\"x\",\"steps\":[]}", "wasm-agent run"),
            (b"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1\r192.0.2.1 -", "line feed"),
            (b"#Version: 1.0\n#Fields: date time\n", "CloudFront"),
            (b"https 2026-07-02T22:23:00.186641Z app/lb/5 192.168.131.39:2817 10.0.0.1:80 0.0 \"GET\"", "AWS"),
            (b"haproxy[7]: 10.0.1.2:33317 [06/Feb/2026:12:14:14.655] in st/s1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {h} {} \"GET / HTTP/1.1\"", "HAProxy"),
        ] {
            assert!(detect(head).unwrap_err().contains(word), "{word}");
        }
    }
}
