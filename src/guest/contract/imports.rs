//! Imports: which of them are answered, and how to get rid of the others.

use crate::check::{Check, CheckKind};
use crate::fault::printable;
use crate::guest::convention::{ABORT_TYPE, Convention};
use crate::guest::inspect::{Facts, Import, Language};
use crate::guest::wasi::catalog;
use crate::limits::Wasi;

pub(super) fn import(import: &Import, facts: &Facts, wasi: Wasi) -> Check {
    // Names of imports are any text, of any length.
    let name = |text| printable(text, 100);
    let id = CheckKind::Import.of(format!("{}.{}", name(&import.module), name(&import.name)));
    let expected = match (wasi, import.module.as_str()) {
        (Wasi::None, _) => "none, or env.abort of AssemblyScript".to_owned(),
        (_, catalog::MODULE) => catalog::find(&import.name).map_or_else(
            || "a function of WASI preview 1".to_owned(),
            |function| format!("func {}", function.ty),
        ),
        _ => "none, env.abort of AssemblyScript, or WASI preview 1".to_owned(),
    };
    let stubbed = |answer| format!("{}, stubbed: {answer}", import.ty);
    match Convention::of(facts)
        .linked(import)
        .and_then(|linked| linked.answer(wasi))
    {
        Some(answer) => Check::pass(id, expected, stubbed(answer)),
        None => Check::fail(
            id,
            expected,
            match wasi {
                Wasi::None if import.module == catalog::MODULE => {
                    format!("{}, refused: WASI is off (--wasi none)", import.ty)
                }
                _ => format!("{}, refused", import.ty),
            },
            import_fix(import, facts.language, wasi),
        ),
    }
}

fn import_fix(import: &Import, language: Option<Language>, wasi: Wasi) -> String {
    if import.module == "wasi_unstable" {
        return format!("build with a newer toolchain, one for {}", catalog::MODULE);
    }
    if import.module.starts_with("wasi:") {
        return "build for WASI preview 1, a core module, instead of preview 2".to_owned();
    }
    if let Some(function) = catalog::find(&import.name)
        && import.module == catalog::MODULE
        && wasi != Wasi::None
    {
        return format!("declare it as WASI preview 1 has it, func {}", function.ty);
    }
    if (import.module.as_str(), import.name.as_str()) == ("env", "abort") {
        return format!("declare it as AssemblyScript has it, func {ABORT_TYPE}");
    }
    if import.module == catalog::MODULE && wasi != Wasi::None {
        return "remove the import; it is not a function of WASI preview 1".to_owned();
    }
    if import.module == catalog::MODULE {
        let without = match language {
            Some(Language::Rust) => "build for wasm32-unknown-unknown instead of wasm32-wasip1",
            Some(Language::C) => "build without a libc that needs WASI (-nostdlib)",
            Some(Language::Go) => "build with TinyGo's -target wasm-unknown",
            Some(Language::Zig) => "build for wasm32-freestanding",
            Some(Language::AssemblyScript) | None => "build without WASI",
        };
        return format!("{without}, or allow it with --wasi fixed");
    }
    if import.module.contains("wbindgen") || import.name.contains("wbindgen") {
        return "build without wasm-bindgen, it needs a JavaScript host".to_owned();
    }
    "a module gets only its input from the host; remove the import".to_owned()
}
