//! What a guest may take of memory and tables, measured
//! on the process and not on our own word.

use crate::support::guests::{ALLOW, guest, guest_with};
use crate::support::{Done, TestDir, run, shipped, steps, wasm_agent};

const CAP_KIB: u64 = 64 << 10;
const SLACK_KIB: u64 = 4 << 10;

/// Peak memory of a run in which nothing happens.
fn baseline_kib() -> u64 {
    let dir = TestDir::new();
    let done = run(&shipped("right/allow.wat"), &[&dir.request()], &[]);
    done.assert_code(0);
    assert!(done.peak_kib > 1024, "no figure for memory: {done:?}");
    done.peak_kib
}

#[track_caller]
fn assert_below(done: &Done, limit_kib: u64) {
    assert!(
        done.peak_kib <= limit_kib,
        "{} KiB at the peak, at most {limit_kib} KiB allowed",
        done.peak_kib
    );
}

#[test]
fn m_06_four_greedy_guests_stay_within_their_caps() {
    let dir = TestDir::new();
    for number in 0..8 {
        dir.file(
            &format!("events/{number}.json"),
            r#"{"method":"GET","uri":"/"}"#,
        );
    }
    // It takes what it is given and writes to all of it.
    let done = run(
        &shipped("hostile/fill-loop.wat"),
        &[&dir.path("events")],
        &["--jobs", "4"],
    );
    for step in steps(&done.json()) {
        step.assert_fault("deadline", false);
        assert_eq!(step.memory_bytes(), 64 << 20);
    }
    assert_below(&done, baseline_kib() + 4 * (CAP_KIB + SLACK_KIB));
}

#[test]
fn m_06_growth_beyond_the_cap_is_refused_and_then_named() {
    let dir = TestDir::new();
    let done = run(&shipped("hostile/grow-bomb.wat"), &[&dir.request()], &[]);
    let step = &steps(&done.json())[0];
    step.assert_fault("memory-limit", false);
    assert!(step.memory_bytes() <= 64 << 20, "{step:?}");
    assert_below(&done, baseline_kib() + CAP_KIB + SLACK_KIB);
    // The flag is the cap: 17 pages are there, the guest asks for more.
    let done = run(
        &shipped("hostile/grow-bomb.wat"),
        &[&dir.request()],
        &["--max-memory", "2MiB"],
    );
    assert_eq!(steps(&done.json())[0].memory_bytes(), 2 << 20);
}

#[test]
fn m_06_a_guest_that_copes_with_a_refusal_is_no_fault() {
    let dir = TestDir::new();
    let done = run(
        &shipped("hostile/grow-refused-handled.wat"),
        &[&dir.request()],
        &[],
    );
    done.assert_code(0);
    assert_eq!(steps(&done.json())[0].tags(), ["refused"]);
}

#[test]
fn m_06_a_million_grows_of_nothing_end() {
    let dir = TestDir::new();
    let done = run(
        &shipped("hostile/grow-zero.wat"),
        &[&dir.request()],
        &["--timeout", "2s"],
    );
    steps(&done.json())[0].assert_allowed();
}

#[test]
fn m_06_grows_are_counted_within_a_call_and_anew_in_the_next() {
    let dir = TestDir::new();
    let module = guest(
        &dir,
        "m.wat",
        "",
        &format!(
            "(local $n i32) (loop $again (drop (memory.grow (i32.const 1)))
             (local.set $n (i32.add (local.get $n) (i32.const 1)))
             (br_if $again (i32.lt_u (local.get $n) (i32.const 12000)))) {ALLOW}"
        ),
    );
    let done = run(
        &module,
        &[&dir.requests("r.json", 2)],
        &["--max-memory", "4GiB", "--timeout", "5s"],
    );
    let pages: Vec<u64> = steps(&done.json())
        .iter()
        .map(|step| step.memory_bytes() >> 16)
        .collect();
    assert_eq!(pages, [17 + 10_000, 17 + 20_000]);
}

