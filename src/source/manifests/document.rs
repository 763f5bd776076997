//! Manifests as objects, by the rules of the API server.
//!
//! Checked are: the types of the fields that matter, and that no key stands in them twice; base64; names, namespaces and
//! the keys of values; which of `data`, `binaryData` and `stringData` a kind has. Not checked are: fields that do not
//! matter here, the syntax of labels and annotations, and the 1 MiB that the values of an object may have together.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::metadata::Metadata;
use super::node::{Node, Problem, Value};
use super::stream;
use super::text::{decode, values};
use crate::config::{Namespaces, Selection};
use crate::content::Content;
use crate::content::Spool;
use crate::object::{Entry, Kind, Object, ObjectKey};
use crate::printable;

/// Where an object is that names no namespace.
const NAMESPACE: &str = "default";

/// A selected object and the line where its document begins.
#[derive(Debug)]
pub struct Found {
    pub object: Object,
    pub line: u64,
}

/// Reads the selected objects of a file, and spools their values.
#[derive(Debug)]
pub struct Reader {
    pub selection: Selection,
    pub folder_annotation: Option<String>,
    pub spool: Spool,
}

/// What a document is to us.
enum Class {
    Object(Kind),
    /// Objects in a document, with the kind of those that name none.
    List(Option<Kind>),
    Other,
}

impl Reader {
    /// Returns the selected objects of all documents. Skips documents of other kinds whatever is in them, and the values of
    /// objects that are not selected. `path` is for the log.
    ///
    /// # Errors
    ///
    /// Fails if the file is neither YAML nor JSON, or an object in it is one that the API server would refuse.
    pub fn read(&self, bytes: &[u8], path: &Path) -> Result<Vec<Found>, Problem> {
        let mut found = Vec::new();
        stream::read(bytes, &mut |document| {
            let before = found.len();
            self.collect(document, None, path, &mut found)?;
            Ok(found.len() > before)
        })?;
        Ok(found)
    }

    fn collect(&self, node: Node, implied: Option<Kind>, path: &Path, found: &mut Vec<Found>) -> Result<(), Problem> {
        match self.class(&node, implied)? {
            Class::Object(kind) => found.extend(self.object(kind, node)?),
            Class::List(implied) => {
                for item in items(node)? {
                    self.collect(item, implied, path, found)?;
                }
            }
            Class::Other => tracing::debug!("{}:{}: passed over", printable::path(path), node.line),
        }
        Ok(())
    }

    fn class(&self, node: &Node, implied: Option<Kind>) -> Result<Class, Problem> {
        let class = match (node.value.get("kind"), implied) {
            (None, Some(kind)) => return Ok(self.wanted(kind)),
            (None, None) => return Ok(Class::Other),
            (Some(kind), _) => match kind.as_text() {
                Some("List") => Class::List(None),
                Some("ConfigMapList") => Class::List(Some(Kind::ConfigMap)),
                Some("SecretList") => Class::List(Some(Kind::Secret)),
                name => name.and_then(Kind::from_name).map_or(Class::Other, |kind| self.wanted(kind)),
            },
        };
        match (&class, node.value.get("apiVersion")) {
            (Class::Other, _) => Ok(class),
            (_, Some(version)) if version.as_text() == Some("v1") => Ok(class),
            (_, Some(_)) => Ok(Class::Other),
            (_, None) if implied.is_some() => Ok(class),
            (_, None) => Err(Problem::at(node.line, "apiVersion is missing; write apiVersion: v1")),
        }
    }

    fn wanted(&self, kind: Kind) -> Class {
        if self.selection.kinds.contains(&kind) { Class::Object(kind) } else { Class::Other }
    }

    fn object(&self, kind: Kind, node: Node) -> Result<Option<Found>, Problem> {
        let line = node.line;
        let mut fields = node.into_fields(kind.name())?;
        let metadata = Metadata::read(fields.remove("metadata"), line)?;
        let Some(namespace) = self.namespace(metadata.namespace) else { return Ok(None) };
        if !self.selection.selects(&metadata.name, &metadata.labels) {
            return Ok(None);
        }
        let folder = self.folder_annotation.as_ref().and_then(|name| metadata.annotations.get(name).cloned());
        let contents = match kind {
            Kind::ConfigMap => self.config_map(fields)?,
            Kind::Secret => self.secret(fields)?,
        };
        let object = Object {
            key: Arc::new(ObjectKey { kind, namespace, name: metadata.name }),
            resource_version: None,
            uid: None,
            created: metadata.created,
            folder,
            entries: contents.into_iter().map(|(key, content)| Entry { key, content }).collect(),
        };
        Ok(Some(Found { object, line }))
    }

    /// The namespace that an object is in, if that is followed.
    fn namespace(&self, named: Option<String>) -> Option<String> {
        match &self.selection.namespaces {
            Namespaces::Unset | Namespaces::All => Some(named.unwrap_or_else(|| NAMESPACE.to_owned())),
            Namespaces::Named(followed) => match named {
                Some(named) => followed.contains(&named).then_some(named),
                None => followed.first().cloned(),
            },
        }
    }

    fn config_map(&self, mut fields: BTreeMap<String, Node>) -> Result<BTreeMap<String, Content>, Problem> {
        refuse(&fields, "stringData", "a ConfigMap has no stringData; move it to data")?;
        let mut contents = BTreeMap::new();
        for (key, text) in values(fields.remove("data"), "data")? {
            contents.insert(key, self.spool.content(Kind::ConfigMap, text.value.as_bytes()));
        }
        for (key, text) in values(fields.remove("binaryData"), "binaryData")? {
            let bytes = decode(&text, "binaryData", &key, "data")?;
            if contents.insert(key.clone(), self.spool.content(Kind::ConfigMap, &bytes)).is_some() {
                return Err(Problem::at(text.line, format!("{key:?} stands in data and in binaryData; remove one")));
            }
        }
        Ok(contents)
    }

    fn secret(&self, mut fields: BTreeMap<String, Node>) -> Result<BTreeMap<String, Content>, Problem> {
        refuse(&fields, "binaryData", "a Secret has no binaryData; move it to data")?;
        let mut contents = BTreeMap::new();
        for (key, text) in values(fields.remove("data"), "data")? {
            let bytes = decode(&text, "data", &key, "stringData")?;
            contents.insert(key, self.spool.content(Kind::Secret, &bytes));
        }
        for (key, text) in values(fields.remove("stringData"), "stringData")? {
            contents.insert(key, self.spool.content(Kind::Secret, text.value.as_bytes()));
        }
        Ok(contents)
    }
}

/// Refuses a field that the kind does not have but that its writer counted on.
fn refuse(fields: &BTreeMap<String, Node>, name: &str, text: &str) -> Result<(), Problem> {
    match fields.get(name) {
        Some(node) if !matches!(node.value, Value::Null) => Err(Problem::at(node.line, text)),
        _ => Ok(()),
    }
}

fn items(node: Node) -> Result<Vec<Node>, Problem> {
    let Some(items) = node.into_fields("the list")?.remove("items") else { return Ok(Vec::new()) };
    match items.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        Value::Refused(text) => Err(Problem::at(items.line, text)),
        other => Err(Problem::at(items.line, format!("items is {}, not a list", other.what()))),
    }
}
