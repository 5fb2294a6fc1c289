//! Hook modules for a host that embeds them: loaded once, called from anywhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{HandledHook, Policy, PolicySettings};
use crate::abi::{Abi, AbiChoice};
use crate::error::Error;
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::{Candidate, LoadSettings, Source, read};
use crate::hook::{Hook, HookContext};
use crate::limits::{Isolation, LimitChoice, LoadLimits};
use crate::policy::pool::PoolSettings;

/// Calls of one module at once; each takes up to its memory limit.
const DEFAULT_CALLS: usize = 32;
/// How long one more waits for its turn.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// How a runtime loads and calls its plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginSettings {
    /// What a call may use, where that is not the ABI's default: 100 ms,
    /// 1 000 000 instructions, 256 pages of 64 KiB, an answer of 1 MiB.
    pub limits: LimitChoice,
    /// Bounds of a module's file and of compiling it.
    pub load: LoadLimits,
    /// Whether an instance serves more than one call. By default each call has
    /// a fresh one.
    pub isolation: Isolation,
    /// Calls of one module at once; 32 by default.
    pub calls: usize,
    /// How long one more waits for its turn before it faults with `overload`;
    /// 1 s by default.
    pub wait: Duration,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            limits: LimitChoice::default(),
            load: LoadLimits::default(),
            isolation: Abi::Hook.isolation(),
            calls: DEFAULT_CALLS,
            wait: DEFAULT_WAIT,
        }
    }
}

/// Loads hook modules and calls their hooks, from any number of threads.
///
/// A module is compiled once, by its content: under a second path, or with
/// [`PluginRuntime::reload`] of an unchanged file, it is the same [`Policy`].
/// Nothing is locked while a module compiles or a guest runs, so neither a slow
/// load nor a runaway guest delays other plugins. Calls block their thread for
/// as long as the guest computes, at most the time limit: on an async runtime
/// make them where blocking is allowed.
///
/// ```
/// use wasm_agent_kit::hook::{Hook, HookContext};
/// use wasm_agent_kit::policy::{PluginRuntime, PluginSettings};
///
/// let runtime = PluginRuntime::new(PluginSettings::default())?;
/// runtime.load("fixtures/modules/account/account.wasm".as_ref())?;
/// let context: HookContext = serde_json::from_str(
///     r#"{"input": {"email": " Ada@Example.ORG "}}"#,
/// )?;
/// let handled = runtime.call(
///     "fixtures/modules/account/account.wasm".as_ref(),
///     Hook::Before,
///     context,
/// )?;
/// assert!(handled.result.ok);
/// assert_eq!(handled.context.input["email"], "ada@example.org");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PluginRuntime {
    engine: Arc<Engine>,
    settings: PluginSettings,
    state: Mutex<Plugins>,
    /// A module was loaded, or came to nothing.
    loaded: Condvar,
}

#[derive(Default)]
struct Plugins {
    /// By canonical path, or by the name given with bytes.
    by_path: HashMap<PathBuf, Arc<Policy>>,
    by_hash: HashMap<String, Arc<Policy>>,
    /// Hashes of what is being compiled.
    loading: HashSet<String>,
    /// What was asked for so far, by number.
    asked: u64,
    /// Numbers of what was asked for and is not there yet.
    unfinished: BTreeSet<u64>,
    /// For a path the newest of what is there, or was unloaded, while something
    /// older may yet come.
    newest: HashMap<PathBuf, u64>,
}

impl Plugins {
    /// Whether nothing newer has come for this path; from now on nothing older
    /// will.
    fn is_newest(&mut self, key: &Path, number: u64) -> bool {
        match self.newest.get_mut(key) {
            Some(newest) if *newest > number => return false,
            Some(newest) => *newest = number,
            None => {
                self.newest.insert(key.to_owned(), number);
            }
        }
        true
    }

    /// Keeps a plugin, unless what was asked for later is there already.
    fn keep(&mut self, (key, number): (PathBuf, u64), plugin: &Arc<Policy>) {
        if !self.is_newest(&key, number) {
            return;
        }
        let hash = plugin.pool().module().hash.clone();
        self.by_hash.insert(hash, Arc::clone(plugin));
        let before = self.by_path.insert(key, Arc::clone(plugin));
        if let Some(before) = before {
            self.forget(&before);
        }
    }

    /// Lets go of a plugin that no path leads to any more.
    fn forget(&mut self, plugin: &Arc<Policy>) {
        if !self.by_path.values().any(|kept| Arc::ptr_eq(kept, plugin)) {
            self.by_hash.remove(&plugin.pool().module().hash);
        }
    }
}

impl PluginRuntime {
    /// A runtime without plugins.
    ///
    /// # Errors
    /// When the engine cannot be started.
    pub fn new(settings: PluginSettings) -> Result<Self, Error> {
        Ok(Self {
            engine: Engine::new(EngineSettings {
                fuel: true,
                ..EngineSettings::default()
            })?,
            settings,
            state: Mutex::default(),
            loaded: Condvar::new(),
        })
    }

