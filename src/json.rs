//! JSON as it is written for each event: into one buffer, field by field; and
//! as it is read for each event ([`read`]).
//!
//! The guest's input and the proxy's answer are written this way; frames and
//! records are read that way. Both are most of what the host does for an event.
//! Everything else goes through `serde_json`. Equal values give equal bytes.

#[cfg(feature = "cli")]
pub(crate) mod explain;
#[cfg(feature = "cli")]
mod marks;
pub(crate) mod numbers;
#[cfg(feature = "cli")]
pub(crate) mod read;
#[cfg(feature = "cli")]
pub(crate) mod response;

/// One JSON object, written field by field. A key must need no escape, but for
/// [`Object::pair`]'s.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// Writes a key; its value is to follow.
    pub(crate) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.out.reserve(key.len() + 4);
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        write_string(value, self.key(key));
    }

    /// A field whose key may need an escape.
    pub(crate) fn pair(&mut self, key: &str, value: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        write_string(key, self.out);
        self.out.push(b':');
        write_string(value, self.out);
    }

    /// Joins a text to the one just written, as `, ` and the text.
    pub(crate) fn join(&mut self, more: &str) {
        // The quote.
        self.out.pop();
        self.out.extend_from_slice(b", ");
        write_escaped(more, self.out);
        self.out.push(b'"');
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        write_number(value, self.key(key));
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, key: &str, json: &str) {
        self.key(key).extend_from_slice(json.as_bytes());
    }

    pub(crate) fn flag(&mut self, key: &str, is: bool) {
        self.raw(key, if is { "true" } else { "false" });
    }

    /// An object within this one.
    pub(crate) fn object(&mut self, key: &str) -> Object<'_> {
        Object::new(self.key(key))
    }

    /// An array of what `write` writes for each item.
    pub(crate) fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, &mut Vec<u8>),
    ) {
        let out = self.key(key);
        out.push(b'[');
        for (place, item) in items.into_iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            write(item, out);
        }
        out.push(b']');
    }

    /// Closes the object.
    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}

/// Writes what is rare, or no string, as `serde_json` does.
pub(crate) fn write_serialized(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Neither our types nor a Vec can fail.
    drop(serde_json::to_writer(out, value));
}

/// Writes a string in its quotes.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// Two-character escapes where JSON has them, `\u00xx` for other controls,
/// everything else as it is.
fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    if let Some(tail) = bytes.last_chunk::<BLOCK>() {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        let mut at = 0;
        for block in blocks {
            if !is_clean(block) {
                clean_from = escape(bytes, at..at + BLOCK, clean_from, out);
            }
            at += BLOCK;
        }
        // The tail is looked at with what stands before it, to be a block too.
        if at < bytes.len() && !is_clean(tail) {
            clean_from = escape(bytes, at..bytes.len(), clean_from, out);
        }
    } else if !is_clean_word(bytes) {
        clean_from = escape(bytes, 0..bytes.len(), clean_from, out);
    }
    out.extend_from_slice(&bytes[clean_from..]);
}

const BLOCK: usize = 16;

/// No branch from byte to byte, so that this becomes vector instructions.
fn is_clean<const LEN: usize>(block: &[u8; LEN]) -> bool {
    !block
        .iter()
        .fold(false, |any, byte| any | must_escape(*byte))
}

/// The same for less than a block, which most names and many values are: its
/// beginning and its end, which may meet.
fn is_clean_word(bytes: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        is_clean(first) && is_clean(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        is_clean(first) && is_clean(last)
    } else {
        !bytes.iter().any(|byte| must_escape(*byte))
    }
}

/// Writes what stands before each byte of the range that must be escaped, and
/// its escape. Hands back up to where all is written.
fn escape(
    bytes: &[u8],
    range: std::ops::Range<usize>,
    mut written: usize,
    out: &mut Vec<u8>,
) -> usize {
    for at in range {
        let byte = bytes[at];
        if must_escape(byte) {
            out.extend_from_slice(&bytes[written..at]);
            written = at + 1;
            write_escape(byte, out);
        }
    }
    written
}

const fn must_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

pub(crate) fn write_number(value: u64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any text reads back, wherever in it an escape stands.
        #[test]
        fn a_string_reads_back(text in any::<String>(), place in 0_usize..40, byte in 0_u8..0x80) {
            let mut all = vec![text.clone(), text];
            let mut marked = "x".repeat(40);
            marked.replace_range(place..=place, &char::from(byte).to_string());
            all.extend((0..=40).map(|len| marked[..len].to_owned()));
            for text in all {
                let mut out = Vec::new();
                write_string(&text, &mut out);
                prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            }
        }
    }

    #[test]
    fn objects_and_arrays_nest() {
        let mut out = Vec::new();
        let mut object = Object::new(&mut out);
        object.number("n", 7);
        let mut inner = object.object("o");
        inner.text("t", "\"");
        inner.raw("r", "null");
        inner.end();
        object.array("a", [1_u64, 2], write_number);
        object.array("e", [], write_number);
        object.object("none").end();
        object.end();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"n":7,"o":{"t":"\"","r":null},"a":[1,2],"e":[],"none":{}}"#
        );
    }
}
