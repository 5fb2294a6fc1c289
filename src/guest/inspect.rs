//! What a module's bytes say, without running or compiling them.
//!
//! In: a binary of bounded size. Out: [`Facts`] for the contract checks, or
//! the place where the bytes stop being wasm. One pass, linear in the size;
//! nothing here judges.

mod cost;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use wasmparser::{
    CompositeInnerType, ConstExpr, DataKind, DataSectionReader, ElementItems, ElementSectionReader,
    ExternalKind, FuncType, GlobalSectionReader, Imports, KnownCustom, Name, Operator, Parser,
    Payload, TableInit, TypeRef, Validator, WasmFeatures,
};

use self::cost::{Arities, Arity, Cost};
use super::wasi::catalog;
use crate::abi::Abi;
use crate::fault::printable;
use crate::limits;

/// The proposals a guest may use: what real toolchains emit by default
/// (rustc since 1.82 emits reference types and multi-value), the several memories that
/// the published agent runs, and no more.
pub(crate) const ALLOWED_FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::FLOATS);

/// Above this size it is not worked out which disallowed proposals are used.
const NAME_FEATURES_BELOW_BYTES: usize = 4 << 20;

/// Bytes that are not a valid module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes from the start.
    pub offset: usize,
}

impl From<wasmparser::BinaryReaderError> for Malformed {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self {
            // It may quote a name, which may be any text.
            message: printable(error.message(), 300),
            offset: error.offset(),
        }
    }
}

/// The type of an import or export, as far as the contract cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemType {
    /// A function, as `(i32, i32) -> i64`. Shared: a million exports may have
    /// one and the same long type.
    Func(Arc<str>),
    /// A memory.
    Memory,
    /// Anything else, by name.
    Other(&'static str),
}

impl std::fmt::Display for ItemType {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Func(signature) => write!(out, "func {signature}"),
            Self::Memory => out.write_str("memory"),
            Self::Other(kind) => out.write_str(kind),
        }
    }
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ItemType,
}

/// One import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The module it is asked from.
    pub module: String,
    /// Its name there.
    pub name: String,
    /// The type it must have.
    pub ty: ItemType,
}

/// One linear memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Pages of 64 KiB at instantiation.
    pub initial_pages: u64,
    /// Pages it may grow to by its own word.
    pub maximum_pages: Option<u64>,
    /// Addressed with 64 bits.
    pub is_64: bool,
    /// Shared between threads.
    pub is_shared: bool,
    /// Taken from the host.
    pub is_imported: bool,
}

/// A language that modules are written in: what a toolchain says it compiled,
/// and what `new` has a starter in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Language {
    /// By rustc, for `wasm32-unknown-unknown`.
    Rust,
    /// By clang, freestanding.
    C,
    /// By zig, freestanding.
    Zig,
    /// By its own compiler, on its minimal runtime.
    AssemblyScript,
    /// By Go or TinyGo, for `wasip1`, as a reactor.
    Go,
}

/// The largest of what compile time grows with, over all functions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Complexity {
    /// Functions with a body.
    pub functions: u32,
    /// Bytes of the largest body.
    pub largest_body_bytes: usize,
    /// Locals of the function with the most.
    pub most_locals: u64,
    /// Depth of the deepest block.
    pub deepest_nesting: u32,
    /// Uses of locals in the function with the most, each counted once for
    /// every loop around it.
    pub most_carried_locals: u64,
    /// Bytes that compiling takes, as reckoned from the operators, of the
    /// function that takes most.
    pub most_compile_bytes: u64,
    /// The number of that function, imported ones counted first.
    pub costliest_function: u32,
    /// Its name, where an export or the names of functions tell one.
    pub costliest_name: Option<String>,
    /// The same bytes of all functions together.
    pub all_compile_bytes: u64,
    /// Types, and all their parameters and results.
    pub type_values: u64,
    /// Data segments.
    pub data_segments: u32,
    /// Element segments.
    pub element_segments: u32,
}

