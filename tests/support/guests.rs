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

/// Ids that a [`joiner`] knows: a letter and five digits, the number of a slot.
const SLOTS: usize = 100_000;
/// Where the slots of a [`joiner`] begin.
const SLOTS_AT: usize = PAGE;
/// FNV-1a of nothing.
const HASH_OF_NOTHING: u32 = 0x811c_9dc5;

/// FNV-1a, which a [`joiner`] computes too.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(HASH_OF_NOTHING, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// What a [`joiner`] answers, as JSON, to a chunk up to which a body has this hash.
pub(crate) fn joined(hash: u32, is_last: bool) -> String {
    let rest = match hash & 3 {
        _ if !is_last => r#""decision":"allow","needs_more":true"#,
        0 => r#""decision":"block","status":403,"body":"no""#,
        1 => r#""decision":"block","status":429,"body":"later""#,
        2 => r#""decision":"allow","add_request_headers":{"x-joined":"yes"}"#,
        _ => r#""decision":"allow""#,
    };
    format!(r#"{{{rest},"tags":["h-{hash:08x}"]}}"#)
}

/// The answers of a [`joiner`] as data, and how it picks one of them.
fn joiner_answers() -> (String, String) {
    let mut data = String::new();
    let mut choose = String::new();
    // One hash for each answer: a chunk before the last, then the four endings.
    for (rank, (hash, is_last)) in [(0, false), (0, true), (1, true), (2, true), (3, true)]
        .into_iter()
        .enumerate()
    {
        let answer = joined(hash, is_last);
        let at = 1024 + rank * 256;
        let digits = at + answer.find("h-").unwrap() + 2;
        let packed = (at << 32) | answer.len();
        let text = escaped(answer.as_bytes());
        writeln!(data, "(data (i32.const {at}) \"{text}\")").unwrap();
        let test = if is_last {
            format!("(i32.eq (i32.and (local.get $hash) (i32.const 3)) (i32.const {hash}))")
        } else {
            "(i32.eqz (local.get $last))".to_owned()
        };
        writeln!(
            choose,
            "(if {test} (then (return (call $give (local.get $hash) (i32.const {digits}) (i64.const {packed})))))"
        )
        .unwrap();
    }
    (data, choose)
}

/// How a [`joiner`] finds a key, and writes a hash into an answer.
const JOINER_HELPERS: &str = r#"
;; Behind these eight bytes.
(func $find (param $p i32) (param $end i32) (param $what i64) (result i32)
  (loop $next
    (if (i64.eq (i64.load align=1 (local.get $p)) (local.get $what))
      (then (return (i32.add (local.get $p) (i32.const 8)))))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $p) (local.get $end))))
  unreachable)
;; Writes the hash into an answer.
(func $give (param $hash i32) (param $p i32) (param $packed i64) (result i64)
  (local $left i32) (local $digit i32)
  (local.set $left (i32.const 8))
  (loop $next
    (local.set $hash (i32.rotl (local.get $hash) (i32.const 4)))
    (local.set $digit (i32.and (local.get $hash) (i32.const 15)))
    (i32.store8 (local.get $p) (i32.add (local.get $digit)
      (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $digit) (i32.const 9)))))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $next (local.get $left)))
  (local.get $packed))"#;

/// A guest that joins the chunks of a body by the number in the correlation id, in a
/// static table: it keeps the hash of what came so far, and answers by it (see
/// [`joined`]). A first byte `!` of a chunk is a trap, `~` takes it `spins` rounds. It
/// allows every request until its body has come.
/// Bodies of letters and digits need no escapes, which it does not read.
pub(crate) fn joiner(parts: &str, spins: u32) -> String {
    let (data, choose) = joiner_answers();
    let handlers: String = ["on_request_body", "on_response_body"]
        .iter()
        .map(|name| {
            format!(
                "(func (export \"{name}\") (param i32 i32) (result i64)\
                 (call $body (local.get 0) (i32.add (local.get 0) (local.get 1))))\n"
            )
        })
        .collect();
    let key = |text: &str| i64::from_le_bytes(text.as_bytes().try_into().unwrap());
    let (index, last, body) = (key("k_index\""), key("is_last\""), key("\"data\":\""));
    let prime = 0x0100_0193;
    let start = HASH_OF_NOTHING.cast_signed();
    format!(
        r#"(module (memory (export "memory") 64)
{data}
(func (export "alloc") (param i32) (result i32) (i32.const 0x80000))
(func (export "dealloc") (param i32 i32))
(data (i32.const 512) "{{\22decision\22:\22allow\22}}")
(func (export "on_request_headers") (param i32 i32) (result i64) (i64.const 0x200_0000_0014))
{parts}
{JOINER_HELPERS}
(func $body (param $p i32) (param $end i32) (result i64)
  (local $slot i32) (local $hash i32) (local $byte i32) (local $last i32) (local $n i32)
  ;; Behind `{{"correlation_id":"c`.
  (local.set $p (i32.add (local.get $p) (i32.const 20)))
  (local.set $n (i32.const 5))
  (loop $next
    (local.set $slot (i32.add (i32.mul (local.get $slot) (i32.const 10))
      (i32.and (i32.load8_u (local.get $p)) (i32.const 15))))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (local.set $n (i32.sub (local.get $n) (i32.const 1)))
    (br_if $next (local.get $n)))
  (local.set $slot (i32.add (i32.const {SLOTS_AT})
    (i32.mul (i32.rem_u (local.get $slot) (i32.const {SLOTS})) (i32.const 4))))
  (local.set $hash (i32.load (local.get $slot)))
  (local.set $p (call $find (local.get $p) (local.get $end) (i64.const {index})))
  ;; `:0,` begins a body.
  (if (i32.eq (i32.load16_u align=1 (i32.add (local.get $p) (i32.const 1))) (i32.const 0x2c30))
    (then (local.set $hash (i32.const {start}))))
  (local.set $p (call $find (local.get $p) (local.get $end) (i64.const {last})))
  (local.set $last (i32.eq (i32.load8_u (i32.add (local.get $p) (i32.const 1))) (i32.const 0x74)))
  (local.set $p (call $find (local.get $p) (local.get $end) (i64.const {body})))
  (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 0x21)) (then unreachable))
  (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 0x7e)) (then
    (local.set $n (i32.const {spins}))
    (loop $on
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $on (i32.gt_s (local.get $n) (i32.const 0))))))
  (block $done (loop $next
    (local.set $byte (i32.load8_u (local.get $p)))
    (br_if $done (i32.eq (local.get $byte) (i32.const 0x22)))
    (local.set $hash (i32.mul (i32.xor (local.get $hash) (local.get $byte)) (i32.const {prime})))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (br $next)))
  (i32.store (local.get $slot) (select (i32.const 0) (local.get $hash) (local.get $last)))
  {choose}
  unreachable)
{handlers})"#
    )
}

/// The word of a module about how it gets bodies.
pub(crate) fn whole_body(value: u32) -> String {
    format!("(global (export \"whole_body\") i32 (i32.const {value}))")
}
