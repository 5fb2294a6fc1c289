//! What `deploy/` offers to copy: every command line there starts an agent,
//! and every file says the same about sockets, ports and times.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kdl::{KdlDocument, KdlNode};
use serde_json::Value;
use wasm_agent_kit::internals::ops::LANES;
use wasm_agent_kit::internals::server::{DEFAULT_GRACE, ServeSettings};
use wasm_agent_kit::limits::{DEFAULT_QUEUE_WAIT, DEFAULT_TIMEOUT};

use crate::support::{binary, capture, shipped};

const RECORDING: &str = "/var/lib/wasm-agent/traffic.jsonl";
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
    let module = shipped("right/allow.wat");
    let socket = folder.path().join("a.sock");
    let here = |text: &str| match text {
        SOCKET => socket.display().to_string(),
        "/etc/wasm-agent/rules.wasm" | "/module/rules.wasm" => module.display().to_string(),
        RECORDING => folder.path().join("r.jsonl").display().to_string(),
        "127.0.0.1:9464" | "0.0.0.0:9464" => "127.0.0.1:0".to_owned(),
        other => other.to_owned(),
    };
    let mut command = binary([""; 0]);
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
    // The same again, with a recording in the one place that it may write to.
    let recording = unit(&service, "#ExecStart")[0];
    let (same, options) = recording.split_once(" --record ").unwrap();
    assert_eq!(same, start[0]);
    assert!(options.starts_with(RECORDING));
    let words: Vec<&str> = recording.split(' ').collect();
    starts(&words[1..], &[]);
    assert_eq!(unit(&service, "StateDirectory"), ["wasm-agent"]);
    assert_eq!(unit(&service, "StateDirectoryMode"), ["0700"]);
    let rotation = read("systemd/wasm-agent.logrotate");
    // Where DynamicUser= has the directory, without the link that leads there.
    let private = RECORDING.replace("/var/lib/", "/var/lib/private/");
    assert!(rotation.lines().any(|line| line == format!("{private} {{")));
    let has = |option: &str| rotation.lines().any(|line| line.trim() == option);
    assert!(has("nocreate") && has("delaycompress") && !has("copytruncate"));
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

/// As Kubernetes writes `$(NAME)` in a command line, and a pod's paths as ours.
fn in_pod(arg: &str, (index, folder): (u64, &Path)) -> String {
    arg.replace("$(JOB_COMPLETION_INDEX)", &index.to_string())
        .replace("/traffic/", &format!("{}/", folder.display()))
        .replace("/modules/", &format!("{}/", folder.display()))
}

fn replay_job() -> Value {
    serde_saphyr::from_str(&read("kubernetes/replay-job.yaml")).unwrap()
}

