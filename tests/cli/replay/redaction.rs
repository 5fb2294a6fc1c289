//! Redacting an input turns no decision round without saying so: attacks in the
//! places of secrets, saved, made into fixtures, replayed and run.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{finish, record, recorded, replay, report};
use crate::support::rules::{Act, Handler, Rules};
use crate::support::{Random, TestDir, binary, capture, run};

const ALLOW: &str = r#"{"decision":"allow"}"#;
const BLOCK: &str = r#"{"decision":"block","status":403}"#;
const PHASES: [&str; 4] = [
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
];

/// What the rule of these tests takes for an attack, wherever it stands.
const PATTERNS: [&str; 14] = [
    "' OR '",
    "' or ",
    "UNION SELECT",
    "%27",
    "%2527",
    "<script",
    "%3Cscript",
    "../",
    "..%2f",
    ";--",
    "${jndi",
    "/etc/passwd",
    "sleep(",
    "\\u0027",
];

/// A module that blocks where its input has one of these texts.
fn blocks_on(dir: &TestDir, name: &str, patterns: &[&str]) -> PathBuf {
    let block = |pattern: &&str| ((*pattern).to_owned(), Act::Answer(BLOCK.to_owned()));
    let handler = Handler {
        rules: patterns.iter().map(block).collect(),
        default: Act::Answer(ALLOW.to_owned()),
    };
    let all = PHASES.map(|phase| (phase, handler.clone()));
    dir.file(name, Rules(all.to_vec()).wat())
}

/// A value in each place that holds secrets, as the steps of an exchange.
fn places(value: &str) -> Vec<Vec<Value>> {
    let head = |input: Value| json!({"event": "request_headers", "input": input});
    let body = |data: &str, index: usize, is_last: bool| {
        json!({"event": "request_body", "input": {"method": "POST", "uri": "/login",
            "client_ip": "192.0.2.1", "headers": {}, "chunk_index": index, "is_last": is_last,
            "data": data}})
    };
    let post = || head(json!({"method": "POST", "uri": "/login"}));
    let password = json!({"user": "ada", "password": value}).to_string();
    vec![
        vec![head(json!({"uri": format!("/s?page=1&token={value}&x=2")}))],
        vec![head(
            json!({"headers": {"cookie": format!("a=1; sid={value}")}}),
        )],
        vec![head(
            json!({"headers": {"authorization": format!("Bearer {value}")}}),
        )],
        vec![head(json!({"headers": {"x-api-key": value}}))],
        vec![post(), body(&password, 0, true)],
        vec![post(), body(&format!("user=ada&password={value}"), 0, true)],
        // Found in the head, and echoed in the body and in the response.
        vec![
            head(json!({"method": "POST", "uri": format!("/s?api_key={value}")})),
            body(&format!("again: {value}"), 0, true),
            json!({"event": "response_headers", "input": {"headers": {"x-echo": value}}}),
        ],
    ]
}

