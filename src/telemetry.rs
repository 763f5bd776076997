//! What configbump tells of itself: the log, and, if it is asked to listen, whether it is well (`/livez`, `/readyz`), what it
//! has done (`/metrics`) and how far each object is (`/status`).
//!
//! The pipeline reports to a [`Telemetry`]: plain counters and a few words, behind a lock that nobody holds while it waits.
//! Without `--listen` there is nothing behind it, and a report costs a comparison. What only the plan knows, such as who
//! waits for which path, is asked for when somebody looks ([`Inquiry`]), and not kept up for nobody.

pub mod endpoints;
mod first_sync;
mod health;
mod log;
mod metrics;
mod recent;
mod sink;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::first_sync::FirstSync;
use self::health::Health;
pub use self::log::{Format, Level, OF_OTHERS, init};
use self::metrics::Metrics;
pub use self::recent::Recent;
pub use self::sink::STDERR;
use self::status::Objects;
use crate::event::{Event, Scope, ScopeId, What};
use crate::object::ObjectKey;
use crate::path::RelPath;

/// How many inquiries may wait for the pipeline; a client whose inquiry does not fit waits as well.
const INQUIRIES_WAITING_MAX: usize = 4;

/// Where the pipeline reports. Cheap to clone; the default one drops what it is told.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    state: Mutex<State>,
    recent: Recent,
    inquiries: mpsc::Sender<Inquiry>,
}

#[derive(Debug)]
struct State {
    health: Health,
    objects: Objects,
    last_sync: Option<SystemTime>,
    last_bump: Option<SystemTime>,
}

/// What only the pipeline can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// How many files in the directory are configbump's.
    pub files: usize,
    /// How many claims wait for a path that another object has.
    pub conflicts: usize,
    /// The first of them.
    pub first_conflicts: Vec<Conflict>,
    /// How many objects there are of which the newest change is held back.
    pub held_objects: usize,
    /// The first of them, and why.
    pub first_holds: Vec<Hold>,
    /// How many removals are held back.
    pub held_removals: usize,
    /// What changes and removals wait for.
    pub waits: Vec<String>,
    /// Whether something changed that somebody is still to be told of.
    pub bump_pending: bool,
}

/// An object of which the newest change is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub object: Arc<ObjectKey>,
    pub why: String,
    /// The last lines that the check wrote, if it is for that, and if they may be shown.
    pub output: Vec<String>,
}

/// An object that waits for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub path: RelPath,
    pub winner: Arc<ObjectKey>,
    pub loser: Arc<ObjectKey>,
}

impl Conflict {
    #[must_use]
    pub fn new(path: &RelPath, winner: &Arc<ObjectKey>, loser: &Arc<ObjectKey>) -> Self {
        Self { path: path.clone(), winner: Arc::clone(winner), loser: Arc::clone(loser) }
    }
}

/// Somebody asks for a [`Picture`].
#[derive(Debug)]
pub struct Inquiry {
    /// With how many conflicts, and holds, at most.
    pub lines_max: usize,
    reply: oneshot::Sender<Picture>,
}

impl Inquiry {
    pub fn answer(self, picture: Picture) {
        // Who asked may be gone.
        let _ = self.reply.send(picture);
    }
}

/// How a try to bump went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
    /// The program says that the files are bad.
    Refused,
    /// There was nobody to bump yet.
    Waiting,
}

/// What a check has said of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Passed,
    Refused,
    /// It could not be run.
    NotRun,
}

/// What has become of something that was to be told by a Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The server has an Event that tells it, perhaps with others of its kind.
    Sent,
    /// A try failed. It may be tried again.
    Failed,
    /// There was no room for it.
    Dropped,
}

/// What has become of an event's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// A file changed.
    pub touched: bool,
    /// Something waits to go live with others.
    pub staged: bool,
    /// Something could not be done.
    pub failed: bool,
}

