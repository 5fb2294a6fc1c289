//! HAR files in the shapes that tools really write, each with what is special
//! about it, and damaged ones.

use serde_json::{Value, json};

use super::{inputs, remarks, saved};

fn har(entries: &[Value]) -> String {
    json!({"log": {"version": "1.2", "entries": entries}}).to_string()
}

/// An entry of this request and response, `GET https://a.example/x` and 200 where they
/// do not say otherwise.
fn entry(request: &Value, response: &Value) -> Value {
    let mut all = json!({"startedDateTime": "2026-01-01T00:00:00Z",
        "request": {"method": "GET", "url": "https://a.example/x", "headers": [], "bodySize": -1},
        "response": {"status": 200, "headers": []}});
    for (half, given) in [("request", request), ("response", response)] {
        let half = all[half].as_object_mut().unwrap();
        half.extend(given.as_object().unwrap().clone());
    }
    all
}

fn field(name: &str, value: &Value) -> Value {
    json!({"name": name, "value": value})
}

/// One entry of a tool, with nothing of it unusable.
fn of_tool(entry: &Value) -> (Value, Vec<Value>) {
    let (report, records) = saved("tool.har", har(std::slice::from_ref(entry)));
    assert_eq!(report["records"]["unusable"], 0, "{report}");
    assert_eq!(report["records"]["transactions"], 1, "{report}");
    (report, records)
}

/// HTTP/2 has pseudo-headers, the handshake of a socket has no method, its messages
/// stand beside it, and sizes are -1 where they are not known.
#[test]
fn chrome() {
    let mut socket = entry(
        &json!({"method": "", "url": "wss://a.example/ws", "headers": [field(":authority", &json!("h2.example")), field(":path", &json!("/ws"))]}),
        &json!({"status": 101, "content": {"size": 0, "mimeType": "x-unknown"}, "_transferSize": 0, "_error": null}),
    );
    socket["_initiator"] = json!({"type": "script", "stack": {"callFrames": []}});
    socket["_webSocketMessages"] = json!([{"type": "send", "data": "hi"}]);
    let (report, records) = of_tool(&socket);
    assert_eq!(inputs(&records, "request_headers", "method"), ["GET"]);
    assert_eq!(
        inputs(&records, "request_headers", "headers")[0]["host"],
        "h2.example"
    );
    assert_eq!(remarks(&report), ["parts_left_out"]);
    socket["_webSocketMessages"] = json!([]);
    assert!(remarks(&of_tool(&socket).0).is_empty());
}

/// A form has params and no text, header values of one name are joined by line feeds,
/// and a body beyond the limit is cut.
#[test]
fn firefox() {
    let (report, records) = of_tool(&entry(
        &json!({"method": "POST", "postData": {"mimeType": "application/x-www-form-urlencoded", "params": [field("a", &json!("1 & 2")), field("b", &json!(null))], "text": ""}, "bodySize": 12}),
        &json!({"headers": [field("Set-Cookie", &json!("a=1\nb=2; Path=/"))], "content": {"mimeType": "text/html", "size": 5000, "text": "<html>", "comment": ""}, "redirectURL": "", "headersSize": 0}),
    ));
    assert_eq!(inputs(&records, "request_body", "data"), ["a=1+%26+2&b="]);
    assert_eq!(
        inputs(&records, "response_headers", "headers")[0]["set-cookie"],
        "a=1, b=2; Path=/"
    );
    assert_eq!(remarks(&report), ["body_truncated"]);
}

/// Lists and sizes are left out where they are empty.
#[test]
fn safari() {
    let bare = json!({"request": {"method": "GET", "url": "https://a.example/x?y"}, "response": {"status": 200, "content": {"size": 0}}, "_priority": "high"});
    let (report, records) = of_tool(&bare);
    assert_eq!(inputs(&records, "request_headers", "uri"), ["/x?y"]);
    assert_eq!(inputs(&records, "response_headers", "status"), [200]);
    assert!(remarks(&report).is_empty(), "{report}");
}

/// Bodies are base64 in lines, and states have keys of their own.
#[test]
fn charles() {
    let mut failed = entry(
        &json!({"bodySize": 0, "headersSize": 12.0}),
        &json!({"_charlesStatus": "COMPLETE", "status": 200, "content": {"size": 3, "compression": null, "mimeType": null, "text": "/wA\r\nB", "encoding": "base64"}, "bodySize": 3}),
    );
    failed["serverIPAddress"] = json!(null);
    let (report, records) = of_tool(&failed);
    assert_eq!(inputs(&records, "response_body", "data"), ["/wAB"]);
    assert!(remarks(&report).is_empty(), "{report}");
}

