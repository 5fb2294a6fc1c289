//! Guests of real toolchains get a WASI that holds nothing (docs/contract.md,
//! Imports). `sandbox.wasm` is C with its own library trying to get out;
//! the guests in wasm text pass what no library would.

use std::time::Duration;

use crate::support::guests::{ALLOW, guest};
use crate::support::{Done, MODES, Random, Step, TestDir, run, shipped, steps, wasm_agent};

/// What the sandbox guest's attempts came to, in one process, in order.
fn attempts(names: &[&str], flags: &[&str]) -> (Done, Vec<Step>) {
    let dir = TestDir::new();
    let requests: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                r#"{{"event":"request_headers","input":{{"method":"GET","uri":"/","headers":{{"x-try":"{name}"}}}}}}"#
            )
        })
        .collect();
    for (index, request) in requests.iter().enumerate() {
        dir.file(&format!("events/{index:02}.json"), request);
    }
    let done = run(
        &shipped("sandbox/sandbox.wasm"),
        &[&dir.path("events")],
        flags,
    );
    let steps = steps(&done.json());
    assert_eq!(steps.len(), names.len());
    (done, steps)
}

fn attempt(name: &str, flags: &[&str]) -> Step {
    attempts(&[name], flags).1.remove(0)
}

#[test]
fn m_23_nothing_of_the_machine_can_be_reached() {
    let refused = "Capabilities insufficient";
    let names = ["open", "create", "list", "mkdir", "unlink", "rename"];
    for wasi in ["fixed", "real"] {
        for (name, step) in names.iter().zip(attempts(&names, &["--wasi", wasi]).1) {
            step.assert_allowed();
            assert_eq!(step.tags(), [format!("{name}: {refused}")]);
        }
        let inside = ["environment", "descriptors", "stdin"];
        let came_to = ["nothing", "three streams", "stdin: Success"];
        for (step, found) in attempts(&inside, &["--wasi", wasi]).1.iter().zip(came_to) {
            step.assert_allowed();
            assert_eq!(step.tags(), [found]);
        }
    }
}

#[test]
fn m_23_clocks_and_random_bytes_repeat_unless_asked_otherwise() {
    let names = ["clocks", "random", "clocks", "random"];
    let tags = |flags: &[&str]| -> Vec<String> {
        let (_, steps) = attempts(&names, flags);
        steps.iter().map(|step| step.tags().join(" ")).collect()
    };
    let fixed = tags(&[]);
    assert_eq!(fixed[0], "wall: 1704067200");
    assert!(fixed[1].starts_with("random: "));
    // Neither the calls before nor the process makes a difference.
    assert_eq!(fixed[..2], fixed[2..]);
    assert_eq!(fixed, tags(&["--isolation", "fresh"]));
    let real = tags(&["--wasi", "real"]);
    let wall: u64 = real[0].strip_prefix("wall: ").unwrap().parse().unwrap();
    assert!(wall > 1_704_067_200 + 86_400, "{wall}");
    assert_ne!(real[1], real[3]);
}

#[test]
fn m_23_a_sleep_ends_by_the_deadline_and_holds_no_thread() {
    for (fail_open, mode) in MODES {
        for name in ["sleep", "naps"] {
            let flags = [mode, &["--timeout", "30s"]].concat();
            let step = attempt(name, &flags);
            step.assert_fault("deadline", fail_open);
            // Half a minute is what waiting would take; the guest's clock ran
            // ahead instead.
            assert!(step.time() < Duration::from_secs(20), "{step:?}");
        }
    }
    let (_, steps) = attempts(&["sleep", "environment"], &[]);
    steps[1].assert_allowed();
}

#[test]
fn m_23_an_exit_is_a_trap_whatever_its_code() {
    for (fail_open, mode) in MODES {
        for (name, detail) in [
            ("exit", "exit with code 3 in the handler"),
            ("exit-well", "exit with code 0 in the handler"),
        ] {
            let (_, steps) = attempts(&[name, "environment"], mode);
            steps[0].assert_fault("trap:exit", fail_open);
            assert_eq!(steps[0].0["fault"]["detail"], detail);
            // The instance was replaced.
            steps[1].assert_allowed();
        }
        attempt("abort", mode).assert_fault("trap:unreachable", fail_open);
    }
}

