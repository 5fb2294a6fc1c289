//! The same transactions in `serve` over each transport, `run`, `replay` and `bench`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::proxies::{Served, TRANSPORTS, send};
use super::uploads::{Upload, guest_says, has_tag, random, renumbered, response, says};
use crate::support::guests::{fnv1a, joined, joiner};
use crate::support::{Random, TestDir, binary, finish, run, steps};

/// Long enough on any machine: no call is late, and no event finds its instance busy
/// for too long.
const AMPLE: [&str; 2] = ["--queue-wait", "20s"];
/// Ids of the transactions of one transport.
const IDS: usize = 33_000;
/// Events that one `bench` takes.
const BENCH_EVENTS: usize = 200;

/// `BODY_TRANSACTIONS`, where all is to be tried.
fn asked_for() -> Option<usize> {
    let count = std::env::var("BODY_TRANSACTIONS").ok()?;
    let count = count.parse().unwrap();
    assert!(count <= IDS);
    Some(count)
}

#[test]
fn whole_bodies_get_the_same_answers_everywhere() {
    same_everywhere("whole");
}

#[test]
fn chunks_get_the_same_answers_everywhere_or_a_tag() {
    same_everywhere("chunks");
}

fn same_everywhere(body: &str) {
    let count = asked_for().unwrap_or(96);
    let uploads = random(count, &mut Random::seeded(body, 0x0b0d_1e55));
    let dir = TestDir::new();
    let module = dir.file("joiner.wat", joiner("", 0));
    let record = dir.path("recorded.jsonl");
    let flags = ["--body", body];
    let moved = {
        let mut args = flags.to_vec();
        args.extend(AMPLE);
        args.extend(["--record-secrets", "--record", record.to_str().unwrap()]);
        let mut served = Served::start(&module, &args);
        let moved = check_served(&served, &uploads, body == "whole");
        served.agent.signal("TERM");
        assert_eq!(served.agent.wait().code(), Some(0));
        moved
    };
    println!("--body {body}: {count} transactions over each transport, {moved} chunks moved");
    assert!(body != "whole" || moved == 0);
    let is_whole = body == "whole";
    check_run(&dir, &module, &uploads, &flags);
    check_replay(
        &module,
        &record,
        &flags,
        Replayed {
            transactions: count * TRANSPORTS.len(),
            changed: moved,
        },
    );
    let written = dir.file("written.jsonl", capture(&uploads, is_whole));
    check_replay(
        &module,
        &written,
        &flags,
        Replayed {
            transactions: count,
            changed: 0,
        },
    );
    if is_whole {
        check_bench(&dir, &module, &uploads, &flags);
    }
}

