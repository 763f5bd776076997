//! Wires source → plan → store, and alone knows the order of things.

mod blocked;
pub mod confine;
mod end;
mod place;
mod removals;
mod resync;
mod stall;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::blocked::Blocked;
use self::end::End;
use self::place::Place;
use self::removals::{Release, Removals};
use self::resync::Resync;
use self::stall::Stall;
use crate::bump::governor::Pace;
use crate::bump::url::UrlConfig;
use crate::bump::{self, Bumper, Changes};
use crate::child::ChildError;
use crate::config::{Config, InitialBump, Prune};
use crate::event::{Event, Scope, ScopeId, What};
use crate::object::{Kind, ObjectKey};
use crate::path::{OWN_FOLDER, RelPath};
use crate::plan::{Change, Places, Plan};
use crate::publish::{Due, Progress, Publisher};
use crate::source::announcer::{Announcer, Reason};
use crate::source::{Source, SourceError};
use crate::store::{ChangeError, Effect, OpenError, Store};
use crate::telemetry::endpoints::Endpoints;
use crate::telemetry::{Done, FirstSync, Recent, Telemetry};
use crate::threads::{READERS, ThreadError};

/// How many events may wait for the plan. An event may hold some KiB of values.
const EVENTS_WAITING_MAX: usize = 8;

/// How long the bump waits for the rest of a batch while the check looks for what it refuses.
const BUMP_WITHHELD_MAX: Duration = Duration::from_secs(10);

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
    #[error(
        "--dir: {} or the folder {OWN_FOLDER} in it was removed or replaced while it was kept in step; the next start makes anew what is missing", dir.display()
    )]
    Displaced { dir: PathBuf },
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
/// it is in step. `recent` are the log's last warnings, for `/status`. Gives the exit code.
///
/// # Errors
///
/// [`RunError`] when it cannot start, or the program cannot. Once it has, trouble is logged and outlasted.
pub async fn run(mut config: Config, recent: Recent) -> Result<u8, RunError> {
    let mut end = End::new(config.bump.program.as_ref().map(|(program, _)| program))?;
    // The source first: options that name no source must leave the directory alone.
    let source = tokio::select! {
        biased;
        code = end.reached() => return code,
        source = Source::find(&config) => source?,
    };
    let publish = &config.publish;
    let store = Store::open(&config.dir, config.modes, config.prune, publish.staged())?;
    let mut place = Place::watch(&config.dir);
    confine::confine(&config, &source, &store);
    if let Err(error) = READERS.renew() {
        tracing::warn!(event = "thread_refused", "{}; reading is tried again", ThreadError::Refused(error));
    }
    let spool = store.spool();
    let mut publisher = store.is_staged().then(|| Publisher::new(publish.check.clone(), publish.pace));
    if config.selection.kinds.contains(&Kind::Secret) {
        publisher.iter_mut().for_each(Publisher::keep_output);
        config.bump.url.iter_mut().for_each(UrlConfig::keep_answers);
    }
    // What is never removed needs no brake.
    let removals = Removals::new(publish.brake.filter(|_| config.prune != Prune::Never), publish.pace);
    let mut endpoints = Endpoints::open(config.listen, source.scopes(), recent);
    let first_sync = FirstSync::begin(config.log_format, config.log_level);
    let places = Places::new(config.layout, &config.selection.kinds, &config.dir);
    let mut pipeline = Pipeline::new(store, places, &config.dir, source.scopes(), publisher, removals, first_sync);
    pipeline.report_to(&endpoints.telemetry());
    let changes = Changes::default();
    // Dropping it ends what it runs.
    let mut bumping = JoinSet::new();
    if config.bump.is_wanted() {
        pipeline.tell(&changes, config.bump.initial);
        // What is published together has settled before.
        let settled = |pace| if publish.staged().is_some() { Pace { settle: Duration::ZERO, ..pace } } else { pace };
        let pace = settled(config.bump.pace);
        let bumper = Bumper::new(bump::actions(config.bump.clone(), end.program()), changes.clone(), pace)
            .reporting_to(endpoints.telemetry());
        bumping.spawn(if config.once { bumper.impatient() } else { bumper }.run());
    }
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    pipeline.announcer = source.run(&spool, &sender, &pipeline.resync.wakers(), &endpoints.telemetry());
    drop(sender);
    while !(config.once && pipeline.is_settled() && changes.is_told()) {
        let is_complete = pipeline.is_complete();
        tokio::select! {
            biased;
            code = end.reached() => return code,
            () = std::future::ready(()), if !pipeline.store.is_in_place() => {
                end.stop().await;
                return Err(RunError::Displaced { dir: config.dir });
            }
            () = place.stirred() => {}
            () = pipeline.resync.due() => pipeline.retry(),
            () = pipeline.first_sync.due() => pipeline.first_sync.show(pipeline.tally.visible),
            () = changes.told() => pipeline.told(&changes),
            () = changes.refused(), if publish.rollback => pipeline.roll_back(),
            due = next(&mut pipeline.publisher, is_complete) => {
                let to_check = pipeline.publish(due);
                pipeline.publisher.iter_mut().zip(to_check).for_each(|(publisher, tree)| publisher.start_check(tree));
            }
            () = reached(pipeline.withheld_until) => pipeline.release_bump(),
            () = pipeline.removals.due() => pipeline.release_removals(),
            () = pipeline.stall.due() => pipeline.tell_stall(),
            event = events.recv() => match event {
                Some(event) => pipeline.take(event),
                None => return Err(RunError::SourceEnded),
            },
            inquiry = endpoints.inquiry() => {
                let picture = pipeline.picture(inquiry.lines_max);
                inquiry.answer(picture);
            }
        }
        pipeline.tell_rest();
        pipeline.note_stall();
        pipeline.announcer.announce_applied(&config.dir);
        if let (true, Some(program)) = (pipeline.in_sync, end.program()) {
            program.start().await;
        }
    }
    let code = pipeline.code_of_once();
    pipeline.announcer.finish().await;
    Ok(code)
}

