//! Verdicts of `validate` that were wrong without a word: leaks in the steps of an
//! allocator, answers that tell a proxy the same, clocks, cookies, starts.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{one, remarks, row};
use crate::support::guests::{ALLOW, EVENTS, answering, escaped, guest, guest_with, limiter};
use crate::support::{TestDir, run, steps, wasm_agent};

fn found<'a>(module: &'a Value, id: &str) -> &'a str {
    row(module, id)["found"].as_str().unwrap()
}

/// A heap that keeps `rate` bytes of each call, with `at_first` in use, and grows
/// as `grow` says.
fn leaking(dir: &TestDir, (rate, at_first): (u32, u32), grow: &str) -> PathBuf {
    let heap = format!(
        r#"(module (memory (export "memory") 1) (global $used (mut i32) (i32.const {at_first}))
        (data (i32.const 1024) "{{\22decision\22:\22allow\22}}")
        (func (export "alloc") (param i32) (result i32)
          (global.set $used (i32.add (global.get $used) (i32.const {rate})))
          (block $enough (loop $more
            (br_if $enough (i32.le_u (global.get $used) (i32.mul (memory.size) (i32.const 65536))))
            (br_if $more (i32.ne (memory.grow {grow}) (i32.const -1)))))
          (i32.const 2048))
        (func (export "dealloc") (param i32 i32))
        (func (export "on_request_headers") (param i32 i32) (result i64) {ALLOW}))"#
    );
    dir.file("leaking.wat", heap)
}

#[test]
fn a_leak_is_found_whatever_steps_memory_grows_by() {
    const DOUBLED: &str = "(memory.size)";
    const BY_HALF: &str = "(i32.add (i32.shr_u (memory.size) (i32.const 1)) (i32.const 1))";
    const A_PAGE: &str = "(i32.const 1)";
    for (rate, at_first, grow) in [
        (16, 60_000, DOUBLED),
        (150, 1024, DOUBLED),
        (205, 30_000, DOUBLED),
        (390, 1024, BY_HALF),
        (820, 1024, DOUBLED),
        (23, 1024, A_PAGE),
        (65_536, 1024, DOUBLED),
    ] {
        let dir = TestDir::new();
        let file = leaking(&dir, (rate, at_first), grow);
        let (code, module) = one(&["--max-growth", "0"], &file);
        let growth = &module["metrics"]["growth"];
        let told = format!("{rate} bytes, {grow}: {growth}");
        assert_eq!(
            (code, remarks(&module)),
            (1, vec!["growth".to_owned()]),
            "{told}"
        );
        assert_eq!(growth["trend"], "growing", "{told}");
        let bounds = &growth["bytes_per_call_between"];
        let [least, most] = [0, 1].map(|at| bounds[at].as_f64().unwrap());
        assert!((least..=most).contains(&f64::from(rate)), "{told}");
        let bytes = growth["bytes_per_call"].as_f64().unwrap();
        assert!((bytes / f64::from(rate) - 1.0).abs() < 0.05, "{told}");
    }
}

/// A guest that uses its memory up to so many bytes before it uses it again, as a
/// collector does, and computes for so many rounds in each call.
fn collected(dir: &TestDir, (ceiling, rounds): (u32, u32)) -> PathBuf {
    let parts = format!(
        r#"(global $at (mut i32) (i32.const 131072))
        (func (export "alloc") (param $size i32) (result i32)
          (global.set $at (i32.add (global.get $at) (i32.const 1500)))
          (if (i32.gt_u (global.get $at) (i32.const {ceiling}))
            (then (global.set $at (i32.const 131072))))
          (if (i32.gt_u (i32.add (global.get $at) (local.get $size))
                (i32.mul (memory.size) (i32.const 65536)))
            (then (drop (memory.grow (i32.const 1)))))
          (global.get $at))
        (func (export "dealloc") (param i32 i32))"#
    );
    let body = format!(
        "(local $n i32) (local.set $n (i32.const {rounds}))
         (loop $again (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) {ALLOW}"
    );
    guest_with(dir, "collected.wat", &parts, &body)
}

#[test]
fn a_collector_that_has_run_is_no_leak_and_before_that_nothing_is_told() {
    let dir = TestDir::new();
    for ceiling in [1 << 21, 12 << 20, 40 << 20] {
        let file = collected(&dir, (ceiling, 1));
        let (code, module) = one(&["--max-growth", "0"], &file);
        assert_eq!((code, remarks(&module)), (0, vec![]), "{ceiling}");
        let told = found(&module, "growth");
        assert!(told.starts_with("memory grew by ") && told.contains(", but not in the last "));
        assert_eq!(module["metrics"]["growth"]["bytes_per_call"], 0.0);
    }
    let file = collected(&dir, (24 << 20, 30_000));
    let (code, module) = one(&[], &file);
    assert_eq!((code, remarks(&module)), (0, vec!["!growth".to_owned()]));
    let told = found(&module, "growth");
    assert!(told.starts_with("not settled within "), "{told}");
    assert!(
        !told.contains("limit") && !told.contains("each call"),
        "{told}"
    );
    let growth = &module["metrics"]["growth"];
    assert_eq!(growth["trend"], "not_settled");
    for figure in [
        "bytes_per_call",
        "bytes_per_call_between",
        "calls_until_limit",
    ] {
        assert_eq!(growth[figure], Value::Null, "{figure}");
    }
    let file = collected(&dir, (24 << 20, 300_000));
    let (code, module) = one(&["--max-growth", "100"], &file);
    assert_eq!((code, remarks(&module)), (1, vec!["growth".to_owned()]));
}

#[test]
fn our_own_collected_starter_has_settled() {
    let file = crate::support::shipped("go/policy.wasm");
    let (code, module) = one(&["--max-growth", "0"], &file);
    let bodies = vec!["!bodies:on_request_body".to_owned()];
    assert_eq!((code, remarks(&module)), (0, bodies));
    assert_eq!(row(&module, "growth:bodies")["status"], "pass");
    let whole = ["--max-growth", "0", "--deny-warnings", "--body", "whole"];
    let (code, module) = one(&whole, &file);
    assert_eq!((code, remarks(&module)), (0, vec![]));
}

/// Says how small a leak would have to be to hide.
#[test]
fn memory_that_does_not_grow_is_bounded() {
    let dir = TestDir::new();
    let (code, module) = one(&["--max-growth", "0"], &guest(&dir, "flat.wat", "", ALLOW));
    assert_eq!((code, remarks(&module)), (0, vec![]));
    let told = found(&module, "growth");
    assert_eq!(
        told,
        "memory did not grow in the last 22283 calls; a leak would be under 50 bytes a call"
    );
}

/// A guest of so many pages that adds `first` pages in its first call and then keeps
/// `rate` bytes of each, up to so many bytes.
fn filling(dir: &TestDir, (pages, first): (u32, u32), (rate, most): (u32, u32)) -> PathBuf {
    let text = format!(
        r#"(module (memory (export "memory") {pages}) (global $used (mut i32) (i32.const 8192))
        (global $is-warm (mut i32) (i32.const 0))
        (data (i32.const 1024) "{{\22decision\22:\22allow\22}}")
        (func (export "alloc") (param i32) (result i32)
          (if (i32.eqz (global.get $is-warm)) (then
            (global.set $is-warm (i32.const 1)) (drop (memory.grow (i32.const {first})))))
          (if (i32.lt_u (global.get $used) (i32.const {most})) (then
            (global.set $used (i32.add (global.get $used) (i32.const {rate})))))
          (if (i32.gt_u (global.get $used) (i32.mul (memory.size) (i32.const 65536)))
            (then (drop (memory.grow (i32.const 1)))))
          (i32.const 2048))
        (func (export "dealloc") (param i32 i32))
        (func (export "on_request_headers") (param i32 i32) (result i64) {ALLOW}))"#
    );
    dir.file("filling.wat", text)
}

