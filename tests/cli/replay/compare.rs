//! Two modules, shards, and that nothing depends on the number of jobs.

use std::path::Path;

use serde_json::Value;

use super::{blocks_on, command, har, replay, report, rows};
use crate::support::{TestDir, binary, capture, finish, run, shipped, steps};

const SEVEN: [usize; 7] = [3, 711, 1_234, 2_048, 3_000, 3_999, 4_444];

struct Planted {
    dir: TestDir,
    old: std::path::PathBuf,
    new: std::path::PathBuf,
    har: std::path::PathBuf,
}

fn planted() -> Planted {
    let dir = TestDir::new();
    Planted {
        old: dir.file("old.wat", blocks_on("\"x-nobody\":\"on\"")),
        new: dir.file("new.wat", blocks_on("\"x-beta\":\"on\"")),
        har: dir.file("traffic.har", har(4_500, |index| SEVEN.contains(&index))),
        dir,
    }
}

#[test]
fn exactly_the_seven_flipped_are_reported_and_minimised_to_one_header() {
    let Planted {
        dir: _dir,
        old,
        new,
        har,
    } = planted();
    let baseline = [
        "--baseline",
        old.to_str().unwrap(),
        "--minimize",
        "--examples",
        "10",
    ];
    let report = report(&new, &[&har], &baseline);
    assert_eq!(report["verdict"], "failed");
    assert_eq!(report["comparison"]["categories"]["decision"], 7);
    assert_eq!(report["comparison"]["categories"]["unchanged"], 4_493);
    let groups = report["comparison"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0]["from"]["decision"], "allow");
    assert_eq!(groups[0]["to"]["decision"], "block 403");
    let examples = groups[0]["examples"].as_array().unwrap();
    let found: Vec<u64> = examples
        .iter()
        .map(|example| example["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(found, SEVEN.map(|index| index as u64));
    for example in examples {
        let steps = example["minimized"]["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 1, "{example}");
        let input = &steps[0]["input"];
        assert_eq!(
            input["headers"],
            serde_json::json!({"X-Beta": "on"}),
            "{example}"
        );
        assert_eq!(input["uri"], "/", "{example}");
    }
}

#[test]
fn no_byte_depends_on_the_number_of_jobs() {
    let Planted {
        dir: _dir,
        old,
        new,
        har,
    } = planted();
    for format in [
        "human", "json", "jsonl", "junit", "markdown", "html", "github",
    ] {
        let with = |jobs: &str| {
            let flags = [
                "--baseline",
                old.to_str().unwrap(),
                "--minimize",
                "--format",
                format,
                "--jobs",
                jobs,
            ];
            let done = replay(&new, &[&har], &flags);
            done.assert_code(1);
            done.text()
        };
        let one = with("1");
        assert!(one.len() > 200, "{format}: {one}");
        assert_eq!(one, with("8"), "{format}");
    }
}

#[test]
fn a_guest_with_a_memory_is_the_same_on_any_number_of_jobs_and_shards() {
    let dir = TestDir::new();
    let har = dir.file("traffic.har", har(3_000, |_| false));
    // Counts its calls, and answers otherwise from some count on.
    let counter = shipped("hostile/counter.wat");
    let one = replay(&counter, &[&har], &["--format", "jsonl", "--jobs", "1"]).text();
    assert_eq!(
        one,
        replay(&counter, &[&har], &["--format", "jsonl", "--jobs", "7"]).text()
    );
    let decisions: std::collections::BTreeSet<String> = one
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["module"]["decision"].to_string())
        .collect();
    assert!(
        decisions.len() > 1,
        "the guest's memory must show: {decisions:?}"
    );
    assert_merged(&dir, &counter, &har, &[]);
}

/// Runs the shards, joins them, and holds the whole against one run.
#[track_caller]
/// Tags each request with its path, where `{"method":"GET","uri":"` stands
/// before it.
fn tags_paths() -> String {
    let (before, after) = (r#"{"decision":"allow","tags":[""#, r#""]}"#);
    let (start, before_size, after_size) = (23, before.len(), after.len());
    let data = |text: &str| text.replace('"', "\\22");
    let (before, after) = (data(before), data(after));
    format!(
        r#"(module
  (memory (export "memory") 8)
  (data (i32.const 131072) "{before}")
  (data (i32.const 256) "{after}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "on_request_headers") (param $at i32) (param $len i32) (result i64)
    (local $size i32)
    (local.set $at (i32.add (local.get $at) (i32.const {start})))
    (loop $next
      (local.set $size (i32.add (local.get $size) (i32.const 1)))
      (br_if $next (i32.ne
        (i32.load8_u (i32.add (local.get $at) (local.get $size)))
        (i32.const 34))))
    (memory.copy (i32.const {answer}) (local.get $at) (local.get $size))
    (memory.copy (i32.add (i32.const {answer}) (local.get $size)) (i32.const 256) (i32.const {after_size}))
    (i64.or (i64.shl (i64.const 131072) (i64.const 32))
      (i64.extend_i32_u (i32.add (local.get $size) (i32.const {around}))))))"#,
        answer = 131_072 + before_size,
        around = before_size + after_size,
    )
}

/// More words than are kept apart, some of them a secret of the request that
/// they are given to, and none of any other's.
#[test]
fn made_up_words_are_counted_alike_on_any_number_of_jobs_and_shards() {
    let dir = TestDir::new();
    let module = dir.file("tags.wat", tags_paths());
    let mut traffic: Value = serde_json::from_str(&har(5_000, |_| false)).unwrap();
    let entries = traffic["log"]["entries"].as_array_mut().unwrap();
    for (index, entry) in entries.iter_mut().enumerate() {
        let path = format!("/items/{}", index % 2_500);
        let request = &mut entry["request"];
        request["url"] = format!("https://shop.example{path}").into();
        if index % 3 == 0 {
            let cookie = serde_json::json!({"name": "Cookie", "value": format!("last={path}")});
            request["headers"].as_array_mut().unwrap().push(cookie);
        }
    }
    let har = dir.file("traffic.har", traffic.to_string());
    let with = |jobs: &str| report(&module, &[&har], &["--jobs", jobs]);
    let one = with("1");
    let tags = one["outcomes"]["tags"].as_object().unwrap();
    assert_eq!(
        tags.len(),
        2_001,
        "as many as are kept apart, and the others"
    );
    let counted: u64 = tags.values().filter_map(Value::as_u64).sum();
    assert_eq!(counted, 5_000);
    for jobs in ["2", "8"] {
        assert_eq!(
            one["outcomes"]["tags"],
            with(jobs)["outcomes"]["tags"],
            "{jobs} jobs"
        );
    }
    assert_merged(&dir, &module, &har, &[]);
}

/// A group stands beside its examples, so its words are each transaction's own.
#[test]
fn a_word_is_hidden_in_the_changes_of_those_whose_secret_it_is() {
    let dir = TestDir::new();
    let module = dir.file("tags.wat", tags_paths());
    let old = dir.file("old.wat", blocks_on("\"x-nobody\":\"on\""));
    let mut traffic: Value = serde_json::from_str(&har(400, |_| false)).unwrap();
    let entries = traffic["log"]["entries"].as_array_mut().unwrap();
    for (index, entry) in entries.iter_mut().enumerate() {
        let request = &mut entry["request"];
        request["url"] = "https://shop.example/plain-word".into();
        if index % 2 == 1 {
            let cookie = serde_json::json!({"name": "Cookie", "value": "last=/plain-word"});
            request["headers"].as_array_mut().unwrap().push(cookie);
        }
    }
    let har = dir.file("traffic.har", traffic.to_string());
    let report = report(&module, &[&har], &["--baseline", old.to_str().unwrap()]);
    let groups = report["comparison"]["groups"].as_array().unwrap();
    let count = |is_hidden: bool| -> u64 {
        let tag = |group: &Value| group["to"]["tags"][0].as_str().unwrap().to_owned();
        let of_kind = |group: &&Value| tag(group).starts_with("redacted:") == is_hidden;
        let groups = groups.iter().filter(of_kind);
        groups.map(|group| group["count"].as_u64().unwrap()).sum()
    };
    assert_eq!((count(true), count(false)), (200, 200), "{groups:#?}");
}

fn assert_merged(dir: &TestDir, module: &Path, capture: &Path, flags: &[&str]) {
    let whole = replay(module, &[capture], &[flags, &["--format", "json"]].concat());
    whole.assert_calm();
    let shards: Vec<_> = (1..=4)
        .map(|index| {
            let path = dir.path(&format!("{index}.json"));
            let shard = format!("{index}/4");
            let target = format!("json={}", path.display());
            let part = [flags, &["--shard", &shard, "--report", &target]].concat();
            replay(module, &[capture], &part).assert_calm();
            path
        })
        .collect();
    let mut merge = binary(["replay", "merge", "--format", "json"]);
    merge.args(&shards);
    let merged = finish(merge);
    assert_eq!(merged.code, whole.code, "{}", merged.stderr);
    assert_eq!(merged.text(), whole.text());

    let mut missing = binary(["replay", "merge"]);
    missing.args(&shards[..3]);
    let missing = finish(missing);
    missing.assert_code(2);
    assert!(
        missing.stderr.contains("shard 4/4 is missing"),
        "{}",
        missing.stderr
    );
}

#[test]
fn four_shards_joined_are_one_run() {
    let Planted { dir, old, new, har } = planted();
    // Broken records are counted by one shard only.
    let mut text = std::fs::read_to_string(&har).unwrap();
    text = text.replacen(r#""method":"GET""#, r#""method":7"#, 5);
    let har = dir.file("traffic.har", text);
    let flags = ["--baseline", old.to_str().unwrap(), "--minimize"];
    assert_merged(&dir, &new, &har, &flags);
    // A module whose allocator has a memory of its own.
    assert_merged(
        &dir,
        &shipped("rules/rules.wasm"),
        &har,
        &["--limit", "2000"],
    );
}

#[test]
fn what_fails_is_for_the_user_to_say() {
    let Planted {
        dir: _dir,
        old,
        new,
        har,
    } = planted();
    let base = ["--baseline", old.to_str().unwrap()];
    for (fail_on, code) in [
        ("any", 1),
        ("decision", 1),
        ("fault", 0),
        ("never", 0),
        ("0.1%", 1),
        ("1%", 0),
    ] {
        replay(
            &new,
            &[&har],
            &[&base[..], &["--fail-on", fail_on]].concat(),
        )
        .assert_code(code);
    }
    replay(&new, &[&har], &["--fail-on", "sometimes"]).assert_code(2);
    // What is ignored is no change.
    let ignored = ["--ignore", "/decision", "--ignore", "/audit"];
    replay(
        &new,
        &[&har],
        &[&base[..], &ignored, &["--fail-on", "any"]].concat(),
    )
    .assert_code(0);
}

#[test]
fn faults_are_grouped_with_an_example_that_run_takes() {
    let dir = TestDir::new();
    let har = dir.file("traffic.har", har(40, |_| false));
    let trap = shipped("hostile/trap-unreachable.wat");
    let fixtures = dir.path("fixtures");
    let report = report(
        &trap,
        &[&har],
        &["--minimize", "--save-fixture", fixtures.to_str().unwrap()],
    );
    assert_eq!(report["verdict"], "failed");
    assert_eq!(report["outcomes"]["faults"]["trap:unreachable"], 40);
    assert_eq!(report["faulted"][0]["count"], 40);
    assert_eq!(
        report["faulted"][0]["examples"].as_array().unwrap().len(),
        3
    );
    assert_eq!(report["fixtures_written"], 40);
    let again = run(&trap, &[&fixtures], &[]).json();
    assert_eq!(again["verdict"], "passed", "{again}");
    assert_eq!(steps(&again).len(), 40);
}

#[test]
fn the_circle_closes() {
    let dir = TestDir::new();
    let rules = shipped("rules/rules.wasm");
    let saved = dir.path("saved.jsonl");
    let fixtures = dir.path("fixtures");
    let mut record = command(&rules, &[&capture("mitmproxy.har")]);
    record.arg("--save").arg(&saved);
    finish(record).assert_code(0);
    let drift = report(
        &rules,
        &[&saved],
        &[
            "--save-fixture",
            fixtures.to_str().unwrap(),
            "--fixtures",
            "all",
        ],
    );
    assert_eq!(drift["drift"]["compared"], 14);
    assert_eq!(drift["drift"]["categories"]["unchanged"], 14, "{drift}");
    assert_eq!(drift["fixtures_written"], 14);
    let again = run(&rules, &[&fixtures], &[]).json();
    assert_eq!(again["verdict"], "passed", "{again}");

    // Another module: it drifts, and what drifted becomes fixtures.
    let allow = shipped("right/allow.wat");
    let drifted = report(&allow, &[&saved], &[]);
    assert_eq!(drifted["verdict"], "failed");
    assert_eq!(drifted["drift"]["categories"]["decision"], 5, "{drifted}");
    // Whose decisions they were is said where they are not this module's.
    assert_eq!(drift["remarks"]["other_module"], Value::Null, "{drift}");
    assert_eq!(drifted["remarks"]["other_module"], 14, "{drifted}");
    let baseline = ["--baseline", rules.to_str().unwrap()];
    let beside = report(&allow, &[&saved], &baseline);
    assert_eq!(beside["remarks"]["other_module"], Value::Null, "{beside}");
}

#[test]
fn a_selection_is_the_same_every_time() {
    let dir = TestDir::new();
    let har = dir.file("traffic.har", har(2_000, |_| false));
    let allow = shipped("right/allow.wat");
    let count = |flags: &[&str]| {
        report(&allow, &[&har], flags)["records"]["transactions"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(count(&["--limit", "77"]), 77);
    let sample = |seed: &str| -> Vec<u64> {
        rows(&allow, &[&har], &["--sample-rate", "0.1", "--seed", seed])
            .iter()
            .map(|row| row["seq"].as_u64().unwrap())
            .collect()
    };
    let first = sample("1");
    assert!((140..260).contains(&first.len()), "{}", first.len());
    assert_eq!(first, sample("1"));
    assert_ne!(first, sample("2"));
    assert_eq!(count(&["--match", "path=/items/7\\?"]), 1);
    assert_eq!(count(&["--match", "method=post"]), 0);
    assert_eq!(
        count(&[
            "--match",
            "status=2xx",
            "--match",
            "method=GET",
            "--limit",
            "5"
        ]),
        5
    );
    replay(&allow, &[&har], &["--match", "method=post"]).assert_code(4);
}
