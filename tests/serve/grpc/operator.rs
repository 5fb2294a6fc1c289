//! The built binary, as an operator starts it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::support::*;
use crate::support::{binary, shipped};

/// An agent without a Unix socket; killed when the test ends before it does.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(address: &str) -> Process {
    let mut child = binary(["serve", "--pool-size", "1", "--log-format", "json"])
        .env("WASM_GRPC_ADDRESS", address)
        .env("WASM_MODULE", shipped("right/deny.wat"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    Process { child, lines }
}

impl Process {
    /// The next line with this text.
    fn line(&mut self, part: &str) -> Option<String> {
        self.lines
            .find_map(|line| line.ok().filter(|line| line.contains(part)))
    }

    /// Where it serves.
    fn address(&mut self) -> SocketAddr {
        let line: serde_json::Value = serde_json::from_str(&self.line("serving").unwrap()).unwrap();
        line["grpc"].as_str().unwrap().parse().unwrap()
    }

    fn stop(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status();
        assert!(status.unwrap().success());
    }
}

#[tokio::test]
async fn grpc_alone_is_served_until_the_signal_to_stop() {
    let mut process = start("127.0.0.1:0");
    let address = process.address();
    let mut client = Client::open(connect(address).await, ZENTINEL).await;
    client.send(handshake("0.6.54"));
    client.send(request("c1"));
    assert!(matches!(client.receive().await, FromAgent::Handshake(_)));
    assert_eq!(client.outcome().await, pair("c1", "block"));

    // The place is taken.
    let mut second = start(&address.to_string());
    assert!(second.line("cannot listen at").is_some());
    assert_eq!(second.child.wait().unwrap().code(), Some(6));

    process.stop();
    assert!(matches!(client.receive().await, FromAgent::Health(_)));
    assert_eq!(client.end().await.unwrap(), 0);
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_that_others_reach_is_warned_about() {
    for (address, warned) in [("0.0.0.0:0", true), ("[::1]:0", false)] {
        let mut process = start(address);
        let first = process.lines.next().unwrap().unwrap();
        assert_eq!(first.contains("plaintext"), warned, "{first}");
        assert_eq!(first.contains("serving"), !warned, "{first}");
    }
}

/// What an agent cannot repair over gRPC is said, once a connection, and only
/// about releases that need it.
#[tokio::test]
async fn cut_response_bodies_are_warned_about() {
    for (version, warnings) in [("0.6.45", 1), ("0.6.54", 0)] {
        let mut process = start("127.0.0.1:0");
        let address = process.address();
        let mut client = Client::open(connect(address).await, ZENTINEL).await;
        client.send(handshake(version));
        assert!(matches!(client.receive().await, FromAgent::Handshake(_)));
        for id in ["c1", "c2"] {
            client.send(ToAgent::ResponseBodyChunk(body(id, b"hello".to_vec())));
            client.answer().await;
        }
        process.stop();
        assert!(matches!(client.receive().await, FromAgent::Health(_)));
        client.end().await.unwrap();
        let told = process
            .lines
            .by_ref()
            .filter(|line| {
                line.as_ref()
                    .unwrap()
                    .contains("last piece of a response body")
            })
            .count();
        assert_eq!(told, warnings, "{version}");
    }
}