/// Sends all over all transports at once. Says how many chunks have the tag of those
/// that met another instance; all others have the right answer.
fn check_served(served: &Served, uploads: &[Upload], is_whole: bool) -> usize {
    let sets: Vec<_> = (0..TRANSPORTS.len())
        .map(|rank| renumbered(uploads, rank * IDS))
        .collect();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = TRANSPORTS
            .iter()
            .zip(&sets)
            .map(|(transport, set)| {
                let proxies = served.proxies(*transport);
                scope.spawn(|| send(proxies, set))
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let mut moved = 0;
    for ((transport, set), answers) in TRANSPORTS.iter().zip(&sets).zip(&answers) {
        for (upload, answers) in set.iter().zip(answers) {
            let expected = upload.expected(is_whole);
            let is_moved = answers.iter().any(|it| has_tag(it, "instance-changed"));
            assert!(is_moved || answers.len() == expected.len(), "{answers:?}");
            for (answer, expected) in answers.iter().zip(&expected) {
                if has_tag(answer, "instance-changed") {
                    moved += 1;
                } else {
                    let id = &upload.id;
                    assert_eq!(says(answer), guest_says(expected), "{transport:?} {id}");
                }
            }
        }
    }
    let counted = served.metric("wasm_agent_chunks_moved_total");
    assert_eq!(counted, u64::try_from(moved).unwrap());
    assert_eq!(served.metric("wasm_agent_bodies_unfinished_total"), 0);
    moved
}

fn check_run(dir: &TestDir, module: &Path, uploads: &[Upload], flags: &[&str]) {
    for (number, upload) in uploads.iter().enumerate() {
        dir.file(&format!("run/{number:05}.json"), fixture(upload));
    }
    let folder = dir.path("run");
    let mut args = flags.to_vec();
    args.extend(["--timeout", "10s"]);
    let report = run(module, &[&folder], &args).json();
    let mut steps = steps(&report).into_iter();
    for upload in uploads {
        steps.next().unwrap().assert_allowed();
        for expected in upload.expected(flags[1] == "whole") {
            let step = steps.next().unwrap();
            assert_eq!(
                says(step.response()),
                guest_says(&expected),
                "{}",
                upload.id
            );
        }
    }
    assert!(steps.next().is_none());
}

fn fixture(upload: &Upload) -> String {
    let mut steps = vec![json!({"event":"request_headers","input":head_input(upload)})];
    for at in 0..upload.chunks.len() {
        steps.push(json!({"event":"request_body","input":upload.input(at)}));
    }
    json!({"correlation_id":upload.id,"steps":steps}).to_string()
}

/// The head as a guest gets it.
pub(super) fn head_input(upload: &Upload) -> Value {
    let head = upload.head();
    let headers = head["headers"].as_object().unwrap().iter();
    let headers: BTreeMap<_, _> = headers.map(|(name, values)| (name, &values[0])).collect();
    json!({"correlation_id":upload.id,"method":"POST","uri":"/upload",
        "client_ip":"192.0.2.7","headers":headers})
}

/// A capture of every event with the right answers in it.
fn capture(uploads: &[Upload], is_whole: bool) -> String {
    let mut lines = String::new();
    let mut add = |upload: &Upload, phase: &str, input: &Value, answer: &Value| {
        let output = response(answer);
        let line = json!({"v":1,"id":upload.id,"phase":phase,"ts":"2026-11-21T13:19:36.033Z",
            "module":format!("sha256:{}", "0".repeat(64)),"input":input,"output":output,
            "error":null,"fuel":null,"wall_ns":null,"redacted":[]});
        writeln!(lines, "{line}").unwrap();
    };
    for upload in uploads {
        let head = head_input(upload);
        add(
            upload,
            "request_headers",
            &head,
            &json!({"decision":"allow"}),
        );
        for (at, answer) in upload.expected(is_whole).iter().enumerate() {
            let mut input = head.clone();
            for (key, value) in upload.input(at).as_object().unwrap() {
                input[key] = value.clone();
            }
            input["encoding"] = json!("utf8");
            add(upload, "request_body", &input, answer);
        }
    }
    lines
}

struct Replayed {
    transactions: usize,
    /// No more than these.
    changed: usize,
}

fn check_replay(module: &Path, capture: &Path, flags: &[&str], expected: Replayed) {
    let mut command = binary(["replay", "--strict", "--format", "json", "--timeout", "10s"]);
    command.arg(module).arg(capture).args(flags);
    let report = finish(command).json();
    let count = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_u64);
        usize::try_from(value.unwrap_or(0)).unwrap()
    };
    assert_eq!(
        count("/records/transactions"),
        expected.transactions,
        "{}",
        report["remarks"]
    );
    assert_eq!(
        count("/drift/compared"),
        expected.transactions,
        "{}",
        report["drift"]
    );
    let unchanged = count("/drift/categories/unchanged");
    assert!(
        unchanged + expected.changed >= expected.transactions,
        "{}",
        report["drift"]
    );
}

/// A module of whole bodies is asked about one event for each request and for each
/// body.
fn check_bench(dir: &TestDir, module: &Path, uploads: &[Upload], flags: &[&str]) {
    let mut left = uploads;
    let mut parts = 0;
    while !left.is_empty() {
        let mut events = 0;
        let fitting = left.iter().take_while(|upload| {
            events += 1 + upload.chunks.len();
            events <= BENCH_EVENTS
        });
        let (part, rest) = left.split_at(fitting.count());
        left = rest;
        parts += 1;
        bench_part(dir, module, (parts, part), flags);
        if asked_for().is_none() {
            break;
        }
    }
    println!(
        "bench: {} of {} transactions",
        uploads.len() - left.len(),
        uploads.len()
    );
}

fn bench_part(dir: &TestDir, module: &Path, (number, part): (usize, &[Upload]), flags: &[&str]) {
    for (at, upload) in part.iter().enumerate() {
        dir.file(&format!("bench{number}/{at:05}.json"), fixture(upload));
    }
    let mut command = binary([
        "bench",
        "--format",
        "json",
        "--requests",
        "1",
        "--warm-up",
        "1ms",
    ]);
    command
        .args(["--pool-size", "1", "--concurrency", "1", "--timeout", "10s"])
        .arg(module)
        .arg(dir.path(&format!("bench{number}")))
        .args(flags);
    let report = finish(command).json();
    let cases = report["cases"].as_array().unwrap();
    let of_bodies: Vec<_> = cases
        .iter()
        .filter(|case| case["event"] == "request_body")
        .collect();
    assert_eq!(of_bodies.len(), part.len(), "{}", cases.len());
    for (case, upload) in of_bodies.iter().zip(part) {
        let hash = fnv1a(upload.chunks.concat().as_bytes());
        let answer = joined(hash, true);
        let expected = serde_json::from_str::<Value>(&answer).unwrap();
        assert_eq!(case["decision"], expected["decision"], "{}", upload.id);
        // No two answers have one length.
        assert_eq!(case["answer_bytes"], answer.len(), "{}", upload.id);
    }
}