#[test]
fn m_07_bombs_at_instantiation_are_refused_at_load() {
    let dir = TestDir::new();
    let four = "(table 20000 funcref)".repeat(4);
    let five = "(table 1 funcref)".repeat(5);
    let fine = guest(&dir, "four-tables.wat", &four, ALLOW);
    run(&fine, &[&dir.request()], &[]).assert_code(0);
    let limit = baseline_kib() + (20 << 10);
    for (module, check) in [
        (shipped("invalid/memory-too-large.wat"), "memory"),
        (
            guest(&dir, "two-memories.wat", "(memory 600) (memory 600)", ALLOW),
            "memory",
        ),
        (
            guest(&dir, "nine-memories.wat", &"(memory 0)".repeat(8), ALLOW),
            "memory",
        ),
        (shipped("invalid/hundred-memories.wat"), "memory"),
        (shipped("invalid/table-too-large.wat"), "tables"),
        (guest(&dir, "five-tables.wat", &five, ALLOW), "tables"),
        (
            guest(&dir, "large-table.wat", "(table 20001 funcref)", ALLOW),
            "tables",
        ),
    ] {
        let done = run(&module, &[&dir.request()], &["--fail-open"]);
        done.assert_code(1);
        assert!(done.stdout.is_empty());
        assert!(
            done.stderr.contains(&format!("  {check}: expected")),
            "{}",
            done.stderr
        );
        assert_below(&done, limit);
    }
}