impl Telemetry {
    /// One that keeps what it is told, and where the inquiries of those who look come in.
    #[must_use]
    pub fn new(scopes: Vec<Scope>, recent: Recent) -> (Self, mpsc::Receiver<Inquiry>) {
        let (sender, inquiries) = mpsc::channel(INQUIRIES_WAITING_MAX);
        let state = Mutex::new(State {
            health: Health::new(scopes),
            objects: Objects::default(),
            last_sync: None,
            last_bump: None,
        });
        let shared = Shared { metrics: Metrics::new(), state, recent, inquiries: sender };
        (Self(Some(Arc::new(shared))), inquiries)
    }

    /// For the follower of a scope of a server, which from here on must not be silent for long and may fail for these
    /// reasons.
    #[must_use]
    pub fn signs(&self, scope: ScopeId, reasons: impl IntoIterator<Item = &'static str>) -> Signs {
        if let Some(shared) = &self.0 {
            shared.metrics.will_fail(reasons);
            shared.state().health.expect(scope, Instant::now());
        }
        Signs { telemetry: self.clone(), scope }
    }

    /// An event is about to be taken. Gives the object that it is about, for [`Telemetry::taken`].
    #[must_use]
    pub fn taking(&self, event: &Event) -> Option<Arc<ObjectKey>> {
        let shared = self.0.as_ref()?;
        let mut state = shared.state();
        let had_listed = state.health.took(event, Instant::now());
        shared.metrics.took(&event.what, had_listed);
        match &event.what {
            What::Apply(object) => {
                state.objects.seen(&object.key, object.resource_version.as_deref());
                Some(Arc::clone(&object.key))
            }
            What::Keep(key) => {
                state.objects.kept(key);
                Some(Arc::clone(key))
            }
            What::Delete(key) => Some(Arc::clone(key)),
            What::ListStarted | What::ListDone => None,
        }
    }

    /// The event has been taken. Objects that no source has any more are forgotten.
    pub fn taken(&self, about: Option<&Arc<ObjectKey>>, done: Done, is_there: impl Fn(&ObjectKey) -> bool) {
        let Some(shared) = &self.0 else { return };
        let objects = &mut shared.state().objects;
        match about {
            Some(key) if !is_there(key) => objects.forget(key),
            Some(key) => objects.taken(key, done),
            None => objects.retain(is_there),
        }
    }

    /// Changes that waited have gone live together; or what was live has been taken back. `staged`: the objects that wait
    /// still, or again; `touched`: those of which a file changed.
    pub fn gone_live(
        &self,
        taken_back: bool,
        staged: impl FnOnce() -> BTreeSet<Arc<ObjectKey>>,
        touched: impl FnOnce() -> BTreeSet<Arc<ObjectKey>>,
    ) {
        if let Some(shared) = &self.0 {
            let objects = &mut shared.state().objects;
            if taken_back {
                objects.taken_back(&staged());
            } else {
                objects.gone_live(&staged(), &touched());
            }
        }
    }

    /// A tree has gone live.
    pub fn published(&self) {
        if let Some(shared) = &self.0 {
            shared.metrics.publishes.inc();
        }
    }

    /// What was live has been taken back.
    pub fn rolled_back(&self) {
        if let Some(shared) = &self.0 {
            shared.metrics.rollbacks.inc();
        }
    }

    /// A check was run, or was to be.
    pub fn checked(&self, check: Check) {
        if let Some(shared) = &self.0 {
            shared.metrics.checked(check);
        }
    }

    /// Something was to be told by a Kubernetes Event.
    pub fn announced(&self, outcome: Announced) {
        if let Some(shared) = &self.0 {
            shared.metrics.announced(outcome);
        }
    }

    /// An object asks for a place that it cannot have.
    pub fn refused(&self, key: &ObjectKey, why: &impl Display) {
        if let Some(shared) = &self.0 {
            shared.state().objects.refused(key, why.to_string());
        }
    }

    /// A file has been written.
    pub fn wrote(&self) {
        if let Some(shared) = &self.0 {
            shared.metrics.writes.inc();
        }
    }

    /// A file has been removed.
    pub fn removed(&self) {
        if let Some(shared) = &self.0 {
            shared.metrics.removals.inc();
        }
    }

    /// A change could not be made on disk. Until [`Telemetry::in_step`], the directory is not as it should be.
    pub fn change_failed(&self, error: &impl Display) {
        if let Some(shared) = &self.0 {
            shared.metrics.failed_changes.inc();
            shared.state().health.change_failed(error.to_string());
        }
    }