/// A capture of exchanges, without answers.
fn written(dir: &TestDir, name: &str, exchanges: &[Vec<Value>]) -> PathBuf {
    let lines = exchanges.iter().enumerate().flat_map(|(number, steps)| {
        let id = format!("c{number}");
        steps.iter().map(move |step| record(&id, step))
    });
    dir.file(name, lines.collect::<Vec<_>>().join("\n"))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What became of the decisions of a capture.
#[derive(Debug, Default)]
struct Kept {
    blocked: u64,
    marked: u64,
    fixtures: u64,
    left_out: u64,
}

/// Saves a capture and makes fixtures of all of it; replays the one and runs the
/// others. No decision is another without the mark.
#[track_caller]
fn keeps(dir: &TestDir, module: &Path, captures: &[&Path]) -> Kept {
    let (saved, fixtures) = (dir.path("saved.jsonl"), dir.path("fixtures"));
    let _ = std::fs::remove_dir_all(&fixtures);
    let flags = [
        "--save",
        saved.to_str().unwrap(),
        "--save-fixture",
        fixtures.to_str().unwrap(),
        "--fixtures",
        "all",
        "--fail-on",
        "never",
    ];
    let first = report(module, captures, &flags);
    let decisions = |report: &Value| report["outcomes"]["decisions"]["block 403"].as_u64();
    let blocked = decisions(&first).unwrap_or_default();

    let again = report(module, &[&saved], &["--allow-redacted-changes"]);
    assert_eq!(again["verdict"], "passed", "{again}");
    let categories = &again["drift"]["categories"];
    assert!(categories["decision"].is_null(), "{again}");
    let marked = again["remarks"]["redaction_changed"]
        .as_u64()
        .unwrap_or_default();
    // What is not marked is blocked as it was.
    assert_eq!(
        decisions(&again).unwrap_or_default(),
        blocked - marked,
        "{again}"
    );

    let written = first["fixtures_written"].as_u64().unwrap();
    let left_out = first["fixtures_left_out"]["redaction"]
        .as_u64()
        .unwrap_or_default();
    if written > 0 {
        let ran = run(module, &[&fixtures], &[]).json();
        assert_eq!(ran["verdict"], "passed", "{ran}");
    }
    Kept {
        blocked,
        marked,
        fixtures: written,
        left_out,
    }
}

#[test]
fn attacks_in_the_places_of_secrets_are_decided_as_they_were() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &PATTERNS);
    let values = [
        "1' OR '1'='1",
        "1%27%20OR%20%271%27%3D%271",
        "%2527 or 1=1",
        "x UNION SELECT name FROM users",
        "<script>alert(1)</script>",
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "..%2f..%2fsecrets.txt",
        "a;--b",
        "../../etc/passwd",
        "${jndi:ldap://x}",
        "1 and sleep(5)",
        "a-plain-s3cret-00017",
    ];
    let exchanges: Vec<Vec<Value>> = values.iter().flat_map(|value| places(value)).collect();
    let capture = written(&dir, "attacks.jsonl", &exchanges);
    let kept = keeps(&dir, &module, &[&capture]);
    println!("attacks in secrets' places: {kept:?}");
    assert_eq!(kept.blocked, 11 * 7, "{kept:?}");
    // Words in cookies and credentials stay hidden, so these are marked.
    assert!(kept.marked > 0 && kept.marked < 25, "{kept:?}");
    assert_eq!(kept.fixtures + kept.left_out, 12 * 7, "{kept:?}");
    assert!(kept.left_out <= kept.marked, "{kept:?}");
    let saved = std::fs::read_to_string(dir.path("saved.jsonl")).unwrap();
    assert!(
        !saved.contains("s3cret-00017") && !saved.contains("secrets.txt"),
        "{saved}"
    );
}

#[test]
fn random_attacks_in_random_places_are_decided_as_they_were() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &PATTERNS);
    let mut random = Random::seeded("attacks in secrets", 19);
    let mut exchanges = Vec::new();
    for _ in 0..400 {
        let mut value = String::new();
        for _ in 0..=random.below(3) {
            let word: String = (0..random.below(9))
                .map(|_| char::from(b"abcXYZ0189-_. "[random.below(14)]))
                .collect();
            value.push_str(&word);
            value.push_str(PATTERNS[random.below(PATTERNS.len())]);
        }
        let mut places = places(&value);
        exchanges.push(places.swap_remove(random.below(places.len())));
    }
    let capture = written(&dir, "random.jsonl", &exchanges);
    let kept = keeps(&dir, &module, &[&capture]);
    println!("400 random attacks: {kept:?}");
    assert!(
        kept.blocked > 300 && kept.marked < kept.blocked / 2,
        "{kept:?}"
    );
}

#[test]
fn the_shipped_captures_are_decided_as_they_were() {
    let dir = TestDir::new();
    let secrets = ["Bearer ", "sid=", "token", "password", "session"];
    let module = blocks_on(&dir, "waf.wat", &[&PATTERNS[..], &secrets].concat());
    let mut all = Kept::default();
    let mut files: Vec<PathBuf> = std::fs::read_dir(capture(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in &files {
        let kept = keeps(&dir, &module, &[file]);
        all.blocked += kept.blocked;
        all.marked += kept.marked;
    }
    println!("shipped captures: {} files, {all:?}", files.len());
    assert!(all.blocked > 5, "{all:?}");
}

/// What a module compares with a text of its own is that text's owner's secret.
#[test]
fn a_token_is_not_written_because_a_module_knows_it() {
    let dir = TestDir::new();
    for token in [
        "opensesame",
        "open-sesame",
        "open sesame",
        "hunter2-hunter2",
        "AKIAIOSFODNN7EXAMPLE",
        "one two three four",
        "d0n't",
        "!!##!!##",
    ] {
        let module = blocks_on(&dir, "knows.wat", &[token]);
        let capture = written(&dir, "one.jsonl", &places(token));
        keeps(&dir, &module, &[&capture]);
        let saved = std::fs::read_to_string(dir.path("saved.jsonl")).unwrap();
        assert!(!saved.contains(token), "{token}: {saved}");
        assert!(saved.contains("redaction-changed"), "{token}: {saved}");
    }
}

/// Words stay readable one by one, and only those that the answer hangs on.
#[test]
fn only_words_that_the_answer_hangs_on_are_readable() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &["UNION SELECT"]);
    let value = "x UNION SELECT nobody FROM accounts WHERE owner=anna";
    let capture = written(&dir, "one.jsonl", &places(value)[..1]);
    keeps(&dir, &module, &[&capture]);
    let saved = lines(&dir.path("saved.jsonl"));
    let uri = saved[0]["input"]["uri"].as_str().unwrap();
    assert!(uri.contains(" UNION SELECT "), "{uri}");
    for word in ["nobody", "FROM", "accounts", "WHERE", "owner", "anna"] {
        assert!(!uri.contains(word), "{word}: {uri}");
    }
    assert_eq!(uri.len(), format!("/s?page=1&token={value}&x=2").len());
    assert!(saved[0]["redaction"].is_null());
}

