//! Text of somebody else in every field that a file, module, capture, report
//! or baseline has, in every format of every command: no control character
//! comes out, no line is a command for a CI system, and each format reads back
//! as what it is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::guests::{ALLOW, answering, escaped, guest};
use crate::support::{TestDir, binary, finish, shipped};

/// What each format could take for its own, and FORGED where it did.
const HOSTILE: &str = "=cmd|'FORGED'!A1\u{1b}[5mFORGED\u{1b}]0;FORGED\u{7}\u{9b}5m\u{202e}\u{2028}\u{0}\t\r\n\
    ::error::FORGED\n \t::error::FORGED\r::error::FORGED\n##[error]FORGED ##vso[task.x]FORGED\n\
    \n=FORGED,;\"=FORGED\n| FORGED | `FORGED` ```\n```\n<script>FORGED</script><!--]]></pre></summary>\
    &amp; %0A::error::FORGED @FORGED #1 [FORGED](https://forged.example) www.forged.example\n- FORGED\n\u{1b}";

/// The same as the name of a file: no slash, no zero, and no UTF-8.
fn hostile_name(extension: &str) -> OsString {
    let name =
        "=x\u{1b}[5mFORGED\u{7}\u{9b}\u{202e}\r\n::error::FORGED\n##[error]<script>,|`\"&%0A";
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend(b"\xff\xfe");
    bytes.extend(extension.as_bytes());
    OsString::from_vec(bytes)
}

fn put(dir: &TestDir, extension: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path("").join(hostile_name(extension));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What holds for all output, on standard error, too.
#[track_caller]
fn assert_tame(what: &str, text: &str) {
    for line in text.split('\n') {
        assert!(!line.contains(is_unprintable), "{what}: {line:?}");
        let is_ours = what.ends_with("github")
            && [
                "::error file=",
                "::warning file=",
                "::notice title=wasm-agent::",
            ]
            .iter()
            .any(|ours| line.starts_with(ours));
        let is_command = line.trim_start().starts_with("::");
        assert!(is_ours || !is_command, "{what}: {line:?}");
        assert!(
            !line.contains("##[") && !line.contains("##vso["),
            "{what}: {line:?}"
        );
    }
}

/// What holds for one format.
#[track_caller]
fn assert_whole(what: &str, format: &str, text: &str) {
    assert_tame(what, text);
    match format {
        "json" | "sarif" => drop(serde_json::from_str::<Value>(text).unwrap()),
        "jsonl" => {
            for line in text.lines() {
                serde_json::from_str::<Value>(line).unwrap();
            }
        }
        "junit" => {
            // This reader knows the named references alone.
            let known = text.replace("&#91;", "[").replace("&#58;", ":");
            quick_junit::Report::deserialize_from_str(&known)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(!text.contains("<script"), "{what}: {text}");
        }
        "html" | "svg" => {
            for markup in ["<script", "<!--", "]]>"] {
                assert!(!text.contains(markup), "{what}: {markup}");
            }
        }
        "csv" => text.lines().for_each(|line| assert_csv(what, line)),
        "markdown" => assert_markdown(what, text),
        "github" => assert!(
            text.lines().all(|line| line.starts_with("::")),
            "{what}: {text}"
        ),
        _ => {}
    }
}

/// Four fields, none of which a spreadsheet computes.
#[track_caller]
fn assert_csv(what: &str, line: &str) {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().unwrap().push(other),
        }
    }
    assert!(fields.len() == 4 && !quoted, "{what}: {line}");
    for field in &fields[..3] {
        assert!(!field.starts_with(['=', '+', '-', '@']), "{what}: {line}");
    }
}

