//! Records as they may stand in a recording of ours, brought together.

use std::collections::{HashSet, VecDeque};
use std::io::Cursor;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{DecodeSettings, Format, Item, Opened, Remark, decode};

/// One record: its number within the test, and all that is written of it.
#[derive(Debug, Clone)]
struct Line {
    number: usize,
    /// The number of its exchange.
    exchange: usize,
    phase: &'static str,
    chunk: Option<(u32, bool)>,
    refuses: bool,
}

impl Line {
    const fn of(phase: &'static str, chunk: Option<(u32, bool)>) -> Self {
        Self {
            number: 0,
            exchange: 0,
            phase,
            chunk,
            refuses: false,
        }
    }

    fn input(&self, id: &str, pad: usize) -> Value {
        let uri = format!("/{}", self.exchange);
        let mut input = match self.phase {
            "request_headers" => {
                json!({"method": "POST", "uri": uri, "client_ip": "192.0.2.1", "correlation_id": id, "headers": {}})
            }
            "response_headers" => json!({"status": 200, "correlation_id": id, "headers": {}}),
            "request_body" => {
                json!({"correlation_id": id, "method": "POST", "uri": uri, "client_ip": "192.0.2.1", "headers": {}})
            }
            _ => {
                json!({"correlation_id": id, "method": "POST", "uri": uri, "client_ip": "192.0.2.1", "status": 200, "headers": {}})
            }
        };
        if let Some((index, is_last)) = self.chunk {
            let side = if self.phase == "request_body" {
                "bytes_received"
            } else {
                "bytes_sent"
            };
            input["chunk_index"] = json!(index);
            input["is_last"] = json!(is_last);
            input["total_size"] = Value::Null;
            input[side] = json!(0);
            input["data"] = json!("a".repeat(pad));
            input["encoding"] = json!("utf8");
        }
        input
    }

    /// As we write it, or as others may: with blanks and other keys first.
    fn text(&self, id: &str, (is_ours, pad): (bool, usize)) -> String {
        let output = if self.refuses {
            json!({"decision": {"block": {"status": 403}}})
        } else {
            json!({"decision": "allow"})
        };
        let (input, phase, number) = (self.input(id, pad), self.phase, self.number);
        if is_ours {
            return format!(
                r#"{{"v":1,"id":"{id}","phase":"{phase}","ts":null,"module":null,"input":{input},"output":{output},"error":null,"fuel":{number},"wall_ns":null,"redacted":[]}}"#
            );
        }
        format!(
            r#"{{ "output": {output}, "fuel": {number}, "input": {input}, "phase": "{phase}", "id": "{id}", "v": 1 }}"#
        )
    }
}

/// The numbers of the records of each exchange that is read, and its remarks.
fn read(text: String) -> Vec<(Vec<usize>, Vec<Remark>)> {
    let reader = Cursor::new(text.into_bytes());
    let opened = Opened::of_reader("c".into(), reader, (Some(Format::Jsonl), 16 << 20));
    let items = opened.unwrap().map(|item| match item {
        Item::Transaction(mut frame) => {
            let transaction = decode(&mut frame, &DecodeSettings::default());
            let transaction = transaction.transaction.unwrap();
            let fuel = |step: &super::super::CapturedStep<'_>| {
                usize::try_from(step.recorded.as_ref().unwrap().fuel.unwrap()).unwrap()
            };
            let numbers = transaction.steps.iter().map(fuel).collect();
            (numbers, transaction.remarks)
        }
        other => panic!("{other:?}"),
    });
    items.collect()
}

