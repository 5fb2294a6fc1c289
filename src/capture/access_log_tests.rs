//! Tests of what an access log's line is read as: times, methods, addresses, escapes.

use super::*;

const REST: &str = r#"[10/Oct/2000:13:55:36 -0700] "GET /a?b HTTP/1.0" 200 1"#;

fn read_line(line: &str) -> Result<ExchangeParts, String> {
    let mut exchange = ExchangeParts::new(super::super::Place {
        file: "access.log".into(),
        record: 1,
        offset: 0,
    });
    read(line.as_bytes(), &DecodeSettings::default(), &mut exchange)?;
    Ok(exchange)
}

fn combined(line: &str) -> Result<(RequestHead, Option<u16>), String> {
    let exchange = read_line(line)?;
    let status = exchange.response.map(|response| response.head.status);
    Ok((exchange.request.unwrap().head, status))
}

#[test]
fn combined_lines_of_nginx_and_apache_are_read() {
    let (head, status) = combined(r#"192.0.2.7 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b=\x22c\x22 HTTP/1.0" 200 2326 "http://e.example/" "Mozilla \"x\"""#).unwrap();
    assert_eq!(head.uri, "/a?b=\"c\"");
    assert_eq!(head.client_ip, "192.0.2.7");
    assert_eq!(head.headers.value("user-agent"), Some("Mozilla \"x\""));
    assert_eq!(status, Some(200));
    let (head, _) = combined(r#"www.example:80 2001:db8::1 - - [10/Oct/2000:13:55:36 -0700] "POST / HTTP/1.1" 204 - "-" "-" extra"#).unwrap();
    assert_eq!(head.client_ip, "2001:db8::1");
    assert_eq!(head.headers, Headers::from([("host", "www.example:80")]));
    let (head, _) =
        combined(r#"192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "HEAD /x HTTP/1.1" 304 0"#).unwrap();
    assert_eq!(head.method, "HEAD");
}

#[test]
fn the_client_is_the_last_word_before_ident_and_user_or_the_default() {
    for (client, ip, host) in [
        ("10.0.0.1 - -", "10.0.0.1", None),
        ("10.0.0.1, 10.0.0.2 - -", "10.0.0.1", None),
        ("10.0.0.1,10.0.0.2 - -", "10.0.0.1", None),
        ("10.0.0.1 - John Smith", "10.0.0.1", None),
        ("10.0.0.1 -", "10.0.0.1", None),
        ("10.0.0.0/8 - -", "192.0.2.1", None),
        (
            "www.example:443 host.isp.example - -",
            "192.0.2.1",
            Some("www.example:443"),
        ),
        (
            "shop.example 10.0.0.1 - -",
            "10.0.0.1",
            Some("shop.example"),
        ),
        ("198.51.100.1 203.0.113.7 - -", "203.0.113.7", None),
        (
            "2026-07-12T00:00:00.6Z stdout F 10.0.0.1 - ann",
            "10.0.0.1",
            None,
        ),
        (
            "Jul 12 00:00:00 192.0.2.9 nginx[7]: 10.0.0.1 - -",
            "10.0.0.1",
            None,
        ),
        (
            "<190>1 2026-07-12T00:00:00Z h nginx - - [m x=\"1\"] 10.0.0.1 - -",
            "10.0.0.1",
            None,
        ),
        ("web-1  | 10.0.0.1 - -", "10.0.0.1", None),
        ("nginx: 10.0.0.1 - -", "10.0.0.1", None),
        ("[pod/web-1/nginx] 10.0.0.1 - -", "10.0.0.1", None),
        ("unix: - -", "192.0.2.1", None),
    ] {
        let exchange = read_line(&format!("{client} {REST}")).unwrap();
        let is_default = exchange.remarks.contains(&Remark::ClientIpDefault);
        assert_eq!(is_default, ip == "192.0.2.1", "{client}");
        let head = exchange.request.unwrap().head;
        assert_eq!(
            (&*head.client_ip, head.headers.value("host")),
            (ip, host),
            "{client}"
        );
        assert_eq!(head.uri, "/a?b");
    }
}

#[test]
fn what_is_no_request_or_is_cut_or_joined_is_an_error() {
    let good = format!(r#"10.0.0.1 - - {REST} "-" "curl""#);
    for line in [
        String::new(),
        "hello".to_owned(),
        r#"192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "-" 400 0 "-" "-""#.to_owned(),
        r#"192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "\x16\x03\x01" 400 0 "-" "-""#.to_owned(),
        format!("3.7 - - {REST}"),
        format!("- - {REST}"),
        format!("10.0.0.110.0.0.2 - - {REST}"),
        format!("10.0.0.1 - -10.0.0.2 - - {REST}"),
        format!("10.0.0.1 - ann 10.0.0.2 - - {REST}"),
        format!("10.0.0.1 - - [10/Oct/2000:13 10.0.0.2 - - {REST}"),
        format!("some words host.example - - {REST}"),
        format!("0.0.1 - - 10.0.0.2 - - {REST}"),
        format!(r#"/a HTTP/1.1" 200 1 "-" "curl" {good}"#),
        format!("{good}{good}"),
        format!("{good} {good}"),
        format!("{good} 10.0.0.2 - - [10/Oct/2000:13"),
        format!("10.0.0.1 - - {REST}{good}"),
        format!("10.0.0.1 - - {REST} {good}"),
        format!(r#"10.0.0.1 - - {REST} "-" "cu"#),
        format!(r#"10.0.0.1 - - {REST} "-""#),
        format!(r#"10.0.0.1 - - {REST} "-" "curl\""#),
        format!(r#"10.0.0.1 - - {REST} 0.1 "a" "b" "c""#),
        format!("{good}\r{good}"),
        good.replace("curl", "cu\0rl"),
    ] {
        assert!(combined(&line).is_err(), "{line}");
    }
}

#[test]
fn fields_between_and_behind_are_passed_over() {
    for rest in [
        r#"0.012 "http://e.example/" "sqlmap""#,
        r#""http://e.example/" "sqlmap""#,
        r#""http://e.example/" "sqlmap" "10.0.0.9" rt=0.1"#,
        r#""http://e.example/" "sqlmap" 512 0.004 [default-app-80] [] 10.0.0.1:8080 12 0.004 200 id"#,
    ] {
        let (head, _) = combined(&format!("10.0.0.1 - - {REST} {rest}")).unwrap();
        assert_eq!(head.headers.value("user-agent"), Some("sqlmap"), "{rest}");
        assert_eq!(
            head.headers.value("referer"),
            Some("http://e.example/"),
            "{rest}"
        );
    }
}

#[test]
fn nul_bytes_before_a_line_are_told() {
    let exchange = read_line(&format!("\0\0\0 10.0.0.1 - - {REST}").replace("\0 ", "\0")).unwrap();
    assert!(exchange.remarks.contains(&Remark::NulBytes));
    assert_eq!(exchange.request.unwrap().head.client_ip, "10.0.0.1");
}

#[test]
fn times_are_read_in_the_usual_spellings() {
    let at = Some(971_211_336_000_000_000);
    for text in [
        "10/Oct/2000:13:55:36 -0700",
        "10/Oct/2000:20:55:36",
        "2000-10-10T20:55:36Z",
        "2000-10-10T20:55:36",
        "2000-10-10 20:55:36.000",
        "971211336.000",
        "971211336000",
        "971211336000000",
        "971211336000000000",
    ] {
        assert_eq!(common_time(text), at, "{text}");
    }
    assert_eq!(common_time("971211336000.5"), at.map(|at| at + 500_000));
    for none in ["yesterday", "0", "0.000", "1970-01-01T00:00:00Z", "-5", ""] {
        assert_eq!(common_time(none), None, "{none}");
    }
}

#[test]
fn statuses_are_whole_numbers() {
    let status = |text| response(text).map(|response| response.head.status);
    for text in ["404", "404.0", "404 Not Found"] {
        assert_eq!(status(text), Some(404), "{text}");
    }
    for text in ["-", "", "000", "404.5", "1000", "502, 200"] {
        assert_eq!(status(text), None, "{text}");
    }
}

#[test]
fn what_stands_before_the_client_hides_no_address() {
    for (client, ip, host) in [
        ("access.log:192.0.2.9 - -", "192.0.2.9", None),
        ("12:192.0.2.9 - -", "192.0.2.9", None),
        ("logs/a.log:12:192.0.2.9 - -", "192.0.2.9", None),
        ("\"192.0.2.9\" - -", "192.0.2.9", None),
        ("\"192.0.2.9, 10.0.0.1\" - -", "192.0.2.9", None),
        (
            "a.log:shop.example:80 192.0.2.9 - -",
            "192.0.2.9",
            Some("shop.example:80"),
        ),
        ("192.0.2.9\t-\t-", "192.0.2.9", None),
    ] {
        let exchange = read_line(&format!("{client} {REST}")).unwrap();
        let head = exchange.request.unwrap().head;
        let found = (&*head.client_ip, head.headers.value("host"));
        assert_eq!(found, (ip, host), "{client}");
    }
    for client in [
        "a.log:2001:db8::1 - -",
        "\"192.0.2.9 - -",
        "192.0.2.9\" - -",
    ] {
        assert!(read_line(&format!("{client} {REST}")).is_err(), "{client}");
    }
}

#[test]
fn blanks_and_quotes_of_other_writers_are_read() {
    let good = format!(r#"10.0.0.1 - - {REST} "r" "curl""#);
    for line in [
        good.replace(' ', "  ").replace("GET  /a?b  ", "GET /a?b "),
        good.replace(" 200 1 ", " \"200\" \"1\" "),
        good.replace("] \"", "]\t\"")
            .replace(" 200 1 ", "\t200\t1\t"),
    ] {
        let line = line.replace("36  -0700", "36 -0700");
        let (head, status) = combined(&line).unwrap();
        assert_eq!((&*head.uri, status), ("/a?b", Some(200)), "{line}");
        assert_eq!(head.headers.value("user-agent"), Some("curl"), "{line}");
    }
    for (rest, is_read) in [
        (" sqlmap/1.0", false),
        (" - sqlmap", false),
        (" 0.012 -", true),
        (" http://e.example/ curl", false),
    ] {
        let line = format!("10.0.0.1 - - {REST}{rest}");
        assert_eq!(combined(&line).is_ok(), is_read, "{line}");
    }
}

#[test]
fn only_known_escapes_lose_their_backslash() {
    for (written, uri) in [
        (r"/\u0041\u00e9", "/Aé"),
        (r"/\uD83D\uDE00!", "/😀!"),
        (r"/\ud83d\u0041", r"/\ud83dA"),
        (r"/\u00", r"/\u00"),
        (r"/\d+\.\w", r"/\d+\.\w"),
        (r"/\\d\/\x41\xzz", r"/\d/A\xzz"),
    ] {
        assert_eq!(unescape(written.as_bytes()), uri.as_bytes(), "{written}");
    }
}

#[test]
fn the_host_of_a_whole_url_is_kept() {
    let line =
        r#"10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET http://evil.example/x HTTP/1.0" 200 1"#;
    let (head, _) = combined(line).unwrap();
    assert_eq!(head.headers, Headers::from([("host", "evil.example")]));
    assert_eq!(head.uri, "/x");
}