/// What has become of changes so far.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    visible: usize,
    staged: usize,
    failed: usize,
}

impl Tally {
    fn since(self, before: Self) -> Done {
        Done {
            touched: self.visible > before.visible,
            staged: self.staged > before.staged,
            failed: self.failed > before.failed,
        }
    }
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
    /// Those of them that the log was to name since the last turn of the loop.
    named: usize,
    tally: Tally,
    /// Files that are to be removed once what may replace them is on disk.
    removals: Removals,
    /// Files that are written once the deletion guard lets those in their way be removed.
    blocked: Blocked,
    /// What is published together, if anything is.
    publisher: Option<Publisher>,
    /// Whether it has not been said yet that the directory is in step.
    unsaid: bool,
    resync: Resync,
    stall: Stall,
    /// Where changes are told, and whether the first sync is one of them.
    bump: Option<(Changes, InitialBump)>,
    /// Until when the bump waits for the rest of a batch of which a part is live.
    withheld_until: Option<Instant>,
    telemetry: Telemetry,
    announcer: Announcer,
    first_sync: FirstSync,
}

impl Pipeline {
    /// Begins with what an earlier run left in the store.
    fn new(
        store: Store,
        places: Places,
        dir: &Path,
        scopes: Vec<Scope>,
        publisher: Option<Publisher>,
        removals: Removals,
        first_sync: FirstSync,
    ) -> Self {
        let resync = Resync::new(scopes.len());
        let mut publisher = publisher;
        if store.is_half_visible() {
            publisher.iter_mut().for_each(Publisher::changed);
        }
        let mut plan = Plan::new(places, scopes);
        if store.ignores_case() {
            let dir = dir.display();
            tracing::info!(event = "case_ignored", "{dir} ignores case: keys that differ only in case are one path");
            plan.ignore_case();
        }
        store.owned().for_each(|(path, owner)| plan.restore(path.clone(), owner));
        Self {
            plan,
            store,
            dir: dir.to_owned(),
            in_sync: false,
            changed: 0,
            named: 0,
            tally: Tally::default(),
            removals,
            blocked: Blocked::default(),
            publisher,
            unsaid: true,
            resync,
            stall: Stall::default(),
            bump: None,
            withheld_until: None,
            telemetry: Telemetry::default(),
            announcer: Announcer::default(),
            first_sync,
        }
    }