    /// Loads a module file, unless its path was loaded before. The plugin that
    /// is handed back can be called without looking its path up.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Malformed`], [`Error::Refused`] with every
    /// broken rule, [`Error::CompileTime`], [`Error::Start`].
    pub fn load(&self, path: &Path) -> Result<Arc<Policy>, Error> {
        let asked = self.ask();
        let canonical = canonical(path)?;
        if let Some(plugin) = self.lock().by_path.get(&canonical) {
            return Ok(Arc::clone(plugin));
        }
        let source = read(&canonical, &self.settings.load)?;
        self.publish((canonical, asked.number), source)
    }

    /// Loads a module file again. A changed one replaces the plugin for calls
    /// from now on; after an error the one before stays. Of several at once the
    /// one that was asked for last is kept, whichever compiles the longest.
    ///
    /// # Errors
    /// Those of [`PluginRuntime::load`].
    pub fn reload(&self, path: &Path) -> Result<Arc<Policy>, Error> {
        let asked = self.ask();
        let canonical = canonical(path)?;
        let source = read(&canonical, &self.settings.load)?;
        self.publish((canonical, asked.number), source)
    }

    /// Loads a module that the host has in memory, under a name to call it by,
    /// replacing what had that name before.
    ///
    /// # Errors
    /// Those of [`PluginRuntime::load`], but for reading.
    pub fn load_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<Arc<Policy>, Error> {
        let asked = self.ask();
        let path = PathBuf::from(name);
        let source = Source::of(&path, bytes, &self.settings.load)?;
        self.publish((path, asked.number), source)
    }

    /// Forgets a plugin. Calls that run on it end in peace.
    ///
    /// # Errors
    /// [`Error::NotLoaded`].
    pub fn unload(&self, path: &Path) -> Result<(), Error> {
        let asked = self.ask();
        let key = self.key(path)?;
        let mut state = self.lock();
        if !state.is_newest(&key, asked.number) {
            return Ok(());
        }
        if let Some(plugin) = state.by_path.remove(&key) {
            state.forget(&plugin);
        }
        Ok(())
    }

    /// Whether a plugin of this path or name was loaded.
    #[must_use]
    pub fn is_loaded(&self, path: &Path) -> bool {
        self.key(path).is_ok()
    }

    /// The plugin of a path or name.
    ///
    /// # Errors
    /// [`Error::NotLoaded`].
    pub fn plugin(&self, path: &Path) -> Result<Arc<Policy>, Error> {
        let key = self.key(path)?;
        let state = self.lock();
        let plugin = state.by_path.get(&key).map(Arc::clone);
        plugin.ok_or_else(|| not_loaded(path))
    }

    /// Calls a hook of a loaded plugin. Whatever the guest does, the host gets
    /// a result and the context to go on with: see [`Policy::hook`].
    ///
    /// # Errors
    /// [`Error::NotLoaded`], and nothing else.
    pub fn call(
        &self,
        path: &Path,
        hook: Hook,
        context: HookContext,
    ) -> Result<HandledHook, Error> {
        Ok(self.plugin(path)?.hook(hook, context))
    }

    /// What the plugin of this path or name is kept under.
    fn key(&self, path: &Path) -> Result<PathBuf, Error> {
        if self.lock().by_path.contains_key(path) {
            return Ok(path.to_owned());
        }
        let canonical = path.canonicalize().map_err(|_gone| not_loaded(path))?;
        if self.lock().by_path.contains_key(&canonical) {
            Ok(canonical)
        } else {
            Err(not_loaded(path))
        }
    }

