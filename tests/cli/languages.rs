//! One policy in every language: the same decisions, traps that speak, and
//! starters whose committed builds are the very files that `new` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{Step, TestDir, binary, finish, fixture, run, shipped, steps, wasm_agent};

/// Languages that `new` knows, with what their tools write and print.
const LANGUAGES: [&str; 5] = ["rust", "c", "zig", "assemblyscript", "go"];

fn policies() -> Vec<PathBuf> {
    let built = LANGUAGES.map(|language| shipped(&format!("{language}/policy.wasm")));
    [shipped("wat/policy.wat")]
        .into_iter()
        .chain(built)
        .collect()
}

fn fixtures() -> PathBuf {
    fixture("policy")
}

/// A good guest on a busy machine is no runaway.
const PATIENT: [&str; 4] = ["--timeout", "10s", "--max-compile-time", "5m"];

#[test]
fn one_policy_decides_alike_in_every_language() {
    let mut first: Option<Vec<Value>> = None;
    for policy in policies() {
        let done = run(&policy, &[&fixtures()], &PATIENT);
        done.assert_code(0);
        let report = done.json();
        let responses: Vec<Value> = steps(&report)
            .iter()
            .map(|step| step.response().clone())
            .collect();
        assert!(responses.len() >= 14, "{responses:#?}");
        let first = first.get_or_insert_with(|| responses.clone());
        // Not only what the fixtures expect: all of the answer.
        assert_eq!(*first, responses, "{}", policy.display());
    }
}

#[test]
fn every_language_passes_validation_and_each_import_is_explained() {
    for policy in policies() {
        let path = policy.to_str().unwrap();
        let done = wasm_agent(
            ["validate", "--format", "json", path]
                .iter()
                .chain(&PATIENT),
        );
        let report = done.json();
        let module = &report["modules"][0];
        let checks = module["checks"].as_array().unwrap();
        let bad: Vec<&Value> = checks
            .iter()
            .filter(|check| check["status"] == "fail")
            .collect();
        assert!(bad.is_empty(), "{path}: {bad:#?}");
        assert_eq!(done.code, Some(0));
        for check in checks {
            let id = check["id"].as_str().unwrap();
            let found = check["found"].as_str().unwrap();
            if id.starts_with("import:") {
                assert!(found.contains(", stubbed: "), "{path}: {check}");
            }
        }
    }
}

/// The fault of a language's guest that panics on a header.
fn panic_of(language: &str) -> (Step, Step) {
    let dir = TestDir::new();
    let request = |header: &str| {
        format!(r#"{{"method":"GET","uri":"/","headers":{{{header}"host":"example.com"}}}}"#)
    };
    dir.file("events/0.json", request(r#""x-panic":"short","#));
    dir.file("events/1.json", request(""));
    let module = shipped(&format!("{language}/panics.wasm"));
    let report = run(&module, &[&dir.path("events")], &PATIENT).json();
    let mut steps = steps(&report);
    let after = steps.remove(1);
    (steps.remove(0), after)
}

#[test]
fn traps_speak_in_every_language() {
    for (language, code, said, place) in [
        (
            "rust",
            "trap:unreachable",
            "the token is too short: 5",
            "src/lib.rs:19",
        ),
        (
            "c",
            "trap:unreachable",
            "the token is too short",
            "policy.c:6",
        ),
        (
            "zig",
            "trap:unreachable",
            "the token is too short",
            "policy.zig:12",
        ),
        (
            "assemblyscript",
            "trap:abort",
            "the token is too short",
            "assembly/policy.ts:12",
        ),
        (
            "go",
            "trap:unreachable",
            "panic: the token is too short",
            "policy.go:36",
        ),
    ] {
        let (step, after) = panic_of(language);
        step.assert_fault(code, false);
        let fault = &step.0["fault"];
        let detail = fault["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{language}: {detail}");
        // In its own words, or in the stack.
        assert!(fault.to_string().contains(place), "{language}: {fault:#}");
        // AssemblyScript's optimiser leaves no function of its own for it.
        let names = fault.to_string().to_lowercase().replace('_', "");
        assert!(
            names.contains("checktoken") || language == "assemblyscript",
            "{language}: {fault:#}"
        );
        after.assert_allowed();
        assert_eq!(after.tags(), ["fine"], "{language}");
    }
}

/// Every file below a folder, by its path in it.
fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

/// A starter in a folder of its own, and the commands that were printed.
fn starter(dir: &TestDir, language: &str) -> (PathBuf, Vec<String>) {
    let folder = dir.path(&format!("my {language}"));
    let done = wasm_agent(["new", folder.to_str().unwrap(), "--lang", language]);
    done.assert_code(0);
    let text = done.text();
    let (_, next) = text.split_once("next:\n").unwrap();
    let commands: Vec<String> = next.lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(commands.len(), 3, "{text}");
    (folder, commands)
}

#[test]
fn the_printed_commands_work_on_the_committed_build_of_the_same_files() {
    for language in LANGUAGES {
        let dir = TestDir::new();
        let (folder, commands) = starter(&dir, language);
        // Building needs the toolchain: `just languages` does it. What was
        // built was built from these very files.
        let mut hash = Sha256::new();
        for (name, bytes) in files_in(&folder) {
            let is_common = name.starts_with("fixtures/") || name.starts_with('.');
            if !is_common && name != "README.md" {
                hash.update(bytes);
            }
        }
        let built = std::fs::read_to_string(shipped(&format!("{language}/built-from"))).unwrap();
        let hash = hash.finalize();
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            digits,
            built.trim(),
            "{language} was changed and not rebuilt: `just languages --keep`"
        );
        assert!(commands[0].starts_with("sh "), "{commands:?}");
        let module = folder.join("policy.wasm");
        std::fs::copy(shipped(&format!("{language}/policy.wasm")), module).unwrap();
        let agent = env!("CARGO_BIN_EXE_wasm-agent");
        for command in &commands[1..] {
            let command = command.replacen("wasm-agent", agent, 1);
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &format!("{command} {}", PATIENT.join(" "))]);
            crate::support::tidy(&mut shell);
            finish(shell).assert_code(0);
        }
    }
}

