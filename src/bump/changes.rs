//! What has changed since the last bump: the pipeline adds to it, the bumper takes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Batch, BootTime, ByPath, CHANGES_KEPT, Effect, shed};
use crate::object::ObjectKey;
use crate::path::RelPath;

/// Cheap to clone: both ends have it. It grows with the number of files at most: a path is in it once, and of those that are removed only
/// so many are kept.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the bumper.
    added: Notify,
    /// Wakes whoever waits for everything to be told.
    told: Notify,
    /// Wakes whoever waits for a program that says that the files are bad.
    refused: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Something is to be told, be it only that something changed.
    news: Option<News>,
    changes: ByPath,
    /// How many of them there may be before the removals are left out.
    kept_max: usize,
    /// Whether some have been.
    is_cut: bool,
    /// Whether what has changed may be told: the first sync is on disk, and no batch is half live.
    released: bool,
    /// Whether the bumper has taken something that it has not told yet.
    telling: bool,
}

/// As in [`Batch`].
#[derive(Debug)]
struct News {
    complete_at: BootTime,
    to_everybody: bool,
}

impl State {
    fn add(&mut self, to_everybody: bool) {
        let to_everybody = to_everybody || self.news.as_ref().is_some_and(|news| news.to_everybody);
        self.news = Some(News { complete_at: BootTime::now(), to_everybody });
    }
}

impl Changes {
    /// Notes that a file has changed on disk.
    pub fn add(&self, path: RelPath, effect: Effect, owner: Arc<ObjectKey>) {
        let mut state = self.state();
        state.changes.insert(path, (effect, owner));
        if state.changes.len() > state.kept_max.max(CHANGES_KEPT) {
            state.is_cut |= shed(&mut state.changes);
            // So a look at all of them is rare.
            state.kept_max = state.changes.len() * 2;
        }
        state.add(false);
        self.wake(&state);
    }

    /// Has everybody bumped, whenever they were started, and even if nothing has changed.
    pub fn add_for_everybody(&self) {
        let mut state = self.state();
        state.add(true);
        self.wake(&state);
    }

    /// Notes that something changed in an earlier run, or nobody knows what.
    pub fn add_unknown(&self) {
        let mut state = self.state();
        state.add(false);
        self.wake(&state);
    }

    /// The first sync is on disk, or what was withheld is complete: what has changed may be told from here on.
    pub fn release(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.released, true) {
            self.wake(&state);
        }
    }

    /// Until the next release nothing is told: what goes live piece by piece is one batch.
    pub fn withhold(&self) {
        self.state().released = false;
    }

    /// Forgets what has changed so far.
    pub fn forget(&self) {
        let mut state = self.state();
        state.news = None;
        state.changes.clear();
        (state.kept_max, state.is_cut) = (0, false);
    }

    /// Whether everything has been told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        let state = self.state();
        state.news.is_none() && !state.telling
    }

    /// Waits until something has been told.
    pub async fn told(&self) {
        self.0.told.notified().await;
    }

    /// The program says that what was taken is bad. If something has changed since, that is told first.
    pub(super) fn refuse(&self) {
        if self.state().news.is_none() {
            self.0.refused.notify_one();
        }
    }

    /// Waits until the program says that the files are bad.
    pub async fn refused(&self) {
        self.0.refused.notified().await;
    }

    /// Waits until something was added.
    pub(super) async fn added(&self) {
        self.0.added.notified().await;
    }

    /// Takes what there is and may be told. It counts as being told until [`Changes::done`].
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        if !state.released {
            return None;
        }
        let News { complete_at, to_everybody } = state.news.take()?;
        state.telling = true;
        let is_cut = std::mem::take(&mut state.is_cut);
        state.kept_max = 0;
        Some(Batch { changes: std::mem::take(&mut state.changes), complete_at, to_everybody, is_cut })
    }

    /// What was taken has been told.
    pub(super) fn done(&self) {
        self.state().telling = false;
        self.0.told.notify_one();
    }

    /// Wakes the bumper if there is something that may be told.
    fn wake(&self, state: &State) {
        if state.released && state.news.is_some() {
            self.0.added.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; and if it did, the state would still be whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn owner() -> Arc<ObjectKey> {
        Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "ns".into(), name: "name".into() })
    }

    /// It may be among the removals that were left out.
    #[test]
    fn what_an_older_batch_has_as_written_is_left_out_of_one_that_was_cut() {
        let changes = Changes::default();
        changes.release();
        note(&changes, 0..CHANGES_KEPT / 2, Effect::Written);
        let older = changes.take().expect("a batch");
        note(&changes, 0..CHANGES_KEPT / 2, Effect::Removed);
        note(&changes, CHANGES_KEPT..2 * CHANGES_KEPT, Effect::Written);
        let mut batch = changes.take().expect("a batch");
        assert!(batch.is_cut && !older.is_cut);
        batch.take_in(older);
        let is_there = |number| batch.changes.contains_key(format!("key-{number}").as_str());
        assert!(!is_there(0) && is_there(CHANGES_KEPT) && batch.changes.len() == CHANGES_KEPT);
    }

    fn note(changes: &Changes, numbers: std::ops::Range<usize>, effect: Effect) {
        for number in numbers {
            changes.add(RelPath::parse(&format!("key-{number}")).expect("a path"), effect, owner());
        }
    }

    fn count(batch: &Batch, wanted: Effect) -> usize {
        batch.changes.values().filter(|(effect, _)| *effect == wanted).count()
    }

    #[test]
    fn what_waits_is_bounded_by_the_files_that_there_are_and_no_written_one_is_left_out() {
        let changes = Changes::default();
        changes.release();
        note(&changes, 0..2 * CHANGES_KEPT, Effect::Written);
        let mut batch = changes.take().expect("a batch");
        assert!(!batch.is_cut, "only removals are left out");
        for round in 1..=20 {
            note(&changes, round * 10_000_000..round * 10_000_000 + CHANGES_KEPT / 2, Effect::Removed);
            note(&changes, round..round + 1, Effect::Written);
            let mut newer = changes.take().expect("a batch");
            newer.take_in(batch);
            batch = newer;
            assert_eq!(count(&batch, Effect::Written), 2 * CHANGES_KEPT);
            assert_eq!((count(&batch, Effect::Removed), batch.is_cut), (0, true));
        }
        // The same where nothing is taken meanwhile.
        note(&changes, 0..3, Effect::Written);
        note(&changes, 0..10 * CHANGES_KEPT, Effect::Removed);
        note(&changes, 0..3, Effect::Written);
        let batch = changes.take().expect("a batch");
        assert_eq!((count(&batch, Effect::Written), batch.is_cut), (3, true));
        assert!(count(&batch, Effect::Removed) <= CHANGES_KEPT);
    }

    #[test]
    fn a_few_removals_are_all_told() {
        let changes = Changes::default();
        changes.release();
        note(&changes, 0..100, Effect::Removed);
        let batch = changes.take().expect("a batch");
        assert_eq!((count(&batch, Effect::Removed), batch.is_cut), (100, false));
    }
}
