//! Which records are one exchange, and what of them the guest gets.

use serde_json::{Value, json};

use super::{blocks_on, replay, report};
use crate::support::guests::answering;
use crate::support::{TestDir, shipped};

/// What is recorded of an answer.
fn block() -> Value {
    json!({"decision": {"block": {"status": 403}}, "request_headers": [], "response_headers": [], "routing_metadata": {}, "audit": {"tags": [], "rule_ids": [], "reason_codes": []}, "needs_more": false, "request_body_mutation": null, "response_body_mutation": null})
}

fn allow() -> Value {
    let mut allow = block();
    allow["decision"] = json!("allow");
    allow
}

fn line(id: &str, phase: &str, (input, output): (Value, Value)) -> String {
    json!({"v": 1, "id": id, "phase": phase, "input": input, "output": output}).to_string()
}

fn head(id: &str) -> String {
    let input = json!({"method": "POST", "uri": "/", "client_ip": "192.0.2.1", "correlation_id": id, "headers": {}});
    line(id, "request_headers", (input, allow()))
}

fn response(id: &str, status: u16, output: Value) -> String {
    let input = json!({"status": status, "correlation_id": id, "headers": {}});
    line(id, "response_headers", (input, output))
}

fn chunk(id: &str, phase: &str, (index, is_last): (u32, bool)) -> String {
    let side = if phase == "request_body" {
        "bytes_received"
    } else {
        "bytes_sent"
    };
    let input = json!({"correlation_id": id, "chunk_index": index, "is_last": is_last, "total_size": null, side: 1, "data": "a", "encoding": "utf8"});
    line(id, phase, (input, allow()))
}

