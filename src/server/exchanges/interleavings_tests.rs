//! Random interleavings of exchanges against a model that knows which event
//! belongs to which exchange.

use std::collections::HashMap;

use super::tests::{Given, WANTS, chunk, give_at, head, response, response_body, set};
use super::*;

/// What one of the model's exchanges still has to send.
#[derive(Debug)]
struct Real {
    number: u64,
    id: String,
    /// Others may have the same.
    uri: String,
    peer: i32,
    connection: u64,
    /// Of its body, if it has one.
    length: Option<u64>,
    comes_in_pieces: bool,
    /// Its response comes before its body.
    is_early: bool,
    place: Option<Place>,
    /// Which step comes next.
    step: usize,
    sent: usize,
    status: u16,
    /// No other exchange with its id has begun so far.
    is_alone: bool,
}

/// Head, body, response, its body, and one for the end.
const STEPS: usize = 5;

/// Numbers without end from one.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }

    fn chance(&mut self, of_hundred: u64) -> bool {
        self.roll(100) < of_hundred
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    shared_bodies: u64,
    refused: u64,
    judged_with_several: u64,
}

/// Exchanges of two proxies, and the agent's memory of them.
struct World<'a> {
    known: Exchanges,
    affinity: Affinity,
    wants: Wants,
    /// In some runs exchanges are forgotten.
    forgets: bool,
    /// The connection of the last head with an id.
    last_head: HashMap<(i32, String), u64>,
    dice: Dice,
    tally: &'a mut Tally,
}

impl World<'_> {
    fn give(&self, real: &Real, connection: u64, event: Event) -> Given {
        let origin = Origin {
            peer: Peer::Process(real.peer),
            connection,
            affinity: self.affinity,
            heads_come: [true, true],
        };
        give_at(&self.known, Instant::now(), (origin, self.wants), event)
    }

    fn step(&mut self, real: &mut Real) {
        real.step += 1;
        match (real.step, real.is_early) {
            (1, _) => self.head(real),
            (2, false) | (3, true) => self.body(real),
            (3, false) | (2, true) => self.response(real),
            (4, _) => self.response_body(real),
            _ => {}
        }
    }

    fn head(&mut self, real: &mut Real) {
        real.connection = 1 + self.dice.roll(3);
        let key = (real.peer, real.id.clone());
        self.last_head.insert(key, real.connection);
        let event = head(&real.id, &real.uri, real.length);
        real.place = self.give(real, real.connection, event.clone()).joined.place;
        // The answer is late or missing in some runs: nothing is told then.
        if self.dice.chance(15) {
            self.known.refused(real.place, &event, false);
            real.step = STEPS;
        } else if self.dice.chance(80) {
            let operations = self.dice.chance(50).then(|| set(&real.uri));
            self.known
                .answered(real.place, operations.into_iter().collect());
        }
    }

    fn body(&mut self, real: &mut Real) {
        let Some(length) = real.length else { return };
        let connection = match self.affinity {
            // Any connection is as good as another.
            Affinity::None => 1 + self.dice.roll(3),
            Affinity::LastHead => self.last_head[&(real.peer, real.id.clone())],
            Affinity::Kept => real.connection,
        };
        // One that was lost and made again.
        let connection = if self.dice.chance(5) { 9 } else { connection };
        let size = usize::try_from(length).unwrap();
        let is_last = !real.comes_in_pieces || real.sent > 0;
        real.sent = if is_last { size } else { 1 };
        if !is_last {
            real.step -= 1;
        }
        let event = Event::RequestBody {
            chunk: chunk(&real.id, real.sent, is_last),
            request: None,
        };
        let given = self.give(real, connection, event.clone());
        self.tally.shared_bodies += u64::from(!real.is_alone);
        if let Some(problem) = given.joined.problem {
            assert!(!real.is_alone || self.forgets, "{problem:?} {real:?}");
            self.tally.refused += 1;
            if self.wants.ends_unclear {
                real.step = STEPS;
            }
            return;
        }
        let others = given.joined.other_heads.iter();
        let uris: Vec<&String> = given
            .uri
            .iter()
            .chain(others.map(|head| &head.uri))
            .collect();
        assert!(uris.contains(&&real.uri), "judged with {uris:?}: {real:?}");
        self.tally.judged_with_several += u64::from(uris.len() > 1);
        if self.dice.chance(15) {
            let joined = &given.joined;
            self.known.refused(joined.place, &event, joined.is_unclear);
            real.step = STEPS;
        }
        let may_be_several = self.affinity == Affinity::LastHead || uris.len() == 1;
        assert!(may_be_several || given.joined.is_unclear, "{uris:?}");
    }

    fn response(&mut self, real: &mut Real) {
        let connection = 1 + self.dice.roll(3);
        real.status = 200 + u16::from(self.dice.chance(50));
        let event = response(&real.id, real.status);
        let given = self.give(real, connection, event.clone());
        for operation in &given.joined.operations {
            assert_eq!(operation.name(), real.uri, "{real:?}");
        }
        if self.dice.chance(10) {
            let joined = &given.joined;
            self.known.refused(joined.place, &event, joined.is_unclear);
            real.step = STEPS;
        }
    }

    fn response_body(&mut self, real: &Real) {
        let connection = 1 + self.dice.roll(3);
        let given = self.give(real, connection, response_body(&real.id));
        if let Some(problem) = given.joined.problem {
            assert!(!real.is_alone || self.forgets, "{problem:?} {real:?}");
            return;
        }
        assert_eq!(given.uri.as_ref(), Some(&real.uri), "{real:?}");
        assert_eq!(given.status, Some(real.status), "{real:?}");
    }
}

