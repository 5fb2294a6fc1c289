//! `validate` about bodies in chunks: modules that join chunks in their instance, that
//! look at one chunk alone, that keep bodies that never end, and that get them whole.

use std::path::PathBuf;

use serde_json::Value;

use super::{one, remarks, row};
use crate::support::guests::{ALLOW, guest};
use crate::support::{TestDir, binary, shipped};

const ROW: &str = "bodies:on_request_body";
const GROWTH: &str = "growth:bodies";

/// Refuses a request.
const BLOCK: &str = "(i64.const 0x0000_044c_0000_0014)";

/// `$has` looks for one of the words that lie here, `$id` is a number for the correlation
/// id, and `$keep` adds the data of a chunk to what is kept at 32768.
const PARTS: &str = r#"
(data (i32.const 1100) "{\22decision\22:\22block\22}")
(data (i32.const 1200) "\22data\22:\22")
(data (i32.const 1220) "\22is_last\22:true")
(data (i32.const 1240) "\22chunk_index\22:0,")
(global $of (mut i32) (i32.const 0))
(global $used (mut i32) (i32.const 0))
(global $open (mut i32) (i32.const 0))
(func $is (param $at i32) (param $word i32) (param $n i32) (result i32)
  (loop $next
    (if (i32.eqz (local.get $n)) (then (return (i32.const 1))))
    (if (i32.ne (i32.load8_u (local.get $at)) (i32.load8_u (local.get $word)))
      (then (return (i32.const 0))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (local.set $word (i32.add (local.get $word) (i32.const 1)))
    (local.set $n (i32.sub (local.get $n) (i32.const 1)))
    (br $next))
  (unreachable))
(func $has (param $at i32) (param $size i32) (param $word i32) (param $n i32) (result i32)
  (local $end i32)
  (local.set $end (i32.add (local.get $at) (local.get $size)))
  (loop $next
    (if (i32.gt_u (i32.add (local.get $at) (local.get $n)) (local.get $end))
      (then (return (i32.const 0))))
    (if (call $is (local.get $at) (local.get $word) (local.get $n))
      (then (return (local.get $at))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br $next))
  (unreachable))
(func $last (param $p i32) (param $n i32) (result i32)
  (call $has (local.get $p) (local.get $n) (i32.const 1220) (i32.const 14)))
(func $first (param $p i32) (param $n i32) (result i32)
  (call $has (local.get $p) (local.get $n) (i32.const 1240) (i32.const 16)))
(func $id (param $p i32) (result i32) (local $id i32)
  (local.set $p (i32.add (local.get $p) (i32.const 19)))
  (loop $next
    (local.set $id (i32.add (i32.mul (local.get $id) (i32.const 31))
      (i32.load8_u (local.get $p))))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (br_if $next (i32.ne (i32.load8_u (local.get $p)) (i32.const 34))))
  (local.get $id))
(func $keep (param $p i32) (param $n i32) (local $end i32)
  (local.set $p (i32.add (i32.const 8)
    (call $has (local.get $p) (local.get $n) (i32.const 1200) (i32.const 8))))
  (local.set $end (local.get $p))
  (block $done (loop $next
    (br_if $done (i32.eq (i32.load8_u (local.get $end)) (i32.const 34)))
    (local.set $end (i32.add (local.get $end) (i32.const 1)))
    (br $next)))
  (memory.copy (i32.add (i32.const 32768) (global.get $used)) (local.get $p)
    (i32.sub (local.get $end) (local.get $p)))
  (global.set $used (i32.add (global.get $used) (i32.sub (local.get $end) (local.get $p)))))
"#;

/// A guest with this handler of request bodies; what it looks for lies at 1280.
fn bodies(dir: &TestDir, (word, parts): (&str, &str), handler: &str) -> PathBuf {
    let parts = format!(
        "{PARTS}(data (i32.const 1280) \"{word}\")\n{parts}\n\
         (func (export \"on_request_body\") (param $p i32) (param $n i32) (result i64)\n{handler})"
    );
    guest(dir, "bodies.wat", &parts, ALLOW)
}

/// Joins the chunks of one body at a time, and forgets them where `begins` holds.
fn joiner(dir: &TestDir, word: &str, begins: &str) -> PathBuf {
    let size = word.len();
    let handler = format!(
        "(if {begins} (then
           (global.set $of (call $id (local.get $p))) (global.set $used (i32.const 0))))
         (call $keep (local.get $p) (local.get $n))
         (if (i32.eqz (call $last (local.get $p) (local.get $n))) (then (return {ALLOW})))
         (global.set $of (i32.const 0))
         (if (call $has (i32.const 32768) (global.get $used) (i32.const 1280) (i32.const {size}))
           (then (return {BLOCK})))
         {ALLOW}"
    );
    bodies(dir, (word, ""), &handler)
}

const BY_ID: &str = "(i32.ne (call $id (local.get $p)) (global.get $of))";
const BY_INDEX: &str = "(call $first (local.get $p) (local.get $n))";

/// Looks at each chunk alone.
fn scanner(dir: &TestDir, word: &str, parts: &str) -> PathBuf {
    let size = word.len();
    let handler = format!(
        "(if (call $has (local.get $p) (local.get $n) (i32.const 1280) (i32.const {size}))
           (then (return {BLOCK})))
         {ALLOW}"
    );
    bodies(dir, (word, parts), &handler)
}

