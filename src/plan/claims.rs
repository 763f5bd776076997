//! Who owns which path: the oldest claimant, and every other one waits behind it.
//!
//! Claims conflict when they name one path, or when one names a folder that the other needs as a file. The Gateway API
//! settles conflicts by age, then by name; so does this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Change, ClaimId, Notice, Step};
use crate::content::{Content, Digest};
use crate::object::ObjectKey;
use crate::path::{RelPath, below};

/// The contents that came with an event, by path; what is used is taken out.
pub(super) type Fresh = BTreeMap<RelPath, Content>;

/// What decides between two claims: the lesser one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// On disk from an earlier run, its object not seen yet: nobody takes the place before that is settled.
    Restored,
    /// The older object, an unknown age being the youngest; then kind, namespace and name.
    Seen { age_unknown: bool, created: i64, key: Arc<ObjectKey> },
}

impl Rank {
    pub(super) fn seen(created: Option<i64>, key: &Arc<ObjectKey>) -> Self {
        Self::Seen { age_unknown: created.is_none(), created: created.unwrap_or_default(), key: Arc::clone(key) }
    }
}

/// Where the content of a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Nowhere yet: it comes with the event that made the claim.
    New,
    /// It is the file.
    Live,
    /// It is kept aside, behind another claim.
    Parked,
}

/// What was decided about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wins,
    Waits,
    Goes,
}

#[derive(Debug)]
struct Claim {
    id: ClaimId,
    owner: Arc<ObjectKey>,
    rank: Rank,
    /// Of the content last given; unknown for a restored claim.
    digest: Option<Digest>,
    stand: Stand,
    /// Withdrawn, and removed from the table when its path is settled next.
    gone: bool,
}

/// Every claim, by path. A path without a conflict has one.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_path: BTreeMap<RelPath, Vec<Claim>>,
    next: ClaimId,
}

/// The winning claim of each path that has one.
type Winners = BTreeMap<RelPath, (ClaimId, Arc<ObjectKey>)>;

impl Claims {
    /// How many files there are, and of how many objects.
    pub(super) fn live(&self) -> (usize, usize) {
        let live = self.by_path.values().flatten().filter(|claim| claim.stand == Stand::Live);
        let owners: Vec<_> = live.map(|claim| &claim.owner).collect();
        (owners.len(), owners.into_iter().collect::<BTreeSet<_>>().len())
    }