/// Tables keep their columns, and nothing becomes HTML, a link or a mention.
#[track_caller]
fn assert_markdown(what: &str, text: &str) {
    let mut columns = None;
    let mut fence: Option<String> = None;
    for line in text.lines() {
        let ticks: String = line.chars().take_while(|c| *c == '`').collect();
        if let Some(open) = &fence {
            if line == open {
                fence = None;
            }
            continue;
        }
        if ticks.len() >= 3 && ["json", "text"].contains(&&line[ticks.len()..]) {
            fence = Some(ticks);
            continue;
        }
        // What is escaped is a text's own.
        let plain = without_code(line).replace("\\]", "");
        for mark in ["<script", "](", "https://", "www.", "@FORGED", "#1 "] {
            assert!(!plain.contains(mark), "{what}: {mark} in {line:?}");
        }
        if line.starts_with('|') {
            let found = plain.replace("\\|", "").matches('|').count();
            assert_eq!(*columns.get_or_insert(found), found, "{what}: {line:?}");
        } else {
            columns = None;
            assert!(
                !line.starts_with(['-', '=']) || line.starts_with("- `"),
                "{what}: {line:?}"
            );
        }
    }
    assert!(fence.is_none(), "{what}: a block is not closed");
}

/// A line of Markdown without what stands in spans of code.
fn without_code(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        let ticks = rest[at..].chars().take_while(|c| *c == '`').count();
        if rest[..at].ends_with('\\') {
            plain.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        }
        let fence = "`".repeat(ticks);
        let inner = &rest[at + ticks..];
        let ends = |found: &usize| {
            let after = &inner[found + ticks..];
            !inner[..*found].ends_with('`') && !after.starts_with('`')
        };
        let end = inner
            .match_indices(&fence)
            .map(|(found, _)| found)
            .find(ends);
        plain.push_str(&rest[..at]);
        match end {
            Some(end) => rest = &inner[end + ticks..],
            None => return plain + inner,
        }
    }
    plain + rest
}

const RUN: &[&str] = &["human", "json", "jsonl", "junit", "github"];
const VALIDATE: &[&str] = &["human", "json", "junit", "github", "sarif"];
const MERGE: &[&str] = &["human", "json", "junit", "markdown", "html", "github"];
const REPLAY: &[&str] = &[
    "human", "json", "jsonl", "junit", "markdown", "html", "github",
];
const BENCH: &[&str] = &[
    "human", "json", "csv", "markdown", "html", "junit", "github",
];

/// One process that writes every format, and what it says besides. Gives back
/// the reports by format; none where it refused its input.
fn every_format(what: &str, mut command: Command, formats: &[&str]) -> Vec<(String, String)> {
    let out = tempfile::tempdir().unwrap();
    for format in formats {
        let path = out.path().join(format);
        command.arg(format!("--report={format}={}", path.display()));
    }
    let done = finish(command);
    done.assert_calm();
    assert_tame(&format!("{what}: standard output"), &done.text());
    assert_tame(&format!("{what}: standard error"), &done.stderr);
    println!("{what}: {}", done.stderr);
    let reports = formats.iter().filter_map(|format| {
        let text = std::fs::read_to_string(out.path().join(format)).ok()?;
        assert_whole(&format!("{what}: {format}"), format, &text);
        Some(((*format).to_owned(), text))
    });
    reports.collect()
}

#[track_caller]
fn assert_all(reports: &[(String, String)], formats: &[&str]) {
    assert_eq!(reports.len(), formats.len(), "a report is missing");
    for (format, text) in reports {
        assert!(
            text.contains("FORGED"),
            "{format} has nothing of it: {text}"
        );
    }
}

/// The same in colours, on standard output: our own are all there is.
#[track_caller]
fn assert_colours_are_ours(what: &str, mut command: Command) {
    command.args(["--color", "always"]);
    let done = finish(command);
    done.assert_calm();
    let text = done.text();
    assert!(
        !text.contains("\u{1b}[5m") && !text.contains("\u{1b}]"),
        "{what}: {text:?}"
    );
    assert!(text.contains("\u{1b}["), "{what}: no colours");
}