/// Keeps 256 bytes for each body that has begun, until `ends`.
fn keeper(dir: &TestDir, ends: &str, then: &str) -> PathBuf {
    let handler = format!(
        "(if (call $last (local.get $p) (local.get $n))
           (then (if {ends} (then
             (global.set $open (i32.sub (global.get $open) (i32.const 1))))))
           (else (global.set $open (i32.add (global.get $open) (i32.const 1)))))
         (block $enough (loop $more
           (br_if $enough (i32.le_u (i32.mul (global.get $open) (i32.const 256))
             (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1048576))))
           (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))))
         {then}"
    );
    bodies(dir, ("", ""), &handler)
}

fn text<'a>(module: &'a Value, (id, key): (&str, &str)) -> &'a str {
    row(module, id)[key].as_str().unwrap()
}

fn has_row(module: &Value, start: &str) -> bool {
    let rows = module["checks"].as_array().unwrap();
    rows.iter()
        .any(|row| row["id"].as_str().unwrap().starts_with(start))
}

#[test]
fn a_module_that_joins_chunks_in_its_instance_is_warned_of_others() {
    for word in ["<script", "UNION SELECT", "evil", "4111 1111"] {
        let dir = TestDir::new();
        let file = joiner(&dir, word, BY_ID);
        let (code, module) = one(&[], &file);
        assert_eq!(
            (code, remarks(&module)),
            (0, vec![format!("!{ROW}")]),
            "{word}"
        );
        let found = text(&module, (ROW, "found"));
        assert!(
            found.contains(
                "block 403 where one instance was asked about the chunks before, allow where another was"
            ),
            "{word}: {found}"
        );
        let fix = text(&module, (ROW, "fix"));
        assert!(
            fix.contains("whole_body") && fix.contains("0.6.54"),
            "{fix}"
        );
        assert_eq!(row(&module, GROWTH)["status"], "pass");

        // No instance has more than one chunk there.
        let (code, module) = one(&["--isolation", "fresh"], &file);
        assert_eq!(
            (code, remarks(&module)),
            (1, vec![ROW.to_owned()]),
            "{word}"
        );
        assert!(text(&module, (ROW, "fix")).contains("never has a whole body"));

        let (code, module) = one(&["--body", "whole"], &file);
        assert_eq!((code, remarks(&module)), (0, vec![]), "{word}");
    }
}

#[test]
fn chunks_that_are_joined_across_exchanges_are_a_failure() {
    let dir = TestDir::new();
    let (code, module) = one(&[], &joiner(&dir, "<script", BY_INDEX));
    assert_eq!((code, remarks(&module)), (1, vec![ROW.to_owned()]));
    let found = text(&module, (ROW, "found"));
    assert!(
        found.ends_with("the chunks of another exchange change it just so"),
        "{found}"
    );
}

#[test]
fn what_is_kept_by_the_correlation_id_is_told_though_no_decision_shows_it() {
    let dir = TestDir::new();
    let (code, module) = one(&[], &joiner(&dir, "a word of no sample", BY_ID));
    assert_eq!((code, remarks(&module)), (0, vec![format!("!{ROW}")]));
    let found = text(&module, (ROW, "found"));
    assert!(
        found.starts_with("it may keep something of a chunk by its correlation id: "),
        "{found}"
    );
    let file = joiner(&dir, "a word of no sample", BY_ID);
    let (code, module) = one(&["--isolation", "fresh"], &file);
    assert_eq!((code, remarks(&module)), (0, vec![]));
}

