//! A bounded number of instances, lent out one call at a time.
//!
//! In: a module and how many calls may run at once. Out: a [`Lease`], within a
//! bounded time. Invariant: an instance that is poisoned, worn out or not to
//! be shared never comes back; the next lease makes a new one.

mod room;
mod wait;

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::error::Error;
use crate::fault::{Fault, FaultCode};
use crate::guest::module::Module;
use crate::guest::{ExecMode, Instance, drive};
use crate::limits::{DEFAULT_POOL_SIZE, DEFAULT_QUEUE_WAIT, Isolation, Limits, after};
pub(crate) use room::Room;
pub(in crate::policy) use wait::Caller;
use wait::Waiting;

/// How instances are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// Calls that may run at once, and instances that may exist.
    pub size: usize,
    /// How long a caller waits for its turn.
    pub wait: Duration,
    /// Whether an instance serves more than one call.
    pub isolation: Isolation,
    /// What each call may use.
    pub limits: Limits,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            size: DEFAULT_POOL_SIZE,
            wait: DEFAULT_QUEUE_WAIT,
            isolation: Isolation::default(),
            limits: Limits::default(),
        }
    }
}

/// What became of the instances so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolCounts {
    /// Instances made.
    pub created: u64,
    /// Dropped after a fault.
    pub dropped_faulted: u64,
    /// Dropped because their memory had grown near the limit.
    pub dropped_memory: u64,
    /// Dropped because the isolation asks for it.
    pub dropped_isolation: u64,
    /// Dropped with their pool, which another has followed.
    pub dropped_replaced: u64,
    /// Leases refused because none came free in time.
    pub refused: u64,
    /// Chunks for which an instance was lent that was not asked about all chunks before.
    pub chunks_moved: u64,
}

/// The counts themselves, shared by pools that follow each other.
#[derive(Default)]
struct Counters {
    created: AtomicU64,
    faulted: AtomicU64,
    memory: AtomicU64,
    isolation: AtomicU64,
    replaced: AtomicU64,
    refused: AtomicU64,
    moved: AtomicU64,
}

/// What the instances do right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolUse {
    /// Instances that may exist.
    pub size: usize,
    /// Lent out.
    pub in_use: usize,
    /// Made, and lent to nobody.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

/// A module's instances.
pub struct Pool {
    module: Arc<Module>,
    settings: PoolSettings,
    counters: Arc<Counters>,
    room: Room,
    /// One for each call that may run at once; callers wait in order.
    places: Semaphore,
    waiting: AtomicUsize,
    instances: Mutex<Instances>,
    /// Told when an instance came back, where somebody waits for one of them.
    came_back: Notify,
    /// Callers that wait for an instance of theirs.
    choosy: AtomicUsize,
}

#[derive(Default)]
#[expect(
    clippy::vec_box,
    reason = "an instance is large, and moves at every lease"
)]
struct Instances {
    /// The one used last is lent first: its memory is warm.
    idle: Vec<Box<Instance>>,
    /// Numbers of those that are lent out.
    lent: Vec<u64>,
}

impl Instances {
    fn take_any(&mut self) -> Option<Box<Instance>> {
        let instance = self.idle.pop()?;
        self.lent.push(instance.number());
        Some(instance)
    }

    fn take(&mut self, number: u64) -> Option<Box<Instance>> {
        let at = self.idle.iter().position(|it| it.number() == number)?;
        self.lent.push(number);
        // The others stay in their order.
        Some(self.idle.remove(at))
    }

    fn is_lent(&self, number: u64) -> bool {
        self.lent.contains(&number)
    }

    fn has(&self, number: u64) -> bool {
        self.is_lent(number) || self.idle.iter().any(|it| it.number() == number)
    }

    fn give_back(&mut self, number: u64) {
        if let Some(at) = self.lent.iter().position(|lent| *lent == number) {
            self.lent.swap_remove(at);
        }
    }
}

/// The instance that was asked about the last chunk of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its number.
    pub(crate) instance: u64,
    /// It was asked about all chunks before that one too.
    pub(crate) has_all: bool,
}

impl Told {
    /// After a chunk that no instance was asked about.
    pub(crate) const fn without_one(before: Option<Self>) -> Self {
        Self {
            // No instance has 0.
            instance: match before {
                Some(told) => told.instance,
                None => 0,
            },
            has_all: false,
        }
    }
}

