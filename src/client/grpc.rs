//! The one stream of HTTP/2 that a proxy keeps to a gRPC agent, driven by the
//! thread that waits on it.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client};
use http::Request;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::PATIENCE;

const PATH: &str = "/zentinel.agent.v2.AgentServiceV2/ProcessStream";
/// What may be on its way to us: answers must never wait for a window.
const WINDOW: u32 = 16 << 20;

/// An open stream.
pub(super) struct Stream {
    runtime: Runtime,
    out: UnboundedSender<Bytes>,
    to_send: UnboundedReceiver<Bytes>,
    send: SendStream<Bytes>,
    receive: RecvStream,
}

impl Stream {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let opened = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, open(address))
                .await
                .map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))?
        });
        let (send, receive) = opened?;
        let (out, to_send) = unbounded_channel();
        Ok(Self {
            runtime,
            out,
            to_send,
            send,
            receive,
        })
    }

    pub(super) fn sender(&self) -> UnboundedSender<Bytes> {
        self.out.clone()
    }

    /// Sends what is to be sent until something comes; appends that and says
    /// how much it was, nothing where the agent ended the stream.
    pub(super) fn receive(&mut self, received: &mut Vec<u8>) -> io::Result<usize> {
        let Self {
            runtime,
            to_send,
            send,
            receive,
            ..
        } = self;
        runtime.block_on(async {
            let until = tokio::time::sleep(PATIENCE);
            let mut until = std::pin::pin!(until);
            loop {
                tokio::select! {
                    biased;
                    Some(bytes) = to_send.recv() => {
                        send.send_data(bytes, false).map_err(io::Error::other)?;
                    }
                    data = receive.data() => {
                        let Some(data) = data else {
                            return ended(receive).await;
                        };
                        let data = data.map_err(io::Error::other)?;
                        // Without the window nothing more would come.
                        receive
                            .flow_control()
                            .release_capacity(data.len())
                            .map_err(io::Error::other)?;
                        if !data.is_empty() {
                            received.extend_from_slice(&data);
                            return Ok(data.len());
                        }
                    }
                    () = &mut until => return Err(io::ErrorKind::TimedOut.into()),
                }
            }
        })
    }
}

/// The agent says in the trailers why it ended.
async fn ended(receive: &mut RecvStream) -> io::Result<usize> {
    let trailers = receive.trailers().await.map_err(io::Error::other)?;
    let text = |name| {
        let value = trailers.as_ref()?.get(name)?;
        Some(crate::fault::printable(value.to_str().ok()?, 200))
    };
    match text("grpc-status") {
        Some(status) if status != "0" => Err(io::Error::other(format!(
            "the agent ended the stream with status {status}: {}",
            text("grpc-message").unwrap_or_default()
        ))),
        _ => Ok(0),
    }
}

async fn open(address: SocketAddr) -> io::Result<(SendStream<Bytes>, RecvStream)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut requests, connection) = client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    // Its end is the end of the stream, which says why.
    drop(tokio::spawn(connection));
    let request = Request::post(format!("http://{address}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(io::Error::other)?;
    let (response, send) = requests
        .send_request(request, false)
        .map_err(io::Error::other)?;
    let response = response.await.map_err(io::Error::other)?;
    if let Some(status) = response.headers().get("grpc-status") {
        return Err(io::Error::other(format!(
            "the agent refuses the call with status {status:?}"
        )));
    }
    if !response.status().is_success() {
        return Err(io::Error::other(format!(
            "expected an agent, found a server that answers {}",
            response.status()
        )));
    }
    Ok((send, response.into_body()))
}