/// What the call before has left in a buffer changes what a call costs, and nothing else.
#[test]
fn a_buffer_that_is_used_again_keeps_nothing() {
    let handler = format!(
        "(local $i i32)
         (block $done (loop $next
           (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
           (br_if $done (i32.ne
             (i32.load8_u (i32.add (local.get $p) (local.get $i)))
             (i32.load8_u (i32.add (i32.const 32768) (local.get $i)))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         (memory.copy (i32.const 32768) (local.get $p) (local.get $n))
         {ALLOW}"
    );
    let dir = TestDir::new();
    let (code, module) = one(&[], &bodies(&dir, ("", ""), &handler));
    assert_eq!((code, remarks(&module)), (0, vec![]));
}

#[test]
fn bodies_that_were_not_tried_say_why() {
    let dir = TestDir::new();
    let parts = "(func (export \"on_request_body\") (param i32 i32) (result i64) unreachable)";
    let (_, module) = one(&[], &guest(&dir, "bodies.wat", parts, "unreachable"));
    assert_eq!(text(&module, (GROWTH, "found")), "not tried, see growth");
}

#[test]
fn a_module_that_looks_at_one_chunk_alone_is_warned_of_cuts() {
    for word in ["<script", "UNION SELECT", "attack", "etc/passwd", "jndi:"] {
        let dir = TestDir::new();
        let file = scanner(&dir, word, "");
        for args in [
            &[][..],
            &["--isolation", "fresh"],
            &["--isolation", "recycle=7"],
        ] {
            let (code, module) = one(args, &file);
            assert_eq!(
                (code, remarks(&module)),
                (0, vec![format!("!{ROW}")]),
                "{word} {args:?}"
            );
            let found = text(&module, (ROW, "found"));
            assert!(
                found.starts_with("what the module looks for is not found where it is cut: ")
                    && found.contains(" is given block 403 in one chunk, allow in 2 chunks ("),
                "{found}"
            );
            assert!(text(&module, (ROW, "fix")).contains("zentinel-proxy up to 0.6.45"));
        }
        assert_eq!(one(&["--body", "whole", "--deny-warnings"], &file).0, 0);
        assert_eq!(one(&["--deny-warnings"], &file).0, 1);
    }
}

#[test]
fn a_body_that_passes_whole_and_not_in_chunks_is_told() {
    let dir = TestDir::new();
    let handler = format!("(if {BY_INDEX} (then (return {ALLOW}))) {BLOCK}");
    let (_, module) = one(&[], &bodies(&dir, ("", ""), &handler));
    assert_eq!(remarks(&module), [format!("!{ROW}")]);
    let found = text(&module, (ROW, "found"));
    assert!(
        found.contains("is given allow in one chunk, block 403 in 2 chunks (hello, |  world)"),
        "{found}"
    );
}

#[test]
fn modules_that_look_at_no_body_pass() {
    for answer in [ALLOW, BLOCK] {
        let dir = TestDir::new();
        let (code, module) = one(&["--deny-warnings"], &bodies(&dir, ("", ""), answer));
        assert_eq!((code, remarks(&module)), (0, vec![]));
        let found = text(&module, (ROW, "found"));
        assert!(
            found.starts_with("bodies are given chunk by chunk: "),
            "{found}"
        );
        assert!(!has_row(&module, "bodies:on_response_body"));
    }
    let (_, module) = one(&[], &shipped("hooks/pass-through.wat"));
    assert!(!has_row(&module, "bodies") && !has_row(&module, GROWTH));
}

#[test]
fn a_module_that_gets_bodies_whole_is_asked_about_no_part_of_one() {
    // A part of a body, or one whose sizes do not say that it is whole, is a trap.
    let strict = "(if (i32.or (i32.eqz (call $last (local.get $p) (local.get $n)))
                              (i32.eqz (call $first (local.get $p) (local.get $n))))
                    (then (unreachable)))";
    let dir = TestDir::new();
    for (said, args, is_whole) in [
        ("1", &[][..], true),
        ("1", &["--body", "chunks"], true),
        ("1", &["--isolation", "fresh"], true),
        ("0", &["--body", "whole"], false),
    ] {
        let global = format!("(global (export \"whole_body\") i32 (i32.const {said}))");
        let file = bodies(&dir, ("", &global), &format!("{strict}{ALLOW}"));
        let (_, module) = one(&[args, &["--torture"]].concat(), &file);
        let rows = module["checks"].as_array().unwrap();
        let trapped = rows
            .iter()
            .any(|row| row["fault"] == "trap:unreachable" && row["status"] == "fail");
        assert_eq!(trapped, !is_whole, "{said} {args:?}");
        assert_eq!(has_row(&module, GROWTH), !is_whole, "{said} {args:?}");
        assert_eq!(has_row(&module, "torture:request_body:figures"), !is_whole);
        if is_whole {
            let found = text(&module, (ROW, "found"));
            assert_eq!(
                found,
                "bodies are given whole (by its global whole_body), however the proxy cuts them"
            );
            let samples = module["metrics"]["samples"].as_array().unwrap();
            assert!(
                samples
                    .iter()
                    .all(|sample| sample["sample"] != "first-chunk")
            );
            assert!(samples.iter().any(|sample| sample["sample"] == "form"));
        }
    }
    let file = bodies(&dir, ("", ""), &format!("{strict}{ALLOW}"));
    let (_, module) = one(
        &["--torture", "--body", "whole", "--max-body", "100KiB"],
        &file,
    );
    assert!(text(&module, (ROW, "found")).contains("(--body whole)"));
    assert!(!has_row(&module, "torture:request_body:text-1-mib"));
    assert!(has_row(&module, "torture:request_body:nul"));
}

#[test]
fn bodies_that_are_kept_are_found_by_whether_they_end() {
    const ALWAYS: &str = "(global.get $open)";
    const NEVER: &str = "(i32.const 0)";
    for (ends, status, what) in [
        (ALWAYS, "warn", "bodies that never end: "),
        (NEVER, "warn", "bodies in two chunks: "),
    ] {
        let dir = TestDir::new();
        let file = keeper(&dir, ends, ALLOW);
        let (code, module) = one(&[], &file);
        assert_eq!(
            (code, remarks(&module)),
            (0, vec![format!("!{GROWTH}")]),
            "{what}"
        );
        assert_eq!(row(&module, GROWTH)["status"], status);
        let found = text(&module, (GROWTH, "found"));
        assert!(found.starts_with(what), "{found}");
        for (gate, code) in [("0", 1), ("100", 1), ("1KiB", 0)] {
            let (found, module) = one(&["--max-growth", gate], &file);
            assert_eq!(found, code, "{what} {gate}: {:?}", remarks(&module));
        }
    }
}

/// One page for each eight correlation ids that it has not seen, and no more.
#[test]
fn a_note_for_each_correlation_id_is_found() {
    let handler = format!(
        "(local $at i32)
         (local.set $at (i32.add (i32.const 196608)
           (i32.and (call $id (local.get $p)) (i32.const 0x3ffff))))
         (if (i32.eqz (i32.load8_u (local.get $at))) (then
           (i32.store8 (local.get $at) (i32.const 1))
           (global.set $open (i32.add (global.get $open) (i32.const 1)))
           (if (i32.eqz (i32.and (global.get $open) (i32.const 7)))
             (then (drop (memory.grow (i32.const 1)))))))
         {ALLOW}"
    );
    let dir = TestDir::new();
    let (code, module) = one(&[], &bodies(&dir, ("", ""), &handler));
    let expected = [GROWTH, ROW].map(|id| format!("!{id}"));
    assert_eq!((code, remarks(&module)), (0, expected.to_vec()));
    let found = text(&module, (GROWTH, "found"));
    assert!(found.starts_with("bodies in two chunks: "), "{found}");
}

#[test]
fn an_answer_that_changes_after_many_unfinished_bodies_is_state() {
    let dir = TestDir::new();
    let full = format!(
        "(if (i32.gt_u (global.get $open) (i32.const 700)) (then
           (global.set $open (i32.const 701)) (return {BLOCK}))) {ALLOW}"
    );
    let (code, module) = one(&[], &keeper(&dir, "(global.get $open)", &full));
    assert_eq!(
        (code, remarks(&module)),
        (1, vec!["state:exchanges".to_owned()])
    );
    assert_eq!(
        text(&module, ("state:exchanges", "found")),
        "bodies that never end: on_request_body answers allow at first, block 403 after 700 calls about other exchanges"
    );
}

/// Drops the body of a request in which this word is.
fn dropper(dir: &TestDir, word: &str) -> PathBuf {
    let answer = "{\\22decision\\22:\\22allow\\22,\\22request_body_mutation\\22:{\\22action\\22:\\22drop\\22}}";
    let parts = format!("(data (i32.const 1400) \"{answer}\")");
    let packed = (1400_u64 << 32) | answer.replace("\\22", "\"").len() as u64;
    let size = word.len();
    let handler = format!(
        "(if (call $has (local.get $p) (local.get $n) (i32.const 1280) (i32.const {size}))
           (then (return (i64.const {packed}))))
         {ALLOW}"
    );
    bodies(dir, (word, &parts), &handler)
}

