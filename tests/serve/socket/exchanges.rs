//! Exchanges that share a correlation id, which their clients choose, over
//! every protocol: none is judged with another's head, and none gets another's
//! response operations.

use serde_json::{Value, json};

use crate::support::agent::{Agent, Client, decision_of};

const POLICY: &str = "right/strict-bodies.wat";

/// One connection of a proxy.
enum Proxy {
    V1(Client),
    V2(Client),
}

impl Proxy {
    fn ask(&mut self, kind: u8, event: &Value) -> Value {
        match self {
            Self::V2(client) => {
                client.send(kind, event);
                client.answer()
            }
            Self::V1(client) => {
                let name = match kind {
                    0x10 => "request_headers",
                    0x11 => "request_body_chunk",
                    _ => "response_headers",
                };
                let envelope = json!({"version":1,"event_type":name,"payload":event});
                client.send_v1(envelope.to_string().as_bytes());
                serde_json::from_slice(&client.receive_v1().unwrap()).unwrap()
            }
        }
    }

    /// A head that announces a body of so many bytes, or none.
    fn head(&mut self, id: &str, uri: &str, length: Option<usize>) -> Value {
        self.ask(0x10, &head(id, uri, length, "HTTP/1.1"))
    }

    fn body(&mut self, id: &str, data: &str) -> Value {
        self.ask(0x11, &body(id, data))
    }

    fn response(&mut self, id: &str) -> Value {
        self.ask(
            0x12,
            &json!({"correlation_id":id,"status":200,"headers":{}}),
        )
    }
}

fn head(id: &str, uri: &str, length: Option<usize>, protocol: &str) -> Value {
    let mut headers = json!({"host":["a.example"]});
    if let Some(length) = length {
        headers["content-length"] = json!([length.to_string()]);
    }
    json!({"correlation_id":id,
        "metadata":{"correlation_id":id,"request_id":"r","client_ip":"192.0.2.7:5","client_port":0,
            "protocol":protocol,"server_name":null,"timestamp":"2026-11-20T13:31:06Z"},
        "method":if length.is_some() { "POST" } else { "GET" },"uri":uri,"headers":headers})
}

fn body(id: &str, data: &str) -> Value {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(data);
    json!({"correlation_id":id,"data":encoded,"is_last":true,"chunk_index":0,
        "total_size":data.len(),"bytes_received":data.len()})
}

fn tags(answer: &Value) -> Vec<&str> {
    let tags = answer["audit"]["tags"].as_array().unwrap();
    tags.iter().map(|tag| tag.as_str().unwrap()).collect()
}

/// So many connections of one proxy.
fn proxies(agent: &Agent, is_v1: bool, count: usize) -> Vec<Proxy> {
    let connect = |_| {
        if is_v1 {
            return Proxy::V1(agent.connect());
        }
        let mut client = agent.connect();
        assert_eq!(client.shake("0.6.45", "json")["success"], true);
        Proxy::V2(client)
    };
    (0..count).map(connect).collect()
}

/// For v1 and v2: the head of one request, the whole of another with the same
/// id on another connection, then the first one's body, on either connection:
/// released proxies send it where the last head with the id went.
#[test]
fn a_body_is_judged_with_its_own_head_whatever_comes_between() {
    let agent = Agent::start(POLICY, &[]);
    for is_v1 in [true, false] {
        for at in [0, 1] {
            for (other, sends_body) in [
                (None, false),
                (Some(6), true),
                (Some(6), false),
                (Some(4), true),
            ] {
                let id = format!("{is_v1}-{at}-{other:?}-{sends_body}");
                let mut proxy = proxies(&agent, is_v1, 2);
                assert_eq!(
                    decision_of(&proxy[0].head(&id, "/strict", Some(4))),
                    "allow"
                );
                assert_eq!(decision_of(&proxy[1].head(&id, "/other", other)), "allow");
                if sends_body {
                    let good = "x".repeat(other.unwrap());
                    let answer = proxy[1].body(&id, &good);
                    // Of bodies of one length nobody can tell whose it is.
                    if other != Some(4) || !is_v1 {
                        assert_eq!(decision_of(&answer), "allow", "{id} {answer}");
                    }
                }
                let answer = proxy[at].body(&id, "evil");
                assert_eq!(decision_of(&answer), "block", "{id} {answer}");
                assert!(!tags(&answer).contains(&"no-head"));
            }
        }
    }
}

