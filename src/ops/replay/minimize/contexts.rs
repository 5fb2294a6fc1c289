//! The smallest hook contexts that still show a change: hooks from the end,
//! then keys, elements and characters.

use std::borrow::Cow;

use serde_json::Value;

use super::{MAX_TRIALS, Minimized};
use crate::hook::{Hook, HookContext};
use crate::question::Question;

/// Hooks with their contexts as JSON.
type Parts = Vec<(Hook, Value)>;

/// Takes away what `shows` does not need.
pub(super) fn minimize(
    inputs: &[Question<'_>],
    shows: impl Fn(&[Question<'_>]) -> bool,
) -> Minimized {
    let parts: Parts = inputs
        .iter()
        .filter_map(|input| match input {
            Question::Hook(hook, context) => {
                let value = serde_json::to_value(context.as_ref()).unwrap_or_default();
                Some((*hook, value))
            }
            Question::Event(_) | Question::Exact { .. } => None,
        })
        .collect();
    let mut search = Search {
        parts: parts.clone(),
        shows,
        trials: 0,
        progress: true,
    };
    while std::mem::take(&mut search.progress) && search.trials < MAX_TRIALS {
        search.round();
    }
    if search.parts == parts {
        Minimized::Already
    } else {
        Minimized::To(inputs_of(&search.parts).unwrap_or_default())
    }
}

fn inputs_of(parts: &Parts) -> Option<Vec<Question<'static>>> {
    parts
        .iter()
        .map(|(hook, value)| {
            let context: HookContext = serde_json::from_value(value.clone()).ok()?;
            Some(Question::Hook(*hook, Cow::Owned(context)))
        })
        .collect()
}

struct Search<F> {
    parts: Parts,
    shows: F,
    trials: usize,
    progress: bool,
}

impl<F: Fn(&[Question<'_>]) -> bool> Search<F> {
    /// Keeps a change that still shows.
    fn attempt(&mut self, change: impl FnOnce(&mut Parts)) -> bool {
        if self.trials >= MAX_TRIALS {
            return false;
        }
        let mut smaller = self.parts.clone();
        change(&mut smaller);
        self.trials += 1;
        let shows = smaller != self.parts
            && !smaller.is_empty()
            && inputs_of(&smaller).is_some_and(|inputs| (self.shows)(&inputs));
        if shows {
            self.parts = smaller;
            self.progress = true;
        }
        shows
    }

    fn round(&mut self) {
        for index in (0..self.parts.len()).rev() {
            self.attempt(|parts| {
                parts.remove(index);
            });
        }
        for index in 0..self.parts.len() {
            for key in ["/user", "/tenant_id"] {
                self.attempt(|parts| put(parts, (index, key), |value| *value = Value::Null));
            }
            for key in ["/headers", "/input", "/data"] {
                self.within(index, key);
            }
        }
    }

    /// Takes away from what stands at a place, but not all of it.
    fn within(&mut self, index: usize, pointer: &str) {
        let Some(value) = self
            .parts
            .get(index)
            .and_then(|part| part.1.pointer(pointer))
            .cloned()
        else {
            return;
        };
        match value {
            Value::Object(map) => {
                for key in map.keys() {
                    let gone = self.attempt(|parts| {
                        put(parts, (index, pointer), |value| {
                            if let Value::Object(map) = value {
                                map.shift_remove(key);
                            }
                        });
                    });
                    if !gone {
                        let step = key.replace('~', "~0").replace('/', "~1");
                        self.within(index, &format!("{pointer}/{step}"));
                    }
                }
            }
            Value::Array(list) => {
                for at in (0..list.len()).rev() {
                    let gone = self.attempt(|parts| {
                        put(parts, (index, pointer), |value| {
                            if let Value::Array(list) = value {
                                list.remove(at);
                            }
                        });
                    });
                    if !gone {
                        self.within(index, &format!("{pointer}/{at}"));
                    }
                }
            }
            Value::String(text) => self.shorten(index, pointer, &text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn shorten(&mut self, index: usize, pointer: &str, text: &str) {
        let mut left: Vec<char> = text.chars().collect();
        let mut step = left.len();
        while step > 0 {
            let mut at = 0;
            while at < left.len() {
                let end = (at + step).min(left.len());
                let mut shorter = left.clone();
                shorter.drain(at..end);
                let said: String = shorter.iter().collect();
                let gone = self.attempt(|parts| {
                    put(parts, (index, pointer), |value| *value = said.into());
                });
                if gone {
                    left = shorter;
                } else {
                    at = end;
                }
                if self.trials >= MAX_TRIALS {
                    return;
                }
            }
            step /= 2;
        }
    }
}

fn put(parts: &mut Parts, (index, pointer): (usize, &str), change: impl FnOnce(&mut Value)) {
    let value = parts
        .get_mut(index)
        .and_then(|part| part.1.pointer_mut(pointer));
    if let Some(value) = value {
        change(value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_matters_of_a_context_is_left() {
        let context: HookContext = serde_json::from_value(json!({
            "input": {"name": "Ada", "tags": ["a", "evil deed", "c"], "deep": {"x": 1, "y": 2}},
            "user": {"id": "7", "role": "user"},
            "headers": {"a": "1"},
            "tenant_id": "acme",
        }))
        .unwrap();
        let inputs = [
            Question::Hook(Hook::Before, Cow::Owned(context.clone())),
            Question::Hook(Hook::After, Cow::Owned(context)),
        ];
        let shows = |inputs: &[Question<'_>]| {
            inputs.iter().any(|input| {
                let Question::Hook(_, context) = input else {
                    return false;
                };
                let tags = context.input.get("tags").map(Value::to_string);
                tags.is_some_and(|tags| tags.contains("evil")) && context.input.contains_key("deep")
            })
        };
        let Minimized::To(left) = minimize(&inputs, shows) else {
            panic!("smaller");
        };
        let [Question::Hook(_, context)] = left.as_slice() else {
            panic!("{left:?}");
        };
        assert_eq!(
            serde_json::to_value(context.as_ref()).unwrap(),
            json!({
                "input": {"tags": ["evil"], "deep": {}},
                "data": null, "user": null, "headers": {}, "tenant_id": null,
            })
        );
    }
}
