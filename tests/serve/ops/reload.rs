//! SIGHUP: the module is loaded again while events come in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::guest::{Guest, edited};
use crate::support::agent::{Agent, Client, decision_of, id_of, request, v2_frame};
use crate::support::shipped;

/// One event, and what was decided.
fn ask(agent: &Agent, id: &str) -> String {
    let mut client = agent.connect_v2();
    client.send(0x10, &request(id, "/"));
    decision_of(&client.answer()).to_owned()
}

/// Whatever is wrong with the new file, the old module stays in use.
#[test]
fn o_05_a_bad_module_never_takes_over() {
    let guest = Guest::new("right/deny.wat");
    let agent = guest.serve(&["--max-compile-time", "20s"]);
    let whole = fs::read(shipped("rules/rules.wasm")).unwrap();
    let bad: [(&str, Vec<u8>, &str); 11] = [
        ("empty", Vec::new(), "empty file"),
        (
            "cut off",
            whole[..whole.len() / 2].to_vec(),
            "not valid wasm",
        ),
        ("no wasm", b"#!/bin/sh".to_vec(), "expected a wasm binary"),
        ("an ELF", b"\x7fELF....".to_vec(), "ELF"),
        ("no contract", read("invalid/no-alloc.wat"), "export:alloc"),
        (
            "mistyped",
            read("invalid/handler-mistyped-i32-result.wat"),
            "on_request_headers",
        ),
        ("imports", read("invalid/import-unknown.wat"), "import"),
        ("start traps", read("invalid/start-traps.wat"), "instance"),
        ("memory", read("invalid/memory-too-large.wat"), "memory"),
        (
            "faults",
            read("hostile/trap-unreachable.wat"),
            "trap:unreachable",
        ),
        ("nonsense", read("hostile/not-json.wat"), "bad-answer:"),
    ];
    for (what, bytes, why) in bad {
        guest.put_bytes(&bytes);
        agent.signal("HUP");
        let line = agent.wait_for_line("the old module stays in use");
        assert!(line.contains(why), "{what}: {line}");
        assert_eq!(ask(&agent, what), "block", "{what}");
    }
    fs::remove_file(guest.path()).unwrap();
    agent.signal("HUP");
    agent.wait_for_line("the old module stays in use");
    assert_eq!(ask(&agent, "gone"), "block");
    guest.put("right/allow.wat");
    agent.signal("HUP");
    agent.wait_for_line("reloaded");
    assert_eq!(ask(&agent, "good again"), "allow");
}

fn read(name: &str) -> Vec<u8> {
    fs::read(shipped(name)).unwrap()
}

/// What one busy peer saw.
struct Seen {
    sent: usize,
    answers: Vec<Value>,
}

/// Asks without a pause, a few at a time, until told to stop.
fn busy(agent: &Agent, name: usize, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Seen> {
    let mut client = agent.connect_v2();
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut seen = Seen {
            sent: 0,
            answers: Vec::new(),
        };
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..8 {
                client.send(0x10, &request(&format!("{name}-{}", seen.sent), "/"));
                seen.sent += 1;
            }
            seen.answers.extend((0..8).map(|_| client.answer()));
        }
        seen
    })
}

/// Good modules and bad ones under load. Nothing is lost, nothing
/// faults, and after the word that it is loaded only the new one answers.
#[test]
fn o_06_reloads_under_load_lose_nothing() {
    let guest = Guest::new("right/allow.wat");
    let agent = guest.serve(&["--queue-wait", "10s"]);
    let stop = Arc::new(AtomicBool::new(false));
    let peers: Vec<_> = (0..4).map(|name| busy(&agent, name, &stop)).collect();
    for round in 0..40 {
        let (name, decision) = match round % 2 {
            0 => ("right/deny.wat", "block"),
            _ => ("right/allow.wat", "allow"),
        };
        guest.put(name);
        agent.signal("HUP");
        agent.wait_for_line("reloaded");
        for number in 0..4 {
            assert_eq!(ask(&agent, &format!("after-{round}-{number}")), decision);
        }
        guest.put("hostile/trap-unreachable.wat");
        agent.signal("HUP");
        agent.wait_for_line("the old module stays in use");
        assert_eq!(ask(&agent, &format!("refused-{round}")), decision);
    }
    stop.store(true, Ordering::Relaxed);
    for peer in peers {
        let seen = peer.join().unwrap();
        assert!(seen.sent > 0);
        assert_eq!(seen.sent, seen.answers.len());
        let mut ids: Vec<&str> = seen.answers.iter().map(id_of).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), seen.sent);
        for answer in &seen.answers {
            assert_eq!(answer["audit"]["reason_codes"], serde_json::json!([]));
        }
    }
}

