//! The only writer below the directory.
//!
//! A file changes in five steps, and a kill between any two leaves the old file or the new one, whole:
//!
//! 1. If the bytes are there already, nothing is written.
//! 2. The bytes are in a temporary file in the store's own folder, with their final permissions.
//! 3. The folders on the way are made, each recorded before.
//! 4. The file is recorded as configbump's, and that somebody is to be told of a change.
//! 5. The temporary file is renamed over the file.
//!
//! With a stage, what follows step 2 is left to [`Store::publish`]; its description, in `store/publish.rs`, goes on there.
//!
//! A file is removed first and struck from the record then, so that a kill in between only leaves a line too many. Nothing
//! is synced to the medium: after a power failure the next start compares every file by its content.

mod adopt;
mod aside;
mod examine;
mod foreign;
mod generation;
mod own;
mod publish;
mod record;
mod rollback;
mod stage;
#[cfg(test)]
mod tests;
mod unwritten;

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

pub use self::examine::{Examined, Traits, examine};
use self::foreign::Removal;
pub use self::publish::{Candidate, Published, Publishing};
use self::publish::{DATA, Staging};
use self::record::Record;
pub use self::rollback::TakenBack;
use self::stage::Staged;
use self::unwritten::Unwritten;
use crate::bump;
use crate::config::Prune;
use crate::content::{Body, Content, Digest, Modes, Permissions, Spool, Spooled};
use crate::disk::{self, Place};
use crate::object::{Kind, ObjectKey};
use crate::path::{OWN_FOLDER, RelPath};
use crate::plan::Change;

/// The most that a file of an earlier run can have, in bytes: a manifest is not larger. Others may have put more there.
const UNKNOWN_BYTES_MAX: u64 = 32 << 20;

/// How many files of others the log names that cannot be removed. Whoever puts very many there does not fill it.
const FOREIGN_KEPT_SHOWN_MAX: usize = 10;

/// The directory, its record, and the permissions of what comes.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    root: OwnedFd,
    /// `DIR/.configbump`.
    own: Arc<OwnedFd>,
    /// Locked as long as it is open.
    lock: File,
    spool: Spool,
    record: Record,
    prune: Prune,
    ignores_case: bool,
    /// What waits to be published, unless every change is at once.
    staging: Option<Staging>,
    /// Files that could not be put in place, for another try.
    unwritten: BTreeMap<RelPath, Unwritten>,
    /// Whether the record could not be written when it was to say last that a file is gone.
    is_unnoted: bool,
    /// What `--prune all` could not remove when it tried last, and why.
    foreign_kept: BTreeMap<String, String>,
}

/// What a change did to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The file did not have these bytes, and has them now.
    Written,
    /// The file is gone.
    Removed,
    /// It waits to be published.
    Staged,
    /// No file changed.
    Nothing,
}

/// Why the directory cannot be used at all.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("cannot make {}: {error}; name a directory that can be made or written", dir.display())]
    Make { dir: PathBuf, error: io::Error },
    #[error("{} is not a directory; name a directory", dir.display())]
    NotADirectory { dir: PathBuf },
    #[error("cannot write in {}: {error}{}", dir.display(), remedy(error))]
    Write { dir: PathBuf, error: io::Error },
    #[error("cannot publish a set in {}: its file system has no symlinks ({error}); use --publish file, or an emptyDir", dir.display())]
    NoSymlinks { dir: PathBuf, error: io::Error },
    #[error("{} is kept by another configbump; end that one, or name another directory", dir.display())]
    Locked { dir: PathBuf },
}

