//! Secrets in captures do not get into what is written.

use std::path::Path;

use super::{blocks_on, command, record, recorded, replay};
use crate::support::guests::answering;
use crate::support::{TestDir, capture, finish, shipped};

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
    let dir = TestDir::new();
    // A second capture with a token in a query, and a module that changes all.
    let text = std::fs::read_to_string(capture("mitmproxy.har")).unwrap();
    let text = text.replace("/orders", "/orders?token=q-t0ken-value");
    for secret in SECRETS {
        assert!(text.contains(secret), "{secret}");
    }
    let har = dir.file("in/traffic.har", text);
    let old = dir.file("old.wat", blocks_on("\"x-nobody\":\"on\""));
    let new = dir.file("new.wat", blocks_on("127.0.0.1"));
    let echo = shipped("hostile/secret-echo.wat");
    for (module, keep) in [(&new, false), (&echo, false), (&new, true)] {
        let out = dir.path(if keep { "kept" } else { "out" });
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

/// The stand-ins of a text, in order.
fn tokens(text: &str) -> Vec<String> {
    let parts = text.split("redacted:").skip(1);
    parts
        .map(|rest| {
            rest.chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect()
        })
        .collect()
}

/// A capture of so many transactions, each with a secret of all and one of its
/// own, both twice.
fn shared_and_own(count: usize) -> String {
    let line = |number: usize| {
        let own = format!("own-secret-{number}");
        let uri = format!("/{number}?token=shared-secret&sid={own}");
        let input = serde_json::json!({"method": "GET", "uri": uri, "client_ip": "192.0.2.1", "headers": {"cookie": format!("a={own}; b=shared-secret")}});
        let record = serde_json::json!({"v": 1, "id": format!("t{number}"), "phase": "request_headers", "input": input});
        record.to_string() + "\n"
    };
    (0..count).map(line).collect()
}

#[test]
fn equal_secrets_stay_equal_in_what_is_saved_and_a_key_makes_captures_agree() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let first = dir.file("first.jsonl", shared_and_own(3));
    let second = dir.file("second.jsonl", shared_and_own(4));
    let (one, two) = (dir.file("one.key", "one\n"), dir.file("two.key", "two"));
    let saved = |capture: &Path, flags: &[&str]| {
        let saved = dir.path("saved.jsonl");
        let flags = [flags, &["--save", saved.to_str().unwrap()]].concat();
        replay(&module, &[capture], &flags).assert_code(0);
        tokens(&std::fs::read_to_string(saved).unwrap())
    };
    let key = |path: &'static str| {
        [
            "--redact-key-file".to_owned(),
            dir.path(path).display().to_string(),
        ]
    };
    let with = |capture: &Path, path| {
        let key = key(path);
        saved(capture, &[&key[0], &key[1]])
    };
    let (random, again) = (saved(&first, &[]), saved(&first, &[]));
    for tokens in [&random, &again, &with(&first, "one.key")] {
        assert_eq!(tokens.len(), 12, "{tokens:?}");
        assert!(tokens.iter().all(|token| token.len() == 16), "{tokens:?}");
        // Each as often as it stands there, over all transactions.
        let kinds: std::collections::BTreeSet<&String> = tokens.iter().collect();
        assert_eq!(kinds.len(), 4, "{tokens:?}");
        assert_eq!(tokens[0], tokens[4]);
    }
    assert_ne!(random[0], again[0], "nobody can make the key again");
    assert_ne!(with(&first, "one.key")[0], with(&first, "two.key")[0]);
    assert_eq!(with(&first, "one.key")[0], with(&second, "one.key")[0]);
    // In a variable it is the key itself, less what an editor adds to a file.
    let mut command = command(&module, &[&second]);
    command.env("WASM_AGENT_REDACT_KEY", "one");
    command.arg("--save").arg(dir.path("saved.jsonl"));
    finish(command).assert_code(0);
    let variable = tokens(&std::fs::read_to_string(dir.path("saved.jsonl")).unwrap());
    assert_eq!(variable[0], with(&first, "one.key")[0]);
    assert!(one.exists() && two.exists());
}

