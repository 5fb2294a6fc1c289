//! Which room may open the door to which: `use` lines against the table in the
//! crate's documentation. It fails loudly where a layer is skipped.

use std::fs;
use std::path::{Path, PathBuf};

/// Files or folders below `src`, and what must not be used in them.
const CLOSED: [(&[&str], &[&str]); 10] = [
    (
        &[
            "event.rs",
            "response.rs",
            "fault.rs",
            "limits.rs",
            "report.rs",
            "latency.rs",
        ],
        &["crate::", "wasmtime", "clap", "tokio"],
    ),
    (
        &["policy/decision.rs"],
        &[
            "wasmtime",
            "crate::guest",
            "crate::policy",
            "std::time",
            "clap",
        ],
    ),
    (
        &[
            "abi.rs",
            "question.rs",
            "guest/convention/json_buffer/answer.rs",
            "guest/convention/json_buffer/answer",
            "guest/convention/json_buffer/event.rs",
            "guest/convention/json_buffer/hook.rs",
            "guest/inspect.rs",
            "guest/contract.rs",
            "guest/contract",
            "hook.rs",
            "proxy.rs",
            "guest/wasi/catalog.rs",
        ],
        &["wasmtime", "clap", "crate::ops", "std::fs"],
    ),
    (
        &[
            "guest/engine.rs",
            "guest/module.rs",
            "guest/instance.rs",
            "guest/host.rs",
            "policy/pool.rs",
            "guest/wasi",
        ],
        &[
            "clap",
            "crate::ops",
            "crate::fixture",
            "crate::decision",
            "serde_json",
        ],
    ),
    (
        &["policy"],
        &[
            "wasmtime",
            "clap",
            "crate::ops",
            "crate::fixture",
            "std::fs",
        ],
    ),
    (
        &["capture"],
        &[
            "wasmtime",
            "clap",
            "crate::ops",
            "crate::policy",
            "crate::server",
            "crate::guest",
        ],
    ),
    (
        &["fixture", "ops"],
        &["wasmtime", "clap", "comfy_table", "anstyle", "anstream"],
    ),
    (
        &["server"],
        &["wasmtime", "clap", "crate::ops", "crate::fixture"],
    ),
    (
        &["client"],
        &[
            "wasmtime",
            "clap",
            "crate::policy",
            "crate::guest",
            "crate::ops",
            "crate::fixture",
        ],
    ),
    (&["cli", "main.rs"], &["wasmtime", "wasmparser"]),
];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut files: Vec<PathBuf> = fs::read_dir(path)
        .unwrap()
        .flat_map(|entry| sources(&entry.unwrap().path()))
        .collect();
    files.sort();
    files
}

/// The code of a file: without comments and without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn no_room_opens_a_closed_door() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut opened = Vec::new();
    for (rooms, closed) in CLOSED {
        for room in rooms {
            let files = sources(&src.join(room));
            assert!(!files.is_empty(), "{room}");
            for file in files {
                let code = code(&file);
                for door in closed {
                    if code.lines().any(|line| {
                        let line = line.trim_start();
                        (line.starts_with("use ") || line.starts_with("pub use "))
                            && line.contains(door)
                            || line.contains(&format!("{door}::")) && !door.ends_with("::")
                    }) {
                        opened.push(format!("{} uses {door}", file.display()));
                    }
                }
            }
        }
    }
    assert_eq!(opened, Vec::<String>::new());
}

/// The clock of the wall jumps, so it dates things and times nothing.
#[test]
fn only_dates_are_taken_from_the_wall_clock() {
    const DATED: [&str; 5] = [
        "cli/render/bench/profile.rs",
        "guest/wasi/context.rs",
        "server/members.rs",
        "server/metrics/mod.rs",
        "server/record.rs",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let uses: Vec<String> = sources(&src)
        .iter()
        .filter(|file| code(file).contains("SystemTime"))
        .map(|file| file.strip_prefix(&src).unwrap().display().to_string())
        .collect();
    assert_eq!(uses, DATED);
}

#[test]
fn every_file_opens_with_where_you_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "benches"] {
        for file in sources(&root.join(folder)) {
            if file.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&file).unwrap();
                assert!(text.starts_with("//!"), "{}", file.display());
            }
        }
    }
}
