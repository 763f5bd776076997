//! Notices that something happens to manifests, and says when it is over. Nothing wakes it while nothing happens.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::future;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::file;
use crate::printable;

/// Changes that follow each other within this time are one.
pub const QUIET: Duration = Duration::from_millis(50);
/// But nothing is put off for longer than this.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// For so long a file that somebody has begun to write is left alone. Then it is read although nobody has closed it: what
/// truncates a file by its path never opens it.
const WRITING_MAX: Duration = Duration::from_secs(10);
/// How soon, and then how often at least, a folder that can't be watched is tried again.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Room for a few dozen events; one takes at most 16 bytes and a name of 256.
const BUFFER_BYTES: usize = 4096;

/// The watch on the folders of all manifests.
#[derive(Debug)]
pub struct Watch {
    inotify: AsyncFd<Inotify>,
    log: Log,
}

/// What happened since it was asked for the last time.
#[derive(Debug, Default)]
pub struct Changes {
    /// Events may have been missed: any file may have changed.
    pub anything: bool,
    /// Files that may have changed.
    pub files: HashSet<PathBuf>,
}

/// What the events have said.
#[derive(Debug)]
struct Log {
    folders: Vec<Folder>,
    changes: Changes,
    /// Whether something happened that should be looked at.
    due: bool,
    /// When that was, the last time.
    last: Option<Instant>,
    /// The files that somebody writes at the moment, by the last time that this was seen.
    written: HashMap<PathBuf, Instant>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Whether every manifest in it matters, or only those that were named.
    all: bool,
    files: HashSet<OsString>,
    /// The watched folders in it, or links to them: when one is replaced, the one that was watched does not tell.
    folders: HashSet<OsString>,
    state: State,
}

#[derive(Debug)]
enum State {
    Watched(WatchDescriptor),
    /// To be watched at this time, and if that fails, after this delay again.
    Lost {
        at: Instant,
        delay: Duration,
        reported: Option<String>,
    },
}

impl Watch {
    /// Watches the folders among the paths, the folders that the files among them are in, and in the folder above each of
    /// these what becomes of its name. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// Fails if the system has no instance of inotify left. A folder that can't be watched is reported and tried again.
    pub fn new(paths: &[PathBuf]) -> io::Result<Self> {
        #[allow(
            deprecated,
            reason = "what replaces it is unsafe, for the sake of types that may change their descriptor"
        )]
        let inotify = AsyncFd::with_interest(Inotify::init()?, Interest::READABLE)?;
        let mut folders = Vec::new();
        for path in paths {
            let watched = match path.file_name().filter(|_| !path.is_dir()) {
                Some(name) => {
                    let parent = path.parent().unwrap_or(Path::new(""));
                    folder(&mut folders, parent).files.insert(name.to_owned());
                    parent
                }
                None => {
                    folder(&mut folders, path).all = true;
                    path
                }
            };
            if let (Some(above), Some(name)) = (watched.parent(), watched.file_name()) {
                folder(&mut folders, above).folders.insert(name.to_owned());
            }
        }
        let mut log = Log { folders, changes: Changes::default(), due: false, last: None, written: HashMap::new() };
        log.watch_the_lost(&mut inotify.get_ref().watches());
        log.changes = Changes::default();
        Ok(Self { inotify, log })
    }

    /// Waits until something happened and is over. Nothing is lost if the wait is given up.
    pub async fn changed(&mut self) {
        while !self.log.due {
            let alarm = self.log.alarm();
            tokio::select! {
                () = until(alarm) => self.log.ring(&mut self.inotify.get_ref().watches()),
                _ = readable(&mut self.inotify, &mut self.log) => {}
            }
        }
        let end = Instant::now() + QUIET_MAX;
        let mut quiet = Instant::now() + QUIET;
        while Instant::now() < quiet.min(end) {
            tokio::select! {
                () = sleep_until(quiet.min(end)) => {}
                matters = readable(&mut self.inotify, &mut self.log) => if matters { quiet = Instant::now() + QUIET },
            }
        }
        self.log.watch_the_lost(&mut self.inotify.get_ref().watches());
    }

    /// What happened since the last call. From now on the folders are watched that stand at their paths now.
    pub fn take(&mut self) -> Changes {
        self.log.drain(self.inotify.get_mut());
        self.log.due = false;
        self.log.watch_the_replaced(&mut self.inotify.get_ref().watches());
        std::mem::take(&mut self.log.changes)
    }

    /// Whether nothing happened since the changes were taken, nor shortly before: nothing that was missing was away for a
    /// moment only.
    pub fn is_calm(&mut self) -> bool {
        self.log.drain(self.inotify.get_mut());
        !self.log.due && self.log.last.is_none_or(|last| last.elapsed() >= QUIET)
    }

    /// Makes [`Watch::changed`] return as soon as it is calm, although nothing more happens.
    pub fn look_again(&mut self) {
        self.log.due = true;
    }

    /// Whether a file can't be relied on at the moment: somebody writes it, or it changed since the changes were taken.
    pub fn is_unsettled(&mut self, path: &Path) -> bool {
        self.log.drain(self.inotify.get_mut());
        let Log { changes, written, .. } = &self.log;
        changes.anything || changes.files.contains(path) || written.contains_key(path)
    }

    /// Treats a file as one that somebody writes, although no event has said so.
    pub fn suspect(&mut self, path: &Path) {
        self.log.written.insert(path.to_owned(), Instant::now());
    }
}

