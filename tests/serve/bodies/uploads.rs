//! Transactions with bodies, and what is right to answer to each of their events.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::Random;
use crate::support::guests::{fnv1a, joined};

/// Transactions that one connection has open at once.
pub(super) const OPEN: usize = 4;
/// Connections of each proxy.
pub(super) const CONNECTIONS: usize = 16;

/// One request with a body.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) chunks: Vec<String>,
    /// Its head says how long the body is.
    pub(super) is_announced: bool,
}

impl Upload {
    pub(super) fn new(number: usize, chunks: &[&str]) -> Self {
        Self {
            id: id_of(number),
            chunks: chunks.iter().map(|&chunk| chunk.into()).collect(),
            is_announced: true,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.chunks.iter().map(String::len).sum()
    }

    pub(super) fn head(&self) -> Value {
        let mut headers = json!({"host":["a.example"],"content-type":["text/plain"]});
        if self.is_announced {
            headers["content-length"] = json!([self.size().to_string()]);
        } else {
            headers["transfer-encoding"] = json!(["chunked"]);
        }
        let id = &self.id;
        json!({"correlation_id":id,
            "metadata":{"correlation_id":id,"request_id":"r","client_ip":"192.0.2.7","client_port":0,
                "protocol":"HTTP/1.1","server_name":null,"timestamp":"2026-11-20T13:31:06Z"},
            "method":"POST","uri":"/upload","headers":headers})
    }

    /// The chunk as a proxy sends it.
    pub(super) fn chunk(&self, at: usize) -> Value {
        let mut event = self.input(at);
        event["correlation_id"] = json!(self.id);
        event["data"] = json!(STANDARD.encode(&self.chunks[at]));
        event
    }

    /// The chunk as a fixture has it, without what is known of its head.
    pub(super) fn input(&self, at: usize) -> Value {
        let sent: usize = self.chunks[..=at].iter().map(String::len).sum();
        json!({"chunk_index":at,"is_last":at + 1 == self.chunks.len(),
            "total_size":self.is_announced.then(|| self.size()),
            "bytes_received":sent,"data":self.chunks[at]})
    }

    /// What is right to answer to each chunk, as the guest says it; where the module
    /// gets bodies whole, only to the last.
    pub(super) fn expected(&self, is_whole: bool) -> Vec<Value> {
        let mut body = String::new();
        let count = self.chunks.len();
        let answer = |(at, chunk): (usize, &String)| {
            body.push_str(chunk);
            let is_last = at + 1 == count;
            if is_whole && !is_last {
                return json!({"decision":"allow","needs_more":true});
            }
            let hash = fnv1a(body.as_bytes());
            serde_json::from_str(&joined(hash, is_last)).unwrap()
        };
        self.chunks.iter().enumerate().map(answer).collect()
    }
}

/// The same under other ids, which are so far from theirs.
pub(super) fn renumbered(uploads: &[Upload], by: usize) -> Vec<Upload> {
    let renumbered = |upload: &Upload| {
        let number: usize = upload.id[1..].parse().unwrap();
        Upload {
            id: id_of(number + by),
            ..upload.clone()
        }
    };
    uploads.iter().map(renumbered).collect()
}

pub(super) fn id_of(number: usize) -> String {
    format!("c{number:05}")
}

/// So many, with bodies of 1 to 20 chunks. An id comes again once the transaction that
/// had it is over: every second group of those that are open at once on a connection
/// takes over the ids of the group before.
pub(super) fn random(count: usize, random: &mut Random) -> Vec<Upload> {
    let group = OPEN * CONNECTIONS;
    let upload = |index: usize| {
        let is_second = index / group % 2 == 1;
        let number = if is_second { index - group } else { index };
        let most = [0, 40, 300, 3000, 3000, 200_000][random.below(6)];
        let size = random.below(most + 1);
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789=&";
        let body: String = (0..size)
            .map(|_| char::from(letters[random.below(letters.len())]))
            .collect();
        let mut cuts: Vec<usize> = (0..random.below(20))
            .map(|_| random.below(size + 1))
            .collect();
        cuts.extend([0, size]);
        cuts.sort_unstable();
        Upload {
            id: id_of(number),
            chunks: cuts
                .windows(2)
                .map(|cut| body[cut[0]..cut[1]].into())
                .collect(),
            is_announced: random.below(3) > 0,
        }
    };
    (0..count).map(upload).collect()
}

/// What an answer says: decision, status, whether it is the last word, header
/// operations and tags.
pub(super) fn says(answer: &Value) -> String {
    let decision = match &answer["decision"] {
        Value::String(word) => word.clone(),
        Value::Object(of) => {
            let (name, what) = of.iter().next().unwrap();
            format!("{name} {}", what["status"])
        }
        other => panic!("{other}"),
    };
    format!(
        "{decision}, more {}, {}, {}",
        answer["needs_more"], answer["request_headers"], answer["audit"]["tags"]
    )
}

/// The same of what a guest says, see [`Upload::expected`].
pub(super) fn guest_says(answer: &Value) -> String {
    says(&response(answer))
}

/// What a guest says as the response that comes of it.
pub(super) fn response(answer: &Value) -> Value {
    let decision = match answer["decision"].as_str() {
        Some("block") => json!({"block":{"status":answer["status"],"body":answer["body"]}}),
        _ => json!("allow"),
    };
    let operations = answer["add_request_headers"].as_object();
    let operations = operations.into_iter().flatten();
    let operations: Vec<Value> = operations
        .map(|(name, value)| json!({"set":{"name":name,"value":value}}))
        .collect();
    let tags = answer.get("tags").cloned().unwrap_or_else(|| json!([]));
    json!({"decision":decision,"request_headers":operations,"response_headers":[],
        "routing_metadata":{},"audit":{"tags":tags,"rule_ids":[],"reason_codes":[]},
        "needs_more":answer["needs_more"] == true,
        "request_body_mutation":null,"response_body_mutation":null})
}

/// Whether an answer has this tag.
pub(super) fn has_tag(answer: &Value, tag: &str) -> bool {
    let tags = answer["audit"]["tags"].as_array().unwrap();
    tags.iter().any(|it| it == tag)
}