fn exchanges(dice: &mut Dice) -> Vec<Real> {
    let count = 3 + dice.roll(10);
    let exchange = |number| Real {
        number,
        id: match dice.roll(3) {
            0 => format!("own-{number}"),
            _ => format!("shared-{}", dice.roll(2)),
        },
        uri: format!("/{}", dice.roll(8)),
        peer: i32::from(dice.chance(30)),
        connection: 0,
        length: dice.chance(60).then(|| 1 + dice.roll(3)),
        comes_in_pieces: dice.chance(30),
        is_early: dice.chance(15),
        place: None,
        step: 0,
        sent: 0,
        status: 0,
        is_alone: false,
    };
    (0..count).map(exchange).collect()
}

/// One interleaving of a dozen exchanges on three connections of two proxies.
fn interleave(seed: u64, affinity: Affinity, tally: &mut Tally) {
    let mut dice = Dice(seed);
    let forgets = dice.chance(20);
    let mut reals = exchanges(&mut dice);
    let wants = Wants {
        ends_unclear: dice.chance(50),
        ..WANTS
    };
    let mut world = World {
        known: Exchanges::new(ExchangeLimits {
            max_exchanges: if forgets { 4 } else { 1000 },
            ..ExchangeLimits::default()
        }),
        affinity,
        wants,
        forgets,
        last_head: HashMap::new(),
        dice,
        tally,
    };
    loop {
        let open: Vec<usize> = (0..reals.len())
            .filter(|at| reals[*at].step < STEPS)
            .collect();
        let chosen = world.dice.roll(open.len().max(1) as u64);
        let Some(at) = open.get(usize::try_from(chosen).unwrap()) else {
            break;
        };
        let real = &reals[*at];
        let is_rival = |other: &Real| {
            other.number != real.number
                && (&other.id, other.peer) == (&real.id, real.peer)
                && other.step > 0
        };
        reals[*at].is_alone = !reals.iter().any(is_rival);
        world.step(&mut reals[*at]);
    }
    let inner = lock(&world.known.inner);
    let all = || inner.groups.values();
    assert_eq!(inner.bytes, all().map(Group::bytes).sum::<usize>());
    assert_eq!(inner.live, all().map(Group::len).sum::<usize>());
    assert!(!all().any(Group::is_empty));
}

/// No body is judged without its own head, no operation goes out with another
/// exchange's response, and none is refused whose id no other has.
#[test]
fn no_interleaving_confuses_two_exchanges() {
    let given = std::env::var("INTERLEAVINGS").ok();
    let tries: u64 = given.map_or(10_000, |tries| tries.parse().unwrap());
    for (name, affinity) in [
        ("v1", Affinity::None),
        ("v2 and gRPC of released proxies", Affinity::LastHead),
        ("v2 of a proxy that keeps to a connection", Affinity::Kept),
    ] {
        let mut tally = Tally::default();
        for seed in 0..tries {
            interleave(seed, affinity, &mut tally);
        }
        println!("{name}: {tries} interleavings, {tally:?}");
    }
}
