//! `replay` as a user meets it: the built binary on captures of every format,
//! whole and broken.

mod answers;
mod broken;
mod chain;
mod compare;
mod exchanges;
mod files;
mod formats;
mod ftw;
mod gor;
mod har;
mod hooks;
mod ignore;
mod languages;
mod late;
mod logs;
mod redaction;
mod save;
mod secrets;
mod shards;
mod tap;
mod time;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::guests::Answers;
use crate::support::{Done, TestDir, binary, finish, shipped};

/// `replay MODULE CAPTURE... --no-timings`.
fn command(module: &Path, captures: &[&Path]) -> Command {
    // A good guest on a busy machine is no runaway.
    let mut command = binary(["replay", "--no-timings", "--timeout", "20s"]);
    command.arg(module).args(captures);
    command
}

fn replay(module: &Path, captures: &[&Path], flags: &[&str]) -> Done {
    let mut command = command(module, captures);
    command.args(flags);
    finish(command)
}

/// The JSON report.
#[track_caller]
fn report(module: &Path, captures: &[&Path], flags: &[&str]) -> Value {
    replay(module, captures, &[flags, &["--format", "json"]].concat()).json()
}

/// One object for each transaction.
#[track_caller]
fn rows(module: &Path, captures: &[&Path], flags: &[&str]) -> Vec<Value> {
    let done = replay(module, captures, &[flags, &["--format", "jsonl"]].concat());
    done.assert_calm();
    done.text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The report of a capture of this name and text, and the records that are saved of
/// it, with their secrets.
#[track_caller]
fn saved(name: &str, text: impl AsRef<[u8]>) -> (Value, Vec<Value>) {
    saved_with(name, text, &[])
}

fn saved_with(name: &str, text: impl AsRef<[u8]>, more: &[&str]) -> (Value, Vec<Value>) {
    let dir = TestDir::new();
    let (path, saved) = (dir.file(name, text), dir.path("saved.jsonl"));
    let flags = ["--keep-secrets", "--save", saved.to_str().unwrap()];
    let flags = [&flags[..], &["--fail-on", "never"], more].concat();
    let report = report(&shipped("right/allow.wat"), &[&path], &flags);
    let saved = std::fs::read_to_string(saved).unwrap_or_default();
    let records = saved
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (report, records.collect())
}

/// What the records of this phase have for this key of their input.
fn inputs(records: &[Value], phase: &str, key: &str) -> Vec<Value> {
    let records = records.iter().filter(|record| record["phase"] == phase);
    records.map(|record| record["input"][key].clone()).collect()
}

/// The remarks of a report, without those that nearly every capture has.
fn remarks(report: &Value) -> Vec<&str> {
    let usual = ["no_response", "no_credentials", "client_ip_default"];
    let remarks = report["remarks"].as_object().into_iter().flatten();
    let names = remarks.map(|(name, _)| &**name);
    let mut names: Vec<&str> = names.filter(|name| !usual.contains(name)).collect();
    names.sort_unstable();
    names
}

/// A step as the line that recording it writes, with an answer if it has one.
fn record(id: &str, step: &Value) -> String {
    let event = step["event"].as_str().unwrap();
    // In the order in which a guest gets them.
    let mut input = match event {
        "request_headers" => json!({"method": "GET", "uri": "/", "client_ip": "192.0.2.1",
            "correlation_id": id, "headers": {}}),
        "response_headers" => json!({"status": 200, "correlation_id": id, "headers": {}}),
        _ => json!({"correlation_id": id, "chunk_index": 0, "is_last": true, "total_size": null,
            "bytes_received": 1, "encoding": "utf8"}),
    };
    let given = step["input"].as_object().unwrap().clone();
    input.as_object_mut().unwrap().extend(given);
    json!({"v": 1, "id": id, "phase": event, "ts": "2026-01-01T00:00:00Z", "input": input,
        "output": step["output"]})
    .to_string()
}

/// The line of a request that gets the answer of this number, with the answer
/// of the time if there was one.
fn asks_for(id: &str, answer: usize, output: &Value) -> String {
    let input = json!({"uri": format!("/{answer:04}")});
    record(
        id,
        &json!({"event": "request_headers", "input": input, "output": output}),
    )
}

/// An agent's answer as a recording has it.
fn recorded(decision: &Value) -> Value {
    json!({"decision": decision, "request_headers": [], "response_headers": [],
        "routing_metadata": {}, "audit": {"tags": [], "rule_ids": [], "reason_codes": []},
        "needs_more": false})
}

/// What a fault was answered with, fail-closed.
fn recorded_fault(code: &str) -> Value {
    let mut answer = recorded(&json!({"block": {"status": 500, "body": "Wasm Error"}}));
    answer["audit"] = json!({"tags": ["wasm-error"], "rule_ids": [], "reason_codes": [code]});
    answer
}

/// Guests of two versions, each with a table of answers; an answer that is
/// empty is a fault.
struct Versions {
    dir: TestDir,
    old: PathBuf,
    new: PathBuf,
}

impl Versions {
    fn of(answers: &[(&str, &str)]) -> Self {
        let dir = TestDir::new();
        let guest = |name: &str, side: fn(&(&'_ str, &'_ str)) -> String| {
            let mut table = Answers::default();
            for answer in answers.iter().map(side) {
                match answer.as_str() {
                    // Nothing lies there.
                    "" => table.add_packed(u64::MAX),
                    text => table.add(text.as_bytes()),
                }
            }
            dir.file(name, table.wat())
        };
        Self {
            old: guest("old.wat", |(old, _)| (*old).to_owned()),
            new: guest("new.wat", |(_, new)| (*new).to_owned()),
            dir,
        }
    }

    fn capture(&self, lines: &[String]) -> PathBuf {
        self.dir.file("capture.jsonl", lines.join("\n") + "\n")
    }

    /// `--baseline` and the old one.
    fn beside(&self) -> [&str; 2] {
        ["--baseline", self.old.to_str().unwrap()]
    }
}

/// A module that blocks a request whose input has these bytes.
fn blocks_on(needle: &str) -> String {
    let bytes: String = needle.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let size = needle.len();
    let allow = r#"{"decision":"allow"}"#;
    let block = r#"{"decision":"block","status":403,"tags":["beta"],"rule_ids":["7"]}"#;
    let (allow_size, block_size) = (allow.len(), block.len());
    let (allow, block) = (allow.replace('"', "\\22"), block.replace('"', "\\22"));
    format!(
        r#"(module
  (memory (export "memory") 8)
  (data (i32.const 0) "{bytes}")
  (data (i32.const 256) "{allow}")
  (data (i32.const 320) "{block}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "on_request_headers") (param $at i32) (param $len i32) (result i64)
    (local $end i32) (local $i i32)
    (local.set $end (i32.add (local.get $at) (i32.sub (local.get $len) (i32.const {size}))))
    (block $no
      (loop $next
        (br_if $no (i32.gt_s (local.get $at) (local.get $end)))
        (local.set $i (i32.const 0))
        (block $differs
          (loop $same
            (br_if $differs (i32.ne
              (i32.load8_u (local.get $i))
              (i32.load8_u (i32.add (local.get $at) (local.get $i)))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $same (i32.lt_s (local.get $i) (i32.const {size}))))
          (return (i64.or (i64.shl (i64.const 320) (i64.const 32)) (i64.const {block_size}))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i64.or (i64.shl (i64.const 256) (i64.const 32)) (i64.const {allow_size}))))"#
    )
}

/// A HAR of so many requests; those that `flagged` names carry one header more.
fn har(count: usize, flagged: impl Fn(usize) -> bool) -> String {
    let entries: Vec<String> = (0..count)
        .map(|index| {
            let flag = if flagged(index) {
                r#",{"name":"X-Beta","value":"on"}"#
            } else {
                ""
            };
            format!(
                r#"{{"startedDateTime":"2026-01-01T00:00:{:02}.000Z","request":{{"method":"GET","url":"https://shop.example/items/{index}?page=2&sort=price","headers":[{{"name":"Accept","value":"*/*"}},{{"name":"User-Agent","value":"browser/{index}"}}{flag},{{"name":"Accept-Language","value":"de"}}]}},"response":{{"status":200,"headers":[{{"name":"Content-Type","value":"text/html"}}],"content":{{"size":2,"text":"ok"}}}}}}"#,
                index % 60
            )
        })
        .collect();
    format!(
        r#"{{"log":{{"version":"1.2","creator":{{"name":"test","version":"1"}},"entries":[{}]}}}}"#,
        entries.join(",\n")
    )
}
