//! The static half of the module contract: what can be judged without running.
//!
//! In: [`Facts`], the limits and the ABI asked for. Out: every check with its
//! result, so that all problems are found in one pass. `validate` prints them;
//! `load` refuses a module on any failed one. There is no second list.

use serde::Serialize;

use crate::abi::{Abi, AbiChoice};
use crate::fault::printable;
use crate::inspect::{Export, Facts, Import, ItemType, Language};
use crate::limits::{self, LimitChoice, Limits, LoadLimits, Wasi};
use crate::wasi::catalog;

/// Bytes of one wasm page.
pub const PAGE_BYTES: u64 = 64 << 10;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// Not looked at, because of what was found before.
    Skip,
    /// Allowed, and likely to hurt one day.
    Warn,
    /// The contract is broken.
    Fail,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, such as `export:alloc`.
    pub id: String,
    /// How it came out.
    pub status: CheckStatus,
    /// What the contract asks for.
    pub expected: String,
    /// What the module has.
    pub found: String,
    /// How to mend it, empty where nothing is to be mended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Check {
    /// A check that came out well.
    pub fn pass(
        id: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            status: CheckStatus::Pass,
            expected: expected.into(),
            found: found.into(),
            fix: String::new(),
        }
    }

    /// The same with another status and a fix.
    #[must_use]
    pub fn with(mut self, status: CheckStatus, fix: impl Into<String>) -> Self {
        self.status = status;
        self.fix = fix.into();
        self
    }

    /// A check that failed.
    pub fn fail(
        id: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::pass(id, expected, found).with(CheckStatus::Fail, fix)
    }

    /// Fails with this fix where the condition does not hold.
    fn requires(self, holds: bool, fix: impl FnOnce() -> String) -> Self {
        if holds {
            self
        } else {
            self.with(CheckStatus::Fail, fix())
        }
    }
}

/// What the static checks found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Every check, in the order a reader wants them.
    pub checks: Vec<Check>,
    /// The ABI the module is held to, where one could be settled.
    pub abi: Option<Abi>,
}

impl Verdict {
    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| check.status == CheckStatus::Fail)
    }
}

/// Judges a module by its facts.
#[must_use]
pub fn check(facts: &Facts, choice: AbiChoice, limits: LimitChoice, load: &LoadLimits) -> Verdict {
    let mut checks = vec![size(facts, load), features(facts)];
    if facts.is_component {
        return Verdict { checks, abi: None };
    }
    checks.push(complexity(facts));
    let (abi, abi_check) = abi(facts, choice);
    checks.push(abi_check);
    // Without an ABI the larger of the two defaults holds.
    let limits = limits.over(abi.unwrap_or(Abi::Agent).limits());
    checks.push(memory(facts, &limits));
    checks.push(function(facts, "alloc", ALLOC_TYPE));
    checks.push(function(facts, "dealloc", DEALLOC_TYPE));
    if let Some(abi) = abi {
        checks.extend(
            abi.handlers()
                .iter()
                .filter(|name| {
                    facts.export(name).is_some() || abi.required_handler() == Some(**name)
                })
                .map(|name| function(facts, name, HANDLER_TYPE)),
        );
        checks.extend(near_handlers(facts, abi));
    }
    checks.push(tables(facts));
    checks.extend(
        facts
            .imports
            .iter()
            .take(limits::MAX_LISTED)
            .enumerate()
            .filter(|(index, import)| !facts.imports[..*index].contains(import))
            .map(|(_, import)| import)
            .map(|import| self::import(import, facts.language, limits.wasi)),
    );
    if facts.imports.len() > limits::MAX_LISTED {
        checks.push(Check::fail(
            "imports",
            format!("at most {}", limits::MAX_LISTED),
            format!("{}; only the first are listed", facts.imports.len()),
            "a module gets nothing from its host but its input; take the imports away",
        ));
    }
    if facts.imports.is_empty() {
        checks.push(Check::pass("imports", "none, or ones we link", "none"));
    }
    checks.extend(start(facts));
    Verdict { checks, abi }
}

