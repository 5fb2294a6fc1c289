//! The guest's stack: its frames with their names, after a trap or while it runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wasmtime::WasmBacktrace;

use crate::fault::{StackFrame, printable};

/// Where a guest was each time its deadline was looked at.
#[derive(Debug, Clone, Default)]
pub struct StackSamples {
    /// When it was, from the first look on, and the functions by number, the
    /// outermost first.
    pub stacks: Vec<(Duration, Vec<u32>)>,
    /// Names of functions, demangled, where the module has them.
    pub names: BTreeMap<u32, String>,
    pub(crate) began: Option<Instant>,
}

impl StackSamples {
    pub(super) fn add(&mut self, stack: &WasmBacktrace) {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        let mut functions = Vec::new();
        for found in stack.frames().iter().rev() {
            let function = found.func_index();
            functions.push(function);
            if found.func_name().is_some() {
                let name = || frame(found).function;
                self.names.entry(function).or_insert_with(name);
            }
        }
        self.stacks.push((now - began, functions));
    }
}

/// A frame as faults name it.
pub(super) fn frame(frame: &wasmtime::FrameInfo) -> StackFrame {
    let symbol = frame.symbols().first();
    let name = symbol
        .and_then(wasmtime::FrameSymbol::name)
        .or_else(|| frame.func_name());
    StackFrame {
        function: name.map_or_else(
            || format!("func[{}]", frame.func_index()),
            |name| printable(&format!("{:#}", rustc_demangle::demangle(name)), 200),
        ),
        location: symbol.and_then(|symbol| {
            let file = printable(symbol.file()?, 200);
            Some(match (symbol.line(), symbol.column()) {
                (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
                (Some(line), None) => format!("{file}:{line}"),
                _ => file,
            })
        }),
        wasm_offset: frame.module_offset().map(|offset| offset as u64),
    }
}
