//! Wires source → plan → store, and alone knows the order of things.

mod resync;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::resync::Resync;
use crate::config::{Config, Layout};
use crate::event::{Event, Scope, ScopeId, What};
use crate::object::ObjectKey;
use crate::path::RelPath;
use crate::plan::{Change, Notice, Places, Plan};
use crate::source::{Source, SourceError};
use crate::store::{Effect, OpenError, Store};

/// How many events may wait for the plan. An event may hold some KiB of values.
const EVENTS_WAITING_MAX: usize = 8;

/// Why configbump cannot start or cannot go on.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("--dir: {0}")]
    Store(#[from] OpenError),
    #[error("the runtime cannot be started: {0}; the container's limits on threads or files may be too low")]
    Runtime(io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    #[error("the source has ended by itself; this is a bug, please report it")]
    SourceEnded,
}

impl RunError {
    /// Whether an option is wrong, rather than the world.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_usage())
    }
}

/// Keeps the directory in step until a signal asks to end, or, with `once`, until it is in step.
///
/// # Errors
///
/// [`RunError`] when it cannot start. Once it has, trouble is logged and outlasted.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    // The source first: options that name no source must leave the directory alone.
    let source = tokio::select! {
        biased;
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        source = Source::find(&config) => source?,
    };
    let store = Store::open(&config.dir, config.modes, config.prune)?;
    let spool = store.spool();
    let mut pipeline = Pipeline::new(store, config.layout, &config.dir, source.scopes());
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    source.run(&spool, &sender, &pipeline.resync.wakers());
    drop(sender);
    while !(config.once && pipeline.is_settled()) {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = pipeline.resync.due() => pipeline.resync.ask(),
            event = events.recv() => match event {
                Some(event) => pipeline.take(event),
                None => return Err(RunError::SourceEnded),
            },
        }
    }
    Ok(())
}

/// Plan and store, and how they are doing.
struct Pipeline {
    plan: Plan,
    store: Store,
    dir: PathBuf,
    /// Whether the directory was in step once.
    in_sync: bool,
    /// Files changed since that was last said.
    changed: usize,
    /// Files that are to be removed once what may replace them is on disk.
    put_off: Vec<(RelPath, Arc<ObjectKey>)>,
    resync: Resync,
}

impl Pipeline {
    /// Begins with what an earlier run left in the store.
    fn new(store: Store, layout: Layout, dir: &Path, scopes: Vec<Scope>) -> Self {
        let resync = Resync::new(scopes.len());
        let mut plan = Plan::new(Places::new(layout, dir), scopes);
        store.owned().for_each(|(path, owner)| plan.restore(path.clone(), owner));
        Self { plan, store, dir: dir.to_owned(), in_sync: false, changed: 0, put_off: Vec::new(), resync }
    }

    /// Takes one event through the plan to the disk.
    fn take(&mut self, event: Event) {
        let scope = event.scope;
        let list_done = matches!(event.what, What::ListDone);
        if matches!(event.what, What::ListStarted) {
            self.resync.list_started(scope);
        }
        let step = self.plan.step(event);
        step.notices.iter().for_each(tell);
        // In its first list a scope has not told yet who else may want a file.
        let hold_removals = !self.plan.is_synced(scope);
        self.apply_all(scope, step.changes, hold_removals);
        if list_done {
            self.list_done(scope);
        }
    }

    /// Takes the steps of one event. Once something could not be written, nothing is removed that it may have been to
    /// replace.
    fn apply_all(&mut self, scope: ScopeId, changes: Vec<Change>, mut hold_removals: bool) {
        for change in changes {
            match change {
                Change::Remove { path, owner, makes_way: false } if hold_removals => {
                    self.put_off.push((path, owner));
                }
                Change::Remove { .. } => drop(self.apply(scope, change)),
                change => hold_removals |= !self.apply(scope, change),
            }
        }
    }

    /// Removes what is put off but needed as a folder by this file, or has it as its folder.
    fn make_way(&mut self, scope: ScopeId, path: &RelPath) {
        let is_in_the_way = |(other, _): &mut (RelPath, _)| path.is_below(other) || other.is_below(path);
        let in_the_way: Vec<_> = self.put_off.extract_if(.., is_in_the_way).collect();
        for (path, owner) in in_the_way {
            self.apply(scope, Change::Remove { path, owner, makes_way: true });
        }
    }

    /// Takes one step; whether it succeeded.
    fn apply(&mut self, scope: ScopeId, change: Change) -> bool {
        if let Change::Write { path, .. } | Change::Promote { path, .. } = &change {
            self.make_way(scope, path);
        }
        // What was kept aside, or is to be, may be another scope's.
        let lost_by = if matches!(change, Change::Promote { .. } | Change::Demote { .. }) { None } else { Some(scope) };
        let is_removal = matches!(change, Change::Remove { .. });
        let file = change.file().map(|(path, owner)| (path.clone(), Arc::clone(owner)));
        match (self.store.apply(change), file) {
            (Ok(effect @ (Effect::Written | Effect::Removed)), Some((path, owner))) => {
                self.changed += 1;
                if self.plan.in_sync() {
                    tracing::info!("{effect} {path} of {owner}");
                } else {
                    tracing::debug!("{effect} {path} of {owner}");
                }
            }
            (Ok(_), _) => {}
            (Err(error), file) => {
                self.resync.failed(lost_by, &error);
                if let (true, Some((path, owner))) = (is_removal, file) {
                    self.plan.linger(path, owner);
                }
                return false;
            }
        }
        true
    }

    /// If every scope has completed a list, and nothing has failed, the directory holds what it should.
    fn list_done(&mut self, scope: ScopeId) {
        self.resync.list_done(scope);
        if !self.resync.is_settled() {
            return;
        }
        for (path, owner) in std::mem::take(&mut self.put_off) {
            if !self.plan.is_live(&path) {
                self.apply(scope, Change::Remove { path, owner, makes_way: false });
            }
        }
        if !self.plan.in_sync() {
            return;
        }
        let plan = &self.plan;
        for path in self.store.remove_foreign(|path| plan.is_claimed(path)) {
            tracing::info!("removed {path}, which nobody selected");
            self.changed += 1;
        }
        if !self.in_sync || self.changed > 0 {
            let (objects, files) = self.plan.counts();
            tracing::info!("in sync: {} holds {files} files of {objects} objects", self.dir.display());
        }
        self.in_sync = true;
        self.changed = 0;
    }

    fn is_settled(&self) -> bool {
        self.in_sync && self.resync.is_settled()
    }
}

fn tell(notice: &Notice) {
    match notice {
        Notice::Conflict { path, winner, loser } => {
            tracing::warn!(
                "{winner} has {path}, so {loser} waits for it: the older object wins, then kind, namespace and name decide"
            );
        }
        Notice::Refused { object, why } => tracing::warn!("{object} is not followed as it asks: {why}"),
    }
}
