//! Envoy's taps: parts that are missing or damaged.

use serde_json::{Value, json};

use super::{inputs, remarks, saved, saved_with};

fn segment(part: &str, value: &Value) -> String {
    json!({"http_streamed_trace_segment": {"trace_id": "9", part: value}}).to_string() + "\n"
}

fn fields(pseudo: &[(&str, &str)]) -> Value {
    let field = |(key, value): &(&str, &str)| json!({"key": key, "value": value});
    json!({"headers": pseudo.iter().map(field).collect::<Vec<_>>()})
}

fn chunk(side: &str, text: &str) -> String {
    segment(&format!("{side}_body_chunk"), &json!({"as_string": text}))
}

/// A chunk without its head is named; no head is made up for it.
#[test]
fn chunks_without_their_head_are_named() {
    let asked = segment(
        "request_headers",
        &fields(&[(":method", "POST"), (":path", "/a")]),
    );
    let answered = segment("response_headers", &fields(&[(":status", "200")]));
    for (lines, calls, unusable, remark) in [
        (
            vec![&*chunk("request", "x"), &answered],
            1,
            1,
            Some("start_missing"),
        ),
        (
            vec![&*asked, &chunk("response", "x")],
            1,
            1,
            Some("start_missing"),
        ),
        (
            vec![
                &*asked,
                &chunk("response", "x"),
                &answered,
                &chunk("response", "y"),
            ],
            3,
            1,
            Some("start_missing"),
        ),
        (
            vec![&*chunk("response", "x"), &chunk("response", "y")],
            0,
            2,
            None,
        ),
        (
            vec![
                &*asked,
                &chunk("request", "x"),
                &answered,
                &chunk("response", "y"),
            ],
            4,
            0,
            None,
        ),
    ] {
        let text = lines.concat();
        let (report, records) = saved("c.json", &text);
        assert_eq!(records.len(), calls, "{text}");
        assert_eq!(report["records"]["unusable"], unusable, "{text} {report}");
        assert!(
            inputs(&records, "request_headers", "method")
                .iter()
                .all(|it| it == "POST")
        );
        let remarks = remarks(&report);
        assert!(
            remark.is_none_or(|remark| remarks.contains(&remark)),
            "{report}"
        );
        assert!(calls < 4 || remarks.is_empty(), "{report}");
    }
}