/// `alloc`, `dealloc` and every handler, as the contract types them.
pub const ALLOC_TYPE: &str = "(i32) -> i32";
/// See [`ALLOC_TYPE`].
pub const DEALLOC_TYPE: &str = "(i32, i32)";
/// See [`ALLOC_TYPE`].
pub const HANDLER_TYPE: &str = "(i32, i32) -> i64";
/// `_initialize` of a reactor.
const INITIALIZE_TYPE: &str = "()";
/// AssemblyScript's `abort(message, file, line, column)`.
pub const ABORT_TYPE: &str = "(i32, i32, i32, i32)";

fn size(facts: &Facts, load: &LoadLimits) -> Check {
    Check::pass(
        "size",
        format!("at most {} bytes", load.max_module_bytes),
        format!("{} bytes", facts.size_bytes),
    )
    .requires(facts.size_bytes <= load.max_module_bytes, || {
        "strip debug sections, or raise --max-module".to_owned()
    })
}

fn features(facts: &Facts) -> Check {
    let expected = "a core module using only the proposals toolchains emit by default";
    if facts.is_component {
        return Check::fail(
            "features",
            expected,
            "a component",
            "build a core module: --target wasm32-unknown-unknown for Rust, no `wasm-tools component new`",
        );
    }
    let found = if facts.disallowed_features.is_empty() {
        "nothing else".to_owned()
    } else {
        facts.disallowed_features.join(", ")
    };
    Check::pass("features", expected, found).requires(facts.disallowed_features.is_empty(), || {
        match facts.language {
            Language::Rust => "build without the matching -C target-feature=+…".to_owned(),
            Language::C => "build without the matching -m… flag of clang".to_owned(),
            Language::AssemblyScript => "build without the matching --enable …".to_owned(),
            Language::Go | Language::Zig | Language::Unknown => {
                "switch these proposals off in the compiler; they are off in production".to_owned()
            }
        }
    })
}

fn complexity(facts: &Facts) -> Check {
    let have = facts.complexity;
    let over = [
        (
            "functions",
            u64::from(have.functions),
            u64::from(limits::MAX_FUNCTIONS),
        ),
        (
            "bytes in one function",
            have.largest_body_bytes as u64,
            limits::MAX_FUNCTION_BYTES as u64,
        ),
        (
            "locals in one function",
            have.most_locals,
            limits::MAX_LOCALS,
        ),
        (
            "nested blocks",
            u64::from(have.deepest_nesting),
            u64::from(limits::MAX_NESTING),
        ),
        (
            "uses of locals within loops in one function",
            have.most_carried_locals,
            limits::MAX_CARRIED_LOCALS,
        ),
        (
            "types, parameters and results of types",
            have.type_values,
            limits::MAX_TYPE_VALUES,
        ),
        (
            "data segments",
            u64::from(have.data_segments),
            u64::from(limits::MAX_DATA_SEGMENTS),
        ),
        (
            "element segments",
            u64::from(have.element_segments),
            u64::from(limits::MAX_ELEMENT_SEGMENTS),
        ),
    ]
    .into_iter()
    .find(|(_, found, limit)| found > limit);
    match over {
        Some((what, found, limit)) => Check::fail(
            "complexity",
            format!("at most {limit} {what}"),
            format!("{found}"),
            "split generated code into smaller functions; compile time grows faster than linearly",
        ),
        None => Check::pass(
            "complexity",
            "compiles in bounded time",
            format!(
                "{} functions, the largest {} bytes",
                have.functions, have.largest_body_bytes
            ),
        ),
    }
}

