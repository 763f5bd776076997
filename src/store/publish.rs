//! Changes that go live together: the second way of the module above.
//!
//! What a batch is to change waits on the stage, in temporary files. It goes live in six steps, and a kill between any two
//! leaves the old files or the new ones; the next start completes what had begun:
//!
//! 1. A tree is made, recorded before, with every file as it is to be: those that stay by a second name of the same file
//!    (link(2)), so that a publish costs the change and a link a file.
//! 2. (Whoever checks the tree does it here. If it is not good, it is removed, and nothing has happened.)
//! 3. The owners of new files are recorded, and that somebody is to be told.
//! 4. The tree goes live: by a line in the record, and in a set by one rename of the symlink `..data`.
//! 5. What is not visible yet becomes so, a path at a time, and when all is, the record says so: in a set, each path is a symlink into `..data`, so this concerns
//!    paths that are new or gone; else each changed file is renamed into place. What goes, goes last, unless it is in the way.
//! 6. Trees that nobody needs any more are removed. Of a set, the live one stays, and the one before for readers that still
//!    hold it.
//!
//! `..data`, and the trees' names, are those of the volumes that kubelet makes (`atomic_writer.go` of Kubernetes), so that
//! programs that know those know this directory. Unlike there, the links are at the files, not at the topmost folders: so
//! others may have files in the same folders, and each link can be exchanged for a file and back by a rename.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::generation::{self, Generation, is_absence, regular};
use super::stage::{Stage, Staged};
use super::{ChangeError, Effect, Store};
use crate::config::Prune;
use crate::disk::{self, Place};
use crate::object::ObjectKey;
use crate::path::{self, OWN_FOLDER, RelPath};

/// The symlink to the live tree of a set.
pub(super) const DATA: &str = "..data";

/// How settled batches go live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// All files at one moment, by a symlink; else one after the other.
    pub set: bool,
    /// Whether the tree is kept that was live when everybody had been told of it last, to go back to.
    pub keeps_good: bool,
}

impl Publishing {
    /// Whether the live tree is kept when all of its files are in their places.
    pub(super) fn keeps_trees(self) -> bool {
        self.set || self.keeps_good
    }
}

/// The stage, and the trees.
#[derive(Debug)]
pub(super) struct Staging {
    pub publishing: Publishing,
    pub stage: Stage,
    /// The live tree. Without one the files in their places are what is live.
    pub tree: Option<Generation>,
    /// The one before.
    previous: Option<String>,
    /// The one that was live when everybody had been told last.
    pub good: Option<String>,
    /// What has changed since then, and for whom the file was; `None`: there was none.
    pub since_good: BTreeMap<RelPath, Option<Arc<ObjectKey>>>,
    /// What the live tree has changed and is not visible yet.
    pub unseen: Batch,
}

/// What a tree changes.
pub(super) type Batch = BTreeMap<RelPath, Next>;

#[derive(Debug)]
pub(super) struct Next {
    pub owner: Arc<ObjectKey>,
    /// Whether it has the file.
    pub is_there: bool,
    /// Of the stage.
    pub serial: u64,
}

/// A tree that may go live.
#[derive(Debug)]
pub struct Candidate {
    tree: Generation,
    batch: Batch,
    path: PathBuf,
}

impl Candidate {
    /// Where the tree is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What became visible, and what has kept the rest from it.
#[derive(Debug)]
pub struct Published {
    /// Whether what was to go live did, be it visible everywhere or not.
    pub is_live: bool,
    pub changes: Vec<(RelPath, Effect, Arc<ObjectKey>)>,
    pub error: Option<ChangeError>,
}

impl Store {
    /// Whether changes wait until they are published.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        self.staging.is_some()
    }

    /// What waits: the path, the object, and a number that grows with every change.
    pub fn staged(&self) -> impl Iterator<Item = (&RelPath, &Arc<ObjectKey>, u64)> {
        let stages = self.staging.iter().map(|staging| &staging.stage);
        stages.flat_map(|stage| stage.iter().map(|(path, staged)| (path, &staged.owner, stage.serial(staged))))
    }

    /// Whether something is live and not all of it visible.
    #[must_use]
    pub fn is_half_visible(&self) -> bool {
        self.staging.as_ref().is_some_and(|staging| !staging.unseen.is_empty())
    }

    /// Makes the tree that would be live with what waits for these objects; nothing if that changes nothing.
    ///
    /// # Errors
    /// When the disk does not let it. What waits goes on waiting.
    pub fn candidate(&mut self, chosen: impl Fn(&ObjectKey) -> bool) -> Result<Option<Candidate>, ChangeError> {
        let dir = self.dir.clone();
        self.lay_out(chosen).map_err(|error| ChangeError { verb: "lay out the next files of", path: dir, error })
    }