    /// The directory holds all that was reported, and every scope has been listed.
    pub fn in_step(&self) {
        if let Some(shared) = &self.0 {
            let mut state = shared.state();
            state.health.in_step();
            state.last_sync = Some(SystemTime::now());
        }
    }

    /// These kinds of bump are going to be tried.
    pub fn will_bump(&self, kinds: impl Iterator<Item = &'static str>) {
        if let Some(shared) = &self.0 {
            kinds.for_each(|kind| shared.metrics.will_bump(kind));
            shared.state().objects.are_bumped();
        }
    }

    /// An earlier run has left something untold: no version counts as told before a bump.
    pub fn owes_a_bump(&self) {
        if let Some(shared) = &self.0 {
            shared.state().objects.owe_a_bump();
        }
    }

    /// What is on disk now is going to be told.
    pub fn telling(&self) {
        if let Some(shared) = &self.0 {
            shared.state().objects.telling();
        }
    }

    /// A bump of this kind was tried.
    pub fn bumped(&self, kind: &'static str, outcome: Outcome, took: Duration) {
        if let Some(shared) = &self.0 {
            shared.metrics.bumped(kind, outcome, took);
        }
    }

    /// What was to be told is not told yet. A failure is one until there is nobody to bump, or all are told.
    pub fn not_told(&self, failure: Option<&impl Display>) {
        if let Some(shared) = &self.0 {
            shared.state().health.bump_failed(failure.map(ToString::to_string));
        }
    }

    /// All have been told of what was on disk at the last [`Telemetry::telling`].
    pub fn told(&self) {
        if let Some(shared) = &self.0 {
            let mut state = shared.state();
            state.objects.told();
            state.health.bump_failed(None);
            state.last_bump = Some(SystemTime::now());
        }
    }
}

/// In whole milliseconds, as lines of the log for machines have it.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Telemetry {
    /// What `/livez` says.
    pub(crate) fn dead(&self) -> Vec<String> {
        self.0.as_ref().map(|shared| shared.state().health.dead(Instant::now())).unwrap_or_default()
    }

    /// How many have come.
    pub(crate) fn bookmarks(&self) -> u64 {
        self.0.as_ref().map(|shared| shared.metrics.bookmarks()).unwrap_or_default()
    }
}

/// What the follower of one scope of a server reports.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    telemetry: Telemetry,
    scope: ScopeId,
}

impl Signs {
    /// The server goes on telling about the scope.
    pub fn progress(&self) {
        self.health(|health, scope| health.progress(scope, Instant::now()));
    }

    /// A watch has begun.
    pub fn watch_begun(&self) {
        if let Some(shared) = &self.telemetry.0 {
            shared.metrics.watches.inc();
        }
    }

    /// A bookmark has come.
    pub fn bookmark(&self) {
        if let Some(shared) = &self.telemetry.0 {
            shared.metrics.bookmark();
        }
    }

    /// The server could not be asked, or its answer ended in a failure. `heard`: that is something that the server or the
    /// network has said, and not only the end of a wait.
    pub fn failed(&self, reason: &'static str, heard: bool, what: impl FnOnce() -> String) {
        if let Some(shared) = &self.telemetry.0 {
            shared.metrics.source_failed(reason);
            shared.state().health.source_failed(self.scope, heard.then(Instant::now), what());
        }
    }

    /// The server answers as it should again.
    pub fn recovered(&self) {
        self.health(Health::source_recovered);
    }

    fn health(&self, report: impl FnOnce(&mut Health, ScopeId)) {
        if let Some(shared) = &self.telemetry.0 {
            report(&mut shared.state().health, self.scope);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; and if it did, the state would still be good enough to tell of.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the pipeline; nothing if it has ended, or has not come to it within the time.
    async fn picture(&self, lines_max: usize, limit: Duration) -> Option<Picture> {
        let (reply, picture) = oneshot::channel();
        let ask = async {
            self.inquiries.send(Inquiry { lines_max, reply }).await.ok()?;
            picture.await.ok()
        };
        tokio::time::timeout(limit, ask).await.ok()?
    }
}
