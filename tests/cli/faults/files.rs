//! What a path leads to: pipes nobody writes to, devices without an end,
//! links, folders. Every command that opens a file, to read or to write.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Done, TestDir, binary, finish, shipped, tidy};

const FIXTURE: &str = r#"{"event":"request_headers","input":{"method":"GET","uri":"/"}}"#;
const RECORD: &str = r#"{"v":1,"id":"a","phase":"request_headers","input":{"method":"GET","uri":"/","headers":{}},"output":{"decision":"allow"}}"#;
/// Measures next to nothing.
const QUICK: [&str; 8] = [
    "-n",
    "20",
    "--warm-up",
    "1ms",
    "-c",
    "1",
    "--timeout",
    "20s",
];

fn pipe(dir: &TestDir, name: &str) -> PathBuf {
    let path = dir.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Each command that reads a file, with this one in its place.
fn readers(dir: &TestDir, path: &Path) -> Vec<(&'static str, Command)> {
    let module = shipped("right/allow.wat");
    let module = text(&module);
    let capture = dir.file("one.jsonl", RECORD);
    let (path, capture) = (text(path), text(&capture));
    let arguments: [(&str, Vec<&str>); 9] = [
        ("a module", vec!["validate", path, "-o", "json"]),
        ("a module", vec!["run", path, capture]),
        ("a fixture", vec!["run", module, path]),
        ("a capture", vec!["replay", module, path]),
        (
            "a module",
            vec!["replay", "--baseline", path, module, capture],
        ),
        ("a replay's report", vec!["replay", "merge", path]),
        ("a fixture", vec!["bench", module, path]),
        ("a baseline", vec!["bench", module, "--compare", path]),
        (
            "a capture",
            vec!["bench", module, path, "--input-format", "har"],
        ),
    ];
    arguments
        .into_iter()
        .map(|(what, arguments)| (what, binary(arguments)))
        .collect()
}

/// All at once, as most wait.
fn all(commands: Vec<(&'static str, Command)>) -> Vec<(&'static str, Done)> {
    std::thread::scope(|scope| {
        let running: Vec<_> = commands
            .into_iter()
            .map(|(what, command)| (what, scope.spawn(|| finish(command))))
            .collect();
        running
            .into_iter()
            .map(|(what, done)| (what, done.join().unwrap()))
            .collect()
    })
}

#[track_caller]
fn assert_refused(done: &Done, says: &[&str]) {
    done.assert_code(3);
    let told = done.text() + &done.stderr;
    // Tables break lines where they like.
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in says {
        assert!(told.contains(part), "no {part:?}: {told}");
    }
    assert!(done.peak_kib < 200 << 10, "{} KiB", done.peak_kib);
}

#[test]
fn i_01_a_device_without_an_end_is_read_by_nobody() {
    let dir = TestDir::new();
    let link = dir.path("link.json");
    symlink("/dev/urandom", &link).unwrap();
    for path in [Path::new("/dev/zero"), &link] {
        for (what, done) in all(readers(&dir, path)) {
            assert_refused(&done, &[text(path), what, "found a device"]);
        }
    }
}

#[test]
fn i_01_a_pipe_that_nobody_writes_to_is_given_up() {
    let dir = TestDir::new();
    let path = pipe(&dir, "pipe.json");
    for (what, done) in all(readers(&dir, &path)) {
        let says = if what == "a module" {
            "found a named pipe; copy its content to a file"
        } else {
            "start its writer first"
        };
        assert_refused(&done, &[text(&path), says]);
    }
}

#[test]
fn i_01_a_file_beyond_its_limit_is_not_read() {
    let dir = TestDir::new();
    let path = dir.sparse("huge.json", 1 << 40);
    let mut readers = readers(&dir, &path);
    // Captures may be of any size: they are never in memory as a whole.
    readers.retain(|(what, _)| *what != "a capture");
    for (_, done) in all(readers) {
        assert_refused(&done, &[text(&path), "at most"]);
    }
}

#[test]
fn i_01_what_lies_in_a_folder_and_is_no_file_is_named() {
    for kind in ["a named pipe", "a device", "a socket", "a directory"] {
        let dir = TestDir::new();
        dir.file("in/a.json", FIXTURE);
        let odd = dir.path("in/b.json");
        let _socket;
        match kind {
            "a named pipe" => drop(pipe(&dir, "in/b.json")),
            "a device" => symlink("/dev/zero", &odd).unwrap(),
            "a directory" => {
                dir.file("elsewhere/d.txt", "");
                symlink(dir.path("elsewhere"), &odd).unwrap();
            }
            _ => _socket = std::os::unix::net::UnixListener::bind(&odd).unwrap(),
        }
        let module = shipped("right/allow.wat");
        let folder = dir.path("in");
        let pattern = dir.path("in/*.json");
        for place in [&folder, &pattern] {
            for command in ["run", "bench"] {
                let done = finish(binary([command, text(&module), text(place)]));
                let fix = if kind == "a directory" {
                    "name a file in it"
                } else {
                    "remove it from the folder"
                };
                assert_refused(&done, &[text(&odd), kind, fix]);
            }
        }
        // What was never a capture's name is passed over, and nothing waits.
        let capture = dir.file("in/c.jsonl", RECORD);
        let done = finish(binary(["replay", text(&module), text(&folder)]));
        done.assert_calm();
        finish(binary(["replay", text(&module), text(&capture)])).assert_code(0);
    }
}

/// A shell's line with the binary as `$0` and its arguments.
fn shell(line: &str, arguments: &[&Path]) -> Done {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(line);
    shell.arg(env!("CARGO_BIN_EXE_wasm-agent")).args(arguments);
    tidy(&mut shell);
    finish(shell)
}

#[test]
fn i_01_a_pipe_that_the_user_named_is_read() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let fixture = dir.file("f.json", FIXTURE);
    let capture = dir.file("c.jsonl", RECORD);
    let waiting = pipe(&dir, "waiting");
    let reads = |line: &str, file: &Path| {
        let done = shell(line, &[&module, file, &waiting]);
        assert_eq!(done.code, Some(0), "{line}: {}{}", done.text(), done.stderr);
    };
    for named in ["/dev/stdin", "-"] {
        reads(&format!("cat \"$2\" | \"$0\" run \"$1\" {named}"), &fixture);
        reads(&format!("\"$0\" run \"$1\" {named} < \"$2\""), &fixture);
        reads(
            &format!("cat \"$2\" | \"$0\" replay \"$1\" {named}"),
            &capture,
        );
        reads(&format!("\"$0\" replay \"$1\" {named} < \"$2\""), &capture);
    }
    for line in [
        "\"$0\" run \"$1\" <(cat \"$2\")",
        "cat \"$2\" > \"$3\" & \"$0\" run \"$1\" \"$3\"",
        "(sleep 0.3; cat \"$2\") > \"$3\" & \"$0\" run \"$1\" \"$3\"",
        "\"$0\" bench \"$1\" <(cat \"$2\") -n 20 --warm-up 1ms -c 1 --timeout 20s",
    ] {
        reads(line, &fixture);
    }
    for line in [
        "\"$0\" replay \"$1\" <(cat \"$2\")",
        "\"$0\" replay \"$1\" <(gzip -c \"$2\")",
        "cat \"$2\" > \"$3\" & \"$0\" replay \"$1\" \"$3\"",
        "\"$0\" replay merge <(\"$0\" replay \"$1\" \"$2\" --shard 1/2 -o json) \
         <(\"$0\" replay \"$1\" \"$2\" --shard 2/2 -o json)",
    ] {
        reads(line, &capture);
    }
}

/// A link that lies where we choose the name, and what it leads to.
#[test]
fn i_01_what_a_link_in_a_folder_leads_to_stays_as_it_is() {
    let dir = TestDir::new();
    let (module, capture) = (shipped("right/deny.wat"), dir.file("c.jsonl", RECORD));
    let folder = dir.path("saved");
    let save = || {
        finish(binary([
            "replay",
            text(&module),
            text(&capture),
            "--save-fixture",
            text(&folder),
            "--fixtures",
            "all",
        ]))
    };
    save().assert_calm();
    let names = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let [saved] = &names()[..] else {
        panic!("{:?}", names())
    };
    let right = std::fs::read_to_string(saved).unwrap();
    let victim = dir.file("victim", "as it was");
    for leads_to in [&victim, &dir.path("nowhere")] {
        std::fs::remove_file(saved).unwrap();
        symlink(leads_to, saved).unwrap();
        save().assert_calm();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was");
        assert!(!dir.path("nowhere").exists());
        assert!(!saved.is_symlink());
        assert_eq!(std::fs::read_to_string(saved).unwrap(), right);
    }
    assert_eq!(names().len(), 1, "something was left behind");
    // A pipe in its place holds nobody up, and is not taken away.
    std::fs::remove_file(saved).unwrap();
    pipe(
        &dir,
        &format!("saved/{}", saved.file_name().unwrap().display()),
    );
    let done = save();
    done.assert_code(3);
    assert!(
        done.stderr.contains("found a named pipe"),
        "{}",
        done.stderr
    );
}

#[test]
fn i_01_an_update_goes_through_a_link_that_is_named_and_no_other() {
    let dir = TestDir::new();
    let module = shipped("right/deny.wat");
    let real = dir.file("real.json", FIXTURE);
    let other = dir.file("in/a.json", FIXTURE);
    let link = dir.path("in/b.json");
    symlink(&real, &link).unwrap();
    let update = |path: &Path| finish(binary(["run", text(&module), text(path), "--update"]));
    let done = update(&dir.path("in"));
    assert_refused(
        &done,
        &[text(&link), &format!("name {} itself", text(&real))],
    );
    for path in [&real, &other] {
        assert_eq!(std::fs::read_to_string(path).unwrap(), FIXTURE);
    }
    // As the message says.
    update(&real).assert_calm();
    assert!(std::fs::read_to_string(&real).unwrap().contains("expect"));
    std::fs::write(&real, FIXTURE).unwrap();
    update(&link).assert_calm();
    assert!(std::fs::read_to_string(&real).unwrap().contains("expect"));
    assert!(link.is_symlink());
}

/// Each flag that names a file to write, with this one.
fn writers(dir: &TestDir, path: &Path) -> Vec<(&'static str, Command)> {
    let module = shipped("right/allow.wat");
    let (fixture, capture) = (dir.file("one.json", FIXTURE), dir.file("one.jsonl", RECORD));
    let (module, path) = (text(&module), text(path));
    let (fixture, capture) = (text(&fixture), text(&capture));
    let json = format!("json={path}");
    let rows = format!("jsonl={path}");
    let quick = |flags: &[&str]| {
        let mut command = binary(["bench", module]);
        command.args(QUICK).args(flags);
        command
    };
    vec![
        (
            "report",
            binary(["run", module, fixture, "--report", &json]),
        ),
        ("report", binary(["validate", module, "--report", &json])),
        (
            "report",
            binary(["replay", module, capture, "--report", &json]),
        ),
        (
            "rows",
            binary(["replay", module, capture, "--report", &rows]),
        ),
        ("save", binary(["replay", module, capture, "--save", path])),
        ("save", quick(&["--save", path])),
        ("report", quick(&["--report", &json])),
    ]
}

#[test]
fn i_07_a_link_that_is_named_is_followed_and_a_file_keeps_its_mode() {
    let dir = TestDir::new();
    let real = dir.path("real");
    let link = dir.path("link");
    symlink(&real, &link).unwrap();
    for (what, command) in writers(&dir, &link) {
        std::fs::write(&real, "what was there before, which is longer").unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&real, mode).unwrap();
        finish(command).assert_code(0);
        assert!(link.is_symlink(), "{what}");
        let text = std::fs::read_to_string(&real).unwrap();
        assert!(
            text.starts_with('{') && text.ends_with("}\n"),
            "{what}: {text}"
        );
        let mode = std::fs::metadata(&real).unwrap().permissions().mode() & 0o777;
        // Recorded traffic is for its owner alone, whatever was there.
        let is_traffic = text.contains("\"v\":1");
        assert_eq!(mode, if is_traffic { 0o600 } else { 0o640 }, "{what}");
    }
    let hidden = std::fs::read_dir(dir.path("")).unwrap();
    let hidden = hidden.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(hidden.count(), 0, "something was left behind");
}

