//! What a guest says must not drive a terminal or fake a line,
//! and a reader of our output may go away or be full.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::guests::{ALLOW, answering, escaped, guest, guest_with};
use crate::support::{Done, Sink, TestDir, binary, finish, finish_into, shipped, tidy};

const FORMATS: [&str; 5] = ["human", "json", "jsonl", "junit", "github"];

/// Terminal commands and lines that look like ours or like a log's.
const NASTY: &str = "\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1m\u{202e}\r\n\
    FORGED 2026-01-01 ERROR\n::error::FORGED\n\u{2028}FORGED";

/// Runs in one format, with colour or without.
fn shown(module: &Path, fixture: &Path, format: &str, flags: &[&str]) -> Done {
    let mut command = binary(["run", "--format", format]);
    command.args(flags).arg(module).arg(fixture);
    let done = finish(command);
    done.assert_calm();
    done
}

/// Our own colours taken away; whatever escape is left is somebody else's.
fn without_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let end = after.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end {
            Some(end) if after[end..].starts_with('m') => rest = &after[end + 1..],
            _ => {
                out.push('\u{1b}');
                rest = after;
            }
        }
    }
    out + rest
}

#[track_caller]
fn assert_tame(what: &str, text: &str) {
    for line in text.split('\n') {
        assert!(
            !line
                .chars()
                .any(|c| c.is_control() || matches!(c, '\u{202e}' | '\u{2028}')),
            "{what}: {line:?}"
        );
        // The word may begin a line of a cell, at its column.
        let forged = line.starts_with("FORGED") || line.starts_with("  FORGED");
        assert!(!forged, "{what}: {line:?}");
        assert!(!line.starts_with("::error::FORGED"), "{what}: {line:?}");
    }
}

/// Tame for people in every format that people read, and not flooded.
#[track_caller]
fn assert_output_tame(module: &Path, fixture: &Path, flags: &[&str]) {
    for (format, colour) in [
        ("human", "never"),
        ("human", "always"),
        ("github", "never"),
        ("junit", "never"),
    ] {
        let flags = [&["--color", colour], flags].concat();
        let done = shown(module, fixture, format, &flags);
        let what = format!("{format}, {colour}, {}", module.display());
        let text = done.text();
        assert!(text.len() < 64 << 10, "{what}: {} bytes", text.len());
        assert!(
            done.stderr.len() < 64 << 10,
            "{what}: {} bytes",
            done.stderr.len()
        );
        if colour == "always" {
            assert_tame(&what, &without_colours(&text));
        } else {
            assert_tame(&what, &text);
        }
        assert_tame(&what, &without_colours(&done.stderr));
    }
    // In JSON a string may hold anything; the lines must still be ours.
    let done = shown(module, fixture, "jsonl", flags);
    for line in done.text().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert!(!done.text().contains('\u{1b}'));
}

/// Answers that hold [`NASTY`] in each place a guest can put words.
fn nasty_answers() -> Vec<(&'static str, Vec<u8>)> {
    let object = |value: serde_json::Value| value.to_string().into_bytes();
    let nasty = NASTY;
    vec![
        ("text", nasty.as_bytes().to_vec()),
        ("string", object(json!(nasty))),
        ("decision", object(json!({"decision": nasty}))),
        (
            "tags",
            object(json!({"decision": "allow", "tags": [nasty, nasty]})),
        ),
        (
            "rule_ids",
            object(json!({"decision": "block", "rule_ids": [nasty], "reason_codes": [nasty]})),
        ),
        ("body", object(json!({"decision": "block", "body": nasty}))),
        (
            "url",
            object(json!({"decision": "redirect", "body": nasty})),
        ),
        (
            "challenge",
            object(
                json!({"decision": "challenge", "challenge_type": nasty, "challenge_params": {nasty: nasty}}),
            ),
        ),
        (
            "unknown key",
            object(json!({"decision": "allow", nasty: 1})),
        ),
        (
            "header",
            object(json!({"decision": "allow", "add_request_headers": {nasty: nasty}})),
        ),
        (
            "header of a block",
            object(json!({"decision": "block", "remove_request_headers": [nasty]})),
        ),
        (
            "metadata",
            object(json!({"decision": "allow", "routing_metadata": {nasty: nasty}})),
        ),
        (
            "mistyped",
            object(json!({"decision": "allow", "tags": {nasty: nasty}})),
        ),
        (
            "mistyped item",
            object(json!({"decision": "allow", "tags": [{nasty: nasty}]})),
        ),
        (
            "mistyped map",
            object(json!({"decision": "allow", "routing_metadata": {nasty: 1}})),
        ),
        (
            "mutation",
            object(json!({"decision": "allow", "request_body_mutation": {"action": nasty}})),
        ),
    ]
}

