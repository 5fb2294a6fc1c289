//! Credentials in command lines, and in settings that have no colon or equals sign.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem;
use regex::Regex;

use super::names::is_secret;
use super::places::{Place, Places};

/// A way to write a credential.
struct Form {
    /// What a text has in which it can stand: most texts are looked through for
    /// that alone.
    mark: &'static str,
    form: Regex,
    /// The credential; the group before it is its name, where there are two.
    value: usize,
}

static FORMS: LazyLock<Option<Vec<Form>>> = LazyLock::new(|| forms().ok());

fn forms() -> Result<Vec<Form>, regex::Error> {
    let form = |mark, form: &str, value| {
        let form = Regex::new(form)?;
        Ok(Form { mark, form, value })
    };
    Ok(vec![
        form(
            "--",
            r#"(?:^|[\s"'])--([A-Za-z0-9_-]+)[ \t]+["']?([^\s"'&;<>-][^\s"'&;<>]*)"#,
            2,
        )?,
        form(
            "curl",
            r#"\s(?:-u|--user)[ \t=]*["']?[^\s:"'/]+:([^\s"']+)"#,
            1,
        )?,
        form("login", r"(?:^|\s)login\s+\S+\s+password\s+(\S+)", 1)?,
        form(
            "BY",
            r#"(?i)\bidentified\s+(?:with\s+\S+\s+)?by\s+(?:password\s+)?["']([^"']+)"#,
            1,
        )?,
        form(
            "by",
            r#"(?i)\bidentified\s+(?:with\s+\S+\s+)?by\s+(?:password\s+)?["']([^"']+)"#,
            1,
        )?,
        form(
            "define",
            r#"\bdefine\(\s*["']([^"'\s]{1,80})["']\s*,\s*["']([^"']+)"#,
            2,
        )?,
    ])
}

pub(super) fn find(text: &str, places: &mut Places) {
    let Some(forms) = &*FORMS else {
        return places.push(Place::of(0..text.len()));
    };
    for Form { mark, form, value } in forms {
        if memmem::find(text.as_bytes(), mark.as_bytes()).is_none() {
            continue;
        }
        for found in form.captures_iter(text) {
            let Some(held) = found.get(*value) else {
                continue;
            };
            // In a sentence about an option a word follows it.
            let is_word = || held.as_str().bytes().all(|it| it.is_ascii_lowercase());
            let is_named = *value == 1 || (is_secret(&found[1]) && !is_word());
            if is_named {
                places.push(Place::of(held.range()));
            }
        }
    }
    places.extend(putty(text).map(Place::of));
}

/// The private lines of a file with a key, as `PuTTY` writes it.
fn putty(text: &str) -> Option<Range<usize>> {
    let file = memmem::find(text.as_bytes(), b"PuTTY-User-Key-File")?;
    let lines = file + text[file..].find("Private-Lines:")?;
    let begin = lines + text[lines..].find('\n')? + 1;
    let end = text[begin..].find("\nPrivate-MAC");
    Some(begin..end.map_or(text.len(), |it| begin + it))
}
