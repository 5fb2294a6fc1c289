//! Random modules and captures: each fixture that is written shows the change
//! that it is filed under.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::super::{
    FailOn, Redaction, ReplayReport, ReplaySettings, Selection, Sinks, Subjects, Watch, replay,
};
use super::{Expect, SaveFixtures, Which};
use crate::capture::{self, DEFAULT_MAX_RECORD_BYTES, DecodeSettings};
use crate::compare::{Played, compare};
use crate::fixture::{self, Input};
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::{LoadSettings, Module};
use crate::limits::DeadlineClock;
use crate::ops::run::steps;
use crate::ops::run::{RunSettings, run};
use crate::policy::{Policy, PolicySettings};
use crate::report::CaseStatus;

#[path = "../../../tests/support/rules.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "other tests use the rest, and each binary has its own"
)]
mod rules;

fn policy(engine: &Arc<Engine>, folder: &Path, (name, module): (&str, &rules::Rules)) -> Policy {
    let path = folder.join(name);
    std::fs::write(&path, module.wat()).unwrap();
    let module = Module::load(engine, &path, &LoadSettings::default()).unwrap();
    let mut settings = PolicySettings::default();
    // As the command does: a busy machine is no guest's fault.
    settings.pool.limits.clock = DeadlineClock::Processor;
    Policy::new(Arc::new(module), settings)
}

fn settings(expect: Expect, minimize: bool, folder: &Path) -> ReplaySettings {
    ReplaySettings {
        jobs: 1,
        format: None,
        max_record: DEFAULT_MAX_RECORD_BYTES,
        decode: DecodeSettings::default(),
        selection: Selection::default(),
        speed: None,
        timings: false,
        examples: 1,
        ignore: Vec::new(),
        minimize,
        fail_on: FailOn::Any,
        strict: true,
        allow_redacted_changes: false,
        max_errors: None,
        fixtures: Some(SaveFixtures {
            folder: folder.to_owned(),
            which: Which::Changed,
            expect,
        }),
        redaction: Redaction::RandomKey,
    }
}

/// How a module ended it, and which parts differ, whichever step they are of.
type Shown = (Value, Value, BTreeSet<String>);

fn parts<'a>(fields: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let part = |field: &str| {
        field
            .trim_start_matches(|it: char| it.is_ascii_digit())
            .to_owned()
    };
    let fields = fields.filter(|field| *field != "steps");
    fields.map(part).collect()
}

/// What a row says.
fn recorded(row: &Value) -> Shown {
    let side = |name: &str| {
        let mut side = row[name].clone();
        side.as_object_mut().unwrap().shift_remove("fuel");
        side
    };
    let fields = row["fields"].as_array().unwrap();
    (
        side("baseline"),
        side("module"),
        parts(fields.iter().map(|field| field.as_str().unwrap())),
    )
}

/// What `run` makes of the last transaction of a fixture: whether it passes, and
/// the answers.
fn played(policy: &Policy, fixture: &Input) -> (bool, Played) {
    let settings = RunSettings {
        jobs: 1,
        repeat: 1,
        fail_fast: false,
        require_expectations: false,
    };
    let parsed = fixture::parse(fixture).unwrap();
    let replies = steps::ask(&policy.alone(), &parsed).into_iter();
    let ids = parsed.steps.iter().map(|step| step.event.correlation_id());
    let last = parsed
        .steps
        .last()
        .unwrap()
        .event
        .correlation_id()
        .to_owned();
    let earlier = ids.take_while(|id| *id != last).count();
    let replies = replies.skip(earlier).map(Into::into).collect();
    let report = run(&policy.alone(), &[fixture::parse(fixture)], &settings).unwrap();
    let passed = report.fixtures[0].status;
    let passed = matches!(passed, CaseStatus::Passed | CaseStatus::Warned);
    (passed, Played { replies })
}

struct Replayed {
    report: ReplayReport,
    rows: BTreeMap<u64, Value>,
    fixtures: Vec<(u64, Input)>,
}

