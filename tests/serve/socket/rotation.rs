//! A recording whose file is moved, copied, deleted, full or cannot be written:
//! every line is whole and in one file, or counted as dropped.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ops::admin;
use crate::support::agent::{Agent, Client, command, request};
use crate::support::{binary, shipped};

const MODULE: &str = "right/allow.wat";
const WRITTEN: &str = r#"wasm_agent_records_total{result="written"}"#;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with the file of a recording, and the agent that writes it.
struct Recording {
    agent: Agent,
    file: PathBuf,
    folder: tempfile::TempDir,
}

impl Recording {
    fn start(args: &[&str]) -> Self {
        let served = tempfile::tempdir().unwrap();
        let command = command(MODULE, &served);
        Self::spawn(command, served, args)
    }

    /// With a soft limit on the size of files, which can be lifted again.
    fn limited(kib: u32) -> Self {
        let served = tempfile::tempdir().unwrap();
        let command = command(MODULE, &served);
        let mut limited = Command::new("bash");
        let script = format!("ulimit -S -f {kib}; exec \"$0\" \"$@\"");
        limited.args(["-c", &script]).arg(command.get_program());
        limited.args(command.get_args());
        Self::spawn(limited, served, &[])
    }

    fn spawn(mut command: Command, served: tempfile::TempDir, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.jsonl");
        command.args(["--timeout", "5s", "--log-format", "json"]);
        command.args(["--admin-address", "127.0.0.1:0", "--record"]);
        command.arg(&file).args(args);
        let agent = Agent::spawn(command, served);
        Self {
            agent,
            file,
            folder,
        }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn metric(&self, name: &str) -> u64 {
        metric(self.agent.address("admin"), name)
    }

    /// Ends the agent and says how many records it wrote and dropped.
    fn stop(mut self) -> (u64, u64, tempfile::TempDir) {
        self.agent.signal("TERM");
        let line = self.agent.wait_for_line("the recording is complete");
        assert_eq!(self.agent.wait().code(), Some(0));
        let line: Value = serde_json::from_str(&line).unwrap();
        let count = |name: &str| line[name].as_u64().unwrap();
        (count("written"), count("dropped"), self.folder)
    }
}

fn metric(address: SocketAddr, name: &str) -> u64 {
    format!("{}", admin::metrics(address)[name])
        .parse()
        .unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn ask(client: &mut Client, id: &str) {
    client.send(0x10, &request(id, "/"));
    client.answer();
}

/// The ids of the lines of a recording, all of which are whole.
fn ids(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    let id = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        line["id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

fn lines(file: &Path) -> u64 {
    ids(file).len() as u64
}

/// `replay` reads them all.
fn replays(files: &[PathBuf], records: u64) {
    let output = binary(["replay", "--strict", "--format", "json", "--timeout", "5s"])
        .arg(shipped(MODULE))
        .args(files)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "passed", "{report}");
    assert_eq!(report["records"]["transactions"], records, "{report}");
    assert_eq!(report["drift"]["categories"]["unchanged"], records);
}

/// Asks from four connections while something happens, and says how many events
/// each of them sent.
fn under_load(recording: &Recording, happens: impl FnOnce()) -> [u64; 4] {
    let (stop, all_sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = recording.agent.address("admin");
    let clients = [0, 1, 2, 3].map(|name| (name, recording.agent.connect_v2()));
    let send = |(name, mut client): (usize, Client)| {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            ask(&mut client, &format!("{name}-{sent}"));
            sent += 1;
            let all = all_sent.fetch_add(1, Ordering::Relaxed) + 1;
            // So many wait for the disk at most; nothing is dropped for them.
            if sent % 64 == 0 {
                until("they are written", || {
                    metric(address, WRITTEN) + 2_000 > all
                });
            }
        }
        sent
    };
    std::thread::scope(|scope| {
        let send = &send;
        let threads = clients.map(|client| scope.spawn(move || send(client)));
        // Also where it fails: nobody else would end the load.
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(happens));
        stop.store(true, Ordering::Relaxed);
        let sent = threads.map(|thread| thread.join().unwrap());
        happened.unwrap();
        sent
    })
}

#[test]
fn a_recording_that_is_moved_under_load_loses_no_line() {
    let module = tempfile::tempdir().unwrap();
    let copy = module.path().join("m.wat");
    fs::copy(shipped(MODULE), &copy).unwrap();
    let served = tempfile::tempdir().unwrap();
    let command = command(copy.to_str().unwrap(), &served);
    let recording = Recording::spawn(command, served, &[]);
    let file = &recording.file;
    let mut files: Vec<PathBuf> = (0..8)
        .map(|number| recording.beside(&format!("r.{number}")))
        .collect();
    let sent = under_load(&recording, || {
        for (number, moved) in files.iter().enumerate() {
            until("it is made anew", || {
                fs::metadata(file).is_ok_and(|file| file.len() > 0)
            });
            fs::rename(file, moved).unwrap();
            // Whether or not it is told, and whatever comes of the module.
            match number {
                0..3 => {}
                3..6 => recording.agent.signal("HUP"),
                _ => {
                    fs::write(&copy, "no module").unwrap();
                    recording.agent.signal("HUP");
                }
            }
        }
        until("it is made anew", || file.exists());
    });
    files.push(file.clone());
    let mode = fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (written, dropped, _folder) = recording.stop();
    let mut found: Vec<String> = files.iter().flat_map(|file| ids(file)).collect();
    let all = found.len() as u64;
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len() as u64, all, "no line is in two files");
    let sent: u64 = sent.iter().sum();
    assert_eq!((written, dropped), (all, 0));
    assert_eq!(sent, all);
    replays(&files, all);
}

/// What is in a deleted file is gone; what comes after it is all in the next.
#[test]
fn a_recording_that_is_deleted_under_load_goes_on_in_a_new_file() {
    let recording = Recording::start(&[]);
    let file = recording.file.clone();
    let sent = under_load(&recording, || {
        for _ in 0..5 {
            until("it is made anew", || {
                fs::metadata(&file).is_ok_and(|file| file.len() > 0)
            });
            fs::remove_file(&file).unwrap();
        }
        until("it is made anew", || file.exists());
    });
    let (written, dropped, _folder) = recording.stop();
    assert_eq!((written, dropped), (sent.iter().sum(), 0));
    let mut of_each: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for id in ids(&file) {
        let (name, number) = id.split_once('-').unwrap();
        let numbers = of_each.entry(name.parse().unwrap()).or_default();
        numbers.push(number.parse().unwrap());
    }
    for (name, numbers) in of_each {
        let rest: Vec<u64> = (numbers[0]..sent[name]).collect();
        assert_eq!(numbers, rest, "of connection {name}");
    }
}

/// Its size counts from its new end, and a recording that was full goes on.
#[test]
fn a_full_recording_goes_on_after_rotation() {
    let rotate = |file: &Path, old: &Path, is_copied: bool| {
        if is_copied {
            fs::copy(file, old).unwrap();
            let file = fs::File::options().write(true).open(file).unwrap();
            file.set_len(0).unwrap();
        } else {
            fs::rename(file, old).unwrap();
        }
    };
    for is_copied in [true, false] {
        let recording = Recording::start(&["--record-max-size", "5KB"]);
        let (file, old) = (&recording.file, recording.beside("old"));
        let mut client = recording.agent.connect_v2();
        for number in 0..40 {
            ask(&mut client, &format!("c{number}"));
        }
        recording.agent.wait_for_line("the recording is full");
        let full = r#"wasm_agent_recording_stopped{reason="full"}"#;
        assert_eq!(recording.metric(full), 1);
        let size = fs::metadata(file).unwrap().len();
        assert!((2_000..=5_000).contains(&size), "{size}");
        ask(&mut client, "dropped");
        rotate(file, &old, is_copied);
        until("it goes on", || recording.metric(full) == 0);
        for number in 0..3 {
            ask(&mut client, &format!("later-{number}"));
        }
        drop(client);
        let file = file.clone();
        let (written, dropped, _folder) = recording.stop();
        assert_eq!(ids(&file), ["later-0", "later-1", "later-2"]);
        assert_eq!(written, lines(&old) + 3);
        assert_eq!(written + dropped, 44);
    }
}

/// A limit on the size of files is as a full disk: it cuts a line in two.
#[test]
fn a_recording_goes_on_when_the_disk_has_room_again() {
    let recording = Recording::limited(64);
    let file = recording.file.clone();
    let mut client = recording.agent.connect_v2();
    let mut sent = 0;
    let mut large = |kind: u8, id: &str| {
        let mut message = json!({"correlation_id": id, "status": 200, "headers": {}});
        if kind == 0x10 {
            message = request(id, "/");
        }
        message["headers"]["x"] = json!(["y".repeat(3000)]);
        client.send(kind, &message);
        client.answer();
        sent += 1;
    };
    for number in 0..200 {
        large(0x10, &format!("c{number}"));
    }
    let line = recording
        .agent
        .wait_for_line("the recording cannot be written");
    assert!(line.contains(file.to_str().unwrap()), "{line}");
    assert!(line.contains("File too large"), "{line}");
    let stopped = r#"wasm_agent_recording_stopped{reason="error"}"#;
    assert_eq!(recording.metric(stopped), 1);
    let before = lines(&file);
    assert!(before > 10, "{before}");
    large(0x10, "torn");
    until("it is dropped", || {
        let dropped = recording.metric(r#"wasm_agent_records_total{result="dropped"}"#);
        dropped + before >= 201
    });
    let lifted = Command::new("prlimit")
        .arg("--pid")
        .arg(recording.agent.child.id().to_string())
        .arg("--fsize=unlimited:unlimited")
        .status()
        .unwrap();
    assert!(lifted.success());
    let mut number = 0;
    until("it goes on", || {
        large(0x10, &format!("later-{number}"));
        number += 1;
        recording.metric(stopped) == 0
    });
    large(0x10, "last");
    let line = recording
        .agent
        .wait_for_line("the recording can be written again");
    let line: Value = serde_json::from_str(&line).unwrap();
    let told = line["dropped"].as_u64().unwrap();
    drop(client);
    let (written, dropped, _folder) = recording.stop();
    assert_eq!(written + dropped, sent);
    assert_eq!(told, dropped, "all were dropped in this time");
    assert_eq!(written, lines(&file));
    assert!(ids(&file).contains(&"last".to_owned()));
    replays(&[file], written);
}

/// Whatever is put at the path is opened by the rules of the start; until then no
/// line is lost, nor written where nobody wanted it.
#[test]
fn a_moved_recording_goes_on_where_it_is_until_it_can_be_opened_anew() {
    let recording = Recording::start(&[]);
    let (file, old) = (recording.file.clone(), recording.beside("old"));
    let elsewhere = recording.beside("elsewhere");
    let mut client = recording.agent.connect_v2();
    for number in 0..3 {
        ask(&mut client, &format!("a{number}"));
    }
    until("they are written", || lines(&file) == 3);
    let link = recording.beside("link");
    symlink(&elsewhere, &link).unwrap();
    fs::hard_link(&file, &old).unwrap();
    fs::rename(&link, &file).unwrap();
    for number in 0..3 {
        ask(&mut client, &format!("b{number}"));
    }
    let line = recording.agent.wait_for_line("cannot be opened anew");
    assert!(line.contains("symbolic link"), "{line}");
    until("they are written", || lines(&old) == 6);
    fs::remove_file(&file).unwrap();
    recording
        .agent
        .wait_for_line("the recording was opened anew");
    ask(&mut client, "c");
    // A file that is no recording is not written to, though it is the same one.
    until("it is written", || lines(&file) == 1);
    fs::write(&file, "a list\n").unwrap();
    let line = recording
        .agent
        .wait_for_line("the recording cannot be written");
    assert!(line.contains("not a recording"), "{line}");
    ask(&mut client, "d");
    drop(client);
    let (written, dropped, _folder) = recording.stop();
    assert_eq!((written, dropped), (7, 1));
    assert_eq!(fs::read_to_string(&file).unwrap(), "a list\n");
    assert_eq!(lines(&old), 6);
    assert!(!elsewhere.exists());
}

#[test]
fn what_counts_as_written_is_in_the_file() {
    let mut recording = Recording::start(&[]);
    let mut client = recording.agent.connect_v2();
    let mut said = 0;
    let mut number = 0;
    until("some are written", || {
        ask(&mut client, &format!("c{number}"));
        number += 1;
        said = recording.metric(WRITTEN);
        said > 20
    });
    recording.agent.child.kill().unwrap();
    recording.agent.wait();
    assert!(lines(&recording.file) >= said, "{said}");
}
