//! Numbers in JSON whose digits get lost when they are read: neither a 64-bit
//! integer nor a double holds them. `serde_json` reads them as the nearest double.

use serde_json::Value;

/// Digits that a 64-bit integer always holds.
const ALWAYS_HELD: usize = 18;

/// The first number of a JSON text that does not keep its digits.
#[must_use]
pub(crate) fn lossy(json: &str) -> Option<&str> {
    numbers(json).find(|number| !keeps_digits(number))
}

/// The value of a JSON text in which each number that does not keep its digits is
/// a text that has them; nothing where there is none.
#[must_use]
pub(crate) fn with_all_digits(json: &str) -> Option<Value> {
    lossy(json)?;
    let mut rewritten = String::with_capacity(json.len() + 32);
    let mut rest = json;
    while let Some(number) = lossy(rest) {
        let at = number.as_ptr().addr() - rest.as_ptr().addr();
        let (before, behind) = rest.split_at_checked(at)?;
        rewritten.push_str(before);
        rewritten.push_str(&format!("\"number {number}\""));
        rest = behind.get(number.len()..)?;
    }
    rewritten.push_str(rest);
    serde_json::from_str(&rewritten).ok()
}

/// The numbers of a JSON text, as they are written.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find(|letter: char| letter == '"' || is_start(letter))?;
            let found = rest.get(at..)?;
            if let Some(text) = found.strip_prefix('"') {
                rest = behind_string(text)?;
                continue;
            }
            let is_part =
                |letter: char| is_start(letter) || matches!(letter, '.' | '+' | 'e' | 'E');
            let end = found.find(|letter| !is_part(letter)).unwrap_or(found.len());
            let (number, behind) = found.split_at(end);
            rest = behind;
            return Some(number);
        }
    })
}

const fn is_start(letter: char) -> bool {
    letter == '-' || letter.is_ascii_digit()
}

/// What follows a string of which this is the rest.
fn behind_string(mut text: &str) -> Option<&str> {
    loop {
        let at = text.find(['"', '\\'])?;
        let is_escape = text.as_bytes().get(at) == Some(&b'\\');
        text = text.get(at + 1..)?;
        if !is_escape {
            return Some(text);
        }
        let mut letters = text.chars();
        letters.next()?;
        text = letters.as_str();
    }
}

fn keeps_digits(number: &str) -> bool {
    let is_short = number.len() <= ALWAYS_HELD && number.bytes().all(|it| it.is_ascii_digit());
    if is_short || number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok() {
        return true;
    }
    let read = number.parse::<f64>().ok().filter(|read| read.is_finite());
    let decimal = Decimal::of(number);
    read.is_some_and(|read| decimal.is_some() && decimal == Decimal::of(&format!("{read:e}")))
}

/// A number, however it is written.
#[derive(PartialEq)]
struct Decimal {
    is_negative: bool,
    /// Without zeros before and behind.
    digits: String,
    /// The power of ten that they are multiplied by.
    exponent: i64,
}

impl Decimal {
    fn of(number: &str) -> Option<Self> {
        let (is_negative, number) = match number.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, number),
        };
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let kept = digits.trim_end_matches('0');
        let zeros = i64::try_from(digits.len() - kept.len()).ok()?;
        let behind_point = i64::try_from(fraction.len()).ok()?;
        let exponent = exponent.parse::<i64>().ok()?;
        let exponent = exponent.checked_add(zeros)?.checked_sub(behind_point)?;
        Some(Self {
            is_negative: is_negative && !kept.is_empty(),
            digits: kept.to_owned(),
            exponent: if kept.is_empty() { 0 } else { exponent },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_double_does_not_hold_is_found() {
        for kept in [
            "0",
            "-0",
            "-0.0",
            "1.10",
            "1e2",
            "100.0",
            "0.1",
            "1E+2",
            "18446744073709551615",
            "-9223372036854775808",
            "1e23",
            "100000000000000000000",
            "5e-324",
            "0e999",
            r#"{"a\"": "12345678901234567890123", "é9\\": [1, 2.50]}"#,
        ] {
            assert_eq!(lossy(kept), None, "{kept}");
        }
        for lost in [
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890123",
            "9007199254740993.0",
            "0.1000000000000000055",
            "1e400",
            "1e-400",
            "0.12345678901234567890",
        ] {
            assert_eq!(lossy(&format!(r#"{{"1": ["\\", 2, {lost}]}}"#)), Some(lost));
        }
        let text = r#"{"a": [18446744073709551616, 1, "2"], "b": 18446744073709551617}"#;
        assert_eq!(
            with_all_digits(text),
            Some(
                json!({"a": ["number 18446744073709551616", 1, "2"], "b": "number 18446744073709551617"})
            )
        );
        assert_eq!(with_all_digits("[1.5]"), None);
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_kept(number in prop_oneof![
            any::<f64>().prop_map(|it| json!(it)), any::<u64>().prop_map(|it| json!(it)),
            any::<i64>().prop_map(|it| json!(it)),
        ]) {
            let text = json!([number]).to_string();
            prop_assert_eq!(lossy(&text), None);
        }
    }
}
