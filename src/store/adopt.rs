//! What an earlier run has left, perhaps published in another way or half done, and what it becomes.
//!
//! From files to a set and back, no file is missing at any moment: a link takes the place of a file by a rename, and a file
//! that of a link.

use std::io;
use std::os::fd::AsFd;

use super::Store;
use super::generation::{Generation, is_absence, is_name, regular};
use super::publish::{DATA, Publishing, Staging, link_target};
use crate::disk::{self, Place};
use crate::path::RelPath;

impl Store {
    /// Goes on in this way of publishing, at once if there is none. No file is missing at any moment.
    pub(super) fn go_on(&mut self, publishing: Option<Publishing>) -> io::Result<()> {
        let set = self.set_on_disk()?;
        if let Some(set) = set.as_ref().filter(|_| publishing.is_none_or(|publishing| !publishing.set)) {
            self.leave_set(set)?;
        }
        let Some(publishing) = publishing else {
            let all: Vec<String> = self.record.generations().map(str::to_owned).collect();
            for name in &all {
                if let Err(error) = self.try_retire(name) {
                    tracing::warn!(
                        "cannot remove {name}, a tree of an earlier run: {error}; the next start tries again"
                    );
                }
            }
            return Ok(());
        };
        let live = if publishing.set { set } else { self.live_files(set.is_some())? };
        let is_new = live.is_none();
        let keeps_unknown = is_new && publishing.set && self.has_unknown_set()?;
        let tree = match live {
            None if publishing.keeps_trees() => Some(self.tree_of_files(publishing)?),
            live => live,
        };
        let name = tree.as_ref().map(|tree| tree.name().to_owned());
        // A reader may hold the tree before.
        let before =
            self.record.generations().take_while(|known| name.as_deref().is_some_and(|name| *known < name)).last();
        let previous = before.filter(|_| publishing.set && !is_new).map(str::to_owned);
        // Nobody has taken a directory that is new: the first files have nothing to go back to.
        let is_good = !self.is_untold() && self.record.count_owned() > 0;
        self.staging = Some(Staging::new(publishing, tree, previous, is_good));
        if let Some(name) = name {
            if !keeps_unknown && (is_new || publishing.set && self.linked()?.as_ref() != Some(&name)) {
                self.turn_to(&name)?;
            }
            if !self.record.is_shown(&name)
                && let Some(error) = self.complete()?.error
            {
                tracing::warn!("{error}; it is tried again with the next publish");
            }
        }
        if publishing.keeps_good {
            let noted = if is_good { self.record.note_good() } else { self.find_good() };
            if let Err(error) = noted {
                tracing::warn!("{error}; what the program refuses may find no way back");
            }
        }
        self.staging.iter_mut().for_each(Staging::let_go);
        self.retire_unused();
        Ok(())
    }

    /// The live tree of a set. Anybody might have turned `..data`: only a tree that the record knows is one. Else it is the one
    /// that was to be the live one last.
    fn set_on_disk(&self) -> io::Result<Option<Generation>> {
        let linked = self.linked()?.filter(|name| self.record.generations().any(|known| known == name));
        for name in linked.as_deref().into_iter().chain(self.record.live()) {
            if let Some(tree) = Generation::open(self.root.as_fd(), name)? {
                return Ok(Some(tree));
            }
        }
        Ok(None)
    }

    /// Whether readers have a set that the record does not know, as after a power failure that took it. What it has is all
    /// there is until the source has told everything: it stays live until the first publish.
    fn has_unknown_set(&self) -> io::Result<bool> {
        match self.linked()?.filter(|name| is_name(name) && self.record.live().is_none()) {
            Some(name) => Ok(Generation::open(self.root.as_fd(), &name)?.is_some()),
            None => Ok(false),
        }
    }

    /// Where `..data` leads, if it is a link.
    fn linked(&self) -> io::Result<Option<String>> {
        disk::read_link(self.root.as_fd(), DATA)
    }

    /// The live tree of files that are published one after the other, unless they were a set since.
    fn live_files(&self, was_set: bool) -> io::Result<Option<Generation>> {
        match self.record.live().filter(|_| !was_set) {
            Some(name) => Generation::open(self.own.as_fd(), name),
            None => Ok(None),
        }
    }

    /// Exchanges every link into a set for its file.
    fn leave_set(&mut self, set: &Generation) -> io::Result<()> {
        for (path, _) in self.record.owned() {
            let Some(place) = self.link_at(path)? else { continue };
            let left = match regular(set.folder(), path)? {
                Some(file) => match self.spool.link(file.folder(), file.name) {
                    Ok(file) => file.publish(place.folder(), place.name),
                    // Others have made of it what is no file of configbump's.
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {
                        disk::unlink(place.folder(), place.name).map(drop)
                    }
                    Err(error) => Err(error),
                },
                None => disk::unlink(place.folder(), place.name).map(drop),
            };
            match left {
                // The folder is another user's, and the link, too.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!("cannot make a file of the link {path}: {error}");
                }
                left => left?,
            }
        }
        // What is no link is somebody else's.
        match self.linked()? {
            Some(_) => disk::unlink(self.root.as_fd(), DATA).map(drop),
            None => Ok(()),
        }
    }

    /// A tree of the files that are configbump's.
    fn tree_of_files(&mut self, publishing: Publishing) -> io::Result<Generation> {
        let name = self.announce_tree()?;
        let tree = Generation::make(self.home(publishing), &name, self.spool.permissions())?;
        for (path, _) in self.record.owned() {
            tree.take_over(path, self.root.as_fd(), &self.spool)?;
        }
        Ok(tree)
    }

    /// The place of a path, if a link into a set stands there.
    pub(super) fn link_at<'a>(&'a self, path: &'a RelPath) -> io::Result<Option<Place<'a>>> {
        let place = match Place::open(self.root.as_fd(), path) {
            Ok(place) => place,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_link = disk::read_link(place.folder(), place.name)? == Some(link_target(path));
        Ok(is_link.then_some(place))
    }
}
