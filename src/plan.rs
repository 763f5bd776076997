//! Decides, without input or output, what each event changes on disk: `(state, event) → (state, changes)`.
//!
//! The plan knows which scope holds which object, which paths an object claims, and who wins a path that several claim
//! (`claims`). It remembers the digest of a content, never the content, so its memory grows with the number of files only.
//!
//! What an earlier run left on disk enters as claims of objects that nobody has seen yet. From there on a start is
//! nothing special: a list that is completed without such an object removes its files, as any list does.

mod claims;
mod layout;
mod spelling;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use self::claims::{Claims, Fresh, Rank};
pub use self::layout::{PlaceError, Places};
use self::spelling::Spellings;
use crate::content::{Content, Digest};
use crate::event::{Event, Scope, ScopeId, What};
use crate::object::{Entry, Object, ObjectKey};
use crate::path::RelPath;

/// Names a claim's content while it is kept aside. Never used twice in a run.
pub type ClaimId = u64;

/// One step on disk. The steps of an event are to be taken in their order.
#[derive(Debug)]
pub enum Change {
    /// The content becomes the file.
    Write { path: RelPath, owner: Arc<ObjectKey>, content: Content },
    /// The content is kept aside for a claim that has lost; it replaces what was kept for it.
    Park { claim: ClaimId, owner: Arc<ObjectKey>, content: Content },
    /// The file, which is about to be replaced, is kept aside for its claim.
    /// It should still have the digest; unknown if an earlier run wrote it.
    Demote { path: RelPath, owner: Arc<ObjectKey>, claim: ClaimId, digest: Option<Digest> },
    /// What was kept aside becomes the file; it should still have the digest.
    Promote { path: RelPath, owner: Arc<ObjectKey>, claim: ClaimId, digest: Option<Digest> },
    /// What was kept aside is not needed any more.
    Drop { claim: ClaimId },
    /// Removes the file. It makes way if an object won a path above or below it, so that the file cannot stay; else no object
    /// claims it any more.
    Remove { path: RelPath, owner: Arc<ObjectKey>, makes_way: bool },
}

impl Change {
    /// The file that changes, and the object that it is, or was, for; nothing if it is about what is kept aside.
    #[must_use]
    pub fn file(&self) -> Option<(&RelPath, &Arc<ObjectKey>)> {
        match self {
            Self::Write { path, owner, .. } | Self::Promote { path, owner, .. } | Self::Remove { path, owner, .. } => {
                Some((path, owner))
            }
            Self::Park { .. } | Self::Demote { .. } | Self::Drop { .. } => None,
        }
    }

    /// Returns the object that the step is about; nothing if its content is dropped from the standby.
    #[must_use]
    pub fn owner(&self) -> Option<&Arc<ObjectKey>> {
        match self {
            Self::Park { owner, .. } | Self::Demote { owner, .. } => Some(owner),
            Self::Drop { .. } => None,
            change => change.file().map(|(_, owner)| owner),
        }
    }
}

/// What somebody should know, though it changes nothing on disk.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// The loser waits until the winner gives up this path: for the path itself, or for others that it is in the way of.
    Conflict { path: RelPath, winner: Arc<ObjectKey>, loser: Arc<ObjectKey> },
    /// The object asks for a place that it cannot have. If that is its folder, all its files stay as they are.
    Refused { object: Arc<ObjectKey>, why: PlaceError },
}

impl Notice {
    /// Whose wish it is that is not met.
    #[must_use]
    pub fn object(&self) -> &Arc<ObjectKey> {
        match self {
            Self::Conflict { loser: object, .. } | Self::Refused { object, .. } => object,
        }
    }
}

/// What one event comes to.
#[derive(Debug, Default)]
pub struct Step {
    pub changes: Vec<Change>,
    pub notices: Vec<Notice>,
}

/// The state of the planning.
#[derive(Debug)]
pub struct Plan {
    places: Places,
    /// Present if the file system ignores case.
    spellings: Option<Spellings>,
    scopes: Vec<Listing>,
    objects: HashMap<Arc<ObjectKey>, Held>,
    claims: Claims,
    /// Files that were to be removed, and are not yet.
    lingering: Vec<(RelPath, Arc<ObjectKey>)>,
}

/// How far the lists of a scope are.
#[derive(Debug)]
struct Listing {
    scope: Scope,
    /// Counts the lists begun.
    list: u64,
    /// Whether one was ever completed.
    synced: bool,
}

/// An object that at least one scope holds, or that an earlier run left files of.
#[derive(Debug, Default)]
struct Held {
    /// The scopes that reported it, each with its list at that time.
    holders: Vec<(ScopeId, u64)>,
    /// The scope whose report is in force, and the version that it reported.
    state: Option<(ScopeId, Option<String>)>,
    /// The paths that it claims, sorted.
    paths: Vec<RelPath>,
}

