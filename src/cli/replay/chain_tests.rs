//! Whole replays, drawn at random: what is reported, in each format, what the
//! exit code is, what saved fixtures show and what shards merge to are the known
//! differences.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use serde_json::Value;

use self::chain::{Case, cases};
use self::chain_report::{FailOn, Held, Player};
use self::rules::Rules;
use crate::capture::{self, DEFAULT_MAX_RECORD_BYTES, DecodeSettings};
use crate::cli::exit;
use crate::cli::render::Format;
use crate::cli::render::Render as _;
use crate::cli::render::human::Style;
use crate::fixture::{self, Input};
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::{LoadSettings, Module};
use crate::limits::{DeadlineClock, Isolation};
use crate::ops::replay::{
    self, Expect, Redaction, ReplayReport, ReplaySettings, SaveFixtures, Selection, Shard, Sinks,
    Subjects, Watch, Which,
};
use crate::ops::run::{RunSettings, run};
use crate::policy::{FailurePolicy, Policy, PolicySettings};
use crate::report::{CaseStatus, Report as _};

#[path = "../../../tests/support/chain.rs"]
mod chain;
#[path = "../../../tests/support/chain_report.rs"]
mod chain_report;
#[path = "../../../tests/support/rules.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "other tests use the rest, and each binary has its own"
)]
mod rules;

static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let settings = EngineSettings {
        fuel: true,
        ..EngineSettings::default()
    };
    Engine::new(settings).unwrap()
});

/// The modules of a case, and its capture.
struct Ready {
    folder: tempfile::TempDir,
    new: Policy,
    old: Option<Policy>,
    past: Policy,
    capture: PathBuf,
}

impl Ready {
    fn of(case: &Case) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = |name: &str, rules: &Rules| {
            let path = folder.path().join(name);
            std::fs::write(&path, rules.wat()).unwrap();
            let module = Module::load(&ENGINE, &path, &LoadSettings::default()).unwrap();
            let mut settings = PolicySettings::default();
            // As the command does: a busy machine is no guest's fault.
            settings.pool.limits.clock = DeadlineClock::Processor;
            if case.flags.is_open {
                settings.failure_policy = FailurePolicy::Open;
            }
            if case.flags.is_fresh {
                settings.pool.isolation = Isolation::Fresh;
            }
            Policy::new(Arc::new(module), settings)
        };
        let capture = folder.path().join("capture.jsonl");
        std::fs::write(&capture, case.capture()).unwrap();
        Self {
            new: policy("new.wat", &case.new),
            old: case.old.as_ref().map(|old| policy("old.wat", old)),
            past: policy("past.wat", &case.past),
            capture,
            folder,
        }
    }

    fn player(&self, player: Player) -> &Policy {
        match player {
            Player::New => &self.new,
            Player::Old => self.old.as_ref().unwrap_or(&self.past),
        }
    }
}

fn settings(case: &Case, fixtures: &Path, shard: Option<Shard>) -> ReplaySettings {
    let flags = &case.flags;
    std::fs::create_dir(fixtures).unwrap();
    ReplaySettings {
        jobs: if shard.is_some() { 1 } else { 2 },
        format: Some(capture::Format::Jsonl),
        max_record: DEFAULT_MAX_RECORD_BYTES,
        decode: DecodeSettings::default(),
        selection: Selection {
            shard,
            ..Selection::default()
        },
        speed: None,
        timings: false,
        examples: flags.examples,
        ignore: flags.ignore.iter().map(|it| it.parse().unwrap()).collect(),
        minimize: flags.minimizes,
        fail_on: replay::FailOn::Decision,
        strict: flags.is_strict,
        allow_redacted_changes: false,
        max_errors: None,
        fixtures: Some(SaveFixtures {
            folder: fixtures.to_owned(),
            which: if flags.saves_all {
                Which::All
            } else {
                Which::Changed
            },
            expect: if flags.expects_old {
                Expect::Old
            } else {
                Expect::New
            },
        }),
        redaction: Redaction::RandomKey,
    }
}

fn replayed(ready: &Ready, settings: &ReplaySettings) -> (ReplayReport, String) {
    let rows = rules::Rows::default();
    let subjects = Subjects {
        module: &ready.new,
        baseline: ready.old.as_ref(),
    };
    let sinks = Sinks {
        rows: Some(Box::new(rows.clone())),
        records: None,
    };
    let captures = capture::discover(std::slice::from_ref(&ready.capture)).unwrap();
    let watch = Watch::default();
    let report = replay::replay(&subjects, &captures.0, settings, (sinks, &watch)).unwrap();
    let rows = rows.0.lock().unwrap().clone();
    (report, String::from_utf8(rows).unwrap())
}

