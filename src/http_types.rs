//! From and to the types of the `http` crate, for hosts that are servers or
//! proxies of it (feature `http`).
//!
//! In: a request's or response's head as the host has it; out: the head that an
//! [`Event`](crate::event::Event) carries, and back. In: an
//! [`AgentResponse`]; out: the response to refuse with, and changed headers.
//! Nothing is dropped in silence: a module must not decide about less than what
//! the upstream gets, so what cannot be said is an [`HttpError`].
//!
//! ```
//! use std::net::Ipv4Addr;
//!
//! use wasm_agent_kit::event::RequestHead;
//! use wasm_agent_kit::response::{AgentResponse, Decision};
//!
//! let request = http::Request::get("https://example.org/admin?a=1").body(())?;
//! let head = RequestHead::from_http(&request, "c1", Ipv4Addr::LOCALHOST.into())?;
//! assert_eq!(head.uri, "/admin?a=1");
//! assert_eq!(head.headers.value("host"), Some("example.org"));
//!
//! // What an agent answers to it:
//! let answer = AgentResponse::new(Decision::Block { status: 403, body: Some("no".into()) });
//! let refusal = answer.refusal_to_http()?.expect("it blocks");
//! assert_eq!((refusal.status().as_u16(), refusal.body().as_str()), (403, "no"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, MaxSizeReached};
use http::{Method, Request, Response, StatusCode, Uri};

use crate::event::{Headers, RequestHead, ResponseHead};
use crate::fault::printable;
use crate::response::{AgentResponse, Decision, HeaderOp};

/// Of a name or a line that is shown in a message, in bytes.
const SHOWN_BYTES: usize = 60;

/// What one side can say and the other cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Modules read text.
    #[error(
        "header {name}: expected a value in UTF-8, found other bytes; refuse the message, or take the header away before the upstream gets it"
    )]
    NotUtf8 {
        /// The header.
        name: HeaderName,
    },
    /// A name that is no token.
    #[error("expected a header's name, found \"{}\"", printable(name, SHOWN_BYTES))]
    Name {
        /// What was found.
        name: String,
    },
    /// A value with control characters.
    #[error("header {name}: expected a value without control characters")]
    Value {
        /// The header.
        name: HeaderName,
    },
    /// A method that is no token.
    #[error("expected a method, found \"{}\"", printable(method, SHOWN_BYTES))]
    Method {
        /// What was found.
        method: String,
    },
    /// A URI with characters that must be percent-encoded.
    #[error("expected a path and query, found \"{}\"", printable(uri, SHOWN_BYTES))]
    Uri {
        /// What was found.
        uri: String,
    },
    /// More headers than the other type holds.
    #[error("expected fewer headers; an http::HeaderMap holds no more")]
    TooMany,
    /// A status outside 100 to 999.
    #[error("expected a status from 100 to 999, found {status}")]
    Status {
        /// What was found.
        status: u16,
    },
}

impl RequestHead {
    /// The head of `request`, which `client_ip` sent. Events of one exchange have
    /// the same `correlation_id`.
    ///
    /// `uri` becomes path and query, or the authority of a `CONNECT`. Where the URI
    /// has an authority, as in HTTP/2, that is the `host`, whatever `Host` came.
    ///
    /// # Errors
    /// [`HttpError::NotUtf8`].
    pub fn from_http<B>(
        request: &Request<B>,
        correlation_id: impl Into<String>,
        client_ip: IpAddr,
    ) -> Result<Self, HttpError> {
        let uri = request.uri();
        let headers = match uri.authority() {
            // A recipient ignores `Host` where the target has an authority (RFC 9112,
            // 3.2.2): the module decides about the host that is routed to.
            Some(authority) => {
                let mut others = request.headers().clone();
                others.remove(HOST);
                let mut headers = Headers::try_from(&others)?;
                let (_, host) = authority
                    .as_str()
                    .rsplit_once('@')
                    .unwrap_or(("", authority.as_str()));
                headers.prepend(HOST.as_str(), host);
                headers
            }
            None => Headers::try_from(request.headers())?,
        };
        Ok(Self {
            correlation_id: correlation_id.into(),
            method: request.method().as_str().to_owned(),
            uri: uri
                .path_and_query()
                .map_or_else(|| uri.to_string(), ToString::to_string),
            client_ip: client_ip.to_string(),
            headers,
        })
    }