fn abi(facts: &Facts, choice: AbiChoice) -> (Option<Abi>, Check) {
    let present = |abi: Abi| -> Vec<&'static str> {
        abi.handlers()
            .iter()
            .copied()
            .filter(|name| facts.export(name).is_some())
            .collect()
    };
    let agent = present(Abi::Agent);
    let hook = present(Abi::Hook);
    let expected = match choice {
        AbiChoice::Auto => "handlers of one ABI".to_owned(),
        AbiChoice::Only(abi) => format!("handlers of the {} ABI (--abi {0})", abi.name()),
    };
    let found_list = |abi: Abi, names: &[&str]| format!("{} ABI: {}", abi.name(), names.join(", "));
    match (choice, agent.is_empty(), hook.is_empty()) {
        (AbiChoice::Auto, false, false) => (
            None,
            Check::fail(
                "abi",
                expected,
                format!("both: {}, {}", agent.join(", "), hook.join(", ")),
                "--abi agent or --abi hook settles it",
            ),
        ),
        (AbiChoice::Auto | AbiChoice::Only(Abi::Agent), false, _) => (
            Some(Abi::Agent),
            Check::pass("abi", expected, found_list(Abi::Agent, &agent)),
        ),
        (AbiChoice::Auto | AbiChoice::Only(Abi::Hook), _, false) => (
            Some(Abi::Hook),
            Check::pass("abi", expected, found_list(Abi::Hook, &hook)),
        ),
        (AbiChoice::Only(Abi::Agent), true, false) => (
            None,
            other_abi(expected, found_list(Abi::Hook, &hook), Abi::Hook),
        ),
        (AbiChoice::Only(Abi::Hook), false, true) => (
            None,
            other_abi(expected, found_list(Abi::Agent, &agent), Abi::Agent),
        ),
        (_, true, true) => {
            let near: Vec<String> = Abi::ALL
                .iter()
                .flat_map(|abi| abi.handlers())
                .filter_map(|name| near_miss(facts, name).map(|near| (near, *name)))
                .map(|(near, name)| format!("{:?} for {name:?}", near.name))
                .collect();
            let found = if near.is_empty() {
                "no handler".to_owned()
            } else {
                format!("no handler, but {}", near.join(", "))
            };
            let handler = match choice {
                AbiChoice::Only(Abi::Hook) => Abi::Hook.handlers()[0],
                AbiChoice::Auto | AbiChoice::Only(Abi::Agent) => Abi::Agent.handlers()[0],
            };
            let fix = declare(facts.language, handler, HANDLER_TYPE);
            (None, Check::fail("abi", expected, found, fix))
        }
    }
}

/// A module that is right by the ABI that was not asked for.
fn other_abi(expected: String, found: String, abi: Abi) -> Check {
    let fix = format!(
        "this is {}; leave --abi out, or use --abi {}; {}",
        abi.describe(),
        abi.name(),
        abi.way_out()
    );
    Check::fail("abi", expected, found, fix)
}

