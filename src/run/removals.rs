//! Removals that wait: until it is known which other object may want the file, or because the deletion guard holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::bump::governor::{Governor, Pace};
use crate::event::ScopeId;
use crate::object::ObjectKey;
use crate::path::{self, RelPath};
use crate::publish::brake::{Brake, BrakeConfig, Verdict};

/// A file, and the object that it was for.
pub(super) type Removal = (RelPath, Arc<ObjectKey>);

/// The removals that wait.
#[derive(Debug)]
pub(super) struct Removals {
    waiting: BTreeMap<RelPath, Waiting>,
    /// The scopes that were asked to confirm removals and have not answered yet.
    awaited: BTreeMap<ScopeId, Answer>,
    /// With the guard, when to look at them.
    brake: Option<(Brake, Governor)>,
}

#[derive(Debug)]
struct Waiting {
    owner: Arc<ObjectKey>,
    consent: Consent,
}

/// How far the deletion guard is with a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    /// The guard judges it together with others.
    Pending,
    /// The hold is over, and the source is asked whether the object is still gone.
    Asked,
    /// The source has confirmed it.
    Given,
}

/// How far a scope is with its answer. A list that had begun before the question is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Asked,
    Listing,
}

/// The removals to carry out now, and the objects that the source is to be asked about.
#[derive(Debug, Default)]
pub(super) struct Release {
    pub go: Vec<Removal>,
    pub ask: Vec<Arc<ObjectKey>>,
}

impl Removals {
    pub fn new(brake: Option<BrakeConfig>, pace: Pace) -> Self {
        let brake = brake.map(|config| (Brake::new(config), Governor::new(pace)));
        Self { waiting: BTreeMap::new(), awaited: BTreeMap::new(), brake }
    }

    /// Whether each removal is to wait, and be seen with others.
    pub fn has_brake(&self) -> bool {
        self.brake.is_some()
    }

    pub fn push(&mut self, path: RelPath, owner: Arc<ObjectKey>) {
        let consent = self.waiting.get(&path).map_or(Consent::Pending, |waiting| waiting.consent);
        self.waiting.insert(path, Waiting { owner, consent });
        self.changed();
    }

    /// Forgets the removal of a file that an object wants again.
    pub fn forget(&mut self, path: &RelPath) {
        if self.waiting.remove(path).is_some() {
            self.changed();
        }
    }

    /// Takes out the files that a file at this path needs as a directory, or has as its directory.
    pub fn take_in_the_way_of(&mut self, path: &RelPath) -> Vec<Removal> {
        let paths: Vec<RelPath> = self.in_the_way_of(path).cloned().collect();
        paths.into_iter().filter_map(|path| self.take(path)).collect()
    }

    /// Returns true if a file that waits for its removal blocks a file at this path.
    pub fn block(&self, path: &RelPath) -> bool {
        self.in_the_way_of(path).next().is_some()
    }

    fn in_the_way_of<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
        let above = path.ancestors().filter_map(|above| self.waiting.get_key_value(above));
        above.chain(path::below(&self.waiting, path.as_str())).map(|(path, _)| path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.waiting.keys()
    }

    fn changed(&mut self) {
        if let Some((_, settling)) = &mut self.brake {
            settling.changed(Instant::now());
        }
    }

    /// Counts the removals that the guard holds.
    pub fn held(&self) -> usize {
        let Some((brake, _)) = &self.brake else { return 0 };
        let is_held = |waiting: &&Waiting| brake.is_holding() || waiting.consent != Consent::Pending;
        self.waiting.values().filter(is_held).count()
    }

    /// Returns the scopes that have not confirmed removals yet, and the number of these removals.
    pub fn unconfirmed(&self) -> (impl Iterator<Item = ScopeId>, usize) {
        let asked = self.waiting.values().filter(|waiting| waiting.consent == Consent::Asked).count();
        (self.awaited.keys().copied().filter(move |_| asked > 0), asked)
    }

