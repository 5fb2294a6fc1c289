//! The charts of a benchmark, of figures that stand in its tables too.

use std::time::Duration;

use crate::latency::Latency;
use crate::ops::bench::{CaseReport, LoadPoint, Profile, Spread};

use super::profile;
use super::tables::rate;
use crate::cli::document::{Axis, Bar, Block, Chart, Point, Series, Tick};
use crate::cli::render::chart::{decades, round_steps};
use crate::cli::render::human::{count, time};

/// Bars of the phases, each with its name.
pub(super) fn phases(phases: &[(&'static str, &Spread)]) -> Block {
    let bars = phases.iter().map(|(name, spread)| Bar {
        name: (*name).to_owned(),
        value: spread.median_ns as f64,
        label: time(Duration::from_nanos(spread.median_ns)),
    });
    Block::Chart(Chart::Bars {
        caption: "Median times; each step to the right is a multiple, not a sum.",
        name: "phases",
        is_log: true,
        bars: bars.collect(),
    })
}

pub(super) fn fuel(cases: &[CaseReport]) -> Option<Block> {
    let bars = cases.iter().filter_map(|case| {
        let fuel = case.fuel?.warm;
        Some(Bar {
            name: case.name.clone(),
            value: fuel as f64,
            label: count(fuel),
        })
    });
    let bars: Vec<Bar> = bars.collect();
    (!bars.is_empty()).then_some(Block::Chart(Chart::Bars {
        caption: "Instructions of a warm call, the same on every machine.",
        name: "instructions of each event",
        is_log: false,
        bars,
    }))
}

pub(super) fn flame(profile: &Profile) -> Block {
    Block::Chart(Chart::Flame {
        caption: "The width is time; callers are below the functions they call.",
        flame: profile::flame(profile),
    })
}

pub(super) fn loads(loads: &[LoadPoint]) -> [Block; 2] {
    let mut sizes: Vec<usize> = loads.iter().map(|point| point.pool_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let pools = sizes.into_iter().map(|size| {
        let of_pool = loads.iter().filter(|point| point.pool_size == size);
        let mut points: Vec<&LoadPoint> = of_pool.collect();
        points.sort_by(|a, b| load(a).total_cmp(&load(b)));
        Pool { size, points }
    });
    let pools: Vec<Pool<'_>> = pools.collect();
    [response_times(&pools), throughput(&pools)].map(Block::Chart)
}

/// The loads of one pool, from the lightest to the heaviest.
struct Pool<'a> {
    size: usize,
    points: Vec<&'a LoadPoint>,
}

impl Pool<'_> {
    fn name(&self) -> String {
        match self.size {
            0 => "the agent".to_owned(),
            size => format!("pool {size}"),
        }
    }
}

/// What a load is told from others by.
fn load(point: &LoadPoint) -> f64 {
    point.rate.unwrap_or(point.concurrency as f64)
}

/// At the heaviest load, where pools differ.
fn response_times(pools: &[Pool<'_>]) -> Chart {
    let series = pools.iter().filter_map(|pool| {
        Some(Series {
            name: pool.name(),
            points: quantiles(&pool.points.last()?.response),
        })
    });
    let series: Vec<Series> = series.collect();
    let times = series.iter().flat_map(|series| &series.points);
    let times = decades(times.map(|point| point.y), micros);
    let shares = QUANTILES.map(|(share, label)| Tick {
        at: nines(share),
        label: label.to_owned(),
    });
    Chart::Lines {
        caption: "Response time, by the share of events that were answered within it, at the highest load.",
        x: Axis {
            name: "share of events answered",
            is_log: false,
            ticks: shares.into(),
        },
        y: Axis {
            name: "response time",
            is_log: true,
            ticks: times,
        },
        series,
    }
}

fn throughput(pools: &[Pool<'_>]) -> Chart {
    let all = || pools.iter().flat_map(|pool| &pool.points);
    let by_rate = all().any(|point| point.rate.is_some());
    let mut at: Vec<f64> = all().map(|point| load(point)).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    let ticks = at.into_iter().map(|at| Tick {
        at,
        label: rate(at).trim_end_matches(".0").to_owned(),
    });
    let series = pools.iter().map(|pool| {
        let points = pool.points.iter().map(|point| Point {
            x: load(point),
            y: point.throughput,
            label: rate(point.throughput),
        });
        Series {
            name: pool.name(),
            points: points.collect(),
        }
    });
    Chart::Lines {
        caption: "Events answered per second, by load.",
        x: Axis {
            name: if by_rate {
                "events due per second"
            } else {
                "callers at once"
            },
            is_log: true,
            ticks: ticks.collect(),
        },
        y: Axis {
            name: "events answered per second",
            is_log: false,
            ticks: round_steps(all().map(|point| point.throughput), rate),
        },
        series: series.collect(),
    }
}

/// Microseconds as an axis writes them.
fn micros(value: f64) -> String {
    time(Duration::from_secs_f64((value / 1e6).clamp(0.0, 1e6)))
}

const QUANTILES: [(f64, &str); 6] = [
    (0.0, "0 %"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
];

/// Where a share stands: each nine as far from the next.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// The distribution, up to where there are events to tell it from.
fn quantiles(latency: &Latency) -> Vec<Point> {
    let last = nines(QUANTILES[QUANTILES.len() - 1].0);
    let places = (0..=40).map(|step| last * f64::from(step) / 40.0);
    let shares = places.map(|x| (x, 1.0 - 10_f64.powf(-x)));
    let shares = shares.take_while(|(_, share)| (1.0 - share) * latency.count() as f64 >= 1.0);
    let points = shares.map(|(x, share)| {
        let y = latency.at(share).as_secs_f64() * 1e6;
        let label = micros(y);
        Point { x, y, label }
    });
    points.collect()
}
