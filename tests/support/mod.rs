//! The harness of the black-box tests: runs the built binary with a hard
//! timeout, watches its memory, starts agents and talks to them, and makes
//! guests whose answers a test picks.
//!
//! In: arguments, files and guests. Out: what the process did. Nothing here
//! judges; a hang is the one thing that fails by itself.

pub(crate) mod agent;
pub(crate) mod chain;
pub(crate) mod chain_report;
pub(crate) mod clock;
pub(crate) mod guests;
pub(crate) mod json_texts;
pub(crate) mod rules;
pub(crate) mod wasm;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A process that is still there after this hangs, however busy the machine.
const HANG: Duration = Duration::from_secs(180);
/// Ticks in a second of `/proc/PID/stat`, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// What a process did.
#[derive(Debug)]
pub(crate) struct Done {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// Peak resident memory in KiB, as of a few milliseconds before its end.
    pub(crate) peak_kib: u64,
    /// Processor time of all its threads, likewise; it does not hang on what
    /// else the machine does.
    pub(crate) cpu: Duration,
}

/// Where standard output or standard error of a process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Kept,
    /// `/dev/full`: every write fails with ENOSPC.
    Full,
    /// A pipe whose reader has gone, as with `| head`.
    ReaderGone,
}

/// Runs the binary with nothing on standard input.
pub(crate) fn wasm_agent<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Done {
    finish(binary(arguments))
}

/// The command, for tests that change its surroundings.
pub(crate) fn binary<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasm-agent"));
    command.args(arguments);
    tidy(&mut command);
    command
}

/// Takes away what would make a run differ from machine to machine.
pub(crate) fn tidy(command: &mut Command) {
    for variable in [
        "RUST_LOG",
        "RUST_BACKTRACE",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "CLICOLOR",
        "RUST_MIN_STACK",
        "WASMTIME_BACKTRACE_DETAILS",
        "AGENT_SOCKET",
        "FAIL_OPEN",
        "WASM_ADMIN_ADDRESS",
        "WASM_AGENT_REDACT_KEY",
        "WASM_GRPC_ADDRESS",
        "WASM_MODULE",
        "WASM_POOL_SIZE",
        "WASM_VERBOSE",
    ] {
        command.env_remove(variable);
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: Command) -> Done {
    finish_into(command, Sink::Kept, Sink::Kept)
}

/// The same, with its output led elsewhere.
pub(crate) fn finish_into(mut command: Command, stdout: Sink, stderr: Sink) -> Done {
    let lead = |sink| match sink {
        Sink::Full => Stdio::from(File::options().write(true).open("/dev/full").unwrap()),
        Sink::Kept | Sink::ReaderGone => Stdio::piped(),
    };
    command.stdin(Stdio::null());
    command.stdout(lead(stdout)).stderr(lead(stderr));
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let out = child.stdout.take().filter(|_| stdout == Sink::Kept);
    let err = child.stderr.take().filter(|_| stderr == Sink::Kept);
    let shown = format!("{command:?}");
    std::thread::scope(|scope| {
        let out = scope.spawn(|| drain(out));
        let err = scope.spawn(|| drain(err));
        let (code, peak_kib, cpu) = wait(&mut child, started, &shown);
        Done {
            code,
            stdout: out.join().unwrap(),
            stderr: String::from_utf8_lossy(&err.join().unwrap()).into_owned(),
            peak_kib,
            cpu,
        }
    })
}

fn drain(source: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut source) = source {
        source.read_to_end(&mut bytes).unwrap();
    }
    bytes
}

