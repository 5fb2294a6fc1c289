//! Modules that break the contract are refused at load, with
//! the name of what is wrong, and never fail at the first request instead.

use std::path::Path;

use crate::support::guests::{ALLOW, guest};
use crate::support::{MODES, TestDir, run, shipped, steps};

/// Refused in both failure modes, with all of these words.
#[track_caller]
fn assert_refused(module: &Path, words: &[&str]) {
    for (_, mode) in MODES {
        let dir = TestDir::new();
        let done = run(module, &[&dir.request()], mode);
        done.assert_code(1);
        assert!(done.stdout.is_empty(), "{}", done.text());
        for word in words {
            assert!(
                done.stderr.contains(word),
                "{word:?} not in {}",
                done.stderr
            );
        }
    }
}

#[test]
fn m_21_a_mistyped_export_is_named_with_both_types() {
    let dir = TestDir::new();
    let wrong = [
        ("", "()"),
        ("(param i64 i64) (result i64)", "(i64, i64) -> i64"),
        ("(param i32 i32) (result i32)", "(i32, i32) -> i32"),
        ("(param i32 i32 i32) (result i64)", "(i32, i32, i32) -> i64"),
        (
            "(param i32 i32) (result i64 i64)",
            "(i32, i32) -> (i64, i64)",
        ),
    ];
    let right = [
        ("alloc", "(param i32) (result i32)", "func (i32) -> i32"),
        ("dealloc", "(param i32 i32)", "func (i32, i32)"),
        (
            "on_request_headers",
            "(param i32 i32) (result i64)",
            "func (i32, i32) -> i64",
        ),
        (
            "on_request_body",
            "(param i32 i32) (result i64)",
            "func (i32, i32) -> i64",
        ),
        (
            "on_response_headers",
            "(param i32 i32) (result i64)",
            "func (i32, i32) -> i64",
        ),
        (
            "on_response_body",
            "(param i32 i32) (result i64)",
            "func (i32, i32) -> i64",
        ),
    ];
    for (broken, _, expected) in right {
        for (index, (params, found)) in wrong.iter().enumerate() {
            let functions: String = right
                .iter()
                .map(|(name, params_right, _)| {
                    let params = if *name == broken {
                        params
                    } else {
                        params_right
                    };
                    format!("(func (export \"{name}\") {params} unreachable)\n")
                })
                .collect();
            let module = dir.file(
                &format!("{broken}-{index}.wat"),
                format!("(module (memory (export \"memory\") 1)\n{functions})"),
            );
            let id = format!("export:{broken}: expected {expected}, found");
            assert_refused(&module, &[&id, "mistyped", found]);
        }
        // Not even a function.
        let functions: String = right
            .iter()
            .filter(|(name, _, _)| *name != broken)
            .map(|(name, params, _)| format!("(func (export \"{name}\") {params} unreachable)\n"))
            .collect();
        let module = dir.file(
            &format!("{broken}-global.wat"),
            format!(
                "(module (memory (export \"memory\") 1)\n{functions}\
                 (global (export \"{broken}\") i32 (i32.const 0)))"
            ),
        );
        assert_refused(
            &module,
            &[&format!("export:{broken}"), "mistyped", "global"],
        );
    }
}

#[test]
fn m_21_the_shipped_mistyped_modules_are_refused() {
    for name in [
        "alloc-mistyped",
        "dealloc-mistyped",
        "handler-is-a-global",
        "handler-mistyped-extra-param",
        "handler-mistyped-i32-result",
        "handler-mistyped-i64-params",
        "handler-mistyped-multi-result",
        "handler-mistyped-no-result",
    ] {
        assert_refused(&shipped(&format!("invalid/{name}.wat")), &["mistyped: "]);
    }
}

#[test]
fn m_22_a_memory_that_cannot_be_used_is_refused_with_the_remedy() {
    for (name, found, remedy) in [
        ("no-memory", "no memory", "export it as \"memory\""),
        (
            "memory-misnamed",
            "exported as \"mem\"",
            "export it as \"memory\"",
        ),
        ("memory-imported", "imported", "--import-memory"),
        ("memory64", "64-bit", "wasm32"),
        ("memory-shared", "shared", "without threads"),
    ] {
        let module = shipped(&format!("invalid/{name}.wat"));
        assert_refused(&module, &["  memory: expected", found, remedy]);
    }
}

#[test]
fn m_22_a_missing_alloc_dealloc_or_handler_is_refused() {
    for (name, words) in [
        (
            "no-alloc",
            "export:alloc: expected func (i32) -> i32, found absent",
        ),
        (
            "no-dealloc",
            "export:dealloc: expected func (i32, i32), found absent",
        ),
        ("no-handlers", "found no handler"),
        (
            "near-miss",
            "\"on_request_header\" for \"on_request_headers\"",
        ),
        ("both-abis", "--abi"),
    ] {
        assert_refused(&shipped(&format!("invalid/{name}.wat")), &[words]);
    }
}

