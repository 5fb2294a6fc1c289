//! Heads and bodies, put together to a transaction's events.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::place::stem;
use super::{CapturedStep, DecodeSettings, Place, Remark, Transaction, headers};
use crate::event::{BodyChunk, Event, Headers, RequestHead, ResponseHead, bare_ip};
use crate::question::Question;

/// One half of an exchange as most formats have it: a head and a whole body.
#[derive(Debug, Default)]
pub(super) struct Half<H> {
    pub(super) head: H,
    pub(super) body: Vec<u8>,
}

/// What a response's status may be.
pub(super) const STATUSES: RangeInclusive<u16> = 100..=999;

impl Half<ResponseHead> {
    pub(super) fn response(status: u16, headers: Headers, body: Vec<u8>) -> Self {
        let head = ResponseHead {
            status,
            headers,
            ..ResponseHead::default()
        };
        Self { head, body }
    }
}

/// An exchange in parts, to be made a transaction.
pub(super) struct ExchangeParts {
    pub(super) place: Place,
    /// When the request came.
    pub(super) at_ns: Option<i64>,
    /// When the response came, where that is known.
    pub(super) response_at_ns: Option<i64>,
    pub(super) request: Option<Half<RequestHead>>,
    pub(super) response: Option<Half<ResponseHead>>,
    pub(super) remarks: Vec<Remark>,
    /// The capture's own id, for a request that carried none.
    pub(super) own_id: Option<String>,
    /// Bytes of the record just read that are of no message.
    pub(super) left_over: Option<LeftOver>,
}

/// Bytes of a record that its reader cannot use, behind what it can.
pub(super) struct LeftOver {
    /// Where they begin in the record.
    pub(super) at: usize,
    pub(super) why: String,
}

impl ExchangeParts {
    pub(super) fn new(place: Place) -> Self {
        Self {
            own_id: None,
            place,
            at_ns: None,
            response_at_ns: None,
            request: None,
            response: None,
            remarks: Vec::new(),
            left_over: None,
        }
    }

    pub(super) fn remark(&mut self, remark: Remark) {
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    /// The client's address as a capture names it, the first of a list; an
    /// empty one stays empty. What is no address is not taken for one.
    pub(super) fn client_ip(&mut self, settings: &DecodeSettings, named: Option<&str>) -> String {
        match named {
            Some("") => String::new(),
            named => named.and_then(address).unwrap_or_else(|| {
                self.remark(Remark::ClientIpDefault);
                settings.client_ip(None)
            }),
        }
    }

    /// Events in production order: what a proxy would have asked about.
    pub(super) fn into_transaction(mut self) -> Transaction<'static> {
        if let Some(request) = &mut self.request
            && headers::as_production(&mut request.head.headers)
        {
            self.remark(Remark::HeaderNotAscii);
        }
        if let Some(response) = &mut self.response
            && headers::as_production(&mut response.head.headers)
        {
            self.remark(Remark::HeaderNotAscii);
        }
        if self.response.is_none() {
            self.remark(Remark::NoResponse);
        }
        let id = self.id();
        let mut steps = Vec::new();
        let (request_at, response_at) = (self.at_ns, self.response_at_ns.or(self.at_ns));
        let mut push = |event: Event| {
            steps.push(CapturedStep {
                at_ns: if event.kind().is_request() {
                    request_at
                } else {
                    response_at
                },
                input: Question::from(event),
                recorded: None,
            });
        };
        let mut request_head = None;
        if let Some(mut request) = self.request {
            request.head.correlation_id.clone_from(&id);
            let head = Arc::new(request.head.clone());
            request_head = Some(Arc::clone(&head));
            push(Event::RequestHeaders(request.head));
            if !request.body.is_empty() {
                push(Event::RequestBody {
                    chunk: whole_body(&id, request.body),
                    request: Some(head),
                });
            }
        }
        if let Some(mut response) = self.response {
            response.head.correlation_id.clone_from(&id);
            let head = Arc::new(response.head.clone());
            push(Event::ResponseHeaders(response.head));
            if !response.body.is_empty() {
                push(Event::ResponseBody {
                    chunk: whole_body(&id, response.body),
                    request: request_head,
                    response: Some(head),
                });
            }
        }
        Transaction {
            place: self.place,
            id: Cow::Owned(id),
            steps,
            expect: None,
            remarks: self.remarks,
        }
    }

    /// The id the request carried, or one from the record's place.
    pub(super) fn id(&self) -> String {
        let carried = self.request.as_ref().and_then(|request| {
            if !request.head.correlation_id.is_empty() {
                return Some(request.head.correlation_id.clone());
            }
            // In the order in which proxies look for it.
            ["x-trace-id", "x-correlation-id", "x-request-id"]
                .into_iter()
                .filter_map(|name| request.head.headers.value(name))
                .find(|id| !id.is_empty() && id.len() <= 256)
                .map(str::to_owned)
        });
        carried
            .or_else(|| self.own_id.clone())
            .unwrap_or_else(|| format!("{}-{}", stem(&self.place.file), self.place.record))
    }
}

/// The client's address: of a list the first, which the proxies before follow.
pub(super) fn address(text: &str) -> Option<String> {
    let first = text.split(',').next().unwrap_or_default().trim();
    let address = bare_ip(first);
    address.parse::<IpAddr>().is_ok().then_some(address)
}

fn whole_body(id: &str, data: Vec<u8>) -> BodyChunk {
    let size = data.len() as u64;
    BodyChunk {
        correlation_id: id.to_owned(),
        chunk_index: 0,
        is_last: true,
        total_size: Some(size),
        transferred_bytes: size,
        data,
    }
}