const ENDLESS: u32 = 1 << 31;

/// Memory that is free at the start, or after the first call, hides nothing.
#[test]
fn a_leak_into_free_memory_is_found() {
    let dir = TestDir::new();
    for (memory, rate, gate) in [
        ((256, 0), 1000, "0"),
        ((256, 0), 1600, "100"),
        ((33, 0), 100, "0"),
        ((17, 0), 64, "0"),
        ((1, 64), 100, "0"),
        ((5, 100), 300, "200"),
    ] {
        let file = filling(&dir, memory, (rate, ENDLESS));
        let (code, module) = one(&["--max-growth", gate], &file);
        let told = found(&module, "growth");
        assert_eq!(
            (code, remarks(&module)),
            (1, vec!["growth".to_owned()]),
            "{memory:?} {rate}: {told}"
        );
    }
    let file = filling(&dir, (256, 0), (1000, ENDLESS));
    assert_eq!(remarks(&one(&[], &file).1), ["!growth"]);
}

/// A guest that computes long is not called so often.
#[test]
fn what_free_memory_may_hide_is_held_against_the_gate() {
    let dir = TestDir::new();
    let body = format!(
        "(local $n i32) (local.set $n (i32.const 300000))
         (loop $again (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) {ALLOW}"
    );
    let file = guest(&dir, "slow.wat", "", &body);
    let (code, module) = one(&[], &file);
    assert_eq!((code, remarks(&module)), (0, vec![]));
    for (gate, code) in [("0", 1), ("200", 1), ("2KB", 0)] {
        let (found_code, module) = one(&["--max-growth", gate], &file);
        let told = found(&module, "growth");
        assert_eq!(found_code, code, "{gate}: {told}");
        assert!(told.contains("; a leak would be under "), "{told}");
    }
}

/// An instance that is thrown away after N calls needs room for N calls.
#[test]
fn growth_within_the_life_of_an_instance_is_no_leak() {
    let dir = TestDir::new();
    let warm = filling(&dir, (1, 4), (0, 0));
    for (isolation, calls) in [
        ("recycle=1", "1 call"),
        ("recycle=10", "10 calls"),
        ("recycle=900", "900 calls"),
    ] {
        for gate in [&[][..], &["--max-growth", "0"]] {
            let args = [&["--isolation", isolation], gate].concat();
            let (code, module) = one(&args, &warm);
            assert_eq!((code, remarks(&module)), (0, vec![]), "{args:?}");
            let told = found(&module, "growth");
            let expected = format!(
                "memory grew by 262144 bytes in {calls}; then another instance takes its place"
            );
            assert_eq!(told, expected);
        }
    }
    let (code, module) = one(
        &["--isolation", "recycle=1000"],
        &filling(&dir, (1, 0), (65_536, ENDLESS)),
    );
    assert_eq!((code, remarks(&module)), (0, vec!["!growth".to_owned()]));
    assert!(found(&module, "growth").contains("; the limit is met after "));
}

/// Only an instance that came near its limit is told when it meets it.
#[test]
fn what_fills_slowly_is_no_leak_and_no_limit_is_told_before_it_is_near() {
    let dir = TestDir::new();
    for (rate, most) in [(100, 8 << 20), (33, 38_000 * 33), (300, 4 << 20)] {
        let file = filling(&dir, (1, 0), (rate, most));
        let (code, module) = one(&["--max-growth", "0"], &file);
        let told = found(&module, "growth");
        assert_eq!((code, remarks(&module)), (0, vec![]), "{rate}: {told}");
    }
    let (_, module) = one(&[], &filling(&dir, (1, 0), (100, ENDLESS)));
    let told = found(&module, "growth");
    assert!(
        told.starts_with("memory grew by ") && told.ends_with("; not settled"),
        "{told}"
    );
    assert_eq!(
        module["metrics"]["growth"]["calls_until_limit"],
        Value::Null
    );
}

/// A guest of that handler that gives these answers in turn.
fn in_turn(dir: &TestDir, handler: &str, answers: [&str; 2]) -> PathBuf {
    let [one, other] = answers;
    let (at, then) = (2048, 4096);
    dir.file(
        "in-turn.wat",
        format!(
            r#"(module (memory (export "memory") 17) (global $turn (mut i32) (i32.const 0))
            (data (i32.const {at}) "{}") (data (i32.const {then}) "{}")
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "dealloc") (param i32 i32))
            (func (export "{handler}") (param i32 i32) (result i64)
              (global.set $turn (i32.xor (global.get $turn) (i32.const 1)))
              (select (i64.const {}) (i64.const {}) (global.get $turn))))"#,
            escaped(one.as_bytes()),
            escaped(other.as_bytes()),
            (at << 32) | one.len(),
            (then << 32) | other.len(),
        ),
    )
}

