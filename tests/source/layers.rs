//! The layers of the source: the table in the crate's documentation, held against
//! what each part uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that only some files or folders below `src` use.
const CRATES: [(&str, &[&str]); 6] = [
    ("wasmtime", &["guest"]),
    ("wasmparser", &["guest"]),
    ("clap", &["cli", "main.rs"]),
    ("comfy_table", &["cli", "main.rs"]),
    ("hyper", &["server", "client"]),
    ("prost", &["protocol", "server", "client"]),
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
    let text = text.split("\n#[cfg(test)]").next().unwrap().to_owned();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rows of the table in the crate's documentation, the lowest first.
fn layers(src: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(src.join("lib.rs")).unwrap();
    let rows: Vec<Vec<String>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .map(|row| {
            let parts = row.split('|').next().unwrap();
            let words = parts.split(['`', ' ']).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        })
        .collect();
    assert!(rows.len() > 5, "{rows:?}");
    rows
}

/// The part that a file belongs to: the first folder, or the file itself.
fn part_of(file: &Path, src: &Path) -> String {
    let path = file.strip_prefix(src).unwrap();
    let first = path.components().next().unwrap().as_os_str();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn is_test(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_str().unwrap();
    name == "tests.rs" || name.ends_with("_tests.rs")
}

/// Which parts each part names as `crate::part`.
fn uses(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources(src) {
        let part = part_of(&file, src);
        if is_test(&file) || part == "lib" || part == "main" {
            continue;
        }
        let code = code(&file);
        let mut named: BTreeSet<String> = ["crate::", "wasm_agent_kit::"]
            .into_iter()
            .flat_map(|root| code.split(root).skip(1))
            .map(|rest| {
                let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
                rest[..end.unwrap_or(rest.len())].to_owned()
            })
            .collect();
        named.remove(&part);
        uses.entry(part).or_default().extend(named);
    }
    uses
}

#[test]
fn parts_use_only_what_stands_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers = layers(&src);
    let row = |part: &str| layers.iter().position(|row| row.iter().any(|p| p == part));
    let uses = uses(&src);
    let mut wrong = Vec::new();
    for (part, used) in &uses {
        let Some(own) = row(part) else {
            wrong.push(format!("{part} is in no row of the table"));
            continue;
        };
        for other in used.iter().filter(|other| uses.contains_key(*other)) {
            if row(other).is_none_or(|row| row > own) {
                wrong.push(format!("{part} uses {other}, which stands above it"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    for part in layers.iter().flatten() {
        assert!(uses.contains_key(part), "the table names {part}");
    }
}

#[test]
fn no_two_parts_use_each_other() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut left = uses(&src);
    // Parts that use nothing that is left are taken away until none is.
    loop {
        let parts: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, used| used.iter().any(|other| parts.contains(other)));
        if left.len() == before {
            break;
        }
    }
    assert_eq!(left.keys().collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn a_crate_is_used_where_it_belongs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (name, places) in CRATES {
        for file in sources(&src) {
            let path = file.strip_prefix(&src).unwrap();
            if places.iter().any(|place| path.starts_with(place)) || is_test(&file) {
                continue;
            }
            if code(&file).contains(&format!("{name}::")) {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The clock of the wall jumps, so it dates things and times nothing.
#[test]
fn only_dates_are_taken_from_the_wall_clock() {
    const DATED: [&str; 5] = [
        "cli/render/bench/profile.rs",
        "guest/wasi/context.rs",
        "server/metrics/mod.rs",
        "server/record.rs",
        "server/sessions.rs",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let uses: Vec<String> = sources(&src)
        .iter()
        .filter(|file| code(file).contains("SystemTime::now"))
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
