//! A table of a document in lines that fit a terminal: which columns have
//! room, how wide each is, and where their texts are broken.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, Width};

use super::escape::terminal;
use super::human::{Paint, Style, columns, is_joint, wrap};
use crate::cli::document::{Cell, Column, ColumnKind, Row, Span, Table};

/// Spaces between two columns.
const GAP: u16 = 2;
/// A text has enough room with this, or with its longest word if that is longer.
const ENOUGH: usize = 16;
/// No word counts for more than this when columns are left out for it.
const LONG_WORD: usize = 24;
/// Spaces before lines below a row.
const INDENT: usize = 6;

/// Spaces between so many columns.
fn gaps(columns: usize) -> usize {
    usize::from(GAP) * columns.saturating_sub(1)
}

/// Writes a table in lines that are no longer than the output is wide.
pub(super) fn table(table: &Table, style: Style, out: &mut dyn Write) -> io::Result<()> {
    if table.rows.is_empty() {
        return Ok(());
    }
    let layout = Layout::of(table, style);
    if table.has_headings() {
        let headings = table.columns.iter();
        let headings: Vec<Cell> = headings
            .map(|column| Span::new(Paint::Strong, column.heading).into())
            .collect();
        layout.line(&headings, out)?;
        writeln!(out, "{}", "─".repeat(layout.width()))?;
    }
    for row in &table.rows {
        layout.row(row, out)?;
    }
    Ok(())
}

/// Where everything stands.
struct Layout<'a> {
    table: &'a Table,
    style: Style,
    /// The columns that are shown, and how wide each is.
    widths: Vec<(usize, usize)>,
}

impl<'a> Layout<'a> {
    fn of(table: &'a Table, style: Style) -> Self {
        let sizes: Vec<Size> = (0..table.columns.len())
            .map(|column| Size::of(table, column, style))
            .collect();
        let has_room = |spare: Option<u8>| style.is_wide() || spare != Some(Column::ONLY_WIDE);
        let mut kept: Vec<usize> = (0..sizes.len())
            .filter(|&column| has_room(table.columns[column].spare))
            .collect();
        loop {
            let needed: usize = kept.iter().map(|&column| sizes[column].enough).sum();
            let spare = kept
                .iter()
                .copied()
                .filter(|&it| table.columns[it].spare.is_some());
            match spare.max_by_key(|&column| table.columns[column].spare) {
                Some(spare) if needed + gaps(kept.len()) > style.width() => {
                    kept.retain(|&column| column != spare);
                }
                _ => break,
            }
        }
        let room = style.width().saturating_sub(gaps(kept.len()));
        let wants = |size: fn(&Size) -> usize, widths: &[usize]| -> Vec<usize> {
            let wanted = kept.iter().zip(widths);
            wanted
                .map(|(&column, width)| size(&sizes[column]).saturating_sub(*width))
                .collect()
        };
        // No word is broken where there is room for all of them, else no part of one.
        // Then room goes where it saves most lines, then where it can be used.
        let none = vec![0; kept.len()];
        let whole = wants(|it| it.least, &none);
        let mut widths = if whole.iter().sum::<usize>() <= room {
            whole
        } else {
            shares(&wants(|it| it.part, &none), room)
        };
        let heights: Vec<Heights> = kept
            .iter()
            .zip(&widths)
            .map(|(&column, &width)| {
                let natural = sizes[column].natural.min(room);
                Heights::of((table, column, style), width..=natural)
            })
            .collect();
        save_lines(&heights, &mut widths, room);
        for size in [|it: &Size| it.least, |it: &Size| it.natural] {
            let left = room.saturating_sub(widths.iter().sum());
            let more = shares(&wants(size, &widths), left);
            for (width, more) in widths.iter_mut().zip(more) {
                *width += more;
            }
        }
        Self {
            table,
            style,
            widths: kept.iter().copied().zip(widths).collect(),
        }
    }

    fn width(&self) -> usize {
        let columns: usize = self.widths.iter().map(|(_, width)| width).sum();
        columns + gaps(self.widths.len())
    }