    /// Removes a tree that is not to go live.
    pub fn discard(&mut self, candidate: &Candidate) {
        self.forget_trial();
        self.retire(candidate.tree.name());
    }

    /// Makes a tree the live one: steps 3 to 6.
    pub fn publish(&mut self, candidate: Candidate) -> Published {
        self.forget_trial();
        let name = candidate.tree.name().to_owned();
        if let Err(error) = self.commit(candidate) {
            self.retire(&name);
            let error = ChangeError { verb: "publish the files of", path: self.dir.clone(), error };
            return Published { is_live: false, changes: Vec::new(), error: Some(error) };
        }
        self.make_visible()
    }

    /// Step 5, for all that it is still to be done for, and 6.
    pub fn make_visible(&mut self) -> Published {
        let mut published = Published { is_live: true, changes: Vec::new(), error: None };
        let unseen = self.staging.as_mut().map(|staging| std::mem::take(&mut staging.unseen)).unwrap_or_default();
        for (path, next) in in_order(unseen) {
            // 5.
            let shown = if next.is_there { self.show(&path, &next.owner) } else { self.remove_file(&path) };
            match (shown, &mut self.staging) {
                (Ok(Effect::Nothing), _) => {}
                (Ok(effect), _) => published.changes.push((path, effect, next.owner)),
                (Err(error), staging) => {
                    let path_shown = self.dir.join(path.as_str());
                    published.error.get_or_insert(ChangeError { verb: "publish", path: path_shown, error });
                    staging.iter_mut().for_each(|staging| drop(staging.unseen.insert(path.clone(), next.copy())));
                }
            }
        }
        if published.error.is_none()
            && let Err(error) = self.record.shown()
        {
            tracing::debug!("the record cannot be written: {error}; the next start looks at every file");
        }
        // 6.
        self.staging.iter_mut().for_each(Staging::let_go);
        self.retire_unused();
        published
    }

    /// Steps 5 and 6 for every path, as a kill may have come before them. What the live tree does not have goes if that is sure to
    /// be configbump's, or is in the way.
    pub(super) fn complete(&mut self) -> io::Result<Published> {
        let Some(staging) = &self.staging else { return Ok(self.make_visible()) };
        let mut batch = Batch::new();
        let mut gone = Vec::new();
        for (path, owner) in self.record.owned() {
            let is_there = regular(self.live(staging), path)?.is_some();
            let next = Next { owner: Arc::clone(owner), is_there, serial: 0 };
            if is_there {
                batch.insert(path.clone(), next);
            } else {
                gone.push((path.clone(), next));
            }
        }
        for (path, next) in gone {
            if self.link_at(&path)?.is_some() || is_in_the_way(&path, &batch) {
                batch.insert(path, next);
            }
        }
        self.staging.iter_mut().for_each(|staging| staging.unseen = std::mem::take(&mut batch));
        Ok(self.make_visible())
    }

    fn forget_trial(&mut self) {
        self.staging.iter_mut().for_each(|staging| staging.stage.end_try());
    }

    fn lay_out(&mut self, chosen: impl Fn(&ObjectKey) -> bool) -> io::Result<Option<Candidate>> {
        self.forget_trial();
        self.keep_unneeded();
        let batch = self.batch(chosen)?;
        if batch.is_empty() {
            return Ok(None);
        }
        // 1.
        let name = self.announce_tree()?;
        let tree = match self.grow(&name, &batch) {
            Ok(tree) => tree,
            Err(error) => {
                self.retire(&name);
                return Err(error);
            }
        };
        let Some(staging) = &mut self.staging else { return Ok(None) };
        staging.stage.try_out(batch.keys().cloned().collect());
        let home = if staging.publishing.set { self.dir.clone() } else { self.dir.join(OWN_FOLDER) };
        Ok(Some(Candidate { path: std::path::absolute(home.join(&name))?, tree, batch }))
    }

    /// With --prune never, keeps a file that was to be removed for another one, if that one does not come.
    fn keep_unneeded(&mut self) {
        let Some(Staging { stage, .. }) = self.staging.as_mut().filter(|_| self.prune == Prune::Never) else { return };
        let is_unneeded = |(path, staged): &(&RelPath, &Staged)| staged.file.is_none() && !stage.needs(path);
        let unneeded: Vec<RelPath> = stage.iter().filter(is_unneeded).map(|(path, _)| path.clone()).collect();
        for path in unneeded {
            stage.take_back(&path);
        }
    }

