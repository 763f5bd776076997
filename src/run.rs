//! Wires source → plan → store, and alone knows the order of things.

mod end;
mod resync;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::end::End;
use self::resync::Resync;
use crate::bump::{self, Bumper, Changes};
use crate::child::ChildError;
use crate::config::{Config, InitialBump, Layout};
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
    #[error(transparent)]
    Program(#[from] ChildError),
    #[error("the signals for the command cannot be received: {0}")]
    PassOn(io::Error),
    #[error("the command's supervisor has ended by itself; this is a bug, please report it")]
    SupervisorEnded,
    #[error("the source has ended by itself; this is a bug, please report it")]
    SourceEnded,
}

impl RunError {
    /// The exit code that says so; nothing if an option is wrong, rather than the world.
    #[must_use]
    pub fn code(&self) -> Option<u8> {
        match self {
            Self::Source(error) if error.is_usage() => None,
            Self::Program(error) => Some(error.code()),
            _ => Some(1),
        }
    }
}

/// Keeps the directory in step until a signal asks to end, or the program that it runs has ended, or, with `once`, until
/// it is in step. Gives the exit code.
///
/// # Errors
///
/// [`RunError`] when it cannot start, or the program cannot. Once it has, trouble is logged and outlasted.
pub async fn run(config: Config) -> Result<u8, RunError> {
    let mut end = End::new(config.bump.program.as_ref().map(|(program, _)| program))?;
    // The source first: options that name no source must leave the directory alone.
    let source = tokio::select! {
        biased;
        code = end.reached() => return code,
        source = Source::find(&config) => source?,
    };
    let store = Store::open(&config.dir, config.modes, config.prune)?;
    let spool = store.spool();
    let mut pipeline = Pipeline::new(store, config.layout, &config.dir, source.scopes());
    let changes = Changes::default();
    // Dropping it ends what it runs.
    let mut bumping = JoinSet::new();
    if config.bump.is_wanted() {
        pipeline.tell(&changes, config.bump.initial);
        let bumper = Bumper::new(bump::actions(config.bump.clone(), end.program()), changes.clone(), config.bump.pace);
        bumping.spawn(if config.once { bumper.impatient() } else { bumper }.run());
    }
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    source.run(&spool, &sender, &pipeline.resync.wakers());
    drop(sender);
    while !(config.once && pipeline.is_settled() && changes.is_told()) {
        tokio::select! {
            biased;
            code = end.reached() => return code,
            () = pipeline.resync.due() => pipeline.resync.ask(),
            () = changes.told() => pipeline.told(&changes),
            event = events.recv() => match event {
                Some(event) => pipeline.take(event),
                None => return Err(RunError::SourceEnded),
            },
        }
        if let (true, Some(program)) = (pipeline.in_sync, end.program()) {
            program.start().await;
        }
    }
    Ok(0)
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
    /// Where changes are told, and whether the first sync is one of them.
    bump: Option<(Changes, InitialBump)>,
}

impl Pipeline {
    /// Begins with what an earlier run left in the store.
    fn new(store: Store, layout: Layout, dir: &Path, scopes: Vec<Scope>) -> Self {
        let resync = Resync::new(scopes.len());
        let mut plan = Plan::new(Places::new(layout, dir), scopes);
        store.owned().for_each(|(path, owner)| plan.restore(path.clone(), owner));
        Self { plan, store, dir: dir.to_owned(), in_sync: false, changed: 0, put_off: Vec::new(), resync, bump: None }
    }

    /// From here on, notes what changes for somebody to be told of; and at once, if an earlier run has left something untold.
    fn tell(&mut self, changes: &Changes, initial: InitialBump) {
        self.store.tell_of_changes();
        if self.store.is_untold() {
            tracing::info!("an earlier run has changed files and was ended before the bump, which follows");
            changes.add_unknown();
        }
        self.bump = Some((changes.clone(), initial));
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
                if let (Some((changes, _)), Some(change)) = (&self.bump, effect.of_bump()) {
                    changes.add(path.clone(), change, Arc::clone(&owner));
                }
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
            self.bump.iter().for_each(|(changes, _)| changes.add_unknown());
        }
        if !self.in_sync || self.changed > 0 {
            let (objects, files) = self.plan.counts();
            tracing::info!("in sync: {} holds {files} files of {objects} objects", self.dir.display());
        }
        self.changed = 0;
        if !std::mem::replace(&mut self.in_sync, true)
            && let Some((changes, initial)) = &self.bump
        {
            match initial {
                InitialBump::Auto => {}
                InitialBump::Always => changes.add_unknown(),
                InitialBump::Never => changes.forget(),
            }
            changes.release();
            self.told(&changes.clone());
        }
    }

    /// If everybody has been told of everything, the record need not remember it.
    fn told(&mut self, changes: &Changes) {
        if changes.is_told()
            && let Err(error) = self.store.told()
        {
            tracing::warn!("{error}; after a restart there will be one bump too many");
        }
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