/// By the rules of batch/v1 for an Indexed Job, as far as they can be checked
/// without a cluster.
#[test]
fn the_replay_job_is_an_indexed_job() {
    let job = replay_job();
    assert_eq!(job["apiVersion"], "batch/v1");
    assert_eq!(job["kind"], "Job");
    // A DNS label, since pods are named after it.
    let name = job["metadata"]["name"].as_str().unwrap();
    assert!(
        name.len() <= 50
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    );
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    let pods = spec["completions"].as_u64().unwrap();
    assert!((2..=u64::from(LANES)).contains(&pods));
    assert!((1..=pods).contains(&spec["parallelism"].as_u64().unwrap()));
    assert!(spec["backoffLimit"].as_u64().is_some());
    let pod = &spec["template"]["spec"];
    assert!(["Never", "OnFailure"].contains(&pod["restartPolicy"].as_str().unwrap()));
    let list = |value: &Value| value.as_array().unwrap().clone();
    let container = &list(&pod["containers"])[0];
    for key in ["name", "image"] {
        assert!(container[key].is_string(), "{key}");
    }
    let volumes = list(&pod["volumes"]);
    for mount in list(&container["volumeMounts"]) {
        assert!(mount["mountPath"].as_str().unwrap().starts_with('/'));
        assert!(volumes.iter().any(
            |volume| volume["name"] == mount["name"] && volume.as_object().unwrap().len() == 2
        ));
    }
    // What `$(…)` in the arguments stands for has to be a variable of the pod.
    let index = &list(&container["env"])[0];
    assert_eq!(index["name"], "JOB_COMPLETION_INDEX");
    assert_eq!(
        index["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    );
}

/// Its pods' command lines, run one after the other here.
#[test]
fn the_shards_of_the_replay_job_add_up_to_one_run() {
    let manifest = read("kubernetes/replay-job.yaml");
    let job = replay_job();
    let pods = job["spec"]["completions"].as_u64().unwrap();
    let args: Vec<String> = job["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap().to_owned())
        .collect();
    assert!(args.contains(&format!("--shard=auto/{pods}")));

    let folder = tempfile::tempdir().unwrap();
    let captures = folder.path().join("captures");
    std::fs::create_dir(&captures).unwrap();
    for name in ["mitmproxy.har", "goreplay.gor", "recorded.jsonl"] {
        let from = capture(name);
        std::fs::copy(from, captures.join(name)).unwrap();
    }
    for (name, module) in [
        ("old.wasm", "rules-published-spelling.wasm"),
        ("new.wasm", "rules.wasm"),
    ] {
        let from = shipped("rules").join(module);
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    let run = |args: &[String], index: Option<u64>| {
        let mut command = binary(args);
        command.env_remove("JOB_COMPLETION_INDEX");
        if let Some(index) = index {
            command.env("JOB_COMPLETION_INDEX", index.to_string());
        }
        let out = command.stdin(Stdio::null()).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code(), out.stdout, error)
    };
    let timeout = "--timeout=20s".to_owned();
    for index in 0..pods {
        let mut args: Vec<String> = args
            .iter()
            .map(|arg| in_pod(arg, (index, folder.path())))
            .collect();
        args.push(timeout.clone());
        let (code, _, error) = run(&args, Some(index));
        assert_eq!(code, Some(0), "{args:?}: {error}");
    }
    let whole: Vec<String> = args
        .iter()
        .filter(|arg| !arg.starts_with("--shard") && !arg.starts_with("--report"))
        .map(|arg| in_pod(arg, (0, folder.path())).replace("=never", "=decision"))
        .chain([timeout, "--format=json".to_owned()])
        .collect();
    let whole = run(&whole, None);
    // The line of the manifest's head that joins them.
    let merge = manifest.lines().find_map(|line| {
        let (_, command) = line.split_once("&& wasm-agent ")?;
        Some(command.strip_suffix("reports/*.json")?.to_owned())
    });
    let mut merge: Vec<String> = merge
        .unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    merge.extend((0..pods).map(|index| {
        let report = args
            .iter()
            .find_map(|arg| arg.strip_prefix("--report=json="));
        in_pod(report.unwrap(), (index, folder.path()))
    }));
    merge.push("--format=json".to_owned());
    let merged = run(&merge, None);
    assert_eq!(whole.0, Some(1), "{}", whole.2);
    assert_eq!(
        (merged.0, String::from_utf8(merged.1).unwrap()),
        (whole.0, String::from_utf8(whole.1).unwrap())
    );
    // Without the index nobody knows which part it is.
    let alone = in_pod(&args.join("\n"), (0, folder.path()));
    let alone: Vec<String> = alone.lines().map(str::to_owned).collect();
    let (code, _, error) = run(&alone, None);
    assert_eq!(code, Some(2));
    assert!(error.contains("JOB_COMPLETION_INDEX"), "{error}");
}

fn child<'a>(node: &'a KdlNode, name: &str) -> &'a KdlNode {
    let children = node.children().unwrap();
    children.get(name).unwrap_or_else(|| panic!("no {name}"))
}

fn text(node: &KdlNode) -> &str {
    node.get(0).unwrap().as_string().unwrap()
}

/// By the rules of the parsers of zentinel-proxy 0.6.45 and 0.6.54 and
/// sentinel-proxy 0.4.14, as far as they concern the agent.
#[test]
fn the_proxies_configurations_are_as_their_parsers_read_them() {
    // The last event loses data over gRPC.
    for (file, transport, place, count) in [
        ("proxy/unix.kdl", "unix-socket", SOCKET, 4),
        ("proxy/grpc.kdl", "grpc", "http://127.0.0.1:50051", 3),
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
        assert_eq!(events, known[..count]);
        let timeout = child(agent, "timeout-ms").get(0).unwrap().as_integer();
        let timeout = Duration::from_millis(timeout.unwrap().try_into().unwrap());
        // Answers that are not too late for us are not too late for the proxy.
        assert!(timeout > ServeSettings::late_after(DEFAULT_QUEUE_WAIT, DEFAULT_TIMEOUT));
        let filter = child(document.get("filters").unwrap(), "filter");
        assert_eq!(text(child(filter, "agent")), text(agent));
        let modes = [agent, filter].map(|node| text(child(node, "failure-mode")));
        assert_eq!(modes, ["closed"; 2]);
        let route = child(document.get("routes").unwrap(), "route");
        assert_eq!(text(child(route, "filters")), text(filter));
        let waf = document.get("waf").unwrap();
        // Any other mode is an error of the proxy's validation.
        assert_eq!(text(child(waf, "mode")), "off");
        let inspects = child(child(waf, "body-inspection"), "inspect-request-body");
        assert_eq!(inspects.get(0).unwrap().as_bool(), Some(true));
    }
}

/// The releases read one each, for the same events.
#[test]
fn the_readmes_sample_sets_both_failure_modes() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, sample) = readme.split_once("```kdl\n").unwrap();
    let (sample, _) = sample.split_once("```").unwrap();
    let document = KdlDocument::parse_v2(sample).unwrap();
    for (block, node) in [("agents", "agent"), ("filters", "filter")] {
        let node = child(document.get(block).unwrap(), node);
        assert_eq!(text(child(node, "failure-mode")), "closed");
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
