//! For tests: the frames that released proxies sent.

use serde_json::Value;

pub(crate) struct Recorded {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) from_proxy: bool,
}

pub(crate) fn v1() -> Vec<Recorded> {
    read(include_str!(
        "../../../tests/data/wire/sentinel-proxy-0.4.14-v1.jsonl"
    ))
}

pub(crate) fn v2() -> Vec<Recorded> {
    read(include_str!(
        "../../../tests/data/wire/zentinel-proxy-0.6.45-v2.jsonl"
    ))
}

fn read(lines: &str) -> Vec<Recorded> {
    lines
        .lines()
        .map(|line| {
            let frame: Value = serde_json::from_str(line).unwrap();
            Recorded {
                kind: frame["type"].as_str().map_or(0, |hex| {
                    u8::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap()
                }),
                payload: serde_json::to_vec(&frame["payload"]).unwrap(),
                from_proxy: frame["direction"] == "proxy to agent",
            }
        })
        .collect()
}
