//! How many instances a module needs, from measured figures only.

use std::time::Duration;

use super::report::{Advice, LoadPoint, counted};

/// A pool that came within this share of the best one's throughput in one of
/// its turns is as good: what is between turns is noise.
const AS_GOOD: f64 = 0.95;
/// A schedule was kept where so much of it was answered in its time.
const KEPT: f64 = 0.95;

/// What is asked of a module besides its figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// The response time that 99 of 100 events are to keep.
    pub p99: Duration,
    /// Cores of this machine.
    pub cores: usize,
    /// Most linear memory of one instance, in bytes.
    pub instance_bytes: u64,
}

/// Reads the loads; nothing is said of no loads.
#[must_use]
pub(crate) fn advise(loads: &[LoadPoint], wish: Wish) -> Option<Advice> {
    let sizes = sizes(loads);
    let (&smallest_measured, &largest_measured) = (sizes.first()?, sizes.last()?);
    let best: Vec<(usize, &LoadPoint)> = sizes
        .iter()
        .filter_map(|&size| Some((size, best_of(loads, size, wish.p99)?)))
        .collect();
    let top = best
        .iter()
        .map(|(_, point)| point.throughput)
        .fold(0.0, f64::max);
    let p99 = time(wish.p99);
    let Some(&(size, point)) = best
        .iter()
        .find(|(_, point)| point.best_turn() >= top * AS_GOOD)
    else {
        let least = loads.iter().min_by_key(|point| point.response.at(0.99))?;
        return Some(Advice {
            pool_size: None,
            flags: None,
            text: format!(
                "No measured combination keeps p99 below {p99}: the best was {} with pool {} and {}. Raise --p99, or make the module faster.",
                time(least.response.at(0.99)),
                least.pool_size,
                callers(least),
            ),
        });
    };
    let mut text = format!(
        "Pool {size} keeps p99 below {p99} up to {}/s with {} on {}",
        grouped(point.throughput),
        callers(point),
        counted(wish.cores as u64, "core"),
    );
    if let Some((_, smaller)) = best.iter().rev().find(|(other, _)| *other < size) {
        text.push_str(&format!(
            "; pool {} reaches {}/s",
            smaller.pool_size,
            grouped(smaller.throughput)
        ));
    }
    text.push_str(match (size < largest_measured, size > smallest_measured) {
        (true, _) => "; more instances cost memory and are not faster.",
        (false, true) => "; no larger pool was measured; a larger one may be faster.",
        (false, false) => "; no other pool was measured.",
    });
    text.push_str(&format!(
        " Its instances take up to {:.1} MiB together.",
        size as f64 * wish.instance_bytes as f64 / f64::from(1 << 20)
    ));
    if point.rate.is_none() {
        text.push_str(
            " Callers that wait for their answers make the tail look better than it is: check it with --rate.",
        );
    }
    Some(Advice {
        pool_size: Some(size),
        flags: Some(format!("--pool-size {size}")),
        text,
    })
}