/// A change that did not happen, or is not recorded. No file is half-written.
#[derive(Debug, Error)]
#[error("cannot {verb} {}: {error}{}", path.display(), remedy(error))]
pub struct ChangeError {
    verb: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl Store {
    /// Opens the directory, makes it if it is missing, and clears away what a killed run left half-done. Changes are at once,
    /// or wait to be published in this way.
    ///
    /// # Errors
    /// When it cannot be made or written, or when another configbump has it.
    pub fn open(dir: &Path, modes: Modes, prune: Prune, publishing: Option<Publishing>) -> Result<Self, OpenError> {
        let in_dir = |error: io::Error| OpenError::Write { dir: dir.to_owned(), error };
        let root = open_root(dir)?;
        let (own, is_new) = own::open_folder(root.as_fd()).map_err(in_dir)?;
        let own = Arc::new(own);
        let lock = own::lock(own.as_fd(), dir)?;
        let permissions = Permissions::below(root.as_fd(), modes).map_err(in_dir)?;
        if is_new {
            // Whatever the umask: a reader that walks the directory under another user must not stumble over it.
            permissions.apply(&*own, Mode::from_raw_mode(disk::FOLDER_MODE)).map_err(in_dir)?;
        }
        let spool = Spool::new(Arc::clone(&own), permissions);
        own::clear_leftovers(own.as_fd()).map_err(in_dir)?;
        if publishing.is_some_and(|publishing| publishing.set) {
            own::require_symlinks(own.as_fd(), dir)?;
        }
        let record = Record::open(spool.clone()).map_err(in_dir)?;
        let ignores_case = disk::ignores_case(own.as_fd(), own::LOCK_NAME).map_err(in_dir)?;
        let (dir_shown, foreign_kept) = (dir.to_owned(), BTreeMap::new());
        let mut store = Self {
            dir: dir_shown,
            root,
            own,
            lock,
            spool,
            record,
            prune,
            ignores_case,
            staging: None,
            unwritten: BTreeMap::new(),
            is_unnoted: false,
            foreign_kept,
        };
        // First what is empty and in the way of a file, at last what has become so.
        store.remove_unused_folders();
        store.go_on(publishing).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ISDIR) => OpenError::Write { dir: dir.join(DATA), error },
            _ => in_dir(error),
        })?;
        store.remove_unused_folders();
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns true if paths that differ in case only are one file.
    #[must_use]
    pub(crate) fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// Whether the directory is still the one that was opened, with configbump's own folder and lock in it. Else nothing that is
    /// written would be seen there, or another configbump may have begun to write.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        // Where it cannot be told, a change says what is wrong.
        let has_name = |folder, name, file| own::has_name(folder, name, file).unwrap_or(true);
        match (rustix::fs::stat(&self.dir), rustix::fs::fstat(&self.root)) {
            (Err(Errno::NOENT | Errno::NOTDIR), _) => false,
            (Ok(named), Ok(opened)) if disk::identity(named) != disk::identity(opened) => false,
            _ => {
                has_name(self.root.as_fd(), OWN_FOLDER, self.own.as_fd())
                    && has_name(self.own.as_fd(), own::LOCK_NAME, self.lock.as_fd())
            }
        }
    }

    /// What sources put values in.
    #[must_use]
    pub fn spool(&self) -> Spool {
        self.spool.clone()
    }

    /// Every file that configbump wrote and has not removed, and the object that it was written for.
    pub fn owned(&self) -> impl Iterator<Item = (&RelPath, &Arc<ObjectKey>)> {
        self.record.owned()
    }

    /// How many files those are.
    #[must_use]
    pub fn count_owned(&self) -> usize {
        self.record.count_owned()
    }

    /// From here on, it is recorded that a file changed, before it does, until [`Store::told`]: a bump outlives a kill.
    pub fn tell_of_changes(&mut self) {
        self.record.tell_of_changes();
    }

    /// Whether a file changed, in this run or an earlier one, that nobody has been told of.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        self.record.is_untold()
    }

    /// Notes that everybody has been told of everything.
    ///
    /// # Errors
    ///
    /// When the disk does not let it; then they are told once more after a restart.
    pub fn told(&mut self) -> Result<(), ChangeError> {
        let path = self.dir.join(OWN_FOLDER);
        self.note_good();
        self.record.told().map_err(|error| ChangeError { verb: "write the record in", path, error })
    }

    /// Takes one step of a plan. If it fails, the content is lost, unless [`Store::is_unwritten`] says that it is not.
    ///
    /// # Errors
    /// When the disk does not let it; no file is half-written then, and the record covers what may be there.
    pub fn apply(&mut self, change: Change) -> Result<Effect, ChangeError> {
        let error = |verb, path: &RelPath| {
            let path = self.dir.join(path.as_str());
            move |error| ChangeError { verb, path, error }
        };
        let parked_error = |verb, claim| {
            let path = self.dir.join(OWN_FOLDER).join(aside::name(claim));
            move |error| ChangeError { verb, path, error }
        };
        match change {
            Change::Write { path, owner, content } => {
                let error = error("write", &path);
                self.write(&path, &owner, content).map_err(error)
            }
            Change::Promote { path, owner, claim, digest } => {
                let error = error("write", &path);
                self.promote(&path, &owner, claim, digest).map_err(error)
            }
            Change::Remove { path, owner, makes_way } => {
                let error = error("remove", &path);
                self.remove(&path, &owner, makes_way).map_err(error)
            }
            Change::Demote { path, owner, claim, digest } => {
                let error = error("keep a copy of", &path);
                self.demote(&path, owner.kind, claim, digest).map_err(error)?;
                Ok(Effect::Nothing)
            }
            Change::Park { claim, owner, content } => {
                let error = parked_error("write", claim);
                self.park(claim, owner.kind, content).map_err(error)?;
                Ok(Effect::Nothing)
            }
            Change::Drop { claim } => {
                let error = parked_error("remove", claim);
                if let Err(error) = disk::unlink(self.own.as_fd(), aside::name(claim).as_str()).map_err(error) {
                    tracing::warn!("{error}; the next start removes it");
                }
                Ok(Effect::Nothing)
            }
        }
    }

    /// The steps of the module's description, by their numbers.
    fn write(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, content: Content) -> io::Result<Effect> {
        self.unwritten.remove(path);
        // 1.
        let settled = self.settled_as(path, owner, &content.digest);
        if let Ok(Some(effect)) = settled {
            return Ok(effect);
        }
        // 2.
        let file = self.temporary(owner.kind, content.body)?;
        let new = Unwritten { owner: Arc::clone(owner), file, digest: content.digest };
        self.put_unless_failed(path, new, settled)
    }

    /// If a path has this content already, or is to have it, it is this object's from here on, and nothing else is to be done.
    fn settled_as(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, digest: &Digest) -> io::Result<Option<Effect>> {
        if let Some(staging) = &mut self.staging {
            if staging.stage.has(path, owner, digest) {
                return Ok(Some(Effect::Staged));
            }
            if staging.stage.is_tried(path) {
                return Ok(None);
            }
        }
        match self.is_present(path, owner.kind, digest) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            // A file that cannot be read is replaced. Anything else in the way shows itself when it is.
            Err(error) => {
                tracing::debug!("cannot read {path}, so it is replaced: {error}");
                return Ok(None);
            }
        }
        self.record.own(path, owner)?;
        let took_back = self.staging.as_mut().is_some_and(|staging| staging.stage.take_back(path));
        Ok(Some(if took_back { Effect::Staged } else { Effect::Nothing }))
    }

    fn stage_file(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, file: Spooled, digest: Digest) {
        if let Some(staging) = &mut self.staging {
            staging.stage.put(path, owner, Some((file, digest)));
        }
    }

    /// Steps 3 to 5, for a temporary file or one that was kept aside.
    fn put_in_place(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, file: &mut Spooled) -> io::Result<Effect> {
        // 3.
        self.make_folders(path)?;
        self.clear_own_folder(path)?;
        self.warn_if_foreign(path, owner)?;
        let place = Place::open(self.root.as_fd(), path)?;
        // 4.
        self.record.own(path, owner)?;
        self.record.untold()?;
        // 5.
        file.move_to(place.folder(), place.name)?;
        Ok(Effect::Written)
    }

    fn warn_if_foreign(&self, path: &RelPath, owner: &ObjectKey) -> io::Result<()> {
        if !self.record.owns(path.as_str()) && generation::regular(self.root.as_fd(), path)?.is_some() {
            tracing::warn!("{path} was not written by configbump and is replaced, for {owner} claims it");
        }
        Ok(())
    }

    /// The file as the plan knows it: what is staged for its path, else what is there.
    fn newest(&self, path: &RelPath) -> io::Result<Option<File>> {
        match self.staging.as_ref().and_then(|staging| staging.stage.get(path)) {
            Some(Staged { file: Some((file, _)), .. }) => file.open(),
            Some(_) => Ok(None),
            None => self.present(path),
        }
    }

    /// The regular file at a path, if there is one.
    fn present(&self, path: &RelPath) -> io::Result<Option<File>> {
        if let Some(staging) = self.staging.as_ref().filter(|staging| staging.is_set()) {
            return staging.file(path);
        }
        match Place::open(self.root.as_fd(), path) {
            Ok(place) => disk::open_file(place.folder(), place.name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // What is in the way may be about to go.
            Err(error) if self.is_staged() && generation::is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a path has this content, and, if it is a Secret's, not everybody may read it: its file may have been a ConfigMap's, or
    /// somebody's who knew what is in it.
    fn is_present(&self, path: &RelPath, kind: Kind, digest: &Digest) -> io::Result<bool> {
        let Some(mut file) = self.present(path)? else { return Ok(false) };
        Ok(digest.is_of(&mut file)? && self.is_closed(&file, kind)? && self.is_visible(path)?)
    }

    /// Returns true if the file needs no replacement for its permissions: a Secret's file is closed to others, and the group of
    /// the directory can read what others cannot. Corrects a file of configbump's own. A Secret's file may be open to its group:
    /// kubelet opens the files of some volumes to that at each mount.
    fn is_closed(&self, file: &File, kind: Kind) -> io::Result<bool> {
        let permissions = self.spool.permissions();
        let (wanted, group) = (permissions.mode(kind), permissions.required_group(kind));
        if kind != Kind::Secret && group.is_none() {
            return Ok(true);
        }
        let metadata = file.metadata()?;
        let allowed = if kind == Kind::Secret { wanted.bits() } else { 0o777 };
        let has_group = |metadata: &Metadata| group.is_none_or(|group| metadata.gid() == group);
        if metadata.mode() & 0o777 & !allowed == 0 && has_group(&metadata) {
            return Ok(true);
        }
        // No other name of it is elsewhere.
        if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.nlink() == 1 {
            permissions.apply(file, Mode::from_raw_mode(metadata.mode() & 0o777 & allowed))?;
        }
        let is_right = |metadata: &Metadata| metadata.mode() & 0o007 & !allowed == 0 && has_group(metadata);
        if is_right(&file.metadata()?) {
            return Ok(true);
        }
        // Where a file system keeps no permissions, it would be written anew for ever.
        let (_trial, new) = self.spool.create(wanted)?;
        Ok(!is_right(&new.metadata()?))
    }

    /// Drops the newest content, or the removal, that waits to go live at a path. Returns true if there was any.
    pub fn unstage(&mut self, path: &RelPath) -> bool {
        self.staging.as_mut().is_some_and(|staging| staging.stage.take_back(path))
    }

    /// Returns true if the path may have a file of configbump's now, or once the candidate under check is live.
    #[must_use]
    pub fn may_have(&self, path: &RelPath) -> bool {
        let is_tried = self.staging.as_ref().is_some_and(|staging| staging.stage.is_tried(path));
        is_tried || self.record.owns(path.as_str())
    }

    /// Puts a content into a temporary file, so that it takes no memory while it waits.
    #[must_use]
    pub fn spooled(&self, kind: Kind, content: Content) -> Content {
        let Content { digest, body } = content;
        let body = self.temporary(kind, body).map_or_else(Body::Lost, Body::Spooled);
        Content { digest, body }
    }

    /// With --prune never, returns the files of removed objects that a file at this path needs as a directory, or has as its
    /// directory.
    pub fn left_in_the_way_of(
        &self,
        path: &RelPath,
        is_live: impl Fn(&RelPath) -> bool,
    ) -> Vec<(RelPath, Arc<ObjectKey>)> {
        if self.prune != Prune::Never {
            return Vec::new();
        }
        let is_left = |path: &RelPath| !is_live(path) && !self.is_going(path);
        let files = self.record.owned_near(path).filter(|(path, _)| is_left(path));
        files.map(|(path, owner)| (path.clone(), Arc::clone(owner))).collect()
    }

    fn is_going(&self, path: &RelPath) -> bool {
        let staged = self.staging.as_ref().and_then(|staging| staging.stage.get(path));
        staged.is_some_and(|staged| staged.file.is_none())
    }

    fn temporary(&self, kind: Kind, body: Body) -> io::Result<Spooled> {
        match body {
            Body::Spooled(temporary) => Ok(temporary),
            Body::Memory(bytes) => {
                let (temporary, mut file) = self.spool.create(self.spool.permissions().mode(kind))?;
                disk::crash::point()?;
                file.write_all(&bytes)?;
                Ok(temporary)
            }
            Body::Lost(error) => Err(error),
        }
    }

    fn make_folders(&mut self, path: &RelPath) -> io::Result<()> {
        let mut parent: Option<OwnedFd> = None;
        for folder in path.ancestors() {
            let name = folder.rsplit_once('/').map_or(folder, |(_, name)| name);
            let above = parent.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let opened = match disk::open_folder(above, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.record.made(folder)?;
                    if !disk::make_folder(above, name)? {
                        // Somebody else was faster.
                        self.record.unmade(folder)?;
                    }
                    disk::open_folder(above, name)?
                }
                opened => opened?,
            };
            parent = Some(opened);
        }
        Ok(())
    }

    fn remove(&mut self, path: &RelPath, owner: &Arc<ObjectKey>, makes_way: bool) -> io::Result<Effect> {
        if self.unwritten.remove(path).is_some() && !self.record.owns(path.as_str()) {
            return Ok(Effect::Nothing);
        }
        let stays = self.prune == Prune::Never && !makes_way;
        match &mut self.staging {
            Some(staging) if !stays && (self.record.owns(path.as_str()) || staging.stage.is_tried(path)) => {
                staging.stage.put(path, owner, None);
                Ok(Effect::Staged)
            }
            Some(staging) => {
                let took_back = staging.stage.take_back(path);
                Ok(if took_back { Effect::Staged } else { Effect::Nothing })
            }
            // It stays recorded: it is still a file that configbump wrote.
            None if stays => Ok(Effect::Nothing),
            None => match self.record.untold() {
                // On a full disk it is the removal that makes room for the note.
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOSPC | Errno::DQUOT)) => {
                    let effect = self.remove_file(path)?;
                    let noted = self.record.untold();
                    self.tell_if_unnoted(noted);
                    Ok(effect)
                }
                noted => noted.and_then(|()| self.remove_file(path)),
            },
        }
    }

    fn remove_file(&mut self, path: &RelPath) -> io::Result<Effect> {
        let removed = match Place::open(self.root.as_fd(), path) {
            Ok(place) => match disk::unlink(place.folder(), place.name) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    tracing::warn!("{path} is a folder that configbump did not make, and stays");
                    false
                }
                removed => removed?,
            },
            // Its folder is gone, or something else stands there now: either way the file is not there.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
            Err(error) => return Err(error),
        };
        // It is gone whatever becomes of the record, which says too much then: the next start puts that right.
        let noted = self.record.disown(path).and_then(|()| self.remove_empty_folders(path));
        self.tell_if_unnoted(noted);
        Ok(if removed { Effect::Removed } else { Effect::Nothing })
    }

    /// Says, once until it can be again, that a removal could not be noted.
    fn tell_if_unnoted(&mut self, noted: io::Result<()>) {
        match noted {
            Err(error) if !std::mem::replace(&mut self.is_unnoted, true) => tracing::warn!(
                "files are removed, but the record cannot say so: {error}; if configbump ends now, a bump may be missed"
            ),
            noted => self.is_unnoted = noted.is_err(),
        }
    }

    /// Removes the folders above a removed file that configbump made and that are empty now, the lowest first.
    fn remove_empty_folders(&mut self, path: &RelPath) -> io::Result<()> {
        let above: Vec<&str> = path.ancestors().collect();
        for folder in above.into_iter().rev() {
            if !self.remove_if_unused(folder)? {
                break;
            }
        }
        Ok(())
    }

    /// Removes the folders that a kill left empty, between making one and writing into it, or after removing the last file.
    fn remove_unused_folders(&mut self) {
        let made: Vec<String> = self.record.folders().map(str::to_owned).collect();
        // A folder follows those that it is in.
        for folder in made.iter().rev() {
            if let Err(error) = self.remove_if_unused(folder) {
                tracing::warn!(
                    "cannot remove the folder {folder}, which is not needed any more: {error}{}",
                    remedy(&error)
                );
            }
        }
    }

    /// Removes the empty directories that configbump made at the path of a file. Files of others kept them until now.
    fn clear_own_folder(&mut self, path: &RelPath) -> io::Result<()> {
        if !self.record.has_made(path.as_str()) {
            return Ok(());
        }
        let prefix = format!("{path}/");
        let below = self.record.folders().filter(|folder| folder.starts_with(&prefix)).map(str::to_owned);
        let made: Vec<String> = [path.as_str().to_owned()].into_iter().chain(below).collect();
        made.iter().rev().try_for_each(|folder| self.remove_if_unused(folder).map(drop))
    }

    /// Removes a folder if configbump made it and it is empty; whether it did.
    fn remove_if_unused(&mut self, folder: &str) -> io::Result<bool> {
        let path = match RelPath::parse(folder) {
            Ok(path) if self.record.has_made(folder) => path,
            _ => return Ok(false),
        };
        let gone = match Place::open(self.root.as_fd(), &path) {
            Ok(place) => disk::remove_empty_folder(place.folder(), place.name)?,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if gone {
            self.record.unmade(folder)?;
        }
        Ok(gone)
    }

    /// For `--prune all`: removes every file, sub-folders included, that configbump did not write and that no object claims.
    /// What cannot be removed is told once. Gives the paths removed.
    pub fn remove_foreign(&mut self, is_claimed: impl Fn(&str) -> bool) -> Vec<String> {
        if self.prune != Prune::All {
            return Vec::new();
        }
        let is_set = self.staging.as_ref().is_some_and(Staging::is_set);
        let is_of_set =
            |record: &Record, path: &str| is_set && (path == DATA || record.generations().any(|name| name == path));
        let is_ours = |record: &Record, path: &str| is_claimed(path) || record.owns(path) || is_of_set(record, path);
        let Removal { removed, kept } = foreign::remove(self.root.as_fd(), &mut self.record, is_ours);
        let is_news = |(path, why): &(&String, &String)| self.foreign_kept.get(*path) != Some(*why);
        for (path, why) in kept.iter().filter(is_news).take(FOREIGN_KEPT_SHOWN_MAX) {
            tracing::warn!("cannot remove {path}, which nobody selected: {why}");
        }
        if let Some(more @ 1..) = kept.iter().filter(is_news).count().checked_sub(FOREIGN_KEPT_SHOWN_MAX) {
            tracing::warn!("cannot remove {more} more that nobody selected");
        }
        self.foreign_kept = kept;
        removed
    }
}