/// The file begins with a byte order mark, and comments stand everywhere.
#[test]
fn fiddler() {
    let mut one = entry(
        &json!({"httpVersion": "http/1.1", "comment": ""}),
        &json!({"status": 200.0, "comment": ""}),
    );
    one["comment"] = json!("[#12]");
    one["_timings"] = json!("none");
    let text = har(&[one]).replacen(
        "\"version\"",
        "\"comment\":\"exported @ 1/1\",\"version\"",
        1,
    );
    let (report, records) = saved("f.har", format!("\u{feff}{text}"));
    assert_eq!(report["records"]["unusable"], 0, "{report}");
    assert_eq!(records.len(), 2);
}

/// Numbers are texts and texts are numbers; queries and cookies stand in lists alone.
#[test]
fn insomnia() {
    let (report, records) = of_tool(&entry(
        &json!({"bodySize": "7", "headersSize": "-1", "method": "POST", "headers": [field("Content-Length", &json!(7)), field("X-Flag", &json!(true)), field("X-None", &json!(null))],
            "queryString": [field("q", &json!("a b&c")), field("n", &json!(5))], "cookies": [field("sid", &json!("1")), field("t", &json!(2))],
            "postData": {"mimeType": "", "text": "payload"}}),
        &json!({"status": "201", "content": {"size": "0"}, "cookies": [{"name": "c", "value": "3", "path": "/", "httpOnly": true, "expires": null}]}),
    ));
    assert_eq!(
        inputs(&records, "request_headers", "uri"),
        ["/x?q=a%20b%26c&n=5"]
    );
    let fields = &inputs(&records, "request_headers", "headers")[0];
    assert_eq!(
        (&fields["content-length"], &fields["cookie"]),
        (&json!("7"), &json!("sid=1; t=2"))
    );
    assert_eq!(fields["x-flag"], "true");
    assert_eq!(
        inputs(&records, "response_headers", "headers")[0]["set-cookie"],
        "c=3; Path=/; HttpOnly"
    );
    assert_eq!(inputs(&records, "response_headers", "status"), [201]);
    assert!(remarks(&report).is_empty(), "{report}");
}

/// Bytes of a body are lone surrogates or base64, and a size is the one before
/// decoding.
#[test]
fn mitmproxy() {
    let posted = json!({"method": "POST", "url": "https://a.example/BYTES", "headers": [field("x-b", &json!("BYTES"))], "postData": {"text": "BYTES", "params": []}, "bodySize": 2});
    let answered = json!({"content": {"size": 120, "compression": -114, "text": "AAAAAAAA", "encoding": "base64"}});
    let text = har(&[entry(&posted, &answered)]).replace("BYTES", "\\udcff\\ud83d\\ude00\\ud800");
    let (report, records) = saved("m.har", text);
    let bytes = "//CfmIDvv70=";
    assert_eq!(inputs(&records, "request_body", "data"), [bytes]);
    assert_eq!(
        inputs(&records, "request_headers", "uri"),
        ["/%FF%F0%9F%98%80%EF%BF%BD"]
    );
    assert_eq!(report["records"]["unusable"], 0, "{report}");
    assert_eq!(remarks(&report), ["header_not_ascii"]);
}

/// Bodies lie in files beside the archive.
#[test]
fn playwright() {
    for key in ["_file", "_sha1"] {
        let (report, records) = of_tool(&entry(
            &json!({"method": "POST", "postData": {"mimeType": "text/plain", "params": [], key: "ab.txt"}}),
            &json!({"content": {"size": -1, "mimeType": "text/html", key: "cd.html"}}),
        ));
        assert_eq!(records.len(), 2, "no body is made up");
        assert_eq!(remarks(&report), ["body_missing"]);
    }
}

/// Sizes are texts, pages and entries are full of keys with `_`, and headers are
/// lines.
#[test]
fn webpagetest() {
    let mut one = entry(
        &json!({"headers": null, "bodySize": ""}),
        &json!({"headers": [], "bodySize": "", "content": {"size": "", "mimeType": ""}}),
    );
    one["_bytesIn"] = json!("1432");
    one["_headers"] = json!({"request": ["GET /x HTTP/1.1", "Host: w.example", "Cookie: a=1; b=2", ":path: /x"], "response": ["HTTP/1.1 200 OK", "Server: w"]});
    let text = har(&[one]).replacen(
        "{\"entries\"",
        "{\"pages\":[{\"_URL\":\"x]}\",\"_bytesIn\":\"9\"}],\"entries\"",
        1,
    );
    let (report, records) = saved("w.har", text);
    assert_eq!(report["records"]["unusable"], 0, "{report}");
    let fields = &inputs(&records, "request_headers", "headers")[0];
    assert_eq!(fields, &json!({"cookie": "a=1; b=2", "host": "w.example"}));
    assert_eq!(
        inputs(&records, "response_headers", "headers")[0],
        json!({"server": "w"})
    );
}

