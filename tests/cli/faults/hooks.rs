//! Hook modules: broken answers, memory, isolation and exports, and which kind a
//! module is taken for.

use serde_json::{Value, json};

use crate::support::guests::{Answers, context};
use crate::support::{Done, Step, TestDir, run, shipped, steps, wasm_agent};

/// What is to come of one answer.
enum Outcome {
    /// Said yes: how many changes are applied, and how many ignored.
    Yes(usize, usize),
    /// Said no, with this error.
    No(Option<&'static str>),
    /// A fault of this code.
    Fault(&'static str),
}
use Outcome::{Fault, No, Yes};

/// Answers of a misbehaving hook to the context of [`context`].
const ANSWERS: [(&str, Outcome); 42] = [
    (r#"{"ok":true}"#, Yes(0, 0)),
    (
        r#"{"ok":true,"ctx":null,"error":null,"details":null}"#,
        Yes(0, 0),
    ),
    (r#"{"ok":true,"error":"but"}"#, Yes(0, 0)),
    (r#"{"ok":true,"more":{"a":1}}"#, Yes(0, 0)),
    ("{\"ok\":true}\n", Yes(0, 0)),
    // Whether there is leave to go on must be said, once, in so many words.
    ("{}", Fault("bad-answer:no-ok")),
    (r#"{"error":"no"}"#, Fault("bad-answer:no-ok")),
    (r#"{"OK":true}"#, Fault("bad-answer:no-ok")),
    (r#"{"ok":null}"#, Fault("bad-answer:mistyped")),
    (r#"{"ok":1}"#, Fault("bad-answer:mistyped")),
    (r#"{"ok":"true"}"#, Fault("bad-answer:mistyped")),
    (r#"{"ok":[true]}"#, Fault("bad-answer:mistyped")),
    (
        r#"{"ok":true,"ok":false}"#,
        Fault("bad-answer:duplicate-key"),
    ),
    (
        r#"{"ok":false,"ok":true}"#,
        Fault("bad-answer:duplicate-key"),
    ),
    ("", Yes(0, 0)),
    (" ", Fault("bad-answer:not-json")),
    ("ok", Fault("bad-answer:not-json")),
    (r#"{"ok":true"#, Fault("bad-answer:not-json")),
    (r#"{"ok":true}{"ok":true}"#, Fault("bad-answer:not-json")),
    (r#"{"ok":true,}"#, Fault("bad-answer:not-json")),
    ("null", Fault("bad-answer:not-an-object")),
    ("true", Fault("bad-answer:not-an-object")),
    (r#"[{"ok":true}]"#, Fault("bad-answer:not-an-object")),
    (r#""ok""#, Fault("bad-answer:not-an-object")),
    // A no is a no, explained or not.
    (r#"{"ok":false}"#, No(None)),
    (r#"{"ok":false,"error":"e","details":[]}"#, No(Some("e"))),
    (
        r#"{"ok":false,"ctx":{"input":{},"headers":{}},"error":"e"}"#,
        No(Some("e")),
    ),
    (
        r#"{"ok":false,"error":{"text":"e"}}"#,
        Fault("bad-answer:mistyped"),
    ),
    (
        r#"{"ok":false,"details":"d"}"#,
        Fault("bad-answer:mistyped"),
    ),
    // The context comes back whole or not at all.
    (r#"{"ok":true,"ctx":7}"#, Fault("bad-answer:mistyped")),
    (
        r#"{"ok":true,"ctx":{}}"#,
        Fault("bad-answer:incomplete-ctx"),
    ),
    (
        r#"{"ok":true,"ctx":{"input":{"n":1}}}"#,
        Fault("bad-answer:incomplete-ctx"),
    ),
    (
        r#"{"ok":true,"ctx":{"input":null,"headers":{}}}"#,
        Fault("bad-answer:mistyped"),
    ),
    (
        r#"{"ok":true,"ctx":{"input":{},"headers":{"a":1}}}"#,
        Fault("bad-answer:mistyped"),
    ),
    (
        r#"{"ok":true,"ctx":{"input":{},"headers":{},"user":{"id":"7"}}}"#,
        Fault("bad-answer:mistyped"),
    ),
    (
        r#"{"ok":true,"ctx":{"input":{},"input":{"x":1},"headers":{}}}"#,
        Fault("bad-answer:duplicate-key"),
    ),
    // Input and data are applied; user, headers and tenant are not.
    (
        r#"{"ok":true,"ctx":{"input":{"n":1,"m":2},"data":3,"user":{"id":"7","role":"user"},"headers":{"a":"1"},"tenant_id":"acme"}}"#,
        Yes(3, 0),
    ),
    (r#"{"ok":true,"ctx":{"input":{},"headers":{}}}"#, Yes(1, 3)),
    (
        r#"{"ok":true,"ctx":{"input":{},"user":{"id":"0","role":"root"},"headers":{"a":"1"},"tenant_id":"acme"}}"#,
        Yes(1, 2),
    ),
    (
        r#"{"ok":true,"ctx":{"input":{},"user":{"id":"7","role":"user"},"headers":{"a":"2","b":"3"},"tenant_id":"acme"}}"#,
        Yes(1, 2),
    ),
    (
        r#"{"ok":true,"ctx":{"input":{},"user":{"id":"7","role":"user"},"headers":{"a":"1"},"tenant_id":"other"}}"#,
        Yes(1, 1),
    ),
    (
        r#"{"ok":true,"ctx":{"input":{},"extra":1,"user":{"id":"7","role":"user"},"headers":{"a":"1"},"tenant_id":"acme"}}"#,
        Yes(1, 0),
    ),
];

#[test]
fn m_28_a_misbehaving_hook_is_a_no_and_changes_nothing_it_may_not() {
    let table = Answers::of(ANSWERS.iter().map(|(answer, _)| answer));
    for ((answer, outcome), step) in ANSWERS.iter().zip(table.ask_hooks(&[])) {
        let hook = &step.0["hook"];
        let counted = |key: &str| hook[key].as_array().unwrap().len();
        match outcome {
            Yes(changed, ignored) => {
                assert_eq!(step.fault(), None, "{answer}");
                assert_eq!(hook["result"]["ok"], true, "{answer}");
                let found = (counted("changed"), counted("ignored"));
                assert_eq!(found, (*changed, *ignored), "{answer}: {hook}");
            }
            No(error) => {
                assert_eq!(step.fault(), None, "{answer}");
                assert_eq!(hook["result"]["ok"], false, "{answer}");
                assert_eq!(hook["result"]["error"], json!(error), "{answer}");
                assert_eq!(counted("changed"), 0, "{answer}");
            }
            Fault(code) => assert_trapped(&step, code),
        }
        for (key, kept) in [
            ("user", json!({"id": "7", "role": "user"})),
            ("headers", json!({"a": "1"})),
            ("tenant_id", json!("acme")),
        ] {
            assert_eq!(hook["context"][key], kept, "{answer}");
        }
    }
}

/// The host gets a result that is not ok, and its context as it was.
#[track_caller]
fn assert_trapped(step: &Step, code: &str) {
    assert_eq!(step.fault(), Some(code), "{step:?}");
    let hook = &step.0["hook"];
    let error = format!("WASM plugin trapped: {code}");
    assert_eq!(
        hook["result"],
        json!({"ok": false, "ctx": null, "error": error, "details": null}),
        "{step:?}"
    );
    assert_eq!(hook["changed"], json!([]), "{step:?}");
}

#[test]
fn m_28_a_context_beyond_the_answer_limit_is_a_fault() {
    let huge = format!(
        r#"{{"ok":true,"ctx":{{"input":{{"n":"{}"}},"headers":{{}}}}}}"#,
        "x".repeat(1 << 20)
    );
    let mut table = Answers::of([&huge]);
    // Exactly at the limit.
    let said = r#"{"ok":true}"#;
    let padded = format!("{said}{}", " ".repeat((1 << 20) - said.len()));
    table.add(padded.as_bytes());
    let asked = table.ask_hooks(&[]);
    assert_trapped(&asked[0], "answer-limit");
    assert_eq!(asked[1].fault(), None);
}

fn ask(module: &str, flags: &[&str]) -> Step {
    let dir = TestDir::new();
    let fixture = dir.file("hook.json", context(0));
    let done = run(&shipped(module), &[&fixture], flags);
    steps(&done.json())[0].clone()
}

#[test]
fn m_06_a_hook_gets_256_pages_and_no_more() {
    let step = ask("hooks/grow.wat", &[]);
    assert_trapped(&step, "memory-limit");
    assert_eq!(step.memory_bytes(), 256 * 65_536);
    let coped = ask("hooks/grow-handled.wat", &[]);
    assert_eq!(coped.fault(), None);
    assert_eq!(coped.0["hook"]["result"]["error"], "no room");
    // 17 pages and 240 more are one too many; with one page more they fit.
    let more = ask("hooks/grow-handled.wat", &["--max-memory", "16842752"]);
    assert_eq!(more.0["hook"]["result"]["ok"], true);
}

#[test]
fn m_06_a_hook_module_that_begins_with_more_pages_is_refused() {
    let dir = TestDir::new();
    let fixture = dir.file("hook.json", context(0));
    let done = run(&shipped("hooks/pages-300.wat"), &[&fixture], &[]);
    done.assert_code(1);
    assert!(done.stderr.contains("at most 16 MiB"), "{}", done.stderr);
    let step = ask("hooks/pages-300.wat", &["--max-memory", "32MiB"]);
    assert_eq!(step.fault(), None);
}

#[test]
fn a_hook_gets_a_million_instructions_and_no_more() {
    let step = ask("hooks/spin.wat", &[]);
    assert_trapped(&step, "fuel");
    assert_eq!(step.0["fuel"], 1_000_000);
    assert_trapped(&ask("hooks/pass-through.wat", &["--fuel", "1"]), "fuel");
    assert_trapped(
        &ask(
            "hooks/spin.wat",
            &["--fuel", "100000000000000", "--timeout", "20ms"],
        ),
        "deadline",
    );
}

#[test]
fn m_09_any_address_from_alloc_is_taken_as_unsigned_and_checked() {
    let dir = TestDir::new();
    let fixture = dir.file("hook.json", context(0));
    let memory = 17 * 65_536_i64;
    for (address, code) in [
        (0, Some("alloc:null")),
        (-1, Some("alloc:out-of-bounds")),
        (-16, Some("alloc:out-of-bounds")),
        (i64::from(i32::MIN), Some("alloc:out-of-bounds")),
        (i64::from(i32::MAX), Some("alloc:out-of-bounds")),
        (memory, Some("alloc:out-of-bounds")),
        (memory - 1, Some("alloc:out-of-bounds")),
        // Not aligned, and where the answer lies: both are the guest's own affair.
        (65_537, None),
    ] {
        let module = dir.file(
            "alloc.wat",
            format!(
                r#"(module (memory (export "memory") 17) (data (i32.const 8) "{{\22ok\22:true}}")
                (func (export "alloc") (param i32) (result i32) (i32.const {address}))
                (func (export "dealloc") (param i32 i32))
                (func (export "before_hook") (param i32 i32) (result i64) (i64.const 0x0000_0008_0000_000b)))"#
            ),
        );
        let step = steps(&run(&module, &[&fixture], &[]).json())[0].clone();
        match code {
            Some(code) => assert_trapped(&step, code),
            None => assert_eq!(step.fault(), None, "{address}"),
        }
    }
}

#[test]
fn m_10_both_halves_of_an_answer_are_unsigned_and_address_zero_is_read() {
    let edges = [
        0_u64,
        1,
        8,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fff0,
        0xffff_ffff,
    ];
    let mut table = Answers::default();
    let mut packed = Vec::new();
    for ptr in edges {
        for len in edges {
            packed.push((ptr << 32) | len);
            table.add_packed((ptr << 32) | len);
        }
    }
    let memory = table.memory_bytes();
    for (packed, step) in packed.into_iter().zip(table.ask_hooks(&[])) {
        let (ptr, len) = (packed >> 32, packed & 0xffff_ffff);
        if len == 0 {
            assert_eq!(step.fault(), None, "{packed:#x}");
            assert_eq!(step.0["hook"]["result"]["ok"], true, "{packed:#x}");
        } else if ptr + len > memory {
            assert_trapped(&step, "bad-answer:out-of-bounds");
        } else {
            // Inside memory, at 0 too, lies the table, which is no JSON.
            let code = step.fault().unwrap_or("no fault");
            assert!(code.starts_with("bad-answer:not-"), "{packed:#x}: {code}");
        }
    }
    for module in ["negative-pointer", "negative-length", "all-ones"] {
        let step = ask(&format!("hooks/{module}.wat"), &[]);
        assert_trapped(&step, "bad-answer:out-of-bounds");
    }
    assert_eq!(ask("hooks/pass-through.wat", &[]).fault(), None);
}

#[test]
fn m_18_a_hook_sees_nothing_of_the_calls_before_it() {
    let dir = TestDir::new();
    let fixture = dir.file("hook.json", context(0));
    let calls = |flags: &[&str]| {
        let done = run(&shipped("hooks/counter.wat"), &[&fixture], flags);
        done.code
    };
    assert_eq!(calls(&["--repeat", "20"]), Some(0));
    // Pooled, the second answer is another: what fresh instances are for.
    assert_eq!(calls(&["--repeat", "2", "--isolation", "pooled"]), Some(1));
}

#[test]
fn m_21_a_mistyped_export_is_refused_by_name() {
    let dir = TestDir::new();
    let fixture = dir.file("hook.json", context(0));
    let right = [
        ("alloc", "(param i32) (result i32) (i32.const 8)"),
        ("dealloc", "(param i32 i32)"),
        ("before_hook", "(param i32 i32) (result i64) (i64.const 0)"),
        ("after_hook", "(param i32 i32) (result i64) (i64.const 0)"),
    ];
    let wrong = [
        "(param i64 i64) (result i64) (i64.const 0)",
        "(param i32 i32 i32) (result i64) (i64.const 0)",
        "(param i32 i32) (result f64) (f64.const 0)",
        "(param i32 i32) (result i64 i64) (i64.const 0) (i64.const 0)",
        "",
    ];
    for (name, _) in right {
        for wrong in wrong {
            let functions: String = right
                .iter()
                .map(|(export, body)| {
                    let body = if *export == name { wrong } else { body };
                    format!("(func (export \"{export}\") {body})\n")
                })
                .collect();
            let module = dir.file(
                "mistyped.wat",
                format!("(module (memory (export \"memory\") 1)\n{functions})"),
            );
            let done = run(&module, &[&fixture], &[]);
            done.assert_code(1);
            let named = format!("export:{name}: expected func (i32");
            assert!(done.stderr.contains(&named), "{wrong}: {}", done.stderr);
            assert!(done.stderr.contains("mistyped: func"), "{}", done.stderr);
        }
    }
}

fn both_abis() -> std::path::PathBuf {
    shipped("invalid/both-abis.wat")
}

#[test]
fn a_module_of_both_abis_is_ambiguous_until_one_is_chosen() {
    let dir = TestDir::new();
    let (event, hook) = (dir.request(), dir.file("hook.json", context(0)));
    let done = run(&both_abis(), &[&event], &[]);
    done.assert_code(1);
    assert!(
        done.stderr
            .contains("both: on_request_headers, before_hook")
            && done
                .stderr
                .contains("choose one with --abi agent or --abi hook"),
        "{}",
        done.stderr
    );
    let chosen = |abi: &str, fixture| run(&both_abis(), &[fixture], &["--abi", abi]);
    let agent = chosen("agent", &event);
    assert_eq!(steps(&agent.json())[0].decision(), "allow");
    assert_eq!(agent.json()["module"]["abi"], "agent");
    let plugin = chosen("hook", &hook);
    assert_eq!(steps(&plugin.json())[0].0["hook"]["result"]["ok"], true);
    assert_eq!(plugin.json()["module"]["handlers"], json!(["before_hook"]));
}

#[test]
fn auto_says_what_it_went_by() {
    let module = shipped("account/account.wasm");
    let report = wasm_agent([
        "validate".as_ref(),
        module.as_os_str(),
        "--format=json".as_ref(),
    ]);
    let report: Value = report.json();
    let checks = report["modules"][0]["checks"].as_array().unwrap();
    let abi = checks.iter().find(|check| check["id"] == "abi").unwrap();
    assert_eq!(abi["found"], "hook ABI: before_hook, after_hook");
}

#[track_caller]
fn assert_says(done: &Done, code: i32, words: &[&str]) {
    done.assert_code(code);
    let said = format!("{}{}", done.text(), done.stderr);
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}

#[test]
fn each_abi_names_the_other_and_the_command_to_use() {
    let dir = TestDir::new();
    let hook_module = shipped("account/account.wasm");
    let agent_module = shipped("right/allow.wat");
    let (event, hook) = (dir.request(), dir.file("hook.json", context(0)));
    assert_says(
        &run(&hook_module, &[&event], &[]),
        3,
        &[
            "expected a hook's context",
            "(the hook ABI), found request_headers (the agent ABI)",
        ],
    );
    assert_says(
        &run(&agent_module, &[&hook], &[]),
        3,
        &[
            "expected an event",
            "(the agent ABI), found before_hook (the hook ABI)",
        ],
    );
    assert_says(
        &run(&hook_module, &[&event], &["--abi", "agent"]),
        1,
        &[
            "found hook ABI: before_hook, after_hook",
            "use --abi hook",
            "wasm-agent run",
        ],
    );
    assert_says(
        &run(&agent_module, &[&hook], &["--abi", "hook"]),
        1,
        &[
            "found agent ABI: on_request_headers",
            "use --abi agent",
            "wasm-agent serve",
        ],
    );
    assert_says(
        &run(&hook_module, &[&hook], &["--fail-open"]),
        2,
        &["a hook has no failure policy"],
    );
}

#[test]
fn serve_refuses_a_hook_module_before_it_touches_a_socket() {
    let dir = TestDir::new();
    let socket = dir.path("agent.sock");
    let serve = |flags: &[&str]| {
        let mut arguments = vec!["serve".to_owned(), "--module".to_owned()];
        arguments.push(shipped("account/account.wasm").display().to_string());
        arguments.push(format!("--socket={}", socket.display()));
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        wasm_agent(arguments)
    };
    assert_says(
        &serve(&[]),
        1,
        &[
            "expected a proxy agent (the agent ABI), found a before/after-hook plugin (the hook ABI), since it exports before_hook, after_hook",
            "wasm-agent run",
            "PluginRuntime",
        ],
    );
    assert_says(
        &serve(&["--abi", "agent"]),
        1,
        &["use --abi hook", "wasm-agent run"],
    );
    assert_says(
        &serve(&["--abi", "hook"]),
        2,
        &["--abi hook", "PluginRuntime"],
    );
    assert!(!socket.exists());
}

#[test]
fn a_pair_ends_where_its_first_hook_refuses() {
    let dir = TestDir::new();
    let pair = |email: &str| {
        dir.file(
            "pair.json",
            format!(
                r#"{{"context":{{"input":{{"email":"{email}"}}}},"after":{{"data":{{"id":1}},"expect":{{"ok":true,"ctx":{{"input":{{"email":"a@b"}}}}}}}}}}"#
            ),
        )
    };
    let account = shipped("account/account.wasm");
    let done = run(&account, &[&pair("A@B")], &[]);
    done.assert_code(0);
    assert_eq!(
        steps(&done.json())[1].0["hook"]["context"]["data"]["checked_by"],
        "account/1.0.0"
    );
    let done = run(&account, &[&pair("")], &[]);
    done.assert_code(1);
    assert_eq!(steps(&done.json())[1].0["hook"], Value::Null);
}

#[test]
fn update_writes_what_a_hook_answered_in_each_form() {
    let dir = TestDir::new();
    let account = shipped("account/account.wasm");
    for (name, text) in [
        ("bare.json", r#"{"input":{"email":"A@B"}}"#),
        (
            "one.json",
            r#"{"context":{"input":{"email":""}},"expect":{"ok":true,"error":"x"}}"#,
        ),
        (
            "pair.json",
            r#"{"context":{"input":{"email":"A@B"}},"after":{"data":{}}}"#,
        ),
    ] {
        let fixture = dir.file(name, text);
        let updated = run(&account, &[&fixture], &["--update"]);
        assert!(updated.stderr.contains("updated"), "{}", updated.stderr);
        let again = run(&account, &[&fixture], &["--update"]);
        again.assert_code(0);
        assert!(!again.stderr.contains("updated"), "{}", again.stderr);
        // What was written is held: another module misses it.
        run(&shipped("hooks/modify.wat"), &[&fixture], &[]).assert_code(1);
    }
}
