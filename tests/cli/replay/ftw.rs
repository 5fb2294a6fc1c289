//! go-ftw's test files: told by their grammar, one odd test costs itself alone, and
//! what is replayed is what go-ftw sends.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{command, remarks, replay, report};
use crate::support::{TestDir, high_water_kib, shipped};

/// What a file gave: the report and what was asked.
struct Asked {
    report: Value,
    inputs: Vec<Value>,
}

fn asked(text: impl AsRef<[u8]>) -> Asked {
    let dir = TestDir::new();
    let (file, saved) = (dir.file("suite.yaml", text), dir.path("saved.jsonl"));
    let flags = ["--keep-secrets", "--save", saved.to_str().unwrap()];
    let report = report(&shipped("right/allow.wat"), &[&file], &flags);
    let saved = std::fs::read_to_string(saved).unwrap_or_default();
    let lines = saved
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    Asked {
        report,
        inputs: lines.collect(),
    }
}

impl Asked {
    fn of(&self, phase: &str) -> Vec<&Value> {
        let records = self.inputs.iter().filter(|it| it["phase"] == phase);
        records.map(|record| &record["input"]).collect()
    }

    fn uris(&self) -> Vec<&str> {
        let heads = self.of("request_headers").into_iter();
        heads.map(|head| head["uri"].as_str().unwrap()).collect()
    }

    fn whys(&self) -> Vec<&str> {
        let unusable = self.report["unusable"].as_array().unwrap().iter();
        unusable.map(|bad| bad["why"].as_str().unwrap()).collect()
    }
}

/// A file of one stage with this input.
fn stage(input: &str) -> String {
    format!("rule_id: 1\ntests:\n  - test_id: 1\n    stages:\n      - input: {input}\n")
}

#[test]
fn a_file_is_told_by_its_grammar() {
    let stages = "[{input: {uri: /one}}]";
    for text in [
        format!(
            "---\n  meta:\n    author: a\n  tests:\n    -\n      test_id: 1\n      stages: {stages}\n"
        ),
        format!("# tests\n%YAML 1.2\n---\ntests:\n- test_id: 1\n  stages: {stages}\n"),
        format!("\"meta\": {{}}\n'tests' : # all\n - stages: {stages}\n"),
        format!("? rule_id\n: 1\n? tests\n: - stages: {stages}\n"),
        format!("--- # first\n...\n---\nrule_id: 1\ntests: [{{stages: {stages}}}]\n"),
        format!("{{\"meta\": {{\"tests\": 1}}, \"tests\": [{{\"stages\": {stages}}}]}}"),
        format!("# no brace first\n{{rule_id: 1, tests: [{{stages: {stages}}}]}}"),
        format!("\u{feff}rule_id: 1\r\ntests:\r\n  - stages: {stages}\r\n"),
    ] {
        let asked = asked(&text);
        assert_eq!(asked.report["captures"][0]["format"], "ftw", "{text}");
        assert_eq!(asked.uris(), ["/one"], "{text}: {}", asked.report);
        assert_eq!(asked.whys(), [""; 0], "{text}");
    }
    for text in [
        "{\"tests\": 3, \"rule_id\": 1, \"method\": \"GET\", \"path\": \"/\"}\n",
        "services:\n  tests:\n    image: x\n",
        "- tests:\n  - stages: []\n",
    ] {
        let format = &asked(text).report["captures"][0]["format"];
        assert_ne!(format, "ftw", "{text}");
    }
}

#[test]
fn files_of_several_documents_and_joined_ones_are_read_whole() {
    let one = |rule: u32, uri: &str| {
        format!(
            "rule_id: {rule}\ntests:\n  - test_id: 1\n    stages: [{{input: {{uri: {uri}}}}}]\n"
        )
    };
    for separator in ["---\n", "...\n---\n", ""] {
        let asked = asked(one(7, "/one") + separator + &one(8, "/two"));
        assert_eq!(
            asked.uris(),
            ["/one", "/two"],
            "{separator:?}: {}",
            asked.report
        );
        let ids = asked.of("request_headers");
        let ids: Vec<&Value> = ids.iter().map(|head| &head["correlation_id"]).collect();
        assert_eq!(ids, ["7-1", "8-1"], "{separator:?}");
    }
}