/// The instance that a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Any.
    Any,
    /// The one that was asked about the chunk before.
    Same(Told),
    /// Any in the place of that one, which did not come free in time.
    Other(Told),
}

/// What became of the wish for one certain instance.
enum Picked<'a> {
    /// It was idle.
    Lent(Place<'a>, Box<Instance>),
    /// Another call has it.
    Busy,
    /// There is none of this number any more.
    Gone,
}

impl Pool {
    /// An empty pool; instances are made when they are first needed.
    #[must_use]
    pub fn new(module: Arc<Module>, settings: PoolSettings) -> Self {
        Self {
            module,
            room: Room::new(settings.limits.max_memory_bytes),
            places: Semaphore::new(settings.size.min(Semaphore::MAX_PERMITS)),
            settings,
            counters: Arc::default(),
            waiting: AtomicUsize::new(0),
            instances: Mutex::default(),
            came_back: Notify::new(),
            choosy: AtomicUsize::new(0),
        }
    }

    /// An empty pool that takes this one's place and counts on where it is.
    #[must_use]
    pub fn followed_by(&self, module: Arc<Module>, settings: PoolSettings) -> Self {
        let mut pool = Self::new(module, settings);
        pool.counters = Arc::clone(&self.counters);
        pool
    }

    /// The module whose instances these are.
    #[must_use]
    pub const fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// How instances are kept.
    #[must_use]
    pub const fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// What became of the instances so far.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PoolCounts {
            created: read(&self.counters.created),
            dropped_faulted: read(&self.counters.faulted),
            dropped_memory: read(&self.counters.memory),
            dropped_isolation: read(&self.counters.isolation),
            dropped_replaced: read(&self.counters.replaced),
            refused: read(&self.counters.refused),
            chunks_moved: read(&self.counters.moved),
        }
    }

    /// What the instances do right now.
    #[must_use]
    pub fn usage(&self) -> PoolUse {
        let free = self.places.available_permits();
        PoolUse {
            size: self.settings.size,
            in_use: self.settings.size.saturating_sub(free),
            idle: self.instances().idle.len(),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Borrows an instance for one call. The thread sleeps while it waits.
    ///
    /// # Errors
    /// A fault: `overload` where none came free in time, or what the module's
    /// start did wrong.
    pub fn lease(&self) -> Result<Lease<'_>, Box<Fault>> {
        let place = match self.free_place() {
            Some(place) => place,
            None => drive(self.wait(Caller::Thread))?,
        };
        drive(self.lend((place, None, false), ExecMode::for_this_thread()))
    }

    /// The same as a future, which gives its thread back while it waits and while
    /// an instance is made.
    ///
    /// # Errors
    /// Those of [`Pool::lease`].
    pub async fn lease_async(&self) -> Result<Lease<'_>, Box<Fault>> {
        let place = match self.free_place() {
            Some(place) => place,
            // In a box: it is rare, and every call's future would have its size.
            None => Box::pin(self.wait(Caller::Task)).await?,
        };
        self.lend((place, None, false), ExecMode::InSlices).await
    }

    /// Borrows an instance for one call if there is one to be had without
    /// waiting for other calls. What is still to be made is made by the future.
    pub fn try_lease(
        &self,
    ) -> Option<impl Future<Output = Result<Lease<'_>, Box<Fault>>> + Send + use<'_>> {
        self.try_lease_for(Wish::Any)
    }

    /// The same of a certain instance, or of any in its place where it is gone.
    pub(crate) fn try_lease_for(
        &self,
        wish: Wish,
    ) -> Option<impl Future<Output = Result<Lease<'_>, Box<Fault>>> + Send + use<'_>> {
        let picked = match wish {
            Wish::Any => (self.free_place()?, None, false),
            Wish::Other(told) => {
                let place = self.free_place()?;
                // It may have come back.
                let same = self.instances().take(told.instance);
                let lacks_chunks = same.is_none() || !told.has_all;
                (place, same, lacks_chunks)
            }
            Wish::Same(told) => match self.pick(told.instance) {
                Picked::Lent(place, instance) => (place, Some(instance), !told.has_all),
                Picked::Gone => (self.free_place()?, None, true),
                Picked::Busy => return None,
            },
        };
        Some(self.lend(picked, ExecMode::InSlices))
    }

    /// Whether a lease would be had without waiting, now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Whether another call has the instance of this number.
    pub(crate) fn is_lent(&self, number: u64) -> bool {
        self.instances().is_lent(number)
    }

    /// Borrows the instance that was asked before as soon as it is idle, at the latest
    /// when the time that callers wait is over; else any.
    ///
    /// # Errors
    /// Those of [`Pool::lease`].
    pub(super) async fn lease_same(
        &self,
        told: Told,
        (caller, mode): (Caller, ExecMode),
    ) -> Result<Lease<'_>, Box<Fault>> {
        let asked = Instant::now();
        let until = after(asked, self.settings.wait);
        let waiting = Waiting::begin(&self.choosy);
        let picked = caller.wait(until, self.same_or_gone(told.instance)).await;
        drop(waiting);
        let (permit, instance) = match picked {
            Some(picked) => picked,
            None => match self.free_place() {
                Some(place) => (place.permit, None),
                None => return Err(self.refused()),
            },
        };
        let place = Place {
            permit,
            waited: asked.elapsed(),
        };
        let lacks_chunks = instance.is_none() || !told.has_all;
        self.lend((place, instance, lacks_chunks), mode).await
    }

    /// The instance of this number with a place in the line, as soon as no other call
    /// has it; none where it is gone.
    async fn same_or_gone(&self, number: u64) -> (SemaphorePermit<'_>, Option<Box<Instance>>) {
        loop {
            let came_back = self.came_back.notified();
            if !self.is_lent(number)
                && let Ok(permit) = self.places.acquire().await
            {
                let mut instances = self.instances();
                let instance = instances.take(number);
                if instance.is_some() || !instances.is_lent(number) {
                    return (permit, instance);
                }
            } else {
                came_back.await;
            }
        }
    }

    fn pick(&self, number: u64) -> Picked<'_> {
        let place = self.free_place();
        let mut instances = self.instances();
        match (place, instances.has(number)) {
            (_, false) => Picked::Gone,
            (Some(place), true) => match instances.take(number) {
                Some(instance) => Picked::Lent(place, instance),
                None => Picked::Busy,
            },
            (None, true) => Picked::Busy,
        }
    }

    /// An instance for whoever has a place.
    fn lend<'a>(
        &'a self,
        (place, picked, lacks_chunks): (Place<'a>, Option<Box<Instance>>, bool),
        mode: ExecMode,
    ) -> impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send + use<'a> {
        // From here on dropping the lease gives the place back, come what may.
        let mut lease = Lease {
            pool: self,
            instance: picked.or_else(|| self.instances().take_any()),
            lacks_chunks,
            waited: place.waited,
            permit: Some(place.permit),
        };
        async move {
            if lease.instance.is_none() {
                // In a box: it is rare, and every call's future would have its size.
                let made = Instance::new_in(mode, &self.module, self.settings.limits);
                let made = Box::pin(made).await?;
                self.instances().lent.push(made.number());
                lease.instance = Some(Box::new(made));
                self.counters.created.fetch_add(1, Ordering::Relaxed);
            }
            if lease.lacks_chunks {
                self.counters.moved.fetch_add(1, Ordering::Relaxed);
            }
            Ok(lease)
        }
    }

    /// Makes the first `instances` of those there may be, so that a module
    /// whose start fails is refused before the first call rather than at it.
    ///
    /// # Errors
    /// [`Error::Start`] with what a start did wrong.
    pub fn fill(&self, instances: usize) -> Result<(), Error> {
        // All held at once, or the same one would be lent again and again.
        let filled = (0..instances.min(self.settings.size))
            .map(|_| self.lease())
            .collect::<Result<Vec<_>, _>>()
            .map(drop);
        filled.map_err(|fault| Error::Start {
            path: self.module.path.clone(),
            fault,
        })
    }

    fn free_place(&self) -> Option<Place<'_>> {
        let permit = self.places.try_acquire().ok()?;
        Some(Place {
            permit,
            waited: Duration::ZERO,
        })
    }

    async fn wait(&self, caller: Caller) -> Result<Place<'_>, Box<Fault>> {
        let asked = Instant::now();
        let _waiting = Waiting::begin(&self.waiting);
        let until = after(asked, self.settings.wait);
        match caller.wait(until, self.places.acquire()).await {
            Some(Ok(permit)) => Ok(Place {
                permit,
                waited: asked.elapsed(),
            }),
            _ => Err(self.refused()),
        }
    }

    fn refused(&self) -> Box<Fault> {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let Self { settings, .. } = self;
        Box::new(Fault::new(
            FaultCode::Overload,
            format!(
                "no instance of {} came free within {:?}",
                settings.size, settings.wait
            ),
        ))
    }

    /// Nothing in the list can be half-changed by a panic, so one elsewhere
    /// does not end the pool.
    fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the instance of a call that is over, or hands back one that is to be
    /// dropped.
    fn end_lease(&self, mut instance: Option<Box<Instance>>) -> Option<Box<Instance>> {
        if let Some(instance) = &mut instance {
            instance.end_exchange();
        }
        // A panic in mid-call leaves the instance in an unknown state.
        let fate = match &instance {
            Some(instance) if !std::thread::panicking() => self.fate(instance),
            _ => Fate::Faulted,
        };
        let counters = &self.counters;
        let number = instance.as_ref().map(|instance| instance.number());
        let mut instances = self.instances();
        if let Some(number) = number {
            instances.give_back(number);
        }
        let dropped = match fate {
            Fate::Kept => {
                instances.idle.extend(instance);
                return None;
            }
            Fate::Faulted => &counters.faulted,
            Fate::MemoryFull => &counters.memory,
            Fate::Isolated => &counters.isolation,
        };
        dropped.fetch_add(u64::from(instance.is_some()), Ordering::Relaxed);
        instance
    }

    fn fate(&self, instance: &Instance) -> Fate {
        if instance.poison().is_some() {
            Fate::Faulted
        } else if match self.settings.isolation {
            Isolation::Pooled => false,
            Isolation::Fresh => true,
            Isolation::Recycle(calls) => instance.calls() >= calls,
        } {
            Fate::Isolated
        } else if self.room.has_some_for(instance) {
            Fate::Kept
        } else {
            Fate::MemoryFull
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = self.instances().idle.len() as u64;
        self.counters.replaced.fetch_add(idle, Ordering::Relaxed);
    }
}