/// The folder with this path, made if it is missing.
fn folder<'f>(folders: &'f mut Vec<Folder>, path: &Path) -> &'f mut Folder {
    let at = folders.iter().position(|folder| folder.path == path).unwrap_or_else(|| {
        let state = State::Lost { at: Instant::now(), delay: RETRY, reported: None };
        let (files, folders_in_it) = (HashSet::new(), HashSet::new());
        folders.push(Folder { path: path.to_owned(), all: false, files, folders: folders_in_it, state });
        folders.len() - 1
    });
    &mut folders[at]
}

/// Waits until then, or for ever.
pub async fn until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}

/// Waits for events and takes them in. Returns whether one of them matters.
async fn readable(inotify: &mut AsyncFd<Inotify>, log: &mut Log) -> bool {
    match inotify.readable_mut().await {
        Ok(mut guard) => {
            let matters = log.drain(guard.get_inner_mut());
            guard.clear_ready();
            matters
        }
        // The runtime is about to end.
        Err(_) => future::pending().await,
    }
}

impl Log {
    /// Takes in the events that are there, without waiting. Returns whether one of them matters.
    fn drain(&mut self, inotify: &mut Inotify) -> bool {
        let mut watches = inotify.watches();
        let mut matters = false;
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            match inotify.read_events(&mut buffer) {
                Ok(events) => events.for_each(|event| matters |= self.note(&event, &mut watches)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.lose(&format!("cannot read what happened to the manifests: {error}"));
                    }
                    return matters;
                }
            }
        }
    }

    /// Takes in an event. Returns whether it matters.
    fn note(&mut self, event: &Event<&OsStr>, watches: &mut Watches) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.lose("more happened to the manifests than the system could report");
            return true;
        }
        let mut matters = false;
        for folder in &mut self.folders {
            if !folder.is_watched_by(&event.wd) {
                continue;
            }
            let Some(name) = event.name else {
                matters |= folder.note(event, watches);
                continue;
            };
            if !folder.minds(name) {
                continue;
            }
            let path = folder.path.join(name);
            self.changes.files.insert(path.clone());
            if event.mask.contains(EventMask::MODIFY) {
                self.written.insert(path, Instant::now());
                continue;
            }
            if event.mask.contains(EventMask::CREATE) && file::has_just_been_made(&path) {
                // It is empty still, or was when this was reported; the end of its writing will be reported as well.
                self.written.insert(path, Instant::now());
            } else if !event.mask.contains(EventMask::ATTRIB) {
                self.written.remove(&path);
            }
            matters = true;
        }
        if matters {
            self.happened();
        }
        matters
    }

    fn happened(&mut self) {
        self.due = true;
        self.last = Some(Instant::now());
    }

    /// Events were missed.
    fn lose(&mut self, why: &str) {
        tracing::warn!("{why}; all of them are read again");
        self.written.clear();
        self.changes.anything = true;
        self.happened();
    }

    /// When there is something to do although nothing happens.
    fn alarm(&self) -> Option<Instant> {
        let retries = self.folders.iter().filter_map(|folder| match folder.state {
            State::Watched(_) => None,
            State::Lost { at, .. } => Some(at),
        });
        retries.chain(self.written.values().map(|last| *last + WRITING_MAX)).min()
    }

    fn ring(&mut self, watches: &mut Watches) {
        self.watch_the_lost(watches);
        let now = Instant::now();
        let before = self.written.len();
        self.written.retain(|_, last| now < *last + WRITING_MAX);
        self.due |= self.written.len() < before;
    }

    /// Tries again to watch the folders that are not watched, if it is time or something came to their path. They are looked
    /// at in any case.
    fn watch_the_lost(&mut self, watches: &mut Watches) {
        let now = Instant::now();
        for folder in &mut self.folders {
            let State::Lost { at, .. } = folder.state else { continue };
            if at <= now || self.changes.files.contains(&folder.path) {
                self.due = true;
                self.changes.anything |= folder.watch(now, watches);
            }
        }
    }

    /// Watches what stands at the paths of the watched folders now. A folder that is still the same stays watched as it is.
    fn watch_the_replaced(&mut self, watches: &mut Watches) {
        let now = Instant::now();
        let mut replaced = Vec::new();
        for folder in &mut self.folders {
            let State::Watched(descriptor) = &folder.state else { continue };
            let before = descriptor.clone();
            folder.state = State::Lost { at: now, delay: RETRY, reported: None };
            folder.watch(now, watches);
            if !folder.is_watched_by(&before) {
                self.changes.anything = true;
                replaced.push(before);
            }
        }
        for descriptor in replaced {
            if !self.folders.iter().any(|folder| folder.is_watched_by(&descriptor))
                && let Err(error) = watches.remove(descriptor)
            {
                tracing::debug!("the watch of a folder that was replaced was removed already: {error}");
            }
        }
    }
}

