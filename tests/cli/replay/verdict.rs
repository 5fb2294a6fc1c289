//! How a replay came out: what `--fail-on` counts, in which share, and that the
//! exit code and every format say the same.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Versions, asks_for, command, record, recorded, recorded_fault, replay, report};
use crate::support::guests::{ALLOW, guest, limiter};
use crate::support::{TestDir, capture, finish, processor_time, shipped};

const EXITS: [(&str, i32); 5] = [
    ("passed", 0),
    ("failed", 1),
    ("unreadable", 3),
    ("nothing_checked", 4),
    ("inconclusive", 5),
];

/// A report in every format that has the whole.
struct Reports {
    json: Value,
    /// Of the others, with their names.
    texts: Vec<(&'static str, String)>,
}

impl Reports {
    /// Has the command write them.
    fn asked(dir: &TestDir, command: &mut Command) -> Vec<(&'static str, PathBuf)> {
        let formats = ["json", "human", "markdown", "html", "junit", "github"];
        let targets: Vec<_> = formats
            .map(|format| (format, dir.path(&format!("r.{format}"))))
            .into();
        for (format, path) in &targets {
            command
                .arg("--report")
                .arg(format!("{format}={}", path.display()));
        }
        targets
    }

    /// All of them say what the exit code says.
    #[track_caller]
    fn agreeing(targets: Vec<(&'static str, PathBuf)>, code: Option<i32>) -> Self {
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        let json: Value = serde_json::from_str(&read(&targets[0].1)).unwrap();
        let verdict = json["verdict"].as_str().unwrap();
        let known = EXITS.iter().find(|(name, _)| *name == verdict);
        assert_eq!(known.map(|(_, code)| *code), code, "{json:#}");
        let passed = code == Some(0);
        let texts: Vec<_> = targets[1..]
            .iter()
            .map(|(format, path)| (*format, read(path)))
            .collect();
        for (format, text) in &texts {
            let (green, red) = match *format {
                "human" => (text.contains("\npassed: "), text.contains("\nfailed: ")),
                "markdown" => (text.starts_with("### ✅"), text.starts_with("### ❌")),
                "html" => (text.contains("banner good"), text.contains("banner bad")),
                "junit" => {
                    let red = text.contains("<failure") || text.contains("<error");
                    (!red, red)
                }
                _ => {
                    let red = text.contains("::error ");
                    (!red, red)
                }
            };
            assert_eq!(green, passed, "{format} beside exit {code:?}: {text}");
            assert!(!red || !passed, "{format} beside exit {code:?}: {text}");
            if code == Some(1) {
                assert!(red, "{format} beside exit 1: {text}");
            }
        }
        Self { json, texts }
    }
}

/// Runs it; every format agrees with the exit code.
#[track_caller]
fn judged(dir: &TestDir, (module, captures): (&Path, &[&Path]), flags: &[&str]) -> (i32, Reports) {
    let mut command = command(module, captures);
    command.args(flags);
    let targets = Reports::asked(dir, &mut command);
    let done = finish(command);
    done.assert_calm();
    (done.code.unwrap(), Reports::agreeing(targets, done.code))
}

const FAIL_ON: [&str; 5] = ["any", "decision", "fault", "50%", "never"];

/// The table in the help of `replay`.
#[test]
fn each_category_fails_as_the_help_says() {
    let (allow, block) = (r#"{"decision":"allow"}"#, r#"{"decision":"block"}"#);
    let block_429 = r#"{"decision":"block","status":429}"#;
    let cases = [
        (allow, allow, [0, 0, 0, 0, 0]),
        (allow, block, [1, 1, 0, 1, 0]),
        (block, block_429, [1, 0, 0, 0, 0]),
        // The module faults, and where the other side does too.
        (allow, "", [1, 1, 1, 1, 0]),
        ("", "", [1, 1, 1, 1, 0]),
        // The other side alone: its answer was a block.
        ("", allow, [1, 1, 0, 1, 0]),
        ("", block, [1, 0, 0, 0, 0]),
    ];
    let pairs: Vec<_> = cases.iter().map(|(old, new, _)| (*old, *new)).collect();
    let versions = Versions::of(&pairs);
    for (number, (old, new, codes)) in cases.into_iter().enumerate() {
        let capture = versions.capture(&[asks_for("a", number, &Value::Null)]);
        for (fail_on, expected) in FAIL_ON.into_iter().zip(codes) {
            let flags = [&versions.beside()[..], &["--fail-on", fail_on]].concat();
            let (code, reports) = judged(&versions.dir, (&versions.new, &[&capture]), &flags);
            assert_eq!(code, expected, "{old} {new} {fail_on}: {:#}", reports.json);
        }
    }
}

#[test]
fn recorded_answers_are_judged_like_those_of_a_baseline() {
    let allow = r#"{"decision":"allow"}"#;
    let versions = Versions::of(&[("", allow), ("", ""), ("", r#"{"decision":"block"}"#)]);
    let trapped = || recorded_fault("trap:unreachable");
    let mut opened = trapped();
    opened["decision"] = json!("allow");
    let allowed = || recorded(&json!("allow"));
    for (answer, output, codes) in [
        (0, allowed(), [0, 0, 0, 0, 0]),
        (0, trapped(), [1, 1, 0, 1, 0]),
        // It was let through then, and is now.
        (0, opened.clone(), [1, 0, 0, 0, 0]),
        (2, opened, [1, 1, 0, 1, 0]),
        (2, trapped(), [1, 0, 0, 0, 0]),
        (1, allowed(), [1, 1, 1, 1, 0]),
        (1, trapped(), [1, 1, 1, 1, 0]),
    ] {
        let capture = versions.capture(&[asks_for("a", answer, &output)]);
        for (fail_on, expected) in FAIL_ON.into_iter().zip(codes) {
            let input = (versions.new.as_path(), &[capture.as_path()][..]);
            let (code, reports) = judged(&versions.dir, input, &["--fail-on", fail_on]);
            assert_eq!(code, expected, "{output} {fail_on}: {:#}", reports.json);
            assert_eq!(reports.json["compared"], 1);
        }
    }
}

#[test]
fn a_share_is_of_what_was_compared_or_of_all_that_was_asked() {
    let versions = Versions::of(&[
        ("", r#"{"decision":"allow"}"#),
        ("", r#"{"decision":"block"}"#),
        ("", ""),
    ]);
    let allowed = || recorded(&json!("allow"));
    let lines = |count: usize, answer: usize, output: &Value| -> Vec<String> {
        let id = |index: usize| format!("{answer}-{index}-{}", output.is_null());
        (0..count)
            .map(|index| asks_for(&id(index), answer, output))
            .collect()
    };
    let code = |lines: &[Vec<String>], fail_on: &str| {
        let capture = versions.capture(&lines.concat());
        let input = (versions.new.as_path(), &[capture.as_path()][..]);
        judged(&versions.dir, input, &["--fail-on", fail_on]).0
    };
    // Two of ten that were compared changed, of a hundred.
    let changed = [
        lines(2, 1, &allowed()),
        lines(8, 0, &allowed()),
        lines(90, 0, &Value::Null),
    ];
    assert_eq!((code(&changed, "19%"), code(&changed, "20%")), (1, 0));
    // Four of forty fault, none of which were compared.
    let faulted = [
        lines(10, 0, &allowed()),
        lines(26, 0, &Value::Null),
        lines(4, 2, &Value::Null),
    ];
    assert_eq!((code(&faulted, "9%"), code(&faulted, "10%")), (1, 0));
    // A new fault is a change of what was compared.
    let both = [
        lines(1, 1, &allowed()),
        lines(1, 2, &allowed()),
        lines(8, 0, &allowed()),
    ];
    assert_eq!((code(&both, "19%"), code(&both, "20%")), (1, 0));
    // Nothing was compared, and no share of nothing is too much.
    assert_eq!(code(&[lines(5, 1, &Value::Null)], "0%"), 0);
}

#[test]
fn a_transaction_with_several_faulting_calls_is_one() {
    let versions = Versions::of(&[("", r#"{"decision":"allow"}"#), ("", "")]);
    let request = |id: &str, answer: usize| asks_for(id, answer, &Value::Null);
    let response = |id: &str| {
        let input = json!({"correlation_id": "0001"});
        record(id, &json!({"event": "response_headers", "input": input}))
    };
    let mut lines: Vec<String> = (2..11).map(|id| request(&format!("{id:04}"), 0)).collect();
    lines.extend([request("0001", 1), response("0001")]);
    let capture = versions.capture(&lines);
    let input = (versions.new.as_path(), &[capture.as_path()][..]);
    for (fail_on, expected) in [("9%", 1), ("10%", 0)] {
        let flags = ["--fail-open", "--fail-on", fail_on];
        let (code, reports) = judged(&versions.dir, input, &flags);
        assert_eq!(code, expected, "{:#}", reports.json);
        let outcomes = &reports.json["outcomes"];
        assert_eq!(
            (&outcomes["calls"], &outcomes["faulted"]),
            (&json!(11), &json!(1))
        );
        let faults = outcomes["faults"].as_object().unwrap();
        assert_eq!(faults.values().collect::<Vec<_>>(), [1], "{outcomes:#}");
    }
}

/// Nothing that was recorded is left out, and nothing that was not is judged.
#[test]
fn what_was_not_recorded_is_not_compared() {
    let versions = Versions::of(&[
        ("", r#"{"decision":"block"}"#),
        ("", r#"{"decision":"allow"}"#),
    ]);
    let response = |output: &Value| {
        record(
            "0001",
            &json!({"event": "response_headers", "input": {}, "output": output}),
        )
    };
    let allowed = recorded(&json!("allow"));
    for (lines, expected) in [
        // Only the response was recorded, and is what it was.
        (
            vec![asks_for("0001", 1, &Value::Null), response(&allowed)],
            (0, 1),
        ),
        (
            vec![asks_for("0001", 1, &allowed), response(&Value::Null)],
            (0, 1),
        ),
        // What was let through is not asked about any more.
        (
            vec![asks_for("0001", 0, &Value::Null), response(&allowed)],
            (1, 1),
        ),
        (
            vec![asks_for("0001", 1, &Value::Null), response(&Value::Null)],
            (0, 0),
        ),
    ] {
        let capture = versions.capture(&lines);
        let input = (versions.new.as_path(), &[capture.as_path()][..]);
        let (code, reports) = judged(&versions.dir, input, &[]);
        let compared = reports.json["compared"].as_u64().unwrap();
        assert_eq!((code, compared), expected, "{lines:#?} {:#}", reports.json);
    }
    // Of a response that differs only that is told.
    let mut tagged = recorded(&json!("allow"));
    tagged["audit"]["tags"] = json!(["then"]);
    let capture = versions.capture(&[asks_for("0001", 1, &Value::Null), response(&tagged)]);
    let report = report(&versions.new, &[&capture], &[]);
    let groups = &report["drift"]["groups"];
    assert_eq!(groups[0]["fields"], json!(["2/audit/tags"]), "{report:#}");
}

#[test]
fn that_nothing_was_compared_is_said_in_every_format() {
    let versions = Versions::of(&[("", r#"{"decision":"block"}"#)]);
    let capture = versions.capture(&[asks_for("a", 0, &Value::Null)]);
    let input = (versions.new.as_path(), &[capture.as_path()][..]);
    let (code, reports) = judged(&versions.dir, input, &[]);
    assert_eq!((code, &reports.json["compared"]), (0, &json!(0)));
    for (format, text) in &reports.texts {
        assert!(text.contains("nothing was compared"), "{format}: {text}");
    }
    let rows = super::rows(&versions.new, &[&capture], &[]);
    assert_eq!(rows[0]["category"], Value::Null, "{rows:#?}");
    assert!(rows[0].get("category").is_some(), "{rows:#?}");
    // Where something was, nobody says so.
    let capture = versions.capture(&[
        asks_for("a", 0, &recorded(&json!({"block": {"status": 403}}))),
        asks_for("b", 0, &Value::Null),
    ]);
    let (code, reports) = judged(&versions.dir, (&versions.new, &[&capture]), &[]);
    assert_eq!((code, &reports.json["compared"]), (0, &json!(1)));
    for (format, text) in &reports.texts {
        assert!(!text.contains("nothing was compared"), "{format}: {text}");
    }
    let rows = super::rows(&versions.new, &[&capture], &[]);
    assert_eq!(rows[0]["category"], "unchanged", "{rows:#?}");
    assert_eq!(rows[1]["category"], Value::Null, "{rows:#?}");
}

#[test]
fn what_could_not_be_read_is_red_and_tests_fail_unless_nothing_may() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let broken = dir.file(
        "broken.jsonl",
        "{\"v\":1,\"id\":\"x\",\"phase\":\"nonsense\"}\n{\"v\":1}\n",
    );
    let good = asks_for("a", 0, &Value::Null);
    let mixed = dir.file("mixed.jsonl", format!("{good}\n{{\"v\":1}}\n"));
    let whole = dir.file("whole.jsonl", format!("{good}\n"));
    let empty = ["--match", "method=DELETE"];
    let suite = capture("suite.yaml");
    for (capture, flags, expected) in [
        (&broken, &[][..], 3),
        (&broken, &["--fail-on", "never"], 3),
        (&broken, &["--strict"], 3),
        (&mixed, &[], 0),
        (&mixed, &["--strict"], 3),
        (&mixed, &empty, 3),
        (&whole, &empty, 4),
        (&whole, &[], 0),
        (&suite, &[], 1),
        (&suite, &["--fail-on", "fault"], 1),
        (&suite, &["--fail-on", "100%"], 1),
        (&suite, &["--fail-on", "never"], 0),
    ] {
        let (code, reports) = judged(&dir, (&allow, &[capture]), flags);
        assert_eq!(code, expected, "{flags:?}: {:#}", reports.json);
    }
}

/// A difference is one for the proxy or the host.
#[test]
fn answers_that_tell_a_proxy_the_same_are_equal() {
    let change = |key: &str, value: &str| format!(r#"{{"decision":"allow","{key}":{value}}}"#);
    let header = |value: &str| change("add_request_headers", value);
    let remove = |value: &str| change("remove_response_headers", value);
    let pairs = [
        (header(r#"{"X-A":"1"}"#), header(r#"{"x-a":"1"}"#), 0),
        (remove(r#"["a","b"]"#), remove(r#"["b","a"]"#), 0),
        (remove(r#"["a","A","a"]"#), remove(r#"["a"]"#), 0),
        (header(r#"{"x-a":"1"}"#), header(r#"{"x-a":"2"}"#), 1),
        (remove(r#"["a"]"#), remove(r#"["b"]"#), 1),
        (remove(r#"["a"]"#), remove("[]"), 1),
    ];
    let texts: Vec<_> = pairs
        .iter()
        .map(|(old, new, _)| (old.as_str(), new.as_str()))
        .collect();
    let versions = Versions::of(&texts);
    for (number, (old, new, expected)) in pairs.iter().enumerate() {
        let capture = versions.capture(&[asks_for("a", number, &Value::Null)]);
        let flags = [&versions.beside()[..], &["--fail-on", "any"]].concat();
        let report = report(&versions.new, &[&capture], &flags);
        let groups = report["comparison"]["groups"].as_array().unwrap();
        assert_eq!(groups.len(), *expected, "{old} {new} {report:#}");
        for group in groups {
            assert!(
                !group["fields"].as_array().unwrap().is_empty(),
                "{report:#}"
            );
        }
    }
}

/// A replay that somebody interrupts.
struct Running {
    child: Child,
    targets: Vec<(&'static str, PathBuf)>,
    rows: PathBuf,
}

impl Running {
    fn of(dir: &TestDir, module: &Path, capture: &Path, flags: &[&str]) -> Self {
        let rows = dir.path("rows.jsonl");
        let mut command = command(module, &[capture]);
        command.args(flags).args(["--jobs", "1", "--report"]);
        command.arg(format!("jsonl={}", rows.display()));
        let targets = Reports::asked(dir, &mut command);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let running = Self {
            child,
            targets,
            rows,
        };
        // An early signal would end the process by itself.
        running.wait_until("it listens", || listens(running.child.id()));
        running
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waited = Instant::now();
        while !is_so() {
            assert!(waited.elapsed().as_secs() < 120, "waited for: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has computed for so long.
    fn let_compute(&self, time: Duration) {
        let busy = || processor_time(self.child.id());
        let until = busy() + time;
        self.wait_until("it computes", || busy() >= until);
    }

    /// Sends the signal. What it reported, which all say the same, in which
    /// every format says that it was interrupted.
    #[track_caller]
    fn interrupted(mut self, expected: i32) -> Value {
        let mut kill = Command::new("kill");
        kill.args(["-INT", &self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
        let sent = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if sent.elapsed().as_secs() > 120 {
                self.child.kill().unwrap();
                panic!("still there after the signal");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut stderr = String::new();
        let mut said = self.child.stderr.take().unwrap();
        said.read_to_string(&mut stderr).unwrap();
        assert_eq!(status.code(), Some(expected), "{stderr}");
        let Reports { json, texts } = Reports::agreeing(self.targets, status.code());
        assert_eq!(json["interrupted"], true, "{json:#}");
        for (format, text) in &texts {
            assert!(text.contains("interrupted after"), "{format}: {text}");
        }
        let rows = std::fs::read_to_string(&self.rows).unwrap();
        let rows: Vec<Value> = rows
            .lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        let transactions = &json["records"]["transactions"];
        let last = json!({"interrupted": true, "transactions": transactions});
        assert_eq!(rows.last(), Some(&last));
        assert_eq!(json!(rows.len() - 1), *transactions);
        json
    }
}

/// Whether a process catches SIGINT, as the kernel says.
pub(super) fn listens(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 0b10 != 0)
}

#[test]
fn an_interrupt_while_it_waits_for_its_time_is_no_pass() {
    let dir = TestDir::new();
    // The second request came an hour later, and the timing is kept.
    let har = super::har(2, |_| false).replace("00:00:01.000Z", "01:00:01.000Z");
    let har = dir.file("slow.har", har);
    let save = dir.path("save.jsonl");
    let flags = ["--speed", "1x", "--save", save.to_str().unwrap()];
    Running::of(&dir, &shipped("right/allow.wat"), &har, &flags).interrupted(5);
}

/// Every record was read and dealt out, and most are not done.
#[test]
fn an_interrupt_in_the_last_records_is_no_pass() {
    let dir = TestDir::new();
    let spin = format!(
        "(local $i i32) (local.set $i (i32.const 50000000))\n\
         (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))\n{ALLOW}"
    );
    let module = guest(&dir, "slow.wat", "", &spin);
    let lines = |output: &Value| -> String {
        let line = |id: usize| asks_for(&format!("c{id}"), 0, output) + "\n";
        (0..3_000).map(line).collect()
    };
    for (output, fail_on, expected) in [
        (recorded(&json!("allow")), "decision", 5),
        (recorded(&json!({"block": {"status": 403}})), "decision", 1),
        // The share of a part is not the share of all.
        (recorded(&json!({"block": {"status": 403}})), "10%", 5),
    ] {
        let capture = dir.file("capture.jsonl", lines(&output));
        let running = Running::of(&dir, &module, &capture, &["--fail-on", fail_on]);
        running.let_compute(Duration::from_secs(2));
        let report = running.interrupted(expected);
        let done = report["compared"].as_u64().unwrap();
        assert!((1..3_000).contains(&done), "{report:#}");
    }
}

#[test]
fn an_interrupt_while_a_stream_gives_nothing_is_no_pass() {
    let dir = TestDir::new();
    let mut running = Running::of(&dir, &shipped("right/allow.wat"), Path::new("-"), &[]);
    let mut stdin = running.child.stdin.take().unwrap();
    let line = |id: usize| asks_for(&format!("c{id}"), 0, &Value::Null);
    for id in 0..2_000 {
        writeln!(stdin, "{}", line(id)).unwrap();
    }
    // Begun, and not ended.
    write!(stdin, "{}", &line(2_000)[..40]).unwrap();
    stdin.flush().unwrap();
    let report = running.interrupted(5);
    assert_eq!(report["records"]["unusable"], 0, "{report:#}");
    drop(stdin);
    // A pipe that nobody writes to, and so nobody can open.
    let fifo = dir.path("fifo.jsonl");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let report = Running::of(&dir, &shipped("right/allow.wat"), &fifo, &[]).interrupted(5);
    assert_eq!(report["records"]["transactions"], 0, "{report:#}");
}

#[test]
fn rows_that_are_whole_have_no_last_line_of_their_own() {
    let versions = Versions::of(&[("", r#"{"decision":"allow"}"#)]);
    let capture = versions.capture(&[asks_for("a", 0, &Value::Null)]);
    let done = replay(&versions.new, &[&capture], &["-o", "jsonl"]);
    done.assert_code(0);
    assert_eq!(done.text().lines().count(), 1, "{}", done.text());
}

/// Beside a baseline the recorded answers are compared with its answers.
#[test]
fn an_example_shows_the_answers_that_were_compared() {
    let versions = Versions::of(&[(
        r#"{"decision":"allow"}"#,
        r#"{"decision":"redirect","body":"/x"}"#,
    )]);
    let blocked = recorded(&json!({"block": {"status": 403}}));
    let capture = versions.capture(&[asks_for("a", 0, &blocked)]);
    let report = report(&versions.new, &[&capture], &versions.beside());
    let example = |comparison: &str| &report[comparison]["groups"][0]["examples"][0];
    let drift = example("drift");
    assert_eq!(drift["old"], json!([blocked]), "{drift:#}");
    assert_eq!(drift["new"][0]["decision"], "allow", "{drift:#}");
    let comparison = example("comparison");
    assert_eq!(comparison["old"][0]["decision"], "allow", "{comparison:#}");
    assert!(
        comparison["new"][0]["decision"]["redirect"].is_object(),
        "{comparison:#}"
    );
}

/// What both have is no part of the changes, whose share may be too large.
#[test]
fn a_fault_of_both_is_red_for_the_share_of_faults_alone() {
    let (allow, block) = (r#"{"decision":"allow"}"#, r#"{"decision":"block"}"#);
    let versions = Versions::of(&[("", ""), (allow, block), (allow, allow)]);
    let asked = |at: usize| asks_for(&format!("c{at}"), [0, 1, 1, 2, 2][at], &Value::Null);
    let capture = versions.capture(&(0..5).map(asked).collect::<Vec<_>>());
    for (fail_on, red) in [
        ("15%", [true, true]),
        ("25%", [false, true]),
        ("40%", [false; 2]),
    ] {
        let flags = [&versions.beside()[..], &["--fail-on", fail_on]].concat();
        let (_, reports) = judged(&versions.dir, (&versions.new, &[&capture]), &flags);
        let junit = reports.texts.iter().find(|(format, _)| *format == "junit");
        let junit = &junit.unwrap().1;
        let found = ["<error", "<failure"].map(|kind| junit.contains(kind));
        assert_eq!(found, red, "{fail_on}: {junit}");
    }
}

/// So many requests, of one exchange each.
fn many(dir: &TestDir, count: usize) -> PathBuf {
    let lines: Vec<String> = (0..count)
        .map(|number| asks_for(&format!("id-{number}"), number % 10_000, &Value::Null))
        .collect();
    dir.file("many.jsonl", lines.join("\n"))
}

#[test]
fn answers_that_depend_on_earlier_calls_are_found_and_told_in_every_format() {
    let dir = TestDir::new();
    let capture = many(&dir, 2_400);
    let module = limiter(&dir, "limiter.wat", 30);
    let mut command = command(&module, &[&capture]);
    let targets = Reports::asked(&dir, &mut command);
    let done = finish(command);
    let reports = Reports::agreeing(targets, done.code);
    let found = &reports.json["earlier_calls"];
    assert!(found["decisions"].as_u64().unwrap() > 20, "{found}");
    let example = &found["example"];
    assert_eq!(example["on_new"]["decision"], "allow");
    assert_eq!(example["on_used"]["decision"], "block 429");
    assert!(example["calls_before"].as_u64().unwrap() >= 30, "{example}");
    for (format, text) in &reports.texts {
        assert!(
            text.contains("answers depend on earlier calls on the same instance"),
            "{format}: {text}"
        );
    }
    let rows = replay(&module, &[&capture], &["--format", "jsonl"]).text();
    let told = rows
        .lines()
        .filter(|row| row.contains("\"on_new_instance\":"));
    assert_eq!(told.count() as u64, found["decisions"].as_u64().unwrap());
}

#[test]
fn a_dependence_on_earlier_calls_fails_as_another_decision_does() {
    let dir = TestDir::new();
    let capture = many(&dir, 1_200);
    let module = limiter(&dir, "limiter.wat", 30);
    for (flags, code) in [
        (&[][..], 1),
        (&["--fail-on", "any"], 1),
        (&["--fail-on", "decision"], 1),
        (&["--fail-on", "fault"], 0),
        (&["--fail-on", "50%"], 0),
        (&["--fail-on", "never"], 0),
        (&["--isolation", "fresh"], 0),
        (&["--isolation", "recycle=30"], 0),
        (&["--isolation", "recycle=40"], 1),
        (&["--speed", "1000x"], 1),
        (&["--jobs", "3"], 1),
    ] {
        let done = replay(&module, &[&capture], flags);
        assert_eq!(done.code, Some(code), "{flags:?}: {}", done.text());
    }
    // Both versions alike: nothing changed, and yet no pass.
    let flags = ["--baseline", module.to_str().unwrap()];
    replay(&module, &[&capture], &flags).assert_code(1);
    // Other details alone are a failure where any difference is.
    let counting = guest(
        &dir,
        "details.wat",
        "(global $calls (mut i32) (i32.const 48))
         (data (i32.const 2048) \"{\\22decision\\22:\\22allow\\22,\\22tags\\22:[\\220\\22]}\")",
        "(if (i32.lt_u (global.get $calls) (i32.const 57))
           (then (global.set $calls (i32.add (global.get $calls) (i32.const 1)))))
         (i32.store8 (i32.const 2077) (global.get $calls)) (i64.const 0x0000_0800_0000_0021)",
    );
    replay(&counting, &[&capture], &[]).assert_code(0);
    replay(&counting, &[&capture], &["--fail-on", "any"]).assert_code(1);
    // One that keeps nothing.
    let steady = guest(&dir, "steady.wat", "", ALLOW);
    let done = replay(
        &steady,
        &[&capture],
        &["--fail-on", "any", "--format", "json"],
    );
    done.assert_code(0);
    assert_eq!(done.json().get("earlier_calls"), None);
}