#[test]
fn whole_bodies_are_not_recommended_to_a_module_that_replaces_them() {
    const RESPONSES: &str = "bodies:on_response_body";
    let dir = TestDir::new();
    let rules = shipped("rules/rules.wasm");
    let both = &[ROW, RESPONSES][..];
    // File, the rows that warn of cuts, and those that warn of replacing whole bodies.
    for (file, cut, replaced) in [
        (rules, both, &[RESPONSES][..]),
        (shipped("right/body-drop.wat"), &[], both),
        // Only in a body with the mark of an attack, only in one of the others.
        (dropper(&dir, "evil"), &[ROW], &[ROW]),
        (dropper(&dir, "4111 1111"), &[ROW], &[ROW]),
    ] {
        let (_, module) = one(&[], &file);
        for id in cut {
            assert_eq!(row(&module, id)["status"], "warn", "{file:?}");
            let fix = text(&module, (id, "fix"));
            assert!(
                !fix.contains("whole_body") && !fix.contains("--body"),
                "{fix}"
            );
            assert!(fix.contains("max-inspection-bytes"), "{fix}");
        }
        let (code, module) = one(&["--body", "whole"], &file);
        assert_eq!(code, 0, "{file:?}");
        for id in both.iter().filter(|id| has_row(&module, id)) {
            let is_told = text(&module, (id, "found")).contains(
                "replaces a body; where the body comes in several chunks that is the fault bad-answer:body-mutation",
            );
            assert_eq!(is_told, replaced.contains(id), "{file:?} {id}");
            // Proxies send the body of a response in one chunk.
            let is_warned = is_told && *id == ROW;
            let status = if is_warned { "warn" } else { "pass" };
            assert_eq!(row(&module, id)["status"], status, "{file:?} {id}");
        }
    }
}

