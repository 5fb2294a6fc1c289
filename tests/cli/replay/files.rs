//! Files and folders: what a folder holds is read or named, and what is no
//! capture is named as what it is.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::verdict::listens;
use super::{command, replay, report};
use crate::support::{Done, TestDir, run, shipped};

fn log(path: &str) -> String {
    format!(
        "203.0.113.7 - - [12/Jul/2026:00:00:00 +0000] \"GET {path} HTTP/1.1\" 200 10 \"-\" \"curl/8\"\n"
    )
}

fn packed(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

/// The names of the files that were read, in their order.
fn names(done: &Done) -> Vec<String> {
    let report = done.json();
    let captures = report["captures"].as_array().unwrap();
    let file = |capture: &serde_json::Value| capture["file"].as_str().unwrap().to_owned();
    let name = |file: String| file.rsplit('/').next().unwrap().to_owned();
    captures.iter().map(file).map(name).collect()
}

#[test]
fn rotated_logs_are_read_in_the_order_of_their_numbers() {
    let dir = TestDir::new();
    let wanted = [
        "access.log",
        "access.log-20260712",
        "access.log.2.gz",
        "access.log.10.GZ",
        "access_log",
        "access_log.1",
        "b_2.log",
        "b_10.log",
    ];
    for name in wanted {
        let is_packed = name.to_lowercase().ends_with(".gz");
        let text = log(&format!("/{name}"));
        let bytes = if is_packed {
            packed(&text)
        } else {
            text.into_bytes()
        };
        dir.file(&format!("in/{name}"), bytes);
    }
    for name in ["in/.hidden.log", "in/.git/a.log", "in/notes.md"] {
        dir.file(name, log("/no"));
    }
    let allow = shipped("right/allow.wat");
    let done = replay(&allow, &[&dir.path("in")], &["--format", "json"]);
    assert_eq!(names(&done), wanted);
    for (name, why) in [
        (".hidden.log", "is hidden"),
        (".git", "is hidden"),
        ("notes.md", "does not have the name"),
    ] {
        let said = |line: &str| line.contains(name) && line.contains(why);
        assert!(done.stderr.lines().any(said), "{name}: {}", done.stderr);
    }
}

#[test]
fn links_are_followed_once_and_never_in_a_circle() {
    let dir = TestDir::new();
    dir.file("in/z.log", log("/z"));
    dir.file("out/other.log", log("/other"));
    dir.file("out/deep/c.log", log("/c"));
    symlink(dir.path("in/z.log"), dir.path("in/latest.log")).unwrap();
    symlink(dir.path("out/other.log"), dir.path("in/b.log")).unwrap();
    symlink(dir.path("out/deep"), dir.path("in/linked")).unwrap();
    symlink(dir.path("in"), dir.path("in/circle")).unwrap();
    symlink(dir.path("nowhere"), dir.path("in/broken.log")).unwrap();
    let allow = shipped("right/allow.wat");
    let done = replay(&allow, &[&dir.path("in")], &["--format", "json"]);
    assert_eq!(names(&done), ["b.log", "c.log", "z.log"]);
    for name in ["latest.log", "circle", "broken.log"] {
        assert!(done.stderr.contains(name), "{name}: {}", done.stderr);
    }
}

#[test]
fn what_is_packed_or_written_otherwise_is_named_as_what_it_is() {
    let dir = TestDir::new();
    let wide = |big: bool| -> Vec<u8> {
        let units = log("/a").into_bytes().into_iter();
        units
            .flat_map(|byte| if big { [0, byte] } else { [byte, 0] })
            .collect()
    };
    for (name, bytes, word) in [
        ("a.log.zst", b"\x28\xb5\x2f\xfd\x04".to_vec(), "zstd"),
        ("a.log.bz2", b"BZh91AY&SY".to_vec(), "bzip2"),
        ("a.log.xz", b"\xfd7zXZ\0\0\x04".to_vec(), "xz is not read"),
        ("a.log.lz4", b"\x04\x22\x4d\x18d@".to_vec(), "lz4"),
        ("a.log.zip", b"PK\x03\x04\x14\0".to_vec(), "zip"),
        ("a.log.7z", b"7z\xbc\xaf\x27\x1c\0".to_vec(), "7z"),
        ("a.log.br", b"\x0b\x02\x80abc\x03".to_vec(), "brotli"),
        ("b.log", wide(false), "UTF-16LE"),
        ("c.log", wide(true), "UTF-16BE"),
        (
            "d.log",
            [b"\xff\xfe\0\0".as_slice(), b"1\0\0\0"].concat(),
            "UTF-32",
        ),
        (
            "e.json",
            b"{\"event\":\"request_headers\",\"input\":{}}".to_vec(),
            "wasm-agent run",
        ),
    ] {
        dir.file(&format!("{name}.d/{name}"), bytes);
        let report = report(
            &shipped("right/allow.wat"),
            &[&dir.path(&format!("{name}.d"))],
            &[],
        );
        let why = report["unusable"][0]["why"]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {report}"));
        assert!(why.contains(word), "{name}: {why}");
    }
}

#[test]
fn run_names_captures_as_such_and_takes_a_mark() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    for (name, text) in [
        ("a.har", super::har(1, |_| false)),
        ("a.log", log("/a")),
        ("b.log", "{\"method\":\"GET\",\"uri\":\"/\"}\n".repeat(2)),
    ] {
        let done = run(&allow, &[&dir.file(name, text)], &[]);
        let text = done.text() + &done.stderr;
        assert!(text.contains("wasm-agent replay"), "{name}: {text}");
    }
    let marked = dir.file("m.json", "\u{feff}{\"method\":\"GET\",\"uri\":\"/\"}");
    run(&allow, &[&marked], &[]).assert_code(0);
}

