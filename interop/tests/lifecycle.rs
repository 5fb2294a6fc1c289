//! Signals, crashes and restarts under both clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sentinel_agent_protocol::EventType;
use zentinel_agent_protocol::v2::AgentPool;

use super::events;
use super::relay::Relay;
use super::support::{
    AMPLE, Agent, NAME, PATIENCE, binary, client_version, parent, pool, try_pool,
};
use super::v1;

/// How long calls wait on connections whose agent is gone: this generation of
/// clients does not notice an end of file.
const BURNT: Duration = Duration::from_millis(400);
/// The same where an answer that is late on a busy machine would look lost.
const SURELY_GONE: Duration = Duration::from_secs(4);

/// Pools before this one never look for an agent again that was not there or
/// has crashed: their proxy has to be restarted.
const LOOKS_AGAIN: [u32; 3] = [0, 6, 0];

/// Waits, looking again and again, for what must come.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calls that never stop until they are told so or fail; counts the answers.
#[derive(Default)]
struct Load {
    enough: AtomicBool,
    answers: AtomicUsize,
}

impl Load {
    fn goes_on(&self, answered: bool) -> bool {
        self.answers.fetch_add(answered.into(), Ordering::SeqCst);
        answered && !self.enough.load(Ordering::SeqCst)
    }
}

async fn v2_caller(pool: Arc<AgentPool>, load: Arc<Load>, name: usize) {
    for number in 0.. {
        let id = format!("{name}-{number}");
        let event = events::request(&id, "GET", "/");
        let answer = pool.send_request_headers(NAME, &id, &event).await;
        if !load.goes_on(answer.is_ok()) {
            return;
        }
    }
}

async fn v1_caller(socket: PathBuf, load: Arc<Load>, name: usize) {
    let mut client = v1::connect(&socket, PATIENCE).await;
    for number in 0.. {
        let id = format!("{name}-{number}");
        let event: sentinel_agent_protocol::RequestHeadersEvent = events::request(&id, "GET", "/");
        let answer = client.send_event(EventType::RequestHeaders, event).await;
        if !load.goes_on(answer.is_ok()) {
            return;
        }
    }
}

/// The ledger holds to the last event: what the agent was sent was answered,
/// and each answer reached its call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_the_signal_to_stop_loses_nothing_under_load() {
    let mut agent = Agent::start("rules/rules.wasm", &AMPLE);
    let relay = Relay::start(agent.folder(), agent.socket(), true);
    let pool = pool(&relay.path, SURELY_GONE).await;
    let load = Arc::new(Load::default());
    let callers: Vec<_> = (0..100)
        .map(|name| tokio::spawn(v2_caller(Arc::clone(&pool), Arc::clone(&load), name)))
        .collect();
    until("no load", async || relay.answered() > 500).await;
    agent.terminate();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(agent.wait().code(), Some(0));
    assert!(!agent.socket().exists());
    let _ = pool.shutdown().await;
    drop(pool);
    let (sent, answered) = relay.close().await;
    assert_eq!(sent, answered);
    assert_eq!(answered, load.answers.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_the_signal_to_stop_loses_nothing_under_load() {
    let mut agent = Agent::start("rules/rules.wasm", &AMPLE);
    let relay = Relay::start(agent.folder(), agent.socket(), false);
    let load = Arc::new(Load::default());
    let callers: Vec<_> = (0..11)
        .map(|name| tokio::spawn(v1_caller(relay.path.clone(), Arc::clone(&load), name)))
        .collect();
    until("no load", async || relay.answered() > 200).await;
    agent.terminate();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(agent.wait().code(), Some(0));
    let (sent, answered) = relay.close().await;
    assert_eq!(sent, answered);
    assert_eq!(answered, load.answers.load(Ordering::SeqCst));
}

/// Many calls in a row that are answered: old connections are out of use.
async fn is_served(pool: &AgentPool) -> bool {
    for number in 0..16 {
        let id = format!("probe-{number}");
        let event = events::request(&id, "GET", "/");
        if pool.send_request_headers(NAME, &id, &event).await.is_err() {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_a_pool_finds_its_agent_again_after_a_stop_and_a_crash() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let pool = pool(&agent.socket(), BURNT).await;
    let maintenance = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.run_maintenance().await }
    });
    assert!(is_served(&pool).await);
    let folder = agent.stop();
    let agent = Agent::start_in(folder, "rules/rules.wasm", &[]);
    until("after a stop", async || is_served(&pool).await).await;
    let folder = agent.crash();
    assert!(!is_served(&pool).await);
    let agent = Agent::start_in(folder, "rules/rules.wasm", &[]);
    if client_version() < LOOKS_AGAIN {
        let restarted = self::pool(&agent.socket(), PATIENCE).await;
        assert!(is_served(&restarted).await);
    } else {
        until("after a crash", async || is_served(&pool).await).await;
    }
    maintenance.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_an_agent_may_start_after_its_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let pool = try_pool(&folder.path().join("a.sock"), BURNT).await;
    if client_version() < LOOKS_AGAIN {
        assert!(pool.is_err());
        let agent = Agent::start_in(folder, "rules/rules.wasm", &[]);
        let restarted = self::pool(&agent.socket(), PATIENCE).await;
        assert!(is_served(&restarted).await);
        return;
    }
    let pool = pool.unwrap();
    assert!(!pool.is_agent_healthy(NAME));
    assert!(!is_served(&pool).await);
    let maintenance = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.run_maintenance().await }
    });
    let _agent = Agent::start_in(folder, "rules/rules.wasm", &[]);
    until("late agent", async || is_served(&pool).await).await;
    assert!(pool.agent_capabilities(NAME).await.is_some());
    maintenance.abort();
}

/// The proxy drops a connection that failed and makes another.
#[tokio::test]
async fn v1_a_new_connection_is_all_a_restart_takes() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let socket = agent.socket();
    let mut client = v1::connect(&socket, PATIENCE).await;
    let request =
        |id| -> sentinel_agent_protocol::RequestHeadersEvent { events::request(id, "GET", "/") };
    let answer = client.send_event(EventType::RequestHeaders, request("a"));
    assert!(answer.await.is_ok());
    let folder = agent.crash();
    let answer = client.send_event(EventType::RequestHeaders, request("b"));
    assert!(answer.await.is_err());
    let agent = Agent::start_in(folder, "rules/rules.wasm", &[]);
    let mut client = v1::connect(&socket, PATIENCE).await;
    let answer = client.send_event(EventType::RequestHeaders, request("c"));
    assert!(answer.await.is_ok());
    // Told at once this time, by the end of the connection.
    let _folder = agent.stop();
    let answer = client.send_event(EventType::RequestHeaders, request("d"));
    assert!(answer.await.is_err());
}

/// A system that forbids executable memory is named, with what to change,
/// and nothing is bound. Here because it takes perl to ask the kernel for it
/// (PR_SET_MDWE), which is there wherever these tests can be built.
#[test]
fn o_11_memory_that_may_not_be_executed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let prctl = if cfg!(target_arch = "x86_64") {
        157
    } else {
        167
    };
    let script = format!("syscall({prctl}, 65, 1, 0, 0, 0) == 0 or die $!; exec @ARGV");
    let output = std::process::Command::new("perl")
        .args(["-e", &script])
        .arg(binary())
        .args(["serve", "--module"])
        .arg(parent().join("fixtures/modules/right/allow.wat"))
        .arg("--socket")
        .arg(folder.path().join("a.sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("remove MemoryDenyWriteExecute=yes"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