    /// A request with this head. Correlation id and client have no place in it.
    ///
    /// # Errors
    /// [`HttpError::Method`], [`HttpError::Uri`], [`HttpError::Name`],
    /// [`HttpError::Value`].
    pub fn to_http(&self) -> Result<Request<()>, HttpError> {
        let mut request = Request::new(());
        *request.method_mut() =
            Method::from_bytes(self.method.as_bytes()).map_err(|_not_a_token| {
                HttpError::Method {
                    method: self.method.clone(),
                }
            })?;
        *request.uri_mut() = Uri::try_from(&self.uri).map_err(|_not_a_uri| HttpError::Uri {
            uri: self.uri.clone(),
        })?;
        *request.headers_mut() = HeaderMap::try_from(&self.headers)?;
        Ok(request)
    }
}

impl ResponseHead {
    /// The head of `response`, of the exchange with this `correlation_id`.
    ///
    /// # Errors
    /// [`HttpError::NotUtf8`].
    pub fn from_http<B>(
        response: &Response<B>,
        correlation_id: impl Into<String>,
    ) -> Result<Self, HttpError> {
        Ok(Self {
            correlation_id: correlation_id.into(),
            status: response.status().as_u16(),
            headers: Headers::try_from(response.headers())?,
        })
    }

    /// A response with this head. The correlation id has no place in it.
    ///
    /// # Errors
    /// [`HttpError::Status`], [`HttpError::Name`], [`HttpError::Value`].
    pub fn to_http(&self) -> Result<Response<()>, HttpError> {
        let mut response = Response::new(());
        *response.status_mut() = status(self.status)?;
        *response.headers_mut() = HeaderMap::try_from(&self.headers)?;
        Ok(response)
    }
}

/// Names in lower case; the values of one name in their order, and behind each
/// other.
impl TryFrom<&HeaderMap> for Headers {
    type Error = HttpError;

    fn try_from(map: &HeaderMap) -> Result<Self, HttpError> {
        let mut headers = Self::with_capacity(map.len(), 0);
        for (name, value) in map {
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_other_bytes| HttpError::NotUtf8 { name: name.clone() })?;
            headers.push(name.as_str(), value);
        }
        Ok(headers)
    }
}

impl TryFrom<&Headers> for HeaderMap {
    type Error = HttpError;

    fn try_from(headers: &Headers) -> Result<Self, HttpError> {
        let mut map = Self::try_with_capacity(headers.len()).map_err(too_many)?;
        for (name, value) in headers {
            let name = header_name(name)?;
            let value = header_value(&name, value)?;
            map.try_append(name, value).map_err(too_many)?;
        }
        Ok(map)
    }
}

impl AgentResponse {
    /// What the client gets instead of the upstream's answer; none where the
    /// decision is to allow.
    ///
    /// A block's body is of no type: set `content-type` where clients need it. A
    /// challenge has no form in HTTP that every host can send, and is a block with
    /// 403; a host that has one looks at the decision first. Header operations are
    /// for what is allowed, and do not change a refusal.
    ///
    /// # Errors
    /// [`HttpError::Status`] or [`HttpError::Value`], for a decision that no module
    /// gave. It is a refusal all the same and must not be taken for an allow.
    pub fn refusal_to_http(&self) -> Result<Option<Response<String>>, HttpError> {
        let mut response = Response::new(String::new());
        let code = match &self.decision {
            Decision::Allow => return Ok(None),
            Decision::Block { status, body } => {
                *response.body_mut() = body.clone().unwrap_or_default();
                *status
            }
            Decision::Redirect { url, status } => {
                let url = header_value(&LOCATION, url)?;
                response.headers_mut().insert(LOCATION, url);
                *status
            }
            Decision::Challenge { .. } => StatusCode::FORBIDDEN.as_u16(),
        };
        *response.status_mut() = status(code)?;
        Ok(Some(response))
    }
}