    /// From here on, notes what changes for somebody to be told of; and at once, if an earlier run has left something untold.
    fn tell(&mut self, changes: &Changes, mut initial: InitialBump) {
        self.store.tell_of_changes();
        if self.store.is_untold() {
            tracing::info!("an earlier run has changed files and was ended before the bump, which follows");
            changes.add_unknown();
            self.telemetry.owes_a_bump();
            // What is owed is no matter of the first sync.
            if initial == InitialBump::Never {
                initial = InitialBump::Auto;
            }
        }
        self.bump = Some((changes.clone(), initial));
    }

    /// From here on, tells this how it goes.
    fn report_to(&mut self, telemetry: &Telemetry) {
        self.telemetry = telemetry.clone();
        self.publisher.iter_mut().for_each(|publisher| publisher.report_to(telemetry));
    }

    /// Takes one event through the plan to the disk.
    fn take(&mut self, event: Event) {
        let scope = event.scope;
        let list_done = matches!(event.what, What::ListDone);
        let about = self.telemetry.taking(&event);
        self.announcer.taking(&event);
        if matches!(event.what, What::Apply(_) | What::Keep(_)) {
            self.first_sync.read_object();
        }
        if matches!(event.what, What::ListStarted) {
            self.resync.list_started(scope);
            self.removals.list_started(scope);
        }
        let step = self.plan.step(event);
        self.tell_of_all(&step.notices);
        // In its first list a scope has not told yet who else may want a file.
        let hold_removals = !self.plan.is_synced(scope);
        let before = self.tally;
        self.apply_all(scope, step.changes, hold_removals);
        self.telemetry.taken(about.as_ref(), self.tally.since(before), |key| self.plan.holds(key));
        if list_done {
            self.list_done(scope);
        }
        self.note_recovery();
        self.report_if_in_step();
    }

    /// Takes the steps of one event.
    fn apply_all(&mut self, scope: ScopeId, changes: Vec<Change>, hold_removals: bool) {
        for change in changes {
            match change {
                change if self.removals.has_brake() => self.apply_guarded(scope, change),
                Change::Remove { path, owner, makes_way: false } if hold_removals => self.removals.push(path, owner),
                change => self.apply(Some(scope), change),
            }
        }
    }

    /// Removes the files that this path needs as a directory, or that are in a directory of its name: their removal waits, or
    /// --prune never has left them there.
    fn make_way(&mut self, path: &RelPath) {
        self.removals.forget(path);
        let left = self.store.left_in_the_way_of(path, |path| self.plan.is_live(path));
        for (path, owner) in self.removals.take_in_the_way_of(path).into_iter().chain(left) {
            self.apply(None, Change::Remove { path, owner, makes_way: true });
        }
    }

    /// Takes one step, for an event of this scope.
    fn apply(&mut self, scope: Option<ScopeId>, change: Change) {
        if let Change::Write { path, .. } | Change::Promote { path, .. } = &change {
            self.make_way(path);
        }
        // Content on standby may be of an object that another scope reports.
        let from_event = matches!(change, Change::Write { .. } | Change::Park { .. });
        let is_removal = matches!(change, Change::Remove { .. });
        let owner = change.owner().cloned();
        let file = change.file().map(|(path, owner)| (path.clone(), Arc::clone(owner)));
        match (self.store.apply(change), file) {
            (Ok(Effect::Staged), _) => {
                self.tally.staged += 1;
                self.publisher.iter_mut().for_each(Publisher::changed);
            }
            (Ok(effect), Some((path, owner))) => self.has_changed(path, effect, owner),
            (Ok(_), None) => {}
            (Err(error), Some((path, owner))) if is_removal => {
                self.failed(&[], &error);
                self.plan.linger(path, owner);
            }
            (Err(error), Some((path, _))) if self.store.is_unwritten(&path) => self.failed(&[], &error),
            (Err(error), _) => match (scope.filter(|_| from_event), owner) {
                (None, Some(owner)) => {
                    let scopes: Vec<ScopeId> = self.plan.scopes_of(&owner).collect();
                    self.failed(&scopes, &error);
                }
                (scope, _) => self.failed(scope.as_slice(), &error),
            },
        }
    }

    /// Notes a failure by which these scopes lost content.
    fn failed(&mut self, lost_by: &[ScopeId], error: &ChangeError) {
        self.tally.failed += 1;
        self.tell_if_held_up();
        self.resync.failed(lost_by, error);
        self.telemetry.change_failed(error);
    }

