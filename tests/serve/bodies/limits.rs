//! What a body may be, and what becomes of one that is not.

use serde_json::{Value, json};

use super::proxies::{
    CHUNK, HEAD, Proxy, RESPONSE, RESPONSE_CHUNK, Served, TRANSPORTS, Transport, ask_v1,
};
use super::uploads::{Upload, guest_says, has_tag, id_of, says};
use crate::support::agent::decision_of;
use crate::support::guests::{joiner, whole_body};
use crate::support::{MODES, high_water_kib};

const WHOLE: [&str; 2] = ["--body", "whole"];
const MORE: &str = "allow, more true, [], []";

fn joiner_whole(flags: &[&str]) -> Served {
    Served::wat(&joiner("", 0), &[&WHOLE, flags].concat())
}

/// A body of these sizes whose head does not say how long it is.
fn sized(number: usize, sizes: &[usize]) -> Upload {
    let chunks: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
    Upload {
        id: id_of(number),
        chunks,
        is_announced: false,
    }
}

/// By the failure policy, for this reason, which is its tag too.
#[track_caller]
fn assert_refused(answer: &Value, code: &str, is_open: bool) {
    assert!(has_tag(answer, code), "{answer}");
    assert_eq!(answer["audit"]["reason_codes"], json!([code]), "{answer}");
    if is_open {
        assert_eq!(answer["decision"], "allow", "{answer}");
        assert!(has_tag(answer, "fail-open"), "{answer}");
    } else {
        let status = if code == "overload" { 503 } else { 500 };
        assert_eq!(answer["decision"]["block"]["status"], status, "{answer}");
    }
}

#[track_caller]
fn assert_joined(answer: &Value, upload: &Upload) {
    let expected = upload.expected(true);
    assert_eq!(says(answer), guest_says(expected.last().unwrap()));
}

fn head(proxy: &mut Proxy, upload: &Upload) {
    let answer = proxy.ask(HEAD, &upload.head());
    assert_eq!(decision_of(&answer), "allow", "{answer}");
}

#[test]
fn a_body_that_is_too_large_gets_the_failure_policy() {
    for (is_open, flags) in MODES {
        let served = joiner_whole(&[&["--max-body", "100B"], flags].concat());
        let mut proxy = served.v2("0.6.54");
        let whole = sized(1, &[60, 40]);
        head(&mut proxy, &whole);
        assert_eq!(says(&proxy.ask(CHUNK, &whole.chunk(0))), MORE);
        assert_joined(&proxy.ask(CHUNK, &whole.chunk(1)), &whole);

        let long = sized(2, &[60, 41, 1]);
        head(&mut proxy, &long);
        assert_eq!(says(&proxy.ask(CHUNK, &long.chunk(0))), MORE);
        let at_once = sized(3, &[101]);
        let announced = sized(4, &[1, 1]);
        let mut first = announced.chunk(0);
        first["total_size"] = json!(101);
        let asked = [
            (&long, long.chunk(1)),
            (&at_once, at_once.chunk(0)),
            (&announced, first),
        ];
        for (upload, chunk) in &asked {
            if upload.id != long.id {
                head(&mut proxy, upload);
            }
            assert_refused(&proxy.ask(CHUNK, chunk), "body-too-large", is_open);
        }
        // Nor is anybody asked about the rest.
        for (upload, at) in [(&long, 2), (&announced, 1)] {
            assert_refused(
                &proxy.ask(CHUNK, &upload.chunk(at)),
                "body-too-large",
                is_open,
            );
        }
    }
}

/// A proxy that buffers sends no more than the beginning of a long body, in one chunk
/// that does not say that it is the last.
#[test]
fn the_beginning_of_a_long_body_is_too_large() {
    for (is_open, flags) in MODES {
        let served = joiner_whole(&[&["--max-body", "100B"], flags].concat());
        let mut old = served.v2("0.6.45");
        let mut new = served.v2("0.6.54");
        let mut v1 = served.proxies(Transport::V1).remove(0);
        for (number, proxy) in [&mut old, &mut new, &mut v1].into_iter().enumerate() {
            let beginning = sized(10 + number, &[100, 0]);
            head(proxy, &beginning);
            let answer = proxy.ask(CHUNK, &beginning.chunk(0));
            assert_refused(&answer, "body-too-large", is_open);
            let short = sized(20 + number, &[99, 1]);
            head(proxy, &short);
            assert_eq!(says(&proxy.ask(CHUNK, &short.chunk(0))), MORE);
            assert_joined(&proxy.ask(CHUNK, &short.chunk(1)), &short);
        }
    }
}

