//! Removals that wait: until it is known who else may want the file, or because the brake holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::bump::governor::{Governor, Pace};
use crate::object::ObjectKey;
use crate::path::{self, RelPath};
use crate::publish::brake::{Brake, BrakeConfig, Verdict};

/// A file, and the object that it was for.
pub(super) type Removal = (RelPath, Arc<ObjectKey>);

/// The removals that wait.
#[derive(Debug)]
pub(super) struct Removals {
    waiting: BTreeMap<RelPath, Arc<ObjectKey>>,
    /// Those of them that the source was asked about because of the brake.
    asked: BTreeSet<RelPath>,
    /// With it, when to look at them.
    brake: Option<(Brake, Governor)>,
}

/// What is to be done about them.
#[derive(Debug, Default)]
pub(super) struct Release {
    /// To be carried out.
    pub go: Vec<Removal>,
    /// Whether the source is to be asked for everything, before the others are.
    pub ask: bool,
}

impl Removals {
    pub fn new(brake: Option<BrakeConfig>, pace: Pace) -> Self {
        let brake = brake.map(|config| (Brake::new(config), Governor::new(pace)));
        Self { waiting: BTreeMap::new(), asked: BTreeSet::new(), brake }
    }

    /// Whether each removal is to wait, and be seen with others.
    pub fn has_brake(&self) -> bool {
        self.brake.is_some()
    }

    pub fn push(&mut self, path: RelPath, owner: Arc<ObjectKey>) {
        // What was wanted again meanwhile is a removal of its own.
        if !self.waiting.contains_key(&path) {
            self.asked.remove(&path);
        }
        self.waiting.insert(path, owner);
        self.changed();
    }

    /// A file is to be at this path: it is not removed. Takes out what that file needs as a folder, or has as its folder.
    pub fn in_the_way_of(&mut self, path: &RelPath) -> Vec<Removal> {
        if self.waiting.remove(path).is_some() {
            self.changed();
        }
        let above = path.ancestors().filter_map(|above| self.waiting.get_key_value(above));
        let in_the_way = above.chain(path::below(&self.waiting, path.as_str()));
        let in_the_way: Vec<Removal> = in_the_way.map(|(path, owner)| (path.clone(), Arc::clone(owner))).collect();
        in_the_way.iter().for_each(|(path, _)| drop(self.waiting.remove(path)));
        in_the_way
    }

    fn changed(&mut self) {
        if let Some((_, settling)) = &mut self.brake {
            settling.changed(Instant::now());
        }
    }

    /// How many of them the brake holds.
    pub fn held(&self) -> usize {
        let is_holding = self.brake.as_ref().is_some_and(|(brake, _)| brake.is_holding());
        if is_holding { self.waiting.len() } else { 0 }
    }

    /// Waits until there is something to look at.
    pub async fn due(&self) {
        let due = self.brake.as_ref().and_then(|(brake, settling)| {
            [settling.due(), brake.due().filter(|_| !self.waiting.is_empty())].into_iter().flatten().min()
        });
        match due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Says which of them are to be carried out, beside so many files that stay; what is wanted again is forgotten.
    pub fn release(&mut self, is_wanted: impl Fn(&RelPath) -> bool, stay: usize) -> Release {
        self.waiting.retain(|path, _| !is_wanted(path));
        let count = self.waiting.len();
        let files = stay + count;
        let verdict = match &mut self.brake {
            None => Verdict::Go,
            Some((brake, settling)) => {
                settling.tries();
                let held_before = brake.is_holding();
                let verdict = brake.judge(count, files, Instant::now());
                tell(verdict, held_before, count, files, brake.config());
                verdict
            }
        };
        match verdict {
            Verdict::Go => Release { go: self.take(), ask: false },
            Verdict::Held | Verdict::StillHeld => Release::default(),
            Verdict::Ask => {
                self.asked = self.waiting.keys().cloned().collect();
                Release { go: Vec::new(), ask: true }
            }
        }
    }

    /// The source has told everything. If it had been asked because of the brake, what it was asked about and still wants
    /// removed goes; what has come since waits for a hold of its own.
    pub fn confirm(&mut self, is_wanted: impl Fn(&RelPath) -> bool) -> Vec<Removal> {
        if !self.brake.as_mut().is_some_and(|(brake, _)| brake.confirmed()) {
            return Vec::new();
        }
        self.waiting.retain(|path, _| !is_wanted(path));
        let asked = std::mem::take(&mut self.asked);
        let (go, later): (BTreeMap<_, _>, _) = self.take().into_iter().partition(|(path, _)| asked.contains(path));
        self.waiting = later;
        tracing::warn!("--max-delete: the source still says so, so {} files are removed", go.len());
        go.into_iter().collect()
    }

    fn take(&mut self) -> Vec<Removal> {
        std::mem::take(&mut self.waiting).into_iter().collect()
    }
}

fn tell(verdict: Verdict, held_before: bool, count: usize, files: usize, config: BrakeConfig) {
    match verdict {
        Verdict::Held => tracing::warn!(
            event = "removals_held",
            removals = count,
            files,
            "--max-delete: {count} of {files} files are to be removed at once, which is held for {:?}; if that is meant, \
             wait, or remove fewer at a time",
            config.hold
        ),
        Verdict::Ask => {
            tracing::info!("--max-delete: {count} of {files} files are still to be removed; asking once more");
        }
        Verdict::Go if held_before && count == 0 => {
            tracing::info!("--max-delete: what was to be removed is wanted again");
        }
        Verdict::Go | Verdict::StillHeld => {}
    }
}