    /// For every claim that waits: the path that is in its way, its winner, and the loser.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = (&RelPath, &Arc<ObjectKey>, &Arc<ObjectKey>)> {
        let claims = self.by_path.iter().flat_map(|(path, claims)| claims.iter().map(move |claim| (path, claim)));
        claims.filter(|(_, claim)| claim.stand == Stand::Parked).filter_map(|(path, claim)| {
            let (taken, winner) = self.live_in_the_way(path)?;
            Some((taken, &winner.owner, &claim.owner))
        })
    }

    /// The claim that has the path itself, one above it as a file, or one below it.
    fn live_in_the_way(&self, path: &RelPath) -> Option<(&RelPath, &Claim)> {
        let at = self.by_path.get_key_value(path);
        let above = path.ancestors().filter_map(|above| self.by_path.get_key_value(above));
        let mut near = at.into_iter().chain(above).chain(below(&self.by_path, path.as_str()));
        near.find_map(|(path, claims)| Some((path, claims.iter().find(|claim| claim.stand == Stand::Live)?)))
    }

    /// Every claimed path.
    pub(super) fn paths(&self) -> impl ExactSizeIterator<Item = &RelPath> {
        self.by_path.keys()
    }

    /// Whether any object claims the path, or one below it.
    pub(super) fn has(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Whether the file at the path is the content of a claim.
    pub(super) fn is_live(&self, path: &RelPath) -> bool {
        self.by_path.get(path).into_iter().flatten().any(|claim| claim.stand == Stand::Live)
    }

    /// Enters what a record says is on disk.
    pub(super) fn restore(&mut self, path: RelPath, owner: Arc<ObjectKey>) {
        self.enter(path, owner, Rank::Restored, None, Stand::Live);
    }

    /// Enters or renews an object's claim. Takes effect when the path is settled.
    pub(super) fn put(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, rank: &Rank, digest: Digest) {
        let claims = self.by_path.get_mut(path);
        match claims.into_iter().flatten().find(|claim| claim.owner == *owner) {
            Some(claim) => {
                claim.rank = rank.clone();
                claim.digest = Some(digest);
            }
            None => self.enter(path.clone(), Arc::clone(owner), rank.clone(), Some(digest), Stand::New),
        }
    }

    /// Changes the rank of an object's claim. Takes effect when the path is settled.
    pub(super) fn rank(&mut self, path: &RelPath, owner: &ObjectKey, rank: &Rank) {
        let claims = self.by_path.get_mut(path);
        claims.into_iter().flatten().filter(|claim| *claim.owner == *owner).for_each(|claim| claim.rank = rank.clone());
    }

    /// Withdraws an object's claim. Takes effect when the path is settled.
    pub(super) fn withdraw(&mut self, path: &RelPath, owner: &ObjectKey) {
        let claims = self.by_path.get_mut(path);
        claims.into_iter().flatten().filter(|claim| *claim.owner == *owner).for_each(|claim| claim.gone = true);
    }

    fn enter(&mut self, path: RelPath, owner: Arc<ObjectKey>, rank: Rank, digest: Option<Digest>, stand: Stand) {
        let claim = Claim { id: self.next, owner, rank, digest, stand, gone: false };
        self.next += 1;
        self.by_path.entry(path).or_default().push(claim);
    }

    /// Decides again about these paths and all that conflicts with them, each once, and says what has to change on disk for
    /// that. `fresh` are the contents that the object `from` brought.
    pub(super) fn settle<'a>(
        &mut self,
        paths: impl IntoIterator<Item = &'a RelPath>,
        from: &ObjectKey,
        mut fresh: Fresh,
        step: &mut Step,
    ) {
        let mut settled = BTreeSet::new();
        for path in paths {
            if !settled.contains(path) {
                let group = self.conflicting(path);
                self.settle_group(&group, from, &mut fresh, step);
                settled.extend(group);
            }
        }
    }

    fn settle_group(&mut self, paths: &[RelPath], from: &ObjectKey, fresh: &mut Fresh, step: &mut Step) {
        let winners = self.winners(paths);
        let mut changes = Vec::new();
        let mut conflicts = BTreeSet::new();
        for path in paths {
            let Some(claims) = self.by_path.get_mut(path) else { continue };
            let live = claims.iter().find(|claim| claim.stand == Stand::Live).map(|claim| Arc::clone(&claim.owner));
            for claim in claims.iter_mut() {
                let content = if *claim.owner == *from { fresh.remove(path) } else { None };
                let fate = match winners.get(path) {
                    _ if claim.gone => Fate::Goes,
                    Some((id, _)) if *id == claim.id => Fate::Wins,
                    _ => Fate::Waits,
                };
                if fate == Fate::Waits && claim.stand != Stand::Parked {
                    conflicts.extend(claim.conflict(path, &winners));
                }
                claim.move_to(fate, path, content, &mut changes);
            }
            if let Some(owner) = live
                && !winners.contains_key(path)
            {
                let makes_way = in_the_way(&winners, path).is_some();
                changes.push(Change::Remove { path: path.clone(), owner, makes_way });
            }
            claims.retain(|claim| !claim.gone);
            if claims.is_empty() {
                self.by_path.remove(path);
            }
        }
        changes.sort_by_key(phase);
        step.changes.append(&mut changes);
        step.notices.extend(conflicts);
    }

    /// The claimed paths among which a change at `path` could change a decision: those at or below the topmost of its
    /// claimed ancestors, or of itself.
    fn conflicting(&self, path: &RelPath) -> Vec<RelPath> {
        let top = path.ancestors().find(|above| self.by_path.contains_key(*above)).unwrap_or(path.as_str());
        let at_top = self.by_path.get_key_value(top).map(|(path, _)| path.clone());
        at_top.into_iter().chain(below(&self.by_path, top).map(|(path, _)| path.clone())).collect()
    }

    /// The best claim wins; then the best that does not conflict with it; and so on.
    fn winners(&self, paths: &[RelPath]) -> Winners {
        let claims = paths.iter().filter_map(|path| self.by_path.get_key_value(path));
        let mut ranked: Vec<_> = claims
            .flat_map(|(path, claims)| claims.iter().map(move |claim| (path, claim)))
            .filter(|(_, claim)| !claim.gone)
            .collect();
        ranked.sort_by_key(|(path, claim)| (&claim.rank, *path));
        let mut winners = Winners::new();
        for (path, claim) in ranked {
            if in_the_way(&winners, path).is_none() {
                winners.insert(path.clone(), (claim.id, Arc::clone(&claim.owner)));
            }
        }
        winners
    }
}