/// Bytes that do not fit their checksum, and all behind them, are named, however
/// small the file is.
#[test]
fn damaged_gzip_is_never_passed_over() {
    let dir = TestDir::new();
    let text = log("/a").repeat(3);
    let whole = packed(&text);
    let mut sum = whole.clone();
    let at = sum.len() - 8;
    sum[at] ^= 0xff;
    let cut = whole[..whole.len() - 4].to_vec();
    let big = packed(&log("/a").repeat(5_000));
    let mut big_sum = big.clone();
    let at = big_sum.len() - 8;
    big_sum[at] ^= 0xff;
    for (name, bytes, read) in [
        ("sum", [sum, whole.clone()].concat(), 3),
        ("cut", cut, 3),
        ("behind", [whole.clone(), b"garbage".to_vec()].concat(), 3),
        ("big", [big_sum, whole].concat(), 5_000),
    ] {
        let path = dir.file(&format!("{name}.log.gz"), bytes);
        let report = report(&shipped("right/allow.wat"), &[&path], &[]);
        assert_eq!(report["records"]["transactions"], read, "{name}: {report}");
        assert_eq!(report["records"]["unusable"], 1, "{name}: {report}");
    }
    // An error within the first line, of which nothing can be told.
    let path = dir.file("first.log.gz", &packed(&log("/a"))[..30]);
    let report = report(&shipped("right/allow.wat"), &[&path], &[]);
    let why = report["unusable"].to_string();
    assert!(why.contains("compressed data"), "{report}");
}

/// Samples and shards take files apart, wherever their folder lies.
#[test]
fn files_are_sampled_and_dealt_apart() {
    let dir = TestDir::new();
    for copy in ["one", "two"] {
        for number in 0..120 {
            dir.file(
                &format!("{copy}/h{number}/access.log"),
                log(&format!("/{number}")),
            );
        }
    }
    let allow = shipped("right/allow.wat");
    let taken = |copy: &str, flags: &[&str]| {
        let rows = super::rows(&allow, &[&dir.path(copy)], flags);
        let request = |row: &serde_json::Value| row["request"].as_str().unwrap().to_owned();
        rows.iter().map(request).collect::<Vec<String>>()
    };
    let half = taken("one", &["--sample-rate", "0.5"]);
    assert!((30..=90).contains(&half.len()), "{}", half.len());
    assert_eq!(half, taken("two", &["--sample-rate", "0.5"]));
    let mut all = Vec::new();
    for shard in ["1/4", "2/4", "3/4", "4/4"] {
        let part = taken("one", &["--shard", shard]);
        assert!((10..=60).contains(&part.len()), "{shard}: {}", part.len());
        all.extend(part);
    }
    assert_eq!(all.len(), 120);
}

/// A pipe that gives nothing more does not keep a replay that is to end.
#[test]
fn a_signal_ends_a_replay_of_an_idle_pipe() {
    let begun = |text: &str| {
        let mut command = command(&shipped("right/allow.wat"), &[Path::new("-")]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(text.as_bytes()).unwrap();
        (child, pipe)
    };
    for text in ["", &log("/a"), "\x1f\u{8b}"] {
        let (mut child, pipe) = begun(text);
        let began = Instant::now();
        let wait_until = |child: &mut Child, is_so: fn(&mut Child) -> bool| {
            while !is_so(child) {
                assert!(began.elapsed().as_secs() < 60, "{text:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait_until(&mut child, |child| listens(child.id()));
        let mut kill = Command::new("kill");
        kill.args(["-INT", &child.id().to_string()]);
        assert!(kill.status().unwrap().success());
        wait_until(&mut child, |child| child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(5), "{text:?}");
        drop(pipe);
    }
}
