//! What each file held when it was last read, and what follows from that for a list. No input and no output.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::document::Found;
use super::file::Identity;
use super::node::Problem;
use crate::event::What;
use crate::object::ObjectKey;
use crate::printable;

/// What one file comes to in a list.
#[derive(Debug, Default)]
pub struct Step {
    pub whats: Vec<What>,
    /// Warnings for the log, each of them once until there is something else to say.
    pub warnings: Vec<String>,
    /// What the log should say besides.
    pub notes: Vec<String>,
}

/// The files and their objects. A list begins, visits every path that was given and every file in it, in order, and ends; or
/// it is given up, and another one begins.
#[derive(Debug)]
pub struct Ledger {
    roots: Vec<Root>,
    files: BTreeMap<Arc<Path>, Held>,
    /// The objects of the running list, by who has them.
    claims: HashMap<Arc<ObjectKey>, Origin>,
    /// The files of the running list.
    seen: HashSet<Arc<Path>>,
    /// Whether the running list lacks nothing that could be known.
    complete: bool,
    /// Whether a list was ever complete: since then a file that was never read is known to have held nothing.
    completed: bool,
}

/// One of the paths that were given.
#[derive(Debug)]
struct Root {
    path: Arc<Path>,
    /// Whether it was ever looked into.
    known: bool,
    reported: Option<String>,
}

/// What is known of a file.
#[derive(Debug)]
struct Held {
    root: usize,
    /// The state that was read last, be it broken or not. `None`: it has to be read again.
    identity: Option<Identity>,
    /// What was in it when it was last read without a problem. `None`: that never was.
    objects: Option<Vec<Holding>>,
    /// The problem that was reported, and the state of the file that had it.
    reported: Option<(Option<Identity>, Problem)>,
}

/// An object in a file.
#[derive(Debug)]
struct Holding {
    key: Arc<ObjectKey>,
    line: u64,
    /// The file that comes first and has the object, too; it is that one's then.
    shadowed_by: Option<Arc<Path>>,
}

#[derive(Clone, Debug)]
struct Origin {
    path: Arc<Path>,
    line: u64,
}

/// How many objects of a file the log names at a time that another one has, too.
const SHADOWS_MAX: usize = 10;

impl Step {
    /// These objects of a file, with their lines, are those of others.
    fn warn_of(&mut self, path: &Path, shadows: &[(Arc<ObjectKey>, u64, Origin)]) {
        let lines = shadows.iter().take(SHADOWS_MAX).map(|(key, line, winner)| shadow(key, path, *line, winner));
        self.warnings.extend(lines);
        if let Some(more @ 1..) = shadows.len().checked_sub(SHADOWS_MAX) {
            self.warnings.push(format!("{}: {more} more objects stand elsewhere, too", printable::path(path)));
        }
    }
}

