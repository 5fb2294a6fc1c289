//! Where nothing was checked, each format says so.

use std::path::{Path, PathBuf};

use crate::support::guests::{ALLOW, answering, guest};
use crate::support::{Done, TestDir, binary, finish, run, steps};

use serde_json::json;

const BARE: &str = r#"{"method":"GET","uri":"/"}"#;
const CHECKED: &str = r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"decision":"allow"}}"#;

/// A module that has a handler for requests alone.
fn requests_only(dir: &TestDir) -> PathBuf {
    guest(dir, "m.wat", "", ALLOW)
}

fn shown(module: &Path, folder: &Path, flags: &[&str]) -> Done {
    let mut command = binary(["run"]);
    command.arg(module).arg(folder).args(flags);
    finish(command)
}

#[test]
fn a_fixture_that_expects_nothing_is_not_green_in_any_format() {
    let dir = TestDir::new();
    let module = requests_only(&dir);
    let folder = dir.path("f");
    dir.file("f/bare.json", BARE);
    dir.file("f/checked.json", CHECKED);
    let in_format = |format: &str| {
        let done = shown(&module, &folder, &["--format", format]);
        done.assert_code(0);
        done.text()
    };
    let human = in_format("human");
    assert!(human.contains("○  bare"), "{human}");
    assert!(human.contains("✓  checked"), "{human}");
    assert!(
        human.contains("2 fixtures: 1 passed, 1 unchecked"),
        "{human}"
    );
    assert!(
        human.contains("nothing was checked in 1 fixture: no step has an expectation\n  in bare"),
        "{human}"
    );
    let report: serde_json::Value = serde_json::from_str(&in_format("json")).unwrap();
    assert_eq!(report["verdict"], "passed");
    assert_eq!(
        report["totals"]["fixtures"],
        json!({"passed": 1, "unchecked": 1})
    );
    assert_eq!(report["totals"]["without_expectations"], 1);
    assert_eq!(report["fixtures"][0]["status"], "unchecked");
    let junit = in_format("junit");
    assert!(junit.contains("skipped=\"1\""), "{junit}");
    assert!(
        junit.contains("<skipped message=\"nothing was expected, so nothing was checked\""),
        "{junit}"
    );
    let github = in_format("github");
    assert!(
        github.contains("1 passed, 0 failed, 0 warnings, 0 skipped, 1 unchecked"),
        "{github}"
    );
    for format in ["markdown", "html"] {
        let text = in_format(format);
        assert!(text.contains("1 unchecked"), "{format}: {text}");
        assert!(
            text.contains("nothing was checked in 1 fixture"),
            "{format}: {text}"
        );
    }
    assert!(in_format("jsonl").contains("\"status\":\"unchecked\""));
}

