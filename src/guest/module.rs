//! From a file to a module that can be instantiated: the one way to load.
//!
//! In: a path. Steps, each of which can be asked for alone: [`read`] the bytes
//! (bounded, never a pipe), `inspect` them, `check` the contract, compile under
//! a time limit. Out: a [`Module`]. A precompiled file is never read: its
//! native code could not be verified.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi::{Abi, AbiChoice};
use crate::digest;
use crate::error::Error;
use crate::files::{self, Accept};
use crate::guest::HostState;
use crate::guest::contract::{self, ContractChecks};
use crate::guest::convention::Convention;
use crate::guest::engine::Engine;
use crate::guest::faults::host_error;
use crate::guest::inspect::{Facts, WholeBody, inspect};
use crate::limits::{LimitChoice, Limits, LoadLimits, MAX_TEXT_BYTES};
use crate::log_limiter::LogLimiter;
use crate::question::Phase;

/// A module's bytes, read and, if they were text, assembled.
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The binary.
    pub wasm: Vec<u8>,
    /// `sha256:` and the hash of the file as it was read.
    pub hash: String,
}

/// Reads a `.wasm` or `.wat` file; content decides which it is.
///
/// # Errors
/// [`Error::Read`] where it cannot be read, [`Error::Malformed`] where it is
/// too large, no regular file or no kind of module.
pub(crate) fn read(path: &Path, limits: &LoadLimits) -> Result<Source, Error> {
    let read_error = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let malformed = |message: String| Error::Malformed {
        path: path.to_owned(),
        message,
    };
    let file = files::open(path, Accept::Regular, "a module")?;
    let size = file.metadata().map_err(read_error)?.len();
    if size > limits.max_module_bytes {
        return Err(malformed(too_large(size, limits)));
    }
    let mut bytes = Vec::new();
    file.take(limits.max_module_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(read_error)?;
    Source::of(path, bytes, limits)
}

impl Source {
    /// The bytes of a `.wasm` or `.wat` file, which `path` names in reports.
    ///
    /// # Errors
    /// [`Error::Malformed`] where they are too many or no kind of module.
    pub fn of(path: &Path, bytes: Vec<u8>, limits: &LoadLimits) -> Result<Self, Error> {
        let malformed = |message: String| Error::Malformed {
            path: path.to_owned(),
            message,
        };
        if bytes.len() as u64 > limits.max_module_bytes {
            return Err(malformed(too_large(bytes.len() as u64, limits)));
        }
        let hash = digest::sha256(&[&bytes]);
        let wasm = assemble(bytes, path).map_err(malformed)?;
        Ok(Self {
            path: path.to_owned(),
            wasm,
            hash,
        })
    }
}

fn too_large(found: u64, limits: &LoadLimits) -> String {
    format!(
        "expected at most {} bytes, found {found}; raise --max-module if that is right",
        limits.max_module_bytes
    )
}

fn assemble(bytes: Vec<u8>, path: &Path) -> Result<Vec<u8>, String> {
    let expected = "expected a wasm binary or wasm text";
    if bytes.starts_with(b"\0asm") {
        return Ok(bytes);
    }
    if bytes.is_empty() {
        return Err(format!("{expected}, found an empty file"));
    }
    if bytes.starts_with(b"\x7fELF") {
        return Err(format!(
            "{expected}, found an ELF file; precompiled modules (.cwasm) are never loaded, give the .wasm"
        ));
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(format!("{expected}, found gzip; unpack it first"));
    }
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(format!(
            "expected a wasm binary, or at most {MAX_TEXT_BYTES} bytes of wasm text, found {} bytes that are no binary; assemble text of that size first (wasm-tools parse)",
            bytes.len()
        ));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_not_text| {
        let start: Vec<String> = bytes
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{expected}, found bytes {} at offset 0", start.join(" "))
    })?;
    if !text
        .trim_start_matches('\u{feff}')
        .trim_start()
        .starts_with(['(', ';'])
    {
        return Err(format!("{expected}, found other text at line 1"));
    }
    wat::parse_str(text).map_err(|mut error| {
        error.set_path(path);
        format!("the text does not assemble: {error}")
    })
}

/// What loading is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadSettings {
    /// Bounds of the file and of compiling it.
    pub load: LoadLimits,
    /// The limits it is held to, where they are not those of its ABI.
    pub limits: LimitChoice,
    /// The ABI it is held to.
    pub abi: AbiChoice,
}

/// A compiled module that keeps the static contract.
/// ```
/// use wasm_agent_kit::guest::{Engine, EngineSettings, LoadSettings, Module};
///
/// let engine = Engine::new(EngineSettings::default())?;
/// let path = "fixtures/modules/rules/rules.wasm".as_ref();
/// let module = Module::load(&engine, path, &LoadSettings::default())?;
/// assert_eq!(module.handlers()[0], "on_request_headers");
/// # Ok::<(), wasm_agent_kit::error::Error>(())
/// ```
pub struct Module {
    /// The file it came from.
    pub path: PathBuf,
    /// `sha256:` and the hash of the file.
    pub hash: String,
    /// What its bytes say.
    pub(crate) facts: Facts,
    /// The ABI it is called by.
    pub abi: Abi,
    pub(crate) convention: Convention,
    /// What a call may use: what loading was asked for, over the ABI's own.
    pub limits: Limits,
    /// Wall clock that compiling took.
    pub compile_time: Duration,
    pub(crate) engine: Arc<Engine>,
    pub(crate) pre: wasmtime::InstancePre<HostState>,
    /// Bounds the log lines that its guests cause.
    pub(crate) log_limiter: Arc<LogLimiter>,
}