#[test]
fn m_23_an_unknown_import_is_refused_by_module_field_and_type() {
    let unknown = shipped("invalid/import-unknown.wat");
    assert_refused(&unknown, &["env.http_call", "(i32, i32) -> i32"]);
    let dir = TestDir::new();
    // The right name with another type is not the one we link.
    let module = guest_importing(&dir, "(import \"env\" \"abort\" (func (param i32)))");
    assert_refused(&module, &["env.abort", "func (i32)"]);
    let module = guest_importing(
        &dir,
        "(import \"a\" \"b\" (func)) (import \"c\" \"d\" (global i32))",
    );
    assert_refused(&module, &["a.b", "c.d", "global"]);
}

fn guest_importing(dir: &TestDir, imports: &str) -> std::path::PathBuf {
    dir.file(
        "imports.wat",
        format!(
            "(module {imports} (memory (export \"memory\") 1)
             (func (export \"alloc\") (param i32) (result i32) unreachable)
             (func (export \"dealloc\") (param i32 i32))
             (func (export \"on_request_headers\") (param i32 i32) (result i64) (i64.const 0)))"
        ),
    )
}

#[test]
fn m_23_a_module_for_wasi_works() {
    for name in ["import-wasi", "import-wasi-rust"] {
        let dir = TestDir::new();
        let module = shipped(&format!("right/{name}.wat"));
        let step = steps(&run(&module, &[&dir.request()], &[]).json()).remove(0);
        step.assert_allowed();
        assert_eq!(step.tags(), ["wasi"]);
    }
}

/// Go does so.
#[test]
fn m_23_one_function_may_be_imported_twice() {
    let dir = TestDir::new();
    let import = "(import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))\n";
    let module = guest_importing(&dir, &import.repeat(3));
    let text = std::fs::read_to_string(&module).unwrap();
    dir.file("imports.wat", text.replace("unreachable", "(i32.const 8)"));
    run(&module, &[&dir.request()], &[]).assert_code(0);
}

#[test]
fn m_23_the_abort_of_assemblyscript_carries_its_message() {
    for (fail_open, mode) in MODES {
        let dir = TestDir::new();
        dir.request_with("events/0.json", "x-abort");
        dir.requests("events/1.json", 3);
        let report = run(
            &shipped("right/abort-assemblyscript.wat"),
            &[&dir.path("events")],
            mode,
        )
        .json();
        let steps = steps(&report);
        steps[0].assert_fault("trap:abort", fail_open);
        let detail = steps[0].0["fault"]["detail"].as_str().unwrap();
        assert!(
            detail.contains("x-abort is not allowed at assembly/index.ts:42:7"),
            "{detail}"
        );
        for step in &steps[1..] {
            step.assert_allowed();
        }
    }
}

#[test]
fn m_23_an_abort_with_wild_addresses_is_a_fault_all_the_same() {
    for address in [
        "0",
        "1",
        "3",
        "1114111",
        "1114112",
        "-1",
        "-4",
        "0x7fffffff",
        "0x80000000",
    ] {
        let dir = TestDir::new();
        let module = dir.file(
            "m.wat",
            format!(
                "(module (import \"env\" \"abort\" (func $abort (param i32 i32 i32 i32)))
                 (memory (export \"memory\") 17)
                 (data (i32.const 0) \"\\ff\\ff\\ff\\ff\\00\\d8\")
                 (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
                 (func (export \"dealloc\") (param i32 i32))
                 (func (export \"on_request_headers\") (param i32 i32) (result i64)
                   (call $abort (i32.const {address}) (i32.const {address}) (i32.const -1) (i32.const -1))
                   (i64.const 0)))"
            ),
        );
        let report = run(&module, &[&dir.request()], &[]).json();
        steps(&report)[0].assert_fault("trap:abort", false);
    }
}

#[test]
fn features_of_no_toolchain_stay_off() {
    for (name, feature) in [
        ("gc-types", "gc"),
        ("exceptions", "exceptions"),
        ("tail-call", "tail-call"),
        ("memory64", "memory64"),
        ("memory-shared", "threads"),
    ] {
        let module = shipped(&format!("invalid/{name}.wat"));
        assert_refused(&module, &["  features: expected", feature]);
    }
    // What toolchains do emit runs.
    let dir = TestDir::new();
    let module = guest(
        &dir,
        "features.wat",
        "(func $two (result i32 i32) (i32.const 1) (i32.const 2))
         (global (export \"g\") (mut i32) (i32.add (i32.const 1) (i32.const 2)))",
        &format!(
            "(drop (i32.add (call $two)))
             (drop (i32.extend8_s (i32.trunc_sat_f32_s (f32.const 1e30))))
             (drop (i32x4.extract_lane 0 (i32x4.splat (i32.const 1))))
             (memory.copy (i32.const 0) (i32.const 8) (i32.const 8))
             (drop (ref.is_null (ref.null func))) {ALLOW}"
        ),
    );
    run(&module, &[&dir.request()], &[]).assert_code(0);
}
