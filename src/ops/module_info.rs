//! What reports say of a module and of how it is called.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::abi::Abi;
use crate::guest::module::Module;
use crate::policy::pool::PoolSettings;
use crate::policy::{BodyMode, Policy, PolicySettings};

/// The module that was run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// The file.
    pub path: String,
    /// `sha256:` and its hash.
    pub hash: String,
    /// Bytes of the binary.
    pub size_bytes: u64,
    /// The ABI it was called by.
    pub abi: Cow<'static, str>,
    /// The handlers it exports, which are what the ABI was chosen by.
    pub handlers: Vec<Cow<'static, str>>,
    /// Functions have names, for backtraces.
    pub has_names: bool,
    /// There is DWARF, for files and lines in backtraces.
    pub has_dwarf: bool,
}

impl ModuleInfo {
    /// What a report says of a module.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        Self {
            path: module.path.display().to_string(),
            hash: module.hash.clone(),
            size_bytes: module.facts.size_bytes,
            abi: module.abi.name().into(),
            handlers: module.handlers().into_iter().map(Cow::Borrowed).collect(),
            has_names: module.facts.has_names,
            has_dwarf: module.facts.has_dwarf,
        }
    }
}

/// How a module is called, as reports have it.
pub(in crate::ops) fn described(policy: &Policy) -> BTreeMap<&'static str, String> {
    match policy.abi() {
        Abi::Agent => called(policy.settings(), policy.body_mode()),
        Abi::Hook => pooled(policy.pool().settings()),
    }
}

/// How a module that is asked about events is called.
pub(in crate::ops) fn called(
    settings: &PolicySettings,
    body_mode: BodyMode,
) -> BTreeMap<&'static str, String> {
    let mut described = pooled(&settings.pool);
    let names = settings.header_names.name();
    let policy = settings.failure_policy.name();
    described.insert("header_names", names.to_owned());
    described.insert("failure_policy", policy.to_owned());
    let allowed = &settings.answer_policy.allowed_headers;
    if !allowed.is_empty() {
        described.insert("allow_header", allowed.join(" "));
    }
    if body_mode == BodyMode::Whole {
        described.insert("body", body_mode.name().to_owned());
        let bytes = settings.bodies.max_bytes;
        described.insert("max_body_bytes", bytes.to_string());
    }
    described
}

/// The part of it that both ABIs have.
pub(in crate::ops) fn pooled(settings: &PoolSettings) -> BTreeMap<&'static str, String> {
    let limits = settings.limits;
    BTreeMap::from([
        ("timeout", format!("{:?}", limits.timeout)),
        (
            "fuel",
            limits
                .fuel
                .map_or_else(|| "none".to_owned(), |fuel| fuel.to_string()),
        ),
        ("max_memory_bytes", limits.max_memory_bytes.to_string()),
        ("max_answer_bytes", limits.max_answer_bytes.to_string()),
        ("wasi", limits.wasi.name().to_owned()),
        ("isolation", settings.isolation.to_string()),
    ])
}