#[test]
fn a_scalar_of_any_type_is_the_text_that_stands_there() {
    let asked = asked(stage(
        "{uri: 7, method: on, data: 0x1F, headers: {A: 1.50, B: true, C: 2024-01-01, D: ~, E: }}",
    ));
    let head = asked.of("request_headers")[0];
    assert_eq!((&head["uri"], &head["method"]), (&json!("7"), &json!("on")));
    for (name, value) in [
        ("a", "1.50"),
        ("b", "true"),
        ("c", "2024-01-01"),
        ("d", ""),
        ("e", ""),
    ] {
        assert_eq!(head["headers"][name], value, "{name}");
    }
    assert_eq!(asked.of("request_body")[0]["data"], "0x1F");
    let asked = self::asked(stage(
        "{uri: !!binary L29uZQ==, data: [1, true], headers: [{name: A, value: 2}]}",
    ));
    assert_eq!(asked.uris(), ["/one"]);
    assert_eq!(asked.of("request_body")[0]["data"], "1%0D%0Atrue");
}

/// Whatever is wrong with it, and wherever it stands.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of inputs")]
fn one_bad_test_costs_itself_alone() {
    let good = |id: u32| {
        format!(
            "  - test_id: {id}\n    stages:\n      - input:\n          uri: /good{id}\n        output: {{status: 200}}\n"
        )
    };
    let bad = |rest: &str| format!("  - test_id: 2\n    {rest}\n");
    let input = |input: &str| bad(&format!("stages: [{{input: {input}}}]"));
    for (what, word) in [
        (input("{uri: /x, uri: /y}"), "input.uri"),
        (input("{headers: {Host: a, Host: b}}"), "headers.Host"),
        (bad("test_id: 3\n    stages: []"), "test.test_id"),
        (input("{uri: [1]}"), "uri"),
        (input("{headers: text}"), "headers"),
        (input("{method: {a: b}}"), "method"),
        (
            input("{autocomplete_headers: maybe}"),
            "autocomplete_headers",
        ),
        (input("[]"), "input"),
        (input("{data: '{{ randAlpha 3 }}'}"), "randAlpha"),
        (input("{data: '{{ \"x'}"), "template"),
        (input("{encoded_data: '%%'}"), "base64"),
        (input("{encoded_request: R0VU, data: x}"), "encoded_request"),
        (input("{response: {status: 9}}"), "status"),
        (input("{response: {stauts: 200}}"), "response.stauts"),
        (input("{follow_redirect: true}"), "follow_redirect"),
        (
            bad("stages: [{input: {}, output: {status: many}}]"),
            "status",
        ),
        (input("{uris: {a: /x}}"), "uris"),
        (input("{uris: []}"), "uris"),
        (input("{uris: [/x], uri: /y}"), "\"uris\""),
        (input("text"), "input"),
        (input("{headers: [{name: B, vale: evil}]}"), "header.vale"),
        (
            input("{ordered_headers: [{name: A, value: b}, {Name: B, value: c}]}"),
            "header.Name",
        ),
        (
            input("{headers: [{name: A, name: B, value: b}]}"),
            "header.name",
        ),
        (input("{ordered_headers: [text]}"), "name"),
        (input("{headers: {? [a] : b}}"), "headers.(a list)"),
        (input("{response: text}"), "response"),
        (input("[{uri: /x}]"), "input"),
        (input("{response: [{status: 403}]}"), "response"),
        (
            input("{response: {headers: [{key: A, value: b}]}}"),
            "header.key",
        ),
        (
            input("{response: {body: a, encoded_body: Yg==}}"),
            "encoded_body",
        ),
        (bad("stages: [{input: {}, output: text}]"), "output"),
        (bad("stages: [{input: {}, output: {log: foo}}]"), "log"),
        (
            bad("stages: [{input: {}, output: {log: [{expect_ids: [1]}]}}]"),
            "log",
        ),
        (
            bad("stages: [{stage: {input: {uri: /x}}, output: {status: 403}}]"),
            "\"output\"",
        ),
        (
            bad("stages: [{stage: {output: {status: 403}}, input: {uri: /x}}]"),
            "\"input\"",
        ),
        (
            bad("stages: [{stage: {input: {}, stage: {input: {uri: /x}}}}]"),
            "\"stage\"",
        ),
        (bad("stages: text"), "stages"),
        (bad("payload: x"), "template"),
        (bad("stages: [{input: {}}]\n    payload: x"), "payload"),
        ("  - text\n".to_owned(), "a text"),
        (bad("stages: [{input: {uri: *nobody}}]"), "expected"),
        (bad("desc: \"never closed"), "expected"),
        (bad("desc: 'a\n    stages: ]"), "expected"),
        (bad("\tstages: []"), "expected"),
        (bad("desc: a: b: c"), "expected"),
        (bad("desc: \u{7}"), "expected"),
    ] {
        for parts in [
            [good(1), what.clone(), good(3)],
            [what.clone(), good(1), good(3)],
        ] {
            let text = format!("---\nrule_id: 9\ntests:\n{}", parts.concat());
            let asked = asked(&text);
            assert_eq!(
                asked.uris(),
                ["/good1", "/good3"],
                "{text}: {}",
                asked.report
            );
            let whys = asked.whys();
            assert!(
                matches!(whys.as_slice(), [why] if why.contains(word)),
                "{text}: {whys:?}"
            );
            let at = asked.report["unusable"][0]["offset"].as_u64().unwrap();
            assert_eq!(at, text.find(&what).unwrap() as u64, "{text}");
        }
    }
}