#[test]
fn answers_that_tell_a_proxy_the_same_are_the_same() {
    let same = [
        (
            r#"{"decision":"allow","add_request_headers":{"x-a":"1","x-b":"2"}}"#,
            r#"{"add_request_headers":{"x-b":"2","x-a":"1"}, "decision":"ALLOW"}"#,
        ),
        (
            r#"{"decision":"allow","add_response_headers":{"X-A":"1"}}"#,
            r#"{"decision":"allow","add_response_headers":{"x-a":"1"}}"#,
        ),
        (
            r#"{"decision":"allow","remove_request_headers":["a","b"]}"#,
            r#"{"decision":"allow","remove_request_headers":["b","a","B"]}"#,
        ),
        (
            r#"{"decision":"block"}"#,
            r#"{"decision":"deny","status":403}"#,
        ),
        (
            r#"{"decision":"allow","routing_metadata":{"a":"1","b":"2"}}"#,
            r#"{"decision":"allow","routing_metadata":{"b":"2","a":"1"}}"#,
        ),
    ];
    let dir = TestDir::new();
    for (one_answer, other) in same {
        let file = in_turn(&dir, "on_request_headers", [one_answer, other]);
        let (code, module) = one(&[], &file);
        assert_eq!((code, remarks(&module)), (0, vec![]), "{one_answer}");
    }
    let different = [
        (
            r#"{"decision":"allow","tags":["a","b"]}"#,
            r#"{"decision":"allow","tags":["b","a"]}"#,
        ),
        (
            r#"{"decision":"allow","add_request_headers":{"x-a":"a"}}"#,
            r#"{"decision":"allow","add_request_headers":{"x-a":"A"}}"#,
        ),
        (r#"{"decision":"allow"}"#, ""),
    ];
    for (one_answer, other) in different {
        let file = in_turn(&dir, "on_request_headers", [one_answer, other]);
        let (code, module) = one(&["--deny-warnings"], &file);
        assert_eq!(code, 1, "{one_answer}");
        assert_eq!(row(&module, "state")["status"], "fail", "{one_answer}");
    }
}

#[test]
fn results_of_hooks_are_the_same_in_any_order_of_keys() {
    let dir = TestDir::new();
    let context = |input: &str| {
        format!(
            r#"{{"ok":true,"ctx":{{"input":{input},"data":null,"user":null,"headers":{{}},"tenant_id":null}}}}"#
        )
    };
    for (other, code) in [
        (r#"{"b":2,"a":1}"#, 0),
        (r#"{"a":1,"b":3}"#, 1),
        (r#"{"a":1,"b":2,"c":null}"#, 1),
    ] {
        let answers = [context(r#"{"a":1,"b":2}"#), context(other)];
        let file = in_turn(&dir, "before_hook", [&answers[0], &answers[1]]);
        let (found, module) = one(&["--isolation", "pooled"], &file);
        assert_eq!(found, code, "{other}: {:?}", remarks(&module));
    }
}

/// Faults are told by their code, not by what else was in the answer.
#[test]
fn an_answer_of_the_same_fault_is_the_same() {
    let dir = TestDir::new();
    let file = in_turn(&dir, "on_request_headers", ["nonsense", "rubbish!"]);
    let (_, module) = one(&[], &file);
    assert_eq!(row(&module, "state")["status"], "pass");
}

#[test]
fn a_value_in_another_letter_case_is_another_value() {
    // The spelling of a header's name decides whether a value is X or x.
    let dir = TestDir::new();
    let answers = ["X", "x"].map(|value| {
        format!(r#"{{"decision":"allow","add_request_headers":{{"x-a":"{value}"}}}}"#)
    });
    let parts = format!(
        "(data (i32.const 2048) \"{}\") (data (i32.const 4096) \"{}\")",
        escaped(answers[0].as_bytes()),
        escaped(answers[1].as_bytes())
    );
    // Any capital H in the input is that of `Host`.
    let body = format!(
        "(local $i i32) (loop $next
           (if (i32.and (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 72))
                        (i32.eq (i32.load8_u (i32.sub (local.get $ptr) (i32.const 1))) (i32.const 34)))
             (then (return (i64.const {}))))
           (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
           (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $len))))
         (i64.const {})",
        (2048_usize << 32) | answers[0].len(),
        (4096_usize << 32) | answers[1].len()
    );
    let (_, module) = one(&[], &guest(&dir, "case.wat", &parts, &body));
    assert_eq!(remarks(&module), ["!header-spelling"]);
}

/// Reads random bytes and the clock: the one decides how long it takes, and both
/// are in the answer if that is wanted.
fn random(dir: &TestDir, is_told: bool) -> PathBuf {
    let tell = if is_told {
        "(i32.store8 (i32.const 2084) (i32.add (i32.const 97) (i32.and (i32.load8_u (i32.const 8)) (i32.const 15))))
         (i32.store8 (i32.const 2085) (i32.add (i32.const 97) (i32.and (i32.load8_u (i32.const 17)) (i32.const 15))))"
    } else {
        ""
    };
    let answer = r#"{"decision":"allow","tags":["random-aa"]}"#;
    let (at, length) = (2048, answer.len());
    let answer = escaped(answer.as_bytes());
    dir.file(
        "random.wat",
        format!(
            r#"(module
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (memory (export "memory") 17) (data (i32.const {at}) "{answer}")
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "dealloc") (param i32 i32))
            (func (export "on_request_headers") (param i32 i32) (result i64) (local $n i32)
              (drop (call $random (i32.const 8) (i32.const 4)))
              (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 16)))
              (local.set $n (i32.add (i32.const 1) (i32.load16_u (i32.const 9))))
              (loop $again (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
              {tell}
              (i64.const {})))"#,
            (at << 32) | length
        ),
    )
}

#[test]
fn real_clocks_and_random_bytes_are_no_indeterminism_and_no_state() {
    let dir = TestDir::new();
    for is_told in [false, true] {
        let file = random(&dir, is_told);
        let (code, module) = one(&["--wasi", "real"], &file);
        assert_eq!((code, remarks(&module)), (0, vec![]), "{is_told}");
        let told = found(&module, "determinism");
        assert!(
            told.contains("with fixed clocks and random bytes"),
            "{told}"
        );
        let (code, module) = one(&[], &file);
        assert_eq!((code, remarks(&module)), (0, vec![]), "{is_told}");
        assert!(!found(&module, "determinism").contains("clocks"));
    }
    // What remembers is found all the same.
    let file = dir.file(
        "remembers.wat",
        std::fs::read_to_string(crate::support::shipped("hostile/counter.wat"))
            .unwrap()
            .replacen(
                "(module",
                "(module (import \"wasi_snapshot_preview1\" \"random_get\" (func (param i32 i32) (result i32)))",
                1,
            ),
    );
    let (code, module) = one(&["--wasi", "real"], &file);
    assert_eq!((code, remarks(&module)), (1, vec!["state".to_owned()]));
}

/// Tells the time of the clock of that number in its answer, after so many readings.
fn telling_time(dir: &TestDir, clock: u32, readings: u32) -> PathBuf {
    let answer = r#"{"decision":"allow","tags":["aaaaaaaa"]}"#;
    let (at, length, first) = (2048, answer.len(), 2048 + answer.find("aaaaaaaa").unwrap());
    let read = format!("(drop (call $clock (i32.const {clock}) (i64.const 1) (i32.const 16)))");
    let read = read.repeat(readings as usize);
    let tell: String = (0..8)
        .map(|n| {
            let at = first + n;
            format!(
                "(i32.store8 (i32.const {at}) (i32.add (i32.const 97)
                   (i32.and (i32.load8_u (i32.const {})) (i32.const 15))))",
                16 + n
            )
        })
        .collect();
    dir.file(
        "time.wat",
        format!(
            r#"(module
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (memory (export "memory") 17) (data (i32.const {at}) "{}")
            (func (export "_initialize") {read})
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "dealloc") (param i32 i32))
            (func (export "on_request_headers") (param i32 i32) (result i64)
              {read} {tell} (i64.const {})))"#,
            escaped(answer.as_bytes()),
            (at << 32) | length
        ),
    )
}

