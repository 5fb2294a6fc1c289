//! `wasm-agent validate` from outside: every module in `fixtures/modules`, every
//! format, and files that are no modules. The expectations are tables; a file
//! that no table names fails the test.

mod bodies;
mod verdicts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{binary, shipped};

/// A module is judged in well under a second; this only tells a hang from a
/// busy machine.
const HANG: Duration = Duration::from_secs(60);

/// File, exit code, the rows that do not pass. `!` marks a warning.
type Expected = (&'static str, i32, &'static [&'static str]);

const INVALID: &[Expected] = &[
    ("alloc-mistyped.wat", 1, &["export:alloc"]),
    ("both-abis.wat", 1, &["abi"]),
    ("component.wat", 1, &["features"]),
    ("dealloc-mistyped.wat", 1, &["export:dealloc"]),
    ("exceptions.wat", 1, &["features"]),
    ("gc-types.wat", 1, &["features"]),
    ("handler-is-a-global.wat", 1, &["export:on_request_headers"]),
    (
        "handler-mistyped-extra-param.wat",
        1,
        &["export:on_request_headers"],
    ),
    (
        "handler-mistyped-i32-result.wat",
        1,
        &["export:on_request_headers"],
    ),
    (
        "handler-mistyped-i64-params.wat",
        1,
        &["export:on_request_headers"],
    ),
    (
        "handler-mistyped-multi-result.wat",
        1,
        &["export:on_request_headers"],
    ),
    (
        "handler-mistyped-no-result.wat",
        1,
        &["export:on_request_headers"],
    ),
    ("hundred-memories.wat", 1, &["memory"]),
    ("import-unknown.wat", 1, &["import:env.http_call"]),
    ("memory-imported.wat", 1, &["memory", "import:env.memory"]),
    ("memory-misnamed.wat", 1, &["memory"]),
    ("memory-shared.wat", 1, &["features", "memory"]),
    ("memory-too-large.wat", 1, &["memory"]),
    ("memory64.wat", 1, &["features", "memory"]),
    ("near-miss.wat", 1, &["abi", "export:alloc"]),
    ("no-alloc.wat", 1, &["export:alloc"]),
    ("no-dealloc.wat", 1, &["export:dealloc"]),
    ("no-handlers.wat", 1, &["abi"]),
    ("no-memory.wat", 1, &["memory"]),
    ("not-wasm.wasm", 3, &["readable"]),
    ("relaxed-simd.wat", 1, &["features"]),
    ("start-spins.wat", 1, &["instantiate"]),
    ("start-traps.wat", 1, &["instantiate"]),
    ("syntax-error.wat", 3, &["readable"]),
    ("table-too-large.wat", 1, &["tables"]),
    ("tail-call.wat", 1, &["features"]),
    ("truncated.wasm", 3, &["readable"]),
];

/// Modules of the hook ABI.
const HOOKS: &[Expected] = &[
    ("after-only.wat", 1, &["export:before_hook"]),
    ("all-ones.wat", 1, &["answer:before_hook"]),
    ("alloc-negative.wat", 1, &["answer:before_hook"]),
    ("counter.wat", 0, &["!state"]),
    ("empty.wat", 0, &[]),
    ("error.wat", 0, &[]),
    ("grow-handled.wat", 0, &["!memory:before_hook"]),
    ("grow.wat", 1, &["answer:before_hook"]),
    (
        "import-wasi.wat",
        1,
        &["import:wasi_snapshot_preview1.clock_time_get"],
    ),
    ("mistyped-after.wat", 1, &["export:after_hook"]),
    ("mistyped-alloc.wat", 1, &["export:alloc"]),
    ("mistyped-i32-result.wat", 1, &["export:before_hook"]),
    ("modify.wat", 0, &[]),
    ("negative-length.wat", 1, &["answer:before_hook"]),
    ("negative-pointer.wat", 1, &["answer:before_hook"]),
    (
        "overreach.wat",
        0,
        &["!ignored:before_hook", "!ignored:after_hook"],
    ),
    ("pages-300.wat", 1, &["memory"]),
    ("pass-through.wat", 0, &[]),
    ("spin.wat", 1, &["answer:before_hook"]),
    ("trap.wat", 1, &["answer:before_hook", "answer:after_hook"]),
];

const ANSWER: &[&str] = &["answer:on_request_headers"];
const DEALLOC: &[&str] = &["dealloc:on_request_headers"];

const HOSTILE: &[Expected] = &[
    ("alloc-negative.wat", 1, ANSWER),
    ("alloc-null.wat", 1, ANSWER),
    ("alloc-out-of-bounds.wat", 1, ANSWER),
    ("ansi-answer.wat", 1, ANSWER),
    ("answer-huge-length.wat", 1, ANSWER),
    ("answer-negative-pointer.wat", 1, ANSWER),
    ("answer-out-of-bounds.wat", 1, ANSWER),
    ("answer-too-large.wat", 1, ANSWER),
    ("bad-status.wat", 0, &["!status:on_request_headers"]),
    ("counter.wat", 1, &["state"]),
    ("dealloc-trap.wat", 1, DEALLOC),
    ("deep-json.wat", 0, &["!keys:on_request_headers"]),
    ("fill-loop.wat", 1, ANSWER),
    ("float-nan.wat", 0, &[]),
    ("grow-bomb.wat", 1, ANSWER),
    ("grow-refused-handled.wat", 0, &[]),
    ("grow-zero.wat", 0, &[]),
    ("header-flood.wat", 1, ANSWER),
    (
        "header-split-on-block.wat",
        0,
        &["!headers:on_request_headers"],
    ),
    ("header-split.wat", 1, ANSWER),
    ("leak.wat", 0, &["!growth"]),
    ("mistyped-tags-on-allow.wat", 1, ANSWER),
    ("mistyped-tags-on-block.wat", 1, ANSWER),
    ("not-an-object.wat", 1, ANSWER),
    ("not-json.wat", 1, ANSWER),
    ("not-utf8.wat", 1, ANSWER),
    ("poison-once.wat", 0, &[]),
    ("random-fuel.wat", 0, &[]),
    ("recursion.wat", 1, ANSWER),
    (
        "redirect-javascript.wat",
        0,
        &["!redirect:on_request_headers"],
    ),
    ("redirect-no-url.wat", 0, &["!redirect:on_request_headers"]),
    ("secret-echo.wat", 1, &["state"]),
    ("spin-alloc.wat", 1, ANSWER),
    ("spin-dealloc.wat", 1, DEALLOC),
    ("spin.wat", 1, ANSWER),
    ("trailing-bytes.wat", 1, ANSWER),
    ("trap-div0.wat", 1, ANSWER),
    ("trap-oob.wat", 1, ANSWER),
    ("trap-unreachable.wat", 1, ANSWER),
    ("unknown-decision.wat", 1, ANSWER),
];

/// Those in `right/` that do not pass without a remark.
const RIGHT: &[Expected] = &[
    ("empty-answer.wat", 0, &["!empty:on_request_headers"]),
    ("null-pointer-answer.wat", 0, &["!empty:on_request_headers"]),
];

fn validate(args: &[&str], files: &[&Path]) -> Output {
    binary(["validate"])
        .args(args)
        .args(files)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// The ids of a module's rows that do not pass, as the tables write them.
fn remarks(module: &Value) -> Vec<String> {
    module["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| {
            let id = row["id"].as_str().unwrap();
            match row["status"].as_str().unwrap() {
                "fail" => Some(id.to_owned()),
                "warn" => Some(format!("!{id}")),
                _ => None,
            }
        })
        .collect()
}

fn row<'a>(module: &'a Value, id: &str) -> &'a Value {
    let rows = module["checks"].as_array().unwrap();
    rows.iter()
        .find(|row| row["id"] == id)
        .unwrap_or_else(|| panic!("no row {id} in {rows:#?}"))
}