/// What a list has is made only where URL and headers have none.
#[test]
fn lists_are_never_taken_twice() {
    let (_, records) = of_tool(&entry(
        &json!({"url": "https://a.example/x?q=1", "headers": [field("Cookie", &json!("a=1"))], "queryString": [field("q", &json!("1"))], "cookies": [field("a", &json!("1"))]}),
        &json!({"headers": [field("set-cookie", &json!("b=2"))], "cookies": [field("b", &json!("2"))]}),
    ));
    assert_eq!(inputs(&records, "request_headers", "uri"), ["/x?q=1"]);
    assert_eq!(
        inputs(&records, "request_headers", "headers")[0]["cookie"],
        "a=1"
    );
    assert_eq!(
        inputs(&records, "response_headers", "headers")[0]["set-cookie"],
        "b=2"
    );
}

/// A body that is cut or missing has a remark, one that is whole has none.
#[test]
fn bodies_that_are_not_whole_are_told() {
    let length = |bytes: u32| json!([field("content-length", &json!(bytes.to_string()))]);
    let text = |text: &str| json!({"mimeType": "text/plain", "text": text});
    for (request, response, expected) in [
        (
            json!({"headers": length(5)}),
            json!({}),
            &["body_missing"][..],
        ),
        (
            json!({"headers": length(5), "postData": text("abc")}),
            json!({}),
            &["body_truncated"],
        ),
        (
            json!({"bodySize": 5, "postData": text("abc")}),
            json!({}),
            &["body_truncated"],
        ),
        (
            json!({"bodySize": 3, "postData": text("abc")}),
            json!({}),
            &[],
        ),
        (
            json!({"postData": {"mimeType": "multipart/form-data", "params": [field("a", &json!(1))]}}),
            json!({}),
            &["body_missing"],
        ),
        (json!({"postData": "abc"}), json!({}), &[]),
        (json!({}), json!({"headers": length(5)}), &["body_missing"]),
        (json!({}), json!({"status": 304, "headers": length(5)}), &[]),
        (
            json!({"method": "HEAD"}),
            json!({"headers": length(5)}),
            &[],
        ),
        (
            json!({}),
            json!({"content": {"size": 9, "text": "abc"}}),
            &["body_truncated"],
        ),
        // Its byte order mark is left out of the text.
        (
            json!({}),
            json!({"content": {"size": 6, "text": "abc"}}),
            &[],
        ),
        (
            json!({}),
            json!({"content": {"size": 9}}),
            &["body_missing"],
        ),
        (
            json!({}),
            json!({"content": {"size": 9, "text": ""}}),
            &["body_missing"],
        ),
    ] {
        let (report, _) = of_tool(&entry(&request, &response));
        assert_eq!(remarks(&report), expected, "{request} {response}");
    }
}

/// One half of another shape, or a body that is none, costs itself alone.
#[test]
fn a_bad_part_leaves_the_rest_of_its_entry() {
    for (request, response, calls) in [
        (json!({}), json!({"headers": 5}), 1),
        (json!({}), json!({"status": 20}), 1),
        (
            json!({}),
            json!({"content": {"text": "*", "encoding": "base64"}}),
            2,
        ),
        (
            json!({"postData": {"text": "*", "encoding": "base64"}}),
            json!({}),
            2,
        ),
        (
            json!({"headers": [field("a", &json!({"x": 1}))]}),
            json!({}),
            0,
        ),
        (json!({"method": ""}), json!({}), 0),
        (json!({"url": "a.example/x"}), json!({}), 0),
    ] {
        let (report, records) = saved("b.har", har(&[entry(&request, &response)]));
        assert_eq!(
            report["records"]["unusable"], 1,
            "{request} {response} {report}"
        );
        assert_eq!(records.len(), calls, "{request} {response}");
    }
    // A path alone is enough.
    let host = json!([field("host", &json!("h.example"))]);
    let (_, records) = of_tool(&entry(
        &json!({"url": "/a?b#c", "headers": host}),
        &json!({}),
    ));
    assert_eq!(inputs(&records, "request_headers", "uri"), ["/a?b"]);
}

