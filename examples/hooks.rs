//! A host that lets a plugin look at its records: `cargo run --example hooks`,
//! with an e-mail address of your own after `--` if you like.
//!
//! What a hook refuses is not stored, and what it changes is. A plugin that
//! traps, loops or takes too much refuses: the host goes on either way.

use std::path::Path;

use serde_json::{Value, json};
use wasm_agent_kit::hook::{Hook, HookContext, HookUser};
use wasm_agent_kit::policy::HandledHook;
use wasm_agent_kit::policy::{PluginRuntime, PluginSettings};

/// Normalises an e-mail address before, stamps the record after.
pub(crate) const ACCOUNT: &str = "fixtures/modules/account/account.wasm";
/// Runs into `unreachable`.
pub(crate) const TRAP: &str = "fixtures/modules/hooks/trap.wat";

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plugins = PluginRuntime::new(PluginSettings::default())?;
    for path in [ACCOUNT, TRAP] {
        plugins.load(Path::new(path))?;
    }
    let given = std::env::args().nth(1);
    let email = given.unwrap_or_else(|| " Ada@Example.ORG ".to_owned());
    for plugin in [ACCOUNT, TRAP] {
        match create(&plugins, plugin, &email)? {
            Ok(record) => println!("{plugin}: stored {record}"),
            Err(refused) => println!("{plugin}: {refused}"),
        }
    }
    Ok(())
}

/// Stores a record, with a hook on either side.
pub(crate) fn create(
    plugins: &PluginRuntime,
    plugin: &str,
    email: &str,
) -> Result<Result<Value, String>, Box<dyn std::error::Error>> {
    let mut context = HookContext {
        user: Some(HookUser {
            id: "7".to_owned(),
            role: "user".to_owned(),
        }),
        ..HookContext::default()
    };
    context.input.insert("email".to_owned(), json!(email));
    let before = plugins.call(Path::new(plugin), Hook::Before, context)?;
    if !before.result.ok {
        return Ok(Err(refusal(&before)));
    }
    let mut context = before.context;
    let record = json!({"id": 1, "email": context.input.get("email")});
    context.data = Some(record);
    let after = plugins.call(Path::new(plugin), Hook::After, context)?;
    if !after.result.ok {
        return Ok(Err(refusal(&after)));
    }
    Ok(Ok(after.context.data.unwrap_or(Value::Null)))
}

fn refusal(handled: &HandledHook) -> String {
    let result = &handled.result;
    let error = result.error.as_deref().unwrap_or("no reason given");
    let details = json!(result.details.as_deref().unwrap_or_default());
    format!("refused: {error} {details}")
}
