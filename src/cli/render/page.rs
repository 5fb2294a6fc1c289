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
                include_str!("page.html"),
                version = env!("CARGO_PKG_VERSION"),
                title = self.title,
                style = STYLE,
                body = self.body
            )
        })
    }
}

/// Colours of series are told apart by the colour-blind too.
const STYLE: &str = include_str!("page.css");

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
