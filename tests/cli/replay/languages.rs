//! One policy in six languages, replayed on the very exchanges that `run` and
//! `serve` hold it to.

use std::path::PathBuf;

use serde_json::Value;

use super::{record, rows};
use crate::support::{TestDir, fixture, shipped};

fn fixtures() -> Vec<(String, Vec<Value>)> {
    let folder = fixture("policy");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let fixture: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let steps = match fixture["steps"].as_array() {
                Some(steps) => steps.clone(),
                None => vec![fixture],
            };
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, steps)
        })
        .collect()
}

#[test]
fn one_policy_decides_alike_in_every_language() {
    let dir = TestDir::new();
    let fixtures = fixtures();
    let lines: Vec<String> = fixtures
        .iter()
        .flat_map(|(name, steps)| steps.iter().map(move |step| record(name, step)))
        .collect();
    dir.file("capture.jsonl", lines.join("\n"));
    let capture = dir.path("capture.jsonl");
    for policy in [
        "wat/policy.wat",
        "rust/policy.wasm",
        "c/policy.wasm",
        "zig/policy.wasm",
        "assemblyscript/policy.wasm",
        "go/policy.wasm",
    ] {
        let flags = ["--strict", "--max-compile-time", "5m"];
        let rows = rows(&shipped(policy), &[&capture], &flags);
        assert_eq!(rows.len(), fixtures.len(), "{policy}");
        for (name, steps) in &fixtures {
            // What the fixture expects of its last step that is not allowed,
            // else of all of them.
            let expected = steps
                .iter()
                .map(|step| &step["expect"])
                .find(|expect| expect["decision"] != "allow")
                .map_or_else(
                    || "allow".to_owned(),
                    |expect| format!("block {}", expect["status"].as_u64().unwrap_or(403)),
                );
            let row = rows.iter().find(|row| row["id"] == name.as_str()).unwrap();
            assert_eq!(row["module"]["decision"], expected, "{policy}: {name}");
        }
        let blocked = rows
            .iter()
            .filter(|row| row["module"]["decision"] != "allow");
        assert_eq!(blocked.count(), 4, "{policy}");
    }
}