/// Answers that are long where a guest can put words.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let object = |value: serde_json::Value| value.to_string().into_bytes();
    vec![
        ("flood", vec![b'x'; 1 << 20]),
        (
            "flood of tags",
            object(json!({"decision": "allow", "tags": vec!["x"; 100_000]})),
        ),
        (
            "flood of keys",
            object(
                (0..50_000)
                    .map(|n| (format!("k{n}"), json!(1)))
                    .chain([("decision".to_owned(), json!("allow"))])
                    .collect(),
            ),
        ),
        (
            "flood in a decision",
            object(json!({"decision": "y".repeat(1 << 19)})),
        ),
        (
            "flood in a url",
            object(json!({"decision": "redirect", "body": format!("/{}", "z".repeat(7_000))})),
        ),
        (
            "flood in an action",
            object(
                json!({"decision": "allow", "request_body_mutation": {"action": "w".repeat(1 << 19)}}),
            ),
        ),
    ]
}

#[test]
fn m_24_no_answer_drives_a_terminal_or_fakes_a_line() {
    for (what, answer) in nasty_answers().into_iter().chain(floods()) {
        println!("{what}");
        let dir = TestDir::new();
        let module = answering(&dir, "m.wat", answer);
        // Nothing expected, and something that each of them misses.
        assert_output_tame(&module, &dir.request(), &[]);
        let expecting = dir.file(
            "e.json",
            r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{
            "decision":"redirect","status":307,"body":"none","url":"none","tags":["none"],"rule_ids":["none"],
            "reason_codes":["none"],"request_headers":{"none":"1"},
            "response":{"routing_metadata":{"none":"1"},"decision":"x"}}}"#,
        );
        assert_output_tame(&module, &expecting, &["--fail-open"]);
    }
    let dir = TestDir::new();
    assert_output_tame(&shipped("hostile/ansi-answer.wat"), &dir.request(), &[]);
}

#[test]
fn m_24_no_unstable_answer_drives_a_terminal() {
    let dir = TestDir::new();
    // Odd calls answer the one, even calls the other.
    let answers: [String; 2] = ["a", "b"]
        .map(|name| json!({"decision": "allow", "tags": [format!("{NASTY}{name}")]}).to_string());
    let parts = format!(
        "(global $calls (mut i32) (i32.const 0))
         (data (i32.const 4096) \"{}\") (data (i32.const 8192) \"{}\")",
        escaped(answers[0].as_bytes()),
        escaped(answers[1].as_bytes()),
    );
    let body = format!(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (select (i64.const {}) (i64.const {}) (i32.and (global.get $calls) (i32.const 1)))",
        (4096_usize << 32) | answers[0].len(),
        (8192_usize << 32) | answers[1].len(),
    );
    let module = guest(&dir, "m.wat", &parts, &body);
    assert_output_tame(&module, &dir.request(), &["--repeat", "2"]);
    // The same words in the remark about spelling.
    let body = format!(
        "(select (i64.const {}) (i64.const {}) (i32.eq (i32.const 88)
           (i32.load8_u (i32.sub (i32.add (local.get $ptr) (local.get $len)) (i32.const 10)))))",
        (4096_usize << 32) | answers[0].len(),
        (8192_usize << 32) | answers[1].len(),
    );
    let module = guest(&dir, "s.wat", &parts, &body);
    let fixture = dir.request_with("x.json", "X-A");
    let done = shown(&module, &fixture, "human", &[]);
    assert!(
        done.text().contains("lower case"),
        "the remark is not there: {}",
        done.text()
    );
    assert_output_tame(&module, &fixture, &[]);
}

