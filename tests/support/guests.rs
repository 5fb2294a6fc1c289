//! Guests whose answers a test picks.
//!
//! [`Answers`] is one module with a table of answers: an event carries a
//! number, the guest returns the packed value of that number. So hundreds of
//! answers cost one process. [`guest`] frames a handler of one's own.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Done, Step, TestDir, run, steps};

/// The four events, in the order of their handlers.
pub(crate) const EVENTS: [&str; 4] = [
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
];

/// First byte of the answers; the table lies below.
const DATA_AT: usize = 32 << 10;
const PAGE: usize = 64 << 10;

/// A table of answers and the guest that gives them.
#[derive(Default)]
pub(crate) struct Answers {
    packed: Vec<u64>,
    data: Vec<u8>,
}

impl Answers {
    pub(crate) fn of<T: AsRef<[u8]>>(answers: impl IntoIterator<Item = T>) -> Self {
        let mut table = Self::default();
        for bytes in answers {
            table.add(bytes.as_ref());
        }
        table
    }

    /// Adds an answer of these bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let ptr = DATA_AT + self.data.len();
        self.data.extend_from_slice(bytes);
        self.add_packed(u64::try_from((ptr << 32) | bytes.len()).unwrap());
    }

    /// Adds a packed value, right or wrong.
    pub(crate) fn add_packed(&mut self, packed: u64) {
        self.packed.push(packed);
        assert!(self.packed.len() * 8 <= DATA_AT, "the table is full");
    }

    fn pages(&self) -> usize {
        (DATA_AT + self.data.len()).div_ceil(PAGE) + 1
    }

    /// Linear memory of the guest, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        u64::try_from(self.pages() * PAGE).unwrap()
    }

    /// The guest as text. Four digits of each event pick the answer; they
    /// stand at a fixed place because keys come in a fixed order.
    pub(crate) fn wat(&self) -> String {
        let places = EVENTS.iter().zip([24, 19, 32, 19]);
        let places = places.map(|(event, at)| (format!("on_{event}"), at));
        self.wat_for(places.collect())
    }

    /// The same for the hook ABI, by the digits of [`context`].
    pub(crate) fn hook_wat(&self) -> String {
        self.wat_for(vec![("before_hook".to_owned(), 15)])
    }

    fn wat_for(&self, handlers: Vec<(String, usize)>) -> String {
        let pages = self.pages();
        let mut table = Vec::new();
        for packed in &self.packed {
            table.extend_from_slice(&packed.to_le_bytes());
        }
        let mut wat = format!(
            "(module (memory (export \"memory\") {pages})\n\
             (data (i32.const 0) \"{}\")\n(data (i32.const {DATA_AT}) \"{}\")\n\
             (func (export \"alloc\") (param i32) (result i32) (i32.const {}))\n\
             (func (export \"dealloc\") (param i32 i32))\n\
             (func $digit (param i32) (result i32)\n\
               (i32.sub (i32.load8_u (local.get 0)) (i32.const 48)))\n",
            escaped(&table),
            escaped(&self.data),
            (pages - 1) * PAGE,
        );
        for (handler, at) in handlers {
            write!(
                wat,
                "(func (export \"{handler}\") (param i32 i32) (result i64) (local $n i32)\n\
                 (local.set 0 (i32.add (local.get 0) (i32.const {at})))\n"
            )
            .unwrap();
            for digit in 0..4 {
                writeln!(
                    wat,
                    "(local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10))\
                     (call $digit (i32.add (local.get 0) (i32.const {digit})))))"
                )
                .unwrap();
            }
            wat.push_str("(i64.load (i32.mul (local.get $n) (i32.const 8))))\n");
        }
        wat.push(')');
        wat
    }

    /// Asks for each answer with each of these events, in that order.
    pub(crate) fn ask(&self, events: &[&str], flags: &[&str]) -> Vec<Step> {
        let asked = steps(&self.run(events, flags).json());
        assert_eq!(asked.len(), self.packed.len() * events.len());
        asked
    }

    /// Asks for each answer to a request.
    pub(crate) fn ask_requests(&self, flags: &[&str]) -> Vec<Step> {
        self.ask(&EVENTS[..1], flags)
    }

    /// Asks a hook for each answer.
    pub(crate) fn ask_hooks(&self, flags: &[&str]) -> Vec<Step> {
        let dir = TestDir::new();
        let module = dir.file("answers.wat", self.hook_wat());
        for number in 0..self.packed.len() {
            dir.file(&format!("hooks/{number:04}.json"), context(number));
        }
        let asked = steps(&run(&module, &[&dir.path("hooks")], flags).json());
        assert_eq!(asked.len(), self.packed.len());
        asked
    }

    fn run(&self, events: &[&str], flags: &[&str]) -> Done {
        let dir = TestDir::new();
        let module = dir.file("answers.wat", self.wat());
        for number in 0..self.packed.len() {
            for (rank, event) in events.iter().enumerate() {
                dir.file(
                    &format!("events/{number:04}-{rank}.json"),
                    fixture(event, number),
                );
            }
        }
        run(&module, &[&dir.path("events")], flags)
    }
}

