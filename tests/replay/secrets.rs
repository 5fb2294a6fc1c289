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