impl Plan {
    #[must_use]
    pub fn new(places: Places, scopes: Vec<Scope>) -> Self {
        let scopes = scopes.into_iter().map(|scope| Listing { scope, list: 0, synced: false }).collect();
        let (objects, claims, lingering) = (HashMap::new(), Claims::default(), Vec::new());
        Self { places, spellings: None, scopes, objects, claims, lingering }
    }

    /// From here on, paths that differ only in case are one path, spelled as the first of them.
    pub fn ignore_case(&mut self) {
        self.spellings = Some(Spellings::default());
    }

    /// Enters a file that an earlier run wrote for an object. A list completed without the object removes it.
    pub fn restore(&mut self, path: RelPath, owner: &Arc<ObjectKey>) {
        let path = spelled(&mut self.spellings, path);
        let held = self.objects.entry(Arc::clone(owner)).or_default();
        if let Err(at) = held.paths.binary_search(&path) {
            held.paths.insert(at, path.clone());
            self.claims.restore(path, Arc::clone(owner));
        }
    }

    /// Notes that a file is still on disk because its removal failed. It is tried again when the next list begins.
    pub fn linger(&mut self, path: RelPath, owner: Arc<ObjectKey>) {
        self.lingering.push((path, owner));
    }

    /// Takes out the files whose removal failed, but for those that an object claims again.
    pub fn take_lingering(&mut self) -> Vec<(RelPath, Arc<ObjectKey>)> {
        self.lingering.drain(..).filter(|(path, _)| !self.claims.is_live(path)).collect()
    }

    #[must_use]
    pub fn has_lingering(&self) -> bool {
        !self.lingering.is_empty()
    }

    /// Whether this scope has ever completed a list.
    #[must_use]
    pub fn is_synced(&self, scope: ScopeId) -> bool {
        self.scopes[scope].synced
    }

    /// Whether every scope has completed a list.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.scopes.iter().all(|listing| listing.synced)
    }

    /// How many files there are, and of how many objects.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.claims.live()
    }

    /// Returns the scopes that can report this object.
    pub fn scopes_of(&self, key: &ObjectKey) -> impl Iterator<Item = ScopeId> {
        self.scopes.iter().enumerate().filter(|(_, listing)| listing.scope.covers(key)).map(|(id, _)| id)
    }

    /// Returns the scopes that have not completed a list yet.
    pub fn unlisted(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter().filter(|listing| !listing.synced).map(|listing| &listing.scope)
    }

    /// Returns a scope by its number.
    #[must_use]
    pub fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id].scope
    }

    /// Whether a scope holds this object.
    #[must_use]
    pub fn holds(&self, key: &ObjectKey) -> bool {
        self.objects.get(key).is_some_and(|held| !held.holders.is_empty())
    }

    /// For every claim that waits: the path that is in its way, its winner, and the loser.
    pub fn conflicts(&self) -> impl Iterator<Item = (&RelPath, &Arc<ObjectKey>, &Arc<ObjectKey>)> {
        self.claims.conflicts()
    }

    /// Whether an object claims this path: whatever is there, it is not for others to remove.
    #[must_use]
    pub fn is_claimed(&self, path: &str) -> bool {
        self.claims.has(self.spellings.as_ref().map_or(path, |spellings| spellings.known(path)))
    }

    /// Whether the file at this path is what an object claims it to be.
    #[must_use]
    pub fn is_live(&self, path: &RelPath) -> bool {
        self.claims.is_live(path)
    }

    /// Takes in an event and says what has to change on disk for it.
    pub fn step(&mut self, Event { scope, what }: Event) -> Step {
        let mut step = Step::default();
        match what {
            What::ListStarted => {
                self.scopes[scope].list += 1;
                // Before anything is written, for which it may be in the way.
                let unclaimed = self.take_lingering().into_iter();
                step.changes.extend(unclaimed.map(|(path, owner)| Change::Remove { path, owner, makes_way: false }));
            }
            What::Apply(object) => self.apply(scope, object, &mut step),
            What::Keep(key) => {
                if let Some(held) = self.objects.get_mut(&key) {
                    held.hold(scope, self.scopes[scope].list);
                }
            }
            What::Delete(key) => {
                if let Some(held) = self.objects.get_mut(&key) {
                    held.holders.retain(|(holder, _)| *holder != scope);
                    self.forget_if_unheld(scope, &key, &mut step);
                }
            }
            What::ListDone => self.list_done(scope, &mut step),
        }
        step
    }

    fn apply(&mut self, scope: ScopeId, object: Object, step: &mut Step) {
        let held = self.objects.entry(Arc::clone(&object.key)).or_default();
        held.hold(scope, self.scopes[scope].list);
        if held.is_newer_than(scope, &object) {
            return;
        }
        let state = Some((scope, object.resource_version.clone()));
        let reported_before = held.state == state && object.resource_version.is_some();
        held.state = state;
        let rank = Rank::seen(object.created, &object.key);
        let Placed { key, fresh, refusals } = place(&self.places, &mut self.spellings, object);
        if !reported_before {
            step.notices.extend(refusals.into_iter().map(|why| Notice::Refused { object: Arc::clone(&key), why }));
        }
        match fresh {
            Some(fresh) => self.claim(&key, &rank, fresh, step),
            None => self.rank(&key, &rank, step),
        }
    }

    /// Replaces the paths that an object claims by those of its fresh contents: first what it gains, then what it loses, but for
    /// what is in the way.
    fn claim(&mut self, key: &Arc<ObjectKey>, rank: &Rank, fresh: Fresh, step: &mut Step) {
        let paths: Vec<RelPath> = fresh.keys().cloned().collect();
        let before = match self.objects.get_mut(key) {
            Some(held) => std::mem::replace(&mut held.paths, paths.clone()),
            None => Vec::new(),
        };
        for (path, content) in &fresh {
            self.claims.put(path, key, rank, content.digest);
        }
        let lost: Vec<RelPath> = before.into_iter().filter(|path| paths.binary_search(path).is_err()).collect();
        lost.iter().for_each(|path| self.claims.withdraw(path, key));
        self.claims.settle(paths.iter().chain(&lost), key, fresh, step);
    }

    /// Gives the paths that an object claims their rank, now that its age is known.
    fn rank(&mut self, key: &ObjectKey, rank: &Rank, step: &mut Step) {
        let Some(held) = self.objects.get(key) else { return };
        held.paths.iter().for_each(|path| self.claims.rank(path, key, rank));
        self.claims.settle(&held.paths, key, Fresh::new(), step);
    }

    fn list_done(&mut self, scope: ScopeId, step: &mut Step) {
        let listing = &mut self.scopes[scope];
        listing.synced = true;
        let list = listing.list;
        for held in self.objects.values_mut() {
            held.holders.retain(|(holder, at)| *holder != scope || *at == list);
        }
        let mut unheld: Vec<_> =
            self.objects.iter().filter(|(_, held)| held.holders.is_empty()).map(|(key, _)| Arc::clone(key)).collect();
        unheld.sort_unstable();
        unheld.iter().for_each(|key| self.forget_if_unheld(scope, key, step));
        self.spellings.iter_mut().for_each(|spellings| spellings.trim(self.claims.paths()));
    }

    /// Removes what an object claims once no scope holds it and every scope that could still report it, `from` having
    /// spoken, has completed a list.
    fn forget_if_unheld(&mut self, from: ScopeId, key: &ObjectKey, step: &mut Step) {
        let could_report =
            |(id, listing): (ScopeId, &Listing)| id != from && !listing.synced && listing.scope.covers(key);
        let awaited = || self.scopes.iter().enumerate().any(could_report);
        if self.objects.get(key).is_none_or(|held| !held.holders.is_empty()) || awaited() {
            return;
        }
        let Some(held) = self.objects.remove(key) else { return };
        held.paths.iter().for_each(|path| self.claims.withdraw(path, key));
        self.claims.settle(&held.paths, key, Fresh::new(), step);
    }
}