fn sizes(loads: &[LoadPoint]) -> Vec<usize> {
    let mut sizes: Vec<usize> = loads.iter().map(|point| point.pool_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The most that pools of this size did while they kept the wish. What an open
/// loop says counts alone, where there is one: its tails are honest.
fn best_of(loads: &[LoadPoint], size: usize, p99: Duration) -> Option<&LoadPoint> {
    let has_open = loads.iter().any(|point| point.rate.is_some());
    loads
        .iter()
        .filter(|point| point.pool_size == size && point.rate.is_some() == has_open)
        .filter(|point| !point.response.is_empty() && point.response.at(0.99) < p99)
        .filter(|point| {
            point
                .rate
                .is_none_or(|rate| point.throughput >= rate * KEPT)
        })
        .max_by(|a, b| a.throughput.total_cmp(&b.throughput))
}

fn callers(point: &LoadPoint) -> String {
    counted(point.concurrency as u64, "caller")
}

fn time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 1.0 {
        format!("{:.0} µs", millis * 1e3)
    } else {
        format!("{} ms", (millis * 100.0).round() / 100.0)
    }
}

/// Two significant figures: more would be noise.
fn grouped(number: f64) -> String {
    let unit = 10_f64.powf((number.max(1.0).log10().floor() - 1.0).max(0.0));
    let digits = format!("{:.0}", (number / unit).round() * unit);
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::latency::Latency;

    fn point(pool_size: usize, throughput: f64, p99_us: u64, rate: Option<f64>) -> LoadPoint {
        let mut response = Latency::new();
        response.record(Duration::from_micros(p99_us));
        LoadPoint {
            pool_size,
            concurrency: 4,
            rate,
            throughput,
            turns: Vec::new(),
            response,
            service: None,
            queue: None,
            guest: None,
            process: None,
        }
    }

    const WISH: Wish = Wish {
        p99: Duration::from_millis(2),
        cores: 2,
        instance_bytes: 1 << 20,
    };

    #[test]
    fn the_smallest_pool_that_is_as_good_is_advised() {
        let loads = [
            point(1, 21_000.0, 300, None),
            point(2, 41_000.0, 400, None),
            point(4, 41_500.0, 500, None),
            point(8, 42_000.0, 900, None),
        ];
        let advice = advise(&loads, WISH).unwrap();
        assert_eq!(advice.pool_size, Some(2));
        assert_eq!(advice.flags.as_deref(), Some("--pool-size 2"));
        assert!(
            advice.text.starts_with(
                "Pool 2 keeps p99 below 2 ms up to 41 000/s with 4 callers on 2 cores; pool 1 reaches 21 000/s; more instances cost memory and are not faster."
            ),
            "{}",
            advice.text
        );
    }

    #[test]
    fn a_pool_that_is_still_gaining_says_so() {
        let loads = [point(1, 10_000.0, 300, None), point(2, 20_000.0, 300, None)];
        let text = advise(&loads, WISH).unwrap().text;
        assert!(text.contains("no larger pool was measured"), "{text}");
        let alone = advise(&loads[1..], WISH).unwrap().text;
        assert!(alone.contains("no other pool was measured"), "{alone}");
    }

    #[test]
    fn nothing_is_advised_where_nothing_will_do() {
        let loads = [
            point(1, 10_000.0, 5_000, None),
            point(2, 9_000.0, 9_000, None),
        ];
        let advice = advise(&loads, WISH).unwrap();
        assert_eq!((advice.pool_size, advice.flags), (None, None));
        assert!(
            advice.text.contains("the best was 5 ms with pool 1"),
            "{}",
            advice.text
        );
        assert_eq!(advise(&[], WISH), None);
    }

    #[test]
    fn a_schedule_that_was_not_kept_counts_for_nothing() {
        let loads = [
            point(1, 9_900.0, 300, Some(10_000.0)),
            point(1, 12_000.0, 300, Some(20_000.0)),
        ];
        let advice = advise(&loads, WISH).unwrap();
        assert!(advice.text.contains("up to 9 900/s"), "{}", advice.text);
    }

    proptest! {
        /// Whatever was measured: only that is advised, and only if it keeps
        /// the wish.
        #[test]
        fn nothing_unmeasured_is_advised(
            loads in prop::collection::vec((1_usize..64, 1.0..1e6, 1_u64..10_000), 0..20),
        ) {
            let loads: Vec<_> = loads
                .into_iter()
                .map(|(size, throughput, p99)| point(size, throughput, p99, None))
                .collect();
            if let Some(size) = advise(&loads, WISH).and_then(|advice| advice.pool_size) {
                let keeps = |point: &LoadPoint| {
                    point.pool_size == size && point.response.at(0.99) < WISH.p99
                };
                prop_assert!(loads.iter().any(keeps));
            }
        }
    }
}