#[test]
fn who_reads_a_clock_keeps_nothing_between_calls() {
    let dir = TestDir::new();
    for (clock, readings) in [(0, 1), (1, 1), (1, 7)] {
        let file = telling_time(&dir, clock, readings);
        for wasi in ["fixed", "real"] {
            let (code, module) = one(&["--wasi", wasi], &file);
            assert_eq!(
                (code, remarks(&module)),
                (0, vec![]),
                "clock {clock}, {wasi}"
            );
        }
        run(&file, &[&dir.request()], &["--repeat", "3"]).assert_code(0);
    }
}

/// What the upstream does not send is not replaced.
#[test]
fn only_headers_of_the_upstream_are_told_as_replaced() {
    let dir = TestDir::new();
    let cases = [
        (json!({"Set-Cookie": "a=1"}), json!([]), json!({}), false),
        (
            json!({"Set-Cookie": "a=1"}),
            json!([]),
            json!({"set-cookie": ["x=1", "y=2"]}),
            true,
        ),
        (
            json!({"Set-Cookie": "a=1"}),
            json!(["set-cookie"]),
            json!({"set-cookie": "x=1"}),
            false,
        ),
        (
            json!({}),
            json!(["Set-Cookie"]),
            json!({"set-cookie": "x=1"}),
            false,
        ),
        (
            json!({"Vary": "Origin"}),
            json!([]),
            json!({"link": "</a>"}),
            false,
        ),
        (
            json!({"vary": "Origin"}),
            json!([]),
            json!({"Vary": "Accept"}),
            true,
        ),
    ];
    for (set, removed, upstream, is_told) in cases {
        let answer = json!({"decision": "allow", "add_response_headers": set, "remove_response_headers": removed});
        let file = answering(&dir, "setting.wat", answer.to_string());
        let step =
            json!({"event": "response_headers", "input": {"status": 200, "headers": upstream}});
        let done = run(&file, &[&dir.file("r.json", step.to_string())], &[]);
        let hints = steps(&done.json())[0].0["hints"].to_string();
        assert_eq!(
            hints.contains("_replaced"),
            is_told,
            "{set} {upstream}: {hints}"
        );
    }
    for name in ["Link", "Vary", "Via", "WWW-Authenticate"] {
        let answer = json!({"decision": "allow", "add_response_headers": {name: "a"}});
        let (_, module) = one(&[], &answering(&dir, "setting.wat", answer.to_string()));
        let told = found(&module, "replaced:on_response_headers");
        assert!(
            told.contains(&format!("all {name} values of the upstream")),
            "{told}"
        );
    }
}

