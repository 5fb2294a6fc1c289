//! Parts of answers that are not compared: JSON pointers, as `--ignore` takes
//! them and as reports print where answers differ.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::Given;

/// A part of answers, such as `/audit/tags`; `2/audit/tags` is the part of the
/// answer to the second step alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// Of the answer to which step, from 1; nothing: of all.
    answer: Option<usize>,
    /// The JSON pointer.
    path: String,
    /// Its names, without the pointer's own spelling of `~` and `/`.
    names: Vec<String>,
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            "expected a JSON pointer such as /audit/tags or /decision/block/body, or 2/audit/tags for the answer to the second step of a transaction alone".to_owned()
        };
        let (answer, names) = text.split_once('/').ok_or_else(refuse)?;
        let is_number =
            answer.bytes().all(|byte| byte.is_ascii_digit()) && !answer.starts_with('0');
        if names.is_empty() || !is_number {
            return Err(refuse());
        }
        let answer = match answer {
            "" => None,
            number => Some(number.parse().map_err(|_too_large| refuse())?),
        };
        let is_escaped = |name: &str| {
            let mut behind = name.split('~').skip(1);
            behind.all(|rest| rest.starts_with(['0', '1']))
        };
        if !names.split('/').all(is_escaped) {
            return Err("expected ~0 for ~ and ~1 for / in a name of a JSON pointer".to_owned());
        }
        let plain = |name: &str| name.replace("~1", "/").replace("~0", "~");
        Ok(Self {
            answer,
            path: format!("/{names}"),
            names: names.split('/').map(plain).collect(),
        })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(answer) = self.answer {
            write!(out, "{answer}")?;
        }
        out.write_str(&self.path)
    }
}

impl Pointer {
    /// Whether it is about the answer to this step, from 0.
    fn is_about(&self, index: usize) -> bool {
        self.answer.is_none_or(|answer| answer == index + 1)
    }

    /// Whether it leaves out what decides if there is an answer after this one.
    pub(super) fn is_decision_of(&self, index: usize) -> bool {
        self.is_about(index) && matches!(self.path.as_str(), "/decision" | "/ok")
    }

    /// Whether one of these answers has this part.
    pub(crate) fn is_in(&self, answers: &[Given]) -> bool {
        let has = |it: &Given| self.is_about(it.step) && it.value.pointer(&self.path).is_some();
        answers.iter().any(has)
    }
}

/// Takes what the pointers name out of the answer to this step, from 0. All
/// of them mean the answer as it was given: an element that is taken out of a
/// list moves no other.
pub(super) fn strip(answer: &mut Value, index: usize, pointers: &[Pointer]) {
    let about = pointers.iter().filter(|pointer| pointer.is_about(index));
    let paths: Vec<&[String]> = about.map(|pointer| pointer.names.as_slice()).collect();
    take_out(answer, &paths);
}

fn take_out(value: &mut Value, paths: &[&[String]]) {
    if paths.is_empty() {
        return;
    }
    let below = |name: &str| -> Vec<&[String]> {
        let split = paths.iter().filter_map(|path| path.split_first());
        split
            .filter(|(first, _)| *first == name)
            .map(|(_, rest)| rest)
            .collect()
    };
    match value {
        Value::Object(map) => map.retain(|name, value| stays(value, &below(name))),
        Value::Array(list) => {
            let mut index = 0_usize;
            list.retain_mut(|value| {
                let paths = below(&index.to_string());
                index += 1;
                stays(value, &paths)
            });
        }
        _ => {}
    }
}

/// Takes parts out of a value, which stays unless it is itself named.
fn stays(value: &mut Value, paths: &[&[String]]) -> bool {
    let is_named = paths.iter().any(|path| path.is_empty());
    if !is_named {
        take_out(value, paths);
    }
    !is_named
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stripped(mut value: Value, index: usize, pointers: &[&str]) -> Value {
        let pointers: Vec<Pointer> = pointers.iter().map(|text| text.parse().unwrap()).collect();
        strip(&mut value, index, &pointers);
        value
    }

    #[test]
    fn pointers_mean_the_answer_as_it_was_given() {
        let list = || json!({"a": ["x", "y", "z", {"b": 1, "c": 2}]});
        for (pointers, left) in [
            (&["/a/0", "/a/1"][..], json!({"a": ["z", {"b": 1, "c": 2}]})),
            (&["/a/1", "/a/0"], json!({"a": ["z", {"b": 1, "c": 2}]})),
            (&["/a/0", "/a/3/b"], json!({"a": ["y", "z", {"c": 2}]})),
            (&["/a/3/b", "/a/3"], json!({"a": ["x", "y", "z"]})),
            (&["/a", "/a/0"], json!({})),
            // No index by the rules of JSON pointers, and none that is there.
            (&["/a/00", "/a/+1", "/a/-", "/a/9", "/b"], list()),
        ] {
            assert_eq!(stripped(list(), 0, pointers), left, "{pointers:?}");
        }
    }

    #[test]
    fn names_are_escaped_and_answers_numbered() {
        let named = || json!({"a/b": 1, "c~d": 2, "~1": 3, "e": 4});
        assert_eq!(
            stripped(named(), 0, &["/a~1b", "/c~0d", "/~01"]),
            json!({"e": 4})
        );
        assert_eq!(stripped(json!({"e": 4}), 1, &["2/e"]), json!({}));
        assert_eq!(stripped(json!({"e": 4}), 0, &["2/e"]), json!({"e": 4}));
        assert_eq!("2/e/~01".parse::<Pointer>().unwrap().to_string(), "2/e/~01");
        for bad in [
            "", "e", "/", "2", "2/", "0/e", "02/e", "x/e", "/a~b", "/a~", "/~2",
        ] {
            assert!(bad.parse::<Pointer>().is_err(), "{bad}");
        }
    }
}