#[test]
fn m_24_no_name_in_a_module_drives_a_terminal() {
    let dir = TestDir::new();
    let nasty = escaped(NASTY.as_bytes());
    let request = dir.request();
    let import = dir.file(
        "import.wat",
        format!(
            "(module (import \"{nasty}\" \"{nasty}\" (func)) (memory (export \"memory\") 1)
             (func (export \"alloc\") (param i32) (result i32) unreachable)
             (func (export \"dealloc\") (param i32 i32))
             (func (export \"on_request_headers\") (param i32 i32) (result i64) unreachable))"
        ),
    );
    let memory = dir.file(
        "memory.wat",
        format!("(module (memory (export \"{nasty}\") 1) (func (export \"on_request_headers\")))"),
    );
    let twice = dir.file(
        "twice.wat",
        format!("(module (func (export \"{nasty}\")) (func (export \"{nasty}\")))"),
    );
    let trap = dir.file(
        "trap.wat",
        format!(
            "(module (memory (export \"memory\") 2)
             (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
             (func (export \"dealloc\") (param i32 i32))
             (func (@name \"{nasty}\") (export \"on_request_headers\") (param i32 i32) (result i64)
               unreachable))"
        ),
    );
    // The text of a module is quoted where it is wrong.
    let text = dir.file(
        "text.wat",
        "(module \"\u{1b}[2J\u{9b}1m\u{7}\u{202e}\" \u{1b}]0;x\u{7} (fucn))",
    );
    for module in [import, memory, twice, trap, text] {
        assert_output_tame(&module, &request, &[]);
    }
}

#[test]
fn m_24_an_abort_message_is_cut_and_escaped() {
    let dir = TestDir::new();
    let mut message: Vec<u8> = NASTY
        .repeat(1000)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    message.truncate(60_000);
    let length = u32::try_from(message.len()).unwrap().to_le_bytes();
    let module = dir.file(
        "m.wat",
        format!(
            "(module (import \"env\" \"abort\" (func $abort (param i32 i32 i32 i32)))
             (memory (export \"memory\") 2) (data (i32.const 12) \"{}{}\")
             (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
             (func (export \"dealloc\") (param i32 i32))
             (func (export \"on_request_headers\") (param i32 i32) (result i64)
               (call $abort (i32.const 16) (i32.const 16) (i32.const 1) (i32.const 1)) (i64.const 0)))",
            escaped(&length),
            escaped(&message),
        ),
    );
    assert_output_tame(&module, &dir.request(), &[]);
}

/// Two modules and what a run of each exits with.
fn cases(dir: &TestDir) -> [(PathBuf, i32); 3] {
    [
        (shipped("right/allow.wat"), 0),
        (shipped("hostile/trap-unreachable.wat"), 1),
        (dir.path("missing.wasm"), 3),
    ]
}

fn command(module: &Path, fixture: &Path, format: &str) -> Command {
    let mut command = binary(["run", "--format", format]);
    command.arg(module).arg(fixture);
    command
}

#[test]
fn i_07_a_report_that_cannot_be_written_is_no_success() {
    let dir = TestDir::new();
    // Large enough to be written in several pieces.
    let fixture = dir.requests("r.json", 300);
    for (module, code) in cases(&dir) {
        for format in FORMATS {
            for stdout in [Sink::Full, Sink::ReaderGone] {
                for stderr in [Sink::Kept, Sink::Full, Sink::ReaderGone] {
                    let done = finish_into(command(&module, &fixture, format), stdout, stderr);
                    let is_lost = stdout == Sink::Full && code == 0;
                    done.assert_code(if is_lost { 3 } else { code });
                    if (stdout, stderr, code < 3) == (Sink::Full, Sink::Kept, true) {
                        let said = done.stderr.contains("cannot write to standard output");
                        assert!(said, "{format}: {}", done.stderr);
                    }
                }
            }
        }
    }
}

/// A shell only closes the descriptor; the standard library cannot.
fn with_closed(descriptors: &str, inner: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("exec \"$0\" \"$@\" {descriptors}"));
    shell.arg(inner.get_program()).args(inner.get_args());
    tidy(&mut shell);
    shell
}

#[test]
fn i_07_closed_descriptors_do_not_change_the_exit_code() {
    let dir = TestDir::new();
    let fixture = dir.requests("r.json", 300);
    for (module, code) in cases(&dir) {
        for format in FORMATS {
            for descriptors in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
                let done = finish(with_closed(
                    descriptors,
                    &command(&module, &fixture, format),
                ));
                done.assert_code(code);
            }
        }
    }
}

#[test]
fn i_07_help_version_and_completions_survive_any_output() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["completions", "bash"],
        &["completions", "zsh"],
    ] {
        let lost = if arguments[0] == "completions" { 3 } else { 0 };
        finish_into(binary(arguments), Sink::Full, Sink::Kept).assert_code(lost);
        finish_into(binary(arguments), Sink::ReaderGone, Sink::Kept).assert_code(0);
        finish(with_closed(">&-", &binary(arguments))).assert_code(0);
    }
    for stderr in [Sink::Full, Sink::ReaderGone] {
        finish_into(binary(["run", "--nope"]), Sink::Kept, stderr).assert_code(2);
    }
}

#[test]
fn i_07_reports_go_to_files_whatever_becomes_of_standard_output() {
    let dir = TestDir::new();
    let mut command = command(&shipped("right/allow.wat"), &dir.request(), "human");
    let path = dir.path("out.json");
    command
        .arg("--report")
        .arg(format!("json={}", path.display()));
    finish_into(command, Sink::ReaderGone, Sink::Kept).assert_code(0);
    let report = std::fs::read(path).unwrap();
    serde_json::from_slice::<serde_json::Value>(&report).unwrap();
}

/// A report file that cannot be written in full is no success.
#[test]
fn i_07_a_report_file_on_a_full_disk_is_an_error() {
    let dir = TestDir::new();
    let mut command = command(&shipped("right/allow.wat"), &dir.request(), "human");
    command.args(["--report", "json=/dev/full"]);
    let done = finish(command);
    done.assert_code(3);
    assert!(done.stderr.contains("/dev/full"), "{}", done.stderr);
}

#[test]
fn m_24_output_of_a_thousand_bad_answers_stays_small() {
    let dir = TestDir::new();
    let parts = "(func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
        (func (export \"dealloc\") (param i32 i32))";
    // A megabyte of what is no JSON, at every call.
    let bad = guest_with(&dir, "m.wat", parts, "(i64.const 0x0000_0400_0010_0000)");
    let done = shown(&bad, &dir.request(), "human", &["--repeat", "1000", "-vv"]);
    done.assert_code(1);
    assert!(done.stdout.len() + done.stderr.len() < 64 << 10);
    // The frame of the tests is right: the same guest with a small answer.
    let fine = guest_with(&dir, "f.wat", parts, ALLOW);
    shown(&fine, &dir.request(), "human", &[]).assert_code(0);
}
