//! What anybody may send costs no more than its size: eight times as much text
//! costs about eight times as much. Held as a ratio within one run, of the
//! thread's own time and the least of several measurements, so that a busy
//! machine is no failure; what takes the square of its size is at 64.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// What eight times the size may cost.
const MOST: f64 = 12.0;
const SIZE: usize = 12_000;

/// What a thread has computed so far.
fn computed() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// The least of several runs, each with all that a record goes through.
fn cost(input: &str, output: &str, runs: u32) -> Duration {
    let redactor = Redactor::with_numbers();
    let run = || {
        let begin = computed();
        let mut found = SecretsFound::default();
        let out = redactor.record(input, output, &mut found);
        let mut parts = found.known_in_parts();
        let cut = redactor.input(input, &mut parts);
        // What was hidden is about as long as it was.
        assert!(out.input.len() + cut.len() < 40 * input.len() + 4_096);
        computed() - begin
    };
    (0..runs).map(|_| run()).min().unwrap_or_default()
}

/// Holds the cost of a text against that of eight times as much of it.
fn assert_linear(name: &str, make: impl Fn(usize) -> Value) {
    let texts = [SIZE, 8 * SIZE].map(|size| {
        let input = make(size).to_string();
        let output = json!({"decision": {"block": {"status": 403, "body": input}}}).to_string();
        (input, output)
    });
    let mut seen = Vec::new();
    for runs in 1..6 {
        let of = |(input, output): &(String, String)| cost(input, output, runs);
        let [little, much] = [of(&texts[0]), of(&texts[1])];
        let ratio = much.as_secs_f64() / little.as_secs_f64().max(1e-6);
        if ratio < MOST {
            return;
        }
        seen.push((ratio, little, much));
        if ratio > 3.0 * MOST {
            // No machine is as busy as that.
            break;
        }
    }
    panic!("{name}: {seen:?}");
}

/// A text everywhere in an input where one may be.
fn everywhere(text: &str) -> Value {
    json!({"uri": text, "data": text, "headers": {
        "x-a": text, "cookie": text, "set-cookie": text, "authorization": text,
        "sec-websocket-protocol": text,
    }})
}

/// Texts that begin with one part, go on with another and end with a third.
const REPEATED: [(&str, &str, &str); 72] = [
    ("/", "?a=1", "?a=%3D%253D%25253D%2525253D"),
    ("/", "?a=%3D", "%253D"),
    ("/?", "a=1;", ""),
    ("/?", "a=1;sid=x;", "&b"),
    ("/?", "token=x;", ""),
    ("/?", "token=x&", ""),
    ("/", ";sid=x", "?a"),
    ("/#", "token=x&", ""),
    ("/?a=", "%25", "3D"),
    ("/?a=", "%2525", "%"),
    ("/?a=", "%3Fa%3D", "%26"),
    ("/?a=", "%253Fa%253Dhttps%253A%252F%252Fx%252F", ""),
    ("/?a=%", "25", "41"),
    ("/?a=", "%e9", ""),
    ("/?", "a", "=1"),
    ("/?", "a", ""),
    ("", "code=&state=", ""),
    ("", "//a:b@", ""),
    ("", "//:", ""),
    ("", "//a:", "@"),
    ("", "password=", ""),
    ("", "password=x ", ""),
    ("", "password=x;", ""),
    ("", "password='", ""),
    ("", "password=\\\"", ""),
    ("", "password:\"", ""),
    ("", "token:[", ""),
    ("", "\"token\":{", ""),
    ("", "\"token\":[\"", ""),
    ("", "a:", ""),
    ("", "a: ", "\""),
    ("a:", "\\", "\""),
    ("a=", "\\", "x"),
    ("", "<password>", ""),
    ("", "<password>x</", ""),
    ("", "<a ", ">"),
    ("", "name=\"password\"\n\n", ""),
    ("", "name=\"password\"\n\nx\n--", ""),
    ("", "name=\"password\"\nx\n", ""),
    ("", "name=\"", "\"\n\n"),
    ("", "Bearer ", ""),
    ("", "bearer abcdefgh ", ""),
    ("", "redacted:", "1"),
    ("", "{\"a\":\"{\\\"token\\\":\\\"", ""),
    ("", "ghp_", ""),
    ("", "ghp_a-", ""),
    ("", "eyJ", ""),
    ("", "eyJ.", ""),
    ("", "eyJhbGciOiJI.", "."),
    ("", "4111 ", ""),
    ("", "4111-1111", ""),
    ("", "-----BEGIN PRIVATE KEY-----", ""),
    ("", "-----BEGIN", "PRIVATE KEY-----"),
    ("", "/reset/", ""),
    ("", "http://x/reset/", "1"),
    ("", "123456789:", ""),
    ("", "1aaQ~", ""),
    ("", "<a b=\"", ""),
    ("", "<a b='", "\""),
    ("", "<token>", "</token"),
    ("", "<token>x<![CDATA[", ""),
    ("", "<input name=token value=", ">"),
    ("", "Content-Disposition: form-data; name=token\r\n", ""),
    (
        "",
        "Content-Disposition: form-data; name=token\n\nx\n--",
        "",
    ),
    ("", "{\"name\":\"token\",\"value\":", "}"),
    ("", "\"value\":\"x\",\"name\":\"token\",", ""),
    ("", "cookie: ", ""),
    ("", "\\u0041", ""),
    ("", "&#x41;", "&"),
    ("", "\\\\", "\""),
    ("", "aGVsbG8gd29ybGQ", "="),
    ("{\"token\":{", "a:1,", "}"),
];

