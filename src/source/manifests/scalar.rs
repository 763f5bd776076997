//! Plain scalars, that is, texts without quotes, as kubectl resolves them: by go-yaml v2, which reads YAML 1.1.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_lite::Regex;

use super::node::Key;

static FLOAT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$").ok());

/// What a text without quotes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    Null,
    Boolean(bool),
    Number,
    Text,
}

pub fn plain(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Plain::Boolean(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Plain::Boolean(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => Plain::Number,
        _ if is_number(text) => Plain::Number,
        _ => Plain::Text,
    }
}

/// Returns the key that a text without quotes is. A number is one only if kubectl writes it as it stands.
pub fn key(text: Cow<'_, str>) -> Key {
    match plain(&text) {
        Plain::Null => Key::Other("null, not a string; put it in quotes"),
        Plain::Boolean(value) => Key::Text(value.to_string()),
        Plain::Number if is_canonical(&text) => Key::Text(text.into_owned()),
        Plain::Number => Key::Other("a number that kubectl writes in another form; put it in quotes"),
        Plain::Text => Key::Text(text.into_owned()),
    }
}

fn is_number(text: &str) -> bool {
    match text.as_bytes().first() {
        Some(b'.') => is_float(text),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let text = text.replace('_', "");
            is_integer(&text) || is_float(&text)
        }
        _ => false,
    }
}

/// As `strconv.ParseInt` and `ParseUint` take integers of any base, and the binary ones that go-yaml adds.
fn is_integer(text: &str) -> bool {
    let (sign, digits) = match text.as_bytes() {
        [sign @ (b'+' | b'-'), ..] => (Some(*sign), &text[1..]),
        _ => (None, text),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'o' | b'O', ..] => (&digits[2..], 8),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    let value = match digits.strip_prefix(['+', '-']) {
        // "0b-1" is a number to go-yaml.
        Some(digits) if radix == 2 && sign.is_none() && text.starts_with("0b") => digits,
        Some(_) => return false,
        None => digits,
    };
    let Ok(value) = i128::from_str_radix(value, radix) else { return false };
    let max = if sign.is_none() { i128::from(u64::MAX) } else { i128::from(i64::MAX) + i128::from(sign == Some(b'-')) };
    value >= 0 && value <= max
}

fn is_float(text: &str) -> bool {
    FLOAT.as_ref().is_some_and(|float| float.is_match(text)) && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Whether kubectl writes a number as it stands. Floats that it may round or write with an exponent are none.
fn is_canonical(text: &str) -> bool {
    if let Ok(value) = text.parse::<i64>() {
        return value.to_string() == text;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let Some((whole, fraction)) = digits.split_once('.') else { return false };
    let only_digits = [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    only_digits
        && whole.len() + fraction.len() <= 6
        && (whole == "0" || !whole.is_empty() && !whole.starts_with('0'))
        && !fraction.is_empty()
        && !fraction.ends_with('0')
        && !(whole == "0" && fraction.starts_with("0000"))
}
