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