#[test]
fn texts_that_repeat_themselves_are_looked_through_once() {
    for (begin, part, end) in REPEATED {
        assert_linear(&format!("{begin}{part}…{end}"), |size| {
            everywhere(&format!(
                "{begin}{}{end}",
                part.repeat(size / 7 / part.len())
            ))
        });
    }
}

/// Where a search that is begun again each time is a fast one it shows only in
/// texts that are longer.
#[test]
fn long_texts_are_looked_through_once() {
    for (part, of_url) in [
        ("password=x;", false),
        ("password='", false),
        ("token:[", false),
        ("a=1;", true),
        ("a=1;sid=x;", true),
        (";sid=x", true),
    ] {
        assert_linear(part, |size| {
            let text = part.repeat(10 * size / part.len());
            if of_url {
                json!({"uri": format!("/?{text}")})
            } else {
                json!({"data": text})
            }
        });
    }
}

/// Any order of what means anything to a reader of secrets.
#[test]
fn no_mixture_of_what_means_anything_costs_more() {
    const PARTS: [&str; 24] = [
        "?", "&", ";", "#", "=", ":", "/", "//", "@", "%", "%25", "%3D", "%253D", "\"", "\\\"",
        "'", "{", "[", "<", ">", "\n", "token", "a ", "name=\"",
    ];
    // The same mixtures each time: a shape that fails once fails always.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..60 {
        let count = 1 + draw(6);
        let unit: String = (0..count).map(|_| PARTS[draw(PARTS.len())]).collect();
        let first = PARTS[draw(PARTS.len())];
        assert_linear(&format!("{first}{unit}…"), |size| {
            everywhere(&format!("{first}{}", unit.repeat(size / 7 / unit.len())))
        });
    }
}