/// Honest clients send one trace id with many requests.
#[test]
fn a_shared_id_alone_refuses_nobody() {
    let agent = Agent::start(POLICY, &[]);
    for is_v1 in [true, false] {
        let mut proxy = proxies(&agent, is_v1, 3);
        let id = format!("trace-{is_v1}");
        for round in 0..3 {
            for (at, proxy) in proxy.iter_mut().enumerate() {
                // Three uploads of different lengths, and pages beside them.
                let uri = format!("/{round}/{at}");
                assert_eq!(decision_of(&proxy.head(&id, &uri, Some(5 + at))), "allow");
                assert_eq!(decision_of(&proxy.head(&id, "/page", None)), "allow");
            }
            for (at, proxy) in proxy.iter_mut().enumerate() {
                let answer = proxy.body(&id, &"g".repeat(5 + at));
                assert_eq!(decision_of(&answer), "allow", "{answer}");
                assert!(tags(&answer).is_empty(), "{answer}");
            }
        }
    }
}

/// v2: where bodies of one length meet, each is asked about with every head.
#[test]
fn bodies_that_may_be_anothers_are_judged_with_each_head() {
    let agent = Agent::start(POLICY, &[]);
    let mut proxy = proxies(&agent, false, 2);
    proxy[0].head("t", "/one", Some(4));
    proxy[1].head("t", "/two", Some(4));
    for proxy in &mut proxy {
        assert_eq!(decision_of(&proxy.body("t", "good")), "allow");
    }
    proxy[0].head("u", "/strict", Some(4));
    proxy[1].head("u", "/two", Some(4));
    // Nobody can tell that it is not the body of /strict.
    assert_eq!(decision_of(&proxy[1].body("u", "evil")), "block");
}

#[test]
fn what_cannot_be_told_apart_gets_the_failure_policy_and_is_counted() {
    for (flags, decision) in [(&[][..], "block"), (&["--fail-open"], "allow")] {
        let agent = Agent::start(POLICY, flags);
        for is_v1 in [true, false] {
            let mut proxy = proxies(&agent, is_v1, 1);
            let id = format!("x-{is_v1}");
            proxy[0].head(&id, "/one", Some(4));
            proxy[0].head(&id, "/two", Some(4));
            let answer = proxy[0].body(&id, "good");
            assert_eq!(decision_of(&answer), decision, "{answer}");
            assert!(tags(&answer).contains(&"ambiguous-exchange"), "{answer}");
            assert_eq!(
                answer["audit"]["reason_codes"],
                json!(["ambiguous-exchange"])
            );
        }
    }
}

/// Two heads without a body: one that comes all the same is neither's.
#[test]
fn a_request_without_a_length_may_have_a_body_in_http_2() {
    let agent = Agent::start(POLICY, &[]);
    let mut proxy = proxies(&agent, false, 1);
    let mut http2 = head("x", "/strict", None, "HTTP/1.1");
    http2["metadata"]["server_name"] = json!("a.example");
    http2["method"] = json!("POST");
    proxy[0].ask(0x10, &http2);
    proxy[0].head("x", "/other", Some(4));
    let answer = proxy[0].body("x", "evil");
    assert_eq!(decision_of(&answer), "block", "{answer}");
    assert!(tags(&answer).contains(&"ambiguous-exchange"), "{answer}");
}

/// A head counts from its arrival: its answer may come late or not at all.
#[test]
fn a_head_is_known_before_it_is_answered() {
    let agent = Agent::start(POLICY, &["--timeout", "300ms", "--pool-size", "2"]);
    let Proxy::V2(mut client) = proxies(&agent, false, 1).remove(0) else {
        unreachable!()
    };
    client.send(0x10, &head("s", "/slow", Some(4), "HTTP/1.1"));
    client.send(0x11, &body("s", "evil"));
    let answer = client.answer();
    assert!(!tags(&answer).contains(&"no-head"), "{answer}");
}