/// One module that refuses all, and one that lets all pass.
fn modules(dir: &TestDir) -> [std::path::PathBuf; 2] {
    [
        answering(dir, "old.wat", r#"{"decision":"block"}"#),
        answering(dir, "new.wat", r#"{"decision":"allow"}"#),
    ]
}

/// All that was asked under one id is asked again and compared, also behind a
/// refusal of another exchange.
#[test]
fn exchanges_that_share_an_id_are_each_asked() {
    let dir = TestDir::new();
    let [old, new] = modules(&dir);
    let body = |index| chunk("t", "request_body", (index, false));
    let after = |id: &str| {
        let context =
            json!({"input": {}, "data": {}, "user": null, "headers": {}, "tenant_id": null});
        line(id, "after_hook", (context, json!({"ok": true})))
    };
    for (lines, transactions) in [
        (
            vec![500, 501, 502, 503]
                .into_iter()
                .map(|status| response("t", status, block()))
                .collect(),
            4,
        ),
        // Without a last chunk, and of other ids in between; the third chunk may
        // be of either.
        (
            vec![body(0), body(1), head("o"), body(0), body(1), body(2)],
            4,
        ),
        (vec![body(0), body(2)], 2),
        (
            vec![head("t"), body(0), response("t", 200, allow()), body(1)],
            1,
        ),
        (
            vec![
                head("t"),
                response("t", 200, allow()),
                response("t", 201, allow()),
            ],
            2,
        ),
        (vec![response("t", 200, allow()), body(0)], 2),
        (
            vec![
                chunk("t", "response_body", (0, true)),
                chunk("t", "response_body", (0, true)),
            ],
            2,
        ),
        (
            vec![
                chunk("t", "response_body", (0, true)),
                response("t", 200, allow()),
            ],
            2,
        ),
        // What was refused did not go on.
        (
            vec![
                response("t", 200, block()),
                chunk("t", "response_body", (0, false)),
            ],
            2,
        ),
        (
            vec![
                response("t", 200, allow()),
                chunk("t", "response_body", (0, false)),
            ],
            1,
        ),
    ] {
        let capture = dir.file("c.jsonl", lines.join("\n"));
        let of_one = report(&new, &[&capture], &[]);
        assert_eq!(of_one["records"]["transactions"], transactions, "{lines:?}");
        assert_eq!(of_one["outcomes"]["calls"], lines.len(), "{lines:?}");
        assert_eq!(of_one["drift"]["compared"], transactions, "{lines:?}");
        let of_two = report(&new, &[&capture], &["--baseline", old.to_str().unwrap()]);
        assert_eq!(of_two["comparison"]["compared"], transactions, "{lines:?}");
        assert_eq!(
            of_two["comparison"]["categories"]["decision"], transactions,
            "{of_two}"
        );
    }
    let hooks = dir.file("h.jsonl", [after("h"), after("h"), after("h")].join("\n"));
    let read = report(&shipped("account/account.wasm"), &[&hooks], &[]);
    assert_eq!(read["records"]["transactions"], 3, "{read}");
}

/// The record of a request, or of a chunk of its body.
fn of_request(uri: &str, chunk: Option<(u32, bool)>) -> String {
    let line = json!({"method": "PUT", "uri": uri, "client_ip": "192.0.2.1"});
    let headers = json!({"x-size": uri.len().to_string()});
    let mut input = json!({"correlation_id": "t"});
    let phase = if let Some((index, is_last)) = chunk {
        input = json!({"correlation_id": "t", "method": line["method"], "uri": line["uri"], "client_ip": line["client_ip"], "headers": headers, "chunk_index": index, "is_last": is_last, "total_size": null, "bytes_received": 1, "data": "a", "encoding": "utf8"});
        "request_body"
    } else {
        for (key, value) in line.as_object().unwrap() {
            input[key] = value.clone();
        }
        input["headers"] = headers;
        "request_headers"
    };
    line_of_ours("t", phase, &input)
}

/// A line as `serve` writes it.
fn line_of_ours(id: &str, phase: &str, input: &Value) -> String {
    format!(
        r#"{{"v":1,"id":"{id}","phase":"{phase}","ts":null,"module":null,"input":{input},"output":{},"error":null,"fuel":null,"wall_ns":null,"redacted":[]}}"#,
        allow()
    )
}

/// A body repeats the request that it is of, and joins that one, though several
/// under one id are open.
#[test]
fn a_body_joins_the_request_that_it_repeats() {
    let dir = TestDir::new();
    let [_, allow] = modules(&dir);
    let lines = [
        of_request("/a", None),
        of_request("/bb", None),
        of_request("/ccc", None),
        of_request("/a", Some((0, false))),
        of_request("/ccc", Some((0, false))),
        of_request("/a", Some((1, true))),
        of_request("/ccc", Some((1, false))),
        of_request("/ccc", Some((2, true))),
        // Its head is not here.
        of_request("/d", Some((0, true))),
    ];
    let respelled = lines.iter().map(|line| line.replace(':', ": "));
    for lines in [lines.to_vec(), respelled.collect()] {
        let capture = dir.file("c.jsonl", lines.join("\n"));
        for (path, calls) in [("/a", 3), ("/bb", 1), ("/ccc", 4), ("/d", 1)] {
            let path = format!("path=^{path}$");
            let read = report(&allow, &[&capture], &["--match", &path]);
            assert_eq!(read["records"]["transactions"], 1, "{path}: {read}");
            assert_eq!(read["outcomes"]["calls"], calls, "{path}: {read}");
            assert_eq!(read["remarks"]["exchange_unclear"], Value::Null, "{read}");
        }
    }
}

/// A number is the same however it is spelled.
#[test]
fn chunks_follow_each_other_in_any_spelling() {
    let dir = TestDir::new();
    let [_, allow] = modules(&dir);
    let chunk = |index: &str, is_last: bool| {
        of_request("/up", Some((7, is_last)))
            .replace(r#""chunk_index":7"#, &format!(r#""chunk_index":{index}"#))
    };
    let lines = [
        of_request("/up", None),
        chunk("0.0", false),
        chunk("1e0", false),
        chunk("2", false),
        chunk("3.0", true),
    ];
    let capture = dir.file("c.jsonl", lines.join("\n"));
    let read = report(&allow, &[&capture], &[]);
    assert_eq!(read["records"]["transactions"], 1, "{read}");
    assert_eq!(read["outcomes"]["calls"], 5, "{read}");
    assert_eq!(read["records"]["unusable"], 0, "{read}");
}

/// What may be of several is asked all the same, and the report says so.
#[test]
fn a_response_of_one_of_several_requests_is_asked_on_its_own() {
    let dir = TestDir::new();
    let [_, allow] = modules(&dir);
    let answered = |status: u16| response("t", status, block());
    let lines = [
        of_request("/a", None),
        of_request("/b", None),
        answered(500),
        answered(200),
    ];
    let capture = dir.file("c.jsonl", lines.join("\n"));
    let done = replay(&allow, &[&capture], &["--format", "json"]);
    done.assert_code(1);
    let read = done.json();
    assert_eq!(read["records"]["transactions"], 4, "{read}");
    assert_eq!(read["drift"]["categories"]["decision"], 2, "{read}");
    assert_eq!(read["remarks"]["exchange_unclear"], 2, "{read}");
    // The first was answered, so the second response is of the second.
    let lines = [&lines[0], &lines[2], &lines[1], &lines[3]].map(String::as_str);
    let capture = dir.file("c.jsonl", lines.join("\n"));
    let read = report(&allow, &[&capture], &[]);
    assert_eq!(read["records"]["transactions"], 2, "{read}");
    assert_eq!(read["remarks"]["exchange_unclear"], Value::Null, "{read}");
}

/// The same of a tap, whose trace ids begin anew when Envoy does.
#[test]
fn a_tap_s_second_response_is_another_exchange() {
    let dir = TestDir::new();
    let segment = |part: &str, fields: Value| {
        json!({"http_streamed_trace_segment": {"trace_id": "1", part: fields}}).to_string()
    };
    let request =
        json!({"headers": [{"key": ":method", "value": "POST"}, {"key": ":path", "value": "/"}]});
    let response = |status: &str| {
        segment(
            "response_headers",
            json!({"headers": [{"key": ":status", "value": status}]}),
        )
    };
    let body = json!({"as_string": "x"});
    let lines = [
        segment("request_headers", request),
        segment("request_body_chunk", body.clone()),
        response("200"),
        segment("request_body_chunk", body.clone()),
        segment("response_body_chunk", body.clone()),
        response("500"),
        response("501"),
        segment("request_body_chunk", body),
    ];
    let read = report(
        &modules(&dir)[1],
        &[&dir.file("tap.json", lines.join("\n"))],
        &[],
    );
    assert_eq!(read["records"]["transactions"], 3, "{read}");
    assert_eq!(read["outcomes"]["calls"], 4 + 1 + 1, "{read}");
    // A body without a head is no request with an empty method.
    assert_eq!(read["records"]["unusable"], 1, "{read}");
}

#[test]
fn a_large_exchange_is_one() {
    let dir = TestDir::new();
    let chunk = |index: u32| {
        let input = json!({"correlation_id": "u", "chunk_index": index, "is_last": index == 7, "total_size": null, "bytes_received": 1, "data": "a".repeat(1 << 20), "encoding": "utf8"});
        line("u", "request_body", (input, allow()))
    };
    let lines: Vec<String> = [head("u")].into_iter().chain((0..8).map(chunk)).collect();
    let read = report(
        &modules(&dir)[1],
        &[&dir.file("u.jsonl", lines.join("\n"))],
        &[],
    );
    assert_eq!(read["records"]["transactions"], 1, "{read}");
    assert_eq!(read["remarks"], json!({}), "{read}");
}

/// The guest gets what production writes, whoever wrote the record.
#[test]
fn an_input_reaches_the_guest_as_production_spells_it() {
    let dir = TestDir::new();
    let written = r#"{"method":"GET","uri":"/a","client_ip":"192.0.2.1","correlation_id":"c","headers":{"a":"1","b":"2"}}"#;
    let blocks = dir.file("m.wat", blocks_on(written));
    let remark = |input: &str, flags: &[&str]| {
        let record = format!(r#"{{"v":1,"id":"c","phase":"request_headers","input":{input}}}"#);
        let read = report(&blocks, &[&dir.file("c.jsonl", record)], flags);
        let decisions = read["outcomes"]["decisions"].clone();
        (
            decisions == json!({"block 403": 1}),
            read["remarks"].clone(),
        )
    };
    assert_eq!(remark(written, &[]), (true, json!({})));
    for other in [
        written.replace(':', ": "),
        written.replace(r#""a":"1","b":"2""#, r#""B":"2","A":"1""#),
        written.replace("192.0.2.1", "192.0.2.1:80"),
        written.replace("/a", "\\u002Fa"),
        written.replace(
            r#""method":"GET","uri":"/a""#,
            r#""uri":"/a","method":"GET""#,
        ),
    ] {
        assert_eq!(
            remark(&other, &[]),
            (true, json!({"respelled": 1})),
            "{other}"
        );
    }
    let unknown = written.replacen('{', r#"{"colour":"red","#, 1);
    assert_eq!(remark(&unknown, &[]), (true, json!({"unknown_keys": 1})));
    // As `serve --header-names canonical` records it, and gives it.
    let canonical = written.replace(r#""a":"1","b":"2""#, r#""A":"1","B":"2""#);
    let blocks = dir.file("canonical.wat", blocks_on(&canonical));
    for input in [written, &canonical] {
        let record = format!(r#"{{"v":1,"id":"c","phase":"request_headers","input":{input}}}"#);
        let capture = dir.file("c.jsonl", record);
        let read = report(&blocks, &[&capture], &["--header-names", "canonical"]);
        assert_eq!(
            read["outcomes"]["decisions"],
            json!({"block 403": 1}),
            "{input}"
        );
    }
}

/// Equal contexts cost equal instructions, however they were written down.
#[test]
fn a_hook_s_context_reaches_the_guest_as_production_spells_it() {
    let dir = TestDir::new();
    let written = r#"{"input":{"name":"Ada","email":"Ada@b.example"},"data":null,"user":{"id":"7","role":"user"},"headers":{"a":"1","b":"2"},"tenant_id":"acme"}"#;
    let fuel = |context: &str| {
        let record = format!(r#"{{"v":1,"id":"c","phase":"before_hook","input":{context}}}"#);
        let capture = dir.file("h.jsonl", record);
        let read = report(&shipped("account/account.wasm"), &[&capture], &[]);
        (
            read["outcomes"]["fuel"]["max"].as_u64().unwrap(),
            read["remarks"].clone(),
        )
    };
    let (expected, remarks) = fuel(written);
    assert_eq!(remarks, json!({}));
    for (other, remark) in [
        (written.replace(':', " : "), "respelled"),
        (
            written.replace(r#""a":"1","b":"2""#, r#""b":"2","a":"1""#),
            "respelled",
        ),
        (written.replace(r#""data":null,"#, ""), "respelled"),
        (written.replace("Ada@", "\\u0041da@"), "respelled"),
        (
            written.replacen('{', r#"{"colour":"red","#, 1),
            "unknown_keys",
        ),
    ] {
        assert_eq!(fuel(&other), (expected, json!({remark: 1})), "{other}");
    }
}

/// A limit counts transactions, whether or not records are looked at before.
#[test]
fn a_limit_counts_what_can_be_used() {
    let dir = TestDir::new();
    let [_, allow] = modules(&dir);
    let broken = |id: &str| line(id, "request_headers", (json!({"uri": "/"}), Value::Null));
    let hook = line("h", "before_hook", (json!({"input": {}}), Value::Null));
    let lines = [
        broken("a"),
        head("b"),
        hook,
        broken("c"),
        head("d"),
        head("e"),
    ];
    let capture = dir.file("c.jsonl", lines.join("\n"));
    for flags in [
        &[][..],
        &["--match", "path=.*"],
        &["--speed", "1000x"],
        &["-j", "3"],
    ] {
        let done = replay(
            &allow,
            &[&capture],
            &[flags, &["--limit", "2", "--format", "json"]].concat(),
        );
        let records = &done.json()["records"];
        assert_eq!(records["transactions"], 2, "{flags:?}: {records}");
        assert_eq!(records["unusable"], 3, "{flags:?}: {records}");
    }
}
