//! Where objects come from: a cluster's API server or a folder of manifests, turned into one stream of [`Event`]s.
//!
//! Only this module knows Kubernetes. A source reads one object at a time and hands its values to the store's
//! [`Spool`] while it reads them.

pub mod announcer;
pub mod cluster;
pub mod manifests;
pub mod selector;

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use self::announcer::Announcer;
use self::cluster::{Cluster, SessionError};
use self::manifests::{Manifests, ManifestsError};
use crate::config::{Config, SourceConfig};
use crate::content::Spool;
use crate::event::{Event, Scope};
use crate::telemetry::Telemetry;

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

    /// Whether it runs programs.
    #[must_use]
    pub fn starts_commands(&self) -> bool {
        match self {
            Self::Cluster(cluster) => cluster.starts_commands(),
            Self::Manifests(_) => false,
        }
    }

    /// The files and folders that it may read later, or `None` if that cannot be told: a link to manifests may be turned to
    /// any place.
    #[must_use]
    pub fn reads(&self) -> Option<Vec<PathBuf>> {
        match self {
            Self::Cluster(cluster) => Some(cluster.reads()),
            Self::Manifests(_) => None,
        }
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
    /// scope's place makes it report everything of that scope again. What has become of objects may be told to the announcer.
    #[must_use]
    pub fn run(
        self,
        spool: &Spool,
        events: &mpsc::Sender<Event>,
        resync: &[Arc<Notify>],
        telemetry: &Telemetry,
    ) -> Announcer {
        match self {
            Self::Cluster(cluster) => cluster.run(spool, events, resync, telemetry),
            Self::Manifests(manifests) => {
                let resync = resync.first().cloned().unwrap_or_default();
                tokio::spawn(manifests.run(spool.clone(), events.clone(), resync));
                Announcer::default()
            }
        }
    }
}
