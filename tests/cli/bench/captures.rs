//! Captured traffic as input: of every format, sampled, and without its
//! secrets in anything that is written.

use std::path::Path;

use serde_json::Value;

use super::{bench, cases, findings};
use crate::support::clock::{NEW_YEAR, Refuses};
use crate::support::guests::guest;
use crate::support::{Done, TestDir, binary, capture, finish, shipped};

/// A gate of a module with itself: cases and findings, and no load.
fn gate(inputs: &[&Path], flags: &[&str]) -> Done {
    let module = shipped("rules/rules.wasm");
    let all: Vec<&Path> = [&*module, &*module]
        .into_iter()
        .chain(inputs.iter().copied())
        .collect();
    let done = bench(&all, flags);
    assert!(matches!(done.code, Some(0 | 5)), "{}", done.text());
    done
}

fn names(report: &Value) -> Vec<&str> {
    cases(report)
        .iter()
        .map(|case| case["name"].as_str().unwrap())
        .collect()
}

#[test]
fn every_format_is_told_by_its_content_and_measured() {
    let dir = TestDir::new();
    let request = dir.request();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let log = std::fs::read(capture("nginx-access.log")).unwrap();
    std::io::Write::write_all(&mut gz, &log).unwrap();
    let gz = dir.file("nginx-access.log.gz", gz.finish().unwrap());
    let folder = capture("");
    let report = gate(&[&folder, &gz, &request], &["--sample", "30"]).json();
    let sampled = &report["sampled"];
    let files: Vec<(&str, &str)> = sampled["captures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|capture| {
            let file = capture["file"].as_str().unwrap().rsplit('/').next();
            (file.unwrap(), capture["format"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        files,
        [
            ("chromium.har", "har"),
            ("envoy-tap.json", "envoy-tap"),
            ("goreplay.gor", "gor"),
            ("mitmproxy.har", "har"),
            ("nginx-access.log", "access-log"),
            ("nginx-json.log", "json-log"),
            ("recorded.jsonl", "jsonl"),
            ("suite-v3.yaml", "ftw"),
            ("suite.yaml", "ftw"),
            ("nginx-access.log.gz", "access-log"),
        ]
    );
    assert_eq!(sampled["taken"], 30, "{sampled}");
    assert_eq!(sampled["unusable"], 0, "{sampled}");
    let names = names(&report);
    // The fixture beside them is there as it was written.
    assert_eq!(names.first(), Some(&"request"));
    assert_eq!(names.len() as u64, 1 + sampled["events"].as_u64().unwrap());
    assert_eq!(findings(&report, "fuel_warm").len(), names.len());
    // What the formats do not hold is said, as replay says it.
    let notes = report["notes"].to_string();
    for part in [
        "30 of ",
        "har: no client address",
        "access-log: at most the headers",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn a_sample_depends_on_the_capture_and_the_seed_alone() {
    let log = capture("nginx-access.log");
    let sample = |flags: &[&str]| {
        let report = gate(&[&log], flags).json();
        assert_eq!(report["sampled"]["transactions"], 14);
        let names: Vec<String> = names(&report).into_iter().map(str::to_owned).collect();
        names
    };
    let five = sample(&["--sample", "5"]);
    // A log knows the request and the status of the response.
    assert!((5..=10).contains(&five.len()), "{five:?}");
    assert_eq!(five, sample(&["--sample", "5"]));
    assert_ne!(five, sample(&["--sample", "5", "--seed", "2"]));
    let all = sample(&["--sample", "200"]);
    // In the capture's order, and a part of the whole.
    let mut rest = all.iter();
    assert!(five.iter().all(|name| rest.any(|other| other == name)));
}

#[test]
fn what_cannot_be_used_is_counted_or_refused() {
    let dir = TestDir::new();
    let log = std::fs::read_to_string(capture("nginx-json.log")).unwrap();
    let broken = dir.file("broken.log", format!("{log}{{\"no\":\n"));
    let report = gate(&[&broken], &["--sample", "200"]).json();
    assert_eq!(report["sampled"]["unusable"], 1, "{report}");
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("1 record cannot be used, the first"),
        "{notes}"
    );
    let module = shipped("rules/rules.wasm");
    let strict = bench(&[&module, &broken], &["--strict", "--sample", "200"]);
    strict.assert_code(3);
    assert!(strict.stderr.contains("record 15"), "{}", strict.stderr);
    for (most, code) in [("0", 3), ("1", 0)] {
        let done = bench(&[&module, &broken], &["--max-errors", most]);
        done.assert_code(code);
        assert_eq!(done.stderr.contains("more than 0 records"), code == 3);
    }
    // Nothing but records that are none, and a format nobody reads.
    for (name, text) in [
        ("none.log", "hello\nworld\n"),
        ("packets.pcap", "\u{0}\u{0}"),
    ] {
        let none = dir.file(name, text);
        let done = bench(&[&module, &none], &[]);
        done.assert_code(3);
        assert!(done.stderr.contains(name), "{}", done.stderr);
    }
    for flags in [
        &["--sample", "0"][..],
        &["--sample", "201"],
        &["--input-format", "pcap"],
    ] {
        bench(&[&module, &broken], flags).assert_code(2);
    }
    // Hooks are captured too, and a hook module has no handler for a proxy's
    // events.
    let hooks = dir.file(
        "hooks.jsonl",
        concat!(
            r#"{"v":1,"id":"a","phase":"before_hook","input":{"input":{"email":"a@b.example"}}}"#,
            "\n"
        ),
    );
    let account = shipped("account/account.wasm");
    let done = bench(&[&account, &hooks], &[]);
    done.assert_code(0);
    assert_eq!(cases(&done.json())[0]["event"], "before_hook");
    bench(&[&account, &broken], &[]).assert_code(4);
}

#[test]
fn a_captured_secret_is_in_no_output() {
    const SECRETS: [&str; 3] = ["t0p-s3cr3t-token", "s3cr3t-session-0001", "q-t0ken-value"];
    let dir = TestDir::new();
    let text = std::fs::read_to_string(capture("mitmproxy.har")).unwrap();
    let har = dir.file(
        "traffic.har",
        text.replace("/orders", "/orders?token=q-t0ken-value"),
    );
    // Answers with what it was asked, which is no answer, and so is quoted.
    let echo = guest(
        &dir,
        "echo.wat",
        "",
        "(i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32))
                 (i64.extend_i32_u (local.get $len)))",
    );
    let rules = shipped("rules/rules.wasm");
    for module in [&rules, &echo] {
        let path = |name: &str| dir.path(name).display().to_string();
        let mut flags = vec!["--save".to_owned(), path("kept.json")];
        let formats = ["human", "csv", "markdown", "html", "junit", "github"];
        flags.extend(formats.map(|format| format!("--report={format}={}", path(format))));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let done = bench(
            &[module, &har],
            &[&flags[..], &["--sample", "200"]].concat(),
        );
        done.assert_code(i32::from(module == &echo));
        let mut written = done.text() + &done.stderr;
        for file in formats.iter().chain(["kept.json"].iter()) {
            written += &std::fs::read_to_string(dir.path(file)).unwrap_or_default();
        }
        assert!(written.contains("/orders?token=redacted:") || module == &echo);
        for secret in SECRETS {
            assert!(!written.contains(secret), "{secret}");
        }
    }
}

#[test]
fn a_running_agent_is_asked_about_whole_transactions() {
    let agent = super::live::serving(&shipped("rules/rules.wasm"), &[]);
    let mut command = binary(["bench", "--format", "json", "-n", "10", "--sample", "4"]);
    command
        .args(["--concurrency", "2"])
        .arg(capture("mitmproxy.har"));
    command.args(["--target", &super::live::unix(&agent)]);
    let done = finish(command);
    done.assert_code(0);
    let report = done.json();
    assert_eq!(report["sampled"]["taken"], 4);
    assert_eq!(
        cases(&report).len() as u64,
        report["sampled"]["events"].as_u64().unwrap()
    );
    assert!(
        cases(&report)
            .iter()
            .any(|case| case["event"] == "response_headers")
    );
}

/// Each case is called at the time of its record or fixture, as in `replay` and `run`.
#[test]
fn a_case_takes_the_branch_of_its_time() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR).wat());
    let har = |time: &str| {
        format!(
            r#"{{"log":{{"entries":[{{"startedDateTime":"{time}","request":{{"method":"GET","url":"http://a/","headers":[]}}}}]}}}}"#
        )
    };
    let before = dir.file("before.har", har("2025-06-01T00:00:00Z"));
    let after = dir.file("now.har", har("2026-06-01T00:00:00Z"));
    let fixture = |now: &str| {
        format!(
            r#"{{"event":"request_headers","now":"{now}","input":{{"method":"GET","uri":"/"}}}}"#
        )
    };
    let early = dir.file("early.json", fixture("2025-12-31T23:59:59Z"));
    let late = dir.file("late.json", fixture("2026-01-01T00:00:00Z"));
    let bare = dir.request();
    let done = bench(&[&module, &before, &after, &early, &late, &bare], &[]);
    let report = done.json();
    let decided: std::collections::BTreeMap<&str, &str> = cases(&report)
        .iter()
        .map(|case| {
            let text = |key: &str| case[key].as_str().unwrap();
            (text("name"), text("decision"))
        })
        .collect();
    let ends = |name: &str| {
        let mut all = decided.iter().filter(|(known, _)| known.starts_with(name));
        *all.next()
            .unwrap_or_else(|| panic!("{name}: {decided:?}"))
            .1
    };
    for (name, decision) in [
        ("before", "allow"),
        ("now", "block"),
        ("early", "allow"),
        ("late", "block"),
        ("request", "allow"),
    ] {
        assert_eq!(ends(name), decision, "{name}: {decided:?}");
    }
}