#[test]
fn a_body_with_a_gap_gets_the_failure_policy() {
    for (is_open, flags) in MODES {
        let served = joiner_whole(flags);
        for (rank, transport) in TRANSPORTS.into_iter().enumerate() {
            let mut proxy = served.proxies(transport).remove(0);
            // The first, one in between, and all but the last are missing.
            for (number, sent) in [&[1, 2][..], &[0, 2, 3], &[3]].into_iter().enumerate() {
                let upload = Upload::new(10 * rank + number, &["a", "b", "c", "d"]);
                head(&mut proxy, &upload);
                let mut answers = sent.iter().map(|at| proxy.ask(CHUNK, &upload.chunk(*at)));
                let answer = if sent[0] == 0 {
                    assert_eq!(says(&answers.next().unwrap()), MORE);
                    answers.next().unwrap()
                } else {
                    answers.next().unwrap()
                };
                assert_refused(&answer, "body-incomplete", is_open);
                for answer in answers {
                    assert_refused(&answer, "body-incomplete", is_open);
                }
            }
        }
    }
}

#[test]
fn a_body_that_never_ends_is_counted_and_logged() {
    let served = joiner_whole(&[]);
    let mut proxy = served.v2("0.6.54");
    let upload = sized(1, &[4, 4]);
    head(&mut proxy, &upload);
    assert_eq!(says(&proxy.ask(CHUNK, &upload.chunk(0))), MORE);
    assert_eq!(served.metric("wasm_agent_bodies_unfinished_total"), 0);
    let complete = json!({"correlation_id":upload.id,"status":200,"duration_ms":1});
    proxy.ask(0x14, &complete);
    assert_eq!(served.metric("wasm_agent_bodies_unfinished_total"), 1);
    let line = served
        .agent
        .wait_for_line("a body ended before its last chunk came");
    assert!(line.contains("max-inspection-bytes"), "{line}");
}

/// Two requests with one id, whose chunks come between each other: nobody is asked about
/// a mixed body.
#[test]
fn bodies_that_share_an_id_are_never_mixed() {
    let served = joiner_whole(&[]);
    let mut number = 0;
    let others: [&[&str]; 2] = [&["ddd", "eee", "f"], &["dddeeef"]];
    // Over v1 nothing but the id says whose a chunk is.
    for version in [None, Some("0.6.45"), Some("0.6.54")] {
        // The second head comes before the first chunk, or after it.
        for (is_late, other) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
            number += 1;
            let one = Upload::new(number, &["aaa", "bbb", "c"]);
            let two = Upload::new(number, others[other]);
            let mut proxies = match version {
                None => served.proxies(Transport::V1),
                Some(version) => vec![served.v2(version), served.v2(version)],
            };
            head(&mut proxies[0], &one);
            if is_late {
                let answer = proxies[0].ask(CHUNK, &one.chunk(0));
                assert_eq!(says(&answer), MORE);
            }
            head(&mut proxies[1], &two);
            for at in 0..3 {
                for (rank, upload) in [&one, &two].into_iter().enumerate() {
                    let is_sent = rank == 0 && at == 0 && is_late;
                    if at >= upload.chunks.len() || is_sent {
                        continue;
                    }
                    let answer = proxies[rank].ask(CHUNK, &upload.chunk(at));
                    match answer["audit"]["reason_codes"][0].as_str() {
                        Some(code @ ("ambiguous-exchange" | "body-incomplete" | "head-lost")) => {
                            assert_refused(&answer, code, false);
                        }
                        _ if at + 1 == upload.chunks.len() => assert_joined(&answer, upload),
                        _ => assert_eq!(says(&answer), MORE),
                    }
                }
            }
        }
    }
}

/// Those that send no heads number their chunks. One id may come very often.
#[test]
fn a_body_without_a_head_is_joined_by_its_numbers() {
    let served = joiner_whole(&[]);
    for (rank, transport) in TRANSPORTS.into_iter().enumerate() {
        let mut proxy = served.proxies(transport).remove(0);
        let upload = Upload::new(rank, &["ab", "x", "c", "d"]);
        for _ in 0..100 {
            for at in 0..3 {
                let answer = proxy.ask(CHUNK, &upload.chunk(at));
                assert_eq!(says(&answer), MORE, "{transport:?} {answer}");
            }
            assert_joined(&proxy.ask(CHUNK, &upload.chunk(3)), &upload);
        }
        for at in [0, 2] {
            let answer = proxy.ask(CHUNK, &upload.chunk(at));
            assert_eq!(has_tag(&answer, "body-incomplete"), at == 2, "{answer}");
        }
    }
}