impl Folder {
    fn is_watched_by(&self, descriptor: &WatchDescriptor) -> bool {
        matches!(&self.state, State::Watched(own) if own == descriptor)
    }

    fn minds(&self, name: &OsStr) -> bool {
        // The files of a kubelet's volume are links through one that is replaced as a whole: `..data`.
        name.as_bytes().starts_with(b"..")
            || self.files.contains(name)
            || self.folders.contains(name)
            || self.all && file::is_manifest(name)
    }

    /// The events to ask for. Another path may lead to the same folder, and its events stay.
    fn mask(&self) -> WatchMask {
        let entries = WatchMask::CREATE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::MASK_ADD;
        if self.all || !self.files.is_empty() {
            entries | WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::EXCL_UNLINK
        } else {
            entries
        }
    }

    /// Takes in an event of the folder itself. Returns whether it matters.
    fn note(&mut self, event: &Event<&OsStr>, watches: &mut Watches) -> bool {
        let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED;
        if !event.mask.intersects(gone) {
            return false;
        }
        if event.mask.contains(EventMask::MOVE_SELF)
            && let Err(error) = watches.remove(event.wd.clone())
        {
            tracing::debug!("{}: the watch was removed already: {error}", printable::path(&self.path));
        }
        self.state = State::Lost { at: Instant::now(), delay: RETRY, reported: None };
        true
    }

    /// Tries to watch the folder. Returns whether that succeeded.
    fn watch(&mut self, now: Instant, watches: &mut Watches) -> bool {
        let mask = self.mask();
        let State::Lost { delay, reported, .. } = &mut self.state else { return true };
        let path = if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path };
        match watches.add(path, mask) {
            Ok(descriptor) => {
                if reported.is_some() {
                    tracing::info!("{}: is watched again", printable::path(path));
                }
                self.state = State::Watched(descriptor);
                true
            }
            Err(error) => {
                let error = explain(&error);
                if reported.as_ref() != Some(&error) {
                    let (path, seconds) = (printable::path(path), RETRY_MAX.as_secs());
                    tracing::warn!("{path}: cannot be watched: {error}; it is looked at every {seconds} s instead");
                }
                let next = (*delay * 2).min(RETRY_MAX);
                self.state = State::Lost { at: now + *delay, delay: next, reported: Some(error) };
                false
            }
        }
    }
}

/// The error with its remedy, where the system's own words mislead.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the limit fs.inotify.max_user_watches is reached; raise it".to_owned(),
        _ => error.to_string(),
    }
}
