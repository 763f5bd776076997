//! What the pipeline tells of itself: in the log, to those who look at the endpoints, and on the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Pipeline;
use crate::bump;
use crate::object::ObjectKey;
use crate::path::RelPath;
use crate::plan::Notice;
use crate::publish::Publisher;
use crate::source::announcer::Reason;
use crate::telemetry::{Conflict, Hold, Picture, millis};

/// How many lines of a sort the log has of one object at one event, so that whoever writes the object does not fill it.
const NOTICES_MAX: usize = 10;

/// How many files that change at a time the log names, so that an object of thousands of keys does not fill it.
const NAMED_MAX: usize = 100;

impl Pipeline {
    /// A file has changed. What the first sync changes is no news.
    pub(super) fn tell_changed(&mut self, path: &RelPath, effect: bump::Effect, owner: &Arc<ObjectKey>) {
        let (event, is_removed) = match effect {
            bump::Effect::Written => ("written", false),
            bump::Effect::Removed => ("removed", true),
        };
        let verb = if is_removed { "removed" } else { "wrote" };
        let (kind, namespace, name) = owner.fields();
        // The first publish is of everything.
        let is_news = self.plan.in_sync() && (self.in_sync || self.publisher.is_none());
        if is_news {
            self.announcer.changed(owner, path, is_removed);
            self.named += 1;
        }
        if is_news && self.named <= NAMED_MAX {
            tracing::info!(event, %path, kind, namespace, name, "{verb} {path} of {owner}");
        } else {
            tracing::debug!(event, %path, kind, namespace, name, "{verb} {path} of {owner}");
        }
    }

    /// So many more files have changed at a time than the log has named.
    pub(super) fn tell_rest(&mut self) {
        if let Some(more @ 1..) = std::mem::take(&mut self.named).checked_sub(NAMED_MAX) {
            tracing::info!(event = "left_out", more, "{more} more files changed with these");
        }
    }

    /// A change is about to fail. If it is the first, and of the first sync, more depends on it than a file.
    pub(super) fn tell_if_held_up(&self) {
        if !self.in_sync && self.bump.is_some() && !self.resync.is_failing() {
            tracing::warn!(
                "the first sync is not complete while a path cannot be written: until then nobody is bumped, and a COMMAND \
                 after -- is not started"
            );
        }
    }

    /// Everything is live, but for what is held back.
    pub(super) fn tell_in_sync(&mut self) {
        // What is held back is wanted, and not there.
        let there = || self.store.owned().filter(|(path, _)| self.plan.is_live(path));
        let files = there().count();
        let objects = there().map(|(_, owner)| owner).collect::<BTreeSet<_>>().len();
        let held = self.publisher.iter().flat_map(Publisher::held).count();
        let but = if held > 0 { format!(", but for {held} that are held back") } else { String::new() };
        let held_removals = self.removals.held();
        let stay =
            if held_removals > 0 { format!(", and {held_removals} whose removal is held") } else { String::new() };
        let took = self.first_sync.end();
        let duration_ms = (!self.in_sync).then(|| millis(took));
        tracing::info!(
            event = "in_sync",
            files,
            objects,
            held,
            duration_ms,
            "in sync: {} holds {files} files of {objects} objects{but}{stay}",
            self.dir.display()
        );
    }

    /// Tells of what one event cannot have. Of an object with thousands of such keys the log shows the first of each sort.
    pub(super) fn tell_of_all(&mut self, notices: &[Notice]) {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for notice in notices {
            let count = counts.entry((notice.object(), matches!(notice, Notice::Conflict { .. }))).or_default();
            *count += 1;
            if *count <= NOTICES_MAX {
                log(notice);
            }
            self.tell_of(notice);
        }
        for ((object, _), count) in counts {
            if let Some(more @ 1..) = count.checked_sub(NOTICES_MAX) {
                let (kind, namespace, name) = object.fields();
                tracing::warn!(
                    event = "left_out",
                    kind,
                    namespace,
                    name,
                    more,
                    "{more} more of these are left out, all of {object}"
                );
            }
        }
    }

    fn tell_of(&mut self, notice: &Notice) {
        match notice {
            Notice::Conflict { path, winner, loser } => self.announcer.conflict(path, winner, loser),
            Notice::Refused { object, why } => {
                self.telemetry.refused(object, why);
                self.announcer.tell(object, Reason::Refused, why);
            }
        }
    }

    pub(super) fn report_if_in_step(&self) {
        if self.is_settled() && !self.is_all_held() {
            self.telemetry.in_step();
        }
    }

    /// What somebody asks for who looks.
    pub(super) fn picture(&self, lines_max: usize) -> Picture {
        let first_conflicts = self.plan.conflicts().take(lines_max);
        let held = || self.publisher.iter().flat_map(Publisher::held);
        let hold = |(object, why): (&Arc<ObjectKey>, &str)| Hold {
            object: Arc::clone(object),
            why: why.to_owned(),
            output: self.publisher.iter().flat_map(|publisher| publisher.output(object)).cloned().collect(),
        };
        Picture {
            files: self.store.count_owned(),
            conflicts: self.plan.conflicts().count(),
            first_conflicts: first_conflicts.map(|(path, winner, loser)| Conflict::new(path, winner, loser)).collect(),
            held_objects: held().count(),
            first_holds: held().take(lines_max).map(hold).collect(),
            held_removals: self.removals.held(),
            waits: self.waits(),
            bump_pending: self.bump.as_ref().is_some_and(|(changes, _)| !changes.is_told()),
        }
    }
}

/// Files went that nobody selected. Whoever puts very many of them there does not fill the log.
pub(super) fn tell_foreign(paths: &[String]) {
    for path in paths.iter().take(NAMED_MAX) {
        tracing::info!(event = "removed", path, "removed {path}, which nobody selected");
    }
    if let Some(more @ 1..) = paths.len().checked_sub(NAMED_MAX) {
        tracing::info!(event = "left_out", more, "removed {more} more that nobody selected");
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::Conflict { path, winner, loser } => {
            let (kind, namespace, name) = loser.fields();
            tracing::warn!(
                event = "conflict",
                %path,
                kind,
                namespace,
                name,
                %winner,
                "{winner} has {path}, so {loser} waits for it: the older object wins, then kind, namespace and name decide"
            );
        }
        Notice::Refused { object, why } => {
            let (kind, namespace, name) = object.fields();
            tracing::warn!(event = "refused", kind, namespace, name, "{object} is not followed as it asks: {why}");
        }
    }
}
