//! One self-contained HTML page: nothing is fetched, legible in light and
//! dark, on paper and on a telephone. Whatever a file put into a text, it is
//! shown as text.

use std::io::{self, Write};

use super::escape::{Syntax, guarded, html as escaped};

/// A page that is being written.
pub(crate) struct Page {
    title: String,
    body: String,
}

impl Page {
    pub(crate) fn new(title: &str) -> Self {
        let title = escaped(title);
        Self {
            body: format!("<h1>{title}</h1>\n"),
            title,
        }
    }

    pub(crate) fn heading(&mut self, text: &str) -> &mut Self {
        self.push(&format!("<h2>{}</h2>\n", escaped(text)))
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.push(&format!("<p>{}</p>\n", escaped(text)))
    }

    /// What comes first to the eye: `good`, `warning`, `bad` or `` for its
    /// colour.
    pub(crate) fn banner(&mut self, class: &str, text: &str) -> &mut Self {
        self.push(&format!(
            "<p class=\"banner {class}\">{}</p>\n",
            escaped(text)
        ))
    }

    pub(crate) fn code(&mut self, text: &str) -> &mut Self {
        self.push(&format!("<pre>{}</pre>\n", escaped(text)))
    }

    /// A table; the columns of figures stand to the right.
    pub(crate) fn table<'a>(
        &mut self,
        headings: &[&str],
        figures: &[usize],
        rows: impl IntoIterator<Item = (&'a str, &'a [String])>,
    ) -> &mut Self {
        let class = |column: usize| {
            if figures.contains(&column) {
                " class=\"n\""
            } else {
                ""
            }
        };
        let mut text = String::from("<div class=\"wide\"><table>\n<thead><tr>");
        for (column, heading) in headings.iter().enumerate() {
            text.push_str(&format!("<th{}>{}</th>", class(column), escaped(heading)));
        }
        text.push_str("</tr></thead>\n<tbody>\n");
        for (row_class, cells) in rows {
            text.push_str(&format!("<tr class=\"{row_class}\">"));
            for (column, cell) in cells.iter().enumerate() {
                text.push_str(&format!("<td{}>{}</td>", class(column), escaped(cell)));
            }
            text.push_str("</tr>\n");
        }
        text.push_str("</tbody>\n</table></div>\n");
        self.push(&text)
    }

    /// A drawing with what it shows; `svg` is markup.
    pub(crate) fn figure(&mut self, caption: &str, svg: &str) -> &mut Self {
        self.push(&format!(
            "<figure>{svg}<figcaption>{}</figcaption></figure>\n",
            escaped(caption)
        ))
    }

    /// What has no form of its own here; whoever writes it escapes every text.
    pub(crate) fn markup(&mut self, markup: &str) -> &mut Self {
        self.push(markup)
    }

    fn push(&mut self, markup: &str) -> &mut Self {
        self.body.push_str(markup);
        self
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        guarded(Syntax::Markup, out, |out| {
            write!(
                out,
                "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"generator\" content=\"wasm-agent {}\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
                env!("CARGO_PKG_VERSION"),
                self.title,
                self.body
            )
        })
    }
}

/// Colours of series are told apart by the colour-blind too.
const STYLE: &str = "
:root { color-scheme: light dark;
  --paper: #fdfdfc; --ink: #1c1e21; --faint: #62666d; --line: #d9dbde; --card: #f3f4f4;
  --good: #0b6e4f; --warning: #8a5a00; --bad: #b3261e;
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #a05195; --s4: #8a6d00; --s5: #56637a; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #16181b; --ink: #e8e9eb; --faint: #a0a5ad; --line: #3a3e44; --card: #1f2226;
  --good: #5fd3a4; --warning: #f0b849; --bad: #ff8a80;
  --s0: #62b4ef; --s1: #ff9a5c; --s2: #4fd1a5; --s3: #d99bd0; --s4: #e3c55a; --s5: #a9b6cc; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; color: var(--faint); overflow-wrap: anywhere; }
.banner { color: var(--ink); background: var(--card); border-left: .3rem solid var(--faint);
  padding: .6rem .9rem; max-width: none; font-weight: 600; }
.banner.good { border-color: var(--good); } .banner.warning { border-color: var(--warning); }
.banner.bad { border-color: var(--bad); }
pre { background: var(--card); padding: .6rem .9rem; overflow-x: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.good td { color: var(--good); } tr.warning td { color: var(--warning); }
tr.bad td { color: var(--bad); } tr.strong td { font-weight: 600; }
figure { margin: 1rem 0; } figcaption { color: var(--faint); font-size: .9rem; }
svg { display: block; width: 100%; height: auto; max-width: 56rem; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .faint { fill: var(--faint); } svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--faint); fill: none; }
.s0 { stroke: var(--s0); fill: var(--s0); } .s1 { stroke: var(--s1); fill: var(--s1); }
.s2 { stroke: var(--s2); fill: var(--s2); } .s3 { stroke: var(--s3); fill: var(--s3); }
.s4 { stroke: var(--s4); fill: var(--s4); } .s5 { stroke: var(--s5); fill: var(--s5); }
svg polyline[class] { fill: none; stroke-width: 2; }
b.good, p.good { color: var(--good); } b.warning, p.warning { color: var(--warning); }
b.bad, td.bad { color: var(--bad); } .faint { color: var(--faint); }
code { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.card { flex: 1 1 8rem; background: var(--card); border-radius: .4rem; padding: .6rem .9rem; color: var(--faint); }
.card b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.share { height: .5rem; border-radius: .25rem; overflow: hidden; display: flex; background: var(--line); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem; align-items: start; }
.columns > * { min-width: 0; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; }
summary { cursor: pointer; padding: .4rem .8rem; overflow-wrap: anywhere; }
details > div { padding: 0 .8rem .6rem; } details pre { max-height: 32rem; overflow: auto; font-size: 12.5px; }
td { overflow-wrap: anywhere; }
@media (max-width: 48rem) { .wide td:not(.n) { min-width: 7rem; } }
@media print { body { font-size: 12px; } figure, tr { break-inside: avoid; } }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        let hostile = "<script>alert('1')</script>&\"\u{1b}[31m\u{202e}";
        let mut page = Page::new(hostile);
        page.heading(hostile).text(hostile).banner("bad", hostile);
        page.code(hostile).figure(hostile, "<svg></svg>");
        page.table(&[hostile], &[], [("", &[hostile.to_owned()][..])]);
        let mut out = Vec::new();
        page.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("<script"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        assert_eq!(text.matches("&lt;script&gt;").count(), 9);
        for fetched in ["http:", "https:", "url(", "@import", "src="] {
            assert!(!text.contains(fetched), "{fetched}");
        }
    }
}
