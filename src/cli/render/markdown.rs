//! A document in Markdown: a comment on a pull request, or a job summary.

use std::io::{self, Write};

use super::escape::{
    markdown as shown, markdown_block, markdown_code as code, markdown_html, markdown_json,
};
use super::human::{Paint, Style};
use crate::cli::document::{Block, ColumnKind, Diff, Document, Group, Row, Table};

/// Writes the document.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let mark = match document.verdict.paint {
        Some(Paint::Good) => "✅",
        Some(Paint::Bad) => "❌",
        _ => "⚠️",
    };
    Style::plain().guarded(out, |out| {
        writeln!(out, "### {mark} {}\n", document.title)?;
        let verdict = shown(&document.verdict.text);
        writeln!(out, "**{verdict}**{}\n", shown(&document.totals))?;
        blocks(&document.blocks, out)
    })
}

fn blocks(blocks: &[Block], out: &mut dyn Write) -> io::Result<()> {
    let is_diff = |block: &Block| matches!(block, Block::Diff(_));
    for same in blocks.chunk_by(|one, other| is_diff(one) && is_diff(other)) {
        match same {
            [Block::Subject { name, facts }] => {
                writeln!(out, "#### {}\n", code(name))?;
                paragraph(facts, out)?;
            }
            [Block::Text(span)] => paragraph(&span.text, out)?,
            [Block::Table(table)] => self::table(table, out)?,
            [Block::Code(text)] => writeln!(out, "{}\n", markdown_block("text", text))?,
            [Block::Json(value)] => writeln!(out, "{}\n", markdown_json(value))?,
            [Block::Heading(text)] => writeln!(out, "#### {}\n", shown(text))?,
            [Block::Chart(_)] => {}
            [Block::Group(group)] => self::group(group, " open", out)?,
            [Block::Folded(group)] => self::group(group, "", out)?,
            [Block::Note { text, about }] if about.is_empty() => {
                writeln!(out, "> **Note:** {}\n", shown(text))?;
            }
            [Block::Note { text, about }] => {
                writeln!(out, "> **Note:** {}  \n> {}\n", shown(text), shown(about))?;
            }
            diffs => diff(diffs, out)?,
        }
    }
    Ok(())
}

/// Sentences, where there are any.
fn paragraph(text: &str, out: &mut dyn Write) -> io::Result<()> {
    match text {
        "" => Ok(()),
        text => writeln!(out, "{}\n", shown(text)),
    }
}

fn group(group: &Group, open: &str, out: &mut dyn Write) -> io::Result<()> {
    let mark = group.mark.as_ref().map_or("", |mark| &mark.text);
    let title = markdown_html(&format!("{mark} {}", group.title));
    let title = title.trim_start();
    writeln!(out, "<details{open}><summary>{title}</summary>\n")?;
    blocks(&group.blocks, out)?;
    writeln!(out, "</details>\n")
}

fn table(table: &Table, out: &mut dyn Write) -> io::Result<()> {
    if table.rows.is_empty() {
        return Ok(());
    }
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let headings = table.columns.iter().map(|column| shown(column.heading));
    writeln!(out, "{}", line(headings.collect()))?;
    let rules = table.columns.iter().map(|column| match column.kind {
        ColumnKind::Figure => "--:".to_owned(),
        ColumnKind::Text | ColumnKind::Unbroken => "---".to_owned(),
    });
    writeln!(out, "{}", line(rules.collect()))?;
    for row in &table.rows {
        writeln!(out, "{}", line(cells(row)))?;
    }
    writeln!(out)
}

/// The cells of a row; what stands below it is in the last that has a text.
fn cells(row: &Row) -> Vec<String> {
    let mut cells: Vec<String> = row
        .cells
        .iter()
        .map(|cell| shown(&cell.span.text))
        .collect();
    let below = row.below.iter().flat_map(|span| span.text.lines());
    let last = cells.iter().rposition(|cell| !cell.is_empty());
    if let Some(last) = last.and_then(|last| cells.get_mut(last)) {
        for line in below {
            last.push_str("<br>");
            last.push_str(&shown(line));
        }
    }
    cells
}

fn diff(diffs: &[Block], out: &mut dyn Write) -> io::Result<()> {
    let mut text = String::new();
    for block in diffs {
        if let Block::Diff(Diff {
            path,
            remark,
            before,
            after,
        }) = block
        {
            let [path, before, after] =
                [path, before, after].map(|line| super::escape::terminal(line));
            text.push_str(&format!("@@ {path}{remark} @@\n- {before}\n+ {after}\n"));
        }
    }
    writeln!(out, "{}\n", markdown_block("diff", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_stand_alone() {
        let subject = |facts: &str| Block::Subject {
            name: "module.wasm".to_owned(),
            facts: facts.to_owned(),
        };
        let document = Document {
            title: "Test",
            verdict: "passed".into(),
            totals: String::new(),
            blocks: vec![subject(""), subject("4 KiB"), Block::Text("".into())],
        };
        let mut out = Vec::new();
        write(&document, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("\n\n\n"), "{text:?}");
        assert!(text.ends_with("`module.wasm`\n\n4 KiB\n\n"), "{text:?}");
    }
}