/// What stands behind the end that was believed is read or named.
#[test]
fn nothing_behind_a_stray_bracket_is_lost() {
    let at = |path: &str| {
        entry(
            &json!({"url": format!("https://a.example{path}")}),
            &json!({}),
        )
    };
    let (one, two) = (at("/1"), at("/2"));
    for (text, both, unusable) in [
        (
            format!(r#"{{"log":{{"entries":[{one}],{two}]}}}}"#),
            true,
            1,
        ),
        (
            format!(r#"{{"log":{{"entries":[{one}}},{two}]}}}}"#),
            true,
            1,
        ),
        (
            format!(
                r#"{{"log":{{"entries":[{one}]}}}}{}"#,
                har(std::slice::from_ref(&two))
            ),
            true,
            0,
        ),
        (
            format!(r#"{{"log":{{"entries":[{one}],"pages":[],"entries":[{two}]}},"x":1}}"#),
            true,
            0,
        ),
        (
            format!(r#"{{"log":{{"entries":[{one}]}}}} {two}"#),
            false,
            1,
        ),
        (
            format!(r#"{{"log":{{"entries":[{one}]}}}} and more"#),
            false,
            2,
        ),
    ] {
        let (report, records) = saved("s.har", &text);
        let uris = inputs(&records, "request_headers", "uri");
        assert_eq!(uris.contains(&json!("/2")), both, "{text}");
        assert_eq!(report["records"]["unusable"], unusable, "{text} {report}");
    }
}

/// A list beside a URL, header or text: it stands for what is empty there, and a name
/// that is nowhere else is told.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of inputs")]
fn lists_beside_texts_lose_nothing() {
    let (one, two) = (
        json!([field("a", &json!("1"))]),
        json!([field("a", &json!("1")), field("b", &json!("evil"))]),
    );
    let form = |text: &str, params: &Value| json!({"mimeType": "application/x-www-form-urlencoded", "text": text, "params": params});
    let cookie = |value: &str| json!([field("Cookie", &json!(value))]);
    for (request, phase, key, expected, differs) in [
        (
            json!({"url": "http://a.example/x?", "queryString": one}),
            "request_headers",
            "uri",
            json!("/x?a=1"),
            false,
        ),
        (
            json!({"url": "http://a.example/x?%61=1", "queryString": one}),
            "request_headers",
            "uri",
            json!("/x?%61=1"),
            false,
        ),
        (
            json!({"url": "http://a.example/x?a=1", "queryString": two}),
            "request_headers",
            "uri",
            json!("/x?a=1"),
            true,
        ),
        (
            json!({"url": "http://a.example/x?a=1", "queryString": [field("a", &json!("1")), 5]}),
            "request_headers",
            "uri",
            json!("/x?a=1"),
            true,
        ),
        (
            json!({"headers": cookie("a=1"), "cookies": 5.5}),
            "request_headers",
            "headers",
            json!({"host": "a.example", "cookie": "a=1"}),
            true,
        ),
        (
            json!({"url": "//a.example/x?y", "queryString": "y"}),
            "request_headers",
            "uri",
            json!("/x?y"),
            false,
        ),
        (
            json!({"headers": cookie(""), "cookies": one}),
            "request_headers",
            "headers",
            json!({"host": "a.example", "cookie": "a=1"}),
            false,
        ),
        (
            json!({"headers": cookie("a=1; c=2"), "cookies": one}),
            "request_headers",
            "headers",
            json!({"host": "a.example", "cookie": "a=1; c=2"}),
            false,
        ),
        (
            json!({"headers": cookie("a=1"), "cookies": two}),
            "request_headers",
            "headers",
            json!({"host": "a.example", "cookie": "a=1"}),
            true,
        ),
        (
            json!({"cookies": [field("a", &json!({"b": 1}))]}),
            "request_headers",
            "uri",
            json!("/x"),
            true,
        ),
        (
            json!({"method": "POST", "postData": form("a=1", &two)}),
            "request_body",
            "data",
            json!("a=1"),
            true,
        ),
        (
            json!({"method": "POST", "postData": form("", &json!([field("a+b", &json!("100%&c +")), field("c", &json!("%41"))]))}),
            "request_body",
            "data",
            json!("a%2Bb=100%25%26c+%2B&c=%41"),
            false,
        ),
        (
            json!({"method": "POST", "postData": form("", &json!([field("a+b", &json!("%2B"))]))}),
            "request_body",
            "data",
            json!("a+b=%2B"),
            false,
        ),
    ] {
        let (report, records) = of_tool(&entry(&request, &json!({})));
        assert_eq!(inputs(&records, phase, key), [expected], "{request}");
        let is_told = remarks(&report).contains(&"lists_differ");
        assert_eq!(is_told, differs, "{request} {report}");
    }
    let (_, records) = of_tool(&entry(
        &json!({}),
        &json!({"headers": [field("Set-Cookie", &json!(""))], "cookies": one}),
    ));
    assert_eq!(
        inputs(&records, "response_headers", "headers")[0]["set-cookie"],
        "a=1"
    );
}

/// What no reader can be sure of is named; a half that is sure is replayed.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of inputs")]
fn what_is_not_sure_is_named() {
    let content = json!({"content": {"text": "hi"}});
    let status = |status: Value| {
        let mut response = content.clone();
        response["status"] = status;
        response
    };
    let none = json!({});
    let posted = |data: Value| json!({"method": "POST", "postData": data});
    for (request, response, heads, unusable, remark) in [
        (none.clone(), status(json!("200 OK")), (1, 1), 0, None),
        (none.clone(), status(json!([200])), (1, 0), 1, None),
        (none.clone(), status(json!(null)), (1, 0), 1, None),
        (none.clone(), status(json!(-1)), (1, 0), 1, None),
        (
            none.clone(),
            json!({"status": 0, "content": {"size": 0}}),
            (1, 0),
            0,
            None,
        ),
        (
            none.clone(),
            json!({"content": {"text": "hi", "encoding": "gzip"}}),
            (1, 1),
            1,
            None,
        ),
        (
            posted(json!({"text": "6869", "encoding": "hex"})),
            none.clone(),
            (1, 0),
            1,
            None,
        ),
        (
            json!({"method": "POST", "body": "a=1"}),
            none.clone(),
            (1, 1),
            0,
            Some("body_missing"),
        ),
        (
            posted(json!({"text": {"a": 1}})),
            none.clone(),
            (1, 1),
            0,
            Some("body_missing"),
        ),
        (posted(json!([])), none.clone(), (1, 1), 0, None),
        (posted(json!(false)), none.clone(), (1, 1), 0, None),
        (json!({"method": "GET /x"}), none.clone(), (0, 0), 1, None),
        (
            json!({"url": "http://a.example/x\ny"}),
            none.clone(),
            (0, 0),
            1,
            None,
        ),
        (
            json!({"url": "http://ann:pw@a.example/x"}),
            none.clone(),
            (1, 1),
            0,
            Some("parts_left_out"),
        ),
        (
            json!({"headers": [{"nome": "a", "value": "b"}]}),
            none.clone(),
            (0, 0),
            1,
            None,
        ),
        (
            json!({"headers": ["A: b"], "cookies": "a=b", "queryString": "c=d"}),
            none.clone(),
            (1, 1),
            0,
            None,
        ),
    ] {
        let (report, records) = saved("c.har", har(&[entry(&request, &response)]));
        let count = |phase| inputs(&records, phase, "headers").len();
        let found = (count("request_headers"), count("response_headers"));
        let text = format!("{request} {response} {report}");
        assert_eq!(report["records"]["unusable"], unusable, "{text}");
        assert_eq!(found.0, heads.0, "{text}");
        assert!(
            unusable == 1 && heads.1 == 0 || found.1 == heads.1,
            "{text}"
        );
        assert!(
            remark.is_none_or(|remark| remarks(&report).contains(&remark)),
            "{text}"
        );
    }
}

/// Header fields in another spelling, and an address behind one that is none.
#[test]
fn other_spellings_are_read() {
    let mut odd = entry(
        &json!({"headers": [{"key": "k", "value": "v"}, {"name": "a", "values": ["b", "c"]}, "d: e"]}),
        &json!({"headers": {"x": ["y", "z"]}}),
    );
    odd["startedDateTime"] = json!({"a": 1});
    odd["_clientIPAddress"] = json!("unknown");
    odd["clientIPAddress"] = json!("192.0.2.9");
    let (_, records) = of_tool(&odd);
    assert_eq!(
        inputs(&records, "request_headers", "headers"),
        [json!({"host": "a.example", "k": "v", "a": "b, c", "d": "e"})]
    );
    assert_eq!(
        inputs(&records, "response_headers", "headers"),
        [json!({"x": "y, z"})]
    );
    assert_eq!(
        inputs(&records, "request_headers", "client_ip"),
        ["192.0.2.9"]
    );
}
