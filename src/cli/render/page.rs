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

    /// What comes first to the eye: `good`, `warning`, `bad` or `` for its
    /// colour.
    pub(crate) fn banner(&mut self, class: &str, text: &str) -> &mut Self {
        self.push(&format!(
            "<p class=\"banner {class}\">{}</p>\n",
            escaped(text)
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