/// A busy machine must not turn a slow call into an endless one.
const PATIENT: &[&str] = &["--timeout", "5s"];

fn one(args: &[&str], file: &Path) -> (i32, Value) {
    let patient = if args.contains(&"--timeout") {
        &[]
    } else {
        PATIENT
    };
    let output = validate(&[args, patient, &["--format", "json"]].concat(), &[file]);
    let report = json(&output);
    (output.status.code().unwrap(), report["modules"][0].clone())
}

fn holds(folder: &str, table: &[Expected]) {
    for (name, code, expected) in table {
        let is_endless = name.contains("spin") || *name == "fill-loop.wat";
        let args: &[&str] = if is_endless {
            &["--timeout", "100ms"]
        } else {
            &[]
        };
        let started = Instant::now();
        let (found_code, module) = one(args, &shipped(folder).join(name));
        assert!(started.elapsed() < HANG, "{name}");
        assert_eq!(remarks(&module), *expected, "{name}");
        assert_eq!(found_code, *code, "{name}");
        for row in module["checks"].as_array().unwrap() {
            assert!(
                !row["expected"].as_str().unwrap().is_empty(),
                "{name}: {row}"
            );
            assert!(!row["found"].as_str().unwrap().is_empty(), "{name}: {row}");
        }
    }
}