impl HeaderOp {
    /// Applies operations in their order: all of them, or none.
    ///
    /// # Errors
    /// [`HttpError::Name`] or [`HttpError::Value`], for operations that no module
    /// gave; [`HttpError::TooMany`].
    pub fn apply_all(ops: &[Self], headers: &mut HeaderMap) -> Result<(), HttpError> {
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            let name = header_name(op.name())?;
            let value = op.value().map(|value| header_value(&name, value));
            changes.push((op, name, value.transpose()?));
        }
        let mut changed = headers.clone();
        for (op, name, value) in changes {
            match (op, value) {
                (Self::Add { .. }, Some(value)) => {
                    changed.try_append(name, value).map_err(too_many)?;
                }
                (_, Some(value)) => {
                    changed.try_insert(name, value).map_err(too_many)?;
                }
                (_, None) => {
                    changed.remove(name);
                }
            }
        }
        *headers = changed;
        Ok(())
    }
}

fn too_many(_: MaxSizeReached) -> HttpError {
    HttpError::TooMany
}

fn status(status: u16) -> Result<StatusCode, HttpError> {
    StatusCode::from_u16(status).map_err(|_out_of_range| HttpError::Status { status })
}

fn header_name(name: &str) -> Result<HeaderName, HttpError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_not_a_token| HttpError::Name {
        name: name.to_owned(),
    })
}

