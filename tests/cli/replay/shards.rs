//! `replay merge`: shards are joined to one run, and only those of one replay.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{har, replay};
use crate::support::{Done, TestDir, binary, finish, shipped};

/// Writes a shard's report.
fn shard(module: &Path, capture: &Path, report: &Path, flags: &[&str]) -> PathBuf {
    let target = format!("json={}", report.display());
    let flags = [flags, &["--report", &target]].concat();
    replay(module, &[capture], &flags).assert_calm();
    report.to_owned()
}

fn merge(shards: &[&Path], flags: &[&str]) -> Done {
    let mut merge = binary(["replay", "merge"]);
    merge.args(shards).args(flags);
    finish(merge)
}

#[track_caller]
fn assert_refused(shards: &[&Path], words: &str) {
    let done = merge(shards, &[]);
    done.assert_code(3);
    assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
}

#[test]
fn shards_are_joined_only_where_they_belong_together() {
    let dir = TestDir::new();
    let har = dir.file("traffic.har", har(50, |_| false));
    let allow = shipped("right/allow.wat");
    let first = shard(&allow, &har, &dir.path("1.json"), &["--shard", "1/2"]);
    let second = ["--shard", "2/2"];
    let other =
        |name: &str, module: &Path, flags: &[&str]| shard(module, &har, &dir.path(name), flags);
    let deny = shipped("right/deny.wat");
    assert_refused(
        &[&first, &other("deny.json", &deny, &second)],
        "module differs: sha256:",
    );
    assert_refused(&[&first, &other("whole.json", &allow, &[])], "whole replay");
    assert_refused(
        &[&first, &other("three.json", &allow, &["--shard", "2/3"])],
        "number of shards differs: 3 here, 2 in ",
    );
    let twice = merge(&[&first, &first], &[]);
    twice.assert_code(2);
    assert!(
        twice.stderr.contains("1/2 is there twice"),
        "{}",
        twice.stderr
    );
    let missing = merge(&[&first], &[]);
    missing.assert_code(2);
    assert!(
        missing.stderr.contains("2/2 is missing"),
        "{}",
        missing.stderr
    );
    merge(&[&first, &other("2.json", &allow, &second)], &[]).assert_code(0);
}

#[test]
fn shards_of_other_settings_are_refused_by_name() {
    let dir = TestDir::new();
    let har = dir.file("traffic.har", har(50, |_| false));
    let allow = shipped("right/allow.wat");
    let deny = shipped("right/deny.wat");
    let of = |name: &str, flags: &[&str]| shard(&allow, &har, &dir.path(name), flags);
    let first = of("1.json", &["--shard", "1/2"]);
    let baseline = ["--baseline", deny.to_str().unwrap()];
    for (flags, words) in [
        (&baseline[..], "baseline differs: sha256:"),
        (
            &["--fail-on", "never"],
            "--fail-on differs: never here, decision in ",
        ),
        (&["--strict"], "--strict differs: true here, false in "),
        (&["--limit", "9"], "--limit differs: 9 here, none in "),
        (
            &["--sample-rate", "0.5"],
            "--sample-rate differs: 0.5 here, none in ",
        ),
        (
            &["--match", "method=GET"],
            "--match differs: method=GET here, none in ",
        ),
        (
            &["--ignore", "/audit"],
            "--ignore differs: /audit here, none in ",
        ),
        (
            &["--fuel", "1000000"],
            "--fuel differs: 1000000 here, none in ",
        ),
        (&["--max-memory", "32MiB"], "--max-memory differs: "),
        (&["--max-answer", "1KiB"], "--max-answer differs: "),
        (
            &["--isolation", "fresh"],
            "--isolation differs: fresh here, pooled in ",
        ),
        (&["--fail-open"], "--fail-open differs: "),
        (
            &["--allow-header", "host"],
            "--allow-header differs: host here, none in ",
        ),
        (
            &["--header-names", "canonical"],
            "--header-names differs: canonical here, lower in ",
        ),
        (
            &["--client-ip", "192.0.2.77"],
            "--client-ip differs: 192.0.2.77 here",
        ),
        (
            &["--max-errors", "5"],
            "--max-errors differs: 5 here, none in ",
        ),
        (&["--examples", "1"], "--examples differs: 1 here, 3 in "),
        (&["--minimize"], "--minimize differs: yes here, none in "),
    ] {
        let flags = [&["--shard", "2/2"], flags].concat();
        assert_refused(&[&first, &of("2.json", &flags)], words);
    }
    let seeded = |name: &str, index: &str, seed: &str| {
        of(
            name,
            &["--shard", index, "--sample-rate", "0.5", "--seed", seed],
        )
    };
    assert_refused(
        &[
            &seeded("s1.json", "1/2", "1"),
            &seeded("s2.json", "2/2", "2"),
        ],
        "--seed differs: 2 here, 1 in ",
    );
}

