//! What is a secret, wherever it stands, and what is none.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::*;

fn redactor() -> Redactor {
    Redactor::with_key(key_of(&[b"test"]))
}

#[test]
fn secrets_go_and_their_shape_stays() {
    let input = r#"{"method":"GET","uri":"/a?token=abcdef&page=2","headers":{"authorization":"Bearer abcdef","cookie":"sid=one; theme=dark","x-api-key":"k-123456","accept":"*/*"}}"#;
    let out = redactor().record(
        input,
        r#"{"decision":"allow","audit":{"tags":["saw abcdef"]}}"#,
        &mut SecretsFound::default(),
    );
    for secret in ["abcdef", "k-123456", "=one", "dark"] {
        assert!(!out.input.contains(secret), "{secret} in {}", out.input);
    }
    assert!(!out.output.contains("abcdef"), "{}", out.output);
    assert!(out.input.contains("Bearer redacted:"));
    assert!(out.input.contains("page=2"));
    let value: Value = serde_json::from_str(&out.input).unwrap();
    let token = value["uri"]
        .as_str()
        .unwrap()
        .split(['=', '&'])
        .nth(1)
        .unwrap();
    assert!(
        value["headers"]["authorization"]
            .as_str()
            .unwrap()
            .ends_with(token)
    );
    assert_eq!(
        out.fields,
        [
            "uri",
            "headers.authorization",
            "headers.cookie",
            "headers.x-api-key"
        ]
    );
}

