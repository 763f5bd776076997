//! Where a key's file belongs below the directory.

use std::path::Path;

use thiserror::Error;

use crate::config::Layout;
use crate::object::{Kind, Object, ObjectKey};
use crate::path::{PathError, RelPath};

/// The rule that gives every key of an object its path.
#[derive(Clone, Debug)]
pub struct Places {
    layout: Layout,
    /// Whether objects of several kinds are followed.
    has_kinds: bool,
    /// The directory as it was given, made absolute: a folder annotation may spell it out.
    dir: String,
}

/// Why a folder annotation or a key gives no path.
#[derive(Clone, Debug, Error, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlaceError {
    #[error("its folder annotation {folder:?} leads out of {dir}; write a relative path without `..`")]
    Outside { folder: String, dir: String },
    #[error("its folder annotation {folder:?} cannot be a folder: {why}")]
    Folder { folder: String, why: PathError },
    #[error("its key {key:?} cannot be a file: {why}")]
    Key { key: String, why: PathError },
    #[error("its key {key:?} is the same file as {path}, for the file system ignores case; rename one of them")]
    SameFile { key: String, path: RelPath },
    #[error("its key {key:?} has a slash, which only a folder annotation may have")]
    Slash { key: String },
}

impl Places {
    #[must_use]
    pub fn new(layout: Layout, kinds: &[Kind], dir: &Path) -> Self {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        Self { layout, has_kinds: kinds.len() > 1, dir: dir.to_string_lossy().trim_end_matches('/').to_owned() }
    }

    /// The folder that the object's annotation asks for: empty (the directory itself), or ending with a slash.
    ///
    /// An absolute path is taken if it lies below the directory, since k8s-sidecar's users write it that way.
    ///
    /// # Errors
    /// When the annotation names no folder below the directory.
    pub fn folder(&self, object: &Object) -> Result<String, PlaceError> {
        let Some(annotation) = object.folder.as_deref() else { return Ok(String::new()) };
        let outside = || PlaceError::Outside { folder: annotation.to_owned(), dir: self.dir.clone() };
        let below = match annotation.strip_prefix(&self.dir) {
            _ if !annotation.starts_with('/') => annotation,
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => return Err(outside()),
        };
        let below = below.trim_end_matches('/');
        if below.is_empty() {
            return Ok(String::new());
        }
        match RelPath::parse(below) {
            Ok(path) => Ok(format!("{path}/")),
            Err(PathError::Dots) => Err(outside()),
            Err(why) => Err(PlaceError::Folder { folder: annotation.to_owned(), why }),
        }
    }

    /// The path of one key, in the folder that [`Places::folder`] gave.
    ///
    /// # Errors
    /// When the key cannot be a file name.
    pub fn path(&self, folder: &str, object: &ObjectKey, key: &str) -> Result<RelPath, PlaceError> {
        if key.contains('/') {
            return Err(PlaceError::Slash { key: key.to_owned() });
        }
        let ObjectKey { kind, namespace, name } = object;
        let text = match self.layout {
            Layout::Flat => format!("{folder}{key}"),
            Layout::Unique => {
                let kind = match kind {
                    Kind::ConfigMap => "configmap",
                    Kind::Secret => "secret",
                };
                format!("{folder}namespace_{namespace}.{kind}_{name}.{key}")
            }
            // As in the API's own paths.
            Layout::Tree if self.has_kinds => format!("{folder}{namespace}/{}/{name}/{key}", kind.resource()),
            Layout::Tree => format!("{folder}{namespace}/{name}/{key}"),
        };
        // The key by itself first: a prefix must not make a hostile key pass.
        RelPath::parse(key)
            .and_then(|_| RelPath::parse(&text))
            .map_err(|why| PlaceError::Key { key: key.to_owned(), why })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey { kind: Kind::Secret, namespace: "ns".into(), name: "name".into() }
    }

    fn folder(annotation: Option<&str>) -> Result<String, PlaceError> {
        let object = Object {
            key: Arc::new(key()),
            resource_version: None,
            uid: None,
            created: None,
            folder: annotation.map(str::to_owned),
            entries: Vec::new(),
        };
        Places::new(Layout::Flat, &[Kind::Secret], Path::new("/srv/conf/")).folder(&object)
    }

    #[test]
    fn each_layout_gives_its_own_path() {
        for (layout, path) in [
            (Layout::Flat, "f/a.yaml"),
            (Layout::Unique, "f/namespace_ns.secret_name.a.yaml"),
            (Layout::Tree, "f/ns/name/a.yaml"),
        ] {
            let found = Places::new(layout, &[Kind::Secret], Path::new("/srv")).path("f/", &key(), "a.yaml");
            assert_eq!(found.map(|path| path.to_string()), Ok(path.to_owned()));
        }
    }

    #[test]
    fn tree_separates_kinds_if_both_are_followed() {
        let places = Places::new(Layout::Tree, &[Kind::ConfigMap, Kind::Secret], Path::new("/srv"));
        for (kind, path) in [(Kind::ConfigMap, "ns/configmaps/name/a"), (Kind::Secret, "ns/secrets/name/a")] {
            let found = places.path("", &ObjectKey { kind, ..key() }, "a");
            assert_eq!(found.map(|path| path.to_string()), Ok(path.to_owned()));
        }
    }

    #[test]
    fn a_folder_annotation_stays_below_the_directory() {
        for (annotation, expected) in [
            (None, ""),
            (Some(""), ""),
            (Some("a"), "a/"),
            (Some("a/b/"), "a/b/"),
            (Some("/srv/conf"), ""),
            (Some("/srv/conf/"), ""),
            (Some("/srv/conf/a/b"), "a/b/"),
        ] {
            assert_eq!(folder(annotation), Ok(expected.to_owned()), "{annotation:?}");
        }
        for annotation in
            ["..", "../x", "a/../../x", "/", "/etc", "/srv/config", "/srv/conf/../x", "a//b", ".configbump", "a\nb"]
        {
            assert!(folder(Some(annotation)).is_err(), "{annotation:?}");
        }
    }

    #[test]
    fn a_hostile_key_is_refused_in_every_layout() {
        for layout in [Layout::Flat, Layout::Unique, Layout::Tree] {
            let places = Places::new(layout, &[Kind::ConfigMap, Kind::Secret], Path::new("/srv"));
            for name in ["", ".", "..", "..data", "a/b", "a\0", ".configbump"] {
                let found = places.path("", &key(), name);
                assert!(found.is_err(), "{layout:?} {name:?} gave {found:?}");
            }
        }
    }
}