fn files(folder: &str) -> BTreeSet<String> {
    std::fs::read_dir(shipped(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_invalid_and_hostile_module_is_in_a_table() {
    for (folder, table) in [("invalid", INVALID), ("hostile", HOSTILE), ("hooks", HOOKS)] {
        let listed: BTreeSet<String> = table.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(files(folder), listed, "{folder}");
    }
}

#[test]
fn each_invalid_module_fails_the_right_checks() {
    holds("invalid", INVALID);
}

#[test]
fn each_hostile_module_fails_the_right_checks() {
    holds("hostile", HOSTILE);
}

#[test]
fn each_hook_module_fails_the_right_checks() {
    holds("hooks", HOOKS);
}

#[test]
fn the_shipped_hook_module_passes_torture_without_a_failure() {
    let file = shipped("account").join("account.wasm");
    // Counting a megabyte of input takes more than the million instructions.
    let (code, module) = one(&["--torture", "--fuel", "2000000000"], &file);
    assert_eq!(code, 0, "{:?}", remarks(&module));
    assert_eq!(module["abi"], "hook");
    let torture = module["checks"].as_array().unwrap().iter();
    let torture = torture.filter(|row| row["id"].as_str().unwrap().starts_with("torture:"));
    assert!(torture.count() > 15);
}

/// What is found is the fault that each file says it is about.
#[test]
fn faults_have_their_codes() {
    for (name, code) in [
        ("alloc-negative.wat", "alloc:out-of-bounds"),
        ("alloc-null.wat", "alloc:null"),
        ("alloc-out-of-bounds.wat", "alloc:out-of-bounds"),
        ("answer-huge-length.wat", "bad-answer:out-of-bounds"),
        ("answer-negative-pointer.wat", "bad-answer:out-of-bounds"),
        ("answer-out-of-bounds.wat", "bad-answer:out-of-bounds"),
        ("answer-too-large.wat", "answer-limit"),
        ("fill-loop.wat", "deadline"),
        ("grow-bomb.wat", "memory-limit"),
        ("header-flood.wat", "bad-answer:bad-header"),
        ("header-split.wat", "bad-answer:bad-header"),
        ("mistyped-tags-on-allow.wat", "bad-answer:mistyped"),
        ("mistyped-tags-on-block.wat", "bad-answer:mistyped"),
        ("not-an-object.wat", "bad-answer:not-an-object"),
        ("not-json.wat", "bad-answer:not-json"),
        ("not-utf8.wat", "bad-answer:not-utf8"),
        ("recursion.wat", "trap:stack-overflow"),
        ("spin-alloc.wat", "deadline"),
        ("spin.wat", "deadline"),
        ("trailing-bytes.wat", "bad-answer:not-json"),
        ("trap-div0.wat", "trap:divide-by-zero"),
        ("trap-oob.wat", "trap:out-of-bounds"),
        ("trap-unreachable.wat", "trap:unreachable"),
        ("unknown-decision.wat", "bad-answer:unknown-decision"),
    ] {
        let (_, module) = one(&["--timeout", "500ms"], &shipped("hostile").join(name));
        assert_eq!(row(&module, ANSWER[0])["fault"], code, "{name}");
        // The limits held, whatever it tried.
        for sample in module["metrics"]["samples"].as_array().unwrap() {
            assert!(
                sample["memory_bytes"].as_u64().unwrap() <= 64 << 20,
                "{name}"
            );
            assert!(
                sample["answer_bytes"].as_u64().unwrap() <= 1 << 20,
                "{name}"
            );
        }
    }
}

/// However many handlers never come back, only a few deadlines are waited for.
#[test]
fn a_module_that_never_answers_is_soon_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spin.wat");
    let handlers = wasm_agent_kit::abi::EVENT_HANDLERS.map(|name| {
        format!(
            r#"(func (export "{name}") (param i32 i32) (result i64) (loop (br 0)) (unreachable))"#
        )
    });
    let text = format!(
        r#"(module (memory (export "memory") 17)
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32)) {})"#,
        handlers.concat()
    );
    std::fs::write(&file, text).unwrap();
    let (code, module) = one(&["--timeout", "100ms"], &file);
    assert_eq!(code, 1);
    let status = |handler: &str| row(&module, &format!("answer:{handler}"))["status"].clone();
    assert_eq!(status("on_response_headers"), "fail");
    assert_eq!(status("on_response_body"), "skip");
    // One wait for each handler, not one for each of its samples.
    assert_eq!(module["metrics"]["samples"].as_array().unwrap().len(), 3);
}