/// What a module's bytes say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Bytes of the binary.
    pub size_bytes: u64,
    /// Exports in the module's order.
    pub exports: Vec<Export>,
    /// Imports in the module's order.
    pub imports: Vec<Import>,
    /// Memories, imported ones first.
    pub memories: Vec<Memory>,
    /// Initial elements of each table.
    pub tables: Vec<u64>,
    /// There is a function that runs at instantiation.
    pub has_start: bool,
    /// Exported functions that somebody calls: the host, or the module itself from
    /// there or from its start function.
    pub called_exports: BTreeSet<String>,
    /// Exported functions that set up an instance after its start function, in this
    /// order.
    pub(crate) initializers: Vec<&'static str>,
    /// What its global `whole_body` says, where it exports one.
    pub(crate) whole_body: Option<WholeBody>,
    /// What compile time grows with.
    pub complexity: Complexity,
    /// The language, where the toolchain left a trace of it.
    pub language: Option<Language>,
    /// `name version` of the tools that made it.
    pub producers: Vec<String>,
    /// Functions have names.
    pub has_names: bool,
    /// There is DWARF line information.
    pub has_dwarf: bool,
    /// Proposals it uses that are not allowed; `"unknown"` stands for some
    /// that were not named.
    pub disallowed_features: Vec<String>,
    /// It is a component, not a core module. Then nothing else is known.
    pub is_component: bool,
}

/// What the exported global `whole_body` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WholeBody {
    /// The module is to get bodies whole, or not.
    Says(bool),
    /// Neither 0 nor 1, nor the address of such a number.
    Other(i32),
    /// No number that stands in the module.
    NotANumber,
}

/// By which a module says how it is to get bodies.
pub(crate) const WHOLE_BODY: &str = "whole_body";

impl Facts {
    /// The export of this name.
    #[must_use]
    pub fn export(&self, name: &str) -> Option<&Export> {
        self.exports.iter().find(|export| export.name == name)
    }

    /// Whether it imports this function of WASI.
    #[must_use]
    pub(crate) fn imports_wasi(&self, name: &str) -> bool {
        let mut imports = self.imports.iter();
        imports.any(|import| import.module == catalog::MODULE && import.name == name)
    }

    /// Whether answers may depend on what WASI says, and not on the input alone.
    pub(crate) fn reads_clocks_or_random_bytes(&self) -> bool {
        let names = ["clock_time_get", "poll_oneoff", "random_get"];
        names.into_iter().any(|name| self.imports_wasi(name))
    }

    /// Whether somebody calls the export of this name.
    #[must_use]
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.called_exports.contains(name) || self.initializers.contains(&name)
    }
}

/// Sets up a reactor.
const INITIALIZE: &str = "_initialize";
/// What `_initialize` and `_start` of C and C++ call first; where it is exported
/// there may be neither.
const CONSTRUCTORS: &str = "__wasm_call_ctors";

/// Reads a binary module.
///
/// # Errors
/// [`Malformed`] where the bytes are not wasm under any proposal.
pub(crate) fn inspect(wasm: &[u8]) -> Result<Facts, Malformed> {
    let mut facts = Facts {
        size_bytes: wasm.len() as u64,
        ..Facts::default()
    };
    if wasm.get(4..8) == Some(&[0x0d, 0, 1, 0]) {
        facts.is_component = true;
        return Ok(facts);
    }
    let mut reading = Reading::default();
    for payload in Parser::new(0).parse_all(wasm) {
        reading.payload(payload?, &mut facts)?;
    }
    reading.read_whole_body(&mut facts);
    reading.name_costliest(&mut facts);
    reading.find_called(&mut facts);
    if facts.language.is_none() && facts.imports.iter().any(is_abort) {
        facts.language = Some(Language::AssemblyScript);
    }
    // The limits come before validation, which costs more than this pass.
    if !facts.complexity.is_over_a_limit() {
        facts.disallowed_features = disallowed_features(wasm)?;
    }
    Ok(facts)
}

/// What AssemblyScript imports, which writes no other trace of itself.
fn is_abort(import: &Import) -> bool {
    import.module == "env" && import.name == "abort"
}

impl Complexity {
    /// Bytes that compiling the module takes, as reckoned from the operators: the
    /// most expensive function, and what is kept of all of them.
    #[must_use]
    pub const fn compile_bytes(&self) -> u64 {
        let kept = self.all_compile_bytes / limits::KEPT_OF_COMPILING;
        self.most_compile_bytes.saturating_add(kept)
    }

