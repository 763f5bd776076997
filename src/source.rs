//! Where objects come from: a cluster's API server or a folder of manifests, turned into one stream of [`Event`]s.
//!
//! Only this module knows Kubernetes. A source reads one object at a time and hands its values to the store's
//! [`Spool`](crate::store::Spool) while it reads them.

pub mod cluster;
pub mod manifests;
pub mod selector;

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use self::cluster::{Cluster, SessionError};
use self::manifests::{Manifests, ManifestsError};
use crate::config::{Config, SourceConfig};
use crate::object::{Kind, Object, ObjectKey};
use crate::store::Spool;

/// A source that was found and does nothing yet.
pub enum Source {
    Cluster(Cluster),
    Manifests(Box<Manifests>),
}

/// Why there is no source.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error(transparent)]
    Cluster(#[from] SessionError),
    #[error("--manifests: {0}")]
    Manifests(#[from] ManifestsError),
}

impl SourceError {
    /// Whether an option is wrong, rather than the world.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Cluster(error) => error.is_usage(),
            Self::Manifests(error) => error.is_usage(),
        }
    }
}

impl Source {
    /// Finds what the options name.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if it is not there or cannot be used.
    pub async fn find(config: &Config) -> Result<Self, SourceError> {
        let (selection, folder_annotation) = (&config.selection, config.folder_annotation.clone());
        Ok(match &config.source {
            SourceConfig::Cluster(cluster) => {
                Self::Cluster(Cluster::find(cluster, selection, folder_annotation).await?)
            }
            SourceConfig::Manifests(paths) => {
                Self::Manifests(Box::new(Manifests::find(paths.clone(), selection.clone(), folder_annotation)?))
            }
        })
    }

    /// What it follows, each with lists of its own.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Cluster(cluster) => cluster.scopes(),
            Self::Manifests(_) => Manifests::scopes(),
        }
    }

    /// Reports from here on, by tasks of its own, until the receiver of the events is gone. A permit of the `resync` at a
    /// scope's place makes it report everything of that scope again.
    pub fn run(self, spool: &Spool, events: &mpsc::Sender<Event>, resync: &[Arc<Notify>]) {
        match self {
            Self::Cluster(cluster) => cluster.run(spool, events, resync),
            Self::Manifests(manifests) => {
                let resync = resync.first().cloned().unwrap_or_default();
                tokio::spawn(manifests.run(spool.clone(), events.clone(), resync));
            }
        }
    }
}

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