#[test]
fn right_modules_pass() {
    let files = files("right");
    let paths: Vec<PathBuf> = files
        .iter()
        .map(|name| shipped("right").join(name))
        .collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let output = validate(&[PATIENT, &["--format", "json"]].concat(), &paths);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    for (name, module) in files.iter().zip(report["modules"].as_array().unwrap()) {
        let expected = RIGHT
            .iter()
            .find(|(known, ..)| known == name)
            .map_or(&[][..], |(_, _, expected)| expected);
        assert_eq!(remarks(module), expected, "{name}");
        assert!(
            row(module, "state")["found"]
                .as_str()
                .unwrap()
                .contains("answers on used")
        );
    }
}

#[test]
fn the_shipped_module_passes_torture_without_a_remark() {
    let (code, module) = one(
        &["--torture", "--deny-warnings", "--body", "whole"],
        &shipped("rules/rules.wasm"),
    );
    assert_eq!(remarks(&module), [""; 0]);
    assert_eq!(code, 0);
    assert_eq!(module["language"], "Rust");
    assert_eq!(module["abi"], "agent");
    let metrics = &module["metrics"];
    for figure in ["compile_us", "instantiate_us", "instance_memory_bytes"] {
        assert!(metrics[figure].as_u64().unwrap() > 0, "{figure}");
    }
    let samples = metrics["samples"].as_array().unwrap();
    for handler in wasm_agent_kit::abi::EVENT_HANDLERS {
        let own = samples.iter().filter(|sample| sample["handler"] == handler);
        assert!(own.clone().count() >= 4, "{handler}");
        assert!(
            own.clone()
                .all(|sample| sample["fuel"].as_u64().unwrap() > 0)
        );
    }
    let torture = |status: &str| {
        let rows = module["checks"].as_array().unwrap().iter();
        rows.filter(|row| row["id"].as_str().unwrap().starts_with("torture:"))
            .filter(|row| row["status"] == status)
            .count()
    };
    assert!(torture("pass") > 50);
    assert_eq!(torture("skip"), 0);
}

