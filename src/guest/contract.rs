//! The static half of the module contract: what can be judged without running.
//!
//! In: [`Facts`], the limits and the ABI asked for. Out: every check with its
//! result, so that all problems are found in one pass. `validate` prints them;
//! `load` refuses a module on any failed one. There is no second list.

mod imports;

use crate::abi::{Abi, AbiChoice};
use crate::check::{Check, CheckKind, CheckStatus};
use crate::fault::printable;
use crate::guest::convention::Convention;
use crate::guest::convention::json_buffer::exports::function;
use crate::guest::inspect::{Export, Facts, ItemType, Language};
use crate::limits::{self, LimitChoice, Limits, LoadLimits};

/// Bytes of one wasm page.
pub(crate) const PAGE_BYTES: u64 = 64 << 10;

/// What the static checks found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractChecks {
    /// Every check, in the order a reader wants them.
    pub all: Vec<Check>,
    /// The ABI the module is held to, where one could be settled.
    pub abi: Option<Abi>,
}

impl ContractChecks {
    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.all
            .iter()
            .filter(|check| check.status == CheckStatus::Fail)
    }
}

/// Judges a module by its facts.
#[must_use]
pub(crate) fn check(
    facts: &Facts,
    choice: AbiChoice,
    limits: LimitChoice,
    load: &LoadLimits,
) -> ContractChecks {
    let mut checks = vec![size(facts, load), features(facts)];
    if facts.is_component {
        return ContractChecks {
            all: checks,
            abi: None,
        };
    }
    checks.push(complexity(facts));
    let convention = Convention::of(facts);
    let (abi, abi_check) = abi(facts, choice, convention);
    checks.push(abi_check);
    // Without an ABI the larger of the two defaults holds.
    let limits = limits.over(abi.unwrap_or(Abi::Agent).limits());
    checks.push(memory(facts, &limits));
    checks.extend(convention.check_exports(facts, abi));
    checks.push(tables(facts));
    checks.extend(
        facts
            .imports
            .iter()
            .take(limits::MAX_LISTED)
            .enumerate()
            .filter(|(index, import)| !facts.imports[..*index].contains(import))
            .map(|(_, import)| import)
            .map(|import| imports::import(import, facts, limits.wasi)),
    );
    if facts.imports.len() > limits::MAX_LISTED {
        checks.push(Check::fail(
            CheckKind::Imports,
            format!("at most {}", limits::MAX_LISTED),
            format!("{}; only the first are listed", facts.imports.len()),
            "a module gets only its input from the host; remove the imports",
        ));
    }
    if facts.imports.is_empty() {
        checks.push(Check::pass(
            CheckKind::Imports,
            "none, or supported ones",
            "none",
        ));
    }
    checks.extend(start(facts));
    ContractChecks { all: checks, abi }
}

/// Of what is called once for each instance.
const INITIALIZE_TYPE: &str = "()";

fn size(facts: &Facts, load: &LoadLimits) -> Check {
    Check::pass(
        CheckKind::Size,
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
            CheckKind::Features,
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
    Check::pass(CheckKind::Features, expected, found).requires(
        facts.disallowed_features.is_empty(),
        || match facts.language {
            Some(Language::Rust) => "build without the matching -C target-feature=+…".to_owned(),
            Some(Language::C) => "build without the matching -m… flag of clang".to_owned(),
            Some(Language::AssemblyScript) => "build without the matching --enable …".to_owned(),
            Some(Language::Go | Language::Zig) | None => {
                "switch these proposals off in the compiler; they are off in production".to_owned()
            }
        },
    )
}

fn complexity(facts: &Facts) -> Check {
    let have = &facts.complexity;
    let fail = |limit: u64, what: &str, found: String| {
        Check::fail(
            CheckKind::Complexity,
            format!("at most {limit} {what}"),
            found,
            "split generated code into smaller functions; compile time grows faster than linearly",
        )
    };
    if let Some(excess) = have.excess() {
        return fail(excess.limit, excess.what, excess.found.to_string());
    }
    let costliest = || {
        format!(
            "{} takes {} of it",
            have.costliest(),
            mib_up(have.most_compile_bytes)
        )
    };
    if have.most_compile_bytes > limits::MAX_FUNCTION_COMPILE_BYTES {
        return fail(
            limits::MAX_FUNCTION_COMPILE_BYTES >> 20,
            "MiB of memory to compile one function, estimated from its operators",
            costliest(),
        );
    }
    let most = (facts.size_bytes.saturating_mul(3)).saturating_add(limits::MAX_COMPILE_BYTES);
    if have.compile_bytes() > most {
        return fail(
            most >> 20,
            "MiB of memory to compile it, estimated from its operators",
            format!("{}, {}", mib_up(have.compile_bytes()), costliest()),
        );
    }
    Check::pass(
        CheckKind::Complexity,
        "compiles in bounded time",
        format!(
            "{} functions, the largest {} bytes",
            have.functions, have.largest_body_bytes
        ),
    )
}

/// MiB, rounded up.
fn mib_up(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn abi(facts: &Facts, choice: AbiChoice, convention: Convention) -> (Option<Abi>, Check) {
    let present = |abi: Abi| convention.handlers(facts, abi);
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
                CheckKind::Abi,
                expected,
                format!("both: {}, {}", agent.join(", "), hook.join(", ")),
                "choose one with --abi agent or --abi hook",
            ),
        ),
        (AbiChoice::Auto | AbiChoice::Only(Abi::Agent), false, _) => (
            Some(Abi::Agent),
            Check::pass(CheckKind::Abi, expected, found_list(Abi::Agent, &agent)),
        ),
        (AbiChoice::Auto | AbiChoice::Only(Abi::Hook), _, false) => (
            Some(Abi::Hook),
            Check::pass(CheckKind::Abi, expected, found_list(Abi::Hook, &hook)),
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
            let wanted = match choice {
                AbiChoice::Only(Abi::Hook) => Abi::Hook,
                AbiChoice::Auto | AbiChoice::Only(Abi::Agent) => Abi::Agent,
            };
            let (found, fix) = convention.no_handler(facts, wanted);
            (None, Check::fail(CheckKind::Abi, expected, found, fix))
        }
    }
}

