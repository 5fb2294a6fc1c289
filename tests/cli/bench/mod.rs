//! `bench` from outside: what it says of guests whose cost is known, and how
//! its gate comes out. Asserted on instructions, memory and counts, never on
//! the clock.

mod captures;
mod live;
mod steady;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::guests::{ALLOW, guest};
use crate::support::{Done, TestDir, binary, finish, shipped, wasm_agent};
use serde_json::Value;

/// As short as can be; nothing here hangs on how long.
const SHORT: [&str; 10] = [
    "-n",
    "20",
    "--warm-up",
    "1ms",
    "--pool-size",
    "1",
    "--concurrency",
    "1",
    "--format",
    "json",
];

/// So long that no busy machine makes a guest miss its deadline.
const PATIENT: [&str; 2] = ["--timeout", "60s"];

fn bench(arguments: &[&Path], flags: &[&str]) -> Done {
    let mut command = binary(["bench"]);
    command.args(arguments).args(SHORT).args(flags);
    if !flags.contains(&PATIENT[0]) {
        command.args(PATIENT);
    }
    finish(command)
}

fn finish_with(mut command: std::process::Command, flags: [&str; 2]) -> String {
    command.args(flags);
    finish(command).text()
}

/// Spins `turns` times; five instructions each that fuel counts.
fn spinning(dir: &TestDir, name: &str, turns: u32) -> PathBuf {
    guest(
        dir,
        name,
        "",
        &format!(
            "(local $n i32) (local.set $n (i32.const {turns}))
             (loop $again
               (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             {ALLOW}"
        ),
    )
}

fn cases(report: &Value) -> &Vec<Value> {
    report["cases"].as_array().unwrap()
}

fn fuel(report: &Value) -> u64 {
    assert_eq!(cases(report).len(), 1, "{report}");
    cases(report)[0]["fuel"]["warm"].as_u64().unwrap()
}

#[test]
fn a_guest_that_spins_is_measured_to_the_instruction() {
    let dir = TestDir::new();
    let request = dir.request();
    let [one, two, three] = [1_000, 2_000, 3_000].map(|turns| {
        let module = spinning(&dir, &format!("spin-{turns}.wat"), turns);
        let done = bench(&[&module, &request], &[]);
        done.assert_code(0);
        let report = done.json();
        let case = &cases(&report)[0]["fuel"];
        // Nothing is left over from one call to the next.
        assert_eq!(case["first"], case["warm"], "{case}");
        assert_eq!(case["warm_min"], case["warm_max"], "{case}");
        fuel(&report)
    });
    assert_eq!(two - one, 5 * 1_000);
    assert_eq!(three - two, 5 * 1_000);
}

#[test]
fn a_quadratic_guest_costs_with_the_square_of_its_input() {
    let dir = TestDir::new();
    let module = guest(
        &dir,
        "quadratic.wat",
        "",
        &format!(
            "(local $i i32) (local $j i32) (local.set $i (local.get $len))
             (loop $outer
               (local.set $j (local.get $len))
               (loop $inner
                 (br_if $inner (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
               (br_if $outer (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
             {ALLOW}"
        ),
    );
    let folder = dir.path("events");
    for (name, length) in [("a", 100), ("b", 1_100), ("c", 2_100)] {
        let uri = "x".repeat(length);
        dir.file(
            &format!("events/{name}.json"),
            format!(r#"{{"method":"GET","uri":"/{uri}"}}"#),
        );
    }
    let report = bench(&[&module, &folder], &[]).json();
    let points: Vec<[f64; 2]> = cases(&report)
        .iter()
        .map(|case| {
            [
                case["input_bytes"].as_f64().unwrap(),
                case["fuel"]["warm"].as_f64().unwrap(),
            ]
        })
        .collect();
    let [a, b, c] = points[..] else {
        panic!("{report}")
    };
    // Through three equally distant points: the square's share is five
    // instructions for each turn of the inner loop, exactly.
    let step = b[0] - a[0];
    assert_eq!(step, c[0] - b[0]);
    let square = (c[1] - 2.0 * b[1] + a[1]) / (2.0 * step * step);
    assert!((square - 5.0).abs() < 1e-9, "{square}: {points:?}");
}

#[test]
fn a_leaking_guest_is_told_how_long_it_lives() {
    let dir = TestDir::new();
    let leaking = guest(
        &dir,
        "leak.wat",
        "",
        &format!("(drop (memory.grow (i32.const 1))) {ALLOW}"),
    );
    let request = dir.request();
    let memory = bench(&[&leaking, &request], &[]).json()["memory"].clone();
    let page = 64 << 10;
    assert_eq!(memory["initial_bytes"], 17 * page);
    assert_eq!(memory["growth"]["bytes_per_call"], f64::from(page));
    // 64 MiB are 1024 pages.
    assert_eq!(memory["growth"]["calls_until_limit"], 1024 - 17);
    let calm = spinning(&dir, "calm.wat", 1);
    let memory = bench(&[&calm, &request], &[]).json()["memory"].clone();
    assert_eq!(memory["peak_bytes"], 17 * page);
    assert_eq!(memory["growth"]["bytes_per_call"], 0.0);
    assert_eq!(memory["growth"]["calls_until_limit"], Value::Null);
}

#[test]
fn a_fault_is_a_failure_and_never_a_fast_result() {
    let dir = TestDir::new();
    let request = dir.request();
    let trap = guest(&dir, "trap.wat", "", "unreachable");
    let spin = guest(
        &dir,
        "loop.wat",
        "",
        "(loop $again (br $again)) unreachable",
    );
    // Well for as long as instructions are counted, which is 32 calls.
    let later = guest(
        &dir,
        "later.wat",
        "(global $n (mut i32) (i32.const 0))",
        &format!(
            "(global.set $n (i32.add (global.get $n) (i32.const 1)))
             (if (i32.gt_u (global.get $n) (i32.const 100)) (then unreachable)) {ALLOW}"
        ),
    );
    for (module, code, timeout) in [
        (trap, "trap:unreachable", PATIENT),
        (spin, "deadline", ["--timeout", "50ms"]),
        (later, "trap:unreachable", PATIENT),
    ] {
        let done = bench(&[&module, &request], &timeout);
        done.assert_code(1);
        let report = done.json();
        assert_eq!(report["verdict"], "failed");
        assert_eq!(report["failure"]["fault"]["code"], code, "{report}");
        assert!(report["safety"].as_array().unwrap().is_empty());
        let mut command = binary(["bench"]);
        command.args([&module, &request]).args(&SHORT[..8]);
        let text = finish_with(command, timeout);
        assert!(text.contains("failed: the module faulted while"), "{text}");
    }
}

#[test]
fn absurd_numbers_are_usage_errors() {
    let module = shipped("right/allow.wat");
    let module = module.to_str().unwrap();
    for flags in [
        &["-n", "0"][..],
        &["-n", "-1"],
        &["-n", "99999999999999"],
        &["--concurrency", "0"],
        &["--concurrency", "1,0"],
        &["--concurrency", "100000"],
        &["--pool-size", "0"],
        &["--pool-size", "99999"],
        &["--rate", "0"],
        &["--rate", "1000000000"],
        &["--rate", "-5"],
        &["--rate", "1", "--duration", "1s"],
        &["--duration", "0s"],
        &["--duration", "2h"],
        &["--duration", "1s", "-n", "5"],
        &["--warm-up", "x"],
        &["--threshold", "5"],
        &["--threshold", "speed=5%"],
        &["--min-threshold", "-1us"],
        &["--format", "xml"],
        &["--fuel", "0"],
    ] {
        let done = wasm_agent(["bench", module].iter().chain(flags));
        done.assert_code(2);
        assert!(done.stdout.is_empty(), "{flags:?}");
        assert!(done.stderr.contains("error:"), "{flags:?}: {}", done.stderr);
    }
    let many: Vec<String> = (1..=30).map(|size| size.to_string()).collect();
    let many = many.join(",");
    let flags = ["--pool-size", &many, "--concurrency", &many];
    let done = wasm_agent(["bench", module].iter().chain(&flags));
    done.assert_code(2);
    assert!(done.stderr.contains("combinations"), "{}", done.stderr);
    wasm_agent(["bench", module, module, module]).assert_code(2);
    wasm_agent(["bench", module, module, "--compare", "x.json"]).assert_code(2);
}

#[test]
fn what_cannot_be_read_or_matches_nothing_has_its_code() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    bench(&[&dir.path("none.wasm")], &[]).assert_code(3);
    bench(&[&module, &dir.path("none.json")], &[]).assert_code(3);
    let broken = dir.file("broken.json", "{");
    let done = bench(&[&module, &broken], &[]);
    done.assert_code(3);
    assert!(done.stderr.contains("broken.json: 1:"), "{}", done.stderr);
    std::fs::create_dir(dir.path("empty")).unwrap();
    bench(&[&module, &dir.path("empty")], &[]).assert_code(4);
    // A request for a module that only knows responses.
    let responses = guest(&dir, "responses.wat", "", ALLOW);
    let text = std::fs::read_to_string(&responses).unwrap();
    let responses = dir.file(
        "responses.wat",
        text.replace("on_request_headers", "on_response_headers"),
    );
    bench(&[&responses, &dir.request()], &[]).assert_code(4);
    for text in ["", "{}", "[]", r#"{"schema":"wasm-agent/run/1"}"#] {
        let baseline = dir.file("bad.json", text);
        let done = bench(&[&module], &["--compare", baseline.to_str().unwrap()]);
        done.assert_code(3);
        assert!(done.stderr.contains("--save"), "{}", done.stderr);
    }
}

fn findings<'a>(report: &'a Value, metric: &str) -> Vec<&'a Value> {
    report["comparison"]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["metric"] == metric)
        .collect()
}

#[test]
fn a_module_beside_itself_is_never_red_busy_machine_or_not() {
    let dir = TestDir::new();
    let request = dir.request();
    let module = spinning(&dir, "spin.wat", 5_000);
    let compare = || {
        let done = bench(&[&module, &module, &request], &[]);
        assert!(matches!(done.code, Some(0 | 5)), "{}", done.text());
        let report = done.json();
        for metric in ["fuel_first", "fuel_warm", "memory", "size", "growth"] {
            for finding in findings(&report, metric) {
                assert_eq!(finding["verdict"], "better_or_equal", "{finding}");
                assert_eq!(finding["before"], finding["after"], "{finding}");
            }
        }
        let time = findings(&report, "time")[0];
        assert_ne!(time["verdict"], "regressed", "{time}");
        let [low, high] = [0, 1].map(|end| time["interval"][end].as_f64().unwrap());
        assert!(low <= high, "{time}");
    };
    for _ in 0..3 {
        compare();
    }
    // Others take every core.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() * 2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let judged = std::panic::catch_unwind(compare);
        over.store(true, Ordering::Relaxed);
        judged.unwrap();
    });
}

#[test]
fn three_per_cent_more_instructions_are_always_red() {
    let dir = TestDir::new();
    let request = dir.request();
    let before = spinning(&dir, "before.wat", 10_000);
    let after = spinning(&dir, "after.wat", 10_300);
    for _ in 0..3 {
        let done = bench(&[&before, &after, &request], &[]);
        done.assert_code(1);
        let report = done.json();
        let fuel = findings(&report, "fuel_warm")[0];
        assert_eq!(fuel["verdict"], "regressed", "{fuel}");
        assert_eq!(
            fuel["after"].as_f64().unwrap() - fuel["before"].as_f64().unwrap(),
            5.0 * 300.0
        );
    }
    // The other way it is better, and a threshold lets it pass.
    let done = bench(&[&after, &before, &request], &[]);
    assert!(matches!(done.code, Some(0 | 5)), "{}", done.text());
    let done = bench(&[&before, &after, &request], &["--threshold", "fuel=5%"]);
    assert!(matches!(done.code, Some(0 | 5)), "{}", done.text());
}

#[test]
fn a_baseline_knows_its_machine_its_settings_and_its_fixtures() {
    let dir = TestDir::new();
    let request = dir.request();
    let module = spinning(&dir, "module.wat", 10_000);
    let worse = spinning(&dir, "worse.wat", 10_300);
    let kept = dir.path("kept.json");
    let kept_text = kept.to_str().unwrap().to_owned();
    bench(&[&module, &request], &["--save", &kept_text]).assert_code(0);
    let compare = |module: &Path, baseline: &str, flags: &[&str]| {
        let all: Vec<&str> = ["--compare", baseline]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        bench(&[module, &request], &all)
    };
    let same = compare(&module, &kept_text, &[]);
    assert!(matches!(same.code, Some(0 | 5)), "{}", same.text());
    assert_eq!(findings(&same.json(), "time").len(), 1);
    compare(&worse, &kept_text, &[]).assert_code(1);

    let baseline: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut baseline = baseline.clone();
        change(&mut baseline);
        let path = dir.file("changed.json", baseline.to_string());
        path.to_str().unwrap().to_owned()
    };
    // Another machine's times are never compared, its fuel still is.
    let elsewhere = changed(&|baseline| baseline["machine"]["processor"] = "another".into());
    let done = compare(&module, &elsewhere, &[]);
    done.assert_code(0);
    let report = done.json();
    assert!(findings(&report, "time").is_empty());
    assert_eq!(findings(&report, "fuel_warm").len(), 1);
    compare(&worse, &elsewhere, &[]).assert_code(1);
    // Another engine may count otherwise: nothing of a case is left.
    let engine = changed(&|baseline| baseline["engine"] = "wasmtime 1.0.0".into());
    compare(&worse, &engine, &[]).assert_code(4);
    // Other settings are refused by name.
    let done = compare(&module, &kept_text, &["--isolation", "fresh"]);
    done.assert_code(2);
    assert!(
        done.stderr.contains("isolation was pooled, is fresh"),
        "{}",
        done.stderr
    );
    // Another input under the same name is another event.
    let other = changed(&|baseline| baseline["cases"][0]["input_hash"] = "sha256:0".into());
    let done = compare(&worse, &other, &[]);
    done.assert_code(4);
    assert!(done.text().contains("its input has changed"));
    // A baseline of a busy machine, and one whose times are all over the
    // place, tell nothing of time; instructions are still told.
    let busy = changed(&|baseline| baseline["busy"] = 0.9.into());
    let done = compare(&module, &busy, &[]);
    done.assert_code(5);
    let report = done.json();
    assert_eq!(report["verdict"], "inconclusive");
    let time = findings(&report, "time")[0];
    assert_eq!(time["verdict"], "inconclusive", "{time}");
    let why = time["why"].as_str().unwrap();
    assert!(why.contains("90 % of the time"), "{why}");
    compare(&worse, &busy, &[]).assert_code(1);
    let wild = changed(&|baseline| {
        let rounds = baseline["cases"][0]["rounds"].as_array_mut().unwrap();
        for (number, round) in rounds.iter_mut().enumerate() {
            for pair in round.as_array_mut().unwrap() {
                let before = pair["before"].as_f64().unwrap();
                let factor = if number % 2 == 0 { 0.01 } else { 100.0 };
                pair["before"] = (before * factor).into();
            }
        }
    });
    compare(&module, &wild, &[]).assert_code(5);
    // Times that are none are refused before anything is measured.
    let zero = changed(&|baseline| baseline["cases"][0]["rounds"][0][0]["before"] = 0.into());
    compare(&module, &zero, &[]).assert_code(3);
}

#[test]
fn every_combination_is_measured_and_only_those_are_advised() {
    let dir = TestDir::new();
    let request = dir.request();
    let module = spinning(&dir, "spin.wat", 100);
    let mut command = binary(["bench"]);
    command.args([&module, &request]).args([
        "-n",
        "101",
        "--warm-up",
        "1ms",
        "--pool-size",
        "3,1",
        "--concurrency",
        "4,1",
        "--p99",
        "1h",
        "--format",
        "json",
    ]);
    command.args(PATIENT);
    let done = finish(command);
    done.assert_code(0);
    let report = done.json();
    let loads = report["loads"].as_array().unwrap();
    let pairs: Vec<(u64, u64)> = loads
        .iter()
        .map(|load| {
            assert_eq!(load["response"]["count"], 101, "{load}");
            assert_eq!(load["queue"]["count"], 101);
            let buckets = load["response"]["buckets"].as_array().unwrap();
            let kept: u64 = buckets.iter().map(|pair| pair[1].as_u64().unwrap()).sum();
            assert_eq!(kept, 101, "the histogram holds every call");
            (
                load["pool_size"].as_u64().unwrap(),
                load["concurrency"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(pairs, [(1, 1), (1, 4), (3, 1), (3, 4)]);
    let advised = report["advice"]["pool_size"].as_u64().unwrap();
    assert!([1, 3].contains(&advised));
    assert_eq!(
        report["advice"]["flags"],
        format!("--pool-size {advised}").as_str()
    );
    // A wish that nothing keeps is met with no recommendation.
    let report = bench(&[&module, &request], &["--p99", "1ms", "--timeout", "5s"]);
    assert!(report.json()["advice"]["text"].is_string());
}

#[test]
fn by_schedule_every_event_is_due_once() {
    let dir = TestDir::new();
    let request = dir.request();
    let module = spinning(&dir, "spin.wat", 100);
    let report = bench(&[&module, &request], &["--rate", "500,1000"]).json();
    let loads = report["loads"].as_array().unwrap();
    assert_eq!(loads.len(), 2);
    for load in loads {
        assert_eq!(load["response"]["count"], 20, "{load}");
        assert_eq!(load["service"]["count"], 20, "{load}");
        let at = |which: &str| load[which]["p50_ns"].as_u64().unwrap();
        assert!(at("response") >= at("service"), "{load}");
    }
}

#[test]
fn every_mode_of_safety_is_there() {
    let done = bench(&[&shipped("right/allow.wat")], &[]);
    done.assert_code(0);
    let report = done.json();
    let modes: Vec<&str> = report["safety"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["mode"].as_str().unwrap())
        .collect();
    for part in ["pooled", "fresh", "recycle", "fuel", "slots", "deadline"] {
        assert!(modes.iter().any(|mode| mode.contains(part)), "{modes:?}");
    }
    let chosen = |row: &&Value| row["is_chosen"] == true;
    assert_eq!(
        report["safety"]
            .as_array()
            .unwrap()
            .iter()
            .filter(chosen)
            .count(),
        1
    );
    for phase in [
        "read",
        "compile",
        "instantiate_on_demand",
        "first_call",
        "warm_call",
    ] {
        assert!(
            report["phases"][phase]["count"].as_u64().unwrap() > 0,
            "{phase}"
        );
    }
}

#[test]
fn a_hook_module_is_measured_by_its_own_isolation_and_fuel() {
    let module = shipped("account/account.wasm");
    let done = bench(&[&module], &[]);
    done.assert_code(0);
    let report = done.json();
    assert_eq!(report["settings"]["isolation"], "fresh");
    assert_eq!(report["settings"]["fuel"], "1000000");
    for case in cases(&report) {
        assert!(case["fuel"]["first"].as_u64().unwrap() > 0, "{case}");
        let event = case["event"].as_str().unwrap();
        assert!(["before_hook", "after_hook"].contains(&event), "{case}");
    }
    let rows = report["safety"].as_array().unwrap();
    let chosen: Vec<&str> = rows
        .iter()
        .filter(|row| row["is_chosen"] == true)
        .map(|row| row["mode"].as_str().unwrap())
        .collect();
    assert_eq!(chosen, ["fresh, deadline and fuel"]);
    // Fixtures of the other ABI are none of its own.
    let dir = TestDir::new();
    bench(&[&module, &dir.request()], &[]).assert_code(4);
    // An agent is no successor of a hook.
    bench(&[&module, &shipped("right/allow.wat")], &[]).assert_code(1);
}

#[test]
fn the_same_figures_come_in_every_format() {
    let dir = TestDir::new();
    let request = dir.request();
    let module = spinning(&dir, "spin.wat", 1_000);
    let path = |name: &str| dir.path(name).to_str().unwrap().to_owned();
    let reports = ["csv", "markdown", "junit", "github", "human"];
    let flags: Vec<String> = reports
        .iter()
        .map(|format| format!("--report={format}={}", path(format)))
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let done = bench(&[&module, &request], &flags);
    done.assert_code(0);
    let fuel = fuel(&done.json());
    let read = |name: &str| std::fs::read_to_string(dir.path(name)).unwrap();
    let csv = read("csv");
    assert!(csv.starts_with("part,name,metric,value\n"), "{csv}");
    assert!(
        csv.contains(&format!("case,request,fuel_warm,{fuel}\n")),
        "{csv}"
    );
    let fields = |line: &str| {
        let mut parts = line.split('"');
        let outside: Vec<&str> = parts.by_ref().step_by(2).collect();
        outside.concat().matches(',').count()
    };
    assert!(csv.lines().all(|line| fields(line) == 3), "{csv}");
    let markdown = read("markdown");
    assert!(markdown.contains("| request | allow |"), "{markdown}");
    assert!(read("junit").contains("<testcase name=\"request\""));
    assert!(read("github").contains("1 passed"));
    let human = read("human");
    for title in [
        "Phases",
        "Calls, one at a time",
        "Under load",
        "Costs of isolation and limits",
    ] {
        assert!(human.contains(title), "{human}");
    }
}

#[test]
fn hostile_names_cannot_take_the_output_over() {
    let dir = TestDir::new();
    let module = spinning(&dir, "spin.wat", 10);
    let named = dir.file(
        "named.json",
        r#"{"name":"\u001b[31mred,\"|<b>","event":"request_headers","input":{"method":"GET","uri":"/"}}"#,
    );
    for format in ["human", "markdown", "csv"] {
        let mut command = binary(["bench"]);
        command
            .args([&module, &named])
            .args(&SHORT[..8])
            .args(["--format", format]);
        let text = finish_with(command, PATIENT);
        assert!(!text.contains('\u{1b}'), "{format}: {text}");
    }
}

#[test]
fn a_profile_names_the_function_that_takes_the_time() {
    let dir = TestDir::new();
    let request = dir.request();
    let module = dir.file(
        "hot.wat",
        r#"(module (memory (export "memory") 17)
          (data (i32.const 1024) "{\22decision\22:\22allow\22}")
          (func (export "alloc") (param i32) (result i32) (i32.const 65536))
          (func (export "dealloc") (param i32 i32))
          (func $hot (local $n i32) (local.set $n (i32.const 200000))
            (loop $again
              (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
          (func (export "on_request_headers") (param i32 i32) (result i64)
            (call $hot) (i64.const 0x0000_0400_0000_0014)))"#,
    );
    let (firefox, flame) = (dir.path("p.json"), dir.path("p.svg"));
    let done = bench(
        &[&module, &request],
        &[
            "--profile",
            firefox.to_str().unwrap(),
            "--profile",
            flame.to_str().unwrap(),
        ],
    );
    done.assert_code(0);
    let report = done.json();
    let profile = &report["profile"];
    assert!(profile["samples"].as_u64().unwrap() > 10, "{profile}");
    let hottest = &profile["functions"][0];
    assert_eq!(hottest["name"], "hot", "{profile}");
    assert!(
        hottest["own"].as_u64().unwrap() * 4 > profile["samples"].as_u64().unwrap() * 3,
        "{profile}"
    );
    let json: Value = serde_json::from_slice(&std::fs::read(&firefox).unwrap()).unwrap();
    assert!(json["meta"]["preprocessedProfileVersion"].is_u64());
    assert_eq!(
        json["threads"][0]["samples"]["length"], profile["samples"],
        "{json}"
    );
    assert!(json.to_string().contains("\"hot\""));
    let svg = std::fs::read_to_string(&flame).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("hot: "), "{svg}");
    // Without names it says what to do.
    let bytes = wat::parse_file(&module).unwrap();
    let stripped = dir.file("stripped.wasm", without_names(&bytes));
    let human = dir.path("human.txt");
    let done = bench(
        &[&stripped, &request],
        &[
            "--profile",
            flame.to_str().unwrap(),
            &format!("--report=human={}", human.display()),
        ],
    );
    done.assert_code(0);
    let human = std::fs::read_to_string(&human).unwrap();
    assert!(human.contains("build it without stripping"), "{human}");
    assert!(human.contains("func[2]"), "{human}");
    wasm_agent([
        "bench".as_ref(),
        module.as_os_str(),
        module.as_os_str(),
        "--profile".as_ref(),
        flame.as_os_str(),
    ])
    .assert_code(2);
}

/// A binary without its last section, which is the one with names.
fn without_names(wasm: &[u8]) -> Vec<u8> {
    let mut at = 8;
    let mut end = wasm.len();
    while at < wasm.len() {
        let is_custom = wasm[at] == 0;
        let (mut size, mut shift, mut next) = (0_usize, 0, at + 1);
        loop {
            let byte = wasm[next];
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            next += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if is_custom {
            end = at;
        }
        at = next + size;
    }
    wasm[..end].to_vec()
}

#[test]
fn a_baseline_goes_where_it_can_be_and_replaces_nothing_else() {
    let dir = TestDir::new();
    let module = guest(&dir, "allow.wat", "", ALLOW);
    let folder = dir.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let nowhere = dir.path("nowhere/base.json");
    for path in [&folder, &nowhere, &module] {
        bench(&[&module], &["--save", path.to_str().unwrap()]).assert_code(2);
    }
    assert!(module.is_file() && folder.is_dir());
}

/// A call that takes longer than each look at the clock is made a few times and
/// no more, whatever the number of events and of modes.
#[test]
fn a_slow_guest_is_called_as_often_as_its_time_allows() {
    let dir = TestDir::new();
    let module = spinning(&dir, "slow.wat", 20_000_000);
    let mut command = binary(["bench"]);
    command
        .arg(&module)
        .args(["-d", "20ms", "--warm-up", "1ms", "--pool-size", "1"]);
    command.args(["-c", "1", "--format", "json"]).args(PATIENT);
    let report = finish(command).json();
    let count = |row: &Value| row["response"]["count"].as_u64().unwrap();
    assert_eq!(cases(&report).len(), 14, "{report}");
    for case in cases(&report) {
        assert!((1..=20).contains(&count(case)), "{case}");
        assert!(
            case["fuel"]["warm"].as_u64().unwrap() > 80_000_000,
            "{case}"
        );
    }
    let safety = report["safety"].as_array().unwrap();
    assert!(safety.len() >= 6, "{report}");
    for row in safety {
        assert!((1..=30).contains(&count(row)), "{row}");
    }
}

/// More callers than there is room for: all are there before any is late.
#[test]
fn many_callers_keep_to_a_schedule_that_ends() {
    let dir = TestDir::new();
    let module = guest(&dir, "allow.wat", "", ALLOW);
    let mut command = binary(["bench"]);
    command.arg(&module).args(["-n", "40", "--rate", "200"]);
    command.args([
        "--concurrency",
        "600",
        "--warm-up",
        "1ms",
        "--pool-size",
        "1",
    ]);
    command.args(["--format", "json"]).args(PATIENT);
    let report = finish(command).json();
    assert_eq!(report["verdict"], "passed", "{report}");
}