/// More exchanges than are remembered: what is forgotten is known to be.
#[test]
fn a_head_that_was_pushed_out_is_not_forgotten_in_silence() {
    let agent = Agent::start(POLICY, &[]);
    let Proxy::V2(mut client) = proxies(&agent, false, 1).remove(0) else {
        unreachable!()
    };
    let mut ask = |kind: u8, event: &Value| {
        client.send(kind, event);
        client.answer()
    };
    ask(0x10, &head("mine", "/strict", Some(4), "HTTP/1.1"));
    let mut writer = client.stream.try_clone().unwrap();
    const OTHERS: usize = 66_000;
    let sender = std::thread::spawn(move || {
        use std::io::Write as _;
        for number in 0..OTHERS {
            let event = head(&format!("o{number}"), "/x", Some(9), "HTTP/1.1");
            let frame = crate::support::agent::v2_frame(0x10, event.to_string().as_bytes());
            writer.write_all(&frame).unwrap();
        }
    });
    for _ in 0..OTHERS {
        client.answer();
    }
    sender.join().unwrap();
    // Another one with its id is not it.
    client.send(0x10, &head("mine", "/other", Some(4), "HTTP/1.1"));
    client.answer();
    for expected in ["ambiguous-exchange", "ambiguous-exchange"] {
        client.send(0x11, &body("mine", "evil"));
        let answer = client.answer();
        assert_eq!(decision_of(&answer), "block", "{answer}");
        assert!(tags(&answer).contains(&expected), "{answer}");
    }
    client.send(0x11, &body("o1", "x".repeat(9).as_str()));
    assert!(tags(&client.answer()).contains(&"head-lost"));
}

/// Before 0.6.54 what the request asked of the response is repeated: with its
/// own response, once, or not at all.
#[test]
fn a_cookie_never_goes_out_with_anothers_response() {
    let agent = Agent::start(POLICY, &[]);
    let cookies = |answer: &Value| answer["response_headers"].as_array().unwrap().len();
    let mut proxy = proxies(&agent, false, 2);
    proxy[0].head("a", "/cookie", None);
    assert_eq!(cookies(&proxy[1].response("a")), 1);
    assert_eq!(cookies(&proxy[1].response("a")), 0);
    proxy[0].head("b", "/cookie", None);
    proxy[1].head("b", "/plain", None);
    for proxy in &mut proxy {
        assert_eq!(cookies(&proxy.response("b")), 0);
    }
    // Each of three asked for the same, so each gets it once.
    for _ in 0..3 {
        proxy[0].head("c", "/cookie", None);
    }
    for _ in 0..3 {
        assert_eq!(cookies(&proxy[1].response("c")), 1);
    }
    assert_eq!(cookies(&proxy[1].response("c")), 0);
}

/// Where the proxy sends no heads, bodies are asked without one.
#[test]
fn bodies_alone_are_asked_without_a_head() {
    let agent = Agent::start(POLICY, &[]);
    for is_v1 in [true, false] {
        let answer = proxies(&agent, is_v1, 1)[0].body("alone", "evil");
        assert_eq!(tags(&answer), ["no-head"], "{answer}");
    }
}

/// Before 0.6.54 a proxy leaves the length of a body that is replaced as it
/// was. The module may not touch it, so the agent takes it away.
#[test]
fn the_length_of_a_body_that_may_be_replaced_is_taken_away() {
    let lengths = |module: &str, version: &str| {
        let agent = Agent::start(module, &[]);
        let mut client = agent.connect();
        assert_eq!(client.shake(version, "json")["success"], true);
        client.send(
            0x12,
            &json!({"correlation_id":"c","status":200,"headers":{}}),
        );
        client.answer()["response_headers"].clone()
    };
    let taken = json!([{"remove":{"name":"content-length"}}]);
    assert_eq!(lengths("right/body-drop.wat", "0.6.45"), taken);
    assert_eq!(lengths("right/body-drop.wat", "0.6.54"), json!([]));
    assert_eq!(lengths("right/allow.wat", "0.6.45"), json!([]));
}