#[test]
fn a_body_flag_against_the_word_of_the_module_is_told() {
    let dir = TestDir::new();
    let record = r#"{"event":"request_headers","method":"GET","uri":"/"}"#;
    let fixture = dir.file("fixture.json", record);
    let capture = dir.file("capture.jsonl", format!("{record}\n"));
    let socket = dir.path("no-folder/socket");
    for (said, flag, is_told) in [
        ("0", "whole", true),
        ("1", "chunks", true),
        ("1", "whole", false),
        ("0", "chunks", false),
    ] {
        let global = format!("(global (export \"whole_body\") i32 (i32.const {said}))");
        let file = scanner(&dir, "evil", &global);
        for command in ["validate", "run", "replay", "bench", "serve"] {
            let mut call = binary([command, "--body", flag]);
            if command == "serve" {
                call.arg("--module");
            }
            call.arg(&file);
            match command {
                "run" => call.arg(&fixture),
                "replay" => call.arg(&capture),
                "bench" => call.args(["--requests", "1", "--warm-up", "1ms"]),
                // It loads the module, and then has no place for its socket.
                "serve" => call.arg("--socket").arg(&socket),
                _ => &mut call,
            };
            let text = String::from_utf8(call.output().unwrap().stderr).unwrap();
            let is_found = text.lines().any(|line| {
                line.contains(&format!("--body {flag} changes nothing: "))
                    && line.ends_with(&format!(
                        " exports the global whole_body with the value {said}"
                    ))
            });
            assert_eq!(is_found, is_told, "{command}: {text}");
        }
        if said == "0" {
            let (_, module) = one(&["--body", flag], &file);
            let fix = text(&module, (ROW, "fix"));
            assert!(
                fix.starts_with("export the global whole_body with the value 1 (with 0, --body whole has no effect)"),
                "{fix}"
            );
        }
    }
}
