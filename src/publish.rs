//! Decides which of the waiting changes go live, and when.
//!
//! Changes wait on the store's stage until nothing has changed for a while, within bounds. Then all of them are tried
//! together. If there is no check, or it passes, they go live. If it refuses them, the [`trial`] finds those that pass without
//! the others; what does not is held back ([`holds`]), and what was live before stays.

pub mod brake;
pub mod check;
mod holds;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::check::{CheckConfig, Refusal, Verdict};
use self::holds::{Holds, Newest, Sorted, Why};
use self::trial::{Trial, Unit};
use crate::bump::governor::{Again, Governor, Pace};
use crate::object::ObjectKey;
use crate::path::RelPath;
use crate::store::{Candidate, ChangeError, Effect, Published, Store, TakenBack};
use crate::telemetry::{self, Check, Telemetry};

/// Why a change is held back that the check has refused only together with others.
const TOO_MANY_TRIES: &str = "--check: there were too many tries to tell it from others that fail";

/// What went live, and what is to be done next.
#[derive(Debug, Default)]
pub struct Progress {
    pub changes: Vec<(RelPath, Effect, Arc<ObjectKey>)>,
    /// The tree to be checked; `None`: there is nothing to do until something changes.
    pub to_check: Option<PathBuf>,
    /// The objects that are held back from now on, and why, in a line.
    pub held: Vec<(Arc<ObjectKey>, String)>,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// To try what waits.
    Begin,
    /// To take in what the check said.
    Checked(Verdict),
}

/// The state of the publishing.
#[derive(Debug)]
pub struct Publisher {
    check: Option<CheckConfig>,
    governor: Governor,
    holds: Holds,
    trial: Option<Trial>,
    /// What is being tried.
    trying: Option<Candidate>,
    /// What was on the stage when the trial began.
    newest: Newest,
    /// Why the check refused what it refused by itself, by the first object of the unit.
    refusals: BTreeMap<Arc<ObjectKey>, Refusal>,
    checks: JoinSet<Verdict>,
    keeps_output: bool,
    /// What keeps something that is live from being visible.
    unseen: Option<ChangeError>,
    /// What was told last that could not be done.
    told: Option<String>,
    telemetry: Telemetry,
}

impl Publisher {
    /// With a check or without one, at this pace.
    #[must_use]
    pub fn new(check: Option<CheckConfig>, pace: Pace) -> Self {
        Self {
            check,
            governor: Governor::new(pace),
            holds: Holds::default(),
            trial: None,
            trying: None,
            newest: Newest::new(),
            refusals: BTreeMap::new(),
            checks: JoinSet::new(),
            keeps_output: false,
            unseen: None,
            told: None,
            telemetry: Telemetry::default(),
        }
    }

    /// From here on, tells this how it goes.
    pub fn report_to(&mut self, telemetry: &Telemetry) {
        self.telemetry = telemetry.clone();
    }

    /// Something has been staged.
    pub fn changed(&mut self) {
        self.governor.changed(Instant::now());
    }

    /// Waits until something is to be done. Nothing is begun unless it may be.
    pub async fn next(&mut self, may_begin: bool) -> Due {
        let due = self.governor.due().filter(|_| may_begin && self.trial.is_none());
        tokio::select! {
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Due::Begin,
            Some(verdict) = self.checks.join_next() => Due::Checked(verdict.unwrap_or_else(|error| {
                Verdict::NotRun(format!("--check: {error}; this is a bug, please report it"))
            })),
            else => std::future::pending().await,
        }
    }

    /// Does what is due.
    pub fn go_on(&mut self, store: &mut Store, due: Due) -> Progress {
        match due {
            Due::Begin => self.begin(store),
            Due::Checked(verdict) => self.checked(store, verdict),
        }
    }