impl Claim {
    /// Moves the claim, and with it its content, to where it belongs by its fate.
    fn move_to(&mut self, fate: Fate, path: &RelPath, content: Option<Content>, changes: &mut Vec<Change>) {
        let (claim, path, owner) = (self.id, path.clone(), Arc::clone(&self.owner));
        match (self.stand, fate, content) {
            (stand, Fate::Wins, Some(content)) => {
                changes.push(Change::Write { path, owner, content });
                if stand == Stand::Parked {
                    changes.push(Change::Drop { claim });
                }
            }
            (Stand::Parked, Fate::Wins, None) => {
                changes.push(Change::Promote { path, owner, claim, digest: self.digest });
            }
            (_, Fate::Waits, Some(content)) => changes.push(Change::Park { claim, owner, content }),
            (Stand::Live, Fate::Waits, None) => {
                changes.push(Change::Demote { path, owner, claim, digest: self.digest });
            }
            (Stand::Parked, Fate::Goes, _) => changes.push(Change::Drop { claim }),
            (Stand::Live | Stand::New, Fate::Wins, None)
            | (Stand::Parked | Stand::New, Fate::Waits, None)
            | (Stand::Live | Stand::New, Fate::Goes, _) => {}
        }
        self.stand = if fate == Fate::Wins { Stand::Live } else { Stand::Parked };
    }

    /// What keeps the claim waiting: one notice for all the files of a loser that one path of the winner is in the way of.
    fn conflict(&self, path: &RelPath, winners: &Winners) -> Option<Notice> {
        let (taken, (_, winner)) = in_the_way(winners, path)?;
        Some(Notice::Conflict { path: taken.clone(), winner: Arc::clone(winner), loser: Arc::clone(&self.owner) })
    }
}

/// What stands at the path itself, above it as a file, or below it as a folder's content.
fn in_the_way<'a, T>(paths: &'a BTreeMap<RelPath, T>, path: &RelPath) -> Option<(&'a RelPath, &'a T)> {
    let above = || path.ancestors().find_map(|above| paths.get_key_value(above));
    paths.get_key_value(path).or_else(above).or_else(|| below(paths, path.as_str()).next())
}

/// Contents that are needed later are brought to safety first; a file that blocks a directory is removed before the files in it are
/// written. Other files are removed last.
fn phase(change: &Change) -> u8 {
    match change {
        Change::Demote { .. } | Change::Park { .. } => 0,
        Change::Remove { makes_way: true, .. } => 1,
        Change::Write { .. } | Change::Promote { .. } => 2,
        Change::Drop { .. } | Change::Remove { makes_way: false, .. } => 3,
    }
}
