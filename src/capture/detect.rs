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

/// The first bytes of a capture, in the parts that formats are told by.
pub(super) struct Head<'a> {
    bytes: &'a [u8],
    /// Without a byte order mark, and what is blank before the first character.
    pub(super) text: &'a [u8],
    /// Of the JSON object that it begins with.
    pub(super) keys: Vec<String>,
}

impl<'a> Head<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut head = Self {
            bytes,
            text: text.trim_ascii_start(),
            keys: Vec::new(),
        };
        if head.is_json() {
            head.keys = first_keys(head.text);
        }
        head
    }

    pub(super) fn is_json(&self) -> bool {
        self.text.starts_with(b"{")
    }

    /// Whether the first object has this key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key == name)
    }

    pub(super) fn first_line(&self) -> &'a [u8] {
        let mut lines = self.bytes.split(|byte| *byte == b'\n');
        lines.next().unwrap_or_default()
    }

    /// The lines that are worth looking at.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        self.text.split(|byte| *byte == b'\n').take(20)
    }
}

/// The format, or what to say of a file that has none.
pub(super) fn detect(bytes: &[u8]) -> Result<Format, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let head = Head::of(bytes);
    let mut formats = ORDER.into_iter();
    let found = formats.find(|format| (format.reader().recognises)(&head));
    match (found, foreign(bytes)) {
        (Some(Format::Gor), _) => Ok(Format::Gor),
        (_, Some(refused)) => Err(refused.to_owned()),
        (Some(format), None) => Ok(format),
        (None, None) => Err(format!(
            "expected one of {}; found none of them. Name it with --input-format if it is one",
            Format::ALL.map(Format::name).join(", ")
        )),
    }
}

/// Formats people have and that are not read, by their first bytes.
fn foreign(head: &[u8]) -> Option<&'static str> {
    Some(match head {
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
        _ => return None,
    })
}

/// The keys of the first object, as far as the text goes.
pub(super) fn first_keys(text: &[u8]) -> Vec<String> {
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
