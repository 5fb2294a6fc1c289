//! Modules that decide by what stands in their input, and captures for them,
//! drawn at random: of a pair of modules it is known where they differ.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};

/// Rows that a replay wrote.
#[derive(Clone, Default)]
pub(crate) struct Rows(pub(crate) Arc<Mutex<Vec<u8>>>);

impl io::Write for Rows {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a handler does.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers this.
    Answer(String),
    /// Traps.
    Trap,
    /// Does the one in so many first calls of an instance, whatever they are,
    /// and then the other.
    After(u32, Box<Act>, Box<Act>),
}

/// One handler: the first text that its input has decides.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    pub(crate) rules: Vec<(String, Act)>,
    pub(crate) default: Act,
}

/// A module, by the phases that it handles.
#[derive(Debug, Clone)]
pub(crate) struct Rules(pub(crate) Vec<(&'static str, Handler)>);

/// The phases of the agent ABI, in production order.
pub(crate) const PHASES: [&str; 3] = ["request_headers", "request_body", "response_headers"];

/// The phases of the hook ABI.
pub(crate) const HOOKS: [&str; 2] = ["before_hook", "after_hook"];

impl Rules {
    /// Whether what it answers hangs on earlier calls.
    pub(crate) fn counts(&self) -> bool {
        let counts = |act: &Act| matches!(act, Act::After(..));
        self.0.iter().any(|(_, handler)| {
            counts(&handler.default) || handler.rules.iter().any(|rule| counts(&rule.1))
        })
    }

    /// The module as text.
    pub(crate) fn wat(&self) -> String {
        let mut texts = Texts::default();
        let mut functions = String::new();
        for (phase, handler) in &self.0 {
            let mut body = String::new();
            for (needle, act) in &handler.rules {
                let (at, size) = texts.put(needle);
                let act = texts.code(act);
                let has = format!(
                    "(call $has (local.get 0) (local.get 1) (i32.const {at}) (i32.const {size}))"
                );
                let _ = writeln!(body, "(if {has} (then {act}))");
            }
            body.push_str(&texts.code(&handler.default));
            let _ = writeln!(
                functions,
                "(func (export \"{}\") (param i32 i32) (result i64)\n(global.set $n (i32.add (global.get $n) (i32.const 1)))\n{body} (unreachable))",
                export(phase)
            );
        }
        format!(
            "(module (memory (export \"memory\") 4) (global $n (mut i32) (i32.const 0))\n{SEARCH}\n{functions}{})",
            texts.data
        )
    }
}

/// The export that handles a phase.
fn export(phase: &str) -> String {
    if HOOKS.contains(&phase) {
        phase.to_owned()
    } else {
        format!("on_{phase}")
    }
}

/// Inputs go to the last page; texts are below it.
const SEARCH: &str = r#"(func (export "alloc") (param i32) (result i32) (i32.const 131072))
(func (export "dealloc") (param i32 i32))
(func $has (param $p i32) (param $l i32) (param $w i32) (param $m i32) (result i32) (local $i i32) (local $j i32)
  (loop $outer
    (if (i32.gt_u (i32.add (local.get $i) (local.get $m)) (local.get $l)) (then (return (i32.const 0))))
    (local.set $j (i32.const 0))
    (block $no
      (loop $inner
        (br_if $no (i32.ne
          (i32.load8_u (i32.add (local.get $p) (i32.add (local.get $i) (local.get $j))))
          (i32.load8_u (i32.add (local.get $w) (local.get $j)))))
        (local.set $j (i32.add (local.get $j) (i32.const 1)))
        (br_if $inner (i32.lt_u (local.get $j) (local.get $m))))
      (return (i32.const 1)))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br $outer))
  (i32.const 0))"#;

/// Texts in memory.
#[derive(Default)]
struct Texts {
    data: String,
    size: usize,
}

impl Texts {
    fn put(&mut self, text: &str) -> (usize, usize) {
        let at = 16 + self.size;
        self.size += text.len();
        let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        let _ = writeln!(self.data, "(data (i32.const {at}) \"{bytes}\")");
        (at, text.len())
    }

    fn code(&mut self, act: &Act) -> String {
        match act {
            Act::Trap => "(unreachable)".to_owned(),
            Act::Answer(answer) => {
                let (at, size) = self.put(answer);
                format!("(return (i64.const {}))", (at << 32) | size)
            }
            Act::After(calls, first, then) => {
                let (first, then) = (self.code(first), self.code(then));
                format!(
                    "(if (i32.gt_u (global.get $n) (i32.const {calls})) (then {then}) (else {first}))"
                )
            }
        }
    }
}

/// Texts that inputs of [`transaction`] have or lack.
const NEEDLES: [&str; 14] = [
    "/admin",
    "/b",
    "q=1",
    "\"x-a\":",
    "\"x-b\":\"2\"",
    "evil",
    "\\\"role\\\":\\\"admin\\\"",
    "\"chunk_index\":1",
    "\"is_last\":true",
    "\"total_size\":null",
    "\"total_size\":4",
    "\"status\":500",
    "\"method\":\"POST\"",
    "\"content-length\":",
];

/// Some of them tell a proxy the same; some cannot be used, with a refusal in
/// them or without.
const ANSWERS: [&str; 20] = [
    r#"{"decision":"allow"}"#,
    r#"{"decision":"Allow"}"#,
    r#"{"decision":"allow","tags":["seen"]}"#,
    r#"{"decision":"allow","tags":["seen","twice"],"confidence":0.5}"#,
    r#"{"decision":"allow","add_request_headers":{"x-by":"1"}}"#,
    r#"{"decision":"allow","add_request_headers":{"X-By":"1"}}"#,
    r#"{"decision":"allow","add_request_headers":{"x-by":"2"}}"#,
    r#"{"decision":"allow","remove_response_headers":["x-b","x-a"]}"#,
    r#"{"decision":"allow","remove_response_headers":["X-A","x-b","x-b"]}"#,
    r#"{"decision":"block","status":403}"#,
    r#"{"decision":"DENY"}"#,
    r#"{"decision":"block","status":429,"body":"slow down"}"#,
    r#"{"decision":"block","status":403,"rule_ids":["7"],"tags":["seen"]}"#,
    r#"{"decision":"block","status":500,"body":"Wasm Error"}"#,
    r#"{"decision":"redirect","body":"/login"}"#,
    r#"{"decision":"redirect","body":"/login","status":302}"#,
    r#"{"decision":"challenge","challenge_type":"js"}"#,
    r#"{"decision":"maybe"}"#,
    r#"{"decision":"block","status":451,"tags":7}"#,
    "",
];

/// Texts that contexts of hooks have or lack.
const HOOK_NEEDLES: [&str; 6] = [
    "\"name\":\"Ada\"",
    "\"data\":null",
    "\"role\":\"admin\"",
    "\"x-a\":",
    "\"n\":2",
    "acme",
];

const HOOK_ANSWERS: [&str; 10] = [
    r#"{"ok":true}"#,
    r#"{"ok":true,"ctx":null,"error":null}"#,
    r#"{"ok":true,"ctx":{"input":{"name":"ada"},"data":null,"user":null,"headers":{},"tenant_id":null}}"#,
    r#"{"ok":true,"ctx":{"input":{"name":"ada","n":3},"data":null,"user":null,"headers":{},"tenant_id":null}}"#,
    r#"{"ok":true,"ctx":{"input":{"name":"Ada"},"data":{"id":8},"user":null,"headers":{},"tenant_id":null}}"#,
    r#"{"ok":false,"error":"no"}"#,
    r#"{"ok":false,"error":"no, never","details":[{"field":"name"}]}"#,
    r#"{"ok":false}"#,
    r#"{"error":"no"}"#,
    "",
];

/// What rules of one ABI are made of.
#[derive(Clone, Copy)]
struct Words {
    needles: &'static [&'static str],
    answers: &'static [&'static str],
}