/// A remark about the module is shown beside it, and makes nothing checked.
#[test]
fn a_remark_does_not_make_a_fixture_without_expectations_green() {
    let remark = "the answer has unknown keys, which production ignores: zz";
    let empty = "the module gave an empty answer, which allows";
    for (answer, remark) in [(r#"{"decision":"allow","zz":1}"#, remark), ("", empty)] {
        let dir = TestDir::new();
        let module = answering(&dir, "m.wat", answer);
        dir.file("f/bare.json", BARE);
        let in_format = |format: &str| {
            let done = shown(&module, &dir.path("f"), &["--format", format]);
            done.assert_code(0);
            done.text()
        };
        let human = in_format("human");
        assert!(human.contains("○  bare"), "{human}");
        assert!(human.contains(remark), "{human}");
        let report: serde_json::Value = serde_json::from_str(&in_format("json")).unwrap();
        assert_eq!(report["verdict"], "unchecked");
        assert_eq!(report["fixtures"][0]["status"], "unchecked");
        let junit = in_format("junit");
        assert!(
            junit.contains("<skipped message=\"nothing was expected, so nothing was checked\""),
            "{junit}"
        );
        let beside = format!("<system-out>{remark}");
        assert!(junit.contains(&beside), "{junit}");
        let github = in_format("github");
        let warning =
            format!("title=bare::nothing was expected, so nothing was checked%0A{remark}");
        assert!(github.contains(&warning), "{github}");
        assert!(github.contains("0 passed"), "{github}");
        assert!(github.contains("1 unchecked"), "{github}");
        // With an expectation it is a warning that has its text.
        dir.file("f/bare.json", CHECKED);
        let github = in_format("github");
        assert!(
            github.contains(&format!("title=bare::{remark}")),
            "{github}"
        );
        assert!(in_format("junit").contains(&beside));
    }
}

#[test]
fn a_run_that_expects_nothing_says_that_nothing_was_checked_and_exits_0() {
    let dir = TestDir::new();
    let module = requests_only(&dir);
    dir.file("f/a.json", BARE);
    dir.file("f/b.json", BARE);
    let done = run(&module, &[&dir.path("f")], &[]);
    done.assert_code(0);
    assert_eq!(done.json()["verdict"], "unchecked");
    let done = shown(&module, &dir.path("f"), &[]);
    assert!(
        done.text()
            .contains("nothing was checked: no fixture has an expectation"),
        "{}",
        done.text()
    );
}

#[test]
fn expectations_can_be_required_and_those_without_are_named() {
    let dir = TestDir::new();
    let module = requests_only(&dir);
    dir.file("f/bare.json", BARE);
    dir.file("f/checked.json", CHECKED);
    let flags = ["--require-expectations"];
    let done = run(&module, &[&dir.path("f")], &flags);
    done.assert_code(1);
    let report = done.json();
    let statuses: Vec<&str> = report["fixtures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["failed", "passed"]);
    for format in ["human", "junit", "github", "markdown", "html"] {
        let text = shown(
            &module,
            &dir.path("f"),
            &["--require-expectations", "--format", format],
        )
        .text();
        assert!(
            text.contains("this fixture has no expectation, and --require-expectations is given"),
            "{format}: {text}"
        );
        assert!(text.contains("bare.json"), "{format}: {text}");
    }
    run(&module, &[&dir.path("f/checked.json")], &flags).assert_code(0);
}

#[test]
fn a_fixture_that_cannot_be_read_is_not_one_without_expectations() {
    let dir = TestDir::new();
    let module = requests_only(&dir);
    let done = run(
        &module,
        &[&dir.file("f.json", "{")],
        &["--require-expectations"],
    );
    done.assert_code(3);
    assert_eq!(done.json()["totals"]["without_expectations"], 0);
}

#[test]
fn nothing_holds_of_a_handler_that_the_module_lacks() {
    let dir = TestDir::new();
    let module = requests_only(&dir);
    for expect in [
        r#"{"decision":"allow"}"#,
        r#"{"tags":{"none":["x"]}}"#,
        r#"{"budget":{"fuel":1000}}"#,
        r#"{"exact_response":{"decision":"allow"}}"#,
        r#"{"fault":{"absent":true}}"#,
    ] {
        let text =
            format!(r#"{{"event":"response_headers","input":{{"status":200}},"expect":{expect}}}"#);
        let fixture = dir.file("f.json", &text);
        let done = run(&module, &[&fixture], &["--repeat", "2"]);
        done.assert_code(1);
        let step = &steps(&done.json())[0].0;
        assert_eq!(step["called"], false);
        let mismatches = step["mismatches"].as_array().unwrap();
        assert_eq!(mismatches.len(), 1, "{expect}: {step}");
        assert_eq!(
            mismatches[0]["expected"],
            "an answer of on_response_headers"
        );
        assert!(
            mismatches[0]["found"]
                .as_str()
                .unwrap()
                .contains("the module does not export on_response_headers, so nothing was called and nothing was checked"),
            "{step}"
        );
        // There is no answer to write.
        let done = run(&module, &[&fixture], &["--update"]);
        done.assert_code(1);
        let left = "f.json: left the expectations of step 1: the module has no handler for it";
        assert!(done.stderr.contains(left), "{}", done.stderr);
        assert_eq!(std::fs::read_to_string(&fixture).unwrap(), text);
    }
}

#[test]
fn a_handler_that_the_module_lacks_is_not_called_and_that_is_said() {
    let dir = TestDir::new();
    let module = requests_only(&dir);
    let text = r#"{"steps":[{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"decision":"allow"}},{"event":"response_headers","input":{"status":200}}]}"#;
    let fixture = dir.file("f/f.json", text);
    let human = shown(&module, &dir.path("f"), &[]);
    human.assert_code(0);
    assert!(
        human.text().contains("allow, not called"),
        "{}",
        human.text()
    );
    let junit = shown(&module, &dir.path("f"), &["--format", "junit"]).text();
    assert!(
        junit.contains(
            "the module has no handler for it, so nothing was called and nothing was checked"
        ),
        "{junit}"
    );
    run(&module, &[&fixture], &["--update"]).assert_code(0);
    assert_eq!(std::fs::read_to_string(&fixture).unwrap(), text);
    let bare = dir.file("bare.json", r#"{"status":200}"#);
    run(&module, &[&bare], &["--update"]).assert_code(0);
    assert_eq!(std::fs::read_to_string(&bare).unwrap(), r#"{"status":200}"#);
}

#[test]
fn an_after_hook_that_the_module_lacks_meets_no_expectation() {
    let dir = TestDir::new();
    let module = dir.file(
        "m.wat",
        crate::support::guests::Answers::of([r#"{"ok":true}"#]).hook_wat(),
    );
    let pair = |expect: &str| {
        let text = format!(
            r#"{{"context":{{"input":{{"n":"0000"}}}},"after":{{"data":{{"id":7}}{expect}}}}}"#
        );
        run(&module, &[&dir.file("f.json", text)], &[])
    };
    pair("").assert_code(0);
    for expect in [
        r#","expect":{"absent":["/data/password"]}"#,
        r#","expect":{"ok":true}"#,
    ] {
        let done = pair(expect);
        done.assert_code(1);
        let step = &steps(&done.json())[1].0;
        assert_eq!(step["mismatches"][0]["expected"], "an answer of after_hook");
    }
}
