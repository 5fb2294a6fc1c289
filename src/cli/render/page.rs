//! What HTML reports share: one self-contained page, light and dark, without
//! scripts and without the network; escaping; a distribution as an SVG.

use std::fmt::Write as _;

/// Colours by meaning; each page uses these names only.
const STYLE: &str = "\
:root{--bg:#fff;--fg:#1b1f24;--faint:#656d76;--line:#d5dae0;--card:#f6f8fa;--good:#1a7f37;--bad:#cf222e;--warn:#9a6700;--a:#0969da;--b:#bc4c00}\
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--faint:#8d96a0;--line:#30363d;--card:#161b22;--good:#3fb950;--bad:#f85149;--warn:#d29922;--a:#58a6ff;--b:#f0883e}}\
*{box-sizing:border-box}\
body{margin:0 auto;max-width:72rem;padding:1.5rem;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:1rem 0 .4rem}\
p{margin:.4rem 0}.faint{color:var(--faint)}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}\
code,pre{font:13px/1.45 ui-monospace,monospace}code{overflow-wrap:anywhere}\
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.7rem;overflow:auto;max-height:30rem;margin:.4rem 0}\
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;overflow-wrap:anywhere}\
th{font-weight:600;color:var(--faint)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}.card{flex:1 1 9rem;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}\
.card b{display:block;font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}\
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem 2rem}\
details{border:1px solid var(--line);border-radius:8px;margin:.5rem 0;background:var(--bg)}\
summary{cursor:pointer;padding:.5rem .8rem;overflow-wrap:anywhere}details>div{padding:0 .9rem .7rem}details details{background:var(--card)}\
.share{height:.5rem;border-radius:4px;background:var(--line);overflow:hidden;display:flex}.share i{display:block;height:100%}\
svg{width:100%;height:auto;display:block}svg text{fill:var(--faint);font:11px system-ui,sans-serif}";

/// A whole page around a body that is HTML already.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
        escape(title)
    )
}

/// Any text as HTML shows it, in elements and attributes. Controls and what
/// reorders text are shown as escapes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line
            .strip_suffix('\n')
            .map_or((line, ""), |line| (line, "\n"));
        for character in wasm_agent_kit::fault::printable(line, usize::MAX).chars() {
            match character {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&#39;"),
                other => out.push(other),
            }
        }
        out.push_str(end);
    }
    out
}

/// One side of a distribution: its name, a colour's name, values with counts.
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    pub(crate) color: &'a str,
    pub(crate) counts: Vec<(u64, u64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 48.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 20.0;
const BINS: usize = 48;

/// Distributions over one logarithmic axis, as bars side by side.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions in a picture, from counts far below 2^52"
)]
pub(crate) fn distribution(series: &[Series<'_>], show: impl Fn(u64) -> String) -> String {
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
    let plot = (WIDTH - LEFT, HEIGHT - TOP - BOTTOM);
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"distribution\">");
    for share in [0.0, 0.5, 1.0] {
        let y = TOP + plot.1 * (1.0 - share);
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--line)\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
            LEFT - 6.0,
            y + 4.0,
            top as f64 * share
        );
    }
    let slot = plot.0 / BINS as f64;
    let bar = slot * 0.86 / series.len().max(1) as f64;
    for (side, (of, bins)) in series.iter().zip(&binned).enumerate() {
        let _ = write!(svg, "<g fill=\"var(--{})\">", of.color);
        for (index, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = (*count as f64 / top as f64 * plot.1).max(1.0);
            let _ = write!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\"><title>{} from {}: {count}</title></rect>",
                LEFT + slot * index as f64 + bar * side as f64,
                TOP + plot.1 - height,
                escape(of.name),
                escape(&show(
                    (low + (high - low) * index as f64 / BINS as f64).exp() as u64
                )),
            );
        }
        svg.push_str("</g>");
        let x = LEFT + 110.0 * side as f64;
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"2\" width=\"10\" height=\"10\" fill=\"var(--{})\"/><text x=\"{:.1}\" y=\"11\">{}</text>",
            of.color,
            x + 15.0,
            escape(of.name)
        );
    }
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
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            LEFT + plot.0 * share,
            HEIGHT - 8.0,
            escape(&show(value))
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(
            escape("<a href=\"x\" onclick='y'>&\u{202e}\n"),
            "&lt;a href=&quot;x&quot; onclick=&#39;y&#39;&gt;&amp;\\u{202e}\n"
        );
    }

    #[test]
    fn a_distribution_of_nothing_or_of_one_value_is_a_picture() {
        for counts in [
            vec![],
            vec![(0, 1)],
            vec![(5, 3)],
            vec![(1, 1), (u64::MAX, 1)],
        ] {
            let side = Series {
                name: "now",
                color: "a",
                counts,
            };
            let svg = distribution(&[side], |value| value.to_string());
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
        }
    }
}