const EVENTS: Words = Words {
    needles: &NEEDLES,
    answers: &ANSWERS,
};

/// Something that does not hang on earlier calls.
fn act(words: Words) -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop::sample::select(words.answers).prop_map(|answer| Act::Answer(answer.to_owned())),
        1 => Just(Act::Trap),
    ]
}

fn handler(words: Words) -> impl Strategy<Value = Handler> {
    let rule = (
        prop::sample::select(words.needles).prop_map(str::to_owned),
        act(words),
    );
    let default = prop_oneof![4 => Just(Act::Answer(words.answers[0].to_owned())), 1 => act(words)];
    (prop::collection::vec(rule, 0..4), default)
        .prop_map(|(rules, default)| Handler { rules, default })
}

fn module(words: Words, phases: &'static [&'static str]) -> impl Strategy<Value = Rules> {
    prop::collection::vec(handler(words), phases.len())
        .prop_map(|handlers| Rules(phases.iter().copied().zip(handlers).collect()))
}

/// A module of hooks.
pub(crate) fn hooks() -> impl Strategy<Value = Rules> {
    let needles = &HOOK_NEEDLES;
    let answers = &HOOK_ANSWERS;
    module(Words { needles, answers }, &HOOKS)
}

/// A module that remembers nothing.
pub(crate) fn rules() -> impl Strategy<Value = Rules> {
    module(EVENTS, &PHASES)
}