    /// The function that takes most of compiling, for people.
    #[must_use]
    pub fn costliest(&self) -> String {
        let number = self.costliest_function;
        match &self.costliest_name {
            Some(name) => format!("function {number} ({})", printable(name, 100)),
            None => format!("function {number}"),
        }
    }

    /// The first of what compile time grows with that there is too much of.
    #[must_use]
    pub fn excess(&self) -> Option<Excess> {
        let row = |what, found, limit| Excess { what, found, limit };
        let rows = [
            row(
                "functions",
                self.functions.into(),
                limits::MAX_FUNCTIONS.into(),
            ),
            row(
                "bytes in one function",
                self.largest_body_bytes as u64,
                limits::MAX_FUNCTION_BYTES as u64,
            ),
            row(
                "locals in one function",
                self.most_locals,
                limits::MAX_LOCALS,
            ),
            row(
                "nested blocks",
                self.deepest_nesting.into(),
                limits::MAX_NESTING.into(),
            ),
            row(
                "uses of locals within loops in one function",
                self.most_carried_locals,
                limits::MAX_CARRIED_LOCALS,
            ),
            row(
                "types, parameters and results of types",
                self.type_values,
                limits::MAX_TYPE_VALUES,
            ),
            row(
                "data segments",
                self.data_segments.into(),
                limits::MAX_DATA_SEGMENTS.into(),
            ),
            row(
                "element segments",
                self.element_segments.into(),
                limits::MAX_ELEMENT_SEGMENTS.into(),
            ),
        ];
        rows.into_iter().find(|row| row.found > row.limit)
    }

    /// Whether compiling could take longer than anybody would wait.
    #[must_use]
    pub fn is_over_a_limit(&self) -> bool {
        self.excess().is_some() || self.most_compile_bytes > limits::MAX_FUNCTION_COMPILE_BYTES
    }
}

/// What a module has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// In words.
    pub what: &'static str,
    /// How much there is.
    pub found: u64,
    /// How much there may be.
    pub limit: u64,
}

/// The index spaces, filled as the sections come.
#[derive(Default)]
struct Reading {
    types: Vec<ItemType>,
    arities: Vec<Arity>,
    funcs: Vec<u32>,
    /// Imported functions, which come first.
    imported: usize,
    /// What the bodies that were read so far call.
    calls: Vec<Calls>,
    /// Functions that a table may hold.
    in_tables: BTreeSet<u32>,
    /// For each export the function it is of.
    exported: Vec<Option<u32>>,
    /// The start function.
    start: Option<u32>,
    /// For each global the number that it begins with, if it is a constant of 32
    /// bits; none for an imported one.
    globals: Vec<Option<i32>>,
    /// Bytes of the variable by which the module says how it gets bodies.
    whole_body: [Option<u8>; 4],
}

/// What one function calls.
#[derive(Default)]
struct Calls {
    direct: Box<[u32]>,
    /// Whatever a table holds.
    is_indirect: bool,
}

impl Arities for Reading {
    fn of_type(&self, index: u32) -> Arity {
        let arity = self.arities.get(index as usize);
        arity.copied().unwrap_or_default()
    }

    fn of_function(&self, index: u32) -> Arity {
        let ty = self.funcs.get(index as usize);
        ty.map_or_else(Arity::default, |ty| self.of_type(*ty))
    }
}