/// Numbers, lone surrogates and trailers; and one half that cannot be used.
#[test]
fn what_decides_nothing_costs_nothing() {
    let head = r#""headers":[{"key":":method","value":"PUT"},{"key":":path","value":"/a\udcff"},{"key":"x-n","value":7}]"#;
    let trace = |rest: &str, more: &str| {
        format!(r#"{{"http_buffered_trace":{{"request":{{{head}{rest}}}{more}}}}}"#)
    };
    let text = [
        trace(
            r#","headers_received_time":5,"body":{"as_string":"a\udc80","truncated":false}"#,
            r#","downstream_connection":7"#,
        ),
        trace(r#","trailers":[{"key":"a","value":"b"}]"#, ""),
        trace(
            r#","body":{"as_bytes":"*"}"#,
            r#","response":{"headers":[{"key":":status","value":"201"}]}"#,
        ),
        trace("", r#","response":{"headers":[]}"#),
    ];
    let (report, records) = saved("c.json", format!("[{}]", text.join(",")));
    assert_eq!(inputs(&records, "request_headers", "uri"), ["/a%FF"; 4]);
    assert_eq!(
        inputs(&records, "request_headers", "headers")[0]["x-n"],
        "7"
    );
    assert_eq!(inputs(&records, "request_body", "data"), ["YYA="]);
    assert_eq!(inputs(&records, "response_headers", "status"), [201]);
    assert_eq!(report["records"]["unusable"], 2, "{report}");
    assert!(remarks(&report).contains(&"parts_left_out"), "{report}");
}

/// A chunk that cannot be read leaves no made-up body: the exchanges that it may be
/// of are told to be cut, and no others.
#[test]
fn a_lost_chunk_is_told_where_it_may_be_missing() {
    let head = |id: &str| {
        let fields = fields(&[(":method", "POST"), (":path", "/a")]);
        json!({"http_streamed_trace_segment": {"trace_id": id, "request_headers": fields}})
            .to_string()
            + "\n"
    };
    let long = chunk("request", &"x".repeat(2000));
    let cut = chunk("request", "lost");
    let other = cut.replace("\"9\"", "\"10\"");
    let unreadable = other.replace("\"lost\"", "lost");
    for (bad, cut) in [
        (&cut[..cut.len() - 4], true),
        (&cut[..20], true),
        (&*long, true),
        // Of a record whose end is missing nobody knows whose it is.
        (&other[..other.len() - 4], true),
        (&*unreadable, false),
    ] {
        let all = [
            &*head("9"),
            &chunk("request", "AAAA"),
            bad.trim_end(),
            "\n",
            &chunk("request", "B"),
        ];
        let (report, records) = saved_with("c.json", all.concat(), &["--max-record", "1k"]);
        assert_eq!(report["records"]["unusable"], 1, "{bad} {report}");
        assert_eq!(inputs(&records, "request_headers", "uri"), ["/a"], "{bad}");
        let is_told = remarks(&report).contains(&"body_truncated");
        assert_eq!(is_told, cut, "{bad} {report}");
    }
}

/// Parts, bodies and header fields that no reader knows are named.
#[test]
fn unknown_parts_are_named() {
    let plain = [(":method", "GET"), (":path", "/a")];
    let with = |more: Value| {
        let mut all = fields(&plain);
        all["headers"].as_array_mut().unwrap().push(more);
        segment("request_headers", &all)
    };
    let head = segment("request_headers", &fields(&plain));
    let trace = |body: Value| {
        let mut request = fields(&plain);
        request["body"] = body;
        json!({"http_buffered_trace": {"request": request}}).to_string()
    };
    for (text, unusable, agent) in [
        (
            head.clone() + &segment("requestBody", &json!({"as_string": "x"})),
            1,
            None,
        ),
        (
            head.clone() + &segment("request_body_chunk", &json!({"data": "x"})),
            1,
            None,
        ),
        (trace(json!({"asBase64": "aGk="})), 1, None),
        (
            trace(json!({"as_bytes": "aGk=", "as_string": "x"})),
            1,
            None,
        ),
        (trace(json!({})), 0, None),
        (
            with(json!({"key": "a", "value": "sqlmap", "raw_value": ""})),
            0,
            Some("sqlmap"),
        ),
        (with(json!({"name": "a", "value": "v"})), 0, Some("v")),
        (
            with(json!({"header": {"key": "a", "value": "v"}})),
            0,
            Some("v"),
        ),
        (with(json!({"key": "a", "rawValue": "w78_"})), 0, Some("")),
        (with(json!({"nome": "a", "value": "v"})), 1, None),
        (
            with(json!({"key": "a", "value": "v", "raw_value": "aGk="})),
            1,
            None,
        ),
    ] {
        let (report, records) = saved("c.json", &text);
        assert_eq!(report["records"]["unusable"], unusable, "{text} {report}");
        let agents = inputs(&records, "request_headers", "headers");
        let agents: Vec<_> = agents.iter().filter_map(|it| it["a"].as_str()).collect();
        assert_eq!(agents, agent.into_iter().collect::<Vec<_>>(), "{text}");
    }
}

/// An interim response is no response, and one of an odd shape costs no request.
#[test]
fn responses_of_another_kind_cost_no_other_part() {
    let status = |status| segment("response_headers", &fields(&[(":status", status)]));
    let head = segment(
        "request_headers",
        &fields(&[(":method", "GET"), (":path", "/a")]),
    );
    let (report, records) = saved("c.json", head + &status("100") + &status("403"));
    assert_eq!(inputs(&records, "response_headers", "status"), [403]);
    assert_eq!(report["records"]["transactions"], 1, "{report}");
    assert_eq!(remarks(&report), ["parts_left_out"]);
    for response in [
        json!({"headers": null}),
        json!({"headers": {}}),
        json!({"headers": 5}),
        json!([]),
    ] {
        let request = fields(&[(":method", "GET"), (":path", "/a")]);
        let text = json!({"http_buffered_trace": {"request": request, "response": response}});
        let (report, records) = saved("c.json", text.to_string());
        assert_eq!(report["records"]["unusable"], 1, "{report}");
        assert_eq!(inputs(&records, "request_headers", "uri"), ["/a"]);
    }
}
