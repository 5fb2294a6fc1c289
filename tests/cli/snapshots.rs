//! Everything that the binary prints, kept in files: the help of every
//! command, a report of every command in every format, and refusals.
//!
//! A snapshot that is missing or differs fails its test.
//! `INSTA_UPDATE=always cargo test --test cli snapshots::` writes them anew; the
//! change is then read as a diff. What differs from run to run or from machine
//! to machine is replaced by a word (`TIME`, `N`, `VERSION`) before.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use regex::Regex;

use crate::support::{Done, TestDir, binary, finish};

/// What of an output is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Masked {
    /// Times and versions; what is left is compared to the byte.
    Times,
    /// Times, and in tables for people the width of columns, which hangs on
    /// them.
    Columns,
    /// Every figure: nothing but the shape is left.
    Figures,
}

/// Replaces by patterns, one after the other.
fn replaced(text: &str, patterns: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (pattern, word) in patterns {
        let pattern = Regex::new(pattern).unwrap();
        text = pattern.replace_all(&text, *word).into_owned();
    }
    text
}

/// The text, in this format, without what differs from run to run.
fn masked(text: &str, format: &str, what: Masked) -> String {
    let mut text = replaced(
        text,
        &[
            (r"wasmtime \d+\.\d+\.\d+", "wasmtime VERSION"),
            (r"wasm-agent \d+\.\d+\.\d+", "wasm-agent VERSION"),
            (
                r#"("(?:tool_version|semanticVersion)": ?)"[^"]*""#,
                r#"$1"VERSION""#,
            ),
            (r#"("\w+_[nu]s": ?)[\d.]+"#, "${1}N"),
            // As many as there is time for.
            (r#"("growth": \{\s*"calls": )\d+"#, "${1}N"),
            (r"\d+ answers on used", "N answers on used"),
            (r#" time="[\d.]+""#, r#" time="TIME""#),
            (r"\d+\.\d+ (?:ns|µs|ms|s)\b", "TIME"),
        ],
    );
    if what == Masked::Figures {
        // A style sheet holds no figure of ours.
        let (style, rest) = match text.split_once("</style>") {
            Some((style, rest)) => (format!("{style}</style>"), rest),
            None => (String::new(), text.as_str()),
        };
        text = style + &without_figures(rest);
    }
    if what != Masked::Times && format == "human" {
        text = replaced(&text, &[(r" {2,}", "  "), ("─+", "──"), (r"(?m)[ ]+$", "")]);
    }
    text
}

/// The text with `N` for every figure.
fn without_figures(text: &str) -> String {
    let text = replaced(
        text,
        &[
            (r#"("(?:processor|kernel)": ?)"[^"]*""#, r#"$1"MACHINE""#),
            (
                r"(?m)^(<p[^>]*>)?[^\n<>]*, \d+ cores?, [^\n<]*, wasmtime",
                "${1}MACHINE, wasmtime",
            ),
            (r"was another, is [^\n]*\)", "was another, is MACHINE)"),
            (r#"("buckets": )\[[\s\d,\[\]]*\]"#, "${1}BUCKETS"),
            (r#"("buckets": ?)"[\dx ]*""#, "${1}BUCKETS"),
            (r#"("turns": )\[[\s\d.,]*\]"#, "${1}TURNS"),
            // Not the digits of an id, of a name such as p99.9, of a colour.
            (
                r"(^|[^\w.#])[+−-]?\d+(?:[ \u{a0}\u{202f}]\d{3})*(?:\.\d+)?(?:e-?\d+)?\b",
                "${1}N",
            ),
            (r"N(?:[ ,]N)+", "N…"),
        ],
    );
    once_each(&text)
}

/// Without lines that repeat the line before: dots and grid lines of a chart,
/// whose number hangs on what was measured.
fn once_each(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.dedup_by(|line, before| line == before && line.starts_with('<'));
    lines.join("\n") + if text.ends_with('\n') { "\n" } else { "" }
}

/// Standard output, standard error and exit code of a command, as a terminal
/// would show them.
fn shown(command: &str, done: &Done, what: Masked) -> String {
    done.assert_calm();
    let format = command.split("--format ").nth(1).unwrap_or("human");
    let printed = masked(&done.text(), format, what);
    let mut text = format!("$ wasm-agent {command}\n{printed}");
    if !done.stderr.is_empty() {
        let errors = masked(&done.stderr, "human", Masked::Times);
        write!(text, "\n# standard error\n{errors}").unwrap();
    }
    write!(text, "\n# exit {}", done.code.unwrap()).unwrap();
    text
}

/// Runs the words of a command in the crate's folder.
fn run(command: &str) -> Done {
    let mut process = binary(command.split_whitespace());
    process.current_dir(env!("CARGO_MANIFEST_DIR"));
    // The width of help; reports for no terminal have a width of their own.
    process.env("COLUMNS", "100");
    finish(process)
}

/// Holds a text against `snapshots/NAME.snap`.
fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Runs a command in each of these formats.
fn formats(name: &str, command: &str, formats: &[&str], what: Masked) {
    for format in formats {
        let command = format!("{command} --format {format}");
        check(
            &format!("{name}.{format}"),
            &shown(&command, &run(&command), what),
        );
    }
}

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn help_of_every_command() {
    let mut left = vec![String::new()];
    let mut seen = BTreeSet::new();
    while let Some(command) = left.pop() {
        for (flag, length) in [("-h", "short"), ("--help", "long")] {
            let line = format!("{command} {flag}");
            let done = run(&line);
            done.assert_code(0);
            let name = command.trim().replace(' ', "-");
            let name = if name.is_empty() { "all" } else { &name };
            check(
                &format!("help.{name}.{length}"),
                &shown(line.trim(), &done, Masked::Times),
            );
            if length == "short" {
                let below = subcommands(&done.text()).into_iter();
                left.extend(below.map(|name| format!("{command} {name}")));
            }
        }
        seen.insert(command);
    }
    assert!(seen.contains(" replay merge"), "{seen:?}");
    assert_eq!(seen.len(), 9, "{seen:?}");
}

const RUN: [&str; 7] = [
    "human", "json", "jsonl", "junit", "markdown", "html", "github",
];

/// Names of fixtures are so short that no row is broken: where, hangs on how
/// wide the times are.
#[test]
fn run_passes() {
    formats(
        "run.passed",
        "run fixtures/modules/rules/rules.wasm fixtures/events/requests/allow-page.json \
         fixtures/events/requests/scanner.json fixtures/events/requests/challenge-bot.json \
         fixtures/events/bodies/response-card.json --timeout 20s",
        &RUN,
        Masked::Columns,
    );
}

#[test]
fn run_misses_expectations() {
    formats(
        "run.missed",
        "run fixtures/modules/right/allow.wat fixtures/events/requests/scanner.json \
         fixtures/events/requests/redirect-old.json fixtures/events/bare --timeout 20s",
        &RUN,
        Masked::Columns,
    );
}

#[test]
fn run_meets_a_fault() {
    formats(
        "run.fault",
        "run fixtures/modules/hostile/trap-unreachable.wat fixtures/events/bare/request.json \
         fixtures/events/requests/scanner.json --timeout 20s",
        &RUN,
        Masked::Columns,
    );
}

#[test]
fn run_of_hook_modules() {
    for (name, arguments) in [
        (
            "run.hooks",
            "fixtures/modules/account/account.wasm fixtures/hooks/account",
        ),
        (
            "run.hooks-fault",
            "fixtures/modules/hooks/overreach.wat fixtures/hooks/bare",
        ),
    ] {
        formats(
            name,
            &format!("run {arguments} --timeout 20s"),
            &RUN,
            Masked::Columns,
        );
    }
}

#[test]
fn validate() {
    for (name, arguments) in [
        ("right", "fixtures/modules/rules/rules.wasm --body whole"),
        (
            "broken",
            "fixtures/modules/invalid/near-miss.wat fixtures/modules/hostile/counter.wat",
        ),
        (
            "warned",
            "fixtures/modules/hostile/leak.wat fixtures/modules/rules/rules-published-spelling.wasm",
        ),
        ("hooks", "fixtures/modules/account/account.wasm"),
        (
            "torture",
            "fixtures/modules/hooks/pass-through.wat --torture",
        ),
    ] {
        formats(
            &format!("validate.{name}"),
            &format!("validate {arguments} --timeout 20s"),
            &[
                "human", "json", "junit", "markdown", "html", "github", "sarif",
            ],
            Masked::Times,
        );
    }
}

const REPLAY: [&str; 7] = [
    "human", "json", "jsonl", "junit", "markdown", "html", "github",
];

#[test]
fn replay_beside_a_baseline() {
    formats(
        "replay.baseline",
        "replay --baseline fixtures/modules/rules/rules-published-spelling.wasm \
         fixtures/modules/rules/rules.wasm fixtures/captures/mitmproxy.har --no-timings \
         --timeout 20s",
        &REPLAY,
        Masked::Times,
    );
}

#[test]
fn replay_of_tests() {
    formats(
        "replay.tests",
        "replay fixtures/modules/right/allow.wat fixtures/captures/suite.yaml \
         fixtures/captures/nginx-access.log --limit 12 --no-timings --timeout 20s",
        &REPLAY,
        Masked::Times,
    );
}

#[test]
fn replay_meets_faults() {
    formats(
        "replay.fault",
        "replay fixtures/modules/hostile/trap-unreachable.wat fixtures/captures/chromium.har \
         --limit 2 --no-timings --timeout 20s",
        &REPLAY,
        Masked::Times,
    );
}

#[test]
fn replay_with_times() {
    formats(
        "replay.times",
        "replay fixtures/modules/rules/rules.wasm fixtures/captures/chromium.har --limit 1 \
         --timeout 20s",
        &REPLAY,
        Masked::Figures,
    );
}

#[test]
fn replay_of_shards() {
    let dir = TestDir::new();
    let mut merge = binary(["replay", "merge"]);
    for shard in ["1/2", "2/2"] {
        let done = run(&format!(
            "replay fixtures/modules/rules/rules.wasm fixtures/captures/recorded.jsonl \
             --shard {shard} --no-timings --timeout 20s --format json"
        ));
        merge.arg(dir.file(&format!("{}.json", &shard[..1]), &done.stdout));
    }
    let text = shown("replay merge 1.json 2.json", &finish(merge), Masked::Times);
    check("replay.merged.human", &text);
}

/// As short as can be; nothing that is compared hangs on how long.
const SHORT: &str = "-n 20 --warm-up 1ms --timeout 60s";

/// One measurement, written in every format at once.
fn bench(name: &str, command: &str, further: &str) {
    let dir = TestDir::new();
    let mut line = format!("bench {command} {further} {SHORT}");
    let files = ["json", "csv", "markdown", "html", "junit", "github"];
    for format in files {
        let path = dir.path(format);
        write!(line, " --report {format}={}", path.display()).unwrap();
    }
    let done = run(&line);
    let text = shown(&format!("bench {command}"), &done, Masked::Figures);
    check(&format!("bench.{name}.human"), &named(&text, further));
    for format in files {
        let text = std::fs::read_to_string(dir.path(format)).unwrap();
        let text = masked(&text, format, Masked::Figures);
        check(&format!("bench.{name}.{format}"), &named(&text, further));
    }
}

/// The path of the baseline is another at each run.
fn named(text: &str, further: &str) -> String {
    match further.split_whitespace().last() {
        Some(path) => text.replace(path, "baseline.json"),
        None => text.to_owned(),
    }
}

#[test]
fn bench_of_one_module() {
    bench(
        "measured",
        "fixtures/modules/rules/rules.wasm fixtures/events/requests/allow-page.json \
         fixtures/events/responses/hardened.json --pool-size 1 --concurrency 1 --p99 60s",
        "",
    );
}

/// Of another machine, whose times are not compared: a busy one would give
/// another verdict about them.
#[test]
fn bench_beside_a_baseline() {
    let dir = TestDir::new();
    let file = dir.path("baseline.json");
    run(&format!(
        "bench fixtures/modules/rules/rules-published-spelling.wasm \
         fixtures/events/requests/allow-page.json {SHORT} --save {}",
        file.display()
    ))
    .assert_code(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let text = replaced(&text, &[(r#"("processor": ?)"[^"]*""#, r#"$1"another""#)]);
    std::fs::write(&file, text).unwrap();
    bench(
        "compared",
        "fixtures/modules/rules/rules.wasm fixtures/events/requests/allow-page.json",
        &format!("--compare {}", file.display()),
    );
}

/// The verdict about times hangs on what else the machine does.
#[test]
fn bench_compares_times() {
    let command = "bench fixtures/modules/rules/rules.wasm fixtures/modules/rules/rules.wasm \
                   fixtures/events/requests/allow-page.json";
    let done = run(&format!("{command} {SHORT}"));
    let text = shown(command, &done, Masked::Figures);
    let text = replaced(
        &text,
        &[
            (r"(?m)^(time .*  )[a-z]+$", "${1}VERDICT"),
            (r"(?m)^Inconclusive: .*\n", ""),
            (r"(?m)^[a-z ]+: N regressed", "VERDICT: N regressed"),
            (r"# exit \d", "# exit N"),
        ],
    );
    check("bench.times.human", &text);
}

#[test]
fn bench_meets_a_fault() {
    let command = "bench fixtures/modules/hostile/trap-unreachable.wat \
                   fixtures/events/bare/request.json --pool-size 1";
    let done = run(command);
    check("bench.fault.human", &shown(command, &done, Masked::Figures));
}

/// What is refused before or while it is done.
#[test]
fn refusals() {
    for (name, command) in [
        ("no-command", ""),
        ("unknown-command", "rum"),
        ("unknown-flag", "run --quick a.wasm b.json"),
        ("bad-value", "run a.wasm b.json --timeout soon"),
        ("bad-format", "validate a.wasm --format sarf"),
        ("no-module", "run target/no-such.wasm fixtures/events/bare"),
        (
            "no-fixture",
            "run fixtures/modules/right/allow.wat target/no-such.json",
        ),
        (
            "not-wasm",
            "run fixtures/modules/invalid/not-wasm.wasm fixtures/events/bare",
        ),
        (
            "syntax-error",
            "run fixtures/modules/invalid/syntax-error.wat fixtures/events/bare",
        ),
        (
            "no-alloc",
            "run fixtures/modules/invalid/no-alloc.wat fixtures/events/bare",
        ),
        (
            "import-unknown",
            "bench fixtures/modules/invalid/import-unknown.wat",
        ),
        (
            "component",
            "replay fixtures/modules/invalid/component.wat fixtures/captures",
        ),
        ("validate-no-module", "validate target/no-such.wasm"),
        (
            "not-a-fixture",
            "run fixtures/modules/right/allow.wat Cargo.lock",
        ),
        (
            "bad-fixture",
            "run fixtures/modules/right/allow.wat fixtures/captures/envoy-tap.json",
        ),
        (
            "no-capture",
            "replay fixtures/modules/right/allow.wat target/no-such.har",
        ),
        (
            "not-a-capture",
            "replay fixtures/modules/right/allow.wat Cargo.lock",
        ),
        ("no-shard", "replay merge target/no-such.json"),
        ("not-a-shard", "replay merge fixtures/captures/chromium.har"),
        (
            "serve-broken",
            "serve --module fixtures/modules/invalid/no-alloc.wat --socket target/never.sock",
        ),
        (
            "serve-smoke",
            "serve --module fixtures/modules/hostile/trap-unreachable.wat --socket target/never.sock",
        ),
        (
            "serve-flags",
            "serve --module fixtures/modules/right/allow.wat --grpc-address nowhere",
        ),
        ("new-exists", "new fixtures/modules/rules"),
    ] {
        let done = run(command);
        assert_ne!(done.code, Some(0), "{command}");
        check(
            &format!("refused.{name}"),
            &shown(command, &done, Masked::Times),
        );
    }
}

/// A snapshot that no test reads any more says nothing.
#[test]
fn every_snapshot_is_of_a_format_or_a_command() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots");
    let source = include_str!("snapshots.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".new") {
            continue;
        }
        let mut parts = name.split('.');
        let (kind, case) = (parts.next().unwrap(), parts.next().unwrap());
        assert!(
            kind == "help" || source.contains(case),
            "{name} is no test's"
        );
    }
}
