//! Tests of what a JSON log's record is read as, and of its names and their doubles.

use super::*;

fn exchange(line: &str, given: &[(&str, &str)]) -> Result<ExchangeParts, String> {
    let mut exchange = ExchangeParts::new(Place {
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
        assert_eq!(read.remarks, [Remark::ClientIpDefault]);
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
        let cookies = head.headers.iter().filter(|(name, _)| *name == "cookie");
        let values: Vec<&str> = cookies.map(|(_, value)| value).collect();
        assert_eq!(values, ["a=1", "b=2"], "{headers}");
        let line = format!(r#"{{"request":{{"method":"GET","uri":"/","headers":{headers}}}}}"#);
        let cookies = self::head(&line, &[]).headers;
        let cookies = cookies.iter().filter(|(name, _)| *name == "cookie");
        assert_eq!(cookies.count(), 2, "{headers}");
    }
}

#[test]
fn what_a_log_says_twice_or_oddly_is_read_or_told() {
    let unclear = |line: &str| {
        let read = exchange(line, &[]).unwrap_or_else(|why| panic!("{line}: {why}"));
        let head = read.request.unwrap().head;
        (head.uri, read.remarks.contains(&Remark::LogUnclear))
    };
    for (line, uri, is_told) in [
        (
            r#"{"method":"GET","path":"/x","url":"/x?q=attack"}"#,
            "/x?q=attack",
            false,
        ),
        (
            r#"{"method":"GET","url":"/x","path":"/x?q=attack"}"#,
            "/x?q=attack",
            false,
        ),
        (
            r#"{"method":"GET","uri":"/index.php","url":"/x?q=attack"}"#,
            "/x?q=attack",
            true,
        ),
        (
            r#"{"method":"GET","uri":"/i","url":{"original":"/x?q"}}"#,
            "/x?q",
            true,
        ),
        (
            r#"{"method":"GET","uri":"/a?x=1","query":"y=2"}"#,
            "/a?x=1",
            true,
        ),
        (
            r#"{"method":"GET","uri":"/a?x=1&y=2","args":{"y":2,"x":"1"}}"#,
            "/a?x=1&y=2",
            false,
        ),
        (
            r#"{"method":"GET","uri":"/a","args":{"a":"1 &","b":["c","d"],"e":""}}"#,
            "/a?a=1%20%26&b=c&b=d&e=",
            false,
        ),
        (
            r#"{"method":"GET","uri":"/a","args":["a=1","b=2"]}"#,
            "/a?a=1&b=2",
            false,
        ),
        (
            r#"{"method":"GET","uri":"/a","request":"POST /b HTTP/1.1"}"#,
            "/b",
            true,
        ),
        (r#"{"method":["GET"],"uri":["/a"]}"#, "/a", false),
        (r#"{"method":"GET","uri":"/a","status":"abc"}"#, "/a", true),
        (
            r#"{"method":"GET","uri":"/a","status":{"code":403}}"#,
            "/a",
            true,
        ),
        (r#"{"method":"GET","uri":"/a","status":0}"#, "/a", false),
        (
            r#"{"method":"GET","uri":"/a","headers":{"a":{"b":1}}}"#,
            "/a",
            true,
        ),
        (
            r#"{"method":"GET","uri":"/a","headers":["A: b"]}"#,
            "/a",
            true,
        ),
        (r#"{"method":"GET","uri":"/a","a":1,"a":1},"#, "/a", false),
    ] {
        assert_eq!(unclear(line), (uri.to_owned(), is_told), "{line}");
    }
}

#[test]
fn what_a_log_contradicts_itself_in_is_not_read() {
    for line in [
        r#"{"method":"GET","uri":"/attack","uri":"/ok"}"#,
        r#"{"method":"GET","uri":"/","headers":{"a":"1","a":"2"}}"#,
        r#"{"method":"GET","uri":["/a","/b"]}"#,
        r#"{"method":["GET","POST"],"uri":"/a"}"#,
        r#"{"method":"GET /x","uri":"/a"}"#,
        r#"{"method":"GET","uri":"no slash"}"#,
        r#"{"method":"GET","uri":"/a","args":{"a":{"b":1}}}"#,
    ] {
        assert!(exchange(line, &[]).is_err(), "{line}");
    }
}

#[test]
fn headers_that_a_log_has_are_not_lost() {
    for (line, name, value) in [
        (
            r#"{"method":"GET","url":"http://evil.example/x"}"#,
            "host",
            "evil.example",
        ),
        (
            r#"{"request":"GET http://evil.example/x HTTP/1.1"}"#,
            "host",
            "evil.example",
        ),
        (
            r#"{"method":"GET","uri":"/","headers":{"X-A":"1"}}"#,
            "x-a",
            "1",
        ),
        (
            r#"{"method":"GET","uri":"/","headers":[{"name":"X-A","value":true}]}"#,
            "x-a",
            "true",
        ),
        (
            r#"{"method":"GET","uri":"/","http_cookie":"a=1"}"#,
            "cookie",
            "a=1",
        ),
        (
            r#"{"method":"GET","uri":"/","http_x_forwarded_for":"a"}"#,
            "x-forwarded-for",
            "a",
        ),
        (
            r#"{"method":"GET","uri":"/","request_X-Key":"k"}"#,
            "x-key",
            "k",
        ),
        (
            r#"{"method":"GET","uri":"/","user_agent":"caf\xe9"}"#,
            "user-agent",
            "café",
        ),
        (
            r#"{"method":"GET","uri":"/","user_agent":"caf\udce9"}"#,
            "user-agent",
            "café",
        ),
    ] {
        assert_eq!(head(line, &[]).headers.value(name), Some(value), "{line}");
    }
    let none = head(
        r#"{"method":"GET","uri":"/","http_version":"1.1","http_status":200}"#,
        &[],
    );
    assert_eq!(none.headers.len(), 0);
    assert_eq!(head(r#"{"method":"GET","uri":"/\udcff"}"#, &[]).uri, "/%FF");
}

#[test]
fn the_line_of_a_program_is_found_in_any_text_of_its_collector() {
    let line =
        r#"10.0.0.7 - - [12/Jul/2026:00:00:00 +0000] \"GET /a HTTP/1.1\" 200 10 \"-\" \"c\""#;
    for log in [
        format!(r#"{{"message":"{line}","path":"/var/log/access.log"}}"#),
        format!(r#"{{"log":"other","message":"{line}"}}"#),
        format!(r#"{{"log":"{line}","message":"{line}"}}"#),
    ] {
        assert_eq!(head(&log, &[]).uri, "/a", "{log}");
    }
    let other = line.replace("/a", "/b");
    let two = format!(r#"{{"log":"{line}","message":"{other}"}}"#);
    assert!(exchange(&two, &[]).err().unwrap().contains("two"));
}