#[test]
fn bytes_that_are_no_text_cost_the_test_that_holds_them() {
    let mut text = stage("{uri: /one}").into_bytes();
    text.extend_from_slice(b"  - test_id: 2\n    stages: [{input: {uri: /caf\xe9}}]\n");
    text.extend_from_slice(b"  - test_id: 3\n    stages: [{input: {uri: /three}}]\n");
    let asked = asked(text);
    assert_eq!(asked.uris(), ["/one", "/three"]);
    assert!(asked.whys()[0].contains("UTF-8"), "{}", asked.report);
}

/// A quote that is not closed may make the next test part of a text.
#[test]
fn a_test_within_a_text_of_another_is_named() {
    let text = "tests:\n  - test_id: 1\n    desc: \"x\n    stages: [{input: {uri: /one}}]\n  - test_id: 2\n    desc: \"\n    stages: [{input: {uri: /two}}]\n  - test_id: 3\n    stages: [{input: {uri: /three}}]\n";
    let asked = asked(text);
    assert_eq!(asked.uris(), ["/three"], "{}", asked.report);
    assert!(!asked.whys().is_empty());
}

#[test]
fn nothing_is_made_up() {
    for test in [
        "{test_id: 1, desc: nothing here}",
        "{test_id: 1, stages: []}",
        "{test_id: 1, stages: [{}]}",
        "{test_id: 1, stages: [{stage: {output: {status: 200}}}]}",
        "{test_id: 1, stages: [{input: }]}",
        "{test_id: 1, stages: [{input: {uri: ''}}]}",
        "{test_id: 1, stages: [{input: {method: ''}}]}",
        "{}",
        "~",
    ] {
        let asked = asked(format!("rule_id: 1\ntests: [{test}]\n"));
        assert_eq!(asked.inputs.len(), 0, "{test}");
        assert_eq!(asked.whys().len(), 1, "{test}: {}", asked.report);
    }
    for text in [
        "rule_id: 1\n",
        "rule_id: 1\ntests:\n",
        "rule_id: 1\ntests: {a: b}\n",
    ] {
        assert_eq!(asked(text).whys().len(), 1, "{text}");
    }
}

#[test]
fn raw_requests_are_sent_as_they_stand() {
    let raw = "GET /a?b=c HTTP/1.1\\r\\nHost: h\\r\\nA: 1\\r\\n\\r\\n";
    for input in [
        format!("{{raw_request: \"{raw}\", uri: /not-me}}"),
        "{encoded_request: R0VUIC9hP2I9YyBIVFRQLzEuMQ0KSG9zdDogaA0KQTogMQ0KDQo=}".to_owned(),
        format!("{{encoded_request: '', raw_request: \"{raw}\"}}"),
    ] {
        let asked = asked(stage(&input));
        assert_eq!(asked.uris(), ["/a?b=c"], "{input}: {}", asked.report);
        assert_eq!(
            asked.of("request_headers")[0]["headers"],
            json!({"host": "h", "a": "1"})
        );
    }
}

/// Asks with an input and looks at the header fields and the body.
#[track_caller]
fn sends(input: &str, headers: &Value, body: &str) {
    let asked = asked(stage(input));
    let head = &asked.of("request_headers")[0];
    assert_eq!(head["headers"], *headers, "{input}");
    let found = asked
        .of("request_body")
        .first()
        .map(|it| it["data"].clone());
    assert_eq!(found.unwrap_or(json!("")), body, "{input}");
}