/// An event that asks for the answer of this number.
pub(crate) fn fixture(event: &str, number: usize) -> String {
    let input = match event {
        "request_headers" => format!(r#""method":"GET","uri":"/{number:04}""#),
        "response_headers" => format!(r#""status":200,"correlation_id":"{number:04}""#),
        _ => format!(r#""data":"x","correlation_id":"{number:04}""#),
    };
    format!(r#"{{"event":"{event}","input":{{{input}}}}}"#)
}

/// A hook's context that asks for the answer of this number.
pub(crate) fn context(number: usize) -> String {
    format!(
        r#"{{"input":{{"n":"{number:04}"}},"user":{{"id":"7","role":"user"}},"headers":{{"a":"1"}},"tenant_id":"acme"}}"#
    )
}

/// A module with one request handler of this body, an allow at 1024 (its
/// packed value is [`ALLOW`]) and room for the input at 65536.
pub(crate) fn guest(dir: &TestDir, name: &str, parts: &str, body: &str) -> PathBuf {
    let alloc = "(func (export \"alloc\") (param i32) (result i32) (i32.const 65536))\n\
                 (func (export \"dealloc\") (param i32 i32))\n";
    guest_with(dir, name, &format!("{alloc}{parts}"), body)
}

/// The same without `alloc` and `dealloc`, which `parts` must have.
pub(crate) fn guest_with(dir: &TestDir, name: &str, parts: &str, body: &str) -> PathBuf {
    dir.file(
        name,
        format!(
            "(module (memory (export \"memory\") 17)\n\
             (data (i32.const 1024) \"{{\\22decision\\22:\\22allow\\22}}\")\n{parts}\n\
             (func (export \"on_request_headers\") (param $ptr i32) (param $len i32) (result i64)\n\
             {body}))"
        ),
    )
}

/// Returns the allow that lies at 1024.
pub(crate) const ALLOW: &str = "(i64.const 0x0000_0400_0000_0014)";

/// Refuses with 429 once an instance has allowed so many.
pub(crate) fn limiter(dir: &TestDir, name: &str, calls: u32) -> PathBuf {
    let parts = "(global $calls (mut i32) (i32.const 0))
         (data (i32.const 2048) \"{\\22decision\\22:\\22block\\22,\\22status\\22:429}\")";
    let body = format!(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (select (i64.const 0x0000_0800_0000_0021) {ALLOW}
           (i32.gt_u (global.get $calls) (i32.const {calls})))"
    );
    guest(dir, name, parts, &body)
}

/// A guest that gives one and the same answer to each of the four events.
pub(crate) fn answering(dir: &TestDir, name: &str, answer: impl AsRef<[u8]>) -> PathBuf {
    let answer = answer.as_ref();
    let pages = answer.len().div_ceil(PAGE) + 2;
    let handlers: String = EVENTS
        .iter()
        .map(|event| {
            format!(
                "(func (export \"on_{event}\") (param i32 i32) (result i64)\
                 (i64.const {}))\n",
                (8_usize << 32) | answer.len()
            )
        })
        .collect();
    dir.file(
        name,
        format!(
            "(module (memory (export \"memory\") {pages}) (data (i32.const 8) \"{}\")\n\
             (func (export \"alloc\") (param i32) (result i32) (i32.const {}))\n\
             (func (export \"dealloc\") (param i32 i32))\n{handlers})",
            escaped(answer),
            (pages - 1) * PAGE
        ),
    )
}

/// Bytes as a string of wasm text.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        match byte {
            b'"' | b'\\' => write!(text, "\\{byte:02x}").unwrap(),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => write!(text, "\\{byte:02x}").unwrap(),
        }
    }
    text
}
