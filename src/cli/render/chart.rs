//! Drawings as SVG for a page: lines over an axis, and bars. The same input
//! gives the same bytes; colours are the page's.

use std::fmt::Write as _;

use super::escape::html as escaped;
use super::flame;
use super::human::end_of;
use crate::cli::document::{Axis, Bar, Chart, Counts, Series, Tick};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 46.0;
/// Series that have colours of their own.
const COLORS: usize = 6;

/// A chart with its caption, as markup.
pub(super) fn figure(chart: &Chart) -> String {
    let (svg, caption) = match chart {
        Chart::Lines {
            caption,
            x,
            y,
            series,
        } => (lines(series, x, y), caption),
        Chart::Bars {
            caption,
            name,
            is_log,
            bars,
        } => (self::bars(name, bars, *is_log), caption),
        Chart::Flame { caption, flame } => (flame::svg(flame), caption),
        Chart::Distribution { title, unit, sides } => {
            (distribution(title, sides, |value| unit.show(value)), title)
        }
    };
    let caption = escaped(caption);
    format!("<figure>{svg}<figcaption>{caption}</figcaption></figure>\n")
}

impl Axis {
    /// The least and the greatest value that have a place on it.
    fn ends(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        let ticks = self.ticks.iter().map(|tick| tick.at);
        let all = values.chain(ticks).filter(|value| value.is_finite());
        let (mut low, mut high) = all.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if self.is_log {
            low = low.max(1e-9);
        }
        (low, if high > low { high } else { low + 1.0 })
    }

    /// 0 to 1.
    fn place(&self, value: f64, (low, high): (f64, f64)) -> f64 {
        let share = if self.is_log {
            (value.max(low).log10() - low.log10()) / (high.log10() - low.log10())
        } else {
            (value - low) / (high - low)
        };
        share.clamp(0.0, 1.0)
    }
}

/// Powers of ten from below the least value to above the greatest.
pub(crate) fn decades(
    values: impl Iterator<Item = f64>,
    show: impl Fn(f64) -> String,
) -> Vec<Tick> {
    let finite = values.filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = finite.fold((f64::MAX, 1e-9), |(low, high), value| {
        (value.min(low), value.max(high))
    });
    let first = low.min(high).log10().floor();
    let last = high.log10().ceil().max(first + 1.0);
    let powers = std::iter::successors(Some(first), |power| Some(power + 1.0));
    let ticks = powers.take_while(|power| *power <= last).map(|power| {
        let at = 10_f64.powf(power);
        let label = show(at);
        Tick { at, label }
    });
    ticks.collect()
}

/// Round steps from nothing to above the greatest value.
pub(crate) fn round_steps(
    values: impl Iterator<Item = f64>,
    show: impl Fn(f64) -> String,
) -> Vec<Tick> {
    let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let rough = if high > 0.0 { high / 5.0 } else { 0.2 };
    let unit = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|times| times * unit);
    let step = steps.into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(unit);
    let ticks = (0..=5).map(|count| {
        let at = step * f64::from(count);
        let label = show(at);
        Tick { at, label }
    });
    ticks.take_while(|tick| tick.at < high + step).collect()
}

/// Lines over two axes, each point with its values for who points at it.
fn lines(series: &[Series], x: &Axis, y: &Axis) -> String {
    let all = || series.iter().flat_map(|series| &series.points);
    let x_ends = x.ends(all().map(|point| point.x));
    let y_ends = y.ends(all().map(|point| point.y));
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let at_x = |value: f64| LEFT + x.place(value, x_ends) * width;
    let at_y = |value: f64| TOP + (1.0 - y.place(value, y_ends)) * height;
    let legend = legend(series);
    let total = HEIGHT + legend.1;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {total}\" role=\"img\" aria-label=\"{} over {}\">\n",
        escaped(y.name),
        escaped(x.name)
    );
    for Tick { at, label } in &y.ticks {
        let at = at_y(*at);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            escaped(label)
        ));
    }
    for Tick { at, label } in &x.ticks {
        svg.push_str(&format!(
            "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            at_x(*at),
            HEIGHT - BOTTOM + 18.0,
            escaped(label)
        ));
    }
    svg.push_str(&format!(
        "<polyline class=\"axis\" points=\"{LEFT},{TOP} {LEFT},{bottom} {:.1},{bottom}\"/>\
         <text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
        WIDTH - RIGHT,
        LEFT + width / 2.0,
        HEIGHT - 8.0,
        escaped(x.name),
        bottom = HEIGHT - BOTTOM,
    ));
    for (index, series) in series.iter().enumerate() {
        let color = index % COLORS;
        let points: Vec<String> = series
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", at_x(point.x), at_y(point.y)))
            .collect();
        svg.push_str(&format!(
            "<polyline class=\"s{color}\" points=\"{}\"/>\n",
            points.join(" ")
        ));
        for point in &series.points {
            svg.push_str(&format!(
                "<circle class=\"s{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}: {}</title></circle>\n",
                at_x(point.x),
                at_y(point.y),
                escaped(&series.name),
                escaped(&point.label)
            ));
        }
    }
    svg.push_str(&legend.0);
    svg.push_str("</svg>");
    svg
}