/// A module that says which one it is.
fn generation(number: usize) -> Vec<u8> {
    edited(
        &shipped("right/deny.wat"),
        "denied",
        &format!("g{number:05}"),
    )
}

/// Which of them gave an answer.
fn generation_of(answer: &Value) -> usize {
    let tag = answer["audit"]["tags"][0].as_str().unwrap();
    tag.strip_prefix('g')
        .unwrap_or_else(|| panic!("{answer}"))
        .parse()
        .unwrap()
}

/// What the reloads have come to: the last generation that was said to be
/// loaded, and the last that was put in its place.
#[derive(Default)]
struct Progress {
    loaded: AtomicUsize,
    put: AtomicUsize,
    done: AtomicBool,
}

/// Asks 500 times a second, whatever becomes of the answers, and holds each
/// of them against the generations that could give it.
fn ask_at_rate(agent: &Agent, progress: &Arc<Progress>) -> std::thread::JoinHandle<(usize, usize)> {
    /// Each millisecond has half of one.
    const PACE: Duration = Duration::from_millis(2);
    let mut client: Client = agent.connect_v2();
    let mut writer = client.stream.try_clone().unwrap();
    let progress = Arc::clone(progress);
    std::thread::spawn(move || {
        let asked: Arc<std::sync::Mutex<BTreeMap<usize, usize>>> = Arc::default();
        let sender = {
            let (progress, asked) = (Arc::clone(&progress), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut next = Instant::now();
                let mut sent = 0;
                while !progress.done.load(Ordering::SeqCst) {
                    let loaded = progress.loaded.load(Ordering::SeqCst);
                    asked.lock().unwrap().insert(sent, loaded);
                    let event = serde_json::to_vec(&request(&sent.to_string(), "/")).unwrap();
                    writer.write_all(&v2_frame(0x10, &event)).unwrap();
                    sent += 1;
                    next += PACE;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                writer.shutdown(std::net::Shutdown::Write).unwrap();
                sent
            })
        };
        let mut answered = 0;
        while let Some((kind, payload)) = client.receive() {
            if kind != 0x20 {
                continue;
            }
            let answer: Value = serde_json::from_slice(&payload).unwrap();
            let number: usize = id_of(&answer).parse().unwrap();
            let at_least = asked.lock().unwrap().remove(&number);
            let from = generation_of(&answer);
            let at_most = progress.put.load(Ordering::SeqCst);
            // Once a module is said to be loaded, no older one answers.
            assert!(at_least.unwrap() <= from && from <= at_most, "{answer}");
            answered += 1;
        }
        (sender.join().unwrap(), answered)
    })
}

/// 200 reloads and 20 refused ones while 2000 events come in a second, on
/// four connections. Nothing is lost, nothing is refused, and every answer is
/// of a module that was in force when its event was sent, or of a later one.
#[test]
fn g_11_two_hundred_reloads_at_two_thousand_events_a_second_lose_nothing() {
    let guest = Guest::new("right/deny.wat");
    guest.put_bytes(&generation(0));
    let agent = guest.serve(&[
        "--queue-wait",
        "20s",
        "--max-in-flight",
        "65536",
        "--max-queue",
        "65536",
    ]);
    let progress = Arc::new(Progress::default());
    let peers: Vec<_> = (0..4).map(|_| ask_at_rate(&agent, &progress)).collect();
    for number in 1..=200 {
        progress.put.store(number, Ordering::SeqCst);
        guest.put_bytes(&generation(number));
        agent.signal("HUP");
        agent.wait_for_line("reloaded");
        progress.loaded.store(number, Ordering::SeqCst);
        if number % 10 == 0 {
            guest.put("hostile/trap-unreachable.wat");
            agent.signal("HUP");
            agent.wait_for_line("the old module stays in use");
        }
    }
    progress.done.store(true, Ordering::SeqCst);
    for peer in peers {
        let (sent, answered) = peer.join().unwrap();
        assert!(sent > 0);
        assert_eq!(sent, answered);
    }
}