#[test]
fn m_23_a_failed_assertion_of_c_says_what_and_where() {
    let step = attempt("assert", &[]);
    step.assert_fault("trap:unreachable", false);
    let said =
        "Assertion failed: length < 7 && \"the token is too long\" (sandbox.c: check_token: ";
    let words = step.0["fault"]["words"][0].as_str().unwrap();
    assert!(words.starts_with(said), "{words}");
    let detail = step.0["fault"]["detail"].as_str().unwrap();
    assert!(detail.starts_with(said), "{detail}");
}

#[test]
fn m_24_what_a_guest_prints_goes_to_the_log_escaped() {
    let (done, steps) = attempts(&["print"], &["-v"]);
    steps[0].assert_allowed();
    assert!(!done.stderr.contains('\u{1b}'), "{}", done.stderr);
    for words in ["hello", "[2J from a guest", "a warning", "standard error"] {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
    // Only what it calls an error is shown unasked.
    let (done, _) = attempts(&["print"], &[]);
    assert!(!done.stderr.contains("hello"), "{}", done.stderr);
    assert!(done.stderr.contains("a warning"), "{}", done.stderr);
}

#[test]
fn m_24_a_flood_of_output_costs_neither_log_nor_memory() {
    let quiet = attempts(&["environment"], &["--timeout", "30s"]).0;
    // 20 MiB on each stream, twenty times.
    let (done, steps) = attempts(&["flood"; 20], &["-v", "--timeout", "30s"]);
    for step in &steps {
        step.assert_allowed();
    }
    assert!(done.stderr.len() < 256 << 10, "{}", done.stderr.len());
    assert!(done.stderr.contains("left out"), "{}", done.stderr);
    assert!(!done.stderr.contains('\u{1b}'));
    assert!(
        done.peak_kib < quiet.peak_kib + (32 << 10),
        "{} KiB instead of {}",
        done.peak_kib,
        quiet.peak_kib
    );
}

#[test]
fn wasi_can_be_refused_by_name() {
    let dir = TestDir::new();
    let module = shipped("sandbox/sandbox.wasm");
    let done = run(&module, &[&dir.request()], &["--wasi", "none"]);
    done.assert_code(1);
    for words in ["wasi_snapshot_preview1.fd_write", "--wasi none"] {
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
}

#[test]
fn hooks_get_none_of_it_unless_asked_for() {
    let dir = TestDir::new();
    let hook = dir.file(
        "hook.wat",
        "(module (import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))
         (memory (export \"memory\") 17) (data (i32.const 8) \"{\\22ok\\22:true}\")
         (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
         (func (export \"dealloc\") (param i32 i32))
         (func (export \"before_hook\") (param i32 i32) (result i64)
           (i64.const 0x0000_0008_0000_000b)))",
    );
    let path = hook.to_str().unwrap();
    let status = |flags: &[&str]| {
        let arguments = [&["validate", "--format", "json", path], flags].concat();
        let report = wasm_agent(arguments).json();
        let checks = report["modules"][0]["checks"].as_array().unwrap().clone();
        let mut imports = checks
            .iter()
            .filter(|check| check["id"].as_str().unwrap().starts_with("import:"));
        imports.next().unwrap()["status"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(status(&[]), "fail");
    assert_eq!(status(&["--wasi", "fixed"]), "pass");
}

#[test]
fn validate_says_what_each_import_gets() {
    let path = shipped("sandbox/sandbox.wasm");
    let report = wasm_agent(["validate", "--format", "json", path.to_str().unwrap()]).json();
    let checks = report["modules"][0]["checks"].as_array().unwrap();
    let imports: Vec<&serde_json::Value> = checks
        .iter()
        .filter(|check| check["id"].as_str().unwrap().starts_with("import:"))
        .collect();
    assert!(imports.len() > 10, "{imports:#?}");
    for import in imports {
        assert_eq!(import["status"], "pass", "{import}");
        let found = import["found"].as_str().unwrap();
        assert!(found.contains(", stubbed: "), "{import}");
    }
}

/// A guest that calls one function of WASI with any arguments and then allows.
fn calling(dir: &TestDir, name: &str, ty: &str, arguments: &str) -> std::path::PathBuf {
    let import = format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func $f {ty}))");
    let body = format!("(call $f {arguments}) {} {ALLOW}", drop_of(ty));
    let text = std::fs::read_to_string(guest(dir, "m.wat", "", &body)).unwrap();
    dir.file(
        "m.wat",
        text.replacen("(module ", &format!("(module {import} "), 1),
    )
}

fn drop_of(ty: &str) -> &'static str {
    if ty.contains("result") { "drop" } else { "" }
}

/// Whatever a guest passes is an error number or a fault: no panic, no hang,
/// no memory beyond its own.
#[test]
fn m_23_wild_arguments_are_safe() {
    const INTS: [&str; 8] = ["0", "1", "2", "8", "1114104", "2147483647", "-8", "-1"];
    let mut random = Random::seeded("wild arguments", 7);
    for (name, params) in [
        ("fd_write", "i32 i32 i32 i32"),
        ("fd_read", "i32 i32 i32 i32"),
        ("fd_seek", "i32 i64 i32 i32"),
        ("fd_fdstat_get", "i32 i32"),
        ("fd_filestat_get", "i32 i32"),
        ("random_get", "i32 i32"),
        ("clock_time_get", "i32 i64 i32"),
        ("clock_res_get", "i32 i32"),
        ("poll_oneoff", "i32 i32 i32 i32"),
        ("environ_sizes_get", "i32 i32"),
        ("args_get", "i32 i32"),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        ("sock_send", "i32 i32 i32 i32 i32"),
    ] {
        for _ in 0..4 {
            let arguments: Vec<String> = params
                .split(' ')
                .map(|ty| format!("({ty}.const {})", INTS[random.below(INTS.len())]))
                .collect();
            let dir = TestDir::new();
            let ty = format!("(param {params}) (result i32)");
            let module = calling(&dir, name, &ty, &arguments.join(" "));
            let done = run(&module, &[&dir.request()], &["--timeout", "10s"]);
            let step = &steps(&done.json())[0];
            assert!(
                matches!(step.fault(), None | Some("deadline")),
                "{name} {arguments:?}: {step:?}"
            );
        }
    }
}

#[test]
fn m_23_a_signal_is_a_trap_and_a_wrong_type_is_refused() {
    let dir = TestDir::new();
    let raise = calling(
        &dir,
        "proc_raise",
        "(param i32) (result i32)",
        "(i32.const 15)",
    );
    let report = run(&raise, &[&dir.request()], &[]).json();
    steps(&report)[0].assert_fault("trap:exit", false);
    for (name, ty, arguments, words) in [
        (
            "proc_exit",
            "(param i64)",
            "(i64.const 0)",
            "expected func (i32), found func (i64)",
        ),
        (
            "fd_writev",
            "(param i32)",
            "(i32.const 0)",
            "a function of WASI preview 1",
        ),
    ] {
        let dir = TestDir::new();
        let module = calling(&dir, name, ty, arguments);
        let done = run(&module, &[&dir.request()], &[]);
        done.assert_code(1);
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
}

#[test]
fn a_program_instead_of_a_reactor_is_warned_about() {
    let dir = TestDir::new();
    let module = guest(&dir, "m.wat", "(func (export \"_start\"))", ALLOW);
    let report = wasm_agent(["validate", "--format", "json", module.to_str().unwrap()]).json();
    let checks = report["modules"][0]["checks"].as_array().unwrap();
    let start = checks.iter().find(|check| check["id"] == "start").unwrap();
    assert_eq!(start["status"], "warn", "{start}");
    // One that is there and mistyped is never taken for absent.
    let module = guest(
        &dir,
        "i.wat",
        "(func (export \"_initialize\") (param i32))",
        ALLOW,
    );
    let done = run(&module, &[&dir.request()], &[]);
    done.assert_code(1);
    assert!(
        done.stderr.contains("mistyped: func (i32)"),
        "{}",
        done.stderr
    );
}