/// A module that was read and judged, and not yet compiled.
pub struct Candidate {
    /// Its bytes.
    pub source: Source,
    /// What they say.
    pub facts: Facts,
    /// How they were judged.
    pub checks: ContractChecks,
    /// The limits it was judged by, where they are not those of its ABI.
    pub limits: LimitChoice,
}

impl Candidate {
    /// Reads, inspects and judges a file.
    ///
    /// # Errors
    /// Those of [`read`], and [`Error::Malformed`] with the offset where the
    /// bytes stop being wasm. A broken contract is no error here.
    pub fn read(path: &Path, settings: &LoadSettings) -> Result<Self, Error> {
        Self::of(read(path, &settings.load)?, settings)
    }

    /// Inspects and judges bytes that were read before.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the offset where the bytes stop being wasm.
    pub fn of(source: Source, settings: &LoadSettings) -> Result<Self, Error> {
        let facts = inspect(&source.wasm).map_err(|broken| Error::Malformed {
            path: source.path.clone(),
            message: format!(
                "not valid wasm at offset {:#x}: {}",
                broken.offset, broken.message
            ),
        })?;
        let checks = contract::check(&facts, settings.abi, settings.limits, &settings.load);
        Ok(Self {
            source,
            facts,
            checks,
            limits: settings.limits,
        })
    }

    /// Compiles it, if no check failed.
    ///
    /// # Errors
    /// [`Error::Refused`] where a check failed, [`Error::CompileTime`] where it
    /// takes too long, [`Error::Host`] where the engine refuses.
    pub fn compile(self, engine: &Arc<Engine>, limits: &LoadLimits) -> Result<Module, Error> {
        let Source { path, wasm, hash } = self.source;
        let (Some(abi), None) = (self.checks.abi, self.checks.failures().next()) else {
            return Err(Error::Refused {
                path,
                problems: self.checks.failures().cloned().collect(),
            });
        };
        let started = Instant::now();
        let function_bytes = self.facts.complexity.most_compile_bytes;
        let compiled = engine.compile(wasm, (limits.max_compile_time, function_bytes))?;
        let compile_time = started.elapsed();
        let Some(compiled) = compiled else {
            return Err(Error::CompileTime {
                path,
                limit: limits.max_compile_time,
            });
        };
        let convention = Convention::of(&self.facts);
        let pre = linker(engine, &self.facts, convention)
            .and_then(|linker| linker.instantiate_pre(&compiled))
            .map_err(host_error("cannot link the module"))?;
        Ok(Module {
            path,
            hash,
            facts: self.facts,
            abi,
            convention,
            limits: self.limits.over(abi.limits()),
            compile_time,
            engine: Arc::clone(engine),
            pre,
            log_limiter: Arc::new(LogLimiter::new()),
        })
    }
}

impl Module {
    /// Reads, inspects, judges and compiles.
    ///
    /// # Errors
    /// Each step's; [`Error::Refused`] lists every broken rule.
    pub fn load(engine: &Arc<Engine>, path: &Path, settings: &LoadSettings) -> Result<Self, Error> {
        Candidate::read(path, settings)?.compile(engine, &settings.load)
    }

    /// Whether the module has a handler for this phase. A handler of the other ABI
    /// is not called, so it is none.
    #[must_use]
    pub fn handles(&self, phase: Phase) -> bool {
        let name = self.convention.handler(phase);
        phase.abi() == self.abi && self.facts.export(name).is_some()
    }

    /// The same by the name of the handler.
    pub(crate) fn has_handler(&self, name: &str) -> bool {
        self.handlers().contains(&name)
    }

    /// The handlers of its ABI that the module exports.
    #[must_use]
    pub fn handlers(&self) -> Vec<&'static str> {
        self.convention.handlers(&self.facts, self.abi)
    }

    /// The same as phases of an exchange.
    pub fn phases(&self) -> impl Iterator<Item = Phase> {
        Phase::ALL.into_iter().filter(|phase| self.handles(*phase))
    }

    /// Whether it is to get bodies whole, where it says so by the global `whole_body`.
    #[must_use]
    pub(crate) const fn wants_whole_bodies(&self) -> Option<bool> {
        match (self.abi, self.facts.whole_body) {
            (Abi::Agent, Some(WholeBody::Says(whole))) => Some(whole),
            _ => None,
        }
    }

    /// Refuses a module that is called by the other ABI.
    ///
    /// # Errors
    /// [`Error::WrongAbi`], which says what to do with it instead.
    pub fn require(&self, wanted: Abi) -> Result<(), Error> {
        if self.abi == wanted {
            return Ok(());
        }
        Err(Error::WrongAbi {
            path: self.path.clone(),
            handlers: self.handlers().join(", "),
            found: self.abi,
            wanted,
        })
    }
}

/// Only what is imported is linked, and only what the contract names.
fn linker(
    engine: &Engine,
    facts: &Facts,
    convention: Convention,
) -> wasmtime::Result<wasmtime::Linker<HostState>> {
    let mut linker = wasmtime::Linker::new(engine.wasm());
    // Go imports some functions more than once.
    linker.allow_shadowing(true);
    convention.link_imports(&mut linker, facts)?;
    Ok(linker)
}