fn memory(facts: &Facts, limits: &Limits) -> Check {
    let expected = format!(
        "exports its one 32-bit, unshared memory of at most {} as \"memory\"",
        mib(limits.max_memory_bytes)
    );
    let fail = |found: String, fix: &str| Check::fail("memory", expected.clone(), found, fix);
    if facts.memories.len() > 1 {
        return fail(
            format!("{} memories", facts.memories.len()),
            "keep one memory; multi-memory is off",
        );
    }
    let Some(memory) = facts.memories.first() else {
        return fail(
            "no memory".to_owned(),
            "add a memory and export it as \"memory\"",
        );
    };
    match facts.export("memory") {
        Some(export) if export.ty == ItemType::Memory => {}
        Some(export) => {
            return fail(
                format!("\"memory\" is a {}", export.ty),
                "export the memory under this name",
            );
        }
        None => {
            let other = facts
                .exports
                .iter()
                .find(|export| export.ty == ItemType::Memory);
            return match other {
                Some(other) => fail(
                    format!("it is exported as {:?}", other.name),
                    "export it as \"memory\"",
                ),
                None => fail(
                    "it is not exported".to_owned(),
                    "export it; with wasm-ld drop --import-memory and --no-export-memory",
                ),
            };
        }
    }
    if memory.is_imported {
        return fail(
            "it is imported".to_owned(),
            "define it in the module (with wasm-ld, drop --import-memory)",
        );
    }
    if memory.is_64 {
        return fail(
            "it is a 64-bit memory".to_owned(),
            "build for wasm32, not wasm64",
        );
    }
    if memory.is_shared {
        return fail(
            "it is shared".to_owned(),
            "build without threads and --shared-memory",
        );
    }
    let initial = memory.initial_pages.saturating_mul(PAGE_BYTES);
    if initial > limits.max_memory_bytes {
        return fail(
            format!("{} at instantiation", mib(initial)),
            "ask for less initial memory, or raise --max-memory",
        );
    }
    Check::pass(
        "memory",
        expected,
        format!(
            "{} at instantiation, {}",
            mib(initial),
            memory.maximum_pages.map_or_else(
                || "no maximum of its own".to_owned(),
                |pages| format!("at most {}", mib(pages.saturating_mul(PAGE_BYTES)))
            )
        ),
    )
}

/// A size in MiB or KiB, whichever is whole.
fn mib(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

/// What runs as an instance is made.
fn start(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    if facts.has_start {
        checks.push(Check::pass(
            "start",
            "a start function that ends within the deadline",
            "a start function; it runs at every instantiation",
        ));
    }
    if facts.export("_initialize").is_some() {
        checks.push(function(facts, "_initialize", INITIALIZE_TYPE));
    } else if facts.export("_start").is_some() {
        // Nobody calls it, so whatever it sets up is not there.
        checks.push(
            Check::pass(
                "start",
                "_initialize, or nothing to set up",
                "a program with a main function (_start), which is never called",
            )
            .with(CheckStatus::Warn, reactor(facts.language)),
        );
    }
    checks
}

/// How to build a library that is set up once instead of a program.
const fn reactor(language: Language) -> &'static str {
    match language {
        Language::Go => "build with -buildmode=c-shared",
        Language::C => "link with -mexec-model=reactor, or with -nostartfiles -Wl,--no-entry",
        Language::Rust => "build a cdylib instead of a binary",
        Language::Zig => "build with -fno-entry and -mexec-model=reactor",
        Language::AssemblyScript | Language::Unknown => "build a reactor instead of a command",
    }
}

/// A function export of a given type. Absent and mistyped are different things.
fn function(facts: &Facts, name: &str, ty: &str) -> Check {
    let id = format!("export:{name}");
    let expected = format!("func {ty}");
    let found = match facts.export(name) {
        Some(export) if export.ty == ItemType::Func(ty.into()) => {
            return Check::pass(id, expected, export.ty.to_string());
        }
        Some(export) => format!("mistyped: {}", export.ty),
        None => near_miss(facts, name).map_or_else(
            || "absent".to_owned(),
            |near| format!("absent, but there is {:?}: {}", near.name, near.ty),
        ),
    };
    Check::fail(id, expected, found, declare(facts.language, name, ty))
}

/// Exports that look like a handler and are none: they would never be called.
fn near_handlers(facts: &Facts, abi: Abi) -> Vec<Check> {
    abi.handlers()
        .iter()
        .filter(|name| facts.export(name).is_none() && abi.required_handler() != Some(**name))
        .filter_map(|name| near_miss(facts, name).map(|near| (*name, near)))
        .map(|(name, near)| {
            Check::pass(
                format!("export:{name}"),
                format!("func {HANDLER_TYPE}, or no such export"),
                format!("{:?}, which is never called", near.name),
            )
            .with(
                CheckStatus::Warn,
                format!("rename it to {name:?}, or take it away"),
            )
        })
        .collect()
}