    /// Tries again what failed: first removals, which may be in the way of files. Asks for the content that is lost.
    fn retry(&mut self) {
        self.resync.ask();
        for (path, owner) in self.plan.take_lingering() {
            self.apply(None, Change::Remove { path, owner, makes_way: false });
        }
        let owners: BTreeSet<_> = self.store.unwritten().into_iter().map(|file| self.write_again(file)).collect();
        let still_waiting: BTreeSet<_> = self.store.unwritten().into_iter().map(|(_, owner)| owner).collect();
        for owner in owners.difference(&still_waiting).filter(|_| self.resync.is_settled()) {
            let done = Done { touched: true, ..Done::default() };
            self.telemetry.taken(Some(owner), done, |key| self.plan.holds(key));
        }
        self.note_recovery();
        self.unsaid |= self.changed > 0;
        self.say_in_sync();
        self.report_if_in_step();
    }

    fn write_again(&mut self, (path, owner): (RelPath, Arc<ObjectKey>)) -> Arc<ObjectKey> {
        if self.removals.has_brake() && self.removals.block(&path) {
            self.resync.schedule();
            return owner;
        }
        self.make_way(&path);
        match self.store.write_again(&path) {
            Ok(effect) => self.has_changed(path, effect, Arc::clone(&owner)),
            Err(error) => self.failed(&[], &error),
        }
        owner
    }

    fn note_recovery(&mut self) {
        if !self.has_failed() {
            self.resync.recovered();
        }
    }

    /// Returns true if a change failed and has not succeeded yet.
    fn has_failed(&self) -> bool {
        !self.resync.is_settled() || self.store.has_unwritten() || self.plan.has_lingering()
    }

    /// Notes what somebody may have to be told of.
    fn has_changed(&mut self, path: RelPath, effect: Effect, owner: Arc<ObjectKey>) {
        let Some(change) = effect.of_bump() else { return };
        self.changed += 1;
        self.tally.visible += 1;
        match change {
            bump::Effect::Written => self.telemetry.wrote(),
            bump::Effect::Removed => self.telemetry.removed(),
        }
        self.tell_changed(&path, change, &owner);
        if let Some((changes, _)) = &self.bump {
            changes.add(path, change, owner);
        }
    }

    /// Carries out the removals that waited for a complete list. If every scope has completed one and no content is lost, the
    /// directory holds what it should, or will when what waits is published and what failed succeeds.
    fn list_done(&mut self, scope: ScopeId) {
        self.announcer.keep(|key| self.plan.holds(key));
        self.resync.list_done(scope);
        let plan = &self.plan;
        self.removals.list_done(scope, |scope, key| plan.scope(scope).covers(key));
        self.release_removals();
        if self.plan.in_sync() {
            self.remove_foreign();
        }
        if self.is_complete() {
            self.unsaid |= !self.in_sync || self.changed > 0 || !self.publisher.iter().all(Publisher::is_at_rest);
            self.say_in_sync();
        }
    }

    /// Whether the source has told everything, and nothing of it is lost.
    fn is_complete(&self) -> bool {
        self.plan.in_sync() && self.resync.is_settled()
    }

    /// Carries out the removals that may be, and asks the scopes that are to confirm others.
    fn release_removals(&mut self) {
        let plan = &self.plan;
        let (files, _) = plan.counts();
        let is_ready = |key: &ObjectKey| plan.scopes_of(key).all(|scope| plan.is_synced(scope));
        let Release { go, ask } = self.removals.release(|path| plan.is_live(path), is_ready, files);
        for (path, owner) in go {
            self.apply(None, Change::Remove { path, owner, makes_way: false });
        }
        self.write_unblocked();
        if !ask.is_empty() {
            let plan = &self.plan;
            let scopes: BTreeSet<ScopeId> = ask.iter().flat_map(|key| plan.scopes_of(key)).collect();
            self.removals.await_answers(&scopes, |scope, key| plan.scope(scope).covers(key));
            self.resync.wake(&scopes);
        }
    }

    fn remove_foreign(&mut self) {
        let plan = &self.plan;
        let removed = self.store.remove_foreign(|path| plan.is_claimed(path));
        telling::tell_foreign(&removed);
        for _ in removed {
            self.changed += 1;
            self.telemetry.removed();
            self.bump.iter().for_each(|(changes, _)| changes.add_unknown());
        }
    }

