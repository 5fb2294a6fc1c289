use super::*;

fn exchange(line: &str, given: &[(&str, &str)]) -> Result<ExchangeParts, String> {
    let mut exchange = ExchangeParts::new(super::super::Place {
        file: "access.json".into(),
        record: 1,
        offset: 0,
    });
    let owned = |(what, key): &(&str, &str)| ((*what).to_owned(), (*key).to_owned());
    let settings = DecodeSettings {
        fields: FieldMap {
            given: given.iter().map(owned).collect(),
        },
        ..DecodeSettings::default()
    };
    read(line.as_bytes(), &settings, &mut exchange)?;
    Ok(exchange)
}

fn head(line: &str, given: &[(&str, &str)]) -> RequestHead {
    exchange(line, given).unwrap().request.unwrap().head
}

#[test]
fn what_was_asked_for_comes_before_what_became_of_it() {
    for (line, uri) in [
        (
            r#"{"method":"GET","uri":"/login?next=https://app/home"}"#,
            "/login?next=https://app/home",
        ),
        (r#"{"method":"GET","uri":"https://app/home?a"}"#, "/home?a"),
        (r#"{"method":"GET","uri":"foo://bar/x?y"}"#, "foo://bar/x?y"),
        (
            r#"{"request":"GET /search?q=1' UNION SELECT x HTTP/1.1"}"#,
            "/search?q=1' UNION SELECT x",
        ),
        (
            r#"{"uri":"/s","method":"POST","request":"GET /s?q=1 HTTP/1.1"}"#,
            "/s?q=1",
        ),
        (
            r#"{"uri":"/s","method":"GET","url":"https://h.example/s?q=1"}"#,
            "/s?q=1",
        ),
        (
            r#"{"uri":"/s","request":"-","method":"GET","request_query":"q=1"}"#,
            "/s?q=1",
        ),
        (
            r#"{"method":"","request_method":"GET","uri":"/index.php","request_uri":"/s?q=1"}"#,
            "/s?q=1",
        ),
        (
            r#"{"http":{"request":{"method":"GET"}},"url":{"path":"/s","query":"q=1"}}"#,
            "/s?q=1",
        ),
    ] {
        let head = head(line, &[]);
        assert_eq!(
            (head.method.as_str(), head.uri.as_str()),
            ("GET", uri),
            "{line}"
        );
    }
    let named = head(
        r#"{"to":"/t","with":"PUT","request":"GET /s HTTP/1.1"}"#,
        &[("uri", "to"), ("method", "with")],
    );
    assert_eq!((&*named.method, &*named.uri), ("PUT", "/t"));
}

#[test]
fn lines_within_objects_and_behind_words_are_read() {
    let line =
        r#"10.0.0.7 - - [12/Jul/2026:00:00:00 +0000] \"GET /a HTTP/1.1\" 200 10 \"-\" \"curl/8\""#;
    for log in [
        format!(r#"{{"log":"{line}\n","stream":"stdout","time":"2026-07-12T00:00:00Z"}}"#),
        format!(r#"{{"@timestamp":"x","log":{{"file":"f"}},"message":"{line}"}}"#),
        r#"{"log":"{\"remote_addr\":\"10.0.0.7\",\"request\":\"GET /a HTTP/1.1\"}\n","stream":"stdout"}"#.to_owned(),
        r#"2026-07-12T00:00:00Z stdout F {"remote_addr":"10.0.0.7","request":"GET /a HTTP/1.1"}"#.to_owned(),
    ] {
        let head = head(&log, &[]);
        assert_eq!((&*head.client_ip, &*head.uri), ("10.0.0.7", "/a"), "{log}");
    }
    for torn in [
        r#""uri":"/x","status":200} {"method":"GET","uri":"/b"}"#,
        r#"{"method":"GET","uri":"/a"} {"method":"GET","uri":"/b"}"#,
    ] {
        assert!(exchange(torn, &[]).is_err(), "{torn}");
    }
    let why = exchange(r#"{"log":"started\n","stream":"stdout"}"#, &[]);
    assert!(why.err().unwrap().starts_with("the text of \"log\": "));
}

#[test]
fn hex_escapes_are_bytes() {
    for (written, uri) in [
        (r"/a?q=\x22><b>", "/a?q=\"><b>"),
        (r"/\xC3\xA9", "/é"),
        (r"/\xff\x5c", "/%FF\\"),
        (r"/\\x22\x0a", "/\\x22\n"),
        (r"/\x4", ""),
    ] {
        let line = format!(r#"{{"method":"GET","uri":"{written}"}}"#);
        match exchange(&line, &[]) {
            Ok(read) => assert_eq!(read.request.unwrap().head.uri, uri, "{written}"),
            Err(why) => assert!(uri.is_empty(), "{written}: {why}"),
        }
    }
}

#[test]
fn one_bad_value_hides_no_good_one() {
    let read = exchange(
        r#"{"request":"GET / HTTP/1.1","timestamp":"n/a","@timestamp":"2026-01-01T00:00:00Z","status":"-","response":{"status":200.0},"client_ip":"unknown","remote_addr":"203.0.113.5, 10.0.0.1"}"#,
        &[],
    )
    .unwrap();
    assert!(read.at_ns.is_some() && read.remarks.is_empty());
    assert_eq!(read.response.unwrap().head.status, 200);
    assert_eq!(read.request.unwrap().head.client_ip, "203.0.113.5");
    for none in ["unix:", "host.example", "10.0.0.0/8", ""] {
        let line = format!(r#"{{"remote_addr":"{none}","request":"GET / HTTP/1.1"}}"#);
        let read = exchange(&line, &[]).unwrap();
        assert_eq!(read.request.unwrap().head.client_ip, "192.0.2.1", "{none}");
        assert_eq!(read.remarks, [super::super::Remark::ClientIpDefault]);
    }
}

#[test]
fn lists_of_names_and_values_are_maps() {
    let given = [("header.cookie", "req.headers.cookie")];
    for headers in [
        r#"[{"name":"Host","value":"h"},{"name":"Cookie","value":"a=1"},{"name":"cookie","value":"b=2"}]"#,
        r#"[{"key":"Cookie","value":["a=1","b=2"]}]"#,
        r#"[["Cookie","a=1"],["cookie","b=2"]]"#,
        r#"{"cookie":["a=1","b=2"]}"#,
    ] {
        let line = format!(r#"{{"method":"GET","uri":"/","req":{{"headers":{headers}}}}}"#);
        let head = head(&line, &given);
        let values: Vec<&str> = head.headers.iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["a=1", "b=2"], "{headers}");
        let line = format!(r#"{{"request":{{"method":"GET","uri":"/","headers":{headers}}}}}"#);
        let cookies = self::head(&line, &[]).headers;
        let cookies = cookies.iter().filter(|(name, _)| *name == "cookie");
        assert_eq!(cookies.count(), 2, "{headers}");
    }
}
