//! What is not live yet: for each path its newest content, in a temporary file, or that it is to go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::content::{Digest, Spooled};
use crate::object::ObjectKey;
use crate::path::{self, RelPath};

/// What a path is to become.
#[derive(Debug)]
pub(super) struct Staged {
    pub owner: Arc<ObjectKey>,
    /// The file; `None`: it goes.
    pub file: Option<(Spooled, Digest)>,
    /// Of its own newest change; see [`Stage::serial`].
    serial: u64,
    /// Whether it may turn out to be live already; see [`Stage::is_in_doubt`].
    is_in_doubt: bool,
}

/// What waits for an object, as a whole.
#[derive(Debug, Default)]
struct Waiting {
    paths: usize,
    /// When something of it has gone, or has become another's: what is left is together something new from then on. It is
    /// noted here, not at each path, for of paths there may be tens of thousands, which go one by one.
    changed: u64,
}

/// What is being tried: whether it will be live is not known, so nothing can be said to be there already.
#[derive(Debug, Default)]
struct Tried {
    paths: BTreeSet<RelPath>,
    /// The newest change at that time.
    serial: u64,
}

/// The stage. Its memory grows with the number of paths on it.
#[derive(Debug, Default)]
pub(super) struct Stage {
    entries: BTreeMap<RelPath, Staged>,
    /// Those that something waits for.
    owners: BTreeMap<Arc<ObjectKey>, Waiting>,
    /// The newest change.
    serial: u64,
    tried: Tried,
}

impl Stage {
    pub fn put(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, file: Option<(Spooled, Digest)>) {
        self.serial += 1;
        let is_in_doubt = self.is_tried(path);
        let staged = Staged { owner: Arc::clone(owner), file, serial: self.serial, is_in_doubt };
        self.count_in(owner);
        if let Some(before) = self.entries.insert(path.clone(), staged) {
            self.count_out(&before.owner);
            if before.owner != *owner {
                self.touch(&before.owner);
            }
        }
    }

    /// Whether the path is to have this content already; then it is for this object from here on.
    pub fn has(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, digest: &Digest) -> bool {
        let Some(Staged { owner: before, file: Some((_, staged)), .. }) = self.entries.get_mut(path) else {
            return false;
        };
        // The permissions are by kind.
        if staged != digest || before.kind != owner.kind {
            return false;
        }
        if before != owner {
            let before = std::mem::replace(before, Arc::clone(owner));
            self.count_in(owner);
            self.count_out(&before);
            self.touch(&before);
            self.touch(owner);
        }
        true
    }

    /// The path is to stay as it is; whether it was to change.
    pub fn take_back(&mut self, path: &RelPath) -> bool {
        let Some(staged) = self.entries.remove(path) else { return false };
        self.count_out(&staged.owner);
        self.touch(&staged.owner);
        true
    }

    /// Takes off what went live, unless it has changed since.
    pub fn went_live(&mut self, path: &RelPath, serial: u64) {
        if self.entries.get(path).is_some_and(|staged| self.serial(staged) == serial)
            && let Some(staged) = self.entries.remove(path)
        {
            self.count_out(&staged.owner);
        }
    }

    /// Returns true if a file is to be above or below the path.
    pub fn needs(&self, path: &RelPath) -> bool {
        let above = path.ancestors().filter_map(|above| self.entries.get(above));
        above
            .chain(path::below(&self.entries, path.as_str()).map(|(_, staged)| staged))
            .any(|staged| staged.file.is_some())
    }

    pub fn get(&self, path: &RelPath) -> Option<&Staged> {
        self.entries.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Staged)> {
        self.entries.iter()
    }

    /// A number that grows with every change of this, or of what else waits for its object, so that a later state can be told
    /// from the one that was tried.
    pub fn serial(&self, staged: &Staged) -> u64 {
        staged.serial.max(self.changed(&staged.owner))
    }

    /// Whether it was staged, or its object has changed, while it was not known what would be live.
    pub fn is_in_doubt(&self, path: &RelPath, staged: &Staged) -> bool {
        staged.is_in_doubt || (self.changed(&staged.owner) > self.tried.serial && self.is_tried(path))
    }

    /// From here on these paths are being tried.
    pub fn try_out(&mut self, paths: BTreeSet<RelPath>) {
        self.end_try();
        self.tried = Tried { paths, serial: self.serial };
    }

    /// No path is being tried any more.
    pub fn end_try(&mut self) {
        let Tried { paths, serial } = std::mem::take(&mut self.tried);
        for path in &paths {
            if let Some(staged) = self.entries.get_mut(path) {
                let changed = self.owners.get(&staged.owner).map_or(0, |waiting| waiting.changed);
                staged.is_in_doubt |= changed > serial;
            }
        }
    }

    pub fn is_tried(&self, path: &RelPath) -> bool {
        self.tried.paths.contains(path)
    }

    fn changed(&self, owner: &Arc<ObjectKey>) -> u64 {
        self.owners.get(owner).map_or(0, |waiting| waiting.changed)
    }

    /// What else waits for an object has changed with what has gone: together it is something new.
    fn touch(&mut self, owner: &Arc<ObjectKey>) {
        self.serial += 1;
        if let Some(waiting) = self.owners.get_mut(owner) {
            waiting.changed = self.serial;
        }
    }

    fn count_in(&mut self, owner: &Arc<ObjectKey>) {
        self.owners.entry(Arc::clone(owner)).or_default().paths += 1;
    }

    fn count_out(&mut self, owner: &Arc<ObjectKey>) {
        if let Some(waiting) = self.owners.get_mut(owner) {
            waiting.paths -= 1;
            if waiting.paths == 0 {
                self.owners.remove(owner);
            }
        }
    }
}
