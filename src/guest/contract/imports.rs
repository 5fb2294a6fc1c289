//! Imports: which of them are answered, and how to get rid of the others.

use super::ABORT_TYPE;
use crate::check::Check;
use crate::fault::printable;
use crate::guest::inspect::{Import, ItemType, Language};
use crate::guest::wasi::catalog;
use crate::limits::Wasi;

/// What becomes of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// `env.abort` of AssemblyScript: a trap that carries the message.
    Abort,
    /// A function of WASI preview 1, whose world holds nothing.
    Wasi(&'static catalog::Function),
}

/// How we answer an import, if we do.
#[must_use]
pub fn linked(import: &Import) -> Option<Linked> {
    let ItemType::Func(ty) = &import.ty else {
        return None;
    };
    match (import.module.as_str(), import.name.as_str()) {
        ("env", "abort") => (**ty == *ABORT_TYPE).then_some(Linked::Abort),
        (catalog::MODULE, name) => catalog::find(name)
            .filter(|function| **ty == *function.ty)
            .map(Linked::Wasi),
        _ => None,
    }
}

pub(super) fn import(import: &Import, language: Language, wasi: Wasi) -> Check {
    // Names of imports are any text, of any length.
    let name = |text| printable(text, 100);
    let id = format!("import:{}.{}", name(&import.module), name(&import.name));
    let expected = match (wasi, import.module.as_str()) {
        (Wasi::None, _) => "none, or env.abort of AssemblyScript".to_owned(),
        (_, catalog::MODULE) => catalog::find(&import.name).map_or_else(
            || "a function of WASI preview 1".to_owned(),
            |function| format!("func {}", function.ty),
        ),
        _ => "none, env.abort of AssemblyScript, or WASI preview 1".to_owned(),
    };
    let stubbed = |answer| format!("{}, stubbed: {answer}", import.ty);
    match linked(import) {
        Some(Linked::Abort) => {
            Check::pass(id, expected, stubbed("a trap that carries the message"))
        }
        Some(Linked::Wasi(function)) if wasi != Wasi::None => {
            Check::pass(id, expected, stubbed(function.answer(wasi)))
        }
        Some(Linked::Wasi(_)) | None => Check::fail(
            id,
            expected,
            match wasi {
                Wasi::None if import.module == catalog::MODULE => {
                    format!("{}, refused: WASI is off (--wasi none)", import.ty)
                }
                _ => format!("{}, refused", import.ty),
            },
            import_fix(import, language, wasi),
        ),
    }
}

fn import_fix(import: &Import, language: Language, wasi: Wasi) -> String {
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
            Language::Rust => "build for wasm32-unknown-unknown instead of wasm32-wasip1",
            Language::C => "build without a libc that needs WASI (-nostdlib)",
            Language::Go => "build with TinyGo's -target wasm-unknown",
            Language::Zig => "build for wasm32-freestanding",
            Language::AssemblyScript | Language::Unknown => "build without WASI",
        };
        return format!("{without}, or allow it with --wasi fixed");
    }
    if import.module.contains("wbindgen") || import.name.contains("wbindgen") {
        return "build without wasm-bindgen, it needs a JavaScript host".to_owned();
    }
    "a module gets only its input from the host; remove the import".to_owned()
}
