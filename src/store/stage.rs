//! What is not live yet: for each path its newest content, in a temporary file, or that it is to go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::content::{Digest, Spooled};
use crate::object::ObjectKey;
use crate::path::RelPath;

/// What a path is to become.
#[derive(Debug)]
pub(super) struct Staged {
    pub owner: Arc<ObjectKey>,
    /// The file; `None`: it goes.
    pub file: Option<(Spooled, Digest)>,
    /// Grows with every change, so that a later one can be told from the one that was tried.
    pub serial: u64,
    /// Whether it may turn out to be live already.
    pub is_in_doubt: bool,
}

/// The stage. Its memory grows with the number of paths on it.
#[derive(Debug, Default)]
pub(super) struct Stage {
    entries: BTreeMap<RelPath, Staged>,
    serial: u64,
    /// The paths that are being tried: whether they will be live is not known, so nothing can be said to be there already.
    pub trying: BTreeSet<RelPath>,
}

impl Stage {
    pub fn put(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, file: Option<(Spooled, Digest)>) {
        self.serial += 1;
        let is_in_doubt = self.trying.contains(path);
        let staged = Staged { owner: Arc::clone(owner), file, serial: self.serial, is_in_doubt };
        if let Some(before) = self.entries.insert(path.clone(), staged)
            && before.owner != *owner
        {
            self.touch(&before.owner);
        }
    }

    /// Whether the path is to have this content already; then it is for this object from here on.
    pub fn has(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, digest: &Digest) -> bool {
        let Some(Staged { owner: before, file: Some((_, staged)), .. }) = self.entries.get_mut(path) else {
            return false;
        };
        if staged != digest {
            return false;
        }
        if before != owner {
            let before = std::mem::replace(before, Arc::clone(owner));
            self.touch(&before);
            self.touch(owner);
        }
        true
    }

    /// The path is to stay as it is; whether it was to change.
    pub fn take_back(&mut self, path: &RelPath) -> bool {
        let Some(staged) = self.entries.remove(path) else { return false };
        self.touch(&staged.owner);
        true
    }

    /// What else waits for an object has changed with what has gone: together it is something new.
    fn touch(&mut self, owner: &ObjectKey) {
        self.serial += 1;
        for (path, staged) in self.entries.iter_mut().filter(|(_, staged)| *staged.owner == *owner) {
            staged.serial = self.serial;
            staged.is_in_doubt |= self.trying.contains(path);
        }
    }

    pub fn get(&self, path: &RelPath) -> Option<&Staged> {
        self.entries.get(path)
    }

    /// Takes off what went live, unless it has changed since.
    pub fn went_live(&mut self, path: &RelPath, serial: u64) {
        if self.entries.get(path).is_some_and(|staged| staged.serial == serial) {
            self.entries.remove(path);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Staged)> {
        self.entries.iter()
    }
}