/// `--max-memory` bounds the sum of all memories, at the start and at each growth.
#[test]
fn m_06_several_memories_share_one_limit() {
    let dir = TestDir::new();
    let grows = |memory: &str, pages: u32| {
        format!(
            "(if (i32.eq (memory.grow {memory} (i32.const {pages})) (i32.const -1)) (then unreachable)) {ALLOW}"
        )
    };
    let two = "(memory $second 3)";
    let limit = ["--max-memory", "1920KiB"]; // 30 pages, of which 20 are there.
    for (name, parts, body, is_refused) in [
        ("as-much-as-there-is", two, grows("$second", 10), false),
        ("second-over", two, grows("$second", 11), true),
        ("first-over", two, grows("0", 11), true),
        (
            "both-over",
            two,
            format!(
                "(drop (memory.grow $second (i32.const 6))) {}",
                grows("0", 5)
            ),
            true,
        ),
        (
            "third-over",
            "(memory 1) (memory $second 2)",
            grows("$second", 11),
            true,
        ),
        // Beyond its own word, or what can be addressed: nothing is taken by that.
        (
            "refused-by-itself",
            "(memory $second 3 4)",
            format!(
                "(drop (memory.grow $second (i32.const 2))) (drop (memory.grow $second (i32.const -1))) {}",
                grows("0", 10)
            ),
            false,
        ),
    ] {
        let file = guest(&dir, &format!("{name}.wat"), parts, &body);
        let done = run(&file, &[&dir.request()], &limit);
        let step = &steps(&done.json())[0];
        if is_refused {
            step.assert_fault("memory-limit", false);
        } else {
            assert_eq!(step.decision(), "allow", "{name}");
            assert_eq!(step.memory_bytes(), 30 << 16, "{name}");
        }
        assert!(step.memory_bytes() <= 30 << 16, "{name}: {step:?}");
    }
    // At the start.
    let file = guest(&dir, "start.wat", "(memory 13)", ALLOW);
    run(&file, &[&dir.request()], &limit).assert_code(0);
    let file = guest(&dir, "start.wat", "(memory 14)", ALLOW);
    let done = run(&file, &[&dir.request()], &limit);
    done.assert_code(1);
    assert!(
        done.stderr.contains("2 memories, 1984 KiB"),
        "{}",
        done.stderr
    );
    // What is 64-bit, shared or imported is refused, whichever memory it is.
    for (parts, check) in [
        ("(memory i64 1)", "features"),
        ("(memory 1 2 shared)", "features"),
        ("(import \"env\" \"memory\" (memory 1))", "memory"),
    ] {
        let file = dir.file(
            "other.wat",
            format!(
                "(module {parts} (memory (export \"memory\") 17)
                 (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
                 (func (export \"dealloc\") (param i32 i32))
                 (func (export \"on_request_headers\") (param i32 i32) (result i64) (i64.const 0)))"
            ),
        );
        let done = run(&file, &[&dir.request()], &[]);
        done.assert_code(1);
        assert!(
            done.stderr.contains(&format!("  {check}: expected")),
            "{parts}: {}",
            done.stderr
        );
    }
}

/// The exported memory is the one of the input and the answers; what is kept in another
/// one is state as any other.
#[test]
fn m_06_another_memory_is_copied_to_grows_and_remembers() {
    let dir = TestDir::new();
    let done = run(&shipped("right/two-memories.wat"), &[&dir.request()], &[]);
    let step = &steps(&done.json())[0];
    assert_eq!(step.tags(), ["second-memory"]);
    assert_eq!(step.memory_bytes(), 2 << 16);
    // A leak in the second one: its instance is replaced in time.
    let leaking = guest(
        &dir,
        "leaking.wat",
        "(memory $second 1)",
        &format!(
            "(if (i32.eq (memory.grow $second (i32.const 16)) (i32.const -1)) (then unreachable)) {ALLOW}"
        ),
    );
    let done = run(
        &leaking,
        &[&dir.request()],
        &["--repeat", "200", "--jobs", "1"],
    );
    done.assert_code(0);
    let done = wasm_agent([
        "validate".as_ref(),
        leaking.as_os_str(),
        "--format=json".as_ref(),
    ]);
    let growth = &done.json()["modules"][0]["metrics"]["growth"];
    assert_eq!(growth["trend"], "growing", "{growth}");
    let remembering = guest(
        &dir,
        "remembering.wat",
        "(memory $second 1) (data (i32.const 2048) \"{\\22decision\\22:\\22block\\22}\")",
        &format!(
            "(i32.store $second (i32.const 0) (i32.add (i32.load $second (i32.const 0)) (i32.const 1)))
             (select (i64.const 0x0000_0800_0000_0014) {ALLOW}
               (i32.gt_u (i32.load $second (i32.const 0)) (i32.const 700)))"
        ),
    );
    let done = wasm_agent([
        "validate".as_ref(),
        remembering.as_os_str(),
        "--format=json".as_ref(),
    ]);
    done.assert_code(1);
    assert!(done.text().contains("after 700 calls"), "{}", done.text());
}

#[test]
fn m_07_a_table_does_not_grow_beyond_its_limit() {
    let dir = TestDir::new();
    let module = guest(
        &dir,
        "m.wat",
        "(table $t 1 funcref)",
        &format!(
            "(if (i32.ne (table.grow $t (ref.null func) (i32.const 19999)) (i32.const 1))
               (then (unreachable)))
             (if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))
               (then (unreachable)))
             {ALLOW}"
        ),
    );
    steps(&run(&module, &[&dir.request()], &[]).json())[0].assert_allowed();
}

#[test]
fn m_19_a_leaking_guest_is_replaced_before_it_meets_the_limit() {
    let dir = TestDir::new();
    let done = run(
        &shipped("hostile/leak.wat"),
        &[&dir.requests("r.json", 3000)],
        &[],
    );
    done.assert_code(0);
    let steps = steps(&done.json());
    assert_eq!(steps.len(), 3000);
    let mut replaced = 0;
    for pair in steps.windows(2) {
        pair[1].assert_allowed();
        assert!(pair[1].memory_bytes() <= 64 << 20);
        replaced += usize::from(pair[1].memory_bytes() < pair[0].memory_bytes());
    }
    assert!(replaced >= 3, "replaced {replaced} times in 3000 calls");
}

#[test]
fn m_19_a_leak_that_is_written_to_stays_below_the_cap() {
    let dir = TestDir::new();
    let alloc = "(func (export \"alloc\") (param i32) (result i32) (local $at i32)
          (local.set $at (i32.mul (memory.grow (i32.const 16)) (i32.const 65536)))
          (memory.fill (local.get $at) (i32.const 1) (i32.const 0x100000))
          (local.get $at))
        (func (export \"dealloc\") (param i32 i32))";
    let module = guest_with(&dir, "m.wat", alloc, ALLOW);
    let done = run(
        &module,
        &[&dir.request()],
        &["--repeat", "500", "--timeout", "2s"],
    );
    let step = &steps(&done.json())[0];
    step.assert_allowed();
    assert!(step.0["unstable"].is_null(), "{step:?}");
    assert_below(&done, baseline_kib() + CAP_KIB + SLACK_KIB);
}

/// A guest that tags all but the first five requests: a limiter, which only limits
/// where its instance is kept. It has so many pages from its start, and takes
/// others in its first calls.
fn limiter(dir: &TestDir, pages: u32, grows: [u32; 3]) -> std::path::PathBuf {
    let [first, second, third] = grows;
    dir.file(
        "limiter.wat",
        format!(
            r#"(module (memory (export "memory") {pages}) (global $calls (mut i32) (i32.const 0))
            (data (i32.const 1024) "{{\"decision\":\"allow\"}}{{\"decision\":\"allow\",\"tags\":[\"over\"]}}")
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "dealloc") (param i32 i32))
            (func (export "on_request_headers") (param i32 i32) (result i64)
              (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
              (if (i32.eq (global.get $calls) (i32.const 1)) (then (drop (memory.grow (i32.const {first})))))
              (if (i32.eq (global.get $calls) (i32.const 2)) (then (drop (memory.grow (i32.const {second})))))
              (if (i32.eq (global.get $calls) (i32.const 3)) (then (drop (memory.grow (i32.const {third})))))
              (select (i64.const 0x41400000024) (i64.const 0x40000000014)
                (i32.gt_u (global.get $calls) (i32.const 5)))))"#
        ),
    )
}

/// What an instance has from its start is no growth, and neither is what it takes
/// once and then lives on.
#[test]
fn m_19_an_instance_that_does_not_go_on_growing_is_kept() {
    for (pages, grows) in [
        (2, [0, 0, 0]),
        (770, [0, 0, 0]),
        (800, [0, 0, 0]),
        (1000, [0, 0, 0]),
        (1024, [0, 0, 0]),
        (800, [10, 0, 0]),
        (800, [200, 0, 0]),
        (800, [224, 0, 0]),
        (1000, [24, 0, 0]),
        (2, [1000, 0, 0]),
        (2, [600, 200, 0]),
        (2, [0, 0, 900]),
        (2, [300, 300, 200]),
    ] {
        let dir = TestDir::new();
        let module = limiter(&dir, pages, grows);
        let done = run(
            &module,
            &[&dir.requests("r.json", 20)],
            &["--timeout", "5s"],
        );
        let steps = steps(&done.json());
        let over = steps.iter().filter(|step| step.tags() == ["over"]).count();
        assert_eq!(over, 15, "{pages} pages, then {grows:?}");
    }
}

#[test]
fn m_19_what_is_thrown_away_is_said_and_why() {
    let leak = shipped("hostile/leak.wat");
    let done = wasm_agent(["validate", leak.to_str().unwrap(), "--format", "json"]);
    let report = done.json();
    let text = report.to_string();
    assert!(text.contains("\"replaced_after\":"), "{text}");
    let says = "after it has used 75 % of the memory that was free after its start (--max-memory)";
    assert!(text.contains(says), "{text}");
    let done = wasm_agent([
        "bench",
        leak.to_str().unwrap(),
        "-n",
        "20",
        "--pool-size",
        "1",
        "-c",
        "1",
        "--timeout",
        "1s",
    ]);
    assert!(
        done.text()
            .contains("In production an instance is replaced after "),
        "{}",
        done.text()
    );
    // What is large from its start, and stays as it is, is not.
    let dir = TestDir::new();
    let large = limiter(&dir, 1000, [0, 0, 0]);
    let done = wasm_agent(["validate", large.to_str().unwrap(), "--format", "json"]);
    assert!(!done.json().to_string().contains("replaced_after"));
}
