//! Who is connected, and what they are told unasked: how the agent is, when
//! that changes, and its metrics, on a timer.
//!
//! Released proxies read both and use neither; a proxy of its own make may.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::connection::{Connection, Report};
use super::metrics::Family;
use super::metrics::report::report;
use super::{Shared, lock};
use crate::protocol::grpc::{self, proto::agent_to_proxy};
use crate::protocol::wire::Encoding;
use crate::protocol::wire::control::{HealthState, HealthStatus};
use crate::protocol::wire::frame::{Protocol, kind};
use crate::protocol::wire::response::Dialect;

/// The open connections.
#[derive(Default)]
pub(crate) struct Sessions {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Weak<Connection>>>,
}

/// One open connection, as long as this is kept.
pub(crate) struct Session {
    shared: Arc<Shared>,
    number: u64,
    dialect: Dialect,
}

impl Sessions {
    /// Counts a connection whose peer has said what it speaks, and tells it
    /// how the agent is if that is not well.
    pub(crate) fn join(connection: &Arc<Connection>) -> Session {
        let shared = Arc::clone(connection.shared());
        let dialect = connection.dialect();
        shared.live.metrics().connected(dialect);
        let sessions = &shared.sessions;
        let number = sessions.next.fetch_add(1, Ordering::Relaxed);
        lock(&sessions.open).insert(number, Arc::downgrade(connection));
        if shared.live.health().borrow().state != HealthState::Healthy {
            shared.say_health(connection);
        }
        Session {
            shared,
            number,
            dialect,
        }
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.open)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        lock(&self.shared.sessions.open).remove(&self.number);
        self.shared.live.metrics().disconnected(self.dialect);
    }
}

impl Shared {
    /// Tells a v2 peer that no more is read.
    pub(crate) fn say_draining(&self, connection: &Connection) {
        self.say_state(connection, HealthState::Draining, Some("shutting down"));
    }

    /// Tells a v2 peer how the agent is.
    fn say_health(&self, connection: &Connection) {
        let health = self.live.health().borrow().clone();
        let reasons = health.reasons.join("; ");
        let message = (!reasons.is_empty()).then_some(reasons.as_str());
        self.say_state(connection, health.state, message);
    }

    fn say_state(&self, connection: &Connection, state: HealthState, message: Option<&str>) {
        let status = HealthStatus {
            agent_id: &self.settings.agent_id,
            state,
            message,
            timestamp_ms: now_ms(),
        };
        say(
            connection,
            (Report::Health, kind::HEALTH_STATUS),
            &status,
            grpc::health,
        );
    }

    fn say_metrics(&self, connection: &Connection, families: &[Family], interval: Duration) {
        let report = report(&self.settings.agent_id, families, interval, now_ms());
        say(
            connection,
            (Report::Metrics, kind::METRICS_REPORT),
            &report,
            grpc::metrics,
        );
    }
}

/// Sends what v1 has no message for.
fn say<T: Serialize>(
    connection: &Connection,
    (report, kind): (Report, u8),
    message: &T,
    grpc: impl FnOnce(&T) -> agent_to_proxy::Message,
) {
    let dialect = connection.dialect();
    if dialect.protocol == Protocol::V1 {
        return;
    }
    connection.report(report, kind, |out| match dialect.encoding {
        _ if dialect.protocol == Protocol::Grpc => grpc::write(grpc(message), out),
        // Neither these types nor a Vec can fail.
        Encoding::Json => drop(serde_json::to_writer(out, message)),
        Encoding::MessagePack => {
            drop(message.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map()));
        }
    });
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0))
}

/// Tells every connection how the agent is, whenever that changes. That it
/// drains, each connection says itself, at the place where it stops reading.
pub(crate) async fn tell_health(shared: Arc<Shared>) {
    let mut health = shared.live.health();
    while health.changed().await.is_ok() {
        let now = health.borrow_and_update().clone();
        match now.state {
            HealthState::Draining => return,
            HealthState::Healthy => tracing::info!("healthy again"),
            state => tracing::warn!(
                state = state.name(),
                reasons = now.reasons.join("; "),
                "health"
            ),
        }
        for connection in shared.sessions.all() {
            shared.say_health(&connection);
        }
    }
}

/// Sends every connection the metrics, once in each interval.
pub(crate) async fn tell_metrics(shared: Arc<Shared>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let connections = shared.sessions.all();
        if connections.is_empty() {
            continue;
        }
        let families = shared.live.picture();
        for connection in connections {
            shared.say_metrics(&connection, &families, interval);
        }
    }
}
