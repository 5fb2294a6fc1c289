//! gRPC v2: the same events and answers, as HTTP/2 streams.
//!
//! In: TCP connections. Out: for each call the answers of one
//! [`Connection`], which is what a Unix connection has too, so that queue,
//! limits, quirks and failure policy are the same. HTTP/2 is hyper's; the
//! envelope around a message is five bytes, and writing it ourselves lets
//! answers from any thread go to one buffer that goes out in batches.

mod body;
pub(crate) mod convert;
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
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Shared;
use super::accept::Transport;
use super::connection::Connection;
use super::exchanges::Peer;
use super::wire::Encoding;
use super::wire::frame::Protocol;
use super::wire::response::Dialect;
use body::{Answers, Reply, Status};
use stream::{Mode, Reader};

/// Calls at once on one connection. A proxy keeps one for each connection.
const MAX_STREAMS: u32 = 200;
/// A peer that is silent so long is asked, and closed if it stays silent.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Headers of a call; a proxy sends less than 1 KiB of them.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// The names under which released proxies call the one service.
const SERVICES: [&str; 2] = [
    "zentinel.agent.v2.AgentServiceV2",
    "sentinel.agent.v2.AgentServiceV2",
];

/// The messages of `proto/agent_v2.proto`.
#[allow(
    clippy::all,
    clippy::doc_markdown,
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; holds what the protocol has, not only what we use"
)]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/zentinel.agent.v2.rs"));
}

impl Transport for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn is_allowed(_: &TcpStream, _: &Shared) -> bool {
        true
    }

    async fn serve(stream: TcpStream, shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
        serve_connection(stream, shared, stopped).await;
    }
}

/// Serves one connection until all its calls are over.
async fn serve_connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are small and must not wait for each other; without it all works.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr();
    let peer = peer.map_or(Peer::Unknown, |address| Peer::Address(address.ip()));
    let called = Arc::new(AtomicBool::new(false));
    let service = {
        let (shared, stopped, called) = (Arc::clone(&shared), stopped.clone(), Arc::clone(&called));
        service_fn(move |request| {
            called.store(true, Ordering::Relaxed);
            let response = respond(request, &shared, &stopped, peer);
            async { Ok::<_, Infallible>(response) }
        })
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut silent = std::pin::pin!(tokio::time::sleep(shared.settings.handshake_timeout));
    let mut stop = std::pin::pin!(async move {
        // Without a sender there is no server either.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
    let (mut stopping, mut waiting) = (false, true);
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
                // GOAWAY: no new calls, and the end after the last open one.
                connection.as_mut().graceful_shutdown();
            }
            () = &mut silent, if waiting => {
                waiting = false;
                if !called.load(Ordering::Relaxed) {
                    if shared.notices.admit() {
                        tracing::warn!("gRPC connection closed: it called nothing");
                    }
                    return;
                }
            }
        }
    }
}

/// Begins one call. The response's headers go out at once: the client waits
/// for them before it sends anything.
fn respond(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
    peer: Peer,
) -> Response<Reply> {
    let mode = match mode(&request) {
        Ok(mode) => mode,
        Err(status) => return refusal(&status),
    };
    let dialect = Dialect {
        protocol: Protocol::Grpc,
        encoding: Encoding::Json,
        request_body: shared.settings.request_body,
    };
    let connection = Arc::new(Connection::new(Arc::clone(shared), dialect, None, peer));
    let (answers, ending) = Answers::new(Arc::clone(&connection));
    let reader = Reader::new(request.into_body(), connection, ending);
    tokio::spawn(reader.run(mode, stopped.clone()));
    let mut response = Response::new(Reply::Answers(answers));
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
fn refusal(status: &Status) -> Response<Reply> {
    let mut response = Response::new(Reply::Nothing);
    *response.status_mut() = status.http();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    headers.extend(status.headers());
    response
}