/// Each input with the header fields and the body that go-ftw sends.
#[test]
fn what_is_replayed_is_what_go_ftw_sends() {
    let form = "application/x-www-form-urlencoded";
    for (input, headers, body) in [
        ("{}", json!({"connection": "close"}), ""),
        (
            "{method: POST}",
            json!({"connection": "close", "content-length": "0"}),
            "",
        ),
        (
            "{method: XPUTX}",
            json!({"connection": "close", "content-length": "0"}),
            "",
        ),
        ("{method: OPTIONS, stop_magic: true}", json!({}), ""),
        (
            "{stop_magic: true, autocomplete_headers: true}",
            json!({"connection": "close"}),
            "",
        ),
        (
            "{method: POST, data: \"q=1' x&b=<i>&\"}",
            json!({"content-type": form, "connection": "close", "content-length": "18"}),
            "q=1%27+x&b=%3Ci%3E",
        ),
        (
            "{data: 'a=b c', headers: {content-TYPE: APPLICATION/x-www-form-urlencoded, Connection: x, Content-Length: 3}}",
            json!({"connection": "x", "content-length": "3", "content-type": "APPLICATION/x-www-form-urlencoded"}),
            "a=b+c",
        ),
        (
            "{data: 'a=<%3C>'}",
            json!({"content-type": form, "connection": "close", "content-length": "7"}),
            "a=<%3C>",
        ),
        (
            "{data: 'a=b+<'}",
            json!({"content-type": form, "connection": "close", "content-length": "5"}),
            "a=b+<",
        ),
        (
            "{data: 'a=<', autocomplete_headers: false}",
            json!({}),
            "a=<",
        ),
        (
            "{data: '{\"a\": 1}', headers: {Content-Type: application/json}}",
            json!({"content-type": "application/json", "connection": "close", "content-length": "8"}),
            "{\"a\": 1}",
        ),
        (
            "{data: \"a\\nb\\r\\nc\", stop_magic: true, headers: {Content-Type: Multipart/Form-Data; boundary=x}}",
            json!({"content-type": "Multipart/Form-Data; boundary=x"}),
            "a\r\nb\r\r\nc",
        ),
        (
            "{encoded_data: YT08, data: 'b='}",
            json!({"content-type": form, "connection": "close", "content-length": "2"}),
            "b=",
        ),
        (
            "{save_cookie: true, dest_addr: x, port: y, version: z}",
            json!({"connection": "close"}),
            "",
        ),
    ] {
        sends(input, &headers, body);
    }
}

#[test]
fn header_fields_are_sent_in_the_order_of_their_names_or_as_listed() {
    for (input, headers, body) in [
        (
            "{headers: {b: 2, B: 1, A: 3}, autocomplete_headers: false}",
            json!({"a": "3", "b": "1, 2"}),
            "",
        ),
        (
            "{headers: {Gone: 1}, ordered_headers: [{name: b, value: 1}, {name: a, value: 2}, {name: b, value: 3}], stop_magic: on}",
            json!({"b": "1, 3", "a": "2"}),
            "",
        ),
    ] {
        sends(input, &headers, body);
    }
}

/// Where a test says a thing twice, go-ftw's choice is sent and the other is told.
#[test]
fn what_go_ftw_leaves_out_is_told() {
    let raw = "raw_request: \"PUT /a HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n\"";
    for (input, is_told) in [
        ("data: '', encoded_data: aGk=".to_owned(), true),
        ("data: b, encoded_data: aGk=".to_owned(), true),
        ("data: , encoded_data: aGk=".to_owned(), false),
        ("data: b, encoded_data: ''".to_owned(), false),
        (
            "headers: {A: b}, ordered_headers: [{name: C, value: d}]".to_owned(),
            true,
        ),
        ("headers: {A: b}, ordered_headers: []".to_owned(), true),
        ("headers: {A: b}, ordered_headers: ".to_owned(), false),
        ("headers: {}, ordered_headers: []".to_owned(), false),
        (format!("{raw}, headers: {{A: b}}"), true),
        (format!("{raw}, encoded_data: aGk="), true),
        (format!("{raw}, uri: /b"), true),
        (format!("{raw}, uris: [/a, /b]"), true),
        (format!("{raw}, method: GET"), true),
        (format!("{raw}, uri: /a, method: PUT, data: ''"), false),
    ] {
        let asked = asked(stage(&format!("{{{input}}}")));
        let told = remarks(&asked.report).contains(&"parts_left_out");
        assert_eq!(told, is_told, "{input}: {}", asked.report);
    }
    let asked = asked(stage("{data: '', encoded_data: aGk=}"));
    assert_eq!(asked.of("request_body").len(), 0, "{}", asked.report);
}

