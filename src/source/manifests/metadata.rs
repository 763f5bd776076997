//! What a manifest says about its object, by the rules of the API server.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::node::{Node, Problem, Value};
use super::text::{Text, string, texts};
use crate::source::selector;

/// The part of an object's metadata that matters.
pub struct Metadata {
    pub name: String,
    pub namespace: Option<String>,
    /// In seconds since 1970.
    pub created: Option<i64>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// Reads the metadata of an object whose document begins at this line.
    pub fn read(node: Option<Node>, document_line: u64) -> Result<Self, Problem> {
        let line = node.as_ref().map_or(document_line, |node| node.line);
        let mut fields = node.map(|node| node.into_fields("metadata")).transpose()?.unwrap_or_default();
        let Some(name) = dns_name(&mut fields, "name", "digits, \"-\" and \".\"", selector::is_dns_subdomain)? else {
            return Err(Problem::at(line, "metadata.name is missing; give the object a name"));
        };
        let namespace = dns_name(&mut fields, "namespace", "digits and \"-\"", selector::is_dns_label)?;
        Ok(Self {
            name,
            namespace,
            created: text(&mut fields, "creationTimestamp")?.map(|text| timestamp(&text)).transpose()?,
            labels: map(&mut fields, "labels")?,
            annotations: map(&mut fields, "annotations")?,
        })
    }
}

type Fields = BTreeMap<String, Node>;

/// The string of a field that may be absent or null.
fn text(fields: &mut Fields, field: &str) -> Result<Option<Text>, Problem> {
    let node = fields.remove(field).filter(|node| !matches!(node.value, Value::Null));
    node.map(|node| string(node, format_args!("metadata.{field}"))).transpose()
}

/// A DNS name, if there is one: the empty one is none. `rest` is what it may have besides letters.
fn dns_name(
    fields: &mut Fields,
    field: &str,
    rest: &str,
    is_valid: fn(&str) -> bool,
) -> Result<Option<String>, Problem> {
    match text(fields, field)? {
        Some(name) if name.value.is_empty() => Ok(None),
        Some(name) if !is_valid(&name.value) => {
            let remedy = format!("write lower-case letters, {rest} that begin and end with a letter or digit");
            Err(Problem::at(name.line, format!("metadata.{field} is no DNS name; {remedy}")))
        }
        name => Ok(name.map(|name| name.value)),
    }
}

fn map(fields: &mut Fields, field: &str) -> Result<BTreeMap<String, String>, Problem> {
    let texts = texts(fields.remove(field), &format!("metadata.{field}"))?;
    Ok(texts.into_iter().map(|(key, text)| (key, text.value)).collect())
}

fn timestamp(text: &Text) -> Result<i64, Problem> {
    let timestamp: Timestamp = text.value.parse().map_err(|_| {
        let remedy = "write it like 2026-01-31T12:00:00Z, or leave it out";
        Problem::at(text.line, format!("metadata.creationTimestamp is no RFC 3339 time; {remedy}"))
    })?;
    Ok(timestamp.as_second())
}