enum Fate {
    Kept,
    Faulted,
    MemoryFull,
    Isolated,
}

/// Leave to make one call.
struct Place<'a> {
    permit: SemaphorePermit<'a>,
    waited: Duration,
}

/// A borrowed instance.
pub struct Lease<'a> {
    pool: &'a Pool,
    /// None only while it is being made.
    instance: Option<Box<Instance>>,
    /// Another one was asked about the chunks before, or some of them.
    lacks_chunks: bool,
    waited: Duration,
    /// None only as it is dropped.
    permit: Option<SemaphorePermit<'a>>,
}

impl Lease<'_> {
    /// Whether another instance was asked about the chunks before, or some of them.
    pub(super) const fn lacks_chunks(&self) -> bool {
        self.lacks_chunks
    }

    /// What the next chunk of the body needs to know.
    pub(super) fn told(&self) -> Told {
        Told {
            instance: self.number(),
            has_all: !self.lacks_chunks,
        }
    }

    /// How long the caller waited for its turn; nothing where a place was free,
    /// and at each further call.
    pub(super) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl Deref for Lease<'_> {
    type Target = Instance;

    #[expect(
        clippy::expect_used,
        reason = "lease() hands out no lease without an instance"
    )]
    fn deref(&self) -> &Instance {
        self.instance.as_ref().expect("a lease has an instance")
    }
}

impl DerefMut for Lease<'_> {
    #[expect(
        clippy::expect_used,
        reason = "lease() hands out no lease without an instance"
    )]
    fn deref_mut(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("a lease has an instance")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let gone = self.pool.end_lease(self.instance.take());
        // The next caller finds what was kept, and does not wait for the unmapping of
        // what was not.
        drop(self.permit.take());
        if self.pool.choosy.load(Ordering::SeqCst) > 0 {
            self.pool.came_back.notify_waiters();
        }
        drop(gone);
    }
}
