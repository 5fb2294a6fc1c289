//! What goes wrong in one call, and what the
//! next call gets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::support::guests::{ALLOW, Answers, EVENTS, guest, guest_with};
use crate::support::{
    MODES, Random, TestDir, finish, run, run_command, shipped, steps, wasm_agent,
};

#[test]
fn m_01_a_trapped_instance_is_not_reused() {
    for module in ["hostile/poison-once.wat", "panics/panics.wasm"] {
        for (fail_open, mode) in MODES {
            let dir = TestDir::new();
            dir.request_with("events/0.json", "x-poison");
            dir.request_with("events/1.json", "x-panic");
            dir.requests("events/2.json", 1000);
            let report = run(&shipped(module), &[&dir.path("events")], mode).json();
            let steps = steps(&report);
            let faulty: Vec<_> = steps.iter().filter(|step| step.fault().is_some()).collect();
            assert_eq!(faulty.len(), 1, "{module}: {}", report["totals"]);
            faulty[0].assert_fault("trap:unreachable", fail_open);
            assert_eq!(steps.len(), 1002);
            assert_eq!(report["verdict"], "failed");
        }
    }
}

#[test]
fn m_01_each_kind_of_trap_is_a_fault_with_its_name() {
    for (module, code) in [
        ("hostile/trap-unreachable.wat", "trap:unreachable"),
        ("hostile/trap-div0.wat", "trap:divide-by-zero"),
        ("hostile/trap-oob.wat", "trap:out-of-bounds"),
    ] {
        for (fail_open, mode) in MODES {
            let dir = TestDir::new();
            let done = run(&shipped(module), &[&dir.request()], mode);
            done.assert_code(1);
            steps(&done.json())[0].assert_fault(code, fail_open);
        }
    }
}

/// Well below this the deadline of 50 ms must have ended a call; the machine
/// may be busy, so it is no measure of the deadline.
const SOON: Duration = Duration::from_millis(2500);
const DEADLINE: Duration = Duration::from_millis(50);