/// More than all bodies together may hold: those that were begun first are given up.
#[test]
fn many_slow_uploads_stay_within_their_memory() {
    const UPLOADS: usize = 200;
    const MAX_BYTES: usize = 128 << 20;
    let size = 400_000;
    let served = joiner_whole(&[]);
    let mut proxy = served.proxies(Transport::Grpc).remove(0);
    let process = served.agent.child.id();
    let before = high_water_kib(process);
    let uploads: Vec<Upload> = (0..UPLOADS).map(|at| sized(at, &[size, size, 1])).collect();
    for upload in &uploads {
        head(&mut proxy, upload);
    }
    for at in 0..2 {
        for upload in &uploads {
            assert_eq!(says(&proxy.ask(CHUNK, &upload.chunk(at))), MORE);
        }
    }
    let grown = (high_water_kib(process) - before) << 10;
    println!("{UPLOADS} uploads: {grown} bytes more");
    // What is read and not taken over yet is beside them.
    assert!(grown < (MAX_BYTES + (32 << 20)) as u64, "{grown}");
    let mut given_up = 0;
    for (rank, upload) in uploads.iter().enumerate() {
        let answer = proxy.ask(CHUNK, &upload.chunk(2));
        if has_tag(&answer, "overload") {
            assert_refused(&answer, "overload", false);
            assert_eq!(given_up, rank, "the oldest first");
            given_up += 1;
        } else {
            assert_joined(&answer, upload);
        }
    }
    assert!(
        (UPLOADS * 2 * size - MAX_BYTES) / (2 * size) <= given_up,
        "{given_up}"
    );
    assert!(given_up < UPLOADS / 2, "{given_up}");
}

/// What the proxy has passed on cannot be replaced any more.
#[test]
fn a_whole_body_is_replaced_only_where_it_came_in_one_chunk() {
    let answer =
        r#"{"decision":"allow","request_body_mutation":{"action":"replace","data":"new"}}"#;
    let text = format!(
        r#"(module (memory (export "memory") 2) (data (i32.const 8) "{}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func (export "on_request_body") (param i32 i32) (result i64) (i64.const {})))"#,
        answer.replace('"', "\\22"),
        (8_usize << 32) | answer.len()
    );
    for (is_open, flags) in MODES {
        let served = Served::wat(&text, &[&WHOLE, flags].concat());
        let mut proxy = served.v2("0.6.54");
        let one = Upload::new(1, &["old"]);
        head(&mut proxy, &one);
        let answer = proxy.ask(CHUNK, &one.chunk(0));
        assert_eq!(decision_of(&answer), "allow");
        assert!(answer["request_body_mutation"].is_object(), "{answer}");
        let several = Upload::new(2, &["o", "ld"]);
        head(&mut proxy, &several);
        assert_eq!(says(&proxy.ask(CHUNK, &several.chunk(0))), MORE);
        let answer = proxy.ask(CHUNK, &several.chunk(1));
        assert_eq!(
            answer["audit"]["reason_codes"],
            json!(["bad-answer:body-mutation"])
        );
        assert_eq!(decision_of(&answer) == "allow", is_open, "{answer}");
        assert!(answer["request_body_mutation"].is_null(), "{answer}");
    }
}

#[test]
fn bodies_of_responses_are_collected_too() {
    let served = joiner_whole(&[]);
    let mut v1 = served.agent.connect();
    let mut v2 = served.v2("0.6.54");
    let upload = Upload::new(3, &["ab", "cd", ""]);
    let mut request = upload.head();
    request["method"] = json!("GET");
    request["headers"] = json!({"host":["a"]});
    let response = json!({"correlation_id":upload.id,"status":200,"headers":{}});
    for is_v1 in [true, false] {
        let mut ask = |kind, event: &Value| {
            if is_v1 {
                ask_v1(&mut v1, kind, event)
            } else {
                v2.ask(kind, event)
            }
        };
        ask(HEAD, &request);
        ask(RESPONSE, &response);
        for at in 0..3 {
            let mut chunk = upload.chunk(at);
            chunk["bytes_sent"] = chunk["bytes_received"].take();
            chunk.as_object_mut().unwrap().remove("bytes_received");
            let answer = ask(RESPONSE_CHUNK, &chunk);
            if at < 2 {
                assert_eq!(says(&answer), MORE);
            } else {
                assert_joined(&answer, &upload);
            }
        }
    }
}

#[test]
fn the_word_of_the_module_goes_before_the_flag() {
    for (word, flag) in [(1, "chunks"), (0, "whole")] {
        let served = Served::wat(&joiner(&whole_body(word), 0), &["--body", flag]);
        let mut proxy = served.v2("0.6.54");
        let upload = Upload::new(1, &["ab", "c"]);
        head(&mut proxy, &upload);
        for (at, expected) in upload.expected(word == 1).iter().enumerate() {
            let answer = proxy.ask(CHUNK, &upload.chunk(at));
            assert_eq!(says(&answer), guest_says(expected));
        }
    }
}