/// Encoded and packed into each other, as deep as the text is long.
#[test]
fn what_is_nested_is_not_read_once_for_each_level() {
    let nested = |open: &str, close: &str, size: usize| {
        let depth = size / (open.len() + close.len()) / 8;
        format!("{}token=x{}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [
        ("{\"a\":", "}"),
        ("[", "]"),
        ("{\"token\":[", "]}"),
        ("https://x/?next=", ""),
        ("https%3A%2F%2Fx%2F%3Fnext%3D", ""),
        ("<a>", "</a>"),
        ("'\"", "\"'"),
    ] {
        assert_linear(&format!("{open}…{close}"), |size| {
            everywhere(&nested(open, close, size))
        });
    }
    // Quotes with ever more backslashes, each unlike the others.
    assert_linear("backslashes", |size| {
        let mut text = String::new();
        for length in 1.. {
            if text.len() >= size / 8 {
                break;
            }
            text.push_str(&format!("token={}\"", "\\".repeat(length)));
        }
        everywhere(&text)
    });
    let encoded = |size: usize| {
        let mut text = "token=abcdefgh".to_owned();
        while text.len() < size / 8 {
            text = text.replace('%', "%25").replace('=', "%3D") + "&a=b";
        }
        everywhere(&format!("/?a={text}"))
    };
    assert_linear("encoded in encoded", encoded);
    let base64 = |size: usize| {
        let mut text = "token=abcdefgh".to_owned();
        while text.len() < size / 3 {
            text = STANDARD.encode(text);
        }
        json!({"data": STANDARD.encode(&text), "encoding": "base64", "headers": {"x-a": text}})
    };
    assert_linear("base64 in base64", base64);
}

/// Secrets that are looked for in texts which nearly have them.
#[test]
fn many_secrets_cost_no_more_than_their_length() {
    let list = |size: usize, secret: &dyn Fn(usize) -> String| {
        let mut cookies = String::new();
        for number in 0.. {
            if cookies.len() >= size / 2 {
                break;
            }
            cookies.push_str(&format!("c={};", secret(number)));
        }
        cookies
    };
    type Secret = dyn Fn(usize) -> String;
    let shapes: [(&str, &Secret, &str); 6] = [
        ("apart", &|n| format!("secret-{n}"), "secret-"),
        ("alike", &|n| format!("aaaaaaaaaaaa{n}"), "aaaaaaaaaaaa"),
        ("in each other", &|n| "a".repeat(6 + n % 500), "a"),
        (
            "ends of each other",
            &|n| format!("{n}{}", "b".repeat(6 + n % 90)),
            "b",
        ),
        (
            "of many bytes",
            &|n| format!("{:?}", (n % 9_000) as f64 / 7.0),
            "1.28571",
        ),
        ("spelled", &|n| format!("%2561%61b{n}cdef"), "aab1cdef"),
    ];
    for (name, secret, near) in shapes {
        assert_linear(name, |size| {
            let cookie = list(size, secret);
            json!({"headers": {"cookie": cookie}, "data": near.repeat(size / 2 / near.len())})
        });
    }
    assert_linear("one that is long", |size| {
        let secret = "ab".repeat(size / 4);
        json!({"data": format!("password={secret}"), "uri": format!("x{secret}")})
    });
}

/// Names cost as little as values.
#[test]
fn names_cost_no_more_than_their_length() {
    assert_linear("names of headers", |size| {
        let headers: serde_json::Map<String, Value> = (0..size / 24)
            .map(|number| (format!("x-token-{number}-token"), json!("abcdef")))
            .collect();
        json!({"headers": headers})
    });
    assert_linear("a long name with many values", |size| {
        let many = vec!["abcdef"; size / 20];
        json!({"headers": {format!("{}-token", "x".repeat(size / 2)): many}})
    });
    assert_linear("a long name above many others", |size| {
        let below: serde_json::Map<String, Value> = (0..size / 40)
            .map(|number| (format!("token{number}.token"), json!("abcdef")))
            .collect();
        json!({"x".repeat(size / 2): below})
    });
    assert_linear("objects in objects", |size| {
        let list: Vec<Value> = (0..size / 24)
            .map(|number| json!({"token": number}))
            .collect();
        json!({"input": {"a": {"token": list}}})
    });
}

/// An exchange of many events costs as much as they do together.
#[test]
fn what_is_known_is_not_read_again_for_each_event() {
    let exchange = |events: usize| {
        let redactor = Redactor::with_key([7; 32]);
        let inputs: Vec<String> = (0..events)
            .map(|number| json!({"data": format!("token=secret-{number}-of-this&x")}).to_string())
            .collect();
        let run = || {
            let begin = computed();
            let mut found = SecretsFound::default();
            for input in &inputs {
                redactor.record(input, "null", &mut found);
            }
            computed() - begin
        };
        (0..3).map(|_| run()).min().unwrap_or_default()
    };
    let seen: Vec<f64> = (0..5)
        .map(|_| exchange(2_400).as_secs_f64() / exchange(300).as_secs_f64().max(1e-6))
        .collect();
    assert!(seen.iter().any(|ratio| *ratio < MOST), "{seen:?}");
}
