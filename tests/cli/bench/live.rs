//! A running agent, measured from outside by every protocol.

use std::path::Path;

use super::{PATIENT, cases, findings};
use crate::support::agent::Agent;
use crate::support::guests::{ALLOW, guest};
use crate::support::{Done, TestDir, binary, finish, shipped};

/// An agent on this module, with all the time it may need.
pub(crate) fn serving(module: &Path, flags: &[&str]) -> Agent {
    let patient = [&PATIENT[..], &["--queue-wait", "60s"], flags].concat();
    Agent::start(module.to_str().unwrap(), &patient)
}

/// The address of its Unix socket, as `--target` takes it.
pub(crate) fn unix(agent: &Agent) -> String {
    format!("unix:{}", agent.socket().display())
}

const LIVE: [&str; 9] = [
    "bench",
    "--format",
    "json",
    "--duration",
    "60ms",
    "--warm-up",
    "10ms",
    "--concurrency",
    "1,6",
];

fn live(fixtures: &Path, flags: &[&str]) -> Done {
    let mut command = binary(LIVE);
    command.arg(fixtures).args(flags);
    finish(command)
}

/// The shipped rules on a Unix socket and over gRPC, with both addresses.
fn serving_rules() -> (Agent, [String; 2]) {
    let flags = ["--grpc-address", "127.0.0.1:0", "--log-format", "json"];
    let agent = serving(&shipped("rules/rules.wasm"), &flags);
    let addresses = [unix(&agent), format!("grpc://{}", agent.address("grpc"))];
    (agent, addresses)
}

#[test]
fn a_running_agent_is_measured_by_every_protocol() {
    let dir = TestDir::new();
    let (agent, [unix, over_http]) = serving_rules();
    let fixtures = dir.path("events");
    dir.file("events/admin.json", r#"{"method":"GET","uri":"/admin"}"#);
    dir.file(
        "events/exchange.json",
        r#"{"steps":[{"event":"request_headers","input":{"method":"POST","uri":"/a"}},
            {"event":"request_body","input":{"data":"a=1"}}]}"#,
    );
    let pid = agent.child.id().to_string();
    for flags in [
        &["--target", &unix, "--protocol", "v1"][..],
        &["--target", &unix],
        &["--target", &over_http],
        &["--target", &unix, "--pid", &pid],
        &["--target", &unix, "--rate", "300"],
        &[
            "--target",
            &over_http,
            "--rate",
            "300",
            "--connections",
            "2",
        ],
    ] {
        let done = live(&fixtures, flags);
        done.assert_code(0);
        let report = done.json();
        let decisions: Vec<(&str, &str)> = cases(&report)
            .iter()
            .map(|case| {
                assert!(case["response"]["count"].as_u64().unwrap() > 0, "{case}");
                (
                    case["name"].as_str().unwrap(),
                    case["decision"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            decisions,
            [
                ("admin", "block"),
                ("exchange [1]", "allow"),
                ("exchange [2]", "allow")
            ],
            "{flags:?}"
        );
        let loads = report["loads"].as_array().unwrap();
        assert_eq!(loads.len(), 2, "{flags:?}");
        for load in loads {
            assert!(load["response"]["count"].as_u64().unwrap() > 0, "{load}");
            let by_schedule = flags.contains(&"--rate");
            assert_eq!(load["service"].is_object(), by_schedule, "{load}");
            let counted = flags.contains(&"--pid");
            assert_eq!(load["process"].is_object(), counted, "{load}");
        }
    }
}

#[test]
fn a_running_agent_has_a_gate_too() {
    let dir = TestDir::new();
    let agent = serving(&shipped("right/allow.wat"), &[]);
    let request = dir.request();
    let unix = unix(&agent);
    let kept = dir.path("kept.json");
    let kept = kept.to_str().unwrap();
    live(&request, &["--target", &unix, "--save", kept]).assert_code(0);
    let done = live(&request, &["--target", &unix, "--compare", kept]);
    let report = done.json();
    let time = findings(&report, "time");
    assert_eq!(time.len(), 1, "{report}");
    // Two runs of one agent: whatever it says, it says it of time alone.
    assert!(findings(&report, "fuel_warm").is_empty());
    assert_eq!(time[0]["case"], "request");
    let v1 = live(
        &request,
        &["--target", &unix, "--protocol", "v1", "--compare", kept],
    );
    v1.assert_code(2);
    assert!(
        v1.stderr.contains("protocol was v2, is v1"),
        "{}",
        v1.stderr
    );
}

/// Two events of one id, as a proxy asks about them.
const EXCHANGE: &str = r#"{"steps":[
    {"event":"request_headers","input":{"method":"POST","uri":"/a"}},
    {"event":"request_body","input":{"data":"a=1"}}]}"#;