#[test]
fn the_same_file_gives_the_same_rows_and_the_same_fuel() {
    let file = shipped("rules/rules.wasm");
    let stable = || {
        let (_, mut module) = one(&[], &file);
        let metrics = module["metrics"].take();
        // How far the timed probes come is the machine's affair.
        let rows: Vec<Value> = module["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| serde_json::json!([row["id"], row["status"]]))
            .collect();
        (rows, metrics["samples"].clone())
    };
    assert_eq!(stable(), stable());
}

#[test]
fn torture_tells_a_refusal_from_a_trap() {
    let (code, module) = one(&["--torture"], &shipped("panics/panics.wasm"));
    assert_eq!(code, 0);
    let refused = row(&module, "torture:request_headers:uri-1-mib");
    assert_eq!(refused["status"], "warn");
    assert_eq!(refused["fault"], "alloc:null");
    // It answers "allow" to what it never parsed.
    assert_eq!(
        row(&module, "torture:request_headers:not-json")["status"],
        "warn"
    );

    // No room behind a fixed address for a 1 MiB input: a fault that fails.
    let (code, module) = one(&["--torture"], &shipped("hostile/float-nan.wat"));
    assert_eq!(code, 1);
    let outside = row(&module, "torture:request_headers:uri-1-mib");
    assert_eq!(outside["status"], "fail");
    assert_eq!(outside["fault"], "alloc:out-of-bounds");
}

#[test]
fn a_fault_comes_with_its_code_and_backtrace() {
    let (_, module) = one(&[], &shipped("hostile/trap-unreachable.wat"));
    let fault = row(&module, "answer:on_request_headers");
    assert_eq!(fault["fault"], "trap:unreachable");
    assert!(fault["detail"].as_str().unwrap().starts_with("0: func[2]"));
    assert!(!fault["fix"].as_str().unwrap().is_empty());
}

#[test]
fn the_spelling_of_header_names_is_probed() {
    let file = shipped("rules/rules-published-spelling.wasm");
    let (code, module) = one(&[], &file);
    assert_eq!(code, 0);
    let bodies = ["!bodies:on_request_body", "!bodies:on_response_body"];
    assert_eq!(
        remarks(&module),
        [&["!header-spelling"], &bodies[..]].concat()
    );
    let warning = row(&module, "header-spelling");
    let found = warning["found"].as_str().unwrap();
    assert!(
        found.contains("\"scanner\" allow in lower case, block 403 in canonical case"),
        "{found}"
    );
    assert!(
        warning["fix"]
            .as_str()
            .unwrap()
            .contains("--header-names canonical")
    );

    assert_eq!(one(&["--deny-warnings"], &file).0, 1);
    let (code, module) = one(
        &[
            "--deny-warnings",
            "--header-names",
            "canonical",
            "--body",
            "whole",
        ],
        &file,
    );
    assert_eq!((code, remarks(&module)), (0, vec![]));
}

#[test]
fn a_leak_is_measured_and_can_be_denied() {
    let file = shipped("hostile/leak.wat");
    let (_, module) = one(&[], &file);
    let growth = &module["metrics"]["growth"];
    assert_eq!(growth["bytes_per_call"], 65536.0);
    assert_eq!(growth["calls_until_limit"], 1023);
    for (gate, code) in [("0", 1), ("64KB", 1), ("64KiB", 0), ("1MiB", 0)] {
        let (found, module) = one(&["--max-growth", gate], &file);
        assert_eq!(found, code, "{gate}");
        let expected: &[&str] = if code == 0 { &[] } else { &["growth"] };
        assert_eq!(remarks(&module), expected, "{gate}");
    }
    let args = ["--max-growth", "0", "--body", "whole"];
    let (code, module) = one(&args, &shipped("rules/rules.wasm"));
    assert_eq!((code, remarks(&module)), (0, vec![]));
}

#[test]
fn state_is_shown_by_the_shortest_sequence() {
    let (_, module) = one(&[], &shipped("hostile/counter.wat"));
    let state = row(&module, "state");
    assert_eq!(
        state["found"],
        "on_request_headers \"search\": allow on a fresh instance, block 403 after on_request_headers \"browser\""
    );
    assert_eq!(
        state["detail"],
        "1. on_request_headers \"browser\"\n2. on_request_headers \"search\": block 403"
    );
    // Nobody is hurt by state that no second call sees.
    let (code, module) = one(&["--isolation", "fresh"], &shipped("hostile/counter.wat"));
    assert_eq!((code, remarks(&module)), (0, vec!["!state".to_owned()]));
}

/// A module that blocks everything once two long inputs went by: no single
/// call before shows it.
#[test]
fn a_sequence_of_two_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.wat");
    std::fs::write(
        &file,
        r#"(module (memory (export "memory") 17)
        (global $seen (mut i32) (i32.const 0))
        (data (i32.const 1024) "{\"decision\":\"allow\"}")
        (data (i32.const 2048) "{\"decision\":\"block\"}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func (export "on_request_headers") (param $ptr i32) (param $len i32) (result i64)
          (if (i32.ge_s (global.get $seen) (i32.const 2))
            (then (return (i64.const 0x0000_0800_0000_0014))))
          (if (i32.gt_s (local.get $len) (i32.const 290))
            (then (global.set $seen (i32.add (global.get $seen) (i32.const 1)))))
          (i64.const 0x0000_0400_0000_0014)))"#,
    )
    .unwrap();
    let (code, module) = one(&[], &file);
    assert_eq!((code, remarks(&module)), (1, vec!["state".to_owned()]));
    let detail = row(&module, "state")["detail"].as_str().unwrap();
    assert_eq!(detail.lines().count(), 3, "{detail}");
}

#[test]
fn no_probe_looks_at_the_file_only() {
    let (code, module) = one(&["--no-probe"], &shipped("hostile/trap-unreachable.wat"));
    assert_eq!(code, 0);
    assert_eq!(row(&module, "instantiate")["status"], "skip");
    let (code, _) = one(&["--no-probe"], &shipped("invalid/start-spins.wat"));
    assert_eq!(code, 0);
}

