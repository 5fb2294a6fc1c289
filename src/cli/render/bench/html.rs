//! A benchmark as a page: what it came to first, then drawings, then tables.

use std::io::{self, Write};
use std::time::Duration;

use wasm_agent_kit::latency::Latency;
use wasm_agent_kit::ops::bench::{BenchReport, LoadPoint};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::sheets::{self, Width, grouped};
use crate::cli::render::chart::{Axis, Bar, Series, bars, lines};
use crate::cli::render::human::{Paint, Style, count, time};
use crate::cli::render::page::Page;

/// Bars in one drawing.
const MAX_BARS: usize = 60;

/// Writes the page.
pub(super) fn write(report: &BenchReport, out: &mut dyn Write) -> io::Result<()> {
    let (title, about) = super::heading(report);
    let mut page = Page::new(&title);
    let class = match report.verdict() {
        Verdict::Passed => "good",
        Verdict::Inconclusive | Verdict::NothingChecked => "warning",
        Verdict::Failed | Verdict::Unreadable => "bad",
    };
    page.banner(class, &super::verdict(report, Style::plain()));
    if let Some(advice) = &report.advice {
        page.banner("", &advice.text);
        if let Some(flags) = &advice.flags {
            page.code(flags);
        }
    }
    for line in about {
        page.text(&line);
    }
    for note in &report.notes {
        page.text(note);
    }
    for sheet in sheets::of(report, Width::Wide) {
        page.heading(sheet.title);
        match sheet.title {
            sheets::LOADS => load_figures(report, &mut page),
            sheets::PHASES => phase_figure(report, &mut page),
            sheets::CALLS => call_figures(report, &mut page),
            sheets::PROFILE => {
                if let Some(profile) = &report.profile {
                    let caption = "The width is time; callers are below the functions they call.";
                    page.figure(caption, &super::profile::flame_svg(profile));
                }
            }
            _ => {}
        }
        if !sheet.rows.is_empty() {
            let rows = sheet.rows.iter().map(|row| {
                let class = match row.paint {
                    Some(Paint::Good) => "good",
                    Some(Paint::Warning) => "warning",
                    Some(Paint::Bad) => "bad",
                    Some(Paint::Strong) => "strong",
                    Some(Paint::Faint) | None => "",
                };
                (class, row.cells.as_slice())
            });
            page.table(&sheet.headings, &sheet.figures, rows);
        }
        for note in &sheet.notes {
            page.text(note);
        }
    }
    page.write(out)
}

/// Microseconds as an axis writes them.
fn micros(value: f64) -> String {
    time(Duration::from_secs_f64((value / 1e6).clamp(0.0, 1e6)))
}

fn load_figures(report: &BenchReport, page: &mut Page) {
    let mut pools: Vec<usize> = report.loads.iter().map(|point| point.pool_size).collect();
    pools.sort_unstable();
    pools.dedup();
    // At the heaviest load, where pools differ.
    let heaviest = |pool| {
        of(report, pool).max_by(|a: &&LoadPoint, b: &&LoadPoint| load(a).total_cmp(&load(b)))
    };
    let distributions: Vec<Series> = pools
        .iter()
        .filter_map(|&pool| {
            let point = heaviest(pool)?;
            Some(Series {
                name: pool_name(pool),
                points: quantiles(&point.response),
            })
        })
        .collect();
    let x = Axis {
        name: "share of events answered",
        is_log: false,
        ticks: QUANTILES
            .iter()
            .map(|(share, label)| (nines(*share), (*label).to_owned()))
            .collect(),
        show: &|_| String::new(),
    };
    let y = Axis {
        name: "response time",
        is_log: true,
        ticks: Vec::new(),
        show: &micros,
    };
    page.figure(
        "Response time, by the share of events that were answered within it, at the highest load.",
        &lines(&distributions, &x, &y),
    );
    throughput_figure(report, &pools, page);
}

fn pool_name(pool: usize) -> String {
    if pool == 0 {
        "the agent".to_owned()
    } else {
        format!("pool {pool}")
    }
}

/// The loads of one pool.
fn of(report: &BenchReport, pool: usize) -> impl Iterator<Item = &LoadPoint> {
    report
        .loads
        .iter()
        .filter(move |point| point.pool_size == pool)
}

/// What a load is told from others by.
fn load(point: &LoadPoint) -> f64 {
    point.rate.unwrap_or(point.concurrency as f64)
}

fn throughput_figure(report: &BenchReport, pools: &[usize], page: &mut Page) {
    let by_rate = report.loads.iter().any(|point| point.rate.is_some());
    let throughput: Vec<Series> = pools
        .iter()
        .map(|&pool| {
            let mut points: Vec<(f64, f64)> = of(report, pool)
                .map(|point| (load(point), point.throughput))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series {
                name: pool_name(pool),
                points,
            }
        })
        .collect();
    let mut at: Vec<f64> = report.loads.iter().map(load).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    let x = Axis {
        name: if by_rate {
            "events due per second"
        } else {
            "callers at once"
        },
        is_log: true,
        ticks: at
            .iter()
            .map(|load| (*load, grouped_whole(*load)))
            .collect(),
        show: &|_| String::new(),
    };
    let y = Axis {
        name: "events answered per second",
        is_log: false,
        ticks: Vec::new(),
        show: &grouped,
    };
    page.figure(
        "Events answered per second, by load.",
        &lines(&throughput, &x, &y),
    );
}

fn grouped_whole(value: f64) -> String {
    grouped(value).trim_end_matches(".0").to_owned()
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
fn quantiles(latency: &Latency) -> Vec<(f64, f64)> {
    let last = nines(QUANTILES[QUANTILES.len() - 1].0);
    (0..=40)
        .map(|step| last * f64::from(step) / 40.0)
        .map(|place| (place, 1.0 - 10_f64.powf(-place)))
        .take_while(|(_, share)| (1.0 - share) * latency.count() as f64 >= 1.0)
        .map(|(place, share)| (place, latency.at(share).as_secs_f64() * 1e6))
        .collect()
}

fn phase_figure(report: &BenchReport, page: &mut Page) {
    let Some(phases) = &report.phases else {
        return;
    };
    let bar = |name: &str, nanos: u64| Bar {
        name: name.to_owned(),
        value: nanos as f64,
        label: time(Duration::from_nanos(nanos)),
    };
    let mut all = vec![
        bar("read and check", phases.read.median_ns),
        bar("compile", phases.compile.median_ns),
        bar(
            "instance, mapped anew",
            phases.instantiate_on_demand.median_ns,
        ),
    ];
    all.extend(
        phases
            .instantiate_in_slot
            .as_ref()
            .map(|spread| bar("instance, in a slot", spread.median_ns)),
    );
    all.push(bar("first call", phases.first_call.median_ns));
    all.push(bar("third call", phases.warm_call.median_ns));
    page.figure(
        "Median times; each step to the right is a multiple, not a sum.",
        &bars("phases", &all, true),
    );
}

fn call_figures(report: &BenchReport, page: &mut Page) {
    let cases = || report.cases.iter().take(MAX_BARS);
    let fuel: Vec<Bar> = cases()
        .filter_map(|case| {
            let fuel = case.fuel?;
            Some(Bar {
                name: case.name.clone(),
                value: fuel.warm as f64,
                label: count(fuel.warm),
            })
        })
        .collect();
    if !fuel.is_empty() {
        page.figure(
            "Instructions of a warm call, the same on every machine.",
            &bars("instructions of each event", &fuel, false),
        );
    }
}