/// Equal secrets stay equal in whichever form they are written.
#[test]
fn equal_secrets_have_equal_shapes() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &["' or "]);
    let values = ["a1' or b2", "a1' or b2", "a1' or c3"];
    let exchanges: Vec<_> = values.map(|value| places(value).swap_remove(0)).into();
    let capture = written(&dir, "equal.jsonl", &exchanges);
    keeps(&dir, &module, &[&capture]);
    let saved = lines(&dir.path("saved.jsonl"));
    let uri = |at: usize| saved[at]["input"]["uri"].as_str().unwrap();
    assert_eq!(uri(0), uri(1));
    assert_ne!(uri(0), uri(2));
    assert!(uri(0).contains("' or "), "{}", uri(0));
}

/// A record with this mark, blocked at its time.
fn marked(id: &str, mark: &Value) -> String {
    let step = json!({"event": "request_headers", "input": {"uri": "/s?token=redacted:0123456789abcdef"},
        "output": recorded(&json!({"block": {"status": 403}}))});
    let mut line: Value = serde_json::from_str(&record(id, &step)).unwrap();
    line["redacted"] = json!(["uri"]);
    line["redaction"] = mark.clone();
    line.to_string()
}

#[test]
fn a_marked_record_is_counted_and_neither_compared_nor_expected() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &PATTERNS);
    let text = [
        marked("c1", &json!("redaction-changed")),
        asks("c2"),
        marked("c3", &json!("redaction-changed")),
    ];
    let capture = dir.file("marked.jsonl", text.join("\n"));
    let (fixtures, saved) = (dir.path("fixtures"), dir.path("again.jsonl"));
    let flags = [
        "--save-fixture",
        fixtures.to_str().unwrap(),
        "--fixtures",
        "all",
        "--save",
        saved.to_str().unwrap(),
    ];
    let found = report(&module, &[&capture], &flags);
    assert_eq!(found["verdict"], "inconclusive", "{found}");
    assert_eq!(found["remarks"]["redaction_changed"], 2, "{found}");
    assert_eq!(
        (&found["compared"], &found["fixtures_written"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(found["fixtures_left_out"]["redaction"], 2, "{found}");
    // The mark goes on with the record.
    let marks: Vec<Value> = lines(&saved)
        .into_iter()
        .map(|line| line["redaction"].clone())
        .collect();
    assert_eq!(
        marks,
        [
            json!("redaction-changed"),
            Value::Null,
            json!("redaction-changed")
        ]
    );
    for format in ["human", "json", "junit", "markdown", "html", "github"] {
        let done = replay(&module, &[&capture], &["--format", format]);
        done.assert_code(5);
        let shown = format!("{}{}", done.text(), done.stderr);
        assert!(
            shown.contains("redaction-changed") || format == "json",
            "{format}: {shown}"
        );
        assert!(
            shown.contains("--allow-redacted-changes"),
            "{format}: {shown}"
        );
        let done = replay(
            &module,
            &[&capture],
            &["--format", format, "--allow-redacted-changes"],
        );
        done.assert_code(0);
    }
    // Nor is what a baseline decides about it a change from the recorded decision.
    let allows = blocks_on(&dir, "allows.wat", &["nothing has this"]);
    let flags = ["--baseline", allows.to_str().unwrap()];
    let found = report(&module, &[&capture], &flags);
    assert_eq!(found["verdict"], "inconclusive", "{found}");
    assert!(found["departures"].is_null(), "{found}");
}

/// An allowed request, as it was recorded.
fn asks(id: &str) -> String {
    let step =
        json!({"event": "request_headers", "input": {}, "output": recorded(&json!("allow"))});
    record(id, &step)
}

#[test]
fn an_unchecked_record_is_compared_and_named() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &PATTERNS);
    let text = [marked("c1", &json!("unchecked")), asks("c2")];
    let capture = dir.file("unchecked.jsonl", text.join("\n"));
    let found = report(&module, &[&capture], &[]);
    assert_eq!(found["remarks"]["redaction_unchecked"], 1, "{found}");
    assert_eq!(found["drift"]["categories"]["decision"], 1, "{found}");
    assert_eq!(found["verdict"], "failed", "{found}");
    let done = replay(&module, &[&capture], &[]);
    let said = "in 1 transaction, nobody asked the module about the redacted input (unchecked)";
    assert!(done.text().contains(said), "{}", done.text());
}