impl Reading {
    fn payload(&mut self, payload: Payload<'_>, facts: &mut Facts) -> Result<(), Malformed> {
        match payload {
            Payload::TypeSection(groups) => {
                facts.complexity.type_values = groups.count().into();
                if facts.complexity.is_over_a_limit() {
                    // Refused for this; the types are not looked at.
                    return Ok(());
                }
                for group in groups {
                    for ty in group?.into_types() {
                        let ty = &ty.composite_type.inner;
                        let mut arity = Arity::default();
                        if let CompositeInnerType::Func(func) = ty {
                            arity.takes = func.params().len() as u64;
                            arity.gives = func.results().len() as u64;
                        }
                        facts.complexity.type_values += arity.takes + arity.gives;
                        self.arities.push(arity);
                        self.types.push(item_type(ty));
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for group in imports {
                    self.import_group(group?, facts)?;
                }
            }
            Payload::FunctionSection(indices) => {
                for index in indices {
                    self.funcs.push(index?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    let table = table?;
                    facts.tables.push(table.ty.initial);
                    if let TableInit::Expr(value) = table.init {
                        self.may_be_in_table(&value)?;
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    facts.memories.push(self::memory(memory?, false));
                }
            }
            Payload::GlobalSection(section) => self.globals(section)?,
            Payload::ExportSection(exports) => {
                for export in exports {
                    self.export(&export?, facts);
                }
            }
            Payload::StartSection { func, .. } => {
                facts.has_start = true;
                self.start = Some(func);
            }
            Payload::ElementSection(section) => {
                facts.complexity.element_segments = section.count();
                if !facts.complexity.is_over_a_limit() {
                    self.elements(section)?;
                }
            }
            Payload::DataSection(section) => {
                facts.complexity.data_segments = section.count();
                if let Some(WholeBody::Other(address)) = facts.whole_body {
                    self.whole_body = bytes_at(section, address)?;
                }
            }
            Payload::CodeSectionStart { count, .. } => facts.complexity.functions = count,
            Payload::CodeSectionEntry(body) => {
                let calls = self.function(&body, &mut facts.complexity)?;
                self.calls.push(calls);
            }
            Payload::CustomSection(section) => custom(&section, facts),
            _ => {}
        }
        Ok(())
    }

    fn export(&mut self, export: &wasmparser::Export<'_>, facts: &mut Facts) {
        let is_function = matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact);
        self.exported.push(is_function.then_some(export.index));
        if export.name == WHOLE_BODY {
            facts.whole_body = Some(self.whole_body(export));
        }
        facts.exports.push(Export {
            name: export.name.to_owned(),
            ty: self.external(export.kind, export.index),
        });
    }

    fn elements(&mut self, section: ElementSectionReader<'_>) -> Result<(), Malformed> {
        for element in section {
            match element?.items {
                ElementItems::Functions(functions) => {
                    for function in functions {
                        self.in_tables.insert(function?);
                    }
                }
                ElementItems::Expressions(_, expressions) => {
                    for expression in expressions {
                        self.may_be_in_table(&expression?)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn globals(&mut self, section: GlobalSectionReader<'_>) -> Result<(), Malformed> {
        for global in section {
            let global = global?;
            self.may_be_in_table(&global.init_expr)?;
            let number = constant(&global.init_expr)?;
            // One that is no constant may change before anybody looks.
            self.globals.push(number.filter(|_| !global.ty.mutable));
        }
        Ok(())
    }

    /// Reads the variable whose address the global holds, if it holds one.
    fn read_whole_body(&self, facts: &mut Facts) {
        if let Some(WholeBody::Other(address)) = facts.whole_body {
            let pages = facts.memories.first().map_or(0, |it| it.initial_pages);
            facts.whole_body = Some(whole_body_at(address, self.whole_body, pages));
        }
    }

    fn whole_body(&self, export: &wasmparser::Export<'_>) -> WholeBody {
        let number = self.globals.get(export.index as usize).copied().flatten();
        match (export.kind, number) {
            (ExternalKind::Global, Some(number @ (0 | 1))) => WholeBody::Says(number == 1),
            (ExternalKind::Global, Some(number)) => WholeBody::Other(number),
            _ => WholeBody::NotANumber,
        }
    }

    fn may_be_in_table(&mut self, value: &ConstExpr<'_>) -> Result<(), Malformed> {
        for operator in value.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.in_tables.insert(function_index);
            }
        }
        Ok(())
    }

    /// The functions that are called from these. A call through a table may be of
    /// anything that a table may hold; whether those are followed is said.
    fn reached(&self, from: impl IntoIterator<Item = u32>, indirect: bool) -> BTreeSet<u32> {
        let mut called = BTreeSet::new();
        let mut open: Vec<u32> = from.into_iter().collect();
        let mut follows = indirect;
        while let Some(function) = open.pop() {
            if !called.insert(function) {
                continue;
            }
            let body = (function as usize).checked_sub(self.imported);
            let Some(calls) = body.and_then(|body| self.calls.get(body)) else {
                continue;
            };
            open.extend(calls.direct.iter());
            if calls.is_indirect && follows {
                follows = false;
                open.extend(&self.in_tables);
            }
        }
        called
    }

    /// Finds what is called from what the host calls.
    fn find_called(&self, facts: &mut Facts) {
        let function_of = |name: &str| {
            let at = facts
                .exports
                .iter()
                .position(|export| export.name == name)?;
            self.exported.get(at).copied().flatten()
        };
        let handlers = Abi::ALL.iter().flat_map(|abi| abi.handlers()).copied();
        let handlers: Vec<u32> = handlers.filter_map(function_of).collect();
        let others = ["alloc", "dealloc"].into_iter().filter_map(function_of);
        let by_host = others.chain(handlers.iter().copied());
        let set_up = || self.start.into_iter().chain(function_of(INITIALIZE));
        let called = self.reached(set_up().chain(by_host), true);
        // What a handler calls through a table is as a rule something else.
        let mut before_all = self.reached(set_up(), true);
        before_all.extend(self.reached(function_of("alloc"), false));
        // Where some handlers call them, the others would find nothing set up.
        let is_called_by_each = |it: &u32| {
            let mut each = handlers.iter().map(|from| self.reached([*from], false));
            !handlers.is_empty() && each.all(|called| called.contains(it))
        };
        let constructors = function_of(CONSTRUCTORS);
        let constructors =
            constructors.filter(|it| !before_all.contains(it) && !is_called_by_each(it));
        let by_start = self.reached(self.start, false);
        let initialize = function_of(INITIALIZE).filter(|it| !by_start.contains(it));
        // One of another kind than a function is refused for it.
        let is_other = facts.export(INITIALIZE).is_some() && function_of(INITIALIZE).is_none();
        let initializers = [
            constructors.map(|_| CONSTRUCTORS),
            (initialize.is_some() || is_other).then_some(INITIALIZE),
        ];
        let exports = self.exported.iter().zip(&facts.exports);
        let called =
            exports.filter(|(function, _)| function.is_some_and(|it| called.contains(&it)));
        let called = called.map(|(_, export)| export.name.clone()).collect();
        facts.initializers = initializers.into_iter().flatten().collect();
        facts.called_exports = called;
    }

    /// The exported name, unless the section of names has told one.
    fn name_costliest(&self, facts: &mut Facts) {
        let costliest = Some(facts.complexity.costliest_function);
        let mut exports = self.exported.iter().zip(&facts.exports);
        if facts.complexity.most_compile_bytes > 0
            && let Some((_, export)) = exports.find(|(function, _)| **function == costliest)
        {
            facts.complexity.costliest_name = Some(export.name.clone());
        }
    }

    fn import_group(&mut self, group: Imports<'_>, facts: &mut Facts) -> Result<(), Malformed> {
        match group {
            Imports::Single(_, import) => {
                self.import(import, facts);
            }
            Imports::Compact1 { module, items } => {
                for item in items {
                    let item = item?;
                    let (name, ty) = (item.name, item.ty);
                    self.import(wasmparser::Import { module, name, ty }, facts);
                }
            }
            Imports::Compact2 { module, ty, names } => {
                for name in names {
                    let name = name?;
                    self.import(wasmparser::Import { module, name, ty }, facts);
                }
            }
        }
        Ok(())
    }

    fn import(&mut self, import: wasmparser::Import<'_>, facts: &mut Facts) {
        let ty = match import.ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                self.funcs.push(index);
                self.imported += 1;
                self.ty(index)
            }
            TypeRef::Memory(ty) => {
                facts.memories.push(memory(ty, true));
                ItemType::Memory
            }
            TypeRef::Table(ty) => {
                facts.tables.push(ty.initial);
                ItemType::Other("table")
            }
            TypeRef::Global(_) => {
                self.globals.push(None);
                ItemType::Other("global")
            }
            TypeRef::Tag(_) => ItemType::Other("tag"),
        };
        facts.imports.push(Import {
            module: import.module.to_owned(),
            name: import.name.to_owned(),
            ty,
        });
    }

    fn ty(&self, index: u32) -> ItemType {
        self.types
            .get(index as usize)
            .cloned()
            .unwrap_or(ItemType::Other("function of a type that does not exist"))
    }

    fn external(&self, kind: ExternalKind, index: u32) -> ItemType {
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => self
                .funcs
                .get(index as usize)
                .map_or(ItemType::Other("function that does not exist"), |ty| {
                    self.ty(*ty)
                }),
            ExternalKind::Memory => ItemType::Memory,
            ExternalKind::Table => ItemType::Other("table"),
            ExternalKind::Global => ItemType::Other("global"),
            ExternalKind::Tag => ItemType::Other("tag"),
        }
    }
}

/// The number that this is, if it is one of 32 bits.
fn constant(value: &ConstExpr<'_>) -> Result<Option<i32>, Malformed> {
    let mut operators = value.get_operators_reader().into_iter();
    Ok(
        match (operators.next().transpose()?, operators.next().transpose()?) {
            (Some(Operator::I32Const { value }), Some(Operator::End)) => Some(value),
            _ => None,
        },
    )
}

/// Linkers place no variable below this address.
const FIRST_VARIABLE: u32 = 1024;

/// The bytes of a number at this address that stand in segments, as memory begins. A
/// tool may have cut off those that are 0.
fn bytes_at(section: DataSectionReader<'_>, address: i32) -> Result<[Option<u8>; 4], Malformed> {
    let mut found = [None; 4];
    for segment in section {
        let segment = segment?;
        let DataKind::Active {
            memory_index: 0,
            offset_expr,
        } = segment.kind
        else {
            continue;
        };
        let Some(start) = constant(&offset_expr)? else {
            continue;
        };
        let at = i64::from(address.cast_unsigned()) - i64::from(start.cast_unsigned());
        for (at, found) in (at..).zip(&mut found) {
            let byte = usize::try_from(at).ok().and_then(|at| segment.data.get(at));
            *found = byte.copied().or(*found);
        }
    }
    Ok(found)
}

/// What a module says by a number that is neither 0 nor 1: linkers export a variable as
/// a global that holds its address. One that is 0 may stand in no segment.
fn whole_body_at(address: i32, bytes: [Option<u8>; 4], pages: u64) -> WholeBody {
    let at = address.cast_unsigned();
    let may_be_variable =
        at >= FIRST_VARIABLE && at.is_multiple_of(4) && u64::from(at) + 4 <= pages << 16;
    let is_covered = bytes.iter().any(Option::is_some);
    match i32::from_le_bytes(bytes.map(Option::unwrap_or_default)) {
        number @ (0 | 1) if is_covered || may_be_variable => WholeBody::Says(number == 1),
        _ => WholeBody::Other(address),
    }
}

fn item_type(ty: &CompositeInnerType) -> ItemType {
    match ty {
        CompositeInnerType::Func(func) => ItemType::Func(signature(func).into()),
        _ => ItemType::Other("garbage-collected type"),
    }
}

fn signature(func: &FuncType) -> String {
    // No type of the contract is longer; a longer one only has to be shown.
    const SHOWN: usize = 16;
    let list = |types: &[wasmparser::ValType]| {
        let mut shown: Vec<String> = types.iter().take(SHOWN).map(ToString::to_string).collect();
        if types.len() > SHOWN {
            shown.push(format!("and {} more", types.len() - SHOWN));
        }
        shown.join(", ")
    };
    match func.results() {
        [] => format!("({})", list(func.params())),
        [one] => format!("({}) -> {one}", list(func.params())),
        many => format!("({}) -> ({})", list(func.params()), list(many)),
    }
}

fn memory(ty: wasmparser::MemoryType, is_imported: bool) -> Memory {
    Memory {
        initial_pages: ty.initial,
        maximum_pages: ty.maximum,
        is_64: ty.memory64,
        is_shared: ty.shared,
        is_imported,
    }
}

impl Reading {
    /// What compiling one function takes.
    fn function(
        &mut self,
        body: &wasmparser::FunctionBody<'_>,
        complexity: &mut Complexity,
    ) -> Result<Calls, Malformed> {
        let bytes = body.range().len();
        complexity.largest_body_bytes = complexity.largest_body_bytes.max(bytes);
        let mut locals = 0_u64;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
        }
        complexity.most_locals = complexity.most_locals.max(locals);
        if bytes > limits::MAX_FUNCTION_BYTES || locals > limits::MAX_LOCALS {
            return Ok(Calls::default());
        }
        let number = u32::try_from(self.imported + self.calls.len()).unwrap_or(u32::MAX);
        let mut loops = Loops::default();
        let mut direct = BTreeSet::new();
        let mut is_indirect = false;
        let mut cost = Cost::new(&*self, self.of_function(number), locals);
        let mut operators = body.get_operators_reader()?;
        let code = body.as_bytes();
        while !operators.eof() {
            let at = operators.original_position() - body.range().start;
            let operator = operators.read()?;
            loops.operator(&operator);
            match operator {
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    direct.insert(function_index);
                }
                Operator::CallIndirect { .. }
                | Operator::ReturnCallIndirect { .. }
                | Operator::CallRef { .. }
                | Operator::ReturnCallRef { .. } => is_indirect = true,
                _ => {}
            }
            cost.operator(&operator, code.get(at).copied().unwrap_or_default());
        }
        complexity.deepest_nesting = complexity.deepest_nesting.max(loops.deepest());
        complexity.most_carried_locals = complexity.most_carried_locals.max(loops.carried);
        let bytes = cost.total();
        if bytes > complexity.most_compile_bytes {
            complexity.most_compile_bytes = bytes;
            complexity.costliest_function = number;
        }
        complexity.all_compile_bytes = complexity.all_compile_bytes.saturating_add(bytes);
        Ok(Calls {
            direct: direct.into_iter().collect(),
            is_indirect,
        })
    }
}

/// Blocks within blocks, and what a compiler carries through loops.
#[derive(Default)]
struct Loops {
    /// For each open block whether it is a loop.
    blocks: Vec<bool>,
    loops: u64,
    carried: u64,
    deepest: usize,
}

impl Loops {
    fn operator(&mut self, operator: &Operator<'_>) {
        match operator {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. }
            | Operator::Try { .. } => {
                let is_loop = matches!(operator, Operator::Loop { .. });
                self.blocks.push(is_loop);
                self.loops += u64::from(is_loop);
                self.deepest = self.deepest.max(self.blocks.len());
            }
            Operator::End => self.loops -= u64::from(self.blocks.pop() == Some(true)),
            Operator::LocalGet { .. } | Operator::LocalSet { .. } | Operator::LocalTee { .. } => {
                self.carried += self.loops;
            }
            _ => {}
        }
    }