prop_compose! {
    /// The events of an exchange: chunks of its bodies, of which some proxies
    /// say which is the last, and a refusal that ends it.
    fn exchange()(
        chunks in (0..4_u32, 0..4_u32),
        says_last in any::<bool>(),
        has_response in any::<bool>(),
        is_early in any::<bool>(),
        refused_at in prop::option::of(0..10_usize),
    ) -> Vec<Line> {
        let body = |phase, count: u32| -> Vec<Line> {
            let chunk = |index| (index, says_last && index + 1 == count);
            (0..count).map(|index| Line::of(phase, Some(chunk(index)))).collect()
        };
        let mut lines = vec![Line::of("request_headers", None)];
        lines.extend(body("request_body", chunks.0));
        let mut response = Vec::new();
        if has_response {
            response.push(Line::of("response_headers", None));
            response.extend(body("response_body", chunks.1));
        }
        // The upstream may answer before it has the last chunk. Before it has the
        // first, only a head tells that this is the same exchange.
        let at = lines.len() - usize::from(is_early && chunks.0 > 1);
        if !response.is_empty() {
            lines.insert(at, response.remove(0));
        }
        lines.extend(response);
        if let Some(at) = refused_at.filter(|at| *at < lines.len()) {
            lines.truncate(at + 1);
            lines[at].refuses = true;
        }
        lines
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// However the records of exchanges are interleaved, which handlers the
    /// module has, and who shares an id: each record is read once. An exchange
    /// with an id of its own comes back as it was. Of those that share one, a
    /// record that does not stand with its own has a remark.
    #[test]
    fn interleaved_exchanges_come_back_as_they_were(
        handlers in 1..16_u8,
        exchanges in prop::collection::vec((0..3_usize, exchange()), 1..9),
        turns in prop::collection::vec(0..8_usize, 0..80),
        is_ours in any::<bool>(),
    ) {
        const PHASES: [&str; 4] =
            ["request_headers", "request_body", "response_headers", "response_body"];
        let is_recorded = |line: &Line| {
            let at = PHASES.iter().position(|phase| *phase == line.phase).unwrap();
            handlers >> at & 1 == 1
        };
        let ids: Vec<usize> = exchanges.iter().map(|(id, _)| *id).collect();
        let mut rest: Vec<VecDeque<Line>> = exchanges
            .into_iter()
            .map(|(_, lines)| lines.into_iter().filter(is_recorded).collect())
            .collect();
        let mut text = String::new();
        let mut owners = Vec::new();
        for turn in turns.into_iter().chain((0..8).flat_map(|exchange| [exchange; 12])) {
            let Some(mut line) = rest.get_mut(turn).and_then(VecDeque::pop_front) else {
                continue;
            };
            (line.number, line.exchange) = (owners.len(), turn);
            owners.push(turn);
            text.push_str(&line.text(&format!("id{}", ids[turn]), (is_ours, 3)));
            text.push('\n');
        }
        let read = read(text.clone());
        let mut all: Vec<usize> = read.iter().flat_map(|(numbers, _)| numbers.clone()).collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..owners.len()).collect::<Vec<_>>(), "{}", text);
        let mut begun = HashSet::new();
        for (numbers, remarks) in &read {
            let exchanges: HashSet<usize> = numbers.iter().map(|at| owners[*at]).collect();
            let is_told = remarks.contains(&Remark::StartMissing)
                || remarks.contains(&Remark::ExchangeUnclear);
            prop_assert!(exchanges.len() == 1 || is_told, "{numbers:?} {}", text);
            for exchange in exchanges {
                let is_whole = begun.insert(exchange);
                prop_assert!(is_whole || is_told, "{numbers:?} {}", text);
                let is_alone = ids.iter().filter(|id| **id == ids[exchange]).count() == 1;
                prop_assert!(is_whole || !is_alone, "{numbers:?} {}", text);
            }
        }
    }
}

fn upload(id: &str, chunks: u32, pad: usize) -> Vec<String> {
    let head = Line::of("request_headers", None);
    let chunks = (0..chunks).map(|at| Line::of("request_body", Some((at, at + 1 == chunks))));
    let lines = [head].into_iter().chain(chunks);
    lines.map(|line| line.text(id, (true, pad))).collect()
}

/// What forces a cut is said, and nothing that is untrue.
#[test]
fn an_exchange_is_cut_only_where_too_much_would_be_held() {
    let sizes = |lines: &[String]| {
        let read = read(lines.join("\n"));
        let sizes: Vec<usize> = read.iter().map(|(numbers, _)| numbers.len()).collect();
        let remarks: Vec<Remark> = read.into_iter().flat_map(|(_, remarks)| remarks).collect();
        (sizes, remarks)
    };
    // Large, and of many records.
    assert_eq!(sizes(&upload("u", 20, 1 << 20)), (vec![21], vec![]));
    assert_eq!(sizes(&upload("u", 9000, 3)), (vec![9001], vec![]));
    let (parts, remarks) = sizes(&upload("u", 100, 1 << 20));
    assert_eq!((parts.len(), parts.iter().sum::<usize>()), (2, 101));
    assert_eq!(remarks, [Remark::ExchangeCut]);
    // Those at the same time are all whole, and so is what spans them.
    let (one, other) = (upload("u", 9, 1 << 20), upload("v", 40, 1 << 20));
    let mut mixed = upload("w", 2, 3);
    let last = mixed.pop().unwrap();
    for (at, line) in other.iter().enumerate() {
        mixed.push(line.clone());
        mixed.extend(one.get(at).cloned());
    }
    mixed.push(last);
    assert_eq!(sizes(&mixed), (vec![3, 41, 10], vec![]));
    // Too far apart.
    let between = (0..5000).map(|at| upload(&format!("o{at}"), 0, 0).remove(0));
    let mut far = vec![one[0].clone(), one[1].clone()];
    far.extend(between);
    far.extend_from_slice(&one[2..4]);
    let (parts, remarks) = sizes(&far);
    assert_eq!((parts[0], parts.len()), (2, 5002));
    assert_eq!(parts.last(), Some(&2));
    assert_eq!(remarks, [Remark::ExchangeCut]);
}
