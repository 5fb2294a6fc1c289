//! Behind the socket a module is what it is in `run`: set up before its first event, with
//! all its memories.

use serde_json::{Value, json};

use crate::support::TestDir;
use crate::support::agent::{Agent, decision_of, request};

/// Refuses only if it was set up once.
pub(crate) const SET_UP: &str = r#"(module (memory (export "memory") 2) (global $set-up (mut i32) (i32.const 0))
    (data (i32.const 1024) "{\22decision\22:\22allow\22}") (data (i32.const 2048) "{\22decision\22:\22block\22}")
    (func (export "alloc") (param i32) (result i32) (i32.const 65536))
    (func (export "dealloc") (param i32 i32))
    (func $set-up (export "__wasm_call_ctors") (global.set $set-up (i32.add (global.get $set-up) (i32.const 1))))
    (func (export "on_response_headers") (param i32 i32) (result i64)
      (if (i32.eqz (global.get $set-up)) (then (call $set-up))) (i64.const 0x0000_0400_0000_0014))
    (func (export "on_request_headers") (param i32 i32) (result i64)
      (select (i64.const 0x0000_0800_0000_0014) (i64.const 0x0000_0400_0000_0014)
        (i32.eq (global.get $set-up) (i32.const 1)))))"#;

#[test]
fn a_module_is_set_up_before_its_first_event_and_has_all_its_memories() {
    let dir = TestDir::new();
    let set_up = dir.file("set-up.wat", SET_UP);
    for module in [set_up.to_str().unwrap(), "right/two-memories.wat"] {
        let agent = Agent::start(module, &["--pool-size", "2"]);
        let mut client = agent.connect_v2();
        for number in 0..4 {
            client.send(0x10, &request(&format!("id-{number}"), "/private/x"));
            assert_eq!(decision_of(&client.answer()), "block", "{module}");
        }
        let mut client = agent.connect();
        let envelope =
            json!({"version":1,"event_type":"request_headers","payload":request("v1", "/")});
        client.send_v1(envelope.to_string().as_bytes());
        let answer: Value = serde_json::from_slice(&client.receive_v1().unwrap()).unwrap();
        assert_eq!(decision_of(&answer), "block", "{module}");
    }
}