#[test]
fn so_many_events_are_asked_and_no_more() {
    let dir = TestDir::new();
    let (agent, [unix, over_http]) = serving_rules();
    let fixture = dir.file("exchange.json", EXCHANGE);
    let pid = agent.child.id().to_string();
    for flags in [
        &["--target", &unix, "--protocol", "v1"][..],
        &["--target", &unix, "--pid", &pid],
        &["--target", &unix, "--connections", "6"],
        &["--target", &over_http],
    ] {
        let mut command = binary(["bench", "--format", "json", "-n", "101"]);
        command.args(["--concurrency", "1,6"]).arg(&fixture);
        command.args(flags);
        let done = finish(command);
        done.assert_code(0);
        let report = done.json();
        assert_eq!(report["settings"]["requests"], "101");
        for case in cases(&report) {
            assert_eq!(case["response"]["count"], 101, "{flags:?}: {case}");
        }
        let loads = report["loads"].as_array().unwrap();
        assert_eq!(loads.len(), 2);
        for load in loads {
            assert_eq!(load["response"]["count"], 101, "{flags:?}: {load}");
            let counted = flags.contains(&"--pid");
            assert_eq!(load["process"].is_object(), counted, "{load}");
        }
    }
    // By schedule the rate is that of events, and each exchange has two.
    let mut command = binary(["bench", "--format", "json", "-n", "100"]);
    command
        .args(["--rate", "1000", "--warm-up", "1ms"])
        .arg(&fixture);
    command.args(["--target", &unix]);
    let report = finish(command).json();
    assert_eq!(report["loads"][0]["response"]["count"], 100, "{report}");
}

#[test]
fn each_event_of_an_exchange_is_judged_for_itself() {
    let dir = TestDir::new();
    let agent = serving(&shipped("rules/rules.wasm"), &[]);
    let fixture = dir.file("exchange.json", EXCHANGE);
    let unix = unix(&agent);
    let kept = dir.path("kept.json");
    let kept = kept.to_str().unwrap();
    live(&fixture, &["--target", &unix, "--save", kept]).assert_code(0);
    let report = live(&fixture, &["--target", &unix, "--compare", kept]).json();
    let judged: Vec<&str> = findings(&report, "time")
        .iter()
        .map(|finding| finding["case"].as_str().unwrap())
        .collect();
    assert_eq!(judged, ["exchange [1]", "exchange [2]"]);
    assert_eq!(report["comparison"]["not_compared"], serde_json::json!([]));
}

#[test]
fn an_agent_that_fails_is_a_failure_and_none_is_an_error() {
    let dir = TestDir::new();
    let request = dir.request();
    let nobody = format!("unix:{}", dir.path("none.sock").display());
    let done = live(&request, &["--target", &nobody]);
    done.assert_code(3);
    assert!(done.stderr.contains("cannot connect"), "{}", done.stderr);
    let done = live(&request, &["--target", &nobody, "--pid", "4294967295"]);
    done.assert_code(3);
    assert!(done.stderr.contains("--pid"), "{}", done.stderr);
    // Well for long enough to be started.
    let trap = guest(
        &dir,
        "trap.wat",
        "(global $n (mut i32) (i32.const 0))",
        &format!(
            "(global.set $n (i32.add (global.get $n) (i32.const 1)))
             (if (i32.gt_u (global.get $n) (i32.const 50)) (then unreachable)) {ALLOW}"
        ),
    );
    let agent = serving(&trap, &["--pool-size", "1"]);
    let unix = unix(&agent);
    for protocol in ["v1", "v2"] {
        let done = live(&request, &["--target", &unix, "--protocol", protocol]);
        done.assert_code(1);
        let report = done.json();
        assert_eq!(report["failure"]["case"], "request", "{report}");
        let message = report["failure"]["message"].as_str().unwrap();
        assert!(message.contains("trap:unreachable"), "{message}");
    }
    // Somebody who speaks no protocol of ours, and then goes.
    let listener = std::os::unix::net::UnixListener::bind(dir.path("other.sock")).unwrap();
    let other = format!("unix:{}", dir.path("other.sock").display());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut peer, _) = listener.accept().unwrap();
            let mut byte = [0; 64];
            let _ = std::io::Read::read(&mut peer, &mut byte).unwrap();
            std::io::Write::write_all(&mut peer, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let done = live(&request, &["--target", &other]);
        done.assert_code(3);
    });
    for flags in [
        &["--target", "tcp://x"][..],
        &["--target", &unix, "--pid", "0"],
        &["--target", &unix, "--connections", "0"],
        &["--target", &unix, "--pool-size", "2"],
        &["--pid", "1"],
    ] {
        live(&request, flags).assert_code(2);
    }
}