impl Ledger {
    /// `roots` are the files and folders that will be visited.
    pub fn new<'p>(roots: impl IntoIterator<Item = &'p Path>) -> Self {
        let root = |path: &Path| Root { path: path.into(), known: false, reported: None };
        Self {
            roots: roots.into_iter().map(root).collect(),
            files: BTreeMap::new(),
            claims: HashMap::new(),
            seen: HashSet::new(),
            complete: true,
            completed: false,
        }
    }

    /// Makes every file be read again.
    pub fn forget_all(&mut self) {
        self.files.values_mut().for_each(|held| held.identity = None);
    }

    /// Makes a file be read again.
    pub fn forget(&mut self, path: &Path) {
        if let Some(held) = self.files.get_mut(path) {
            held.identity = None;
        }
    }

    pub fn begin(&mut self) {
        // Another file may have what they held, if the last list was given up.
        self.missing().iter().for_each(|path| self.forget(path));
        self.claims.clear();
        self.seen.clear();
        self.complete = true;
    }

    /// Ends the list: what was not visited is gone. Returns whether that is certain. It is not as long as something could
    /// never be read, since an earlier run may have placed what is in it.
    pub fn end(&mut self) -> bool {
        self.files.retain(|path, _| self.seen.contains(path));
        self.claims.clear();
        self.completed |= self.complete;
        self.completed
    }

    /// The root could be looked into.
    pub fn root_is_readable(&mut self, root: usize) {
        self.roots[root].known = true;
        self.roots[root].reported = None;
    }

    /// The root can't be looked into: all its files keep what they held.
    pub fn root_failed(&mut self, root: usize, error: &str) -> Step {
        let Root { path, known, reported } = &mut self.roots[root];
        let mut step = Step::default();
        if reported.as_deref() != Some(error) {
            let consequence = consequence(*known, self.completed);
            step.warnings.push(format!("{}: {error}{consequence}", printable::path(path)));
            *reported = Some(error.to_owned());
        }
        self.complete &= *known;
        let files: Vec<_> =
            self.files.iter().filter(|(_, held)| held.root == root).map(|(path, _)| Arc::clone(path)).collect();
        for path in files {
            if self.seen.insert(Arc::clone(&path)) {
                self.hold(&path, &mut step);
            }
        }
        step
    }

    /// Visits a file. Returns whether that is the first time in this list.
    pub fn visit(&mut self, root: usize, path: &Arc<Path>) -> bool {
        let first = self.seen.insert(Arc::clone(path));
        if first {
            let held = Held { root, identity: None, objects: None, reported: None };
            self.files.entry(Arc::clone(path)).or_insert(held).root = root;
        }
        first
    }

    /// The visited file is not there, after all.
    pub fn gone(&mut self, path: &Path) {
        self.seen.remove(path);
    }

    /// The files that were there before, and so far not in this list.
    pub fn missing(&self) -> Vec<Arc<Path>> {
        self.files.keys().filter(|path| !self.seen.contains(*path)).map(Arc::clone).collect()
    }

    /// A missing file keeps what it held, if nothing else has it by now: it may be away for a moment only.
    pub fn keep_missing(&mut self, path: &Arc<Path>) -> Step {
        let mut step = Step::default();
        self.forget(path);
        let Some(held) = self.files.get(path) else { return step };
        self.seen.insert(Arc::clone(path));
        self.complete &= held.objects.is_some();
        for Holding { key, line, .. } in held.objects.iter().flatten() {
            if !self.claims.contains_key(key) {
                self.claims.insert(Arc::clone(key), Origin { path: Arc::clone(path), line: *line });
                step.whats.push(What::Keep(Arc::clone(key)));
            }
        }
        step
    }

    /// Whether the visited file need not be read: it is as it was, and it gains no object that another file had until now.
    pub fn is_unchanged(&self, path: &Path, identity: Identity) -> bool {
        self.files.get(path).is_some_and(|held| {
            let gains = |holding: &Holding| {
                let by_another_file = holding.shadowed_by.as_deref().is_some_and(|winner| winner != path);
                by_another_file && !self.claims.contains_key(&holding.key)
            };
            held.identity == Some(identity) && (held.reported.is_some() || !held.objects.iter().flatten().any(gains))
        })
    }

    /// The visited file keeps what it held: it is unchanged, or it can't be read just now.
    pub fn keep(&mut self, path: &Path) -> Step {
        let mut step = Step::default();
        self.hold(path, &mut step);
        step
    }

    /// The visited file is broken in this state, or can't even be opened: it keeps what it held.
    pub fn failed(&mut self, path: &Path, identity: Option<Identity>, problem: Problem) -> Step {
        let mut step = Step::default();
        if let Some(held) = self.files.get_mut(path) {
            let consequence = consequence(held.objects.is_some(), self.completed);
            let report = (identity, problem);
            if held.reported.as_ref() != Some(&report) {
                step.warnings.push(format!("{}: {}{consequence}", place(path, report.1.line), report.1.text));
            }
            held.identity = identity;
            held.reported = Some(report);
        }
        self.hold(path, &mut step);
        step
    }

    /// The visited file was read in this state, and these are its objects.
    pub fn read(&mut self, path: &Arc<Path>, identity: Identity, found: Vec<Found>) -> Step {
        let mut step = Step::default();
        let Some(held) = self.files.get_mut(path) else { return step };
        if held.reported.take().is_some() {
            step.notes.push(format!("{}: can be read again", printable::path(path)));
        }
        let before = held.objects.take().unwrap_or_default();
        let reported: HashSet<_> =
            before.iter().filter_map(|Holding { key, shadowed_by, .. }| Some((key, shadowed_by.as_ref()?))).collect();
        let mut shadows = Vec::new();
        held.identity = Some(identity);
        let objects = held.objects.insert(Vec::new());
        for Found { object, line } in found {
            let key = Arc::clone(&object.key);
            let shadowed_by = match self.claims.get(&key) {
                None => {
                    self.claims.insert(Arc::clone(&key), Origin { path: Arc::clone(path), line });
                    step.whats.push(What::Apply(object));
                    None
                }
                Some(winner) => {
                    if !reported.contains(&(&key, &winner.path)) {
                        shadows.push((Arc::clone(&key), line, winner.clone()));
                    }
                    Some(Arc::clone(&winner.path))
                }
            };
            objects.push(Holding { key, line, shadowed_by });
        }
        step.warn_of(path, &shadows);
        step
    }

    /// Keeps what a file held, except what another file has by now.
    fn hold(&mut self, path: &Path, step: &mut Step) {
        let Some((path, _)) = self.files.get_key_value(path) else { return };
        let path = Arc::clone(path);
        let Some(held) = self.files.get_mut(&path) else { return };
        self.complete &= held.objects.is_some();
        let mut shadows = Vec::new();
        for holding in held.objects.iter_mut().flatten() {
            match self.claims.get(&holding.key) {
                None => {
                    self.claims
                        .insert(Arc::clone(&holding.key), Origin { path: Arc::clone(&path), line: holding.line });
                    step.whats.push(What::Keep(Arc::clone(&holding.key)));
                    if holding.shadowed_by.take().is_some() {
                        // What is placed is still the content of the file that had the object until now.
                        held.identity = None;
                    }
                }
                Some(winner) if holding.shadowed_by.as_ref() != Some(&winner.path) => {
                    shadows.push((Arc::clone(&holding.key), holding.line, winner.clone()));
                    holding.shadowed_by = Some(Arc::clone(&winner.path));
                }
                Some(_) => {}
            }
        }
        step.warn_of(&path, &shadows);
    }
}

fn consequence(known: bool, completed: bool) -> &'static str {
    match (known, completed) {
        (true, _) => "; what it held before stays as it is",
        (false, false) => "; until it can be read, nothing is removed",
        (false, true) => "",
    }
}

fn place(path: &Path, line: Option<u64>) -> String {
    match line {
        Some(line) => format!("{}:{line}", printable::path(path)),
        None => printable::path(path),
    }
}

fn shadow(key: &ObjectKey, path: &Path, line: u64, winner: &Origin) -> String {
    let (loser, winner) = (place(path, Some(line)), place(&winner.path, Some(winner.line)));
    format!("{loser}: {key} is left out, since {winner} has it, too, and comes first; remove or rename one of them")
}