#[test]
fn one_target_is_one_of_a_list() {
    for (input, uris) in [
        ("{uris: /attack}", &["/attack"][..]),
        ("{uris: [/attack]}", &["/attack"]),
        ("{uris: [/one, 2]}", &["/one", "2"]),
        ("{uris: , uri: /one}", &["/one"]),
    ] {
        assert_eq!(asked(stage(input)).uris(), uris, "{input}");
    }
}

#[test]
fn what_stands_above_tests_is_looked_at_too() {
    for (text, good, word) in [
        (
            "template: {uri: '/{{.Payload}}', headres: {A: b}}\ntests:\n  - {id: 1, payload: a}\n  - stages: [{input: {uri: /b}}]\n",
            "/b",
            "input.headres",
        ),
        (
            "tests: text\n---\ntests:\n  - stages: [{input: {uri: /c}}]\n",
            "/c",
            "a text in \"tests\"",
        ),
    ] {
        let asked = asked(text);
        assert_eq!(asked.uris(), [good], "{text}");
        let whys = asked.whys();
        assert!(
            matches!(whys.as_slice(), [why] if why.contains(word)),
            "{text}: {whys:?}"
        );
    }
    let log = "tests:\n  - stages: [{input: {}, output: {html_contains: x}}]\n";
    assert!(remarks(&asked(log).report).contains(&"not_checked"));
}

/// Each took minutes when every key or test looked at all the others.
#[test]
fn many_keys_and_tests_are_read_in_a_moment() {
    let many = |one: &dyn Fn(usize) -> String| {
        let all: Vec<String> = (0..60_000).map(one).collect();
        all.join(",")
    };
    let keys = many(&|index| format!("h{index}: v"));
    let tests = many(&|index| format!("{{stages: [{{input: {{uri: /{index}}}}}]}}"));
    let good = "{input: {uri: /good}}";
    for (what, text, asked_for) in [
        (
            "merged fields",
            stage(&format!("{{uri: /good, headers: {{<<: {{{keys}}}}}}}")),
            1,
        ),
        (
            "fields",
            stage(&format!("{{uri: /good, headers: {{{keys}}}}}")),
            1,
        ),
        (
            "unknown keys",
            format!("tests: [{{{keys}}}, {{stages: [{good}]}}]"),
            1,
        ),
        (
            "keys above tests",
            format!("{{tests: [{{stages: [{good}]}}], {keys}}}"),
            1,
        ),
        ("tests in one line", format!("tests: [{tests}]"), 60_000),
    ] {
        let dir = TestDir::new();
        let file = dir.file("suite.yaml", text);
        let begun = Instant::now();
        let report = report(&shipped("right/allow.wat"), &[&file], &[]);
        let took = begun.elapsed();
        assert_eq!(report["records"]["transactions"], asked_for, "{what}");
        assert!(took < Duration::from_secs(60), "{what}: {took:?}");
        let unusable = report["unusable"].to_string();
        assert!(unusable.len() < 2000, "{what}: {} bytes", unusable.len());
    }
}

#[test]
fn templates_stand_in_data_alone_but_around_a_payload() {
    let asked = asked(stage(
        "{uri: '/?q={{7*7}}', method: 'A{{b}}', headers: {X: '{{constructor}}'}, data: 'a={{ \"b\" | repeat 2 -}}  !', stop_magic: true}",
    ));
    let head = asked.of("request_headers")[0];
    assert_eq!(
        (&head["uri"], &head["method"]),
        (&json!("/?q={{7*7}}"), &json!("A{{b}}"))
    );
    assert_eq!(head["headers"]["x"], "{{constructor}}");
    assert_eq!(asked.of("request_body")[0]["data"], "a=bb!");
    let asked = self::asked(
        "rule_id: 3\ntemplate: {uri: '/{{.Payload}}', headers: [{name: 'N{{x}}', value: '{{ .Payload }}'}]}\ntests:\n  - {id: 1, payload: '{{p}}'}\n  - {id: 2, stages: [{input: {uri: '/{{.Payload}}'}}]}\n  - {id: 3, payload: x, template: {uri: '{{.Nothing}}'}}\n  - {id: 4}\n",
    );
    assert_eq!(
        asked.uris(),
        ["/{{p}}", "/{{.Payload}}"],
        "{}",
        asked.report
    );
    assert_eq!(asked.of("request_headers")[0]["headers"]["n{{x}}"], "{{p}}");
    assert_eq!(asked.whys().len(), 2);
}