#[test]
fn i_07_what_cannot_be_written_is_refused_before_anything_starts() {
    let dir = TestDir::new();
    let unread = pipe(&dir, "unread");
    let folder = dir.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let link = dir.path("broken");
    symlink(dir.path("gone/for.good"), &link).unwrap();
    let nowhere = dir.path("no/such/folder.json");
    for path in [&unread, &folder, &link, &nowhere] {
        for (what, command) in writers(&dir, path) {
            let done = finish(command);
            done.assert_calm();
            let code = done.code.unwrap();
            assert!(matches!(code, 2 | 3), "{what} {path:?}: {done:?}");
            assert!(done.stderr.contains(text(path)), "{what}: {}", done.stderr);
            assert!(!done.stderr.contains("caused by: caused"), "{what}");
        }
        assert!(path == &nowhere || std::fs::symlink_metadata(path).is_ok());
    }
}

#[test]
fn i_07_reports_go_to_pipes_and_descriptors_that_are_named() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let fixture = dir.file("f.json", FIXTURE);
    let capture = dir.file("c.jsonl", RECORD);
    for line in [
        "\"$0\" run \"$1\" \"$2\" -o junit --report json=/dev/stdout",
        "\"$0\" run \"$1\" \"$2\" -o junit --report json=/dev/stderr 2>&1 >/dev/null",
        "\"$0\" run \"$1\" \"$2\" -o junit --report json=/dev/fd/5 5>&1 >/dev/null",
        "\"$0\" run \"$1\" \"$2\" -o junit --report json=>(cat) | cat",
        "\"$0\" replay \"$1\" \"$3\" -o junit --report json=/dev/stdout",
    ] {
        let done = shell(line, &[&module, &fixture, &capture]);
        assert_eq!(done.code, Some(0), "{line}: {}", done.stderr);
        assert!(
            done.text().contains("\"schema\": \"wasm-agent/"),
            "{line}: {done:?}"
        );
    }
    // A file that standard output leads to stays the one the shell opened.
    let done = shell(
        "{ \"$0\" run \"$1\" \"$2\" -o junit --report json=/dev/stdout; echo LAST; } > \"$3\"; cat \"$3\"",
        &[&module, &fixture, &dir.path("out")],
    );
    assert!(
        done.text().contains("\"schema\"") && done.text().contains("LAST"),
        "{done:?}"
    );
    let done = shell(
        "\"$0\" run \"$1\" \"$2\" --report json=/dev/null",
        &[&module, &fixture],
    );
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(!Path::new("/dev/null").is_file());
}