#[test]
fn several_modules_are_judged_in_one_go() {
    let files = [
        shipped("right/allow.wat"),
        shipped("no-such-file.wasm"),
        shipped("invalid/no-alloc.wat"),
        shipped("right/deny.wat"),
    ];
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let output = validate(&["--format", "json"], &files);
    assert_eq!(output.status.code(), Some(3));
    let report = json(&output);
    let verdicts: Vec<&str> = report["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|module| module["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["passed", "unreadable", "failed", "passed"]);
    assert_eq!(report["verdict"], "unreadable");
    let output = validate(&[], &[files[0], files[2]]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn every_format_parses() {
    let files = [
        shipped("rules/rules-published-spelling.wasm"),
        shipped("hostile/trap-unreachable.wat"),
        shipped("invalid/syntax-error.wat"),
    ];
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let of =
        |format: &str| text(&validate(&["--format", format, "--body", "whole"], &files).stdout);

    let report: Value = serde_json::from_str(&of("json")).unwrap();
    assert_eq!(report["schema"], "wasm-agent/validate/1");
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["verdict"], "unreadable");

    let junit = quick_junit::Report::deserialize_from_str(&of("junit")).unwrap();
    assert_eq!(junit.test_suites.len(), 3);
    assert_eq!((junit.failures, junit.errors), (0, 2));

    let sarif: Value = serde_json::from_str(&of("sarif")).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let results = run["results"].as_array().unwrap();
    let levels: Vec<&str> = results
        .iter()
        .map(|one| one["level"].as_str().unwrap())
        .collect();
    assert_eq!(levels, ["warning", "error", "error"]);
    for result in results {
        let at = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][at]["id"], result["ruleId"]);
    }
    let place = &results[2]["locations"][0]["physicalLocation"];
    assert_eq!(
        place["artifactLocation"]["uri"],
        "fixtures/modules/invalid/syntax-error.wat"
    );
    assert_eq!(place["region"]["startLine"], 6);

    let github = of("github");
    assert_eq!(github.lines().count(), 4);
    assert!(
        github.contains("syntax-error.wat,line=6,title=readable::"),
        "{github}"
    );

    let human = of("human");
    assert!(human.contains("\n!  header-spelling"), "{human}");
    assert!(human.contains("\n✗  answer:on_request_headers"), "{human}");
    assert!(human.contains("\n✗  readable"), "{human}");
    assert!(
        human
            .trim_end()
            .lines()
            .last()
            .unwrap()
            .starts_with("unreadable: 3 modules")
    );
    assert!(human.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn reports_go_to_files_beside_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let (junit, sarif) = (folder.path().join("a.xml"), folder.path().join("a.sarif"));
    let targets = [
        format!("junit={}", junit.display()),
        format!("sarif={}", sarif.display()),
    ];
    let args = [
        "--report",
        &targets[0],
        "--report",
        &targets[1],
        "-o",
        "json",
    ];
    let output = validate(&args, &[&shipped("hostile/counter.wat")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["verdict"], "failed");
    let junit = std::fs::read_to_string(junit).unwrap();
    assert_eq!(
        quick_junit::Report::deserialize_from_str(&junit)
            .unwrap()
            .failures,
        1
    );
    let sarif: Value = serde_json::from_slice(&std::fs::read(sarif).unwrap()).unwrap();
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "state");
}

#[test]
fn guest_text_cannot_drive_a_terminal() {
    let output = validate(&[], &[&shipped("hostile/ansi-answer.wat")]);
    assert!(
        output
            .stdout
            .iter()
            .all(|byte| *byte != 0x1b && *byte != 0x07)
    );
    assert!(!text(&output.stdout).contains('\u{9b}'));
}