#[test]
fn anchors_and_merges_are_followed_and_bounded() {
    let asked = asked(
        "meta: &in {uri: /one, method: PUT}\ntests:\n  - stages: [{input: *in}]\n  - stages: [{input: {<<: *in, uri: /two}}]\n  - stages: [{input: {<<: [{uri: /three}, *in], method: GET}}]\n  - stages: [{input: {<<: {tpyo: 1}}}]\n",
    );
    assert_eq!(asked.uris(), ["/one", "/two", "/three"], "{}", asked.report);
    let methods = asked.of("request_headers").into_iter();
    let methods: Vec<&Value> = methods.map(|head| &head["method"]).collect();
    assert_eq!(methods, ["PUT", "PUT", "GET"]);
    assert!(asked.whys()[0].contains("input.tpyo"), "{}", asked.report);
    // Two to the power of thirty values, if they were written out.
    let mut text = "meta:\n  a0: &a0 [x, x]\n".to_owned();
    for level in 1..30 {
        let below = level - 1;
        text += &format!("  a{level}: &a{level} [*a{below}, *a{below}]\n");
    }
    text += "tests:\n  - stages: [{input: {uri: /one}}]\n";
    assert_eq!(self::asked(&text).uris(), ["/one"]);
}

/// Templates in one text and in many tests, without the memory of what they ask for.
#[test]
fn templates_take_bounded_memory() {
    let dir = TestDir::new();
    let one = |times: usize| {
        format!(
            "{{method: POST, data: '{}'}}",
            "{{ \"x\" | repeat 1000000 }}".repeat(times)
        )
    };
    let test = |input: &str| format!("  - stages: [{{input: {input}}}]\n");
    for (text, good) in [
        (stage(&one(40)), 0),
        (format!("tests:\n{}", test(&one(1)).repeat(300)), 300),
    ] {
        let file = dir.file("t.yaml", &text);
        let mut child = command(&shipped("right/allow.wat"), &[&file])
            .args(["--format", "json", "--fail-on", "never"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            most = most.max(high_water_kib(child.id()));
            std::thread::sleep(Duration::from_millis(5));
        }
        let out = child.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(report["records"]["transactions"], good, "{report}");
        assert!((1..200 << 10).contains(&most), "{most} KiB");
    }
}

/// Settings beside the tests are no captures; what could be one is read.
#[test]
fn settings_beside_tests_are_noted_and_no_capture() {
    let dir = TestDir::new();
    dir.file("in/1.yaml", stage("{uri: /one}"));
    for (name, text) in [
        (
            "overrides.yaml",
            "version: v0.0.0\nmeta: {engine: x}\ntest_overrides:\n  - rule_id: 1\n",
        ),
        (
            "docker-compose.yml",
            "x: &a\n  b: 1\nservices:\n  tests:\n    env: *a\n",
        ),
        (
            ".ftw.yaml",
            "logfile: x\ntestoverride:\n  input: {dest_addr: x}\n",
        ),
        ("none.yaml", "# rule_id: 1\n# tests:\n"),
    ] {
        dir.file(&format!("in/{name}"), text);
    }
    let folder = dir.path("in");
    let done = replay(
        &shipped("right/allow.wat"),
        &[&folder],
        &["--strict", "--format", "json"],
    );
    assert_eq!(done.json()["records"]["transactions"], 1);
    assert_eq!(done.json()["verdict"], "passed");
    assert!(
        done.stderr.contains("docker-compose.yml"),
        "{}",
        done.stderr
    );
    for text in ["tests: [\n", "rule_id: 1\n", "{\"v\":1}\n", "a: [\n"] {
        dir.file("in/2.yaml", text);
        let report = report(
            &shipped("right/allow.wat"),
            &[&folder],
            &["--strict", "--fail-on", "never"],
        );
        assert_eq!(report["records"]["unusable"], 1, "{text}: {report}");
    }
}
