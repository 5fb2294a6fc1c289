//! What compiling takes of memory. A few bytes of some operators
//! become kilobytes of code, and more while they are compiled; what is too dear is
//! refused before that, by the name of the function.

use crate::support::{Done, TestDir, binary, finish, run, shipped};

/// What a reload may add to a running agent, beyond three times the module.
const MAX_KIB: u64 = 200 << 10;

/// A kind of module that is dear to compile: what it declares, what comes before,
/// what is repeated, what comes after.
const DEAR: [(&str, [&str; 4]); 9] = [
    (
        "tables are filled",
        [
            "",
            "",
            "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))",
            "",
        ],
    ),
    (
        "tables are copied",
        [
            "",
            "",
            "(table.copy $t $t (i32.const 0) (i32.const 0) (i32.const 1))",
            "",
        ],
    ),
    (
        "calls through a table",
        ["", "", "(call_indirect $t (i32.const 0))", ""],
    ),
    (
        "calls of many values",
        [
            "(func $many (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64 i64 i64 i64 i64 i64 i64 i64) unreachable)",
            "(i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)",
            "(call $many)",
            "drop drop drop drop drop drop drop drop",
        ],
    ),
    (
        "choices that give a value",
        [
            "",
            "",
            "(drop (if (result i32) (local.get 0) (then (i32.const 1)) (else (i32.const 2))))",
            "",
        ],
    ),
    (
        "blocks that hand values on",
        [
            "(type $on (func (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32 i32 i32 i32 i32 i32 i32 i32)))",
            "(local.get 0) (local.get 0) (local.get 0) (local.get 0) (local.get 0) (local.get 0) (local.get 0) (local.get 0)",
            "(block (type $on))",
            "drop drop drop drop drop drop drop drop",
        ],
    ),
    (
        "branches to many places",
        [
            "",
            "",
            "(block (block (br_table 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 (local.get 0))))",
            "",
        ],
    ),
    ("loops", ["", "", "(loop (nop))", ""]),
    (
        "locals that live across choices",
        ["", "LOCALS", "(if (local.get 0) (then (nop)))", "USES"],
    ),
];

fn text([declared, before, repeated, after]: [&str; 4], times: usize) -> String {
    const LOCALS: usize = 1000;
    let before = before.replace("LOCALS", &format!("(local {})", "i32 ".repeat(LOCALS)));
    let uses = (1..=LOCALS).map(|local| format!("(drop (local.get {local}))"));
    let after = after.replace("USES", &uses.collect::<String>());
    let code = repeated.repeat(times);
    format!(
        r#"(module (memory (export "memory") 2) (table $t 20 funcref) (func $f) (elem $e func $f) {declared}
        (data (i32.const 1024) "{{\"decision\":\"allow\"}}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func (export "dear") (param i32) {before} {code} {after})
        (func (export "on_request_headers") (param i32 i32) (result i64) (i64.const 0x40000000014)))"#
    )
}

fn passes(text: &str) -> bool {
    let dir = TestDir::new();
    let path = dir.file("dear.wasm", wat::parse_str(text).unwrap());
    let done = finish(binary([
        "validate".as_ref(),
        "--no-probe".as_ref(),
        path.as_os_str(),
    ]));
    done.assert_calm();
    done.code == Some(0)
}

/// The most of it that passes.
fn most(kind: [&str; 4]) -> usize {
    let (mut fits, mut too_many) = (1, 20_000);
    assert!(passes(&text(kind, fits)) && !passes(&text(kind, too_many)));
    while too_many - fits > fits / 50 + 1 {
        let middle = usize::midpoint(fits, too_many);
        if passes(&text(kind, middle)) {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    fits
}

fn run_text(text: &str) -> Done {
    let dir = TestDir::new();
    let path = dir.file("dear.wasm", wat::parse_str(text).unwrap());
    run(&path, &[&dir.request()], &["--max-compile-time", "170s"])
}

#[test]
fn i_02_what_is_too_dear_to_compile_is_refused_by_name() {
    let baseline = {
        let dir = TestDir::new();
        run(&shipped("right/allow.wat"), &[&dir.request()], &[]).peak_kib
    };
    for (name, kind) in DEAR {
        let done = run_text(&text(kind, 20_000));
        assert_eq!(done.code, Some(1), "{name}: {}", done.stderr);
        let says = "complexity: expected at most 84 MiB of memory to compile one function, estimated from its operators, found function";
        assert!(done.stderr.contains(says), "{name}: {}", done.stderr);
        assert!(
            done.stderr.contains("(dear) takes "),
            "{name}: {}",
            done.stderr
        );
        // Nothing was compiled for that.
        let above = done.peak_kib.saturating_sub(baseline);
        assert!(above < 32 << 10, "{name}: {above} KiB");
    }
}

#[test]
fn i_02_the_dearest_of_each_kind_is_compiled_in_bounded_memory() {
    let baseline = {
        let dir = TestDir::new();
        run(&shipped("right/allow.wat"), &[&dir.request()], &[]).peak_kib
    };
    for (name, kind) in DEAR {
        let text = text(kind, most(kind));
        let size_kib = wat::parse_str(&text).unwrap().len() as u64 >> 10;
        let done = run_text(&text);
        assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
        let above = done.peak_kib.saturating_sub(baseline);
        assert!(above <= MAX_KIB + 3 * size_kib, "{name}: {above} KiB");
    }
}

/// Functions that each are cheap enough, and too many of them.
#[test]
fn i_02_a_module_of_many_dear_functions_is_refused() {
    let kind = DEAR[0].1;
    let one = format!("(func {})", kind[2].repeat(1000));
    let module = text(["MANY", "", "", ""], 0).replace("MANY", &one.repeat(100));
    let done = run_text(&module);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let says = "MiB of memory to compile it, estimated from its operators, found ";
    assert!(done.stderr.contains(says), "{}", done.stderr);
}
