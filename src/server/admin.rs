//! The HTTP endpoint for operators: metrics and health.
//!
//! In: a TCP listener. Out: `/metrics` for Prometheus, `/healthz` (this
//! process works), `/readyz` (send it events). Answers come from what is known
//! anyway, so whoever asks often slows nobody down; nothing can be changed
//! here. Invariant: who connects is served at once, whoever holds connections
//! already: where there are too many, the oldest is closed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::live::Live;
use super::metrics::{process, text};
use super::patient::Patient;
use crate::protocol::wire::control::HealthState;

/// Connections at once; a scraper and a probe or two need no more.
const MAX_CONNECTIONS: usize = 32;
/// For the next request of a connection, from the end of the last one, and for
/// its peer to take an answer.
const SILENCE: Duration = Duration::from_secs(5);
/// For all requests of a connection together.
const LIFE: Duration = Duration::from_secs(60);
/// A connection is not closed for others before so long: it had time for a
/// request, however many connect at once.
const LEAST_LIFE: Duration = Duration::from_millis(50);
/// Rest after an error of accepting.
const REST: Duration = Duration::from_millis(50);

/// Answers until it is dropped.
pub(crate) async fn serve_admin(listener: TcpListener, live: Live) {
    let mut served = JoinSet::new();
    let mut open: VecDeque<(Instant, AbortHandle)> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(REST).await;
            continue;
        };
        while served.try_join_next().is_some() {}
        open.retain(|(_, connection)| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some((since, oldest)) = open.pop_front()
        {
            sleep_until(since + LEAST_LIFE).await;
            oldest.abort();
        }
        let connection = served.spawn(serve_connection(stream, live.clone()));
        open.push_back((Instant::now(), connection));
    }
}

async fn serve_connection(stream: TcpStream, live: Live) {
    let service = service_fn(|request| {
        let response = respond(&request, &live);
        async { Ok::<_, Infallible>(response) }
    });
    let stream = Patient::new(stream, SILENCE);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SILENCE)
            .serve_connection(TokioIo::new(stream), service)
    );
    let served = match timeout(LIFE, connection.as_mut()).await {
        Ok(served) => served,
        Err(_) => {
            // The answer that is under way is the last.
            connection.as_mut().graceful_shutdown();
            timeout(SILENCE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn respond(request: &Request<Incoming>, live: &Live) -> Response<Full<Bytes>> {
    let mut response = match request.uri().path() {
        "/metrics" => {
            let mut families = live.picture();
            families.extend(process::families());
            reply(StatusCode::OK, text::CONTENT_TYPE, text::text(&families))
        }
        "/healthz" => health(live, StatusCode::OK),
        "/readyz" => health(live, StatusCode::SERVICE_UNAVAILABLE),
        _ => {
            let paths = "not found; there are /metrics, /healthz and /readyz\n";
            reply(StatusCode::NOT_FOUND, TEXT, paths.to_owned())
        }
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let only = "only GET and HEAD\n".to_owned();
        response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, only);
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How the agent is; `elsewhere` is the status while it takes no new events.
fn health(live: &Live, elsewhere: StatusCode) -> Response<Full<Bytes>> {
    #[derive(Serialize)]
    struct Body<'a> {
        status: &'static str,
        reasons: &'a [String],
        module: String,
        hash: &'a str,
        pool_size: usize,
        policy: &'static str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        settings_not_applied: Vec<String>,
    }
    let health = live.health().borrow().clone();
    let policy = live.policy();
    let settings = policy.settings();
    let body = Body {
        status: health.state.name(),
        reasons: &health.reasons,
        module: policy.pool().module().path.display().to_string(),
        hash: &policy.pool().module().hash,
        pool_size: settings.pool.size,
        policy: settings.failure_policy.name(),
        settings_not_applied: live.settings_not_applied(),
    };
    let status = match health.state {
        HealthState::Healthy | HealthState::Degraded => StatusCode::OK,
        HealthState::Draining | HealthState::Unhealthy => elsewhere,
    };
    // This type cannot fail.
    let mut text = serde_json::to_string(&body).unwrap_or_default();
    text.push('\n');
    reply(status, JSON, text)
}
