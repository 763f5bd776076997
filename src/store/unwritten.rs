//! Contents that could not become their file. They stay on disk, and become it once the path can be written.

use std::io;
use std::sync::Arc;

use super::{ChangeError, Effect, Store};
use crate::content::{Digest, Spooled};
use crate::object::ObjectKey;
use crate::path::RelPath;

/// A content on its way to its path.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub owner: Arc<ObjectKey>,
    pub file: Spooled,
    pub digest: Digest,
}

impl Store {
    /// Returns the paths that could not be written, with their objects. Their newest contents are not lost.
    #[must_use]
    pub fn unwritten(&self) -> Vec<(RelPath, Arc<ObjectKey>)> {
        self.unwritten.iter().map(|(path, new)| (path.clone(), Arc::clone(&new.owner))).collect()
    }

    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Returns true if the path could not be written and its newest content is not lost.
    #[must_use]
    pub fn is_unwritten(&self, path: &RelPath) -> bool {
        self.unwritten.contains_key(path)
    }

    /// Drops the content that waits for a path, because its object no longer wants the path.
    pub fn drop_unwritten(&mut self, path: &RelPath) {
        self.unwritten.remove(path);
    }

    /// Tries again to write a path.
    ///
    /// # Errors
    /// When the disk does not let it. The content stays on disk.
    pub fn write_again(&mut self, path: &RelPath) -> Result<Effect, ChangeError> {
        let Some(new) = self.unwritten.remove(path) else { return Ok(Effect::Nothing) };
        let shown = self.dir.join(path.as_str());
        self.put(path, new).map_err(|error| ChangeError { verb: "write", path: shown, error })
    }

    /// Puts a content in place, or on the stage. Keeps it if that fails.
    pub(super) fn put(&mut self, path: &RelPath, mut new: Unwritten) -> io::Result<Effect> {
        if self.is_staged() {
            self.stage_file(path, &new.owner, new.file, new.digest);
            return Ok(Effect::Staged);
        }
        let put = self.put_in_place(path, &new.owner, &mut new.file);
        if put.is_err() {
            self.unwritten.insert(path.clone(), new);
        }
        put
    }

    /// Puts a content in place unless `settled` failed, which is kept then: the record could not be written.
    pub(super) fn put_unless_failed(
        &mut self,
        path: &RelPath,
        new: Unwritten,
        settled: io::Result<Option<Effect>>,
    ) -> io::Result<Effect> {
        match settled {
            Ok(_) => self.put(path, new),
            Err(error) if self.is_staged() => Err(error),
            Err(error) => {
                self.unwritten.insert(path.clone(), new);
                Err(error)
            }
        }
    }
}
