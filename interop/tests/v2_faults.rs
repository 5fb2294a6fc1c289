//! zentinel-agent-protocol 0.6.45 and modules that misbehave: whatever the
//! guest does, the client gets an answer and the next event is served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zentinel_agent_protocol::v2::CancelReason;

use super::events;
use super::support::{Agent, NAME, decision, read, timeout};

async fn ask(agent: &Agent, id: &str) -> Value {
    let client = agent.client().await;
    let event = events::request(id, "GET", "/");
    read(client.send_request_headers(id, &event).await)
}

/// Each fault, its status, and whether fail-open lets it pass. An answer that
/// said block before it went wrong stays a refusal.
const FAULTS: [(&str, &str); 9] = [
    ("hostile/trap-unreachable.wat", "trap:unreachable"),
    ("hostile/spin.wat", "deadline"),
    ("hostile/recursion.wat", "trap:"),
    ("hostile/alloc-null.wat", "alloc:null"),
    ("hostile/answer-out-of-bounds.wat", "bad-answer:"),
    ("hostile/answer-too-large.wat", "answer-limit"),
    ("hostile/not-json.wat", "bad-answer:not-json"),
    ("hostile/not-utf8.wat", "bad-answer:"),
    ("hostile/unknown-decision.wat", "bad-answer:"),
];

#[tokio::test]
async fn faults_are_refused_or_allowed_as_told() {
    for (module, reason) in FAULTS {
        for (open, expected) in [("false", "block"), ("true", "allow")] {
            let fail_open = format!("--fail-open={open}");
            let agent = Agent::start(module, &["--timeout", timeout(module), &fail_open]);
            let pool = agent.pool().await;
            for number in 0..8 {
                let id = number.to_string();
                let event = events::request(&id, "GET", "/");
                let answer = read(pool.send_request_headers(NAME, &id, &event).await);
                assert_eq!(decision(&answer), expected, "{module} {answer}");
                if open == "false" {
                    assert_eq!(answer["decision"]["block"]["status"], 500, "{module}");
                }
                let told = answer["audit"]["reason_codes"][0].as_str().unwrap();
                assert!(told.starts_with(reason), "{module} {told}");
            }
            let stats = pool.agent_stats(NAME).await.unwrap();
            assert_eq!(
                (stats.total_requests, stats.total_errors),
                (8, 0),
                "{module}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_that_went_wrong_stays_a_refusal() {
    let agent = Agent::start("hostile/dealloc-trap.wat", &["--fail-open"]);
    assert_eq!(decision(&ask(&agent, "a").await), "block");
}

/// The deadline is the agent's, and comes before the client's.
#[tokio::test]
async fn a_runaway_call_is_answered_at_its_deadline() {
    let agent = Agent::start("hostile/spin.wat", &["--timeout", "200ms"]);
    let start = Instant::now();
    let answer = ask(&agent, "a").await;
    assert_eq!(answer["audit"]["reason_codes"], json!(["deadline"]));
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// One instance that never comes back, and events that need none.
#[tokio::test]
async fn a_runaway_call_stalls_neither_its_connection_nor_others() {
    let args = ["--timeout", "30s", "--pool-size", "1"];
    let agent = Agent::start("hostile/spin.wat", &args);
    let (client, other) = (Arc::new(agent.client().await), agent.client().await);
    let runs = tokio::spawn({
        let client = Arc::clone(&client);
        async move {
            let event = events::request("runs", "GET", "/");
            client.send_request_headers("runs", &event).await
        }
    });
    for (number, client) in [&*client, &other].into_iter().cycle().take(20).enumerate() {
        client.ping().await.unwrap();
        let id = number.to_string();
        let event = events::response(&id, 200);
        let answer = read(client.send_response_headers(&id, &event).await);
        assert_eq!(decision(&answer), "allow");
    }
    // Still nothing: everything above was answered while it ran.
    assert!(!runs.is_finished());
    runs.abort();
}

#[tokio::test]
async fn a_cancelled_event_is_given_up_and_its_id_is_free_again() {
    let args = ["--timeout", "1s", "--pool-size", "1"];
    let agent = Agent::start("hostile/spin.wat", &args);
    let client = Arc::new(agent.client().await);
    let runs = tokio::spawn({
        let client = Arc::clone(&client);
        async move {
            let event = events::request("c", "GET", "/");
            client.send_request_headers("c", &event).await
        }
    });
    while client.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    client
        .cancel_request("c", CancelReason::ClientDisconnect)
        .await
        .unwrap();
    // This client drops its own end of a cancelled call.
    assert!(runs.await.unwrap().is_err());
    let event = events::response("c", 200);
    let answer = read(client.send_response_headers("c", &event).await);
    assert_eq!(answer["audit"]["reason_codes"], json!([]));
    assert_eq!(decision(&answer), "allow");
}

/// A pool sends 100 on a connection at most; a client by itself does not stop.
#[tokio::test]
async fn what_is_too_much_is_refused_at_once_and_never_silently() {
    let args = [
        "--timeout",
        "300ms",
        "--pool-size",
        "2",
        "--max-in-flight",
        "50",
    ];
    let agent = Agent::start("hostile/spin.wat", &args);
    let client = Arc::new(agent.client().await);
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let id = number.to_string();
                let event = events::request(&id, "GET", "/");
                read(client.send_request_headers(&id, &event).await)
            })
        })
        .collect();
    let (mut overload, mut others) = (0, 0);
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(decision(&answer), "block");
        match answer["audit"]["reason_codes"][0].as_str().unwrap() {
            "overload" => {
                assert_eq!(answer["decision"]["block"]["status"], 503);
                overload += 1;
            }
            "deadline" => others += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(overload + others, 300);
    assert!(overload >= 200 && others >= 2, "{overload} {others}");
}