impl Drop for Store {
    /// Gives the lock up at once, even if a process that is just being started still has a copy of the handle.
    fn drop(&mut self) {
        // Where there are no locks there is none to give up.
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

/// What somebody can do about an error of a change.
fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::ISDIR) => "; a folder is in the way, move it away",
        // A symlink on the way is either of the two.
        Some(Errno::NOTDIR | Errno::LOOP) => "; what is no folder is in the way, move it away",
        Some(Errno::NOSPC | Errno::DQUOT) => "; make room, or raise the volume's size limit",
        Some(Errno::ACCESS | Errno::PERM) => "; run as the owner of the folder, or with its group",
        Some(Errno::ROFS) => "; mount it writable",
        Some(Errno::XDEV) => {
            "; its folder is a mount of its own, which cannot be written from here: mount the directory as a whole"
        }
        _ => "",
    }
}

fn open_root(dir: &Path) -> Result<OwnedFd, OpenError> {
    if dir.exists() && !dir.is_dir() {
        return Err(OpenError::NotADirectory { dir: dir.to_owned() });
    }
    std::fs::create_dir_all(dir).map_err(|error| OpenError::Make { dir: dir.to_owned(), error })?;
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| OpenError::Write { dir: dir.to_owned(), error: error.into() })
}

impl Effect {
    /// What somebody is to be told of.
    #[must_use]
    pub fn of_bump(self) -> Option<bump::Effect> {
        match self {
            Self::Written => Some(bump::Effect::Written),
            Self::Removed => Some(bump::Effect::Removed),
            Self::Staged | Self::Nothing => None,
        }
    }
}