/// Whoever opened a descriptor chose the file: what is in it, its mode and what
/// is written after us stay.
#[test]
fn i_07_what_a_descriptor_leads_to_loses_nothing() {
    let dir = TestDir::new();
    let log = dir.path("log");
    let link = dir.path("link");
    symlink("/dev/stdout", &link).unwrap();
    let places = [
        ("/dev/stdout", 1),
        ("/dev/stderr", 2),
        ("/dev/fd/1", 1),
        ("/dev/fd/7", 7),
        ("/proc/self/fd/2", 2),
        ("/proc/thread-self/fd/7", 7),
        (text(&link), 1),
    ];
    for (place, number) in places {
        // All of them once; then one that knows its content before and one that
        // does not.
        let step = if place == "/dev/stdout" { 1 } else { 4 };
        for (what, command) in writers(&dir, Path::new(place)).into_iter().step_by(step) {
            // Opened to append, and to overwrite from where the shell stands.
            for redirect in [">>", ">"] {
                std::fs::write(&log, "").unwrap();
                let mode = std::fs::Permissions::from_mode(0o644);
                std::fs::set_permissions(&log, mode).unwrap();
                let others = match number {
                    1 => "2>/dev/null",
                    2 => ">/dev/null",
                    _ => ">/dev/null 2>&1",
                };
                let line = format!(
                    r#"{{ echo FIRST >&{number}; "$@" {others}; echo LAST >&{number}; }} {number}{redirect}"$0""#
                );
                let mut shell = Command::new("bash");
                shell.arg("-c").arg(line).arg(&log);
                shell.arg(command.get_program()).args(command.get_args());
                tidy(&mut shell);
                let done = finish(shell);
                let found = std::fs::read_to_string(&log).unwrap();
                let about = format!("{what} {place} {redirect}: {found} {done:?}");
                assert!(found.starts_with("FIRST\n"), "{about}");
                assert!(found.ends_with("\nLAST\n"), "{about}");
                assert!(found.contains("\n{"), "{about}");
                let mode = std::fs::metadata(&log).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o644, "{about}");
            }
        }
    }
}