    /// Whether nothing waits that is not held back.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.trial.is_none() && self.governor.due().is_none()
    }

    /// Whether a batch is being tried, of which a part may be live already.
    #[must_use]
    pub fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// From here on, nobody but the log is given what a check wrote: it may repeat what is in a file.
    pub fn keep_output(&mut self) {
        self.keeps_output = true;
    }

    /// The objects whose newest change is held back, and why, in a line.
    pub fn held(&self) -> impl Iterator<Item = (&Arc<ObjectKey>, &str)> {
        self.holds.objects().map(|(object, why)| (object, self.describe(object, why)))
    }

    /// The end of what the check wrote when it refused an object by itself.
    #[must_use]
    pub fn output(&self, object: &ObjectKey) -> &[String] {
        let refusal = self.refusals.get(object).filter(|_| !self.keeps_output);
        refusal.map_or(&[], |refusal| &refusal.output)
    }

    fn describe(&self, object: &ObjectKey, why: &Why) -> &str {
        match why {
            Why::Bump(_) => "the program refuses the files",
            Why::Check => self.refusals.get(object).map_or(TOO_MANY_TRIES, |refusal| &refusal.why),
        }
    }

    /// Begins to try what is on the stage.
    fn begin(&mut self, store: &mut Store) -> Progress {
        self.governor.tries();
        let mut progress = Progress::default();
        if store.is_half_visible() {
            self.take(store.make_visible(), &mut progress);
        }
        let (units, newest) = holds::units(store.staged());
        let Sorted { new, again } = self.holds.sort(units, &newest);
        self.newest = newest;
        if new.is_empty() {
            self.done();
            return progress;
        }
        self.trial = Some(Trial::new(new, again));
        self.try_groups(store, progress)
    }

    /// Takes what the check said about the tree that was to be checked.
    fn checked(&mut self, store: &mut Store, verdict: Verdict) -> Progress {
        let mut progress = Progress::default();
        let (Some(candidate), Some(trial)) = (self.trying.take(), &mut self.trial) else { return progress };
        self.telemetry.checked(match &verdict {
            Verdict::Passed => Check::Passed,
            Verdict::Refused(_) => Check::Refused,
            Verdict::NotRun(_) => Check::NotRun,
        });
        match verdict {
            Verdict::Passed => {
                if !self.publish(store, candidate, &mut progress) {
                    return progress;
                }
            }
            Verdict::Refused(refusal) => {
                store.discard(&candidate);
                if let Some(object) = trial.failed().and_then(|unit| unit.into_iter().next()) {
                    self.refusals.insert(object, refusal);
                }
            }
            Verdict::NotRun(why) => {
                store.discard(&candidate);
                self.failed(&format!("{why}; what was live stays"));
                return progress;
            }
        }
        self.try_groups(store, progress)
    }

    /// Makes the last accepted tree live again, because the program refused the live one. The refused batch is held until one of
    /// its objects changes; if one has already, the whole batch is tried again. Does nothing without an accepted tree.
    ///
    /// # Errors
    /// When the disk does not let it.
    pub fn roll_back(&mut self, store: &mut Store) -> Result<Progress, ChangeError> {
        let mut progress = Progress::default();
        if !store.has_way_back() {
            return Ok(progress);
        }
        // What else waits is to be tried on top of what comes back.
        self.stop(store);
        self.changed();
        let Some(TakenBack { published, objects, has_changed }) = store.roll_back()? else { return Ok(progress) };
        self.telemetry.rolled_back();
        if !has_changed {
            let (_, newest) = holds::units(store.staged());
            self.holds.take_back(&objects, &newest);
        }
        tell_rolled_back(&objects, has_changed);
        let why = |object| (object, "the program refuses its files; those that it took last are back".to_owned());
        progress.held = objects.into_iter().map(why).collect();
        self.take(published, &mut progress);
        Ok(progress)
    }

    /// Runs the check on a tree.
    pub fn start_check(&mut self, tree: PathBuf) {
        if let Some(check) = &self.check {
            self.checks.spawn(check::check(check.clone(), tree));
        }
    }

    /// Tries one group after the other, until one has to be checked or all are done.
    fn try_groups(&mut self, store: &mut Store, mut progress: Progress) -> Progress {
        while let Some(group) = self.trial.as_ref().and_then(Trial::next) {
            let objects: BTreeSet<Arc<ObjectKey>> = group.iter().flatten().map(Arc::clone).collect();
            match store.candidate(|object| objects.contains(object)) {
                Ok(Some(candidate)) if self.check.is_some() => {
                    progress.to_check = Some(candidate.path().to_owned());
                    self.trying = Some(candidate);
                    return progress;
                }
                Ok(Some(candidate)) => {
                    if !self.publish(store, candidate, &mut progress) {
                        return progress;
                    }
                }
                // It has turned out to be live already.
                Ok(None) => self.trial.iter_mut().for_each(Trial::passed),
                Err(error) => {
                    self.failed(&error.to_string());
                    return progress;
                }
            }
        }
        let held = self.trial.take().map(Trial::held).unwrap_or_default();
        for unit in held {
            if self.holds.hold(&unit, &self.newest) {
                let why = self.tell_held(&unit);
                progress.held.extend(unit.into_iter().map(|object| (object, why.clone())));
            }
        }
        let staged: BTreeSet<_> = store.staged().map(|(_, object, _)| object).collect();
        self.holds.keep(|object| staged.contains(object));
        self.done();
        progress
    }

    /// Has a candidate go live; whether it did.
    fn publish(&mut self, store: &mut Store, candidate: Candidate, progress: &mut Progress) -> bool {
        let is_live = self.take(store.publish(candidate), progress);
        if is_live {
            self.telemetry.published();
        }
        is_live
    }

    /// Takes in what became visible; whether what was to go live did.
    fn take(&mut self, published: Published, progress: &mut Progress) -> bool {
        progress.changes.extend(published.changes);
        if !published.is_live {
            self.failed(&published.error.as_ref().map(ToString::to_string).unwrap_or_default());
            return false;
        }
        // One path that cannot be made visible keeps no other back.
        self.unseen = published.error;
        self.trial.iter_mut().for_each(Trial::passed);
        true
    }

    /// Gives why it is.
    fn tell_held(&self, unit: &Unit) -> String {
        let refusal = unit.iter().find_map(|object| self.refusals.get(object));
        let why = refusal.map_or(TOO_MANY_TRIES, |it| &it.why);
        let objects = list(unit);
        tracing::warn!(
            event = "held",
            objects,
            why,
            "{objects} held back: {why}; what was live stays, until something passes"
        );
        let output = refusal.iter().flat_map(|refusal| &refusal.output);
        // It may repeat what is in a file.
        output.for_each(|line| tracing::warn!(target: telemetry::OF_OTHERS, "  {line}"));
        why.to_owned()
    }

    /// Something could not be done, and is tried again later, or with the next change.
    fn failed(&mut self, error: &str) {
        self.trial = None;
        self.telemetry.change_failed(&error);
        let wait = self.governor.again(Again::Failed, Instant::now());
        if self.told.as_deref() == Some(error) {
            tracing::debug!("{error}");
        } else {
            tracing::warn!(event = "change_failed", "{error}; it is tried again, in {} s first", wait.as_secs());
            self.told = Some(error.to_owned());
        }
    }

    fn done(&mut self) {
        let holds = &self.holds;
        self.refusals.retain(|object, _| holds.objects().any(|(held, _)| held == object));
        if let Some(error) = self.unseen.take() {
            self.failed(&error.to_string());
            return;
        }
        if self.told.take().is_some() {
            tracing::info!(event = "change_recovered", "what could not be published is");
        }
        self.governor.succeeded(Instant::now());
    }

    fn stop(&mut self, store: &mut Store) {
        self.checks = JoinSet::new();
        self.trial = None;
        self.trying.take().into_iter().for_each(|candidate| store.discard(&candidate));
    }
}

fn tell_rolled_back(objects: &Unit, has_changed: bool) {
    let objects = list(objects);
    let refusal = "the program refuses the files; those that it took last are back";
    if has_changed {
        tracing::warn!(event = "rolled_back", objects, "{objects} rolled back: {refusal}, and a newer change is tried");
    } else {
        tracing::warn!(event = "rolled_back", objects, "{objects} held back until it changes: {refusal}");
    }
}

fn list(unit: &Unit) -> String {
    unit.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
