//! The exports of this convention: those a module must have, and those it nearly
//! has.

use crate::abi::Abi;
use crate::check::{Check, CheckKind};
use crate::guest::inspect::{Export, Facts, ItemType, Language, WHOLE_BODY, WholeBody};
use crate::suggest;

/// The type of `alloc`.
const ALLOC_TYPE: &str = "(i32) -> i32";
/// The type of `dealloc`.
const DEALLOC_TYPE: &str = "(i32, i32)";
/// The type of every handler.
const HANDLER_TYPE: &str = "(i32, i32) -> i64";

/// Checks every export of this convention, of a module of this ABI if it has one.
pub(crate) fn check(facts: &Facts, abi: Option<Abi>) -> Vec<Check> {
    let mut checks = vec![
        function(facts, "alloc", ALLOC_TYPE),
        function(facts, "dealloc", DEALLOC_TYPE),
    ];
    let Some(abi) = abi else {
        return checks;
    };
    let is_checked =
        |name: &&str| facts.export(name).is_some() || abi.required_handler() == Some(*name);
    let handlers = abi.handlers().iter().copied().filter(is_checked);
    checks.extend(handlers.map(|name| function(facts, name, HANDLER_TYPE)));
    checks.extend(near_handlers(facts, abi));
    checks.extend(whole_body(facts, abi));
    checks
}

/// How the module is to get bodies, where it says so.
fn whole_body(facts: &Facts, abi: Abi) -> Option<Check> {
    let said = facts.whole_body.filter(|_| abi == Abi::Agent)?;
    let id = CheckKind::Export.of(WHOLE_BODY);
    let expected = "i32 global: 1 for whole bodies, 0 for chunks";
    let fail = |found: String| {
        let fix =
            "export a constant i32 global with 0 or 1, or a static variable of 32 bits with 0 or 1";
        Check::fail(id.clone(), expected, found, fix)
    };
    Some(match said {
        WholeBody::Says(whole) => Check::pass(id, expected, u8::from(whole).to_string()),
        WholeBody::Other(number) => fail(format!(
            "{number}, which is neither, nor the address of a variable that is"
        )),
        WholeBody::NotANumber => fail(format!(
            "mistyped: {}, not a constant of 32 bits",
            facts
                .export(WHOLE_BODY)
                .map_or_else(String::new, |export| export.ty.to_string())
        )),
    })
}

/// The handlers of an ABI, in its order, where the module exports them.
pub(crate) fn present(facts: &Facts, abi: Abi) -> Vec<Option<&'static str>> {
    let handlers = abi.handlers().iter().copied();
    handlers
        .map(|name| facts.export(name).is_some().then_some(name))
        .collect()
}

/// What there is in place of any handler, and how to declare one.
pub(crate) fn no_handler(facts: &Facts, wanted: Abi) -> (String, String) {
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
    let fix = declare(facts.language, wanted.handlers()[0], HANDLER_TYPE);
    (found, fix)
}

/// A function export of a given type. Absent and mistyped are different things.
pub(crate) fn function(facts: &Facts, name: &str, ty: &str) -> Check {
    let id = CheckKind::Export.of(name);
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
            Check::warn(
                CheckKind::Export.of(name),
                format!("func {HANDLER_TYPE}, or no such export"),
                format!("{:?}, which is never called", near.name),
                format!("rename it to {name:?}, or remove it"),
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
        .filter(|export| !contract_names().any(|known| known == export.name))
        .filter_map(|export| {
            let have = plain(&export.name);
            let distance = if synonyms.contains(&have.as_str()) {
                1
            } else {
                suggest::edits(&have, &wanted)?
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

/// How a function of this type is exported in the module's own language.
fn declare(language: Option<Language>, name: &str, ty: &str) -> String {
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
        Some(Language::Rust) => format!(
            "#[unsafe(no_mangle)] pub extern \"C\" fn {name}({}){}",
            list(&|param| format!("{param}: i32")),
            result(&|bits| format!(" -> i{bits}"))
        ),
        Some(Language::C) => format!(
            "__attribute__((export_name(\"{name}\"))) {} {name}({})",
            match result(&|bits| format!("int{bits}_t")).as_str() {
                "" => "void",
                ty => ty,
            },
            list(&|param| format!("int32_t {param}"))
        ),
        Some(Language::AssemblyScript) => format!(
            "export function {name}({}): {}",
            list(&|param| format!("{param}: i32")),
            match result(&|bits| format!("i{bits}")).as_str() {
                "" => "void",
                ty => ty,
            }
        ),
        Some(Language::Go) => format!(
            "//go:wasmexport {name}, then func({}){}",
            list(&|param| format!("{param} int32")),
            result(&|bits| format!(" int{bits}"))
        ),
        Some(Language::Zig) => format!(
            "export fn {name}({}) {}",
            list(&|param| format!("{param}: i32")),
            match result(&|bits| format!("i{bits}")).as_str() {
                "" => "void",
                ty => ty,
            }
        ),
        None => format!("export {name:?} as func {ty}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_speaks_the_modules_language() {
        assert_eq!(
            declare(Some(Language::Rust), "dealloc", DEALLOC_TYPE),
            "#[unsafe(no_mangle)] pub extern \"C\" fn dealloc(ptr: i32, size: i32)"
        );
        assert_eq!(
            declare(Some(Language::Go), "on_request_body", HANDLER_TYPE),
            "//go:wasmexport on_request_body, then func(ptr int32, len int32) int64"
        );
        assert_eq!(
            declare(Some(Language::C), "alloc", ALLOC_TYPE),
            "__attribute__((export_name(\"alloc\"))) int32_t alloc(int32_t size)"
        );
    }
}
