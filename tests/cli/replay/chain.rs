//! Whole replays, drawn at random, through the built binary: exit codes, formats,
//! saved fixtures and shards. The library's own test of these tries many more.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use serde_json::Value;

use crate::support::chain::{Case, cases};
use crate::support::chain_report::{FailOn, Held, Player};
use crate::support::{TestDir, binary, finish, run};

const TEXTS: [&str; 5] = ["human", "markdown", "html", "junit", "github"];

/// Flags of a case that all its replays have.
fn flags(case: &Case, old: Option<&PathBuf>) -> Vec<String> {
    let flags = &case.flags;
    let mut all: Vec<String> = vec!["--examples".to_owned(), flags.examples.to_string()];
    for (flag, is_given) in [
        ("--fail-open", flags.is_open),
        ("--isolation=fresh", flags.is_fresh),
        ("--minimize", flags.minimizes),
        ("--strict", flags.is_strict),
        ("--fixtures=all", flags.saves_all),
        ("--expect=old", flags.expects_old),
    ] {
        all.extend(is_given.then(|| flag.to_owned()));
    }
    all.extend(flags.ignore.iter().map(|it| format!("--ignore={it}")));
    all.extend(old.map(|old| format!("--baseline={}", old.display())));
    all
}

/// Writes a replay's report in all formats, and its fixtures.
struct Written {
    code: Option<i32>,
    folder: PathBuf,
}

impl Written {
    fn of(case: &Case, dir: &TestDir, (name, more): (&str, &[String])) -> Self {
        let old = case.old.as_ref().map(|_| dir.path("old.wat"));
        let folder = dir.path(name);
        std::fs::create_dir(&folder).unwrap();
        let mut command = super::command(&dir.path("new.wat"), &[&dir.path("capture.jsonl")]);
        command.args(flags(case, old.as_ref())).args(more);
        command.arg("--input-format=jsonl");
        command.arg("--save-fixture").arg(folder.join("fixtures"));
        for format in TEXTS.iter().chain(&["json", "jsonl"]) {
            let path = folder.join(format);
            command.arg(format!("--report={format}={}", path.display()));
        }
        let done = finish(command);
        done.assert_calm();
        let code = done.code;
        Self { code, folder }
    }

    fn text(&self, format: &str) -> String {
        std::fs::read_to_string(self.folder.join(format)).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text("json")).unwrap()
    }

    /// The fixtures that were written, by name.
    fn fixtures(&self) -> BTreeMap<String, PathBuf> {
        let files = std::fs::read_dir(self.folder.join("fixtures")).unwrap();
        let files = files.map(|file| {
            let path = file.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), path)
        });
        files.collect()
    }
}

/// All of it says what is right.
fn held(held: &Held<'_>, written: &Written, fail_on: FailOn) {
    let report = written.json();
    held.report(&report, fail_on);
    let code = written.code.unwrap();
    assert_eq!(code, i32::from(held.verdict(fail_on).1), "{report:#}");
    let left_out = report.get("fixtures_left_out").and_then(Value::as_object);
    let left_out = left_out.map_or(0, serde_json::Map::len);
    for format in TEXTS {
        held.text(format, &written.text(format), (fail_on, left_out));
    }
}

/// Each fixture, with both modules.
fn played(held: &Held<'_>, dir: &TestDir, (written, rows): (&Written, &BTreeMap<u64, u64>)) {
    let mut flags = vec!["--timeout=20s"];
    flags.extend(held.case.flags.is_open.then_some("--fail-open"));
    for (name, path) in written.fixtures() {
        let seq: u64 = name.split('-').next().unwrap().parse().unwrap();
        for player in [Player::Old, Player::New] {
            let module = match player {
                Player::New => "new.wat",
                Player::Old if held.case.old.is_some() => "old.wat",
                Player::Old => "past.wat",
            };
            let Some(passes) = held.passes(rows[&seq], player) else {
                continue;
            };
            let done = run(&dir.path(module), &[path.as_path()], &flags);
            done.assert_code(i32::from(!passes));
        }
    }
}

fn check(case: &Case) {
    let truth = case.truth();
    let mut right = Held {
        case,
        truth: &truth,
        earlier: (0, 0),
    };
    let dir = TestDir::new();
    dir.file("capture.jsonl", case.capture());
    dir.file("new.wat", case.new.wat());
    dir.file("past.wat", case.past.wat());
    if let Some(old) = &case.old {
        dir.file("old.wat", old.wat());
    }
    let all = FailOn::all(case.flags.percent);
    let fail_on = all[case.flags.judged];
    let flag = format!("--fail-on={}", fail_on.text());
    let whole = Written::of(case, &dir, ("whole", std::slice::from_ref(&flag)));
    right.take_earlier(&whole.json());
    held(&right, &whole, fail_on);
    let rows = right.rows(&whole.text("jsonl"));
    played(&right, &dir, (&whole, &rows));

    let of = case.flags.shards;
    let mut fixtures = Vec::new();
    let mut merge = binary(["replay", "merge", "--format", "json"]);
    for index in 1..=of {
        let shard = format!("--shard={index}/{of}");
        let name = format!("shard-{index}");
        let part = Written::of(case, &dir, (&name, &[flag.clone(), shard]));
        fixtures.extend(part.fixtures().into_keys());
        merge.arg(part.folder.join("json"));
    }
    let merged = finish(merge);
    assert_eq!(merged.code, whole.code, "{merged:?}");
    assert_eq!(merged.json(), whole.json());
    fixtures.sort();
    assert_eq!(fixtures, whole.fixtures().into_keys().collect::<Vec<_>>());
    // Judged anew.
    for fail_on in all {
        let mut merge = binary(["replay", "merge", "--format", "junit"]);
        merge.args((1..=of).map(|index| dir.path(&format!("shard-{index}/json"))));
        merge.arg(format!("--fail-on={}", fail_on.text()));
        let done = finish(merge);
        done.assert_code(right.verdict(fail_on).1.into());
    }
}

fn try_all(is_hooks: bool, number: u32) {
    let config = Config {
        cases: number,
        failure_persistence: None,
        max_shrink_iters: 50,
        // The same in every run.
        rng_seed: RngSeed::Fixed(17),
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&cases(is_hooks), |case| {
        check(&case);
        Ok::<(), TestCaseError>(())
    });
    if let Err(TestError::Fail(why, case)) = &result {
        panic!("{why}\n{case:#?}\n{}", case.capture());
    }
    result.unwrap();
}

#[test]
fn the_binary_tells_the_known_differences_of_events() {
    try_all(false, 15);
}

#[test]
fn the_binary_tells_the_known_differences_of_hooks() {
    try_all(true, 10);
}