/// Names of the series below the drawing, and how high that is.
fn legend(series: &[Series]) -> (String, f64) {
    let mut svg = String::new();
    let (mut x, mut y) = (LEFT, HEIGHT + 14.0);
    for (index, series) in series.iter().enumerate() {
        let width = 34.0 + 7.0 * series.name.chars().count() as f64;
        if x + width > WIDTH - RIGHT && x > LEFT {
            x = LEFT;
            y += 20.0;
        }
        svg.push_str(&format!(
            "<rect class=\"s{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text>\n",
            index % COLORS,
            y - 6.0,
            x + 20.0,
            escaped(&series.name)
        ));
        x += width;
    }
    (svg, y - HEIGHT + 10.0)
}

/// Bars to the right, one below the other.
fn bars(name: &str, bars: &[Bar], is_log: bool) -> String {
    const ROW: f64 = 24.0;
    const NAMES: f64 = 250.0;
    /// As many as there is room for.
    const LETTERS: usize = 34;
    const LABELS: f64 = 110.0;
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let least = bars
        .iter()
        .map(|bar| bar.value)
        .filter(|value| *value > 0.0)
        .fold(most, f64::min);
    let width = WIDTH - NAMES - LABELS;
    let share = |value: f64| {
        if value <= 0.0 || most <= 0.0 {
            0.0
        } else if is_log {
            // The least keeps a tenth, so that it is seen.
            let decades = (most / (least / 10.0)).log10().max(1.0);
            ((value / (least / 10.0)).log10() / decades).clamp(0.0, 1.0)
        } else {
            (value / most).clamp(0.0, 1.0)
        }
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">\n",
        ROW * bars.len() as f64 + 6.0,
        escaped(name)
    );
    for (index, bar) in bars.iter().enumerate() {
        let y = ROW * index as f64 + 4.0;
        let drawn = (share(bar.value) * width).max(1.0);
        let shown = end_of(&bar.name, LETTERS);
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"s0\" x=\"{NAMES}\" y=\"{y:.1}\" width=\"{drawn:.1}\" height=\"16\"><title>{}: {}</title></rect>\
             <text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            NAMES - 8.0,
            y + 12.5,
            escaped(&shown),
            escaped(&bar.name),
            escaped(&bar.label),
            NAMES + drawn + 8.0,
            y + 12.5,
            escaped(&bar.label)
        ));
    }
    svg.push_str("</svg>");
    svg
}

/// Steps of a distribution's axis.
const BINS: usize = 48;

/// Distributions over one logarithmic axis, as bars side by side.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions in a picture, from counts far below 2^52"
)]
fn distribution(title: &str, series: &[Counts], show: impl Fn(u64) -> String) -> String {
    let values = || series.iter().flat_map(|side| &side.counts);
    let least = values().map(|(value, _)| *value).min().unwrap_or(0).max(1);
    let most = values()
        .map(|(value, _)| *value)
        .max()
        .unwrap_or(1)
        .max(least + 1);
    let (low, high) = ((least as f64).ln(), (most as f64).ln());
    // One value alone still gets an axis around it.
    let (low, high) = if high - low < 0.05 {
        (low - 0.25, high + 0.25)
    } else {
        (low, high)
    };
    let bin_of = |value: u64| {
        let at = ((value.max(1) as f64).ln() - low) / (high - low) * BINS as f64;
        (at.max(0.0) as usize).min(BINS - 1)
    };
    let binned: Vec<Vec<u64>> = series
        .iter()
        .map(|side| {
            let mut bins = vec![0; BINS];
            for (value, count) in &side.counts {
                if let Some(bin) = bins.get_mut(bin_of(*value)) {
                    *bin += count;
                }
            }
            bins
        })
        .collect();
    let top = binned.iter().flatten().copied().max().unwrap_or(0).max(1);
    let plot = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escaped(title)
    );
    for share in [0.0, 0.5, 1.0] {
        let y = TOP + plot.1 * (1.0 - share);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            top as f64 * share
        );
    }
    let slot = plot.0 / BINS as f64;
    let bar = slot * 0.86 / series.len().max(1) as f64;
    for (side, (of, bins)) in series.iter().zip(&binned).enumerate() {
        let _ = write!(svg, "<g class=\"s{}\" stroke=\"none\">", side % COLORS);
        for (index, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = (*count as f64 / top as f64 * plot.1).max(1.0);
            let _ = write!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\"><title>{} from {}: {count}</title></rect>",
                LEFT + slot * index as f64 + bar * side as f64,
                TOP + plot.1 - height,
                escaped(of.name),
                escaped(&show(
                    (low + (high - low) * index as f64 / BINS as f64).exp() as u64
                )),
            );
        }
        svg.push_str("</g>");
        // One needs no name beside the heading.
        if series.len() == 1 {
            break;
        }
        let x = LEFT + 110.0 * side as f64;
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"2\" width=\"10\" height=\"10\" class=\"s{}\"/><text x=\"{:.1}\" y=\"11\">{}</text>",
            side % COLORS,
            x + 15.0,
            escaped(of.name)
        );
    }
    ticks(&mut svg, (low, high), &show);
    svg.push_str("</svg>");
    svg
}

