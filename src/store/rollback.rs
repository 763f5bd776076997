//! The way back: the tree that was live when everybody had been told of it last is kept, and can be the live one again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::generation::{Generation, regular};
use super::publish::{Batch, Next, Published};
use super::{ChangeError, Store};
use crate::content::{Digest, Spooled};
use crate::disk;
use crate::object::ObjectKey;
use crate::path::RelPath;

/// The files that came back, and the objects whose refused changes wait again.
#[derive(Debug)]
pub struct TakenBack {
    pub published: Published,
    pub objects: BTreeSet<Arc<ObjectKey>>,
    /// True if one of the refused objects has changed since the program got it.
    pub has_changed: bool,
}

/// The changes that a rollback puts on the stage again.
struct Refused {
    objects: BTreeSet<Arc<ObjectKey>>,
    has_changed: bool,
}

impl Store {
    /// Whether a tree is kept that is not the live one.
    #[must_use]
    pub fn has_way_back(&self) -> bool {
        self.staging.as_ref().is_some_and(|staging| staging.good.is_some() && staging.good != staging.name())
    }

    /// Makes the tree live again that everybody was told of last, and stages what it lacks. Nothing if there is none, or if it
    /// is live.
    ///
    /// # Errors
    /// When the disk does not let it; then nothing has changed.
    pub fn roll_back(&mut self) -> Result<Option<TakenBack>, ChangeError> {
        let dir = self.dir.clone();
        let refused = self.commit_good();
        let error = |error| ChangeError { verb: "bring back the last good files of", path: dir, error };
        let Some(Refused { objects, has_changed }) = refused.map_err(error)? else { return Ok(None) };
        Ok(Some(TakenBack { published: self.make_visible(), objects, has_changed }))
    }

    /// Everybody has been told of what is live: it is good.
    pub(super) fn note_good(&mut self) {
        if let Some(staging) = &mut self.staging
            && staging.publishing.keeps_good
            && staging.unseen.is_empty()
        {
            staging.good = staging.name();
            staging.since_good.clear();
        }
    }

    /// An earlier run has told nobody of what is live: the way back leads to what was told last.
    pub(super) fn find_good(&mut self) -> io::Result<()> {
        let Some(staging) = &self.staging else { return Ok(()) };
        let Some(live) = staging.tree.as_ref() else { return Ok(()) };
        let Some(name) = self.record.good() else { return Ok(()) };
        let Some(good) = Generation::open(self.home(staging.publishing), name)? else { return Ok(()) };
        let mut since_good = BTreeMap::new();
        let same_owner = self.record.owned().filter(|(path, _)| !self.record.since_good().contains_key(*path));
        for (path, owner) in same_owner {
            match (regular(good.folder(), path)?, regular(live.folder(), path)?) {
                (None, None) => {}
                // What has not changed is the same file in both.
                (Some(then), Some(now)) if disk::is_same_file(then.folder(), then.name, now.folder(), now.name)? => {}
                (then, _) => drop(since_good.insert(path.clone(), then.map(|_| Arc::clone(owner)))),
            }
        }
        for (path, owner) in self.record.since_good() {
            let was_there = regular(good.folder(), path)?.is_some();
            since_good.insert(path.clone(), owner.clone().filter(|_| was_there));
        }
        let name = name.to_owned();
        if let Some(staging) = &mut self.staging {
            (staging.good, staging.since_good) = (Some(name), since_good);
        }
        Ok(())
    }

    /// For whom the live tree has a file at each path; `None`: it has none.
    pub(super) fn state_of<'a>(
        &self,
        paths: impl Iterator<Item = &'a RelPath>,
    ) -> io::Result<Vec<(RelPath, Option<Arc<ObjectKey>>)>> {
        let Some(staging) = self.staging.as_ref().filter(|staging| staging.publishing.keeps_good) else {
            return Ok(Vec::new());
        };
        let owner = |path: &RelPath| -> io::Result<Option<Arc<ObjectKey>>> {
            let is_there = regular(self.live(staging), path)?.is_some();
            Ok(self.record.owner(path).filter(|_| is_there).cloned())
        };
        paths.map(|path| Ok((path.clone(), owner(path)?))).collect()
    }

    /// Makes the last accepted tree live again, and stages what it lacks. Returns nothing if that tree is live, or if there is none.
    fn commit_good(&mut self) -> io::Result<Option<Refused>> {
        let Some(staging) = &self.staging else { return Ok(None) };
        let good = staging.good.clone().filter(|name| Some(name) != staging.name().as_ref());
        let (Some(name), Some(bad)) = (good, &staging.tree) else { return Ok(None) };
        let Some(tree) = Generation::open(self.home(staging.publishing), &name)? else { return Ok(None) };
        let mut batch = Batch::new();
        let mut undone = Vec::new();
        let mut has_changed = false;
        let changed: BTreeSet<_> = staging.stage.iter().map(|(_, staged)| &staged.owner).collect();
        for (path, owner_then) in &staging.since_good {
            let Some(owner) = owner_then.as_ref().or_else(|| self.record.owner(path)) else { continue };
            let next = Next { owner: Arc::clone(owner), is_there: owner_then.is_some(), serial: 0 };
            batch.insert(path.clone(), next);
            let owner_now = Arc::clone(self.record.owner(path).unwrap_or(owner));
            let is_staged = staging.stage.get(path).is_some();
            has_changed |= is_staged || changed.contains(&owner_now);
            // A newer change of the path is on the stage already.
            if !is_staged {
                undone.push((path.clone(), owner_now, self.second_name(bad, path)?));
            }
        }
        for (path, next) in batch.iter().filter(|(_, next)| next.is_there) {
            self.record.own(path, &next.owner)?;
        }
        self.record.untold()?;
        self.make_later(&tree, &batch)?;
        self.turn_to(&name)?;
        let Some(staging) = &mut self.staging else { return Ok(None) };
        let objects = undone.iter().map(|(_, owner, _)| Arc::clone(owner)).collect();
        undone.into_iter().for_each(|(path, owner, file)| staging.stage.put(&path, &owner, file));
        staging.since_good.clear();
        staging.go_on_with(tree, batch);
        Ok(Some(Refused { objects, has_changed }))
    }

    /// The file that a tree has at a path, as one to be staged.
    fn second_name(&self, tree: &Generation, path: &RelPath) -> io::Result<Option<(Spooled, Digest)>> {
        let (Some(place), Some(mut file)) = (regular(tree.folder(), path)?, tree.file(path)?) else { return Ok(None) };
        let Some(digest) = Digest::of(&mut file, super::UNKNOWN_BYTES_MAX)? else { return Ok(None) };
        Ok(Some((self.spool.link(place.folder(), place.name)?, digest)))
    }
}