    /// What waits for these objects and is not so already.
    fn batch(&mut self, chosen: impl Fn(&ObjectKey) -> bool) -> io::Result<Batch> {
        let settled = self.settled(&chosen)?;
        let Some(Staging { stage, .. }) = &mut self.staging else { return Ok(Batch::new()) };
        for path in &settled {
            stage.take_back(path);
        }
        let next = |staged: &Staged| Next {
            owner: Arc::clone(&staged.owner),
            is_there: staged.file.is_some(),
            serial: stage.serial(staged),
        };
        let entries = stage.iter().filter(|(_, staged)| chosen(&staged.owner));
        Ok(entries.map(|(path, staged)| (path.clone(), next(staged))).collect())
    }

    /// The paths that were staged while it was not known what would be live, and are live now.
    fn settled(&self, chosen: impl Fn(&ObjectKey) -> bool) -> io::Result<Vec<RelPath>> {
        let mut settled = Vec::new();
        let Some(Staging { stage, .. }) = &self.staging else { return Ok(settled) };
        for (path, staged) in stage.iter().filter(|(_, staged)| chosen(&staged.owner)) {
            if let Some((_, digest)) = &staged.file
                && stage.is_in_doubt(path, staged)
                && self.is_present(path, staged.owner.kind, digest)?
            {
                settled.push(path.clone());
            }
        }
        Ok(settled)
    }

    pub(super) fn announce_tree(&mut self) -> io::Result<String> {
        let name = generation::name_after(self.record.generations().last());
        self.record.generation(&name)?;
        Ok(name)
    }

    /// The tree of the live files, changed by the batch.
    fn grow(&self, name: &str, batch: &Batch) -> io::Result<Generation> {
        let Some(staging) = &self.staging else { return Err(io::ErrorKind::Unsupported.into()) };
        let tree = Generation::make(self.home(staging.publishing), name, self.spool.permissions())?;
        for (path, _) in self.record.owned().filter(|(path, _)| !batch.contains_key(*path)) {
            tree.take_over(path, self.live(staging), &self.spool)?;
        }
        for path in batch.keys() {
            if let Some(Staged { file: Some((file, _)), .. }) = staging.stage.get(path) {
                tree.take_in(path, file, &self.spool)?;
            }
        }
        Ok(tree)
    }

    fn commit(&mut self, Candidate { tree, batch, .. }: Candidate) -> io::Result<()> {
        let before = self.state_of(batch.keys())?;
        // 3.
        for (path, next) in batch.iter().filter(|(_, next)| next.is_there) {
            self.warn_if_foreign(path, &next.owner)?;
            self.record.own(path, &next.owner)?;
        }
        self.record.untold()?;
        self.make_later(&tree, &batch)?;
        // 4.
        self.turn_to(tree.name())?;
        let Some(staging) = &mut self.staging else { return Ok(()) };
        batch.iter().for_each(|(path, next)| staging.stage.went_live(path, next.serial));
        if staging.publishing.keeps_good {
            for (path, owner) in before {
                staging.since_good.entry(path).or_insert(owner);
            }
        }
        staging.go_on_with(tree, batch);
        Ok(())
    }