/// What each unreadable file is told to be.
#[test]
fn unreadable_files_get_one_clear_row_each() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("empty"), b"").unwrap();
    std::fs::write(at("gzip"), b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    std::fs::write(at("text"), "hello\n").unwrap();
    std::fs::write(at("json"), "{}").unwrap();
    std::fs::write(at("bytes"), b"\xff\xfe\0\0").unwrap();
    std::fs::write(at("header-only"), b"\0asm\x01\0\0").unwrap();
    let huge = std::fs::File::create(at("huge")).unwrap();
    huge.set_len(1 << 30).unwrap();
    let made = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    let cases = [
        ("missing", "cannot read it: "),
        (
            "folder",
            "a regular file, found a directory; name a file in it",
        ),
        (
            "pipe",
            "a regular file, found a named pipe; copy its content",
        ),
        ("empty", "found an empty file"),
        ("gzip", "found gzip; unpack it first"),
        ("text", "found other text at line 1"),
        ("json", "found other text at line 1"),
        ("bytes", "found bytes ff fe 00 00 at offset 0"),
        ("header-only", "at offset 0x"),
        ("huge", "expected at most 67108864 bytes, found 1073741824"),
    ];
    let paths: Vec<PathBuf> = cases.iter().map(|(name, _)| at(name)).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let started = Instant::now();
    let output = validate(&["--format", "json"], &paths);
    assert!(started.elapsed() < HANG);
    assert_eq!(output.status.code(), Some(3));
    let report = json(&output);
    for ((name, expected), module) in cases.iter().zip(report["modules"].as_array().unwrap()) {
        assert_eq!(module["verdict"], "unreadable", "{name}");
        assert_eq!(remarks(module), ["readable"], "{name}");
        let found = row(module, "readable")["found"].as_str().unwrap();
        assert!(found.contains(expected), "{name}: {found}");
    }
}

/// Bombs of every kind are told by counting, before anything expensive.
#[test]
fn compile_bombs_are_refused_by_the_complexity_check() {
    let folder = tempfile::tempdir().unwrap();
    let bombs = [
        ("functions", format!("(module {})", "(func)".repeat(20_001))),
        (
            "function-size",
            format!("(module (func {}))", "nop ".repeat(600_000)),
        ),
        (
            "locals",
            format!("(module (func (local {})))", "i32 ".repeat(2_001)),
        ),
        (
            "nesting",
            format!(
                "(module (func {} {}))",
                "block ".repeat(11_000),
                "end ".repeat(11_000)
            ),
        ),
        (
            "segments",
            format!(
                "(module (memory 1) {})",
                "(data (i32.const 0) \"\")".repeat(100_001)
            ),
        ),
    ];
    for (name, bomb) in bombs {
        let file = folder.path().join(name);
        std::fs::write(&file, wat::parse_str(bomb).unwrap()).unwrap();
        let started = Instant::now();
        let (code, module) = one(&[], &file);
        assert!(started.elapsed() < HANG, "{name}");
        assert_eq!(code, 1, "{name}");
        assert_eq!(row(&module, "complexity")["status"], "fail", "{name}");
    }
}

#[test]
fn compiling_is_bounded_in_time() {
    let (code, module) = one(&["--max-compile-time", "1ms"], &shipped("rules/rules.wasm"));
    assert_eq!(code, 1);
    assert_eq!(row(&module, "compile")["found"], "not done after 1ms");
}

#[test]
fn a_huge_custom_section_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("debug.wasm");
    let allow = std::fs::read_to_string(shipped("right/allow.wat")).unwrap();
    let mut wasm = wat::parse_str(allow).unwrap();
    // Section 0 of 32 MiB and 2 bytes: a name of one letter, then zeros.
    wasm.extend([0, 0x82, 0x80, 0x80, 0x10, 1, b'x']);
    wasm.resize(wasm.len() + (32 << 20), 0);
    std::fs::write(&file, wasm).unwrap();
    let (code, module) = one(&[], &file);
    assert_eq!((code, remarks(&module)), (0, vec![]));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_or_closed_standard_output_changes_no_exit_code() {
    for (script, code) in [
        ("\"$0\" validate \"$1\" > /dev/full", 1),
        ("\"$0\" validate \"$1\" >&-", 1),
        ("\"$0\" validate \"$1\" | head -1; exit ${PIPESTATUS[0]}", 1),
    ] {
        let status = Command::new("bash")
            .args(["-c", script, env!("CARGO_BIN_EXE_wasm-agent")])
            .arg(shipped("hostile/trap-oob.wat"))
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(code), "{script}");
    }
}

#[test]
fn usage_errors_start_nothing() {
    let file = shipped("right/allow.wat");
    for args in [
        &["--torture", "--no-probe"][..],
        &["--max-growth", "many"],
        &["--max-growth", "1", "--no-probe"],
        &["--format", "xml"],
        &["--report", "sarif"],
    ] {
        assert_eq!(validate(args, &[&file]).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(validate(&[], &[]).status.code(), Some(2));
}
