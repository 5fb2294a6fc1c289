//! Two sides, modules or running agents, timed by turns in short batches: A B,
//! then B A.
//!
//! In: what makes the calls of each side. Out: [`Rounds`] of pairs of times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::{BenchCase, of_inputs};
use super::harness::{ROUNDS, built_in, measured};
use super::judge::{Pair, Rounds};
use super::machine::CpuTime;
use super::progress::Meter;
use super::stop::Stop;
use crate::event::{Event, RequestHead};
use crate::guest::module::Module;
use crate::policy::{Policy, PolicySettings};
use crate::question::HeaderNames;

/// Batches of each side in a round are at least so many.
const LEAST_PAIRS: u32 = 4;
/// One batch takes about so long.
const BATCH: Duration = Duration::from_millis(1);
pub(super) const DURING: &str = "comparing times";

/// Makes so many calls on an instance or a connection of its own, and says how
/// long they took together.
pub(super) type Batch<'a> = Box<dyn FnMut(u32) -> Result<Duration, Stop> + 'a>;

/// Makes a side's batch anew for each round, by its number.
pub(super) type Side<'a> = Box<dyn Fn(usize) -> Result<Batch<'a>, Stop> + 'a>;

/// Calls of a case on one policy.
pub(super) fn calls(policy: Policy, case: &BenchCase) -> Batch<'_> {
    Box::new(move |calls| {
        let mut time = Duration::ZERO;
        for _ in 0..calls {
            time += measured(&policy, case, DURING)?.time;
        }
        Ok(time)
    })
}

/// What one case gave.
pub(super) struct Compared {
    pub(super) rounds: Rounds,
    /// The share of the time that this thread waited for a processor; none
    /// where the kernel does not say.
    pub(super) busy: Option<f64>,
}

/// Times both sides for about so long.
pub(super) fn by_turns(
    [before, after]: [Side<'_>; 2],
    time: Duration,
    meter: &Meter<'_>,
) -> Result<Compared, Stop> {
    let began = CpuTime::of_this_thread();
    let mut rounds = Rounds::new();
    for round in 0..ROUNDS {
        let mut sides = [before(round)?, after(round)?];
        let mut calls = [1, 1];
        for (batch, calls) in sides.iter_mut().zip(&mut calls) {
            // Warms up as well.
            while batch(*calls)? < BATCH && *calls < 1 << 20 {
                *calls *= 2;
            }
        }
        let until = Instant::now() + time / u32::try_from(ROUNDS).unwrap_or(1);
        let mut pairs = Vec::new();
        let mut turn = 0;
        while turn < LEAST_PAIRS || Instant::now() < until {
            // Neither is always the one that goes first.
            let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
            let mut each = [0.0; 2];
            for side in order {
                let time = sides[side](calls[side])?;
                each[side] = time.as_secs_f64() * 1e9 / f64::from(calls[side]);
            }
            pairs.push(Pair {
                before: each[0],
                after: each[1],
            });
            turn += 1;
        }
        rounds.push(pairs);
        meter.tick();
    }
    let busy = began.and_then(|before| Some(CpuTime::of_this_thread()?.waited_since(before)));
    Ok(Compared { rounds, busy })
}

/// A guest that never changes, as a measure of the machine's speed today.
pub(super) struct Reference {
    /// One for each round, as a module under test has them.
    copies: Vec<Arc<Module>>,
    case: BenchCase,
}

/// Counts to ten thousand, writing to memory: some ten microseconds.
const REFERENCE: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "on_request_headers") (param i32 i32) (result i64)
    (local $n i32) (local $sum i32)
    (loop $again
      (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (local.get $n)))
      (i32.store (i32.and (local.get $sum) (i32.const 0xfffc)) (local.get $sum))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 10000))))
    (i64.const 0)))"#;

impl Reference {
    pub(super) fn new() -> Result<Self, Stop> {
        let wasm = wat::parse_str(REFERENCE)
            .map_err(|source| Stop::host("cannot assemble the reference", source))?;
        let event = Event::RequestHeaders(RequestHead::default());
        let input = ("the reference".to_owned(), event.into());
        let mut cases = of_inputs([input], HeaderNames::Lower);
        let copies = (0..ROUNDS).map(|_| built_in(wasm.clone(), "the reference"));
        Ok(Self {
            copies: copies.collect::<Result<_, _>>()?,
            case: cases.remove(0),
        })
    }

    pub(super) fn side(&self) -> Side<'_> {
        Box::new(|round| {
            let module = Arc::clone(&self.copies[round % self.copies.len()]);
            let policy = Policy::new(module, PolicySettings::default());
            Ok(calls(policy, &self.case))
        })
    }
}
