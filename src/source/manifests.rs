//! Objects from files: `--manifests`.
//!
//! Every path is a file of manifests or a folder of such files (not of folders), in YAML or JSON, with any number of
//! documents each. They are read in the order of the command line, in a folder by name, and followed from then on.
//!
//! A scan of all of them is a list. A file that did not change since the last scan is not read again; its objects are
//! reported as kept. So are those of a file that can't be used:
//!
//! - it is broken: no YAML, or with an object that an API server would refuse;
//! - somebody is writing it;
//! - the path itself, as given, can't be read, or is gone: an editor may be about to replace it, and nobody deletes
//!   configuration this way. (A file that is gone from a folder that can be read is gone with its objects.)
//!
//! If two documents are of one object, the one that is read first counts.
//!
//! A file may be away for a moment only, because it is being replaced or renamed. So a list is completed only if nothing
//! happened during the scan nor shortly before it. Otherwise what it found counts at once, but what it missed waits for the
//! next scan, which is due then. Where something happens all the time it waits no longer than [`PUT_OFF_MAX`], except for
//! files to which something happened during the very scan.
//!
//! Changes are noticed by their events in the folder of a file, and by those of the folder's own name in the folder above:
//! it may be moved, or be a link that is turned to another folder. Not so those that another machine makes on a network file
//! system, those to the far end of a link into another folder, and the move of a folder still further up: they are noticed
//! with the next event.

mod document;
mod file;
mod json;
mod ledger;
mod metadata;
mod node;
mod scalar;
mod stream;
mod text;
mod watch;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use self::document::{Found, Reader};
use self::file::Identity;
use self::ledger::{Ledger, Step};
use self::node::Problem;
use self::watch::Watch;
use crate::config::Selection;
use crate::content::Spool;
use crate::event::{Event, Scope, What};
use crate::printable;
use crate::threads::READERS;

/// For so long at most a list is not completed because something happens all the time.
const PUT_OFF_MAX: Duration = Duration::from_secs(5);

/// The wait before files are visited again that no thread could read; it doubles each time…
const RETRY_MIN: Duration = Duration::from_secs(1);
/// …up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Files and folders of manifests that were found, and what to follow in them.
#[derive(Debug)]
pub struct Manifests {
    paths: Vec<PathBuf>,
    selection: Selection,
    folder_annotation: Option<String>,
    watch: Watch,
}

/// Follows them.
#[derive(Debug)]
struct Follower {
    paths: Vec<PathBuf>,
    reader: Arc<Reader>,
    ledger: Ledger,
    watch: Watch,
    /// Since when no list was completed because something happened meanwhile.
    put_off: Option<Instant>,
    /// No thread could read a file in this scan.
    is_refused: bool,
    /// How long the next scan waits then.
    retry_wait: Duration,
}

/// Why manifests can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    #[error("{path}: {error}; give a file or folder that exists", path = printable::path(path))]
    Path { path: PathBuf, error: io::Error },
    #[error("cannot watch files: {0}; if there are too many, raise the limit fs.inotify.max_user_instances")]
    Watch(io::Error),
}

impl ManifestsError {
    /// Whether an option is wrong, rather than the world.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Path { .. })
    }
}

/// The receiver of the events is gone.
struct Gone;

/// What became of reading a file.
enum Reading {
    Good(Identity, Vec<Found>),
    Broken(Option<Identity>, Problem),
    /// It changed meanwhile.
    Unsettled,
}

impl Manifests {
    /// Checks that every path exists, and begins to watch them; nothing is read yet. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// Fails if a path does not exist, or the system has no instance of inotify left.
    pub fn find(
        paths: Vec<PathBuf>,
        selection: Selection,
        folder_annotation: Option<String>,
    ) -> Result<Self, ManifestsError> {
        for path in &paths {
            fs::metadata(path).map_err(|error| ManifestsError::Path { path: path.clone(), error })?;
        }
        let watch = Watch::new(&paths).map_err(ManifestsError::Watch)?;
        Ok(Self { paths, selection, folder_annotation, watch })
    }

    /// The only scope, which covers everything.
    #[must_use]
    pub fn scopes() -> Vec<Scope> {
        vec![Scope { kind: None, namespace: None, name: None }]
    }

    /// Reports everything, then everything again after each change, until the receiver is gone. After `resync`, what did
    /// not change is reported in full, too.
    ///
    /// A list is not completed as long as there is something that was never read because it can't be: what an earlier run
    /// placed for it must stay.
    pub async fn run(self, spool: Spool, events: Sender<Event>, resync: Arc<Notify>) {
        let Self { paths, selection, folder_annotation, watch } = self;
        let ledger = Ledger::new(paths.iter().map(PathBuf::as_path));
        let reader = Arc::new(Reader { selection, folder_annotation, spool });
        let mut follower =
            Follower { paths, reader, ledger, watch, put_off: None, is_refused: false, retry_wait: RETRY_MIN };
        while follower.scan(&events).await.is_ok() {
            let retry = follower.retry();
            tokio::select! {
                () = follower.watch.changed() => {}
                () = watch::until(retry) => {}
                () = resync.notified() => follower.ledger.forget_all(),
                () = events.closed() => return,
            }
        }
    }
}

