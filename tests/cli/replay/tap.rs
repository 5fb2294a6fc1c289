//! Envoy's taps: parts that are missing or damaged.

use serde_json::{Value, json};

use super::{inputs, remarks, saved};

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