/// Without a recorded answer nothing tells what redacting took away.
#[test]
fn two_modules_that_agree_on_unchecked_records_pass_only_where_something_tells() {
    let dir = TestDir::new();
    let waf = blocks_on(&dir, "waf.wat", &PATTERNS);
    let allows = blocks_on(&dir, "allows.wat", &["nothing has this"]);
    let flags = ["--baseline", waf.to_str().unwrap()];
    let mut line: Value = serde_json::from_str(&marked("c1", &json!("unchecked"))).unwrap();
    line["output"] = Value::Null;
    let capture = dir.file("silent.jsonl", line.to_string());
    let found = report(&allows, &[&capture], &flags);
    assert_eq!(found["verdict"], "inconclusive", "{found}");
    let done = replay(&allows, &[&capture], &flags);
    assert!(
        done.text().contains("--allow-redacted-changes"),
        "{}",
        done.text()
    );
    let allowed = [&flags[..], &["--allow-redacted-changes"]].concat();
    assert_eq!(report(&allows, &[&capture], &allowed)["verdict"], "passed");

    line["output"] = recorded(&json!("allow"));
    let capture = dir.file("told.jsonl", line.to_string());
    let found = report(&allows, &[&capture], &flags);
    assert_eq!(found["verdict"], "passed", "{found}");
}

/// Exchanges whose places of secrets hold these, saved.
fn saved(dir: &TestDir, module: &Path, exchanges: &[Vec<Value>]) -> Vec<Value> {
    let capture = written(dir, "asked.jsonl", exchanges);
    let saved = dir.path("saved.jsonl");
    let flags = ["--save", saved.to_str().unwrap(), "--fail-on", "never"];
    report(module, &[&capture], &flags);
    lines(&saved)
}

fn asked(uri: &str) -> Vec<Value> {
    vec![json!({"event": "request_headers", "input": {"uri": uri}})]
}

/// What a module knows of a secret stays hidden, however little of it is missing.
#[test]
fn words_of_secrets_are_not_readable_because_a_module_knows_them() {
    let dir = TestDir::new();
    for (value, known) in [
        (
            "correct horse battery staple 1",
            "correct horse battery staple",
        ),
        ("prod:hunter:9", "prod:hunter:"),
        ("hunter/dragon/99x", "hunter/dragon/"),
        ("it's=a(correct) horse", "correct"),
        ("select horse", "select"),
    ] {
        let module = blocks_on(&dir, "knows.wat", &[known]);
        let lines = saved(&dir, &module, &places(value));
        for word in known.split([' ', ':', '/']).filter(|word| word.len() > 3) {
            assert!(
                !json!(lines).to_string().contains(word),
                "{value}: {lines:?}"
            );
        }
    }
}

/// The others of a record keep their tokens.
#[test]
fn the_shape_stands_for_the_one_secret_that_needs_it() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &["' OR '"]);
    let mut step = asked("/s?token=5' OR '5'='5&password=labwgg4 OR x&otp=991'4 OR 12").remove(0);
    step["input"]["headers"] = json!({"cookie": "sid=Or4-3xample OR; b=2"});
    let lines = saved(&dir, &module, &[vec![step]]);
    let uri = lines[0]["input"]["uri"].as_str().unwrap();
    let values: Vec<&str> = uri.split('&').collect();
    assert!(values[0].contains("' OR '"), "{uri}");
    assert!(values[1].starts_with("password=redacted:"), "{uri}");
    assert!(values[2].starts_with("otp=redacted:"), "{uri}");
    let cookie = lines[0]["input"]["headers"]["cookie"].to_string();
    assert!(cookie.contains("sid=redacted:"), "{cookie}");
    assert!(lines[0]["redaction"].is_null(), "{}", lines[0]);
}