#[test]
fn cookies_that_replace_those_of_the_upstream_are_told_by_validate_and_run() {
    let dir = TestDir::new();
    let setting = |name: &str, decision: &str| {
        let answer = json!({"decision": decision, "add_response_headers": {name: "a=1"}});
        answering(&dir, "setting.wat", answer.to_string())
    };
    let response = dir.file(
        "r.json",
        r#"{"event":"response_headers","input":{"status":200,"headers":{"set-cookie":"b=2"}}}"#,
    );
    for name in ["set-cookie", "Set-Cookie"] {
        let file = setting(name, "allow");
        let (code, module) = one(&[], &file);
        assert_eq!(code, 0);
        for handler in ["on_request_headers", "on_response_headers"] {
            let row = row(&module, &format!("replaced:{handler}"));
            assert_eq!(row["status"], "warn", "{name}");
            assert!(
                row["found"]
                    .as_str()
                    .unwrap()
                    .contains("Set-Cookie replaces every cookie")
            );
            assert!(
                row["fix"]
                    .as_str()
                    .unwrap()
                    .contains("append_response_headers")
            );
        }
        assert_eq!(one(&["--deny-warnings"], &file).0, 1);
        let told = run(&file, &[&response], &[]);
        told.assert_code(0);
        let hints = steps(&told.json())[0].0["hints"].to_string();
        assert!(hints.contains("cookies_replaced"), "{hints}");
        let text = wasm_agent(["run".as_ref(), file.as_os_str(), response.as_os_str()]).text();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("logs its users out"), "{text}");
    }
    // A list is told and not warned of; other headers are what a set is for.
    let file = setting("Vary", "allow");
    let (code, module) = one(&["--deny-warnings"], &file);
    assert_eq!((code, remarks(&module)), (0, vec![]));
    assert!(found(&module, "replaced:on_response_headers").contains("Vary"));
    for file in [
        setting("cache-control", "allow"),
        setting("set-cookie", "block"),
    ] {
        let (_, module) = one(&[], &file);
        let rows = module["checks"].to_string();
        assert!(!rows.contains("replaced:"), "{rows}");
    }
}

/// A reader has to see whether a note is about the own proxy.
#[test]
fn notes_about_proxies_name_their_releases_in_validate_and_run() {
    const OLD: &str = "zentinel-proxy up to 0.6.45 and sentinel-proxy 0.4.14: ";
    const OLD_ZENTINEL: &str = "zentinel-proxy up to 0.6.45: ";
    const BODY: &str = r#"{"event":"request_body","input":{"data":"a=1"}}"#;
    const HEAD: &str = r#"{"event":"request_headers","input":{"method":"GET","uri":"/"}}"#;
    const RESPONSE: &str = r#"{"event":"response_headers","input":{"status":200}}"#;
    const CONTENT: &str = r#"{"event":"response_body","input":{"data":"page"}}"#;
    let dir = TestDir::new();
    let set = json!({"x-a": "1"});
    let late = format!(
        "{}request header operations",
        "zentinel-proxy up to 0.6.54: "
    );
    let change = format!("{OLD}a change").replace("0.6.45", "0.6.54");
    let cases = [
        (
            json!({"decision": "redirect", "body": "/x"}),
            HEAD,
            format!("{OLD}a redirect"),
        ),
        (
            json!({"decision": "block", "add_response_headers": set}),
            HEAD,
            format!("{OLD}header operations"),
        ),
        (
            json!({"decision": "block", "body": "x"}),
            BODY,
            format!("{OLD}a block of a request body"),
        ),
        (
            json!({"decision": "allow", "add_response_headers": set}),
            HEAD,
            format!("{OLD_ZENTINEL}response header operations"),
        ),
        (
            json!({"decision": "block"}),
            RESPONSE,
            format!("{OLD_ZENTINEL}a refusal of a response"),
        ),
        (
            json!({"decision": "block"}),
            CONTENT,
            "zentinel-proxy from 0.6.54 on: a refusal of a response body".to_owned(),
        ),
        (
            json!({"decision": "allow", "add_request_headers": set}),
            BODY,
            late.clone(),
        ),
        (
            json!({"decision": "allow", "request_body_mutation": {"action": "replace", "data": "b"}}),
            BODY,
            change.clone(),
        ),
    ];
    for (answer, event, told) in cases {
        let file = answering(&dir, "module.wat", answer.to_string());
        let event = dir.file("event.json", event);
        let text = wasm_agent(["run".as_ref(), file.as_os_str(), event.as_os_str()]).text();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&format!("note: {told}")), "{told}: {text}");
        let (_, module) = one(&[], &file);
        let rows = module["checks"].to_string();
        let is_told = [&late, &change].contains(&&told);
        assert_eq!(
            rows.contains("request-body:on_request_body"),
            is_told,
            "{told}"
        );
        if is_told {
            assert!(found(&module, "request-body:on_request_body").starts_with(&told));
        }
    }
}

#[test]
fn what_counts_its_calls_is_found_and_a_pass_says_how_far_it_goes() {
    let dir = TestDir::new();
    for calls in [3, 30, 100, 400, 1_000, 3_000, 9_000] {
        let (code, module) = one(&[], &limiter(&dir, "limiter.wat", calls));
        assert_eq!(
            (code, remarks(&module)),
            (1, vec!["state".to_owned()]),
            "{calls}"
        );
        let told = found(&module, "state");
        assert!(
            told.ends_with(&format!("block 429 after {calls} calls")),
            "{told}"
        );
        assert!(
            row(&module, "state")["detail"]
                .as_str()
                .unwrap()
                .lines()
                .count()
                <= 22
        );
    }
    let (_, module) = one(&[], &limiter(&dir, "limiter.wat", 100_000));
    let told = found(&module, "state");
    assert_eq!(row(&module, "state")["status"], "pass");
    assert!(
        told.contains(" orders, at most 9999 calls before an answer"),
        "{told}"
    );
}

