//! What a report says, before any format is chosen: headings, texts, tables,
//! diffs, groups and charts. The builder of a command makes one document; each renderer
//! in `render` writes it in its format and escapes every text in it.

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Warning,
    Bad,
    Faint,
    Strong,
}

/// A whole report for people.
#[derive(Debug)]
pub(crate) struct Document {
    /// The title of a page.
    pub(crate) title: &'static str,
    /// How it came out: first on a page, last in a terminal.
    pub(crate) verdict: Span,
    /// What adds to the verdict on the same line.
    pub(crate) totals: String,
    pub(crate) blocks: Vec<Block>,
}

/// One part of a document.
#[derive(Debug)]
pub(crate) enum Block {
    /// What was judged, such as a module, and facts about it.
    Subject {
        name: String,
        facts: String,
    },
    /// Sentences.
    Text(Span),
    Table(Table),
    /// A value that is not as it was, or not as it was expected.
    Diff(Diff),
    /// Lines whose spaces and breaks mean something.
    Code(String),
    /// A line with blocks that belong to it.
    Group(Group),
    /// What to know or to change, and what it is about, where that must be said.
    Note {
        text: String,
        about: String,
    },
    /// Where a section begins.
    Heading(String),
    /// What a page draws; elsewhere its figures stand in tables.
    Chart(Chart),
    /// A group that a reader opens; a terminal leaves it out.
    Folded(Group),
    /// A JSON document.
    Json(serde_json::Value),
}

/// Text in a colour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) paint: Option<Paint>,
}

impl Span {
    pub(crate) fn new(paint: Paint, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            paint: Some(paint),
        }
    }
}

impl<T: Into<String>> From<T> for Span {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            paint: None,
        }
    }
}

/// A table. Without any heading it has no line of headings.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn has_headings(&self) -> bool {
        self.columns.iter().any(|column| !column.heading.is_empty())
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) kind: ColumnKind,
    /// Whether a terminal without room leaves it out: the highest number first.
    pub(crate) spare: Option<u8>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    /// Text that may be broken between words.
    Text,
    /// Text that is never broken.
    Unbroken,
    /// Figures, which stand to the right and are never broken.
    Figure,
}

impl Column {
    /// The first to be left out: a terminal of the usual width does without.
    pub(crate) const ONLY_WIDE: u8 = u8::MAX;

    pub(crate) const fn text(heading: &'static str) -> Self {
        Self {
            heading,
            kind: ColumnKind::Text,
            spare: None,
        }
    }

    pub(crate) const fn unbroken(heading: &'static str) -> Self {
        Self {
            heading,
            kind: ColumnKind::Unbroken,
            spare: None,
        }
    }

    pub(crate) const fn figure(heading: &'static str) -> Self {
        Self {
            heading,
            kind: ColumnKind::Figure,
            spare: None,
        }
    }

    /// Only where there is room to spell lists out.
    pub(crate) const fn only_wide(self) -> Self {
        self.spared(Self::ONLY_WIDE)
    }

    /// Left out where there is no room, the highest number first.
    pub(crate) const fn spared(self, spare: u8) -> Self {
        Self {
            spare: Some(spare),
            ..self
        }
    }
}

/// A row of a table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) cells: Vec<Cell>,
    /// Lines over the whole width below the row.
    pub(crate) below: Vec<Span>,
}

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Self {
        Self {
            cells,
            below: Vec::new(),
        }
    }
}

/// A cell of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    pub(crate) span: Span,
    /// The same in fewer letters, for a terminal.
    pub(crate) short: Option<String>,
}

impl<T: Into<Span>> From<T> for Cell {
    fn from(span: T) -> Self {
        Self {
            span: span.into(),
            short: None,
        }
    }
}

/// A value before and after.
#[derive(Debug)]
pub(crate) struct Diff {
    /// Where the value stands.
    pub(crate) path: String,
    /// Why the change has no effect, where it has none.
    pub(crate) remark: &'static str,
    pub(crate) before: String,
    pub(crate) after: String,
}

/// A line with blocks that belong to it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) mark: Option<Span>,
    pub(crate) title: String,
    pub(crate) blocks: Vec<Block>,
}

/// A drawing of figures that stand in tables too, so that formats without
/// drawings leave it out.
#[derive(Debug)]
pub(crate) enum Chart {
    /// Lines over two axes.
    Lines {
        caption: &'static str,
        x: Axis,
        y: Axis,
        series: Vec<Series>,
    },
    /// Bars to the right, one below the other.
    Bars {
        caption: &'static str,
        name: &'static str,
        /// Whether they differ by powers of ten.
        is_log: bool,
        bars: Vec<Bar>,
    },
    /// A flame graph.
    Flame { caption: &'static str, flame: Flame },
    /// How often values came, of one side or of two, over a logarithmic axis.
    Distribution {
        title: &'static str,
        unit: Unit,
        sides: Vec<Counts>,
    },
}

/// An axis of a chart.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    /// Whether each step is a multiple of the last.
    pub(crate) is_log: bool,
    pub(crate) ticks: Vec<Tick>,
}

/// A place on an axis.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) at: f64,
    pub(crate) label: String,
}

/// A line of a chart.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// From the least `x` to the greatest.
    pub(crate) points: Vec<Point>,
}

/// A point of a line; its label is for who points at it.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) label: String,
}

/// A bar of a chart, with its label at its end.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// Which functions were found running.
#[derive(Debug)]
pub(crate) struct Flame {
    pub(crate) title: String,
    /// Stacks of functions, the outermost first, and how often each was seen.
    pub(crate) stacks: Vec<(Vec<String>, u64)>,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Instructions,
    Nanoseconds,
}

/// One side of a distribution: values and how often each came.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) name: &'static str,
    pub(crate) counts: Vec<(u64, u64)>,
}

/// A text of which at most so many bytes are shown.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let end = text.floor_char_boundary(most);
    match text.get(..end) {
        Some(start) if start.len() < text.len() => format!("{start}…"),
        _ => text.to_owned(),
    }
}