    /// Gives each file that a set changes a later modification time than the live one. The name in an older tree of the set
    /// shares it. Without a set, this happens when the file becomes visible.
    pub(super) fn make_later(&self, tree: &Generation, batch: &Batch) -> io::Result<()> {
        let Some(staging) = self.staging.as_ref().filter(|staging| staging.is_set()) else { return Ok(()) };
        for path in batch.iter().filter(|(_, next)| next.is_there).map(|(path, _)| path) {
            match (Place::open(tree.folder(), path), Place::open(self.live(staging), path)) {
                (Ok(new), Ok(old)) => disk::make_later((new.folder(), new.name), (old.folder(), old.name))?,
                (Err(error), _) | (_, Err(error)) if is_absence(&error) => {}
                (Err(error), _) | (_, Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes a tree the live one, at one moment.
    pub(super) fn turn_to(&mut self, name: &str) -> io::Result<()> {
        let before = self.record.live().map(str::to_owned);
        self.record.set_live(name)?;
        if self.staging.as_ref().is_none_or(|staging| !staging.publishing.set) {
            return Ok(());
        }
        let turned = self.spool.symlink(name).and_then(|link| link.publish(self.root.as_fd(), DATA));
        if let (Err(_), Some(before)) = (&turned, before) {
            self.record.set_live(&before)?;
        }
        turned
    }

    /// Puts what the live tree has at a path where readers look for it.
    pub(super) fn show(&mut self, path: &RelPath, owner: &Arc<ObjectKey>) -> io::Result<Effect> {
        if self.is_visible(path)? {
            return Ok(Effect::Written);
        }
        let Some(staging) = &self.staging else { return Ok(Effect::Nothing) };
        let mut file = if staging.publishing.set {
            self.spool.symlink(&link_target(path))?
        } else {
            let Some(place) = regular(self.live(staging), path)? else { return Ok(Effect::Nothing) };
            self.spool.link(place.folder(), place.name)?
        };
        self.put_in_place(path, owner, &mut file)
    }

    /// Whether readers see at a path what the live tree has there.
    pub(super) fn is_visible(&self, path: &RelPath) -> io::Result<bool> {
        let Some(staging) = &self.staging else { return Ok(true) };
        let place = match Place::open(self.root.as_fd(), path) {
            Ok(place) => place,
            Err(error) if is_absence(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        if staging.publishing.set {
            return Ok(disk::read_link(place.folder(), place.name)? == Some(link_target(path)));
        }
        match regular(self.live(staging), path)? {
            // Without a tree, the file is its own.
            Some(live) => disk::is_same_file(live.folder(), live.name, place.folder(), place.name),
            None => Ok(false),
        }
    }

    /// Where the live files are.
    pub(super) fn live<'a>(&'a self, staging: &'a Staging) -> BorrowedFd<'a> {
        staging.tree.as_ref().map_or(self.root.as_fd(), Generation::folder)
    }

    /// The folder that trees are in.
    pub(super) fn home(&self, publishing: Publishing) -> BorrowedFd<'_> {
        if publishing.set { self.root.as_fd() } else { self.own.as_fd() }
    }

    pub(super) fn retire_unused(&mut self) {
        let Some(staging) = &self.staging else { return };
        let is_needed = |name: &str| {
            staging.tree.as_ref().is_some_and(|tree| tree.name() == name)
                || staging.previous.as_deref() == Some(name)
                || staging.good.as_deref() == Some(name)
        };
        let unused: Vec<String> =
            self.record.generations().filter(|name| !is_needed(name)).map(str::to_owned).collect();
        unused.iter().for_each(|name| self.retire(name));
    }

    /// Removes a tree. What cannot be removed now is tried again with the next publish.
    fn retire(&mut self, name: &str) {
        if let Err(error) = self.try_retire(name) {
            tracing::debug!("{name} cannot be removed: {error}");
        }
    }

    pub(super) fn try_retire(&mut self, name: &str) -> io::Result<()> {
        Generation::remove(self.root.as_fd(), name)?;
        Generation::remove(self.own.as_fd(), name)?;
        self.record.retired(name)
    }
}

impl Staging {
    pub fn new(publishing: Publishing, tree: Option<Generation>, previous: Option<String>, is_good: bool) -> Self {
        let (stage, since_good, unseen) = (Stage::default(), BTreeMap::new(), Batch::new());
        let mut staging = Self { publishing, stage, tree, previous, good: None, since_good, unseen };
        staging.good = staging.name().filter(|_| publishing.keeps_good && is_good);
        staging
    }

    pub fn name(&self) -> Option<String> {
        self.tree.as_ref().map(|tree| tree.name().to_owned())
    }

    /// Once every file is in its place, no tree is kept that nobody needs: a program that descends into every folder would read
    /// the files twice.
    pub fn let_go(&mut self) {
        if !self.publishing.keeps_trees() && self.unseen.is_empty() {
            self.tree = None;
        }
    }

    pub fn go_on_with(&mut self, tree: Generation, mut batch: Batch) {
        self.previous = self.name().filter(|_| self.publishing.keeps_trees());
        self.tree = Some(tree);
        // What an earlier tree has not made visible is still to be, as this one has it.
        let unseen = std::mem::take(&mut self.unseen);
        for (path, next) in unseen {
            batch.entry(path).or_insert(next);
        }
        self.unseen = batch;
    }

    /// The file of the live tree.
    pub fn file(&self, path: &RelPath) -> io::Result<Option<std::fs::File>> {
        self.tree.as_ref().map_or(Ok(None), |tree| tree.file(path))
    }

    pub fn is_set(&self) -> bool {
        self.publishing.set
    }
}

impl Next {
    fn copy(&self) -> Self {
        Self { owner: Arc::clone(&self.owner), is_there: self.is_there, serial: self.serial }
    }
}

/// First what is in the way of a file; last what only goes.
fn in_order(batch: Batch) -> impl Iterator<Item = (RelPath, Next)> {
    let (files, gone): (Batch, Batch) = batch.into_iter().partition(|(_, next)| next.is_there);
    let (first, last): (Batch, Batch) = gone.into_iter().partition(|(path, _)| is_in_the_way(path, &files));
    first.into_iter().chain(files).chain(last)
}

/// Whether a file at a path would be where one of these needs a folder, or in a folder where one of these is.
fn is_in_the_way(path: &RelPath, files: &Batch) -> bool {
    path.ancestors().any(|above| files.contains_key(above)) || path::below(files, path.as_str()).next().is_some()
}

/// Where the link at a path leads.
pub(super) fn link_target(path: &RelPath) -> String {
    format!("{}{DATA}/{path}", "../".repeat(path.ancestors().count()))
}