#[test]
fn the_second_input_of_an_exchange_loses_its_secrets_too() {
    let mut found = SecretsFound::default();
    for secret in ["hunter22", "hunter22", "other-one"] {
        let input =
            format!(r#"{{"data":"password={secret}","headers":{{"cookie":"s={secret}"}}}}"#);
        let out = redactor().input(&input, &mut found);
        assert!(!out.contains(secret), "{out}");
    }
    assert_eq!(found.fields, ["data", "headers.cookie"]);
}

#[test]
fn what_has_no_secret_stays_byte_for_byte() {
    let input = "{\"uri\":\"/caf\u{e9}?a=\\u0001\",\"headers\":{}}";
    let out = redactor().record(input, "null", &mut SecretsFound::default());
    assert_eq!(out.input, input);
    assert!(out.fields.is_empty());
    assert_eq!(
        Redactor::keep_secrets()
            .record("{\"password\":\"x\"}", "null", &mut SecretsFound::default())
            .input,
        "{\"password\":\"x\"}"
    );
}

#[test]
fn redacting_twice_changes_nothing() {
    let once = redactor().record(
        r#"{"headers":{"cookie":"a=bcdefgh"}}"#,
        "null",
        &mut SecretsFound::default(),
    );
    let other = Redactor::with_key(key_of(&[b"other"]));
    assert_eq!(
        other
            .record(&once.input, "null", &mut SecretsFound::default())
            .input,
        once.input
    );
}

#[test]
fn a_stand_in_is_no_secret_whatever_stands_around_it() {
    for data in [
        "use bearer Abcdefgh12345678 now",
        "Basic Abcdefgh12345678, then more",
        "password=\"a b HUNTER22\"",
        "password='a b HUNTER22'",
        "password=\"a b HUNTER22\" token='c d'",
        "https://HUNTER22abc1@h.example/ is it",
        "https://u:HUNTER22abc1@h.example/ is it",
        "a=1&password=\"a b\"&token=c d",
        "<password>a b HUNTER22</password>",
        "token: HUNTER22abc, password: \"a b HUNTER22\"",
    ] {
        let input = serde_json::json!({"data": data, "uri": "/", "headers": {"x-a": data}, "input": {"a": data}});
        let once = shown(&input);
        assert!(once.contains("redacted:"), "{once}");
        assert_eq!(shown(&serde_json::from_str(&once).unwrap()), once);
    }
    // What a secret shares with a stand-in's end stays a part of the stand-in.
    let mut found = SecretsFound::default();
    redactor().input(
        r#"{"headers":{"x-api-key":"9abcdef-HUNTER22"}}"#,
        &mut found,
    );
    let out = found
        .text("redacted:0123456789abcdef-HUNTER22")
        .into_owned();
    assert!(
        out.starts_with("redacted:0123456789abcdefredacted:"),
        "{out}"
    );
}

#[test]
fn secrets_go_from_keys_pairs_and_ids() {
    let inner = serde_json::json!({"token=HUNTER22": 1, "headers": [["X-Api-Key", "HUNTER22"]], "a": ["password", "HUNTER22"]});
    let out = redactor().record(
        &serde_json::json!({"input": inner, "method": "token=HUNTER22"}).to_string(),
        "null",
        &mut SecretsFound::default(),
    );
    assert!(!out.input.contains("HUNTER22"), "{}", out.input);
    assert!(
        !out.fields.concat().contains("HUNTER22"),
        "{:?}",
        out.fields
    );
    for id in [
        "req token=HUNTER22",
        "sid=HUNTER22",
        "https://u:HUNTER22@h/",
    ] {
        let mut found = SecretsFound::default();
        let input = serde_json::json!({"correlation_id": id, "headers": {}});
        let out = redactor().input(&input.to_string(), &mut found);
        let shown = redactor().id(id, &mut found);
        assert!(
            !out.contains("HUNTER22") && out.contains(&shown),
            "{out} {shown}"
        );
    }
    let list = serde_json::json!({"input": {"required": ["password", "email"], "id": "r-0001"}});
    assert_eq!(shown(&list), list.to_string());
}

#[test]
fn a_container_of_secrets_is_hidden_over_all_its_chunks() {
    for (length, open, between, end) in [
        (10, "{\"password\":{\"a\":\"", "\",\"b\":\"", "\"}}"),
        (5_000, "{\"password\":{\"a\":\"", "\",\"b\":\"", "\"}}"),
        (10, "<password><a>", "</a><b>", "</b></password>"),
        (5_000, "<password><a>", "</a><b>", "</b></password>"),
    ] {
        let long = "x".repeat(length);
        let many = format!("{long}{between}").repeat(3);
        for first in [
            format!("{open}{long}"),
            format!("{open}{long}{between}"),
            format!("{open}{many}"),
        ] {
            let second = if first.ends_with('x') { between } else { "" };
            let chunks = [
                first,
                format!("{second}HUNTER22{between}HUNTER23"),
                format!("{between}HUNTER24{end}"),
            ];
            let mut found = SecretsFound::default();
            for (index, chunk) in chunks.iter().enumerate() {
                let input = serde_json::json!({"chunk_index": index, "is_last": index == 2, "data": chunk, "encoding": "utf8"});
                let out = redactor().input(&input.to_string(), &mut found);
                assert!(!out.contains("HUNTER2"), "{length} {open} {index}: {out}");
            }
        }
    }
}

#[test]
fn bodies_lose_their_passwords() {
    let form = redactor().record(
        r#"{"data":"user=a&password=hunter22","encoding":"utf8"}"#,
        "null",
        &mut SecretsFound::default(),
    );
    assert!(!form.input.contains("hunter22") && form.input.contains("user=a"));
    let json = redactor().record(
        r#"{"data":"{\"password\": \"hunter22\", \"n\": 1}","encoding":"utf8"}"#,
        "null",
        &mut SecretsFound::default(),
    );
    assert!(!json.input.contains("hunter22") && json.input.contains("\\\"n\\\": 1"));
}

#[test]
fn any_text_loses_what_says_that_it_is_a_credential() {
    let page = "<a href='/x?token=abcdefgh&p=1'>fetch(u, {headers: {Authorization: 'Bearer abc.def-ghi'}})";
    let input = serde_json::json!({"data": page, "encoding": "utf8"}).to_string();
    let out = redactor().record(&input, "null", &mut SecretsFound::default());
    assert!(!out.input.contains("abcdefgh") && !out.input.contains("abc.def-ghi"));
    assert!(
        out.input.contains("&p=1'>fetch(u, {headers"),
        "{}",
        out.input
    );
}

#[test]
fn every_cookie_that_is_set_is_covered() {
    let input = r#"{"status":200,"headers":{"set-cookie":"a=secret1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/, b=secret2"}}"#;
    let out = redactor().record(input, "null", &mut SecretsFound::default());
    assert!(!out.input.contains("secret"), "{}", out.input);
    assert!(
        out.input
            .contains("Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/")
    );
}

/// Everything that an input with this body, path or header shows.
fn shown(input: &Value) -> String {
    redactor()
        .record(&input.to_string(), "null", &mut SecretsFound::default())
        .input
}

#[test]
fn secrets_of_urls_go_wherever_they_stand() {
    for url in [
        "/p;jsessionid=HUNTER22/next?page=2",
        "/a?user%5Bpassword%5D=HUNTER22&page=2",
        "/a?pass%77ord=HUNTER22",
        "https://app.example/cb#access_token=HUNTER22",
        "https://ann:HUNTER22@app.example/",
        "/cb?code=HUNTER22&state=HUNTER22&page=2",
        "/go?next=https%3A%2F%2Fx%2F%3Ftoken%3DHUNTER22",
        "/go?x=1?token=HUNTER22",
        "/a?b=1;sid=HUNTER22",
    ] {
        for input in [
            serde_json::json!({"uri": url}),
            serde_json::json!({"headers": {"referer": url}}),
            serde_json::json!({"headers": {"link": format!("<{url}>; rel=next")}}),
        ] {
            let out = shown(&input);
            assert!(!out.contains("HUNTER22"), "{out}");
        }
    }
    for url in [
        "/a?code=7&page=2",
        "/a?state=open",
        "/go?next=%2Fx%3Fa%3D1",
        "/a=b",
    ] {
        let input = serde_json::json!({"uri": url});
        assert_eq!(shown(&input), input.to_string());
    }
}

#[test]
fn secrets_of_bodies_go_however_they_are_written() {
    let part =
        "--x\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nHUNTER22\r\n--x--\r\n";
    for body in [
        part,
        "<login><password>HUNTER22</password></login>",
        "mutation { login(password: \"HUNTER22\") { id } }",
        "{'password': 'HUNTER22'}",
        r#"{"log":"{\"password\":\"HUNTER22\"}"}"#,
        r#"{"token":["HUNTER22",{"a":"HUNTER22"}],"b":1}"#,
        r#"{"password":{"value":"HUNTER22"},"user":"ann"}"#,
        r#"{"newPassword":"HUNTER22"}"#,
        r#"{"password":"HUNTER22 and it was cut her"#,
        "user=ann&password=first'HUNTER22",
        "user%5Bpassword%5D=HUNTER22&user%5Bname%5D=ann",
        "__RequestVerificationToken=HUNTER22",
        "aws_secret_access_key = HUNTER22",
        "private_key: HUNTER22",
        "<input name='csrf_token' value='x'><a href='?token=HUNTER22'>",
    ] {
        let out = shown(&serde_json::json!({"data": body, "encoding": "utf8"}));
        assert!(!out.contains("HUNTER22"), "{out}");
        let data = STANDARD.encode(body.as_bytes());
        let out = shown(&serde_json::json!({"data": data, "encoding": "base64"}));
        let out: Value = serde_json::from_str(&out).unwrap();
        let bytes = STANDARD.decode(out["data"].as_str().unwrap()).unwrap();
        assert!(
            !String::from_utf8(bytes).unwrap().contains("HUNTER22"),
            "{body}"
        );
    }
    assert!(!shown(&serde_json::json!({"data": r#"{"password":12345678}"#})).contains("12345678"));
    let file = STANDARD.encode([0_u8, 0xff, 0x80, b'a', b'=', b'1']);
    let input = serde_json::json!({"data": file, "encoding": "base64"});
    assert_eq!(shown(&input), input.to_string());
}

#[test]
fn secrets_of_headers_go_under_every_name_they_have() {
    for (name, value) in [
        ("x-forwarded-authorization", "Bearer HUNTER22"),
        ("x-original-authorization", "Basic HUNTER22"),
        ("authorization", "HUNTER22 rest"),
        ("x-auth-key", "HUNTER22"),
        ("ocp-apim-subscription-key", "HUNTER22"),
        ("x-functions-key", "HUNTER22"),
        ("sec-websocket-protocol", "chat, bearer.HUNTER22"),
        ("refresh", "5; url=/a?token=HUNTER22"),
        ("x-forwarded-uri", "/a?token=HUNTER22"),
        ("x-note", "Authorization: Bearer HUNTER22"),
        ("set-cookie", "sid=abc,HUNTER22; Path=/, b=\"HUNTER22\""),
        ("cookie", "a=b; sid=\"x;HUNTER22\"; c=d"),
        ("x-authentication", "Token HUNTER22"),
        ("authentication", "HUNTER22"),
        ("dpop", "HUNTER22"),
        ("ltpatoken2", "HUNTER22"),
        ("x-jfrog-art-api", "HUNTER22"),
        ("x-honeycomb-team", "HUNTER22"),
        ("cb-access-sign", "HUNTER22"),
        ("x-gotify-key", "HUNTER22"),
        ("cst", "HUNTER22"),
        ("authentication-info", "rspauth=\"HUNTER22\", nc=00000001"),
        ("referer", "https://u:p@ssHUNTER22@h/"),
    ] {
        let mut headers = serde_json::Map::new();
        headers.insert(name.to_owned(), value.into());
        let out = shown(&serde_json::json!({"headers": headers}));
        assert!(!out.contains("HUNTER22"), "{out}");
    }
    for (name, value) in [
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
        ),
        ("accept", "text/html;q=0.9, */*;q=0.8"),
        ("sec-websocket-protocol", "graphql-ws"),
        ("host", "localhost:8080"),
    ] {
        let mut headers = serde_json::Map::new();
        headers.insert(name.to_owned(), value.into());
        let input = serde_json::json!({"headers": headers});
        assert_eq!(shown(&input), input.to_string());
    }
}

#[test]
fn equal_secrets_are_equal_however_they_are_spelled() {
    let mut found = SecretsFound::default();
    let input =
        r#"{"uri":"/a?token=secret%31","headers":{"cookie":"a=secret1; b=\"secret1\"; secret1"}}"#;
    redactor().input(input, &mut found);
    assert_eq!(found.known_tokens(), 1, "{found:?}");
}

#[test]
fn what_is_left_of_a_secret_goes_too() {
    let mut found = SecretsFound::default();
    let whole = r#"{"data":"{\"user\":\"ann\",\"password\":\"correct horse battery\"}"}"#;
    redactor().input(whole, &mut found);
    for data in [
        "rd\": \"correct horse bat",
        "orse battery\"}",
        "t horse b",
        "correct horse battery",
    ] {
        let out = redactor().input(
            &serde_json::json!({"data": data}).to_string(),
            &mut found.known_in_parts(),
        );
        assert!(!out.contains("horse"), "{out}");
    }
}

/// What anybody may send costs no more than its size: a minute would be
/// seen here, where it takes the square of it.
#[test]
fn no_text_takes_longer_than_it_is_long() {
    for part in [
        "token:[",
        "\"token\":{",
        "token='",
        "token:\\\"",
        "password=",
        "a;sid=x&",
        "<password>",
        "name=\"password\"\n\n",
    ] {
        let text = part.repeat(200_000 / part.len());
        let input = serde_json::json!({"data": text, "uri": text, "headers": {"x-a": text, "cookie": text}});
        let out = redactor().record(&input.to_string(), "null", &mut SecretsFound::default());
        assert!(out.input.len() < 4 * 200_000 * 20, "{part}");
    }
    let mut found = SecretsFound::default();
    let secret = "ab".repeat(100_000);
    let whole = serde_json::json!({"data": format!("password={secret}&x=1")}).to_string();
    redactor().input(&whole, &mut found);
    for data in [
        &secret[..150_000],
        &secret[7..],
        &format!("x {}", &secret[..2_000]),
        &format!("x {}", &secret[..500]),
    ] {
        let input = serde_json::json!({"data": data}).to_string();
        let out = redactor().input(&input, &mut found.known_in_parts());
        assert!(!out.contains("abababab"), "{}", out.len());
    }
}

proptest::proptest! {
    /// No text breaks the search, and a secret with a name never stays.
    #[test]
    fn any_text_is_looked_through(before in r#"[a-z0-9 =:&;?#%"'\\<>{}\[\]/\n\u{e9}]{0,30}"#, after in r#"[a-z =:&;"'\\<>{}\[\]/\n\u{e9}]{0,30}"#) {
        let places = [in_text(&before, About::default()), in_url(&before)].concat();
        for place in places {
            proptest::prop_assert!(before.get(place.range).is_some());
        }
        let data = format!("{before}&password=HUNTER22&{after}");
        let out = shown(&serde_json::json!({"data": data}));
        proptest::prop_assert!(!out.contains("HUNTER22"), "{}", out);
    }
}

/// Every place where one of these stands, hidden one by one and slowly.
fn hidden_one_by_one(text: &str, secrets: &[String]) -> Vec<bool> {
    let mut hidden = vec![false; text.len()];
    for secret in secrets {
        for at in 0..text.len() {
            if text[at..].starts_with(secret.as_str()) {
                hidden[at..at + secret.len()].fill(true);
            }
        }
    }
    hidden
}

proptest::proptest! {
    /// However secrets overlap and whenever they were found, nothing of them is
    /// left, and nothing else is hidden.
    #[test]
    fn all_secrets_are_found_at_once(
        groups in proptest::collection::vec(proptest::collection::vec("[ab]{6,8}", 0..6), 1..5),
        text in "[ab]{0,40}c[ab]{0,40}",
    ) {
        let mut found = SecretsFound::default();
        for group in &groups {
            let cookies: Vec<String> = group.iter().map(|secret| format!("sid={secret}")).collect();
            let input = serde_json::json!({"headers": {"cookie": cookies.join(";")}});
            redactor().input(&input.to_string(), &mut found);
        }
        let hidden = hidden_one_by_one(&text, &groups.concat());
        let out = found.text(&text).into_owned();
        let shown: String = text.chars().zip(&hidden).filter(|(_, hidden)| !**hidden).map(|it| it.0).collect();
        let rest = Regex::new("redacted:[0-9a-f]{16}").unwrap().replace_all(&out, "").into_owned();
        proptest::prop_assert_eq!(rest, shown, "{}", out);
    }

    /// What is left of a secret at either end of a text goes, whatever is
    /// around it.
    #[test]
    fn parts_of_secrets_are_found_at_both_ends(
        secrets in proptest::collection::vec("[abc]{8,20}", 1..6), which in 0..6_usize, cut in 6..20_usize, other in "[xyz]{1,9}",
    ) {
        let mut found = SecretsFound::default();
        for secret in &secrets {
            let input = serde_json::json!({"headers": {"authorization": secret}});
            redactor().input(&input.to_string(), &mut found);
        }
        let secret = &secrets[which % secrets.len()];
        let (begin, end) = (&secret[..cut.min(secret.len())], &secret[secret.len() - cut.min(secret.len())..]);
        for text in [format!("{end}{other}{begin}"), format!("{other}{begin}"), format!("{end}{other}"), begin.to_owned(), end.to_owned()] {
            let input = serde_json::json!({"x": text}).to_string();
            let out = redactor().input(&input, &mut found.known_in_parts());
            proptest::prop_assert!(!out.contains(begin) && !out.contains(end), "{text}: {out}");
        }
    }
}

fn numbered(input: &Value, found: &mut SecretsFound) -> Value {
    let out = Redactor::with_numbers().input(&input.to_string(), found);
    serde_json::from_str(&out).unwrap()
}

#[test]
fn numbers_are_those_of_the_exchange_in_the_order_of_its_secrets() {
    let mut found = SecretsFound::default();
    let first = numbered(
        &serde_json::json!({"uri": "/a?token=first-one&sid=x", "headers": {"cookie": "a=first-one; b=third-one"}}),
        &mut found,
    );
    assert_eq!(first["uri"], "/a?token=redacted:1&sid=redacted:2");
    assert_eq!(first["headers"]["cookie"], "a=redacted:1; b=redacted:3");
    let second = numbered(
        &serde_json::json!({"uri": "/third-one/%66irst-one", "headers": {"x-token": "fourth-one", "x-api-key": "first%2Done"}}),
        &mut found,
    );
    assert_eq!(second["uri"], "/redacted:3/redacted:1");
    assert_eq!(second["headers"]["x-token"], "redacted:4");
    assert_eq!(second["headers"]["x-api-key"], "redacted:1");
    // Another exchange begins at one, whoever came before.
    let other = numbered(
        &serde_json::json!({"uri": "/?token=fourth-one"}),
        &mut SecretsFound::default(),
    );
    assert_eq!(other["uri"], "/?token=redacted:1");
}

/// What a client writes as a stand-in is taken for none of ours but a hash, and
/// none of ours is hidden again, whatever a secret is.
#[test]
fn stand_ins_stay_whole() {
    let mut found = SecretsFound::default();
    let input = serde_json::json!({"headers": {"cookie": "sid=redacted; b=redacted:7; c=edacted:; d=redacted:0123456789abcdef"}});
    let out = numbered(&input, &mut found);
    let cookie = "sid=redacted:1; b=redacted:2; c=redacted:3; d=redacted:0123456789abcdef";
    assert_eq!(out["headers"]["cookie"], cookie);
    assert_eq!(found.text(cookie), cookie);
    assert_eq!(found.text("xredactedx"), "xredacted:1x");
}

fn bytes_of(value: &Value) -> Vec<u8> {
    STANDARD.decode(value["data"].as_str().unwrap()).unwrap()
}

/// A body that is no UTF-8 is base64 in what is written: a secret in it is
/// found all the same, and one that is named in it is known elsewhere.
#[test]
fn a_known_secret_is_found_between_bytes_that_are_no_text() {
    for secret in ["HUNTER22", "hunt\u{e9}r-22"] {
        let body = [b"\xff\xc3 a ", secret.as_bytes(), b"\xe9\xfe"].concat();
        let mut found = SecretsFound::default();
        let head = numbered(
            &serde_json::json!({"headers": {"x-api-key": secret}}),
            &mut found,
        );
        assert_eq!(head["headers"]["x-api-key"], "redacted:1");
        for data in [STANDARD.encode(&body), STANDARD_NO_PAD.encode(&body)] {
            let body = serde_json::json!({"data": data, "encoding": "base64"});
            let out = bytes_of(&numbered(&body, &mut found));
            assert_eq!(out, b"\xff\xc3 a redacted:1\xe9\xfe");
            let answer =
                serde_json::json!({"request_body_mutation": body, "response_body_mutation": body});
            let output = Redactor::with_numbers().output(&answer.to_string(), &mut found);
            let output: Value = serde_json::from_str(&output).unwrap();
            assert_eq!(bytes_of(&output["request_body_mutation"]), out);
            assert_eq!(bytes_of(&output["response_body_mutation"]), out);
        }
    }
    let mut found = SecretsFound::default();
    let named = b"\xffpassword=hunt\xc3\xa9r-22&a=1";
    let named = serde_json::json!({"data": STANDARD.encode(named), "encoding": "base64"});
    let out = bytes_of(&numbered(&named, &mut found));
    assert_eq!(out, b"\xffpassword=redacted:1&a=1");
    let later = numbered(&serde_json::json!({"uri": "/hunt\u{e9}r-22"}), &mut found);
    assert_eq!(later["uri"], "/redacted:1");
}

/// Headers may have any names: what only looks like base64 is text, too.
#[test]
fn headers_that_look_like_a_body_are_looked_through() {
    let input = serde_json::json!({
        "headers": {"x-api-key": "HUNTER22", "encoding": "base64", "data": "HUNTER22"},
        "data": "HUNTER2=", "encoding": "base64",
    });
    let out = shown(&input);
    assert!(!out.contains("HUNTER22"), "{out}");
}

/// The end of a part may be inside of a character.
#[test]
fn what_is_left_of_a_secret_goes_from_bytes_too() {
    let mut found = SecretsFound::default();
    let head = serde_json::json!({"headers": {"x-api-key": "correct-hors\u{e9}-battery"}});
    numbered(&head, &mut found);
    for (body, out) in [
        (&b"\xff correct-h"[..], &b"\xff redacted:1"[..]),
        (b"\xff correct-hors\xc3", b"\xff redacted:1"),
        (b"\xa9-battery\xff", b"redacted:1\xff"),
        (b"battery \xff correct", b"redacted:1 \xff redacted:1"),
        (b"\xff correct \xff", b"\xff correct \xff"),
        (b"rect-hors\xc3", b"redacted:1"),
        (b"\xff in cor", b"\xff in cor"),
    ] {
        let body = serde_json::json!({"data": STANDARD.encode(body), "encoding": "base64"});
        let written = bytes_of(&numbered(&body, &mut found.known_in_parts()));
        assert_eq!(written, out, "{}", written.escape_ascii());
    }
}

/// Too much to be looked for: nothing is shown then, and JSON stays JSON.
#[test]
fn beyond_what_is_known_nothing_is_shown() {
    for (redactor, most) in [(redactor(), 1 << 20), (Redactor::with_numbers(), 8 << 20)] {
        let mut found = SecretsFound::default();
        for event in 0..40 {
            let cookies: Vec<String> = (0..2_000)
                .map(|number| format!("c=secret-{event}-{number}"))
                .collect();
            let last = cookies[1_999][2..].to_owned();
            let input = serde_json::json!({
                "method": "POST", "uri": format!("/{last}"), "data": STANDARD.encode(&last),
                "encoding": "base64", "headers": {"cookie": cookies.join(";"), "x-a": last},
            });
            let output = serde_json::json!({
                "decision": {"block": {"status": 403, "body": last}},
                "audit": {"tags": [last, "tag"], "confidence": 0.5},
                "request_body_mutation": {"data": STANDARD.encode(&last), "encoding": "base64"},
            });
            let out = redactor.record(&input.to_string(), &output.to_string(), &mut found);
            let text = format!("{}{}{}", out.input, out.output, found.text(&last));
            assert!(!text.contains("secret-"), "{event}: {text}");
            let input: Value = serde_json::from_str(&out.input).unwrap();
            assert_eq!(input["method"], "POST");
            STANDARD.decode(input["data"].as_str().unwrap()).unwrap();
            let output: Value = serde_json::from_str(&out.output).unwrap();
            assert_eq!(output["decision"]["block"]["status"], 403);
            let changed = &output["request_body_mutation"];
            assert_eq!(changed["encoding"], "base64");
            assert!(bytes_of(changed).starts_with(b"redacted:"), "{changed}");
            if event == 39 {
                assert_eq!(input["uri"], "redacted:rest");
                assert_eq!(
                    output["audit"],
                    serde_json::json!({"tags": ["redacted:rest", "tag"], "confidence": 0.5})
                );
            }
        }
        assert!(found.size_bytes() < most, "{}", found.size_bytes());
    }
}

#[test]
fn a_url_in_a_url_is_looked_into_and_what_is_deeper_is_hidden() {
    let mut inner = "https://x/?token=HUNTER22&page=2".to_owned();
    for depth in 0..12 {
        let out = shown(&serde_json::json!({"uri": format!("/go?next={inner}&page=3")}));
        assert!(!out.contains("HUNTER22"), "{depth}: {out}");
        assert!(out.starts_with(r#"{"uri":"/go?"#), "{depth}: {out}");
        assert_eq!(out.contains("&page=3"), depth < 5, "{depth}: {out}");
        inner = inner.replace('%', "%25");
        for (plain, encoded) in [
            (":", "%3A"),
            ("/", "%2F"),
            ("?", "%3F"),
            ("=", "%3D"),
            ("&", "%26"),
        ] {
            inner = inner.replace(plain, encoded);
        }
    }
    // A name of any length is read, and one beyond all measure hidden.
    for length in [200, 400, 5_000] {
        let out = shown(
            &serde_json::json!({"uri": format!("/?{}token=HUNTER22&page=2", "a".repeat(length))}),
        );
        assert!(!out.contains("HUNTER22") && out.contains("page=2"), "{out}");
    }
}

/// The id that joins an exchange's records is the same in all of them.
#[test]
fn an_exchange_keeps_its_id() {
    let mut found = SecretsFound::default();
    let mut ids = Vec::new();
    for headers in ["x", "y"].map(|name| serde_json::json!({name: "sess-0001"})) {
        redactor().record(
            &serde_json::json!({"headers": headers}).to_string(),
            "null",
            &mut found,
        );
        ids.push(redactor().id("sess-0001", &mut found));
        redactor().record(
            r#"{"headers":{"cookie":"a=sess-0001"}}"#,
            "null",
            &mut found,
        );
    }
    assert_eq!(ids, ["sess-0001", "sess-0001"]);
    let mut found = SecretsFound::default();
    redactor().record(
        r#"{"headers":{"cookie":"a=sess-0001"}}"#,
        "null",
        &mut found,
    );
    assert!(
        redactor()
            .id("sess-0001", &mut found)
            .starts_with("redacted:")
    );
}

/// The text of a record's body, unpacked.
fn body_text(input: &Value) -> String {
    let data = input["data"].as_str().unwrap();
    if input["encoding"] != "base64" {
        return data.to_owned();
    }
    let bytes = STANDARD.decode(data).unwrap();
    let mut text = Vec::new();
    match std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*bytes), &mut text) {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut out, text.as_bytes()).unwrap();
    out.finish().unwrap()
}

/// Credentials that say what they are, each with the part that is looked for.
/// They are put together here, so that no scanner of this repository finds one.
fn known_by_form() -> Vec<(String, String)> {
    const DRAWN: &str = "k3Jd9sLq7Xw2Zr5Tn8Vb4Mc6Hf1Gp0Qy3Ua7Ei5Ow9Rl2Ks8Dj4Nx6Bz1Cv0";
    let hex = "4b1d9e7f2c8a5063".repeat(5);
    let mut all: Vec<(String, String)> = [
        ("gh", "o_", 36),
        ("glp", "at-", 20),
        ("xox", "b-", 40),
        ("sk_", "live_", 24),
        ("npm", "_", 36),
        ("AI", "za", 35),
        ("AS", "IA", 16),
        ("sk-", "ant-api03-", 60),
        ("SG", ".", 60),
        ("hv", "s.", 40),
        ("CFP", "AT-", 40),
        ("pcs", "k_", 50),
        ("tv", "ly-", 32),
        ("apify", "_api_", 36),
        ("tgp", "_v1_", 43),
        ("ji", "na_", 60),
        ("e2", "b_", 40),
        ("k8s-aws", "-v1.", 60),
        ("sk_org", "_live_", 24),
        ("sk-", "lf-", 36),
        ("s", "l.", 60),
        ("ya", "29.", 50),
    ]
    .map(|(one, two, length)| {
        (
            format!("{one}{two}{}", &DRAWN[..length]),
            DRAWN[..length].to_owned(),
        )
    })
    .to_vec();
    for (one, two, length) in [
        ("dop", "_v1_", 64),
        ("shp", "at_", 32),
        ("S", "K", 32),
        ("ke", "y-", 32),
    ] {
        all.push((
            format!("{one}{two}{}", &hex[..length]),
            hex[..length].to_owned(),
        ));
    }
    let airtable = format!("pa{}{}.{}", "t", &DRAWN[..14], &hex[..64]);
    all.push((airtable, hex[..64].to_owned()));
    let part = |json: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
    let head = part("{\"alg\":\"RS256\",\"kid\":\"1\"}");
    all.push((
        format!("{head}.{}.{DRAWN}", part("{\"sub\":\"ann\"}")),
        DRAWN.to_owned(),
    ));
    all.push((
        format!("{head}..{}.{DRAWN}.{}", &DRAWN[..16], &DRAWN[..22]),
        DRAWN.to_owned(),
    ));
    for number in [
        "4111111111111111",
        "5555555555554444",
        "378282246310005",
        "4111 1111 1111 1111",
        "5555-5555-5555-4444",
    ] {
        all.push((number.to_owned(), number.to_owned()));
    }
    all.push((
        format!("123456789:AA{}", &DRAWN[..33]),
        DRAWN[..33].to_owned(),
    ));
    all
}

#[test]
fn credentials_are_known_by_their_own_form_wherever_they_stand() {
    for (secret, mark) in known_by_form() {
        let encoded = secret.replace(' ', "+");
        for input in [
            serde_json::json!({"uri": format!("/view/{}", encoded.replace('+', "%20"))}),
            serde_json::json!({"uri": format!("/find?q={encoded}&page=2")}),
            serde_json::json!({"headers": {"x-anything": secret}}),
            serde_json::json!({"headers": {"x-note": format!("use {secret}, please")}}),
            serde_json::json!({"data": format!("use {secret} today")}),
            serde_json::json!({"data": format!("a=1&b={encoded}&c=2")}),
            serde_json::json!({"data": format!("{{\"a\":[\"{secret}\"]}}")}),
            serde_json::json!({"data": format!("{{\"a\":\"{{\\\"b\\\":\\\"{secret}\\\"}}\"}}")}),
            serde_json::json!({"data": format!("<p title='{secret}'>{secret}</p>")}),
            serde_json::json!({"data": format!("--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n{secret}\r\n--b--\r\n")}),
            serde_json::json!({"data": STANDARD.encode(format!("caf\u{e9} {secret} x"))}),
            serde_json::json!({"data": STANDARD.encode(gzip(&format!("note {secret}"))), "encoding": "base64"}),
            serde_json::json!({"input": {"note": format!("is {secret}")}}),
        ] {
            let out = shown(&input);
            let value: Value = serde_json::from_str(&out).unwrap();
            let text = if value["data"].is_string() {
                body_text(&value)
            } else {
                out
            };
            let text = text.replace('+', " ").replace("%20", " ");
            assert!(
                !text.contains(&mark) && text.contains("redacted:"),
                "{secret} in {input}: {text}"
            );
            // Whoever redacts it again changes nothing.
            let again = shown(&value);
            assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), value);
        }
        let answer = serde_json::json!({"decision": {"block": {"status": 403, "body": format!("no: {secret}")}}, "audit": {"tags": [secret]}});
        let out = redactor().output(&answer.to_string(), &mut SecretsFound::default());
        assert!(!out.contains(&mark), "{out}");
        let out = redactor().said(&format!("panicked at {secret}!"), &SecretsFound::default());
        assert!(!out.contains(&mark), "{out}");
    }
}

#[test]
fn names_beside_a_value_tell_it_too() {
    for data in [
        "<input type=hidden name='csrfmiddlewaretoken' value=HUNTER22>",
        "<INPUT VALUE='HUNTER22' TYPE=\"hidden\" NAME=\"authenticity_token\" />",
        "<input type=\"password\" name=\"x\" value=\"HUNTER22\">",
        "<meta content='HUNTER22' name='csrf-token'>",
        "<textarea name=\"api_key\">HUNTER22</textarea>",
        "<add key=\"ClientSecret\" value=\"HUNTER22\" />",
        "<string name=\"password\">HUNTER22</string>",
        "<wsse:Password Type=\"a\">\n HUNTER22\n</wsse:Password>",
        "<token><value>HUNTER22</value></token>",
        "<secret><![CDATA[a<b HUNTER22]]></secret>",
        "<div data-csrf-token=\"HUNTER22\"></div>",
        r#"{"value":"HUNTER22","name":"password"}"#,
        r#"[{"name":"user","value":"ann"},{"key":"api_key","val":"HUNTER22"}]"#,
        r#"{"a":"{\"name\":\"otp\",\"value\":\"HUNTER22\"}"}"#,
        "payload=%7B%22password%22%3A%22HUNTER22%22%7D",
        "--b\r\nContent-Disposition: form-data; name='otp'\r\nContent-Type: text/plain\r\n\r\nHUNTER22\r\n--b--",
        "--b\nContent-Disposition: form-data; filename=\"a\"; name=secret\n\n-- HUNTER22\n--b--",
        "-----BEGIN EC PRIVATE KEY-----\nHUNTER22\n-----END EC PRIVATE KEY-----",
        "k=-----BEGIN+OPENSSH+PRIVATE+KEY-----%0AHUNTER22%0A-----END+OPENSSH+PRIVATE+KEY-----",
        "curl -H 'Cookie: a=b; c=HUNTER22' https://x.example/",
        "grant_type=authorization_code&code=HUNTER22&client_id=7",
        "{\"grant\":{\"password\" : HUNTER22}}",
        "user=ann&password=a;b'HUNTER22&x=1\n",
        "--b\r\nContent-Disposition: form-data;\r\n name=\"password\"\r\n\r\nHUNTER22\r\n--b--",
        "--b\r\nContent-Disposition: form-data; name*=utf-8''pass%77ord\r\n\r\nHUNTER22\r\n--b--",
        "token[]=HUNTER22&x=1",
        "user[token][x]=HUNTER22",
        "pass[pass1]=HUNTER22&pass[pass2]=HUNTER22",
        r#"{"tokens":["HUNTER22"],"a":1}"#,
        "postgres://u:a/bHUNTER22@h/db",
        "amqp://HUNTER22abc1@h",
        "see //u:a@HUNTER22@h/x for it",
        "<key>password</key>\n<string>HUNTER22</string>",
        "<member><name>api_token</name><value><string>HUNTER22</string></value></member>",
        "<password value='HUNTER22'/>",
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nHUNTER22\n---- END SSH2 ENCRYPTED PRIVATE KEY ----",
        "password := \"HUNTER22\"",
        "password:\n  - HUNTER22\n  - HUNTER22\nuser: ann",
        "db:\n  password: |\n    HUNTER22\n    HUNTER22\n  user: ann",
        "- token: >-\n    HUNTER22\n- a: b",
        "run x --db-password HUNTER22 now",
        "curl -u ann:HUNTER22 https://h.example/",
        "machine h\n login ann\n password HUNTER22\n",
        "CREATE USER ann IDENTIFIED BY 'HUNTER22';",
        "define('DB_PASSWORD', 'HUNTER22');",
        "PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 1\nHUNTER22\nPrivate-MAC: 00",
        r#"{"kty":"EC","crv":"P-256","d":"HUNTER22"}"#,
        r#"{"k":"HUNTER22","kty":"oct"}"#,
        r#"[{"op":"replace","path":"/user/password","value":"HUNTER22"}]"#,
        r#"{"label":"Password","value":"HUNTER22"}"#,
        r#"{"key":"password","x":{"value":1,"y":{}},"value":"HUNTER22"}"#,
    ] {
        let out = shown(&serde_json::json!({"data": data}));
        assert!(!out.contains("HUNTER22"), "{data}: {out}");
    }
}

#[test]
fn names_in_urls_and_cookies_tell_it_too() {
    for url in [
        "/password/reset/confirm/MTI/HUNTER22",
        "/users/password-reset/HUNTER22",
        "/magic-link/HUNTER22",
        "/services/T0ABCDEFG/B0ABCDEFG/HUNTER22HUNTER22HUNTER22",
        "/api/webhooks/123456789012345678/HUNTER22-HUNTER22-HUNTER22",
        "/oauth/callback?code=HUNTER22",
        "/x?code=HUNTER22&state=xyzxyz",
        "/a?token%5B%5D=HUNTER22&token[0]=HUNTER22",
        "/a?auth_token_v2=HUNTER22&PWD1=HUNTER22",
        "/a?q=password:HUNTER22",
        "http://u:a@HUNTER22@h/",
        "https://HUNTER22abc1@github.com/x",
        "/a?ticket=HUNTER22&sig2=HUNTER22",
    ] {
        let out = shown(&serde_json::json!({"uri": url}));
        assert!(!out.contains("HUNTER22"), "{url}: {out}");
    }
    for value in [
        "HUNTER22; Path=/",
        "=HUNTER22; Path=/",
        "my sid=HUNTER22; Path=/",
        "a=b; Path=/, c=HUNTER22",
        "sid=\"a;HUNTER22\"; Path=/",
        "sid=\"a, b=c; HUNTER22\"",
        "a=1, sid=\"x, y=z\", b=\"c;HUNTER22\"; Path=/",
    ] {
        let out = shown(&serde_json::json!({"headers": {"set-cookie": value}}));
        assert!(!out.contains("HUNTER22"), "{value}: {out}");
    }
}

/// What only looks like a secret, or names one, is what a policy decides by.
#[test]
fn what_is_no_secret_stays_readable() {
    for data in [
        "6f1c2f6e-6e1a-4d0b-9a51-0a3f1f1d7c11",
        "9fceb02d0ae598e95dc970b74767f19372d61af8",
        "2026-01-01T00:00:00.000Z",
        "a=1&code=EUR&state=CA&sort=name",
        "price: 1999.99, total 4111222233334445",
        "<script src=\"/js/app.3f9a1c.js\"></script>",
        "{\"order\":4012888888881882,\"isbn\":\"978-3-16-148410-0\"}",
        "{\"max_tokens\":4096,\"token_type\":\"bearer\"}",
        "Your password must have ten letters.",
        "<label for=password>Password</label>",
        "{\"passwordChangedAt\":\"2026-01-01\"}",
        "{\"name\":\"keyboard\",\"value\":\"qwertz\"}",
        "<input name=q value='shoes'>",
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYI\n-----END PUBLIC KEY-----",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
        "sk-folding-cube sk-cube-grid",
        "SKU-1234567890",
        "ghp_short AKIAshort eyJhbGciOiJub25lIn0",
        "q=how+to+tokenize&lang=en",
        "id=1234567890123456789",
        "a\\b\\c C:\\new\\table",
        "1' OR '1'='1",
        "${jndi:ldap://x.example/a}",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "with basic authentication, bearer certificate of origin",
        "The basic knowledge needed",
        "use --password to set it",
        "<key>title</key><string>words</string>",
        "password strength:\n  - weak",
        r#"{"kty":"RSA","n":"abc","e":"AQAB"}"#,
    ] {
        let input = serde_json::json!({"data": data});
        assert_eq!(shown(&input), input.to_string());
    }
}

#[test]
fn urls_and_headers_without_secrets_stay_readable() {
    for url in [
        "/order/6f1c2f6e-6e1a-4d0b-9a51-0a3f1f1d7c11",
        "/commit/9fceb02d0ae598e95dc970b74767f19372d61af8",
        "/assets/main.3f2a9c81e7.js",
        "/list?code=EUR&state=CA",
        "/promo?code=SUMMER24",
        "/verify/6f1c2f6e-6e1a-4d0b-9a51-0a3f1f1d7c11",
        "/reset/done",
        "/password/change",
        "/hooks/7/events",
        "/t?monkey=banana-split&compass=north-east&author=ann-lee",
        "//x.example:8080/npm/@scope/a@1.0",
        "/re_captcha_enterprise_js_api_loader_v2_0_1",
        "/ST-segment-elevation-myocardial-infarction-2024",
        "/A3-poster-printing-in-london-since-2011-today",
        "/API-Reference2024versionfinaldocs",
        "/key-0123456789abcdef0123456789abcdef.js",
        "/img/SK0123456789abcdef0123456789abcdef.png",
        "/find?q=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "/@ann/posts?x=a@b",
    ] {
        let input = serde_json::json!({"uri": url, "headers": {"referer": format!("https://x.example{url}")}});
        assert_eq!(shown(&input), input.to_string());
    }
    for (name, value) in [
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("x-request-id", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        (
            "if-none-match",
            "\"33a64df551425fcc55e4d42a148795d9f25f89d4\"",
        ),
        ("etag", "W/\"0815-abcdef0123456789\""),
        ("date", "Wed, 21 Oct 2026 07:28:00 GMT"),
        (
            "content-type",
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        ("forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43"),
    ] {
        let mut headers = serde_json::Map::new();
        headers.insert(name.to_owned(), value.into());
        let input = serde_json::json!({"headers": headers});
        assert_eq!(shown(&input), input.to_string());
    }
}

#[test]
fn the_fields_of_the_protocol_are_nobodys_secret() {
    let mut found = SecretsFound::default();
    let input = serde_json::json!({"method": "DELETE", "uri": "/", "client_ip": "192.0.2.1", "correlation_id": "sess-0001", "headers": {
        "cookie": "sid=DELETE; token=192.0.2.1; session=gzip, br; d=challenge; e=application/json", "content-encoding": "gzip, br", "content-type": "application/json",
    }});
    let out = redactor().record(&input.to_string(), r#"{"decision":"challenge","request_body_mutation":{"action":"replace","encoding":"base64","data":"YQ=="}}"#, &mut found);
    let shown: Value = serde_json::from_str(&out.input).unwrap();
    for key in ["method", "client_ip", "correlation_id"] {
        assert_eq!(shown[key], input[key]);
    }
    assert_eq!(shown["headers"]["content-encoding"], "gzip, br");
    assert!(
        out.output.contains(r#""decision":"challenge""#),
        "{}",
        out.output
    );
    // One exchange has one id, whatever its later records name.
    let later =
        serde_json::json!({"correlation_id": "sess-0001", "headers": {"x-token": "sess-0001"}});
    let later: Value =
        serde_json::from_str(&redactor().input(&later.to_string(), &mut found)).unwrap();
    assert_eq!(later["correlation_id"], "sess-0001");
    assert_eq!(redactor().id("sess-0001", &mut found), "sess-0001");
}

#[test]
fn redacted_json_is_json_and_lengths_fit() {
    for (data, keys) in [
        (r#"{"password":12345678}"#, &["password"][..]),
        (
            r#"{"otp": 40713, "a": [4111111111111111, 1]}"#,
            &["otp", "a"],
        ),
        (
            r#"{"session":{"username":"ann","n":482913,"deep":{"x":[1,true,"y"]}}}"#,
            &["username", "deep"],
        ),
        (r#"{"a":"{\"pin\":4071,\"b\":1}"}"#, &["pin"]),
        (r#"{"name":"otp","value":40713}"#, &["name", "value"]),
    ] {
        let input = serde_json::json!({"correlation_id": "c", "headers": {"content-length": data.len().to_string()}, "chunk_index": 0, "is_last": true,
            "total_size": data.len(), "bytes_received": data.len(), "data": data, "encoding": "utf8"});
        let out: Value = serde_json::from_str(&shown(&input)).unwrap();
        let text = out["data"].as_str().unwrap();
        let body: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        for part in ["12345678", "40713", "4111111111111111", "482913", "4071"] {
            assert!(!text.contains(part), "{text}");
        }
        assert!(keys.iter().all(|key| text.contains(key)), "{text}");
        if let Value::String(inner) = &body["a"] {
            assert_eq!(serde_json::from_str::<Value>(inner).unwrap()["b"], 1);
        }
        for stated in [&out["total_size"], &out["bytes_received"]] {
            assert_eq!(*stated, text.len());
        }
        assert_eq!(out["headers"]["content-length"], text.len().to_string());
    }
}

#[test]
fn compressed_bodies_are_looked_into() {
    let text = r#"{"access_token":"HUNTER22HUNTER22","a":1}"#;
    let body = |bytes: &[u8], encoding: &str, whole: bool| serde_json::json!({"correlation_id": "c", "headers": {"content-encoding": encoding}, "chunk_index": 0, "is_last": whole, "data": STANDARD.encode(bytes), "encoding": "base64"});
    let out: Value = serde_json::from_str(&shown(&body(&gzip(text), "gzip", true))).unwrap();
    let inner: Value = serde_json::from_str(&body_text(&out)).unwrap();
    assert!(
        inner["access_token"]
            .as_str()
            .unwrap()
            .starts_with("redacted:")
            && inner["a"] == 1
    );
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut deflate, text.as_bytes()).unwrap();
    let out: Value =
        serde_json::from_str(&shown(&body(&deflate.finish().unwrap(), "deflate", true))).unwrap();
    let mut inner = String::new();
    let bytes = bytes_of(&out);
    std::io::Read::read_to_string(&mut flate2::read::DeflateDecoder::new(&*bytes), &mut inner)
        .unwrap();
    assert!(
        inner.contains("redacted:") && !inner.contains("HUNTER22"),
        "{inner}"
    );
    // What cannot be read is not shown: a part, damage, another compression.
    let whole = gzip(&text.repeat(50));
    for (bytes, encoding, is_whole) in [
        (&whole[..whole.len() / 2], "gzip", false),
        (&whole[..whole.len() - 9], "", true),
        (b"\x0b\x02\x80x\x03", "br", true),
    ] {
        let out: Value = serde_json::from_str(&shown(&body(bytes, encoding, is_whole))).unwrap();
        assert_eq!(bytes_of(&out), b"redacted:rest");
    }
    // What has none stays byte for byte.
    let input = body(&gzip("hello"), "gzip", true);
    assert_eq!(shown(&input), input.to_string());
}

#[test]
fn known_secrets_are_found_in_other_spellings() {
    let head = serde_json::json!({"headers": {"cookie": "sid=S3cr/t+ab&cdE99", "authorization": format!("Basic {}", STANDARD.encode("ann:HUNTER22HUNTER22"))}});
    let mut found = SecretsFound::default();
    redactor().input(&head.to_string(), &mut found);
    for text in [
        "S3cr%2Ft%2Bab%26cdE99".to_owned(),
        "S3cr%2ft%2bab%26cdE99".to_owned(),
        "S3cr%252Ft%252Bab%2526cdE99".to_owned(),
        r"S3cr\/t+ab\u0026cdE99".to_owned(),
        "S3cr/t+ab&amp;cdE99".to_owned(),
        "S3cr&#x2F;t&#43;ab&amp;cdE99".to_owned(),
        "HUNTER22HUNTER22".to_owned(),
    ] {
        let out = found.text(&text);
        assert!(
            out.starts_with("redacted:") && out.len() == 25,
            "{text}: {out}"
        );
    }
    for before in ["", "a", "ab"] {
        let text = STANDARD.encode(format!("{before}HUNTER22HUNTER22 and more"));
        let out = found.text(&text).into_owned();
        assert!(
            out.contains("redacted:") && !out.contains(&text[4..text.len() - 16]),
            "{out}"
        );
    }
}

proptest::proptest! {
    /// A secret is found in no output wherever a body is cut, and what is
    /// redacted already stays.
    #[test]
    fn a_secret_over_chunks_is_hidden_in_all_of_them(cut in 1..60_usize, second in 1..20_usize, form in 0..4_usize, numbers: bool) {
        let secret = "Kx9wLmQzTr5vBn2JpYd8Hs4Gf7";
        let whole = match form {
            0 => format!("user=ann&password={secret}&page=2"),
            1 => format!("{{\"user\":\"ann\",\"password\":\"{secret}\",\"page\":2}}"),
            2 => format!("<login><password>{secret}</password></login>"),
            _ => format!("{{\"note\":\"with ghp_{secret}a1b2c3d4e5 in it\"}}"),
        };
        let (cut, after) = (cut.min(whole.len() - 2), (cut + second).min(whole.len() - 1));
        let chunks = [&whole[..cut], &whole[cut..after], &whole[after..]];
        let redactor = if numbers { Redactor::with_numbers() } else { redactor() };
        let mut found = SecretsFound::default();
        let mut all = String::new();
        let mut received = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            received += chunk.len();
            let input = serde_json::json!({"chunk_index": index, "is_last": index == 2, "bytes_received": received, "data": chunk, "encoding": "utf8"});
            let out: Value = serde_json::from_str(&redactor.input(&input.to_string(), &mut found)).unwrap();
            all.push_str(out["data"].as_str().unwrap());
            proptest::prop_assert_eq!(&out["bytes_received"], all.len());
        }
        // Fewer characters than a secret is known by may stay at a cut.
        for piece in secret.as_bytes().windows(8) {
            let piece = std::str::from_utf8(piece).unwrap();
            proptest::prop_assert!(!all.contains(piece), "{:?}: {}", chunks, all);
        }
    }

    /// Redacting what is redacted changes nothing.
    #[test]
    fn redacting_is_stable(text in "[A-Z][A-Za-z0-9+/.-]{7,30}", name in "(password|token|a|data|x-api-key|otp)", number in 0..99_999_u32) {
        let data = format!("{text}{{\"{name}\":{number}}}&{name}={text}");
        let said = format!("use bearer {text} now, {name}=\"{text} x\" or {name}: '{number} y'");
        let input = serde_json::json!({"uri": format!("/{text}?{name}={number}"), "headers": {name.clone(): text, "cookie": text, "x-said": said}, "data": data, "input": {"a": said, "b": format!("{name}=\"{text} x\"")}});
        let once = shown(&input);
        let twice = shown(&serde_json::from_str(&once).unwrap());
        proptest::prop_assert_eq!(once, twice);
    }
}