impl Follower {
    async fn scan(&mut self, events: &Sender<Event>) -> Result<(), Gone> {
        let changes = self.watch.take();
        changes.files.iter().for_each(|path| self.ledger.forget(path));
        if changes.anything {
            self.ledger.forget_all();
        }
        self.is_refused = false;
        self.ledger.begin();
        send(events, What::ListStarted).await?;
        for root in 0..self.paths.len() {
            let path = self.paths[root].clone();
            match list(&path) {
                Ok(files) => {
                    self.ledger.root_is_readable(root);
                    for file in files {
                        let step = self.visit(root, &file.into()).await;
                        report(step, events).await?;
                    }
                }
                Err(error) => report(self.ledger.root_failed(root, &error.to_string()), events).await?,
            }
        }
        self.end(events).await
    }

    /// Completes the list, or puts that off.
    async fn end(&mut self, events: &Sender<Event>) -> Result<(), Gone> {
        if !self.watch.is_calm() {
            self.watch.look_again();
            if self.put_off.get_or_insert_with(Instant::now).elapsed() < PUT_OFF_MAX {
                return Ok(());
            }
        }
        self.put_off = None;
        for path in self.ledger.missing() {
            if self.watch.is_unsettled(&path) {
                report(self.ledger.keep_missing(&path), events).await?;
            }
        }
        if self.ledger.end() {
            send(events, What::ListDone).await?;
        }
        Ok(())
    }

    /// Visits a file, and reads it if need be.
    async fn visit(&mut self, root: usize, path: &Arc<Path>) -> Step {
        if !self.ledger.visit(root, path) {
            return Step::default();
        }
        let identity = match file::look(path) {
            Ok(Some(identity)) => identity,
            Ok(None) => return self.gone(root, path),
            Err(text) => return self.ledger.failed(path, None, Problem::whole(text)),
        };
        if self.ledger.is_unchanged(path, identity) || self.watch.is_unsettled(path) {
            return self.ledger.keep(path);
        }
        // A file of very many documents takes a while, in which nothing else may wait for it.
        let (reader, file) = (Arc::clone(&self.reader), Arc::clone(path));
        let reading = READERS.run(move || read(&reader, &file)).await;
        match reading.unwrap_or_else(|error| {
            self.is_refused = true;
            Reading::Broken(None, Problem::whole(error.to_string()))
        }) {
            _ if self.watch.is_unsettled(path) => self.ledger.keep(path),
            Reading::Good(identity, found) => self.ledger.read(path, identity, found),
            Reading::Broken(identity, problem) => self.ledger.failed(path, identity, problem),
            Reading::Unsettled => {
                self.watch.suspect(path);
                self.ledger.keep(path)
            }
        }
    }

    /// Returns when to scan again although nothing changes, because no thread could read a file.
    fn retry(&mut self) -> Option<Instant> {
        if !self.is_refused {
            self.retry_wait = RETRY_MIN;
            return None;
        }
        let at = Instant::now() + self.retry_wait;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
        Some(at)
    }

    /// A file that was listed is a folder, or was taken away this instant.
    fn gone(&mut self, root: usize, path: &Arc<Path>) -> Step {
        self.ledger.gone(path);
        if path.is_dir() {
            return Step::default();
        }
        // Its event may still be on its way.
        self.watch.look_again();
        if **path == *self.paths[root] { self.ledger.keep_missing(path) } else { Step::default() }
    }
}

fn read(reader: &Reader, path: &Path) -> Reading {
    let (file, identity) = match file::open(path) {
        Ok(opened) => opened,
        Err(text) => return Reading::Broken(None, Problem::whole(text)),
    };
    let mut bytes = Vec::new();
    let read = match (&file).take(file::FILE_BYTES_MAX).read_to_end(&mut bytes) {
        Ok(_) => reader.read(&bytes, path),
        Err(error) => Err(Problem::whole(error.to_string())),
    };
    match (file::identify(&file), read) {
        (Ok(after), _) if after != identity => Reading::Unsettled,
        (Err(_), _) => Reading::Unsettled,
        (Ok(_), Ok(found)) => Reading::Good(identity, found),
        (Ok(_), Err(problem)) => Reading::Broken(Some(identity), problem),
    }
}

/// The files at a path: itself, or those in it.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(path)?.is_dir() { file::list(path) } else { Ok(vec![path.to_owned()]) }
}

async fn report(step: Step, events: &Sender<Event>) -> Result<(), Gone> {
    step.warnings.iter().for_each(|line| tracing::warn!("{line}"));
    step.notes.iter().for_each(|line| tracing::info!("{line}"));
    for what in step.whats {
        send(events, what).await?;
    }
    Ok(())
}

async fn send(events: &Sender<Event>, what: What) -> Result<(), Gone> {
    events.send(Event { scope: 0, what }).await.map_err(|_| Gone)
}