/// A module that is right by the ABI that was not asked for.
fn other_abi(expected: String, found: String, abi: Abi) -> Check {
    let fix = format!(
        "this is {}; omit --abi, or use --abi {}; {}",
        abi.describe(),
        abi.name(),
        abi.way_out()
    );
    Check::fail(CheckKind::Abi, expected, found, fix)
}

/// Why no memory is exported as it must be, and what to do about it.
fn unexported_memory(facts: &Facts) -> Option<(String, &'static str)> {
    match facts.export("memory") {
        Some(export) if export.ty == ItemType::Memory => None,
        Some(export) => Some((
            format!("\"memory\" is a {}", export.ty),
            "export the memory under this name",
        )),
        None => {
            let mut exports = facts.exports.iter();
            let other = exports.find(|export| export.ty == ItemType::Memory);
            Some(match other {
                Some(other) => (
                    format!("the memory is exported as {:?}", other.name),
                    "export it as \"memory\"",
                ),
                None => (
                    "it is not exported".to_owned(),
                    "export it; with wasm-ld drop --import-memory and --no-export-memory",
                ),
            })
        }
    }
}

fn memory(facts: &Facts, limits: &Limits) -> Check {
    let expected = format!(
        "exports \"memory\"; 32-bit, unshared, at most {} in all",
        mib(limits.max_memory_bytes)
    );
    let fail =
        |found: String, fix: &str| Check::fail(CheckKind::Memory, expected.clone(), found, fix);
    let all = &facts.memories;
    if all.is_empty() {
        return fail(
            "no memory".to_owned(),
            "add a memory and export it as \"memory\"",
        );
    }
    if all.len() > limits::MAX_MEMORIES {
        return fail(
            format!("{} memories", all.len()),
            &format!("keep at most {}", limits::MAX_MEMORIES),
        );
    }
    if let Some((found, fix)) = unexported_memory(facts) {
        return fail(found, fix);
    }
    let it = if all.len() == 1 { "it" } else { "one of them" };
    if all.iter().any(|memory| memory.is_imported) {
        return fail(
            format!("{it} is imported"),
            "define it in the module (with wasm-ld, drop --import-memory)",
        );
    }
    if all.iter().any(|memory| memory.is_64) {
        return fail(
            format!("{it} is a 64-bit memory"),
            "build for wasm32, not wasm64",
        );
    }
    if all.iter().any(|memory| memory.is_shared) {
        return fail(
            format!("{it} is shared"),
            "build without threads and --shared-memory",
        );
    }
    let sum = |pages: u64, more: u64| pages.saturating_add(more);
    let initial = all.iter().map(|memory| memory.initial_pages).fold(0, sum);
    let initial = initial.saturating_mul(PAGE_BYTES);
    let mut maxima = all.iter().map(|memory| memory.maximum_pages);
    let maximum = maxima.try_fold(0, |pages, more| Some(sum(pages, more?)));
    let together = match all.len() {
        1 => String::new(),
        count => format!("{count} memories, "),
    };
    if initial > limits.max_memory_bytes {
        return fail(
            format!("{together}{} at instantiation", mib(initial)),
            "ask for less initial memory, or raise --max-memory",
        );
    }
    Check::pass(
        CheckKind::Memory,
        expected,
        format!(
            "{together}{} at instantiation, {}",
            mib(initial),
            maximum.map_or_else(
                || "no declared maximum".to_owned(),
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
            CheckKind::Start,
            "a start function that ends within the deadline",
            "a start function; it runs at every instantiation",
        ));
    }
    let initializers = facts.initializers.iter();
    checks.extend(initializers.map(|name| function(facts, name, INITIALIZE_TYPE)));
    checks.extend(uncalled_start(facts));
    checks
}