fn header_value(name: &HeaderName, value: &str) -> Result<HeaderValue, HttpError> {
    HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_control| HttpError::Value { name: name.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn set(name: &str, value: &str) -> HeaderOp {
        HeaderOp::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn fields(headers: &Headers) -> Vec<(&str, &str)> {
        headers.iter().collect()
    }

    #[test]
    fn a_request_comes_back_as_it_went() {
        let request = Request::post("/a?b=c")
            .header("Host", "example.org")
            .header("X-A", "1")
            .header("X-B", "ä")
            .header("x-a", "2")
            .body("not looked at")
            .unwrap();
        let head = RequestHead::from_http(&request, "c1", CLIENT).unwrap();
        assert_eq!((&*head.method, &*head.uri), ("POST", "/a?b=c"));
        assert_eq!(
            (&*head.client_ip, &*head.correlation_id),
            ("192.0.2.7", "c1")
        );
        let expected = [
            ("host", "example.org"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("x-b", "ä"),
        ];
        assert_eq!(fields(&head.headers), expected);
        let back = head.to_http().unwrap();
        assert_eq!(back.headers(), request.headers());
        assert_eq!(
            (back.method(), back.uri()),
            (request.method(), request.uri())
        );
    }

    #[test]
    fn the_authority_is_the_host_whatever_host_came() {
        for (method, sent, uri) in [
            ("GET", "https://example.org/a?b", "/a?b"),
            ("GET", "https://example.org", "/"),
            ("CONNECT", "example.org", "example.org"),
        ] {
            let mut request = Request::builder()
                .method(method)
                .uri(sent)
                .body(())
                .unwrap();
            let head = RequestHead::from_http(&request, "", CLIENT).unwrap();
            assert_eq!(head.uri, uri);
            assert_eq!(fields(&head.headers), [("host", "example.org")]);
            request
                .headers_mut()
                .insert(HOST, HeaderValue::from_static("other"));
            let head = RequestHead::from_http(&request, "", CLIENT).unwrap();
            assert_eq!(fields(&head.headers), [("host", "example.org")]);
        }
        let request = Request::options("*").body(()).unwrap();
        let head = RequestHead::from_http(&request, "", CLIENT).unwrap();
        assert_eq!((&*head.uri, head.headers.len()), ("*", 0));
    }

    #[test]
    fn a_response_comes_back_as_it_went() {
        let response = Response::builder()
            .status(404)
            .header("set-cookie", "a")
            .header("set-cookie", "b")
            .body(())
            .unwrap();
        let head = ResponseHead::from_http(&response, "c1").unwrap();
        assert_eq!((head.status, &*head.correlation_id), (404, "c1"));
        let back = head.to_http().unwrap();
        assert_eq!(
            (back.status(), back.headers()),
            (response.status(), response.headers())
        );
    }

    #[test]
    fn what_cannot_be_said_is_an_error() {
        let mut response = Response::new(());
        let latin = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        response.headers_mut().insert("x-a", latin);
        let error = ResponseHead::from_http(&response, "").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("header x-a: expected a value in UTF-8"),
            "{error}"
        );

        let head = RequestHead {
            method: "GET".to_owned(),
            uri: "/".to_owned(),
            ..RequestHead::default()
        };
        let refused = |head: RequestHead| head.to_http().unwrap_err().to_string();
        let (method, uri) = ("G\n".to_owned(), "/a b".to_owned());
        assert_eq!(
            refused(RequestHead {
                method,
                ..head.clone()
            }),
            "expected a method, found \"G\\n\""
        );
        assert_eq!(
            refused(RequestHead {
                uri,
                ..head.clone()
            }),
            "expected a path and query, found \"/a b\""
        );
        let headers = Headers::from([("a b", "")]);
        assert_eq!(
            refused(RequestHead {
                headers,
                ..head.clone()
            }),
            "expected a header's name, found \"a b\""
        );
        let headers = Headers::from([("a", "1\r\nb: 2")]);
        assert_eq!(
            refused(RequestHead { headers, ..head }),
            "header a: expected a value without control characters"
        );
        let error = ResponseHead::default().to_http().unwrap_err();
        assert_eq!(error, HttpError::Status { status: 0 });
    }

    #[test]
    fn every_decision_but_allow_is_a_refusal() {
        assert!(AgentResponse::allow().refusal_to_http().unwrap().is_none());
        let refusal = |decision| {
            let mut response = AgentResponse::new(decision);
            response.response_headers.push(set("x-a", "1"));
            response.refusal_to_http().unwrap().unwrap()
        };
        let block = refusal(Decision::Block {
            status: 451,
            body: None,
        });
        assert_eq!((block.status().as_u16(), block.headers().len()), (451, 0));
        assert_eq!(block.body(), "");
        let redirect = refusal(Decision::Redirect {
            url: "/login".to_owned(),
            status: 302,
        });
        assert_eq!(
            (
                redirect.status().as_u16(),
                redirect.headers()[LOCATION].to_str().unwrap()
            ),
            (302, "/login")
        );
        let challenge = refusal(Decision::Challenge {
            challenge_type: "captcha".to_owned(),
            params: BTreeMap::new(),
        });
        assert_eq!(challenge.status().as_u16(), 403);
    }

    #[test]
    fn operations_change_all_values_of_a_name_or_nothing() {
        let mut headers =
            HeaderMap::try_from(&Headers::from([("a", "1"), ("a", "2"), ("b", "3")])).unwrap();
        let remove = HeaderOp::Remove {
            name: "B".to_owned(),
        };
        let wrong = [remove.clone(), set("c", "\0")];
        HeaderOp::apply_all(&wrong, &mut headers).unwrap_err();
        assert_eq!(headers.len(), 3);
        let add = HeaderOp::Add {
            name: "C".to_owned(),
            value: "again".to_owned(),
        };
        HeaderOp::apply_all(&[set("A", "x"), remove, set("c", "ä"), add], &mut headers).unwrap();
        assert_eq!(
            fields(&Headers::try_from(&headers).unwrap()),
            [("a", "x"), ("c", "ä"), ("c", "again")]
        );
    }
}
