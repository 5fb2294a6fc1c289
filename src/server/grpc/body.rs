//! The outgoing half of one gRPC call: batches of messages, and the status at the end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use http::header::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};

use super::call::{Batch, Call};
use crate::server::connection::{Connection, Next};

/// How a call ended, in gRPC's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    code: Code,
    message: String,
}

/// gRPC's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Ok = 0,
    /// Also for what is no call at all.
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

macro_rules! statuses {
    ($($name:ident => $code:ident),* $(,)?) => {
        $(pub(super) fn $name(message: impl Into<String>) -> Self {
            Self { code: Code::$code, message: message.into() }
        })*
    };
}

impl Status {
    statuses! {
        invalid => InvalidArgument,
        timeout => DeadlineExceeded,
        too_large => ResourceExhausted,
        refused => FailedPrecondition,
        unimplemented => Unimplemented,
        internal => Internal,
        unavailable => Unavailable,
    }

    pub(super) const fn ok() -> Self {
        Self {
            code: Code::Ok,
            message: String::new(),
        }
    }

    /// For an HTTP request that is no gRPC call.
    pub(super) fn not_grpc() -> Self {
        Self {
            code: Code::Unknown,
            message: "this is a gRPC service".to_owned(),
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn http(&self) -> http::StatusCode {
        if self.code == Code::Unknown {
            http::StatusCode::UNSUPPORTED_MEDIA_TYPE
        } else {
            http::StatusCode::OK
        }
    }

    /// The status as headers or trailers.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert("grpc-status", HeaderValue::from(self.code as u16));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::from_str(&escape(&self.message))
        {
            headers.insert("grpc-message", message);
        }
        headers
    }
}

/// Everything but visible ASCII as `%` and two digits, as gRPC has it.
fn escape(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// The body of any response.
pub(super) enum CallBody {
    Answers(CallAnswers),
    Nothing,
}

/// How a call ends; set by its reader before it says that it is done.
pub(super) type Ending = Arc<OnceLock<Status>>;

/// All that one call is sent.
pub(super) struct CallAnswers {
    connection: Arc<Connection>,
    call: Arc<Call>,
    ending: Ending,
    done: bool,
}

impl CallAnswers {
    pub(super) fn new(connection: Arc<Connection>, call: Arc<Call>) -> (Self, Ending) {
        let ending = Ending::default();
        let answers = Self {
            connection,
            call,
            ending: Arc::clone(&ending),
            done: false,
        };
        (answers, ending)
    }

    fn poll_batch(&mut self, context: &Context<'_>) -> Poll<Option<Frame<Batch>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut batch = Vec::new();
        match self.connection.take_unsent(&mut batch, context) {
            Next::Send => {
                self.connection.eased.notify_one();
                Poll::Ready(Some(Frame::data(self.call.hand(batch))))
            }
            Next::Wait => Poll::Pending,
            Next::End => {
                // With the status the call is over for hyper, and nobody could
                // give it up any more.
                ready!(self.call.poll_taken(context));
                self.done = true;
                let status = self.ending.get().cloned();
                let status = status.unwrap_or_else(|| Status::unavailable("cut short"));
                Poll::Ready(Some(Frame::trailers(status.headers())))
            }
        }
    }
}

impl Drop for CallAnswers {
    /// Nobody takes answers any more; nor must the reader wait until somebody
    /// does.
    fn drop(&mut self) {
        self.connection.end();
        self.connection.eased.notify_one();
    }
}

impl Body for CallBody {
    type Data = Batch;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Batch>, Infallible>>> {
        match self.get_mut() {
            Self::Answers(answers) => answers.poll_batch(context).map(|frame| frame.map(Ok)),
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Answers(answers) => answers.done,
            Self::Nothing => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_fit_for_headers() {
        let headers = Status::refused("pool-size: ü\r\n100%").headers();
        assert_eq!(headers["grpc-status"], "9");
        assert_eq!(headers["grpc-message"], "pool-size: %C3%BC%0D%0A100%25");
        assert_eq!(Status::ok().headers().len(), 1);
    }
}
