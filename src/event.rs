//! What sources tell the plan: what is there, what is gone, and when they have told everything.

use std::fmt;
use std::sync::Arc;

use crate::object::{Kind, Object, ObjectKey};

/// What a source follows on its own, with its own list and its own completion: one kind in one namespace, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The only kind in it; `None`: every kind.
    pub kind: Option<Kind>,
    /// The only namespace in it; `None`: every namespace.
    pub namespace: Option<String>,
    /// The only object name in it; `None`: every name.
    pub name: Option<String>,
}

impl Scope {
    /// Whether an object with this key could be part of the scope.
    #[must_use]
    pub fn covers(&self, key: &ObjectKey) -> bool {
        self.kind.is_none_or(|kind| kind == key.kind)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

/// The resource and the namespace, as messages name it.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.map_or("objects", Kind::resource))?;
        if let Some(name) = &self.name {
            write!(f, " named {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => f.write_str(" in all namespaces"),
        }
    }
}

/// The position of a [`Scope`] in the list that its source announced at the start.
pub type ScopeId = usize;

/// What a source reports, in the order in which it happened within the scope.
#[derive(Debug)]
pub struct Event {
    pub scope: ScopeId,
    pub what: What,
}

/// The kinds of [`Event`]. Between `ListStarted` and `ListDone` every object of the scope is reported once by `Apply` or
/// `Keep`; what was there before and was not reported is gone, and is gone only at `ListDone`.
#[derive(Debug)]
pub enum What {
    /// A list of the scope has begun. It may begin again before it is done: then what it had reported is void.
    ListStarted,
    /// The object exists in this state.
    Apply(Object),
    /// The object exists, but its state is unchanged or cannot be used: what was placed for it stays as it is.
    Keep(Arc<ObjectKey>),
    /// The object is gone, or left the selector.
    Delete(Arc<ObjectKey>),
    /// The list is complete: the scope is in sync.
    ListDone,
}
