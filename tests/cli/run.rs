//! `wasm-agent run`, as its user sees it: the built binary on real modules and
//! fixtures.

mod bodies;
mod expectations;
mod inputs;
mod order;
mod time;
mod unchecked;
mod update;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::binary;

const RULES: &str = "fixtures/modules/rules/rules.wasm";
const EVENTS: &str = "fixtures/events";

fn wasm_agent(args: &[&str]) -> Output {
    command(args).stdin(Stdio::null()).output().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = binary(args);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn with_input(args: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn run_json(args: &[&str]) -> (i32, Value) {
    let output = wasm_agent(&[&["run", "--format", "json"], args].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", stdout(&output), stderr(&output));
    });
    (output.status.code().unwrap(), report)
}

/// A fixture file in a folder of its own.
fn fixture(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.json");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn the_shipped_fixtures_pass_and_show_every_decision() {
    let (code, report) = run_json(&[RULES, EVENTS]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["schema"], "wasm-agent/run/1");
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["verdict"], "passed");
    let decisions = report["totals"]["decisions"].as_object().unwrap();
    for decision in ["allow", "block", "redirect", "challenge"] {
        assert!(
            decisions.contains_key(decision),
            "{decision}: {decisions:?}"
        );
    }
    let unchecked: Vec<&str> = report["fixtures"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|fixture| !fixture["path"].as_str().unwrap().contains("/bare/"))
        .filter(|fixture| {
            let steps = fixture["steps"].as_array().unwrap();
            steps.iter().all(|step| step["has_expectations"] == false)
        })
        .map(|fixture| fixture["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        unchecked,
        Vec::<&str>::new(),
        "fixtures that expect nothing"
    );
}

#[test]
fn the_output_for_people_names_what_matters() {
    let output = wasm_agent(&["run", RULES, "fixtures/events/requests"]);
    let text = stdout(&output);
    for part in [
        "redirect 301 to",
        "/new/catalogue",
        "challenge",
        "javascript",
        "block 401",
        "scanner",
        "25 fixtures: 25 passed",
        "zentinel-proxy up to 0.6.45 and sentinel-proxy 0.4.14: a challenge lets",
    ] {
        assert!(text.contains(part), "{part} not in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colour without a terminal");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_changed_expectation_exits_1_with_a_diff_that_names_the_path() {
    let original = std::fs::read_to_string("fixtures/events/requests/scanner.json").unwrap();
    assert!(original.contains("403"));
    let (_folder, path) = fixture(&original.replace("403", "404"));
    let output = wasm_agent(&["run", RULES, &path]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.contains("    status\n      - 404\n      + 403\n"),
        "{text}"
    );
}

#[test]
fn a_decision_without_expectations_is_no_failure() {
    let request = r#"{"method":"GET","uri":"/admin"}"#;
    let output = with_input(&["run", RULES, "-"], request);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("block 401"));
    let two = format!("{request}\n{{\"status\":200}}");
    let output = with_input(&["run", RULES, "-", "--format", "jsonl"], &two);
    assert_eq!(stdout(&output).lines().count(), 2);
}

#[test]
fn nothing_checked_is_never_green() {
    let empty = tempfile::tempdir().unwrap();
    for args in [
        vec!["run", RULES, empty.path().to_str().unwrap()],
        vec!["run", RULES, "fixtures/events/none-*.json"],
        vec!["run", RULES, EVENTS, "--run", "no-such-name"],
    ] {
        let output = wasm_agent(&args);
        assert_eq!(output.status.code(), Some(4), "{args:?}");
        assert!(stderr(&output).contains("nothing was checked"), "{args:?}");
    }
}

#[test]
fn an_unknown_key_is_an_error_with_its_place_and_the_rest_still_runs() {
    let (folder, path) =
        fixture("{\n  \"method\": \"GET\",\n  \"uri\": \"/\",\n  \"hedders\": {}\n}");
    std::fs::write(
        folder.path().join("good.json"),
        r#"{"method":"GET","uri":"/"}"#,
    )
    .unwrap();
    let output = wasm_agent(&["run", RULES, folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    let text = stdout(&output);
    assert!(
        text.contains(&format!(
            "{path}:4:3: unknown key \"hedders\"; did you mean \"headers\"?"
        )),
        "{text}"
    );
    assert!(text.contains("good"), "{text}");
}

#[test]
fn usage_errors_exit_2_and_missing_files_3() {
    for (args, code) in [
        (vec!["run"], 2),
        (vec!["run", RULES], 2),
        (vec!["run", RULES, EVENTS, "--jobs", "0"], 2),
        (vec!["run", RULES, EVENTS, "--timeout", "0s"], 2),
        (vec!["run", RULES, EVENTS, "--timeout", "fast"], 2),
        (vec!["run", RULES, EVENTS, "--max-memory", "1"], 2),
        (vec!["run", RULES, EVENTS, "--isolation", "recycle=0"], 2),
        (vec!["run", RULES, EVENTS, "--report", "junit"], 2),
        (vec!["run", RULES, EVENTS, "--report", "pdf=x"], 2),
        (
            vec![
                "run",
                RULES,
                EVENTS,
                "--report",
                "junit=/no/such/folder/x.xml",
            ],
            2,
        ),
        (vec!["run", RULES, EVENTS, "--run", "("], 2),
        (vec!["run", RULES, "-", "--watch"], 2),
        (vec!["run", RULES, "-", "--update"], 2),
        (vec!["run", RULES, "no-such.json"], 3),
        (vec!["run", "no-such.wasm", EVENTS], 3),
        (
            vec!["run", "fixtures/modules/invalid/no-alloc.wat", EVENTS],
            1,
        ),
        (
            vec!["run", "fixtures/modules/invalid/truncated.wasm", EVENTS],
            3,
        ),
    ] {
        let output = wasm_agent(&args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?} {}",
            stderr(&output)
        );
        assert!(!stderr(&output).is_empty(), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn every_report_can_be_written_beside_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (_fixture, failing) = fixture(
        r#"{"name":"wants & gets <less>","event":"request_headers","input":{"method":"GET","uri":"/admin"},"expect":{"decision":"allow"}}"#,
    );
    let output = wasm_agent(&[
        "run",
        RULES,
        &failing,
        "fixtures/events/bare",
        "--format",
        "github",
        "--report",
        &format!("junit={}", path("r.xml")),
        "--report",
        &format!("json={}", path("r.json")),
        "--report",
        &format!("human={}", path("r.txt")),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let annotations = stdout(&output);
    assert!(annotations.starts_with("::error file="), "{annotations}");
    assert!(
        annotations.contains("::decision: expected allow, found block"),
        "{annotations}"
    );
    let xml = std::fs::read_to_string(path("r.xml")).unwrap();
    let junit = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let cases: usize = junit
        .test_suites
        .iter()
        .map(|suite| suite.test_cases.len())
        .sum();
    assert_eq!(cases, 4);
    assert!(xml.contains("wants &amp; gets &lt;less&gt;"));
    assert!(
        xml.contains("<failure message=\"decision: expected allow, found block\""),
        "{xml}"
    );
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(path("r.json")).unwrap()).unwrap();
    assert_eq!(json["verdict"], "failed");
    assert!(
        std::fs::read_to_string(path("r.txt"))
            .unwrap()
            .contains("1 failed")
    );
}

#[test]
fn update_writes_what_was_seen_and_the_result_passes() {
    let (folder, path) = fixture(r#"{"method":"GET","uri":"/admin","headers":{"a":"1"}}"#);
    let half = folder.path().join("half.json");
    std::fs::write(
        &half,
        r#"{"event":"request_headers","input":{"method":"GET","uri":"/old/x"},
        "expect":{"decision":"allow","status":200,"url":{"regex":"^/"},"tags":["nope"],"budget":{"fuel":1}}}"#,
    )
    .unwrap();
    let dir = folder.path().to_str().unwrap();
    let output = wasm_agent(&["run", RULES, dir, "--update"]);
    assert_eq!(output.status.code(), Some(1), "the budget is still wrong");
    assert_eq!(stderr(&output).matches("updated ").count(), 2);
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(written["event"], "request_headers");
    assert_eq!(
        written["expect"]["exact_response"]["decision"],
        json!({"block": {"status": 401, "body": "Authorization required"}})
    );
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&half).unwrap()).unwrap();
    assert_eq!(
        written["expect"],
        json!({"decision": "redirect", "status": 301, "url": {"regex": "^/"}, "tags": ["moved"], "budget": {"fuel": 1}})
    );
    // A budget is a promise that only people change.
    let again = wasm_agent(&["run", RULES, dir]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stdout(&again).contains("budget.fuel"));
    let text = std::fs::read_to_string(&half).unwrap();
    std::fs::write(&half, text.replace("\"fuel\":1", "\"fuel\":10000000")).unwrap();
    assert_eq!(wasm_agent(&["run", RULES, dir]).status.code(), Some(0));
    let before = std::fs::read_to_string(&half).unwrap();
    wasm_agent(&["run", RULES, dir, "--update"]);
    assert_eq!(
        std::fs::read_to_string(&half).unwrap(),
        before,
        "nothing to update, nothing touched"
    );
}

#[test]
fn an_answer_that_changes_between_equal_runs_fails() {
    let (_folder, path) = fixture(r#"{"method":"GET","uri":"/"}"#);
    let counter = "fixtures/modules/hostile/counter.wat";
    let output = wasm_agent(&["run", counter, &path, "--repeat", "4"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.contains("2 of 4 repeats differ from the first"),
        "{text}"
    );
    let fresh = wasm_agent(&[
        "run",
        counter,
        &path,
        "--repeat",
        "4",
        "--isolation",
        "fresh",
    ]);
    assert_eq!(fresh.status.code(), Some(0));
}

#[test]
fn the_spelling_of_a_fixture_is_told_when_it_matters() {
    let published = "fixtures/modules/rules/rules-published-spelling.wasm";
    let case = "fixtures/events/requests/mixed-case-user-agent.json";
    let output = wasm_agent(&["run", published, case]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("--header-names canonical"),
        "{}",
        stdout(&output)
    );
    let canonical = wasm_agent(&["run", published, case, "--header-names", "canonical"]);
    assert_eq!(canonical.status.code(), Some(0), "{}", stdout(&canonical));
    assert!(!stdout(&canonical).contains("--header-names"));
}

#[test]
fn a_trap_shows_the_guests_own_stack() {
    let (_folder, path) = fixture(r#"{"method":"GET","uri":"/","headers":{"x-panic":"1"}}"#);
    let output = wasm_agent(&["run", "fixtures/modules/panics/panics.wasm", &path]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let at = |part: &str| {
        text.find(part)
            .unwrap_or_else(|| panic!("{part} not in {text}"))
    };
    assert!(at("parse_token at src/lib.rs:") < at("check_header at src/lib.rs:"));
    let (_code, report) = run_json(&["fixtures/modules/panics/panics.wasm", &path]);
    let step = &report["fixtures"][0]["steps"][0];
    assert_eq!(step["fault"]["code"], "trap:unreachable");
    assert_eq!(
        step["response"]["audit"]["reason_codes"],
        json!(["trap:unreachable"])
    );
    assert!(
        !step["response"].to_string().contains("parse_token"),
        "no stack for the proxy"
    );
}

#[test]
fn a_transaction_stops_where_the_proxy_would() {
    let (_folder, path) = fixture(
        r#"{"steps":[{"event":"request_headers","input":{"method":"GET","uri":"/admin"}},
        {"event":"response_headers","input":{"status":200}},
        {"event":"response_body","input":{"data":"x"},"expect":{"decision":"allow"}}]}"#,
    );
    let (code, report) = run_json(&[RULES, &path]);
    let statuses: Vec<&str> = report["fixtures"][0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["unchecked", "skipped", "failed"]);
    assert_eq!(code, 1, "an expectation that was not reached was not met");
}

#[test]
fn jobs_and_order_of_files_do_not_change_the_report() {
    let strip = |mut report: Value| {
        report["settings"]["jobs"] = json!(null);
        for fixture in report["fixtures"].as_array_mut().unwrap() {
            for step in fixture["steps"].as_array_mut().unwrap() {
                step["time_ns"] = json!(null);
            }
        }
        report
    };
    // Fresh instances: an allocator's state is part of what a call costs.
    let one = strip(run_json(&[RULES, EVENTS, "--isolation", "fresh"]).1);
    let again = strip(run_json(&[RULES, EVENTS, "--isolation", "fresh"]).1);
    let eight = strip(run_json(&[RULES, EVENTS, "--isolation", "fresh", "--jobs", "8"]).1);
    assert_eq!(one, again);
    assert_eq!(one, eight);
}

#[test]
fn fail_fast_stops_and_filters_select() {
    let (folder, _path) = fixture(
        r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"decision":"block"}}"#,
    );
    std::fs::write(
        folder.path().join("later.json"),
        r#"{"method":"GET","uri":"/"}"#,
    )
    .unwrap();
    let dir = folder.path().to_str().unwrap();
    let count = |args: &[&str]| run_json(args).1["fixtures"].as_array().unwrap().len();
    assert_eq!(count(&[RULES, dir]), 2);
    assert_eq!(count(&[RULES, dir, "--fail-fast"]), 1);
    assert_eq!(count(&[RULES, dir, "--run", "^.*later"]), 1);
}

#[test]
fn a_mistyped_path_in_an_answer_is_named() {
    let (_folder, path) = fixture(
        r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"fault":"bad-answer:mistyped"}}"#,
    );
    let wat = "fixtures/modules/hostile/mistyped-tags-on-allow.wat";
    let (code, report) = run_json(&[wat, &path]);
    assert_eq!(code, 0, "an expected fault is no failure");
    let detail = report["fixtures"][0]["steps"][0]["fault"]["detail"]
        .as_str()
        .unwrap();
    assert!(
        detail.starts_with("$.tags must be an array of strings"),
        "{detail}"
    );
}

#[test]
fn watch_runs_again_and_says_what_changed() {
    use std::io::{BufRead as _, BufReader};
    let (folder, path) = fixture(r#"{"method":"GET","uri":"/"}"#);
    let module = folder.path().join("rules.wasm");
    std::fs::copy(RULES, &module).unwrap();
    let mut child = command(&["run", module.to_str().unwrap(), &path, "--watch"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut until = |part: &str| {
        let mut seen = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            let found = line.contains(part);
            seen.push(line);
            if found {
                return seen.join("\n");
            }
        }
        panic!("ended without {part:?}: {seen:?}");
    };
    until("waiting for a change");
    std::fs::write(&path, r#"{"method":"GET","uri":"/admin"}"#).unwrap();
    let seen = until("waiting for a change");
    assert!(
        seen.contains("unchecked, allow [clean] -> unchecked, block 401"),
        "{seen}"
    );
    std::fs::copy("fixtures/modules/invalid/truncated.wasm", &module).unwrap();
    let seen = until("waiting for a change");
    assert!(seen.contains("not valid wasm at offset"), "{seen}");
    std::fs::copy("fixtures/modules/right/allow.wat", &module).unwrap();
    let seen = until("waiting for a change");
    assert!(
        seen.contains("block 401 [admin-unauthorized] -> unchecked, allow"),
        "{seen}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn help_has_examples_and_exit_codes_and_completions_are_printed() {
    for command in ["run", "validate"] {
        let output = wasm_agent(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        let text = stdout(&output);
        for part in [
            "Examples:",
            "Exit status:",
            "--timeout",
            "[default: 100ms]",
            "--isolation",
        ] {
            assert!(text.contains(part), "{command}: {part} not in:\n{text}");
        }
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = wasm_agent(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("wasm-agent"), "{shell}");
    }
    let version = stdout(&wasm_agent(&["--version"]));
    assert!(version.starts_with("wasm-agent "), "{version}");
}

/// The fixture given here must exist, or the tests above test nothing.
#[test]
fn shipped_files_are_where_the_readme_says() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for path in [RULES, EVENTS, "fixtures/README.md"] {
        assert!(Path::new(&root).join(path).exists(), "{path}");
    }
}

#[test]
fn a_report_never_replaces_what_is_read_nor_an_earlier_one_without_a_result() {
    let (folder, path) = fixture(r#"{"method":"GET","uri":"/"}"#);
    let module = folder.path().join("rules.wasm");
    std::fs::copy(RULES, &module).unwrap();
    let module = module.to_str().unwrap();
    let before = std::fs::read(module).unwrap();
    for target in [module, &path] {
        let to = format!("json={target}");
        let output = wasm_agent(&["run", module, &path, "--report", &to]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("is one of the inputs"));
    }
    let to = format!("json={module}");
    let output = wasm_agent(&["validate", module, "--report", &to]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(std::fs::read(module).unwrap(), before);
    let report = folder.path().join("report.txt");
    std::fs::write(&report, "an earlier one, which is longer than nothing").unwrap();
    let to = format!("json={}", report.display());
    let output = wasm_agent(&["run", "no-such.wasm", &path, "--report", &to]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        std::fs::read_to_string(&report)
            .unwrap()
            .starts_with("an earlier")
    );
    let output = wasm_agent(&["run", module, &path, "--report", &to, "--report", &to]);
    assert_eq!(output.status.code(), Some(2), "the same file twice");
    let output = wasm_agent(&["run", module, &path, "--report", &to]);
    assert_eq!(output.status.code(), Some(0));
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
}

#[test]
fn what_editors_leave_in_a_folder_is_no_fixture() {
    let (folder, _path) = fixture(r#"{"method":"GET","uri":"/"}"#);
    std::fs::write(folder.path().join(".#one.json"), "locked").unwrap();
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    std::fs::write(folder.path().join(".git/two.json"), "{").unwrap();
    let (code, report) = run_json(&[RULES, folder.path().to_str().unwrap()]);
    assert_eq!((code, report["fixtures"].as_array().unwrap().len()), (0, 1));
}

#[test]
fn a_filter_keeps_what_it_cannot_read() {
    let (folder, _path) = fixture(r#"{"method":"GET","uri":"/"}"#);
    std::fs::write(folder.path().join("broken.json"), r#"{"name":"login",}"#).unwrap();
    let dir = folder.path().to_str().unwrap();
    let output = wasm_agent(&["run", RULES, dir, "--run", "login"]);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
}

#[test]
fn budgets_hold_for_every_repeat() {
    let (_folder, path) = fixture(
        r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"budget":{"memory":"1MiB"}}}"#,
    );
    let leak = "fixtures/modules/hostile/leak.wat";
    assert_eq!(run_json(&[leak, &path]).0, 0);
    let (code, report) = run_json(&[leak, &path, "--repeat", "300"]);
    assert_eq!(code, 1, "{report}");
    let mismatches = &report["fixtures"][0]["steps"][0]["mismatches"];
    assert_eq!(mismatches.as_array().unwrap().len(), 1, "{mismatches}");
    assert_eq!(mismatches[0]["path"], "budget.memory");
}

#[cfg(unix)]
#[test]
fn an_update_follows_links_and_keeps_permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, path) = fixture(
        r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"decision":"block"}}"#,
    );
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let link = folder.path().join("link.json");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    wasm_agent(&["run", RULES, link.to_str().unwrap(), "--update"]);
    assert!(link.is_symlink());
    assert!(std::fs::read_to_string(&path).unwrap().contains("allow"));
    assert_eq!(mode(), 0o600);
}

#[test]
fn only_framing_headers_need_leave() {
    for name in ["content-lenght", "Bad:Name", ""] {
        let output = wasm_agent(&["run", RULES, EVENTS, "--allow-header", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(
            stderr(&output).contains("content-length"),
            "{}",
            stderr(&output)
        );
    }
    let output = wasm_agent(&["run", RULES, EVENTS, "--allow-header", "Host"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