    /// Waits until there is something to look at.
    pub async fn due(&self) {
        let due = self.brake.as_ref().and_then(|(brake, settling)| {
            [settling.due(), brake.due().filter(|_| !self.waiting.is_empty())].into_iter().flatten().min()
        });
        match due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the removals to carry out, given the number of files that stay. Forgets what is wanted again. A removal is not
    /// ready while a scope that may report its object has not completed a list.
    pub fn release(
        &mut self,
        is_wanted: impl Fn(&RelPath) -> bool,
        is_ready: impl Fn(&ObjectKey) -> bool,
        stay: usize,
    ) -> Release {
        self.waiting.retain(|path, _| !is_wanted(path));
        let ready = |waiting: &Waiting, consent| waiting.consent == consent && is_ready(&waiting.owner);
        let count = self.waiting.values().filter(|waiting| ready(waiting, Consent::Pending)).count();
        let files = stay + count;
        let verdict = match &mut self.brake {
            None => Verdict::Go,
            Some((brake, settling)) => {
                settling.tries();
                let held_before = brake.is_holding();
                let verdict = brake.judge(count, files, Instant::now());
                tell(verdict, held_before, count, files, brake.config());
                verdict
            }
        };
        let mut release = Release { go: self.take_all(|waiting| ready(waiting, Consent::Given)), ask: Vec::new() };
        if !release.go.is_empty() {
            tracing::warn!("--max-delete: the source still says so, so {} files are removed", release.go.len());
        }
        match verdict {
            Verdict::Go => release.go.extend(self.take_all(|waiting| ready(waiting, Consent::Pending))),
            Verdict::Held | Verdict::StillHeld => {}
            Verdict::Ask => {
                let asked = self.waiting.values_mut().filter(|waiting| ready(waiting, Consent::Pending));
                release.ask = asked.map(Waiting::ask).collect();
            }
        }
        release
    }

    /// From here on, these scopes are awaited. Removals that no scope can confirm are confirmed.
    pub fn await_answers(&mut self, scopes: &BTreeSet<ScopeId>, may_confirm: impl Fn(ScopeId, &ObjectKey) -> bool) {
        self.awaited.extend(scopes.iter().map(|scope| (*scope, Answer::Asked)));
        self.confirm(may_confirm);
    }

    pub fn list_started(&mut self, scope: ScopeId) {
        if let Some(answer) = self.awaited.get_mut(&scope) {
            *answer = Answer::Listing;
        }
    }

    /// A list of the scope is complete. If it is an answer, the removals that wait for no other scope are confirmed.
    pub fn list_done(&mut self, scope: ScopeId, may_confirm: impl Fn(ScopeId, &ObjectKey) -> bool) {
        if self.awaited.get(&scope) == Some(&Answer::Listing) {
            self.awaited.remove(&scope);
            self.confirm(may_confirm);
        }
    }

    fn confirm(&mut self, may_confirm: impl Fn(ScopeId, &ObjectKey) -> bool) {
        let is_awaited = |owner: &ObjectKey| self.awaited.keys().any(|scope| may_confirm(*scope, owner));
        let asked = self.waiting.values_mut().filter(|waiting| waiting.consent == Consent::Asked);
        let mut confirmed = asked.filter(|waiting| !is_awaited(&waiting.owner)).peekable();
        if confirmed.peek().is_some() {
            confirmed.for_each(|waiting| waiting.consent = Consent::Given);
            self.changed();
        }
    }

    fn take(&mut self, path: RelPath) -> Option<Removal> {
        let waiting = self.waiting.remove(&path)?;
        Some((path, waiting.owner))
    }

    fn take_all(&mut self, chosen: impl Fn(&Waiting) -> bool) -> Vec<Removal> {
        let paths: Vec<_> =
            self.waiting.iter().filter(|(_, waiting)| chosen(waiting)).map(|(path, _)| path.clone()).collect();
        paths.into_iter().filter_map(|path| self.take(path)).collect()
    }
}

impl Waiting {
    fn ask(&mut self) -> Arc<ObjectKey> {
        self.consent = Consent::Asked;
        Arc::clone(&self.owner)
    }
}

#[cfg(test)]
impl Removals {
    pub fn waiting(&self) -> impl Iterator<Item = (&RelPath, &ObjectKey)> {
        self.waiting.iter().map(|(path, waiting)| (path, &*waiting.owner))
    }

    /// The files that the source was asked about.
    pub fn asked(&self) -> impl Iterator<Item = &RelPath> {
        self.waiting.iter().filter(|(_, waiting)| waiting.consent != Consent::Pending).map(|(path, _)| path)
    }
}

fn tell(verdict: Verdict, held_before: bool, count: usize, files: usize, config: BrakeConfig) {
    match verdict {
        Verdict::Held => tracing::warn!(
            event = "removals_held",
            removals = count,
            files,
            "--max-delete: {count} of {files} files are to be removed at once, which is held for {:?}; if that is meant, \
             wait, or remove fewer at a time",
            config.hold
        ),
        Verdict::Ask => {
            tracing::info!("--max-delete: {count} of {files} files are still to be removed; asking once more");
        }
        Verdict::Go if held_before && count == 0 => {
            tracing::info!("--max-delete: what was to be removed is wanted again");
        }
        Verdict::Go | Verdict::StillHeld => {}
    }
}
