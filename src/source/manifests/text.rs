//! The strings of manifests: which nodes are strings to the API server, and what base64 is.

use std::collections::BTreeMap;
use std::fmt::Display;

use base64::alphabet;
use base64::engine::{Engine as _, GeneralPurpose, GeneralPurposeConfig};

use super::node::{Node, Problem, Value};

/// The server's base64: padded, and lenient about the bits that the padding cuts off.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The longest key of a value, in bytes.
const KEY_BYTES_MAX: usize = 253;

/// A string and the line of its key.
pub struct Text {
    pub line: u64,
    pub value: String,
}

/// The strings of a map that may be absent or null.
pub fn texts(node: Option<Node>, name: &str) -> Result<BTreeMap<String, Text>, Problem> {
    let fields = node.map(|node| node.into_fields(name)).transpose()?.unwrap_or_default();
    let text = |(key, node): (String, Node)| {
        let text = string(node, format_args!("{key:?} in {name}"))?;
        Ok((key, text))
    };
    fields.into_iter().map(text).collect()
}

/// The values of an object by their keys, in a map that may be absent or null.
pub fn values(node: Option<Node>, name: &str) -> Result<BTreeMap<String, Text>, Problem> {
    let values = texts(node, name)?;
    match values.iter().find(|(key, _)| !is_key(key)) {
        Some((key, Text { line, .. })) => {
            let remedy = format!(
                "write at most {KEY_BYTES_MAX} letters (a to z, A to Z), digits, \"-\", \"_\" and \".\", and no \"..\" in front"
            );
            Err(Problem::at(*line, format!("{key:?} in {name} is no key that a file can have; {remedy}")))
        }
        None => Ok(values),
    }
}

/// Whether an object's value may have this key, by `IsConfigMapKey` of Kubernetes, which counts for Secrets as well.
fn is_key(key: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(is_valid) && key != "." && !key.starts_with("..")
}

/// The string that a node is. Null is the empty string, as it is to the API server. `name` is what messages call it.
pub fn string(node: Node, name: impl Display) -> Result<Text, Problem> {
    let line = node.line;
    match node.value {
        Value::Text(value) => Ok(Text { line, value }),
        Value::Null => Ok(Text { line, value: String::new() }),
        Value::Refused(text) => Err(Problem::at(line, format!("{name} cannot be read: {text}"))),
        Value::Plain(what) => Err(Problem::at(line, format!("{name} is {what}, not a string; put it in quotes"))),
        other => Err(Problem::at(line, format!("{name} is {}, not a string; write it as a block (|)", other.what()))),
    }
}

/// The bytes of a base64 value, in which line breaks do not count. `instead` is the field that takes plain text.
pub fn decode(text: &Text, name: &str, key: &str, instead: &str) -> Result<Vec<u8>, Problem> {
    let encoded: Vec<u8> = text.value.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    BASE64.decode(encoded).map_err(|_| {
        let remedy = format!("encode it, or move it to {instead}");
        Problem::at(text.line, format!("{key:?} in {name} is not base64; {remedy}"))
    })
}