/// Four handlers that answer an allow, or a block once `$refuses` says so; `$count` is
/// called with the handler's number and the length of the input.
fn counting(dir: &TestDir, name: &str, count: &str, refuses: &str) -> PathBuf {
    let handlers: String = EVENTS
        .iter()
        .enumerate()
        .map(|(number, event)| {
            format!(
                "(func (export \"on_{event}\") (param i32 i32) (result i64)
                   (call $count (i32.const {number}) (local.get 1))
                   (select (i64.const 0x0000_0800_0000_0021) {ALLOW} (call $refuses (i32.const {number}))))"
            )
        })
        .collect();
    let module = format!(
        r#"(module (memory (export "memory") 2) (global $calls (mut i32) (i32.const 0))
        (global $armed (mut i32) (i32.const 0)) (global $len (mut i32) (i32.const 0))
        (data (i32.const 1024) "{{\22decision\22:\22allow\22}}")
        (data (i32.const 2048) "{{\22decision\22:\22block\22,\22status\22:429}}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func $one-more (global.set $calls (i32.add (global.get $calls) (i32.const 1))))
        (func $count (param $handler i32) (param $len i32) {count})
        (func $refuses (param $handler i32) (result i32) {refuses})
        {handlers})"#
    );
    dir.file(name, module)
}

/// A table of counters in memory, one for each length of an input: as good as one for
/// each client, path or id of the samples.
const BY_KEY: &str = "(local $at i32) (global.set $len (local.get $len))
    (local.set $at (i32.add (i32.const 8192) (i32.mul (local.get $len) (i32.const 4))))
    (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (i32.const 1)))";

#[test]
fn what_counts_calls_of_a_kind_is_found_too() {
    let dir = TestDir::new();
    let over = |calls: u32| format!("(i32.gt_u (global.get $calls) (i32.const {calls}))");
    let of_key = |calls: u32| {
        format!(
            "(i32.gt_u (i32.load (i32.add (i32.const 8192) (i32.mul (global.get $len) (i32.const 4)))) (i32.const {calls}))"
        )
    };
    let only = |handler: u32| {
        format!("(if (i32.eq (local.get $handler) (i32.const {handler})) (then (call $one-more)))")
    };
    let all = "(call $one-more)".to_owned();
    // What is counted, when it refuses, and after how many calls.
    for (count, refuses, calls) in [
        // All four handlers.
        (all.clone(), over(3_000), 3_000),
        // One of them, of which the others may ask.
        (only(2), over(1_000), 1_000),
        (only(3), over(30), 30),
        // One counts, another one refuses.
        (
            only(0),
            format!(
                "(i32.and (i32.eq (local.get $handler) (i32.const 2)) {})",
                over(100)
            ),
            101,
        ),
        (BY_KEY.to_owned(), of_key(30), 30),
        (BY_KEY.to_owned(), of_key(3_000), 3_000),
        // It begins anew now and then.
        (
            all.clone(),
            "(i32.eqz (i32.rem_u (global.get $calls) (i32.const 1500)))".to_owned(),
            1_499,
        ),
    ] {
        let file = counting(&dir, "counting.wat", &count, &refuses);
        let (code, module) = one(&[], &file);
        let mut told = remarks(&module);
        // A counter of calls about bodies shows where a body has more chunks, too.
        told.retain(|id| !id.starts_with("bodies:"));
        assert_eq!(
            (code, told),
            (1, vec!["state".to_owned()]),
            "{count} {refuses}"
        );
        let found = found(&module, "state");
        assert!(
            found.contains(&format!(
                "allow on a fresh instance, block 429 after {calls} calls"
            )),
            "{count} {refuses}: {found}"
        );
    }
}

#[test]
fn what_counts_from_a_certain_input_on_is_found() {
    let dir = TestDir::new();
    // From a body that is shorter than the others.
    let count = "(if (i32.and (i32.eq (local.get $handler) (i32.const 1)) (i32.lt_u (local.get $len) (i32.const 200)))
           (then (global.set $armed (i32.const 1))))
         (if (global.get $armed) (then (call $one-more)))";
    let refuses = "(i32.gt_u (global.get $calls) (i32.const 600))";
    let file = counting(&dir, "armed.wat", count, refuses);
    let (code, module) = one(&[], &file);
    assert_eq!((code, remarks(&module)), (1, vec!["state".to_owned()]));
    let told = found(&module, "state");
    assert!(
        told.contains("allow on a fresh instance, block 429 after 6"),
        "{told}"
    );
}

#[test]
fn an_instance_is_called_as_often_as_production_does() {
    let dir = TestDir::new();
    let file = limiter(&dir, "limiter.wat", 100);
    for (isolation, code) in [("recycle=100", 0), ("recycle=101", 1), ("pooled", 1)] {
        let (found, module) = one(&["--isolation", isolation], &file);
        assert_eq!(found, code, "{isolation}: {:?}", remarks(&module));
    }
    // One that leaks is replaced before it is refused memory, and nothing else is told.
    let leaking = guest(
        &dir,
        "leaking.wat",
        "",
        &format!(
            "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) {ALLOW}"
        ),
    );
    let (code, module) = one(&[], &leaking);
    assert_eq!((code, remarks(&module)), (0, vec!["!growth".to_owned()]));
}

