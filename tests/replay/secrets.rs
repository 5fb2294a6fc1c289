//! Secrets in captures do not get into what is written.

use std::path::Path;

use crate::support::{Desk, finish, shipped};
use crate::{blocks_on, capture, command, replay};

const SECRETS: [&str; 4] = [
    "t0p-s3cr3t-token",
    "s3cr3t-session-0001",
    "hunter2-hunter2",
    "q-t0ken-value",
];

fn all_texts(folder: &Path) -> String {
    let mut texts = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.push_str(&all_texts(&path));
        } else {
            texts.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    texts
}

#[test]
fn no_format_and_no_file_has_a_secret_unless_asked() {
    let desk = Desk::new();
    // A second capture with a token in a query, and a module that changes all.
    let text = std::fs::read_to_string(capture("mitmproxy.har")).unwrap();
    let text = text.replace("/orders", "/orders?token=q-t0ken-value");
    for secret in SECRETS {
        assert!(text.contains(secret), "{secret}");
    }
    let har = desk.file("in/traffic.har", text);
    let old = desk.file("old.wat", blocks_on("\"x-nobody\":\"on\""));
    let new = desk.file("new.wat", blocks_on("127.0.0.1"));
    let echo = shipped("hostile/secret-echo.wat");
    for (module, keep) in [(&new, false), (&echo, false), (&new, true)] {
        let out = desk.path(if keep { "kept" } else { "out" });
        std::fs::create_dir_all(&out).unwrap();
        let mut command = command(module, &[&har]);
        command.arg("--baseline").arg(&old);
        command.args(["--minimize", "--examples", "50", "--format", "jsonl"]);
        command.arg("--save-fixture").arg(out.join("fixtures"));
        command.arg("--save").arg(out.join("saved.jsonl"));
        for format in ["human", "json", "junit", "markdown", "html", "github"] {
            command.arg("--report");
            command.arg(format!("{format}={}", out.join(format).display()));
        }
        if keep {
            command.arg("--keep-secrets");
        }
        let done = finish(command);
        done.assert_calm();
        let written = all_texts(&out) + &done.text() + &done.stderr;
        for secret in SECRETS {
            assert!(keep || !written.contains(secret), "{secret}");
        }
        // Bodies behind a refusal are not part of what is written.
        assert_eq!(written.contains(SECRETS[0]), keep);
    }
}

#[test]
fn equal_secrets_stay_equal_and_a_key_makes_captures_agree() {
    let rules = shipped("rules/rules-published-spelling.wasm");
    let token = |name: &str, flags: &[&str]| {
        let desk = Desk::new();
        let saved = desk.path("saved.jsonl");
        let flags = [flags, &["--save", saved.to_str().unwrap()]].concat();
        replay(&rules, &[&capture(name)], &flags).assert_calm();
        let text = std::fs::read_to_string(saved).unwrap();
        let at = text.find("Bearer redacted:").unwrap() + 16;
        text[at..at + 16].to_owned()
    };
    assert_eq!(token("chromium.har", &[]), token("chromium.har", &[]));
    assert_ne!(
        token("chromium.har", &["--redact-key", "one"]),
        token("chromium.har", &["--redact-key", "two"])
    );
    assert_eq!(
        token("chromium.har", &["--redact-key", "one"]),
        token("mitmproxy.har", &["--redact-key", "one"])
    );
}

#[test]
#[cfg(unix)]
fn a_saved_capture_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new();
    let saved = desk.path("saved.jsonl");
    let flags = ["--save", saved.to_str().unwrap()];
    replay(
        &shipped("right/allow.wat"),
        &[&capture("chromium.har")],
        &flags,
    )
    .assert_code(0);
    let mode = std::fs::metadata(saved).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_capture_is_never_written_over() {
    let desk = Desk::new();
    let rules = shipped("rules/rules.wasm");
    let before = std::fs::read(capture("recorded.jsonl")).unwrap();
    let own = desk.file("own.jsonl", before.clone());
    let report = format!("json={}", own.display());
    for flags in [["--save", own.to_str().unwrap()], ["--report", &report]] {
        replay(&rules, &[&own], &flags).assert_code(2);
        assert_eq!(std::fs::read(&own).unwrap(), before);
    }
}

/// What names a secret may be gone from the smallest request that shows a
/// change, with half of the secret; its own id may be one, and what is wrong
/// with a record may quote it.
#[test]
fn no_part_of_a_secret_is_left_by_itself() {
    let desk = Desk::new();
    let long = "(if (result i64) (i32.gt_u (local.get $len) (i32.const 420)) (then (i64.const 0x0000_0480_0000_0014)) (else (i64.const 0x0000_0400_0000_0014)))";
    let guest = |name: &str, body: &str| {
        desk.file(name, format!(
            "(module (memory (export \"memory\") 17)\n(data (i32.const 1024) \"{{\\22decision\\22:\\22allow\\22}}\")\n(data (i32.const 1152) \"{{\\22decision\\22:\\22block\\22}}\")\n(func (export \"alloc\") (param i32) (result i32) (i32.const 65536))\n(func (export \"dealloc\") (param i32 i32))\n(func (export \"on_request_headers\") (param i32 i32) (result i64) (i64.const 0x0000_0400_0000_0014))\n(func (export \"on_request_body\") (param $ptr i32) (param $len i32) (result i64) {body}))"
        ))
    };
    let old = guest("old.wat", "(i64.const 0x0000_0400_0000_0014)");
    let new = guest("new.wat", long);
    let secret = "correct horse battery staple and so many more words that it is cut somewhere in between, whatever else is left of what was sent with it on that day of all days";
    let body = serde_json::json!({"user": "ann", "password": secret}).to_string();
    let har = serde_json::json!({"log": {"version": "1.2", "creator": {}, "entries": [
        {"startedDateTime": "2026-01-01T00:00:00Z", "request": {"method": "POST", "url": "https://a.example/login?token=LEAK-of-the-id", "headers": [{"name": "x-request-id", "value": "LEAK-of-the-id"}, {"name": "content-type", "value": "application/json"}], "postData": {"mimeType": "application/json", "text": body}}, "response": {"status": 200, "headers": []}},
        {"request": {"method": "GET", "url": "ws2:a?token=LEAK-of-a-record"}},
    ]}});
    let har = desk.file("login.har", har.to_string());
    let saved = desk.path("saved.jsonl");
    let flags = [
        "--baseline",
        old.to_str().unwrap(),
        "--minimize",
        "--save",
        saved.to_str().unwrap(),
    ];
    for format in ["json", "human", "markdown", "html"] {
        let done = replay(&new, &[&har], &[&flags[..], &["--format", format]].concat());
        let text = format!(
            "{}{}",
            done.text(),
            std::fs::read_to_string(&saved).unwrap()
        );
        assert!(text.contains("redacted:"), "{text}");
        for part in ["horse", "day of all", "words", "LEAK"] {
            assert!(!text.contains(part), "{part} in {format}: {text}");
        }
    }
}