/// Names under which a start is exported that takes or gives something, but for
/// underscores.
const STARTS: [&str; 15] = [
    "start",
    "main",
    "mainvoid",
    "mainargcargv",
    "init",
    "initialize",
    "initialise",
    "oninit",
    "plugininit",
    "setup",
    "boot",
    "ctors",
    "hsinit",
    "nimmain",
    "postinstantiate",
];

/// Functions of toolchains that take and give nothing, and set nothing up.
const NO_STARTS: [&str; 8] = [
    "__collect",
    "__wasm_apply_data_relocs",
    "__wasm_call_dtors",
    "asyncify_stop_rewind",
    "asyncify_stop_unwind",
    "emscripten_stack_init",
    "go_scheduler",
    "resume",
];

/// What a proxy-wasm module says its version by.
const FOREIGN_VERSION: &str = "proxy_abi_version_";

/// Starts that are named in a row.
const STARTS_SHOWN: usize = 5;

/// Starts that nobody calls, so that whatever they set up is not there: whatever
/// takes and gives nothing can be one, under any name. Beside `_initialize`, which sets
/// everything up as a rule, only the usual names are told.
fn uncalled_start(facts: &Facts) -> Option<Check> {
    let has_initialize = facts.export("_initialize").is_some();
    let is_start = |export: &&Export| {
        let ItemType::Func(ty) = &export.ty else {
            return false;
        };
        let plain = export.name.replace('_', "").to_ascii_lowercase();
        let is_named = STARTS.contains(&plain.as_str());
        let may_be_one = if **ty == *INITIALIZE_TYPE && !has_initialize {
            !NO_STARTS.contains(&export.name.as_str()) && !export.name.starts_with(FOREIGN_VERSION)
        } else {
            is_named
        };
        may_be_one && !facts.is_called(&export.name)
    };
    let starts: Vec<&Export> = facts.exports.iter().filter(is_start).collect();
    let program = starts.iter().find(|start| start.name == "_start");
    let start = program.or(starts.first())?;
    let found = if start.name == "_start" {
        "a program with a main function (_start), which is never called".to_owned()
    } else {
        let named = starts.iter().take(STARTS_SHOWN);
        let named = named.map(|start| format!("{:?}", printable(&start.name, 100)));
        let named: Vec<String> = named.collect();
        let (and_more, never) = match starts.len() {
            1 => ("", "which is never called"),
            2..=STARTS_SHOWN => ("", "which are never called"),
            _ => (" and more", "which are never called"),
        };
        format!("{}{and_more}, {never}", named.join(", "))
    };
    Some(Check::warn(
        CheckKind::Start,
        "_initialize, or nothing to set up",
        found,
        reactor(start, facts.language),
    ))
}

/// How to build a library that is set up once instead of a program.
fn reactor(start: &Export, language: Option<Language>) -> &'static str {
    match language {
        Some(Language::AssemblyScript) => {
            "build without --exportStart, or with --exportStart _initialize"
        }
        _ if start.name != "_start" => {
            "if it sets something up, export it as _initialize, or call it from the module's start function"
        }
        Some(Language::Go) => "build with -buildmode=c-shared",
        Some(Language::C) => "link with -mexec-model=reactor, or with -nostartfiles -Wl,--no-entry",
        Some(Language::Rust) => "build a cdylib instead of a binary",
        Some(Language::Zig) => "build with -fno-entry and -mexec-model=reactor",
        None => "build a reactor instead of a command",
    }
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
    Check::pass(CheckKind::Tables, expected, found).requires(
        facts.tables.len() <= limits::MAX_TABLES && largest <= limits::MAX_TABLE_ELEMENTS,
        || "make the table smaller".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, choice: AbiChoice) -> ContractChecks {
        let facts = crate::guest::inspect::inspect(&wat::parse_str(text).unwrap()).unwrap();
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
            .map(|check| (check.id.to_string(), check.found.clone()))
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
        assert_eq!(found[0].1, "the memory is exported as \"mem\"");
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
            .all
            .iter()
            .find(|check| check.status == CheckStatus::Warn)
            .unwrap();
        assert_eq!(warning.id.to_string(), "export:on_response_headers");
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
    fn a_mistyped_import_is_told_its_type() {
        for (import, expected) in [
            (
                r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32)))"#,
                "declare it as WASI preview 1 has it, func (i32, i32, i32, i32) -> i32",
            ),
            (
                r#"(import "env" "abort" (func (param i32)))"#,
                "declare it as AssemblyScript has it, func (i32, i32, i32, i32)",
            ),
        ] {
            let verdict = verdict(&format!("(module {import} {ALLOCS})"), AbiChoice::Auto);
            let fixes: Vec<&str> = verdict.failures().map(|check| check.fix.as_str()).collect();
            assert!(fixes.contains(&expected), "{fixes:?}");
        }
    }
}