#[test]
fn what_the_hook_after_counts_is_found_before() {
    let dir = TestDir::new();
    let file = dir.file(
        "hooks.wat",
        r#"(module (memory (export "memory") 2) (global $calls (mut i32) (i32.const 0))
        (data (i32.const 1024) "{\22ok\22:true }") (data (i32.const 2048) "{\22ok\22:false}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func (export "after_hook") (param i32 i32) (result i64)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (i64.const 0x0000_0400_0000_000c))
        (func (export "before_hook") (param i32 i32) (result i64)
          (select (i64.const 0x0000_0800_0000_000c) (i64.const 0x0000_0400_0000_000c)
            (i32.gt_u (global.get $calls) (i32.const 1000)))))"#,
    );
    let (code, module) = one(&["--isolation", "pooled"], &file);
    assert_eq!((code, remarks(&module)), (1, vec!["state".to_owned()]));
    let told = found(&module, "state");
    assert!(told.starts_with("before_hook"), "{told}");
    assert!(told.ends_with("refused after 1001 calls"), "{told}");
    // Each call has an instance of its own.
    let (code, _) = one(&[], &file);
    assert_eq!(code, 0);
}

#[test]
fn what_the_published_agents_let_pass_is_a_fault_and_told() {
    let dir = TestDir::new();
    for decision in ["pass", "", "allow ", "ALLOWED"] {
        let file = answering(
            &dir,
            "unknown.wat",
            format!(r#"{{"decision":"{decision}"}}"#),
        );
        let (code, module) = one(&[], &file);
        assert_eq!(code, 1, "{decision}");
        for event in EVENTS {
            let row = row(&module, &format!("answer:on_{event}"));
            let detail = row["detail"].as_str().unwrap_or_default();
            assert!(
                detail.contains("sentinel-agent-wasm 0.1.0 and zentinel-agent-wasm 0.2.0 allow"),
                "{decision}: {row}"
            );
        }
        run(&file, &[&dir.request()], &[]).assert_code(1);
    }
    for other in [r#"{"decision":"Allow"}"#, "nonsense", "{}"] {
        let (_, module) = one(&[], &answering(&dir, "other.wat", other));
        assert!(
            !module.to_string().contains("zentinel-agent-wasm"),
            "{other}"
        );
    }
}

/// Blocks once it was set up: so often is it set up that the status tells it.
fn set_up(dir: &TestDir, parts: &str) -> PathBuf {
    let data = "(global $set-up (mut i32) (i32.const 0))
        (data (i32.const 2048) \"{\\22decision\\22:\\22block\\22}\")
        (func $set-up (global.set $set-up (i32.add (global.get $set-up) (i32.const 1))))";
    let body = format!(
        "(select (i64.const 0x0000_0800_0000_0014) {ALLOW} (i32.eq (global.get $set-up) (i32.const 1)))"
    );
    guest(dir, "set-up.wat", &format!("{data}{parts}"), &body)
}

#[test]
fn constructors_are_called_once_and_by_whom_they_are_called_already() {
    let dir = TestDir::new();
    for parts in [
        "(export \"__wasm_call_ctors\" (func $set-up))",
        "(export \"__wasm_call_ctors\" (func $set-up)) (func (export \"_initialize\") (call $set-up))",
        "(export \"__wasm_call_ctors\" (func $set-up)) (func (export \"_initialize\"))",
        "(export \"__wasm_call_ctors\" (func $set-up)) (start $set-up)",
        "(export \"__wasm_call_ctors\" (func $set-up)) (func $main (call $set-up)) (start $main)",
        "(export \"__wasm_call_ctors\" (func $set-up)) (func (export \"_start\") (call $set-up))",
        // Who calls them is never called.
        "(export \"__wasm_call_ctors\" (func $set-up)) (func (export \"boot\") (call $set-up))",
        "(export \"__wasm_call_ctors\" (func $set-up)) (func (call $set-up))",
        "(export \"__wasm_call_ctors\" (func $set-up)) (func $main (call $set-up)) (func (export \"_start\") (call $main))",
        // One function under two names, and calls through a table.
        "(export \"__wasm_call_ctors\" (func $set-up)) (export \"_initialize\" (func $set-up))",
        "(export \"_initialize\" (func $set-up)) (start $set-up)",
        "(export \"__wasm_call_ctors\" (func $set-up)) (table 1 funcref) (elem (i32.const 0) $set-up)
         (func $main (call_indirect (i32.const 0))) (start $main)",
        "(export \"__wasm_call_ctors\" (func $set-up)) (table 1 funcref) (elem (i32.const 0) funcref (ref.func $set-up))
         (func $main (call_indirect (i32.const 0))) (func (export \"_initialize\") (call $main))",
        // In a table, of which a handler calls something else.
        "(export \"__wasm_call_ctors\" (func $set-up)) (table 2 funcref) (elem (i32.const 0) $set-up $other)
         (func $other) (func (export \"on_response_headers\") (param i32 i32) (result i64)
           (call_indirect (i32.const 1)) (i64.const 0x0000_0400_0000_0014))",
        "(export \"__wasm_call_ctors\" (func $set-up)) (global $f funcref (ref.func $set-up))
         (table 1 funcref) (func $main (table.set (i32.const 0) (global.get $f)) (call_indirect (i32.const 0)))
         (start $main)",
        "(export \"_initialize\" (func $set-up)) (func $main (call $set-up)) (start $main)",
        // Only one handler calls them, and others are asked before it.
        "(export \"__wasm_call_ctors\" (func $set-up)) (func (export \"on_response_headers\") (param i32 i32) (result i64)
           (if (i32.eqz (global.get $set-up)) (then (call $set-up))) (i64.const 0x0000_0400_0000_0014))",
    ] {
        let file = set_up(&dir, parts);
        let done = run(&file, &[&dir.request()], &["--repeat", "3"]);
        assert_eq!(steps(&done.json())[0].decision(), "block", "{parts}");
        let (code, module) = one(&[], &file);
        assert_eq!(code, 0, "{parts}: {:?}", remarks(&module));
    }
    let file = guest(
        &dir,
        "mistyped.wat",
        "(func (export \"__wasm_call_ctors\") (param i32))",
        ALLOW,
    );
    let (code, module) = one(&[], &file);
    assert_eq!(
        (code, remarks(&module)),
        (1, vec!["export:__wasm_call_ctors".to_owned()])
    );
}

#[test]
fn a_start_that_nobody_calls_is_a_finding() {
    let dir = TestDir::new();
    for name in [
        "init",
        "_init",
        "NimMain",
        "hs_init",
        "__post_instantiate",
        "on_init",
        "setup_rules",
        "rules",
        "main",
        "__wbindgen_start",
        "start",
        "Setup",
    ] {
        let parts = format!("(export {name:?} (func $set-up))");
        let (code, module) = one(&[], &set_up(&dir, &parts));
        assert_eq!(
            (code, remarks(&module)),
            (0, vec!["!start".to_owned()]),
            "{name}"
        );
        assert!(
            row(&module, "start")["fix"]
                .as_str()
                .unwrap()
                .contains("_initialize")
        );
    }
    // Beside another start, called by nobody who is called, or of another type.
    for parts in [
        "(func (export \"_initialize\")) (export \"setup\" (func $set-up))",
        "(export \"init\" (func $set-up)) (func (call $set-up))",
        "(export \"init\" (func $set-up)) (func (export \"unused\") (param i32) (call $set-up))",
        "(func (export \"init\") (param i32))",
        "(func (export \"__main_void\") (result i32) (i32.const 0))",
    ] {
        let (_, module) = one(&[], &set_up(&dir, parts));
        assert_eq!(remarks(&module), ["!start"], "{parts}");
    }
    let (_, module) = one(
        &[],
        &set_up(&dir, "(export \"a\" (func $set-up)) (func (export \"b\"))"),
    );
    assert_eq!(
        found(&module, "start"),
        "\"a\", \"b\", which are never called"
    );
    // What the module calls itself is called; and some set nothing up.
    for parts in [
        "(export \"init\" (func $set-up)) (start $set-up)",
        "(export \"rules\" (func $set-up)) (func (export \"_initialize\") (call $set-up))",
        "(func (export \"__collect\")) (func (export \"rules\") (param i32))",
    ] {
        let (_, module) = one(&[], &set_up(&dir, parts));
        assert!(!remarks(&module).contains(&"!start".to_owned()), "{parts}");
    }
    // AssemblyScript exports its start under the name it is given.
    for name in ["_start", "rules"] {
        let text = format!(
            r#"(module (import "env" "abort" (func (param i32 i32 i32 i32)))
            (memory (export "memory") 17) (data (i32.const 1024) "{{\22decision\22:\22allow\22}}")
            (func (export "{name}")) (func (export "__collect"))
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "dealloc") (param i32 i32))
            (func (export "on_request_headers") (param i32 i32) (result i64) {ALLOW}))"#
        );
        let (_, module) = one(&[], &dir.file("as.wat", text));
        assert_eq!(remarks(&module), ["!start"], "{name}");
        assert!(
            row(&module, "start")["fix"]
                .as_str()
                .unwrap()
                .contains("without --exportStart")
        );
    }
}

#[test]
fn a_notice_of_emscripten_is_linked_and_does_nothing() {
    let dir = TestDir::new();
    let importing = |ty: &str| {
        let text = format!(
            r#"(module (import "env" "emscripten_notify_memory_growth" (func $notify (param {ty})))
            (memory (export "memory") 17) (data (i32.const 1024) "{{\22decision\22:\22allow\22}}")
            (func (export "alloc") (param i32) (result i32)
              (call $notify ({ty}.const 0)) (i32.const 65536))
            (func (export "dealloc") (param i32 i32))
            (func (export "on_request_headers") (param i32 i32) (result i64) {ALLOW}))"#
        );
        dir.file("notice.wat", text)
    };
    let file = importing("i32");
    let (code, module) = one(&["--wasi", "none"], &file);
    assert_eq!((code, remarks(&module)), (0, vec![]));
    steps(&run(&file, &[&dir.request()], &[]).json())[0].assert_allowed();
    let (code, module) = one(&[], &importing("i64"));
    let id = "import:env.emscripten_notify_memory_growth";
    assert_eq!((code, remarks(&module)), (1, vec![id.to_owned()]));
}