/// What a guest makes of a secret shows it nowhere: as a key, as the code of a
/// fault that was recorded, as what a fixture expects.
#[test]
fn a_secret_is_hidden_wherever_a_guest_puts_it() {
    const SECRET: &str = "Hk3~qZr9wLx7Tm";
    let dir = TestDir::new();
    let request = |output: serde_json::Value| {
        let event = serde_json::json!({"event": "request_headers", "output": output,
            "input": {"headers": {"authorization": format!("Bearer {SECRET}")}}});
        record("c", &event) + "\n"
    };
    let hook = |output: serde_json::Value| {
        let context = serde_json::json!({"input": {"password": SECRET}, "data": null, "user": null, "headers": {}, "tenant_id": null});
        let line = serde_json::json!({"v": 1, "id": "h", "phase": "before_hook", "input": context, "output": output});
        line.to_string() + "\n"
    };
    let mut faulted = recorded(&serde_json::json!("allow"));
    faulted["audit"] =
        serde_json::json!({"tags": ["wasm-error"], "rule_ids": [], "reason_codes": [SECRET]});
    let allowed = request(recorded(&serde_json::json!("allow")));
    let context = format!(
        r#"{{"ok":true,"ctx":{{"input":{{"{SECRET}":2}},"data":null,"user":null,"headers":{{}},"tenant_id":null}}}}"#
    );
    let trapped = serde_json::json!({"ok": false, "ctx": null, "error": format!("WASM plugin trapped: {SECRET}"), "details": null});
    let passed = serde_json::json!({"ok": true, "ctx": null, "error": null, "details": null});
    let answer = |rest: &str| {
        let text = r#"{"decision":"block","status":403,REST}"#;
        text.replace("REST", &rest.replace("SECRET", SECRET))
    };
    let challenge =
        format!(r#"{{"decision":"challenge","challenge_type":"x","params":{{"{SECRET}":"1"}}}}"#);
    for (capture, answer) in [
        (&allowed, answer(r#""routing_metadata":{"SECRET":"1"}"#)),
        (&allowed, answer(r#""body":"no SECRET""#)),
        (
            &allowed,
            answer(
                r#""add_response_headers":{"SECRET":"1"},"tags":["SECRET"],"reason_codes":["SECRET"]"#,
            ),
        ),
        (&allowed, challenge),
        (&request(faulted), r#"{"decision":"allow"}"#.to_owned()),
        (&hook(passed.clone()), context),
        (&hook(trapped), r#"{"ok":true}"#.to_owned()),
    ] {
        let is_hook = capture.contains("before_hook");
        let module = if is_hook {
            hooks(&dir, "m.wat", &answer)
        } else {
            answering(&dir, "m.wat", &answer)
        };
        let capture = dir.file("c.jsonl", capture);
        let (saved, fixtures) = (dir.path("saved.jsonl"), dir.path("fixtures"));
        let _ = std::fs::remove_dir_all(&fixtures);
        let mut shown = String::new();
        let paths = [&saved, &fixtures].map(|path| path.to_str().unwrap());
        let flags = ["--minimize", "--fail-on", "any", "--save", paths[0]];
        for format in [
            "json", "human", "jsonl", "junit", "markdown", "html", "github",
        ] {
            let own = ["--save-fixture", paths[1], "--format", format];
            let done = replay(&module, &[&capture], &[&flags[..], &own].concat());
            done.assert_code(1);
            shown += &(done.text() + &done.stderr);
        }
        shown += &std::fs::read_to_string(&saved).unwrap();
        for file in std::fs::read_dir(&fixtures).into_iter().flatten() {
            shown += &std::fs::read_to_string(file.unwrap().path()).unwrap();
        }
        for spelling in [SECRET.to_owned(), SECRET.replace('~', "~0")] {
            let at = shown.find(&spelling);
            let near = at.map(|at| &shown[at.saturating_sub(200)..at + 40]);
            assert!(at.is_none(), "{answer}: {near:?}");
        }
    }
}

/// A hook module that answers this.
fn hooks(dir: &TestDir, name: &str, answer: &str) -> std::path::PathBuf {
    let text = answer.replace('\\', "\\5c").replace('"', "\\22");
    let size = answer.len();
    dir.file(
        name,
        format!(
            "(module (memory (export \"memory\") 4) (data (i32.const 8) \"{text}\")\n\
         (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))\n\
         (func (export \"dealloc\") (param i32 i32))\n\
         (func (export \"before_hook\") (param i32 i32) (result i64) (i64.const {})))",
            (8_usize << 32) | size
        ),
    )
}

/// What a report and a fixture show depends on the transaction alone.
#[test]
fn reports_and_fixtures_number_the_secrets_of_each_transaction() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let old = dir.file("old.wat", blocks_on("shared-secret"));
    let capture = dir.file("capture.jsonl", shared_and_own(6));
    let key = dir.file("a.key", "a key");
    for format in [
        "human", "json", "jsonl", "junit", "markdown", "html", "github",
    ] {
        let with = |more: &[&str]| {
            let flags = ["--baseline", old.to_str().unwrap(), "--format", format];
            replay(&module, &[&capture], &[&flags[..], more].concat()).text()
        };
        let text = with(&["--jobs", "1"]);
        let shown = text.replace("--keep-secrets", "");
        assert!(!shown.contains("-secret"), "{text}");
        let found = tokens(&text);
        assert!(
            !found.is_empty() || format == "junit" || format == "github",
            "{format}: {text}"
        );
        assert!(
            found.iter().all(|token| token == "1" || token == "2"),
            "{format}: {found:?}"
        );
        assert_eq!(text, with(&["--jobs", "7"]), "{format}");
        assert_eq!(
            text,
            with(&["--redact-key-file", key.to_str().unwrap()]),
            "{format}"
        );
    }
    let fixtures = dir.path("fixtures");
    let flags = [
        "--save-fixture",
        fixtures.to_str().unwrap(),
        "--fixtures",
        "all",
        "--minimize",
    ];
    replay(&module, &[&capture], &flags).assert_code(0);
    let mut seen = 0;
    for file in std::fs::read_dir(&fixtures).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let fixture: serde_json::Value = serde_json::from_str(&text).unwrap();
        let input = &fixture["steps"][0]["input"];
        let uri = input["uri"].as_str().unwrap();
        assert!(uri.ends_with("?token=redacted:1&sid=redacted:2"), "{text}");
        assert_eq!(
            input["headers"]["cookie"], "a=redacted:2; b=redacted:1",
            "{text}"
        );
        seen += 1;
    }
    assert_eq!(seen, 6);
}

/// Shards have no random key in common: that is said, and a key can be given.
#[test]
fn equal_secrets_are_equal_over_shards_that_share_a_key() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let capture = dir.file("capture.jsonl", shared_and_own(40));
    let key = dir.file("shared.key", "a key");
    let saved = |shard: &str, more: &[&str]| {
        let saved = dir.path("saved.jsonl");
        let flags = ["--shard", shard, "--save", saved.to_str().unwrap()];
        let done = replay(&module, &[&capture], &[&flags[..], more].concat());
        (done, saved)
    };
    let (done, _) = saved("1/2", &[]);
    done.assert_code(0);
    assert!(done.stderr.contains("--redact-key-file"), "{}", done.stderr);
    let mut kinds = std::collections::BTreeSet::new();
    for shard in ["1/2", "2/2"] {
        let (done, file) = saved(shard, &["--redact-key-file", key.to_str().unwrap()]);
        done.assert_code(0);
        assert!(!done.stderr.contains("note:"), "{}", done.stderr);
        kinds.extend(tokens(&std::fs::read_to_string(file).unwrap()));
    }
    assert_eq!(kinds.len(), 41, "one of all, and one of each");
    saved("1/2", &["--keep-secrets"]).0.assert_code(0);
    replay(&module, &[&capture], &["--shard", "1/2"]).assert_code(0);
}

#[test]
fn a_key_that_is_none_is_refused() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let capture = dir.file("capture.jsonl", shared_and_own(1));
    let refused = |flags: &[&str], code: i32, says: &str| {
        let done = replay(&module, &[&capture], flags);
        done.assert_code(code);
        assert!(done.stderr.contains(says), "{}", done.stderr);
    };
    for (name, content) in [
        ("empty.key", String::new()),
        ("blank.key", " \n".to_owned()),
        ("long.key", "k".repeat(70_000)),
    ] {
        let file = dir.file(name, content);
        refused(
            &["--redact-key-file", file.to_str().unwrap()],
            2,
            "expected a key of 1 to 65536 bytes",
        );
    }
    refused(
        &["--redact-key-file", "/nowhere/at/all"],
        3,
        "cannot read /nowhere/at/all",
    );
    refused(
        &["--redact-key-file", "/dev/zero"],
        3,
        "expected a regular file",
    );
    // A command line can be read by everybody on the machine.
    refused(&["--redact-key", "k"], 2, "--redact-key-file");
    refused(&["--redact-key", ""], 2, "--redact-key-file");
    for (value, code) in [("", 0), (" ", 2)] {
        let mut command = command(&module, &[&capture]);
        command.env("WASM_AGENT_REDACT_KEY", value);
        finish(command).assert_code(code);
    }
}

#[test]
#[cfg(unix)]
fn a_saved_capture_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TestDir::new();
    let saved = dir.path("saved.jsonl");
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
    let dir = TestDir::new();
    let rules = shipped("rules/rules.wasm");
    let before = std::fs::read(capture("recorded.jsonl")).unwrap();
    let own = dir.file("own.jsonl", before.clone());
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
    let dir = TestDir::new();
    let long = "(if (result i64) (i32.gt_u (local.get $len) (i32.const 420)) (then (i64.const 0x0000_0480_0000_0014)) (else (i64.const 0x0000_0400_0000_0014)))";
    let guest = |name: &str, body: &str| {
        dir.file(name, format!(
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
    let har = dir.file("login.har", har.to_string());
    let saved = dir.path("saved.jsonl");
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

/// Of the values of the shipped captures that are no secrets nearly all stay
/// readable: a policy decides by them.
#[test]
fn other_values_of_the_shipped_captures_stay() {
    fn words(value: &serde_json::Value, under: &str, out: &mut Vec<(bool, String)>) {
        let is_credential = |name: &str| {
            let credentials = ["cookie", "authorization", "token", "password", "session"];
            credentials.iter().any(|it| name.contains(it))
        };
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    words(value, key, out);
                }
            }
            serde_json::Value::Array(all) => all.iter().for_each(|it| words(it, under, out)),
            other => {
                let text = other
                    .as_str()
                    .map_or_else(|| other.to_string(), str::to_owned);
                let split = text.split(['&', '=', ';', ',', ' ', '?', '/', '"', '\n']);
                out.extend(split.map(|it| (is_credential(under), it.to_owned())));
            }
        }
    }
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let saved = |file: &Path, flags: &[&str]| {
        let saved = dir.path("saved.jsonl");
        let flags = [
            flags,
            &["--save", saved.to_str().unwrap(), "--fail-on", "never"],
        ]
        .concat();
        replay(&module, &[file], &flags).assert_code(0);
        let text = std::fs::read_to_string(saved).unwrap();
        let inputs = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["input"].clone()
        });
        inputs.collect::<Vec<_>>()
    };
    let (mut all, mut hidden, mut which) = (0, 0, Vec::new());
    for name in [
        "chromium.har",
        "envoy-tap.json",
        "goreplay.gor",
        "mitmproxy.har",
        "nginx-access.log",
        "nginx-json.log",
        "recorded.jsonl",
        "suite.yaml",
        "suite-v3.yaml",
    ] {
        let file = capture(name);
        let (kept, redacted) = (saved(&file, &["--keep-secrets"]), saved(&file, &[]));
        assert_eq!(kept.len(), redacted.len(), "{name}");
        for (kept, redacted) in kept.iter().zip(&redacted) {
            let (mut before, mut after) = (Vec::new(), Vec::new());
            words(kept, "", &mut before);
            words(redacted, "", &mut after);
            let after: std::collections::BTreeSet<_> = after.into_iter().map(|it| it.1).collect();
            for (is_credential, word) in before {
                if is_credential || SECRETS.iter().any(|it| word.contains(it)) {
                    continue;
                }
                all += 1;
                if !after.contains(&word) {
                    hidden += 1;
                    which.push(format!("{name}: {word}"));
                }
            }
        }
    }
    println!("{hidden} of {all} other values are redacted: {which:?}");
    assert!(
        all > 500 && hidden * 100 < all,
        "{hidden} of {all}: {which:?}"
    );
}

/// A credential by its form, in a gzip body, over two chunks, and in another
/// spelling; a guest's own words are redacted as well.
#[test]
fn secrets_without_a_name_are_in_nothing_that_is_written() {
    let dir = TestDir::new();
    let token = format!("gh{}_{}", "p", "k3Jd9sLq7Xw2Zr5Tn8Vb4Mc6Hf1Gp0Qy3Ua7");
    let answer = format!(r#"{{"decision":"block","body":"no {token}","tags":["{token}"]}}"#);
    let module = answering(&dir, "m.wat", &answer);
    let body = |index: usize, data: &str| {
        serde_json::json!({"v": 1, "id": "t", "phase": "request_body", "input": {"correlation_id": "t", "method": "POST", "uri": "/",
            "client_ip": "192.0.2.1", "headers": {"x-a": "b"}, "chunk_index": index, "is_last": index == 1, "total_size": null,
            "bytes_received": 40 * (index + 1), "data": data, "encoding": "utf8"}})
    };
    let head = serde_json::json!({"v": 1, "id": "t", "phase": "request_headers", "input": {"method": "POST", "uri": format!("/x/{token}"),
        "client_ip": "192.0.2.1", "correlation_id": "t", "headers": {"x-a": "b"}}});
    let lines = [
        head,
        body(0, &format!("note={}", &token[..20])),
        body(1, &format!("{}&x=1", &token[20..])),
    ];
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    let file = dir.file("c.jsonl", lines.join("\n"));
    let saved = dir.path("saved.jsonl");
    let done = replay(
        &module,
        &[&file],
        &[
            "--save",
            saved.to_str().unwrap(),
            "--fail-on",
            "never",
            "--format",
            "json",
        ],
    );
    done.assert_code(0);
    let all = std::fs::read_to_string(&saved).unwrap() + &done.text() + &done.stderr;
    assert!(all.contains("redacted:"), "{all}");
    for part in [&token[4..20], &token[20..]] {
        assert!(!all.contains(part), "{part} in {all}");
    }
}