/// The descriptor of another process belongs to others too.
#[test]
fn i_07_a_descriptor_of_another_process_loses_nothing() {
    let dir = TestDir::new();
    let log = dir.path("log");
    for (what, command) in writers(&dir, Path::new("/proc/PID/fd/7")) {
        std::fs::write(&log, "FIRST\n").unwrap();
        let mut shell = Command::new("bash");
        let line = r#"exec 7>>"$0"; "${@/PID/$$}"; true"#;
        shell.arg("-c").arg(line).arg(&log);
        shell.arg(command.get_program()).args(command.get_args());
        tidy(&mut shell);
        let done = finish(shell);
        let found = std::fs::read_to_string(&log).unwrap();
        let is_kept = found.starts_with("FIRST\n{") && found.ends_with("}\n");
        assert!(is_kept, "{what}: {found} {done:?}");
    }
}

#[test]
fn i_07_a_descriptor_that_cannot_be_written_to_is_refused() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let fixture = dir.file("f.json", FIXTURE);
    let there = dir.file("there", "what was there before");
    for (line, said) in [
        ("--report json=/dev/fd/7 7<\"$3\"", "open for reading only"),
        ("--report json=/dev/stdin <\"$3\"", "open for reading only"),
        ("--report json=/dev/fd/77", "/dev/fd/77"),
    ] {
        let line = format!("\"$0\" run \"$1\" \"$2\" {line}");
        let done = shell(&line, &[&module, &fixture, &there]);
        done.assert_calm();
        assert_eq!(done.code, Some(2), "{line}: {done:?}");
        assert!(done.stderr.contains(said), "{line}: {}", done.stderr);
    }
    let text = std::fs::read_to_string(&there).unwrap();
    assert_eq!(text, "what was there before");
}

/// A file of few bytes that becomes many.
#[test]
fn i_05_a_packed_capture_is_read_in_bounded_memory() {
    let dir = TestDir::new();
    let module = shipped("right/allow.wat");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(RECORD.as_bytes()).unwrap();
    packed.write_all(b"\n").unwrap();
    for _ in 0..400 {
        packed.write_all(&[b' '; 1 << 20]).unwrap();
    }
    let bytes = packed.finish().unwrap();
    for format in ["jsonl", "har", "envoy-tap", "gor", "ftw", "access-log"] {
        let path = dir.file("bomb.gz", &bytes);
        let done = finish(binary([
            "replay",
            text(&module),
            text(&path),
            "--input-format",
            format,
        ]));
        done.assert_calm();
        assert!(done.peak_kib < 400 << 10, "{format}: {} KiB", done.peak_kib);
    }
}
