//! What has changed since the last bump: the pipeline adds to it, the bumper takes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Batch, BootTime, Effect};
use crate::object::ObjectKey;
use crate::path::RelPath;

/// Cheap to clone: both ends have it. It grows with the number of files at most, for a path is in it once.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the bumper.
    added: Notify,
    /// Wakes whoever waits for everything to be told.
    told: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Whether anything is to be told, be it only that something changed.
    any: bool,
    changes: BTreeMap<RelPath, (Effect, Arc<ObjectKey>)>,
    complete_at: Option<BootTime>,
    /// Whether the first sync is on disk. Until then nothing is told.
    released: bool,
    /// Whether the bumper has taken something that it has not told yet.
    telling: bool,
}

impl Changes {
    /// Notes that a file has changed on disk.
    pub fn add(&self, path: RelPath, effect: Effect, owner: Arc<ObjectKey>) {
        let mut state = self.state();
        state.changes.insert(path, (effect, owner));
        state.any = true;
        state.complete_at = Some(BootTime::now());
        if state.released {
            self.0.added.notify_one();
        }
    }

    /// Notes that something changed in an earlier run, or is to be told as if.
    pub fn add_unknown(&self) {
        let mut state = self.state();
        state.any = true;
        state.complete_at = Some(BootTime::now());
        if state.released {
            self.0.added.notify_one();
        }
    }

    /// The first sync is on disk: what has changed may be told from here on.
    pub fn release(&self) {
        let mut state = self.state();
        if !state.released {
            state.released = true;
            if state.any {
                self.0.added.notify_one();
            }
        }
    }

    /// Forgets what has changed so far.
    pub fn forget(&self) {
        let mut state = self.state();
        state.any = false;
        state.changes.clear();
    }

    /// Whether everything has been told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        let state = self.state();
        !state.any && !state.telling
    }

    /// Waits until something has been told.
    pub async fn told(&self) {
        self.0.told.notified().await;
    }

    /// Waits until something was added.
    pub(super) async fn added(&self) {
        self.0.added.notified().await;
    }

    /// Takes what there is. It counts as being told until [`Changes::done`].
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        if !std::mem::take(&mut state.any) {
            return None;
        }
        state.telling = true;
        let complete_at = state.complete_at.unwrap_or_else(BootTime::now);
        Some(Batch { changes: std::mem::take(&mut state.changes), complete_at })
    }

    /// What was taken has been told.
    pub(super) fn done(&self) {
        self.state().telling = false;
        self.0.told.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; and if it did, the state would still be whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