    /// Begins to publish, or goes on with it. Gives the tree that is to be checked before that goes on, if one is.
    fn publish(&mut self, due: Due) -> Option<PathBuf> {
        if due == Due::Begin {
            self.release_removals();
        }
        let Progress { changes, to_check, held } = self.publisher.as_mut()?.go_on(&mut self.store, due);
        held.iter().for_each(|(object, why)| self.announcer.tell(object, Reason::CheckFailed, why));
        self.withhold_bump(&changes);
        self.have_gone_live(changes, false);
        self.say_in_sync();
        if !self.is_trying() {
            self.release_bump();
        }
        self.report_if_in_step();
        to_check
    }

    /// A part of a batch has gone live, and the check is still to find out what else may: that is one bump, unless it takes
    /// long.
    fn withhold_bump(&mut self, changes: &[(RelPath, Effect, Arc<ObjectKey>)]) {
        if self.is_trying() && !changes.is_empty() && self.withheld_until.is_none() {
            self.withheld_until = Some(Instant::now() + BUMP_WITHHELD_MAX);
            self.bump.iter().for_each(|(changes, _)| changes.withhold());
        }
    }

    /// What was withheld may be told: its batch is over, or takes long.
    fn release_bump(&mut self) {
        self.withheld_until = None;
        if let Some((changes, _)) = self.bump.as_ref().filter(|_| self.in_sync) {
            changes.release();
        }
    }

    fn is_trying(&self) -> bool {
        self.publisher.iter().any(Publisher::is_trying)
    }

    /// Notes what has become visible together, or was taken back.
    fn have_gone_live(&mut self, changes: Vec<(RelPath, Effect, Arc<ObjectKey>)>, taken_back: bool) {
        self.telemetry.gone_live(
            taken_back,
            || self.store.staged().map(|(_, object, _)| Arc::clone(object)).collect(),
            || changes.iter().map(|(_, _, owner)| Arc::clone(owner)).collect(),
        );
        changes.into_iter().for_each(|(path, effect, owner)| self.has_changed(path, effect, owner));
    }

    /// The program says that what is live is bad.
    fn roll_back(&mut self) {
        let Some(publisher) = &mut self.publisher else { return };
        match publisher.roll_back(&mut self.store) {
            Ok(Progress { changes, held, .. }) => {
                held.iter().for_each(|(object, why)| self.announcer.tell(object, Reason::RolledBack, why));
                self.have_gone_live(changes, true);
                self.announcer.withdraw_applied();
                // The refused content of a deleted object need not wait until the guard lets its file go.
                let removed: Vec<RelPath> = self.removals.paths().cloned().collect();
                removed.iter().for_each(|path| self.unstage(path));
            }
            Err(error) => tracing::warn!("{error}; the files stay as they are"),
        }
        if !self.is_trying() {
            self.release_bump();
        }
    }

    /// Says so once everything is live, but for what is held back; the first time the bump begins with that.
    fn say_in_sync(&mut self) {
        if !self.unsaid || !self.is_complete() || self.has_failed() || !self.publisher.iter().all(Publisher::is_at_rest)
        {
            return;
        }
        self.tell_in_sync();
        (self.unsaid, self.changed) = (false, 0);
        if !std::mem::replace(&mut self.in_sync, true)
            && let Some((changes, initial)) = &self.bump
        {
            match initial {
                InitialBump::Auto => {}
                InitialBump::Always => changes.add_for_everybody(),
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
        self.in_sync && !self.has_failed() && self.publisher.iter().all(Publisher::is_at_rest)
    }

    /// What `--once` ends with: a directory in which nothing is live because all is held back is no success, nor is one with
    /// files that the brake keeps, for nobody is there when their hold is over.
    fn code_of_once(&self) -> u8 {
        (self.is_all_held() || self.removals.held() > 0).into()
    }

    fn is_all_held(&self) -> bool {
        let is_held = self.publisher.iter().any(|publisher| publisher.held().next().is_some());
        is_held && self.store.count_owned() == 0
    }
}

/// When the publisher, if there is one, has something to do; it may begin only when the source has told everything.
async fn next(publisher: &mut Option<Publisher>, may_begin: bool) -> Due {
    match publisher {
        Some(publisher) => publisher.next(may_begin).await,
        None => std::future::pending().await,
    }
}

/// Waits until this moment, if there is one.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
