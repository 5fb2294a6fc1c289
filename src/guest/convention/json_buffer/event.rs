//! The agent ABI's input: an event, written as the JSON its handler is promised.
//!
//! Keys stand in a fixed order and header names are sorted, so equal events
//! give equal bytes and cost equal fuel.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::event::{BodyChunk, Event, Headers, RequestHead};
use crate::json::Object;
use crate::question::HeaderNames;

/// Writes the input object of the event's handler to `out`.
pub fn write_input(event: &Event, names: HeaderNames, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    match event {
        Event::RequestHeaders(head) => {
            object.text("method", &head.method);
            object.text("uri", &head.uri);
            object.text("client_ip", &head.client_ip);
            object.text("correlation_id", &head.correlation_id);
            object.headers(&head.headers, names);
        }
        Event::ResponseHeaders(head) => {
            object.number("status", u64::from(head.status));
            object.text("correlation_id", &head.correlation_id);
            object.headers(&head.headers, names);
        }
        Event::RequestBody { chunk, request } => {
            object.text("correlation_id", &chunk.correlation_id);
            if let Some(request) = request {
                object.request_line(request);
                object.headers(&request.headers, names);
            }
            object.chunk(chunk, "bytes_received");
        }
        Event::ResponseBody {
            chunk,
            request,
            response,
        } => {
            object.text("correlation_id", &chunk.correlation_id);
            if let Some(request) = request {
                object.request_line(request);
            }
            if let Some(response) = response {
                object.number("status", u64::from(response.status));
                object.headers(&response.headers, names);
            }
            object.chunk(chunk, "bytes_sent");
        }
    }
    object.end();
}

/// The input object, of which some parts stand in several events' input.
trait InputObject {
    fn request_line(&mut self, request: &RequestHead);
    fn chunk(&mut self, chunk: &BodyChunk, transferred_key: &str);
    fn headers(&mut self, headers: &Headers, names: HeaderNames);
}

impl InputObject for Object<'_> {
    fn request_line(&mut self, request: &RequestHead) {
        self.text("method", &request.method);
        self.text("uri", &request.uri);
        self.text("client_ip", &request.client_ip);
    }

    fn chunk(&mut self, chunk: &BodyChunk, transferred_key: &str) {
        self.number("chunk_index", u64::from(chunk.chunk_index));
        self.flag("is_last", chunk.is_last);
        match chunk.total_size {
            Some(size) => self.number("total_size", size),
            None => self.raw("total_size", "null"),
        }
        self.number(transferred_key, chunk.transferred_bytes);
        if let Ok(text) = std::str::from_utf8(&chunk.data) {
            self.text("data", text);
            self.raw("encoding", "\"utf8\"");
        } else {
            self.text("data", &STANDARD.encode(&chunk.data));
            self.raw("encoding", "\"base64\"");
        }
    }

    /// Names sorted, values of one name joined with `, ` in arrival order.
    fn headers(&mut self, headers: &Headers, names: HeaderNames) {
        let mut sorted: Vec<(Cow<'_, str>, &str)> = headers
            .iter()
            .map(|(name, value)| (names.spell(name), value))
            .collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut object = self.object("headers");
        let mut previous: Option<&str> = None;
        for (name, value) in &sorted {
            if previous == Some(name) {
                object.join(value);
            } else {
                object.pair(name, value);
            }
            previous = Some(name);
        }
        object.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::event::ResponseHead;
    use crate::question::canonical;

    fn input(event: &Event, names: HeaderNames) -> String {
        let mut out = Vec::new();
        write_input(event, names, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn head(headers: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            correlation_id: "c1".into(),
            method: "GET".into(),
            uri: "/a?b=\"c\"".into(),
            client_ip: "192.0.2.7".into(),
            headers: headers.iter().copied().collect(),
        }
    }

    #[test]
    fn keys_stand_in_contract_order_and_names_are_sorted_and_joined() {
        let event = Event::RequestHeaders(head(&[
            ("X-B", "2"),
            ("Accept", "a"),
            ("x-b", "3"),
            ("x-a", "\u{1}\n"),
        ]));
        assert_eq!(
            input(&event, HeaderNames::Lower),
            r#"{"method":"GET","uri":"/a?b=\"c\"","client_ip":"192.0.2.7","correlation_id":"c1","headers":{"accept":"a","x-a":"\u0001\n","x-b":"2, 3"}}"#
        );
        assert!(input(&event, HeaderNames::Canonical).contains(r#""X-B":"2, 3""#));
        assert!(input(&event, HeaderNames::AsWritten).contains(r#""X-B":"2","x-a":"#));
    }

    #[test]
    fn body_inputs_carry_the_context_that_is_known() {
        let chunk = BodyChunk {
            correlation_id: "c1".into(),
            is_last: true,
            total_size: Some(5),
            transferred_bytes: 5,
            data: b"hello".to_vec(),
            ..BodyChunk::default()
        };
        let event = Event::RequestBody {
            chunk: chunk.clone(),
            request: Some(Arc::new(head(&[("content-type", "text/plain")]))),
        };
        assert_eq!(
            input(&event, HeaderNames::Lower),
            r#"{"correlation_id":"c1","method":"GET","uri":"/a?b=\"c\"","client_ip":"192.0.2.7","headers":{"content-type":"text/plain"},"chunk_index":0,"is_last":true,"total_size":5,"bytes_received":5,"data":"hello","encoding":"utf8"}"#
        );
        let event = Event::ResponseBody {
            chunk: BodyChunk {
                data: vec![0xff],
                total_size: None,
                ..chunk
            },
            request: None,
            response: Some(Arc::new(ResponseHead {
                status: 200,
                ..ResponseHead::default()
            })),
        };
        assert_eq!(
            input(&event, HeaderNames::Lower),
            r#"{"correlation_id":"c1","status":200,"headers":{},"chunk_index":0,"is_last":true,"total_size":null,"bytes_sent":5,"data":"/w==","encoding":"base64"}"#
        );
    }

    #[test]
    fn canonical_spelling_is_the_published_examples() {
        assert_eq!(canonical("x-request-id"), "X-Request-Id");
        assert_eq!(canonical("USER-AGENT"), "User-Agent");
    }

    proptest! {
        /// What is written is JSON that says what the event said.
        #[test]
        fn any_event_reads_back(uri in any::<String>(), value in any::<String>(), name in any::<String>()) {
            let mut request = head(&[]);
            request.uri.clone_from(&uri);
            request.headers = Headers::from([(&name, value.as_str()), (&name, "z")]);
            let json = input(&Event::RequestHeaders(request), HeaderNames::AsWritten);
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read["uri"].as_str(), Some(uri.as_str()));
            let joined = format!("{value}, z");
            prop_assert_eq!(read["headers"][&name].as_str(), Some(joined.as_str()));
        }

        /// The order of arrival of different names does not change a byte.
        #[test]
        fn equal_headers_give_equal_bytes(seed in any::<u64>()) {
            let mut headers: Vec<(String, String)> =
                (0..12).map(|n| (format!("x-{n}"), format!("{n}"))).collect();
            let one = input(&Event::RequestHeaders(RequestHead { headers: headers.iter().cloned().collect(), ..head(&[]) }), HeaderNames::Lower);
            headers.rotate_left(usize::try_from(seed % 12).unwrap());
            headers.reverse();
            let other = input(&Event::RequestHeaders(RequestHead { headers: headers.into_iter().collect(), ..head(&[]) }), HeaderNames::Lower);
            prop_assert_eq!(one, other);
        }
    }
}