    fn deepest(&self) -> u32 {
        u32::try_from(self.deepest).unwrap_or(u32::MAX)
    }
}

/// Custom sections never make a module invalid, so a broken one is ignored.
fn custom(section: &wasmparser::CustomSectionReader<'_>, facts: &mut Facts) {
    match section.as_known() {
        KnownCustom::Producers(fields) => {
            for field in fields.into_iter().flatten() {
                for value in field.values.into_iter().flatten() {
                    let producer = format!("{} {}", value.name, value.version);
                    let producer = producer.trim().to_owned();
                    if facts.language.is_none() {
                        facts.language = language(value.name);
                    }
                    if facts.producers.len() < limits::MAX_LISTED
                        && !facts.producers.contains(&producer)
                    {
                        facts.producers.push(producer);
                    }
                }
            }
        }
        KnownCustom::Name(names) => {
            for name in names.into_iter().flatten() {
                let Name::Function(map) = name else { continue };
                facts.has_names |= map.count() > 0;
                let costliest = facts.complexity.costliest_function;
                if facts.complexity.most_compile_bytes == 0 {
                    // The functions are yet to come.
                    continue;
                }
                let named = map
                    .into_iter()
                    .flatten()
                    .find(|name| name.index == costliest);
                if let Some(named) = named {
                    facts.complexity.costliest_name = Some(named.name.to_owned());
                }
            }
        }
        _ if section.name() == ".debug_line" => facts.has_dwarf = true,
        _ if section.name() == "sourceMappingURL" && facts.language.is_none() => {
            facts.language = Some(Language::AssemblyScript);
        }
        _ => {}
    }
}