#[test]
fn shards_of_captures_with_one_name_are_told_apart() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let capture = dir.path("traffic.har");
    let text = har(50, |_| false);
    let with = |text: &str, index: &str, flags: &[&str]| {
        std::fs::write(&capture, text).unwrap();
        let flags = [&["--shard", index], flags].concat();
        let name = format!("{}.json", index.replace('/', "-"));
        shard(&allow, &capture, &dir.path(&name), &flags)
    };
    // Shorter, longer, and of the same size with another byte.
    for other in [
        har(49, |_| false),
        har(51, |_| false),
        text.replacen("/items/7?", "/items/8?", 1),
        text.replacen("browser/49", "browser/94", 1),
    ] {
        let (first, second) = (with(&text, "1/2", &[]), with(&other, "2/2", &[]));
        assert_refused(&[&first, &second], "content of ");
    }
    // What no shard reads is no difference.
    let limit = ["--limit", "20"];
    let other = text.replacen("browser/49", "browser/94", 1);
    let (first, second) = (with(&text, "1/2", &limit), with(&other, "2/2", &limit));
    merge(&[&first, &second], &[]).assert_code(0);
    // Whatever a shard's own records are, and however it is packed.
    let (first, second) = (with(&text, "1/2", &[]), with(&text, "2/2", &[]));
    merge(&[&first, &second], &[]).assert_code(0);
}

#[test]
fn an_interrupted_shard_makes_no_whole() {
    let dir = TestDir::new();
    let har = dir.file("traffic.har", har(50, |_| false));
    let allow = shipped("right/allow.wat");
    let parts = ["1/2", "2/2"].map(|index| {
        let name = format!("{}.json", &index[..1]);
        shard(&allow, &har, &dir.path(&name), &["--shard", index])
    });
    let change = |path: &Path, change: &dyn Fn(&mut Value)| {
        let mut report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        change(&mut report);
        std::fs::write(path, report.to_string()).unwrap();
    };
    // As if it had ended within its last capture.
    change(&parts[1], &|report| {
        report["interrupted"] = true.into();
        report["capture_digests"][0] = "sha256:other".into();
    });
    let shards = [parts[0].as_path(), parts[1].as_path()];
    let done = merge(&shards, &["-o", "json"]);
    done.assert_code(5);
    let merged = done.json();
    assert_eq!(merged["interrupted"], true);
    assert_eq!(merged["verdict"], "inconclusive");
    assert_eq!(merged["capture_digests"], Value::Null);
    // A capture that it had read before is known.
    change(&parts[1], &|report| {
        let second = report["captures"][0].clone();
        report["captures"].as_array_mut().unwrap().push(second);
        report["capture_digests"]
            .as_array_mut()
            .unwrap()
            .push("sha256:rest".into());
    });
    assert_refused(&shards, "content of ");
    // Reports from before there were hashes.
    change(&parts[1], &|report| {
        report.as_object_mut().unwrap().remove("capture_digests");
    });
    assert_refused(&shards, "an older version wrote this report");
    change(&parts[1], &|report| report["shard"]["index"] = 3.into());
    assert_refused(&shards, "expected a shard's report");
}

/// What fails may be said anew of the whole.
#[test]
fn a_merge_is_judged_by_its_own_flag() {
    let dir = TestDir::new();
    let har = dir.file("traffic.har", har(50, |_| false));
    let trap = shipped("hostile/trap-unreachable.wat");
    let parts = ["1/2", "2/2"].map(|index| {
        let name = format!("{}.json", &index[..1]);
        let flags = ["--shard", index, "--fail-on", "never"];
        shard(&trap, &har, &dir.path(&name), &flags)
    });
    let shards = [parts[0].as_path(), parts[1].as_path()];
    for (flags, expected) in [
        (&[][..], 0),
        (&["--fail-on", "fault"], 1),
        (&["--fail-on", "99%"], 1),
        (&["--fail-on", "100%"], 0),
    ] {
        let done = merge(&shards, &[flags, &["-o", "junit"]].concat());
        done.assert_code(expected);
        assert_eq!(
            done.text().contains("<error"),
            expected == 1,
            "{}",
            done.text()
        );
    }
}
