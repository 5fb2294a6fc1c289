//! Chunks whose instance is busy or gone: each answer is right, or has the tag, and
//! all that have it are counted.

use serde_json::Value;

use super::proxies::{CHUNK, HEAD, Proxy, Served, TRANSPORTS, send};
use super::uploads::{Upload, guest_says, has_tag, random, says};
use crate::support::agent::decision_of;
use crate::support::guests::joiner;
use crate::support::{MODES, Random};

const TAG: &str = "instance-changed";
const METRIC: &str = "wasm_agent_chunks_moved_total";

/// Asks about one chunk over a connection of its own kind.
fn chunk(proxy: &mut Proxy, upload: &Upload, at: usize) -> Value {
    proxy.ask(CHUNK, &upload.chunk(at))
}

/// One with the beginning of a body that the last instance in use has got.
fn begun(served: &Served) -> (Proxy, Upload) {
    let mut proxy = served.v2("0.6.54");
    let upload = Upload::new(7, &["abc", "def", "ghi", "jkl"]);
    assert_eq!(decision_of(&proxy.ask(HEAD, &upload.head())), "allow");
    let answer = chunk(&mut proxy, &upload, 0);
    assert_eq!(says(&answer), guest_says(&upload.expected(false)[0]));
    (proxy, upload)
}

/// From here on no instance knows the whole body: every answer says so.
fn is_tagged_to_its_end(served: &Served, (mut proxy, upload): (Proxy, Upload)) {
    for (at, expected) in upload.expected(false).iter().enumerate().skip(1) {
        let answer = chunk(&mut proxy, &upload, at);
        assert!(has_tag(&answer, TAG), "{at}: {answer}");
        // It is wrong indeed.
        assert_ne!(says(&answer), guest_says(expected), "{at}");
        assert_eq!(served.metric(METRIC), u64::try_from(at).unwrap());
        if decision_of(&answer) != "allow" {
            break;
        }
    }
}

#[test]
fn chunks_after_a_trap_of_their_instance_are_tagged() {
    for (is_open, flags) in MODES {
        let served = Served::wat(&joiner("", 0), flags);
        let begun = begun(&served);
        let mut other = served.v2("0.6.54");
        let trap = Upload::new(8, &["!"]);
        other.ask(HEAD, &trap.head());
        let answer = chunk(&mut other, &trap, 0);
        assert_eq!(answer["audit"]["reason_codes"][0], "trap:unreachable");
        assert_eq!(decision_of(&answer) == "allow", is_open);
        is_tagged_to_its_end(&served, begun);
    }
}

#[test]
fn chunks_after_a_reload_are_tagged() {
    let served = Served::wat(&joiner("", 0), &[]);
    let begun = begun(&served);
    served.agent.signal("HUP");
    served.agent.wait_for_line("reloaded");
    is_tagged_to_its_end(&served, begun);
}

/// The instance of the chunk before computes for another body: a chunk waits for it,
/// and no longer than any event waits for an instance.
#[test]
fn a_chunk_waits_for_its_instance_and_no_longer_than_allowed() {
    for (wait, is_moved) in [("20s", false), ("20ms", true)] {
        let served = Served::wat(&joiner("", 400_000_000), &["--queue-wait", wait]);
        let (mut proxy, upload) = begun(&served);
        let mut other = served.v2("0.6.54");
        let slow = Upload::new(8, &["~"]);
        other.ask(HEAD, &slow.head());
        let Proxy::V2(client) = &mut other else {
            panic!("not v2")
        };
        client.send(CHUNK, &slow.chunk(0));
        served.wait_until_busy();
        if is_moved {
            is_tagged_to_its_end(&served, (proxy, upload));
        } else {
            for at in 1..upload.chunks.len() {
                let answer = chunk(&mut proxy, &upload, at);
                assert_eq!(says(&answer), guest_says(&upload.expected(false)[at]));
            }
            assert_eq!(served.metric(METRIC), 0);
        }
        let Proxy::V2(client) = &mut other else {
            panic!("not v2")
        };
        assert_eq!(says(&client.answer()), guest_says(&slow.expected(false)[0]));
    }
}

/// Many at once, whose instances go after a few calls, and some of which trap.
#[test]
fn whatever_happens_an_answer_is_right_or_tagged() {
    let mut uploads = random(96, &mut Random::seeded("moved", 0x0b0d_1e55));
    for upload in uploads.iter_mut().skip(5).step_by(16) {
        upload.chunks[0].insert(0, '!');
    }
    for (isolation, moves) in [("recycle=3", true), ("fresh", false), ("pooled", true)] {
        let flags = ["--queue-wait", "20s", "--isolation", isolation];
        let served = Served::wat(&joiner("", 0), &flags);
        let (mut right, mut tagged, mut faults) = (0, 0, 0);
        for transport in TRANSPORTS {
            let answers = send(served.proxies(transport), &uploads);
            for (upload, answers) in uploads.iter().zip(&answers) {
                for (answer, expected) in answers.iter().zip(upload.expected(false)) {
                    if has_tag(answer, TAG) {
                        tagged += 1;
                    } else if has_tag(answer, "wasm-error") {
                        assert!(upload.chunks[0].starts_with('!'), "{answer}");
                        faults += 1;
                    } else if moves {
                        assert_eq!(says(answer), guest_says(&expected), "{}", upload.id);
                        right += 1;
                    }
                }
            }
        }
        println!("{isolation}: {right} right, {tagged} moved, {faults} faults");
        assert_eq!(served.metric(METRIC), tagged);
        assert_eq!(tagged > 0, moves);
        assert_eq!(faults, 3 * 6);
    }
}