    fn row(&self, row: &Row, out: &mut dyn Write) -> io::Result<()> {
        self.line(&row.cells, out)?;
        let room = self.style.width().saturating_sub(INDENT);
        for span in &row.below {
            for line in span.text.lines().map(terminal) {
                for part in wrap_code(&line, room) {
                    let part = self.style.painted(span.paint, &part);
                    writeln!(out, "{:INDENT$}{part}", "")?;
                }
            }
        }
        Ok(())
    }

    /// The cells beside each other, in as many lines as the highest needs.
    fn line(&self, cells: &[Cell], out: &mut dyn Write) -> io::Result<()> {
        let none = Cell::default();
        let broken = self.widths.iter().map(|&(column, width)| {
            let cell = cells.get(column).unwrap_or(&none);
            let text = wrap(&shown(cell, self.style), width).join("\n");
            match cell.span.paint {
                Some(paint) if !text.is_empty() => paint.cell(&text),
                _ => comfy_table::Cell::new(text),
            }
        });
        let mut line = self.style.line();
        line.add_row(broken);
        for (drawn, &(column, width)) in line.column_iter_mut().zip(&self.widths) {
            let room = u16::try_from(width).unwrap_or(u16::MAX).saturating_add(GAP);
            drawn.set_padding((0, GAP));
            drawn.set_constraint(ColumnConstraint::Absolute(Width::Fixed(room)));
            if self.table.columns[column].kind == ColumnKind::Figure {
                drawn.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(out, "{}", line.trim_fmt())
    }
}

/// How much room a column could use.
struct Size {
    /// With no text broken.
    natural: usize,
    /// With no word broken.
    least: usize,
    /// With words broken only where names are joined.
    part: usize,
    /// So that its texts can be read.
    enough: usize,
}

impl Size {
    fn of(table: &Table, column: usize, style: Style) -> Self {
        let kept = &table.columns[column];
        let cells = table.rows.iter().filter_map(|row| row.cells.get(column));
        let mut texts: Vec<String> = cells.map(|cell| shown(cell, style)).collect();
        texts.push(kept.heading.to_owned());
        let natural = texts.iter().map(|text| columns(text)).max().unwrap_or(0);
        if kept.kind != ColumnKind::Text {
            return Self {
                natural,
                least: natural,
                part: natural,
                enough: natural,
            };
        }
        let words = texts.iter().flat_map(|text| text.split(' '));
        let least = words.map(columns).max().unwrap_or(0);
        let is_joint = |it: char| it == ' ' || is_joint(it);
        let parts = texts.iter().flat_map(|text| text.split_inclusive(is_joint));
        let part = parts.map(|part| columns(part.trim_end())).max();
        Self {
            natural,
            least,
            part: part.unwrap_or(0),
            enough: natural.min(ENOUGH).max(least.min(LONG_WORD)),
        }
    }
}

/// Rows that are looked at when room is given away, evenly from all.
const LOOKED_AT: usize = 100;

/// How many lines the cells of a column take at each width.
struct Heights {
    least: usize,
    /// For each width from the least on, the lines of each row.
    at: Vec<Vec<usize>>,
}

impl Heights {
    fn of(
        (table, column, style): (&Table, usize, Style),
        widths: std::ops::RangeInclusive<usize>,
    ) -> Self {
        let step = table.rows.len().div_ceil(LOOKED_AT).max(1);
        let cells = table.rows.iter().step_by(step);
        let texts: Vec<String> = cells
            .map(|row| {
                row.cells
                    .get(column)
                    .map_or_else(String::new, |cell| shown(cell, style))
            })
            .collect();
        let lines = |width| texts.iter().map(|text| wrap(text, width).len()).collect();
        Self {
            least: *widths.start(),
            at: widths.map(lines).collect(),
        }
    }

    /// The lines of each row at this width; none beyond what it can use.
    fn at(&self, width: usize) -> Option<&[usize]> {
        self.at.get(width - self.least).map(Vec::as_slice)
    }
}

/// Gives room to the column where it saves most lines for its width, as long as
/// any does.
fn save_lines(columns: &[Heights], widths: &mut [usize], room: usize) {
    loop {
        let left = room.saturating_sub(widths.iter().sum());
        let now = height(columns, widths);
        let mut best: Option<(usize, usize, usize)> = None;
        for column in 0..columns.len() {
            let before = widths[column];
            for more in 1..=left {
                widths[column] = before + more;
                if columns[column].at(widths[column]).is_none() {
                    break;
                }
                let saved = now.saturating_sub(height(columns, widths));
                let is_better = |(_, by, most): (usize, usize, usize)| saved * by > most * more;
                if saved > 0 && best.is_none_or(is_better) {
                    best = Some((column, more, saved));
                }
            }
            widths[column] = before;
        }
        let Some((column, more, _)) = best else {
            return;
        };
        widths[column] += more;
    }
}

/// Lines of all rows together, each as high as its highest cell.
fn height(columns: &[Heights], widths: &[usize]) -> usize {
    let cells: Vec<&[usize]> = columns
        .iter()
        .zip(widths)
        .filter_map(|(column, width)| column.at(*width))
        .collect();
    let rows = cells.first().map_or(0, |column| column.len());
    let highest = |row| cells.iter().map(|column| column[row]).max();
    (0..rows).filter_map(highest).sum()
}

fn shown(cell: &Cell, style: Style) -> String {
    let short = cell.short.as_ref().filter(|_| !style.is_wide());
    terminal(short.unwrap_or(&cell.span.text))
}

/// What each gets of the room: what it wants, or as much as the others that
/// want more than there is.
fn shares(wanted: &[usize], room: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&at| wanted[at]);
    let mut left = room;
    let mut shares = vec![0; wanted.len()];
    for (served, &at) in order.iter().enumerate() {
        shares[at] = wanted[at].min(left / (wanted.len() - served));
        left -= shares[at];
    }
    shares
}

/// A line whose spaces mean something, where it fits.
pub(super) fn wrap_code(line: &str, width: usize) -> Vec<String> {
    if columns(line) <= width {
        return vec![line.to_owned()];
    }
    wrap(line, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in lines, at this width.
    fn lines(columns: Vec<Column>, rows: &[&[&str]], width: u16) -> Vec<String> {
        let rows = rows.iter().map(|cells| {
            let cells = cells.iter().map(|text| Cell::from(*text));
            Row::from(cells.collect::<Vec<_>>())
        });
        let of = Table {
            columns,
            rows: rows.collect(),
        };
        let mut out = Vec::new();
        table(&of, Style::of_width(width), &mut out).unwrap();
        String::from_utf8(out)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_table_is_as_wide_as_the_terminal_and_its_words_stay_whole() {
        let words = "one two three four five six seven eight nine ten eleven twelve";
        let long = "a-name-that-is-as-long";
        for width in [60, 72, 80, 84, 100] {
            let columns = vec![
                Column::unbroken(""),
                Column::text("Name"),
                Column::text("Expected"),
                Column::text("Found"),
                Column::figure("Fuel"),
                Column::figure("Memory").spared(1),
            ];
            let rows: [&[&str]; 2] = [
                &["✓", long, words, words, "1 234 567", "1.1 MiB"],
                &["✗", "x", "none", words, "7", "64.0 KiB"],
            ];
            let shown = lines(columns, &rows, width);
            for line in &shown {
                assert!(
                    super::columns(line) <= usize::from(width),
                    "{width}: {line}"
                );
            }
            let text = shown.join("\n");
            for word in words.split(' ').chain([long, "1 234 567"]) {
                assert!(text.contains(word), "{width}: {word}\n{text}");
            }
            assert_eq!(text.contains("1.1 MiB"), width >= 84, "{width}\n{text}");
        }
    }

    #[test]
    fn what_cannot_fit_is_broken_and_nothing_is_lost() {
        let shown = lines(
            vec![Column::text("Name"), Column::text("B")],
            &[&["abcdefgh", "xy"]],
            7,
        );
        let expected = ["Nam  B", "e", "───────", "abc  xy", "def", "gh"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn wide_letters_count_as_two_columns() {
        let shown = lines(
            vec![Column::text("A"), Column::text("B")],
            &[&["漢字", "x"]],
            40,
        );
        assert_eq!(shown, ["A     B", "───────", "漢字  x"]);
    }
}
