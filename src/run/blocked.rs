//! Writes that wait while the deletion guard keeps a file in their way: a file where they need a directory, or files in a
//! directory of their name.
//!
//! The plan has decided already, so the object that it chose has no file for so long, and the files that it replaces stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Pipeline;
use crate::event::ScopeId;
use crate::object::ObjectKey;
use crate::path::RelPath;
use crate::plan::Change;

/// The writes that wait, by path. Their contents are on disk.
#[derive(Debug, Default)]
pub(super) struct Blocked(BTreeMap<RelPath, (ScopeId, Change)>);

impl Pipeline {
    /// Takes one step while the deletion guard judges removals.
    pub(super) fn apply_guarded(&mut self, scope: ScopeId, change: Change) {
        match change {
            Change::Remove { path, owner, .. } => match self.blocked.0.remove(&path) {
                Some((_, Change::Promote { claim, .. })) => self.apply(Some(scope), Change::Drop { claim }),
                Some(_) => {}
                None => self.hold_removal(path, owner),
            },
            Change::Write { path, owner, content } => {
                self.removals.forget(&path);
                if !self.removals.block(&path) {
                    return self.apply(Some(scope), Change::Write { path, owner, content });
                }
                let content = self.store.spooled(owner.kind, content);
                let before = self.blocked.0.insert(path.clone(), (scope, Change::Write { path, owner, content }));
                if let Some((_, Change::Promote { claim, .. })) = before {
                    self.apply(Some(scope), Change::Drop { claim });
                }
            }
            Change::Promote { path, owner, claim, digest } => {
                self.removals.forget(&path);
                let is_blocked = self.removals.block(&path);
                let change = Change::Promote { path: path.clone(), owner, claim, digest };
                if is_blocked {
                    self.blocked.0.insert(path, (scope, change));
                } else {
                    self.apply(Some(scope), change);
                }
            }
            Change::Demote { path, owner, claim, digest } => match self.blocked.0.remove(&path) {
                Some((_, Change::Write { content, .. })) => {
                    self.apply(Some(scope), Change::Park { claim, owner, content });
                }
                // Its content has not left the standby.
                Some(_) => {}
                None => self.apply(Some(scope), Change::Demote { path, owner, claim, digest }),
            },
            Change::Park { .. } | Change::Drop { .. } => self.apply(Some(scope), change),
        }
    }

    /// Hands a removal to the guard. Content that waits to go live at the path is dropped at once: only the live file is worth
    /// guarding.
    fn hold_removal(&mut self, path: RelPath, owner: Arc<ObjectKey>) {
        self.unstage(&path);
        self.store.drop_unwritten(&path);
        if self.store.may_have(&path) {
            self.removals.push(path, owner);
        }
    }

    /// Drops the content that waits to go live at a path whose removal the guard holds.
    pub(super) fn unstage(&mut self, path: &RelPath) {
        if self.store.unstage(path) {
            self.tally.staged += 1;
            self.publisher.iter_mut().for_each(crate::publish::Publisher::changed);
        }
    }

    /// Carries out the writes that nothing blocks any more.
    pub(super) fn write_unblocked(&mut self) {
        let free: Vec<_> = self.blocked.0.keys().filter(|path| !self.removals.block(path)).cloned().collect();
        for path in free {
            if let Some((scope, change)) = self.blocked.0.remove(&path) {
                self.apply(Some(scope), change);
            }
        }
    }
}