/// A guest whose second call on one instance traps. What it does on its first
/// call must cost it that instance, so the second call gets another one.
#[test]
fn m_01_every_fault_that_leaves_an_instance_in_doubt_costs_it() {
    let allocs = |wrong: &str| {
        format!(
            "(func (export \"alloc\") (param i32) (result i32)
               (if (i32.gt_u (local.get 0) (i32.const 1000)) (then (return (i32.const {wrong}))))
               (i32.const 65536))"
        )
    };
    let fine = allocs("65536");
    for (code, alloc, wrong) in [
        ("trap:unreachable", &fine, "unreachable"),
        ("trap:stack-overflow", &fine, "(call $deep)"),
        ("deadline", &fine, "(loop $forever (br $forever))"),
        ("fuel", &fine, "(loop $forever (br $forever))"),
        (
            "memory-limit",
            &fine,
            "(drop (memory.grow (i32.const 60000))) unreachable",
        ),
        (
            "answer-limit",
            &fine,
            "(return (i64.const 0x0000_0400_0010_0001))",
        ),
        (
            "bad-answer:out-of-bounds",
            &fine,
            "(return (i64.const 0x0000_0400_7fff_ffff))",
        ),
        ("alloc:null", &allocs("0"), ""),
        ("alloc:out-of-bounds", &allocs("-16"), ""),
    ] {
        let dir = TestDir::new();
        let parts = format!(
            "(global $calls (mut i32) (i32.const 0)) (func $deep (call $deep)) {alloc}
             (func (export \"dealloc\") (param i32 i32))"
        );
        // An alloc that fails cannot count, but its own size tells it apart.
        let body = format!(
            "(if (global.get $calls) (then (unreachable)))
             (global.set $calls (i32.const 1))
             (if (i32.gt_u (local.get $len) (i32.const 1000)) (then {wrong})) {ALLOW}"
        );
        let module = guest_with(&dir, "m.wat", &parts, &body);
        let long = "a".repeat(1000);
        dir.file(
            "events/0.json",
            format!(r#"{{"method":"GET","uri":"/{long}"}}"#),
        );
        dir.file("events/1.json", r#"{"method":"GET","uri":"/"}"#);
        let mut flags = vec!["--timeout", "50ms"];
        if code == "fuel" {
            flags = vec!["--fuel", "10000"];
        }
        let report = run(&module, &[&dir.path("events")], &flags).json();
        let steps = steps(&report);
        steps[0].assert_fault(code, false);
        assert_eq!(steps[1].fault(), None, "after {code}: {:?}", steps[1]);
    }
}

/// An answer that was read whole and then disliked says nothing about the
/// instance: it is kept, as the same state in the next call shows.
#[test]
fn m_01_a_bad_answer_alone_costs_no_instance() {
    let dir = TestDir::new();
    let body = format!(
        "(if (global.get $calls) (then (return {ALLOW})))
         (global.set $calls (i32.const 1)) (i64.const 0x0000_0400_0000_0005)"
    );
    let module = guest(
        &dir,
        "m.wat",
        "(global $calls (mut i32) (i32.const 0))",
        &body,
    );
    dir.file("events/0.json", r#"{"method":"GET","uri":"/"}"#);
    dir.file("events/1.json", r#"{"method":"GET","uri":"/"}"#);
    let report = run(&module, &[&dir.path("events")], &[]).json();
    let steps = steps(&report);
    steps[0].assert_fault("bad-answer:not-json", false);
    steps[1].assert_allowed();
}

#[test]
fn m_02_an_endless_handler_ends_at_its_deadline() {
    for (fail_open, mode) in MODES {
        let dir = TestDir::new();
        let flags = [&["--timeout", "50ms"], mode].concat();
        let done = run(&shipped("hostile/spin.wat"), &[&dir.request()], &flags);
        done.assert_code(1);
        let step = &steps(&done.json())[0];
        step.assert_fault("deadline", fail_open);
        assert!(step.time() >= DEADLINE && step.time() < SOON, "{step:?}");
    }
}

/// Spins when the path begins with `s`.
const SPINS_ON_DEMAND: &str = "(if (i32.eq (i32.load8_u offset=24 (local.get $ptr)) (i32.const 115))\
      (then (loop $forever (br $forever))))";

#[test]
fn m_02_neighbours_of_runaways_are_answered() {
    let dir = TestDir::new();
    let module = guest(&dir, "m.wat", "", &format!("{SPINS_ON_DEMAND} {ALLOW}"));
    for number in 0..16 {
        let path = if number % 2 == 0 { "spin" } else { "good" };
        dir.file(
            &format!("events/{number:02}.json"),
            format!(r#"{{"method":"GET","uri":"/{path}"}}"#),
        );
    }
    let report = run(
        &module,
        &[&dir.path("events")],
        &["--timeout", "50ms", "--jobs", "4"],
    )
    .json();
    for (number, step) in steps(&report).iter().enumerate() {
        if number % 2 == 0 {
            step.assert_fault("deadline", false);
            assert!(step.time() < SOON, "{step:?}");
        } else {
            step.assert_allowed();
        }
    }
}

#[test]
fn m_03_an_endless_alloc_ends_at_the_deadline() {
    let dir = TestDir::new();
    let done = run(
        &shipped("hostile/spin-alloc.wat"),
        &[&dir.request()],
        &["--timeout", "50ms"],
    );
    let step = &steps(&done.json())[0];
    step.assert_fault("deadline", false);
    assert!(step.time() < SOON, "{step:?}");
}

#[test]
fn m_03_an_endless_dealloc_keeps_the_answer_and_loses_the_instance() {
    let dir = TestDir::new();
    let parts = "(global $calls (mut i32) (i32.const 0))
        (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
        (func (export \"dealloc\") (param i32 i32) (loop $forever (br $forever)))";
    let counts = format!(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (if (i32.gt_u (global.get $calls) (i32.const 1)) (then (unreachable))) {ALLOW}"
    );
    let module = guest_with(&dir, "m.wat", parts, &counts);
    let done = run(
        &module,
        &[&dir.requests("r.json", 4)],
        &["--timeout", "50ms"],
    );
    for step in steps(&done.json()) {
        step.assert_allowed();
        // alloc, handler and dealloc share one deadline.
        assert!(step.time() >= DEADLINE && step.time() < SOON, "{step:?}");
    }
}

#[test]
fn m_03_a_start_that_does_not_end_refuses_the_module() {
    let dir = TestDir::new();
    let initialize = guest(
        &dir,
        "initialize.wat",
        "(func (export \"_initialize\") (loop $forever (br $forever)))",
        ALLOW,
    );
    for module in [shipped("invalid/start-spins.wat"), initialize] {
        for (_, mode) in MODES {
            let done = run(&module, &[&dir.request()], mode);
            done.assert_code(1);
            assert!(done.stderr.contains("deadline"), "{}", done.stderr);
            assert!(done.stderr.contains(".wat"), "{}", done.stderr);
            assert!(done.stdout.is_empty());
            assert!(done.cpu < SOON, "{done:?}");
        }
    }
    let done = run(&shipped("invalid/start-traps.wat"), &[&dir.request()], &[]);
    done.assert_code(1);
    assert!(done.stderr.contains("trap:unreachable"), "{}", done.stderr);
}

#[test]
fn m_04_huge_fills_end_at_the_deadline() {
    let dir = TestDir::new();
    let module = shipped("hostile/fill-loop.wat");
    let done = run(&module, &[&dir.request()], &["--timeout", "50ms"]);
    let step = &steps(&done.json())[0];
    step.assert_fault("deadline", false);
    assert!(step.time() < SOON, "{step:?}");
    assert!(step.memory_bytes() <= 64 << 20, "{step:?}");
}

#[test]
fn m_05_endless_recursion_is_a_trap_whatever_the_stack_of_threads() {
    let dir = TestDir::new();
    for stack in [None, Some("131072"), Some("8388608")] {
        let mut command = run_command(
            &shipped("hostile/recursion.wat"),
            &[&dir.request()],
            // No deadline of a busy machine may stand in for the trap.
            &["--repeat", "1000", "--timeout", "10s"],
        );
        if let Some(stack) = stack {
            command.env("RUST_MIN_STACK", stack);
        }
        let done = finish(command);
        done.assert_code(1);
        let step = &steps(&done.json())[0];
        step.assert_fault("trap:stack-overflow", false);
        // All the others were like the first.
        assert_eq!(step.0["unstable"], json!(null));
    }
}

#[test]
fn m_05_recursion_in_a_start_function_is_a_refusal() {
    let dir = TestDir::new();
    let module = guest(
        &dir,
        "m.wat",
        "(func $deep (call $deep)) (start $deep)",
        ALLOW,
    );
    let mut command = run_command(&module, &[&dir.request()], &[]);
    command.env("RUST_MIN_STACK", "131072");
    let done = finish(command);
    done.assert_code(1);
    assert!(done.stderr.contains("stack-overflow"), "{}", done.stderr);
}

#[test]
fn m_08_an_alloc_that_fails_is_a_fault_and_no_call() {
    for (fail_open, mode) in MODES {
        let dir = TestDir::new();
        let done = run(
            &shipped("hostile/alloc-null.wat"),
            &[&dir.requests("r.json", 3)],
            mode,
        );
        let steps = steps(&done.json());
        steps[0].assert_fault("alloc:null", fail_open);
        // The handler, had it been called, would have counted fuel.
        assert!(steps[0].0["fuel"].as_u64().unwrap() < 10, "{:?}", steps[0]);
    }
}

/// The input's size picks the address that `alloc` returns: each pointer is
/// held against arithmetic in 64 bits.
#[test]
fn m_09_every_address_from_alloc_is_checked_unsigned() {
    const MEMORY: u64 = 17 * 65536;
    let base =
        r#"{"method":"GET","uri":"/","client_ip":"192.0.2.1","correlation_id":"c","headers":{}}"#
            .len();
    let mut pointers: Vec<u32> = vec![
        0,
        1,
        3,
        7,
        255,
        65_535,
        65_537,
        0x10_ff00,
        0x10_ff9c,
        0x10_ffff,
        0x11_0000,
        0x11_0001,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        0xffff_fff0,
        0xffff_ff9c,
        0xffff_ffff,
    ];
    let mut random = Random::seeded("m_09", 0x5eed_0009);
    for _ in 0..100 {
        let high = random.next().is_multiple_of(2);
        let any = u32::try_from(random.next() >> 32).unwrap();
        pointers.push(if high { any } else { any % 0x11_0100 });
    }
    // The table and the answer must survive what is written to page 0.
    pointers.retain(|ptr| !(0x7c00..0x9000).contains(ptr));
    let dir = TestDir::new();
    let table: String = pointers
        .iter()
        .flat_map(|ptr| ptr.to_le_bytes())
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let module = dir.file(
        "m.wat",
        format!(
            "(module (memory (export \"memory\") 17)
             (data (i32.const 0x8000) \"{{\\22decision\\22:\\22allow\\22}}\")
             (data (i32.const 0x8100) \"{table}\")
             (func (export \"alloc\") (param i32) (result i32)
               (i32.load (i32.add (i32.const 0x8100)
                 (i32.mul (i32.sub (local.get 0) (i32.const {base})) (i32.const 4)))))
             (func (export \"dealloc\") (param i32 i32))
             (func (export \"on_request_headers\") (param i32 i32) (result i64)
               (i64.const 0x0000_8000_0000_0014)))"
        ),
    );
    for number in 0..pointers.len() {
        let path = "a".repeat(number);
        dir.file(
            &format!("events/{number:03}.json"),
            format!(r#"{{"method":"GET","uri":"/{path}","correlation_id":"c"}}"#),
        );
    }
    let report = run(&module, &[&dir.path("events")], &["--isolation", "fresh"]).json();
    for (number, (ptr, step)) in pointers.iter().zip(steps(&report)).enumerate() {
        let end = u64::from(*ptr) + u64::try_from(base + number).unwrap();
        if *ptr == 0 {
            step.assert_fault("alloc:null", false);
        } else if end > MEMORY {
            step.assert_fault("alloc:out-of-bounds", false);
        } else {
            assert_eq!(step.fault(), None, "alloc gave {ptr:#x}");
        }
    }
}

/// What the contract says of a packed value, in arithmetic of 64 bits.
fn verdict(packed: u64, memory_bytes: u64) -> &'static str {
    let (ptr, len) = (packed >> 32, packed & 0xffff_ffff);
    if len == 0 || ptr == 0 {
        "empty-answer"
    } else if ptr + len > memory_bytes {
        "bad-answer:out-of-bounds"
    } else if len > 1 << 20 {
        "answer-limit"
    } else {
        "bad-answer:not-json"
    }
}

#[test]
fn m_10_m_11_every_packed_value_is_checked_unsigned() {
    let mut table = Answers::default();
    // 2 MiB of spaces, so that a large answer can lie inside memory.
    table.add(&vec![b' '; 2 << 20]);
    let memory = table.memory_bytes();
    let at = |ptr: u64, len: u64| (ptr << 32) | len;
    let mut values = vec![
        u64::MAX,
        1 << 63,
        1 << 31,
        1 << 32,
        (1 << 31) | (1 << 63),
        0xffff_ffff_0000_0001,
        0x0000_0001_ffff_ffff,
        0x7fff_ffff_7fff_ffff,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0001,
        0xffff_ffff_8000_0000,
        0xffff_fff0_0000_0010,
        0xffff_fff0_0000_0011,
        at(1, 0x7fff_ffff),
        at(1, 0x8000_0000),
        at(1, 0xffff_fffe),
        at(1, memory),
        at(1, memory - 1),
        at(memory, 1),
        at(memory - 1, 1),
        at(memory - 1, 2),
        at(memory - 10, 11),
        at(40_000, 1 << 20),
        at(40_000, (1 << 20) + 1),
    ];
    let mut random = Random::seeded("m_10", 0x5eed_0010);
    values.extend((0..20).map(|_| random.next()));
    for value in &values {
        table.add_packed(*value);
    }
    for (fail_open, mode) in MODES {
        let steps = table.ask(&EVENTS, mode);
        for (value, answers) in values.iter().zip(steps[4..].chunks(4)) {
            for step in answers {
                match verdict(*value, memory) {
                    "empty-answer" => {
                        step.assert_allowed();
                        assert_eq!(step.tags(), ["empty-answer"], "{value:#x}");
                    }
                    code => {
                        println!("{value:#x} must be {code}");
                        step.assert_fault(code, fail_open);
                    }
                }
            }
        }
    }
}

#[test]
fn m_10_the_answer_limit_is_the_one_asked_for() {
    let table = Answers::of([
        format!("{:100}", r#"{"decision":"allow"}"#),
        format!("{:101}", r#"{"decision":"allow"}"#),
    ]);
    let steps = table.ask_requests(&["--max-answer", "100B"]);
    steps[0].assert_allowed();
    steps[1].assert_fault("answer-limit", false);
    let done = run(
        &shipped("hostile/answer-too-large.wat"),
        &[&TestDir::new().request()],
        &[],
    );
    steps_of_one(&done.json()).assert_fault("answer-limit", false);
}

fn steps_of_one(report: &serde_json::Value) -> crate::support::Step {
    steps(report).remove(0)
}

#[test]
fn m_12_an_empty_answer_allows_and_says_so() {
    let mut table = Answers::default();
    for packed in [0, 5, 0x1_0000_0000, 0xffff_ffff_0000_0000, 0xffff_ffff] {
        table.add_packed(packed);
    }
    for (_, mode) in MODES {
        for step in table.ask(&EVENTS, mode) {
            step.assert_allowed();
            assert_eq!(step.tags(), ["empty-answer"], "{step:?}");
            assert_eq!(step.0["status"], "unchecked", "{step:?}");
        }
    }
    for module in ["right/empty-answer.wat", "right/null-pointer-answer.wat"] {
        let mut arguments = vec!["run".into(), shipped(module).into_os_string()];
        let dir = TestDir::new();
        arguments.push(dir.request().into_os_string());
        let done = wasm_agent(&arguments);
        done.assert_code(0);
        assert!(
            done.text().contains("gave an empty answer"),
            "{}",
            done.text()
        );
    }
}

#[test]
fn m_12_a_handler_that_is_not_there_allows_without_a_call() {
    let dir = TestDir::new();
    let fixture = dir.file(
        "r.json",
        r#"{"event":"response_headers","input":{"status":200}}"#,
    );
    let step = steps_of_one(&run(&shipped("hostile/spin.wat"), &[&fixture], &[]).json());
    step.assert_allowed();
    assert_eq!(step.tags(), Vec::<&str>::new());
    assert!(step.0["time_ns"].is_null(), "{step:?}");
}

/// A late call may be repeated on an instance of its own, beside other work and three
/// times. A guest that hangs because of what its instance held is at fault all the same.
#[test]
fn m_02_a_guest_that_hangs_after_a_few_calls_is_at_fault() {
    let dir = TestDir::new();
    let body = format!(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (if (i32.gt_u (global.get $calls) (i32.const 3)) (then (loop $for_ever (br $for_ever))))
         {ALLOW}"
    );
    let module = guest(
        &dir,
        "m.wat",
        "(global $calls (mut i32) (i32.const 0))",
        &body,
    );
    let events: Vec<PathBuf> = (0..24)
        .map(|at| dir.requests(&format!("{at}.json"), 1))
        .collect();
    let events: Vec<&Path> = events.iter().map(PathBuf::as_path).collect();
    for jobs in ["1", "4"] {
        let done = run(&module, &events, &["--timeout", "50ms", "--jobs", jobs]);
        done.assert_code(1);
        let report = done.json();
        let faults = steps(&report)
            .iter()
            .filter(|step| step.fault() == Some("deadline"))
            .count();
        // With four jobs each of four instances hangs at its fourth call.
        assert!((2..=6).contains(&faults), "{jobs}: {faults}");
    }
}
