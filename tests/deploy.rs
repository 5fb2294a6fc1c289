//! What `deploy/` offers to copy: every command line there starts an agent,
//! and every file says the same about sockets, ports and times.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on stops"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kdl::{KdlDocument, KdlNode};
use wasm_agent_kit::limits::{DEFAULT_QUEUE_WAIT, DEFAULT_TIMEOUT};
use wasm_agent_kit::server::settings::{DEFAULT_GRACE, ServeSettings};

const SOCKET: &str = "/run/wasm-agent/agent.sock";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(path)).unwrap()
}

/// The values of a key of a unit file, in order.
fn unit<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(found, _)| *found == key)
        .map(|(_, value)| value)
        .collect()
}

/// Starts an agent with these arguments and environment, but on files and
/// ports of this test's, and waits until it serves.
fn starts(args: &[&str], environment: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let module = root().join("fixtures/modules/right/allow.wat");
    let socket = folder.path().join("a.sock");
    let here = |text: &str| match text {
        SOCKET => socket.display().to_string(),
        "/etc/wasm-agent/rules.wasm" | "/module/rules.wasm" => module.display().to_string(),
        "127.0.0.1:9464" | "0.0.0.0:9464" => "127.0.0.1:0".to_owned(),
        other => other.to_owned(),
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasm-agent"));
    command
        .args(args.iter().map(|arg| here(arg)))
        // A good guest on a busy machine is no runaway.
        .args(["--timeout", "5s"])
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, here(value))))
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    if !args.contains(&"--socket") && environment.is_empty() {
        command.arg("--socket").arg(&socket);
    }
    let mut child = command.spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .inspect(|line| {
            if line.contains("\"serving\"") {
                child.kill().unwrap();
            }
        })
        .collect();
    child.wait().unwrap();
    assert!(
        lines.iter().any(|line| line.contains("\"serving\"")),
        "{args:?}: {lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("\"admin\":\"127.0.0.1:"))
    );
}

#[test]
fn the_systemd_units_fit_the_agent_and_each_other() {
    let service = read("systemd/wasm-agent.service");
    let start = unit(&service, "ExecStart");
    let words: Vec<&str> = start[0].split(' ').collect();
    assert_eq!(words[0], "/usr/local/bin/wasm-agent");
    // The socket is passed.
    assert!(!words.contains(&"--socket"));
    starts(&words[1..], &[]);
    assert_eq!(unit(&service, "Type"), ["notify"]);
    assert!(unit(&service, "ExecReload")[0].contains("-HUP $MAINPID"));
    let stop: u64 = unit(&service, "TimeoutStopSec")[0]
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(Duration::from_secs(stop) > DEFAULT_GRACE);
    // A JIT cannot live with it.
    assert_eq!(unit(&service, "MemoryDenyWriteExecute"), [""; 0]);
    let socket = read("systemd/wasm-agent.socket");
    assert_eq!(unit(&socket, "ListenStream"), [SOCKET]);
    assert_eq!(unit(&socket, "SocketMode"), ["0660"]);
}

#[test]
fn the_container_starts_the_agent() {
    let file = read("container/Containerfile");
    let line = |name: &str| {
        let found = file.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap().trim().to_owned()
    };
    let cmd: Vec<String> = serde_json::from_str(&line("CMD")).unwrap();
    let cmd: Vec<&str> = cmd.iter().map(String::as_str).collect();
    let environment = line("ENV");
    let environment: Vec<(&str, &str)> = environment
        .split(' ')
        .map(|pair| pair.split_once('=').unwrap())
        .collect();
    assert!(environment.contains(&("AGENT_SOCKET", SOCKET)));
    starts(&cmd, &environment);
    assert_eq!(line("ENTRYPOINT"), "[\"/usr/local/bin/wasm-agent\"]");
}

#[test]
fn the_sidecar_starts_the_agent() {
    let manifest = read("kubernetes/sidecar.yaml");
    let args: Vec<&str> = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "args:")
        .skip(1)
        .map_while(|line| line.strip_prefix("- "))
        .map(|arg| arg.trim_matches('"'))
        .collect();
    assert_eq!(args[0], "serve");
    assert!(args.contains(&SOCKET));
    starts(&args, &[]);
    let grace = manifest
        .lines()
        .find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: "));
    let grace = Duration::from_secs(grace.unwrap().parse().unwrap());
    assert!(grace > DEFAULT_GRACE);
}

fn child<'a>(node: &'a KdlNode, name: &str) -> &'a KdlNode {
    let children = node.children().unwrap();
    children.get(name).unwrap_or_else(|| panic!("no {name}"))
}

fn text(node: &KdlNode) -> &str {
    node.get(0).unwrap().as_string().unwrap()
}

/// By the rules of the parsers of zentinel-proxy 0.6.45 and sentinel-proxy
/// 0.4.14, as far as they concern the agent.
#[test]
fn the_proxies_configurations_are_as_their_parsers_read_them() {
    for (file, transport, place) in [
        ("proxy/unix.kdl", "unix-socket", SOCKET),
        ("proxy/grpc.kdl", "grpc", "http://127.0.0.1:50051"),
    ] {
        let document = KdlDocument::parse_v2(&read(file)).unwrap();
        let agent = child(document.get("agents").unwrap(), "agent");
        assert_eq!(agent.get("type").unwrap().as_string(), Some("custom"));
        assert_eq!(text(child(agent, transport)), place);
        let events: Vec<&str> = child(agent, "events")
            .entries()
            .iter()
            .map(|entry| entry.value().as_string().unwrap())
            .collect();
        let known = [
            "request_headers",
            "request_body",
            "response_headers",
            "response_body",
        ];
        assert_eq!(events, known);
        assert!(["open", "closed"].contains(&text(child(agent, "failure-mode"))));
        let timeout = child(agent, "timeout-ms").get(0).unwrap().as_integer();
        let timeout = Duration::from_millis(timeout.unwrap().try_into().unwrap());
        // Answers that are not too late for us are not too late for the proxy.
        assert!(timeout > ServeSettings::late_after(DEFAULT_QUEUE_WAIT, DEFAULT_TIMEOUT));
        let filter = child(document.get("filters").unwrap(), "filter");
        assert_eq!(text(child(filter, "agent")), text(agent));
        let route = child(document.get("routes").unwrap(), "route");
        assert_eq!(text(child(route, "filters")), text(filter));
        let waf = document.get("waf").unwrap();
        // Any other mode is an error of the proxy's validation.
        assert_eq!(text(child(waf, "mode")), "off");
        let inspects = child(child(waf, "body-inspection"), "inspect-request-body");
        assert_eq!(inspects.get(0).unwrap().as_bool(), Some(true));
    }
}

#[test]
fn the_list_of_files_is_whole() {
    let index = read("README.md");
    for folder in ["systemd", "container", "kubernetes", "proxy"] {
        for file in std::fs::read_dir(root().join("deploy").join(folder)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(
                index.contains(&format!("({folder}/{name})")),
                "{folder}/{name}"
            );
        }
    }
}
