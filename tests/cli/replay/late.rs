//! A guest that is late is asked once more, alone, before that is a fault.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::har;
use crate::support::{TestDir, binary, finish};

/// A guest that does not answer before this time, in milliseconds since 1970.
fn answering_from(millis: u128) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 17)
  (data (i32.const 512) "{{\22decision\22:\22allow\22}}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "on_request_headers") (param i32 i32) (result i64)
    (loop $wait
      (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 16)))
      (br_if $wait (i64.lt_u
        (i64.div_u (i64.load (i32.const 16)) (i64.const 1000000))
        (i64.const {millis}))))
    (i64.const 0x0000_0200_0000_0014)))"#
    )
}

fn report(module: &Path, capture: &Path, timeout: &str) -> Value {
    let mut command = binary(["replay", "--wasi", "real", "--format", "json", "--timeout"]);
    command.arg(timeout).arg(module).arg(capture);
    finish(command).json()
}

#[test]
fn a_deadline_is_a_fault_only_where_it_is_missed_twice() {
    let dir = TestDir::new();
    let capture = dir.file("a.har", har(1, |_| false));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // Late when it is asked first, and ready soon after it is asked again.
    let module = dir.file("once.wat", answering_from(now.as_millis() + 3_000));
    let once = report(&module, &capture, "2s");
    assert_eq!(once["outcomes"]["faulted"], 0, "{once}");
    assert_eq!(once["outcomes"]["decisions"]["allow"], 1, "{once}");
    let module = dir.file("never.wat", answering_from(now.as_millis() * 2));
    let capture = dir.file("b.har", har(12, |_| false));
    let never = report(&module, &capture, "20ms");
    assert_eq!(never["outcomes"]["faults"]["deadline"], 12, "{never}");
}