/// Values below a distribution's axis, whose ends are logarithms.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "labels of an axis, made from such values"
)]
fn ticks(svg: &mut String, (low, high): (f64, f64), show: &impl Fn(u64) -> String) {
    for tick in 0..=4_u32 {
        let share = f64::from(tick) / 4.0;
        let value = (low + (high - low) * share).exp() as u64;
        let anchor = match tick {
            0 => "start",
            4 => "end",
            _ => "middle",
        };
        let _ = write!(
            svg,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            LEFT + (WIDTH - LEFT - RIGHT) * share,
            HEIGHT - BOTTOM + 18.0,
            escaped(&show(value))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::document::Point;

    fn axis(is_log: bool) -> Axis {
        Axis {
            name: "<x>",
            is_log,
            ticks: Vec::new(),
        }
    }

    #[test]
    fn whatever_is_drawn_stays_inside_and_is_no_markup() {
        let odd = [0.0, -1.0, 1e300, f64::NAN, f64::INFINITY, 5.0];
        for is_log in [false, true] {
            let points = odd.iter().map(|&value| Point {
                x: value,
                y: value,
                label: "<i>".to_owned(),
            });
            let series = [Series {
                name: "<script>".to_owned(),
                points: points.collect(),
            }];
            let svg = lines(&series, &axis(is_log), &axis(is_log));
            assert!(!svg.contains("<script") && !svg.contains("<i>"), "{svg}");
            let nothing = lines(&[], &axis(is_log), &axis(is_log));
            assert!(nothing.ends_with("</svg>"));
            let all: Vec<Bar> = odd
                .iter()
                .map(|value| Bar {
                    name: "<b>".to_owned(),
                    value: *value,
                    label: "&".to_owned(),
                })
                .collect();
            let svg = bars("b", &all, is_log);
            assert!(!svg.contains("<b>"), "{svg}");
        }
    }

    #[test]
    fn a_distribution_of_nothing_or_of_one_value_is_a_picture() {
        for counts in [
            vec![],
            vec![(0, 1)],
            vec![(5, 3)],
            vec![(1, 1), (u64::MAX, 1)],
        ] {
            let side = |name| Counts {
                name,
                counts: counts.clone(),
            };
            let sides = [side("<before>"), side("<now>")];
            let svg = distribution("<title>", &sides, |value| value.to_string());
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
            assert!(!svg.contains("NaN") && !svg.contains("<now>"), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round_and_reach_over_the_values() {
        let labels = |ticks: Vec<Tick>| -> Vec<String> {
            ticks.into_iter().map(|tick| tick.label).collect()
        };
        let show = |value: f64| format!("{value:.0}");
        let steps = |values: &[f64]| labels(round_steps(values.iter().copied(), show));
        let shown = ["0", "10000", "20000", "30000", "40000", "50000"];
        assert_eq!(steps(&[3.0, 41_000.0]), shown);
        assert_eq!(steps(&[10.0]), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(steps(&[0.0, f64::NAN]), ["0"]);
        let powers = |values: &[f64]| labels(decades(values.iter().copied(), show));
        assert_eq!(powers(&[3.0, 41.0]), ["1", "10", "100"]);
        assert_eq!(powers(&[100.0]), ["100", "1000"]);
        assert_eq!(powers(&[0.0, f64::INFINITY]).len(), 2);
    }
}
