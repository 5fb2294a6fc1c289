//! gRPC v2: the same events and answers, as HTTP/2 streams.
//!
//! In: TCP connections. Out: for each call the answers of one
//! [`Connection`], which is what a Unix connection has too, so that queue,
//! limits, quirks and failure policy are the same. HTTP/2 is hyper's; the
//! envelope around a message is five bytes, and writing it ourselves lets
//! answers from any thread go to one buffer that goes out in batches.

mod body;
mod call;
mod stream;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::accept::{Signals, Transport};
use super::connection::Connection;
use super::exchanges::Peer;
use super::metrics::Closed;
use super::patient::Patient;
use super::{Shared, told_to_stop};
use crate::protocol::wire::Encoding;
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::Dialect;
use body::{CallAnswers, CallBody, Status};
use call::{Call, Calls};
use stream::{Mode, Reader};

/// Calls at once on one connection. A proxy keeps one for each connection.
const MAX_STREAMS: u32 = 200;
/// A peer that is silent so long is asked, and closed if it stays silent.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// What a client sends before anything else, in bytes.
const PREFACE_BYTES: usize = 24;
/// Once told to stop: for the peer to part, when no call is open any more. Also
/// for how long it may go on to call: HTTP/2 lets it until it says that it
/// knows, and one that never says so must not hold the shutdown.
const FAREWELL: Duration = Duration::from_secs(1);
/// Headers of a call; a proxy sends less than 1 KiB of them.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// The names under which released proxies call the one service.
const SERVICES: [&str; 2] = [
    "zentinel.agent.v2.AgentServiceV2",
    "sentinel.agent.v2.AgentServiceV2",
];

impl Transport for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    async fn serve(stream: TcpStream, shared: Arc<Shared>, signals: Signals) {
        serve_connection(stream, shared, signals).await;
    }
}

/// Serves one connection until all its calls are over.
async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, signals: Signals) {
    // Answers are small and must not wait for each other; without it all works.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr();
    let peer = peer.map_or(Peer::Unknown, |address| Peer::Address(address.ip()));
    let settings = &shared.settings;
    let mut stream = Patient::new(stream, settings.write_timeout);
    let received = stream.received(PREFACE_BYTES);
    let called = Arc::new(AtomicBool::new(false));
    let calls = Calls::new(Arc::clone(&shared));
    let service = {
        let (shared, stopped, called) = (
            Arc::clone(&shared),
            signals.stopped.clone(),
            Arc::clone(&called),
        );
        service_fn(move |request| {
            called.store(true, Ordering::Relaxed);
            let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
            // Not before it is polled: only then it is known which call it is.
            async move { Ok::<_, Infallible>(respond(request, &shared, &stopped, peer)) }
        })
    };
    let connection = http2::Builder::new(calls.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut slow = std::pin::pin!(never_begins(received, settings.handshake_timeout));
    let mut unwelcome = std::pin::pin!(signals.crowd.wanted(settings.handshake_timeout));
    let mut stop = std::pin::pin!(told_to_stop(&signals.stopped));
    let mut quiet = std::pin::pin!(calls.quiet(FAREWELL));
    let (mut stopping, mut silent) = (false, true);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    // A proxy that gave up and left; no error of ours.
                    tracing::debug!(%error, "gRPC connection ended");
                }
                return;
            }
            () = &mut stop, if !stopping => {
                stopping = true;
                calls.stop_after(FAREWELL);
                // GOAWAY: no new calls, and the end after the last open one.
                connection.as_mut().graceful_shutdown();
            }
            // A peer that does not part must not hold the shutdown.
            () = &mut quiet, if stopping => return,
            () = calls.forsaken() => return,
            () = &mut slow, if silent => {
                return close(&shared, Closed::Slow, "it sent half of its first message");
            }
            // Only where others wait for its place: a client may connect long
            // before it calls.
            () = &mut unwelcome, if silent => {
                silent = false;
                if called.load(Ordering::Relaxed) {
                    signals.crowd.pass_on();
                } else {
                    return close(&shared, Closed::GaveWay, "it was idle, and another connection waits");
                }
            }
        }
    }
}

fn close(shared: &Shared, reason: Closed, why: &str) {
    shared.live.metrics().closed(reason);
    if shared.log_limiter.admit() {
        tracing::warn!(why, "gRPC connection closed");
    }
}

/// Ready where a peer began to speak and then did not get through its preface
/// in time.
async fn never_begins(mut received: watch::Receiver<usize>, limit: Duration) {
    // Without a sender there is no stream either.
    let _ = received.wait_for(|count| *count > 0).await;
    tokio::time::sleep(limit).await;
    if *received.borrow() == PREFACE_BYTES {
        std::future::pending::<()>().await;
    }
}

/// Begins one call. The response's headers go out at once: the client waits
/// for them before it sends anything.
fn respond(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
    peer: Peer,
) -> Response<CallBody> {
    let mode = match mode(&request) {
        Ok(mode) => mode,
        Err(status) => return refusal(&status),
    };
    let dialect = Dialect {
        protocol: Protocol::Grpc,
        encoding: Encoding::Json,
        request_body: shared.settings.request_body,
    };
    let call = Call::current();
    if call.is_late() {
        return refusal(&Status::unavailable("this agent is stopping"));
    }
    let connection = Arc::new(Connection::new(Arc::clone(shared), dialect, None, peer));
    let (answers, ending) = CallAnswers::new(Arc::clone(&connection), Arc::clone(&call));
    let reader = Reader::new(request.into_body(), connection, call, ending);
    tokio::spawn(reader.run(mode, stopped.clone()));
    let mut response = Response::new(CallBody::Answers(answers));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Which of the three methods is called, if this is a call at all.
fn mode(request: &Request<Incoming>) -> Result<Mode, Status> {
    let headers = request.headers();
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value == b"application/grpc" || value.starts_with(b"application/grpc+proto")
    });
    if request.method() != Method::POST || !is_grpc {
        return Err(Status::not_grpc());
    }
    if let Some(encoding) = headers.get("grpc-encoding")
        && encoding != "identity"
    {
        return Err(Status::unimplemented("compressed messages are not read"));
    }
    let called = request.uri().path().strip_prefix('/');
    match called.and_then(|path| path.split_once('/')) {
        Some((service, method)) if SERVICES.contains(&service) => match method {
            "ProcessStream" => Ok(Mode::Stream),
            "ProcessEvent" => Ok(Mode::Single),
            "ControlStream" => Ok(Mode::Control),
            _ => Err(Status::unimplemented("no such method")),
        },
        _ => Err(Status::unimplemented("no such service")),
    }
}

/// A response without a body.
fn refusal(status: &Status) -> Response<CallBody> {
    let mut response = Response::new(CallBody::Nothing);
    *response.status_mut() = status.http();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    headers.extend(status.headers());
    response
}