/// An answer with all that a guest can say.
fn hostile_answer() -> Vec<u8> {
    json!({
        "decision": "block", "status": 403, "body": HOSTILE, "tags": [HOSTILE],
        "rule_ids": [HOSTILE], "reason_codes": [HOSTILE], HOSTILE: 1,
        "routing_metadata": {HOSTILE: HOSTILE},
        "add_response_headers": {"x-a": "FORGED"},
    })
    .to_string()
    .into_bytes()
}

/// A module with such names in all its sections, which traps.
fn hostile_module(dir: &TestDir) -> PathBuf {
    let nasty = escaped(HOSTILE.as_bytes());
    let wat = format!(
        "(module $m (@producers (language \"Rust\" \"{nasty}\") (processed-by \"{nasty}\" \"{nasty}\"))
         (@custom \"{nasty}\" \"{nasty}\")
         (memory (export \"memory\") 2) (export \"{nasty}\" (memory 0))
         (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
         (func (export \"dealloc\") (param i32 i32))
         (func (@name \"{nasty}\") (export \"on_request_headers\") (param i32 i32) (result i64)
           unreachable))"
    );
    put(dir, ".wat", wat)
}

fn hostile_fixture() -> String {
    json!({
        "name": HOSTILE, "description": HOSTILE, "event": "request_headers",
        "input": {"method": HOSTILE, "uri": HOSTILE, "client_ip": HOSTILE,
            "correlation_id": HOSTILE, "headers": {"X-A": HOSTILE, HOSTILE: "1"}},
        "expect": {"decision": "redirect", "status": 307, "body": HOSTILE, "url": HOSTILE, "tags": [HOSTILE, "FORGED"],
            "rule_ids": [HOSTILE], "reason_codes": [HOSTILE], "request_headers": {"x-a": HOSTILE},
            "response": {"routing_metadata": {HOSTILE: "FORGED"}}},
    })
    .to_string()
}

#[test]
fn m_24_a_run_shows_foreign_text_as_text() {
    let dir = TestDir::new();
    let fixture = put(&dir, ".json", hostile_fixture());
    let broken = dir.file("broken.json", format!("{{{}", json!(HOSTILE)));
    let unknown = dir.file("unknown.json", json!({HOSTILE: HOSTILE}).to_string());
    let blocks = answering(&dir, "blocks.wat", hostile_answer());
    for module in [hostile_module(&dir), blocks] {
        let run = || {
            let mut command = binary(["run"]);
            command.arg(&module).args([&fixture, &broken, &unknown]);
            command
        };
        let reports = every_format("run", run(), RUN);
        assert_all(&reports, RUN);
        let report: Value = serde_json::from_str(&reports[1].1).unwrap();
        let read = |fixture: &Value| fixture["error"].is_null();
        let read = report["fixtures"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|f| read(f));
        assert_eq!(read.count(), 1, "{report}");
        assert_colours_are_ours("run", run());
        let mut verbose = run();
        verbose.arg("-vv");
        every_format("run -vv", verbose, RUN);
    }
}

#[test]
fn m_24_a_validation_shows_foreign_text_as_text() {
    let dir = TestDir::new();
    let nasty = escaped(HOSTILE.as_bytes());
    let imports = dir.file(
        "imports.wat",
        format!(
            "(module (import \"{nasty}\" \"{nasty}\" (func)) (memory (export \"memory\") 1)
             (func (export \"on_request_headers\") (param i32) (result i64) unreachable))"
        ),
    );
    let broken = dir.file("broken.wat", format!("(module \"{HOSTILE}"));
    let answers = answering(&dir, "answers.wat", hostile_answer());
    for module in [hostile_module(&dir), imports, broken, answers] {
        let validate = || {
            let mut command = binary(["validate"]);
            command.arg(&module).arg(dir.path("no\n::error::FORGED"));
            command
        };
        let reports = every_format("validate", validate(), VALIDATE);
        assert_all(&reports, VALIDATE);
        assert_colours_are_ours("validate", validate());
    }
}

/// Captures of several formats with such text, usable and not.
fn hostile_captures(dir: &TestDir) -> Vec<PathBuf> {
    let record = json!({
        "v": 1, "id": HOSTILE, "phase": "request_headers", "module": HOSTILE,
        "input": {"method": "GET", "uri": format!("/{HOSTILE}"), "client_ip": "192.0.2.1",
            "correlation_id": HOSTILE, "headers": {"x-a": HOSTILE}},
        "output": {"decision": {"block": {"status": 403, "body": HOSTILE}},
            "audit": {"tags": [HOSTILE], "rule_ids": [HOSTILE], "reason_codes": [HOSTILE]}},
    });
    let odd = json!({"v": 1, "id": "x", "phase": HOSTILE, "input": {}});
    let har = json!({"log": {"version": "1.2", "creator": {"name": HOSTILE, "version": HOSTILE},
    "entries": [
        {"request": {"method": "GET", "url": format!("https://a.example/{HOSTILE}"),
            "headers": [{"name": HOSTILE, "value": HOSTILE}]}},
        {"request": {"method": "GET", "url": HOSTILE, "headers": []}},
        {"request": HOSTILE},
    ]}});
    let tests = json!({"meta": {"name": HOSTILE, "author": HOSTILE}, "rule_id": 942_100,
    "tests": [{"test_id": 1, "test_title": HOSTILE, "desc": HOSTILE, "stages": [{
        "input": {"method": "GET", "uri": "/", "headers": {"Host": HOSTILE}},
        "output": {"log": {"expect_ids": [942_100]}, "status": 599, "log_contains": HOSTILE},
    }]}]});
    vec![
        put(dir, ".jsonl", format!("{record}\n{odd}\n{HOSTILE}\n")),
        put(dir, ".har", har.to_string()),
        put(dir, ".yaml", tests.to_string()),
    ]
}

#[test]
fn m_24_a_replay_shows_foreign_text_as_text() {
    let dir = TestDir::new();
    let captures = hostile_captures(&dir);
    let (allows, blocks, traps) = (
        guest(&dir, "allows.wat", "", ALLOW),
        answering(&dir, "blocks.wat", hostile_answer()),
        hostile_module(&dir),
    );
    let saved = dir.path("saved");
    for (before, now) in [
        (None, &traps),
        (None, &blocks),
        (Some(&allows), &blocks),
        (Some(&blocks), &traps),
    ] {
        let replay = || {
            let mut command = binary(["replay", "--minimize", "--no-timings"]);
            if let Some(before) = before {
                command.arg("--baseline").arg(before);
            }
            command.arg("--save-fixture").arg(&saved);
            command.arg(now).args(&captures);
            command
        };
        assert_all(&every_format("replay", replay(), REPLAY), REPLAY);
        assert_colours_are_ours("replay", replay());
        let mut rows = replay();
        rows.args(["-o", "jsonl"]);
        assert_whole("rows", "jsonl", &finish(rows).text());
    }
    // What is saved is named by us.
    for entry in std::fs::read_dir(saved).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(name.chars().all(plain), "{name:?}");
    }
}

/// Where all texts of a document stand, and all keys that somebody chose.
fn leaves(value: &Value, at: &str, out: &mut Vec<String>) {
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::String(_) => out.push(at.to_owned()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{at}/{index}"), out);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                leaves(item, &format!("{at}/{}", escape(key)), out);
            }
        }
        _ => {}
    }
}

/// The keys of every object at this place are names that somebody chose.
fn rename_keys(document: &mut Value, at: &str) {
    if let Some(Value::Object(map)) = document.pointer_mut(at) {
        let renamed = std::mem::take(map).into_iter().enumerate();
        *map = renamed
            .map(|(index, (key, value))| (format!("{key}{HOSTILE}{index}"), value))
            .collect();
    }
}

#[test]
fn m_24_a_merge_shows_the_fields_of_reports_as_text() {
    let dir = TestDir::new();
    let captures = hostile_captures(&dir);
    let (before, now) = (
        guest(&dir, "allows.wat", "", ALLOW),
        answering(&dir, "blocks.wat", hostile_answer()),
    );
    let shard = |of: &str| {
        let mut command = binary(["replay", "-o", "json", "--minimize", "--shard", of]);
        command
            .arg("--baseline")
            .arg(&before)
            .arg(&now)
            .args(&captures);
        finish(command).json()
    };
    let shards = [shard("1/2"), shard("2/2")];
    let merge = |what: &str, shards: &[Value; 2]| {
        let paths = ["1.json", "2.json"];
        let paths = paths.map(|name| put(&dir, name, b""));
        for (path, shard) in paths.iter().zip(shards) {
            std::fs::write(path, shard.to_string()).unwrap();
        }
        let mut command = binary(["replay", "merge"]);
        command.args(&paths);
        every_format(what, command, MERGE)
    };
    assert_all(&merge("as it was", &shards), MERGE);
    // Each text by itself: some of them are refused, which is shown, too.
    let mut all = shards.clone();
    let mut places = Vec::new();
    let mut taken = 0;
    for shard in &shards {
        leaves(shard, "", &mut places);
    }
    places.sort();
    places.dedup();
    for place in &places {
        let with = |shards: &[Value; 2]| {
            let mut shards = shards.clone();
            for shard in &mut shards {
                if let Some(text) = shard.pointer_mut(place) {
                    *text = json!(format!("FORGED{HOSTILE}"));
                }
            }
            shards
        };
        if !merge(place, &with(&shards)).is_empty() {
            taken += 1;
            all = with(&all);
        }
    }
    assert!(taken > 20, "{taken} of {}", places.len());
    // All of them at once, and the words that were counted.
    for shard in &mut all {
        for at in ["outcomes", "baseline_outcomes"] {
            for kind in ["decisions", "rules", "tags", "faults"] {
                rename_keys(shard, &format!("/{at}/{kind}"));
            }
        }
    }
    assert_all(&merge("all", &all), MERGE);
    // Where no decision changed, a group is called by its fields.
    for shard in &mut all {
        let groups = shard.pointer_mut("/comparison/groups");
        for group in groups.and_then(Value::as_array_mut).into_iter().flatten() {
            group["from"] = group["to"].clone();
            group["fields"] = json!([HOSTILE]);
        }
    }
    let path = put(&dir, "again.json", all[0].to_string());
    let mut coloured = binary(["replay", "merge"]);
    coloured.arg(&path).arg({
        let path = dir.path("other.json");
        std::fs::write(&path, all[1].to_string()).unwrap();
        path
    });
    assert_colours_are_ours("merge", coloured);
}

/// As short as can be.
fn bench(module: &Path) -> Command {
    let mut command = binary(["bench", "-n", "20", "--warm-up", "1ms", "--pool-size", "1"]);
    command.args(["-c", "1", "--timeout", "60s"]).arg(module);
    command
}

#[test]
fn m_24_a_benchmark_shows_foreign_text_as_text() {
    let dir = TestDir::new();
    let fixture = put(&dir, ".json", hostile_fixture());
    let more = dir.file(
        "more.json",
        json!({"name": "=FORGED", "event": "request_headers",
        "input": {"method": "GET", "uri": "/"}})
        .to_string(),
    );
    let allows = put(
        &dir,
        ".wat",
        std::fs::read(guest(&dir, "a.wat", "", ALLOW)).unwrap(),
    );
    let fast = || {
        let mut command = bench(&allows);
        command
            .args([&fixture, &more])
            .args(&hostile_captures(&dir)[..2]);
        command
    };
    let reports = every_format("bench", fast(), BENCH);
    // An annotation is about what went wrong, and nothing did.
    assert_all(&reports[..BENCH.len() - 1], &BENCH[..BENCH.len() - 1]);
    assert_colours_are_ours("bench", fast());
    let other = TestDir::new();
    let mut trap = bench(&hostile_module(&other));
    trap.arg(&fixture);
    assert_all(
        &every_format("bench of a fault", trap, &BENCH[..2]),
        &BENCH[..2],
    );
    let mut saving = fast();
    let baseline = dir.path("base.json");
    saving.arg("--save").arg(&baseline);
    finish(saving).assert_code(0);
    let baseline: Value = serde_json::from_slice(&std::fs::read(baseline).unwrap()).unwrap();
    let mut places = Vec::new();
    leaves(&baseline, "", &mut places);
    let mut taken = 0;
    for place in &places {
        let mut changed = baseline.clone();
        *changed.pointer_mut(place).unwrap() = json!(HOSTILE);
        let path = put(&dir, "base.json", changed.to_string());
        let mut command = fast();
        command.arg("--compare").arg(&path);
        let reports = every_format(place, command, BENCH);
        taken += usize::from(!reports.is_empty());
    }
    assert!(taken > 5, "{taken} of {}", places.len());
    let mut changed = baseline;
    rename_keys(&mut changed, "/settings");
    let path = put(&dir, "base.json", changed.to_string());
    let mut command = fast();
    command.arg("--compare").arg(&path);
    every_format("settings", command, BENCH);
}

#[test]
fn m_24_a_profile_shows_names_of_functions_as_text() {
    let dir = TestDir::new();
    let nasty = escaped(HOSTILE.as_bytes());
    let spins = guest(
        &dir,
        "spins.wat",
        &format!(
            "(func $spins (@name \"{nasty}\") (local $n i32) (local.set $n (i32.const 400000))
             (loop $again
               (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))"
        ),
        &format!("(call $spins) {ALLOW}"),
    );
    let module = put(&dir, ".wat", std::fs::read(spins).unwrap());
    let (svg, json) = (dir.path("p.svg"), dir.path("p.json"));
    let mut command = bench(&module);
    command
        .arg("--profile")
        .arg(&svg)
        .arg("--profile")
        .arg(&json);
    every_format("profile", command, BENCH);
    for (format, path) in [("svg", &svg), ("json", &json)] {
        let text = std::fs::read_to_string(path).unwrap();
        assert_whole("profile", format, &text);
        assert!(text.contains("FORGED"), "{text}");
    }
}

/// What a shell put on the command line from the names of files.
#[test]
fn m_24_errors_show_names_as_text() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let missing = dir.path("").join(hostile_name(".missing"));
    let folder = dir.path("").join(hostile_name(".d"));
    let fixture = dir.request();
    let mut commands: Vec<Command> = Vec::new();
    for command in ["run", "validate", "replay", "bench", "serve"] {
        for flag in ["--nope", "--report", "--color", "--timeout", "--format"] {
            let mut odd = binary([command]);
            odd.arg(&module).arg(flag).arg(&missing);
            commands.push(odd);
        }
        let mut odd = binary([command]);
        odd.arg(&module).arg(&missing);
        commands.push(odd);
        let mut odd = binary([command]);
        odd.arg(&missing).arg(&fixture);
        commands.push(odd);
    }
    for flag in ["--save", "--save-fixture", "--baseline", "--report"] {
        let mut odd = binary(["replay"]);
        odd.arg(&module).arg(&fixture).arg(flag);
        let inside = missing.join("x");
        odd.arg(if flag == "--report" {
            dir.path("json=/no/such")
        } else {
            inside
        });
        commands.push(odd);
    }
    let mut new = binary(["new"]);
    new.arg(&folder);
    commands.push(new);
    let mut again = binary(["new"]);
    again.arg(&folder);
    commands.push(again);
    let mut odd = binary([OsString::from("::error::FORGED\u{1b}[5m")]);
    odd.arg("\n::error::FORGED");
    commands.push(odd);
    for command in commands {
        let what = format!("{command:?}");
        let done = finish(command);
        assert!(done.code.is_some_and(|code| code <= 6), "{what}: {done:?}");
        assert_tame(&what, &done.text());
        assert_tame(&what, &done.stderr);
    }
}