/// A module that lets an attack pass and says so elsewhere.
#[test]
fn every_part_of_an_answer_counts_and_an_echo_is_none() {
    let dir = TestDir::new();
    let rules = |name: &str, found: &str, default: &str| {
        let handler = Handler {
            rules: vec![("' AND '".to_owned(), Act::Answer(found.to_owned()))],
            default: Act::Answer(default.to_owned()),
        };
        dir.file(name, Rules(vec![("request_headers", handler)]).wat())
    };
    let tagged = r#"{"decision":"allow","tags":["sqli"]}"#;
    let header = r#"{"decision":"allow","add_request_headers":{"x-attack":"1"}}"#;
    let too_many = r#"{"decision":"block","status":429}"#;
    for (name, found, default) in [
        ("tag", tagged, ALLOW),
        ("header", header, ALLOW),
        ("status", too_many, BLOCK),
    ] {
        let module = rules(name, found, default);
        // The shape keeps it, and where there is none the mark says so.
        for (uri, mark) in [
            ("/s?token=x' AND '1", Value::Null),
            ("/s?token=a-plain-s3cret", Value::Null),
        ] {
            let lines = saved(&dir, &module, &[asked(uri)]);
            assert_eq!(lines[0]["redaction"], mark, "{name}: {lines:?}");
            let again = report(&module, &[&dir.path("saved.jsonl")], &["--fail-on", "any"]);
            assert_eq!(again["verdict"], "passed", "{name}: {again}");
        }
        let mut cookie = asked("/");
        cookie[0]["input"]["headers"] = json!({"cookie": "sid=x' AND '1"});
        let lines = saved(&dir, &module, &[cookie]);
        assert_eq!(lines[0]["redaction"], "redaction-changed", "{name}");
    }
}

#[test]
fn a_mark_that_is_not_known_is_named() {
    let dir = TestDir::new();
    let module = blocks_on(&dir, "waf.wat", &PATTERNS);
    for mark in [json!("Unchecked"), json!(""), json!("changed"), json!(7)] {
        let text = [marked("c1", &mark), asks("c2")];
        let capture = dir.file("unknown.jsonl", text.join("\n"));
        let found = report(&module, &[&capture], &[]);
        let why = found["unusable"][0]["why"].as_str().unwrap();
        assert!(
            why.contains("redaction") || mark == json!(7),
            "{mark}: {why}"
        );
        assert_eq!(found["records"]["unusable"], 1, "{mark}: {found}");
    }
}

/// Two modules that agree may both lack the rules of the one that was recorded.
#[test]
fn where_both_modules_depart_from_the_record_it_is_told() {
    let dir = TestDir::new();
    let waf = blocks_on(&dir, "waf.wat", &PATTERNS);
    let (old, new) = (
        blocks_on(&dir, "old.wat", &["nothing has this"]),
        blocks_on(&dir, "new.wat", &["nor this"]),
    );
    let values = ["1' OR '1", "plain", "../../x"];
    let exchanges: Vec<_> = values.map(|value| places(value).swap_remove(0)).into();
    let capture = written(&dir, "traffic.jsonl", &exchanges);
    keeps(&dir, &waf, &[&capture]);
    let saved = dir.path("saved.jsonl");
    let flags = ["--baseline", old.to_str().unwrap()];
    let found = report(&new, &[&saved], &flags);
    assert_eq!(found["verdict"], "passed", "{found}");
    assert_eq!(found["departures"]["count"], 2, "{found}");
    assert_eq!(
        found["departures"]["examples"][0]["recorded"]["decision"],
        "block 403"
    );
    for format in ["human", "junit", "markdown", "html", "github"] {
        let flags = [&flags[..], &["--format", format, "--fail-on", "recorded"]].concat();
        let done = replay(&new, &[&saved], &flags);
        done.assert_code(1);
        assert!(
            done.text().contains("neither module decides"),
            "{format}: {}",
            done.text()
        );
    }
    // A module that decides as it was recorded departs from nothing.
    let flags = ["--baseline", old.to_str().unwrap(), "--fail-on", "recorded"];
    let found = report(&waf, &[&saved], &flags);
    assert!(found["departures"].is_null(), "{found}");
    let shards: Vec<PathBuf> = (1..=3)
        .map(|index| {
            let mut command = binary(["replay", "--format", "json", "--no-timings"]);
            command
                .args(["--shard", &format!("{index}/3"), "--baseline"])
                .arg(&old);
            command.arg(&new).arg(&saved);
            dir.file(&format!("{index}.json"), finish(command).text())
        })
        .collect();
    let mut command = binary(["replay", "merge", "--format", "json"]);
    command.args(&shards);
    assert_eq!(finish(command).json()["departures"]["count"], 2);
}
