//! The templates that test files use: `repeat`, `env` and `.Payload`.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Bytes a template may make of a payload.
const MAX_REPEAT_BYTES: usize = 16 << 20;

static TEMPLATE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{\{-?\s*(.*?)\s*-?\}\}").ok());

static REPEAT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"^(?:"((?:[^"\\]|\\.)*)"\s*\|\s*repeat\s+(\d+)|repeat\s+(\d+)\s+"((?:[^"\\]|\\.)*)")$"#,
    )
    .ok()
});

static ENV: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^env\s+"([A-Za-z0-9_]+)"$"#).ok());

/// Fills in the templates that test files use: `repeat`, `env`, `.Payload`.
pub(super) fn templated(text: &str, payload: Option<&str>) -> Result<String, String> {
    let Some(form) = TEMPLATE.as_ref().filter(|_| text.contains("{{")) else {
        return Ok(text.to_owned());
    };
    let mut refused = None;
    let mut size = 0_usize;
    let filled = form.replace_all(text, |found: &Captures<'_>| {
        let value = template_value(&found[1], payload).unwrap_or_else(|why| {
            refused.get_or_insert(why);
            String::new()
        });
        size = size.saturating_add(value.len());
        value
    });
    match refused {
        Some(why) => Err(why),
        None if size > MAX_REPEAT_BYTES => Err(format!(
            "expected templates of at most {MAX_REPEAT_BYTES} bytes"
        )),
        None => Ok(filled.into_owned()),
    }
}

fn template_value(expression: &str, payload: Option<&str>) -> Result<String, String> {
    if expression == ".Payload" {
        return payload
            .map(str::to_owned)
            .ok_or_else(|| "the template needs a payload, but the test has none".to_owned());
    }
    if let Some(found) = REPEAT.as_ref().and_then(|form| form.captures(expression)) {
        let text = found
            .get(1)
            .or_else(|| found.get(4))
            .map_or("", |text| text.as_str());
        let times = found
            .get(2)
            .or_else(|| found.get(3))
            .map_or("", |times| times.as_str());
        let text: String =
            serde_json::from_str(&format!("\"{text}\"")).unwrap_or_else(|_| text.to_owned());
        return times
            .parse::<usize>()
            .ok()
            .filter(|times| times.saturating_mul(text.len()) <= MAX_REPEAT_BYTES)
            .map(|times| text.repeat(times))
            .ok_or_else(|| {
                format!(
                    "expected a template of at most {MAX_REPEAT_BYTES} bytes, found repeat {times}"
                )
            });
    }
    if let Some(found) = ENV.as_ref().and_then(|form| form.captures(expression)) {
        return Ok(std::env::var(&found[1]).unwrap_or_default());
    }
    Err(format!(
        "expected a template of repeat, env or .Payload, found {:?}",
        crate::fault::printable(expression, 60)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_of_test_files_are_filled_in() {
        assert_eq!(
            templated(r#"a={{ "+" | repeat 3 }}!"#, None),
            Ok("a=+++!".to_owned())
        );
        assert_eq!(
            templated("x={{.Payload}}", Some("<b>")),
            Ok("x=<b>".to_owned())
        );
        assert_eq!(
            templated("no { braces }", None),
            Ok("no { braces }".to_owned())
        );
        assert!(
            templated("{{ randAlpha 3 }}", None)
                .unwrap_err()
                .contains("randAlpha")
        );
        assert!(templated(r#"{{ "x" | repeat 99999999999 }}"#, None).is_err());
    }
}
