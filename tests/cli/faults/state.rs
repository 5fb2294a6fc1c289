//! Whether an answer hangs on the calls before it.

use crate::support::guests::{ALLOW, guest, guest_with};
use crate::support::{TestDir, run, shipped, steps};

/// What `counter.wat`, which blocks every second call on an instance, decides
/// in nine calls.
fn nine_decisions(isolation: &str) -> String {
    let dir = TestDir::new();
    for number in 0..9 {
        dir.file(
            &format!("events/{number}.json"),
            r#"{"method":"GET","uri":"/"}"#,
        );
    }
    let done = run(
        &shipped("hostile/counter.wat"),
        &[&dir.path("events")],
        &["--isolation", isolation],
    );
    steps(&done.json())
        .iter()
        .map(|step| step.decision().chars().next().unwrap())
        .collect()
}

#[test]
fn m_18_isolation_decides_how_long_state_lives() {
    assert_eq!(nine_decisions("fresh"), "aaaaaaaaa");
    assert_eq!(nine_decisions("recycle=1"), "aaaaaaaaa");
    assert_eq!(nine_decisions("recycle=2"), "abababab".to_owned() + "a");
    assert_eq!(nine_decisions("recycle=3"), "abaabaaba");
    assert_eq!(nine_decisions("pooled"), "ababababa");
}

#[test]
fn m_18_repeats_report_state_as_an_unstable_answer() {
    let dir = TestDir::new();
    let module = shipped("hostile/counter.wat");
    let done = run(&module, &[&dir.request()], &["--repeat", "10"]);
    done.assert_code(1);
    assert_eq!(steps(&done.json())[0].0["unstable"]["differing"], 5);
    let flags = ["--repeat", "10", "--isolation", "fresh"];
    run(&module, &[&dir.request()], &flags).assert_code(0);
}

#[test]
fn m_18_one_clients_secret_never_reaches_the_next_on_fresh_instances() {
    let dir = TestDir::new();
    for number in 0..4 {
        dir.file(
            &format!("events/{number}.json"),
            format!(r#"{{"method":"GET","uri":"/secret-{number}"}}"#),
        );
    }
    let told = |isolation: &str| -> Vec<String> {
        let done = run(
            &shipped("hostile/secret-echo.wat"),
            &[&dir.path("events")],
            &["--isolation", isolation],
        );
        steps(&done.json())
            .iter()
            .map(|step| step.tags()[0].to_owned())
            .collect()
    };
    assert_eq!(told("fresh"), ["previous:"; 4]);
    // The guest does leak where it is let.
    let secret: String = "/secret-2"
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(told("pooled")[3].contains(&secret));
}

#[test]
fn m_20_a_trap_in_dealloc_keeps_the_answer() {
    let dir = TestDir::new();
    let done = run(
        &shipped("hostile/dealloc-trap.wat"),
        &[&dir.request()],
        &["--repeat", "100"],
    );
    done.assert_code(0);
    let step = &steps(&done.json())[0];
    assert_eq!(step.fault(), None);
    assert_eq!((step.decision(), step.status()), ("block", Some(403)));
    assert_eq!(step.tags(), ["answered"]);
}

#[test]
fn m_20_a_trap_in_dealloc_costs_the_instance() {
    // The second call on an instance would trap, also where only giving back
    // the answer, and not the input, goes wrong.
    for trap in [
        "(unreachable)",
        "(if (i32.eq (local.get 0) (i32.const 1024)) (then (unreachable)))",
    ] {
        let dir = TestDir::new();
        let parts = format!(
            "(global $calls (mut i32) (i32.const 0))
             (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))
             (func (export \"dealloc\") (param i32 i32) {trap})"
        );
        let body = format!(
            "(if (global.get $calls) (then (unreachable)))
             (global.set $calls (i32.const 1)) {ALLOW}"
        );
        let module = guest_with(&dir, "m.wat", &parts, &body);
        for step in steps(&run(&module, &[&dir.requests("r.json", 50)], &[]).json()) {
            step.assert_allowed();
        }
    }
}

#[test]
fn m_25_a_nan_has_the_same_bits_in_every_run() {
    let dir = TestDir::new();
    let mut reports = Vec::new();
    for _ in 0..2 {
        let done = run(
            &shipped("hostile/float-nan.wat"),
            &[&dir.request()],
            &["--repeat", "100"],
        );
        done.assert_code(0);
        let step = steps(&done.json()).remove(0);
        assert!(step.0["unstable"].is_null());
        // The canonical NaN: quiet, positive, no payload. Uncanonical, the
        // sign of 0/0 is set on x86-64 and clear on aarch64.
        assert_eq!(step.tags(), ["nan:7ff8000000000000"]);
        reports.push((step.response().clone(), step.0["fuel"].clone()));
    }
    assert_eq!(reports[0], reports[1]);
}

#[test]
fn m_25_relaxed_simd_is_refused() {
    let dir = TestDir::new();
    let done = run(&shipped("invalid/relaxed-simd.wat"), &[&dir.request()], &[]);
    done.assert_code(1);
    assert!(done.stderr.contains("relaxed-simd"), "{}", done.stderr);
}

#[test]
fn m_25_equal_events_cost_equal_fuel() {
    let dir = TestDir::new();
    // Header order in the fixture must not reach the guest.
    for (name, headers) in [
        ("a", r#""x-a":"1","x-b":"2""#),
        ("b", r#""x-b":"2","x-a":"1""#),
    ] {
        dir.file(
            &format!("events/{name}.json"),
            format!(r#"{{"method":"GET","uri":"/","correlation_id":"c","headers":{{{headers}}}}}"#),
        );
    }
    let module = guest(
        &dir,
        "m.wat",
        "",
        // Fuel depends on every byte before the first `b`.
        &format!(
            "(loop $next
               (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
               (br_if $next (i32.ne (i32.load8_u (local.get $ptr)) (i32.const 98)))) {ALLOW}"
        ),
    );
    let report = run(&module, &[&dir.path("events")], &["--isolation", "fresh"]).json();
    let steps = steps(&report);
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0].0["fuel"], steps[1].0["fuel"]);
}