fn written(report: &ReplayReport, format: Format) -> String {
    let mut out = Vec::new();
    report.render(format, Style::plain(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(report: &ReplayReport) -> Value {
    serde_json::from_str(&written(report, Format::Json)).unwrap()
}

/// Each `--fail-on`, and one of them in each format: that takes longest.
fn judged(held: &Held<'_>, report: &ReplayReport) {
    let left_out = report.fixtures_left_out.len();
    let flags = &held.case.flags;
    for (number, fail_on) in FailOn::all(flags.percent).into_iter().enumerate() {
        let report = ReplayReport {
            fail_on: super::values::fail_on(&fail_on.text()).unwrap(),
            ..report.clone()
        };
        assert_eq!(exit::of_verdict(report.verdict()), held.verdict(fail_on).1);
        if number != flags.judged {
            continue;
        }
        assert_eq!(json(&report)["verdict"], held.verdict(fail_on).0);
        for (name, format) in [
            ("human", Format::Human),
            ("markdown", Format::Markdown),
            ("html", Format::Html),
            ("junit", Format::Junit),
            ("github", Format::Github),
        ] {
            held.text(name, &written(&report, format), (fail_on, left_out));
        }
    }
}

type Saved = BTreeMap<String, Vec<u8>>;

fn saved(folder: &Path) -> Saved {
    let files = std::fs::read_dir(folder).unwrap().map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    });
    files.collect()
}

/// What `run` makes of each fixture, with both modules.
fn played((ready, held): (&Ready, &Held<'_>), fixtures: &Saved, places: &BTreeMap<u64, u64>) {
    let settings = RunSettings {
        jobs: 1,
        repeat: 1,
        fail_fast: false,
        require_expectations: false,
    };
    for (name, bytes) in fixtures {
        let seq: u64 = name.split('-').next().unwrap().parse().unwrap();
        let record = places[&seq];
        let input = Input {
            path: name.into(),
            document: None,
            bytes: bytes.clone(),
        };
        let text = String::from_utf8_lossy(bytes);
        let play = |player| {
            let policy = ready.player(player).alone();
            let report = run(&policy, &[fixture::parse(&input)], &settings).unwrap();
            let status = report.fixtures[0].status;
            let passed = matches!(status, CaseStatus::Passed | CaseStatus::Warned);
            if let Some(passes) = held.passes(record, player) {
                assert_eq!(passed, passes, "{player:?} plays {text}");
            }
            serde_json::to_value(&report).unwrap()
        };
        let (old, new) = (play(Player::Old), play(Player::New));
        let it = held.truth.transactions.iter();
        let it = it.clone().find(|it| it.record == record).unwrap();
        let is_event = !held.case.is_hooks && !held.case.new.counts();
        if it.beside_change.is_some() && is_event {
            held.shown(record, (&old, &new));
        }
    }
}

fn check(case: &Case) {
    let truth = case.truth();
    let mut held = Held {
        case,
        truth: &truth,
        earlier: (0, 0),
    };
    let ready = Ready::of(case);
    let folder = ready.folder.path().join("whole");
    let (report, rows) = replayed(&ready, &settings(case, &folder, None));
    let whole = json(&report);
    held.take_earlier(&whole);
    held.report(&whole, FailOn::Decision);
    let places = held.rows(&rows);
    judged(&held, &report);

    let fixtures = saved(&folder);
    let (wanted, unrecorded) = held.wanted();
    let left_out: u64 = report.fixtures_left_out.values().sum();
    assert_eq!(report.fixtures_written, fixtures.len() as u64);
    assert_eq!(report.fixtures_written + left_out, wanted);
    if let Some(most) = held.may_lack() {
        let right = unrecorded..=unrecorded + most;
        assert!(right.contains(&left_out), "{:?}", report.fixtures_left_out);
    }
    played((&ready, &held), &fixtures, &places);

    let of = case.flags.shards;
    let (mut paths, mut parts, mut all) = (Vec::new(), Saved::new(), Vec::new());
    for index in 1..=of {
        let folder = ready.folder.path().join(format!("shard-{index}"));
        let shard = Some(Shard { index, of });
        let (report, rows) = replayed(&ready, &settings(case, &folder, shard));
        parts.extend(saved(&folder));
        all.extend(rows.lines().map(str::to_owned));
        let path = ready.folder.path().join(format!("{index}.json"));
        std::fs::write(&path, written(&report, Format::Json)).unwrap();
        paths.push(path);
    }
    paths.reverse();
    let merged = replay::merge(&paths).unwrap();
    assert_eq!(json(&merged), whole);
    assert_eq!(parts, fixtures);
    let mut rows: Vec<&str> = rows.lines().collect();
    rows.sort_unstable();
    all.sort_unstable();
    assert_eq!(all, rows);
}

/// So many cases of each ABI in CI; more with `CHAIN_CASES`.
fn try_all(is_hooks: bool, cases_in_ci: u32) {
    let given = std::env::var("CHAIN_CASES").ok();
    let given = given.map(|text| text.parse::<u32>().unwrap());
    let config = Config {
        cases: given.map_or(cases_in_ci, |all| (all * cases_in_ci).div_ceil(1000)),
        failure_persistence: None,
        max_shrink_iters: 1000,
        // The same in every run of CI; others where more are asked for.
        rng_seed: match given {
            None => RngSeed::Fixed(17),
            Some(_) => RngSeed::Random,
        },
        ..Config::default()
    };
    let tried = TestRunner::new(config).run(&cases(is_hooks), |case| {
        check(&case);
        Ok::<(), TestCaseError>(())
    });
    if let Err(TestError::Fail(why, case)) = &tried {
        let Case {
            old,
            new,
            past,
            flags,
            ..
        } = case;
        let capture = case.capture();
        panic!("{why}\n{old:?}\n{new:?}\n{past:?}\n{flags:?}\n{capture}");
    }
    tried.unwrap();
}

#[test]
fn the_whole_chain_tells_the_known_differences_of_events() {
    try_all(false, 700);
}

#[test]
fn the_whole_chain_tells_the_known_differences_of_hooks() {
    try_all(true, 300);
}
