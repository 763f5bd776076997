//! Model of the README's contract: which files DIR must hold for a set of objects.

use std::collections::BTreeMap;

use fastrand::Rng;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::harness::object::{annotated, config_map, labelled, large_config_map};

pub const FOLDER_ANNOTATION: &str = "example.com/folder";

/// Marks a content that `--check` refuses.
pub const BAD: &str = "BAD";

/// Marks a content that the bumped program refuses.
pub const EVIL: &str = "EVIL";

/// Keys and directories are few, so that objects conflict: by the same path, and as file and directory.
const KEYS: [&str; 4] = ["a", "b", "c", "d"];
pub const DIRECTORIES: [Option<&str>; 6] = [None, None, None, Some("a"), Some("d"), Some("d/e")];

/// Length of the filler of a value: inline in memory, in a temporary file, in a watch event that a thread parses.
const FILLER_BYTES: [usize; 4] = [0, 0, 5_000, 70_000];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Flat,
    Tree,
    Unique,
}

impl Layout {
    pub const ALL: [Self; 3] = [Self::Flat, Self::Tree, Self::Unique];

    pub fn option(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Tree => "tree",
            Self::Unique => "unique",
        }
    }
}

/// Name of an object, and the number of its namespace.
pub type Name = (usize, String);

/// Content of an object at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub directory: Option<&'static str>,
    pub values: BTreeMap<String, String>,
}

impl Version {
    /// Random keys. The values name their object, so that the reader of a file can tell which one it belongs to.
    pub fn random(rng: &mut Rng, name: &Name, serial: u64) -> Self {
        let keys = KEYS.into_iter().filter(|_| rng.bool()).map(str::to_owned).collect::<Vec<_>>();
        let directory = DIRECTORIES[rng.usize(..DIRECTORIES.len())];
        Self { directory, ..Self::of(rng, name, serial, keys, "good") }
    }

    /// Returns new values for the same keys.
    pub fn renewed(&self, serial: u64) -> Self {
        let mut renewed = self.clone();
        renewed.values.values_mut().for_each(|value| *value = value.replacen(" v", &format!(" v{serial}-"), 1));
        renewed
    }

    /// One key that no other object has.
    pub fn single(rng: &mut Rng, name: &Name, serial: u64, mark: &str) -> Self {
        Self::of(rng, name, serial, vec![name.1.clone()], mark)
    }

    fn of(rng: &mut Rng, name: &Name, serial: u64, keys: Vec<String>, mark: &str) -> Self {
        let filler = "x".repeat(FILLER_BYTES[rng.usize(..FILLER_BYTES.len())]);
        let value = |key: &str| format!("{}/{} v{serial} {key} {mark}\n{filler}\nend of v{serial}\n", name.0, name.1);
        let values = keys.into_iter().map(|key| (key.clone(), value(&key))).collect();
        Self { directory: None, values }
    }
}

/// Object of the model that exists on the API server.
#[derive(Clone, Debug)]
pub struct Object {
    pub created: Option<Time>,
    /// The object has the label that the selector asks for.
    pub is_selected: bool,
    pub version: Version,
    /// Earlier contents that nothing refuses.
    pub history: Vec<Version>,
}

impl Object {
    pub fn is_marked(&self, mark: &str) -> bool {
        self.version.values.values().any(|value| is_marked(value, mark))
    }

    pub fn is_refused(&self) -> bool {
        self.is_marked(BAD) || self.is_marked(EVIL)
    }

    /// Returns the object as the API server takes it.
    pub fn to_config_map(&self, name: &Name) -> ConfigMap {
        let object = large_config_map(&name.1, self.version.values.clone());
        let object = if self.is_selected { object } else { labelled(object, [("app", "other")]) };
        match self.version.directory {
            Some(directory) => annotated(object, FOLDER_ANNOTATION, directory),
            None => object,
        }
    }
}

/// Returns an object that can be deleted by its name.
pub fn named(name: &Name) -> ConfigMap {
    config_map(&name.1, [])
}

/// Returns true if the first line of a value has this mark.
pub fn is_marked(value: &str, mark: &str) -> bool {
    value.lines().next().unwrap_or_default().ends_with(mark)
}

pub type Objects = BTreeMap<Name, Object>;

/// Files by their path below DIR.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Returns the path of each key of an object.
pub fn paths<'a>(
    layout: Layout,
    namespaces: &[String],
    name: &'a Name,
    version: &'a Version,
) -> impl Iterator<Item = (String, &'a String)> {
    let prefix = version.directory.map_or(String::new(), |directory| format!("{directory}/"));
    let namespace = namespaces[name.0].clone();
    version.values.iter().map(move |(key, value)| {
        let path = match layout {
            Layout::Flat => format!("{prefix}{key}"),
            Layout::Tree => format!("{prefix}{namespace}/{}/{key}", name.1),
            Layout::Unique => format!("{prefix}namespace_{namespace}.configmap_{}.{key}", name.1),
        };
        (path, value)
    })
}

/// Returns the files of the objects: the oldest object gets its paths, then the next one those that do not conflict.
pub fn winners(layout: Layout, namespaces: &[String], objects: &Objects) -> Tree {
    let mut ranked: Vec<_> = objects.iter().filter(|(_, object)| object.is_selected).collect();
    ranked.sort_by_key(|((namespace, name), object)| (object.created.clone(), &namespaces[*namespace], name));
    let mut tree = Tree::new();
    for (name, object) in ranked {
        for (path, value) in paths(layout, namespaces, name, &object.version) {
            if !tree.keys().any(|taken| conflicts(taken, &path)) {
                tree.insert(path, value.clone().into_bytes());
            }
        }
    }
    tree
}

/// Returns true if two paths are equal, or one needs the other as a directory.
pub fn conflicts(one: &str, other: &str) -> bool {
    is_at_or_above(one, other) || is_at_or_above(other, one)
}

pub fn is_at_or_above(above: &str, path: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the first line of a value, which identifies it.
pub fn head(content: &[u8]) -> String {
    String::from_utf8_lossy(content).lines().next().unwrap_or_default().to_owned()
}