/// An answer that is packed wrongly is never read, and so allows everything.
#[test]
fn an_answer_that_is_packed_wrongly_is_told() {
    let block = "(data (i32.const 4096) \"  {\\22decision\\22:\\22block\\22}\")";
    for (packed, id, word) in [
        (
            "(i64.const 4096)",
            "empty:on_request_headers",
            "an address alone",
        ),
        (
            "(i64.const 0x0000_0016_0000_1000)",
            "answer:on_request_headers",
            "(length << 32) | address",
        ),
        (
            "(i64.const 0x0FFF_FFF0_0000_1000)",
            "answer:on_request_headers",
            "must lie inside memory",
        ),
    ] {
        let dir = TestDir::new();
        let (code, module) = one(&[], &guest(&dir, "m.wat", block, packed));
        assert_eq!(code, 1, "{packed}");
        let row = row(&module, id);
        assert_eq!(row["status"], "fail", "{row}");
        assert!(row.to_string().contains(word), "{row}");
    }
    // To answer nothing, or from nowhere, stays what it was: a warning.
    for packed in [
        "(i64.const 0)",
        "(i64.const 7)",
        "(i64.const 0x0000_1000_0000_0000)",
    ] {
        let dir = TestDir::new();
        let (code, module) = one(&[], &guest(&dir, "m.wat", block, packed));
        assert_eq!(
            (
                code,
                row(&module, "empty:on_request_headers")["status"].clone()
            ),
            (0, json!("warn")),
            "{packed}"
        );
    }
}