fn language(producer: &str) -> Option<Language> {
    let lower = producer.to_ascii_lowercase();
    let has = |word: &&str| lower.contains(word);
    let is = |words: &[&str]| words.iter().any(has);
    if is(&["rust"]) {
        Some(Language::Rust)
    } else if is(&["assemblyscript"]) {
        Some(Language::AssemblyScript)
    } else if is(&["tinygo", "go cmd"]) || producer == "Go" {
        Some(Language::Go)
    } else if is(&["zig"]) {
        Some(Language::Zig)
    } else if is(&["clang", "emscripten"]) || matches!(producer, "C11" | "C_plus_plus_14") {
        Some(Language::C)
    } else {
        None
    }
}

/// The proposals used beyond [`ALLOWED_FEATURES`], none for most modules.
fn disallowed_features(wasm: &[u8]) -> Result<Vec<String>, Malformed> {
    let validates = |features: WasmFeatures| {
        Validator::new_with_features(features)
            .validate_all(wasm)
            .map(|_types| ())
    };
    let Err(refusal) = validates(ALLOWED_FEATURES) else {
        return Ok(Vec::new());
    };
    let everything = WasmFeatures::all();
    if validates(everything).is_err() {
        // Not wasm under any proposal: the stricter reader's words are about
        // what the author wrote, the laxer one's about some proposal.
        return Err(refusal.into());
    }
    if wasm.len() > NAME_FEATURES_BELOW_BYTES {
        return Ok(vec![format!("unknown ({})", refusal.message())]);
    }
    let needed: BTreeSet<String> = everything
        .difference(ALLOWED_FEATURES)
        .iter_names()
        .filter(|(_, feature)| validates(everything.difference(*feature)).is_err())
        .map(|(name, _)| name.to_ascii_lowercase().replace('_', "-"))
        .collect();
    if needed.is_empty() {
        return Ok(vec![format!("unknown ({})", refusal.message())]);
    }
    Ok(needed.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(text: &str) -> Facts {
        inspect(&wat::parse_str(text).unwrap()).unwrap()
    }

    #[test]
    fn exports_and_imports_carry_their_types() {
        let facts = facts(
            r#"(module (import "env" "abort" (func (param i32 i32 i32 i32)))
            (memory (export "memory") 1 2) (global (export "g") i32 (i32.const 0))
            (func (export "f") (param i32 i32) (result i64) i64.const 0))"#,
        );
        assert_eq!(facts.imports[0].ty.to_string(), "func (i32, i32, i32, i32)");
        assert_eq!(
            facts.export("f").unwrap().ty.to_string(),
            "func (i32, i32) -> i64"
        );
        assert_eq!(facts.export("g").unwrap().ty.to_string(), "global");
        assert_eq!(facts.memories[0].maximum_pages, Some(2));
    }

    #[test]
    fn disallowed_proposals_are_named() {
        assert_eq!(
            facts("(module (memory i64 1))").disallowed_features,
            ["memory64"]
        );
        assert!(
            facts("(module (memory 1) (memory 1))")
                .disallowed_features
                .is_empty()
        );
        assert_eq!(
            facts("(module (func (return_call 0)))").disallowed_features,
            ["tail-call"]
        );
        assert!(facts("(component)").is_component);
    }

    #[test]
    fn broken_bytes_say_where() {
        let error = inspect(b"\0asm\x01\0\0\0\x01\x05").unwrap_err();
        assert_eq!(error.offset, 10);
    }

    #[test]
    fn complexity_is_read_before_anything_costs() {
        let nested = format!(
            "(module (func {} {}))",
            "block ".repeat(40),
            "end ".repeat(40)
        );
        assert_eq!(facts(&nested).complexity.deepest_nesting, 40);
        let locals = format!("(module (func (local {})))", "i32 ".repeat(3000));
        assert!(facts(&locals).complexity.is_over_a_limit());
    }

    proptest! {
        /// Bytes from anywhere are facts or an error, never a panic.
        #[test]
        fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = b"\0asm\x01\0\0\0".to_vec();
            bytes.extend(tail);
            let _ = inspect(&bytes);
        }

        /// A real module with a few bytes changed is facts or an error.
        #[test]
        fn a_damaged_module_is_read_or_refused(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut bytes = include_bytes!("../../fixtures/modules/panics/panics.wasm").to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = inspect(&bytes);
        }
    }
}