impl Held {
    fn hold(&mut self, scope: ScopeId, list: u64) {
        self.holders.retain(|(holder, _)| *holder != scope);
        self.holders.push((scope, list));
    }

    /// Whether another scope that holds it has reported a later version: two watches may be at different points in time.
    /// Versions are numbers that grow (KEP-5504); a scope's own order counts even if they do not, as after a restored etcd
    /// backup.
    fn is_newer_than(&self, scope: ScopeId, object: &Object) -> bool {
        let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
        match &self.state {
            Some((by, version)) if *by != scope && self.holders.iter().any(|(holder, _)| holder == by) => {
                number(version) > number(&object.resource_version)
            }
            _ => false,
        }
    }
}

/// The contents of an object at their paths.
struct Placed {
    key: Arc<ObjectKey>,
    /// Nothing if its folder is refused: then all that the object has stays as it is.
    fresh: Option<Fresh>,
    refusals: Vec<PlaceError>,
}

fn spelled(spellings: &mut Option<Spellings>, path: RelPath) -> RelPath {
    match spellings {
        Some(spellings) => spellings.first(path),
        None => path,
    }
}

fn place(places: &Places, spellings: &mut Option<Spellings>, object: Object) -> Placed {
    let folder = match places.folder(&object) {
        Ok(folder) => folder,
        Err(why) => return Placed { key: object.key, fresh: None, refusals: vec![why] },
    };
    let mut placed = Placed { key: object.key, fresh: None, refusals: Vec::new() };
    let mut fresh = Fresh::new();
    for Entry { key, content } in object.entries {
        match places.path(&folder, &placed.key, &key).map(|path| spelled(spellings, path)) {
            Ok(path) if fresh.contains_key(&path) => placed.refusals.push(PlaceError::SameFile { key, path }),
            Ok(path) => drop(fresh.insert(path, content)),
            Err(why) => placed.refusals.push(why),
        }
    }
    placed.fresh = Some(fresh);
    placed
}