/// The export somebody may have meant by `name`.
fn near_miss<'a>(facts: &'a Facts, name: &str) -> Option<&'a Export> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = plain(name);
    let synonyms: &[&str] = match name {
        "alloc" => &["malloc", "allocate", "wbindgenmalloc", "new"],
        "dealloc" => &["free", "deallocate", "wbindgenfree"],
        _ => &[],
    };
    facts
        .exports
        .iter()
        .filter(|export| matches!(export.ty, ItemType::Func(_)))
        // Comparing takes time that grows with the length, and no name of the
        // contract is near a long one.
        .filter(|export| export.name.len() <= 64)
        .filter(|export| !contract_names().any(|known| known == export.name))
        .filter_map(|export| {
            let have = plain(&export.name);
            let distance = if synonyms.contains(&have.as_str()) {
                1
            } else {
                strsim::damerau_levenshtein(&have, &wanted)
            };
            (distance <= 2.min(wanted.len() / 4)).then_some((distance, export))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, export)| export)
}

fn contract_names() -> impl Iterator<Item = &'static str> {
    Abi::ALL
        .iter()
        .flat_map(|abi| abi.handlers().iter().copied())
        .chain(["alloc", "dealloc", "memory"])
}

fn tables(facts: &Facts) -> Check {
    let largest = facts.tables.iter().copied().max().unwrap_or(0);
    let found = match facts.tables.len() {
        0 => "none".to_owned(),
        1 => format!("1 of {largest} elements"),
        count => format!("{count}, the largest of {largest} elements"),
    };
    let expected = format!(
        "at most {} tables of at most {} elements",
        limits::MAX_TABLES,
        limits::MAX_TABLE_ELEMENTS
    );
    Check::pass("tables", expected, found).requires(
        facts.tables.len() <= limits::MAX_TABLES && largest <= limits::MAX_TABLE_ELEMENTS,
        || "make the table smaller".to_owned(),
    )
}

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