/// A call that runs while its module is replaced ends on the old one, and the
/// word that the new one is loaded waits for it.
#[test]
fn o_06_a_running_call_ends_on_the_old_module() {
    let guest = Guest::new("hostile/spin.wat");
    let agent = guest.serve(&["--no-smoke-call", "--timeout", "4s", "--pool-size", "2"]);
    let mut client = agent.connect_v2();
    client.send(0x10, &request("runs", "/"));
    // Answered after it: the event was received.
    client.send_bytes(0x41, b"{}");
    assert_eq!(client.receive().unwrap().0, 0x42);
    guest.put("right/deny.wat");
    agent.signal("HUP");
    agent.wait_for_line("reloaded");
    // It was on its way before that was said.
    let moment = Some(Duration::from_secs(1));
    client.stream.set_read_timeout(moment).unwrap();
    assert_eq!(client.answer()["audit"]["reason_codes"][0], "deadline");
    assert_eq!(ask(&agent, "after"), "block");
}

/// The settings of the start hold for what is loaded later.
#[test]
fn a_reloaded_module_is_held_to_the_same_limits() {
    let guest = Guest::new("right/allow.wat");
    let agent = guest.serve(&["--fail-open", "--max-memory", "128KiB"]);
    guest.put_bytes(&edited(
        &shipped("right/allow.wat"),
        "(memory (export \"memory\") 2)",
        "(memory (export \"memory\") 3)",
    ));
    agent.signal("HUP");
    let line = agent.wait_for_line("the old module stays in use");
    assert!(line.contains("memory"), "{line}");
    assert_eq!(ask(&agent, "c"), "allow");
}

/// A signal in the middle of a reload is not forgotten.
#[test]
fn signals_that_come_close_together_load_the_last_file() {
    let guest = Guest::new("right/allow.wat");
    let agent = guest.serve(&[]);
    for name in ["rules/rules.wasm", "right/allow.wat", "right/deny.wat"] {
        guest.put(name);
        agent.signal("HUP");
    }
    let deny = shipped("right/deny.wat");
    let hash = sha256(&deny);
    agent.wait_for_line(&hash);
    assert_eq!(ask(&agent, "last"), "block");
}

/// A module whose function copies a table so many times, which is as dear to
/// compile as anything is.
fn dear(copies: usize) -> Vec<u8> {
    let text = fs::read_to_string(shipped("right/allow.wat")).unwrap();
    let copies = "(table.copy (i32.const 0) (i32.const 0) (i32.const 0))".repeat(copies);
    let more = format!("(table 1 funcref) (func (export \"dear\") {copies})");
    let end = text.rfind(')').unwrap();
    wat::parse_str(format!("{} {more})", &text[..end])).unwrap()
}

/// From /proc/PID/status, in KiB.
fn memory_kib(agent: &Agent, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// However dear a module is to compile, the running agent is not put at risk: it
/// is refused by name, or adds a bounded amount of memory.
#[test]
fn o_05_a_dear_module_is_refused_or_costs_bounded_memory() {
    let guest = Guest::new("right/deny.wat");
    let agent = guest.serve(&["--max-compile-time", "170s"]);
    assert_eq!(ask(&agent, "before"), "block");
    let before = memory_kib(&agent, "VmRSS");
    guest.put_bytes(&dear(10_000));
    agent.signal("HUP");
    let line = agent.wait_for_line("the old module stays in use");
    assert!(
        line.contains("complexity") && line.contains("(dear) takes"),
        "{line}"
    );
    assert_eq!(ask(&agent, "refused"), "block");
    assert!(memory_kib(&agent, "VmHWM") < before + (32 << 10));
    // Just below the limit.
    let dearest = dear(2200);
    let size_kib = dearest.len() as u64 >> 10;
    guest.put_bytes(&dearest);
    agent.signal("HUP");
    agent.wait_for_line("reloaded");
    let added = memory_kib(&agent, "VmHWM") - before;
    assert!(added > 32 << 10, "it is dear: {added} KiB");
    assert!(added <= (200 << 10) + 3 * size_kib, "{added} KiB");
    assert_eq!(ask(&agent, "after"), "allow");
}

fn sha256(path: &std::path::Path) -> String {
    use sha2::Digest as _;
    let digits = sha2::Sha256::digest(fs::read(path).unwrap());
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}
