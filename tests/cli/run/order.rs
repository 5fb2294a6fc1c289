//! Fixtures of one run share instances: where an answer depends on the ones before, it
//! is told.

use crate::support::guests::{ALLOW, guest, limiter};
use crate::support::{TestDir, binary, finish};

const EXPECTS: &str = r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"decision":"block"}}"#;
const SAID: &str = "the answer depends on earlier calls on the same instance: allow on a new one, block 429 after 2 calls";

#[test]
fn an_answer_that_hangs_on_the_fixtures_before_is_told_in_every_format() {
    let dir = TestDir::new();
    let module = limiter(&dir, "limiter.wat", 2);
    for number in 0..2 {
        dir.file(&format!("f/{number}.json"), r#"{"method":"GET","uri":"/"}"#);
    }
    // It holds because of the two before, and would not behind a new instance.
    dir.file("f/last.json", EXPECTS);
    let ran = |flags: &[&str]| {
        let mut command = binary(["run", "--jobs", "1"]);
        command.arg(&module).arg(dir.path("f")).args(flags);
        finish(command)
    };
    for format in [
        "human", "json", "jsonl", "markdown", "html", "junit", "github",
    ] {
        let done = ran(&["--format", format]);
        done.assert_code(0);
        let text = done.text();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = match format {
            "json" => {
                r#""kind": "earlier_calls", "on_new": "allow", "on_used": "block 429", "calls_before": 2"#
            }
            "jsonl" => {
                r#""kind":"earlier_calls","on_new":"allow","on_used":"block 429","calls_before":2"#
            }
            _ => SAID,
        };
        assert!(text.contains(said), "{format}: {text}");
    }
    let report = ran(&["--format", "json"]).json();
    assert_eq!(report["totals"]["fixtures"]["warned"], 1, "{report}");
    // Each call on an instance of its own; and a module that keeps nothing.
    let done = ran(&["--isolation", "fresh"]);
    done.assert_code(1);
    assert!(!done.text().contains("earlier calls"), "{}", done.text());
    let steady = guest(&dir, "steady.wat", "", ALLOW);
    let mut command = binary(["run", "--jobs", "1"]);
    command.arg(&steady).arg(dir.path("f"));
    assert!(!finish(command).text().contains("earlier calls"));
}