    /// Takes a number for what is asked for now.
    fn ask(&self) -> Asked<'_> {
        let mut state = self.lock();
        state.asked += 1;
        let number = state.asked;
        state.unfinished.insert(number);
        Asked {
            runtime: self,
            number,
        }
    }

    /// Finds or makes the plugin of these bytes, and keeps it under `key`.
    fn publish(&self, key: (PathBuf, u64), source: Source) -> Result<Arc<Policy>, Error> {
        let hash = source.hash.clone();
        let mut state = self.lock();
        while state.loading.contains(&hash) {
            let waited = self.loaded.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(plugin) = state.by_hash.get(&hash).map(Arc::clone) {
            state.keep(key, &plugin);
            return Ok(plugin);
        }
        state.loading.insert(hash.clone());
        drop(state);
        // Wakes those who wait for the same bytes, come what may.
        let _loading = Loading {
            runtime: self,
            hash: &hash,
        };
        let plugin = Arc::new(self.make(source)?);
        self.lock().keep(key, &plugin);
        Ok(plugin)
    }

    /// Judges and compiles, with nothing locked.
    fn make(&self, source: Source) -> Result<Policy, Error> {
        let settings = LoadSettings {
            load: self.settings.load,
            limits: self.settings.limits,
            abi: AbiChoice::Only(Abi::Hook),
        };
        let candidate = Candidate::of(source, &settings)?;
        let module = candidate.compile(&self.engine, &self.settings.load)?;
        let pool = PoolSettings {
            size: self.settings.calls,
            wait: self.settings.wait,
            isolation: self.settings.isolation,
            limits: module.limits,
        };
        let settings = PolicySettings {
            pool,
            ..PolicySettings::default()
        };
        let plugin = Policy::new(Arc::new(module), settings);
        plugin.start()?;
        Ok(plugin)
    }

    /// Nothing in the state can be half-changed by a panic.
    fn lock(&self) -> MutexGuard<'_, Plugins> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that was asked for, until it is there or came to nothing.
struct Asked<'a> {
    runtime: &'a PluginRuntime,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut state = self.runtime.lock();
        state.unfinished.remove(&self.number);
        // Nothing older than these can come any more.
        let oldest = state.unfinished.first().copied().unwrap_or(u64::MAX);
        state.newest.retain(|_, newest| *newest > oldest);
    }
}

/// Bytes that are being loaded, until they are or came to nothing.
struct Loading<'a> {
    runtime: &'a PluginRuntime,
    hash: &'a str,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.runtime.lock().loading.remove(self.hash);
        self.runtime.loaded.notify_all();
    }
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn not_loaded(path: &Path) -> Error {
    Error::NotLoaded {
        path: path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hook module that takes long to compile, or not.
    fn module(is_slow: bool) -> Vec<u8> {
        let copies = if is_slow { 1500 } else { 0 };
        let slow = "(table.copy (i32.const 0) (i32.const 0) (i32.const 0))".repeat(copies);
        let text = format!(
            r#"(module (memory (export "memory") 1) (table 1 funcref)
            (func (export "alloc") (param i32) (result i32) i32.const 8)
            (func (export "dealloc") (param i32 i32))
            (func {slow})
            (func (export "before_hook") (param i32 i32) (result i64) i64.const 0))"#
        );
        wat::parse_str(text).unwrap()
    }

    fn name() -> &'static Path {
        Path::new("name")
    }

    /// Loads the slow one under the name, and does something else as soon as that
    /// compiles.
    fn beside_a_slow_load(runtime: &PluginRuntime, then: impl FnOnce()) -> Arc<Policy> {
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| runtime.load_bytes("name", module(true)).unwrap());
            while runtime.lock().loading.is_empty() {
                assert!(!slow.is_finished(), "it is slow");
                std::thread::yield_now();
            }
            then();
            slow.join().unwrap()
        })
    }

    #[test]
    fn what_was_asked_for_last_is_kept_whichever_compiles_the_longest() {
        let runtime = PluginRuntime::new(PluginSettings::default()).unwrap();
        let mut fast = None;
        let slow = beside_a_slow_load(&runtime, || {
            fast = Some(runtime.load_bytes("name", module(false)).unwrap());
        });
        assert!(Arc::ptr_eq(
            &runtime.plugin(name()).unwrap(),
            &fast.unwrap()
        ));
        // Whoever asked for the other one has it all the same.
        assert!(slow.has_hook(Hook::Before));
        // Asked for again, it is the newest.
        let again = runtime.load_bytes("name", module(true)).unwrap();
        assert!(Arc::ptr_eq(&runtime.plugin(name()).unwrap(), &again));
        assert!(runtime.lock().newest.is_empty());
    }

    #[test]
    fn what_is_unloaded_does_not_come_back() {
        let runtime = PluginRuntime::new(PluginSettings::default()).unwrap();
        runtime.load_bytes("name", module(false)).unwrap();
        let unload = || runtime.unload(name()).unwrap();
        beside_a_slow_load(&runtime, unload);
        assert!(!runtime.is_loaded(name()));
        assert!(runtime.lock().by_hash.is_empty());
    }

    #[test]
    fn a_host_may_set_no_limit_of_time() {
        let mut settings = PluginSettings {
            wait: Duration::MAX,
            calls: 1,
            ..PluginSettings::default()
        };
        settings.limits.timeout = Some(Duration::MAX);
        settings.load.max_compile_time = Duration::MAX;
        let runtime = PluginRuntime::new(settings).unwrap();
        let plugin = runtime.load_bytes("name", module(false)).unwrap();
        // Two want the one instance, so that one of them waits.
        let held = plugin.pool().lease().unwrap();
        std::thread::scope(|scope| {
            let call = || plugin.hook(Hook::Before, HookContext::default());
            let waits = scope.spawn(call);
            while plugin.pool().usage().waiting == 0 {
                std::thread::yield_now();
            }
            drop(held);
            assert!(waits.join().unwrap().result.ok);
        });
    }
}
