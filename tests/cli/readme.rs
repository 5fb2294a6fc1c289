//! The README is true: its commands are run and their output is compared. What
//! documents and comments refer to is there.
//!
//! In a `console` block a line that begins with `$ ` is a command, the lines
//! after it are what it prints; `# exit N` after them is its exit code, 0
//! where nothing is said. Times differ from run to run and are not compared.
//! `README_BLESS=1 cargo test --test cli readme::` writes the output anew.
//!
//! A `console varies` block is of measurements: the command runs and exits as
//! it says, and what holds no digit (titles, headings, words) is compared. Its
//! figures stay as they were written, by an optimised build.

use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

/// A command, what it is said to print, and how it is said to exit.
struct Example {
    command: String,
    printed: String,
    code: i32,
}

fn examples(block: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example {
                command: command.to_owned(),
                printed: String::new(),
                code: 0,
            });
        } else if let Some(example) = examples.last_mut() {
            if let Some(code) = line.strip_prefix("# exit ") {
                example.code = code.parse().unwrap();
            } else {
                example.printed.push_str(line);
                example.printed.push('\n');
            }
        }
    }
    examples
}

fn run(command: &str) -> (String, i32) {
    let binary = env!("CARGO_BIN_EXE_wasm-agent");
    let line = command
        .replace("cargo run --release --", binary)
        .replace("wasm-agent ", &format!("{binary} "));
    let output = Command::new("sh")
        .args(["-c", &format!("{line} 2>&1")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    (text.join("\n"), output.status.code().unwrap())
}

/// Times as `TIME`, and one space for many, since a time sets a column's width.
fn comparable(text: &str) -> String {
    let time = Regex::new(r"\d+(\.\d+)? (µs|ms|s)\b").unwrap();
    let text = time.replace_all(text.trim(), "TIME");
    let space = Regex::new(r"[ ─]+").unwrap();
    let lines: Vec<String> = text
        .lines()
        .map(|line| space.replace_all(line, " ").trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// What is left of a measurement's output from one run to the next.
fn shape(text: &str) -> String {
    let lines: Vec<String> = comparable(text)
        .lines()
        .filter(|line| !line.contains(|char: char| char.is_ascii_digit()) && !line.contains("TIME"))
        .filter(|line| !line.starts_with("note: this is a debug build"))
        // What stood between two of them may have been figures.
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    lines.join("\n")
}

#[test]
fn every_command_of_the_readme_prints_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let bless = std::env::var_os("README_BLESS").is_some();
    let mut anew = String::new();
    let mut checked = 0;
    for (index, part) in readme.split("```").enumerate() {
        if index > 0 {
            anew.push_str("```");
        }
        let (varies, block) = match (part.strip_prefix("console"), index % 2) {
            (Some(rest), 1) => match (rest.strip_prefix('\n'), rest.strip_prefix(" varies\n")) {
                (Some(block), _) => (false, block),
                (None, Some(block)) => (true, block),
                (None, None) => panic!("an unknown kind of block: console{}", &rest[..20]),
            },
            _ => {
                anew.push_str(part);
                continue;
            }
        };
        anew.push_str(if varies {
            "console varies\n"
        } else {
            "console\n"
        });
        for example in examples(block) {
            let (printed, code) = run(&example.command);
            checked += 1;
            anew.push_str(&format!("$ {}\n", example.command));
            if varies {
                anew.push_str(&example.printed);
            } else if !printed.is_empty() {
                anew.push_str(&format!("{printed}\n"));
            }
            if code != 0 {
                anew.push_str(&format!("# exit {code}\n"));
            }
            if !bless {
                let comparable = if varies { shape } else { comparable };
                assert_eq!(
                    comparable(&printed),
                    comparable(&example.printed),
                    "$ {}",
                    example.command
                );
                assert_eq!(code, example.code, "$ {}", example.command);
            }
        }
    }
    assert!(checked >= 4, "only {checked} commands found");
    if bless {
        std::fs::write(&path, anew).unwrap();
    }
}

#[test]
fn the_readme_names_the_two_commands_of_a_newcomer() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let first = readme
        .find("cargo run --release -- run fixtures/modules/rules/rules.wasm")
        .unwrap();
    let second = readme.find("cargo test").unwrap();
    assert!(first < second);
}

/// A comment may say "docs/contract.md, Answers", and a document may link.
#[test]
fn headings_and_files_that_are_referred_to_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let cited = Regex::new(r"(docs/[a-z]+\.md), ([A-Z][A-Za-z ]+)").unwrap();
    // Comments are wrapped anywhere.
    let wrapped = Regex::new(r"\n *(//[/!]?|;;|#) ").unwrap();
    let mut citations = 0;
    for folder in ["src", "tests", "fixtures"] {
        for file in walkdir::WalkDir::new(root.join(folder)) {
            let file = file.unwrap().into_path();
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            let text = wrapped.replace_all(&text, " ");
            for citation in cited.captures_iter(&text) {
                let document = read(&citation[1]);
                let mut headings = document.lines().filter_map(|line| line.strip_prefix("## "));
                assert!(
                    headings.any(|heading| citation[2].starts_with(heading)),
                    "{}: {}",
                    file.display(),
                    &citation[0]
                );
                citations += 1;
            }
        }
    }
    assert!(citations > 50, "only {citations} found");
    let link = Regex::new(r"\]\(([^)#:]+)(#[^)]*)?\)").unwrap();
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/contract.md",
        "docs/protocol.md",
        "docs/faults.md",
        "fixtures/README.md",
        "deploy/README.md",
    ] {
        let folder = root.join(document);
        let folder = folder.parent().unwrap();
        for link in link.captures_iter(&read(document)) {
            assert!(folder.join(&link[1]).exists(), "{document}: {}", &link[1]);
        }
    }
}
