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

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;
use crate::fault::{Fault, FaultCode};
use crate::guest::module::Module;
use crate::guest::{ExecMode, Instance, drive};
use crate::limits::{DEFAULT_POOL_SIZE, DEFAULT_QUEUE_WAIT, Isolation, Limits, after};
pub(crate) use room::Room;
use wait::{Caller, Waiting};

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
    /// The one used last is lent first: its memory is warm.
    idle: Mutex<Idle>,
}

/// In boxes: an instance is large, and moves at every lease.
type Idle = Vec<Box<Instance>>;

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
            idle: Mutex::default(),
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
        }
    }

    /// What the instances do right now.
    #[must_use]
    pub fn usage(&self) -> PoolUse {
        let free = self.places.available_permits();
        PoolUse {
            size: self.settings.size,
            in_use: self.settings.size.saturating_sub(free),
            idle: self.idle().len(),
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
        drive(self.lend(place, ExecMode::for_this_thread()))
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
        self.lend(place, ExecMode::InSlices).await
    }

    /// Borrows an instance for one call if there is one to be had without
    /// waiting for other calls. What is still to be made is made by the future.
    pub fn try_lease(
        &self,
    ) -> Option<impl Future<Output = Result<Lease<'_>, Box<Fault>>> + Send + use<'_>> {
        let place = self.free_place()?;
        Some(self.lend(place, ExecMode::InSlices))
    }

    /// Whether a lease would be had without waiting, now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// An instance for whoever has a place.
    fn lend<'a>(
        &'a self,
        place: Place<'a>,
        mode: ExecMode,
    ) -> impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send + use<'a> {
        // From here on dropping the lease gives the place back, come what may.
        let mut lease = Lease {
            pool: self,
            instance: self.idle().pop(),
            waited: place.waited,
            permit: Some(place.permit),
        };
        async move {
            if lease.instance.is_none() {
                // In a box: it is rare, and every call's future would have its size.
                let made = Instance::new_in(mode, &self.module, self.settings.limits);
                let made = Box::pin(made).await?;
                lease.instance = Some(Box::new(made));
                self.counters.created.fetch_add(1, Ordering::Relaxed);
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
            _ => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                Err(Box::new(Fault::new(
                    FaultCode::Overload,
                    format!(
                        "no instance of {} came free within {:?}",
                        self.settings.size, self.settings.wait
                    ),
                )))
            }
        }
    }

    /// Nothing in the list can be half-changed by a panic, so one elsewhere
    /// does not end the pool.
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
        let dropped = match fate {
            Fate::Kept => {
                self.idle().extend(instance);
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
        let idle = self.idle().len() as u64;
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
    waited: Duration,
    /// None only as it is dropped.
    permit: Option<SemaphorePermit<'a>>,
}

impl Lease<'_> {
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
        drop(gone);
    }
}