fn wait(child: &mut Child, started: Instant, shown: &str) -> (Option<i32>, u64, Duration) {
    let mut peak_kib = 0;
    let mut cpu = Duration::ZERO;
    loop {
        peak_kib = peak_kib.max(high_water_kib(child.id()));
        cpu = cpu.max(processor_time(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), peak_kib, cpu);
        }
        if started.elapsed() > HANG {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {HANG:?}: {shown}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// User and system time, the 14th and 15th field.
pub(crate) fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in brackets, which may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// The kernel's own high-water mark, so that a peak between two looks counts.
pub(crate) fn high_water_kib(process: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else {
        return 0;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The JSON report; fails where the process printed none.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.assert_calm();
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON report ({error}): {self:?}"))
    }

    /// Ended by itself, and not by a panic.
    #[track_caller]
    pub(crate) fn assert_calm(&self) {
        assert!(
            self.code.is_some_and(|code| code <= 5),
            "ended with {:?}: {}",
            self.code,
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        self.assert_calm();
        assert_eq!(self.code, Some(code), "{}{}", self.text(), self.stderr);
    }
}

/// A folder of its own for the files of one test.
pub(crate) struct TestDir {
    folder: tempfile::TempDir,
}

impl TestDir {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A file of zeros that takes no room.
    pub(crate) fn sparse(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"\0asm\x01\0\0\0").unwrap();
        file.set_len(size).unwrap();
        path
    }

    /// A plain request, the same for every test that does not care.
    pub(crate) fn request(&self) -> PathBuf {
        self.file("request.json", r#"{"method":"GET","uri":"/"}"#)
    }

    /// A request that carries a header.
    pub(crate) fn request_with(&self, name: &str, header: &str) -> PathBuf {
        self.file(
            name,
            format!(r#"{{"method":"GET","uri":"/","headers":{{{header:?}:"1"}}}}"#),
        )
    }

    /// One fixture with `count` equal requests, in order, on one exchange.
    pub(crate) fn requests(&self, name: &str, count: usize) -> PathBuf {
        let step = r#"{"event":"request_headers","input":{"method":"GET","uri":"/"}}"#;
        let steps = vec![step; count].join(",");
        self.file(name, format!(r#"{{"steps":[{steps}]}}"#))
    }
}

/// Runs `run MODULE FIXTURE... FLAG... --format json`.
pub(crate) fn run(module: &Path, fixtures: &[&Path], flags: &[&str]) -> Done {
    finish(run_command(module, fixtures, flags))
}

/// The command of [`run`].
pub(crate) fn run_command(module: &Path, fixtures: &[&Path], flags: &[&str]) -> Command {
    let mut command = binary(["run", "--format", "json"]);
    command.arg(module).args(fixtures).args(flags);
    command
}

/// What is shipped at this path in `fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// A shipped module.
pub(crate) fn shipped(name: &str) -> PathBuf {
    fixture("modules").join(name)
}

/// A shipped capture.
pub(crate) fn capture(name: &str) -> PathBuf {
    fixture("captures").join(name)
}

/// Every step of a report in order, fixture after fixture.
pub(crate) fn steps(report: &Value) -> Vec<Step> {
    report["fixtures"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|fixture| fixture["steps"].as_array().unwrap())
        .map(|step| Step(step.clone()))
        .collect()
}

/// What came of one event.
#[derive(Debug, Clone)]
pub(crate) struct Step(pub(crate) Value);

impl Step {
    pub(crate) fn response(&self) -> &Value {
        &self.0["response"]
    }

    /// `allow`, `block`, `redirect` or `challenge`.
    #[track_caller]
    pub(crate) fn decision(&self) -> &str {
        match &self.response()["decision"] {
            Value::String(word) => word,
            Value::Object(object) => object.keys().next().unwrap(),
            other => panic!("no decision but {other}: {self:?}"),
        }
    }

    /// The status of a block or redirect.
    pub(crate) fn status(&self) -> Option<u64> {
        self.response()["decision"][self.decision()]["status"].as_u64()
    }

    pub(crate) fn fault(&self) -> Option<&str> {
        self.0["fault"]["code"].as_str()
    }

    pub(crate) fn tags(&self) -> Vec<&str> {
        strings(&self.response()["audit"]["tags"])
    }

    pub(crate) fn reasons(&self) -> Vec<&str> {
        strings(&self.response()["audit"]["reason_codes"])
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_nanos(self.0["time_ns"].as_u64().unwrap())
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.0["memory_bytes"].as_u64().unwrap()
    }

    /// What docs/contract.md, Failure policy, promises of a fault without a refusal.
    #[track_caller]
    pub(crate) fn assert_fault(&self, code: &str, fail_open: bool) {
        assert_eq!(self.fault(), Some(code), "{self:?}");
        assert_eq!(self.reasons(), [code], "{self:?}");
        if fail_open {
            assert_eq!(self.decision(), "allow", "{self:?}");
            assert_eq!(self.tags(), ["wasm-error", "fail-open"], "{self:?}");
        } else {
            assert_eq!(
                self.response()["decision"],
                serde_json::json!({"block": {"status": 500, "body": "Wasm Error"}}),
                "{self:?}"
            );
            assert_eq!(self.tags(), ["wasm-error"], "{self:?}");
        }
    }

    #[track_caller]
    pub(crate) fn assert_allowed(&self) {
        assert_eq!(self.fault(), None, "{self:?}");
        assert_eq!(self.decision(), "allow", "{self:?}");
    }
}

/// Fail-closed never allows because something went wrong, and what fail-open
/// allows is marked.
#[track_caller]
pub(crate) fn assert_faulty(step: &Step, codes: &[&str], fail_open: bool) {
    let code = step.fault().unwrap_or("no fault").to_owned();
    assert!(codes.contains(&code.as_str()), "{codes:?}: {step:?}");
    step.assert_fault(&code, fail_open);
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap();
    list.iter().map(|item| item.as_str().unwrap()).collect()
}

/// Both failure modes: whether it is open, and the flags for it.
pub(crate) const MODES: [(bool, &[&str]); 2] = [(false, &[]), (true, &["--fail-open"])];

/// A seeded generator (`SplitMix64`), so that a failure can be repeated.
pub(crate) struct Random(u64);

impl Random {
    /// Says its seed, which a failing test then shows.
    pub(crate) fn seeded(what: &str, seed: u64) -> Self {
        println!("{what}: seed {seed:#x}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}