#[test]
fn new_never_overwrites() {
    let dir = TestDir::new();
    let (folder, _) = starter(&dir, "c");
    dir.file("my c/policy.c", "mine");
    let before = files_in(&folder);
    for language in LANGUAGES {
        let done = wasm_agent(["new", folder.to_str().unwrap(), "--lang", language]);
        done.assert_code(2);
        assert!(done.stderr.contains("already"), "{}", done.stderr);
        assert!(done.stdout.is_empty());
        assert_eq!(files_in(&folder), before, "{language}");
    }
    // What is not in the way may be there.
    dir.file("other/notes.txt", "mine");
    let other = dir.path("other");
    wasm_agent(["new", other.to_str().unwrap()]).assert_code(0);
    assert_eq!(files_in(&other)["notes.txt"], b"mine");
}

#[test]
fn new_says_what_stands_in_its_way() {
    let dir = TestDir::new();
    let file = dir.file("file", "x");
    let done = wasm_agent(["new", file.join("below").to_str().unwrap()]);
    done.assert_code(3);
    assert!(done.stderr.contains("cannot write"), "{}", done.stderr);
    // A link that leads nowhere is something that is there.
    let folder = dir.path("linked");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.join("build.sh")).unwrap();
    wasm_agent(["new", folder.to_str().unwrap()]).assert_code(2);
    assert!(finish(binary(["new"])).code == Some(2));
    let done = wasm_agent(["new", dir.path("x").to_str().unwrap(), "--lang", "cobol"]);
    done.assert_code(2);
    assert!(done.stderr.contains("assemblyscript"), "{}", done.stderr);
}

#[test]
fn a_starters_files_are_fit_to_be_used() {
    use std::os::unix::fs::PermissionsExt as _;
    for language in LANGUAGES {
        let dir = TestDir::new();
        let (folder, _) = starter(&dir, language);
        let script = std::fs::metadata(folder.join("build.sh")).unwrap();
        assert!(script.permissions().mode() & 0o100 != 0, "{language}");
        let files = files_in(&folder);
        let ci = String::from_utf8(files[".github/workflows/policy.yml"].clone()).unwrap();
        for command in ["validate", "run", "bench"] {
            assert!(
                ci.contains(&format!("wasm-agent {command} ")),
                "{language}: {ci}"
            );
        }
        assert!(ci.contains("--compare"), "{ci}");
        // What an author edits packs no pointers and writes no JSON.
        let policy = [
            "src/lib.rs",
            "policy.c",
            "policy.zig",
            "assembly/policy.ts",
            "policy.go",
        ]
        .iter()
        .find_map(|name| files.get(*name))
        .unwrap();
        let policy = String::from_utf8(policy.clone()).unwrap();
        for word in [
            "unsafe",
            "<< 32",
            "<<32",
            "{\\\"",
            "intFromPtr",
            "changetype",
            "malloc",
        ] {
            assert!(!policy.contains(word), "{language}: {word}");
        }
    }
}
