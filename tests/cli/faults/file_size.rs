//! A limit on the size of files (`ulimit -f`): what cannot be written is an error
//! that names the file, and never the end of the process by a signal.

use std::path::Path;

use crate::support::{Done, TestDir, binary, capture, finish, fixture, shipped};

/// The command under a limit of so many KiB, its output led into a file.
fn limited(kib: u32, out: &Path, arguments: &[&str]) -> Done {
    let program = binary([""; 0]).get_program().to_owned();
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", "ulimit -f $0; out=$1; shift; exec \"$@\" >$out"])
        .arg(kib.to_string())
        .arg(out)
        .arg(program)
        .args(arguments);
    crate::support::tidy(&mut command);
    finish(command)
}

#[test]
fn what_meets_a_limit_of_file_sizes_is_an_error_with_its_name() {
    let module = shipped("right/allow.wat");
    let module = module.to_str().unwrap();
    let fixtures = fixture("events/requests");
    let capture = capture("mitmproxy.har");
    let (fixtures, capture) = (fixtures.to_str().unwrap(), capture.to_str().unwrap());
    let cases: [(&str, Vec<&str>); 4] = [
        (
            "h.html",
            vec!["replay", module, capture, "--report", "html=FILE"],
        ),
        ("s.jsonl", vec!["replay", module, capture, "--save", "FILE"]),
        (
            "j.json",
            vec!["run", module, fixtures, "--report", "json=FILE"],
        ),
        (
            "b.json",
            vec![
                "bench",
                module,
                "-n",
                "20",
                "--pool-size",
                "1",
                "-c",
                "1",
                "--timeout",
                "1s",
                "--save",
                "FILE",
            ],
        ),
    ];
    for (name, arguments) in cases {
        let dir = TestDir::new();
        let file = dir.path(name);
        let file = file.to_str().unwrap();
        let arguments: Vec<String> = arguments
            .iter()
            .map(|argument| argument.replace("FILE", file))
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let done = limited(5, &dir.path("out"), &arguments);
        // The beginning is written, and the rest is not.
        assert_eq!(done.code, Some(3), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(file), "{name}: {}", done.stderr);
        assert!(
            done.stderr.contains("File too large"),
            "{name}: {}",
            done.stderr
        );
    }
}
