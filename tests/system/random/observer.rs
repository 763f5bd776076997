//! Reader of DIR that checks at every moment what the contract promises for every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::model::{self, BAD, Layout, Name, Tree, Version};
use crate::harness::poller::Poller;
use crate::harness::wait::STEP;
use crate::harness::workspace::{DATA, Files};

/// Everything that a file may hold, and the files that may not be away.
#[derive(Default)]
pub struct Known {
    /// Whole contents by their first line.
    contents: BTreeMap<String, Vec<u8>>,
    /// Paths with the first line that was given to each.
    given: BTreeSet<(String, String)>,
    /// File that exists at every moment.
    pinned: Option<String>,
    /// Files that the deletion guard keeps until this moment.
    kept: Option<(Vec<String>, Instant)>,
    /// `..data` is a whole set.
    is_set: bool,
    /// The first violation.
    violation: Option<String>,
}

/// Reads DIR on a thread of its own until it is dropped.
pub struct Observer {
    known: Arc<Mutex<Known>>,
    _poller: Poller<u64>,
}

impl Observer {
    pub fn of(dir: PathBuf) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        let shared = Arc::clone(&known);
        let poller = Poller::start(move |looks: &mut u64| {
            *looks += 1;
            let violation = look(&dir, &shared);
            let mut known = lock(&shared);
            if known.violation.is_none() {
                known.violation = violation;
            }
            drop(known);
            thread::sleep(STEP / 4);
        });
        Self { known, _poller: poller }
    }

    /// Lets files hold the values of this version from now on.
    pub fn give(&self, namespaces: &[String], name: &Name, version: &Version) {
        for layout in Layout::ALL {
            for (path, value) in model::paths(layout, namespaces, name, version) {
                self.give_file(&path, value.as_bytes());
            }
        }
    }

    pub fn give_file(&self, path: &str, content: &[u8]) {
        let mut known = lock(&self.known);
        known.contents.insert(model::head(content), content.to_vec());
        known.given.insert((path.to_owned(), model::head(content)));
    }

    /// Reports a violation if this file is away from now on.
    pub fn pin(&self, path: Option<String>) {
        lock(&self.known).pinned = path;
    }

    /// Reports a violation if one of these files is away before this moment.
    pub fn keep_until(&self, paths: Vec<String>, until: Instant) {
        lock(&self.known).kept = Some((paths, until));
    }

    /// Checks that `..data` is one generation, from now on or no longer.
    pub fn is_set(&self, is_set: bool) {
        lock(&self.known).is_set = is_set;
    }

    /// # Panics
    ///
    /// If the contract was violated at any moment.
    pub fn saw_no_violation(&self) {
        let violation = lock(&self.known).violation.clone();
        assert_eq!(violation, None, "the contract was violated at some moment");
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads all files once. Returns the violation that it found.
fn look(dir: &Path, known: &Mutex<Known>) -> Option<String> {
    let (pinned, kept, is_set) = {
        let known = lock(known);
        (known.pinned.clone(), known.kept.clone(), known.is_set)
    };
    let is_away = |path: &String| fs::read(dir.join(path)).is_err().then(|| path.clone());
    let away = pinned.as_ref().and_then(is_away);
    let gone: Vec<String> = kept.iter().flat_map(|(paths, _)| paths).filter_map(is_away).collect();
    // The moment is after the look: a file may go while the thread waits for the processor.
    let is_early = kept.is_some_and(|(_, until)| Instant::now() < until);
    let files = Files::below(dir).into_map();
    let set =
        is_set.then(|| fs::canonicalize(dir.join(DATA)).ok()).flatten().map(|tree| Files::below(&tree).into_map());
    let known = lock(known);
    let is_pinned_still = known.pinned == pinned;
    let missing = away.filter(|_| is_pinned_still).map(|path| format!("{path} is away"));
    let early = (is_early && !gone.is_empty()).then(|| format!("{gone:?} went before the hold was over"));
    let of_set = set.and_then(|tree| mixture(&tree).or_else(|| known.foreign(&tree)));
    missing.or(early).or_else(|| known.foreign(&files)).or(of_set)
}

impl Known {
    /// Finds a file that is not whole, that nothing gave its content, or that a check has refused.
    fn foreign(&self, files: &Tree) -> Option<String> {
        files.iter().find_map(|(path, content)| {
            let head = model::head(content);
            let is_whole = self.contents.get(&head) == Some(content);
            let is_given = is_whole && self.given.contains(&(path.clone(), head.clone()));
            (!is_given || head.ends_with(BAD))
                .then(|| format!("{path} holds {} bytes that begin with {head:?}", content.len()))
        })
    }
}

/// Finds two files of one object, of which the set holds different versions.
fn mixture(files: &Tree) -> Option<String> {
    let mut versions = BTreeMap::new();
    files.values().find_map(|content| {
        let head = model::head(content);
        let mut words = head.split(' ').map(str::to_owned);
        let (object, version) = (words.next()?, words.next()?);
        let before = versions.insert(object.clone(), version.clone())?;
        (before != version).then(|| format!("the set holds {before} and {version} of {object}"))
    })
}
