//! Parts of a form with files.

use std::sync::LazyLock;

use regex::Regex;

use super::names::is_secret;
use super::places::{Place, Places};

/// Bytes before a part's head in which its boundary is looked for.
const NEAR: usize = 512;

/// The line that names a part.
static HEAD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        // A line that begins with a space goes on with the one before.
        r"(?im)content-disposition[ \t]*:(?:[^\r\n]|\r?\n[ \t])*?(?:[;\s]|\r?\n[ \t]+)",
        r"name(?:[ \t]*=[ \t]*|\*[ \t]*=[ \t]*(?:[\w-]*'[\w-]*')?)",
        r#"(?:"([^"\r\n]*)"?|'([^'\r\n]*)'?|([^;\s"']+))(?:[^\r\n]|\r?\n[ \t])*"#,
    ))
    .ok()
});

/// The end of a part's head.
static BLANK: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\r?\n\r?\n").ok());

/// What parts with the name of a secret hold.
pub(super) fn find(text: &str, places: &mut Places) {
    let (Some(head), Some(blank)) = (&*HEAD, &*BLANK) else {
        return places.push(Place::of(0..text.len()));
    };
    let mut covered = 0;
    for found in head.captures_iter(text) {
        let all = found.get(0).map(|it| it.range()).unwrap_or_default();
        let name = [1, 2, 3].into_iter().find_map(|it| found.get(it));
        if all.start < covered || !name.is_some_and(|it| is_secret(it.as_str())) {
            continue;
        }
        let rest = &text[all.end..];
        let begin = blank.find(rest).map_or(rest.len(), |it| it.end());
        let begin = all.end + begin;
        let near = text.ceil_char_boundary(all.start.saturating_sub(NEAR));
        let before = &text[near..all.start];
        let line = before.rfind("\n--").map(|at| &before[at..]);
        let line = line.or_else(|| before.starts_with("--").then_some(before));
        let boundary = line.and_then(|line| line.trim_start_matches('\n').lines().next());
        let boundary = format!("\n{}", boundary.unwrap_or("--"));
        // An empty value's end is the blank line's.
        let from = begin - usize::from(text[..begin].ends_with('\n'));
        let end = text[from..]
            .find(&boundary)
            .map_or(text.len(), |it| from + it);
        covered = end;
        let value = &text[begin.min(end)..end];
        let value = value.strip_suffix('\r').unwrap_or(value);
        places.push(Place::of(begin.min(end)..begin.min(end) + value.len()));
    }
}
