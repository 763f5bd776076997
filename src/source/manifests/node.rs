//! The nodes of documents: only what can be part of a ConfigMap, a Secret or a list of them, each with its line.

use std::collections::BTreeMap;

/// The most nodes that configbump keeps of one document. It keeps nothing of other kinds.
pub const NODES_MAX: usize = 500_000;

/// The deepest level of a kept node: a list of lists of objects is possible.
pub const DEPTH_MAX: usize = 64;

/// What all aliases of a file may stand for together: nodes and bytes.
const ALIASED_MAX: usize = 32 * 1024 * 1024;

const TOO_MANY: &str = "the document has more than 500000 names and values; split it";
pub const TOO_DEEP: &str = "nested deeper than 64 levels; write it flatter";
pub const TOO_MUCH_ALIASED: &str = "the aliases of this file stand for more than 32 MiB; write their values out";

/// What is wrong with a file, and where; one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1; absent if it is about the file as a whole.
    pub line: Option<u64>,
    pub text: String,
}

impl Problem {
    pub fn at(line: u64, text: impl Into<String>) -> Self {
        Self { line: Some(line), text: text.into() }
    }

    pub fn whole(text: impl Into<String>) -> Self {
        Self { line: None, text: text.into() }
    }
}

/// A node without a key: a document or an item of a list.
#[derive(Debug)]
pub struct Node {
    pub line: u64,
    pub value: Value,
}

#[derive(Debug)]
pub enum Value {
    Null,
    Text(String),
    /// A number or a boolean, with its article.
    Plain(&'static str),
    /// Empty where no list belongs.
    List(Vec<Node>),
    /// Empty where no map belongs.
    Map(Vec<Entry>),
    /// A value that configbump does not read, and why.
    Refused(&'static str),
}

/// A key and its value, in the order of the document; a key can stand in a map twice.
#[derive(Debug)]
pub struct Entry {
    pub line: u64,
    pub key: Key,
    pub value: Value,
    /// The entry comes from a merge key (`<<`).
    pub merged: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    Text(String),
    /// The key is no string, but this.
    Other(&'static str),
    /// The map cannot be read from here on, and why.
    Refused(&'static str),
}

impl Value {
    /// Returns the kind of the value, with an article.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a string",
            Self::Plain(what) => what,
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Refused(_) => "unreadable",
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the value of a key in a map: the last one, as kubectl does.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let Self::Map(entries) = self else { return None };
        entries.iter().rev().find(|entry| matches!(&entry.key, Key::Text(key) if key == name)).map(|entry| &entry.value)
    }
}

impl Node {
    /// Returns the fields of a map, each with the line of its key. Null is an empty map. `name` is for messages.
    pub fn into_fields(self, name: &str) -> Result<BTreeMap<String, Node>, Problem> {
        let entries = match self.value {
            Value::Map(entries) => entries,
            Value::Null => Vec::new(),
            Value::Refused(text) => return Err(Problem::at(self.line, text)),
            other => return Err(Problem::at(self.line, format!("{name} is {}, not a map", other.what()))),
        };
        let mut fields: BTreeMap<String, (bool, Node)> = BTreeMap::new();
        for Entry { line, key, value, merged } in entries {
            let key = match key {
                Key::Text(key) => key,
                Key::Other(what) => return Err(Problem::at(line, format!("a key of {name} is {what}"))),
                Key::Refused(text) => return Err(Problem::at(line, text)),
            };
            match fields.get(&key) {
                Some((false, _)) if merged => {
                    let text = format!("{key:?} stands in {name} before a merge key (<<) replaces it; merge first");
                    return Err(Problem::at(line, text));
                }
                Some((false, _)) => {
                    return Err(Problem::at(line, format!("{key:?} stands twice in {name}; remove one")));
                }
                _ => drop(fields.insert(key, (merged, Node { line, value }))),
            }
        }
        Ok(fields.into_iter().map(|(key, (_, node))| (key, node)).collect())
    }
}

/// What a part of a document can be to configbump, and so what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Metadata,
    /// Strings by their names.
    Texts,
    /// Objects in a list.
    Items,
    /// A scalar.
    Leaf,
    /// Nothing is kept.
    Skipped,
}

impl Shape {
    /// Returns the shape of a field in a map of this shape.
    pub fn field(self, key: &str) -> Self {
        match (self, key) {
            (Self::Object, "metadata") => Self::Metadata,
            (Self::Object, "items") => Self::Items,
            (Self::Object, "data" | "binaryData" | "stringData") | (Self::Metadata, "labels" | "annotations") => {
                Self::Texts
            }
            (Self::Object, "kind" | "apiVersion")
            | (Self::Metadata, "name" | "namespace" | "creationTimestamp")
            | (Self::Texts, _) => Self::Leaf,
            _ => Self::Skipped,
        }
    }

    pub fn keeps_map(self) -> bool {
        matches!(self, Self::Object | Self::Metadata | Self::Texts)
    }

    pub fn keeps_list(self) -> bool {
        self == Self::Items
    }
}

/// What may still be kept.
#[derive(Clone, Debug)]
pub struct Budget {
    nodes: usize,
    aliased: usize,
}

impl Budget {
    pub fn new() -> Self {
        Self { nodes: NODES_MAX, aliased: ALIASED_MAX }
    }

    /// Begins the next document, whose nodes are counted on their own.
    pub fn begin_document(&mut self) {
        self.nodes = NODES_MAX;
    }

    /// Takes the nodes and bytes that an alias stands for. Returns false if they are too many.
    pub fn take_aliased(&mut self, size: usize) -> bool {
        let left = self.aliased.checked_sub(size);
        self.aliased = left.unwrap_or(self.aliased);
        left.is_some()
    }

    fn take_node(&mut self) -> bool {
        let left = self.nodes.checked_sub(1);
        self.nodes = left.unwrap_or_default();
        left.is_some()
    }

    /// Returns whether one more entry can be kept. If not, the entries end with a refusal.
    pub fn admits_entry(&mut self, entries: &mut Vec<Entry>, line: u64) -> bool {
        let admitted = self.take_node();
        if !admitted && !matches!(entries.last(), Some(Entry { key: Key::Refused(_), .. })) {
            entries.push(refusal(line, TOO_MANY));
        }
        admitted
    }

    /// Returns whether one more item can be kept. If not, the items end with a refusal.
    pub fn admits_item(&mut self, items: &mut Vec<Node>, line: u64) -> bool {
        let admitted = self.take_node();
        if !admitted && !matches!(items.last(), Some(Node { value: Value::Refused(_), .. })) {
            items.push(Node { line, value: Value::Refused(TOO_MANY) });
        }
        admitted
    }

    /// Returns an item of a list. Of an object of another kind only the kind remains, and the rest is not counted.
    pub fn prune(&mut self, item: Value, before: &Self) -> Value {
        let Some(Value::Text(kind)) = item.get("kind") else { return item };
        if matches!(kind.as_str(), "ConfigMap" | "Secret" | "List" | "ConfigMapList" | "SecretList") {
            return item;
        }
        let key = Key::Text("kind".to_owned());
        let value = Value::Text(kind.clone());
        self.clone_from(before);
        Value::Map(vec![Entry { line: 0, key, value, merged: false }])
    }
}

/// An entry that says why the map cannot be read.
pub fn refusal(line: u64, text: &'static str) -> Entry {
    Entry { line, key: Key::Refused(text), value: Value::Null, merged: false }
}