fn import(import: &Import, language: Language, wasi: Wasi) -> Check {
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
                    format!("{}, refused: there is no WASI (--wasi none)", import.ty)
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
    if import.module == catalog::MODULE && wasi != Wasi::None {
        return "take the import away; this is no function of WASI preview 1".to_owned();
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
    "a module gets nothing from its host but its input; take the import away".to_owned()
}

/// How a function of this type is exported in the module's own language.
fn declare(language: Language, name: &str, ty: &str) -> String {
    let (params, result): (&[&str], Option<&str>) = match ty {
        ALLOC_TYPE => (&["size"], Some("32")),
        DEALLOC_TYPE => (&["ptr", "size"], None),
        _ => (&["ptr", "len"], Some("64")),
    };
    let list = |one: &dyn Fn(&str) -> String| {
        params
            .iter()
            .map(|param| one(param))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let result = |one: &dyn Fn(&str) -> String| result.map(one).unwrap_or_default();
    match language {
        Language::Rust => format!(
            "#[unsafe(no_mangle)] pub extern \"C\" fn {name}({}){}",
            list(&|param| format!("{param}: i32")),
            result(&|bits| format!(" -> i{bits}"))
        ),
        Language::C => format!(
            "__attribute__((export_name(\"{name}\"))) {} {name}({})",
            match result(&|bits| format!("int{bits}_t")).as_str() {
                "" => "void",
                ty => ty,
            },
            list(&|param| format!("int32_t {param}"))
        ),
        Language::AssemblyScript => format!(
            "export function {name}({}): {}",
            list(&|param| format!("{param}: i32")),
            match result(&|bits| format!("i{bits}")).as_str() {
                "" => "void",
                ty => ty,
            }
        ),
        Language::Go => format!(
            "//go:wasmexport {name}, then func({}){}",
            list(&|param| format!("{param} int32")),
            result(&|bits| format!(" int{bits}"))
        ),
        Language::Zig => format!(
            "export fn {name}({}) {}",
            list(&|param| format!("{param}: i32")),
            match result(&|bits| format!("i{bits}")).as_str() {
                "" => "void",
                ty => ty,
            }
        ),
        Language::Unknown => format!("export {name:?} as func {ty}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, choice: AbiChoice) -> Verdict {
        let facts = crate::inspect::inspect(&wat::parse_str(text).unwrap()).unwrap();
        check(
            &facts,
            choice,
            LimitChoice::default(),
            &LoadLimits::default(),
        )
    }

    fn failed(text: &str) -> Vec<(String, String)> {
        verdict(text, AbiChoice::Auto)
            .failures()
            .map(|check| (check.id.clone(), check.found.clone()))
            .collect()
    }

    const ALLOCS: &str = r#"(memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) i32.const 8)
        (func (export "dealloc") (param i32 i32))"#;

    #[test]
    fn all_problems_are_found_in_one_pass() {
        let found = failed(
            r#"(module (import "env" "log" (func (param i32)))
            (memory (export "mem") 1)
            (func (export "_alloc") (param i32) (result i32) i32.const 8)
            (func (export "dealloc") (param i32))
            (func (export "on_request_headers") (param i32 i32) (result i32) i32.const 0))"#,
        );
        let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "memory",
                "export:alloc",
                "export:dealloc",
                "export:on_request_headers",
                "import:env.log"
            ]
        );
        assert_eq!(found[0].1, "it is exported as \"mem\"");
        assert!(found[1].1.contains("\"_alloc\": func (i32) -> i32"));
        assert_eq!(found[2].1, "mistyped: func (i32)");
    }

    #[test]
    fn near_misses_of_handlers_are_named() {
        let found = failed(&format!(
            r#"(module {ALLOCS} (func (export "on_request_header") (param i32 i32) (result i64) i64.const 0))"#
        ));
        assert_eq!(
            found,
            [(
                "abi".to_owned(),
                "no handler, but \"on_request_header\" for \"on_request_headers\"".to_owned()
            )]
        );
        let warned = verdict(
            &format!(
                r#"(module {ALLOCS} (func (export "on_request_headers") (param i32 i32) (result i64) i64.const 0)
                (func (export "onResponseHeaders") (param i32 i32) (result i64) i64.const 0))"#
            ),
            AbiChoice::Auto,
        );
        let warning = warned
            .checks
            .iter()
            .find(|check| check.status == CheckStatus::Warn)
            .unwrap();
        assert_eq!(warning.id, "export:on_response_headers");
    }

    #[test]
    fn two_abis_are_ambiguous_until_one_is_chosen() {
        let both = format!(
            r#"(module {ALLOCS} (func (export "on_request_headers") (param i32 i32) (result i64) i64.const 0)
            (func (export "before_hook") (param i32 i32) (result i64) i64.const 0))"#
        );
        assert_eq!(verdict(&both, AbiChoice::Auto).abi, None);
        let chosen = verdict(&both, AbiChoice::Only(Abi::Agent));
        assert_eq!(chosen.abi, Some(Abi::Agent));
        assert_eq!(chosen.failures().count(), 0);
    }

    #[test]
    fn a_fix_speaks_the_modules_language() {
        assert_eq!(
            declare(Language::Rust, "dealloc", DEALLOC_TYPE),
            "#[unsafe(no_mangle)] pub extern \"C\" fn dealloc(ptr: i32, size: i32)"
        );
        assert_eq!(
            declare(Language::Go, "on_request_body", HANDLER_TYPE),
            "//go:wasmexport on_request_body, then func(ptr int32, len int32) int64"
        );
        assert_eq!(
            declare(Language::C, "alloc", ALLOC_TYPE),
            "__attribute__((export_name(\"alloc\"))) int32_t alloc(int32_t size)"
        );
    }
}