fn replayed((old, new): (&Policy, &Policy), capture: &Path, settings: &ReplaySettings) -> Replayed {
    let rows = rules::Rows::default();
    let subjects = Subjects {
        module: new,
        baseline: Some(old),
    };
    let sinks = Sinks {
        rows: Some(Box::new(rows.clone())),
        records: None,
    };
    let captures = capture::discover(&[capture.to_owned()]).unwrap().0;
    let report = replay(&subjects, &captures, settings, (sinks, &Watch::default())).unwrap();
    let rows = rows.0.lock().unwrap().clone();
    let rows = String::from_utf8(rows).unwrap();
    let rows = rows.lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        (row["seq"].as_u64().unwrap(), row)
    });
    let folder = &settings.fixtures.as_ref().unwrap().folder;
    let files = std::fs::read_dir(folder).unwrap().map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let seq = name.split('-').next().unwrap().parse().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let document = None;
        (
            seq,
            Input {
                path,
                document,
                bytes,
            },
        )
    });
    Replayed {
        report,
        rows: rows.collect(),
        fixtures: files.collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_written_fixture_shows_its_change(
        (old, new) in any::<bool>().prop_flat_map(rules::pair),
        traffic in rules::traffic(6),
        wants_old in any::<bool>(),
        minimize in prop::bool::weighted(0.1),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineSettings { fuel: true, ..EngineSettings::default() }).unwrap();
        let capture = folder.path().join("capture.jsonl");
        std::fs::write(&capture, rules::capture(&traffic)).unwrap();
        let counts = new.counts();
        let old = policy(&engine, folder.path(), ("old.wat", &old));
        let new = policy(&engine, folder.path(), ("new.wat", &new));
        let expect = if wants_old { Expect::Old } else { Expect::New };
        let fixtures = folder.path().join("fixtures");
        std::fs::create_dir(&fixtures).unwrap();
        let settings = settings(expect, minimize, &fixtures);
        let Replayed { report, rows, fixtures } = replayed((&old, &new), &capture, &settings);

        let changed = |row: &Value| row["category"] != "unchanged";
        let left_out: u64 = report.fixtures_left_out.values().sum();
        let wanted = rows.values().filter(|row| changed(row) || row["module"].get("fault").is_some());
        prop_assert_eq!(report.fixtures_written + left_out, wanted.count() as u64);
        prop_assert_eq!(report.fixtures_written, fixtures.len() as u64);
        // Without a memory everything can be shown.
        prop_assert!(counts || left_out == 0, "{:?}", report.fixtures_left_out);
        for (seq, fixture) in &fixtures {
            let row = &rows[seq];
            let text = String::from_utf8_lossy(&fixture.bytes).into_owned();
            let (old_passes, before) = played(&old, fixture);
            let (new_passes, now) = played(&new, fixture);
            if !changed(row) {
                // A fault of both.
                prop_assert!(new_passes, "{}", text);
                continue;
            }
            prop_assert_eq!((old_passes, new_passes), (wants_old, !wants_old), "{}\n{}", row, text);
            let change = compare(&before, &now, &[]);
            prop_assert!(change.is_some(), "{}\n{}", row, text);
            let change = change.unwrap();
            let fields = parts(change.fields.iter().map(String::as_str));
            let side = |summary| serde_json::to_value(summary).unwrap();
            let shown = (side(&change.from), side(&change.to), fields);
            prop_assert_eq!(shown, recorded(row), "{}\n{}", row, text);
        }
    }
}

/// Where all jobs panic, the replay ends with their panic.
#[test]
fn a_panic_of_every_job_ends_the_replay() {
    struct Panics;
    impl Write for Panics {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            panic!("the test's own");
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineSettings::default()).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/modules/right/allow.wat");
        let module = Module::load(&engine, &path, &LoadSettings::default()).unwrap();
        let module = Policy::new(Arc::new(module), PolicySettings::default());
        let line = |number: usize| {
            format!(
                r#"{{"v":1,"id":"c{number}","phase":"request_headers","input":{{"method":"GET","uri":"/"}}}}"#
            )
        };
        let lines: Vec<String> = (0..500).map(line).collect();
        std::fs::write(dir.path().join("c.jsonl"), lines.join("\n")).unwrap();
        let (captures, _) = capture::discover(&[dir.path().join("c.jsonl")]).unwrap();
        let subjects = Subjects {
            module: &module,
            baseline: None,
        };
        let settings = ReplaySettings {
            fixtures: None,
            ..settings(Expect::New, false, dir.path())
        };
        let sinks = Sinks {
            rows: Some(Box::new(Panics)),
            records: None,
        };
        let replayed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            replay(&subjects, &captures, &settings, (sinks, &Watch::default()))
        }));
        say.send(replayed.is_err()).unwrap();
    });
    let minute = std::time::Duration::from_secs(60);
    assert!(said.recv_timeout(minute).expect("it must end"));
}
