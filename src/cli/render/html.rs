//! A document as a page.

use std::io::{self, Write};

use super::chart;
use super::escape::html as shown;
use super::human::Paint;
use super::page::Page;
use crate::cli::document::{Block, Cell, ColumnKind, Diff, Document, Group, Span, Table};

/// Writes the page.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page::new(document.title);
    let verdict = format!("{}{}", document.verdict.text, document.totals);
    page.banner(class(document.verdict.paint), &verdict);
    page.markup(&blocks(&document.blocks));
    page.write(out)
}

const fn class(paint: Option<Paint>) -> &'static str {
    match paint {
        Some(Paint::Good) => "good",
        Some(Paint::Warning) => "warning",
        Some(Paint::Bad) => "bad",
        Some(Paint::Strong) => "strong",
        Some(Paint::Faint) => "faint",
        None => "",
    }
}

fn blocks(blocks: &[Block]) -> String {
    blocks.iter().map(block).collect()
}

fn block(block: &Block) -> String {
    match block {
        Block::Subject { name, facts } => {
            format!(
                "<h2><code>{}</code></h2>\n<p>{}</p>\n",
                shown(name),
                shown(facts)
            )
        }
        Block::Text(span) => {
            format!(
                "<p class=\"{}\">{}</p>\n",
                class(span.paint),
                shown(&span.text)
            )
        }
        Block::Table(table) => self::table(table),
        Block::Diff(diff) => self::diff(diff),
        Block::Code(text) => format!("<pre>{}</pre>\n", shown(text)),
        Block::Json(value) => format!("<pre>{}</pre>\n", shown(&format!("{value:#}"))),
        Block::Heading(text) => format!("<h2>{}</h2>\n", shown(text)),
        Block::Chart(chart) => chart::figure(chart),
        Block::Group(group) => self::group(group, " open"),
        Block::Folded(group) => self::group(group, ""),
        Block::Note { text, about } => {
            let about = match about.as_str() {
                "" => String::new(),
                about => format!("<br>{}", shown(about)),
            };
            let text = shown(text);
            format!("<p><b class=\"warning\">note:</b> {text}{about}</p>\n")
        }
    }
}

fn group(group: &Group, open: &str) -> String {
    let mark = group.mark.as_ref().map_or_else(String::new, |mark| {
        format!(
            "<b class=\"{}\">{}</b> ",
            class(mark.paint),
            shown(&mark.text)
        )
    });
    let title = shown(&group.title);
    let inner = blocks(&group.blocks);
    format!("<details{open}><summary>{mark}{title}</summary><div>\n{inner}</div></details>\n")
}

fn table(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let is_figure = |column: usize| {
        let column = table.columns.get(column);
        column.is_some_and(|column| column.kind == ColumnKind::Figure)
    };
    let mut text = String::from("<div class=\"wide\"><table>\n");
    if table.has_headings() {
        text.push_str("<thead><tr>");
        for (at, column) in table.columns.iter().enumerate() {
            let class = if is_figure(at) { " class=\"n\"" } else { "" };
            text.push_str(&format!("<th{class}>{}</th>", shown(column.heading)));
        }
        text.push_str("</tr></thead>\n");
    }
    text.push_str("<tbody>\n");
    for row in &table.rows {
        let last = row
            .cells
            .iter()
            .rposition(|cell| !cell.span.text.is_empty());
        text.push_str("<tr>");
        for (at, Cell { span, .. }) in row.cells.iter().enumerate() {
            let figure = if is_figure(at) { "n " } else { "" };
            let class = format!("{figure}{}", class(span.paint));
            text.push_str(&format!(
                "<td class=\"{}\">{}",
                class.trim_end(),
                shown(&span.text)
            ));
            if Some(at) == last {
                text.extend(row.below.iter().map(below));
            }
            text.push_str("</td>");
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table></div>\n");
    text
}

/// What stands below a row is in its last cell.
fn below(span: &Span) -> String {
    let lines = span.text.lines().map(|line| format!("<br>{}", shown(line)));
    lines.collect()
}

fn diff(diff: &Diff) -> String {
    format!(
        "<pre>{}{}\n<del>- {}</del>\n<ins>+ {}</ins></pre>\n",
        shown(&diff.path),
        shown(diff.remark),
        shown(&diff.before),
        shown(&diff.after)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::document::{Bar, Chart, Column};

    #[test]
    fn nothing_in_a_text_is_markup() {
        let hostile = "<script>alert('1')</script>&\"\u{1b}[31m\u{202e}";
        let text = || hostile.to_owned();
        let document = Document {
            title: "Test",
            verdict: text().into(),
            totals: text(),
            blocks: vec![
                Block::Heading(text()),
                Block::Text(text().into()),
                Block::Code(text()),
                Block::Table(Table {
                    columns: vec![Column::text("")],
                    rows: vec![vec![text().into()].into()],
                }),
                Block::Note {
                    text: text(),
                    about: text(),
                },
                Block::Chart(Chart::Bars {
                    caption: "",
                    name: "",
                    is_log: false,
                    bars: vec![Bar {
                        name: text(),
                        value: 1.0,
                        label: text(),
                    }],
                }),
            ],
        };
        let mut out = Vec::new();
        write(&document, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("<script"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        // A bar has its name and label twice, and shows the end of a long name.
        assert_eq!(text.matches("&lt;script&gt;").count(), 11, "{text}");
        for fetched in ["http:", "https:", "url(", "@import", "src="] {
            assert!(!text.contains(fetched), "{fetched}");
        }
    }
}
