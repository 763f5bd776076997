//! The objects that configbump follows, as the pipeline sees them: who they are and what files they ask for.

use std::fmt;
use std::sync::Arc;

use crate::content::Content;

/// The two kinds of object whose values can become files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// The name that a manifest's `kind` field carries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// The resource name of the Kubernetes API, as it stands in URLs, Roles and `--kinds`.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
        }
    }

    /// The kind with this `kind` field, if it is one of the two.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::ConfigMap, Self::Secret].into_iter().find(|kind| kind.name() == name)
    }
}

/// What identifies an object within a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    /// What a line of the log has for machines: `kind`, `namespace` and `name`.
    #[must_use]
    pub fn fields(&self) -> (&'static str, &str, &str) {
        (self.kind.name(), &self.namespace, &self.name)
    }
}

/// `ConfigMap namespace/name`, the way log lines name an object.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// One state of an object: its identity, what decides conflicts and places, and its values.
#[derive(Debug)]
pub struct Object {
    pub key: Arc<ObjectKey>,
    /// `metadata.resourceVersion`: two states of one object are the same if theirs are. Absent in manifests.
    pub resource_version: Option<String>,
    /// `metadata.uid`: tells it from others that had or will have its name. Absent in manifests.
    pub uid: Option<Box<str>>,
    /// `metadata.creationTimestamp` in seconds since 1970; the older of two claimants of a path wins it.
    pub created: Option<i64>,
    /// The value of the annotation that `--folder-annotation` names, unchecked.
    pub folder: Option<String>,
    /// The values by their key, unchecked, each key once.
    pub entries: Vec<Entry>,
}

/// One value of an object.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub content: Content,
}