/// A module, and the same with another handler or, if `counting`, with one that
/// counts its calls.
pub(crate) fn pair(counting: bool) -> impl Strategy<Value = (Rules, Rules)> {
    let counted = (0..6_u32, act(EVENTS));
    (rules(), 0..PHASES.len(), handler(EVENTS), counted).prop_map(
        move |(old, at, mut other, (calls, then))| {
            let mut new = old.clone();
            if counting {
                let first = Box::new(old.0[at].1.default.clone());
                other.rules.clone_from(&old.0[at].1.rules);
                other.default = Act::After(calls, first, Box::new(then));
            }
            new.0[at].1 = other;
            (old, new)
        },
    )
}

/// The calls of one transaction: phases with their inputs, as a proxy sends them.
pub(crate) type Transaction = Vec<(&'static str, Value)>;

/// A transaction with this id.
pub(crate) fn transaction(id: String) -> impl Strategy<Value = Transaction> {
    let uri = prop::sample::select(vec!["/", "/admin", "/b/c?q=1&r=2", "/admin/b?r=2"]);
    let headers = prop::sample::subsequence(vec![("x-a", "1"), ("x-b", "2"), ("x-c", "3")], 0..=3);
    let texts = vec![
        "evil",
        "aa",
        r#"{"name":"x","role":"admin","n":[1,2]}"#,
        "b",
    ];
    let body = prop::collection::vec(prop::sample::select(texts), 0..4);
    let status = prop::option::of(prop::sample::select(vec![200, 500]));
    (uri, headers, body, any::<bool>(), status).prop_map(
        move |(uri, headers, body, is_sized, status)| {
            let mut headers: serde_json::Map<String, Value> = headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            let size: usize = body.iter().map(|text| text.len()).sum();
            let method = if body.is_empty() { "GET" } else { "POST" };
            if is_sized && !body.is_empty() {
                let length = ("content-length".to_owned(), size.to_string().into());
                headers.extend([length]);
                headers.sort_keys();
            }
            let mut calls: Transaction = vec![(
                "request_headers",
                json!({"method": method, "uri": uri, "client_ip": "192.0.2.1", "correlation_id": id, "headers": headers}),
            )];
            let mut sent = 0;
            for (index, text) in body.iter().enumerate() {
                sent += text.len();
                calls.push((
                    "request_body",
                    json!({"correlation_id": id, "method": method, "uri": uri, "client_ip": "192.0.2.1", "headers": headers,
                        "chunk_index": index, "is_last": index + 1 == body.len(), "total_size": is_sized.then_some(size),
                        "bytes_received": sent, "data": text, "encoding": "utf8"}),
                ));
            }
            if let Some(status) = status {
                calls.push((
                    "response_headers",
                    json!({"status": status, "correlation_id": id, "headers": {}}),
                ));
            }
            calls
        },
    )
}

/// Up to so many transactions, each with an id of its own.
pub(crate) fn traffic(most: usize) -> impl Strategy<Value = Vec<Transaction>> {
    let transactions: Vec<_> = (0..most).map(|at| transaction(format!("t{at}"))).collect();
    (transactions, 1..=most).prop_map(|(mut all, count)| {
        all.truncate(count);
        all
    })
}

/// A capture of our own format, without what was answered.
pub(crate) fn capture(traffic: &[Transaction]) -> String {
    let calls = traffic.iter().flatten();
    let record = |(phase, input): &(&str, Value)| {
        let id = &input["correlation_id"];
        json!({"v": 1, "id": id, "phase": phase, "ts": null, "module": null, "input": input, "output": null, "error": null, "fuel": null, "wall_ns": null, "redacted": []})
            .to_string()
    };
    calls.map(|call| record(call) + "\n").collect()
}
