//! The fuzz targets on their seeds, with the stable compiler: whole, cut off
//! anywhere, and with each byte damaged once. What fuzzing finds is added to
//! the seeds, so it cannot come back unseen.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a crate of its own where it is fuzzed")]
mod targets;

/// Places in a seed where it is cut and damaged; more would take minutes.
const PLACES: usize = 100;
/// Of a seed that is only read whole.
const LARGE: usize = 16 << 10;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect();
    files.sort();
    files
}

fn names(folder: &str, extension: &str) -> BTreeSet<String> {
    files(&root().join(folder))
        .iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn run(name: &str) {
    let (_, body, more) = targets::TARGETS
        .iter()
        .find(|(target, ..)| *target == name)
        .unwrap();
    let own = format!("fuzz/seeds/{name}");
    let folders = std::iter::once(own.as_str()).chain(more.iter().copied());
    let seeds: Vec<PathBuf> = folders
        .flat_map(|folder| files(&root().join(folder)))
        .collect();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for seed in seeds {
        let bytes = fs::read(&seed).unwrap();
        let guard = Named(&seed);
        body(&bytes);
        if bytes.len() <= LARGE {
            for place in (0..bytes.len()).step_by(bytes.len() / PLACES + 1) {
                body(&bytes[..place]);
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << (place % 8);
                body(&damaged);
            }
        }
        std::mem::forget(guard);
    }
}

/// Says which seed it was, where a target panics.
struct Named<'a>(&'a Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("the seed was {}", self.0.display());
    }
}

macro_rules! seeds {
    ($($name:ident)*) => {
        /// What is run below.
        const RUN: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*
    };
}

seeds! {
    answer baseline capture client event_json event_msgpack fixture frame grpc
    handshake hook_result module redact settings
}

/// No target is without its file, its place in the package and its seeds.
#[test]
fn every_target_is_whole() {
    let known: BTreeSet<String> = targets::TARGETS
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    assert_eq!(known, names("fuzz/fuzz_targets", "rs"));
    assert_eq!(known, RUN.iter().map(|name| (*name).to_owned()).collect());
    let package = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for name in &known {
        assert!(
            package.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let target = root().join(format!("fuzz/fuzz_targets/{name}.rs"));
        let calls = format!("wasm_agent_fuzz::{name}(bytes)");
        assert!(
            fs::read_to_string(target).unwrap().contains(&calls),
            "{name}"
        );
    }
    let folders: BTreeSet<String> = fs::read_dir(root().join("fuzz/seeds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(known, folders);
}
